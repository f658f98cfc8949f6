"""What holds for every test: nothing of the developer's own accounts, and which tests are of which kind."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, settings

from tests.sdk import environments
from tests.support.engine import Project
from tests.support.interrupts import accept_interrupts

HERE = Path(__file__).parent
# Not measurements: a hanging test must end. A folder that is not named here has what pyproject.toml says.
TIMEOUTS = {"unit": 30, "engine": 300, "docker": 600}

# Credentials, backends and contexts of the person who runs the tests must not reach them, nor their children.
for variable in list(os.environ):
    if variable.startswith(("TUTUM_", "PULUMI_", "DOCKER_")):
        del os.environ[variable]

accept_interrupts()

# No deadline: a slow machine is no failure. In CI the same examples every time, so that red means new.
settings.register_profile("local", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.register_profile("ci", settings.get_profile("local"), derandomize=True, print_blob=True)
settings.load_profile("ci" if os.environ.get("CI") else "local")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Mark tests by their folder, and put the quick ones first."""
    for item in items:
        folder = item.path.relative_to(HERE).parts[0]
        if folder in ("engine", "docker"):
            item.add_marker(folder)
        if folder in TIMEOUTS and item.get_closest_marker("timeout") is None:
            item.add_marker(pytest.mark.timeout(TIMEOUTS[folder]))
    items.sort(key=rank)


def rank(item: pytest.Item) -> tuple[bool, ...]:
    """Unit tests come first, then those without an engine, then by what they need; slow ones last."""
    marked = (item.get_closest_marker(name) is not None for name in ("slow", "docker", "engine"))
    return (*marked, "unit" not in item.path.parts)


def pytest_terminal_summary(terminalreporter: Any) -> None:
    """Which Pythons and SDKs there were, from the reports: these come from the processes of the tests."""
    reports = [report for group in terminalreporter.stats.values() for report in group]
    properties = [p for report in reports for p in getattr(report, "user_properties", ())]
    ran = sorted({value for name, value in properties if name == "host.py ran on"})
    if ran:
        terminalreporter.section("Pythons and SDKs that host.py was tested on")
        for version in environments.PYTHONS:
            found = [what for what in ran if what.startswith(f"{version}.")]
            other = "make test" if version == environments.CURRENT else "make test-slow"
            without = f"in {other}" if environments.candidates(version) else "not on this machine"
            terminalreporter.line(f"Python {version}: {', '.join(found) or without}")


@pytest.fixture
def new_project(tmp_path: Path) -> Iterator[Callable[..., Project]]:
    """Makes Pulumi projects (see `Project`), and ends what they left running."""
    projects: list[Project] = []

    def make(program: str, **options: Any) -> Project:
        projects.append(Project(tmp_path / f"project-{len(projects)}", program, **options))
        return projects[-1]

    yield make
    for project in projects:
        project.close()
