"""The smallest servers that a client can be tested against, over real sockets: one for HTTP, one for
websockets."""

from __future__ import annotations

import contextlib
import http.server
import json
import threading
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import parse_qsl, urlsplit

__all__ = ["UUID", "Call", "HttpStub", "Reply", "page", "service", "websocket_stub"]

UUID = "8d5f6b1e-0a3c-4f5e-9b7d-1c2d3e4f5a6b"


@dataclass(frozen=True)
class Call:
    """A request that arrived."""

    method: str
    path: str
    query: dict[str, str]
    headers: Mapping[str, str]
    body: Any


@dataclass(frozen=True)
class Reply:
    """An answer; a body that is not bytes goes out as JSON."""

    body: Any = b""
    status: int = 200
    headers: Mapping[str, str] = field(default_factory=dict)


class HttpStub:
    """Answers every request with what `respond` returns: a Reply, or a body for a 200.

    Attributes:
        calls: what has arrived so far.
    """

    def __init__(self, respond: Callable[[Call], Any]) -> None:
        self.calls: list[Call] = []
        stub = self

        class Handler(http.server.BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"
            # Without it, the two small packets of an answer wait for each other (Nagle and delayed ACK).
            disable_nagle_algorithm = True

            def handle_one_request(self) -> None:
                with contextlib.suppress(ConnectionError):
                    super().handle_one_request()

            def answer(self) -> None:
                length = int(self.headers.get("Content-Length") or 0)
                content = self.rfile.read(length)
                parts = urlsplit(self.path)
                call = Call(
                    self.command,
                    parts.path,
                    dict(parse_qsl(parts.query)),
                    dict(self.headers.items()),
                    json.loads(content) if content else None,
                )
                stub.calls.append(call)
                reply = respond(call)
                reply = reply if isinstance(reply, Reply) else Reply(reply)
                body = reply.body if isinstance(reply.body, bytes) else json.dumps(reply.body).encode()
                self.send_response(reply.status)
                for name, value in {"Content-Type": "application/json", **reply.headers}.items():
                    self.send_header(name, value)
                self.send_header("Content-Length", str(len(body)))
                self.end_headers()
                self.wfile.write(body)

            do_GET = do_POST = do_PATCH = do_DELETE = answer

            def log_message(self, *args: object) -> None:
                pass

        class Listener(http.server.ThreadingHTTPServer):
            # Many clients at once: the default queue of five refuses some.
            request_queue_size = 256
            daemon_threads = True

        self._server = Listener(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self._server.server_address[1]}"
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.05,), daemon=True)
        self._thread.start()

    def __enter__(self) -> HttpStub:
        return self

    def __exit__(self, *exc: object) -> None:
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()


@contextlib.contextmanager
def websocket_stub(
    serve: Callable[[Any], None], refuse: Callable[[Any, Any], Any] | None = None
) -> Iterator[str]:
    """A websocket server that runs `serve(connection)` for each connection; yields its `ws://` address.

    `refuse(connection, request)` may answer the handshake with something else (`connection.respond(status,
    text)`).
    """
    from websockets.sync.server import serve as listen

    with listen(serve, "127.0.0.1", 0, process_request=refuse) as server:
        thread = threading.Thread(target=server.serve_forever, daemon=True)
        thread.start()
        try:
            yield f"ws://127.0.0.1:{server.socket.getsockname()[1]}"
        finally:
            server.shutdown()
            thread.join()


def service(state: str = "Running", uuid: str = UUID, **attributes: Any) -> dict[str, Any]:
    """A service's detail object."""
    running = 1 if state == "Running" else 0
    return {
        "uuid": uuid,
        "resource_uri": f"/api/v1/service/{uuid}/",
        "name": "web",
        "image_name": "tutum/hello-world:latest",
        "state": state,
        "synchronized": True,
        "target_num_containers": 1,
        "current_num_containers": running,
        "running_num_containers": running,
        "stopped_num_containers": 0,
        "container_envvars": [],
        "linked_to_service": [],
        "containers": [],
        **attributes,
    }


def page(objects: list[dict[str, Any]], *, offset: int = 0, following: bool = False) -> dict[str, Any]:
    """A list of the API."""
    meta = {"limit": 100, "offset": offset, "previous": None, "total_count": len(objects)}
    return {
        "meta": {**meta, "next": "/api/v1/service/?offset=100" if following else None},
        "objects": objects,
    }
