"""Services made up by a machine, in any spelling, and what the API answers about them."""

from __future__ import annotations

import copy
from typing import Any

from hypothesis import strategies as st

from pulumi_tutum import schema

UUIDS = [f"{n}0000000-0000-4000-8000-000000000000" for n in range(1, 5)]
_TEXT = st.text("abcABC012-_.", min_size=1, max_size=12)
_FOLDERS = st.sampled_from(["/a", "/b", "/var/lib/x", "/with space", "/ü"])


def _optional(**fields: st.SearchStrategy[Any]) -> st.SearchStrategy[dict[str, Any]]:
    """A dict in which each key may be there, be null, or not be there."""
    return st.fixed_dictionaries({}, optional={name: value | st.none() for name, value in fields.items()})


def _numbers(low: int, high: int) -> st.SearchStrategy[Any]:
    """Numbers as programs write them and as Pulumi sends them."""
    return st.integers(low, high) | st.integers(low, high).map(float)


@st.composite
def _ports(draw: st.DrawFn) -> list[dict[str, Any]]:
    ports = []
    for i in range(draw(st.integers(0, 4))):
        port: dict[str, Any] = {"protocol": draw(st.sampled_from(["tcp", "udp"])), "inner_port": 80 + i}
        if draw(st.booleans()):
            port["published"] = draw(st.booleans() | st.none())
        if draw(st.booleans()):
            port["outer_port"] = float(8080 + i) if draw(st.booleans()) else 8080 + i
            port.pop("published", None)
        ports.append(port)
    return ports


_ENVIRONMENT = st.dictionaries(
    st.text("ABC_[]", min_size=1, max_size=6), st.text(max_size=8).filter(lambda t: "\0" not in t), max_size=4
)


@st.composite
def _references(draw: st.DrawFn) -> str:
    uuid = draw(st.sampled_from(UUIDS))
    return draw(st.sampled_from([uuid, uuid.upper(), f"/api/v1/service/{uuid}/", f"/api/v1/service/{uuid}"]))


@st.composite
def _links(draw: st.DrawFn) -> list[dict[str, Any]]:
    links = []
    for i in range(draw(st.integers(0, 3))):
        link: dict[str, Any] = {"to_service": draw(_references())}
        if draw(st.booleans()):
            link["name"] = f"L{i}"
        links.append(link)
    nameless = [schema.service_uuid(link["to_service"]) for link in links if "name" not in link]
    return links if len(set(nameless)) == len(nameless) else []


@st.composite
def _bindings(draw: st.DrawFn) -> list[dict[str, Any]]:
    bindings = []
    for folder in draw(st.lists(_FOLDERS, unique=True, max_size=3)):
        binding: dict[str, Any] = {"container_path": folder}
        binding |= draw(_optional(host_path=_FOLDERS, rewritable=st.booleans()))
        bindings.append(binding)
    if draw(st.booleans()):
        bindings.append({"volumes_from": draw(_references())})
    return bindings


_HEALTHCHECKS = st.one_of(
    st.fixed_dictionaries({"http": st.just("/health")}, optional={"port": _numbers(1, 65535)}),
    st.fixed_dictionaries({"command": st.just("true")}, optional={"retries": _numbers(1, 100)}),
    st.just({"disabled": True}),
)


@st.composite
def services(draw: st.DrawFn) -> dict[str, Any]:
    """Valid arguments of a Service, in one of their spellings."""
    arguments = {
        "image": draw(
            st.sampled_from(["acme/web", "acme/web:latest", "r.io:5000/web:1", "web@sha256:" + "a" * 64])
        )
    }
    arguments |= draw(
        _optional(
            target_num_containers=_numbers(0, 5),
            run_command=st.sampled_from(["", "/run.sh", "sh -c 'a b'"]),
            entrypoint=st.sampled_from(["", "/entry"]),
            container_ports=_ports(),
            container_envvars=_ENVIRONMENT
            | _ENVIRONMENT.map(lambda e: [{"key": k, "value": v} for k, v in e.items()]),
            linked_to_service=_links(),
            bindings=_bindings(),
            autorestart=st.sampled_from(["OFF", "ON_FAILURE"]),
            autodestroy=st.sampled_from(["OFF", "ON_SUCCESS", "ALWAYS"]),
            sequential_deployment=st.booleans(),
            roles=st.lists(st.just("global"), max_size=2),
            privileged=st.booleans(),
            deployment_strategy=st.sampled_from(["EMPTIEST_NODE", "HIGH_AVAILABILITY", "EVERY_NODE"]),
            tags=st.lists(_TEXT | _TEXT.map(lambda t: {"name": t}), max_size=3),
            autoredeploy=st.booleans(),
            network=st.sampled_from(["bridge", "host"]),
            pid=st.sampled_from(["none", "host"]),
            cpu_shares=_numbers(0, 1024),
            memory=_numbers(4, 4096),
            healthcheck=_HEALTHCHECKS,
            monitor_seconds=_numbers(0, 500),
        )
    )
    if arguments.get("deployment_strategy") == "EVERY_NODE":
        arguments.pop("target_num_containers", None)
    return arguments


def respelled(arguments: dict[str, Any], random: Any) -> dict[str, Any]:
    """The same service in other words."""
    other = copy.deepcopy(arguments)
    if other["image"] in ("acme/web", "acme/web:latest"):
        other["image"] = random.choice(["acme/web", "acme/web:latest"])
    if other.get("tags"):
        other["tags"] = [t["name"] if isinstance(t, dict) else {"name": t} for t in other["tags"]]
    environment = other.get("container_envvars")
    if isinstance(environment, dict):
        other["container_envvars"] = [{"key": k, "value": v} for k, v in environment.items()]
    elif environment:
        other["container_envvars"] = {e["key"]: e["value"] for e in environment}
    for port in other.get("container_ports") or []:
        port["inner_port"] = float(port["inner_port"])
        if "outer_port" in port:
            port["published"] = True
        elif not port.get("published"):
            port["published"] = random.choice([False, None])
    for link in other.get("linked_to_service") or []:
        link["to_service"] = schema.service_uuid(link["to_service"])
    for binding in other.get("bindings") or []:
        if binding.get("rewritable") is not False:
            binding["rewritable"] = random.choice([True, None])
    for name in ("run_command", "entrypoint"):
        if not other.get(name):
            other[name] = random.choice(["", None])
    for name, attribute in schema.INPUTS.items():
        if other.get(name) is None and attribute.default is not None and name != "target_num_containers":
            other[name] = random.choice([attribute.default, None])
    return other


def shuffled(arguments: dict[str, Any], random: Any) -> dict[str, Any]:
    """The same service with every list in another order."""
    other = copy.deepcopy(arguments)
    for value in other.values():
        if isinstance(value, list):
            random.shuffle(value)
    return other


def answered(body: dict[str, Any], **attributes: Any) -> dict[str, Any]:
    """The API's detail object of a service that was made with this body and runs as wanted."""
    count = 1 if body.get("target_num_containers") is None else body["target_num_containers"]
    every_node = body.get("deployment_strategy") == "EVERY_NODE"
    links = [
        {"from_service": "/self/", **link, "name": link.get("name") or f"n{i}"}
        for i, link in enumerate(body.get("linked_to_service") or [])
    ]
    empty_port = {"outer_port": None, "endpoint_uri": None, "port_name": "unknown"}
    empty_binding = {"host_path": None, "container_path": None, "volumes_from": None}
    return {
        **{name: None for name in ("run_command", "entrypoint", "cpu_shares", "memory", "healthcheck")},
        **body,
        "uuid": UUIDS[0],
        "name": body.get("name", "web"),
        "image_name": schema.default_tag(body["image"]),
        "target_num_containers": None if every_node else count,
        "container_ports": [{**empty_port, **port} for port in body.get("container_ports") or []],
        "bindings": [{**empty_binding, **binding} for binding in body.get("bindings") or []],
        "linked_to_service": links,
        "state": "Running" if count else "Not running",
        "running_num_containers": count,
        "current_num_containers": count,
        "stopped_num_containers": 0,
        "synchronized": True,
        **attributes,
    }
