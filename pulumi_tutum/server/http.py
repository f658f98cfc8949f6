"""The edge: HTTP in, `Call`s to handlers, `Answer`s and errors out as the API's JSON.

What is served is data (`routes.py`: one `Route` per method and path); this module has the mechanism that all
of them share: paths with and without trailing slash and with doubled slashes, credentials, bodies (JSON only,
bounded in size and depth), the list envelope, headers, and the one place where an error becomes an answer.
Handlers only raise.

Conventions are those of tutum-api.md section 2. Where HTTP leaves a choice: a body is read only where the
route takes one, and ignored elsewhere (clients of the time send `{}` with everything); 415 is for a body that
declares something other than JSON or is not JSON, 400 for JSON that is not what is wanted.
"""

from __future__ import annotations

import json
import logging
import re
import time
import traceback
from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from http import HTTPStatus
from typing import Any
from urllib.parse import parse_qsl, urlencode

from starlette.requests import ClientDisconnect, HTTPConnection, Request
from starlette.routing import Route as StarletteRoute
from starlette.routing import Router, WebSocketRoute
from starlette.types import Receive, Scope, Send

from ..errors import (
    ApiError,
    AuthError,
    BackendError,
    BadRequest,
    NotAllowed,
    NotFound,
    ServerError,
    ValidationError,
)
from .auth import Authority, Principal, split_header
from .control import ControlPlane, Listing, Reply, RequestInfo
from .shapes import render

MAX_BODY_BYTES = 1024 * 1024
MAX_TRIGGER_BYTES = 64 * 1024
MAX_DEPTH = 32
DEFAULT_LIMIT, MAX_LIMIT = 25, 1000
#: How many lines of a log are shown when nothing is said, and at most.
DEFAULT_TAIL, MAX_TAIL = 300, 100_000

log = logging.getLogger("pulumi_tutum.server")

_HEADERS: list[tuple[bytes, bytes]] = [
    (b"cache-control", b"no-cache"),
    (b"vary", b"Accept, Authorization, Cookie"),
    (b"x-frame-options", b"DENY"),
    (b"x-content-type-options", b"nosniff"),
]
#: Exactly this, without a charset: a client compares it for equality.
_JSON_HEADERS = [(b"content-type", b"application/json"), *_HEADERS]
_CHALLENGE = (b"www-authenticate", b'ApiKey realm="tutum", Basic realm="tutum", charset="UTF-8"')


@dataclass(frozen=True)
class Family:
    """A spelling of the API: Tutum's own, or Docker Cloud's (`dockercloud.py`).

    Attributes:
        action_header: the header that names the action a request made.
        refuses_handshake: a websocket without credentials gets HTTP 401, not an error message inside the
            stream.
        inward, outward: translate the resource URIs in what was sent, and in what is answered.
    """

    action_header: bytes = b"x-tutum-action-uri"
    refuses_handshake: bool = False
    inward: Callable[[Any], Any] = lambda value: value
    outward: Callable[[Any], Any] = lambda value: value


TUTUM = Family()


@dataclass(frozen=True)
class Parameter:
    """A query parameter, for routing's sake unnecessary and for the OpenAPI document essential."""

    name: str
    doc: str
    schema: Mapping[str, Any] = field(default_factory=lambda: {"type": "string"})


@dataclass(frozen=True)
class Answer:
    """What a handler answers: a JSON object, or one already rendered; `action_uri` goes into the header."""

    body: Mapping[str, Any] | bytes
    status: int = 200
    action_uri: str | None = None
    headers: tuple[tuple[bytes, bytes], ...] = ()

    @classmethod
    def of(cls, reply: Reply) -> Answer:
        return cls(reply.body, reply.status, reply.action_uri)


@dataclass
class Call:
    """One request as handlers see it.

    Attributes:
        principal: who calls; None only on routes without authentication.
        params: the variable parts of the path.
        query: the query's pairs, URIs already in Tutum's spelling.
        body: the JSON object sent ({} when the route takes none), or for a route with a text body the text.
    """

    control: ControlPlane
    authority: Authority
    request: Request
    family: Family
    principal: Principal | None
    params: Mapping[str, str]
    query: Sequence[tuple[str, str]]
    body: Any

    def option(self, name: str) -> str | None:
        """The last value of a query parameter, or None."""
        return dict(self.query).get(name)

    def flag(self, name: str, default: bool) -> bool:
        """A boolean query parameter; Python clients send `True`, others `true` or `1`."""
        value = (self.option(name) or "").strip().lower()
        return _FLAGS.get(value, default)

    def number(self, name: str, default: int) -> int:
        """A query parameter that is a whole number.

        Raises:
            BadRequest: it is none.
        """
        text = self.option(name)
        if text is None:
            return default
        if not re.fullmatch("[0-9]{1,9}", text):
            raise BadRequest(f"{name} must be a whole number, 0 or more")
        return int(text)

    def info(self) -> RequestInfo:
        """What the action's record keeps of this request: nothing secret."""
        client = self.request.client
        return RequestInfo(
            method=self.request.method,
            path=self.request.url.path,
            user_agent=self.request.headers.get("user-agent", "")[:256],
            ip=client.host if client else "",
            body=json.dumps(masked(self.body)) if isinstance(self.body, dict) and self.body else "",
        )


_FLAGS = {"true": True, "1": True, "yes": True, "false": False, "0": False, "no": False}

Handler = Callable[[Call], Awaitable[Answer]]


@dataclass(frozen=True)
class Route:
    """One operation of the API.

    Attributes:
        path: in the canonical spelling, with a trailing slash; `{name}` and `{name:path}` are variable.
        body: name of the OpenAPI schema of the JSON object it takes; None: whatever is sent is ignored;
            TEXT: any text.
        answer: name of the OpenAPI schema of the object it answers; `listed`: in the list envelope.
        open: needs no credentials.
        extension: not part of Tutum's API.
    """

    method: str
    path: str
    handler: Handler
    summary: str
    body: str | None = None
    answer: str = "Object"
    listed: bool = False
    status: int = 200
    parameters: tuple[Parameter, ...] = ()
    open: bool = False
    extension: bool = False


TEXT = "text"


class Edge:
    """The ASGI application: finds the resource of a path and lets it answer.

    Args:
        routes: the operations; those of one path become one resource, which knows its methods.
        streams: the websocket routes.
        families: path translators: each takes the scope's type, a path and the account's name, and gives the
            family and Tutum's path, or None.
    """

    def __init__(
        self,
        control: ControlPlane,
        authority: Authority,
        routes: Iterable[Route],
        streams: Sequence[WebSocketRoute] = (),
        families: Sequence[Callable[[str, str, str], tuple[Family, str] | None]] = (),
    ) -> None:
        self.control = control
        self.authority = authority
        self._families = tuple(families)
        by_path: dict[str, dict[str, Route]] = {}
        for route in routes:
            by_path.setdefault(route.path, {})[route.method] = route
        resources = [StarletteRoute(path, _Resource(self, methods)) for path, methods in by_path.items()]
        self._router = Router([*resources, *streams], redirect_slashes=False, default=self._unknown)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "http" and await self._service_detail(scope, send):
            return
        path = canonical(scope["path"])
        family = TUTUM
        for translate in self._families:
            found = translate(scope["type"], path, self.authority.user)
            if found:
                family, path = found
                break
        # The original path stays under its own name: error messages and action records show what was asked.
        await self._router({**scope, "path": path, "family": family, "edge": self}, receive, send)

    async def _service_detail(self, scope: Scope, send: Send) -> bool:
        """Answer `GET /api/v1/service/<uuid>/`, the request that waiting clients repeat, without the usual
        way round.

        Returns False, having sent nothing, for anything that is not plainly this."""
        path: str = scope["path"]
        if scope["method"] != "GET" or len(path) != _DETAIL_LENGTH or not path.startswith(_DETAIL):
            return False
        if path[-1] != "/" or scope["query_string"]:
            return False
        authorization = [value for name, value in scope["headers"] if name == b"authorization"]
        if len(authorization) != 1:
            return False
        principal = self.authority.recognise(authorization[0])
        if principal is None:
            return False
        try:
            body = self.control.detail_json("service", path[len(_DETAIL) : -1])
        except ApiError:
            return False
        length = (b"content-length", str(len(body)).encode())
        await send({"type": "http.response.start", "status": 200, "headers": [*_JSON_HEADERS, length]})
        await send({"type": "http.response.body", "body": body})
        return True

    def principal(self, headers: Iterable[tuple[bytes, bytes]]) -> Principal | None:
        """Who sent these request headers; None without credentials that hold."""
        for name, value in headers:
            if name == b"authorization":
                principal = self.authority.recognise(value)
                pair = None if principal else split_header(value)
                return self._service(*pair) if pair else principal
        return None

    def principal_of_pair(self, user: str, key: str) -> Principal | None:
        """Whose user name and key these are."""
        return self.authority.recognise_pair(user, key) or self._service(user, key)

    def _service(self, user: str, token: str) -> Principal | None:
        """The service whose containers were given this token, as long as it lives."""
        service = self.control.service_of_token(token) if token and user == self.authority.user else None
        return Principal(user, service) if service else None

    async def _unknown(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "websocket":
            await deny_handshake(scope, receive, send, NotFound("There is nothing at this address"))
        elif scope["type"] == "http":
            await _respond(scope, send, error_answer(NotFound("There is nothing at this address")))


_DETAIL = "/api/v1/service/"
_DETAIL_LENGTH = len(_DETAIL) + 36 + 1


class _Resource:
    """One path with its methods: an ASGI application."""

    def __init__(self, edge: Edge, methods: Mapping[str, Route]) -> None:
        self._edge = edge
        self._methods = dict(methods)
        allowed = [*methods, "HEAD"] if "GET" in methods else [*methods]
        self._allow = ((b"allow", ", ".join(sorted([*allowed, "OPTIONS"])).encode()),)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        started = time.perf_counter()
        method = scope["method"]
        request = Request(scope, receive)
        if method == "OPTIONS":
            await _respond(scope, send, Answer(b"", 204, headers=self._allow))
            return
        route = self._methods.get("GET" if method == "HEAD" else method)
        if route is None:
            error = NotAllowed("This method is not allowed here")
            await _respond(scope, send, error_answer(error, self._allow))
            return
        try:
            answer = await self._answer(route, request)
        except ClientDisconnect:
            return
        except Exception as error:
            answer = error_answer(error)
        await _respond(scope, send, answer)
        # Reads are the bulk of the traffic; changes, failures and who was turned away are what one looks for.
        quiet = route.method == "GET" and answer.status < 500 and answer.status != 401
        level = logging.DEBUG if quiet else logging.INFO
        if log.isEnabledFor(level):
            client = request.client
            log.log(
                level,
                "request",
                extra={
                    "method": method,
                    # The address of a trigger is all that is needed to call it.
                    "path": route.path if route.open else scope["path"],
                    "status": answer.status,
                    "milliseconds": round((time.perf_counter() - started) * 1000, 1),
                    "client": client.host if client else "",
                },
            )

    async def _answer(self, route: Route, request: Request) -> Answer:
        scope, edge = request.scope, self._edge
        principal = None
        if not route.open:
            principal = edge.principal(scope["headers"])
            if principal is None:
                raise AuthError("Wrong or missing credentials")
        family: Family = scope["family"]
        body: Any = {}
        if route.body == TEXT:
            body = (await read_body(request, MAX_TRIGGER_BYTES)).decode("utf-8", "replace")
        elif route.body is not None:
            body = family.inward(await read_json(request))
        call = Call(
            control=edge.control,
            authority=edge.authority,
            request=request,
            family=family,
            principal=principal,
            params=scope["path_params"],
            query=[(name, family.inward(value)) for name, value in query_pairs(scope["query_string"])],
            body=body,
        )
        return await route.handler(call)


# -- requests ------------------------------------------------------------------------------------------------


def canonical(path: str) -> str:
    """The one spelling of a path: no doubled slashes, a slash at the end."""
    if "//" in path:
        path = re.sub("/{2,}", "/", path)
    return path if path.endswith("/") else path + "/"


def query_pairs(query: bytes) -> list[tuple[str, str]]:
    """The pairs of a query string.

    Raises:
        BadRequest: more of them than anybody means.
    """
    if not query:
        return []
    try:
        return parse_qsl(query.decode("latin-1"), keep_blank_values=True, max_num_fields=100)
    except ValueError:
        raise BadRequest("The query has too many parameters") from None


async def read_body(request: Request, limit: int) -> bytes:
    """The request's body.

    Raises:
        BadRequest: 413, it is larger than `limit` bytes.
    """
    declared = request.headers.get("content-length", "")
    if declared.isdecimal() and int(declared) > limit:
        raise BadRequest(f"The body is larger than {limit} bytes", status=413)
    parts: list[bytes] = []
    size = 0
    async for part in request.stream():
        size += len(part)
        if size > limit:
            raise BadRequest(f"The body is larger than {limit} bytes", status=413)
        parts.append(part)
    return b"".join(parts)


async def read_json(request: Request) -> dict[str, Any]:
    """The JSON object in the request's body; an empty body is an empty object.

    Raises:
        BadRequest: 413 too large; 415 not declared as JSON, or not JSON; 400 not an object, nested too deep,
            with the same key twice, or with text that is no Unicode.
    """
    body = await read_body(request, MAX_BODY_BYTES)
    if not body.strip():
        return {}
    kind, _, options = request.headers.get("content-type", "").lower().partition(";")
    kind = kind.strip()
    if (
        kind
        and kind != "application/json"
        and not (kind.startswith("application/") and kind.endswith("+json"))
    ):
        raise BadRequest("The body must be JSON (Content-Type: application/json)", status=415)
    charset = re.search(r'charset\s*=\s*"?([^";\s]+)', options)
    if charset and charset[1] not in ("utf-8", "utf8", "us-ascii"):
        raise BadRequest("The body must be JSON in UTF-8", status=415)
    return parse_object(body, "The body", 415)


def parse_object(text: bytes, what: str, status: int = 400) -> dict[str, Any]:
    """The JSON object that a text is.

    Args:
        what: what to call it in an error; status: of the error when it is no JSON.

    Raises:
        BadRequest: as `read_json`.
    """
    try:
        value = json.loads(text.decode("utf-8-sig"), object_pairs_hook=_unique, parse_constant=_no_constant)
    except RecursionError:
        raise BadRequest("The JSON is nested too deep") from None
    except ValueError:
        raise BadRequest(f"{what} is not JSON", status=status) from None
    if not isinstance(value, dict):
        raise BadRequest(f"{what} must be a JSON object")
    _check_depth(value, MAX_DEPTH)
    if b"\\ud" in text.lower():
        try:
            json.dumps(value, ensure_ascii=False).encode("utf-8")
        except UnicodeEncodeError:
            raise BadRequest("The JSON has text that is not Unicode (half of a surrogate pair)") from None
    return value


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) != len(pairs):
        raise BadRequest("The JSON has an object with the same key twice")
    return found


def _no_constant(name: str) -> Any:
    raise ValueError(name)


def _check_depth(value: Any, left: int) -> None:
    if not isinstance(value, (dict, list)):
        return
    if left == 0:
        raise BadRequest("The JSON is nested too deep")
    for item in value.values() if isinstance(value, dict) else value:
        _check_depth(item, left - 1)


def masked(value: Any) -> Any:
    """A JSON value with every environment value replaced, for the record of an action."""
    if isinstance(value, dict):
        return {k: _mask(v) if k in _SECRET_KEYS else masked(v) for k, v in value.items()}
    return [masked(item) for item in value] if isinstance(value, list) else value


_SECRET_KEYS = frozenset({"container_envvars", "environment", "link_variables", "calculated_envvars"})
_MASK = "********"


def _mask(value: Any) -> Any:
    if isinstance(value, dict):
        return {k: _MASK for k in value}
    if isinstance(value, list):
        return [
            {k: v if k == "key" else _MASK for k, v in item.items()}
            if isinstance(item, dict)
            else (item.partition("=")[0] + "=" + _MASK if isinstance(item, str) and "=" in item else _MASK)
            for item in value
        ]
    return _MASK


# -- answers -------------------------------------------------------------------------------------------------


async def _respond(scope: Scope, send: Send, answer: Answer) -> None:
    family: Family = scope.get("family", TUTUM)
    body = answer.body if isinstance(answer.body, bytes) else render(family.outward(answer.body))
    # An answer without a body has no type; 204 must not even have a length.
    headers = list(_JSON_HEADERS if body else _HEADERS)
    headers += answer.headers
    if answer.status != 204:
        headers.append((b"content-length", str(len(body)).encode()))
    if answer.action_uri:
        headers.append((family.action_header, str(family.outward(answer.action_uri)).encode()))
    await send({"type": "http.response.start", "status": answer.status, "headers": headers})
    await send({"type": "http.response.body", "body": b"" if answer.status == 204 else body})


def error_answer(error: Exception, headers: tuple[tuple[bytes, bytes], ...] = ()) -> Answer:
    """The API's answer for an error, whatever it is: `{"error": text}` and the nested messages beside it."""
    if isinstance(error, ValidationError):
        fields: dict[str, list[str]] = {}
        for problem in error.problems:
            fields.setdefault(problem.path or "body", []).append(problem.reason)
        error = BadRequest(str(error), detail={"service": fields})
    elif isinstance(error, BackendError):
        error = ServerError(str(error), status=HTTPStatus.SERVICE_UNAVAILABLE)
    elif not isinstance(error, ApiError):
        # The text of an unforeseen error may hold anything, a secret too: the log gets where, not what.
        where = traceback.extract_tb(error.__traceback__)
        log.error(
            "unexpected error",
            extra={
                "type": type(error).__name__,
                "where": [f"{frame.filename}:{frame.lineno} {frame.name}" for frame in where[-12:]],
            },
        )
        error = ServerError("The server failed to answer; its log has more")
    if isinstance(error, AuthError) and error.status == 401:
        headers = (*headers, _CHALLENGE)
    if error.retry_after is not None:
        headers = (*headers, (b"retry-after", str(max(0, round(error.retry_after))).encode()))
    body = {**error.detail, "error": error.message}
    return Answer(body, error.status, error.action_uri or None, headers)


def run_of(request: HTTPConnection) -> str:
    """The run that the caller is part of ("Made once"), an extension; "" when it does not say."""
    return request.headers.get("x-tutum-run", "")[:64]


def page(call: Call, objects: Listing) -> Answer:
    """The list envelope around one page of `objects`. `limit=0` asks for all, up to `MAX_LIMIT`."""
    limit, offset = call.number("limit", DEFAULT_LIMIT), call.number("offset", 0)
    limit = min(limit, MAX_LIMIT) or MAX_LIMIT
    path = call.request.scope["path"]

    def at(start: int) -> str:
        others = [(name, value) for name, value in call.query if name not in ("limit", "offset")]
        return f"{path}?{urlencode([*others, ('limit', limit), ('offset', start)])}"

    meta = {
        "limit": limit,
        "next": at(offset + limit) if offset + limit < len(objects) else None,
        "offset": offset,
        "previous": at(max(0, offset - limit)) if offset > 0 else None,
        "total_count": len(objects),
    }
    shown = slice(offset, offset + limit)
    if call.family is TUTUM:
        return Answer(b'{"meta": %b, "objects": %b}' % (render(meta), objects.json(shown)))
    return Answer({"meta": meta, "objects": objects[shown]})


async def deny_handshake(scope: Scope, receive: Receive, send: Send, error: ApiError) -> None:
    """Refuse a websocket before it is one, with the API's error shape."""
    await receive()
    answer = error_answer(error)
    body = render(answer.body)
    headers = [*_JSON_HEADERS, *answer.headers, (b"content-length", str(len(body)).encode())]
    await send({"type": "websocket.http.response.start", "status": answer.status, "headers": headers})
    await send({"type": "websocket.http.response.body", "body": body})
