"""`Client`: Tutum's REST API, one method per endpoint. Plain dicts in the API's own shape go in and come out.

    client = Client()                                    # credentials as config.py finds them
    web = client.create_service({"image": "tutum/hello-world", "name": "web"})
    client.start_service(web["uuid"])
    pulumi_tutum.waiting.until(client, web["uuid"], "Running")

A client may be used by many threads. It opens its first connection (and imports `requests`) at the first
request.

What is repeated, and what never:
  - A GET, and a PATCH (it says how things should be, so twice is the same as once), is repeated after a
    connection that broke, a time-out, 429, 5xx, or an answer that is no JSON: with growing, jittered
    pauses or as Retry-After says, for some seconds.
  - A POST that creates is repeated only with a key (see `create_service`).
  - A POST of an action and a DELETE are never repeated here: who called must look at the state first.
  - Nothing follows an address that the server gave. A redirect is an error, of a `next` page only the
    offset is used, of a `resource_uri` only the uuid: credentials go to the configured host and nowhere else.

Errors: those of errors.py. Their texts hold no credentials and no environment values, even when the server
echoes them.
"""

from __future__ import annotations

import json
import random
import re
import secrets
import threading
import time
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, TypedDict
from urllib.parse import urlsplit

from . import __version__, config, lifecycle, schema
from .errors import (
    ApiError,
    Cancelled,
    Conflict,
    NotAllowed,
    NotFound,
    Problem,
    RateLimited,
    TransportError,
    ValidationError,
)

if TYPE_CHECKING:
    from typing_extensions import Unpack

    from .transport import Answer, Signal, Transport

__all__ = ["Client", "Detail", "Limits"]

#: Seconds that one call may take when the caller sets no deadline.
DEFAULT_SECONDS = 60.0
#: For how long a call that may be repeated is repeated when the server does not say anything better.
PATIENCE_SECONDS = 20.0
#: For how long a server that cannot even be connected to is tried.
REFUSED_SECONDS = 5.0
#: The longest pause that a Retry-After may cause at once; then we ask again.
LONGEST_PAUSE = 30.0
_PAGE = 100
_MESSAGE_LENGTH = 500


class Detail(dict[str, Any]):
    """An object of the API, in detail shape, as a dict.

    Attributes:
        action_uri: URI of the action that the request started (`X-Tutum-Action-URI`), "" if the server
            named none.
    """

    action_uri: str = ""


class Limits(TypedDict, total=False):
    """How long a call may take. Every method of `Client` takes these as keywords.

    deadline: until when, on the clock of `time.monotonic()`; default: a minute from now.
    cancelled: something with `is_set()` and `wait(seconds)`, such as a `threading.Event`; once set, the call
        ends with `Cancelled` within a quarter of a second.
    """

    deadline: float | None
    cancelled: Signal | None


class Client:
    """Talks to one control plane as one user.

    Args:
        user, apikey, auth, rest_host, stream_host, ca_bundle: override what config.py finds; `auth` is a
            whole Authorization header value.
        settings: ready-made settings, instead of all of these.
        user_agent: the application's own token, which goes before ours.
        run: a random name for the run that this client is part of, or "" (see `create_service`).

    Attributes:
        run_headers: what tells the control plane of the run, on events streams too.

    Raises:
        ConfigError: credentials are missing, or an address is not one.
    """

    def __init__(
        self,
        user: str | None = None,
        apikey: str | None = None,
        *,
        auth: str | None = None,
        rest_host: str | None = None,
        stream_host: str | None = None,
        ca_bundle: str | None = None,
        settings: config.Settings | None = None,
        user_agent: str | None = None,
        run: str = "",
    ) -> None:
        explicit = {
            "user": user,
            "apikey": apikey,
            "auth": auth,
            "rest_host": rest_host,
            "stream_host": stream_host,
            "ca_bundle": ca_bundle,
        }
        self.settings = settings if settings is not None else config.resolve(explicit)
        self.user_agent = f"{user_agent + ' ' if user_agent else ''}pulumi-tutum/{__version__}"
        self.run_headers = {"X-Tutum-Run": run} if run else {}
        self._transport: Transport | None = None
        self._opening = threading.Lock()

    def __repr__(self) -> str:
        return f"Client({self.settings.rest_host!r}, user={self.settings.user!r})"

    def __getstate__(self) -> dict[str, Any]:
        return {"settings": self.settings, "user_agent": self.user_agent, "run_headers": {}}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state, _transport=None, _opening=threading.Lock())

    def close(self) -> None:
        """Closes the pooled connections. The client can be used again."""
        with self._opening:
            if self._transport is not None:
                self._transport.close()
                self._transport = None

    def __enter__(self) -> Client:
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()

    # -- services ----------------------------------------------------------------------------------

    def list_services(
        self,
        state: str | Collection[str] | None = None,
        name: str | None = None,
        **limits: Unpack[Limits],
    ) -> Iterator[dict[str, Any]]:
        """All services, recently terminated ones included, in list shape (without environment, links,
        containers).

        Specification: "List all services". The filters are exact; the pages are fetched as they are needed.
        Several states need a control plane that understands a repeated parameter, as this package's does.
        """
        states = [state] if isinstance(state, str) else state
        for service in self._list("service", {"state": states and sorted(states), "name": name}, limits):
            # A server that does not know a filter ignores it.
            if (states is None or service.get("state") in states) and (
                name is None or service.get("name") == name
            ):
                yield service

    def get_service(self, uuid: str, **limits: Unpack[Limits]) -> Detail:
        """One service, in detail shape. `uuid` may also be its resource URI. Specification: "Get an
        existing service".

        Raises:
            NotFound: there is none, or it was terminated long ago.
        """
        return self._service("GET", uuid, limits)

    def find_service(self, name: str, **limits: Unpack[Limits]) -> Detail:
        """The living service with exactly this name, in detail shape.

        Raises:
            NotFound: no living service has the name.
            Conflict: several have it (services of stacks may); the message lists their uuids.
        """
        found = self._living(name, limits)
        if not found:
            raise NotFound(f"no service is named {name!r}")
        if len(found) > 1:
            raise Conflict(
                f"{len(found)} services are named {name!r}: {_candidates(found)}; say which by its uuid"
            )
        return self.get_service(found[0]["uuid"], **limits)

    def create_service(
        self,
        body: Mapping[str, Any],
        *,
        key: str | None = None,
        deadline: float | None = None,
        cancelled: Signal | None = None,
    ) -> Detail:
        """Creates a service, without starting it. Specification: "Create a new service".

        Args:
            body: the JSON parameters of the specification.
            key: the create key (docs/made-once.md), sent as `Idempotency-Key`. Without one the request goes
                out once.

        Returns:
            the service; with a key, it may be the living one that an earlier request with the key has made,
            whatever the body says.

        Raises:
            Conflict: the name is taken, the key is closed, or what was made cannot be told (see below). With
                `retry_after`: another run is making the service with this key, and has not ended.
            TransportError: no answer came; without a key, or when `sent` is False, look before trying again.

        Why a repeat makes nothing twice. After an error that leaves open whether the server has acted
        (reset, time-out, 502 to 504), there are two cases:

        The server knows keys (it answers `close_keys([])`). It holds at most one living service per open
        key, so the repeat returns the service that the first request made, if it made one. Repeated until
        the deadline.

        It does not. The name then is all that the service can be looked up by, and a service found by name
        alone proves nothing: it may be an older one, or that of somebody whose stack has the same names (and
        so the same key, and the same suffix of the name) and who runs at this moment. So each call carries a
        random word in its User-Agent, which Tutum copies into the service's "create" action. Before any
        second POST we look the name up:
          - one living service, whose action carries our word: that is ours, and is returned.
          - none: the first request has not arrived, or not yet. The second POST may go out. Had the first
            been merely slow, a server whose names are unique refuses the second (409) and we look again;
            on one whose names are not, we look after it and find two with our word.
          - anything else (no proof, or several): we stop, and say which services there are. Guessing wrong
            would take over a stranger's service, or make a second one; stopping costs the user one `adopt`.
        """
        limit = _limits(deadline, cancelled)
        word = f"create/{secrets.token_hex(8)}" if key else ""
        headers: dict[str, str] = {}
        if key:
            headers = {"Idempotency-Key": key, "User-Agent": f"{self.user_agent} ({word})"}
            headers |= self.run_headers
        uncertain = False
        attempts = _Attempts(limit)
        while True:
            try:
                made = self._detail(
                    "POST", "/api/v1/service/", limit, body=body, headers=headers, repeat=False
                )
                self._check_service(made, "POST", "/api/v1/service/")
                if uncertain and self._keyless(limit):
                    self._only_one(made, body, word, limit)
                return made
            except (ApiError, TransportError) as error:
                if key and uncertain and isinstance(error, Conflict) and self._keyless(limit):
                    found = self._made(body, word, limit)
                    if found is None:
                        raise
                    return found
                if not key or not _may_pass(error):
                    raise
                uncertain = uncertain or _effect_unknown(error)
                # Once a request may have arrived, giving up early would lose what it made.
                lost = isinstance(error, TransportError) and not isinstance(error, _Malformed)
                attempts.pause(error, until_deadline=_says_later(error) or (uncertain and lost))
            if uncertain and self._keyless(limit):
                found = self._made(body, word, limit)
                if found is not None:
                    return found

    def update_service(self, uuid: str, body: Mapping[str, Any], **limits: Unpack[Limits]) -> Detail:
        """Changes the service's definition; attributes not in `body` stay, lists are replaced whole.
        Containers are not touched until a scale or redeploy. Specification: "Update an existing service"."""
        return self._service("PATCH", uuid, limits, body=body)

    def start_service(self, uuid: str, **limits: Unpack[Limits]) -> Detail:
        """Starts all containers. Specification: "Start a service"."""
        return self._service("POST", uuid, limits, "start")

    def stop_service(self, uuid: str, **limits: Unpack[Limits]) -> Detail:
        """Stops all containers. Specification: "Stop a service"."""
        return self._service("POST", uuid, limits, "stop")

    def scale_service(self, uuid: str, **limits: Unpack[Limits]) -> Detail:
        """Brings the containers to the stored `target_num_containers`. Specification: "Scale a service"."""
        return self._service("POST", uuid, limits, "scale")

    def redeploy_service(
        self, uuid: str, *, reuse_volumes: bool | None = None, **limits: Unpack[Limits]
    ) -> Detail:
        """Replaces all containers by new ones with the current definition. Specification: "Redeploy a
        service".

        Args:
            reuse_volumes: None leaves it to the server (true).
        """
        params = None if reuse_volumes is None else {"reuse_volumes": str(reuse_volumes).lower()}
        return self._service("POST", uuid, limits, "redeploy", params=params)

    def terminate_service(self, uuid: str, **limits: Unpack[Limits]) -> Detail:
        """Terminates the service and its containers; their data is lost. Specification: "Terminate a
        service"."""
        return self._service("DELETE", uuid, limits)

    def close_keys(self, keys: Sequence[str], services: Sequence[str] = (), **limits: Unpack[Limits]) -> bool:
        """Tells the server that what was made under these keys is in its maker's state (an extension of
        ours).

        Args:
            services: uuids of further services of which the same is known, whatever their keys are.

        Returns:
            False when the server does not know keys.
        """
        body = {"keys": list(keys), **({"services": list(services)} if services else {})}
        try:
            self._json("POST", "/api/v1/key/close/", _limits(**limits), body=body, repeat=True)
        except (NotFound, NotAllowed):
            return False
        return True

    def refused(self, definition: Mapping[str, Any], **limits: Unpack[Limits]) -> list[Problem]:
        """What of a definition the server cannot do, or its operator does not allow (an extension of ours).

        Args:
            definition: attributes of a service, nothing secret. It may be a part of one.

        Returns:
            nothing, too, when the server does not know the question.
        """
        path = "/api/v1/refused/"
        try:
            answer = self._json("GET", path, _limits(**limits), params={"definition": json.dumps(definition)})
        except (NotFound, NotAllowed):
            return []
        found = answer.get("refused")
        if not isinstance(found, list) or not all(isinstance(item, Mapping) for item in found):
            raise _Malformed(f"GET {path}: the answer is not a list of problems")
        return [Problem(str(item.get("path", "")), str(item.get("reason", ""))) for item in found]

    # -- what is around services -------------------------------------------------------------------

    def list_containers(
        self, service: str | None = None, state: str | None = None, **limits: Unpack[Limits]
    ) -> Iterator[dict[str, Any]]:
        """Containers, in list shape and ordinal order; `service` is a uuid or resource URI (tutum-api.md,
        section 6)."""
        uri = f"/api/v1/service/{_uuid(service, 'service')}/" if service else None
        for container in self._list("container", {"service": uri, "state": state}, limits):
            if (uri is None or _same_object(container.get("service"), uri)) and (
                state is None or container.get("state") == state
            ):
                yield container

    def get_container(self, uuid: str, **limits: Unpack[Limits]) -> Detail:
        """One container, in detail shape; `uuid` may also be its resource URI."""
        return self._object("container", uuid, limits)

    def container_logs(self, uuid: str, tail: int = 100, **limits: Unpack[Limits]) -> list[str]:
        """The last lines of a container, through the REST endpoint (deprecated by Tutum for the stream:
        stream.py)."""
        path = f"/api/v1/container/{_uuid(uuid, 'container')}/logs/"
        text = self._json("GET", path, _limits(**limits), params={"tail": tail}).get("logs")
        if not isinstance(text, str):
            raise _Malformed(f"GET {path}: the answer holds no logs")
        return text.splitlines()[-tail:] if tail > 0 else []

    def get_action(self, uri: str, **limits: Unpack[Limits]) -> Detail:
        """One action: `state`, `action`, and (an extension of ours) `error`; `uri` may also be its uuid."""
        return self._object("action", uri, limits)

    def list_actions(
        self, object_uri: str | None = None, state: str | None = None, **limits: Unpack[Limits]
    ) -> Iterator[dict[str, Any]]:
        """Actions, of one object if its resource URI is given, and in one state if that is given."""
        for action in self._list("action", {"object": object_uri, "state": state}, limits):
            if (object_uri is None or _same_object(action.get("object"), object_uri)) and (
                state is None or action.get("state") == state
            ):
                yield action

    def cancel_action(self, uri: str, **limits: Unpack[Limits]) -> Detail:
        """Cancels an action that waits or is under way. Raises BadRequest when it cannot be cancelled."""
        path = f"/api/v1/action/{_uuid(uri, 'action')}/cancel/"
        return self._detail("POST", path, _limits(**limits))

    def list_volume_groups(self, service: str, **limits: Unpack[Limits]) -> Iterator[dict[str, Any]]:
        """The groups of a service's own volumes, one for each path; not those that it mounts of others."""
        yield from self._list("volumegroup", {"services": _uuid(service, "service")}, limits)

    def list_nodes(self, **limits: Unpack[Limits]) -> Iterator[dict[str, Any]]:
        """Nodes, in list shape."""
        yield from self._list("node", {}, limits)

    def get_node(self, uuid: str, **limits: Unpack[Limits]) -> Detail:
        """One node; `uuid` may also be its resource URI."""
        return self._object("node", uuid, limits)

    def set_node_tags(self, uuid: str, tags: Sequence[str], **limits: Unpack[Limits]) -> Detail:
        """Replaces the node's own tags."""
        path = f"/api/v1/node/{_uuid(uuid, 'node')}/"
        body = {"tags": [{"name": tag} for tag in tags]}
        return self._detail("PATCH", path, _limits(**limits), body=body)

    # -- one request -------------------------------------------------------------------------------

    def request(
        self,
        method: str,
        path: str,
        *,
        params: Mapping[str, Any] | None = None,
        body: Mapping[str, Any] | None = None,
        **limits: Unpack[Limits],
    ) -> Detail:
        """Any request to the API, for what has no method here. A GET or PATCH is repeated as described above.

        Args:
            path: from `/api/v1/` on.
        """
        return self._detail(method, path, _limits(**limits), params=params, body=body)

    def _service(
        self,
        method: str,
        uuid: str,
        limits: Limits,
        action: str = "",
        *,
        params: Mapping[str, Any] | None = None,
        body: Mapping[str, Any] | None = None,
    ) -> Detail:
        wanted = _uuid(uuid, "service")
        path = f"/api/v1/service/{wanted}/{action + '/' if action else ''}"
        service = self._detail(method, path, _limits(**limits), params=params, body=body)
        self._check_service(service, method, path)
        if service["uuid"].lower() != wanted:
            raise _Malformed(f"{method} {path}: the answer is about another service")
        return service

    def _check_service(self, service: Mapping[str, Any], method: str, path: str) -> None:
        """Refuses what is JSON but not a service, so that nobody further up trips over it."""
        for name in ("uuid", "name", "state"):
            if not isinstance(service.get(name), str):
                raise _Malformed(f"{method} {path}: the answer is not a service: it has no {name}")
        if not schema.UUID_PATTERN.fullmatch(service["uuid"]):
            raise _Malformed(f"{method} {path}: the answer is not a service: its uuid is not one")
        for name, types in _ANSWER_TYPES.items():
            value = service.get(name)
            if value is not None and (
                not isinstance(value, types) or (isinstance(value, bool) and bool not in types)
            ):
                raise _Malformed(f"{method} {path}: the answer is not a service: {name} has the wrong type")

    def _object(self, kind: str, reference: str, limits: Limits) -> Detail:
        return self._detail("GET", f"/api/v1/{kind}/{_uuid(reference, kind)}/", _limits(**limits))

    def _list(self, kind: str, filters: Mapping[str, Any], limits: Limits) -> Iterator[dict[str, Any]]:
        """All objects of a list, page by page. Of the envelope's `next` only the fact that there is one is
        used."""
        path = f"/api/v1/{kind}/"
        given = {name: value for name, value in filters.items() if value is not None}
        limit = _limits(**limits)
        offset = 0
        seen: set[str] = set()
        while True:
            page = self._json("GET", path, limit, params={**given, "limit": _PAGE, "offset": offset})
            objects, meta = page.get("objects"), page.get("meta")
            if not isinstance(objects, list) or not isinstance(meta, Mapping):
                raise _Malformed(f"GET {path}: the answer is not a list of the API")
            fresh = 0
            for item in objects:
                identity = item.get("resource_uri") or item.get("uuid") if isinstance(item, dict) else None
                if not isinstance(identity, str):
                    raise _Malformed(f"GET {path}: the answer is not a list of {kind}s")
                # An object may move to the next page while we read; a server may ignore the offset for ever.
                if identity not in seen:
                    seen.add(identity)
                    fresh += 1
                    yield item
            if not meta.get("next") or not fresh:
                return
            offset += len(objects)

    def _living(self, name: str, limits: Limits) -> list[dict[str, Any]]:
        return [s for s in self.list_services(name=name, **limits) if s.get("state") not in lifecycle.ENDING]

    def _detail(
        self,
        method: str,
        path: str,
        limit: _Limits,
        *,
        params: Mapping[str, Any] | None = None,
        body: Mapping[str, Any] | None = None,
        headers: Mapping[str, str] | None = None,
        repeat: bool | None = None,
    ) -> Detail:
        action: list[str] = []
        parsed = self._json(
            method,
            path,
            limit,
            params=params,
            body=body,
            headers=headers,
            repeat=repeat,
            action=action.append,
        )
        detail = Detail(parsed)
        detail.action_uri = action[-1] if action else ""
        return detail

    def _json(
        self,
        method: str,
        path: str,
        limit: _Limits,
        *,
        params: Mapping[str, Any] | None = None,
        body: Mapping[str, Any] | None = None,
        headers: Mapping[str, str] | None = None,
        repeat: bool | None = None,
        action: Callable[[str], Any] | None = None,
    ) -> dict[str, Any]:
        """The JSON object that the API answers.

        Args:
            repeat: whether the request may be sent again; None: when the method says so.
            action: gets the action's URI, if the answer names one.
        """
        again = method in ("GET", "PATCH") if repeat is None else repeat
        content = None if body is None else json.dumps(body).encode("utf-8")
        sent = {**(headers or {}), **({"Content-Type": "application/json"} if content is not None else {})}
        attempts = _Attempts(limit)
        said: ApiError | None = None
        while True:
            try:
                answer = self._open().send(
                    method, path, limit.transport(), params=params, body=content, headers=sent
                )
                if answer.status >= 400:
                    raise self._error(method, path, answer, body)
                parsed = self._parse(method, path, answer)
            except (ApiError, TransportError) as error:
                if not again or not _may_pass(error):
                    raise
                if isinstance(error, ApiError):
                    said = error
                elif said is not None and time.monotonic() >= limit.deadline:
                    # That tells more than that the time was up in the middle of an attempt.
                    raise said from error
                attempts.pause(error, until_deadline=isinstance(error, RateLimited))
            else:
                uri = answer.headers.get("x-tutum-action-uri", "")
                if uri and action is not None:
                    action(uri)
                return parsed

    def _open(self) -> Transport:
        if self._transport is None:
            # Here, so that the package is imported without requests.
            from .errors import ConfigError
            from .transport import Transport

            if not self.settings.usable:
                raise ConfigError(
                    "these settings came out of a pickle, where credentials do not travel; make a new Client"
                )
            with self._opening:
                if self._transport is None:
                    headers = {
                        "Accept": "application/json",
                        "Accept-Encoding": "identity",
                        "Authorization": self.settings.authorization,
                        "User-Agent": self.user_agent,
                    }
                    host = self.settings.rest_host
                    self._transport = Transport(
                        host, headers, self.settings.ca_bundle, direct=config.is_loopback(host)
                    )
        return self._transport

    def _parse(self, method: str, path: str, answer: Answer) -> dict[str, Any]:
        """The object in a good answer."""
        request = f"{method} {path}"
        if 300 <= answer.status < 400:
            target = urlsplit(answer.headers.get("location", ""))
            raise _Refused(
                f"{request}: the server redirects to {target.hostname or 'another address'}; redirects are "
                "not followed: set TUTUM_REST_HOST (or tutum:restHost) to the final address",
                sent=False,
            )
        if answer.status == 204:
            return {}
        try:
            parsed = json.loads(answer.content.decode("utf-8"), parse_constant=_no_constant)
        except UnicodeDecodeError:
            raise _Malformed(f"{request}: the answer is not the API's JSON: it is not UTF-8") from None
        except (ValueError, RecursionError):
            raise _Malformed(f"{request}: the answer is not the API's JSON: {_looks_like(answer)}") from None
        if not isinstance(parsed, dict):
            raise _Malformed(f"{request}: the answer is not the API's JSON: it is not an object")
        return parsed

    def _error(self, method: str, path: str, answer: Answer, body: Mapping[str, Any] | None) -> ApiError:
        """An error answer as an exception: the API's text, a nested object, HTML or nothing at all."""
        # Here, for the same reason as in _open.
        from .transport import retry_after

        message, detail = _error_text(answer)
        hidden = [*self.settings.secrets, *schema.secret_values(body or {})]
        message = schema.masked(message, hidden)
        if answer.status in (401, 403):
            message = f"{message.rstrip('.')}; {self._who()}"
        return ApiError.for_status(answer.status)(
            message[: _MESSAGE_LENGTH + 300],
            status=answer.status,
            method=method,
            path=path,
            detail=_masked_tree(detail, hidden),
            retry_after=retry_after(answer.headers.get("retry-after")),
        )

    def _who(self) -> str:
        """For a 401: whose credentials these were, and the way out."""
        return (
            f"the credentials came from {self.settings.source}. Mind that `pulumi refresh` and "
            "`pulumi destroy` use the configuration of the last `pulumi up`: after a change of the key use "
            "their option --run-program, or set TUTUM_AUTH, which wins over everything else"
        )

    # -- made once, on a server that does not know keys --------------------------------------------

    def _keyless(self, limit: _Limits) -> bool:
        """True for a server that does not know create keys. Asked only after an error that leaves doubt."""
        return not self.close_keys([], deadline=limit.deadline, cancelled=limit.cancelled)

    def _made(self, body: Mapping[str, Any], word: str, limit: _Limits) -> Detail | None:
        """The service that our earlier request made, or None if there is none of its name.

        Raises:
            Conflict: it cannot be told. The message lists the candidates.
        """
        name = body.get("name")
        if not isinstance(name, str):
            raise Conflict(
                "no answer came to the request that creates a service, and without a name it cannot be "
                "looked up; see with `pulumi-tutum ps` whether it was made"
            )
        bounds: Limits = {"deadline": limit.deadline, "cancelled": limit.cancelled}
        found = self._living(name, bounds)
        if not found:
            return None
        ours = [s for s in found if self._carries(s["uuid"], word, bounds)]
        if len(ours) == 1:
            return self.get_service(ours[0]["uuid"], **bounds)
        raise Conflict(
            f"no answer came to the request that creates {name!r}, and it cannot be told which service it "
            f"made, if any. Candidates: {_candidates(ours or found)}. Adopt the right one (adopt=<uuid>), or "
            "terminate it and try again"
        )

    def _carries(self, uuid: str, word: str, bounds: Limits) -> bool:
        """Whether the service's records show that this very call made it."""
        actions = self.list_actions(f"/api/v1/service/{uuid}/", **bounds)
        return any(isinstance(a.get("user_agent"), str) and word in a["user_agent"] for a in actions)

    def _only_one(self, made: Mapping[str, Any], body: Mapping[str, Any], word: str, limit: _Limits) -> None:
        """After a second POST: fails if the first one came through after all, on a server whose names are
        not unique."""
        bounds: Limits = {"deadline": limit.deadline, "cancelled": limit.cancelled}
        found = self._living(str(body.get("name")), bounds)
        twice = [s for s in found if self._carries(s["uuid"], word, bounds)]
        if len(twice) > 1:
            raise Conflict(
                f"the request that creates {made['name']!r} was carried out twice by a server that does not "
                f"know create keys: {_candidates(twice)}. Terminate all but one and adopt that one "
                "(adopt=<uuid>)"
            )


# -- repeating -------------------------------------------------------------------------------------


class _Refused(TransportError):
    """An answer that will be the same next time."""


class _Malformed(TransportError):
    """An answer, but not one of the API."""


@dataclass(frozen=True)
class _Limits:
    deadline: float
    cancelled: Signal | None

    def transport(self) -> Any:
        from .transport import Limit

        return Limit(self.deadline, self.cancelled)


def _limits(deadline: float | None = None, cancelled: Signal | None = None) -> _Limits:
    return _Limits(time.monotonic() + DEFAULT_SECONDS if deadline is None else deadline, cancelled)


class _Attempts:
    """The pauses between the attempts of one call, and when it is enough."""

    def __init__(self, limit: _Limits) -> None:
        self._limit = limit
        self._since: float | None = None
        self._count = 0

    def pause(self, error: ApiError | TransportError, *, until_deadline: bool) -> None:
        """Waits before the next attempt, or raises `error` when another one makes no sense."""
        now = time.monotonic()
        if self._since is None:
            self._since = now
        if until_deadline:
            end = self._limit.deadline
        else:
            unsent = isinstance(error, TransportError) and not error.sent
            end = min(self._limit.deadline, self._since + (REFUSED_SECONDS if unsent else PATIENCE_SECONDS))
        seconds = self._seconds(error)
        if isinstance(error, _Refused) or now + seconds >= end:
            raise error
        cancelled = self._limit.cancelled
        if cancelled is None:
            time.sleep(seconds)
        elif cancelled.wait(seconds) or cancelled.is_set():
            raise Cancelled("interrupted")

    def _seconds(self, error: ApiError | TransportError) -> float:
        self._count += 1
        # Jitter: a hundred services that were refused together must not come back together.
        backoff = min(5.0, 0.1 * 2.0 ** min(self._count, 10)) * random.uniform(0.5, 1.0)
        asked = error.retry_after if isinstance(error, ApiError) and _says_later(error) else None
        return backoff if asked is None else max(backoff, min(asked, LONGEST_PAUSE))


def _says_later(error: Exception) -> bool:
    """429, 502 to 504: the server is there, and may answer later."""
    return isinstance(error, ApiError) and error.status in (429, 502, 503, 504)


def _effect_unknown(error: Exception) -> bool:
    """Whether the request may have been carried out although it failed."""
    if isinstance(error, TransportError):
        return error.sent
    return isinstance(error, ApiError) and error.status >= 500


def _may_pass(error: Exception) -> bool:
    """Whether a request that changes nothing may work the next time."""
    return isinstance(error, TransportError) or (
        isinstance(error, ApiError) and (error.status == 429 or error.status >= 500)
    )


# -- reading answers -------------------------------------------------------------------------------


def _answer_types() -> dict[str, tuple[type, ...]]:
    """Which JSON types the attributes of a service may have in an answer, from the attribute table."""
    types: list[tuple[type[schema.Kind], tuple[type, ...]]] = [
        (schema.Integer, (int,)),
        (schema.Boolean, (bool,)),
        (schema.ListOf, (list,)),
        (schema.Environment, (list, dict)),
        (schema.Record, (dict,)),
        (schema.Text, (str,)),
        (schema.Choice, (str,)),
    ]
    found: dict[str, tuple[type, ...]] = {}
    for attribute in schema.ATTRIBUTES.values():
        for kind, allowed in types:
            if isinstance(attribute.kind, kind):
                for name in (attribute.answer, *attribute.aliases):
                    found[name] = allowed
    return found


_ANSWER_TYPES = _answer_types()


def _no_constant(name: str) -> Any:
    raise ValueError(f"{name} is not JSON")


def _looks_like(answer: Answer) -> str:
    """What an answer that is no JSON seems to be."""
    start = answer.content[:200].lstrip().lower()
    if not start:
        return "it is empty"
    if start.startswith((b"<!doctype", b"<html", b"<?xml", b"<head", b"<body")):
        return "it is an HTML page (is the address that of the control plane?)"
    return "it is cut short or damaged" if start.startswith((b"{", b"[")) else "it is something else"


def _error_text(answer: Answer) -> tuple[str, dict[str, Any]]:
    """The message in an error answer (one line, shortened), and the nested field messages if there are
    any."""
    try:
        parsed = json.loads(answer.content.decode("utf-8"))
    except (ValueError, RecursionError):
        parsed = None
    detail: dict[str, Any] = {}
    if isinstance(parsed, dict):
        detail = {name: value for name, value in parsed.items() if isinstance(value, dict)}
        text = parsed.get("error")
        if not isinstance(text, str) or not text.strip():
            text = "; ".join(_leaves(parsed))
    elif isinstance(parsed, str):
        text = parsed
    else:
        text = ""
    if not text.strip():
        text = _REASONS.get(answer.status, "the server gave no reason")
    text = " ".join(text.split())
    return (text if len(text) <= _MESSAGE_LENGTH else text[: _MESSAGE_LENGTH - 1] + "…"), detail


_REASONS = {
    401: "the credentials were refused",
    403: "this is not allowed with these credentials",
    404: "there is no such object",
    405: "the server does not offer this",
    429: "too many requests",
    500: "the server failed",
    502: "bad gateway",
    503: "the server is not available now",
    504: "the gateway timed out",
}


def _leaves(tree: Any, path: str = "") -> Iterator[str]:
    """The messages in a nested error object, each with where it belongs."""
    if isinstance(tree, Mapping):
        for name, value in tree.items():
            yield from _leaves(value, f"{path}.{name}" if path else str(name))
    elif isinstance(tree, list):
        for item in tree:
            yield from _leaves(item, path)
    elif isinstance(tree, str) and tree.strip():
        yield f"{path}: {tree}" if path else tree


def _masked_tree(tree: Any, hidden: Sequence[str]) -> Any:
    if isinstance(tree, Mapping):
        return {schema.masked(str(name), hidden): _masked_tree(value, hidden) for name, value in tree.items()}
    if isinstance(tree, list):
        return [_masked_tree(item, hidden) for item in tree]
    return schema.masked(tree, hidden) if isinstance(tree, str) else tree


# -- references ------------------------------------------------------------------------------------


def _uuid(reference: str | None, kind: str) -> str:
    """The uuid in a bare uuid or in a resource URI of this kind, wherever that points. Nothing else of it
    is used."""
    text = reference or ""
    match = re.fullmatch(rf"(?:.*/{kind}/)?({schema.UUID_PATTERN.pattern})/?", text, re.IGNORECASE)
    if match is None:
        raise ValidationError([Problem("uuid", f"must be the uuid or resource URI of a {kind}")])
    return match.group(1).lower()


def _same_object(value: Any, uri: str) -> bool:
    """Whether two resource URIs name the same object, whatever host or form they have."""
    return (
        isinstance(value, str) and value.rstrip("/").rpartition("/")[2] == uri.rstrip("/").rpartition("/")[2]
    )


def _candidates(services: Sequence[Mapping[str, Any]]) -> str:
    return ", ".join(f"{s['uuid']} ({s.get('state')})" for s in services)
