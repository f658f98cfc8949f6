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
    assert outputs.needs_containers(service)
    assert outputs.endpoint_uris(service, containers) == [
        "http://web:8081/",
        "http://a:49153/",
        "http://c:49155/",
        "http://web:8080/",
    ]
    stopped = {**service, "running_num_containers": 0}
    assert outputs.endpoint_uris(stopped, containers) == []
    assert not outputs.needs_containers(stopped)


NODES = ("http://10.0.0.1:80/", "http://10.0.0.2:80/", "http://10.0.0.1:80/")


def on_nodes(own: str, state: str = "Running") -> tuple[dict[str, Any], list[dict[str, Any]]]:
    """A service with the fixed port 80, whose own URI is given, and its containers on two nodes."""
    service = {
        **SERVICE,
        "public_dns": "web.bob.svc.tutum.io",
        "container_ports": [port(80, 80, own)],
    }
    containers = [
        {"state": state, "container_ports": [port(80, 80, uri), port(81, 81, "x"), port(80, 8080, "y")]}
        for uri in NODES
    ]
    return {**service, "running_num_containers": 3}, containers


def test_a_fixed_port_is_named_at_each_node_where_it_answers() -> None:
    service, containers = on_nodes("http://10.0.0.1:80/")
    assert outputs.needs_containers(service)
    assert outputs.endpoint_uris(service, containers) == ["http://10.0.0.1:80/", "http://10.0.0.2:80/"]
    containers[1]["state"] = "Stopped"
    assert outputs.endpoint_uris(service, containers) == ["http://10.0.0.1:80/"]
    assert outputs.endpoint_uris(service, []) == ["http://10.0.0.1:80/"], "its own, where no more is known"


def test_a_fixed_port_behind_the_dns_name_is_named_once() -> None:
    service, containers = on_nodes("http://web.bob.svc.tutum.io:80/")
    assert not outputs.needs_containers(service)
    assert outputs.endpoint_uris(service, containers) == ["http://web.bob.svc.tutum.io:80/"]


def test_one_container_answers_at_the_services_own_uri() -> None:
    service, _ = on_nodes("http://10.0.0.1:80/")
    assert not outputs.needs_containers({**service, "running_num_containers": 1})


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
