"""Every state, every action: what is permitted happens, what is not is refused and changes nothing."""

from __future__ import annotations

import pytest

from pulumi_tutum.errors import BadRequest
from pulumi_tutum.lifecycle import ACTIONS, STATES, TRANSITIONAL, permitted, refusal
from tests.unit.server.plane import REQUEST, Plane, quiet, run

#: Seconds after which a transition of these tests is certainly over.
LONG = 30.0


async def reach(plane: Plane, state: str) -> str:
    """A service in a state; transitional ones last until the clock moves."""
    slow = {"SIMULATE_STOP_SECONDS": "5"}
    uuid = await plane.create(name="s", target_num_containers=2, container_envvars=slow)
    if state == "Not running":
        return uuid
    await plane.act(uuid, "start")
    if state == "Starting":
        return uuid
    await plane.advance(2)
    if state == "Partly running":
        plane.backend.exit(plane.containers(uuid)[1]["uuid"], 1)
        await plane.advance()
    elif state == "Scaling":
        await plane.patch(uuid, target_num_containers=3)
        await plane.act(uuid, "scale")
    elif state == "Redeploying":
        await plane.act(uuid, "redeploy")
    elif state in ("Stopping", "Stopped"):
        await plane.act(uuid, "stop")
    elif state in ("Terminating", "Terminated"):
        await plane.act(uuid, "terminate")
    if state in ("Stopped", "Terminated"):
        await plane.advance(LONG)
    return uuid


@pytest.mark.parametrize("action", ACTIONS)
@pytest.mark.parametrize("state", STATES)
def test_table(state: str, action: str) -> None:
    async def test() -> None:
        async with Plane(start_timeout=1000) as plane:
            uuid = await reach(plane, state)
            assert plane.state(uuid) == state
            before = plane.get(uuid)
            body = {"run_command": "/other.sh"}
            if not permitted(action, state):
                asked = plane.patch(uuid, **body) if action == "update" else plane.act(uuid, action)
                with pytest.raises(BadRequest) as refused:
                    await asked
                assert refused.value.status == 400
                assert refused.value.message == refusal(action, state)
                assert plane.get(uuid) == before
                last = plane.last_action(uuid)
                assert (last["state"], last["error"]) == ("Failed", refusal(action, state))
                assert last["end_date"] is not None
                return
            row = ACTIONS[action]
            if action == "update":
                reply = await plane.patch(uuid, **body)
                assert reply.body["run_command"] == "/other.sh"
            else:
                reply = await plane.act(uuid, action)
            assert reply.status == 202
            if row.via is None or state in row.store_only:
                assert reply.body["state"] == state
                assert plane.action(reply)["state"] == "Success"
            else:
                assert reply.body["state"] == row.via
                assert plane.action(reply)["state"] == "In progress"
            await plane.advance(LONG)
            if row.via is not None and state not in row.store_only:
                assert plane.state(uuid) in row.targets
                assert plane.action(reply)["state"] == "Success"
            assert plane.state(uuid) not in TRANSITIONAL

    run(test)


def test_redeploy_from_not_running_is_a_start_with_lenient() -> None:
    async def test() -> None:
        async with Plane(lenient=True) as plane:
            uuid = await plane.create()
            reply = await plane.act(uuid, "redeploy")
            assert reply.body["state"] == "Starting"
            await plane.advance(2)
            assert plane.state(uuid) == "Running"

    run(test)


def test_counts_and_dates_over_a_life() -> None:
    async def test() -> None:
        async with Plane() as plane:
            uuid = await plane.create(target_num_containers=2)
            new = plane.get(uuid)
            dates = ("deployed_datetime", "started_datetime", "stopped_datetime", "destroyed_datetime")
            assert [new[d] for d in dates] == [None] * 4
            assert new["current_num_containers"] == new["running_num_containers"] == 0

            await plane.act(uuid, "start")
            await quiet()
            starting = plane.get(uuid)
            assert (starting["current_num_containers"], starting["running_num_containers"]) == (2, 0)
            await plane.advance(1)
            running = plane.get(uuid)
            assert running["running_num_containers"] == 2
            assert (
                running["deployed_datetime"]
                == running["started_datetime"]
                == "Sat, 25 Jul 2015 15:57:59 +0000"
            )
            assert running["stopped_datetime"] is None

            await plane.advance(9)
            await plane.act(uuid, "stop")
            await plane.advance()
            stopped = plane.get(uuid)
            assert (stopped["stopped_num_containers"], stopped["running_num_containers"]) == (2, 0)
            assert stopped["stopped_datetime"] == "Sat, 25 Jul 2015 15:58:08 +0000"

            await plane.act(uuid, "start")
            await plane.advance(1)
            again = plane.get(uuid)
            assert again["deployed_datetime"] == running["deployed_datetime"]
            assert again["started_datetime"] == "Sat, 25 Jul 2015 15:58:09 +0000"
            assert again["stopped_datetime"] == stopped["stopped_datetime"]

            await plane.act(uuid, "redeploy")
            await plane.advance(10)
            redeployed = plane.get(uuid)
            assert (
                redeployed["deployed_datetime"] == redeployed["started_datetime"] != again["started_datetime"]
            )

            await plane.act(uuid, "terminate")
            await plane.advance()
            gone = plane.get(uuid)
            assert gone["destroyed_datetime"] is not None
            assert (gone["state"], gone["current_num_containers"], gone["containers"]) == (
                "Terminated",
                0,
                [],
            )

    run(test)


def test_terminated_objects_are_kept_for_a_while() -> None:
    async def test() -> None:
        async with Plane(retain_terminated=60) as plane:
            uuid = await plane.up()
            container = plane.containers(uuid)[0]["uuid"]
            await plane.act(uuid, "terminate")
            await plane.advance(59)
            assert plane.state(uuid) == "Terminated"
            assert plane.control.detail("container", container)["state"] == "Terminated"
            await plane.advance(2)
            assert len(plane.control.listing("service")) == 0
            assert len(plane.control.listing("container")) == 0
            assert len(plane.control.listing("action")) == 0

    run(test)


def test_only_the_newest_actions_are_kept() -> None:
    async def test() -> None:
        async with Plane() as plane:
            uuid = await plane.create()
            for i in range(120):
                await plane.patch(uuid, run_command=f"/run{i}.sh")
            found = plane.control.listing("action", {"object": f"/api/v1/service/{uuid}/"})
            assert len(found) == 100
            assert found[0]["action"] == "Service Update"

    run(test)


def test_request_is_recorded() -> None:
    async def test() -> None:
        async with Plane() as plane:
            reply = await plane.control.create_service({"image": "a"}, REQUEST)
            action = plane.action(reply)
            assert action["action"] == "Service Create"
            assert (action["method"], action["user_agent"], action["ip"]) == ("POST", "test", "127.0.0.1")
            assert action["is_user_action"] is True

    run(test)
