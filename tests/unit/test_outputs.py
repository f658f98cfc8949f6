"""What the state keeps: nothing null, the declared spelling, where a service can be reached, inputs after a
refresh."""

from __future__ import annotations

from typing import Any

from pulumi_tutum import desired, outputs

SERVICE: dict[str, Any] = {
    "uuid": "2f4f54e5-9d3b-4ac1-85ad-a2d4ff25a179",
    "name": "web",
    "image_name": "acme/web:latest",
    "state": "Running",
    "running_num_containers": 2,
    "target_num_containers": 2,
    "run_command": None,
    "stopped_datetime": None,
    "bindings": [{"container_path": "/x", "host_path": None, "rewritable": True, "volumes_from": None}],
    "container_envvars": [{"key": "A", "value": "b"}],
    "link_variables": {"WEB_PORT": "tcp://x"},
    "calculated_envvars": [{"key": "A", "value": "b", "origin": "user"}],
    "nickname": "web",
}


def port(
    inner: int, outer: int | None = None, uri: str | None = None, published: bool = True
) -> dict[str, Any]:
    return {
        "protocol": "tcp",
        "inner_port": inner,
        "outer_port": outer,
        "published": published,
        "endpoint_uri": uri,
        "port_name": "unknown",
    }


def test_outputs_hold_attributes_in_declared_spelling_and_no_nulls() -> None:
    inputs = desired.normal({"image": "acme/web", "container_envvars": {"A": "b"}, "adopt": "web"})
    out = outputs.outputs(SERVICE, inputs)
    assert out["image"] == "acme/web"
    assert out["image_name"] == "acme/web:latest"
    assert out["container_envvars"] == {"A": "b"}
    assert out["bindings"] == [{"container_path": "/x", "rewritable": True}]
    assert out["running"] is True
    for name in (
        "run_command",
        "stopped_datetime",
        "adopt",
        "calculated_envvars",
        "nickname",
        desired.FAILED,
    ):
        assert name not in out
    assert outputs.outputs(SERVICE, inputs, failed=True)[desired.FAILED] is True


def test_endpoints_in_the_order_of_ports_then_containers() -> None:
    containers = [
        {
            "state": "Running",
            "container_ports": [port(80, 49153, "http://a:49153/"), port(81, 8081, "x"), port(9)],
        },
        {"state": "Stopped", "container_ports": [port(80, 49154, "http://b:49154/")]},
        {"state": "Running", "container_ports": [port(80, 49155, "http://c:49155/"), port(80, 8080, "y")]},
    ]
    ports = [
        port(81, 8081, "http://web:8081/"),
        port(80),
        port(80, 8080, "http://web:8080/"),
        port(7, published=False),
    ]
    service = {**SERVICE, "container_ports": ports}
    assert outputs.has_dynamic_ports(service)
    assert outputs.endpoint_uris(service, containers) == [
        "http://web:8081/",
        "http://a:49153/",
        "http://c:49155/",
        "http://web:8080/",
    ]
    stopped = {**service, "running_num_containers": 0}
    assert outputs.endpoint_uris(stopped, containers) == []
    assert not outputs.has_dynamic_ports(stopped)


def test_after_a_refresh_inputs_have_what_was_changed_outside_and_nothing_new() -> None:
    before = {
        "image": "acme/web",
        "target_num_containers": 1,
        "container_envvars": {"A": "old"},
        "run_command": "x",
        "wait": True,
        "__provider": "p",
    }
    found = desired.definition({**SERVICE, "memory": 64}, before)
    assert outputs.inputs_after_read(before, found) == {
        "image": "acme/web",
        "target_num_containers": 2,
        "container_envvars": {"A": "old"},
        "wait": True,
        "__provider": "p",
    }
