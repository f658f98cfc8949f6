"""What the state keeps of a service: the outputs, and after a refresh the inputs. Pure functions.

Outputs have the API's names. Inputs among them keep the declared spelling as long as the API's answer means
the same; what is null is left out, here and in nested records. The state is written whole at each step of
the engine, so nothing is kept that could be derived.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from . import desired, schema

ENDPOINT_URIS = "endpoint_uris"


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
        containers: those of the service, in list shape; needed when `has_dynamic_ports`.
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


def has_dynamic_ports(service: Mapping[str, Any]) -> bool:
    """Whether endpoints of the service can only be learned from its containers."""
    return bool(service.get("running_num_containers")) and any(map(_is_dynamic, _ports(service)))


def endpoint_uris(service: Mapping[str, Any], containers: Iterable[Mapping[str, Any]] = ()) -> list[str]:
    """Where the service can be reached now, in the order of its ports: for a fixed port the service's own
    URI, for a dynamic one that of each running container, in the containers' order."""
    if not service.get("running_num_containers"):
        return []
    fixed = {(p.get("protocol"), p.get("outer_port")) for p in _ports(service)}
    running = [c for c in containers if c.get("state") == "Running"]
    found: list[str] = []
    for port in _ports(service):
        if not _is_dynamic(port):
            found.append(port.get("endpoint_uri") or "")
            continue
        for container in running:
            found += [
                p.get("endpoint_uri") or ""
                for p in _ports(container)
                if (p.get("protocol"), p.get("inner_port")) == (port.get("protocol"), port.get("inner_port"))
                and (p.get("protocol"), p.get("outer_port")) not in fixed
            ]
    return [uri for uri in found if uri]


def inputs_after_read(before: Mapping[str, Any], found: Mapping[str, Any]) -> dict[str, Any]:
    """The inputs to keep after a refresh: those there were, with what was changed outside.

    The environment stays as it was: a value from outside may be a secret, and nothing would mark it as one.
    That it differs is seen from the outputs.

    Args:
        before: the inputs in the state.
        found: `desired.definition` of the service as it is now.
    """
    kept = {n: v for n, v in before.items() if n not in schema.INPUTS or schema.INPUTS[n].secret}
    return {**kept, **{n: found[n] for n in before if n in schema.INPUTS and n in found and n not in kept}}


def _ports(record: Mapping[str, Any]) -> list[Mapping[str, Any]]:
    ports = record.get("container_ports")
    return [p for p in ports if isinstance(p, Mapping)] if isinstance(ports, list) else []


def _is_dynamic(port: Mapping[str, Any]) -> bool:
    return bool(port.get("published")) and not port.get("outer_port")


def _without_nulls(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {k: _without_nulls(v) for k, v in value.items() if v is not None}
    if isinstance(value, (list, tuple)):
        return [_without_nulls(v) for v in value]
    return value
