"""Stacks, and stackfile keys."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from pulumi_tutum.errors import BadRequest, Conflict
from pulumi_tutum.server.core import stack_state
from pulumi_tutum.server.stackfile import megabytes, to_attributes
from pulumi_tutum.server.store import SqliteStore
from tests.unit.server.plane import REQUEST, Plane, run

FILE: dict[str, Any] = {
    "name": "shop",
    "services": [
        {
            "name": "web",
            "image": "acme/web",
            "ports": ["80", "8080:81/tcp"],
            "expose": ["90/udp"],
            "links": ["db", "db:cache"],
            "environment": ["A=b=c", "EMPTY"],
            "restart": "on-failure",
            "command": "/run.sh --fast",
            "mem_limit": "512m",
            "deployment_strategy": "high_availability",
            "target_num_containers": 2,
            "volumes": ["/data", "/srv:/srv:ro"],
            "tags": ["front"],
        },
        {"name": "db", "image": "redis", "environment": {"B": 1, "C": True}, "autodestroy": False},
    ],
}


def test_stackfile_keys() -> None:
    found = to_attributes(FILE["services"][0])
    assert found["container_ports"] == [
        {"protocol": "tcp", "inner_port": 80, "published": True},
        {"protocol": "tcp", "inner_port": 81, "published": True, "outer_port": 8080},
        {"protocol": "udp", "inner_port": 90, "published": False},
    ]
    assert found["linked_to_service"] == [
        {"to_service": "db", "name": "db"},
        {"to_service": "db", "name": "cache"},
    ]
    assert found["container_envvars"] == [{"key": "A", "value": "b=c"}, {"key": "EMPTY", "value": ""}]
    assert (found["autorestart"], found["run_command"], found["memory"]) == (
        "ON_FAILURE",
        "/run.sh --fast",
        512,
    )
    assert found["bindings"] == [
        {"container_path": "/data"},
        {"container_path": "/srv", "host_path": "/srv", "rewritable": False},
    ]
    assert found["deployment_strategy"] == "HIGH_AVAILABILITY"


def test_api_keys_pass_through() -> None:
    body = {
        "name": "x",
        "image": "y",
        "container_ports": [{"protocol": "tcp", "inner_port": 1}],
        "autorestart": "ALWAYS",
    }
    assert to_attributes(body) == body


@pytest.mark.parametrize(
    "bad",
    [
        {"build": "."},
        {"env_file": "x"},
        {"external_links": ["x"]},
        {"ports": ["x"]},
        {"ports": "80"},
        {"expose": ["80:80"]},
        {"volumes": ["/a:/b:/c:/d"]},
        {"mem_limit": "lots"},
        {"environment": 5},
    ],
)
def test_what_cannot_be_translated(bad: dict[str, Any]) -> None:
    with pytest.raises(BadRequest, match=next(iter(bad))):
        to_attributes({"image": "x", **bad})


@pytest.mark.parametrize(
    ("text", "size"), [("512m", 512), ("1g", 1024), ("2048k", 2), (1048576, 1), ("8MB", 8)]
)
def test_sizes(text: Any, size: int) -> None:
    assert megabytes(text) == size


def test_a_stacks_life() -> None:
    async def test() -> None:
        async with Plane({"n": ["front"], "m": ["front"]}, user="bob") as plane:
            reply = await plane.control.create_stack(FILE, REQUEST)
            stack = reply.body
            assert (reply.status, stack["state"], len(stack["services"])) == (201, "Not running", 2)
            web, db = (uri.split("/")[-2] for uri in stack["services"])
            assert plane.get(web)["public_dns"] == "web.shop.bob.svc.localhost"
            assert plane.get(web)["stack"] == stack["resource_uri"]
            assert [x["to_service"] for x in plane.get(web)["linked_to_service"]] == [
                f"/api/v1/service/{db}/"
            ] * 2
            other = await plane.create(name="web")
            with pytest.raises(Conflict):
                await plane.control.create_stack({"name": "Shop"}, REQUEST)

            def state() -> str:
                return str(plane.control.detail("stack", stack["uuid"])["state"])

            started = await plane.control.act("stack", stack["uuid"], "start", REQUEST)
            assert started.body["state"] == "Starting"
            await plane.advance(5)
            assert state() == "Running"

            export = plane.control.export_stack(stack["uuid"])
            assert export["web"]["links"] == ["db:db", "db:cache"]
            assert export["web"]["ports"] == ["80", "8080:81"]
            assert to_attributes({**export["db"], "name": "db"})["image"] == "redis:latest"
            again = await plane.control.create_stack(
                {"name": "copy", "services": [{"name": n, **d} for n, d in export.items()]}, REQUEST
            )
            copy = again.body["services"][0].split("/")[-2]
            for key in (
                "container_ports",
                "run_command",
                "memory",
                "autorestart",
                "bindings",
                "tags",
                "target_num_containers",
            ):
                wanted = plane.get(web)[key]
                found = plane.get(copy)[key]
                if key == "container_ports":
                    assert [p["outer_port"] for p in found] == [p["outer_port"] for p in wanted]
                else:
                    assert found == wanted, key

            await plane.control.act("stack", stack["uuid"], "stop", REQUEST)
            await plane.advance(5)
            assert state() == "Stopped"
            await plane.control.update(
                "stack", stack["uuid"], {"services": [{"name": "db", "image": "redis:2"}]}, REQUEST
            )
            await plane.advance(5)
            assert plane.state(web) == "Terminated"
            assert plane.get(db)["image_name"] == "redis:2"
            await plane.control.terminate("stack", stack["uuid"], REQUEST)
            await plane.advance(5)
            assert (state(), plane.state(db)) == ("Terminated", "Terminated")
            assert plane.control.detail("stack", stack["uuid"])["destroyed_datetime"] is not None
            assert plane.state(other) == "Not running"

    run(test)


def test_a_stack_is_made_whole_or_not_at_all() -> None:
    async def test() -> None:
        async with Plane() as plane:
            body = {
                "name": "s",
                "services": [{"name": "a", "image": "x"}, {"name": "b", "image": "x", "memory": 1}],
            }
            with pytest.raises(BadRequest, match="Service 'b': memory") as refused:
                await plane.control.create_stack(body, REQUEST)
            assert refused.value.detail["service"]["memory"][0].startswith("Service 'b': memory")
            assert len(plane.control.listing("stack")) == len(plane.control.listing("service")) == 0
            with pytest.raises(Conflict, match="given twice"):
                await plane.control.create_stack(
                    {"name": "s", "services": [{"image": "x"}, {"image": "x"}]}, REQUEST
                )
            for services in ("x", [3], {"a": 1}):
                with pytest.raises(BadRequest):
                    await plane.control.create_stack({"name": "s", "services": services}, REQUEST)
            with pytest.raises(BadRequest):
                await plane.control.create_stack({"services": []}, REQUEST)

    run(test)


TWO: dict[str, Any] = {
    "name": "two",
    "services": [{"name": "a", "image": "x"}, {"name": "b", "image": "x", "target_num_containers": 2}],
}


def test_a_stacks_action_lasts_as_long_as_those_of_its_services() -> None:
    async def test() -> None:
        async with Plane() as plane:
            stack = (await plane.control.create_stack(TWO, REQUEST)).body
            for verb in ("start", "stop", "redeploy", "terminate"):
                reply = await plane.control.act("stack", stack["uuid"], verb, REQUEST)
                assert plane.action(reply)["state"] == "In progress"
                assert plane.action(reply)["end_date"] is None
                await plane.advance(5)
                assert plane.action(reply)["state"] == "Success"
                assert plane.action(reply)["end_date"] is not None
            empty = (await plane.control.create_stack({"name": "empty"}, REQUEST)).body
            reply = await plane.control.terminate("stack", empty["uuid"], REQUEST)
            assert plane.action(reply)["state"] == "Success"

    run(test)


def test_a_stacks_action_fails_with_one_of_its_services() -> None:
    async def test() -> None:
        async with Plane() as plane:
            services = [*TWO["services"], {"name": "bad", "image": "simulated/missing"}]
            stack = (await plane.control.create_stack({"name": "s", "services": services}, REQUEST)).body
            reply = await plane.control.act("stack", stack["uuid"], "start", REQUEST)
            await plane.advance(30)
            action = plane.action(reply)
            assert action["state"] == "Failed"
            assert "bad-1" in action["error"]
            assert action["can_be_retried"] is True

    run(test)


def test_a_stacks_action_is_called_off_with_those_of_its_services() -> None:
    async def test() -> None:
        async with Plane(start_seconds=50) as plane:
            stack = (await plane.control.create_stack(TWO, REQUEST)).body
            reply = await plane.control.act("stack", stack["uuid"], "start", REQUEST)
            action = plane.action(reply)
            assert action["can_be_canceled"] is True
            await plane.control.act("action", action["uuid"], "cancel", REQUEST)
            assert plane.action(reply)["state"] == "Canceling"
            await plane.advance(5)
            assert plane.action(reply)["state"] == "Canceled"
            assert plane.control.detail("stack", stack["uuid"])["state"] == "Not running"
            renewed = await plane.control.act("action", action["uuid"], "retry", REQUEST)
            await plane.advance(60)
            assert plane.action(renewed)["state"] == "Success"
            assert plane.control.detail("stack", stack["uuid"])["state"] == "Running"

    run(test)


def test_a_stacks_action_ends_after_a_restart(tmp_path: Path) -> None:
    async def test() -> None:
        async with Plane(store=SqliteStore(tmp_path)) as plane:
            stack = (await plane.control.create_stack(TWO, REQUEST)).body
            reply = await plane.control.act("stack", stack["uuid"], "start", REQUEST)
        async with Plane(store=SqliteStore(tmp_path)) as plane:
            assert plane.action(reply)["state"] == "In progress"
            await plane.advance(30)
            assert plane.action(reply)["state"] == "Success"

    run(test)


def test_shared_volumes_are_no_obstacle_within_a_stack() -> None:
    async def test() -> None:
        async with Plane() as plane:
            services = [
                {"name": "data", "image": "x", "volumes": ["/d"]},
                {"name": "user", "image": "x", "volumes_from": ["data"], "links": ["data"]},
            ]
            reply = await plane.control.create_stack({"name": "s", "services": services}, REQUEST)
            uuid = reply.body["uuid"]
            await plane.control.act("stack", uuid, "start", REQUEST)
            await plane.advance(5)
            await plane.control.terminate("stack", uuid, REQUEST)
            await plane.advance(5)
            assert plane.control.detail("stack", uuid)["state"] == "Terminated"

    run(test)


@pytest.mark.parametrize(
    ("states", "expected"),
    [
        ([], "Not running"),
        (["Running", "Scaling"], "Running"),
        (["Running", "Not running"], "Partly running"),
        (["Stopped", "Not running"], "Stopped"),
        (["Running", "Starting"], "Starting"),
        (["Running", "Terminated"], "Running"),
    ],
)
def test_stack_states(states: list[str], expected: str) -> None:
    assert stack_state(states, False) == expected


def test_stack_states_at_the_end() -> None:
    assert stack_state(["Terminating", "Terminated"], True) == "Terminating"
    assert stack_state(["Terminated"], True) == "Terminated"


DATA: dict[str, Any] = {
    "name": "s",
    "services": [
        {"name": "data", "image": "x", "volumes": ["/d"]},
        {"name": "db", "image": "x"},
        {"name": "user", "image": "x", "volumes_from": ["data"], "links": ["db"]},
    ],
}


def snapshot(plane: Plane, stack: str) -> Any:
    """A stack and its services, as they are seen from outside."""
    found = plane.control.detail("stack", stack)
    return found, [plane.get(uri.split("/")[-2]) for uri in found["services"]]


@pytest.mark.parametrize(
    ("services", "error", "text"),
    [
        # Volumes that others use, of a service that is dropped.
        (
            [{"name": "db", "image": "y"}, {"name": "user", "image": "y"}],
            Conflict,
            "Service cannot be terminated .* used by 'user'",
        ),
        # Two that are dropped, and a new one.
        (
            [{"name": "new", "image": "y"}, {"name": "user", "image": "y", "links": []}],
            Conflict,
            "Service 'data' cannot be terminated .* used by 'user'",
        ),
        # References to one that is dropped.
        (
            [{"name": "data", "image": "y", "links": ["user"]}, {"name": "db", "image": "y"}],
            BadRequest,
            "Service 'data': linked_to_service.* no such service",
        ),
        (
            [{"name": "db", "image": "y", "volumes_from": ["data"]}],
            BadRequest,
            "Service 'db': bindings.* no such service",
        ),
        # A definition that is wrong, after others that are right.
        (
            [{"name": "data", "image": "y"}, {"name": "db", "image": "y", "memory": 1}],
            BadRequest,
            "Service 'db': memory",
        ),
        # Volumes in a circle.
        (
            [
                {"name": "data", "image": "y", "volumes_from": ["user"]},
                {"name": "db", "image": "y"},
                {"name": "user", "image": "y"},
            ],
            BadRequest,
            "Service 'data': bindings.*leads back to this service",
        ),
        ([{"name": 5, "image": "y"}, {"name": "data", "image": "y"}], BadRequest, "name"),
    ],
)
def test_a_stacks_patch_is_stored_whole_or_not_at_all(
    services: list[dict[str, Any]], error: type[Exception], text: str
) -> None:
    async def test() -> None:
        async with Plane() as plane:
            stack = (await plane.control.create_stack(DATA, REQUEST)).body["uuid"]
            before = snapshot(plane, stack)
            body = {"nickname": "other", "services": services}
            with pytest.raises(error, match=text):
                await plane.control.update("stack", stack, body, REQUEST)
            await plane.advance(5)
            assert snapshot(plane, stack) == before
            assert len(plane.control.listing("service")) == 3

    run(test)


def test_a_conflict_of_a_stacks_patch_is_recorded() -> None:
    async def test() -> None:
        async with Plane() as plane:
            stack = (await plane.control.create_stack(DATA, REQUEST)).body
            body = {"services": [{"name": "user", "image": "y"}]}
            with pytest.raises(Conflict) as refused:
                await plane.control.update("stack", stack["uuid"], body, REQUEST)
            action = plane.control.detail("action", str(refused.value.action_uri).split("/")[-2])
            assert (action["action"], action["state"]) == ("Stack Update", "Failed")
            assert action["object"] == stack["resource_uri"]

    run(test)


def test_a_stacks_patch_may_drop_a_source_together_with_its_use() -> None:
    async def test() -> None:
        async with Plane() as plane:
            stack = (await plane.control.create_stack(DATA, REQUEST)).body
            await plane.control.act("stack", stack["uuid"], "start", REQUEST)
            await plane.advance(5)
            services = [{"name": "user", "image": "x", "bindings": []}]
            reply = await plane.control.update("stack", stack["uuid"], {"services": services}, REQUEST)
            assert plane.action(reply)["state"] == "In progress", "services are being terminated"
            await plane.advance(5)
            assert plane.action(reply)["state"] == "Success"
            (left,) = snapshot(plane, stack["uuid"])[1]
            assert (left["name"], left["bindings"]) == ("user", [])
            # It keeps its link to db, which is gone, and may repeat it, also by name.
            assert len(left["linked_to_service"]) == 1
            exported = plane.control.export_stack(stack["uuid"])
            assert exported["user"]["links"] == ["db:db"]
            again = {"services": [{"name": "user", **exported["user"]}]}
            reply = await plane.control.update("stack", stack["uuid"], again, REQUEST)
            assert plane.action(reply)["state"] == "Success"
            assert snapshot(plane, stack["uuid"])[1][0]["linked_to_service"] == left["linked_to_service"]
            with pytest.raises(BadRequest, match="there is no such service"):
                await plane.control.create_stack({"name": "copy", **again}, REQUEST)

    run(test)


def test_a_stacks_patch_may_repeat_what_it_lists() -> None:
    async def test() -> None:
        async with Plane() as plane:
            outside = await plane.create(name="outside")
            services = [*DATA["services"], {"name": "web", "image": "x", "links": ["outside:OUT", "db"]}]
            stack = (await plane.control.create_stack({"name": "s", "services": services}, REQUEST)).body
            await plane.act_and_wait(outside, "terminate")
            before = snapshot(plane, stack["uuid"])[1]
            exported = plane.control.export_stack(stack["uuid"])
            for body in ([{"name": n, **d} for n, d in exported.items()], before):
                await plane.control.update("stack", stack["uuid"], {"services": body}, REQUEST)
                assert snapshot(plane, stack["uuid"])[1] == before

    run(test)


def test_volumes_of_a_new_stack_do_not_come_from_a_circle() -> None:
    async def test() -> None:
        async with Plane() as plane:
            for sources in (["a"], ["b"]):
                services = [
                    {"name": "a", "image": "x", "volumes_from": sources},
                    {"name": "b", "image": "x", "volumes_from": ["a"]},
                ]
                with pytest.raises(BadRequest, match=r"Service 'a': bindings.*leads back to this service"):
                    await plane.control.create_stack({"name": "s", "services": services}, REQUEST)
            assert len(plane.control.listing("stack")) == 0

    run(test)


def test_a_stacks_patch_may_turn_the_use_of_volumes_round() -> None:
    async def test() -> None:
        async with Plane() as plane:
            stack = (await plane.control.create_stack(DATA, REQUEST)).body
            services = [
                {"name": "data", "image": "x", "volumes_from": ["user"]},
                {"name": "db", "image": "x"},
                {"name": "user", "image": "x", "volumes": ["/d"]},
            ]
            await plane.control.update("stack", stack["uuid"], {"services": services}, REQUEST)
            data, _, user = snapshot(plane, stack["uuid"])[1]
            assert data["bindings"][0]["volumes_from"] == user["resource_uri"]

    run(test)
