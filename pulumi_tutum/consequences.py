"""What a change does beyond the service itself: which data ends with it, and who keeps old link variables.

Only GETs are sent. Anything that cannot be learnt is left out: a warning must not fail what it warns of.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import Any

from . import desired, lifecycle, schema
from .client import Client
from .errors import TutumError

__all__ = ["changes_link_variables", "lost_volumes", "services_with_old_variables"]

#: At most so many services are looked at and named.
_NAMED = 10
#: Variables of a service that its link variables leave out.
_NOT_LINKED = frozenset({"PATH", "HOME", "TUTUM_AUTH"})


def lost_volumes(client: Client, uuid: str, service: Mapping[str, Any], **limits: Any) -> list[str]:
    """Where the volumes are mounted that end with a service: those of its bindings and those of its image.

    Args:
        service: its outputs in the state. Their bindings count where the control plane does not answer.
    """
    uri = schema.service_uri(uuid)
    found: set[str] = set()
    try:
        for group in client.list_volume_groups(uuid, **limits):
            owner = next(iter(group.get("services") or ()), None)
            ended = group.get("state") == lifecycle.TERMINATED or group.get("volumes") == []
            if owner == uri and not ended:
                # Its name is that of the service and the path: `db:/var/lib/mysql`.
                found.add(str(group.get("name", "")).partition(":")[2])
    except TutumError:
        return desired.volume_paths(service)
    return sorted(path for path in found if path)


def changes_link_variables(old: Mapping[str, Any], new: Mapping[str, Any], changed: Collection[str]) -> bool:
    """Whether an update changes the variables that services get which link to this one.

    Args:
        old: outputs or inputs before.
        new: inputs.
        changed: names of the inputs that differ.
    """
    if new.get("running") is False:
        return False
    if "network" in changed:
        return True
    if "container_envvars" in changed and _linked_variables(old) != _linked_variables(new):
        return True
    return "container_ports" in changed and _linked_ports(old) != _linked_ports(new)


def _linked_variables(service: Mapping[str, Any]) -> Any:
    variables = service.get("container_envvars")
    if not isinstance(variables, Mapping):
        return variables
    return {name: value for name, value in variables.items() if name not in _NOT_LINKED}


def _linked_ports(service: Mapping[str, Any]) -> Any:
    ports = service.get("container_ports") or []
    if schema.has_unknown(ports):
        return ports
    return {(port.get("protocol"), port.get("inner_port")) for port in ports}


def services_with_old_variables(client: Client, uuid: str, **limits: Any) -> list[str]:
    """The names of the services that link to this one and have containers, which keep their variables."""
    try:
        links = client.get_service(uuid, **limits).get("linked_from_service") or []
        sources = dict.fromkeys(schema.service_uuid(str(link.get("from_service"))) for link in links)
        sources.pop(uuid, None)
        linked = [client.get_service(source, **limits) for source in list(sources)[:_NAMED] if source]
    except TutumError:
        return []
    names = [
        str(service["name"])
        for service in linked
        if service.get("current_num_containers") and service["state"] not in lifecycle.ENDING
    ]
    left_out = len(sources) - _NAMED
    return [*names, f"{left_out} more"] if names and left_out > 0 else names
