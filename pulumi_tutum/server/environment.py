"""Environment of containers and the variables of links: pure functions over records.

Precedence, lowest first: image, links, roles, Tutum's own, the user's. `$TUTUM_...` in a user's value is
expanded with Tutum's variables and those of roles when a container is made; the service keeps the text as it
was written.

`P_ENV_<VAR>` of a link repeats the target's own variables (image, roles, Tutum's, user) without PATH, HOME,
TUTUM_AUTH, and without those that the target itself got from its links: with two services that link to each
other they would grow with every redeploy, and they would carry a third service's secrets further than its
owner allowed.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field

from .model import Container, Settings, container_dns, node_dns, service_dns, uri

LATER = "To be calculated"
_HIDDEN = frozenset({"PATH", "HOME", "TUTUM_AUTH"})


@dataclass(frozen=True)
class Peer:
    """One container of a link's target, as those who link to it see it.

    Attributes:
        host: its address, or the host name under which it is reached; "" with network=host.
        ports: (protocol, inner port).
        environment: its own variables, without those from links.
    """

    uuid: str
    hostname: str
    ordinal: int
    host: str
    ports: tuple[tuple[str, int], ...] = ()
    environment: Mapping[str, str] = field(default_factory=dict)


def prefix(name: str) -> str:
    """A name as the beginning of a variable."""
    return re.sub(r"[^A-Za-z0-9]", "_", name).upper()


def own_variables(container: Container) -> dict[str, str]:
    """A container's environment without what came from links."""
    if container.spec is None:
        return {}
    linked = frozenset(container.linked)
    return {k: v for k, v in container.spec.environment.items() if k not in linked}


def link_variables(name: str, peers: Sequence[Peer], api_url: str) -> dict[str, str]:
    """The variables that a link called `name` brings (tutum-api.md, 3.8). Empty without containers."""
    if not peers:
        return {}
    base = prefix(name)
    out: dict[str, str] = {}
    for peer in peers:
        out.update(_of_peer(f"{base}_{peer.ordinal}", peer))
    out.update(_of_peer(base, peers[0]))
    out[f"{base}_TUTUM_API_URL"] = api_url
    return out


def _of_peer(base: str, peer: Peer) -> dict[str, str]:
    out = {f"{base}_NAME": f"/{peer.uuid}/{peer.hostname}"}
    if peer.host:
        for protocol, port in peer.ports:
            at = f"{base}_PORT_{port}_{protocol.upper()}"
            out[at] = f"{protocol}://{peer.host}:{port}"
            out[f"{at}_ADDR"] = peer.host
            out[f"{at}_PORT"] = str(port)
            out[f"{at}_PROTO"] = protocol
        if len(peer.ports) == 1:
            protocol, port = peer.ports[0]
            out[f"{base}_PORT"] = f"{protocol}://{peer.host}:{port}"
    out.update((f"{base}_ENV_{k}", v) for k, v in peer.environment.items() if k not in _HIDDEN)
    return out


def tutum_variables(
    settings: Settings,
    *,
    service: tuple[str, str],
    stack: str = "",
    container: tuple[str, str] | None = None,
    node: str | None = None,
    address: str = "",
    trigger_body: str = "",
) -> dict[str, str]:
    """What Tutum injects.

    Args:
        service, container: uuid and name; node: uuid. None: not chosen yet (the text `To be calculated`).
        address: the overlay address, without its mask; "" with network=host.
    """
    fqdn = {
        "SERVICE": service_dns(settings, service[1], stack),
        "CONTAINER": container_dns(settings, container[1], stack) if container else LATER,
        "NODE": node_dns(settings, node) if node else LATER,
    }
    uris = {
        "SERVICE": uri("service", service[0]),
        "CONTAINER": uri("container", container[0]) if container else LATER,
        "NODE": uri("node", node) if node else LATER,
    }
    out: dict[str, str] = {}
    for what in ("SERVICE", "CONTAINER", "NODE"):
        known = uris[what] != LATER
        out[f"TUTUM_{what}_HOSTNAME"] = fqdn[what].split(".", 1)[0] if known else LATER
        out[f"TUTUM_{what}_FQDN"] = fqdn[what]
        out[f"TUTUM_{what}_API_URI"] = uris[what]
        out[f"TUTUM_{what}_API_URL"] = settings.rest_url + uris[what] if known else LATER
    out["TUTUM_REST_HOST"] = settings.rest_url
    out["TUTUM_STREAM_HOST"] = settings.stream_host
    if address:
        out["TUTUM_IP_ADDRESS"] = address if address == LATER else f"{address}/16"
    if stack:
        out["TUTUM_STACK_NAME"] = stack
    if trigger_body:
        out["TUTUM_TRIGGER_BODY"] = trigger_body
    return out


_REFERENCE = re.compile(r"\$(?:\{(TUTUM_[A-Z0-9_]+)\}|(TUTUM_[A-Z0-9_]+))")


def expand(value: str, known: Mapping[str, str]) -> str:
    """`$TUTUM_X` and `${TUTUM_X}` replaced by what is known; unknown names stay."""
    return _REFERENCE.sub(lambda m: known.get(m[1] or m[2], m[0]), value)


def merge(
    image: Mapping[str, str],
    links: Mapping[str, str],
    roles: Mapping[str, str],
    tutum: Mapping[str, str],
    user: Mapping[str, str],
) -> tuple[dict[str, str], tuple[str, ...]]:
    """A container's environment, and the names in it whose value is a link's."""
    known = {**roles, **tutum}
    out = {**image, **links, **known, **{k: expand(v, known) for k, v in user.items()}}
    linked = tuple(k for k in links if k not in known and k not in user)
    return out, linked


def calculated(sources: Iterable[tuple[str, Mapping[str, str]]]) -> list[dict[str, str]]:
    """`calculated_envvars`: each variable once, with the origin that wins.

    Args:
        sources: (origin, variables), highest precedence first.
    """
    seen: set[str] = set()
    out: list[dict[str, str]] = []
    for origin, variables in sources:
        for key, value in variables.items():
            if key not in seen:
                seen.add(key)
                out.append({"key": key, "origin": origin, "value": value})
    return out
