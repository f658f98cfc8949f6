"""Which Pythons and SDKs the tests of this folder run on: on `make test` the current Python only."""

from __future__ import annotations

from pathlib import Path

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


@pytest.fixture(scope="session")
def versions(python: Path) -> str:
    return environments.versions(python)


@pytest.fixture(autouse=True)
def recorded(request: pytest.FixtureRequest) -> None:
    """For the closing words, see tests/conftest.py."""
    if "python" in request.fixturenames:
        request.node.user_properties.append(("host.py ran on", request.getfixturevalue("versions")))
