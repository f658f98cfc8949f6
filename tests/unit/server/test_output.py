"""Logs as frames, where time matters: what is asked for before there is anything."""

from __future__ import annotations

import asyncio
from typing import Any

from tests.unit.server.plane import REQUEST, Plane, quiet, run


def test_logs_of_a_container_that_is_not_made_yet() -> None:
    async def test() -> None:
        async with Plane(start_seconds=5.0) as plane:
            uuid = await plane.create(name="web")
            await plane.control.act("service", uuid, "start", REQUEST)
            # One step: it is placed, and the backend has not been asked yet.
            while not plane.control.listing("container"):
                await asyncio.sleep(0)
            (container,) = plane.control.listing("container")
            followed: list[dict[str, Any]] = []

            async def follow() -> None:
                async for frames in plane.control.logs("container", container["uuid"], 300, True):
                    followed.extend(frames)

            follower = asyncio.create_task(follow())
            await quiet()
            assert followed == []
            await plane.advance(10)
            assert [f["log"] for f in followed] == ["Started web-1 from acme/web:latest\n"]
            await plane.control.terminate("service", uuid, REQUEST)
            await plane.advance(10)
            await asyncio.wait_for(follower, 10)

    run(test)
