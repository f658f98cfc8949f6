"""Logs as the stream's frames: of a container, of all containers of a service, of an action.

Frames come in lists: with many lines, a step of an iterator costs more than what it carries. When a log is
followed, the first list, maybe an empty one, says that no line that is written from now on will be missed.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncGenerator, Sequence
from typing import Any

from ..errors import BackendError
from ..lifecycle import TERMINATED
from .backends import LogLine
from .clock import at_most
from .core import Core
from .model import Action, Container

Frame = dict[str, Any]
Frames = AsyncGenerator[list[Frame], None]
#: Batches that wait for a slow reader, per reader; then the containers' streams are read no further.
_WAITING = 8
#: So many seconds of silence, and those that have not told yet what they wrote before hold up the others no
#: longer: their engine does not answer.
_PATIENCE = 5.0


class Output:
    """See the module's docstring. A frame is `{type, source, log, streamType, timestamp}`."""

    def __init__(self, core: Core) -> None:
        self.core = core

    async def of_container(self, uuid: str, tail: int | None, follow: bool) -> Frames:
        container = self.core.container(uuid)
        if follow and not container.status:
            # All that it will write is new.
            tail = None
            yield []
            await self._made(container)
        async with contextlib.aclosing(_lines(self.core, container, tail, follow)) as source:
            async for lines in source:
                yield [_frame(line) for line in lines]

    async def _made(self, container: Container) -> None:
        """Return when the backend has the container, or will not have it."""
        if container.status or not container.live:
            return
        news = self.core.hub.subscribe()
        try:
            while container.live and not container.status and await news.get() is not None:
                pass
        finally:
            self.core.hub.unsubscribe(news)

    async def of_service(self, uuid: str, tail: int | None, follow: bool) -> Frames:
        """The last `tail` lines of all containers together, in order of time; then, with `follow`, what they
        write, those that come later included, until the service is terminated."""
        merged = _Merged(self.core, self.core.service(uuid).uuid, tail, follow)
        try:
            async for batch in merged.batches():
                yield batch
        finally:
            merged.close()

    async def of_action(self, action: Action, follow: bool) -> Frames:
        """What an action did: a line at its begin, one at its end."""
        news = self.core.hub.subscribe() if follow else None
        try:
            text = f"{action.action}: {action.object}\n"
            yield [{"type": "log", "log": text, "timestamp": int(action.start)}]
            while news is not None and action.end is None:
                if await news.get() is None:
                    return
            if action.end is not None:
                reason = f": {action.error}" if action.error else ""
                text = f"{action.state}{reason}\n"
                yield [{"type": "log", "log": text, "timestamp": int(action.end)}]
        finally:
            if news is not None:
                self.core.hub.unsubscribe(news)


async def _lines(
    core: Core, container: Container, tail: int | None, follow: bool
) -> AsyncGenerator[Sequence[LogLine], None]:
    """A container's lines as `Backend.logs` gives them; those that were kept when it has been removed."""
    has_written = False
    if container.live and container.spec is not None:
        with contextlib.suppress(BackendError):
            async with contextlib.aclosing(
                core.backend.logs(container.uuid, tail=tail, follow=follow)
            ) as source:
                async for lines in source:
                    has_written = has_written or bool(lines)
                    yield lines
    # It may have been removed before its engine was asked.
    if not has_written and (kept := _kept(core, container.uuid, tail)):
        yield kept


def _kept(core: Core, uuid: str, tail: int | None) -> Sequence[LogLine]:
    """The last lines of a container's kept output."""
    output = core.records.outputs.get(uuid)
    lines = output.lines if output is not None else ()
    return lines if tail is None else lines[max(len(lines) - tail, 0) :]


class _Merged:
    """The lines of all containers of a service."""

    def __init__(self, core: Core, uuid: str, tail: int | None, follow: bool) -> None:
        self._core, self._tail, self._follow = core, tail, follow
        self._service = core.service(uuid)
        #: (container, its next lines; none: that was all, or all that it wrote before).
        self._queue: asyncio.Queue[tuple[Container, Sequence[LogLine]] | None] = asyncio.Queue(_WAITING)
        #: What was written before is in order; new lines may come.
        self._merged = asyncio.Event()
        self._readers: dict[str, asyncio.Task[None]] = {}
        self._watcher: asyncio.Task[None] | None = None
        self._news = core.hub.subscribe() if follow else None

    def close(self) -> None:
        if self._news is not None:
            self._core.hub.unsubscribe(self._news)
        for task in (*self._readers.values(), *((self._watcher,) if self._watcher else ())):
            task.cancel()

    async def batches(self) -> Frames:
        behind = self._begin()
        self._watcher = asyncio.get_running_loop().create_task(self._watch())
        old = self._kept_lines()
        self._cut(old)
        ended = False
        while behind:
            try:
                item = await at_most(_PATIENCE if self._follow else None, self._queue.get())
            except TimeoutError:
                break
            if item is None:
                ended = True
                break
            container, lines = item
            old += [(line.timestamp, container.name, line) for line in lines]
            if not lines:
                behind.discard(container.uuid)
            if self._tail is not None and len(old) > 2 * self._tail + 1000:
                self._cut(old)
        self._cut(old)
        self._merged.set()
        if old or self._follow:
            yield [_frame(line, name) for _, name, line in old]
        while not ended and (item := await self._queue.get()) is not None:
            if item[1]:
                yield [_frame(line, item[0].name) for line in item[1]]

    def _kept_lines(self) -> list[tuple[float, str, LogLine]]:
        """What containers wrote that have been removed since."""
        found = []
        for uuid in self._core.records.outputs_of.get(self._service.uuid, ()):
            container = self._core.records.containers.get(uuid)
            if container is not None and not container.live:
                kept = _kept(self._core, uuid, self._tail)
                found += [(line.timestamp, container.name, line) for line in kept]
        return found

    def _cut(self, lines: list[tuple[float, str, LogLine]]) -> None:
        """Bring them into the order of time, and keep the last ones."""
        lines.sort(key=lambda line: line[0])
        if self._tail is not None:
            del lines[: max(len(lines) - self._tail, 0)]

    def _begin(self) -> set[str]:
        """Read the containers that are not read yet; their uuids."""
        begun = set()
        first = not self._readers and self._watcher is None
        for c in self._core.records.containers_of(self._service.uuid):
            if c.uuid not in self._readers and c.spec is not None and c.status:
                read = self._read(c) if first else self._read_newcomer(c)
                self._readers[c.uuid] = asyncio.get_running_loop().create_task(read)
                begun.add(c.uuid)
        return begun

    async def _read_newcomer(self, c: Container) -> None:
        """All that it writes is new."""
        await self._merged.wait()
        await self._read(c, all_lines=True)

    async def _read(self, c: Container, *, all_lines: bool = False) -> None:
        tail = None if all_lines else self._tail
        async with contextlib.aclosing(_lines(self._core, c, tail, self._follow)) as source:
            async for lines in source:
                await self._queue.put((c, lines))
                if not lines:
                    # Until all are there: what piled up here would be as long as the slowest is slow.
                    await self._merged.wait()
        await self._queue.put((c, ()))

    async def _watch(self) -> None:
        """Until nothing more can come."""
        service, news = self._service, self._news
        while news is not None and service.state != TERMINATED and (event := await news.get()) is not None:
            if event["type"] == "container" and event["parents"][0].endswith(f"/{service.uuid}/"):
                self._begin()
        await asyncio.gather(*self._readers.values(), return_exceptions=True)
        await self._queue.put(None)


def _frame(line: LogLine, source: str | None = None) -> Frame:
    frame: Frame = {
        "log": line.text,
        "streamType": line.stream,
        "timestamp": int(line.timestamp),
        "type": "log",
    }
    if source is not None:
        frame["source"] = source
    return frame
