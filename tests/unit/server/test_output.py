"""Logs as frames, where time matters: what is asked for before there is anything."""

from __future__ import annotations

import asyncio
from typing import Any

from pulumi_tutum.server.backends import ImageInfo
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
