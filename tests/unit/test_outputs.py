"""What the state keeps: nothing null, the declared spelling, where a service can be reached, inputs after a
refresh."""

from __future__ import annotations

import base64
import json
import zlib
from typing import Any

from pulumi_tutum import desired, outputs, schema
from tests.support.unknown import unknown

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
        "bindings": [{"container_path": "/x", "rewritable": True}],  # there were none, which is the default
        "wait": True,
        "__provider": "p",
    }


# -- what the state keeps ----------------------------------------------------------------------------------

VARIABLES = {"DB_1_PORT_80_TCP": "tcp://10.7.0.2:80", "DB_NAME": "ü=\n", "EMPTY": ""}
#: It is in users' states.
PACKED = {"=1": "q1ZycYo3jEdKT+jJx8jKwkBJB6QMZDRQ9vAe25g8oIirb0BIJJCvVAsA"}


def test_what_has_its_default_is_not_kept() -> None:
    full = outputs.outputs(SERVICE, desired.normal({"image": "acme/web"}))
    full |= {"linked_from_service": []}
    kept = outputs.kept(full)
    for name in ("linked_from_service", "network", "wait", "linked_to_service"):
        assert name in full
        assert name not in kept
    assert kept["running"] is True
    assert set(kept["link_variables"]) == {"=1"}
    assert outputs.complete(kept) == full
    other = {**full, "network": "host"}
    assert outputs.complete(outputs.kept(other)) == other


def test_what_means_the_same_keeps_its_form() -> None:
    full = outputs.outputs(SERVICE, desired.normal({"image": "acme/web"}))
    assert outputs.kept(full, full) == full
    # Another version of the library may pack in another way.
    kept = outputs.kept(full) | {"link_variables": {"=1": repacked(full["link_variables"])}}
    assert outputs.kept(full, kept) == kept
    assert (
        outputs.kept({**full, "link_variables": {"A": "b"}}, kept)["link_variables"] != kept["link_variables"]
    )


def test_packed_variables_are_read_for_ever() -> None:
    assert outputs.unpacked(PACKED) == VARIABLES
    for variables in (VARIABLES, {}, {"A": "b"}):
        assert outputs.unpacked(outputs.packed(variables)) == variables
        assert outputs.unpacked(variables) == variables
    assert outputs.unpacked(None) is None


def repacked(variables: dict[str, str]) -> str:
    packer = zlib.compressobj(1, zlib.DEFLATED, -15)
    data = packer.compress(json.dumps(variables).encode()) + packer.flush()
    return base64.b64encode(data).decode()


# -- what the preview of an update knows -------------------------------------------------------------------

INPUTS = desired.normal(
    {
        "image": "acme/web",
        "name": "web",
        "container_ports": [{"protocol": "tcp", "inner_port": 80, "outer_port": 8080}],
        "linked_to_service": [{"to_service": "2f4f54e5-9d3b-4ac1-85ad-a2d4ff25a180", "name": "db"}],
    }
)
OLD: dict[str, Any] = {
    **INPUTS,
    "container_ports": [
        {**INPUTS["container_ports"][0], "port_name": "http", "endpoint_uri": "http://x:8080/"}
    ],
    "linked_to_service": [{**INPUTS["linked_to_service"][0], "from_service": "/self/"}],
    "uuid": SERVICE["uuid"],
    "image_name": "acme/web:latest",
    "public_dns": "web.me",
    "state": "Running",
    "synchronized": True,
    "target_num_containers": 1.0,
    "current_num_containers": 1.0,
    "running_num_containers": 1.0,
    "containers": ["/c/"],
    "endpoint_uris": ["http://x:8080/"],
}
ALWAYS = {"uuid", "resource_uri", "public_dns", "stack", "destroyed_datetime"}
OF_THE_IMAGE = {"image_name", "image_tag"}


def lasting(**changed: Any) -> dict[str, Any]:
    return outputs.lasting(OLD, {**INPUTS, **changed})


def test_an_update_of_the_definition_alone_changes_no_output() -> None:
    for change in (
        {"tags": [{"name": "a"}]},
        {"autoredeploy": True},
        {"timeout_seconds": 60},
        {"wait": False},
    ):
        found = lasting(**change)
        assert ALWAYS | OF_THE_IMAGE | {"state", "containers", "endpoint_uris"} <= set(found)
        assert "linked_from_service" not in found
        assert found["uuid"] == SERVICE["uuid"]
        assert found["stack"] is None
        assert type(found["running_num_containers"]) is int
        assert found["container_ports"] == [{"port_name": "http", "endpoint_uri": "http://x:8080/"}]
        assert found["linked_to_service"] == [{"from_service": "/self/"}]


def test_an_output_is_known_until_what_it_follows_changes() -> None:
    computed = set(schema.COMPUTED)
    assert set(lasting(image="acme/web:2")) & computed == ALWAYS
    for change in (
        {"target_num_containers": 2},
        {"memory": 64},
        {"running": False},
        {"privileged": unknown()},
    ):
        assert set(lasting(**change)) & computed == ALWAYS | OF_THE_IMAGE
        assert "endpoint_uris" not in lasting(**change)
    assert set(lasting(image=unknown())) & computed == ALWAYS


def test_a_repair_may_change_what_follows_containers() -> None:
    for ill in (
        {"state": "Stopped", "running_num_containers": 0},
        {"state": "Starting"},
        {"synchronized": False},
        {desired.FAILED: True},
    ):
        for inputs in (INPUTS, {**INPUTS, "wait": False}):
            found = outputs.lasting({**OLD, **ill}, inputs)
            assert set(found) & set(schema.COMPUTED) == ALWAYS | OF_THE_IMAGE


def test_an_update_of_a_job_waits_for_its_end() -> None:
    job = {**INPUTS, "job": True}
    assert "state" not in outputs.lasting({**OLD, "job": True}, {**job, "autoredeploy": True})
    finished = {"state": "Not running", "deployed_datetime": "x", "running_num_containers": 0}
    old = {**OLD, "job": True, "autodestroy": "ON_SUCCESS", "current_num_containers": 0, **finished}
    job["autodestroy"] = "ON_SUCCESS"
    assert "state" in outputs.lasting(old, {**job, "autoredeploy": True})
    assert "state" not in outputs.lasting(old, {**job, "image": "acme/web:2"})


def test_read_only_keys_stay_with_their_records() -> None:
    old, new = INPUTS["container_ports"][0], {"protocol": "tcp", "inner_port": 81, "published": False}
    moved = {**old, "outer_port": 8081}
    assert lasting(container_ports=[new, old])["container_ports"] == [{}, {"port_name": "http"}]
    assert lasting(container_ports=[moved, unknown()])["container_ports"] == [{"port_name": "http"}, {}]
    assert lasting(container_ports=[{**old, "inner_port": unknown()}])["container_ports"] == [{}]
    assert "container_ports" not in lasting(container_ports=unknown())


def test_an_input_that_is_not_given_has_no_value() -> None:
    found = lasting()
    assert found["memory"] is found["run_command"] is found["healthcheck"] is None
    assert "image" not in found
    assert "monitor_seconds" not in found, "the provider chooses one"
    # Every node has one: the API counts them.
    every_node = {**INPUTS, "deployment_strategy": "EVERY_NODE"}
    del every_node["target_num_containers"]
    old = {**OLD, "deployment_strategy": "EVERY_NODE"}
    del old["target_num_containers"]
    assert "target_num_containers" not in outputs.lasting(old, every_node)
    assert "containers" in outputs.lasting(old, every_node)
    assert "containers" not in outputs.lasting(old, {**every_node, "tags": [{"name": "a"}]})
    # Somebody else has set it, and the update may set it back.
    assert "memory" not in outputs.lasting({**OLD, "memory": 64}, INPUTS)
