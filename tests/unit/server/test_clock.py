"""Waiting with a limit."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable

import pytest

from pulumi_tutum.server.clock import at_most, is_set_within
from tests.unit.server.plane import run


def test_the_result_or_the_end_of_the_time() -> None:
    async def test() -> None:
        event = asyncio.Event()
        with pytest.raises(TimeoutError):
            await at_most(0.01, event.wait())
        event.set()
        assert await at_most(10, event.wait()) is True
        assert await at_most(None, event.wait()) is True

    run(test)


def test_an_event_or_the_end_of_the_time() -> None:
    async def test() -> None:
        event = asyncio.Event()
        assert await is_set_within(0.01, event) is False
        event.set()
        assert await is_set_within(10, event) is True

    run(test)


@pytest.mark.parametrize("steps", range(6))
@pytest.mark.parametrize(
    "waits", [lambda event: at_most(10, event.wait()), lambda event: is_set_within(10, event)]
)
def test_a_cancellation_counts_also_at_the_moment_of_the_result(
    waits: Callable[[asyncio.Event], Awaitable[bool]], steps: int
) -> None:
    # Before Python 3.12 `asyncio.wait_for` returns the result.
    async def test() -> None:
        event, goes_on = asyncio.Event(), asyncio.Event()

        async def wait() -> None:
            await waits(event)
            goes_on.set()
            await asyncio.sleep(10)

        task = asyncio.get_running_loop().create_task(wait())
        await asyncio.sleep(0)
        await asyncio.sleep(0)
        event.set()
        for _ in range(steps):
            await asyncio.sleep(0)
        had_gone_on = goes_on.is_set()
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await asyncio.wait_for(task, 1)
        assert goes_on.is_set() == had_gone_on

    run(test)
