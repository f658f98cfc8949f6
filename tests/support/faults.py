"""A proxy in front of a server that misbehaves on demand, over real sockets.

    with FaultProxy(server.url) as proxy:
        proxy.on(reset_after(), method="POST", path=r"/api/v1/service/$")     # the next such request
        client = Client(..., rest_host=proxy.url)
        ...
        assert proxy.count("POST", r"/api/v1/service/$") == 2

A fault is a function of one `Exchange`. It decides whether the request reaches the server
(`exchange.forward()`) and what the client gets. Requests that no rule matches are passed on unchanged; so
are websockets, which can be dropped (`drop_websockets`) or frozen (`freeze_websockets`: half-open, nothing
passes any more, nobody is told) at any moment.
"""

from __future__ import annotations

import contextlib
import http.client
import json
import re
import socket
import struct
import threading
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import urlsplit

__all__ = [
    "Exchange",
    "Fault",
    "FaultProxy",
    "Seen",
    "answer",
    "drip",
    "edit",
    "hang",
    "html",
    "invalid_utf8",
    "redirect",
    "reset_after",
    "reset_before",
    "slow_headers",
    "status",
    "truncated",
    "truncated_json",
    "wrong_types",
]


@dataclass
class Seen:
    """A request as the proxy saw it; `status` is what the client got (0: no answer), `forwarded` whether
    the server got it."""

    method: str
    path: str
    query: str
    headers: Mapping[str, str]
    body: bytes
    status: int = 0
    forwarded: bool = False


@dataclass
class Response:
    status: int
    headers: list[tuple[str, str]]
    body: bytes


class Exchange:
    """One request, and the means to answer it (or not)."""

    def __init__(self, proxy: FaultProxy, client: socket.socket, seen: Seen) -> None:
        self._proxy = proxy
        self.client = client
        self.seen = seen
        #: set when the proxy closes: what a fault that waits waits for
        self.over = proxy.over

    def forward(self) -> Response:
        """Lets the server carry the request out; its answer goes nowhere yet."""
        self.seen.forwarded = True
        connection = http.client.HTTPConnection(self._proxy.host, self._proxy.port, timeout=120)
        try:
            target = self.seen.path + ("?" + self.seen.query if self.seen.query else "")
            headers = {k: v for k, v in self.seen.headers.items() if k.lower() not in ("host", "connection")}
            connection.request(self.seen.method, target, self.seen.body or None, headers)
            answer = connection.getresponse()
            body = answer.read()
        finally:
            connection.close()
        drop = {"content-length", "transfer-encoding", "connection"}
        return Response(
            answer.status, [(k, v) for k, v in answer.getheaders() if k.lower() not in drop], body
        )

    def head(self, response: Response, length: int | None = None) -> bytes:
        """Status line and headers; `length` overrides the honest Content-Length."""
        reason = http.client.responses.get(response.status, "Unknown")
        lines = [f"HTTP/1.1 {response.status} {reason}"]
        lines += [f"{name}: {value}" for name, value in response.headers]
        if response.status != 204:
            lines.append(f"Content-Length: {len(response.body) if length is None else length}")
        return ("\r\n".join(lines) + "\r\n\r\n").encode("latin-1")

    def reply(self, response: Response) -> None:
        self.seen.status = response.status
        self.client.sendall(self.head(response) + response.body)

    def reset(self) -> None:
        """Ends the connection with a TCP reset."""
        self.client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        raise ConnectionAbortedError

    def trickle(self, data: bytes, seconds: float) -> None:
        """Sends one byte after the other, with a pause after each, until it is through or the proxy
        closes."""
        for byte in data:
            self.client.sendall(bytes([byte]))
            if self.over.wait(seconds):
                return


Fault = Callable[[Exchange], None]


# -- faults ----------------------------------------------------------------------------------------


def reset_before() -> Fault:
    """A reset; the server never hears of the request."""
    return lambda exchange: exchange.reset()


def reset_after() -> Fault:
    """The server carries the request out, then the connection is reset."""

    def fault(exchange: Exchange) -> None:
        exchange.forward()
        exchange.reset()

    return fault


def answer(
    code: int, body: bytes = b"", headers: Mapping[str, str] | None = None, *, committed: bool = False
) -> Fault:
    """This answer instead of the server's; `committed`: the server carries the request out all the same."""

    def fault(exchange: Exchange) -> None:
        if committed:
            exchange.forward()
        exchange.reply(
            Response(code, list({"Content-Type": "application/json", **(headers or {})}.items()), body)
        )

    return fault


def status(code: int, *, retry_after: str | None = None, committed: bool = False) -> Fault:
    """An error in the API's shape; `retry_after` as it stands in the header."""
    headers = {} if retry_after is None else {"Retry-After": retry_after}
    return answer(code, json.dumps({"error": f"injected {code}"}).encode(), headers, committed=committed)


def hang(*, committed: bool = False) -> Fault:
    """No answer, ever."""

    def fault(exchange: Exchange) -> None:
        if committed:
            exchange.forward()
        exchange.over.wait()
        exchange.reset()

    return fault


def slow_headers(seconds: float = 1.0) -> Fault:
    """The server's answer, its headers at one byte per `seconds`."""

    def fault(exchange: Exchange) -> None:
        response = exchange.forward()
        exchange.trickle(exchange.head(response), seconds)
        exchange.client.sendall(response.body)

    return fault


def drip(seconds: float = 1.0) -> Fault:
    """The server's answer, its headers at once and its body at one byte per `seconds`."""

    def fault(exchange: Exchange) -> None:
        response = exchange.forward()
        exchange.client.sendall(exchange.head(response))
        exchange.trickle(response.body, seconds)

    return fault


def truncated() -> Fault:
    """Half of the server's answer, less than its Content-Length says; then the connection ends."""

    def fault(exchange: Exchange) -> None:
        response = exchange.forward()
        exchange.client.sendall(exchange.head(response) + response.body[: len(response.body) // 2])
        raise ConnectionAbortedError

    return fault


def _replaced(make: Callable[[Response], bytes], content_type: str | None = None) -> Fault:
    def fault(exchange: Exchange) -> None:
        response = exchange.forward()
        headers = response.headers
        if content_type:
            headers = [(k, v) for k, v in headers if k.lower() != "content-type"] + [
                ("Content-Type", content_type)
            ]
        exchange.reply(Response(response.status, headers, make(response)))

    return fault


def truncated_json() -> Fault:
    """Half of the server's JSON, with a Content-Length to match."""
    return _replaced(lambda response: response.body[: len(response.body) // 2])


def html() -> Fault:
    """An HTML page with the server's status."""
    return _replaced(
        lambda _: b"<!DOCTYPE html><html><body>Sign in to the guest network</body></html>", "text/html"
    )


def invalid_utf8() -> Fault:
    """The server's answer with bytes in it that are no UTF-8."""
    return _replaced(lambda response: response.body.replace(b'"name"', b'"\xff\xfename"'))


def edit(change: Callable[[Any], Any]) -> Fault:
    """The server's JSON after `change`, which returns a new value or edits in place and returns None."""

    def make(response: Response) -> bytes:
        parsed = json.loads(response.body)
        changed = change(parsed)
        return json.dumps(parsed if changed is None else changed).encode()

    return _replaced(make)


def wrong_types() -> Fault:
    """The server's JSON object with every value of another type."""

    def change(parsed: Any) -> Any:
        return {key: [1] if isinstance(value, (str, int)) else "no list" for key, value in parsed.items()}

    return edit(change)


def redirect(to: str, code: int = 307) -> Fault:
    """A redirect to another address, with the request's path."""

    def fault(exchange: Exchange) -> None:
        exchange.reply(Response(code, [("Location", to + exchange.seen.path)], b""))

    return fault


# -- the proxy -------------------------------------------------------------------------------------


@dataclass
class _Rule:
    fault: Fault
    method: str | None
    path: re.Pattern[str]
    skip: int
    times: int | None

    def matches(self, seen: Seen) -> bool:
        return (self.method is None or self.method == seen.method) and bool(self.path.search(seen.path))


@dataclass
class _Tunnel:
    """A websocket that passes through."""

    client: socket.socket
    server: socket.socket
    frozen: threading.Event = field(default_factory=threading.Event)


class FaultProxy:
    """Listens on a free port of the loopback and passes on to `target` (`http://host:port`).

    Attributes:
        url, stream_url: where it listens, as http and as ws.
        seen: the requests so far, websocket handshakes included.
    """

    def __init__(self, target: str) -> None:
        parts = urlsplit(target)
        self.host, self.port = parts.hostname or "127.0.0.1", parts.port or 80
        self.over = threading.Event()
        self.seen: list[Seen] = []
        self._rules: list[_Rule] = []
        self._tunnels: list[_Tunnel] = []
        self._clients: set[socket.socket] = set()
        self._lock = threading.Lock()
        self._listener = socket.create_server(("127.0.0.1", 0), backlog=256)
        self.url = f"http://127.0.0.1:{self._listener.getsockname()[1]}"
        self.stream_url = self.url.replace("http", "ws", 1)
        threading.Thread(target=self._accept, daemon=True).start()

    def __enter__(self) -> FaultProxy:
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()

    def close(self) -> None:
        self.over.set()
        # A thread that waits in accept() is woken by shutdown, not by close.
        with contextlib.suppress(OSError):
            self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        self.drop_websockets()
        with self._lock:
            clients = list(self._clients)
        for client in clients:
            _end(client)

    def on(
        self, fault: Fault, method: str | None = None, path: str = "", *, skip: int = 0, times: int | None = 1
    ) -> None:
        """From now on, `fault` for requests with this method whose path (without the query) matches the
        regex `path`.

        Args:
            skip: let so many of them pass first.
            times: for so many; None: for ever. A later rule comes after the earlier ones.
        """
        with self._lock:
            self._rules.append(_Rule(fault, method, re.compile(path), skip, times))

    def clear(self) -> None:
        """Forget all rules."""
        with self._lock:
            self._rules.clear()

    def count(self, method: str | None = None, path: str = "", *, forwarded: bool | None = None) -> int:
        """How many requests came with this method and a matching path (and did, or did not, reach the
        server)."""
        with self._lock:
            return sum(
                (method is None or s.method == method)
                and bool(re.search(path, s.path))
                and (forwarded is None or s.forwarded == forwarded)
                for s in self.seen
            )

    def requests(self) -> list[str]:
        """`METHOD /path` of each request so far."""
        with self._lock:
            return [f"{s.method} {s.path}" for s in self.seen]

    @property
    def websockets(self) -> int:
        """How many websockets pass through now."""
        with self._lock:
            return len(self._tunnels)

    def drop_websockets(self) -> None:
        """Ends every websocket, without a closing handshake."""
        with self._lock:
            tunnels = list(self._tunnels)
        for tunnel in tunnels:
            for side in (tunnel.client, tunnel.server):
                _end(side)

    def freeze_websockets(self) -> None:
        """Makes every websocket half-open: both ends stay connected, nothing passes any more."""
        with self._lock:
            for tunnel in self._tunnels:
                tunnel.frozen.set()

    # -- threads -----------------------------------------------------------------------------------

    def _accept(self) -> None:
        while not self.over.is_set():
            try:
                client, _ = self._listener.accept()
            except OSError:
                return
            client.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            with self._lock:
                self._clients.add(client)
            threading.Thread(target=self._serve, args=(client,), daemon=True).start()

    def _serve(self, client: socket.socket) -> None:
        try:
            reader = client.makefile("rb")
            while self._one(client, reader):
                pass
        except (OSError, ValueError, http.client.HTTPException):
            pass
        finally:
            with self._lock:
                self._clients.discard(client)
            client.close()
            with contextlib.suppress(OSError):
                reader.close()

    def _one(self, client: socket.socket, reader: Any) -> bool:
        """Serves one request; False when the connection is at its end."""
        line = reader.readline(65536)
        if not line.strip():
            return False
        method, target, _ = line.decode("latin-1").split(" ", 2)
        headers = http.client.parse_headers(reader)
        body = reader.read(int(headers.get("Content-Length") or 0))
        path, _, query = target.partition("?")
        seen = Seen(method, path, query, dict(headers.items()), body)
        exchange = Exchange(self, client, seen)
        with self._lock:
            self.seen.append(seen)
            fault = self._next_fault(seen)
        if fault is not None:
            fault(exchange)
        elif headers.get("Upgrade", "").lower() == "websocket":
            self._tunnel(client, reader, line, headers, seen)
            return False
        else:
            exchange.reply(exchange.forward())
        return headers.get("Connection", "").lower() != "close"

    def _next_fault(self, seen: Seen) -> Fault | None:
        for rule in self._rules:
            if not rule.matches(seen) or rule.times == 0:
                continue
            if rule.skip > 0:
                rule.skip -= 1
                return None
            if rule.times is not None:
                rule.times -= 1
            return rule.fault
        return None

    def _tunnel(
        self, client: socket.socket, reader: Any, line: bytes, headers: http.client.HTTPMessage, seen: Seen
    ) -> None:
        """Passes a websocket through, byte by byte."""
        seen.forwarded = True
        with socket.create_connection((self.host, self.port), timeout=30) as server:
            server.settimeout(None)
            head = line + b"".join(f"{k}: {v}\r\n".encode("latin-1") for k, v in headers.items()) + b"\r\n"
            server.sendall(head)
            tunnel = _Tunnel(client, server)
            with self._lock:
                self._tunnels.append(tunnel)
            back = threading.Thread(target=self._pump, args=(tunnel, server.recv, client), daemon=True)
            back.start()
            try:
                # The reader may hold bytes that it has read ahead.
                self._pump(tunnel, reader.read1, server)
                _end(client)
                back.join(5)
            finally:
                with self._lock:
                    self._tunnels.remove(tunnel)

    def _pump(self, tunnel: _Tunnel, read: Callable[[int], bytes], to: socket.socket) -> None:
        with contextlib.suppress(OSError, ValueError):
            while data := read(65536):
                if not tunnel.frozen.is_set():
                    to.sendall(data)
        if not tunnel.frozen.is_set():
            _end(to)


def _end(end: socket.socket) -> None:
    """Wakes everybody who waits for the socket; its owner closes it."""
    with contextlib.suppress(OSError):
        end.shutdown(socket.SHUT_RDWR)


def sent(proxy: FaultProxy, act: Callable[[], object]) -> list[str]:
    """What `act` sent that changes something, and the reads: `POST start`, `PATCH`, `GET`."""
    before = len(proxy.seen)
    act()
    found = []
    for seen in proxy.seen[before:]:
        last = seen.path.rstrip("/").rpartition("/")[2]
        action = last if last in ("start", "stop", "scale", "redeploy", "close") else ""
        if not seen.path.startswith("/v1/"):
            found.append(f"{seen.method} {action}".strip())
    return found


def looked_up(proxy: FaultProxy, act: Callable[[], object], uuid: str) -> int:
    """How often `act` asked for one service."""
    before = len(proxy.seen)
    act()
    path = f"/api/v1/service/{uuid}/"
    return sum(seen.method == "GET" and seen.path.lower() == path for seen in proxy.seen[before:])


def writes(requests: list[str]) -> list[str]:
    return [request for request in requests if request != "GET"]
