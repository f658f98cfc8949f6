"""What nodes call for that come and go is tried until it is done."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from pulumi_tutum.errors import BackendError
from pulumi_tutum.server.backends import Observed
from pulumi_tutum.server.backends.simulated import SimulatedBackend
from pulumi_tutum.server.clock import ManualClock
from pulumi_tutum.server.store import SqliteStore, Store
from tests.unit.server.plane import FailingStore, Plane, run

EVERYWHERE = {"deployment_strategy": "EVERY_NODE"}


class Reluctant(SimulatedBackend):
    """Its nodes refuse to start containers while they are among `refusing`."""

    def __init__(self, nodes: int, clock: ManualClock) -> None:
        super().__init__(nodes, container_start_seconds=1, clock=clock)
        self.refusing: set[str] = set()
        #: How often a start was refused.
        self.refused = 0

    async def start(self, uuid: str) -> Observed:
        if self._containers[uuid].seen.node in self.refusing:
            self.refused += 1
            raise BackendError("no suitable node")
        return await super().start(uuid)


def plane_of(nodes: int, store: Store | None = None, **settings: Any) -> Plane:
    clock = ManualClock()
    return Plane(backend=Reluctant(nodes, clock), clock=clock, store=store, **settings)


def nodes_of(plane: Plane, uuid: str) -> list[str]:
    return [c["node"].split("/")[-2] for c in plane.containers(uuid)]


def scalings(plane: Plane, uuid: str) -> int:
    actions = plane.control.listing("action", {"object": f"/api/v1/service/{uuid}/"})
    return sum(a["action"] == "Service Scale" for a in actions[:])


async def with_a_reluctant_node(plane: Plane) -> tuple[str, str]:
    """A service on every node, and a node that came and takes nothing yet."""
    uuid = await plane.up(**EVERYWHERE)
    new = plane.control.add_node("late")
    plane.backend.refusing.add(new)
    await plane.advance(1)
    assert plane.backend.refused == 1
    assert plane.state(uuid) == "Partly running"
    return uuid, new


def test_a_node_that_takes_nothing_at_first() -> None:
    async def test() -> None:
        async with plane_of(2) as plane:
            uuid, new = await with_a_reluctant_node(plane)
            plane.backend.refusing.clear()
            await plane.advance(10)
            assert plane.state(uuid) == "Running"
            assert new in nodes_of(plane, uuid)
            count = scalings(plane, uuid)
            await plane.advance(10_000)
            assert scalings(plane, uuid) == count

    run(test)


def test_the_pauses_grow() -> None:
    async def test() -> None:
        async with plane_of(2) as plane:
            uuid, _ = await with_a_reluctant_node(plane)
            await plane.advance(60)
            assert plane.backend.refused == 5
            await plane.advance(3540)
            assert plane.backend.refused < 25
            # Whatever happens to nodes may be what helps: it is tried at once.
            before = plane.backend.refused
            plane.control.add_node("another")
            await plane.advance(2)
            assert plane.backend.refused == before + 1
            assert plane.get(uuid)["running_num_containers"] == 3

    run(test)


@pytest.mark.parametrize("verb", ["stop", "redeploy", "terminate"])
def test_what_somebody_asks_for_meanwhile_goes_first(verb: str) -> None:
    async def test() -> None:
        async with plane_of(2) as plane:
            uuid, _ = await with_a_reluctant_node(plane)
            reply = await plane.act(uuid, verb)
            await plane.advance(10)
            assert plane.action(reply)["end_date"]
            before = plane.backend.refused
            await plane.advance(1000)
            assert plane.backend.refused == before

    run(test)


def test_a_node_that_went_again_is_owed_nothing() -> None:
    async def test() -> None:
        async with plane_of(2) as plane:
            uuid, new = await with_a_reluctant_node(plane)
            plane.control.remove_node(new)
            await plane.advance(1000)
            assert plane.backend.refused == 1
            assert plane.state(uuid) == "Running"

    run(test)


def test_a_start_that_was_asked_for_is_not_tried_again() -> None:
    async def test() -> None:
        async with plane_of(2) as plane:
            plane.backend.refusing = {plane.control.listing("node")[0]["uuid"]}
            uuid = await plane.up(**EVERYWHERE)
            assert plane.state(uuid) == "Partly running"
            await plane.advance(1000)
            assert plane.backend.refused == 1

    run(test)


def test_a_server_that_starts_goes_on(tmp_path: Path) -> None:
    async def test() -> None:
        clock = ManualClock()
        backend = Reluctant(3, clock)
        async with Plane(backend=backend, clock=clock, store=SqliteStore(tmp_path), node_grace=20) as plane:
            uuid = await plane.up(target_num_containers=3)
            dead, *others = nodes_of(plane, uuid)
            backend.refusing = set(others)
            backend.set_node_up(dead, False)
            await plane.advance(25)
            assert plane.state(uuid) == "Partly running"
        clock = ManualClock(clock.now)
        backend = Reluctant(3, clock)
        async with Plane(backend=backend, clock=clock, store=SqliteStore(tmp_path), node_grace=20) as plane:
            await plane.advance(30)
            assert plane.state(uuid) == "Running"

    run(test)


def test_what_was_alone_on_a_lost_node_is_placed_anew() -> None:
    async def test() -> None:
        async with plane_of(2, node_grace=20) as plane:
            uuid = await plane.up()
            (dead,) = nodes_of(plane, uuid)
            (other,) = [n["uuid"] for n in plane.control.listing("node")[:] if n["uuid"] != dead]
            plane.backend.refusing = {other}
            plane.backend.set_node_up(dead, False)
            await plane.advance(25)
            assert plane.state(uuid) == "Not running"
            assert plane.backend.refused == 2
            plane.backend.refusing.clear()
            await plane.advance(30)
            assert plane.state(uuid) == "Running"
            assert nodes_of(plane, uuid) == [other]

    run(test)


def test_everywhere_is_one_node_that_comes_back() -> None:
    async def test() -> None:
        async with plane_of(1, node_grace=20) as plane:
            uuid = await plane.up(**EVERYWHERE)
            never = await plane.create(name="never", **EVERYWHERE)
            (node,) = nodes_of(plane, uuid)
            plane.backend.set_node_up(node, False)
            await plane.advance(100)
            assert plane.state(uuid) == "Not running"
            plane.backend.set_node_up(node, True)
            await plane.advance(5)
            assert plane.state(uuid) == "Running"
            assert plane.state(never) == "Not running"

    run(test)


def test_jobs_that_are_done_are_not_run_again_with_it() -> None:
    async def test() -> None:
        async with plane_of(1) as plane:
            done = {"SIMULATE_EXIT": "0", "SIMULATE_EXIT_AFTER": "0", "SIMULATE_ONLY": "2"}
            body = {"container_envvars": [{"key": k, "value": v} for k, v in done.items()]}
            uuid = await plane.up(autodestroy="ON_SUCCESS", **body, **EVERYWHERE)
            assert plane.get(uuid)["running_num_containers"] == 1
            first, second = plane.control.add_node("one"), plane.control.add_node("two")
            plane.backend.refusing = {second}
            await plane.advance(100)

            def codes(node: str) -> list[int | None]:
                found = plane.control.records.containers.values()
                return [c.exit_code for c in found if c.node == node and c.started]

            assert (codes(first), codes(second)) == ([0], [])
            plane.backend.refusing.clear()
            await plane.advance(1000)
            assert (codes(first), codes(second)) == ([0], [0])

    run(test)


def test_nodes_that_change_while_nothing_can_be_stored(tmp_path: Path) -> None:
    async def test() -> None:
        store = FailingStore(tmp_path)
        async with plane_of(2, store=store, node_grace=20) as plane:
            uuid = await plane.up(target_num_containers=2)
            dead, other = nodes_of(plane, uuid)
            store.failing = True
            plane.backend.set_node_up(dead, False)
            await plane.advance(10)
            store.failing = False
            await plane.advance(10)
            assert plane.control.detail("node", dead)["state"] == "Unreachable"
            await plane.advance(10)
            store.failing = True
            await plane.advance(10)
            store.failing = False
            await plane.advance(10)
            assert nodes_of(plane, uuid) == [other, other]
            assert plane.state(uuid) == "Running"

    run(test)
