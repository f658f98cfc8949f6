"""The last output of containers that have ended and are removed: it stays readable as long as their records.

The control plane reads it just before it removes such a container (a job that autodestroy removes, a
container that failed and is replaced), and stores it beside the container's record. At most the last `LINES`
lines and `BYTES` bytes of a container are kept, and at most the newest `TOTAL_BYTES` of all together. An
engine that does not answer holds up the removal for at most `SECONDS`.
"""

from __future__ import annotations

import contextlib
import logging
from collections import deque
from collections.abc import Sequence

from ..errors import BackendError
from .backends import EXITED, RESTARTING, Backend, LogLine
from .clock import at_most
from .model import Container, ContainerOutput
from .records import Change, Records

log = logging.getLogger("pulumi_tutum.server")

LINES = 1000
BYTES = 256 << 10
TOTAL_BYTES = 32 << 20
SECONDS = 5.0


class KeptOutput:
    """See the module's docstring."""

    def __init__(self, records: Records, backend: Backend) -> None:
        self._records = records
        self._backend = backend

    async def keep(self, container: Container) -> None:
        """Read and store the last output of a container that is about to be removed, if it has ended.

        Raises:
            ServerError: 503, the store could not keep it.
        """
        if not _has_ended(container):
            return
        tail = _Tail()
        try:
            await at_most(SECONDS, self._read(container.uuid, tail))
        except (BackendError, TimeoutError) as error:
            extra = {"container": container.name, "error": str(error) or f"no answer in {SECONDS:g} seconds"}
            log.warning("cannot read all of the output of a container", extra=extra)
        except Exception:
            # A mistake here must not keep the container from being removed.
            log.exception("reading the output of a container ended unexpectedly")
        if not tail.lines:
            return
        with self._records.change() as change:
            kept = self._records.outputs.get(container.uuid)
            if kept is None:
                kept = change.add(
                    ContainerOutput(container.uuid, self._records.next_seq(), container.service)
                )
            change.edit(kept).lines = tuple(tail.lines)
            kept.size = tail.size
            self._make_room(change, kept)

    async def _read(self, uuid: str, tail: _Tail) -> None:
        source = self._backend.logs(uuid, tail=LINES, follow=False)
        async with contextlib.aclosing(source):
            async for lines in source:
                tail.add(lines)

    def _make_room(self, change: Change, kept: ContainerOutput) -> None:
        """Drop the oldest outputs where all together would be too much."""
        others = [output for output in self._records.outputs.values() if output is not kept]
        excess = sum(output.size for output in others) + kept.size - TOTAL_BYTES
        for output in others:
            if excess <= 0:
                return
            change.drop(output)
            excess -= output.size


class _Tail:
    """The last lines of an output, within the bounds."""

    def __init__(self) -> None:
        self.lines: deque[LogLine] = deque()
        self.size = 0

    def add(self, lines: Sequence[LogLine]) -> None:
        for line in lines:
            if _size(line) > BYTES:
                # What is left of one line is its end, as of all lines.
                text = line.text.encode("utf-8", "replace")[-BYTES:].decode("utf-8", "ignore")
                line = line._replace(text=text)
            self.lines.append(line)
            self.size += _size(line)
        while len(self.lines) > LINES or self.size > BYTES:
            self.size -= _size(self.lines.popleft())


def _size(line: LogLine) -> int:
    return len(line.text.encode("utf-8", "replace"))


def _has_ended(container: Container) -> bool:
    """Whether its output tells how it ended: it has exited, keeps exiting, or failed to get up."""
    return container.status in (EXITED, RESTARTING) or (container.runs and bool(container.failure))
