"""Logs as the stream's frames: of a container, of all containers of a service, of an action."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Any

from ..errors import BackendError
from ..lifecycle import TERMINATED
from .core import Core
from .model import Action, Container

Frame = dict[str, Any]
#: Lines that wait for a slow reader, per reader; then the containers' streams are read no further.
_WAITING = 1000


class Output:
    """See the module's docstring. A frame is `{type, source, log, streamType, timestamp}`."""

    def __init__(self, core: Core) -> None:
        self.core = core

    async def of_container(self, uuid: str, tail: int | None, follow: bool) -> AsyncIterator[Frame]:
        container = self.core.container(uuid)
        async for frame in self._lines(container, tail, follow):
            frame.pop("source")
            frame.pop("_at")
            yield frame

    async def _lines(self, c: Container, tail: int | None, follow: bool) -> AsyncIterator[Frame]:
        if c.spec is None:
            return
        try:
            async for line in self.core.backend.logs(c.uuid, tail=tail, follow=follow):
                yield {
                    "type": "log",
                    "source": c.name,
                    "log": line.text,
                    "streamType": line.stream,
                    "timestamp": int(line.timestamp),
                    "_at": line.timestamp,
                }
        except BackendError:
            return

    async def of_service(self, uuid: str, tail: int | None, follow: bool) -> AsyncIterator[Frame]:
        """The last `tail` lines of all containers together, in order of time; then, with `follow`, what they
        write, those that come later included, until the service is terminated."""
        service = self.core.service(uuid)
        first = self.core.records.containers_of(service.uuid)
        if not follow:
            lines = [frame for c in first async for frame in self._lines(c, tail, False)]
            for frame in _last(lines, tail):
                yield frame
            return
        queue: asyncio.Queue[Frame | None] = asyncio.Queue(maxsize=_WAITING)
        news = self.core.hub.subscribe()
        readers: dict[str, asyncio.Task[None]] = {}
        watcher: asyncio.Task[None] | None = None

        async def read(c: Container, tail: int | None) -> None:
            async for frame in self._lines(c, tail, True):
                await queue.put(frame)

        async def watch() -> None:
            while service.state != TERMINATED and (event := await news.get()) is not None:
                if event["type"] == "container" and event["parents"][0].endswith(f"/{service.uuid}/"):
                    begin(None)
                if service.state == TERMINATED:
                    break
            await asyncio.gather(*readers.values(), return_exceptions=True)
            await queue.put(None)

        def begin(tail: int | None) -> None:
            for c in self.core.records.containers_of(service.uuid):
                if c.uuid not in readers and c.spec is not None and c.status:
                    readers[c.uuid] = asyncio.get_running_loop().create_task(read(c, tail))

        try:
            old = [frame for c in first async for frame in self._lines(c, tail, False)]
            for frame in _last(old, tail):
                yield frame
            # Lines that were written between the two readings would be lost: begin() reads on from the tail's
            # end.
            begin(0)
            watcher = asyncio.get_running_loop().create_task(watch())
            while (line := await queue.get()) is not None:
                line.pop("_at", None)
                yield line
        finally:
            self.core.hub.unsubscribe(news)
            for task in (*readers.values(), *((watcher,) if watcher else ())):
                task.cancel()

    async def of_action(self, action: Action, follow: bool) -> AsyncIterator[Frame]:
        """What an action did: a line at its begin, one at its end."""
        news = self.core.hub.subscribe() if follow else None
        try:
            yield {
                "type": "log",
                "log": f"{action.action}: {action.object}\n",
                "timestamp": int(action.start),
            }
            while news is not None and action.end is None:
                if await news.get() is None:
                    return
            if action.end is not None:
                reason = f": {action.error}" if action.error else ""
                yield {"type": "log", "log": f"{action.state}{reason}\n", "timestamp": int(action.end)}
        finally:
            if news is not None:
                self.core.hub.unsubscribe(news)


def _last(lines: list[Frame], tail: int | None) -> list[Frame]:
    lines.sort(key=lambda frame: frame["_at"])
    kept = lines if tail is None else lines[len(lines) - min(tail, len(lines)) :]
    return [{k: v for k, v in frame.items() if k != "_at"} for frame in kept]
