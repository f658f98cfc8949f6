"""Which Pythons and SDKs the tests of this folder run on: on `make test` the current Python only."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from tests.sdk import environments

HERE = Path(__file__).parent


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    if "python" in metafunc.fixturenames:
        combinations = [
            pytest.param(
                (version, sdk),
                id=f"py{version}-sdk-{sdk}",
                marks=[] if version == environments.CURRENT else [pytest.mark.slow],
            )
            for version in environments.PYTHONS
            if environments.candidates(version)
            for sdk in (environments.OLDEST, environments.NEWEST)
        ]
        metafunc.parametrize("python", combinations, indirect=True, scope="session")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        if HERE in item.path.parents:
            item.add_marker(pytest.mark.sdk)


@pytest.fixture(scope="session")
def python(request: pytest.FixtureRequest) -> Path:
    """An interpreter that has the SDK."""
    version, sdk = request.param
    return environments.environment(version, sdk)


def pytest_terminal_summary(terminalreporter: Any) -> None:
    if environments.ran:
        terminalreporter.section("Pythons and SDKs that host.py was tested on")
        for version in environments.PYTHONS:
            found = [
                what for label, what in environments.ran.items() if label.startswith(f"Python {version},")
            ]
            without = "not asked for" if environments.candidates(version) else "not on this machine"
            terminalreporter.line(f"Python {version}: {'; '.join(found) or without}")
