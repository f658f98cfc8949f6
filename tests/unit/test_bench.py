"""The core of the benchmarks: what a row says, and that every group can be run."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from bench.measure import Line, Row, Run, Skipped, as_json, by_turns, markdown, percentile, ratio
from bench.run import GROUPS, group


def test_every_group_is_there() -> None:
    for name in GROUPS:
        assert callable(group(name))


def test_samples_are_taken_by_turns() -> None:
    taken: list[str] = []

    def ours() -> float:
        taken.append("ours")
        return 3.0

    def peer() -> float:
        taken.append("peer")
        return 2.0

    assert by_turns(Run(Path(), times=3), ours, peer) == ([3.0] * 3, [2.0] * 3)
    assert taken == ["ours", "peer"] * 3


@pytest.mark.parametrize(
    ("goal", "at_least", "met"),
    [(1.5, False, True), (1.4, False, False), (1.5, True, True), (1.6, True, False)],
)
def test_a_goal_is_met_or_missed(goal: float, at_least: bool, met: bool) -> None:
    row = ratio("x", "what", "s", ([3.0, 9.0, 1.0], [1.0]), goal=goal, at_least=at_least, peer_adds=1.0)
    assert row.result == 1.5
    assert row.met is met
    assert row.spread == (1.0, 9.0)


def test_without_a_peer_the_figure_is_the_result() -> None:
    assert Row("x", "what", "ms", 40.0, goal=50.0).met
    assert Row("x", "what", "ms", 40.0).met is None


def test_percentile() -> None:
    assert percentile([float(n) for n in range(101)], 0.95) == 95.0
    assert percentile([7.0], 0.95) == 7.0


def test_table_and_json() -> None:
    lines: list[Line] = [
        Row("a", "ours / peer", "s", 3.0, 2.0, goal=1.15, note="a note"),
        Skipped("docker", "x", "no engine"),
    ]
    table = markdown(lines)
    assert "| a | ours / peer | 3 s | 2 s | 1.50 | at most 1.15 | **missed**; a note |" in table
    assert "| docker | x | - | - | skipped | - | no engine |" in table
    first, second = json.loads(json.dumps(as_json(lines)))
    assert (first["result"], first["met"]) == (1.5, False)
    assert second["reason"] == "no engine"
