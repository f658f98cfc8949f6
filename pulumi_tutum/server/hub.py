"""Events: one dict per object and change, to everybody who listens.

Each listener has a bounded queue. One that does not read is dropped (its iteration ends), so that memory
stays flat.

A listener may name its run ("Made once": one provider host). A run lives as long as it listens.
"""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import AsyncGenerator
from typing import Any


class Hub:
    """See the module's docstring."""

    def __init__(self, size: int = 10_000) -> None:
        self._size = size
        self._queues: set[asyncio.Queue[dict[str, Any] | None]] = set()
        self._runs: Counter[str] = Counter()

    @property
    def watched(self) -> bool:
        return bool(self._queues)

    def lives(self, run: str) -> bool:
        """Whether this run listens; the nameless one never does."""
        return bool(run) and self._runs[run] > 0

    def publish(self, event: dict[str, Any]) -> None:
        for queue in list(self._queues):
            if queue.qsize() >= self._size:
                self._queues.discard(queue)
                queue.get_nowait()
                queue.put_nowait(None)
            else:
                queue.put_nowait(event)

    async def events(self, run: str = "") -> AsyncGenerator[dict[str, Any], None]:
        """Everything from the first `__anext__` on; ends when the reader was too slow, or at `close`."""
        queue = self.subscribe()
        self._runs[run] += 1
        try:
            while (event := await queue.get()) is not None:
                yield event
        finally:
            self._queues.discard(queue)
            self._runs -= Counter({run: 1})  # without those that are at 0

    def subscribe(self) -> asyncio.Queue[dict[str, Any] | None]:
        queue: asyncio.Queue[dict[str, Any] | None] = asyncio.Queue()
        self._queues.add(queue)
        return queue

    def unsubscribe(self, queue: asyncio.Queue[dict[str, Any] | None]) -> None:
        self._queues.discard(queue)

    def close(self) -> None:
        for queue in self._queues:
            queue.put_nowait(None)
        self._queues.clear()
