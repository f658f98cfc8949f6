"""schemathesis on every operation of the published document, against the real process over real HTTP."""

from __future__ import annotations

import itertools
import json
import os
import random
from collections.abc import Iterator
from typing import Any

import pytest
import requests
import schemathesis
from hypothesis import HealthCheck, given, settings
from schemathesis.checks import not_a_server_error
from schemathesis.specs.openapi.checks import (
    allow_header_conformance,
    content_type_conformance,
    response_schema_conformance,
    status_code_conformance,
    unsupported_method,
)

from pulumi_tutum.server.openapi import document
from pulumi_tutum.server.routes import ROUTES
from tests.support.server import Server

#: Examples per operation; `FUZZ_EXAMPLES` asks for more by hand.
EXAMPLES = int(os.environ.get("FUZZ_EXAMPLES", "20"))
CHECKS = [
    not_a_server_error,
    status_code_conformance,
    content_type_conformance,
    response_schema_conformance,
    unsupported_method,
    allow_header_conformance,
]
V1 = "/api/v1"
sent = itertools.count()
chance = random.Random(20151013)


@pytest.fixture(scope="module")
def server() -> Iterator[Server]:
    with Server(nodes=3, container_start_seconds=0, retain_terminated=1) as running:
        yield running
        log = running.log()
        print(f"\nschemathesis: {next(sent)} requests, {EXAMPLES} examples an operation")
        assert "unexpected error" not in log, log
        assert "Traceback" not in log, log
        assert requests.get(running.url + "/health", timeout=60).json()["status"] == "ok"


@pytest.fixture(scope="module")
def session(server: Server) -> Iterator[requests.Session]:
    with requests.Session() as session:
        session.trust_env = False
        session.headers.update(server.headers)
        yield session


DOCUMENT = document(ROUTES)
#: By hand, not by schemathesis's pytest plugin, which does not work with this pytest.
FOUND: Any = schemathesis.openapi.from_dict(DOCUMENT).get_all_operations()
OPERATIONS = [found.ok() for found in FOUND]


def identifiers(session: requests.Session, server: Server, path: str) -> dict[str, str]:
    """Of something that is there, for the variable parts of a path."""
    kind = path.split("/")[3] if path.startswith(V1) else ""
    url = f"{server.url}{V1}/{kind}/"
    if kind in ("service", "container"):
        body = {"image": "tutum/hello-world", "name": f"fuzz-{next(sent)}"}
        service = session.post(f"{server.url}{V1}/service/", json=body, timeout=60).json()
        session.post(f"{server.url}{V1}/service/{service['uuid']}/start/", timeout=60)
        found = {"uuid": service["uuid"]}
        if "{trigger}" in path:
            trigger = session.post(f"{url}{service['uuid']}/trigger/", json={}, timeout=60)
            found["trigger"] = trigger.json()["uuid"]
        if kind == "service":
            return found
    if kind == "stack":
        services = [{"name": "web", "image": "tutum/hello-world"}]
        stack = session.post(url, json={"name": f"fuzz-{next(sent)}", "services": services}, timeout=60)
        return {"uuid": stack.json()["uuid"]}
    if kind == "image" or "{" not in path:
        return {}
    objects = session.get(url, params={"limit": 0}, timeout=60).json()["objects"]
    if not objects:
        return {}
    one = chance.choice(objects)
    parts = one["resource_uri"].strip("/").split("/")[3:] if "resource_uri" in one else [one["name"]]
    names = [word[1:-1] for word in path.strip("/").split("/") if word.startswith("{")]
    return dict(zip(names, parts, strict=False))


@pytest.mark.parametrize("operation", OPERATIONS, ids=lambda operation: operation.label)
def test_operation(operation: Any, server: Server, session: requests.Session) -> None:
    needs_credentials = operation.definition.raw.get("security") != []

    @settings(max_examples=EXAMPLES, deadline=None, suppress_health_check=list(HealthCheck), database=None)
    @given(case=operation.as_strategy())
    def fuzz(case: Any) -> None:
        next(sent)
        if case.path_parameters and chance.random() < 0.7:
            case.path_parameters.update(identifiers(session, server, operation.path))
        right = chance.random() < 0.95
        authorization = server.headers if right else {"Authorization": "ApiKey bob:wrong"}
        response = case.call(
            base_url=server.url, headers={**(case.headers or {}), **authorization}, timeout=60
        )
        case.validate_response(response, checks=CHECKS)
        if needs_credentials and not right:
            assert response.status_code in (401, 404, 405), "credentials come before everything else"

    fuzz()


def test_the_document_is_complete(server: Server) -> None:
    """Served without credentials; every operation has a summary, its answers, and 401 where one is needed."""
    served = requests.get(f"{server.url}{V1}/openapi.json", timeout=60).json()
    assert served == json.loads(json.dumps(DOCUMENT))
    operations = [(p, m, o) for p, item in served["paths"].items() for m, o in item.items()]
    assert len(operations) > 60
    assert len({o["operationId"] for _, _, o in operations}) == len(operations)
    for path, method, operation in operations:
        assert operation["summary"], (path, method)
        assert ("401" in operation["responses"]) == (operation.get("security") != [])
