"""Logs as frames, where time matters: what is asked for before there is anything."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Mapping, Sequence
from typing import Any

from pulumi_tutum.server.backends import ImageInfo, LogLine
from pulumi_tutum.server.backends.simulated import SimulatedBackend
from pulumi_tutum.server.clock import ManualClock
from tests.unit.server.plane import REQUEST, Plane, quiet, run


class SlowRegistry(SimulatedBackend):
    """Images come when `pulled` is set."""

    def __init__(self, clock: ManualClock) -> None:
        super().__init__(1, container_start_seconds=1.0, clock=clock)
        self.pulled = asyncio.Event()

    async def image(self, image: str, node: str) -> ImageInfo:
        await self.pulled.wait()
        return await super().image(image, node)


def test_logs_of_a_container_that_is_not_made_yet() -> None:
    async def test() -> None:
        clock = ManualClock()
        backend = SlowRegistry(clock)
        async with Plane(backend=backend, clock=clock) as plane:
            uuid = await plane.create(name="web")
            await plane.control.act("service", uuid, "start", REQUEST)
            await quiet()
            (container,) = plane.control.listing("container")
            followed: list[dict[str, Any]] = []

            async def follow() -> None:
                async for frames in plane.control.logs("container", container["uuid"], 300, True):
                    followed.extend(frames)

            follower = asyncio.create_task(follow())
            await quiet()
            assert not follower.done()
            backend.pulled.set()
            await plane.advance(10)
            assert [f["log"] for f in followed] == ["Started web-1 from acme/web:latest\n"]
            await plane.control.terminate("service", uuid, REQUEST)
            await plane.advance(10)
            await asyncio.wait_for(follower, 10)

    run(test)


class Engines(SimulatedBackend):
    """Lines come as tests say: what is written before a request is read once `ready` is set for its
    container, what is written later comes without an end.

    Attributes:
        steps: how many times more was asked for, per container.
    """

    def __init__(self, clock: ManualClock, written: Mapping[str, Sequence[float]], endless: bool) -> None:
        super().__init__(1, container_start_seconds=1.0, clock=clock)
        self.written, self.endless = written, endless
        self.ready = {name: asyncio.Event() for name in written}
        self.steps = dict.fromkeys(written, 0)

    async def logs(
        self, uuid: str, *, tail: int | None, follow: bool
    ) -> AsyncGenerator[Sequence[LogLine], None]:
        name = self._containers[uuid].spec.name
        await self.ready[name].wait()
        lines = [LogLine("stdout", when, f"{when:.0f}\n") for when in self.written[name]]
        yield lines[len(lines) - min(len(lines) if tail is None else tail, len(lines)) :]
        if follow:
            yield ()
        while follow:
            await asyncio.sleep(0)
            if not self.endless:
                await asyncio.Event().wait()
            self.steps[name] += 1
            yield [LogLine("stdout", 1e12, "new\n")]


def shown(frames: list[dict[str, Any]]) -> list[tuple[str, str]]:
    return [(f["source"], f["log"]) for f in frames]


def test_the_last_lines_of_a_service_are_those_of_all_containers_together() -> None:
    """Also where an engine's clock is ahead of ours."""

    async def test() -> None:
        clock = ManualClock()
        ahead = clock.time() + 1000
        written = {"web-1": [ahead + 1, ahead + 3, ahead + 5], "web-2": [ahead + 2, ahead + 4, ahead + 6]}
        backend = Engines(clock, written, endless=False)
        async with Plane(backend=backend, clock=clock) as plane:
            uuid = await plane.up(name="web", target_num_containers=2)
            for ready in backend.ready.values():
                ready.set()
            for follow in (False, True):
                logs = plane.control.logs("service", uuid, 3, follow)
                found = shown(await asyncio.wait_for(anext(logs), 10))
                await logs.aclose()
                assert found == [
                    (n, f"{ahead + t:.0f}\n") for n, t in (("web-2", 4), ("web-1", 5), ("web-2", 6))
                ]

    run(test)


def test_old_lines_come_before_new_ones_however_slow_an_engine_is() -> None:
    async def test() -> None:
        clock = ManualClock()
        backend = Engines(clock, {"web-1": [1, 3], "web-2": [2, 4]}, endless=True)
        async with Plane(backend=backend, clock=clock) as plane:
            uuid = await plane.up(name="web", target_num_containers=2)
            loop = asyncio.get_running_loop()
            real, later = loop.time, 0.0
            loop.time = lambda: real() + later  # type: ignore[method-assign]
            backend.ready["web-1"].set()
            logs = plane.control.logs("service", uuid, 300, True)
            first = asyncio.ensure_future(anext(logs))
            # The fast one is not read on meanwhile, so that nothing piles up.
            for _ in range(1000):
                await asyncio.sleep(0)
            assert not first.done()
            assert backend.steps["web-1"] <= 1
            later = 2.0
            for _ in range(1000):
                await asyncio.sleep(0)
            assert not first.done()
            backend.ready["web-2"].set()
            assert shown(await asyncio.wait_for(first, 10)) == [
                ("web-1", "1\n"),
                ("web-2", "2\n"),
                ("web-1", "3\n"),
                ("web-2", "4\n"),
            ]
            assert (await asyncio.wait_for(anext(logs), 10))[0]["log"] == "new\n"
            await logs.aclose()

    run(test)


def test_an_engine_that_does_not_answer_does_not_hold_up_the_others() -> None:
    async def test() -> None:
        clock = ManualClock()
        backend = Engines(clock, {"web-1": [1, 3], "web-2": [2, 4]}, endless=False)
        async with Plane(backend=backend, clock=clock) as plane:
            uuid = await plane.up(name="web", target_num_containers=2)
            loop = asyncio.get_running_loop()
            real, later = loop.time, 0.0
            loop.time = lambda: real() + later  # type: ignore[method-assign]
            backend.ready["web-1"].set()
            logs = plane.control.logs("service", uuid, 300, True)
            first = asyncio.ensure_future(anext(logs))
            for _ in range(100):
                await asyncio.sleep(0)
            later = 60.0
            assert shown(await asyncio.wait_for(first, 100)) == [("web-1", "1\n"), ("web-1", "3\n")]
            backend.ready["web-2"].set()
            assert shown(await asyncio.wait_for(anext(logs), 100)) == [("web-2", "2\n"), ("web-2", "4\n")]
            await logs.aclose()

    run(test)
