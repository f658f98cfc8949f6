"""Services that need others, on a real engine: what is waited for, and in which order containers change."""

from __future__ import annotations

import platform
import time
from collections.abc import Iterator
from typing import Any

import pytest

from tests.support import images
from tests.support.docker_engine import DockerEngine
from tests.support.real import V1, Real
from tests.support.registry import Registry, layer
from tests.support.server import Server
from tests.support.tools import until

pytestmark = pytest.mark.docker


@pytest.fixture(scope="module")
def server(engine: DockerEngine) -> Iterator[Server]:
    with Server(backend="docker", node=[engine.url], stop_seconds=1) as server:
        yield server


def settle(real: Real, stack: dict[str, Any]) -> dict[str, dict[str, Any]]:
    """The services of a stack by name, after each has come to rest."""
    paths = real.ok("GET", stack["resource_uri"])["services"]
    found = [real.settle(real.ok("GET", path)) for path in paths]
    return {service["name"]: service for service in found}


def test_a_stack_whose_services_share_volumes_and_link(real: Real, engine: DockerEngine) -> None:
    image, command = "test/busybox", "sleep 100000"
    services: list[dict[str, Any]] = [
        {"name": "web", "image": image, "command": command, "links": ["app"]},
        {"name": "app", "image": image, "command": command, "links": ["db"], "volumes_from": ["data"]},
        {"name": "data", "image": image, "command": command, "volumes": ["/data"]},
        {"name": "db", "image": image, "command": command, "target_num_containers": 2},
    ]
    stack = real.ok("POST", f"{V1}/stack/", {"name": "order", "services": services})
    real.ok("POST", f"{stack['resource_uri']}start/")
    found = settle(real, stack)
    assert {service["state"] for service in found.values()} == {"Running"}
    real.sh(found["data"], "echo kept >/data/it")
    assert real.sh(found["app"], "cat /data/it") == "kept\n"
    assert {"DB_1_NAME", "DB_2_NAME"} <= real.env(found["app"]).keys()
    assert "APP_1_NAME" in real.env(found["web"])

    old = {name: real.one(service, 1).id for name, service in found.items()}
    begun = int(time.time())
    real.ok("POST", f"{stack['resource_uri']}redeploy/")
    found = settle(real, stack)
    with engine.client() as client:
        what = {"type": "container", "event": ["create", "destroy"]}
        events = client.events(since=begun, until=int(time.time()) + 1, filters=what, decode=True)
        seen = [(event["Action"], event["id"]) for event in events]
    assert {service["state"] for service in found.values()} == {"Running"}, [*map(real.why, found.values())]
    new = {name: real.one(service, 1).id for name, service in found.items()}
    for name, needed in (("app", "data"), ("app", "db"), ("web", "app")):
        assert seen.index(("create", new[needed])) < seen.index(("destroy", old[name])), (name, needed)
    assert real.sh(found["app"], "cat /data/it") == "kept\n"
    assert real.containers(found["app"])[0]["uuid"] in real.env(found["web"])["APP_1_NAME"]


@pytest.mark.skipif(platform.machine() != "x86_64", reason="the registry's images are made for x86_64")
def test_an_image_that_is_still_being_pulled_is_waited_for(real: Real, engine: DockerEngine) -> None:
    files = layer(images.read(images.busybox(), "usr/bin/busybox"))
    with Registry() as registry:
        registry.push("acme/db", "1", files, {"Env": ["PATH=/bin"], "ExposedPorts": {"5432/tcp": {}}})
        image = f"{registry.host}/acme/db:1"
        db = real.create(image, run_command="sleep 1000", bindings=[{"container_path": "/data"}])
        links = [{"to_service": db["resource_uri"], "name": "DB"}]
        web = real.create(linked_to_service=links)
        backup = real.create(bindings=[{"volumes_from": db["resource_uri"]}])
        registry.gives.clear()
        for service in (db, web, backup):
            real.act(service, "start")
        until(
            lambda: any("/blobs/" not in p and "/manifests/" in p for p, _ in registry.asked), "it is pulled"
        )
        assert [real.get(s["uuid"])["state"] for s in (db, web, backup)] == ["Starting"] * 3
        assert [real.inside(s) for s in (db, web, backup)] == [[], [], []]
        registry.gives.set()
        assert [real.settle(s)["state"] for s in (db, web, backup)] == ["Running"] * 3
        assert real.env(web)["DB_1_PORT_5432_TCP_PORT"] == "5432"
        real.sh(db, "echo x >/data/it")
        assert real.sh(backup, "cat /data/it") == "x\n"
        real.terminate_all()
    with engine.client() as client:
        client.images.remove(image, force=True)
