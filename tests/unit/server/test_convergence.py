"""Starting, stopping, replacing: what happens to containers, and what is said when it does not work."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

import pytest

from pulumi_tutum.errors import BackendError, BadRequest
from pulumi_tutum.server.backends import ImageInfo, Observed
from pulumi_tutum.server.backends.simulated import SimulatedBackend
from pulumi_tutum.server.clock import ManualClock, sleep
from tests.unit.server.plane import REQUEST, Plane, quiet, run


def envvars(**values: str) -> dict[str, str]:
    return {f"SIMULATE_{k.upper()}": v for k, v in values.items()}


def test_missing_image_deploys_nothing_and_says_why() -> None:
    async def test() -> None:
        async with Plane() as plane:
            uuid = await plane.create(name="web", image="acme/web:missing", target_num_containers=2)
            reply = await plane.act(uuid, "start")
            await plane.advance()
            action = plane.action(reply)
            assert plane.state(uuid) == "Not running"
            assert plane.get(uuid)["deployed_datetime"] is None
            assert action["state"] == "Failed"
            assert "web-1: No such image: acme/web:missing" in action["error"]
            gone = plane.control.listing("container", {"service": uuid})
            assert {c["state"] for c in gone} == {"Terminated"}
            assert {c["exit_code_msg"] for c in gone} == {"No such image: acme/web:missing"}

    run(test)


def test_a_container_that_never_starts_ends_the_transition_at_the_deadline() -> None:
    async def test() -> None:
        async with Plane(start_timeout=120) as plane:
            hang = envvars(hang="1", only="2")
            uuid = await plane.create(name="web", target_num_containers=2, container_envvars=hang)
            reply = await plane.act(uuid, "start")
            await plane.advance(119)
            assert plane.state(uuid) == "Starting"
            await plane.advance(3)
            assert plane.state(uuid) == "Partly running"
            action = plane.action(reply)
            assert action["state"] == "Failed"
            assert action["error"] == "web-2: did not start within 120 seconds"
            assert [c["name"] for c in plane.containers(uuid)] == ["web-1"]
            # And it can be tried again.
            await plane.patch(uuid, container_envvars=[])
            reply = await plane.act(uuid, "start")
            await plane.advance(2)
            assert plane.state(uuid) == "Running"
            assert plane.get(uuid)["synchronized"] is False

    run(test)


def test_a_backend_that_does_not_answer_holds_no_service_for_ever() -> None:
    class Stuck(SimulatedBackend):
        stuck = True

        async def image(self, image: str, node: str) -> ImageInfo:
            if self.stuck:
                raise BackendError("the engine does not answer", transient=True)
            return await super().image(image, node)

    async def test() -> None:
        clock = ManualClock()
        backend = Stuck(1, container_start_seconds=1, clock=clock)
        async with Plane(backend=backend, clock=clock, start_timeout=60) as plane:
            uuid = await plane.create()
            reply = await plane.act(uuid, "start")
            await plane.advance(90)
            assert plane.state(uuid) == "Not running"
            assert "did not start within 60 seconds" in plane.action(reply)["error"]
            await plane.act(uuid, "start")
            await plane.advance(10)
            backend.stuck = False
            await plane.advance(10)
            assert plane.state(uuid) == "Running"

    run(test)


def test_nothing_goes_on_after_the_control_plane_has_closed() -> None:
    class Silent(SimulatedBackend):
        async def start(self, uuid: str) -> Observed:
            try:
                await sleep(self._clock, 1000)
            finally:
                for _ in range(10):  # the call takes a while to end
                    await asyncio.sleep(0)
                ended.append(uuid)
            return await super().start(uuid)

    ended: list[str] = []

    async def test() -> None:
        clock = ManualClock()
        async with Plane(backend=Silent(1, clock=clock), clock=clock) as plane:
            await plane.act(await plane.create(target_num_containers=3), "start")
            await plane.advance(1)
            await plane.control.close()
            assert asyncio.all_tasks() == {asyncio.current_task()}
            assert len(ended) == 3

    run(test)


def test_exit_right_after_the_start() -> None:
    async def test() -> None:
        async with Plane(start_seconds=0) as plane:
            uuid = await plane.create(name="job", container_envvars=envvars(exit="3", exit_after="0"))
            await plane.act(uuid, "start")
            await plane.advance(1)
            (c,) = plane.containers(uuid)
            assert (c["state"], c["exit_code"]) == ("Stopped", 3)
            assert c["exit_code_msg"] == "Exit code 3 (General error)"
            assert plane.state(uuid) == "Stopped"
            assert plane.get(uuid)["stopped_datetime"] is not None

    run(test)


def test_exit_while_others_are_starting_fails_the_action() -> None:
    async def test() -> None:
        async with Plane() as plane:
            env = envvars(exit="3", exit_after="0.5", only="1") | {"SIMULATE_START_SECONDS": "1"}
            uuid = await plane.create(
                name="a", target_num_containers=2, container_envvars=env, sequential_deployment=True
            )
            reply = await plane.act(uuid, "start")
            await plane.advance(5)
            assert plane.state(uuid) == "Partly running"
            assert plane.action(reply)["error"] == "a-1: exited with code 3"

    run(test)


@pytest.mark.parametrize(
    ("policy", "code", "left"),
    [
        ("OFF", 0, "Stopped"),
        ("ON_SUCCESS", 0, "Not running"),
        ("ON_SUCCESS", 1, "Stopped"),
        ("ALWAYS", 1, "Not running"),
    ],
)
def test_autodestroy(policy: str, code: int, left: str) -> None:
    async def test() -> None:
        async with Plane() as plane:
            env = envvars(exit=str(code), exit_after="5")
            uuid = await plane.create(autodestroy=policy, container_envvars=env)
            await plane.act(uuid, "start")
            await plane.advance(3)
            assert plane.state(uuid) == "Running"
            await plane.advance(5)
            assert plane.state(uuid) == left
            assert plane.get(uuid)["current_num_containers"] == (1 if left == "Stopped" else 0)

    run(test)


class SlowToRemove(SimulatedBackend):
    async def remove(self, uuid: str, *, volumes: Sequence[str] = ()) -> None:
        await sleep(self._clock, 5)
        await super().remove(uuid, volumes=volumes)


@pytest.mark.parametrize(
    ("codes", "policy", "left"),
    [
        ((0,), "ON_SUCCESS", ("Not running", 0, 0)),
        ((3,), "ALWAYS", ("Not running", 0, 0)),
        ((0, 0), "ON_SUCCESS", ("Not running", 0, 0)),
        ((3, 0), "ON_SUCCESS", ("Stopped", 1, 1)),
        ((0, None), "ON_SUCCESS", ("Partly running", 1, 0)),
    ],
)
def test_what_autodestroy_removes_counts_no_more(
    codes: tuple[int | None, ...], policy: str, left: tuple[str, int, int]
) -> None:
    async def test() -> None:
        clock = ManualClock()
        backend = SlowToRemove(1, container_start_seconds=1, clock=clock)
        async with Plane(backend=backend, clock=clock) as plane:
            uuid = await plane.up(autodestroy=policy, target_num_containers=len(codes))
            made = [c["uuid"] for c in plane.containers(uuid)]
            for container, code in zip(made, codes, strict=True):
                if code is not None:
                    backend.exit(container, code)
            # The next request must not count the containers that are being removed.
            assert looks(plane, uuid) == left
            assert "Terminating" in {c["state"] for c in plane.control.listing("container")}
            await plane.advance(4)
            assert "Terminating" in {c["state"] for c in plane.control.listing("container")}
            before = plane.get(uuid)
            assert looks(plane, uuid) == left
            await plane.advance(2)
            assert "Terminating" not in {c["state"] for c in plane.control.listing("container")}
            assert plane.get(uuid) == before

    run(test)


@pytest.mark.parametrize("verb", ["", "stop"])
def test_a_container_that_is_terminated_counts_no_more(verb: str) -> None:
    async def test() -> None:
        clock = ManualClock()
        backend = SlowToRemove(1, container_start_seconds=1, clock=clock)
        async with Plane(backend=backend, clock=clock) as plane:
            uuid = await plane.up()
            if verb:
                await plane.act(uuid, verb)
                await plane.advance(1)
            await plane.control.terminate("container", plane.containers(uuid)[0]["uuid"], REQUEST)
            assert looks(plane, uuid) == ("Not running", 0, 0)
            await plane.act(uuid, "start")
            await plane.advance(10)
            assert looks(plane, uuid) == ("Running", 1, 0)

    run(test)


def test_a_container_that_is_started_counts_at_once() -> None:
    async def test() -> None:
        async with Plane(start_seconds=0) as plane:
            uuid = await plane.up()
            await plane.act(uuid, "stop")
            await plane.advance(1)
            await plane.control.act("container", plane.containers(uuid)[0]["uuid"], "start", REQUEST)
            seen = set()
            for _ in range(20):
                seen.add((plane.state(uuid), plane.get(uuid)["running_num_containers"]))
                await asyncio.sleep(0)
            assert seen == {("Stopped", 0), ("Running", 1)}

    run(test)


def looks(plane: Plane, uuid: str) -> tuple[str, int, int]:
    """The state of a service, the number of its containers, and the number of those that have stopped."""
    service = plane.get(uuid)
    assert len(service["containers"]) == service["current_num_containers"]
    return service["state"], service["current_num_containers"], service["stopped_num_containers"]


def test_stop_with_autodestroy_always_leaves_nothing() -> None:
    async def test() -> None:
        async with Plane() as plane:
            uuid = await plane.up(autodestroy="ALWAYS", target_num_containers=2)
            await plane.act(uuid, "stop")
            await plane.advance()
            assert plane.state(uuid) == "Not running"

    run(test)


def test_a_restarting_container_is_not_running() -> None:
    async def test() -> None:
        async with Plane() as plane:
            uuid = await plane.create(autorestart="ON_FAILURE", container_envvars=envvars(crashes="2"))
            await plane.act(uuid, "start")
            seen = set()
            for _ in range(100):
                await plane.advance(0.05)
                (c,) = plane.containers(uuid) or [{"state": "-", "exit_code": None}]
                running = plane.get(uuid)["running_num_containers"]
                seen.add((plane.state(uuid), running, c["state"], c["exit_code"]))
            assert seen == {
                ("Starting", 0, "Starting", None),
                ("Running", 1, "Running", None),
                ("Partly running", 0, "Starting", 1),
            }
            assert plane.state(uuid) == "Running"
            assert plane.control.records.containers[c["uuid"]].restarts == 2

    run(test)


def test_autorestart_comes_before_autodestroy() -> None:
    async def test() -> None:
        async with Plane() as plane:
            env = envvars(crashes="1", exit_after="1")
            uuid = await plane.up(autorestart="ON_FAILURE", autodestroy="ON_SUCCESS", container_envvars=env)
            assert plane.state(uuid) == "Running"
            plane.backend.exit(plane.containers(uuid)[0]["uuid"], 0)
            await plane.advance(1)
            assert plane.state(uuid) == "Not running"

    run(test)


def test_sequential_deployment_starts_each_after_the_ones_before() -> None:
    async def test() -> None:
        async with Plane() as plane:
            uuid = await plane.create(name="seq", target_num_containers=3, sequential_deployment=True)
            await plane.act(uuid, "start")
            for n in (1, 2, 3):
                await plane.advance()
                assert [c["name"] for c in plane.containers(uuid)] == [f"seq-{i}" for i in range(1, n + 1)]
                await plane.advance(1)
            assert plane.state(uuid) == "Running"
            third = plane.containers(uuid)[2]
            env = {e["key"]: e["value"] for e in third["container_envvars"]}
            assert env["SEQ_1_NAME"].endswith("/seq-1")
            assert env["SEQ_2_NAME"].endswith("/seq-2")
            assert "SEQ_3_NAME" not in env
            assert [x["name"] for x in third["linked_to_container"]] == ["seq_1", "seq_2"]

    run(test)


def test_parallel_deployment_starts_all_at_once() -> None:
    async def test() -> None:
        async with Plane() as plane:
            uuid = await plane.create(target_num_containers=20)
            await plane.act(uuid, "start")
            await plane.advance(1)
            assert plane.state(uuid) == "Running"

    run(test)


def test_redeploy_replaces_one_after_another() -> None:
    async def test() -> None:
        async with Plane() as plane:
            uuid = await plane.up(name="web", target_num_containers=3)
            before = [c["uuid"] for c in plane.containers(uuid)]
            await plane.patch(uuid, image="acme/web:2")
            assert plane.get(uuid)["synchronized"] is False
            await plane.act(uuid, "redeploy")
            running = set()
            for _ in range(40):
                await plane.advance(0.1)
                running.add(plane.get(uuid)["running_num_containers"])
            assert running == {2, 3}, "never more than one is away"
            after = plane.containers(uuid)
            assert plane.state(uuid) == "Running"
            assert plane.get(uuid)["synchronized"] is True
            assert [c["name"] for c in after] == ["web-1", "web-2", "web-3"]
            assert not {c["uuid"] for c in after} & set(before)
            assert {c["image_name"] for c in after} == {"acme/web:2"}

    run(test)


def test_a_successor_gets_the_ordinal_and_the_volumes_whatever_happens_meanwhile() -> None:
    async def test() -> None:
        async with Plane(2) as plane:
            body = {
                "container_envvars": envvars(stop_seconds="2"),
                "bindings": [{"container_path": "/d"}],
            }
            uuid = await plane.up(name="web", target_num_containers=2, **body)
            volumes = {v["uuid"] for v in plane.control.listing("volume")}
            await plane.act(uuid, "redeploy")
            for up in (False, True) * 10:
                await plane.advance(0.5)
                plane.backend.set_node_up(plane.control.listing("node")[0]["uuid"], up)
            await plane.advance(30)
            assert plane.state(uuid) == "Running"
            assert [c["name"] for c in plane.containers(uuid)] == ["web-1", "web-2"]
            assert {v["uuid"] for v in plane.control.listing("volume")} == volumes

    run(test)


def test_redeploy_with_a_missing_image_leaves_all_as_it_is() -> None:
    async def test() -> None:
        async with Plane() as plane:
            uuid = await plane.up(name="web", target_num_containers=2)
            before = plane.get(uuid)["containers"]
            await plane.patch(uuid, image="acme/web:missing")
            reply = await plane.act(uuid, "redeploy")
            await plane.advance(5)
            assert plane.state(uuid) == "Running"
            assert plane.get(uuid)["containers"] == before
            assert plane.get(uuid)["synchronized"] is False
            assert plane.action(reply)["error"] == "web: No such image: acme/web:missing"

    run(test)


def test_rolling_redeploy_stops_at_the_first_container_that_does_not_get_healthy() -> None:
    async def test() -> None:
        async with Plane() as plane:
            check = {"http": "/", "interval_seconds": 1}
            uuid = await plane.up(
                name="web", target_num_containers=3, sequential_deployment=True, healthcheck=check
            )
            assert plane.state(uuid) == "Running"
            before = [c["uuid"] for c in plane.containers(uuid)]
            await plane.patch(uuid, container_envvars=envvars(unhealthy="1"))
            reply = await plane.act(uuid, "redeploy")
            await plane.advance(10)
            assert plane.state(uuid) == "Partly running"
            (why,) = [c["health_detail"] for c in plane.containers(uuid) if c["healthy"] is False]
            assert why.startswith("GET / on port 80 answered 503 'unhealthy', 3 times in a row since ")
            assert plane.action(reply)["error"] == (
                f"web-1: is not healthy: {why}; "
                "web: 2 containers of the previous definition and 0 of the new one run"
            )
            after = [c["uuid"] for c in plane.containers(uuid)]
            assert after[1:] == before[1:]
            assert plane.get(uuid)["running_num_containers"] == 3
            # It gets healthy after all.
            plane.backend.set_healthy(after[0], True)
            await plane.advance()
            assert plane.state(uuid) == "Running"
            assert [c["health_detail"] for c in plane.containers(uuid)] == [None, None, None]

    run(test)


def test_scale_up_and_down() -> None:
    async def test() -> None:
        async with Plane() as plane:
            uuid = await plane.up(name="web", target_num_containers=2)
            await plane.patch(uuid, target_num_containers=4)
            assert plane.get(uuid)["current_num_containers"] == 2
            await plane.act(uuid, "scale")
            await plane.advance(2)
            assert [c["name"] for c in plane.containers(uuid)] == ["web-1", "web-2", "web-3", "web-4"]
            await plane.patch(uuid, target_num_containers=1)
            await plane.act(uuid, "scale")
            await plane.advance(2)
            assert [c["name"] for c in plane.containers(uuid)] == ["web-1"]
            await plane.patch(uuid, target_num_containers=0)
            await plane.act(uuid, "scale")
            await plane.advance(2)
            assert plane.state(uuid) == "Not running"

    run(test)


def test_scale_in_rest_only_keeps_the_number() -> None:
    async def test() -> None:
        async with Plane() as plane:
            uuid = await plane.create(target_num_containers=0)
            await plane.patch(uuid, target_num_containers=2)
            reply = await plane.act(uuid, "scale")
            assert (reply.body["state"], reply.body["current_num_containers"]) == ("Not running", 0)
            await plane.act(uuid, "start")
            await plane.advance(2)
            assert plane.get(uuid)["running_num_containers"] == 2

    run(test)


def test_start_of_partly_running_starts_the_stopped_and_adds_the_missing() -> None:
    async def test() -> None:
        async with Plane() as plane:
            uuid = await plane.up(name="web", target_num_containers=3)
            containers = [c["uuid"] for c in plane.containers(uuid)]
            plane.backend.exit(containers[0], 1)
            await plane.control.terminate("container", containers[1], REQUEST)
            await plane.advance()
            assert plane.state(uuid) == "Partly running"
            await plane.act(uuid, "start")
            await plane.advance(2)
            after = plane.containers(uuid)
            assert plane.state(uuid) == "Running"
            assert [c["name"] for c in after] == ["web-1", "web-2", "web-3"]
            assert after[0]["uuid"] == containers[0]

    run(test)


def test_single_containers() -> None:
    async def test() -> None:
        async with Plane() as plane:
            uuid = await plane.up(target_num_containers=2)
            first, second = (c["uuid"] for c in plane.containers(uuid))
            reply = await plane.control.act("container", first, "stop", REQUEST)
            assert (reply.status, reply.body["state"]) == (202, "Stopping")
            await plane.advance()
            assert plane.state(uuid) == "Partly running"
            assert plane.action(reply)["state"] == "Success"
            with pytest.raises(BadRequest, match="Container cannot be stopped in state 'Stopped'"):
                await plane.control.act("container", first, "stop", REQUEST)
            await plane.control.act("container", first, "start", REQUEST)
            await plane.advance(2)
            assert plane.state(uuid) == "Running"
            await plane.control.act("container", second, "redeploy", REQUEST)
            await plane.advance(5)
            after = [c["uuid"] for c in plane.containers(uuid)]
            assert after[0] == first
            assert after[1] != second
            for c in after:
                await plane.control.terminate("container", c, REQUEST)
            await plane.advance()
            assert plane.state(uuid) == "Not running"

    run(test)


def test_containers_of_a_busy_service_are_left_alone() -> None:
    async def test() -> None:
        async with Plane() as plane:
            uuid = await plane.up()
            await plane.act(uuid, "redeploy")
            (c,) = plane.containers(uuid)
            with pytest.raises(BadRequest, match="while its service is in state 'Redeploying'"):
                await plane.control.act("container", c["uuid"], "stop", REQUEST)

    run(test)


def test_fixed_ports_are_one_per_node() -> None:
    async def test() -> None:
        async with Plane(2) as plane:
            port = {"protocol": "tcp", "inner_port": 80, "outer_port": 8080}
            uuid = await plane.up(name="web", container_ports=[port], target_num_containers=3)
            assert plane.state(uuid) == "Partly running"
            nodes = [c["node"] for c in plane.containers(uuid)]
            assert len(set(nodes)) == len(nodes) == 2
            assert "port is already allocated: 8080/tcp on all 2 nodes" in plane.last_action(uuid)["error"]
            other = await plane.create(name="other", container_ports=[port])
            reply = await plane.act(other, "start")
            await plane.advance()
            assert plane.state(other) == "Not running"
            assert "other-1: port is already allocated: 8080/tcp" in plane.action(reply)["error"]

    run(test)


def test_tags_without_a_node() -> None:
    async def test() -> None:
        async with Plane({"a": ["front"], "b": ["front", "ssd"]}) as plane:
            uuid = await plane.up(tags=["front", "ssd"], target_num_containers=2)
            assert len({c["node"] for c in plane.containers(uuid)}) == 1
            other = await plane.create(name="other", tags=["gpu"])
            reply = await plane.act(other, "start")
            await plane.advance()
            assert plane.action(reply)["error"] == "other-1: no node has the tag gpu"

    run(test)


def test_cancel_ends_a_start() -> None:
    async def test() -> None:
        async with Plane() as plane:
            uuid = await plane.create(container_envvars=envvars(hang="1"))
            reply = await plane.act(uuid, "start")
            await plane.advance(5)
            action = plane.action(reply)
            assert action["can_be_canceled"] is True
            await plane.control.act("action", action["uuid"], "cancel", REQUEST)
            await plane.advance(1)
            assert plane.action(reply)["state"] == "Canceled"
            assert plane.state(uuid) == "Not running"
            await plane.patch(uuid, container_envvars=[])
            retried = await plane.control.act("action", action["uuid"], "retry", REQUEST)
            assert retried.body["state"] == "In progress"
            await plane.advance(5)
            assert plane.state(uuid) == "Running"

    run(test)


def test_image_announcement_redeploys_those_that_ask_for_it() -> None:
    async def test() -> None:
        async with Plane() as plane:
            follows = await plane.up(name="follows", image="acme/web", autoredeploy=True)
            stays = await plane.up(name="stays", image="acme/web")
            rests = await plane.create(name="rests", image="acme/web", autoredeploy=True)
            before = {u: plane.get(u)["containers"] for u in (follows, stays)}
            assert plane.control.announce_image("acme/web:latest") == 1
            assert plane.state(follows) == "Redeploying"
            # Again, while it is busy: the second waits.
            assert plane.control.announce_image("acme/web") == 1
            assert plane.last_action(follows)["state"] == "Pending"
            await plane.advance(10)
            assert plane.last_action(follows)["state"] == "Success"
            assert plane.last_action(follows)["is_user_action"] is False
            assert plane.get(follows)["containers"] != before[follows]
            assert plane.get(stays)["containers"] == before[stays]
            assert plane.state(rests) == "Not running"

    run(test)


def test_triggers() -> None:
    async def test() -> None:
        async with Plane() as plane:
            uuid = await plane.up(name="web")
            made = await plane.control.create_trigger(uuid, {"name": "t"}, REQUEST)
            assert made.body["operation"] == "REDEPLOY"
            assert made.body["url"] == f"/api/v1/service/{uuid}/trigger/{made.body['uuid']}/call/"
            await plane.control.call_trigger(uuid, made.body["uuid"], 1, "the body", REQUEST)
            assert plane.state(uuid) == "Redeploying"
            queued = await plane.control.call_trigger(uuid, made.body["uuid"], 1, "later", REQUEST)
            assert plane.action(queued)["state"] == "Pending"
            await plane.advance(3)
            await plane.advance(10)
            env = {e["key"]: e["value"] for e in plane.containers(uuid)[0]["container_envvars"]}
            assert env["TUTUM_TRIGGER_BODY"] == "later"
            up = await plane.control.create_trigger(uuid, {"operation": "SCALEUP"}, REQUEST)
            await plane.control.call_trigger(uuid, up.body["uuid"], 3, "", REQUEST)
            await plane.advance(5)
            assert plane.get(uuid)["running_num_containers"] == 4
            assert len(plane.control.list_triggers(uuid)) == 2
            await plane.control.delete_trigger(uuid, up.body["uuid"], REQUEST)
            assert [t["name"] for t in plane.control.list_triggers(uuid)[:]] == ["t"]

    run(test)


def test_events_tell_a_life_in_order() -> None:
    async def test() -> None:
        async with Plane() as plane:
            stream = plane.control.events()
            uuid = await plane.create(name="web")
            seen: list[tuple[str, str, str]] = []

            async def listen() -> None:
                async for event in stream:
                    seen.append((event["type"], event["action"], event["state"]))

            listener = asyncio.create_task(listen())
            await quiet()
            await plane.act(uuid, "start")
            await plane.advance(2)
            assert seen == [
                ("action", "create", "In progress"),
                ("service", "update", "Starting"),
                ("container", "create", "Starting"),
                ("container", "update", "Running"),
                ("service", "update", "Running"),
                ("action", "update", "Success"),
            ]
            seen.clear()
            await plane.act(uuid, "terminate")
            await plane.advance()
            assert ("container", "delete", "Terminated") in seen
            assert ("service", "update", "Terminated") in seen
            await plane.control.close()
            await listener

    run(test)


def test_a_listener_that_does_not_read_is_dropped() -> None:
    async def test() -> None:
        async with Plane() as plane:
            stream = plane.control.events()
            first = plane.control.core.hub
            first._size = 10
            queue = first.subscribe()
            uuid = await plane.create()
            for i in range(20):
                await plane.patch(uuid, run_command=f"/{i}")
            assert not first.watched
            assert queue.qsize() <= 11
            await stream.aclose()

    run(test)


def test_a_scale_trigger_of_a_service_at_rest_only_keeps_the_number() -> None:
    async def test() -> None:
        async with Plane() as plane:
            uuid = await plane.create()
            trigger = await plane.control.create_trigger(uuid, {"operation": "scaleup"}, REQUEST)
            reply = await plane.control.call_trigger(uuid, trigger.body["uuid"], 2, "", REQUEST)
            assert plane.action(reply)["state"] == "Success"
            await plane.advance(5)
            assert (plane.state(uuid), plane.get(uuid)["target_num_containers"]) == ("Not running", 3)

    run(test)


def test_terminating_does_not_wait_for_a_dead_node_for_ever() -> None:
    class Dead(SimulatedBackend):
        dead = False

        async def remove(self, uuid: str, *, volumes: object = ()) -> None:
            if self.dead:
                raise BackendError("the engine does not answer", transient=True)
            await super().remove(uuid)

    async def test() -> None:
        clock = ManualClock()
        backend = Dead(1, container_start_seconds=1, clock=clock)
        async with Plane(backend=backend, clock=clock, start_timeout=60) as plane:
            uuid = await plane.up()
            backend.dead = True
            # The node answers otherwise: the service is given back, and can be terminated again.
            reply = await plane.act(uuid, "terminate")
            await plane.advance(100)
            assert plane.state(uuid) == "Running"
            assert plane.action(reply)["state"] == "Failed"
            assert "the engine does not answer" in plane.action(reply)["error"]
            backend.set_node_up(plane.control.listing("node")[0]["uuid"], False)
            await plane.act(uuid, "terminate")
            await plane.advance(100)
            assert plane.state(uuid) == "Terminated"

    run(test)
