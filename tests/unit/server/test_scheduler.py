"""Placement: properties over generated nodes."""

from __future__ import annotations

from collections import Counter

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pulumi_tutum.server.model import new_uuid
from pulumi_tutum.server.scheduler import NodeLoad, NoNode, candidates, excess, free_port, place, tagged
from tests.unit.server.plane import Plane, run

TAGS = ("a", "b", "c")
PORTS = [("tcp", 80), ("udp", 80), ("tcp", 443)]

nodes = st.lists(
    st.builds(
        NodeLoad,
        uuid=st.uuids().map(str),
        name=st.just("n"),
        tags=st.frozensets(st.sampled_from(TAGS)),
        up=st.booleans(),
        running=st.integers(0, 5),
        of_service=st.integers(0, 3),
        taken=st.frozensets(st.sampled_from(PORTS)),
    ),
    max_size=6,
)
tags = st.lists(st.sampled_from(TAGS), unique=True)
ports = st.lists(st.sampled_from(PORTS), unique=True)


@given(nodes, tags, ports, st.booleans())
def test_candidates_satisfy_every_condition_and_none_is_left_out(
    nodes: list[NodeLoad], tags: list[str], ports: list[tuple[str, int]], pin: bool
) -> None:
    pinned = {n.uuid for n in nodes[::2]} if pin else None

    def fits(node: NodeLoad) -> bool:
        return (
            node.up
            and set(tags) <= node.tags
            and not set(ports) & set(node.taken)
            and (pinned is None or node.uuid in pinned)
        )

    wanted = [n.uuid for n in nodes if fits(n)]
    if not wanted:
        with pytest.raises(NoNode) as why:
            candidates(nodes, tags, ports, pinned)
        assert str(why.value)
    else:
        assert [n.uuid for n in candidates(nodes, tags, ports, pinned)] == wanted


@given(nodes.filter(bool), st.integers(1, 30))
def test_emptiest_node_spreads_evenly(nodes: list[NodeLoad], count: int) -> None:
    for _ in range(count):
        node = place("EMPTIEST_NODE", nodes)
        assert node.running == min(n.running for n in nodes)
        node.running += 1


@given(nodes.filter(bool), st.integers(1, 30))
def test_high_availability_spreads_the_service(nodes: list[NodeLoad], count: int) -> None:
    for _ in range(count):
        node = place("HIGH_AVAILABILITY", nodes)
        assert node.of_service == min(n.of_service for n in nodes)
        node.of_service += 1
        node.running += 1


def test_ties_go_to_the_older_node() -> None:
    two = [NodeLoad("1", "one", frozenset()), NodeLoad("2", "two", frozenset())]
    assert place("EMPTIEST_NODE", two).uuid == "1"
    assert place("HIGH_AVAILABILITY", two).uuid == "1"


@given(st.lists(st.sampled_from("abcd"), max_size=12), st.integers(0, 14))
def test_scaled_down_the_service_stays_spread(nodes: list[str], target: int) -> None:
    containers = list(enumerate(nodes, 1))
    removed = excess("HIGH_AVAILABILITY", containers, target)
    before = Counter(nodes)
    after = Counter(node for position, node in enumerate(nodes) if position not in removed)
    assert len(removed) == max(len(nodes) - target, 0)
    for node in before:
        # No node has lost a container while another one has two more than it.
        assert after[node] == before[node] or max(after.values(), default=0) <= after[node] + 1
        kept = [p for p, other in enumerate(nodes) if other == node and p not in removed]
        gone = [p for p, other in enumerate(nodes) if other == node and p in removed]
        assert not kept or not gone or max(kept) < min(gone), "of a node the highest ordinals are removed"


@given(st.lists(st.sampled_from("abcd"), max_size=12), st.integers(0, 14))
def test_without_a_spread_to_keep_the_highest_ordinals_are_removed(nodes: list[str], target: int) -> None:
    containers = list(enumerate(nodes, 1))
    assert excess("EMPTIEST_NODE", containers, target) == set(range(target, len(nodes)))


def test_among_equals_the_highest_ordinal_is_removed() -> None:
    containers = [(1, "a"), (2, "b"), (3, "c"), (4, "a"), (5, "b"), (6, "c")]
    assert excess("HIGH_AVAILABILITY", containers, 3) == {3, 4, 5}


@pytest.mark.parametrize(
    ("strategy", "left"),
    [
        ("HIGH_AVAILABILITY", [(1, "one"), (3, "two"), (5, "three")]),
        ("EMPTIEST_NODE", [(1, "one"), (2, "one"), (3, "two")]),
    ],
)
def test_scaled_down_after_nodes_came_one_after_another(strategy: str, left: list[tuple[int, str]]) -> None:
    async def test() -> None:
        async with Plane({"one": []}) as plane:
            web = await plane.up(target_num_containers=2, deployment_strategy=strategy)
            for number, node in ((4, "two"), (6, "three")):
                plane.backend.add_node(new_uuid(), node, [])
                await plane.advance(1)
                await plane.patch(web, target_num_containers=number)
                await plane.act_and_wait(web, "scale")
            names = {n["resource_uri"]: n["nickname"] for n in plane.control.listing("node")}
            spread = Counter(names[c["node"]] for c in plane.containers(web))
            assert set(spread.values()) == {2}
            await plane.patch(web, target_num_containers=3)
            await plane.act_and_wait(web, "scale")
            found = [(int(c["name"].rpartition("-")[2]), names[c["node"]]) for c in plane.containers(web)]
            assert found == left
            assert plane.state(web) == "Running"

    run(test)


@given(st.sets(st.integers(100, 109)), st.integers(0, 120))
def test_free_port_finds_one_if_there_is_one(taken: set[int], after: int) -> None:
    node = NodeLoad("1", "one", frozenset(), taken={("tcp", n) for n in taken})
    if len(taken) == 10:
        with pytest.raises(NoNode):
            free_port(node, "tcp", (100, 109), after)
    else:
        found = free_port(node, "tcp", (100, 109), after)
        assert 100 <= found <= 109
        assert found not in taken
    assert 100 <= free_port(node, "udp", (100, 109), after) <= 109


@given(nodes, tags)
def test_tagged(nodes: list[NodeLoad], tags: list[str]) -> None:
    assert tagged(nodes, tags) == [n for n in nodes if n.up and all(t in n.tags for t in tags)]


@pytest.mark.parametrize(
    ("nodes", "tags", "ports", "pinned", "text"),
    [
        ([], [], [], None, "there is no node"),
        ([NodeLoad("1", "one", frozenset(), up=False)], [], [], None, "no node is up"),
        ([NodeLoad("1", "one", frozenset())], ["x"], [], None, "no node has the tag x"),
        ([NodeLoad("1", "one", frozenset("x"))], ["x", "y"], [], None, "no node has all the tags x, y"),
        ([NodeLoad("1", "one", frozenset())], [], [], {"2"}, "volumes"),
        (
            [NodeLoad("1", "one", frozenset(), taken={("tcp", 80)})],
            [],
            [("tcp", 80)],
            None,
            "port is already allocated: 80/tcp on node one",
        ),
    ],
)
def test_reasons(
    nodes: list[NodeLoad], tags: list[str], ports: list[tuple[str, int]], pinned: set[str] | None, text: str
) -> None:
    with pytest.raises(NoNode, match=text):
        candidates(nodes, tags, ports, pinned)
