"""An HTTP health check that has no port to ask is refused, or fails the start at once."""

from __future__ import annotations

from typing import Any

import pytest

from pulumi_tutum.errors import BadRequest
from pulumi_tutum.server.backends import ImageInfo
from pulumi_tutum.server.deployment import lacks_health_port
from tests.unit.server.plane import Plane, run

HTTP = {"http": "/health"}
UDP = {"protocol": "udp", "inner_port": 53}
TCP = {"protocol": "tcp", "inner_port": 8000}
REASON = "has no port to ask: neither the service nor its image has a tcp port; set healthcheck.port"


@pytest.mark.parametrize(
    ("definition", "ports", "lacks"),
    [
        ({}, (), False),
        ({"healthcheck": {"command": "true"}}, (), False),
        ({"healthcheck": HTTP}, (), True),
        ({"healthcheck": HTTP, "container_ports": [UDP]}, (("udp", 53),), True),
        ({"healthcheck": HTTP, "container_ports": [UDP]}, (("tcp", 80),), False),
        ({"healthcheck": HTTP, "container_ports": [UDP, TCP]}, (), False),
        ({"healthcheck": {**HTTP, "port": 9}}, (), False),
        ({"healthcheck": HTTP, "network": "host"}, (), True),
    ],
)
def test_the_ports_of_service_and_image_count(
    definition: dict[str, Any], ports: tuple[tuple[str, int], ...], lacks: bool
) -> None:
    assert lacks_health_port(definition, ImageInfo("i", ports=ports)) is lacks
    assert not lacks_health_port(definition, ImageInfo("i", ports=ports, ports_known=False))


def test_the_start_fails_at_once_and_later_definitions_are_refused() -> None:
    async def test() -> None:
        async with Plane() as plane:
            web = await plane.create(name="web", image="busybox", healthcheck=HTTP)
            reply = await plane.act(web, "start")
            await plane.advance(0)
            assert plane.action(reply)["error"] == f"web-1: healthcheck.http {REASON}"
            assert plane.state(web) == "Not running"
            # The image is not known before it was there.
            await plane.up(name="other", image="busybox")
            with pytest.raises(BadRequest, match=r"healthcheck\.http: has no port") as refused:
                await plane.create(name="again", image="busybox", healthcheck=HTTP)
            assert refused.value.detail == {"service": {"healthcheck": [f"healthcheck.http: {REASON}"]}}
            # What is not changed is not refused.
            await plane.patch(web, target_num_containers=2)
            with pytest.raises(BadRequest):
                await plane.patch(web, healthcheck={"http": "/other"})
            await plane.patch(web, healthcheck={**HTTP, "port": 8000})
            await plane.act_and_wait(web, "start")
            assert plane.state(web) == "Running"

    run(test)


def test_a_redeploy_leaves_what_runs() -> None:
    async def test() -> None:
        async with Plane() as plane:
            web = await plane.up(name="web", image="nginx", healthcheck=HTTP)
            before = plane.get(web)["containers"]
            await plane.patch(web, image="alpine")
            reply = await plane.act_and_wait(web, "redeploy")
            assert plane.action(reply)["error"] == f"web: healthcheck.http {REASON}"
            assert plane.get(web)["containers"] == before
            assert plane.state(web) == "Running"

    run(test)


def test_of_an_image_that_the_simulator_does_not_know_nothing_is_said() -> None:
    async def test() -> None:
        async with Plane() as plane:
            for name in ("one", "two"):
                assert plane.state(await plane.up(name=name, image="acme/web", healthcheck=HTTP)) == "Running"

    run(test)
