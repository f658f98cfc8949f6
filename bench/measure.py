"""The small core of the benchmarks: measure two things by turns, and put the results into a table.

Only ratios travel between machines. So a figure stands beside a peer's that was measured in the same run, by
turns with it: whatever else the machine does hits both alike. A figure is the median of its samples.
"""

from __future__ import annotations

import dataclasses
import statistics
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

#: A sample is a figure, or several figures of one run.
_Sample = TypeVar("_Sample")


@dataclass(frozen=True)
class Run:
    """How to measure.

    Attributes:
        folder: a temporary folder, removed at the end.
        times: samples of each figure.
        quick: fewer samples and smaller numbers, to see that everything works; the figures mean little.
        plugin: the `pulumi-resource-docker` that the user named.
    """

    folder: Path
    times: int = 5
    quick: bool = False
    plugin: Path | None = None

    def scaled(self, number: int) -> int:
        """A number of services or requests: a tenth of it when quick."""
        return max(1, number // 10) if self.quick else number


@dataclass(frozen=True)
class Row:
    """One line of the table: a figure of ours, a peer's, and their ratio.

    Attributes:
        group: what `--only` calls it.
        what: what is measured / what the peer is.
        ours, peer: medians, in `unit`. A peer of None: there is none, and the figure stands alone.
        goal: what the ratio (without a peer: the figure) should be at most, or at least when `at_least`.
        spread: lowest and highest sample of ours.
        note: a remark in a few words.
    """

    group: str
    what: str
    unit: str
    ours: float
    peer: float | None = None
    goal: float | None = None
    at_least: bool = False
    spread: tuple[float, float] | None = None
    note: str = ""

    @property
    def result(self) -> float:
        return self.ours if self.peer is None else self.ours / self.peer

    @property
    def met(self) -> bool | None:
        """Whether the goal is reached; None without a goal."""
        if self.goal is None:
            return None
        return self.result >= self.goal if self.at_least else self.result <= self.goal


@dataclass(frozen=True)
class Skipped:
    """A line that was not measured, and why."""

    group: str
    what: str
    reason: str


class Missing(Exception):
    """A group cannot be measured here: why, in one line."""


Line = Row | Skipped
Group = Callable[[Run], Iterator[Line]]


def by_turns(
    run: Run, ours: Callable[[], _Sample], peer: Callable[[], _Sample]
) -> tuple[list[_Sample], list[_Sample]]:
    """Samples of two metrics, taken by turns."""
    a: list[_Sample] = []
    b: list[_Sample] = []
    for _ in range(run.times):
        a.append(ours())
        b.append(peer())
    return a, b


def ratio(
    group: str,
    what: str,
    unit: str,
    samples: tuple[Sequence[float], Sequence[float]],
    *,
    goal: float | None = None,
    at_least: bool = False,
    peer_adds: float = 0.0,
    note: str = "",
) -> Row:
    """The row of two lists of samples. `peer_adds` is added to the peer: a wait that nothing can shorten."""
    ours, peer = samples
    return Row(
        group,
        what,
        unit,
        statistics.median(ours),
        statistics.median(peer) + peer_adds,
        goal=goal,
        at_least=at_least,
        spread=(min(ours), max(ours)),
        note=note,
    )


def seconds(action: Callable[[], object]) -> float:
    """How long a call takes."""
    began = time.perf_counter()
    action()
    return time.perf_counter() - began


def percentile(samples: Sequence[float], share: float) -> float:
    """The sample below which a share (0 to 1) of all samples is."""
    ordered = sorted(samples)
    return ordered[min(len(ordered) - 1, round(share * (len(ordered) - 1)))]


def median(samples: Sequence[float]) -> float:
    return statistics.median(samples)


def say(text: str) -> None:
    """A line about the progress, on standard error."""
    print(f"bench: {text}", file=sys.stderr, flush=True)


def markdown(lines: Sequence[Line]) -> str:
    """The table of results."""
    out = ["| | measured / peer | ours | peer | result | goal | |", "|---|---|---|---|---|---|---|"]
    for line in lines:
        if isinstance(line, Skipped):
            out.append(f"| {line.group} | {line.what} | - | - | skipped | - | {line.reason} |")
            continue
        sign = "at least" if line.at_least else "at most"
        goal = "-" if line.goal is None else f"{sign} {line.goal:g}"
        verdict = {None: "", True: "reached", False: "**missed**"}[line.met]
        peer = "-" if line.peer is None else f"{_figure(line.peer)} {line.unit}"
        shown = f"{_figure(line.ours)} {line.unit}"
        if line.spread:
            shown += f" ({_figure(line.spread[0])} to {_figure(line.spread[1])})"
        result = f"{line.result:.2f}" if line.peer is not None else _figure(line.ours)
        remark = "; ".join(part for part in (verdict, line.note) if part)
        out.append(f"| {line.group} | {line.what} | {shown} | {peer} | {result} | {goal} | {remark} |")
    return "\n".join(out) + "\n"


def as_json(lines: Sequence[Line]) -> list[dict[str, object]]:
    """The results as plain values."""
    out: list[dict[str, object]] = []
    for line in lines:
        values: dict[str, object] = dataclasses.asdict(line)
        if isinstance(line, Row):
            values |= {"result": line.result, "met": line.met}
        out.append(values)
    return out


def _figure(value: float) -> str:
    return f"{value:,.0f}" if abs(value) >= 100 else f"{value:.3g}"
