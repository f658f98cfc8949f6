"""The stream client against websocket servers over real sockets."""

from __future__ import annotations

import json
import socket
import threading
import time
from collections.abc import Callable, Iterator
from http import HTTPStatus
from typing import Any

import pytest
from websockets.sync.server import ServerConnection

from pulumi_tutum import config, stream
from pulumi_tutum.errors import Cancelled, StreamError, ValidationError
from tests.support.stub import UUID, HttpStub, Reply, websocket_stub
from tests.support.tools import until

KEY = "k3y-0123456789"
LINE = {"type": "log", "source": "web-1", "log": "hello\n", "streamType": "stdout", "timestamp": 1433779324}


def settings(stream_host: str) -> config.Settings:
    explicit = {"user": "bob", "apikey": KEY, "stream_host": stream_host}
    return config.resolve(explicit, {})


def sending(*messages: Any) -> Callable[[ServerConnection], None]:
    """Sends these (a str as it is, else JSON), then closes in good order."""

    def serve(connection: ServerConnection) -> None:
        for message in messages:
            connection.send(message if isinstance(message, (str, bytes)) else json.dumps(message))

    return serve


def test_logs_asks_as_the_specification_says_and_ends_when_the_server_does() -> None:
    asked: list[Any] = []

    def serve(connection: ServerConnection) -> None:
        asked.append(connection.request)
        sending({"type": "auth"}, LINE, LINE)(connection)

    with websocket_stub(serve) as url:
        assert list(stream.logs(settings(url), UUID, tail=2, follow=False)) == [LINE, LINE]
    (request,) = asked
    assert request.path == f"/v1/service/{UUID}/logs/?tail=2&follow=false"
    assert request.headers["Authorization"] == f"ApiKey bob:{KEY}"
    assert KEY not in request.path
    assert "Origin" not in request.headers


def test_logs_of_containers_and_defaults() -> None:
    paths: list[str] = []

    def serve(connection: ServerConnection) -> None:
        assert connection.request is not None
        paths.append(connection.request.path)

    with websocket_stub(serve) as url:
        list(stream.logs(settings(url), UUID, kind="container"))
        with pytest.raises(ValidationError, match="uuid of a container"):
            list(stream.logs(settings(url), "web/../x", kind="container"))
    assert paths == [f"/v1/container/{UUID}/logs/?follow=true"]


def test_what_is_no_json_object_is_passed_over() -> None:
    with websocket_stub(sending("no json", "[1]", "[" * 100_000, LINE)) as url:
        assert list(stream.logs(settings(url), UUID)) == [LINE]


def test_an_error_in_band_ends_the_stream() -> None:
    refusal = {"type": "error", "data": {"errorMessage": "UNAUTHORIZED"}}
    with websocket_stub(sending(refusal)) as url, pytest.raises(StreamError, match="credentials") as caught:
        list(stream.logs(settings(url), UUID))
    assert caught.value.unauthorized
    with websocket_stub(sending({"type": "error"})) as url, pytest.raises(StreamError) as caught:
        list(stream.logs(settings(url), UUID))
    assert not caught.value.unauthorized


def refusing(status: int) -> Callable[[ServerConnection, Any], Any]:
    return lambda connection, request: connection.respond(HTTPStatus(status), "no")


@pytest.mark.parametrize(
    ("status", "unauthorized"), [(401, True), (403, True), (404, False), (503, False), (200, False)]
)
def test_a_refused_handshake(status: int, unauthorized: bool) -> None:
    with websocket_stub(sending(), refusing(status)) as url, pytest.raises(StreamError) as caught:
        list(stream.logs(settings(url), UUID))
    assert caught.value.unauthorized is unauthorized
    assert KEY not in str(caught.value)


def test_a_redirect_is_not_followed_and_takes_no_credentials_along() -> None:
    asked: list[Any] = []
    with (
        websocket_stub(asked.append) as elsewhere,
        HttpStub(lambda call: Reply(b"", 302, {"Location": elsewhere + "/"})) as stub,
        pytest.raises(StreamError, match="redirects are not followed"),
    ):
        list(stream.logs(settings(stub.url), UUID))
    assert asked == []


def test_nobody_there() -> None:
    with pytest.raises(StreamError, match="connection refused"):
        list(stream.logs(settings("ws://127.0.0.1:9"), UUID))
    with pytest.raises(StreamError, match="host name is not known"):
        list(stream.logs(settings("ws://no-such-host.invalid"), UUID))


@pytest.fixture
def silent() -> Iterator[socket.socket]:
    """A server that accepts connections and never says a word."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        yield listener


def test_a_server_that_never_upgrades_is_left(silent: socket.socket) -> None:
    url = f"ws://127.0.0.1:{silent.getsockname()[1]}"
    with pytest.raises(StreamError):
        list(stream.logs(settings(url), UUID, deadline=time.monotonic() + 0.3))


def test_a_connection_that_breaks_is_no_good_end() -> None:
    def serve(connection: ServerConnection) -> None:
        connection.send(json.dumps(LINE))
        connection.socket.shutdown(socket.SHUT_RDWR)

    with websocket_stub(serve) as url:
        frames = stream.logs(settings(url), UUID)
        assert next(frames) == LINE
        with pytest.raises(StreamError, match="broke"):
            next(frames)


@pytest.mark.parametrize("code", [1008, 1011, 1013])
def test_a_close_for_a_reason_is_told(code: int) -> None:
    with (
        websocket_stub(lambda connection: connection.close(code, "too slow")) as url,
        pytest.raises(StreamError, match=f"code {code}: too slow"),
    ):
        list(stream.logs(settings(url), UUID))


def test_invalid_utf8_is_no_text() -> None:
    def serve(connection: ServerConnection) -> None:
        connection.socket.sendall(b"\x81\x02\xff\xfe")
        connection.recv()

    with websocket_stub(serve) as url, pytest.raises(StreamError, match="not UTF-8"):
        list(stream.logs(settings(url), UUID))


def test_half_open_connections_are_found_by_pings(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(stream, "PING_SECONDS", 0.1)
    over = threading.Event()

    def serve(connection: ServerConnection) -> None:
        # What arrives from now on, pings included, is answered by nobody.
        connection.protocol.receive_data = lambda data: None  # type: ignore[method-assign]
        over.wait(30)

    with websocket_stub(serve) as url:
        with pytest.raises(StreamError, match="silent"):
            list(stream.logs(settings(url), UUID))
        over.set()


def test_a_quiet_connection_that_answers_pings_lives(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(stream, "PING_SECONDS", 0.05)

    def serve(connection: ServerConnection) -> None:
        pings: list[bytes] = []
        receive = connection.protocol.receive_data

        def count(data: bytes | bytearray) -> None:
            # 0x89: a ping
            pings.extend([bytes(data)] if data[:1] == b"\x89" else [])
            receive(data)

        connection.protocol.receive_data = count  # type: ignore[method-assign]
        until(lambda: len(pings) >= 5, "some pings")
        connection.send(json.dumps(LINE))

    with websocket_stub(serve) as url:
        assert list(stream.logs(settings(url), UUID)) == [LINE]


def test_cancelling_and_deadlines_end_a_quiet_stream() -> None:
    quiet = threading.Event()
    stop = threading.Event()
    opened = threading.Event()

    def serve(connection: ServerConnection) -> None:
        opened.set()
        quiet.wait(30)

    def stop_when_open() -> None:
        opened.wait(30)
        stop.set()

    with websocket_stub(serve) as url:
        threading.Thread(target=stop_when_open, daemon=True).start()
        with pytest.raises(Cancelled):
            list(stream.logs(settings(url), UUID, cancelled=stop))
        with pytest.raises(StreamError, match="in time"):
            list(stream.logs(settings(url), UUID, deadline=time.monotonic() + 0.1))
        with stream.Connection(settings(url), "/v1/events") as connection:
            threading.Thread(target=connection.interrupt, daemon=True).start()
            assert list(connection.frames()) == []
        quiet.set()


def test_events_reconnect_and_say_so() -> None:
    turns = iter([1, 2, 3])
    changes: list[bool] = []

    def serve(connection: ServerConnection) -> None:
        connection.send(json.dumps({"type": "service", "n": next(turns)}))

    with websocket_stub(serve) as url:
        events = stream.events(settings(url), on_change=changes.append)
        assert [next(events)["n"] for _ in range(3)] == [1, 2, 3]
        events.close()
    assert changes == [True, False, True, False, True, False]


def test_events_stop_when_the_credentials_are_refused() -> None:
    refusal = {"type": "error", "data": {"errorMessage": "UNAUTHORIZED"}}
    for serve, refuse in ((sending(refusal), None), (sending(), refusing(401))):
        with websocket_stub(serve, refuse) as url, pytest.raises(StreamError) as caught:
            next(stream.events(settings(url)))
        assert caught.value.unauthorized


def test_events_give_up_when_cancelled() -> None:
    stop = threading.Event()
    threading.Timer(0.1, stop.set).start()
    with pytest.raises(Cancelled):
        next(stream.events(settings("ws://127.0.0.1:9"), cancelled=stop))


def test_exec_sends_input_and_yields_output() -> None:
    paths: list[str] = []

    def serve(connection: ServerConnection) -> None:
        assert connection.request is not None
        paths.append(connection.request.path)
        connection.send(json.dumps({"type": "log", "output": connection.recv(), "streamType": "stdout"}))

    with websocket_stub(serve) as url, stream.exec_command(settings(url), UUID, "cat 'a b'") as connection:
        connection.send("typed\n")
        assert [message["output"] for message in connection.messages()] == ["typed\n"]
    assert paths == [f"/v1/container/{UUID}/exec/?command=cat+%27a+b%27"]


@pytest.mark.parametrize(
    ("farewell", "code"),
    [("exit code 0", 0), ("exit code 130", 130), ("", None), ("exit code -1", None), ("exit code 3.", None)],
)
def test_exec_knows_the_exit_code_that_the_server_says_at_the_end(farewell: str, code: int | None) -> None:
    def serve(connection: ServerConnection) -> None:
        connection.close(1000, farewell)

    with websocket_stub(serve) as url, stream.exec_command(settings(url), UUID) as connection:
        assert list(connection.messages()) == []
        assert connection.exit_code == code


def test_loopback_is_never_asked_through_a_proxy(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("http_proxy", "http://127.0.0.1:9")
    with websocket_stub(sending(LINE)) as url:
        assert list(stream.logs(settings(url), UUID)) == [LINE]
