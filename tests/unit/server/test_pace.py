"""The times between looks at what tells nobody when it is done."""

from __future__ import annotations

import itertools

import pytest

from pulumi_tutum.server.backends.pace import Pace


def looks(pace: Pace, took: float) -> list[float]:
    """When it is looked at something that takes so long, until it is seen to be done."""
    found = [pace.first]
    while found[-1] < took:
        found.append(found[-1] + pace.pause(found[-1]))
    return found


def test_looks_become_rarer_the_longer_it_takes() -> None:
    found = looks(Pace(0.15, 0.5), 60)
    gaps = [round(b - a, 6) for a, b in itertools.pairwise(found)]
    assert gaps[0] == pytest.approx(0.15)
    assert gaps[-1] == pytest.approx(0.5)
    assert gaps == sorted(gaps)


def test_the_first_look_follows_from_the_fastest_of_those_before() -> None:
    pace = Pace(0.15, 0.5, 2.0)
    assert pace.first == 2.0
    for seconds in (4.0, 3.0, 5.0):
        pace.learn(seconds)
    assert pace.first == pytest.approx(2.4)
    assert len(looks(pace, 3.1)) < len(looks(Pace(0.15, 0.5), 3.1)) / 3
    pace.learn(0.0)
    assert pace.first == 0.15
    for _ in range(100):
        pace.learn(1.0)
    assert pace.first == pytest.approx(0.8), "what was long ago does not count"


def test_what_is_done_is_seen_soon() -> None:
    for took in (0.1, 0.7, 1.3, 2.9, 8.0):
        pace = Pace(0.15, 0.5)
        pace.learn(took)
        assert looks(pace, took)[-1] - took <= max(0.15, 0.1 * took)
