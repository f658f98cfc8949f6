"""Services that need others: who waits for whom, in which order, and what is said when one fails."""

from __future__ import annotations

import contextlib
import random
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest

from pulumi_tutum.errors import BadRequest
from pulumi_tutum.server.backends import ContainerSpec, ImageInfo, Observed
from pulumi_tutum.server.backends.simulated import SimulatedBackend
from pulumi_tutum.server.clock import ManualClock, sleep
from pulumi_tutum.server.store import SqliteStore, Store
from tests.unit.server.plane import REQUEST, Plane, run


class Pulling(SimulatedBackend):
    """A backend that needs time to pull images, and remembers in which order it created and removed."""

    def __init__(self, clock: ManualClock, nodes: Any = 1, pulls: Mapping[str, float] | None = None) -> None:
        super().__init__(nodes, container_start_seconds=1.0, clock=clock)
        self.clock = clock
        self.pulls = dict(pulls or {})
        self.history: list[str] = []
        self.names: dict[str, str] = {}

    async def image(self, image: str, node: str) -> ImageInfo:
        repository = image.partition(":")[0]
        await sleep(self.clock, self.pulls.get(repository, 0.0))
        self.pulls.pop(repository, None)
        return await super().image(image, node)

    async def create(self, spec: ContainerSpec) -> Observed:
        self.history.append(f"+{spec.name}")
        self.names[spec.uuid] = spec.name
        return await super().create(spec)

    async def remove(self, uuid: str, *, volumes: Any = ()) -> None:
        self.history.append(f"-{self.names.get(uuid, '?')}")
        await super().remove(uuid, volumes=volumes)


def pulling(
    nodes: Any = 1, *, clock: ManualClock | None = None, store: Store | None = None, **pulls: float
) -> Plane:
    """A control plane whose backend pulls `acme/<name>` so many seconds."""
    clock = clock or ManualClock()
    backend = Pulling(clock, nodes, {f"acme/{name}": seconds for name, seconds in pulls.items()})
    return Plane(backend=backend, clock=clock, store=store, start_timeout=60)


def link(to: str, name: str = "DB") -> list[dict[str, str]]:
    return [{"to_service": to, "name": name}]


def variables(plane: Plane, uuid: str, prefix: str = "DB_") -> list[str]:
    """The names of variables of the service's first container that begin with a prefix."""
    environment = plane.containers(uuid)[0]["container_envvars"]
    return [variable["key"] for variable in environment if variable["key"].startswith(prefix)]


def test_a_service_waits_until_the_target_of_its_link_is_placed() -> None:
    async def test() -> None:
        async with pulling(db=40) as plane:
            db = await plane.create(name="db", image="acme/db")
            web = await plane.create(name="web", linked_to_service=link(db))
            await plane.act(db, "start")
            reply = await plane.act(web, "start")
            assert reply.body["state"] == "Starting"
            await plane.advance(39)
            assert (plane.state(web), plane.backend.history) == ("Starting", [])
            await plane.advance(1)
            assert plane.state(db) == "Starting", "it is placed, and does not run yet"
            assert plane.backend.history == ["+db-1", "+web-1"]
            await plane.advance(5)
            assert plane.state(web) == "Running"
            assert plane.action(reply)["state"] == "Success"
            assert "DB_1_ENV_TUTUM_SERVICE_FQDN" in variables(plane, web)

    run(test)


def test_a_service_waits_for_all_containers_of_a_target() -> None:
    async def test() -> None:
        async with pulling() as plane:
            sequential = {"target_num_containers": 3, "sequential_deployment": True}
            db = await plane.create(name="db", **sequential)
            web = await plane.create(name="web", linked_to_service=link(db))
            await plane.act(db, "start")
            await plane.act(web, "start")
            await plane.advance(5)
            assert {f"DB_{ordinal}_NAME" for ordinal in (1, 2, 3)} <= set(variables(plane, web))
            history = plane.backend.history
            assert history.index("+web-1") > history.index("+db-3")

    run(test)


def test_images_are_pulled_while_others_are_waited_for() -> None:
    async def test() -> None:
        async with pulling(db=40, web=40) as plane:
            db = await plane.create(name="db", image="acme/db")
            web = await plane.create(name="web", linked_to_service=link(db))
            for uuid in (web, db):
                await plane.act(uuid, "start")
            await plane.advance(42)
            assert (plane.state(db), plane.state(web)) == ("Running", "Running")
            assert "DB_1_NAME" in variables(plane, web), "the target was begun before web could be made"

    run(test)


def test_a_target_at_rest_is_not_waited_for() -> None:
    async def test() -> None:
        async with pulling() as plane:
            idle = await plane.create(name="idle")
            stopped = await plane.up(name="stopped")
            await plane.act_and_wait(stopped, "stop")
            links = [*link(idle, "IDLE"), *link(stopped, "STOPPED")]
            web = await plane.up(name="web", linked_to_service=links)
            assert plane.state(web) == "Running"
            assert plane.last_action(web)["state"] == "Success"
            assert variables(plane, web, "IDLE_") == []
            assert "STOPPED_1_NAME" in variables(plane, web, "STOPPED_")

    run(test)


def test_volumes_are_waited_for_when_services_are_started_one_by_one() -> None:
    async def test() -> None:
        async with pulling(2, data=30) as plane:
            bindings = [{"container_path": "/data"}]
            data = await plane.create(name="data", image="acme/data", bindings=bindings)
            user = await plane.create(name="user", bindings=[{"volumes_from": data}])
            await plane.act(data, "start")
            reply = await plane.act(user, "start")
            await plane.advance(40)
            assert plane.action(reply)["state"] == "Success"
            assert plane.state(user) == "Running"
            (mine,), (theirs,) = plane.containers(user), plane.containers(data)
            assert mine["node"] == theirs["node"]
            assert mine["bindings"][0]["volume"] == theirs["bindings"][0]["volume"]

    run(test)


SHOP: dict[str, Any] = {
    "name": "shop",
    "services": [
        {"name": "web", "image": "acme/web", "links": ["app"], "target_num_containers": 2},
        {"name": "app", "image": "acme/app", "links": ["db"], "volumes_from": ["data"]},
        {"name": "data", "image": "acme/data", "volumes": ["/data"]},
        {"name": "db", "image": "acme/db", "volumes_from": ["data"]},
    ],
}


def uuids(plane: Plane, stack: Mapping[str, Any]) -> dict[str, str]:
    """Name to uuid of a stack's services."""
    found = plane.control.detail("stack", stack["uuid"])["services"]
    return {plane.get(u.split("/")[-2])["name"]: u.split("/")[-2] for u in found}


async def on_stack(plane: Plane, stack: Mapping[str, Any], verb: str, **options: Any) -> Any:
    return await plane.control.act("stack", str(stack["uuid"]), verb, REQUEST, options)


def test_a_stack_starts_in_the_order_of_its_needs() -> None:
    async def test() -> None:
        async with pulling(db=20, data=20) as plane:
            stack = (await plane.control.create_stack(SHOP, REQUEST)).body
            reply = await on_stack(plane, stack, "start")
            members = uuids(plane, stack)
            assert {plane.state(u) for u in members.values()} == {"Starting"}
            await plane.advance(60)
            assert plane.action(reply)["state"] == "Success"
            assert {plane.state(u) for u in members.values()} == {"Running"}
            history = plane.backend.history
            assert history[:3] == ["+data-1", "+db-1", "+app-1"]
            assert sorted(history[3:]) == ["+web-1", "+web-2"]
            assert "APP_1_NAME" in variables(plane, members["web"], "APP_")
            volumes = {
                plane.containers(members[n])[0]["bindings"][0]["volume"] for n in ("app", "db", "data")
            }
            assert len(volumes) == 1

    run(test)


@pytest.mark.parametrize("reuse", [True, False])
def test_a_redeploy_of_a_stack_removes_nothing_before_what_its_successor_needs_is_there(reuse: bool) -> None:
    async def test() -> None:
        async with pulling() as plane:
            stack = (await plane.control.create_stack(SHOP, REQUEST)).body
            await on_stack(plane, stack, "start")
            await plane.advance(30)
            plane.backend.history.clear()
            reply = await on_stack(plane, stack, "redeploy", reuse_volumes=reuse)
            members = uuids(plane, stack)
            assert {plane.state(u) for u in members.values()} == {"Redeploying"}
            await plane.advance(60)
            assert plane.action(reply)["state"] == "Success", plane.action(reply)["error"]
            assert {plane.state(u) for u in members.values()} == {"Running"}
            in_turn = ["-data-1", "+data-1", "-db-1", "+db-1", "-app-1", "+app-1"]
            assert plane.backend.history[:6] == in_turn
            (data,), (app,) = plane.containers(members["data"]), plane.containers(members["app"])
            assert data["bindings"] == app["bindings"]
            variable = next(v for v in app["container_envvars"] if v["key"] == "DB_1_NAME")
            assert plane.containers(members["db"])[0]["uuid"] in variable["value"]

    run(test)


def test_a_redeploy_waits_for_the_new_containers_of_a_target() -> None:
    async def test() -> None:
        async with pulling(new=30) as plane:
            db = await plane.up(name="db", image="acme/db", container_envvars={"PASS": "old"})
            web = await plane.up(name="web", linked_to_service=link(db))
            await plane.patch(db, image="acme/new", container_envvars={"PASS": "new"})
            await plane.act(db, "redeploy")
            await plane.act(web, "redeploy")
            await plane.advance(29)
            assert plane.state(web) == "Redeploying"
            assert plane.get(web)["running_num_containers"] == 1
            await plane.advance(10)
            assert plane.state(web) == "Running"
            (container,) = plane.containers(web)
            assert {"key": "DB_ENV_PASS", "value": "new"} in container["container_envvars"]

    run(test)


def test_volumes_are_those_that_the_source_has_when_a_container_is_made() -> None:
    async def test() -> None:
        async with pulling(user=30) as plane:
            slow = {"SIMULATE_STOP_SECONDS": "25"}
            bindings = [{"container_path": "/data"}]
            data = await plane.up(name="data", bindings=bindings, container_envvars=slow)
            user = await plane.create(name="user", image="acme/user", bindings=[{"volumes_from": data}])
            await plane.act(user, "start")
            await plane.advance(10)
            await plane.act(data, "redeploy")
            await plane.advance(22)
            assert plane.state(data) == "Redeploying", "its container is being stopped"
            await plane.advance(30)
            assert plane.state(user) == "Running"
            assert plane.containers(user)[0]["bindings"] == plane.containers(data)[0]["bindings"] != []

    run(test)


def test_a_container_that_a_redeploy_has_removed_is_replaced_without_a_wait() -> None:
    async def test() -> None:
        async with pulling(new=50) as plane:
            db = await plane.up(name="db", image="acme/db")
            slow = {"SIMULATE_STOP_SECONDS": "10"}
            web = await plane.up(name="web", linked_to_service=link(db), container_envvars=slow)
            await plane.act(web, "redeploy")
            await plane.advance(5)
            await plane.patch(db, image="acme/new:missing")
            await plane.act(db, "redeploy")
            await plane.advance(10)
            assert (plane.state(db), plane.state(web)) == ("Redeploying", "Running")
            assert "DB_1_NAME" in variables(plane, web)

    run(test)


def test_a_target_that_fails_is_named_by_all_that_wait_for_it() -> None:
    async def test() -> None:
        async with pulling(db=20) as plane:
            db = await plane.create(name="db", image="acme/db:missing")
            app = await plane.create(name="app", linked_to_service=link(db))
            web = await plane.create(name="web", bindings=[{"volumes_from": app}])
            replies = [await plane.act(uuid, "start") for uuid in (db, app, web)]
            await plane.advance(30)
            actions = [plane.action(reply) for reply in replies]
            assert {action["state"] for action in actions} == {"Failed"}
            cause = "db-1: No such image: acme/db:missing"
            assert actions[0]["error"] == cause
            assert actions[1]["error"] == f"app-1: needs service 'db', whose start failed: {cause}"
            assert actions[2]["error"].startswith(
                "web: needs service 'app', whose start failed: app-1: needs "
            )
            assert actions[2]["error"].endswith(cause)
            assert {plane.state(u) for u in (db, app, web)} == {"Not running"}
            # The target is at rest now: a link to it is no obstacle.
            await plane.act_and_wait(app, "start")
            assert plane.state(app) == "Running"

    run(test)


def test_a_start_goes_on_with_the_containers_that_a_failed_target_has() -> None:
    async def test() -> None:
        async with pulling() as plane:
            ports = [{"protocol": "tcp", "inner_port": 80, "outer_port": 8080, "published": True}]
            db = await plane.create(name="db", target_num_containers=2, container_ports=ports)
            web = await plane.create(name="web", linked_to_service=link(db))
            failed = await plane.act(db, "start")
            reply = await plane.act(web, "start")
            await plane.advance(10)
            assert plane.action(failed)["state"] == "Failed", "both containers need the same port of one node"
            assert plane.action(reply)["state"] == "Success"
            assert "DB_1_NAME" in variables(plane, web)

    run(test)


def test_a_redeploy_ends_where_the_redeploy_of_a_target_fails() -> None:
    async def test() -> None:
        async with pulling(new=10) as plane:
            db = await plane.up(name="db", image="acme/db")
            web = await plane.up(name="web", linked_to_service=link(db))
            (before,) = plane.containers(web)
            await plane.patch(db, image="acme/new:missing")
            await plane.act(db, "redeploy")
            reply = await plane.act(web, "redeploy")
            await plane.advance(20)
            assert plane.action(reply)["error"] == (
                "web: needs service 'db', whose redeploy failed: db: No such image: acme/new:missing"
            )
            assert plane.state(web) == plane.state(db) == "Running"
            assert [c["uuid"] for c in plane.containers(web)] == [before["uuid"]]

    run(test)


def test_a_target_that_is_canceled_ends_the_wait_for_it() -> None:
    async def test() -> None:
        async with pulling(db=50) as plane:
            db = await plane.create(name="db", image="acme/db")
            web = await plane.create(name="web", linked_to_service=link(db))
            started = await plane.act(db, "start")
            reply = await plane.act(web, "start")
            await plane.advance(5)
            await plane.control.act("action", plane.action(started)["uuid"], "cancel", REQUEST)
            await plane.advance(1)
            assert plane.action(started)["state"] == "Canceled"
            assert plane.action(reply)["state"] == "Failed"
            assert "needs service 'db', whose start was canceled" in plane.action(reply)["error"]

    run(test)


def test_a_wait_can_be_canceled() -> None:
    async def test() -> None:
        async with pulling(db=50) as plane:
            db = await plane.create(name="db", image="acme/db")
            web = await plane.create(name="web", linked_to_service=link(db))
            await plane.act(db, "start")
            reply = await plane.act(web, "start")
            await plane.advance(5)
            await plane.control.act("action", plane.action(reply)["uuid"], "cancel", REQUEST)
            await plane.advance(0)
            assert plane.action(reply)["state"] == "Canceled"
            assert (plane.state(web), plane.state(db)) == ("Not running", "Starting")

    run(test)


def test_a_redeploy_removes_nothing_when_the_source_of_its_volumes_has_no_containers() -> None:
    async def test() -> None:
        async with pulling() as plane:
            data = await plane.up(name="data", autodestroy="ALWAYS", bindings=[{"container_path": "/data"}])
            user = await plane.up(name="user", bindings=[{"volumes_from": data}], target_num_containers=2)
            before = plane.containers(user)
            await plane.act_and_wait(data, "stop")
            assert plane.containers(data) == []
            reply = await plane.act(user, "redeploy")
            await plane.advance(5)
            assert "volumes_from: service data has no containers" in plane.action(reply)["error"]
            assert plane.state(user) == "Running"
            assert plane.containers(user) == before

    run(test)


def test_a_redeploy_removes_nothing_when_its_volumes_are_on_different_nodes() -> None:
    async def test() -> None:
        async with pulling({"one": ["a"], "two": ["b"]}) as plane:
            source = {"autodestroy": "ALWAYS", "bindings": [{"container_path": "/data"}]}
            data = await plane.up(name="data", tags=["a"], **source)
            bindings = [{"volumes_from": data}, {"container_path": "/own"}]
            user = await plane.up(name="user", bindings=bindings)
            before = plane.containers(user)
            await plane.act_and_wait(data, "stop")
            await plane.patch(data, tags=["b"])
            await plane.act_and_wait(data, "start")
            reply = await plane.act(user, "redeploy")
            await plane.advance(5)
            assert "no node has all the volumes that it uses" in plane.action(reply)["error"]
            assert plane.containers(user) == before

    run(test)


def test_every_node_uses_volumes_of_every_node() -> None:
    async def test() -> None:
        async with pulling(3, data=20) as plane:
            everywhere = {"deployment_strategy": "EVERY_NODE"}
            bindings = [{"container_path": "/data"}]
            data = await plane.create(name="data", image="acme/data", bindings=bindings, **everywhere)
            user = await plane.create(name="user", bindings=[{"volumes_from": data}], **everywhere)

            def together() -> bool:
                mine, theirs = plane.containers(user), plane.containers(data)
                at = {c["node"]: c["bindings"][0]["volume"] for c in theirs}
                return all(at[c["node"]] == c["bindings"][0]["volume"] for c in mine)

            await plane.act(data, "start")
            await plane.act(user, "start")
            await plane.advance(30)
            assert plane.state(user) == "Running"
            assert (len(plane.containers(user)), together()) == (3, True)
            plane.control.add_node("another")
            await plane.advance(30)
            assert plane.state(user) == "Running"
            assert (len(plane.containers(user)), together()) == (4, True)
            replies = [await plane.act(uuid, "redeploy") for uuid in (user, data)]
            await plane.advance(200)
            assert [plane.action(reply)["state"] for reply in replies] == ["Success", "Success"]
            assert (len(plane.containers(user)), together()) == (4, True)

    run(test)


def test_the_deadline_of_a_wait_is_that_of_the_service_waited_for() -> None:
    async def test() -> None:
        async with pulling(db=50, app=50) as plane:
            # Each needs less than `start_timeout`; all of them together need more.
            db = await plane.create(name="db", image="acme/db")
            app = await plane.create(name="app", image="acme/app", linked_to_service=link(db))
            web = await plane.create(name="web", linked_to_service=link(app, "APP"))
            replies = [await plane.act(uuid, "start") for uuid in (db, app, web)]
            await plane.advance(130)
            assert [plane.action(reply)["state"] for reply in replies] == ["Success"] * 3
        async with pulling(db=1e6) as plane:
            db = await plane.create(name="db", image="acme/db")
            web = await plane.create(name="web", linked_to_service=link(db))
            replies = [await plane.act(uuid, "start") for uuid in (db, web)]
            await plane.advance(100)
            assert [plane.action(reply)["state"] for reply in replies] == ["Failed"] * 2
            assert plane.action(replies[1])["error"] == (
                "web-1: needs service 'db', whose start failed: db-1: did not start within 60 seconds"
            )
            assert plane.state(web) == "Not running"

    run(test)


@pytest.mark.parametrize("verb", ["start", "redeploy"])
def test_services_that_link_in_a_circle_do_not_wait_for_ever(verb: str) -> None:
    services: list[dict[str, Any]] = [
        {"name": "a", "image": "acme/a", "links": ["b", "a"]},
        {"name": "b", "image": "acme/b", "links": ["c"]},
        {"name": "c", "image": "acme/c", "links": ["a", "outside"]},
        {"name": "outside", "image": "acme/outside"},
    ]

    async def test() -> None:
        async with pulling(a=1, b=1, c=1, outside=5) as plane:
            body = {"name": "ring", "services": services}
            stack = (await plane.control.create_stack(body, REQUEST)).body
            await on_stack(plane, stack, "start")
            if verb == "redeploy":
                await plane.advance(20)
                await on_stack(plane, stack, "redeploy")
            await plane.advance(50)
            members = uuids(plane, stack)
            assert {plane.state(u) for u in members.values()} == {"Running"}
            # Within the circle only the last one waits for an older one.
            assert "A_1_NAME" in variables(plane, members["c"], "A_")
            assert "OUTSIDE_1_NAME" in variables(plane, members["c"], "OUTSIDE_")

    run(test)


def test_a_circle_of_links_and_volumes_is_no_obstacle() -> None:
    services: list[dict[str, Any]] = [
        {"name": "user", "image": "acme/user", "volumes_from": ["data"]},
        {"name": "data", "image": "acme/data", "volumes": ["/data"], "links": ["user"]},
    ]

    async def test() -> None:
        async with pulling(data=5) as plane:
            stack = (await plane.control.create_stack({"name": "s", "services": services}, REQUEST)).body
            for verb in ("start", "redeploy"):
                reply = await on_stack(plane, stack, verb)
                await plane.advance(20)
                assert plane.action(reply)["state"] == "Success", plane.action(reply)["error"]

    run(test)


def test_a_circle_that_is_closed_while_services_wait() -> None:
    async def test() -> None:
        async with pulling(z=100, w=1) as plane:
            # u -> v -> w -> u, where w provides volumes to v; w is begun last.
            z = await plane.create(name="z", image="acme/z")
            u = await plane.create(name="u")
            w = await plane.up(name="w", image="acme/w", linked_to_service=link(u, "U"))
            v = await plane.create(name="v", bindings=[{"volumes_from": w}], linked_to_service=link(z, "Z"))
            await plane.patch(u, linked_to_service=link(v, "V"))
            await plane.act(z, "start")
            for uuid in (v, u):
                await plane.act(uuid, "start")
            await plane.advance(1)
            assert plane.state(u) == "Starting"
            await plane.act(w, "redeploy")
            await plane.advance(3)
            assert plane.state(u) == "Running", "it is part of a circle now, and does not wait any more"
            await plane.advance(200)
            assert plane.state(w) == "Running"

    run(test)


def test_a_wait_goes_on_after_a_restart(tmp_path: Path) -> None:
    async def test() -> None:
        async with pulling(store=SqliteStore(tmp_path), db=50) as plane:
            db = await plane.create(name="db", image="acme/db")
            bad = await plane.create(name="bad", image="acme/bad:missing")
            web = await plane.create(name="web", linked_to_service=link(db))
            other = await plane.create(name="other", linked_to_service=link(bad))
            plane.backend.pulls["acme/bad"] = 50
            replies = [await plane.act(uuid, "start") for uuid in (db, bad, web, other)]
            await plane.advance(10)
        async with pulling(clock=plane.clock, store=SqliteStore(tmp_path), db=20, bad=20) as plane:
            assert plane.state(web) == plane.state(other) == "Starting"
            assert plane.backend.history == []
            await plane.advance(40)
            assert plane.state(web) == "Running"
            assert "DB_1_NAME" in variables(plane, web)
            assert plane.action(replies[3])["state"] == "Failed"
            assert "needs service 'bad'" in plane.action(replies[3])["error"]

    run(test)


def test_a_crowd_that_waits_for_one_is_looked_at_once() -> None:
    async def test() -> None:
        async with pulling(db=10) as plane:
            db = await plane.create(name="db", image="acme/db")
            webs = [await plane.create(name=f"web-{n}", linked_to_service=link(db)) for n in range(50)]
            others = [await plane.create(name=f"other-{n}") for n in range(50)]
            await plane.act(db, "start")
            for uuid in (*webs, *others):
                await plane.act(uuid, "start")
            await plane.advance(5)
            assert {plane.state(u) for u in webs} == {"Starting"}
            assert {plane.state(u) for u in others} == {"Running"}
            due = plane.clock.next_due()
            assert due is not None
            assert due >= plane.clock.now + 5, "nothing is due before the image is there: nobody polls"
            await plane.advance(10)
            assert {plane.state(u) for u in webs} == {"Running"}

    run(test)


def test_stopping_and_terminating_begin_with_those_that_need_others() -> None:
    async def test() -> None:
        async with pulling() as plane:
            stack = (await plane.control.create_stack(SHOP, REQUEST)).body
            await on_stack(plane, stack, "start")
            await plane.advance(30)
            order: Callable[[str], list[str]] = lambda text: [  # noqa: E731
                plane.get(a["object"].split("/")[-2])["name"]
                for a in plane.control.listing("action")
                if a["action"] == text
            ]
            await on_stack(plane, stack, "stop")
            await plane.advance(5)
            assert order("Service Stop") == ["web", "app", "db", "data"]
            await on_stack(plane, stack, "terminate")
            await plane.advance(5)
            assert order("Service Terminate") == ["web", "app", "db", "data"]

    run(test)


def random_stack(chance: random.Random) -> dict[str, Any]:
    """A stack whose services link to each other at random, in circles too, and share volumes."""
    names = [f"s{number}" for number in range(chance.randint(2, 7))]
    services = []
    for number, name in enumerate(names):
        environment = {"SIMULATE_STOP_SECONDS": str(chance.choice([0, 0, 3]))}
        service: dict[str, Any] = {"name": name, "image": f"acme/{name}", "environment": environment}
        service["links"] = chance.sample(names, chance.randint(0, min(3, len(names))))
        service["volumes"] = ["/data"]
        if number and chance.random() < 0.6:
            service["volumes_from"] = [chance.choice(names[:number])]
        service["target_num_containers"] = chance.choice([1, 1, 2, 5])
        service["sequential_deployment"] = chance.random() < 0.3
        service["monitor_seconds"] = chance.choice([0, 0, 2])
        services.append(service)
    chance.shuffle(services)
    return {"name": "random", "services": services}


@pytest.mark.parametrize("seed", range(30))
def test_whatever_needs_what_everything_comes_up_and_stays_up(seed: int) -> None:
    async def test() -> None:
        chance = random.Random(seed)
        body = random_stack(chance)
        pulls: dict[str, Any] = {s["name"]: chance.choice([0, 0, 1, 4]) for s in body["services"]}
        async with pulling(chance.choice([1, 3]), **pulls) as plane:
            stack = (await plane.control.create_stack(body, REQUEST)).body
            members = uuids(plane, stack)
            replies = [await on_stack(plane, stack, "start")]
            for _ in range(4):
                await plane.advance(chance.choice([0, 1, 3, 10, 60]))
                one = members[chance.choice(list(members))]
                with contextlib.suppress(BadRequest):
                    if chance.random() < 0.4:
                        replies.append(await on_stack(plane, stack, "redeploy"))
                    else:
                        replies.append(await plane.act(one, "redeploy"))
            await plane.advance(600)
            actions = [plane.action(reply) for reply in replies]
            assert {action["state"] for action in actions} == {"Success"}, [a["error"] for a in actions]
            assert {plane.state(uuid) for uuid in members.values()} == {"Running"}

    run(test)
