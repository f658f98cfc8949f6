"""Nodes, clusters, tags; and the simulated backend's own behaviour."""

from __future__ import annotations

import asyncio
import dataclasses
from collections.abc import Sequence
from pathlib import Path

import pytest

from pulumi_tutum.errors import BadRequest, ConfigError, Conflict, NotAllowed, NotFound
from pulumi_tutum.server.backends import ContainerSpec
from pulumi_tutum.server.backends.simulated import SimulatedBackend, behaviour
from pulumi_tutum.server.clock import ManualClock, sleep
from pulumi_tutum.server.store import SqliteStore
from tests.unit.server.plane import REQUEST, Plane, run


def test_nodes_and_their_tags_survive_a_restart(tmp_path: Path) -> None:
    async def test() -> None:
        nodes = {"a": ["x"], "b": []}
        async with Plane(nodes, store=SqliteStore(tmp_path)) as plane:
            a, b = plane.control.listing("node")[:]
            assert [t["name"] for t in a["tags"]] == ["x"]
            assert a["external_fqdn"] == f"{a['uuid'][:8]}-admin.node.localhost"
            plane.control.set_node_tags(b["uuid"], ["y", "y"])
            added = plane.control.add_node("c", ["z"])
            await plane.advance()
        async with Plane(nodes, store=SqliteStore(tmp_path)) as plane:
            assert [n["uuid"] for n in plane.control.listing("node")[:]] == [a["uuid"], b["uuid"], added]
            assert [[t["name"] for t in n["tags"]] for n in plane.control.listing("node")[:]] == [
                ["x"],
                ["y"],
                ["z"],
            ]
            plane.control.remove_node(b["uuid"])
            await plane.advance()
        # Tags given at the start that differ from those of the last start win.
        async with Plane({"a": ["new"], "b": []}, store=SqliteStore(tmp_path)) as plane:
            states = {n["nickname"]: n["state"] for n in plane.control.listing("node")[:]}
            assert states == {"a": "Deployed", "b": "Terminated", "c": "Deployed"}
            assert plane.control.listing("node")[0]["tags"] == [{"name": "new"}]

    run(test)


class SlowTags(SimulatedBackend):
    """Takes a while to give its nodes their tags, and tells of each change."""

    def __init__(self, nodes: int, clock: ManualClock) -> None:
        super().__init__(nodes, clock=clock)
        self.slow_clock = clock
        self.order = asyncio.Lock()

    async def set_node_tags(self, node: str, tags: Sequence[str]) -> None:
        async with self.order:
            await sleep(self.slow_clock, 1)
            self._nodes[node] = dataclasses.replace(self._nodes[node], tags=tuple(tags))
            assert self._watcher is not None
            self._watcher.nodes_changed()


def test_tags_that_are_changed_twice() -> None:
    async def test() -> None:
        clock = ManualClock()
        async with Plane(backend=SlowTags(1, clock), clock=clock) as plane:
            node = plane.control.listing("node")[0]["uuid"]

            def tags() -> list[str]:
                return [t["name"] for t in plane.control.detail("node", node)["tags"]]

            plane.control.set_node_tags(node, ["x"])
            await plane.advance(2)
            for names in ([], ["x"]):
                plane.control.set_node_tags(node, names)
            for _ in range(6):
                await plane.advance(0.5)
                assert tags() == ["x"]

    run(test)


def test_node_requests() -> None:
    async def test() -> None:
        async with Plane() as plane:
            reply = await plane.control.create_node({"name": "n", "tags": [{"name": "t"}]}, REQUEST)
            assert (reply.status, reply.body["state"]) == (201, "Deployed")
            with pytest.raises(Conflict):
                await plane.control.create_node({"name": "n"}, REQUEST)
            with pytest.raises(BadRequest):
                await plane.control.create_node({"name": "n 2"}, REQUEST)
            with pytest.raises(BadRequest):
                await plane.control.update("node", reply.body["uuid"], {"tags": [1]}, REQUEST)
            patched = await plane.control.update(
                "node", reply.body["uuid"], {"nickname": "nick", "tags": []}, REQUEST
            )
            assert (patched.body["nickname"], patched.body["tags"]) == ("nick", [])
            checked = await plane.control.act("node", reply.body["uuid"], "health-check", REQUEST)
            assert plane.action(checked)["action"] == "Node Health Check"
            await plane.control.terminate("node", reply.body["uuid"], REQUEST)
            for verb in ("terminate", "deploy", "docker-upgrade", "health-check"):
                with pytest.raises(BadRequest, match="in state 'Terminated'"):
                    await plane.control.act("node", reply.body["uuid"], verb, REQUEST)

    run(test)


def test_clusters() -> None:
    async def test() -> None:
        async with Plane() as plane:
            own = plane.control.listing("nodecluster")[0]
            assert (own["name"], own["state"], own["current_num_nodes"]) == ("simulated", "Deployed", 1)
            body = {"name": "c", "node_type": "/t/", "region": "/r/", "target_num_nodes": 2, "tags": ["blue"]}
            cluster = (await plane.control.create_nodecluster(body, REQUEST)).body
            assert (cluster["state"], cluster["nodes"]) == ("Init", [])
            await plane.control.act("nodecluster", cluster["uuid"], "deploy", REQUEST)
            upgraded = await plane.control.act("nodecluster", cluster["uuid"], "docker-upgrade", REQUEST)
            assert plane.action(upgraded)["action"] == "Node Cluster Docker Upgrade"
            await plane.advance()
            uuid = await plane.up(tags=["blue"], deployment_strategy="EVERY_NODE")
            assert plane.get(uuid)["running_num_containers"] == 2
            await plane.control.update("nodecluster", cluster["uuid"], {"target_num_nodes": 3}, REQUEST)
            await plane.advance(5)
            assert plane.get(uuid)["running_num_containers"] == 3
            await plane.control.terminate("nodecluster", cluster["uuid"], REQUEST)
            await plane.advance(5)
            assert plane.control.detail("nodecluster", cluster["uuid"])["state"] == "Terminated"
            assert plane.get(uuid)["current_num_containers"] == 0
            for verb in ("terminate", "deploy", "docker-upgrade"):
                with pytest.raises(BadRequest, match="in state 'Terminated'"):
                    await plane.control.act("nodecluster", cluster["uuid"], verb, REQUEST)
            with pytest.raises(BadRequest, match="in state 'Terminated'"):
                await plane.control.update("nodecluster", cluster["uuid"], {"target_num_nodes": 1}, REQUEST)
            with pytest.raises(BadRequest):
                await plane.control.create_nodecluster({"name": "x"}, REQUEST)
            with pytest.raises(NotAllowed):
                await plane.control.terminate("nodecluster", own["uuid"], REQUEST)

    run(test)


def test_clusters_by_where_and_what_they_are() -> None:
    async def test() -> None:
        async with Plane() as plane:
            places = {
                "node_type": "/api/v1/nodetype/aws/t2.micro/",
                "region": "/api/v1/region/aws/eu-west-1/",
            }
            await plane.control.create_nodecluster({"name": "far", **places}, REQUEST)

            def names(kind: str = "nodecluster", **filters: str) -> list[str]:
                return [o.get("name", "node") for o in plane.control.listing(kind, filters)[:]]

            for name, place in places.items():
                assert names(**{name: place}) == ["far"]
                assert names(**{name: place.rstrip("/")}) == ["far"]
                assert names(**{name: place.split("/")[-2]}) == ["far"]
                assert names(**{name: "local"}) == ["simulated"]
                assert names(**{name: place.replace("aws", "other")}) == []
            for name in ("node_type", "region"):
                assert names("node", **{name: "local"}) == ["node"]
                assert names("node", **{name: plane.control.listing("node")[0][name]}) == ["node"]
                assert names("node", **{name: "notlocal"}) == []

    run(test)


def test_tags_with_their_origin() -> None:
    async def test() -> None:
        async with Plane({"a": ["mine"]}) as plane:
            tags = {t["name"]: t["origin"] for t in plane.control.listing("tag")[:]}
            assert tags == {"mine": "user", "local": "tutum", "simulated": "tutum"}
            assert plane.control.detail("tag", "mine") == {"name": "mine", "origin": "user"}
            assert [t["name"] for t in plane.control.listing("tag", {"origin": "user"})[:]] == ["mine"]
            with pytest.raises(NotFound):
                plane.control.detail("tag", "none")

    run(test)


def test_fixed_things() -> None:
    async def test() -> None:
        async with Plane() as plane:
            for kind, name in (
                ("provider", "simulated"),
                ("region", "simulated/local"),
                ("nodetype", "simulated/local"),
            ):
                (found,) = plane.control.listing(kind)[:]
                assert plane.control.detail(kind, name) == found
                with pytest.raises(NotFound):
                    plane.control.detail(kind, "other")
            assert list(plane.control.listing("az")) == []
            node = plane.control.listing("node")[0]
            assert plane.control.detail("nodetype", node["node_type"].split("nodetype/")[1])

    run(test)


def test_a_second_server_on_one_folder_is_refused(tmp_path: Path) -> None:
    async def test() -> None:
        async with Plane(store=SqliteStore(tmp_path)):
            with pytest.raises(ConfigError):
                SqliteStore(tmp_path)

    run(test)


@pytest.mark.parametrize(
    ("image", "env", "expected"),
    [
        ("acme/web:latest", {}, {}),
        ("simulated/exit:3", {}, {"exit_code": 3}),
        (
            "simulated/exit:latest",
            {"SIMULATE_EXIT": "0", "SIMULATE_EXIT_AFTER": "7"},
            {"exit_code": 0, "exit_after": 7.0},
        ),
        ("simulated/crash:2", {}, {"crashes": 2}),
        ("simulated/hang:latest", {}, {"hang": True}),
        ("simulated/unstartable:latest", {}, {"start_error": "the entrypoint could not be executed"}),
        ("simulated/slow:9", {}, {"start_seconds": 9.0}),
        ("simulated/slow-stop:9", {}, {"stop_seconds": 9.0}),
        ("simulated/unhealthy:latest", {}, {"unhealthy": True}),
        ("simulated/chatty:9", {}, {"log_lines": 9}),
        ("simulated/exit:3", {"SIMULATE_ONLY": "2, 3"}, {}),
        ("simulated/exit:3", {"SIMULATE_ONLY": "2, 01"}, {"exit_code": 3}),
        ("simulated/exit", {}, {"exit_code": 0}),
        ("simulated/exit:3", {"SIMULATE_EXIT": ""}, {"exit_code": 3}),
        ("simulated/hang", {"SIMULATE_HANG": "0"}, {}),
        ("acme/web:latest", {"SIMULATE_HANG": "0", "SIMULATE_EXIT_AFTER": "0.5"}, {"exit_after": 0.5}),
    ],
)
def test_misbehaviour_as_documented(image: str, env: dict[str, str], expected: dict[str, object]) -> None:
    plain = behaviour(ContainerSpec("u", "web-1", "s", "web", 1, "n", "acme/web:latest", "r"))
    found = behaviour(ContainerSpec("u", "web-1", "s", "web", 1, "n", image, "r", environment=env))
    changed = {
        k: getattr(found, k) for k in found.__dataclass_fields__ if getattr(found, k) != getattr(plain, k)
    }
    assert changed == expected


NONSENSE = [
    "nan",
    "NaN",
    "inf",
    "-inf",
    "-1",
    "1e400",
    "9" * 5000,
    "1e10",
    "x",
    "\u0663",
    "\u00b2",
    "\ud800",
    "0x1",
]
VARIABLES = (
    "EXIT",
    "EXIT_AFTER",
    "CRASHES",
    "HANG",
    "START_SECONDS",
    "STOP_SECONDS",
    "UNHEALTHY",
    "HEALTHY_AFTER",
    "LOG_LINES",
    "ONLY",
)


@pytest.mark.parametrize("value", NONSENSE)
def test_a_value_that_makes_no_sense_is_an_error_of_the_start_that_names_it(value: str) -> None:
    async def test() -> None:
        async with Plane() as plane:
            for variable in VARIABLES:
                uuid = await plane.create(name="web", container_envvars={f"SIMULATE_{variable}": value})
                error = plane.action(await plane.act_and_wait(uuid, "start"))["error"]
                assert error.startswith(f"web-1: SIMULATE_{variable} must be "), error
                await plane.act_and_wait(uuid, "terminate")

    run(test)


@pytest.mark.parametrize("image", ["exit", "crash", "slow", "slow-stop", "checked", "chatty"])
@pytest.mark.parametrize("tag", ["nan", "inf", "1x", "1e400", "99999999999", "v1.2"])
def test_a_tag_that_makes_no_sense_is_an_error_of_the_start_that_names_the_image(
    image: str, tag: str
) -> None:
    async def test() -> None:
        async with Plane() as plane:
            uuid = await plane.create(name="web", image=f"simulated/{image}:{tag}")
            error = plane.action(await plane.act_and_wait(uuid, "start"))["error"]
            assert error.startswith(f"web-1: the tag of the image simulated/{image} must be "), error

    run(test)


def test_only_the_last_of_very_many_lines_are_kept() -> None:
    async def test() -> None:
        async with Plane() as plane:
            uuid = await plane.up(container_envvars={"SIMULATE_LOG_LINES": "1000000000"})
            batches = [batch async for batch in plane.control.logs("service", uuid, 2, follow=False)]
            assert [frame["log"] for frame in batches[0]] == ["line 999999999\n", "line 1000000000\n"]

    run(test)


@pytest.mark.parametrize(
    ("command", "code", "said"),
    [
        (["exit", "3"], 3, ""),
        (["exit", "259"], 3, ""),
        (["exit", "nan"], 2, "sh: exit: Illegal number: nan\n"),
        (["exit", "\u0663"], 2, "sh: exit: Illegal number: \u0663\n"),
        (["exit", "9" * 5000], 2, f"sh: exit: Illegal number: {'9' * 5000}\n"),
        (["sh", "-c", "echo 'it"], 2, "sh: syntax error: unterminated quoted string\n"),
    ],
)
def test_commands_in_simulated_containers(command: list[str], code: int, said: str) -> None:
    async def test() -> None:
        async with Plane() as plane:
            (container,) = plane.containers(await plane.up())
            session = await plane.control.exec(container["uuid"], command)
            assert "".join([text async for _, text in session.output()]) == said
            assert await session.wait() == code

    run(test)


def test_manual_clock_calls_in_order() -> None:
    clock = ManualClock(0)
    seen: list[str] = []
    clock.call_later(2, seen.append, "b")
    clock.call_later(1, seen.append, "a")
    clock.call_later(3, seen.append, "never").cancel()
    clock.call_later(1, lambda: clock.call_later(0.5, seen.append, "between"))
    clock.advance(5)
    assert seen == ["a", "between", "b"]
    assert clock.time() == 5
