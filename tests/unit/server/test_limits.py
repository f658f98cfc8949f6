"""What one connection may take, over raw sockets against the two protocol classes and a bare application."""

from __future__ import annotations

import json
import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, ClassVar

import pytest
import uvicorn
import websocket

from pulumi_tutum.server import limits

SECONDS = 30.0


class Short(limits.LimitedHttp):
    """The same with deadlines that a test can wait for."""

    head_seconds: ClassVar[float] = 0.5
    body_seconds: ClassVar[float] = 0.5


class Few(limits.LimitedHttp):
    most: ClassVar[int] = 3


async def echo_length(scope: Any, receive: Any, send: Any) -> None:
    """Answers the length of the body."""
    size, more = 0, True
    while more:
        message = await receive()
        if message["type"] == "http.disconnect":
            return
        size, more = size + len(message["body"]), message["more_body"]
    body = str(size).encode()
    headers = [(b"content-length", str(len(body)).encode())]
    await send({"type": "http.response.start", "status": 200, "headers": headers})
    await send({"type": "http.response.body", "body": body})


@contextmanager
def serving(protocol: type[limits.LimitedHttp], app: Any = echo_length) -> Iterator[tuple[str, int]]:
    listener = socket.create_server(("127.0.0.1", 0))
    config = uvicorn.Config(app, **{**limits.uvicorn_settings(), "http": protocol, "loop": "asyncio"})
    server = uvicorn.Server(config)
    thread = threading.Thread(target=server.run, args=([listener],), daemon=True)
    thread.start()
    try:
        yield listener.getsockname()
    finally:
        server.should_exit = True
        thread.join(SECONDS)
        assert not thread.is_alive()


def exchange(address: tuple[str, int], *parts: bytes) -> bytes:
    """Send, and read until the server closes. A server that never closes fails the test."""
    with socket.create_connection(address, SECONDS) as connection:
        for part in parts:
            connection.sendall(part)
        return read_all(connection)


def read_all(connection: socket.socket) -> bytes:
    answer = b""
    while True:
        try:
            data = connection.recv(65536)
        except ConnectionResetError:
            return answer
        if not data:
            return answer
        answer += data


def error_of(answer: bytes) -> tuple[int, str]:
    head, _, body = answer.partition(b"\r\n\r\n")
    assert b"content-type: application/json\r\n" in head + b"\r\n"
    return int(head.split(b" ", 2)[1]), json.loads(body)["error"]


@pytest.mark.parametrize(
    "parts",
    [
        [b""],
        [b"GET"],
        [b"GET / HTTP/1.1\r\nHost: a\r\nX-Slow:"],
        [b"\r\n"],
        [b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 10\r\n\r\nabc"],
        [b"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nabc"],
        [b"GET / HTTP/1.1\r\nHost: a\r\n\r\nGET / HTTP/1.1\r\n", b"Host:"],
    ],
)
def test_a_request_that_does_not_end_is_cut(parts: list[bytes]) -> None:
    with serving(Short) as address:
        answer = exchange(address, *parts)
    if parts[0].startswith(b"GET / HTTP/1.1\r\nHost: a\r\n\r\n"):
        assert answer.startswith(b"HTTP/1.1 200 OK")
        answer = answer[answer.index(b"HTTP/1.1 408") :]
    assert error_of(answer) == (408, "The request took too long")


def test_a_header_now_and_then_does_not_keep_the_connection() -> None:
    stop = threading.Event()
    with serving(Short) as address, socket.create_connection(address, SECONDS) as connection:
        connection.sendall(b"GET / HTTP/1.1\r\n")

        def drip() -> None:
            while not stop.wait(0.1):
                try:
                    connection.sendall(b"X-Another: header\r\n")
                except OSError:
                    return

        dripping = threading.Thread(target=drip)
        dripping.start()
        answer = read_all(connection)
        stop.set()
        dripping.join()
    assert error_of(answer)[0] == 408


@pytest.mark.parametrize(
    "start", [b"GET / HTTP/1.1\r\nX-Long: ", b"GET /", b"GET / HTTP/1.1\r\n" + b"a: b\r\n" * 1000]
)
def test_a_head_has_an_end(start: bytes) -> None:
    with serving(limits.LimitedHttp) as address, socket.create_connection(address, SECONDS) as connection:
        with pytest.raises(OSError, match=r".*"):  # noqa: PT012
            connection.sendall(start)
            for _ in range(100_000):
                connection.sendall(b"a" * 1024)
        answer = read_all(connection)
    assert not answer or error_of(answer)[0] == 431


@pytest.mark.parametrize(
    "request_",
    [
        b"\x00\x01\x02\r\n\r\n",
        b"GET\r\n\r\n",
        b"GET / HTTP/9.9\r\n\r\n",
        b"CONNECT a:1 HTTP/1.1\r\nHost: a\r\n\r\n",
        b"GET /\xff\xfe HTTP/1.1\r\nHost: a\r\n\r\n",
        b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: -1\r\n\r\n",
        b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 3\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
        b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03",
    ],
)
def test_what_is_no_http_gets_the_error_shape(request_: bytes) -> None:
    with serving(limits.LimitedHttp) as address:
        status, error = error_of(exchange(address, request_))
    assert (status, error) == (400, "The request is not valid HTTP")


def test_connections_have_a_limit_and_come_free_again() -> None:
    with serving(Few) as address:
        held = [socket.create_connection(address, SECONDS) for _ in range(3)]
        for connection in held:
            connection.sendall(b"GET / HTTP/1.1\r\nHost: a\r\n\r\n")
            assert connection.recv(1024).startswith(b"HTTP/1.1 200")
        assert error_of(exchange(address, b"GET / HTTP/1.1\r\nHost: a\r\n\r\n"))[0] == 503
        for connection in held:
            connection.close()
        last = b"GET / HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n"
        while not (answer := exchange(address, last)).startswith(b"HTTP/1.1 200"):
            assert answer.startswith(b"HTTP/1.1 503")


def test_requests_in_a_row_on_one_connection() -> None:
    one = b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 3\r\n\r\nabc"
    last = b"POST / HTTP/1.1\r\nHost: a\r\nConnection: close\r\nContent-Length: 5\r\n\r\nabcde"
    with serving(Short) as address:
        answer = exchange(address, one * 20 + last)
    assert answer.count(b"HTTP/1.1 200 OK") == 21
    assert answer.endswith(b"\r\n\r\n5")


def test_a_websocket_waits_for_its_reader() -> None:
    """What is sent to a peer that does not read stops at what the system's own buffers take."""
    megabyte, most = "x" * 1_000_000, 200
    sent = 0

    async def flood(scope: Any, receive: Any, send: Any) -> None:
        nonlocal sent
        await send({"type": "websocket.accept"})
        while sent < most:
            await send({"type": "websocket.send", "text": megabyte})
            sent += 1

    with serving(limits.LimitedHttp, flood) as address:
        stream = websocket.WebSocket(sockopt=[(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)])
        stream.connect(f"ws://{address[0]}:{address[1]}/", timeout=SECONDS)  # type: ignore[no-untyped-call]
        before, still = -1, threading.Event()
        while before != sent or not sent:
            before = sent
            still.wait(0.3)
        assert sent < most / 2
        stream.shutdown()  # type: ignore[no-untyped-call]


@pytest.mark.parametrize("message", [{"text": "late"}, {"texts": ["late", "later"]}])
def test_what_is_sent_on_a_websocket_that_was_given_up_is_no_mistake(message: dict[str, Any]) -> None:
    raised: list[Exception] = []
    done = threading.Event()

    async def late(scope: Any, receive: Any, send: Any) -> None:
        await send({"type": "websocket.accept"})
        while (await receive())["type"] != "websocket.disconnect":
            pass
        try:
            await send({"type": "websocket.send", **message})
        except Exception as error:
            raised.append(error)
        done.set()

    with serving(limits.LimitedHttp, late) as address:
        stream = websocket.create_connection(f"ws://{address[0]}:{address[1]}/", timeout=SECONDS)
        assert stream.sock is not None
        stream.sock.sendall(b"\x83\x80\0\0\0\0")  # a frame of a kind that there is not
        assert done.wait(SECONDS)
        stream.shutdown()  # type: ignore[no-untyped-call]
    assert [isinstance(error, OSError) for error in raised] == [True]
