"""The operations of the API, as data: routing, the OpenAPI document and the documentation come from this
table.

Handlers translate between a `Call` and the control plane, and decide nothing.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any

from ..errors import BadRequest
from .auth import split_header
from .control import Listing
from .http import (
    DEFAULT_TAIL,
    MAX_TAIL,
    TEXT,
    Answer,
    Call,
    Handler,
    Parameter,
    Route,
    page,
    parse_object,
    run_of,
)

# -- handlers ------------------------------------------------------------------------------------------------

_PAGING_NAMES = frozenset({"limit", "offset", "format"})


def _list(kind: str) -> Handler:
    async def listed(call: Call) -> Answer:
        filters: dict[str, str] = {}
        for name, value in call.query:
            if name not in _PAGING_NAMES:
                # A parameter that is repeated means any of its values.
                filters[name] = f"{filters[name]},{value}" if name in filters else value
        return page(call, call.control.listing(kind, filters))

    return listed


def _detail(kind: str) -> Handler:
    async def detail(call: Call) -> Answer:
        return Answer(call.control.detail(kind, _identifier(call)))

    return detail


def _update(kind: str) -> Handler:
    async def update(call: Call) -> Answer:
        return Answer.of(await call.control.update(kind, _identifier(call), call.body, call.info()))

    return update


def _terminate(kind: str) -> Handler:
    async def terminate(call: Call) -> Answer:
        return Answer.of(await call.control.terminate(kind, _identifier(call), call.info()))

    return terminate


def _act(kind: str, action: str) -> Handler:
    async def act(call: Call) -> Answer:
        options: dict[str, Any] = {}
        if action == "redeploy":
            options["reuse_volumes"] = call.flag("reuse_volumes", True)
        return Answer.of(await call.control.act(kind, _identifier(call), action, call.info(), options))

    return act


def _identifier(call: Call) -> str:
    """What the path's variable parts name: a uuid, or `provider/region` and the like."""
    return "/".join(call.params.values())


def _logs(kind: str) -> Handler:
    """The logs as they were read before there were streams."""

    async def logs(call: Call) -> Answer:
        uuid = _identifier(call)
        call.control.detail(kind, uuid)
        tail = min(call.number("tail", DEFAULT_TAIL), MAX_TAIL)
        batches = call.control.logs(kind, uuid, tail, False)
        lines = [str(frame["log"]) async for frames in batches for frame in frames]
        return Answer({"logs": "".join(lines)})

    return logs


async def _create_service(call: Call) -> Answer:
    key = call.request.headers.get("idempotency-key")
    run = run_of(call.request)
    return Answer.of(await call.control.create_service(call.body, call.info(), key=key, run=run))


async def _refused(call: Call) -> Answer:
    definition = parse_object((call.option("definition") or "{}").encode(), "definition")
    found = call.control.refused(definition)
    return Answer({"refused": [{"path": p.path, "reason": p.reason} for p in found]})


async def _create_stack(call: Call) -> Answer:
    return Answer.of(await call.control.create_stack(call.body, call.info()))


async def _create_node(call: Call) -> Answer:
    return Answer.of(await call.control.create_node(call.body, call.info()))


async def _create_cluster(call: Call) -> Answer:
    return Answer.of(await call.control.create_nodecluster(call.body, call.info()))


async def _image_tag(call: Call) -> Answer:
    return Answer(call.control.detail("imagetag", f"{call.params['name']}:{call.params['tag']}"))


async def _export_stack(call: Call) -> Answer:
    return Answer(call.control.export_stack(_identifier(call)))


async def _auth(call: Call) -> Answer:
    """Who the credentials belong to. The key is the one that came with the request: the server has only a
    hash.
    """
    authorization = call.request.headers.get("authorization", "").encode("latin-1")
    user, key = split_header(authorization) or ("", "")
    return page(call, Listing([{"key": key, "username": user}], dict))


async def _token(call: Call) -> Answer:
    return Answer({"token": call.authority.short_token()}, 201)


async def _close_keys(call: Call) -> Answer:
    given = {"keys": call.body.get("keys"), "services": call.body.get("services", [])}
    for name, texts in given.items():
        if not isinstance(texts, list) or not all(isinstance(text, str) for text in texts):
            raise BadRequest(f"{name} must be a list of strings")
    return Answer({"closed": call.control.close_keys(**given)})


async def _announce_image(call: Call) -> Answer:
    image = call.body.get("image")
    if not isinstance(image, str) or not image:
        raise BadRequest("image must be the name of an image")
    return Answer({"image": image, "redeployed": call.control.announce_image(image)}, 202)


async def _health(call: Call) -> Answer:
    health = call.control.health()
    return Answer(health, 200 if health.get("status") == "ok" else 503)


# -- what they are asked -------------------------------------------------------------------------------------

_PAGING = (
    Parameter(
        "limit", "How many objects a page has (default 25, 0: as many as allowed).", {"type": "integer"}
    ),
    Parameter("offset", "How many objects to skip.", {"type": "integer"}),
)
_REUSE = (Parameter("reuse_volumes", "Keep the volumes' content (default true).", {"type": "boolean"}),)
_TAIL = (Parameter("tail", "Number of lines from the end (default 300).", {"type": "integer"}),)


def _filters(*names: str) -> tuple[Parameter, ...]:
    return (*_PAGING, *(Parameter(name, "Only objects with this value.") for name in names))


#: Kind -> what its lists can be filtered by.
FILTERS: dict[str, Sequence[str]] = {
    "service": ("state", "name", "uuid", "uuid__startswith", "stack", "stack__name"),
    "container": ("state", "name", "uuid", "uuid__startswith", "service", "service__stack__name", "node"),
    "stack": ("state", "name", "uuid", "uuid__startswith"),
    "action": (
        "state",
        "uuid",
        "uuid__startswith",
        "object",
        "include_related",
        "start_date__gte",
        "start_date__lte",
        "end_date__gte",
        "end_date__lte",
    ),
    "node": ("state", "uuid", "uuid__startswith", "node_cluster", "node_type", "region", "docker_version"),
    "nodecluster": ("state", "name", "uuid", "uuid__startswith", "region", "node_type"),
    "volume": ("uuid", "uuid__startswith", "node", "containers"),
    "volumegroup": ("uuid", "uuid__startswith", "name", "volumes", "services"),
    "tag": ("name", "origin"),
    "image": ("name",),
    "provider": ("name",),
    "region": ("name", "provider"),
    "nodetype": ("name", "provider"),
    "az": ("name", "region"),
}

_TITLES = {
    "nodecluster": "node cluster",
    "nodetype": "node type",
    "az": "availability zone",
    "volumegroup": "volume group",
}


def _reading(kind: str, path: str = "{uuid}") -> list[Route]:
    """List and detail of a kind of object."""
    title = _TITLES.get(kind, kind)
    answer = "Service" if kind == "service" else "Object"
    base = f"/api/v1/{kind}/"
    filters = _filters(*FILTERS[kind])
    return [
        Route("GET", base, _list(kind), f"List all {title}s", listed=True, answer=answer, parameters=filters),
        Route("GET", f"{base}{path}/", _detail(kind), f"Get one {title}", answer=answer),
    ]


def _actions(kind: str, *actions: str) -> list[Route]:
    """POSTs that do something with an object."""
    title = _TITLES.get(kind, kind)
    answer = "Service" if kind == "service" else "Object"
    return [
        Route(
            "POST",
            f"/api/v1/{kind}/{{uuid}}/{action}/",
            _act(kind, action),
            f"{action.replace('-', ' ').capitalize()} {'an' if title[0] in 'aeiou' else 'a'} {title}",
            answer=answer,
            status=202,
            parameters=_REUSE if action == "redeploy" else (),
        )
        for action in actions
    ]


def _ending(kind: str) -> Route:
    title = _TITLES.get(kind, kind)
    answer = "Service" if kind == "service" else "Object"
    path = f"/api/v1/{kind}/{{uuid}}/"
    return Route("DELETE", path, _terminate(kind), f"Terminate a {title}", answer=answer, status=202)


# -- triggers ------------------------------------------------------------------------------------------------


async def _list_triggers(call: Call) -> Answer:
    wanted = {name: value for name, value in call.query if name not in _PAGING_NAMES}
    return page(call, call.control.list_triggers(call.params["uuid"], wanted))


async def _create_trigger(call: Call) -> Answer:
    return Answer.of(await call.control.create_trigger(call.params["uuid"], call.body, call.info()))


async def _get_trigger(call: Call) -> Answer:
    return Answer(call.control.get_trigger(call.params["uuid"], call.params["trigger"]))


async def _delete_trigger(call: Call) -> Answer:
    return Answer.of(
        await call.control.delete_trigger(call.params["uuid"], call.params["trigger"], call.info())
    )


async def _call_trigger(call: Call) -> Answer:
    count = call.params.get("count", "1")
    if not re.fullmatch("[1-9][0-9]{0,8}", count):
        raise BadRequest("The number of containers to add must be a whole number, 1 or more")
    service, trigger = call.params["uuid"], call.params["trigger"]
    return Answer.of(await call.control.call_trigger(service, trigger, int(count), call.body, call.info()))


_TRIGGERS = "/api/v1/service/{uuid}/trigger/"
_TRIGGER = _TRIGGERS + "{trigger}/"

# -- the table -----------------------------------------------------------------------------------------------

ROUTES: tuple[Route, ...] = (
    *_reading("service"),
    Route(
        "POST",
        "/api/v1/service/",
        _create_service,
        "Create a service, not started",
        body="ServiceCreate",
        answer="Service",
        status=201,
    ),
    Route(
        "PATCH",
        "/api/v1/service/{uuid}/",
        _update("service"),
        "Change a service's definition",
        body="ServiceUpdate",
        answer="Service",
        status=202,
    ),
    _ending("service"),
    *_actions("service", "start", "stop", "scale", "redeploy"),
    Route(
        "GET",
        "/api/v1/service/{uuid}/logs/",
        _logs("service"),
        "The logs of a service (deprecated, see the stream)",
        parameters=_TAIL,
    ),
    Route("GET", _TRIGGERS, _list_triggers, "List a service's triggers", listed=True, parameters=_PAGING),
    Route("POST", _TRIGGERS, _create_trigger, "Create a trigger", body="TriggerCreate", status=201),
    Route("GET", _TRIGGER, _get_trigger, "Get one trigger"),
    Route("DELETE", _TRIGGER, _delete_trigger, "Delete a trigger", status=202),
    Route("POST", _TRIGGER + "call/", _call_trigger, "Call a trigger", body=TEXT, status=202, open=True),
    Route(
        "POST",
        _TRIGGER + "call/{count}/",
        _call_trigger,
        "Call a trigger: scale up by a number of containers",
        body=TEXT,
        status=202,
        open=True,
    ),
    Route(
        "POST",
        "/api/v1/service/{uuid}/webhook/handler/{trigger}/call/",
        _call_trigger,
        "Call a trigger (its address of 2014)",
        body=TEXT,
        status=202,
        open=True,
    ),
    *_reading("container"),
    *_actions("container", "start", "stop", "redeploy"),
    _ending("container"),
    Route(
        "GET",
        "/api/v1/container/{uuid}/logs/",
        _logs("container"),
        "The logs of a container (deprecated, see the stream)",
        parameters=_TAIL,
    ),
    *_reading("stack"),
    Route("POST", "/api/v1/stack/", _create_stack, "Create a stack", body="StackCreate", status=201),
    Route(
        "PATCH",
        "/api/v1/stack/{uuid}/",
        _update("stack"),
        "Change a stack's services",
        body="StackUpdate",
        status=202,
    ),
    _ending("stack"),
    *_actions("stack", "start", "stop", "redeploy"),
    Route("GET", "/api/v1/stack/{uuid}/export/", _export_stack, "The stack file of a stack"),
    *_reading("action"),
    *_actions("action", "cancel", "retry"),
    *_reading("node"),
    Route(
        "POST",
        "/api/v1/node/",
        _create_node,
        "Add a node to the simulated backend",
        body="NodeCreate",
        status=201,
        extension=True,
    ),
    Route(
        "PATCH",
        "/api/v1/node/{uuid}/",
        _update("node"),
        "Change a node's tags",
        body="NodeUpdate",
        status=202,
    ),
    _ending("node"),
    *_actions("node", "deploy", "docker-upgrade", "health-check"),
    *_reading("nodecluster"),
    Route(
        "POST",
        "/api/v1/nodecluster/",
        _create_cluster,
        "Create a node cluster",
        body="NodeClusterCreate",
        status=201,
    ),
    Route(
        "PATCH",
        "/api/v1/nodecluster/{uuid}/",
        _update("nodecluster"),
        "Change a node cluster",
        body="NodeClusterUpdate",
        status=202,
    ),
    _ending("nodecluster"),
    *_actions("nodecluster", "deploy", "docker-upgrade"),
    *_reading("volume"),
    *_reading("volumegroup"),
    *_reading("provider", "{name}"),
    *_reading("region", "{provider}/{name}"),
    *_reading("nodetype", "{provider}/{name}"),
    *_reading("az", "{provider}/{region}/{name}"),
    *_reading("tag", "{name}"),
    Route(
        "GET",
        "/api/v1/refused/",
        _refused,
        "What of a service's definition the backend cannot do, or its operator does not allow",
        parameters=(Parameter("definition", "Attributes of a service, as a JSON object."),),
        extension=True,
    ),
    Route(
        "POST",
        "/api/v1/image/announce/",
        _announce_image,
        "Announce that an image was pushed: services with autoredeploy are redeployed",
        body="Image",
        status=202,
        extension=True,
    ),
    Route(
        "GET", "/api/v1/image/", _list("image"), "List all images", listed=True, parameters=_filters("name")
    ),
    Route("GET", "/api/v1/image/{name:path}/tag/{tag}/", _image_tag, "Get one tag of an image"),
    Route("GET", "/api/v1/image/{name:path}/", _detail("image"), "Get one image"),
    Route("GET", "/api/v1/auth/", _auth, "Whom the credentials belong to", listed=True),
    Route("POST", "/api/v1/token/", _token, "Make a token that holds for an hour", status=201),
    Route(
        "POST",
        "/api/v1/key/close/",
        _close_keys,
        "Close create keys: their services are safe in somebody's state",
        body="Keys",
        extension=True,
    ),
    Route("GET", "/health/", _health, "Whether the server can do its work", open=True, extension=True),
)
