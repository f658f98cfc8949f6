"""Nodes and node clusters: what the backend has, kept as records; simulated ones can also be made."""

from __future__ import annotations

import collections
import functools
import logging
from collections.abc import Mapping, Sequence
from typing import Any, Protocol, runtime_checkable

from .. import schema
from ..errors import BackendError, BadRequest, Conflict, NotAllowed, Problem, ServerError
from .backends import BackendNode
from .clock import Timer, sleep
from .core import Core, bad_request
from .model import Container, Node, NodeCluster, RequestInfo, new_uuid, uri, uuid_for
from .records import volume_sources
from .services import Reply, Services
from .settling import RETRY_MAX, RETRY_SECONDS

log = logging.getLogger("pulumi_tutum.server")


@runtime_checkable
class Elastic(Protocol):
    """A backend whose nodes can be made and removed: the simulated one."""

    def add_node(self, uuid: str, name: str, tags: Sequence[str]) -> None: ...

    def remove_node(self, uuid: str) -> None: ...


class Infrastructure:
    """See the module's docstring."""

    def __init__(self, core: Core, services: Services, server_id: str) -> None:
        self.core = core
        self.records = core.records
        self.services = services
        self.cluster_uuid = uuid_for(server_id, "nodecluster")
        self._again = False
        self._running = False
        self._graces: dict[str, Timer] = {}
        #: Nodes whose tags the backend is being told, and how often.
        self._tagging: collections.Counter[str] = collections.Counter()

    # -- following the backend

    async def begin(self) -> None:
        """At the start: the backend's own cluster, nodes that were added through the API, and what changed
        meanwhile.
        """
        now = self.core.clock.time()
        if self.cluster_uuid not in self.records.clusters:
            with self.records.change() as change:
                name = self.core.backend.name
                change.add(
                    NodeCluster(self.cluster_uuid, self.records.next_seq(), name, "Deployed", deployed=now)
                )
        if isinstance(self.core.backend, Elastic):
            there = {n.uuid for n in await self.core.backend.nodes()}
            for node in list(self.records.nodes.values()):
                if node.added and node.state != "Terminated" and node.uuid not in there:
                    self.core.backend.add_node(node.uuid, node.name, node.tags)
                elif node.state == "Terminated" and node.uuid in there:
                    self.core.backend.remove_node(node.uuid)
        self._apply(await self.core.backend.nodes())

    def changed(self) -> None:
        """The backend's nodes changed."""
        if self._running:
            self._again = True
            return
        self._running = True
        self.core.spawn(self._sync, "following the nodes")

    async def _sync(self) -> None:
        pause = RETRY_SECONDS
        try:
            while True:
                self._again = False
                try:
                    self._apply(await self.core.backend.nodes())
                except (BackendError, ServerError) as error:
                    log.warning("cannot follow the nodes: %s", error)
                    await sleep(self.core.clock, pause)
                    pause = min(pause * 2, RETRY_MAX)
                    continue
                if not self._again:
                    return
        finally:
            self._running = False

    def _apply(self, seen: Sequence[BackendNode]) -> None:
        now = self.core.clock.time()
        lost: list[Container] = []
        back: list[str] = []
        came = False
        with self.records.change() as change:
            for b in seen:
                node = self.records.nodes.get(b.uuid)
                if node is None or node.state == "Terminated":
                    fresh = Node(
                        b.uuid,
                        self.records.next_seq(),
                        b.name,
                        self.cluster_uuid,
                        deployed=now,
                        tags=tuple(b.tags),
                    )
                    if node is not None:
                        change.edit(node)
                        node.state, node.destroyed = "Deployed", None
                    else:
                        node = change.add(fresh)
                    node.backend_tags = tuple(b.tags)
                else:
                    change.edit(node)
                # While the backend is being told of other tags, what it has is old.
                if tuple(b.tags) != node.backend_tags and b.uuid not in self._tagging:
                    node.tags = node.backend_tags = tuple(b.tags)
                node.name, node.address, node.docker_version = b.name, b.address, b.docker_version
                node.cpu, node.memory, node.disk = b.cpu, b.memory_mb, b.disk_gb
                came = came or (b.up and node.state != "Deployed")
                node.state, node.open = "Deployed" if b.up else "Unreachable", b.open
                if b.up:
                    node.last_seen = now
                    if node.given_up:
                        node.given_up = False
                        back.append(node.uuid)
            there = {b.uuid for b in seen}
            for node in self.records.nodes.values():
                if node.uuid in there:
                    continue
                if node.state != "Terminated":
                    change.edit(node).state = "Terminated"
                    node.destroyed = now
                on_node = self.records.on_node.get(node.uuid, {}).values()
                lost += [c for c in on_node if not _is_moved_by_the_backend(c)]
            for cluster in self.records.clusters.values():
                self._count(change, cluster, {n.uuid for n in self.records.nodes.values()} | there)
        if lost:
            self.services.lose(lost, "its node was removed")
        if came:
            # What ended while the node was away has left its volumes there.
            self.core.sweep_soon()
        self._clear([b.uuid for b in seen if b.drained])
        for uuid in back:
            self._look_at_services_on(uuid)
        for b in seen:
            self._watch(b)
        self.services.follow_nodes()
        self.core.convergence.look_again()

    def _clear(self, drained: Sequence[str]) -> None:
        """On drained nodes no EVERY_NODE service has a container. All others keep theirs: the backend moves
        them, or they wait for the node."""
        held = [c for uuid in drained for c in self.records.on_node.get(uuid, {}).values()]
        found = [c for c in held if self.records.services[c.service].every_node and c.wanted != "gone"]
        if found:
            self.services.lose(found, "its node is drained", again=True)

    def _count(self, change: Any, cluster: NodeCluster, nodes: set[str]) -> None:
        """The backend's own cluster has as many nodes as there are."""
        if cluster.uuid != self.cluster_uuid:
            return
        count = sum(
            1
            for n in self.records.nodes.values()
            if n.uuid in nodes and n.cluster == cluster.uuid and n.state != "Terminated"
        )
        count += sum(1 for u in nodes if u not in self.records.nodes)
        if cluster.target != count:
            change.edit(cluster).target = count

    def _watch(self, node: BackendNode) -> None:
        """A node that is down for `node_grace` seconds is given up: its containers are placed anew, except
        those that the backend moves by itself and those whose data are there."""
        if node.up:
            if (timer := self._graces.pop(node.uuid, None)) is not None:
                timer.cancel()
        elif node.uuid not in self._graces:
            grace = self.core.settings.node_grace
            self._graces[node.uuid] = self.core.clock.call_later(grace, self._abandon, node.uuid)

    def _abandon(self, uuid: str) -> None:
        self._graces.pop(uuid, None)
        node = self.records.nodes.get(uuid)
        if node is None or node.state != "Unreachable":
            return
        try:
            self._give_up(node)
        except ServerError as error:
            log.warning("cannot give up a node: %s", error.message)
            self._graces[uuid] = self.core.clock.call_later(RETRY_SECONDS, self._abandon, uuid)

    def _give_up(self, node: Node) -> None:
        uuid = node.uuid
        with self.records.change() as change:
            change.edit(node).given_up = True
        moving: list[Container] = []
        for c in self.records.on_node.get(uuid, {}).values():
            service = self.records.services[c.service]
            pinned = any(v.ordinal == c.ordinal for v in self.records.volumes_of.get(c.service, {}).values())
            pinned = pinned or bool(volume_sources(c.definition))
            elsewhere = any(n.uuid != uuid for n in self.core.world.candidates(service))
            # What has data there waits for the node; so does what could run nowhere else.
            stays = pinned or _is_moved_by_the_backend(c)
            if c.active and not stays and (elsewhere or service.every_node):
                moving.append(c)
        if moving:
            log.warning("a node does not answer; its containers are placed anew", extra={"node": node.name})
            self.services.lose(moving, "its node does not answer", again=True)
            for service_uuid in {c.service for c in moving}:
                self.services.make_up(self.records.services[service_uuid])
        self._look_at_services_on(uuid)
        self.core.convergence.look_again()

    def _look_at_services_on(self, node: str) -> None:
        for uuid in {c.service for c in self.records.on_node.get(node, {}).values()}:
            self.core.convergence.kick(uuid)

    # -- verbs

    def update_node(self, uuid: str, body: Mapping[str, Any], request: RequestInfo | None) -> Reply:
        node: Node = self.core.find("node", uuid)
        if node.state in ("Terminating", "Terminated"):
            raise BadRequest(f"Node cannot be updated in state '{node.state}'")
        tags = _tags(body, "node") if body.get("tags") is not None else None
        with self.records.change() as change:
            change.edit(node)
            if tags is not None:
                node.tags = tags
            if isinstance(body.get("nickname"), str):
                node.nickname = body["nickname"]
            change.announce(node)
            action = self.core.act(change, "Node Update", uri("node", node.uuid), request)
        if tags is not None:
            self._tagging[node.uuid] += 1
            self.core.spawn(functools.partial(self._set_tags, node.uuid, tags), "setting a node's tags")
            self.services.follow_nodes()
        return Reply(self.core.shapes.node(node), 202, uri("action", action.uuid))

    async def _set_tags(self, node: str, tags: Sequence[str]) -> None:
        try:
            await self.core.backend.set_node_tags(node, tags)
        finally:
            self._tagging[node] -= 1
            if not self._tagging[node]:
                del self._tagging[node]
        self.changed()

    def create_node(self, body: Mapping[str, Any], request: RequestInfo | None) -> Reply:
        """An extension: one more node, `{"name": ..., "tags": [...]}`."""
        name = body.get("name") or body.get("nickname")
        if name is None:
            name = f"node-{sum(1 for n in self.records.nodes.values()) + 1}"
        if not isinstance(name, str) or not schema.NAME_PATTERN.fullmatch(name):
            raise bad_request([Problem("name", "must be 1 to 63 letters, digits, - or _")], "node")
        tags = _tags(body, "node")
        if any(n.name == name and n.state != "Terminated" for n in self.records.nodes.values()):
            raise Conflict(f"There is a node with the name '{name}' already")
        node = self._make(name, tags, self.cluster_uuid)
        with self.records.change() as change:
            action = self.core.act(change, "Node Deploy", uri("node", node.uuid), request)
        return Reply(self.core.shapes.node(node), 201, uri("action", action.uuid))

    def _elastic(self) -> Elastic:
        backend = self.core.backend
        if not isinstance(backend, Elastic):
            raise NotAllowed(f"Nodes of the {backend.name} backend are not made through this API")
        return backend

    def _make(self, name: str, tags: tuple[str, ...], cluster: str) -> Node:
        backend, now = self._elastic(), self.core.clock.time()
        node = Node(
            new_uuid(),
            self.records.next_seq(),
            name,
            cluster,
            tags=tags,
            backend_tags=tags,
            added=True,
            deployed=now,
        )
        with self.records.change() as change:
            change.add(node)
        backend.add_node(node.uuid, name, tags)
        return node

    def act_on_node(self, uuid: str, verb: str, request: RequestInfo | None) -> Reply:
        node: Node = self.core.find("node", uuid)
        text = f"Node {_title(verb)}"
        if node.state == "Terminated" and verb in _PARTICIPLES:
            error = BadRequest(f"Node cannot be {_PARTICIPLES[verb]} in state 'Terminated'")
            self.core.refuse(text, uri("node", node.uuid), request, error)
        if verb == "terminate":
            self._elastic().remove_node(node.uuid)
            self._apply_removed(node)
        elif verb == "health-check":
            self.changed()
        elif verb in ("deploy", "docker-upgrade"):
            self._elastic()
        else:
            raise BadRequest(f"There is no action '{verb}' of nodes")
        with self.records.change() as change:
            action = self.core.act(change, text, uri("node", node.uuid), request, verb=verb)
        return Reply(self.core.shapes.node(node), 202, uri("action", action.uuid))

    def _apply_removed(self, node: Node) -> None:
        lost = list(self.records.on_node.get(node.uuid, {}).values())
        with self.records.change() as change:
            change.edit(node).state = "Terminated"
            node.destroyed = self.core.clock.time()
        self.services.lose(lost, "its node was removed")
        self.services.follow_nodes()

    def create_cluster(self, body: Mapping[str, Any], request: RequestInfo | None) -> Reply:
        self._elastic()
        problems = []
        for name in ("name", "node_type", "region"):
            if not isinstance(body.get(name), str) or not body[name]:
                problems.append(Problem(name, "is required"))
        target, disk = body.get("target_num_nodes", 1), body.get("disk", 60)
        for name, value in (("target_num_nodes", target), ("disk", disk)):
            if not isinstance(value, int) or isinstance(value, bool) or not 0 <= value <= 1000:
                problems.append(Problem(name, "must be a whole number from 0 to 1000"))
        if problems:
            raise bad_request(problems, "nodecluster")
        if any(c.name == body["name"] and c.state != "Terminated" for c in self.records.clusters.values()):
            raise Conflict(f"There is a node cluster with the name '{body['name']}' already")
        cluster = NodeCluster(
            new_uuid(),
            self.records.next_seq(),
            body["name"],
            node_type=body["node_type"],
            region=body["region"],
            disk=disk,
            target=target,
            tags=_tags(body, "nodecluster"),
        )
        with self.records.change() as change:
            change.add(cluster)
            action = self.core.act(change, "Node Cluster Create", uri("nodecluster", cluster.uuid), request)
        return Reply(self.core.shapes.cluster(cluster), 201, uri("action", action.uuid))

    def update_cluster(self, uuid: str, body: Mapping[str, Any], request: RequestInfo | None) -> Reply:
        cluster: NodeCluster = self.core.find("nodecluster", uuid)
        if cluster.state == "Terminated":
            raise BadRequest("Node cluster cannot be updated in state 'Terminated'")
        target = body.get("target_num_nodes")
        if target is not None:
            if cluster.uuid == self.cluster_uuid:
                raise NotAllowed("The nodes of the backend's own cluster are not made through this API")
            if not isinstance(target, int) or isinstance(target, bool) or not 0 <= target <= 1000:
                raise bad_request(
                    [Problem("target_num_nodes", "must be a whole number from 0 to 1000")], "nodecluster"
                )
        tags = _tags(body, "nodecluster") if body.get("tags") is not None else None
        with self.records.change() as change:
            change.edit(cluster)
            cluster.tags = cluster.tags if tags is None else tags
            cluster.target = cluster.target if target is None else target
            change.announce(cluster)
            action = self.core.act(change, "Node Cluster Update", uri("nodecluster", cluster.uuid), request)
        if target is not None and cluster.state != "Init":
            self._fill(cluster)
        return Reply(self.core.shapes.cluster(cluster), 202, uri("action", action.uuid))

    def act_on_cluster(self, uuid: str, verb: str, request: RequestInfo | None) -> Reply:
        cluster: NodeCluster = self.core.find("nodecluster", uuid)
        text, object_ = f"Node Cluster {_title(verb)}", uri("nodecluster", cluster.uuid)
        if verb == "terminate" and cluster.uuid == self.cluster_uuid:
            raise NotAllowed("The backend's own cluster cannot be terminated")
        refused = cluster.state != "Init" if verb == "deploy" else cluster.state == "Terminated"
        if refused and verb in _PARTICIPLES:
            error = BadRequest(f"Node cluster cannot be {_PARTICIPLES[verb]} in state '{cluster.state}'")
            self.core.refuse(text, object_, request, error)
        if verb == "deploy":
            self._fill(cluster)
        elif verb == "docker-upgrade":
            self._elastic()
        elif verb == "terminate":
            with self.records.change() as change:
                change.edit(cluster).target = 0
            self._fill(cluster)
            with self.records.change() as change:
                change.edit(cluster).state = "Terminated"
                cluster.destroyed = self.core.clock.time()
        else:
            raise BadRequest(f"There is no action '{verb}' of node clusters")
        with self.records.change() as change:
            action = self.core.act(change, text, object_, request, verb=verb)
        return Reply(self.core.shapes.cluster(cluster), 202, uri("action", action.uuid))

    def _fill(self, cluster: NodeCluster) -> None:
        """Make or remove nodes until the cluster has its number."""
        backend = self._elastic()
        nodes = [
            n for n in self.records.nodes.values() if n.cluster == cluster.uuid and n.state != "Terminated"
        ]
        for node in nodes[cluster.target :]:
            backend.remove_node(node.uuid)
            self._apply_removed(node)
        taken = {n.name for n in self.records.nodes.values() if n.state != "Terminated"}
        names = (name for i in range(1, 3000) if (name := f"{cluster.name}-{i}") not in taken)
        for name in [next(names) for _ in range(cluster.target - len(nodes))]:
            self._make(name, (), cluster.uuid)
        with self.records.change() as change:
            change.edit(cluster).state = "Deployed" if cluster.target else "Empty cluster"
            cluster.deployed = cluster.deployed or self.core.clock.time()

    def tags(self) -> list[dict[str, str]]:
        """`GET /tag/`: every tag that is in use on nodes, with where it comes from."""
        user: dict[str, None] = {}
        automatic: dict[str, None] = {}
        for node in self.records.nodes.values():
            if node.state == "Terminated":
                continue
            cluster = self.records.clusters.get(node.cluster)
            user.update(dict.fromkeys((*node.tags, *(cluster.tags if cluster else ()))))
            automatic.update(dict.fromkeys(self.core.world.node_tags(node) - set(user)))
        for service in self.records.services.values():
            user.update(dict.fromkeys(tag["name"] for tag in service.get("tags")))
        out = [{"name": name, "origin": "user"} for name in user]
        return out + [{"name": name, "origin": "tutum"} for name in sorted(automatic) if name not in user]


def _is_moved_by_the_backend(container: Container) -> bool:
    return container.spec is not None and container.spec.movable


_PARTICIPLES = {
    "deploy": "deployed",
    "docker-upgrade": "upgraded",
    "health-check": "checked",
    "terminate": "terminated",
}


def _title(verb: str) -> str:
    return verb.replace("-", " ").title()


def _tags(body: Mapping[str, Any], kind: str) -> tuple[str, ...]:
    given = body.get("tags") or []
    found = list(schema.INPUTS["tags"].kind.problems(given, "tags", False))
    if found:
        raise bad_request(found, kind)
    return tuple(dict.fromkeys(tag["name"] for tag in schema.INPUTS["tags"].kind.normal(given)))
