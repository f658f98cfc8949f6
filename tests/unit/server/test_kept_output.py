"""The output of containers that are gone stays readable, within bounds, and holds up no removal."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Sequence
from pathlib import Path
from typing import Any

import pytest

from pulumi_tutum.errors import BackendError
from pulumi_tutum.server import kept_output
from pulumi_tutum.server.backends import LogLine
from pulumi_tutum.server.backends.simulated import SimulatedBackend
from pulumi_tutum.server.clock import ManualClock
from pulumi_tutum.server.store import SqliteStore
from tests.unit.server.plane import Plane, quiet, run


async def logs(plane: Plane, kind: str, uuid: str, tail: int | None = 300, follow: bool = False) -> list[str]:
    """The lines of all frames, until the stream ends by itself."""
    found: list[str] = []
    async for frames in plane.control.logs(kind, uuid, tail, follow):
        found += [frame["log"] for frame in frames]
    return found


def job(code: int = 0, autodestroy: str = "ALWAYS", **variables: str) -> dict[str, Any]:
    environment = {"EXIT": str(code), "EXIT_AFTER": "0", **variables}
    return {
        "name": "job",
        "autodestroy": autodestroy,
        "container_envvars": {f"SIMULATE_{name}": value for name, value in environment.items()},
    }


def container_of(plane: Plane, service: str) -> str:
    """The uuid of the one container that a service had."""
    found = plane.control.listing("container", {"service": f"/api/v1/service/{service}/"})
    (container,) = found[:]
    assert container["state"] == "Terminated"
    return str(container["uuid"])


SAID = ["Started job-1 from acme/web:latest\n", "Exited with code 0\n"]


@pytest.mark.parametrize("follow", [False, True])
def test_the_output_of_a_job_outlives_its_container(follow: bool) -> None:
    async def test() -> None:
        async with Plane() as plane:
            uuid = await plane.up(**job(autodestroy="ON_SUCCESS"))
            assert plane.state(uuid) == "Not running"
            container = container_of(plane, uuid)
            assert await logs(plane, "container", container, follow=follow) == SAID
            assert await logs(plane, "container", container, 1, follow) == SAID[1:]
            assert await logs(plane, "container", container, 0, follow) == []
            assert await logs(plane, "service", uuid) == SAID
            assert await logs(plane, "service", uuid, 1) == SAID[1:]
            # It is no part of any object.
            for shown in (plane.get(uuid), plane.control.detail("container", container)):
                assert "Exited with code" not in str(shown)
            await plane.act_and_wait(uuid, "terminate")
            assert await logs(plane, "service", uuid, follow=follow) == SAID

    run(test)


def test_a_follower_gets_the_kept_lines_and_then_new_ones() -> None:
    async def test() -> None:
        async with Plane() as plane:
            uuid = await plane.up(**job())
            found: list[str] = []

            async def follow() -> None:
                found.extend(await logs(plane, "service", uuid, follow=True))

            follower = asyncio.create_task(follow())
            await quiet()
            await plane.patch(uuid, container_envvars={})
            await plane.act(uuid, "start")
            await plane.advance(5)
            await plane.act_and_wait(uuid, "terminate")
            await asyncio.wait_for(follower, 10)
            assert found == [*SAID, SAID[0]]

    run(test)


def test_a_container_that_failed_and_is_replaced_leaves_its_output() -> None:
    async def test() -> None:
        async with Plane() as plane:
            uuid = await plane.up(**job(3, "OFF"))
            assert plane.state(uuid) == "Stopped"
            (failed,) = [c["uuid"] for c in plane.containers(uuid)]
            await plane.patch(uuid, container_envvars={})
            await plane.act_and_wait(uuid, "redeploy")
            said = [SAID[0], "Exited with code 3\n"]
            assert await logs(plane, "container", failed) == said
            assert await logs(plane, "service", uuid) == [*said, SAID[0]], "in order of time"

    run(test)


def test_what_runs_well_until_it_is_removed_leaves_nothing() -> None:
    async def test() -> None:
        async with Plane() as plane:
            uuid = await plane.up()
            await plane.act_and_wait(uuid, "redeploy")
            await plane.act_and_wait(uuid, "terminate")
            assert await logs(plane, "service", uuid) == []

    run(test)


def test_kept_output_survives_a_restart_and_ends_with_the_record(tmp_path: Path) -> None:
    async def test() -> None:
        clock = ManualClock()
        async with Plane(store=SqliteStore(tmp_path), clock=clock, retain_terminated=600) as plane:
            uuid = await plane.up(**job())
            container = container_of(plane, uuid)
        # The timers of a server end with its process.
        clock = ManualClock(clock.now)
        async with Plane(store=SqliteStore(tmp_path), clock=clock, retain_terminated=600) as plane:
            assert await logs(plane, "container", container) == SAID
            await plane.advance(599 - 5)
            assert await logs(plane, "service", uuid) == SAID
            await plane.advance(10)
            assert await logs(plane, "service", uuid) == []
        store = SqliteStore(tmp_path)
        assert "Exited with code" not in "".join(row.data for row in store.load())
        store.close()

    run(test)


class Printing(SimulatedBackend):
    """Containers have written what a test says; reading it may fail, or never end."""

    def __init__(self, clock: ManualClock) -> None:
        super().__init__(1, container_start_seconds=1.0, clock=clock)
        self.lines: Sequence[LogLine] = ()
        self.error: Exception | None = None
        self.hangs = False

    async def logs(
        self, uuid: str, *, tail: int | None, follow: bool
    ) -> AsyncGenerator[Sequence[LogLine], None]:
        if uuid in self._containers:
            yield self.lines if tail is None else self.lines[-tail:]
        if self.error is not None:
            raise self.error
        if self.hangs:
            await asyncio.Event().wait()


def printed(*texts: str) -> list[LogLine]:
    return [LogLine("stdout", float(number), text) for number, text in enumerate(texts)]


@pytest.mark.parametrize(
    ("texts", "kept"),
    [
        ([f"{n}\n" for n in range(3000)], [f"{n}\n" for n in range(2000, 3000)]),
        (["x" * 100_000 + "\n"] * 5, ["x" * 100_000 + "\n"] * 2),
        (["first\n", "\u00e4" * 200_000 + "last\n"], ["\u00e4" * ((kept_output.BYTES - 5) // 2) + "last\n"]),
        (["\ud800\n", "\0\n"], ["\ud800\n", "\0\n"]),
    ],
)
def test_the_last_lines_are_kept_within_the_bounds(texts: list[str], kept: list[str], tmp_path: Path) -> None:
    async def test() -> None:
        clock = ManualClock()
        backend = Printing(clock)
        backend.lines = printed(*texts)
        async with Plane(backend=backend, clock=clock, store=SqliteStore(tmp_path)) as plane:
            uuid = await plane.up(**job())
            assert await logs(plane, "container", container_of(plane, uuid), None) == kept

    run(test)


def test_the_newest_outputs_are_kept_within_the_bound_of_all() -> None:
    async def test() -> None:
        clock = ManualClock()
        backend = Printing(clock)
        backend.lines = printed("x" * (kept_output.BYTES - 1) + "\n")
        number = kept_output.TOTAL_BYTES // kept_output.BYTES
        async with Plane(backend=backend, clock=clock) as plane:
            uuid = await plane.up(**job(), target_num_containers=number)
            assert len(await logs(plane, "service", uuid, None)) == number
            backend.lines = printed("new\n")
            await plane.act_and_wait(uuid, "start")
            found = await logs(plane, "service", uuid, None)
            assert found.count("new\n") == number
            assert len(found) == 2 * number - 1, "the oldest made room"

    run(test)


@pytest.mark.parametrize(
    "error", [BackendError("the engine does not answer", transient=True), RuntimeError("a mistake")]
)
def test_output_that_cannot_be_read_does_not_keep_a_container(error: Exception) -> None:
    async def test() -> None:
        clock = ManualClock()
        backend = Printing(clock)
        backend.lines, backend.error = printed("a beginning\n"), error
        async with Plane(backend=backend, clock=clock) as plane:
            uuid = await plane.up(**job())
            container = container_of(plane, uuid)
            backend.error = None
            assert await logs(plane, "container", container) == ["a beginning\n"]

    run(test)


def test_an_engine_that_never_ends_its_answer_holds_a_removal_up_for_a_while_only() -> None:
    async def test() -> None:
        clock = ManualClock()
        backend = Printing(clock)
        backend.lines, backend.hangs = printed("a beginning\n"), True
        async with Plane(backend=backend, clock=clock) as plane:
            uuid = await plane.up(**job())
            loop = asyncio.get_running_loop()
            real = loop.time
            loop.time = lambda: real() + kept_output.SECONDS  # type: ignore[method-assign]
            for _ in range(1000):
                await asyncio.sleep(0)
            await plane.advance(0)
            container_of(plane, uuid)

    run(test)
