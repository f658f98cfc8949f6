"""What a service's definition may be, what is answered, create keys, links and volumes."""

from __future__ import annotations

import asyncio
import json
from typing import Any

import pytest

from pulumi_tutum.errors import BadRequest, Conflict, NotFound
from pulumi_tutum.server.backends.simulated import SimulatedBackend
from tests.unit.server.plane import REQUEST, Plane, run


def test_shapes_have_exactly_the_documented_types() -> None:
    async def test() -> None:
        async with Plane(user="bob", dns_suffix="tutum.io") as plane:
            uuid = await plane.create(
                image="acme/Web".lower(),
                target_num_containers=2,
                container_ports=[
                    {"protocol": "tcp", "inner_port": 80, "outer_port": 8080, "published": True}
                ],
                container_envvars=[{"key": "MODE", "value": "prod"}],
                tags=[{"name": "front"}],
            )
            detail = plane.get(uuid)
            assert detail["uuid"][14] == "4"
            expected: dict[str, Any] = {
                "name": "web",
                "image_name": "acme/web:latest",
                "image_tag": "/api/v1/image/acme/web/tag/latest/",
                "state": "Not running",
                "synchronized": True,
                "target_num_containers": 2,
                "current_num_containers": 0,
                "containers": [],
                "cpu_shares": None,
                "memory": None,
                "entrypoint": None,
                "run_command": None,
                "net": "bridge",
                "network": "bridge",
                "pid": "none",
                "stack": None,
                "public_dns": "web.bob.svc.tutum.io",
                "link_variables": {},
                "linked_from_service": [],
                "linked_to_service": [],
                "bindings": [],
                "roles": [],
                "tags": [{"name": "front"}],
                "container_envvars": [{"key": "MODE", "value": "prod"}],
                "privileged": False,
                "autorestart": "OFF",
                "autodestroy": "OFF",
                "autoredeploy": False,
                "sequential_deployment": False,
                "deployment_strategy": "EMPTIEST_NODE",
                "container_ports": [
                    {
                        "endpoint_uri": "http://web.bob.svc.tutum.io:8080/",
                        "inner_port": 80,
                        "outer_port": 8080,
                        "port_name": "http",
                        "protocol": "tcp",
                        "published": True,
                    }
                ],
            }
            assert {k: detail[k] for k in expected} == expected
            listed = plane.control.listing("service")[0]
            missing = {
                "container_envvars",
                "containers",
                "bindings",
                "link_variables",
                "linked_to_service",
                "roles",
                "tags",
            }
            assert not missing & listed.keys()
            assert {k: detail[k] for k in listed} == listed
            assert json.loads(plane.control.detail_json("service", uuid)) == detail

    run(test)


def test_a_list_renders_only_what_has_changed_since_the_last_one() -> None:
    async def test() -> None:
        async with Plane() as plane:
            for number in range(3):
                await plane.up(name=f"web-{number}")

            def rendered() -> list[bytes]:
                return [plane.control.core.listed_json(s) for s in plane.control.records.services.values()]

            first, second = rendered(), rendered()
            assert all(a is b for a, b in zip(first, second, strict=True))
            await plane.patch(plane.control.listing("service", {"name": "web-1"})[0]["uuid"], memory=64)
            third = rendered()
            assert [a is b for a, b in zip(first, third, strict=True)] == [True, False, True]

    run(test)


def test_rendered_answers_are_never_stale() -> None:
    async def test() -> None:
        async with Plane() as plane:
            db = await plane.up(name="db", image="redis")
            web = await plane.up(name="web", linked_to_service=[{"to_service": db}])

            def check() -> None:
                for uuid in (db, web):
                    assert json.loads(plane.control.detail_json("service", uuid)) == plane.get(uuid)
                listing = plane.control.listing("service")
                assert json.loads(listing.json(slice(None))) == list(listing)

            check()
            for step in ("redeploy", "stop", "start"):
                await plane.act(db, step)
                check()
                for _ in range(30):
                    await plane.advance(0.1)
                    check()
            await plane.patch(web, linked_to_service=[])
            check()
            assert plane.get(db)["linked_from_service"] == []
            await plane.patch(web, linked_to_service=[{"to_service": "db"}])
            check()
            await plane.act(web, "terminate")
            await plane.advance(1)
            check()
            assert plane.get(db)["linked_from_service"] == []

    run(test)


@pytest.mark.parametrize(
    ("body", "field"),
    [
        ({"image": None}, "image"),
        ({"image": ""}, "image"),
        ({"image": "UPPER"}, "image"),
        ({"name": "-x"}, "name"),
        ({"target_num_containers": -1}, "target_num_containers"),
        ({"container_ports": [{"protocol": "tcp"}]}, "container_ports"),
        ({"container_ports": "80"}, "container_ports"),
        ({"container_ports": [{"protocol": "tcp", "inner_port": 80}] * 2}, "container_ports"),
        ({"linked_to_service": [{"to_service": "nobody"}]}, "linked_to_service"),
        ({"linked_to_service": [{"name": "x"}]}, "linked_to_service"),
        ({"linked_to_service": ["web"]}, "linked_to_service"),
        ({"linked_to_service": {"a": 1}}, "linked_to_service"),
        ({"bindings": [{}]}, "bindings"),
        ({"bindings": [{"volumes_from": "nobody"}]}, "bindings"),
        ({"autorestart": "ALWAYS", "autodestroy": "ALWAYS"}, "autodestroy"),
        ({"autodestroy": "ON_FAILURE"}, "autodestroy"),
        ({"net": "host", "network": "bridge"}, "network"),
        ({"roles": ["root"]}, "roles"),
        ({"memory": 1}, "memory"),
        ({"tags": [3]}, "tags"),
        ({"container_envvars": [{"value": "x"}]}, "container_envvars"),
        ({"working_dir": "relative"}, "working_dir"),
    ],
)
def test_refused_definitions(body: dict[str, Any], field: str) -> None:
    async def test() -> None:
        async with Plane() as plane:
            await plane.create(name="web")
            with pytest.raises(BadRequest) as refused:
                await plane.create(**{"name": "other", **body})
            assert field in refused.value.message
            assert list(refused.value.detail["service"]) == [field]
            assert len(plane.control.listing("service")) == 1
            web = plane.control.listing("service")[0]["uuid"]
            before = plane.get(web)
            if field not in ("name",) and body.get("image", "x") is not None:
                with pytest.raises(BadRequest):
                    await plane.patch(web, **body)
                assert plane.get(web) == before

    run(test)


def test_old_clients_spellings() -> None:
    async def test() -> None:
        async with Plane() as plane:
            db = await plane.create(name="db")
            uuid = await plane.create(
                name="web",
                container_ports=[{"protocol": "tcp", "inner_port": "80", "outer_port": 0, "container": ""}],
                tags=["a"],
                linked_to_service=[{"to_service": "DB", "name": "db", "from_service": "/api/v1/service/x/"}],
                entrypoint="",
                bindings=[{"volume_from": "", "host_path": "", "container_path": "/x", "rewritable": False}],
                net="host",
                unknown={"a": 1},
            )
            detail = plane.get(uuid)
            assert detail["container_ports"][0]["inner_port"] == 80
            assert detail["container_ports"][0]["outer_port"] is None
            assert detail["tags"] == [{"name": "a"}]
            assert detail["linked_to_service"][0]["to_service"] == f"/api/v1/service/{db}/"
            assert detail["entrypoint"] is None
            assert detail["bindings"][0]["host_path"] is None
            assert detail["network"] == detail["net"] == "host"

    run(test)


def test_names_are_unique_among_the_living() -> None:
    async def test() -> None:
        async with Plane() as plane:
            uuid = await plane.create(name="Web")
            with pytest.raises(Conflict, match="There is a service with the name 'web' already"):
                await plane.create(name="web")
            await plane.act(uuid, "terminate")
            other = await plane.create(name="web")
            assert plane.get(other)["name"] == "web"
            assert [s["state"] for s in plane.control.listing("service", {"name": "web"})[:]] == [
                "Not running"
            ]

    run(test)


@pytest.mark.parametrize(
    ("image", "name"),
    [
        ("tutum.co/acme/api:1.2", "api"),
        ("redis", "redis"),
        ("h:5000/a/b.c_d", "b-c_d"),
        ("a/b@sha256:" + "0" * 64, "b"),
    ],
)
def test_default_names(image: str, name: str) -> None:
    async def test() -> None:
        async with Plane() as plane:
            assert plane.get(await plane.create(image=image))["name"] == name

    run(test)


def test_a_key_makes_one_service() -> None:
    async def test() -> None:
        async with Plane() as plane:
            create = plane.control.create_service
            replies = await asyncio.gather(
                *(create({"image": "a", "name": f"n{i}"}, REQUEST, "key") for i in range(10))
            )
            assert {r.body["uuid"] for r in replies} == {replies[0].body["uuid"]}
            assert sorted(r.status for r in replies) == [200] * 9 + [201]
            uuid = replies[0].body["uuid"]
            assert plane.control.close_keys(["key", "key", "other"]) == 1
            with pytest.raises(Conflict, match=f"{uuid}.*adopt"):
                await create({"image": "a"}, REQUEST, "key")
            await plane.act(uuid, "terminate")
            again = await create({"image": "a"}, REQUEST, "key")
            assert (again.status, again.body["uuid"] != uuid) == (201, True)
            keyless = await plane.create(name="keyless")
            assert plane.control.close_keys(["key"], [again.body["uuid"], uuid, keyless, "no uuid"]) == 1
            with pytest.raises(Conflict, match="adopt"):
                await create({"image": "a"}, REQUEST, "key")

    run(test)


def test_patch_resets_with_null_and_ignores_what_it_does_not_take() -> None:
    async def test() -> None:
        async with Plane() as plane:
            uuid = await plane.create(name="web", run_command="/x", memory=64, target_num_containers=3)
            await plane.patch(
                uuid, run_command=None, memory=None, name="other", state="Running", resource_uri="x"
            )
            detail = plane.get(uuid)
            assert (detail["run_command"], detail["memory"], detail["name"]) == (None, None, "web")
            assert detail["target_num_containers"] == 3

    run(test)


def test_synchronized_follows_the_definition_there_and_back() -> None:
    async def test() -> None:
        async with Plane() as plane:
            uuid = await plane.up(name="web", run_command="/a")
            for body in (
                {"target_num_containers": 3},
                {"autoredeploy": True},
                {"deployment_strategy": "HIGH_AVAILABILITY"},
            ):
                await plane.patch(uuid, **body)
                assert plane.get(uuid)["synchronized"] is True, body
            await plane.patch(uuid, run_command="/b")
            assert plane.get(uuid)["synchronized"] is False
            assert plane.containers(uuid)[0]["synchronized"] is False
            await plane.act(uuid, "scale")
            await plane.advance(2)
            assert [c["synchronized"] for c in plane.containers(uuid)] == [False, True, True]
            await plane.patch(uuid, run_command="/a")
            assert [c["synchronized"] for c in plane.containers(uuid)] == [True, False, False]

    run(test)


def test_every_node() -> None:
    async def test() -> None:
        async with Plane({"a": [], "b": ["x"], "c": ["x"]}) as plane:
            uuid = await plane.up(deployment_strategy="EVERY_NODE", target_num_containers=5, tags=["x"])
            assert plane.get(uuid)["target_num_containers"] is None
            assert plane.get(uuid)["running_num_containers"] == 2
            assert plane.state(uuid) == "Running"
            added = plane.control.add_node("d", ["x"])
            await plane.advance(2)
            assert plane.get(uuid)["running_num_containers"] == 3
            assert plane.state(uuid) == "Running"
            plane.control.remove_node(added)
            await plane.advance(2)
            assert plane.get(uuid)["running_num_containers"] == 2
            assert plane.state(uuid) == "Running"
            plane.control.set_node_tags(plane.control.listing("node")[0]["uuid"], ["x"])
            await plane.advance(2)
            assert plane.get(uuid)["running_num_containers"] == 3
            for body in ({"target_num_containers": 2}, {"deployment_strategy": "EMPTIEST_NODE"}):
                with pytest.raises(BadRequest):
                    await plane.patch(uuid, **body)
            with pytest.raises(BadRequest, match="EVERY_NODE cannot be scaled"):
                await plane.act(uuid, "scale")
            await plane.act(uuid, "redeploy")
            await plane.advance(10)
            assert plane.get(uuid)["running_num_containers"] == 3

    run(test)


def test_a_node_that_is_lost() -> None:
    async def test() -> None:
        async with Plane(2, node_grace=20) as plane:
            uuid = await plane.up(target_num_containers=4)
            node = plane.containers(uuid)[0]["node"].split("/")[-2]
            plane.backend.set_node_up(node, False)
            await plane.advance(19)
            assert plane.control.detail("node", node)["state"] == "Unreachable"
            assert plane.state(uuid) == "Partly running"
            assert plane.get(uuid)["current_num_containers"] == 4
            assert plane.get(uuid)["running_num_containers"] == 2
            await plane.advance(10)
            assert plane.state(uuid) == "Running"
            assert {c["node"] for c in plane.containers(uuid)} != {f"/api/v1/node/{node}/"}
            assert len({c["node"] for c in plane.containers(uuid)}) == 1

    run(test)


def test_a_container_waits_for_a_node_that_does_not_answer_just_now() -> None:
    async def test() -> None:
        async with Plane(1, node_grace=20, start_timeout=60) as plane:
            uuid = await plane.up(target_num_containers=1)
            node = plane.containers(uuid)[0]["node"].split("/")[-2]
            plane.backend.set_node_up(node, False)
            await plane.patch(uuid, target_num_containers=2)
            reply = await plane.act(uuid, "scale")
            await plane.advance(10)
            assert plane.state(uuid) == "Scaling"
            plane.backend.set_node_up(node, True)
            await plane.advance(2)
            assert plane.get(uuid)["running_num_containers"] == 2
            assert plane.action(reply)["state"] == "Success"

            plane.backend.set_node_up(node, False)
            await plane.patch(uuid, target_num_containers=3)
            reply = await plane.act(uuid, "scale")
            await plane.advance(19)
            assert plane.action(reply)["state"] == "In progress"
            await plane.advance(2)
            assert "no node is up" in plane.action(reply)["error"]

    run(test)


def test_what_has_data_on_a_lost_node_waits_visibly() -> None:
    async def test() -> None:
        async with Plane(2, node_grace=20) as plane:
            uuid = await plane.up(target_num_containers=2, bindings=[{"container_path": "/data"}])
            source = plane.get(uuid)["resource_uri"]
            bindings = [{"volumes_from": source}]
            user = await plane.up(name="user", target_num_containers=2, bindings=bindings)
            node = plane.containers(uuid)[0]["node"].split("/")[-2]
            name = plane.control.detail("node", node)["nickname"]
            before = [c["uuid"] for s in (uuid, user) for c in plane.containers(s)]
            plane.backend.set_node_up(node, False)
            for seconds in (1, 25):
                # At once, and after the grace.
                await plane.advance(seconds)
                assert plane.state(uuid) == plane.state(user) == "Partly running"
                assert plane.get(uuid)["running_num_containers"] == 1
                for service in (uuid, user):
                    (waiting,) = [c for c in plane.containers(service) if c["node"].split("/")[-2] == node]
                    assert waiting["state"] == "Starting"
                    expected = f"{waiting['name']} waits for node {name}, which does not answer"
                    assert waiting["exit_code_msg"] == expected
            reply = await plane.act(uuid, "start")
            await plane.advance(1)
            assert plane.action(reply)["error"].startswith("web-")
            assert f" waits for node {name}, which does not answer" in plane.action(reply)["error"]
            assert [c["uuid"] for s in (uuid, user) for c in plane.containers(s)] == before
            plane.backend.set_node_up(node, True)
            await plane.advance(1)
            assert plane.state(uuid) == plane.state(user) == "Running"

    run(test)


def test_the_only_container_waits_for_its_node() -> None:
    async def test() -> None:
        async with Plane(1, node_grace=20) as plane:
            uuid = await plane.up(bindings=[{"container_path": "/data"}])
            node = plane.containers(uuid)[0]["node"].split("/")[-2]
            plane.backend.set_node_up(node, False)
            await plane.advance(1)
            assert plane.state(uuid) == "Partly running"
            assert plane.get(uuid)["stopped_datetime"] is None
            # Within the grace a start waits for the node.
            reply = await plane.act(uuid, "start")
            await plane.advance(10)
            assert plane.action(reply)["state"] == "In progress"
            plane.backend.set_node_up(node, True)
            await plane.advance(6)
            assert plane.action(reply)["state"] == "Success"
            plane.backend.set_node_up(node, False)
            await plane.advance(1)
            await plane.act(uuid, "stop")
            await plane.advance(1)
            assert plane.state(uuid) == "Stopped"

    run(test)


def test_dynamic_ports_are_free_stable_and_told() -> None:
    async def test() -> None:
        async with Plane(port_range=(50000, 50004)) as plane:
            dynamic = [{"protocol": "tcp", "inner_port": 80, "published": True}]
            fixed = [*dynamic, {"protocol": "tcp", "inner_port": 81, "outer_port": 50001}]
            web = await plane.up(name="web", container_ports=dynamic, target_num_containers=2)
            other = await plane.up(name="other", container_ports=fixed)
            assert plane.state(other) == "Not running", "50001 is taken"
            ports = [c["container_ports"][0]["outer_port"] for c in plane.containers(web)]
            assert sorted(ports) == [50000, 50001]
            (first, _) = plane.containers(web)
            assert first["container_ports"][0]["endpoint_uri"] == f"http://127.0.0.1:{ports[0]}/"
            assert plane.get(web)["container_ports"][0]["outer_port"] is None
            assert plane.get(web)["container_ports"][0]["endpoint_uri"] is None
            await plane.act_and_wait(web, "stop")
            await plane.act_and_wait(web, "start")
            assert [c["container_ports"][0]["outer_port"] for c in plane.containers(web)] == ports
            third = await plane.up(name="third", container_ports=dynamic, target_num_containers=5)
            assert plane.get(third)["running_num_containers"] == 3
            assert "no dynamic tcp port is free" in plane.last_action(third)["error"]

    run(test)


def test_dynamic_ports_differ_on_nodes_that_answer_at_one_address() -> None:
    async def test() -> None:
        async with Plane(nodes=3) as plane:
            dynamic = [{"protocol": "tcp", "inner_port": 80, "published": True}]
            web = await plane.up(name="web", container_ports=dynamic, target_num_containers=3)
            containers = plane.containers(web)
            assert len({c["node"] for c in containers}) == 3
            assert len({c["container_ports"][0]["endpoint_uri"] for c in containers}) == 3

    run(test)


def test_image_ports_reach_containers_and_links_not_the_service() -> None:
    async def test() -> None:
        async with Plane() as plane:
            uuid = await plane.up(name="cache", image="redis", container_ports=[])
            assert plane.get(uuid)["container_ports"] == []
            (port,) = plane.containers(uuid)[0]["container_ports"]
            assert (port["inner_port"], port["outer_port"], port["published"]) == (6379, None, False)
            assert "CACHE_1_PORT_6379_TCP" in plane.get(uuid)["link_variables"]

    run(test)


def test_links_follow_the_target_while_it_scales() -> None:
    async def test() -> None:
        async with Plane() as plane:
            db = await plane.up(name="db", image="redis")
            web = await plane.up(name="web", linked_to_service=[{"to_service": db, "name": "Cache"}])
            (client,) = (c["uuid"] for c in plane.containers(web))
            assert [(x.name, len(x.containers)) for x in plane.backend.links(client)] == [("Cache", 1)]
            await plane.patch(db, target_num_containers=3)
            await plane.act_and_wait(db, "scale")
            (link,) = plane.backend.links(client)
            assert [n for n, _ in link.containers] == [1, 2, 3]
            await plane.act_and_wait(db, "redeploy")
            (link,) = plane.backend.links(client)
            assert [u for _, u in link.containers] == [c["uuid"] for c in plane.containers(db)]
            assert plane.get(db)["linked_from_service"] == [
                {
                    "from_service": f"/api/v1/service/{web}/",
                    "name": "Cache",
                    "to_service": f"/api/v1/service/{db}/",
                }
            ]
            await plane.patch(web, linked_to_service=[])
            await plane.advance()
            assert plane.backend.links(client) == ()
            assert plane.get(web)["synchronized"] is False

    run(test)


def test_volumes_are_kept_by_a_redeploy_and_shared_on_the_same_node() -> None:
    async def test() -> None:
        async with Plane(3) as plane:
            data = await plane.up(
                name="data",
                bindings=[{"container_path": "/data"}, {"container_path": "/h", "host_path": "/srv"}],
            )
            user = await plane.up(name="user", bindings=[{"volumes_from": "data", "rewritable": False}])
            mount = plane.containers(data)[0]["bindings"]
            shared = plane.containers(user)[0]["bindings"]
            assert [(b["container_path"], b["volume"], b["host_path"]) for b in shared] == [
                (b["container_path"], b["volume"], b["host_path"]) for b in mount
            ]
            assert {b["rewritable"] for b in shared} == {False}
            assert plane.containers(user)[0]["node"] == plane.containers(data)[0]["node"]
            with pytest.raises(Conflict, match="its volumes are used by 'user'"):
                await plane.act(data, "terminate")
            volume = next(b["volume"] for b in mount if b["volume"])
            before = plane.containers(data)[0]
            await plane.act_and_wait(data, "redeploy")
            after = plane.containers(data)[0]
            assert after["uuid"] != before["uuid"]
            assert next(b["volume"] for b in after["bindings"] if b["volume"]) == volume
            assert after["node"] == before["node"]
            await plane.act(data, "redeploy", reuse_volumes=False)
            await plane.advance(5)
            fresh = next(b["volume"] for b in plane.containers(data)[0]["bindings"] if b["volume"])
            assert fresh != volume
            states = {v["uuid"]: v["state"] for v in plane.control.listing("volume")[:]}
            assert states[volume.split("/")[-2]] == "Terminated"
            assert states[fresh.split("/")[-2]] == "Created"
            assert plane.control.listing("volumegroup")[0]["name"] == "data:/data"
            await plane.act_and_wait(user, "terminate")
            await plane.act_and_wait(data, "terminate")
            assert plane.state(data) == "Terminated"
            assert {v["state"] for v in plane.control.listing("volume")[:]} == {"Terminated"}

    run(test)


def test_volumes_from_a_service_without_containers() -> None:
    async def test() -> None:
        async with Plane() as plane:
            await plane.create(name="data")
            user = await plane.up(name="user", bindings=[{"volumes_from": "data"}])
            assert plane.state(user) == "Not running"
            assert "volumes_from: service data has no containers" in plane.last_action(user)["error"]

    run(test)


def test_volumes_do_not_come_from_a_circle_of_services() -> None:
    async def test() -> None:
        async with Plane() as plane:
            first = await plane.create(name="first")
            second = await plane.create(name="second", bindings=[{"volumes_from": "first"}])
            third = await plane.create(name="third", bindings=[{"volumes_from": "second"}])
            for source in (first, second, third):
                with pytest.raises(
                    BadRequest, match=r"bindings\[1\]\.volumes_from: leads back to this service"
                ):
                    await plane.patch(first, bindings=[{"container_path": "/x"}, {"volumes_from": source}])
            await plane.patch(third, bindings=[{"volumes_from": first}, {"volumes_from": second}])

    run(test)


def test_the_backends_refusals_are_answered_by_field() -> None:
    class Strict(SimulatedBackend):
        def refuse(self, definition: Any) -> list[Any]:
            from pulumi_tutum.errors import Problem

            return (
                [Problem("privileged", "is not allowed by --allow")] if definition.get("privileged") else []
            )

    async def test() -> None:
        async with Plane(backend=Strict(1)) as plane:
            with pytest.raises(BadRequest) as refused:
                await plane.create(privileged=True)
            assert refused.value.detail == {
                "service": {"privileged": ["privileged: is not allowed by --allow"]}
            }
            uuid = await plane.create()
            with pytest.raises(BadRequest):
                await plane.patch(uuid, privileged=True)

    run(test)


def test_filters() -> None:
    async def test() -> None:
        async with Plane() as plane:
            one = await plane.up(name="one")
            two = await plane.create(name="two")
            listing = plane.control.listing

            def names(**filters: str) -> list[str]:
                return [s["name"] for s in listing("service", filters)[:]]

            assert names(state="Running") == ["one"]
            assert names(state="Running,Not running") == ["one", "two"]
            assert names(name="two", state="Running") == []
            assert names(uuid=one) == ["one"]
            assert names(uuid__startswith=two[:8]) == ["two"]
            assert names(unknown="x") == ["one", "two"]
            assert len(listing("container", {"service": f"/api/v1/service/{one}/"})) == 1
            assert len(listing("action", {"object": f"/api/v1/service/{one}/"})) == 2
            assert len(listing("action", {"start_date__gte": "Sat, 25 Jul 2015 15:57:58 +0000"})) == 3
            assert len(listing("action", {"start_date__gte": "2030-01-01T00:00:00Z"})) == 0
            assert listing("provider")[0]["name"] == "simulated"
            with pytest.raises(NotFound):
                listing("nothing")
            for kind in (
                "service",
                "container",
                "stack",
                "action",
                "node",
                "nodecluster",
                "volume",
                "volumegroup",
                "image",
            ):
                with pytest.raises(NotFound):
                    plane.control.detail(kind, "00000000-0000-4000-8000-000000000000")

    run(test)


def test_actions_of_an_object_are_in_the_order_of_their_begin() -> None:
    async def test() -> None:
        async with Plane() as plane:
            uuid = await plane.create()
            await plane.act(uuid, "start")
            await plane.patch(uuid, tags=["later"])
            await plane.advance(5)
            found = plane.control.listing("action", {"object": f"/api/v1/service/{uuid}/"})[:]
            assert [a["action"] for a in found] == ["Service Create", "Service Start", "Service Update"]
            assert found == plane.control.listing("action")[:]

    run(test)


def test_logs_and_exec() -> None:
    async def test() -> None:
        async with Plane() as plane:
            uuid = await plane.up(
                name="web", target_num_containers=2, container_envvars={"SIMULATE_LOG_LINES": "3"}
            )
            frames = [f async for fs in plane.control.logs("service", uuid, 300, False) for f in fs]
            assert {f["source"] for f in frames} == {"web-1", "web-2"}
            assert len(frames) == 8
            assert frames[0].keys() == {"type", "source", "log", "streamType", "timestamp"}
            assert all(isinstance(f["timestamp"], int) and f["log"].endswith("\n") for f in frames)
            assert [len(fs) async for fs in plane.control.logs("service", uuid, 2, False)] == [2]
            (first, _) = plane.containers(uuid)
            (lines,) = [fs async for fs in plane.control.logs("container", first["uuid"], 1, False)]
            assert "source" not in lines[0]

            followed: list[dict[str, Any]] = []

            async def follow() -> None:
                async for frames in plane.control.logs("service", uuid, 0, True):
                    followed.extend(frames)

            follower = asyncio.create_task(follow())
            await plane.advance()
            await plane.patch(uuid, target_num_containers=3)
            await plane.act_and_wait(uuid, "scale")
            assert {f["source"] for f in followed} == {"web-3"}
            await plane.act_and_wait(uuid, "terminate")
            await asyncio.wait_for(follower, 10)

            action = plane.control.listing("action", {"object": f"/api/v1/service/{uuid}/"})[-1]
            told = [str(f["log"]) async for fs in plane.control.logs("action", action["uuid"]) for f in fs]
            assert told == [f"Service Terminate: /api/v1/service/{uuid}/\n", "Success\n"]

            other = await plane.up(name="other")
            session = await plane.control.exec(plane.containers(other)[0]["uuid"], ["sh", "-c", "echo hello"])
            assert [text async for _, text in session.output()] == ["hello\n"]
            assert await session.wait() == 0

    run(test)


def test_a_patch_may_repeat_the_link_to_a_terminated_service() -> None:
    async def test() -> None:
        async with Plane(retain_terminated=60) as plane:
            db = await plane.create(name="db")
            other = await plane.create(name="other")
            web = await plane.create(name="web", linked_to_service=[{"to_service": db, "name": "DB"}])
            await plane.act_and_wait(db, "terminate")
            listed = plane.get(web)["linked_to_service"]
            assert [x["to_service"] for x in listed] == [f"/api/v1/service/{db}/"]
            await plane.patch(web, linked_to_service=listed)
            await plane.patch(web, linked_to_service=[*listed, {"to_service": other, "name": "OTHER"}])
            # By name it is found too, as long as it is remembered.
            for reference in (db, db.upper(), "db"):
                await plane.patch(web, linked_to_service=[{"to_service": reference}])
            await plane.patch(web, linked_to_service=listed)
            for new in ({"to_service": db}, {"to_service": "db"}):
                with pytest.raises(BadRequest, match=r"linked_to_service\[0\].to_service: there is no such"):
                    await plane.patch(other, linked_to_service=[new])
                with pytest.raises(BadRequest, match="there is no such service"):
                    await plane.create(name="new", linked_to_service=[new])
            await plane.act_and_wait(web, "start")
            assert plane.state(web) == "Running"
            await plane.act_and_wait(web, "redeploy")
            await plane.patch(web, target_num_containers=2)
            await plane.act_and_wait(web, "scale")
            assert plane.state(web) == "Running"
            await plane.advance(120)
            with pytest.raises(NotFound):
                plane.get(db)
            assert plane.get(web)["linked_to_service"] == listed
            await plane.patch(web, linked_to_service=plane.get(web)["linked_to_service"])
            await plane.patch(web, linked_to_service=[{"to_service": db}])
            assert plane.get(web)["linked_to_service"] == listed, "the link keeps its name"
            await plane.patch(web, linked_to_service=[])
            with pytest.raises(BadRequest, match="there is no such service"):
                await plane.patch(web, linked_to_service=listed)

    run(test)


def test_a_name_means_a_living_service_first() -> None:
    async def test() -> None:
        async with Plane() as plane:
            db = await plane.create(name="db")
            web = await plane.create(name="web", linked_to_service=[{"to_service": db, "name": "DB"}])
            await plane.act_and_wait(db, "terminate")
            renewed = await plane.create(name="db")
            await plane.patch(web, linked_to_service=[{"to_service": "db", "name": "DB"}])
            (link,) = plane.get(web)["linked_to_service"]
            assert link["to_service"] == f"/api/v1/service/{renewed}/"

    run(test)
