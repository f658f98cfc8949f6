"""How a container comes to be: node, ports, address and volumes are chosen, its image fills in the rest.

`place` decides what must be unique (so it happens inside a change, at once); `specify` builds what the
backend gets, once the image is known.
"""

from __future__ import annotations

import dataclasses
import ipaddress
import itertools
import secrets
from collections.abc import Collection, Mapping, Sequence
from typing import Any

from .. import schema
from ..errors import BackendError
from . import environment, scheduler
from .backends import EXITED, ContainerSpec, ImageInfo, LinkSpec, PortSpec, VolumeSpec, probed_port
from .environment import Peer
from .model import (
    Container,
    Node,
    Service,
    Settings,
    Volume,
    VolumeGroup,
    automatic_tags,
    container_definition,
    merged_ports,
    new_uuid,
)
from .records import Change, Records, link_targets, volume_sources
from .scheduler import NodeLoad, NoNode

OVERLAY = ipaddress.ip_network("10.7.0.0/16")


@dataclasses.dataclass
class World:
    """What deploying needs to know: the records, the settings, and what kind of backend there is."""

    records: Records
    settings: Settings
    backend: str
    overlay: bool
    #: The backend moves containers by itself.
    moves: bool = False
    #: Where the search for a free port or address goes on: protocol or "overlay" -> last given out.
    cursors: dict[str, int] = dataclasses.field(default_factory=dict)
    #: Outer ports that somebody else turned out to use: node -> (protocol, port).
    burnt: dict[str, set[tuple[str, int]]] = dataclasses.field(default_factory=dict)

    # -- placement

    def loads(self, service: Service) -> list[NodeLoad]:
        """The nodes as placement sees them now."""
        records = self.records
        mine: dict[str, int] = {}
        for c in records.staying_of(service.uuid):
            if c.active or c.wanted == "running":
                mine[c.node] = mine.get(c.node, 0) + 1
        return [
            NodeLoad(
                node.uuid,
                node.nickname or node.name,
                self.node_tags(node),
                node.state == "Deployed" and node.open,
                not node.given_up,
                records.running_on[node.uuid],
                mine.get(node.uuid, 0),
                records.ports.get(node.uuid, {}),
                set(self.burnt.get(node.uuid, ())),
            )
            for node in records.nodes.values()
            if node.state not in ("Terminating", "Terminated")
        ]

    def node_tags(self, node: Node) -> frozenset[str]:
        cluster = self.records.clusters.get(node.cluster)
        return frozenset(
            (
                *node.tags,
                *(cluster.tags if cluster else ()),
                *automatic_tags(self.backend, cluster.name if cluster else ""),
            )
        )

    def candidates(self, service: Service, *, awaited: bool = False) -> list[NodeLoad]:
        """The nodes that are up, or `awaited` at least, and have the service's tags."""
        loads = self.loads(service)
        if awaited:
            loads = [dataclasses.replace(node, up=node.up or node.awaited) for node in loads]
        return scheduler.tagged(loads, [tag["name"] for tag in service.get("tags")])

    def place(
        self, change: Change, service: Service, ordinal: int, loads: list[NodeLoad], only: str | None = None
    ) -> Container:
        """A new container of a service, on the node that its strategy chooses.

        Args:
            loads: as `loads` returned them; brought up to date for the next container of the same change.
            only: uuid of the node it must be on (EVERY_NODE).

        Raises:
            NoNode: no node can take it.
        """
        fixed = {
            (p["protocol"], p["outer_port"])
            for p in service.get("container_ports")
            if p.get("outer_port") is not None
        }
        pinned = self.pinned(service, ordinal)
        if only is not None:
            pinned = {only} if pinned is None else pinned & {only}
        node = self._choose(service, loads, fixed, pinned)
        container = Container(
            new_uuid(),
            self.records.next_seq(),
            service.uuid,
            f"{service.name}-{ordinal}",
            ordinal,
            node.uuid,
            service.definition["image"],
            service.deployment,
            service.revision,
            definition=container_definition(service.definition),
            deployed_by=service.action,
        )
        container.outer = tuple(self._outer_ports(service, node))
        if self.overlay and service.get("network") != "host":
            container.address = self._address(service, ordinal, change)
        change.add(container)
        node.running += 1
        node.of_service += 1
        return container

    def _choose(
        self,
        service: Service,
        loads: list[NodeLoad],
        fixed: Collection[tuple[str, int]],
        pinned: Collection[str] | None,
    ) -> NodeLoad:
        """The node that a service's strategy chooses among those that can take a container of it."""
        tags = [tag["name"] for tag in service.get("tags")]
        found = scheduler.candidates(loads, tags, fixed, pinned)
        return scheduler.place(service.get("deployment_strategy"), found)

    def place_again(self, change: Change, service: Service, container: Container) -> None:
        """Choose a node for a stopped container that nothing binds to the one on which it ran.

        Raises:
            NoNode: no node can take it.
        """
        loads = [self._without(node, container) for node in self.loads(service)]
        fixed = {
            (p["protocol"], p["outer_port"])
            for p in container.get("container_ports")
            if p.get("outer_port") is not None
        }
        node = self._choose(service, loads, fixed, None)
        assert container.spec is not None
        change.edit(container)
        if any(node.has((protocol, outer)) for protocol, _, outer in container.outer):
            container.outer = tuple(self._outer_ports(service, node))
        ports = _ports(container, container.image_info)
        container.node = node.uuid
        container.spec = dataclasses.replace(container.spec, node=node.uuid, ports=ports)

    @staticmethod
    def _without(node: NodeLoad, container: Container) -> NodeLoad:
        """A node as it would be without a container that is wanted there."""
        if node.uuid != container.node:
            return node
        own = {(protocol, outer) for protocol, _, outer in container.outer}
        taken = set(node.taken) - own
        return dataclasses.replace(
            node, running=node.running - 1, of_service=node.of_service - 1, taken=taken
        )

    @staticmethod
    def excess(service: Service, containers: Sequence[Container]) -> list[Container]:
        """The containers of a service that are above its target, and are to be removed."""
        placed = [(c.ordinal, c.node) for c in containers]
        removed = scheduler.excess(service.get("deployment_strategy"), placed, service.target or 0)
        return [c for position, c in enumerate(containers) if position in removed]

    def pinned(self, service: Service, ordinal: int, *, keeps_own: bool = True) -> set[str] | None:
        """Nodes that hold the volumes which the container will have; None: there are none.

        Args:
            keeps_own: it gets the volumes that its predecessor left.

        Raises:
            NoNode: a service whose volumes it uses has no containers.
        """
        pinned: set[str] | None = None
        for volume in self._kept(service, ordinal) if keeps_own else ():
            pinned = {volume.node} if pinned is None else pinned & {volume.node}
        for source in volume_sources(service.definition):
            nodes = {c.node for c in self.records.staying_of(source) if c.spec}
            if not nodes:
                name = self.records.services[source].name if source in self.records.services else source
                raise NoNode(f"volumes_from: service {name} has no containers")
            pinned = nodes if pinned is None else pinned & nodes
        return pinned

    def _kept(self, service: Service, ordinal: int) -> list[Volume]:
        return [v for v in self.records.volumes_of.get(service.uuid, {}).values() if v.ordinal == ordinal]

    def _outer_ports(self, service: Service, node: NodeLoad) -> list[tuple[str, int, int]]:
        """(protocol, inner, outer) of the published ports: the fixed ones, and dynamic ones that are free."""
        ports = [p for p in service.get("container_ports") if p.get("published")]
        fixed = [p for p in ports if p.get("outer_port") is not None]
        given = [(p["protocol"], p["inner_port"], p["outer_port"]) for p in fixed]
        node.added.update((protocol, outer) for protocol, _, outer in given)
        if service.get("network") == "host":
            return given
        # A container that the backend moves keeps its port, so no other node may have given it out either.
        searched = node
        if self.moves:
            everywhere = itertools.chain.from_iterable(self.records.ports.values())
            searched = dataclasses.replace(node, taken={*node.taken, *everywhere})
        for p in ports:
            if p.get("outer_port") is None:
                # One row for all nodes: several may answer at the same address.
                after = self.cursors.get(p["protocol"], 0)
                outer = scheduler.free_port(searched, p["protocol"], self.settings.port_range, after)
                self.cursors[p["protocol"]] = outer
                node.added.add((p["protocol"], outer))
                given.append((p["protocol"], p["inner_port"], outer))
        return given

    def change_ports(
        self, change: Change, service: Service, container: Container, taken: Sequence[tuple[str, int]]
    ) -> bool:
        """Give a container other dynamic ports, when somebody else has one of those it was given. False: what
        is taken is a fixed one.

        Args:
            taken: (protocol, outer port); empty: any of them.
        """
        fixed = {
            (p["protocol"], p["outer_port"])
            for p in container.get("container_ports")
            if p.get("outer_port") is not None
        }
        dynamic = {(p, o) for p, _, o in container.outer} - fixed
        if (
            fixed.intersection(taken)
            or not dynamic
            or container.spec is None
            or container.get("network") == "host"
        ):
            return False
        self.burnt.setdefault(container.node, set()).update(dynamic.intersection(taken) or dynamic)
        node = next((n for n in self.loads(service) if n.uuid == container.node), None)
        if node is None:
            return False
        change.edit(container).outer = tuple(self._outer_ports(service, node))
        container.spec = dataclasses.replace(container.spec, ports=_ports(container, container.image_info))
        return True

    def _address(self, service: Service, ordinal: int, change: Change) -> str:
        """An overlay address; a redeployed container gets the one its predecessor had."""
        fresh = {r.address for r, _ in change.before.values() if isinstance(r, Container)}
        remembered = self.cursors.get(f"address/{service.uuid}/{ordinal}")
        taken = self.records.addresses
        if remembered is not None:
            address = str(OVERLAY.network_address + remembered)
            if address not in taken and address not in fresh:
                return address
        cursor = self.cursors.get("overlay", 1)
        for _ in range(OVERLAY.num_addresses - 3):
            cursor = cursor + 1 if cursor < OVERLAY.num_addresses - 2 else 2
            address = str(OVERLAY.network_address + cursor)
            if address not in taken and address not in fresh:
                self.cursors["overlay"] = cursor
                return address
        raise NoNode("no address of the overlay network is free")

    def remember_address(self, container: Container) -> None:
        """The next container with this ordinal gets the same address, if it is free."""
        if container.address and self.overlay:
            number = int(ipaddress.ip_address(container.address)) - int(OVERLAY.network_address)
            if 0 < number < OVERLAY.num_addresses:
                self.cursors[f"address/{container.service}/{container.ordinal}"] = number

    # -- what it is made of

    def specify(self, change: Change, service: Service, container: Container, info: ImageInfo) -> None:
        """Fill in `spec`: ports, volumes, links and the whole environment.

        Raises:
            BackendError: the container could never become healthy.
        """
        check_health_port(container.definition, info)
        settings, records = self.settings, self.records
        stack = records.stack_name(service)
        roles: dict[str, str] = {}
        if "global" in container.get("roles"):
            if not service.token:
                change.edit(service).token = secrets.token_hex(20)
            roles = environment.role_variables(settings, service.token)
        node = environment.node_variables(
            settings,
            service=(service.uuid, service.name),
            stack=stack,
            container=(container.uuid, container.name),
            node=container.node,
            address=container.address,
            trigger_body=service.trigger_body,
        )
        variables, linked = environment.merge(
            self.variables_of_links(container.definition, service, before=container),
            info.environment,
            roles,
            node,
            container.get("container_envvars"),
        )
        volumes = tuple(self._volumes(change, service, container, info))
        change.edit(container)
        container.linked = linked
        container.image_info = info
        container.spec = ContainerSpec(
            container.uuid,
            container.name,
            service.uuid,
            service.name,
            container.ordinal,
            container.node,
            container.image,
            container.revision,
            entrypoint=container.get("entrypoint"),
            run_command=container.get("run_command"),
            working_dir=container.get("working_dir"),
            environment=variables,
            ports=_ports(container, info),
            volumes=volumes,
            links=self.links(container),
            memory=container.get("memory"),
            cpu_shares=container.get("cpu_shares"),
            network=container.get("network"),
            pid=container.get("pid"),
            privileged=container.get("privileged"),
            autorestart=container.get("autorestart"),
            healthcheck=container.get("healthcheck"),
            image_check=info.has_check and not container.get("healthcheck"),
            linked_as=self.linked_as(service),
            short_name=_short_name(service),
            movable=self.is_movable(service, container, volumes),
            tags=self._tags_that_bind(service),
        )

    def is_movable(self, service: Service, container: Container, volumes: Sequence[VolumeSpec]) -> bool:
        """Whether the backend may move a container once it runs: nothing of it is on its node only."""
        if not self.moves or service.every_node or volume_sources(container.definition):
            return False
        return not any(mount.volume for mount in volumes)

    def _tags_that_bind(self, service: Service) -> tuple[str, ...]:
        """The tags of a service that some nodes may not have."""
        cluster_tags = {tag for cluster in self.records.clusters.values() for tag in cluster.tags}
        names = (cluster.name for cluster in self.records.clusters.values())
        on_all = cluster_tags.union(*(automatic_tags(self.backend, name) for name in names))
        return tuple(sorted({tag["name"] for tag in service.get("tags")} - on_all))

    def renew(self, change: Change, service: Service, container: Container) -> None:
        """Bring the spec of a container that is about to be started up to what may have changed since it was
        made."""
        spec = container.spec
        assert spec is not None
        fresh = dataclasses.replace(
            spec,
            linked_as=self.linked_as(service),
            movable=self.is_movable(service, container, spec.volumes),
            tags=self._tags_that_bind(service),
        )
        if fresh != spec:
            change.edit(container).spec = fresh
        if fresh.movable and container.status == EXITED:
            self.place_again(change, service, container)

    def _volumes(
        self, change: Change, service: Service, container: Container, info: ImageInfo
    ) -> list[VolumeSpec]:
        mounts: dict[str, VolumeSpec] = {}
        sources: list[tuple[str, bool]] = []
        own: list[tuple[str, bool]] = []
        for binding in container.get("bindings"):
            source, path = binding.get("volumes_from"), binding.get("container_path")
            if source:
                sources.append((schema.service_uuid(source) or "", binding.get("rewritable", True)))
            elif binding.get("host_path"):
                mounts[path] = VolumeSpec(
                    path, host_path=binding["host_path"], rewritable=binding.get("rewritable", True)
                )
            else:
                own.append((path, binding.get("rewritable", True)))
        kept = {v.path: v for v in self._kept(service, container.ordinal)}
        for path, rewritable in own:
            mounts[path] = VolumeSpec(
                path, volume=self._volume(change, service, container, path, kept), rewritable=rewritable
            )
        for source, rewritable in sources:
            for mount in self._mounts_of(source, container):
                if mount.container_path not in mounts:
                    mounts[mount.container_path] = dataclasses.replace(
                        mount, rewritable=mount.rewritable and rewritable
                    )
        for path in info.volumes:
            if path not in mounts:
                mounts[path] = VolumeSpec(path, volume=self._volume(change, service, container, path, kept))
        return list(mounts.values())

    def _mounts_of(self, source: str, container: Container) -> Sequence[VolumeSpec]:
        """The mounts of the container of another service whose volumes this one gets: on its node, same
        ordinal first.
        """
        there = [c for c in self.records.staying_of(source) if c.node == container.node and c.spec]
        there.sort(key=lambda c: (c.ordinal != container.ordinal, c.ordinal))
        return there[0].spec.volumes if there and there[0].spec else ()

    def _volume(
        self, change: Change, service: Service, container: Container, path: str, kept: Mapping[str, Volume]
    ) -> str:
        """uuid of the container's volume at a path: the one its predecessor left, or a new one."""
        if path in kept:
            return kept[path].uuid
        seq = self.records.next_seq
        group = self.records.group_at.get((service.uuid, path))
        if group is None:
            group = change.add(VolumeGroup(new_uuid(), seq(), f"{service.name}:{path}", service.uuid, path))
        volume = Volume(new_uuid(), seq(), group.uuid, service.uuid, container.ordinal, path, container.node)
        return change.add(volume).uuid

    # -- links

    def peers(self, service: Service, *, name: str, before: int | None = None) -> list[Peer]:
        """The containers of a service as those who link to it see them, in ordinal order.

        Args:
            name: the link's; where addresses do not last, hosts are called `<name>-<ordinal>`.
            before: only those with a smaller ordinal.
        """
        out = []
        for c in self.records.staying_of(service.uuid):
            if c.spec is None or (before is not None and c.ordinal >= before):
                continue
            host = "" if c.spec.network == "host" else c.address if self.overlay else f"{name}-{c.ordinal}"
            ports = tuple(dict.fromkeys((p.protocol, p.inner_port) for p in c.spec.ports))
            out.append(Peer(c.uuid, c.name, c.ordinal, host, ports, environment.own_variables(c)))
        return out

    def variables_of(self, service: Service, name: str, before: int | None = None) -> dict[str, str]:
        """What a link with this name to a service brings now."""
        peers = self.peers(service, name=name, before=before)
        return environment.link_variables(self.settings, name, peers, service.uuid)

    def variables_of_links(
        self, definition: Mapping[str, Any], service: Service, before: Container | None = None
    ) -> dict[str, str]:
        """What all the links of a definition bring, and, in sequential deployment, the containers before this
        one.
        """
        out: dict[str, str] = {}
        if before is not None and definition.get("sequential_deployment"):
            out.update(self.variables_of(service, service.name, before.ordinal))
        for link, target in zip(
            definition.get("linked_to_service", ()), link_targets(definition), strict=True
        ):
            found = self.records.services.get(target)
            if found is not None:
                peers = self._linked(service, found, link["name"], before.node if before else None)
                out.update(environment.link_variables(self.settings, link["name"], peers, found.uuid))
        return out

    def _linked(self, service: Service, target: Service, name: str, node: str | None) -> list[Peer]:
        """The containers that a link leads to; between two EVERY_NODE services, the one on the same node."""
        peers = self.peers(target, name=name)
        if node is not None and service.every_node and target.every_node:
            return [p for p in peers if self.records.containers[p.uuid].node == node] or peers
        return peers

    def linked_as(self, service: Service) -> tuple[str, ...]:
        """The names of all links to a service."""
        found: dict[str, None] = {}
        for other in self.records.linkers.get(service.uuid, ()):
            definition = self.records.services[other].definition
            for link, target in zip(
                definition.get("linked_to_service", ()), link_targets(definition), strict=True
            ):
                if target == service.uuid:
                    found[link["name"]] = None
        return tuple(found)

    def links(self, container: Container) -> tuple[LinkSpec, ...]:
        """The host names that a container should see now: by its service's present links."""
        service = self.records.services[container.service]
        out = []
        if container.get("sequential_deployment"):
            earlier = self.peers(service, name=service.name, before=container.ordinal)
            if earlier:
                out.append(LinkSpec(service.name, tuple((p.ordinal, p.uuid) for p in earlier), service.uuid))
        for link, target in zip(
            service.get("linked_to_service"), link_targets(service.definition), strict=True
        ):
            found = self.records.services.get(target)
            peers = self._linked(service, found, link["name"], container.node) if found is not None else []
            out.append(LinkSpec(link["name"], tuple((p.ordinal, p.uuid) for p in peers), target))
        return tuple(out)


def lacks_health_port(definition: Mapping[str, Any], info: ImageInfo) -> bool:
    """Whether a definition has an HTTP health check, and no port that it could ask."""
    check = definition.get("healthcheck") or {}
    if "http" not in check or not info.ports_known:
        return False
    ports = merged_ports(definition.get("container_ports") or (), info.ports)
    return probed_port(check, ((protocol, inner) for protocol, inner, _, _ in ports)) is None


NO_HEALTH_PORT = "has no port to ask: neither the service nor its image has a tcp port; set healthcheck.port"


def check_health_port(definition: Mapping[str, Any], info: ImageInfo) -> None:
    """Refuse to start containers that could never become healthy.

    Raises:
        BackendError: see `lacks_health_port`.
    """
    if lacks_health_port(definition, info):
        raise BackendError(f"healthcheck.http {NO_HEALTH_PORT}")


def _ports(container: Container, info: ImageInfo | None) -> tuple[PortSpec, ...]:
    """A container's ports, with the outer ports that it was given."""
    given: dict[tuple[str, int], list[int]] = {}
    for protocol, inner, outer in container.outer:
        given.setdefault((protocol, inner), []).append(outer)
    out = []
    for protocol, inner, fixed, published in merged_ports(
        container.get("container_ports"), info.ports if info else ()
    ):
        numbers = given.get((protocol, inner), [])
        number = fixed
        if published and fixed is None:
            number = next((n for n in reversed(numbers)), None)
        if number in numbers:
            numbers.remove(number)
        out.append(PortSpec(protocol, inner, number))
    return tuple(out)


def _short_name(service: Service) -> str:
    """Its name without the suffix of an automatic one, which is the beginning of its create key."""
    suffix = f"-{service.key[:7]}"
    return service.name.removesuffix(suffix) if len(suffix) == 8 else service.name
