"""The websockets under `/v1/`: logs of services, containers and actions, events, and commands in containers.

All messages are JSON text frames (tutum-api.md section 7). Credentials come in the header, as
`?user=&token=`, or as `?auth=` with the header's value. A stream that cannot be served says so in its first
message, `{"type": "error", "data": {"errorMessage": ...}}`, and is closed: clients of Tutum reconnect for
ever when the handshake itself is refused. Docker Cloud's clients expect just that refusal, so their family of
paths gets it.

Each connection has one task that sends and one that reads. A peer that does not read is waited for by the
sender; what piles up meanwhile is bounded where it comes from (the control plane's queues), so memory stays
flat.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import logging
import re
import shlex
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable, Mapping, Sequence
from typing import Any, NamedTuple

from starlette.routing import WebSocketRoute
from starlette.websockets import WebSocket, WebSocketDisconnect

from ..errors import ApiError, AuthError, BackendError, BadRequest, TutumError
from .clock import is_set_within
from .http import DEFAULT_TAIL, MAX_TAIL, Edge, Family, deny_handshake, query_pairs, run_of
from .limits import TOGETHER

log = logging.getLogger("pulumi_tutum.server")

#: A client waits so many seconds for its connection when an engine does not answer, and most give up after 5.
_PATIENCE = 2.0
_FALSE = frozenset({"false", "0", "no"})
#: The command lines of Tutum and Docker Cloud send what is typed, key by key, and show nothing of it.
_TYPED = re.compile(r"(tutum|dockercloud)-cli/")
#: Go's clients know by an output "EOF" that a command has ended, and read on for ever without; others would
#: show it.
_WANTS_EOF = re.compile(r"\bgo-(?:tutum|dockercloud)\b")
_quoted = json.encoder.encode_basestring_ascii
#: Close codes of RFC 6455.
_NORMAL, _POLICY, _INTERNAL, _TRY_AGAIN = 1000, 1008, 1011, 1013

#: Frames come in lists: with many of them, a step costs more than what it carries.
Frames = AsyncIterator[Sequence[Mapping[str, Any]]]
Query = Mapping[str, str]
Opener = Callable[[Edge, WebSocket, Query], Awaitable["Opened"]]


class Opened(NamedTuple):
    """What a path leads to.

    Attributes:
        frames: what is sent.
        on_text: gets what the client sends.
        announced: the first list of frames, maybe an empty one, says that nothing will be missed from now on.
        farewell: the reason that is given when the frames have ended, at most 123 bytes.
    """

    frames: Frames
    on_text: Callable[[str], Awaitable[None]] | None = None
    announced: bool = False
    farewell: Callable[[], str] = str


def _logs(kind: str) -> Opener:
    async def open_logs(edge: Edge, websocket: WebSocket, query: Query) -> Opened:
        tail = query.get("tail", str(DEFAULT_TAIL))
        if not (tail.isdecimal() and tail.isascii() and len(tail) < 10):
            raise BadRequest("tail must be a whole number, 0 or more")
        follow = query.get("follow", "true").lower() not in _FALSE
        uuid = websocket.path_params["uuid"]
        edge.control.detail(kind, uuid)
        frames = edge.control.logs(kind, uuid, min(int(tail), MAX_TAIL), follow)
        return Opened(frames, announced=follow)

    return open_logs


async def _events(edge: Edge, websocket: WebSocket, query: Query) -> Opened:
    family: Family = websocket.scope["family"]
    # The documentation says `parent`, go-dockercloud `parents`; several values are separated by commas.
    named = {"type": "type", "object": "object", "parent": "parent", "parents": "parent"}
    wanted = {
        named[name]: frozenset(family.inward(value) for value in query[name].split(","))
        for name in named
        if name in query
    }
    return Opened(_filtered(edge.control.events(run_of(websocket)), wanted))


async def _filtered(
    source: AsyncGenerator[Mapping[str, Any], None], wanted: Mapping[str, frozenset[str]]
) -> Frames:
    # Closed with the connection, not some time later: who listens lives.
    async with contextlib.aclosing(source) as events:
        async for event in events:
            if "type" in wanted and event["type"] not in wanted["type"]:
                continue
            if "object" in wanted and event["resource_uri"] not in wanted["object"]:
                continue
            if "parent" in wanted and wanted["parent"].isdisjoint(event["parents"]):
                continue
            yield [event]


async def _exec(edge: Edge, websocket: WebSocket, query: Query) -> Opened:
    try:
        command = shlex.split(query.get("command", "sh"))
    except ValueError:
        raise BadRequest("command has an unclosed quotation") from None
    if not command:
        raise BadRequest("command is empty")
    user_agent = websocket.headers.get("user-agent", "")
    typed = "true" if _TYPED.match(user_agent) else "false"
    tty = query.get("tty", typed).lower() not in _FALSE
    session = await edge.control.exec(websocket.path_params["uuid"], command, tty=tty)
    wants_eof = _WANTS_EOF.search(user_agent) is not None
    ended = ""

    async def output() -> Frames:
        nonlocal ended
        try:
            async for stream, text in session.output():
                yield [{"type": "log", "output": text, "streamType": stream}]
            if wants_eof:
                yield [{"type": "log", "output": "EOF", "streamType": "stdout"}]
            with contextlib.suppress(BackendError):
                # Tutum had no place for it. Nobody else's client looks here, so that none is confused.
                ended = f"exit code {await session.wait()}"
        finally:
            await session.close()

    return Opened(output(), session.send, farewell=lambda: ended)


#: Path (Tutum's spelling; Docker Cloud's is translated at the edge) and what it opens.
STREAMS: dict[str, Opener] = {
    "/v1/service/{uuid}/logs/": _logs("service"),
    "/v1/container/{uuid}/logs/": _logs("container"),
    "/v1/action/{uuid}/logs/": _logs("action"),
    "/v1/container/{uuid}/exec/": _exec,
    "/v1/events/": _events,
}


def stream_routes() -> list[WebSocketRoute]:
    """The websocket routes for `Edge`."""
    return [WebSocketRoute(path, _endpoint(opener)) for path, opener in STREAMS.items()]


def _endpoint(opener: Opener) -> Callable[[WebSocket], Awaitable[None]]:
    async def endpoint(websocket: WebSocket) -> None:
        edge: Edge = websocket.scope["edge"]
        family: Family = websocket.scope["family"]
        try:
            query = dict(query_pairs(websocket.scope["query_string"]))
        except BadRequest as error:
            await deny_handshake(websocket.scope, websocket.receive, websocket.send, error)
            return
        principal = edge.principal(websocket.scope["headers"])
        if principal is None and "user" in query and "token" in query:
            principal = edge.principal_of_pair(query["user"], query["token"])
        if principal is None and "auth" in query:
            # go-tutum in a container: what TUTUM_AUTH holds.
            principal = edge.principal([(b"authorization", query["auth"].encode())])
        if principal is None and family.refuses_handshake:
            refusal = AuthError("Wrong or missing credentials")
            await deny_handshake(websocket.scope, websocket.receive, websocket.send, refusal)
            return
        with contextlib.suppress(WebSocketDisconnect, ConnectionError):
            if principal is None:
                await websocket.accept()
                await _refuse(websocket, "UNAUTHORIZED")
                return
            inward = {name: str(family.inward(value)) for name, value in query.items()}
            try:
                # Before the handshake: what happens once the client is connected must not be missed.
                opened = await opener(edge, websocket, inward)
            except TutumError as error:
                await websocket.accept()
                await _refuse(websocket, error.message if isinstance(error, ApiError) else str(error))
                return
            await _serve(websocket, family, opened)

    return endpoint


async def _serve(websocket: WebSocket, family: Family, opened: Opened) -> None:
    connected, listening = asyncio.Event(), asyncio.Event()
    tasks = [asyncio.ensure_future(_send(websocket, family, opened.frames, listening, connected))]
    try:
        # Once round the loop, or until it says so: the source must be listened to before the client knows
        # that it is connected.
        await asyncio.sleep(0)
        if opened.announced:
            await is_set_within(_PATIENCE, listening)
        await websocket.accept()
        connected.set()
        tasks.append(asyncio.ensure_future(_read(websocket, opened.on_text)))
        await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
    finally:
        for task in tasks:
            task.cancel()
        # The frames' source is closed by the sender's end; nothing of this connection outlives it.
        await asyncio.gather(*tasks, return_exceptions=True)
    sender = tasks[0]
    if sender.cancelled():
        return
    failure = sender.exception()
    if failure is None:
        await websocket.close(_NORMAL, opened.farewell())
    elif isinstance(failure, TutumError):
        await _refuse(websocket, str(failure), _TRY_AGAIN)
    elif not isinstance(failure, (WebSocketDisconnect, ConnectionError, OSError)):
        log.error("unexpected error in a stream", extra={"type": type(failure).__name__})
        await websocket.close(_INTERNAL)


async def _send(
    websocket: WebSocket, family: Family, frames: Frames, listening: asyncio.Event, connected: asyncio.Event
) -> None:
    # As many as are there in one write, where the server below can do that (limits.py).
    together = TOGETHER in websocket.scope.get("extensions", {})
    try:
        async for batch in frames:
            listening.set()
            await connected.wait()
            if not batch:
                continue
            texts = [_text(family.outward(frame)) for frame in batch]
            if together:
                await websocket.send({"type": "websocket.send", "texts": texts})
                continue
            for text in texts:
                await websocket.send_text(text)
    finally:
        listening.set()
        close = getattr(frames, "aclose", None)
        if close is not None:
            await close()


def _text(frame: Mapping[str, Any]) -> str:
    """A frame as JSON text. Lines of logs are many, and all alike."""
    if frame["type"] == "log" and "source" in frame:
        return (
            f'{{"log": {_quoted(frame["log"])}, "source": {_quoted(frame["source"])}, '
            f'"streamType": "{frame["streamType"]}", "timestamp": {frame["timestamp"]}, "type": "log"}}'
        )
    return json.dumps(frame, sort_keys=True)


async def _read(websocket: WebSocket, on_text: Callable[[str], Awaitable[None]] | None) -> None:
    """Read until the peer is gone; what it says matters only to a command's input."""
    while True:
        message = await websocket.receive()
        if message["type"] == "websocket.disconnect":
            return
        text = message.get("text")
        if text is None and message.get("bytes"):
            text = message["bytes"].decode("utf-8", "replace")
        if text and on_text is not None:
            await on_text(text)


async def _refuse(websocket: WebSocket, reason: str, code: int = _POLICY) -> None:
    frame = {"type": "error", "data": {"errorMessage": reason}}
    await websocket.send_text(json.dumps(frame))
    await websocket.close(code)
