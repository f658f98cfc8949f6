"""What the state keeps of a service: the outputs, and after a refresh the inputs. Pure functions.

Outputs have the API's names. Inputs among them keep the declared spelling as long as the API's answer means
the same; what is null is left out, here and in nested records.

The engine writes the whole state at each of its steps, so the state has no output that has its default, and
link variables, which say most things several times, are packed (`kept`). Whoever reads the state completes it
(`complete`). A state of an earlier release has everything, and stays valid.
"""

from __future__ import annotations

import base64
import json
import zlib
from collections.abc import Iterable, Mapping
from typing import Any
from urllib.parse import urlsplit

from . import desired, schema

ENDPOINT_URIS = "endpoint_uris"
LINK_VARIABLES = "link_variables"

#: The option that each service in the state has, its default too, if the stack owns it: one that was only
#: read has none.
OWNED = "running"
#: What the state has in any case. Bindings that are missing are secret (removals.py).
_ALWAYS = (OWNED, "bindings")
#: What an output is that the state leaves out.
ABSENT: dict[str, Any] = {**desired.DEFAULTS, "linked_from_service": []}
_NOTHING: Mapping[str, Any] = {}

#: The one name in packed variables. No variable has it, for it has a `=`. The number stands for what the
#: value is: base64 of raw deflate, with the words below, of a JSON object.
_PACKED = "=1"
#: Common parts of the names and values of link variables. Never change it: existing states need it.
_WORDS = "".join(
    f"_{word}"
    for word in (
        *("PORT_80_TCP", "ADDR", "PROTO", "NAME", '":"tcp://10.7.0.', "localhost.svc.cont.node"),
        *("ENV_DOCKERCLOUD_STREAM_HOST", 'REST_HOST":"http://127.0.0.1:', "IP_ADDRESS"),
        *("ENV_DOCKERCLOUD_NODE_HOSTNAME", "FQDN", 'API_URL":"', 'API_URI":"/api/infra/v1/node/'),
        *("ENV_DOCKERCLOUD_CONTAINER_HOSTNAME", "FQDN", 'API_URL":"', 'API_URI":"/api/app/v1/container/'),
        *("ENV_DOCKERCLOUD_SERVICE_HOSTNAME", "FQDN", 'API_URL":"', 'API_URI":"/api/app/v1/service/'),
        *("ENV_TUTUM_NODE_HOSTNAME", "FQDN", 'API_URL":"', 'API_URI":"/api/v1/node/'),
        *("ENV_TUTUM_CONTAINER_HOSTNAME", "FQDN", 'API_URL":"', 'API_URI":"/api/v1/container/'),
        *("ENV_TUTUM_SERVICE_HOSTNAME", "FQDN", 'API_URL":"', 'API_URI":"/api/v1/service/'),
    )
).encode()


def outputs(
    service: Mapping[str, Any],
    inputs: Mapping[str, Any],
    containers: Iterable[Mapping[str, Any]] = (),
    *,
    failed: bool | str = False,
) -> dict[str, Any]:
    """The outputs for a service (detail shape).

    Args:
        inputs: what was declared; empty for a service that is only read.
        containers: those of the service, in list shape; needed when `needs_containers`.
        failed: the operation failed; remembered for the next one (`desired.FAILED`).
    """
    out: dict[str, Any] = {}
    for name, value in desired.definition(service, inputs).items():
        out[name] = schema.with_computed(name, value, service.get(schema.INPUTS[name].answer))
    for name, attribute in schema.COMPUTED.items():
        value = _without_nulls(service.get(attribute.answer))
        if value is not None:
            out[name] = value
    for name in schema.OPTIONS:
        if name != "adopt" and inputs.get(name) is not None:
            out[name] = inputs[name]
    out[ENDPOINT_URIS] = endpoint_uris(service, containers)
    if failed:
        out[desired.FAILED] = failed
    return out


def kept(outs: Mapping[str, Any], before: Mapping[str, Any] = _NOTHING) -> dict[str, Any]:
    """What the state keeps of outputs.

    Args:
        before: what the state has. What means the same keeps its form, so that a refresh finds no change
            after an upgrade.
    """
    found = {
        name: value
        for name, value in outs.items()
        if name in before or name in _ALWAYS or name not in ABSENT or value != ABSENT[name]
    }
    variables = found.get(LINK_VARIABLES)
    if isinstance(variables, Mapping) and variables:
        old = before.get(LINK_VARIABLES)
        found[LINK_VARIABLES] = old if unpacked(old) == variables else packed(variables)
    return found


def complete(kept: Mapping[str, Any]) -> dict[str, Any]:
    """All outputs, of those that the state keeps. (What is null stays absent.)"""
    found = {name: schema.copied(value) for name, value in ABSENT.items()} | dict(kept)
    if LINK_VARIABLES in found:
        found[LINK_VARIABLES] = unpacked(found[LINK_VARIABLES])
    return found


def packed(variables: Mapping[str, str]) -> dict[str, str]:
    """Variables in a shorter form, of the same type."""
    text = json.dumps(variables, separators=(",", ":"), ensure_ascii=False)
    packer = zlib.compressobj(9, zlib.DEFLATED, -zlib.MAX_WBITS, zdict=_WORDS)
    data = packer.compress(text.encode()) + packer.flush()
    return {_PACKED: base64.b64encode(data).decode()}


def unpacked(variables: Any) -> Any:
    """The variables that were packed; what is not packed stays as it is."""
    if not isinstance(variables, Mapping) or list(variables) != [_PACKED]:
        return variables
    data = base64.b64decode(variables[_PACKED])
    return json.loads(zlib.decompressobj(-zlib.MAX_WBITS, _WORDS).decompress(data))


def lasting(old: Mapping[str, Any], inputs: Mapping[str, Any]) -> dict[str, Any]:
    """The outputs that an update to these inputs cannot change, for its preview. Those that are inputs are
    left out, because the engine shows them.

    Args:
        old: the outputs in the state.
        inputs: the new inputs; they may hold values that are not known yet.

    Returns:
        name -> value, None for an output that has none. For an input with read-only keys: a list that has,
        for each record of it, those keys that stay as they are.
    """
    changed = desired.disturbed(old, inputs)
    old, inputs = complete(old), {**desired.DEFAULTS, **inputs}
    found: dict[str, Any] = {}
    for name, attribute in schema.COMPUTED.items():
        if attribute.follows is not None and changed.isdisjoint(attribute.follows):
            value = old.get(name)
            found[name] = None if value is None else attribute.kind.observed(value)
    if schema.CONTAINERS not in changed:
        found[ENDPOINT_URIS] = list(old.get(ENDPOINT_URIS) or ())
    for name in (*schema.INPUTS, *schema.OPTIONS):
        if inputs.get(name) is None and old.get(name) is None and not _is_chosen(name):
            found[name] = None
        if schema.read_only_keys(name) and isinstance(inputs.get(name), list):
            found[name] = schema.lasting(name, inputs[name], old.get(name) or (), changed)
    return found


def _is_chosen(name: str) -> bool:
    """Whether an input that the program leaves out gets a value all the same: from the provider, or (how many
    containers EVERY_NODE gives) from the API."""
    return name == "target_num_containers" or (name in schema.INPUTS and schema.INPUTS[name].kept)


def needs_containers(service: Mapping[str, Any]) -> bool:
    """Whether endpoints of the service can only be learned from its containers."""
    running = service.get("running_num_containers")
    if not isinstance(running, int) or running < 1:
        return False
    ports = _ports(service)
    if any(map(_is_dynamic, ports)):
        return True
    return running > 1 and any(_answers_at_one_node(service, port) for port in ports)


def endpoint_uris(service: Mapping[str, Any], containers: Iterable[Mapping[str, Any]] = ()) -> list[str]:
    """Where the service can be reached now, in the order of its ports, then of its containers.

    A fixed port has the service's own URI. If that names an address, not the service's DNS name, the port has
    one URI for each address at which a running container answers. A dynamic port has one URI for each running
    container.
    """
    if not service.get("running_num_containers"):
        return []
    fixed = {(p.get("protocol"), p.get("outer_port")) for p in _ports(service)}
    running = [c for c in containers if c.get("state") == "Running"]
    found: list[str] = []
    for port in _ports(service):
        if _is_dynamic(port):
            found += [
                p.get("endpoint_uri") or ""
                for p in _ports_of(running, port, "protocol", "inner_port")
                if (p.get("protocol"), p.get("outer_port")) not in fixed
            ]
            continue
        own = port.get("endpoint_uri") or ""
        if not _answers_at_one_node(service, port):
            found.append(own)
            continue
        of_containers = _ports_of(running, port, "protocol", "inner_port", "outer_port")
        addresses = [p["endpoint_uri"] for p in of_containers if p.get("endpoint_uri")]
        found += dict.fromkeys(addresses or [own])
    return [uri for uri in found if uri]


def inputs_after_read(before: Mapping[str, Any], found: Mapping[str, Any]) -> dict[str, Any]:
    """The inputs to keep after a refresh: those there were, with what was changed outside.

    The environment stays as it was: a value from outside may be a secret, and nothing would mark it as one.
    That it differs is seen from the outputs.

    Args:
        before: the inputs in the state.
        found: `desired.definition` of the service as it is now.
    """
    same = {n: v for n, v in before.items() if n not in schema.INPUTS or schema.INPUTS[n].secret}
    seen = [n for n in (*before, *desired.DEFAULTS) if n in schema.INPUTS and not schema.INPUTS[n].secret]
    return desired.terse({**same, **{n: found[n] for n in seen if n in found}}, before)


def _ports(record: Mapping[str, Any]) -> list[Mapping[str, Any]]:
    ports = record.get("container_ports")
    return [p for p in ports if isinstance(p, Mapping)] if isinstance(ports, list) else []


def _ports_of(
    containers: Iterable[Mapping[str, Any]], port: Mapping[str, Any], *keys: str
) -> list[Mapping[str, Any]]:
    """The ports of containers that have the same values under these keys as a port of the service."""
    wanted = [port.get(key) for key in keys]
    return [p for c in containers for p in _ports(c) if [p.get(key) for key in keys] == wanted]


def _answers_at_one_node(service: Mapping[str, Any], port: Mapping[str, Any]) -> bool:
    """Whether the service's URI of a fixed port has the address of one node, not the service's DNS name."""
    uri, dns_name = port.get("endpoint_uri"), service.get("public_dns")
    if not isinstance(uri, str) or not isinstance(dns_name, str):
        return False
    return urlsplit(uri).hostname != dns_name.lower()


def _is_dynamic(port: Mapping[str, Any]) -> bool:
    return bool(port.get("published")) and not port.get("outer_port")


def _without_nulls(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {k: _without_nulls(v) for k, v in value.items() if v is not None}
    if isinstance(value, (list, tuple)):
        return [_without_nulls(v) for v in value]
    return value
