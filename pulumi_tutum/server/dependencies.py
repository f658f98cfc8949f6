"""Which services a service waits for before its containers are placed, made or replaced.

A service needs the targets of its links, because their containers give it environment variables, and the
sources of its volumes, because their containers say which volumes these are and on which node. The rules:

- A needed service that is Starting, Scaling or Redeploying is waited for until its containers are placed:
  each of them exists, and its node, ports and environment are known. It does not have to run. A container
  whose volumes are used must also have been created on the backend, because the image's files are copied into
  a volume then.
- A redeploy waits before it removes a container. Once it has removed one, the successor waits only for a
  service that has no container at all just then.
- A needed service at rest is not waited for. A link to a service without containers gives no variables. A
  service cannot use the volumes of a service without containers: its action fails.
- When a needed service fails (or is canceled) while it is waited for, the action of the waiting service fails
  and names it, if it left no container to use, or if both are redeployed: a rollout does not go on where one
  that it waits for has failed. What runs keeps running.
- Services whose links form a circle cannot all wait for each other: each waits only for those that were
  created before it. If volumes are part of the circle, only the users of volumes wait.

Everything follows from the records, so a wait goes on after a restart of the control plane. It has no
deadline of its own: it ends with the transition of the needed service, which has one.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any, NamedTuple

from ..lifecycle import DEPLOYING, REDEPLOYING
from .deployment import World
from .model import Action, Container, Service
from .records import link_targets, volume_sources
from .scheduler import NoNode

_DEPLOYING_VERBS = ("start", "scale", "redeploy")


class Need(NamedTuple):
    """One service that a definition refers to."""

    uuid: str
    volumes: bool


class Obstacle(NamedTuple):
    """Why a service cannot go on now; `lasting`: waiting does not help."""

    reason: str
    lasting: bool


def needs(definition: Mapping[str, Any]) -> list[Need]:
    """The services that a definition refers to, the sources of volumes first."""
    sources = [Need(uuid, True) for uuid in volume_sources(definition)]
    targets = [Need(uuid, False) for uuid in link_targets(definition)]
    return sources + targets


def in_order(services: Sequence[Service]) -> list[Service]:
    """The services, each after those that it needs; in a circle, in the order given."""
    by_uuid = {service.uuid: service for service in services}
    ordered: dict[str, Service] = {}
    seen: set[str] = set()
    for service in services:
        stack = [(service, iter(needs(service.definition)))]
        while stack:
            current, left = stack[-1]
            seen.add(current.uuid)
            needed = _first_unseen(left, by_uuid, seen)
            if needed is not None:
                stack.append((needed, iter(needs(needed.definition))))
                continue
            ordered[current.uuid] = current
            stack.pop()
    return list(ordered.values())


def _first_unseen(left: Iterator[Need], by_uuid: Mapping[str, Service], seen: set[str]) -> Service | None:
    for need in left:
        if need.uuid in by_uuid and need.uuid not in seen:
            return by_uuid[need.uuid]
    return None


class Dependencies:
    """See the module's docstring."""

    def __init__(self, world: World) -> None:
        self.world = world
        self.records = world.records

    def before_placing(
        self, service: Service, old: Sequence[Container], missing: Sequence[tuple[int, str | None]]
    ) -> Obstacle | None:
        """What keeps a service that is under way from placing containers, and from removing old ones.

        Args:
            old: the containers that a redeploy has not replaced yet.
            missing: the ordinals of containers that are to be placed, with the node if it is decided.
        """
        needed = needs(service.definition)
        sources = [need for need in needed if need.volumes]
        if service.state != REDEPLOYING:
            # Links are waited for when the containers are made: until then, images can be pulled.
            return self._obstacle(service, sources, urgent=False)
        staying = self.records.staying_of(service.uuid)
        if missing and len(staying) < service.goal:
            # Their predecessors have been removed.
            homeless = any(self._homeless(service, ordinal, node) for ordinal, node in missing)
            return self._obstacle(service, sources, urgent=not homeless)
        obstacle = self._obstacle(service, needed, urgent=False)
        if obstacle is not None:
            return obstacle
        for c in old:
            node = c.node if service.every_node else None
            reason = self._homeless(service, c.ordinal, node, keeps_own=service.reuse_volumes)
            if reason:
                return Obstacle(reason, lasting=True)
        return None

    def before_making(self, service: Service, container: Container) -> Obstacle | None:
        """What keeps a placed container from being made, which fixes its environment and its volumes."""
        urgent = service.state == REDEPLOYING
        return self._obstacle(service, needs(container.definition), urgent=urgent, node=container.node)

    def _obstacle(
        self, service: Service, needed: Sequence[Need], *, urgent: bool, node: str = ""
    ) -> Obstacle | None:
        """What the needed services are an obstacle to.

        Args:
            urgent: a service with at least one container that can be used is none.
            node: where volumes must be; "": not known yet.
        """
        awaited: dict[str, None] = {}
        for need in needed:
            other = self.records.services.get(need.uuid)
            if other is service or (urgent and self._is_usable(need, node)):
                continue
            if other is not None and self._is_placing(other, created=need.volumes):
                if need.volumes or self._may_wait(service, other):
                    awaited[other.name] = None
                continue
            reason = self._lack(service, need, other, node, urgent)
            if reason:
                return Obstacle(reason, lasting=True)
        if not awaited:
            return None
        names = ", ".join(f"'{name}'" for name in awaited)
        word = "service" if len(awaited) == 1 else "services"
        return Obstacle(f"waits for {word} {names} to be placed", lasting=False)

    def _is_usable(self, need: Need, node: str) -> bool:
        """Whether a needed service has a container that gives what is needed of it now."""
        placed = [c for c in self.records.containers_of(need.uuid) if _is_placed(c)]
        if need.volumes:
            placed = [c for c in placed if c.status and node in ("", c.node)]
        return bool(placed)

    def _is_placing(self, service: Service, *, created: bool = False) -> bool:
        """Whether a service is under way and some of its containers are not placed yet.

        Args:
            created: they must have been created on the backend too.
        """
        if service.state not in DEPLOYING:
            return False
        containers = self.records.containers_of(service.uuid)
        if service.state == REDEPLOYING and any(c.deployment < service.deployment for c in containers):
            return True
        placed = [c for c in containers if _is_placed(c) and (c.status or not created)]
        if service.every_node:
            nodes = {node.uuid for node in self.world.candidates(service)}
            held = {c.node for c in placed}
            return not nodes or not nodes <= held.union(service.finished)
        return len(placed) + len(service.finished) < (service.target or 0)

    def _may_wait(self, service: Service, target: Service) -> bool:
        """Whether a service waits for the target of a link; in a circle, see the module's docstring."""
        reached = {target.uuid}
        left = [target]
        has_volumes = False
        while left:
            for need in needs(left.pop().definition):
                needed = self.records.services.get(need.uuid)
                if needed is None or not self._is_placing(needed, created=need.volumes):
                    continue
                has_volumes = has_volumes or need.volumes
                if needed.uuid not in reached:
                    reached.add(needed.uuid)
                    left.append(needed)
        if service.uuid not in reached:
            return True
        return not has_volumes and target.seq < service.seq

    def _lack(self, service: Service, need: Need, other: Service | None, node: str, urgent: bool) -> str:
        """Why a service can do nothing with one that it needs, which is at rest or placed; "" if it can."""
        usable = self._is_usable(need, node)
        failed = self._failed_meanwhile(service, other) if other is not None else None
        if other is not None and failed is not None:
            rollouts = service.state == REDEPLOYING and failed.verb == "redeploy" and not urgent
            if not usable or rollouts:
                outcome = "was canceled" if failed.state == "Canceled" else "failed"
                why = f": {failed.error}" if failed.error else ""
                return f"needs service '{other.name}', whose {failed.verb} {outcome}{why}"
        if usable or not need.volumes:
            return ""
        name = other.name if other is not None else need.uuid
        if node and self._is_usable(need, ""):
            return f"volumes_from: service {name} has no container on the same node"
        return f"volumes_from: service {name} has no containers; start it first"

    def _failed_meanwhile(self, service: Service, needed: Service) -> Action | None:
        """The last action of a needed service, if it failed since the present action of `service` began."""
        own = self.records.actions.get(service.action)
        last = self.records.actions.get(needed.concluded)
        if own is None or last is None or last.verb not in _DEPLOYING_VERBS:
            return None
        if last.state not in ("Failed", "Canceled") or last.end is None or last.end < own.start:
            return None
        return last

    def _homeless(self, service: Service, ordinal: int, node: str | None, *, keeps_own: bool = True) -> str:
        """Why no node has all the volumes that a container is to use; "" if one has them.

        Args:
            node: the only one that is possible; None: any.
            keeps_own: the container gets the volumes of its predecessor.
        """
        if not volume_sources(service.definition):
            return ""
        try:
            nodes = self.world.pinned(service, ordinal, keeps_own=keeps_own)
        except NoNode as error:
            return str(error)
        if nodes and (node is None or node in nodes):
            return ""
        name = f"{service.name}-{ordinal}"
        return f"volumes_from: {name} cannot be replaced, because no node has all the volumes that it uses"


def _is_placed(container: Container) -> bool:
    return container.spec is not None and container.wanted != "gone"
