"""The Docker and swarm backends beside `docker` itself."""

from __future__ import annotations

from collections.abc import Iterator

from .measure import Line, Run, Skipped


def docker(run: Run) -> Iterator[Line]:
    yield Skipped("docker", "the Docker backend", "not measured yet")


def swarm(run: Run) -> Iterator[Line]:
    yield Skipped("swarm", "the swarm backend", "not measured yet")


def logs(run: Run) -> Iterator[Line]:
    yield Skipped("logs", "log lines a second", "not measured yet")
