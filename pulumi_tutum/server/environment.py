"""Environment of containers and the variables of links: pure functions over records.

Precedence, lowest first: links, image, roles and node (`TUTUM_*`), the service's own. So a link never
replaces a variable of the image: an image with `DB_NAME` that links to a service as `DB` keeps its `DB_NAME`.
`$TUTUM_...` in a value of the service's own is expanded with the role and node variables when a container is
made; the service keeps the text as it was written.

Every `TUTUM_*` variable has a twin `DOCKERCLOUD_*`, whose URIs have Docker Cloud's spelling.

`P_ENV_<VAR>` of a link repeats the target's variables (image, role, node, own) without PATH, HOME and the
credentials of a role. It leaves out the variables that the target got from its own links: with two services
that link to each other they would grow with every redeploy, and they would give a third service's secrets to
services that it has no link with.
"""

from __future__ import annotations

import base64
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field

from .model import Container, Settings, container_dns, docker_cloud_uri, node_dns, service_dns, uri

LATER = "To be calculated"
_TUTUM, _DOCKER_CLOUD = "TUTUM", "DOCKERCLOUD"
_HIDDEN = frozenset({"PATH", "HOME", f"{_TUTUM}_AUTH", f"{_DOCKER_CLOUD}_AUTH"})


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


def link_variables(settings: Settings, name: str, peers: Sequence[Peer], service: str) -> dict[str, str]:
    """The variables that a link called `name` brings (tutum-api.md, 3.8). Empty without containers.

    Args:
        service: uuid of the service that the link leads to.
    """
    if not peers:
        return {}
    base = prefix(name)
    out: dict[str, str] = {}
    for peer in peers:
        out.update(_of_peer(f"{base}_{peer.ordinal}", peer))
    out.update(_of_peer(base, peers[0]))
    out[f"{base}_{_TUTUM}_API_URL"] = settings.rest_url + uri("service", service)
    out[f"{base}_{_DOCKER_CLOUD}_API_URL"] = settings.rest_url + docker_cloud_uri("service", service)
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


def role_variables(settings: Settings, token: str) -> dict[str, str]:
    """The variables of the role `global`: values for the header `Authorization`.

    Args:
        token: the service's; "" before it has one.
    """
    if not token:
        return {f"{_TUTUM}_AUTH": LATER, f"{_DOCKER_CLOUD}_AUTH": LATER}
    pair = f"{settings.user}:{token}"
    return {
        f"{_TUTUM}_AUTH": f"ApiKey {pair}",
        # Docker Cloud knew no other scheme.
        f"{_DOCKER_CLOUD}_AUTH": f"Basic {base64.b64encode(pair.encode()).decode()}",
    }


def node_variables(
    settings: Settings,
    *,
    service: tuple[str, str],
    stack: str = "",
    container: tuple[str, str] | None = None,
    node: str | None = None,
    address: str = "",
    trigger_body: str = "",
) -> dict[str, str]:
    """The variables that tell a container where it is, and where the API is.

    Args:
        service, container: uuid and name; node: uuid. None: not chosen yet (the text `To be calculated`).
        address: the overlay address, without its mask; "" with network=host.
    """
    objects = {
        "service": (service[0], service_dns(settings, service[1], stack)),
        "container": (container[0], container_dns(settings, container[1], stack)) if container else None,
        "node": (node, node_dns(settings, node)) if node else None,
    }
    others = {"REST_HOST": settings.rest_url, "STREAM_HOST": settings.stream_host}
    if address:
        others["IP_ADDRESS"] = address if address == LATER else f"{address}/16"
    if stack:
        others["STACK_NAME"] = stack
    if trigger_body:
        others["TRIGGER_BODY"] = trigger_body
    out: dict[str, str] = {}
    for product, spell in ((_TUTUM, uri), (_DOCKER_CLOUD, docker_cloud_uri)):
        for kind, known in objects.items():
            base = f"{product}_{kind.upper()}"
            names = [f"{base}_{what}" for what in ("HOSTNAME", "FQDN", "API_URI", "API_URL")]
            if known is None:
                out.update(dict.fromkeys(names, LATER))
                continue
            uuid, fqdn = known
            path = spell(kind, uuid)
            values = (fqdn.split(".", 1)[0], fqdn, path, settings.rest_url + path)
            out.update(zip(names, values, strict=True))
        out.update((f"{product}_{name}", value) for name, value in others.items())
    return out


_NAME = rf"(?:{_TUTUM}|{_DOCKER_CLOUD})_[A-Z0-9_]+"
_REFERENCE = re.compile(rf"\$(?:\{{({_NAME})\}}|({_NAME}))")


def expand(value: str, known: Mapping[str, str]) -> str:
    """The text with `$TUTUM_X` and `${TUTUM_X}` replaced by their values; unknown names stay."""
    return _REFERENCE.sub(lambda m: known.get(m[1] or m[2], m[0]), value)


def merge(
    links: Mapping[str, str],
    image: Mapping[str, str],
    roles: Mapping[str, str],
    node: Mapping[str, str],
    own: Mapping[str, str],
) -> tuple[dict[str, str], tuple[str, ...]]:
    """A container's environment, from its sources in order of precedence, lowest first; and the names in it
    whose value is a link's."""
    known = {**roles, **node}
    over = {**image, **known, **{k: expand(v, known) for k, v in own.items()}}
    linked = tuple(k for k in links if k not in over)
    return {**links, **over}, linked


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
