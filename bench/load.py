"""A load on one URL: GETs a second that a server answers. `python -m bench.load URL SECONDS AUTHORIZATION`.

A process of its own, sockets and as little as possible around them, so that the server is what is measured. A
connection sends its next request when the answer to the last one is complete. Every answer must be 200.
"""

from __future__ import annotations

import asyncio
import sys
import time
from typing import cast
from urllib.parse import urlsplit

CONNECTIONS = 16


class _Caller(asyncio.Protocol):
    """One connection."""

    def __init__(self, request: bytes, until: float) -> None:
        self.request = request
        self.until = until
        self.answers = 0
        self.waiting = b""
        self.ended: asyncio.Future[None] = asyncio.get_running_loop().create_future()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = cast(asyncio.Transport, transport)  # uvloop's is none of asyncio's classes
        self.transport.write(self.request)

    def data_received(self, data: bytes) -> None:
        self.waiting += data
        head = self.waiting.find(b"\r\n\r\n")
        if head < 0:
            return
        if not self.waiting.startswith(b"HTTP/1.1 200"):
            self.ended.set_exception(RuntimeError(self.waiting[:80].decode("latin-1")))
            self.transport.close()
            return
        at = self.waiting.lower().index(b"content-length:", 0, head) + 15
        length = int(self.waiting[at : self.waiting.index(b"\r\n", at)])
        if len(self.waiting) < head + 4 + length:
            return
        self.waiting = b""
        self.answers += 1
        if time.monotonic() < self.until:
            self.transport.write(self.request)
        else:
            self.transport.close()

    def connection_lost(self, error: Exception | None) -> None:
        if not self.ended.done():
            self.ended.set_result(None)


async def load(url: str, seconds: float, authorization: str) -> float:
    """Requests a second over `seconds`."""
    parts = urlsplit(url)
    request = (
        f"GET {parts.path} HTTP/1.1\r\nHost: {parts.netloc}\r\nAccept: application/json\r\n"
        f"Authorization: {authorization}\r\n\r\n"
    ).encode()
    host, port = parts.hostname or "", parts.port or 80
    loop = asyncio.get_running_loop()
    began = time.monotonic()
    callers = []
    for _ in range(CONNECTIONS):
        _, caller = await loop.create_connection(lambda: _Caller(request, began + seconds), host, port)
        callers.append(caller)
    await asyncio.gather(*(caller.ended for caller in callers))
    return sum(caller.answers for caller in callers) / (time.monotonic() - began)


if __name__ == "__main__":
    import uvloop

    print(uvloop.run(load(sys.argv[1], float(sys.argv[2]), sys.argv[3])))
