"""Containers that the backend moves to other nodes by itself, as a swarm does."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any

from pulumi_tutum.server.backends import EXITED, RUNNING, WAITING, ContainerSpec, Observed
from pulumi_tutum.server.backends.simulated import SimulatedBackend
from pulumi_tutum.server.clock import ManualClock
from pulumi_tutum.server.store import SqliteStore, Store
from tests.unit.server.plane import Plane, run

DYNAMIC = [{"protocol": "tcp", "inner_port": 80, "published": True}]


class Moving(SimulatedBackend):
    """A simulated backend that moves containers when a test says so."""

    moves = True

    def lose(self, name: str, reason: str) -> None:
        """A container does not run, and waits for a node."""
        self._see(self._named(name), status=WAITING, reason=reason)

    def move(self, name: str, node: str) -> None:
        """A container runs on a node (uuid)."""
        self._see(self._named(name), status=RUNNING, reason="", node=node)

    async def create(self, spec: ContainerSpec) -> Observed:
        container = self._containers.get(spec.uuid)
        if container is not None and container.seen.status == EXITED:
            container.spec, container.seen = spec, dataclasses.replace(container.seen, node=spec.node)
        return await super().create(spec)

    def _named(self, name: str) -> Any:
        (found,) = [c for c in self._containers.values() if c.spec.name == name]
        return found


def plane_of(nodes: int | Mapping[str, Any], store: Store | None = None, **settings: Any) -> Plane:
    clock = ManualClock()
    backend = Moving(nodes, container_start_seconds=1, clock=clock)
    return Plane(backend=backend, clock=clock, store=store, **settings)


def node_uuids(plane: Plane) -> list[str]:
    return [n["uuid"] for n in plane.control.listing("node")]


def test_what_the_backend_moves_is_never_replaced() -> None:
    async def test() -> None:
        async with plane_of(2, node_grace=20) as plane:
            uuid = await plane.up(name="web", container_ports=DYNAMIC)
            (before,) = plane.containers(uuid)
            dead = before["node"].split("/")[-2]
            (other,) = [n for n in node_uuids(plane) if n != dead]
            plane.backend.set_node_up(dead, False)
            await plane.advance(100)
            assert plane.state(uuid) == "Partly running"
            assert [c["uuid"] for c in plane.containers(uuid)] == [before["uuid"]]
            plane.backend.move("web-1", other)
            await plane.advance(1)
            assert plane.state(uuid) == "Running"
            (after,) = plane.containers(uuid)
            assert (after["uuid"], after["node"]) == (before["uuid"], f"/api/v1/node/{other}/")
            ports = [c["container_ports"][0]["outer_port"] for c in (before, after)]
            assert ports[0] == ports[1]
            counts = {n["uuid"]: n["current_num_containers"] for n in plane.control.listing("node")}
            assert counts == {dead: 0, other: 1}

    run(test)


def test_what_has_to_stay_is_not_movable() -> None:
    async def test() -> None:
        async with plane_of(2) as plane:
            await plane.up(name="free", tags=["simulated", "local"])
            holder = await plane.up(name="holder", bindings=[{"container_path": "/data"}])
            source = plane.get(holder)["resource_uri"]
            await plane.up(name="sharer", bindings=[{"volumes_from": source}])
            await plane.up(name="everywhere", deployment_strategy="EVERY_NODE")
            await plane.up(name="folder", bindings=[{"container_path": "/f", "host_path": "/f"}])
            specs = [c.spec for c in plane.control.records.containers.values()]
            movable = {spec.service_name: spec.movable for spec in specs if spec is not None}
            assert movable == {
                "free": True,
                "holder": False,
                "sharer": False,
                "everywhere": False,
                "folder": True,
            }
            # All nodes have these tags by themselves, so no label of a node stands for them.
            (free,) = [spec for spec in specs if spec is not None and spec.service_name == "free"]
            assert not free.tags

    run(test)


def test_tags_bind_what_may_be_moved() -> None:
    async def test() -> None:
        async with plane_of({"one": ["web", "ssd"], "two": ["ssd"]}) as plane:
            uuid = await plane.up(tags=["web", "ssd"])
            (container,) = plane.control.records.containers_of(uuid)
            assert container.spec is not None
            assert list(container.spec.tags) == ["ssd", "web"]
            # A container has the tags with which it was started last.
            await plane.patch(uuid, tags=["ssd"])
            await plane.act(uuid, "stop")
            await plane.advance(2)
            await plane.act(uuid, "start")
            await plane.advance(5)
            assert list(container.spec.tags) == ["ssd"]

    run(test)


def test_a_dynamic_port_is_given_out_once_in_the_whole_swarm() -> None:
    async def test() -> None:
        async with plane_of(2, port_range=(50000, 50003)) as plane:
            fixed = [{**DYNAMIC[0], "outer_port": 50001}]
            await plane.up(name="fixed", container_ports=fixed)
            found = await plane.up(name="web", container_ports=DYNAMIC, target_num_containers=3)
            ports = [c["container_ports"][0]["outer_port"] for c in plane.containers(found)]
            assert sorted(ports) == [50000, 50002, 50003]
            none = await plane.up(name="none", container_ports=DYNAMIC)
            assert "no dynamic tcp port is free" in str(plane.last_action(none)["error"])

    run(test)


def test_a_stop_and_a_start_choose_the_node_again() -> None:
    async def test() -> None:
        async with plane_of(2) as plane:
            fixed = [{**DYNAMIC[0], "outer_port": 8080}]
            web = await plane.up(name="web", container_ports=fixed)
            (container,) = plane.control.records.containers_of(web)
            first = container.node
            (other,) = [n for n in node_uuids(plane) if n != first]
            await plane.act(web, "stop")
            await plane.advance(2)
            # Its own port is no obstacle on its own node, but there is more to do there now.
            await plane.up(name="load", deployment_strategy="EMPTIEST_NODE", target_num_containers=3)
            busy = [c.node for c in plane.control.records.containers.values() if c.service != web]
            assert busy.count(first) > busy.count(other)
            await plane.act(web, "start")
            await plane.advance(5)
            assert plane.state(web) == "Running"
            assert container.node == other
            assert container.spec is not None
            assert container.spec.node == other

    run(test)


def test_a_start_without_a_node_says_why() -> None:
    async def test() -> None:
        async with plane_of({"one": ["web"], "two": []}) as plane:
            web = await plane.up(name="web", tags=["web"])
            await plane.act(web, "stop")
            await plane.advance(2)
            plane.control.set_node_tags(node_uuids(plane)[0], [])
            reply = await plane.act(web, "start")
            await plane.advance(5)
            assert plane.action(reply)["error"] == "web-1: no node has the tag web"

    run(test)


def test_a_node_that_is_removed_takes_nothing_along_that_can_move() -> None:
    async def test() -> None:
        async with plane_of(2) as plane:
            uuid = await plane.up(name="web")
            (container,) = plane.control.records.containers_of(uuid)
            (other,) = [n for n in node_uuids(plane) if n != container.node]
            plane.backend.lose("web-1", "web-1 is moved by the swarm from node node-1")
            # As of a swarm: the node goes, and what ran there does not.
            del plane.backend._nodes[container.node]
            plane.backend._watcher.nodes_changed()
            await plane.advance(1)
            assert plane.state(uuid) == "Partly running"
            plane.backend.move("web-1", other)
            await plane.advance(1)
            assert plane.state(uuid) == "Running"
            assert [c["uuid"] for c in plane.containers(uuid)] == [container.uuid]

    run(test)


def test_on_a_drained_node_every_node_services_have_no_container() -> None:
    async def test() -> None:
        async with plane_of(2) as plane:
            uuid = await plane.up(deployment_strategy="EVERY_NODE")
            kept = await plane.up(name="kept", bindings=[{"container_path": "/data"}])
            node = plane.containers(kept)[0]["node"].split("/")[-2]

            def set_drained(drained: bool) -> None:
                found = plane.backend._nodes[node]
                plane.backend._nodes[node] = dataclasses.replace(found, open=not drained, drained=drained)
                plane.backend._watcher.nodes_changed()

            plane.backend.lose("kept-1", "kept-1 waits for node node-1, which is drained")
            set_drained(True)
            await plane.advance(5)
            assert plane.control.detail("node", node)["state"] == "Deployed"
            assert plane.state(uuid) == "Running"
            assert [c["node"].split("/")[-2] == node for c in plane.containers(uuid)] == [False]
            assert plane.state(kept) == "Partly running"
            set_drained(False)
            await plane.advance(5)
            assert plane.get(uuid)["running_num_containers"] == 2

    run(test)


def test_where_a_container_is_outlives_the_server(tmp_path: Any) -> None:
    async def test() -> None:
        store = SqliteStore(tmp_path)
        async with plane_of(2, store) as plane:
            uuid = await plane.up(name="web")
            (container,) = plane.control.records.containers_of(uuid)
            (other,) = [n for n in node_uuids(plane) if n != container.node]
            plane.backend.move("web-1", other)
            await plane.advance(1)
        async with plane_of(2, SqliteStore(tmp_path)) as plane:
            (found,) = plane.containers(uuid)
            assert found["node"] == f"/api/v1/node/{other}/"
            (container,) = plane.control.records.containers_of(uuid)
            assert container.spec is not None
            assert container.spec.movable

    run(test)
