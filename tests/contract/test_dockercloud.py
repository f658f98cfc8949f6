"""Docker Cloud's spelling of the API (tutum-api.md section 8): paths, URIs, streams."""

from __future__ import annotations

from typing import Any

import pytest
import websocket

from tests.contract.conftest import V1, Api
from tests.contract.test_streams import connect, frames

#: Without a namespace, and with the only one there is.
SPACES = ("", "bob/")


def test_services(api: Api) -> None:
    service = api.create()
    for space in SPACES:
        base = f"/api/app/v1/{space}service/"
        same = api.ok("GET", f"{base}{service['uuid']}/")
        assert same["resource_uri"] == f"{base}{service['uuid']}/"
        linked = api.ok(
            "POST",
            base,
            201,
            json={
                "image": api.backend.image,
                "name": api.name(),
                "linked_to_service": [{"to_service": same["resource_uri"], "name": "db"}],
                "container_envvars": [{"key": "OWN", "value": service["resource_uri"]}],
            },
        )
        (link,) = linked["linked_to_service"]
        assert (link["from_service"], link["to_service"]) == (linked["resource_uri"], same["resource_uri"])
        assert linked["container_envvars"] == [{"key": "OWN", "value": service["resource_uri"]}]
        plain = api.get(linked["uuid"])
        assert plain["linked_to_service"][0]["to_service"] == service["resource_uri"]
        answer = api.call("PATCH", linked["resource_uri"], json={"tags": []})
        assert answer.headers["X-DockerCloud-Action-URI"].startswith(f"/api/audit/v1/{space}action/")
        page = api.ok("GET", base, params={"limit": 1})
        assert page["meta"]["next"].startswith(f"{base}?")
        api.ok("GET", page["meta"]["next"])
    api.refused(404, "GET", "/api/app/v1/somebody/service/")
    api.refused(404, "GET", "/app/v1/service/")


def test_what_belongs_to_which_part(api: Api) -> None:
    kinds = {
        "app": ("service", "stack", "container"),
        "infra": ("node", "nodecluster", "nodetype", "region", "provider", "az"),
        "audit": ("action",),
    }
    for part, names in kinds.items():
        for name in names:
            for space in SPACES:
                api.ok("GET", f"/api/{part}/v1/{space}{name}/")
            for other in kinds.keys() - {part}:
                api.refused(404, "GET", f"/api/{other}/v1/{name}/")


@pytest.mark.parametrize("kind", ["provider", "region", "nodetype", "node", "nodecluster"])
def test_every_uri_that_is_answered_leads_somewhere(api: Api, kind: str) -> None:
    for space in SPACES:
        (one, *_) = api.listed(f"/api/infra/v1/{space}{kind}/")
        detail = api.ok("GET", one["resource_uri"])
        assert detail == one
        for uri in uris(detail):
            assert uri.startswith(f"/api/infra/v1/{space}")
            api.ok("GET", uri)


def uris(value: Any) -> list[str]:
    if isinstance(value, str):
        return [value] if value.startswith("/api/") else []
    items = value.values() if isinstance(value, dict) else value if isinstance(value, list) else ()
    return [uri for item in items for uri in uris(item)]


@pytest.mark.usefixtures("simulated")
def test_node_clusters(api: Api) -> None:
    (region,) = api.listed("/api/infra/v1/region/")
    (node_type,) = api.listed("/api/infra/v1/nodetype/")
    places = {"region": region["resource_uri"], "node_type": node_type["resource_uri"]}
    cluster = api.ok("POST", "/api/infra/v1/nodecluster/", 201, json={"name": api.name("cluster"), **places})
    assert {name: cluster[name] for name in places} == places
    assert api.get(cluster["uuid"], "nodecluster")["region"] == f"{V1}/region/simulated/local/"
    found = api.listed("/api/infra/v1/nodecluster/", **places)
    assert cluster["uuid"] in [c["uuid"] for c in found]
    api.ok("DELETE", cluster["resource_uri"], 202)


def test_streams(api: Api) -> None:
    service = api.run_until_it_writes(container_envvars={"GREETING": "hello"})
    container = service["containers"][0].split("/")[-2]
    for space in SPACES:
        for path in (
            f"/api/app/v1/{space}service/{service['uuid']}/logs/?follow=false",
            f"/api/app/v1/{space}container/{container}/logs?follow=false",
            f"/api/app/v1/{space}container/{container}/exec/?command=echo+x",
            # As go-dockercloud writes it.
            f"/app/v1/{space}container/{container}/exec/?command=echo+x",
        ):
            with connect(api.server, path) as stream:
                assert {frame["type"] for frame in frames(stream)} == {"log"}
        uris = (f"/api/app/v1/{space}service/{uuid}/" for uuid in (service["uuid"], container))
        with connect(api.server, f"/api/audit/v1/{space}events?object={','.join(uris)}") as stream:
            api.ok("PATCH", service["resource_uri"], 202, json={"tags": []})
            event = next(frames(stream))
        assert event["resource_uri"] == f"/api/app/v1/{space}service/{service['uuid']}/"
    with (
        pytest.raises(websocket.WebSocketBadStatusException) as refused,
        connect(api.server, "/api/audit/v1/events", credentials=False),
    ):
        pass
    assert refused.value.status_code == 401


@pytest.mark.usefixtures("simulated")
def test_what_programs_write_is_not_translated(api: Api) -> None:
    uuid = api.run()["containers"][0].split("/")[-2]
    text = f"{V1}/service/{uuid}/"
    with connect(api.server, f"/api/app/v1/container/{uuid}/exec/?command=echo+{text}") as stream:
        assert [frame["output"] for frame in frames(stream)] == [f"{text}\n"]
