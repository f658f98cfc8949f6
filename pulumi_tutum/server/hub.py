"""Events: one dict per object and change, to everybody who listens.

Each listener has a bounded queue. One that does not read is dropped (its iteration ends), so that memory
stays flat.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Any


class Hub:
    """See the module's docstring."""

    def __init__(self, size: int = 10_000) -> None:
        self._size = size
        self._queues: set[asyncio.Queue[dict[str, Any] | None]] = set()

    @property
    def watched(self) -> bool:
        return bool(self._queues)

    def publish(self, event: dict[str, Any]) -> None:
        for queue in list(self._queues):
            if queue.qsize() >= self._size:
                self._queues.discard(queue)
                queue.get_nowait()
                queue.put_nowait(None)
            else:
                queue.put_nowait(event)

    async def events(self) -> AsyncIterator[dict[str, Any]]:
        """Everything from the first `__anext__` on; ends when the reader was too slow, or at `close`."""
        queue = self.subscribe()
        try:
            while (event := await queue.get()) is not None:
                yield event
        finally:
            self._queues.discard(queue)

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
