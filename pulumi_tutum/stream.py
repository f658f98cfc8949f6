"""Tutum's Stream API: events, logs and exec, each an iterator or object over one websocket.

    for frame in logs(client.settings, uuid, tail=20, follow=True):
        print(frame["log"], end="")

Specification: "Get the logs of a service"; the other endpoints are in tutum-api.md, section 7. The
credentials go in the `Authorization` header, never in the address. A server may refuse them at the
handshake (401) or in-band (`UNAUTHORIZED`): both end in a StreamError with `unauthorized` set, and nothing
is tried again.

A connection whose other end has gone without a word is found by pings: silence for `PING_SECONDS` causes
one, silence for as long again ends it. Redirects are not followed. `websocket` is imported with the first
connection.
"""

from __future__ import annotations

import contextlib
import json
import os
import random
import re
import socket
import ssl
import threading
import time
from collections.abc import Callable, Generator, Iterator, Mapping
from typing import TYPE_CHECKING, Any
from urllib.parse import urlencode, urlsplit

from . import __version__, schema
from .config import Settings, is_loopback
from .errors import Cancelled, ConfigError, Problem, StreamError, ValidationError

if TYPE_CHECKING:
    from .transport import Signal

__all__ = ["Connection", "events", "exec_command", "logs"]

#: Seconds for a connection and its handshake.
CONNECT_SECONDS = 5.0
#: Seconds of silence after which we ask whether the other end lives, and that it then has to answer.
PING_SECONDS = 5.0
#: The longest pause between two attempts to connect.
LONGEST_PAUSE = 30.0
_SLICE_SECONDS = 0.25


class Connection:
    """One websocket. `frames()` may run in one thread while another one sends or interrupts.

    Args:
        path: from `/v1/` on.
        params: the query; None values are left out.
        cancelled: ends `frames()` with Cancelled within a quarter of a second.
        deadline: until when, on the monotonic clock, `frames()` may take; then it fails.

    Raises:
        StreamError: it cannot be opened.
    """

    def __init__(
        self,
        settings: Settings,
        path: str,
        params: Mapping[str, Any] | None = None,
        *,
        cancelled: Signal | None = None,
        deadline: float | None = None,
        user_agent: str | None = None,
        headers: Mapping[str, str] | None = None,
    ) -> None:
        self._cancelled = cancelled
        self._deadline = deadline
        self._closed = threading.Event()
        self._farewell = ""
        query = urlencode({name: value for name, value in (params or {}).items() if value is not None})
        target = path + ("?" + query if query else "")
        sent = {"User-Agent": user_agent or f"pulumi-tutum/{__version__}", **(headers or {})}
        self._socket = _connect(settings, target, deadline, cancelled, sent)

    def __enter__(self) -> Connection:
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()

    def interrupt(self) -> None:
        """Ends a `frames()` that another thread is in. The connection still has to be closed by its owner."""
        self._closed.set()
        _cut(self._socket)

    def close(self) -> None:
        """Ends the connection at once. May be called twice, but only by the thread that reads it."""
        self.interrupt()
        self._socket.shutdown()

    def send(self, text: str) -> None:
        """Sends a text frame."""
        try:
            self._socket.send(text)
        except Exception as error:
            raise _broken(error) from None

    def frames(self) -> Iterator[str]:
        """The text frames that arrive, until the server closes the connection in good order or `close` is
        called.

        Raises:
            StreamError: the connection broke, fell silent, or its deadline passed.
            Cancelled: see `cancelled`.
        """
        from websocket import ABNF, WebSocketTimeoutException

        heard = time.monotonic()
        asked = False
        while not self._closed.is_set():
            now = time.monotonic()
            if self._cancelled is not None and self._cancelled.is_set():
                raise Cancelled("cancelled")
            if self._deadline is not None and now >= self._deadline:
                raise StreamError("the stream did not end in time")
            if now - heard >= 2 * PING_SECONDS:
                raise StreamError(
                    f"the stream fell silent: no answer to a ping for {PING_SECONDS:.0f} seconds"
                )
            try:
                if now - heard >= PING_SECONDS and not asked:
                    asked = True
                    self._socket.ping()
                self._socket.settimeout(self._patience(now, heard, asked))
                opcode, data = self._socket.recv_data(control_frame=True)
            except WebSocketTimeoutException:
                continue
            except Exception as error:
                if self._closed.is_set():
                    return
                raise _broken(error) from None
            heard, asked = time.monotonic(), False
            if opcode == ABNF.OPCODE_CLOSE:
                self._farewell = _check_close(data)
                return
            if opcode in (ABNF.OPCODE_TEXT, ABNF.OPCODE_BINARY):
                yield _text(data, strict=opcode == ABNF.OPCODE_TEXT)

    @property
    def exit_code(self) -> int | None:
        """Of a command that has ended (`exec_command`); None when the server did not say it, as Tutum's did
        not."""
        said = re.fullmatch(r"exit code (\d{1,10})", self._farewell, re.ASCII)
        return int(said[1]) if said else None

    def _patience(self, now: float, heard: float, asked: bool) -> float:
        """How long to wait for a frame before looking around again."""
        seconds = heard + (2 if asked else 1) * PING_SECONDS - now
        if self._deadline is not None:
            seconds = min(seconds, self._deadline - now)
        if self._cancelled is not None:
            seconds = min(seconds, _SLICE_SECONDS)
        return max(seconds, 0.01)

    def messages(self) -> Iterator[dict[str, Any]]:
        """The JSON objects among the frames; what is none is passed over.

        Raises:
            StreamError: as `frames`, or the server said in-band that something is wrong.
        """
        for frame in self.frames():
            try:
                message = json.loads(frame)
            except (ValueError, RecursionError):
                continue
            if not isinstance(message, dict) or message.get("type") == "auth":
                continue
            if message.get("type") == "error":
                raise _said(message)
            yield message


def events(
    settings: Settings,
    *,
    cancelled: Signal | None = None,
    on_change: Callable[[bool], None] | None = None,
    on_open: Callable[[Connection], None] | None = None,
    user_agent: str | None = None,
    headers: Mapping[str, str] | None = None,
) -> Generator[dict[str, Any], None, None]:
    """Every event of the account, for ever: the connection is made again, with growing pauses, whenever it
    is lost.

    Yields:
        `{"type": "service", "action": "update", "parents": [URI...], "resource_uri": URI,
        "state": "Running", ...}`. Nothing is replayed: what happened while there was no connection has to be
        read.

    Args:
        on_change: called with True when a connection stands, and with False when it is lost or could not be
            made.
        on_open: gets each connection, so that another thread can interrupt it.

    Raises:
        StreamError: the credentials were refused.
        Cancelled: see `Connection`.
    """
    pause = 0.0
    while True:
        try:
            with Connection(
                settings, "/v1/events", cancelled=cancelled, user_agent=user_agent, headers=headers
            ) as connection:
                if on_open:
                    on_open(connection)
                if on_change:
                    on_change(True)
                for message in connection.messages():
                    pause = 0.0
                    yield message
        except StreamError as error:
            if error.unauthorized:
                raise
        finally:
            if on_change:
                on_change(False)
        # A server that accepts and closes at once must not be asked in a tight loop either.
        pause = min(LONGEST_PAUSE, max(0.2, 2 * pause))
        _rest(pause * random.uniform(0.75, 1.0), cancelled)


def logs(
    settings: Settings,
    uuid: str,
    *,
    kind: str = "service",
    tail: int | None = None,
    follow: bool = True,
    cancelled: Signal | None = None,
    deadline: float | None = None,
    user_agent: str | None = None,
) -> Iterator[dict[str, Any]]:
    """The log lines of a service (or, with `kind`, of a container or an action). Specification: "Get the
    logs of a service".

    Args:
        tail: how many lines from the end to begin with; None: the server's default (300).
        follow: go on with new lines; else it ends after the tail.

    Yields:
        `{"type": "log", "source": "web-1", "log": "text\\n", "streamType": "stdout" | "stderr",
        "timestamp": seconds}`

    Raises:
        StreamError: it could not be opened, or broke before the server ended it.
    """
    if not schema.UUID_PATTERN.fullmatch(uuid):
        raise ValidationError([Problem("uuid", f"must be the uuid of a {kind}")])
    params = {"tail": tail, "follow": "true" if follow else "false"}
    path = f"/v1/{kind}/{uuid.lower()}/logs/"
    with Connection(
        settings, path, params, cancelled=cancelled, deadline=deadline, user_agent=user_agent
    ) as connection:
        yield from connection.messages()


def exec_command(
    settings: Settings,
    uuid: str,
    command: str = "sh",
    *,
    tty: bool = False,
    cancelled: Signal | None = None,
    user_agent: str | None = None,
) -> Connection:
    """Runs a command in a container (tutum-api.md, section 7).

    Args:
        uuid: the container's.
        command: shell words.
        tty: give it a terminal, where the control plane can.

    Returns:
        the connection: `send` gives it input, `messages` yields `{"type", "output", "streamType"}` until
        the command ends, and then there is its `exit_code`; frames that are no JSON are output as they are.
    """
    if not schema.UUID_PATTERN.fullmatch(uuid):
        raise ValidationError([Problem("uuid", "must be the uuid of a container")])
    path = f"/v1/container/{uuid.lower()}/exec/"
    params = {"command": command, "tty": "true" if tty else None}
    return Connection(settings, path, params, cancelled=cancelled, user_agent=user_agent)


# -- connecting ------------------------------------------------------------------------------------


def _connect(
    settings: Settings,
    path: str,
    deadline: float | None,
    cancelled: Signal | None,
    headers: Mapping[str, str],
) -> Any:
    # Here, so that the package is imported without websocket.
    import websocket

    if not settings.usable:
        raise ConfigError("these settings came out of a pickle, where credentials do not travel")
    seconds = CONNECT_SECONDS if deadline is None else min(CONNECT_SECONDS, deadline - time.monotonic())
    if seconds <= 0:
        raise StreamError("no time left to open the stream")
    # The library knows no "no proxy at all": it looks at http_no_proxy only beside an http_proxy_host.
    host = urlsplit(settings.stream_host).hostname or ""
    direct = {"http_proxy_host": host, "http_no_proxy": [host]} if is_loopback(settings.stream_host) else {}
    opened: Any = websocket.WebSocket(
        sslopt=_tls(settings.ca_bundle),
        sockopt=[(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)],
        # A ping may be sent by one thread while another one sends input.
        enable_multithread=True,
        # The library checks each byte in Python, which is slow. `_text` checks a frame when it decodes it.
        skip_utf8_validation=True,
    )
    # The library's time-out bounds each byte of the handshake, not the whole, and nothing interrupts it: a
    # watch does.
    done = threading.Event()
    threading.Thread(target=_watch, args=(opened, seconds, cancelled, done), daemon=True).start()
    try:
        opened.connect(
            settings.stream_host + path,
            header=[
                f"Authorization: {settings.authorization}",
                *(f"{name}: {value}" for name, value in headers.items()),
            ],
            timeout=seconds,
            suppress_origin=True,
            # Credentials must not follow a redirect.
            redirect_limit=0,
            **direct,
        )
    except Exception as error:
        status = opened.getstatus()
        opened.shutdown()
        if cancelled is not None and cancelled.is_set():
            raise Cancelled("cancelled") from None
        raise _refused(error, settings.stream_host, status) from None
    finally:
        done.set()
    # Older versions of the library take a redirect that they did not follow for a success.
    if opened.getstatus() != 101:
        status = opened.getstatus()
        opened.shutdown()
        raise _refused(None, settings.stream_host, status)
    return opened


def _tls(ca_bundle: str | None) -> dict[str, Any]:
    if ca_bundle is None:
        return {}
    return {"ca_cert_path" if os.path.isdir(ca_bundle) else "ca_certs": ca_bundle}


def _cut(opened: Any) -> None:
    """Wakes whoever waits for the socket. Closing it would not, and could hit another socket of the same
    number."""
    sock = opened.sock  # the thread that reads may let go of it at any moment
    if sock is not None:
        with contextlib.suppress(OSError):
            sock.shutdown(socket.SHUT_RDWR)


def _watch(opened: Any, seconds: float, cancelled: Signal | None, done: threading.Event) -> None:
    """Cuts a connection that is not `done` with its handshake in time, or when the user interrupts it."""
    end = time.monotonic() + seconds
    while time.monotonic() < end and not (cancelled is not None and cancelled.is_set()):
        if done.wait(_SLICE_SECONDS):
            return
    _cut(opened)


def _rest(seconds: float, cancelled: Signal | None) -> None:
    if cancelled is None:
        time.sleep(seconds)
    elif cancelled.wait(seconds) or cancelled.is_set():
        raise Cancelled("cancelled")


# -- what can go wrong -----------------------------------------------------------------------------


def _refused(error: Exception | None, host: str, status: int | None) -> StreamError:
    """Why a websocket was not opened. The library's own texts are not shown: some quote headers."""
    import websocket

    if isinstance(error, websocket.WebSocketBadStatusException):
        status = error.status_code
    if status in (401, 403):
        return StreamError(f"the stream at {host} refused the credentials", unauthorized=True)
    if status is not None and 300 <= status < 400:
        return StreamError(f"the stream at {host} redirects; redirects are not followed")
    if status is not None and status != 101:
        return StreamError(f"the stream at {host} was not opened: it answered {status}")
    if isinstance(error, (websocket.WebSocketTimeoutException, TimeoutError)):
        return StreamError(f"the stream at {host} did not answer in time")
    if isinstance(error, ConnectionRefusedError):
        return StreamError(f"cannot reach the stream at {host}: connection refused")
    if isinstance(error, (socket.gaierror, websocket.WebSocketAddressException)):
        return StreamError(f"cannot reach the stream at {host}: the host name is not known")
    if isinstance(error, ssl.SSLError):
        return StreamError(
            f"cannot reach the stream at {host}: TLS failed; set TUTUM_CA_BUNDLE (or tutum:caBundle) to the "
            "certificate to trust"
        )
    return StreamError(f"the stream at {host} was not opened: the answer is not that of a websocket")


def _text(data: bytes | str, *, strict: bool) -> str:
    """The text of a frame. What is not UTF-8 is an error, or U+FFFD without `strict`."""
    if isinstance(data, str):
        return data
    try:
        return data.decode("utf-8", "strict" if strict else "replace")
    except UnicodeDecodeError:
        raise StreamError("the stream sent something that is not UTF-8") from None


def _broken(error: Exception) -> StreamError:
    import websocket

    if isinstance(error, websocket.WebSocketProtocolException):
        return StreamError("the stream sent something that is not a websocket frame")
    return StreamError("the stream's connection broke")


def _said(message: Mapping[str, Any]) -> StreamError:
    """An error that the server sent in-band: `{"type": "error", "data": {"errorMessage":
    "UNAUTHORIZED"}}`."""
    data = message.get("data")
    text = data.get("errorMessage") if isinstance(data, Mapping) else None
    if text == "UNAUTHORIZED":
        return StreamError("the stream refused the credentials", unauthorized=True)
    return StreamError(f"the stream failed: {text}" if isinstance(text, str) else "the stream failed")


def _check_close(data: bytes) -> str:
    """The reason given; raises StreamError for a close that is not the normal end of a stream."""
    code = int.from_bytes(data[:2], "big") if len(data) >= 2 else 1000
    reason = data[2:].decode("utf-8", "replace")
    if code not in (1000, 1001):
        raise StreamError(f"the server ended the stream with code {code}{': ' + reason if reason else ''}")
    return reason
