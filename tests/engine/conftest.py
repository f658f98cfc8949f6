"""Scenarios on the real engine: each a stack of its own, on a control plane that a module's tests share."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.support.scenario import Scenario
from tests.support.server import Server


@pytest.fixture(scope="module")
def plane() -> Iterator[Server]:
    """Three nodes, of which one has the tags front and eu, and containers that start at once."""
    with Server(container_start_seconds=0.02, node=["a=front,eu", "b=back", "c"]) as running:
        yield running


@pytest.fixture(scope="module")
def impatient() -> Iterator[Server]:
    """Gives up a start after some seconds, for those that hang."""
    with Server(container_start_seconds=0.02, start_timeout=8, node=["a=front", "b=back", "c"]) as running:
        yield running


@pytest.fixture
def new_scenario(
    plane: Server, tmp_path: Path, request: pytest.FixtureRequest
) -> Iterator[Callable[..., Scenario]]:
    """Makes scenarios on `plane`, each with a project name of its own unless one is given."""
    made: list[Scenario] = []
    words = re.sub(r"\W+", "-", request.node.name)[:40]

    def make(server: Server = plane, **options: Any) -> Scenario:
        options.setdefault("name", f"{words}-{len(made)}")
        made.append(Scenario(tmp_path / f"scenario-{len(made)}", server, **options))
        return made[-1]

    yield make
    for scenario in made:
        scenario.close()
    for scenario in made:
        key = scenario.server.apikey
        assert not [path for path, text in scenario.project.written() if key in text], "the key is written"


@pytest.fixture
def scenario(new_scenario: Callable[..., Scenario]) -> Scenario:
    return new_scenario()
