"""How much of the server one connection may take: uvicorn's two protocols with limits of time and size.

uvicorn waits for ever for a request that never ends, keeps headers of any size, and answers what it cannot
parse in plain text. Here a request's head must be complete within `head_seconds` and its body within
`body_seconds` (a client that sends a header a minute is cut), heads are at most `HEAD_BYTES`, connections at
most `LimitedHttp.most`, and every refusal is the API's `{"error": ...}`. Only overrides of what asyncio's
protocol interface, httptools' callbacks and uvicorn's own hooks name; a test over raw sockets holds each of
them.
"""

from __future__ import annotations

import asyncio
import json
import logging
import resource
from typing import Any, ClassVar

from uvicorn.protocols.http.httptools_impl import STATUS_LINE, HttpToolsProtocol
from uvicorn.protocols.utils import ClientDisconnected
from uvicorn.protocols.websockets.websockets_sansio_impl import WebSocketsSansIOProtocol

HEAD_BYTES = 64 * 1024
#: How long a client may take to read what is left once the server is done with its connection.
FLUSH_SECONDS = 30.0
#: Descriptors kept free for the store, the backend and the loop.
_SPARE_DESCRIPTORS = 96

log = logging.getLogger("pulumi_tutum.server")


def raise_descriptor_limit() -> int:
    """Raise the soft limit of open files to the hard one; returns how many connections fit under it."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    try:
        resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
        soft = hard
    except (OSError, ValueError):
        pass
    return max(16, min(20_000, (20_000 if soft == resource.RLIM_INFINITY else soft) - _SPARE_DESCRIPTORS))


class LimitedHttp(HttpToolsProtocol):
    """HTTP/1.1 with deadlines. `most` is how many connections there may be, websockets included."""

    most: ClassVar[int] = 900
    head_seconds: ClassVar[float] = 10.0
    body_seconds: ClassVar[float] = 60.0

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        super().connection_made(transport)
        self._head_bytes = 0
        self._in_request = False
        self._deadline: asyncio.TimerHandle | None = None
        if len(self.connections) > self.most:
            self._refuse(503, "Too many connections, try again later")
            return
        self._expect(self.head_seconds)

    def connection_lost(self, exc: Exception | None) -> None:
        self._expect(None)
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        if self.transport.is_closing():
            return
        if not self._in_request:
            # Also for bytes that begin no request, such as empty lines: they must not keep a connection.
            if self._deadline is None:
                self._expect(self.head_seconds)
            self._head_bytes += len(data)
            if self._head_bytes > HEAD_BYTES + len(data):
                self._refuse(431, "The request's head is too large")
                return
        super().data_received(data)

    # httptools' callbacks

    def on_message_begin(self) -> None:
        self._expect(self.head_seconds)
        super().on_message_begin()

    def on_headers_complete(self) -> None:
        self._in_request = True
        self._head_bytes = 0
        self._expect(self.body_seconds)
        super().on_headers_complete()

    def on_message_complete(self) -> None:
        self._in_request = False
        self._expect(None)
        super().on_message_complete()

    # uvicorn's hooks

    def handle_websocket_upgrade(self) -> None:
        self._expect(None)
        super().handle_websocket_upgrade()

    def send_400_response(self, msg: str) -> None:
        self._refuse(400, "The request is not valid HTTP")

    def timeout_keep_alive_handler(self) -> None:
        super().timeout_keep_alive_handler()
        self.loop.call_later(FLUSH_SECONDS, self.transport.abort)

    def _expect(self, seconds: float | None) -> None:
        """The request's next part must have come within so many seconds (None: nothing is awaited)."""
        if self._deadline is not None:
            self._deadline.cancel()
        self._deadline = None if seconds is None else self.loop.call_later(seconds, self._too_slow)

    def _too_slow(self) -> None:
        self._deadline = None
        answering = (
            self.cycle is not None and self.cycle.response_started and not self.cycle.response_complete
        )
        if answering or self.pipeline:
            # Anything written now would land in the middle of another answer.
            self.transport.abort()
        else:
            self._refuse(408, "The request took too long")

    def _refuse(self, status: int, error: str) -> None:
        """Answer without asking the application, and close."""
        self._expect(None)
        body = json.dumps({"error": error}).encode()
        head = b"content-type: application/json\r\nconnection: close\r\ncontent-length: %d\r\n\r\n" % len(
            body
        )
        if not self.transport.is_closing():
            self.transport.write(STATUS_LINE[status] + head + body)
            self.transport.close()
        log.info("connection refused", extra={"status": status, "error": error})


#: An extension of ASGI: `websocket.send` may have `texts`, a list of messages that are written at once.
TOGETHER = "tutum.texts"


class LimitedWebSocket(WebSocketsSansIOProtocol):
    """A websocket that reads nothing while its peer reads nothing, and is cut when the peer never takes the
    rest. It can send many messages at once (TOGETHER).
    """

    async def run_asgi(self) -> None:
        self.scope.setdefault("extensions", {})[TOGETHER] = {}
        await super().run_asgi()

    async def send(self, message: Any) -> None:
        if self.close_sent and message["type"] == "websocket.send":
            # The connection was given up (no answer to a ping, a broken frame), which the application is
            # about to hear: the base class would call it the application's mistake.
            raise ClientDisconnected
        texts = message.get("texts")
        if texts is None:
            await super().send(message)
            return
        # The first one finds out whether there is still somebody.
        await super().send({"type": "websocket.send", "text": texts[0]})
        if len(texts) > 1 and not self.transport.is_closing():
            self.transport.write(b"".join(map(_message, texts[1:])))

    def shutdown(self) -> None:
        # The server ends. Where the end of the connection has begun, the base class would begin it again, and
        # fail, and with it the server.
        if not self.transport.is_closing():
            super().shutdown()

    def pause_writing(self) -> None:
        # Older releases of uvicorn have this flag and never clear it: they would buffer without end.
        self.writable.clear()
        # Answers to pings are written without waiting: who pings and does not read would fill the memory.
        self.transport.pause_reading()

    def resume_writing(self) -> None:
        self.writable.set()
        if not self.read_paused:
            self.transport.resume_reading()

    def on_task_complete(self, task: asyncio.Task[None]) -> None:
        super().on_task_complete(task)
        self.loop.call_later(FLUSH_SECONDS, self.transport.abort)


def _message(text: str) -> bytes:
    """A text as an unmasked message of one frame (RFC 6455, 5.2). The library needs ten times as long."""
    data = text.encode()
    size = len(data)
    if size < 126:
        return b"\x81%c%b" % (size, data)
    if size < 1 << 16:
        return b"\x81\x7e%b%b" % (size.to_bytes(2, "big"), data)
    return b"\x81\x7f%b%b" % (size.to_bytes(8, "big"), data)


def uvicorn_settings() -> dict[str, Any]:
    """What `uvicorn.Config` is given besides the application and the address."""
    return {
        "http": LimitedHttp,
        "ws": LimitedWebSocket,
        "ws_max_size": 256 * 1024,
        "ws_ping_interval": 30.0,
        "ws_ping_timeout": 30.0,
        "ws_per_message_deflate": False,
        "timeout_keep_alive": 75,
        "timeout_graceful_shutdown": 3,
        "lifespan": "off",
        "access_log": False,
        "server_header": False,
        "proxy_headers": False,
        "log_config": None,
        "backlog": 1024,
    }
