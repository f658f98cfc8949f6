"""Docker Cloud's spelling of the API, translated at the edge: other paths, other resource URIs, the same
things.

`/api/app/v1/[<namespace>/]service/...` is `/api/v1/service/...`, and so on (tutum-api.md section 8). Its
clients follow the URIs of the answers, so these are given in the family of the request. What users wrote
themselves (environments, commands) is never translated.
"""

from __future__ import annotations

import functools
import re
from typing import Any

from .http import Family
from .model import DOCKER_CLOUD_PART_OF

_RESOURCE = "|".join(DOCKER_CLOUD_PART_OF)
#: go-dockercloud leaves `/api` out of some streams' addresses.
_PATH = re.compile(rf"(/api)?/(app|infra|audit)/v1/(?:([^/]+)/)?({_RESOURCE})/(.*)", re.DOTALL)
_OUTWARD = re.compile(r"/api/v1/([a-z]+)/")
#: Most URIs end with a uuid or a name; some, which have no namespace, with several names.
_INWARD = re.compile(
    rf"/api/(?:app|infra|audit)/v1/(?:[^/]+/)??((?:{_RESOURCE})(?=/[^/]+/?$)|nodetype|region|az)/"
)
_USERS_OWN = frozenset(
    {
        "container_envvars",
        "calculated_envvars",
        "link_variables",
        "environment",
        "run_command",
        "entrypoint",
        "body",
        "container_path",
        "host_path",
        "healthcheck",
        "working_dir",
        "log",
        "logs",
        "output",
    }
)


def translate(kind: str, path: str, user: str) -> tuple[Family, str] | None:
    """The family and Tutum's path for one of Docker Cloud's paths; None for any other.

    Args:
        kind: the scope's type; websockets have paths of their own.
        user: the account, which is also the only namespace.
    """
    match = _PATH.fullmatch(path)
    if match is None or (match[1] is None and kind != "websocket"):
        return None
    _, subsystem, namespace, resource, rest = match.groups()
    if DOCKER_CLOUD_PART_OF.get(resource) != subsystem or (namespace is not None and namespace != user):
        return None
    prefix = "/v1" if kind == "websocket" else "/api/v1"
    return family(namespace), f"{prefix}/{resource}/{rest}"


@functools.lru_cache(maxsize=8)
def family(namespace: str | None) -> Family:
    """The family whose URIs have this namespace, or none."""
    space = f"{namespace}/" if namespace else ""

    def outward(uri: re.Match[str]) -> str:
        subsystem = DOCKER_CLOUD_PART_OF.get(uri[1])
        return f"/api/{subsystem}/v1/{space}{uri[1]}/" if subsystem else uri[0]

    return Family(
        action_header=b"x-dockercloud-action-uri",
        refuses_handshake=True,
        inward=lambda value: _each(value, lambda text: _INWARD.sub(r"/api/v1/\1/", text)),
        outward=lambda value: _each(value, lambda text: _OUTWARD.sub(outward, text, count=1)),
    )


def _each(value: Any, change: Any) -> Any:
    """A JSON value with every URI in it changed, except in what users wrote themselves."""
    if isinstance(value, str):
        return change(value) if value.startswith("/api/") else value
    if isinstance(value, dict):
        return {name: item if name in _USERS_OWN else _each(item, change) for name, item in value.items()}
    return [_each(item, change) for item in value] if isinstance(value, list) else value
