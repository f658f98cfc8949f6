"""Time, as the control plane sees it: now, and "call me later". Tests put a clock in its place that they
move by hand.
"""

from __future__ import annotations

import asyncio
import heapq
import itertools
import time
from collections.abc import Awaitable, Callable
from typing import Any, Protocol, TypeVar

from anyio import fail_after, move_on_after

T = TypeVar("T")


class Timer(Protocol):
    """A call that is to come."""

    def cancel(self) -> None: ...


class Clock(Protocol):
    """What the control plane and the simulated backend know of time."""

    def time(self) -> float:
        """Seconds since the epoch."""
        ...

    def call_later(self, seconds: float, call: Callable[..., object], *args: Any) -> Timer:
        """Call on the event loop, after that many seconds of monotonic time: a jump of the wall clock
        changes nothing.
        """
        ...


class LoopClock:
    """The real one."""

    def time(self) -> float:
        return time.time()

    def call_later(self, seconds: float, call: Callable[..., object], *args: Any) -> Timer:
        return asyncio.get_running_loop().call_later(seconds, call, *args)


class _ManualTimer:
    __slots__ = ("args", "call")

    def __init__(self, call: Callable[..., object], args: tuple[Any, ...]) -> None:
        self.call: Callable[..., object] | None = call
        self.args = args

    def cancel(self) -> None:
        self.call = None


class ManualClock:
    """Stands still until `advance` is called. `now` begins at a fixed date, so that tests can name dates."""

    def __init__(self, now: float = 1_437_839_878.0) -> None:
        self.now = now
        self._due: list[tuple[float, int, _ManualTimer]] = []
        self._order = itertools.count()

    def time(self) -> float:
        return self.now

    def call_later(self, seconds: float, call: Callable[..., object], *args: Any) -> Timer:
        timer = _ManualTimer(call, args)
        heapq.heappush(self._due, (self.now + max(seconds, 0.0), next(self._order), timer))
        return timer

    def next_due(self) -> float | None:
        """When the next call is to come, or None."""
        while self._due and self._due[0][2].call is None:
            heapq.heappop(self._due)
        return self._due[0][0] if self._due else None

    def advance(self, seconds: float) -> None:
        """Move on, and make every call that falls due on the way, in order."""
        end = self.now + seconds
        while (due := self.next_due()) is not None and due <= end:
            _, _, timer = heapq.heappop(self._due)
            self.now = max(self.now, due)
            if timer.call is not None:
                timer.call(*timer.args)
        self.now = end


async def sleep(clock: Clock, seconds: float) -> None:
    """`asyncio.sleep` by a clock."""
    future: asyncio.Future[None] = asyncio.get_running_loop().create_future()
    timer = clock.call_later(seconds, lambda: None if future.done() else future.set_result(None))
    try:
        await future
    finally:
        timer.cancel()


async def at_most(seconds: float | None, work: Awaitable[T]) -> T:
    """Wait for `work`, but no longer than `seconds`, and return its result.

    Use this in place of `asyncio.wait_for`. Before Python 3.12 `asyncio.wait_for` ignores a cancellation that
    comes at the same moment as the result, and the cancelled task goes on.

    Args:
        seconds: None means no limit.

    Raises:
        TimeoutError: `work` took longer, and was cancelled.
    """
    with fail_after(seconds):
        return await work


async def is_set_within(seconds: float, event: asyncio.Event) -> bool:
    """Wait until an event is set, but no longer than `seconds`; returns whether it is set."""
    with move_on_after(seconds):
        await event.wait()
    return event.is_set()
