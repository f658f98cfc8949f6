"""Which node gets a container: pure functions over plain values (specification, "Deployment strategies").

A node can take a container when it is up, has all the service's tags, has none of the container's fixed outer
ports taken, and is one of the nodes that the container's volumes are on. Among those, EMPTIEST_NODE takes the
one with the fewest running containers, HIGH_AVAILABILITY the one with the fewest of the same service (then
the emptiest); EVERY_NODE has one container on each. Ties go to the older node.

When a service is scaled down, HIGH_AVAILABILITY removes containers from the node with the most of the
service, so that the service stays spread; among nodes with the same number, the highest ordinal.
EMPTIEST_NODE only says where a container is deployed: it removes the highest ordinals, wherever they are.
"""

from __future__ import annotations

import heapq
from collections.abc import Collection, Sequence
from dataclasses import dataclass, field, replace


@dataclass
class NodeLoad:
    """A node as placement sees it, oldest first in lists.

    Attributes:
        tags: the node's own and its automatic ones.
        up: it takes containers; awaited: it does, or will again: it has not been given up.
        running: containers that run there, or are about to.
        of_service: those of them that belong to the service in question.
        taken: outer ports in use there, as (protocol, port); `added`: those that were given out since.
    """

    uuid: str
    name: str
    tags: frozenset[str]
    up: bool = True
    awaited: bool = False
    running: int = 0
    of_service: int = 0
    taken: Collection[tuple[str, int]] = ()
    added: set[tuple[str, int]] = field(default_factory=set)

    def has(self, port: tuple[str, int]) -> bool:
        """Whether an outer port is in use there."""
        return port in self.taken or port in self.added


class NoNode(Exception):
    """No node can take the container; the text says why, for users."""


class NotYet(NoNode):
    """A node that is awaited could take the container."""


def tagged(nodes: Sequence[NodeLoad], tags: Collection[str]) -> list[NodeLoad]:
    """The nodes that are up and have all of `tags`."""
    wanted = frozenset(tags)
    return [node for node in nodes if node.up and wanted <= node.tags]


def candidates(
    nodes: Sequence[NodeLoad],
    tags: Collection[str],
    fixed_ports: Collection[tuple[str, int]],
    pinned: Collection[str] | None,
) -> list[NodeLoad]:
    """The nodes that can take the container.

    Args:
        fixed_ports: outer ports that it needs, as (protocol, port).
        pinned: uuids of the nodes that its volumes are on; None: it has none.

    Raises:
        NoNode: there is none.
    """
    try:
        return _candidates(nodes, tags, fixed_ports, pinned)
    except NoNode as error:
        awaited = [replace(node, up=node.up or node.awaited) for node in nodes]
        try:
            _candidates(awaited, tags, fixed_ports, pinned)
        except NoNode:
            raise error from None
        raise NotYet(str(error)) from None


def _candidates(
    nodes: Sequence[NodeLoad],
    tags: Collection[str],
    fixed_ports: Collection[tuple[str, int]],
    pinned: Collection[str] | None,
) -> list[NodeLoad]:
    if not any(node.up for node in nodes):
        raise NoNode("no node is up" if nodes else "there is no node")
    fitting = tagged(nodes, tags)
    if not fitting:
        words = ", ".join(sorted(tags))
        raise NoNode(
            f"no node has the tag {words}" if len(tags) == 1 else f"no node has all the tags {words}"
        )
    if pinned is not None:
        there = [node for node in fitting if node.uuid in pinned]
        if not there:
            raise NoNode("the node that its volumes are on is not available for it")
        fitting = there
    free = [node for node in fitting if not any(map(node.has, fixed_ports))]
    if not free:
        blocked = sorted({port for node in fitting for port in fixed_ports if node.has(port)})
        words = ", ".join(f"{number}/{protocol}" for protocol, number in blocked)
        where = (
            f"on node {fitting[0].name}"
            if len(fitting) == 1
            else f"on all {len(fitting)} nodes it may run on"
        )
        raise NoNode(f"port is already allocated: {words} {where}")
    return free


def place(strategy: str, nodes: Sequence[NodeLoad]) -> NodeLoad:
    """The one of the candidates (at least one) that the strategy chooses; EVERY_NODE: the first without
    one.
    """
    if strategy == "HIGH_AVAILABILITY" or strategy == "EVERY_NODE":
        return min(nodes, key=lambda node: (node.of_service, node.running))
    return min(nodes, key=lambda node: node.running)


def excess(strategy: str, containers: Sequence[tuple[int, str]], target: int) -> set[int]:
    """The positions of the containers that are removed, so that `target` stay.

    Args:
        containers: those of the service, as (ordinal, node).
    """
    groups: dict[str, list[tuple[int, int]]] = {}
    for position, (ordinal, node) in enumerate(containers):
        group = node if strategy == "HIGH_AVAILABILITY" else ""
        groups.setdefault(group, []).append((ordinal, position))
    # The biggest group first; of groups of the same size the one with the highest ordinal.
    heap: list[tuple[int, int, str]] = []
    for group, members in groups.items():
        members.sort()
        heapq.heappush(heap, (-len(members), -members[-1][0], group))
    removed: set[int] = set()
    while len(containers) - len(removed) > target:
        _, _, group = heapq.heappop(heap)
        members = groups[group]
        _, position = members.pop()
        removed.add(position)
        if members:
            heapq.heappush(heap, (-len(members), -members[-1][0], group))
    return removed


def free_port(node: NodeLoad, protocol: str, ports: tuple[int, int], after: int) -> int:
    """A free port of the range on a node, the next one after `after`, beginning again at its start.

    Raises:
        NoNode: all are in use.
    """
    first, last = ports
    size = last - first + 1
    begin = after + 1 - first if first <= after < last else 0
    for step in range(size):
        port = first + (begin + step) % size
        if not node.has((protocol, port)):
            return port
    raise NoNode(f"no dynamic {protocol} port is free ({first} to {last} are all in use)")
