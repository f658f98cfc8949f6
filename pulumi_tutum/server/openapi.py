"""The OpenAPI document: operations from the route table, shapes from the attribute table."""

from __future__ import annotations

import functools
import re
from collections.abc import Mapping, Sequence
from typing import Any

from .. import __version__, lifecycle, schema
from .http import TEXT, Answer, Call, Route
from .shapes import render

PATH = "/api/v1/openapi.json"

_NULL = {"type": "null"}
_ERROR = {
    "type": "object",
    "required": ["error"],
    "properties": {"error": {"type": "string", "description": "What was wrong, for people."}},
    "additionalProperties": {
        "type": "object",
        "description": "Messages per field, under the kind's name.",
    },
}
_META = {
    "type": "object",
    "required": ["limit", "next", "offset", "previous", "total_count"],
    "properties": {
        "limit": {"type": "integer"},
        "next": {"type": ["string", "null"]},
        "offset": {"type": "integer"},
        "previous": {"type": ["string", "null"]},
        "total_count": {"type": "integer"},
    },
}
_TEXTS: dict[str, Any] = {"type": "array", "items": {"type": "string"}}
_NAMED_TAGS = {
    "type": "array",
    "items": {"anyOf": [{"type": "string"}, {"type": "object", "properties": {"name": {"type": "string"}}}]},
}
#: Request bodies other than a service's.
_BODIES: dict[str, dict[str, Any]] = {
    "StackCreate": {
        "required": ["name"],
        "properties": {
            "name": {"type": "string"},
            "services": {"type": "array", "items": {"$ref": "#/components/schemas/StackService"}},
        },
    },
    "StackUpdate": {
        "properties": {"services": {"type": "array", "items": {"$ref": "#/components/schemas/StackService"}}}
    },
    "StackService": {
        "description": "A service by the API's keys or by those of a stack file.",
        "required": ["name", "image"],
        "properties": {
            "name": {"type": "string"},
            "image": {"type": "string"},
            "ports": _TEXTS,
            "expose": _TEXTS,
            "links": _TEXTS,
            "volumes": _TEXTS,
            "environment": {
                "anyOf": [_TEXTS, {"type": "object", "additionalProperties": {"type": "string"}}]
            },
            "restart": {"enum": ["no", "on-failure", "always"]},
        },
    },
    "TriggerCreate": {
        "properties": {
            "name": {"type": "string"},
            "operation": {"enum": ["REDEPLOY", "SCALEUP"], "default": "REDEPLOY"},
        }
    },
    "NodeCreate": {"required": ["name"], "properties": {"name": {"type": "string"}, "tags": _NAMED_TAGS}},
    "NodeUpdate": {"properties": {"tags": _NAMED_TAGS, "nickname": {"type": "string"}}},
    "NodeClusterCreate": {
        "required": ["name"],
        "properties": {
            "name": {"type": "string"},
            "node_type": {"type": "string"},
            "region": {"type": "string"},
            "disk": {"type": "integer"},
            "target_num_nodes": {"type": "integer", "default": 1},
            "tags": _NAMED_TAGS,
        },
    },
    "NodeClusterUpdate": {"properties": {"target_num_nodes": {"type": "integer"}, "tags": _NAMED_TAGS}},
    "Keys": {"required": ["keys"], "properties": {"keys": _TEXTS, "services": _TEXTS}},
    "Image": {"required": ["image"], "properties": {"image": {"type": "string"}}},
}


def document_route(routes: Sequence[Route]) -> Route:
    """The route that serves the document of `routes`; made once, at the first request."""

    @functools.cache
    def rendered() -> bytes:
        return render(document(routes))

    async def answer(call: Call) -> Answer:
        return Answer(rendered())

    return Route("GET", PATH + "/", answer, "This document", open=True, extension=True)


def document(routes: Sequence[Route]) -> dict[str, Any]:
    """The OpenAPI 3.1 document of a route table."""
    paths: dict[str, dict[str, Any]] = {}
    for route in routes:
        path = re.sub(r"\{(\w+):path\}", r"{\1}", route.path)
        paths.setdefault(path, {})[route.method.lower()] = _operation(route, path)
    return {
        "openapi": "3.1.0",
        "info": {
            "title": "Tutum API",
            "version": __version__,
            "description": "Tutum's REST API. Logs, events and exec are websockets under /v1/.",
        },
        "paths": paths,
        "components": {
            "schemas": {
                "Object": {"type": "object"},
                "Error": _ERROR,
                "Service": _service(listed=False),
                "ServiceListed": _service(listed=True),
                "ServiceCreate": _service_body(patch=False),
                "ServiceUpdate": _service_body(patch=True),
                **{name: {"type": "object", **body} for name, body in _BODIES.items()},
            },
            "securitySchemes": {
                "ApiKey": {
                    "type": "apiKey",
                    "in": "header",
                    "name": "Authorization",
                    "description": "`ApiKey <user>:<apikey>`",
                },
                "Basic": {"type": "http", "scheme": "basic"},
            },
        },
        "security": [{"ApiKey": []}, {"Basic": []}],
    }


def _operation(route: Route, path: str) -> dict[str, Any]:
    parameters: list[dict[str, Any]] = [
        {"name": name, "in": "path", "required": True, "schema": {"type": "string", "minLength": 1}}
        for name in re.findall(r"\{(\w+)\}", path)
    ]
    parameters += [
        {"name": p.name, "in": "query", "required": False, "description": p.doc, "schema": dict(p.schema)}
        for p in route.parameters
    ]
    words = re.sub(r"[{}]", "", path).strip("/").split("/")[2:]
    operation: dict[str, Any] = {
        "operationId": "_".join([route.method.lower(), *words]).replace(".", "_"),
        "summary": route.summary + (" (extension)" if route.extension else ""),
        "parameters": parameters,
        "responses": {str(route.status): _response(route), "default": _json("An error", "Error")},
    }
    if not route.open:
        operation["responses"]["401"] = _json("Wrong or missing credentials", "Error")
    else:
        operation["security"] = []
    if route.body == TEXT:
        operation["requestBody"] = {"content": {"text/plain": {"schema": {"type": "string"}}}}
    elif route.body is not None:
        content = {"application/json": {"schema": {"$ref": f"#/components/schemas/{route.body}"}}}
        operation["requestBody"] = {"content": content}
    return operation


def _response(route: Route) -> dict[str, Any]:
    if route.status == 204:
        return {"description": "Done"}
    name = f"{route.answer}Listed" if route.listed and route.answer == "Service" else route.answer
    if not route.listed:
        return _json("Done", name)
    objects = {"type": "array", "items": {"$ref": f"#/components/schemas/{name}"}}
    envelope = {
        "type": "object",
        "required": ["meta", "objects"],
        "properties": {"meta": _META, "objects": objects},
    }
    return {"description": "One page of the list", "content": {"application/json": {"schema": envelope}}}


def _json(description: str, name: str) -> dict[str, Any]:
    content = {"application/json": {"schema": {"$ref": f"#/components/schemas/{name}"}}}
    return {"description": description, "content": content}


# -- shapes from the attribute table -------------------------------------------------------------------------


def _service(*, listed: bool) -> dict[str, Any]:
    """A service as it is answered."""
    properties: dict[str, Any] = {}
    required: list[str] = []
    for attribute in schema.ATTRIBUTES.values():
        if listed and not attribute.listed:
            continue
        shape = _answered(attribute)
        for name in (attribute.answer, *attribute.aliases):
            properties[name] = {**shape, "description": attribute.doc}
            # `image_name` is answered for two rows: for itself, and for `image`.
            if not attribute.extension and name not in required:
                required.append(name)
    return {"type": "object", "required": required, "properties": properties}


def _answered(attribute: schema.Attribute) -> dict[str, Any]:
    if attribute.name == "state":
        return {"enum": list(lifecycle.STATES)}
    if attribute.name == "link_variables":
        return {"type": "object", "additionalProperties": {"type": "string"}}
    if attribute.name == "linked_from_service":
        return {"type": "array", "items": {"type": "object"}}
    shape = _shape(attribute.kind, answered=True)
    nullable = attribute.default is None or attribute.name == "target_num_containers"
    return _or_null(shape) if nullable else shape


def _service_body(*, patch: bool) -> dict[str, Any]:
    """A service as it is sent."""
    properties: dict[str, Any] = {}
    for attribute in schema.INPUTS.values():
        if patch and not attribute.patch:
            continue
        shape = _or_null(_shape(attribute.kind, answered=False))
        for name in (attribute.name, *attribute.aliases):
            properties[name] = {**shape, "description": attribute.doc}
    required = [] if patch else [a.name for a in schema.INPUTS.values() if a.required]
    return {"type": "object", "required": required, "properties": properties}


def _or_null(shape: Mapping[str, Any]) -> dict[str, Any]:
    return {"anyOf": [dict(shape), _NULL]}


def _shape(kind: schema.Kind, *, answered: bool) -> dict[str, Any]:
    """The JSON schema of a kind of value, in its wire form."""
    if isinstance(kind, schema.Choice):
        return {"enum": list(kind.values)}
    if isinstance(kind, schema.Boolean):
        return {"type": "boolean"}
    if isinstance(kind, schema.Integer):
        return {"type": "integer", "minimum": kind.low, "maximum": kind.high}
    if isinstance(kind, schema.Environment):
        entry = {
            "type": "object",
            "required": ["key", "value"],
            "properties": {"key": {"type": "string", "minLength": 1}, "value": {"type": "string"}},
        }
        return {"type": "array", "items": entry}
    if isinstance(kind, schema.ListOf):
        return {"type": "array", "items": _shape(kind.item, answered=answered)}
    if isinstance(kind, schema.Record):
        properties: dict[str, Any] = {}
        for f in kind.fields:
            if answered or not f.computed:
                shape = _shape(f.kind, answered=answered)
                properties[f.name] = {**(shape if f.required else _or_null(shape)), "description": f.doc}
        required = [f.name for f in kind.fields if f.required]
        return {"type": "object", "required": required, "properties": properties}
    return {"type": "string"}
