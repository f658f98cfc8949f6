"""The attribute table: what is refused and how it is said, which spellings are the same, what a change
needs."""

from __future__ import annotations

from typing import Any

import pytest

from pulumi_tutum import schema
from tests.support.unknown import unknown

UUID = "2f4f54e5-9d3b-4ac1-85ad-a2d4ff25a179"
URI = f"/api/v1/service/{UUID}/"


def service(**attributes: Any) -> dict[str, Any]:
    return {"image": "acme/web", **attributes}


def port(**fields: Any) -> dict[str, Any]:
    return {"protocol": "tcp", "inner_port": 80, **fields}


# -- what is refused ---------------------------------------------------------------------------------------

REFUSED: list[tuple[dict[str, Any], str, str]] = [
    ({}, "image", "is required"),
    (service(image=5.0), "image", "must be a string, not a number"),
    (service(image="Acme/Web"), "image", "lower case"),
    (service(image="a b"), "image", "Docker's form"),
    (service(image=""), "image", "Docker's form"),
    (service(name="-web"), "name", "begin and end with a letter or digit"),
    (service(name="x" * 64), "name", "1 to 63"),
    (service(name="a.b"), "name", "letters, digits, - or _"),
    (service(target_num_containers=-1.0), "target_num_containers", "from 0 to"),
    (service(target_num_containers=1.5), "target_num_containers", "whole number from 0 to 1000, not 1.5"),
    (service(target_num_containers="2"), "target_num_containers", "whole number"),
    (service(target_num_containers=True), "target_num_containers", "whole number"),
    (service(target_num_containers=float("nan")), "target_num_containers", "whole number"),
    (
        service(target_num_containers=2.0, deployment_strategy="EVERY_NODE"),
        "target_num_containers",
        "EVERY_NODE",
    ),
    (service(run_command="a 'b"), "run_command", "no closing quotation"),
    (service(entrypoint=["a"]), "entrypoint", "must be a string, not a list"),
    (service(container_ports=80.0), "container_ports", "must be a list, not a number"),
    (service(container_ports=[80.0]), "container_ports[0]", "must be an object with protocol"),
    (service(container_ports=[{"inner_port": 80.0}]), "container_ports[0].protocol", "is required"),
    (
        service(container_ports=[port(protocol="TCP")]),
        "container_ports[0].protocol",
        "one of tcp, udp, not 'TCP'",
    ),
    (service(container_ports=[port(inner_port=0.0)]), "container_ports[0].inner_port", "from 1 to 65535"),
    (service(container_ports=[port(inner_port=65536.0)]), "container_ports[0].inner_port", "from 1 to 65535"),
    (service(container_ports=[port(outer_port="80")]), "container_ports[0].outer_port", "whole number"),
    (
        service(container_ports=[port(published="yes")]),
        "container_ports[0].published",
        "true or false, not a string",
    ),
    (
        service(container_ports=[port(innerPort=80.0)]),
        "container_ports[0].innerPort",
        "is not known here; known are",
    ),
    (service(container_ports=[None]), "container_ports[0]", "must not be null"),
    (service(container_ports=[port(), port()]), "container_ports[1]", "tcp port 80 is given twice"),
    (service(container_ports=[port(), port(published=True)]), "container_ports[1]", "given twice"),
    (
        service(container_ports=[port(outer_port=8080.0), port(inner_port=81.0, outer_port=8080.0)]),
        "container_ports[1].outer_port",
        "tcp port 8080 is given twice",
    ),
    (service(container_envvars="A=b"), "container_envvars", "must be an object, or a list of objects"),
    (service(container_envvars={"A": True}), "container_envvars.A", '"true" or "false" in quotes'),
    (service(container_envvars={"A": ["b"]}), "container_envvars.A", "must be a string, not a list"),
    (service(container_envvars={"": "b"}), "container_envvars", "non-empty string without '='"),
    (service(container_envvars={"A=B": "c"}), "container_envvars.A=B", "non-empty string without '='"),
    (service(container_envvars=[{"value": "b"}]), "container_envvars[0].key", "is required"),
    (service(container_envvars=[{"key": "A"}]), "container_envvars[0]", "must have a value"),
    (
        service(container_envvars=[{"key": "A", "value": "1"}, {"key": "A", "value": "2"}]),
        "container_envvars[1].key",
        "'A' is given twice",
    ),
    (service(linked_to_service=[{"name": "db"}]), "linked_to_service[0].to_service", "is required"),
    (
        service(linked_to_service=[{"to_service": "db"}]),
        "linked_to_service[0].to_service",
        "get_service(name=...)",
    ),
    (
        service(linked_to_service=[{"to_service": UUID, "name": "d b"}]),
        "linked_to_service[0].name",
        "letters",
    ),
    (
        service(linked_to_service=[{"to_service": UUID, "name": "db"}, {"to_service": URI, "name": "DB"}]),
        "linked_to_service[1].name",
        "'DB' is given twice",
    ),
    (service(bindings=[{}]), "bindings[0]", "needs container_path or volumes_from"),
    (service(bindings=[{"host_path": "/x"}]), "bindings[0]", "needs container_path or volumes_from"),
    (service(bindings=[{"container_path": "data"}]), "bindings[0].container_path", "absolute path"),
    (
        service(bindings=[{"volumes_from": UUID, "container_path": "/x"}]),
        "bindings[0].container_path",
        "cannot be given together with volumes_from",
    ),
    (
        service(bindings=[{"container_path": "/x"}, {"container_path": "/x", "rewritable": False}]),
        "bindings[1].container_path",
        "'/x' is given twice",
    ),
    (service(autorestart="always"), "autorestart", "one of OFF, ON_FAILURE, ALWAYS, not 'always'"),
    (service(autodestroy="ON_FAILURE"), "autodestroy", "one of OFF, ON_SUCCESS, ALWAYS"),
    (
        service(autorestart="ALWAYS", autodestroy="ALWAYS"),
        "autodestroy",
        "must be OFF when autorestart is ALWAYS",
    ),
    (service(sequential_deployment=1.0), "sequential_deployment", "true or false, not a number"),
    (service(roles=["admin"]), "roles[0]", "one of global"),
    (
        service(deployment_strategy="RANDOM"),
        "deployment_strategy",
        "EMPTIEST_NODE, HIGH_AVAILABILITY, EVERY_NODE",
    ),
    (service(tags=["a b"]), "tags[0].name", "without spaces"),
    (service(network="none"), "network", "one of bridge, host"),
    (service(pid="container"), "pid", "one of none, host"),
    (service(cpu_shares=-1.0), "cpu_shares", "from 0 to"),
    (service(memory=3.0), "memory", "from 4 to"),
    (service(healthcheck={}), "healthcheck", "needs either http or command"),
    (service(healthcheck={"http": "/", "command": "true"}), "healthcheck", "needs either http or command"),
    (service(healthcheck={"disabled": False}), "healthcheck", "needs either http or command, or disabled"),
    (service(healthcheck={"disabled": True, "http": "/"}), "healthcheck.http", "together with disabled"),
    (service(healthcheck={"disabled": "yes"}), "healthcheck.disabled", "true or false"),
    (service(monitor_seconds=-1.0), "monitor_seconds", "from 0 to 3600"),
    (service(monitor_seconds=3601.0), "monitor_seconds", "from 0 to 3600"),
    (service(monitor_seconds="5"), "monitor_seconds", "whole number"),
    (service(healthcheck={"http": "health"}), "healthcheck.http", "begins with /"),
    (service(healthcheck={"command": "true", "port": 80.0}), "healthcheck.port", "goes with http only"),
]


@pytest.mark.parametrize(
    ("props", "path", "reason"), REFUSED, ids=[path + ": " + r for _, path, r in REFUSED]
)
def test_wrong_values_are_refused_with_path_and_reason(props: dict[str, Any], path: str, reason: str) -> None:
    found = schema.problems(props)
    assert [p.path for p in found] == [path]
    assert reason in found[0].reason


def test_values_of_the_environment_are_in_no_reason() -> None:
    for value in ("hunter22\0", True, ["hunter22"], None):
        for spelling in ({"PASS": value}, [{"key": "PASS", "value": value}]):
            assert "hunter22" not in str(schema.problems(service(container_envvars=spelling)))


@pytest.mark.parametrize("name", schema.INPUTS)
def test_an_unknown_value_passes_everywhere(name: str) -> None:
    assert not schema.problems({**service(), name: unknown()})
    kind = schema.INPUTS[name].kind
    if isinstance(kind, schema.ListOf):
        assert not schema.problems({**service(), name: [unknown()]})
        if isinstance(kind.item, schema.Record):
            for field in kind.item.fields:
                item = {"protocol": "tcp", "inner_port": 80} if name == "container_ports" else {}
                item |= {"to_service": UUID} if name == "linked_to_service" else {}
                found = schema.problems({**service(), name: [{**item, field.name: unknown()}]})
                assert not [p for p in found if field.name in p.path]


def test_known_parts_beside_unknown_ones_are_still_checked() -> None:
    ports = [port(inner_port=unknown()), port(protocol="sctp")]
    assert [p.path for p in schema.problems(service(container_ports=ports))] == [
        "container_ports[1].protocol"
    ]


def test_the_server_understands_what_old_clients_send() -> None:
    old = service(
        target_num_containers="2",
        container_ports=[{"protocol": "tcp", "inner_port": "80", "outer_port": 0, "container": ""}],
        bindings=[{"container_path": "/x", "host_path": "", "volumes_from": ""}],
        tags=["a"],
    )
    assert not schema.problems(old, strict=False)
    normal = schema.normal(old)
    assert normal["target_num_containers"] == 2
    assert normal["container_ports"] == [port(published=False)]
    assert normal["bindings"] == [{"container_path": "/x", "rewritable": True}]


# -- spellings ---------------------------------------------------------------------------------------------

SAME: list[tuple[str, Any, Any]] = [
    ("image", "acme/web", "acme/web:latest"),
    ("image", "registry:5000/web", "registry:5000/web:latest"),
    ("target_num_containers", 2.0, 2),
    ("target_num_containers", None, 1),
    ("run_command", "", None),
    ("entrypoint", None, ""),
    ("container_ports", [port(inner_port=80.0)], [port(published=False)]),
    ("container_ports", [port(outer_port=8080)], [port(outer_port=8080.0, published=True)]),
    ("container_ports", [port(), port(inner_port=81)], [port(inner_port=81), port()]),
    ("container_ports", [port(endpoint_uri="http://x/", port_name="http")], [port()]),
    ("container_ports", [port(outer_port=None)], [port()]),
    ("container_envvars", {"A": "1", "B": "2"}, [{"key": "B", "value": "2"}, {"key": "A", "value": 1.0}]),
    ("container_envvars", None, []),
    ("linked_to_service", [{"to_service": UUID}], [{"to_service": URI, "name": None}]),
    ("linked_to_service", [{"to_service": UUID.upper()}], [{"to_service": f"http://x{URI}"}]),
    (
        "bindings",
        [{"container_path": "/x"}],
        [{"container_path": "/x", "rewritable": True, "host_path": None}],
    ),
    ("tags", ["a", "b"], [{"name": "b"}, {"name": "a"}]),
    ("tags", ["a", "a"], ["a"]),
    ("roles", ["global", "global"], ["global"]),
    ("roles", None, []),
    ("autorestart", None, "OFF"),
    ("healthcheck", {"http": "/"}, {"http": "/", "interval_seconds": 5.0, "retries": 3}),
    ("healthcheck", {"http": "/"}, {"http": "/", "disabled": False}),
    ("healthcheck", {"disabled": True}, {"disabled": True, "http": ""}),
]
DIFFERENT: list[tuple[str, Any, Any]] = [
    ("image", "acme/web", "acme/web:1"),
    ("image", "acme/web@sha256:" + "0" * 64, "acme/web"),
    ("target_num_containers", 0, None),
    ("container_ports", [port()], [port(published=True)]),
    ("container_ports", [port()], [port(protocol="udp")]),
    ("container_ports", [port()], []),
    ("container_envvars", {"A": ""}, {}),
    ("linked_to_service", [{"to_service": UUID, "name": "a"}], [{"to_service": UUID, "name": "A"}]),
    ("bindings", [{"container_path": "/x"}], [{"container_path": "/x", "rewritable": False}]),
    ("tags", ["a"], ["A"]),
    ("memory", 64, None),
]


@pytest.mark.parametrize(("name", "one", "other"), SAME)
def test_other_spellings_are_the_same(name: str, one: Any, other: Any) -> None:
    one, other = (schema.normal(service(**{name: value})).get(name) for value in (one, other))
    assert schema.same(name, one, other)
    assert schema.same(name, other, one)


@pytest.mark.parametrize(("name", "one", "other"), DIFFERENT)
def test_what_means_something_else_differs(name: str, one: Any, other: Any) -> None:
    one, other = (schema.normal(service(**{name: value})).get(name) for value in (one, other))
    assert not schema.same(name, one, other)
    assert not schema.same(name, other, one)


@pytest.mark.parametrize("name", schema.INPUTS)
def test_an_unknown_value_equals_nothing(name: str) -> None:
    nothing = unknown()
    assert not schema.same(name, nothing, nothing)
    if isinstance(schema.INPUTS[name].kind, schema.ListOf):
        assert not schema.same(name, [nothing], [nothing])
    assert not schema.same("container_envvars", {"A": nothing}, {"A": nothing})


def test_normal_form_keeps_the_order_of_lists() -> None:
    tags = schema.normal(service(tags=["b", "a"]))["tags"]
    assert tags == [{"name": "b"}, {"name": "a"}]


def test_normal_form_fills_in_defaults_once_each() -> None:
    first, second = schema.normal(service()), schema.normal(service())
    assert first["tags"] == []
    first["tags"].append("x")
    assert second["tags"] == []
    assert "target_num_containers" not in schema.normal(service(deployment_strategy="EVERY_NODE"))
    assert "target_num_containers" not in schema.normal(service(deployment_strategy=unknown()))


def test_an_unknown_name_makes_the_whole_environment_unknown() -> None:
    nothing = unknown()
    known = {"key": "A", "value": "1"}
    assert schema.normal(service(container_envvars=[known, nothing]))["container_envvars"] is nothing
    entry = {"key": nothing, "value": "2"}
    assert schema.normal(service(container_envvars=[known, entry]))["container_envvars"] is nothing


@pytest.mark.parametrize(
    ("image", "tagged"),
    [
        ("web", "web:latest"),
        ("web:1", "web:1"),
        ("r.io:5000/acme/web", "r.io:5000/acme/web:latest"),
        ("web@sha256:" + "a" * 64, "web@sha256:" + "a" * 64),
        ("web:1@sha256:" + "a" * 64, "web:1@sha256:" + "a" * 64),
        ("sha256:" + "a" * 64, "sha256:" + "a" * 64),
    ],
)
def test_only_what_has_neither_tag_nor_digest_gets_latest(image: str, tagged: str) -> None:
    assert schema.default_tag(image) == tagged
    assert not schema.problems({"image": image})


# -- changes -----------------------------------------------------------------------------------------------

CHANGED: dict[str, tuple[Any, str]] = {
    "image": ("acme/web:2", schema.REDEPLOY),
    "name": ("other", schema.REPLACE),
    "target_num_containers": (5, schema.SCALE),
    "run_command": ("x", schema.REDEPLOY),
    "entrypoint": ("x", schema.REDEPLOY),
    "container_ports": ([port()], schema.REDEPLOY),
    "container_envvars": ({"A": "b"}, schema.REDEPLOY),
    "linked_to_service": ([{"to_service": UUID}], schema.REDEPLOY),
    "bindings": ([{"container_path": "/x"}], schema.REPLACE),
    "autorestart": ("ALWAYS", schema.REDEPLOY),
    "autodestroy": ("ALWAYS", schema.REDEPLOY),
    "sequential_deployment": (True, schema.REDEPLOY),
    "roles": (["global"], schema.REDEPLOY),
    "privileged": (True, schema.REDEPLOY),
    "deployment_strategy": ("HIGH_AVAILABILITY", schema.PATCH),
    "tags": (["a"], schema.PATCH),
    "autoredeploy": (True, schema.PATCH),
    "network": ("host", schema.REDEPLOY),
    "pid": ("host", schema.REDEPLOY),
    "cpu_shares": (512, schema.REDEPLOY),
    "memory": (64, schema.REDEPLOY),
    "healthcheck": ({"command": "true"}, schema.REDEPLOY),
    "monitor_seconds": (7, schema.PATCH),
}


def test_every_input_is_in_the_table_of_changes() -> None:
    assert list(CHANGED) == list(schema.INPUTS)


@pytest.mark.parametrize("name", CHANGED)
def test_a_change_needs_what_the_product_page_says(name: str) -> None:
    value, needs = CHANGED[name]
    old, new = (
        schema.normal(service(name="web")),
        schema.normal(service(name="web") | {name: value}),
    )
    assert schema.changes(old, new) == {name: needs}
    assert schema.changes(new, old) == ({} if schema.INPUTS[name].kept else {name: needs})


@pytest.mark.parametrize("other", ["EMPTIEST_NODE", "HIGH_AVAILABILITY"])
def test_to_and_from_every_node_replaces_and_the_target_does_not_count(other: str) -> None:
    every = schema.normal(service(deployment_strategy="EVERY_NODE"))
    some = schema.normal(service(deployment_strategy=other, target_num_containers=7))
    assert schema.changes(every, some) == {"deployment_strategy": schema.REPLACE}
    assert schema.changes(some, every) == {"deployment_strategy": schema.REPLACE}
    assert schema.changes({**every, "target_num_containers": 3}, every) == {}


# -- bodies and answers ------------------------------------------------------------------------------------


def test_bodies_have_the_shape_of_the_api() -> None:
    inputs = schema.normal(service(container_envvars={"A": 1.0}, network="host", container_ports=[port()]))
    body = schema.body(inputs)
    assert body["container_envvars"] == [{"key": "A", "value": "1"}]
    assert body["net"] == body["network"] == "host"
    assert body["container_ports"] == [port(published=False)]
    assert "run_command" not in body


def test_a_patch_resets_what_is_no_longer_declared() -> None:
    body = schema.body(schema.normal(service()), ["run_command", "memory", "tags", "network"])
    assert body == {"run_command": None, "memory": None, "tags": [], "network": "bridge", "net": "bridge"}


def test_answers_are_read_in_every_spelling() -> None:
    seen = schema.observed(
        {
            "image_name": "acme/web:latest",
            "net": "host",
            "entrypoint": "",
            "run_command": None,
            "target_num_containers": None,
            "container_ports": [{**port(), "outer_port": None, "endpoint_uri": None, "published": False}],
            "container_envvars": [{"key": "A", "value": "b"}],
        }
    )
    assert seen == {
        "image": "acme/web:latest",
        "network": "host",
        "container_ports": [port(published=False)],
        "container_envvars": {"A": "b"},
    }


def test_the_declared_spelling_is_kept_where_the_answer_means_the_same() -> None:
    kept = schema.declared_or_observed
    assert kept("image", "acme/web", "acme/web:latest") == "acme/web"
    assert kept("image", "acme/web", "acme/web:2") == "acme/web:2"
    assert kept("tags", [{"name": "b"}, {"name": "a"}], [{"name": "a"}, {"name": "b"}])[0] == {"name": "b"}
    assert kept("linked_to_service", [{"to_service": URI}], [{"to_service": URI, "name": "web"}]) == [
        {"to_service": URI}
    ]
    assert kept("memory", None, 64) == 64


def test_read_only_keys_are_added_to_the_records_they_belong_to() -> None:
    declared = [port(inner_port=81, published=True), port(published=False)]
    answered = [
        {**port(published=False), "outer_port": None, "port_name": "http", "endpoint_uri": None},
        {
            **port(inner_port=81, published=True),
            "outer_port": None,
            "port_name": "unknown",
            "endpoint_uri": "x",
        },
    ]
    assert schema.with_computed("container_ports", declared, answered) == [
        {**declared[0], "port_name": "unknown", "endpoint_uri": "x"},
        {**declared[1], "port_name": "http"},
    ]
    nameless = [{"to_service": URI}]
    link = {"to_service": URI, "name": "db", "from_service": "/f/"}
    assert schema.with_computed("linked_to_service", nameless, [link]) == [
        {"to_service": URI, "from_service": "/f/"}
    ]
    assert schema.with_computed("tags", [{"name": "a"}], [{"name": "a"}]) == [{"name": "a"}]


def test_the_table_is_documented() -> None:
    for table, names in (
        (schema.markdown(), schema.INPUTS),
        (schema.markdown(computed=True), schema.COMPUTED),
    ):
        assert [line.split("`")[1] for line in table.splitlines()[2:]] == list(names)
