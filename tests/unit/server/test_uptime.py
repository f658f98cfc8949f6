"""When a container counts as up: the window, health checks, restarts, crash loops, batches of a redeploy."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from pulumi_tutum.server.store import SqliteStore
from tests.unit.server.plane import FailingStore, Plane, run


def envvars(**values: str) -> dict[str, str]:
    return {f"SIMULATE_{k.upper()}": v for k, v in values.items()}


def exits(code: int, after: float, **more: str) -> dict[str, str]:
    return envvars(exit=str(code), exit_after=str(after), **more)


async def start(plane: Plane, seconds: float = 0, **body: Any) -> tuple[str, Any]:
    uuid = await plane.create(name="web", **body)
    reply = await plane.act(uuid, "start")
    await plane.advance(seconds)
    return uuid, reply


# -- the window --------------------------------------------------------------------------------------------


def test_a_service_is_starting_until_its_containers_have_run_for_the_window() -> None:
    async def test() -> None:
        async with Plane() as plane:
            uuid, reply = await start(plane, 1, monitor_seconds=5, target_num_containers=40)
            assert (plane.state(uuid), plane.get(uuid)["running_num_containers"]) == ("Starting", 40)
            await plane.advance(4.9)
            assert plane.state(uuid) == "Starting"
            await plane.advance(0.2)
            assert plane.state(uuid) == "Running"
            assert plane.action(reply)["state"] == "Success"

    run(test)


def test_without_a_window_a_container_is_up_when_it_runs() -> None:
    async def test() -> None:
        async with Plane() as plane:
            uuid, _ = await start(plane, 1)
            assert plane.state(uuid) == "Running"
            assert "monitor_seconds" not in plane.get(uuid)

    run(test)


@pytest.mark.parametrize(("code", "autodestroy"), [(3, "OFF"), (0, "OFF"), (3, "ON_SUCCESS"), (3, "ALWAYS")])
def test_an_exit_in_the_window_fails_the_action(code: int, autodestroy: str) -> None:
    async def test() -> None:
        async with Plane() as plane:
            body = {"container_envvars": exits(code, 2), "autodestroy": autodestroy}
            uuid, reply = await start(plane, 10, monitor_seconds=5, **body)
            assert plane.state(uuid) == ("Not running" if autodestroy == "ALWAYS" else "Stopped")
            action = plane.action(reply)
            assert action["state"] == "Failed"
            assert action["error"] == f"web-1: exited with code {code} before it had run for 5 seconds"

    run(test)


@pytest.mark.parametrize("autodestroy", ["ON_SUCCESS", "ALWAYS"])
def test_exit_code_0_is_a_success_where_the_container_is_then_removed(autodestroy: str) -> None:
    async def test() -> None:
        async with Plane() as plane:
            body = {"container_envvars": exits(0, 2), "autodestroy": autodestroy}
            uuid, reply = await start(plane, 10, monitor_seconds=5, **body)
            assert plane.state(uuid) == "Not running"
            assert plane.action(reply)["state"] == "Success"

    run(test)


def test_an_exit_after_the_window_is_no_failure_of_the_action() -> None:
    async def test() -> None:
        async with Plane() as plane:
            uuid, reply = await start(plane, 10, monitor_seconds=5, container_envvars=exits(3, 5.5))
            assert plane.action(reply)["state"] == "Success"
            assert plane.state(uuid) == "Stopped"

    run(test)


def test_the_window_does_not_count_against_the_start_timeout() -> None:
    async def test() -> None:
        async with Plane(start_timeout=10) as plane:
            uuid, reply = await start(plane, 60, monitor_seconds=300)
            assert plane.state(uuid) == "Starting"
            await plane.advance(242)
            assert (plane.state(uuid), plane.action(reply)["state"]) == ("Running", "Success")

    run(test)


def test_one_that_hangs_beside_one_that_is_watched_still_fails() -> None:
    async def test() -> None:
        async with Plane(start_timeout=10) as plane:
            hang = envvars(hang="1", only="2")
            body = {"target_num_containers": 2, "container_envvars": hang}
            uuid, reply = await start(plane, 60, monitor_seconds=20, **body)
            assert plane.state(uuid) == "Partly running"
            assert plane.action(reply)["error"] == "web-2: did not start within 10 seconds"

    run(test)


def test_a_restart_of_the_server_goes_on_with_the_window(tmp_path: Path) -> None:
    async def test() -> None:
        async with Plane(store=SqliteStore(tmp_path)) as plane:
            uuid, _ = await start(plane, 4, monitor_seconds=5)
            assert plane.state(uuid) == "Starting"
            clock = plane.clock
        async with Plane(store=SqliteStore(tmp_path), clock=clock) as plane:
            await plane.advance(1.9)
            assert plane.state(uuid) == "Starting"
            await plane.advance(0.2)
            assert plane.state(uuid) == "Running"

    run(test)


def test_a_failure_is_not_forgotten_when_the_server_restarts(tmp_path: Path) -> None:
    async def test() -> None:
        async with Plane(store=SqliteStore(tmp_path)) as plane:
            # The second one is still starting when the first has failed, and the server ends.
            env = exits(7, 2, only="1")
            slow = {"SIMULATE_START_SECONDS": "1"}
            uuid, reply = await start(
                plane, 3.5, monitor_seconds=5, container_envvars=env | slow, target_num_containers=2
            )
            assert plane.state(uuid) == "Starting"
            clock = plane.clock
        async with Plane(store=SqliteStore(tmp_path), clock=clock) as plane:
            await plane.advance(10)
            assert plane.state(uuid) == "Partly running"
            assert plane.action(reply)["error"].startswith("web-1: exited with code 7")

    run(test)


def test_monitor_seconds_is_stored_and_marks_nothing_unsynchronized() -> None:
    async def test() -> None:
        async with Plane() as plane:
            uuid, _ = await start(plane, 5)
            await plane.patch(uuid, monitor_seconds=30)
            assert (plane.get(uuid)["monitor_seconds"], plane.get(uuid)["synchronized"]) == (30, True)
            await plane.patch(uuid, tags=[])
            assert plane.get(uuid)["monitor_seconds"] == 30

    run(test)


# -- health checks -----------------------------------------------------------------------------------------


def test_with_a_health_check_a_container_is_up_when_it_has_passed() -> None:
    async def test() -> None:
        async with Plane() as plane:
            body = {"healthcheck": {"http": "/"}, "container_envvars": envvars(healthy_after="8")}
            uuid, _ = await start(plane, 8, monitor_seconds=2, **body)
            assert plane.state(uuid) == "Starting"
            await plane.advance(1.1)
            assert plane.state(uuid) == "Running"

    run(test)


@pytest.mark.parametrize(("passes_after", "up_after"), [(2, 2), (30, 5)])
def test_the_check_of_the_image_or_the_window_whichever_is_first(passes_after: int, up_after: int) -> None:
    async def test() -> None:
        async with Plane() as plane:
            uuid, _ = await start(plane, 1, image=f"simulated/checked:{passes_after}", monitor_seconds=5)
            await plane.advance(up_after - 0.1)
            assert plane.state(uuid) == "Starting"
            await plane.advance(0.2)
            assert plane.state(uuid) == "Running"

    run(test)


def test_an_image_that_says_unhealthy_fails() -> None:
    async def test() -> None:
        async with Plane() as plane:
            env = envvars(healthy_after="2", unhealthy="1")
            uuid, reply = await start(plane, 10, monitor_seconds=5, container_envvars=env)
            assert plane.action(reply)["error"].startswith(
                "web-1: is not healthy: the command of its health check"
            )
            assert plane.state(uuid) == "Partly running"

    run(test)


@pytest.mark.parametrize("body", [{}, {"healthcheck": {"disabled": True}, "monitor_seconds": 5}])
def test_the_check_of_the_image_does_not_count_without_a_window_or_when_disabled(body: Any) -> None:
    async def test() -> None:
        async with Plane() as plane:
            env = envvars(healthy_after="0", unhealthy="1")
            uuid, reply = await start(plane, 10, container_envvars=env, **body)
            assert (plane.action(reply)["state"], plane.state(uuid)) == ("Success", "Running")

    run(test)


# -- restarts ----------------------------------------------------------------------------------------------


def test_a_restart_begins_the_window_again() -> None:
    async def test() -> None:
        async with Plane() as plane:
            body = {"autorestart": "ALWAYS", "container_envvars": envvars(crashes="1", exit_after="3")}
            uuid, reply = await start(plane, 1 + 3 + 0.1 + 4.8, monitor_seconds=5, **body)
            assert plane.state(uuid) == "Starting"
            await plane.advance(0.3)
            assert (plane.action(reply)["state"], plane.state(uuid)) == ("Success", "Running")

    run(test)


def test_the_third_restart_within_a_minute_fails() -> None:
    async def test() -> None:
        async with Plane() as plane:
            uuid, reply = await start(
                plane, 10, monitor_seconds=5, autorestart="ALWAYS", container_envvars=exits(3, 1)
            )
            action = plane.action(reply)
            assert action["error"] == (
                "web-1: is in a crash loop: 3 restarts, the last time it exited with code 3"
            )
            assert plane.state(uuid) == "Partly running"

    run(test)


def test_restarts_cannot_put_the_deadline_off_for_ever() -> None:
    async def test() -> None:
        async with Plane(start_timeout=30) as plane:
            uuid, reply = await start(
                plane, 1200, monitor_seconds=100, autorestart="ALWAYS", container_envvars=exits(3, 70)
            )
            assert plane.state(uuid) in ("Running", "Partly running")
            assert "web-1: did not stay up within 30 seconds" in plane.action(reply)["error"]

    run(test)


def test_a_crash_loop_is_told_whenever_it_is_looked_at() -> None:
    async def test() -> None:
        async with Plane() as plane:
            uuid, _ = await start(plane, 6, autorestart="ALWAYS", container_envvars=exits(3, 1))
            for _ in range(300):
                await plane.advance(0.37)
                assert plane.state(uuid) == "Partly running"
                assert plane.get(uuid)["running_num_containers"] == 0
                (c,) = plane.containers(uuid)
                assert (c["state"], c["exit_code"]) == ("Starting", 3)
                assert "crash loop" in c["exit_code_msg"]

    run(test)


def test_a_crash_loop_is_over_when_the_container_has_run_for_a_minute() -> None:
    async def test() -> None:
        async with Plane() as plane:
            uuid, _ = await start(plane, 8, autorestart="ALWAYS", container_envvars=envvars(crashes="4"))
            assert plane.state(uuid) == "Partly running"
            await plane.advance(58)
            assert plane.state(uuid) == "Partly running"
            await plane.advance(5)
            assert plane.state(uuid) == "Running"
            (c,) = plane.containers(uuid)
            assert (c["state"], c["exit_code"], c["exit_code_msg"]) == ("Running", None, None)

    run(test)


def test_a_late_look_at_a_service_leaves_its_stop_alone(tmp_path: Path) -> None:
    async def test() -> None:
        store = FailingStore(tmp_path)
        async with Plane(store=store) as plane:
            env = envvars(crashes="4", stop_seconds="5")
            uuid, _ = await start(plane, 8, autorestart="ALWAYS", container_envvars=env)
            assert plane.state(uuid) == "Partly running"
            # The end of the crash loop cannot be stored, and is tried again a moment later.
            store.failing = True
            await plane.advance(63)
            store.failing = False
            await plane.act(uuid, "stop")
            await plane.advance(2)
            assert plane.state(uuid) == "Stopping"
            await plane.advance(10)
            assert plane.state(uuid) == "Stopped"

    run(test)


@pytest.mark.parametrize("verb", ["stop", "terminate", "redeploy"])
def test_a_container_in_a_crash_loop_can_be_acted_on(verb: str) -> None:
    async def test() -> None:
        async with Plane() as plane:
            uuid, _ = await start(plane, 6.05, autorestart="ALWAYS", container_envvars=exits(3, 1))
            (c,) = plane.containers(uuid)
            reply = await plane.control.act("container", c["uuid"], verb, None)
            await plane.advance(0.5)
            assert plane.action(reply)["state"] in ("Success", "In progress")
            expected = {"stop": "Stopped", "terminate": "Not running", "redeploy": "Redeploying"}[verb]
            assert plane.state(uuid) == expected

    run(test)


# -- redeploys ---------------------------------------------------------------------------------------------


async def _batches(plane: Plane, uuid: str, seconds: float) -> list[int]:
    """How many containers of the new definition were begun at the same time, batch by batch."""
    known = {c["uuid"] for c in plane.containers(uuid)}
    found: list[int] = []
    for _ in range(int(seconds * 10)):
        await plane.advance(0.1)
        new = {c["uuid"] for c in plane.containers(uuid)} - known
        if new:
            found.append(len(new))
            known |= new
    return found


@pytest.mark.parametrize(
    ("count", "sequential", "batches"),
    [
        (1, False, [1]),
        (3, False, [1, 1, 1]),
        (8, False, [1, 2, 2, 2, 1]),
        (13, False, [1, 3, 3, 3, 3]),
        (5, True, [1] * 5),
    ],
)
def test_a_redeploy_replaces_one_and_then_a_quarter_at_a_time(
    count: int, sequential: bool, batches: list[int]
) -> None:
    async def test() -> None:
        async with Plane() as plane:
            uuid, _ = await start(plane, 1, target_num_containers=count, sequential_deployment=sequential)
            await plane.advance(2 * count)
            await plane.patch(uuid, monitor_seconds=5, run_command="/other.sh")
            await plane.act(uuid, "redeploy")
            assert await _batches(plane, uuid, 7 * len(batches)) == batches
            assert plane.state(uuid) == "Running"
            assert plane.get(uuid)["synchronized"] is True

    run(test)


@pytest.mark.parametrize("sequential", [False, True])
@pytest.mark.parametrize("window", [0, 5])
def test_a_bad_version_stops_at_the_first_container(sequential: bool, window: int) -> None:
    async def test() -> None:
        async with Plane() as plane:
            uuid, _ = await start(
                plane,
                8,
                target_num_containers=8,
                sequential_deployment=sequential,
                healthcheck=None if window else {"http": "/"},
            )
            await plane.advance(10)
            before = [c["uuid"] for c in plane.containers(uuid)]
            await plane.patch(
                uuid, monitor_seconds=window, container_envvars=exits(1, 0.2, healthy_after="2")
            )
            reply = await plane.act(uuid, "redeploy")
            await plane.advance(60)
            after = plane.containers(uuid)
            assert [c["uuid"] for c in after[1:]] == before[1:]
            assert (plane.state(uuid), after[0]["exit_code"]) == ("Partly running", 1)
            error = plane.action(reply)["error"]
            assert error.startswith("web-1: exited with code 1")
            assert "7 containers of the previous definition and 0 of the new one run" in error
            # A good version repairs it.
            await plane.patch(uuid, container_envvars={})
            await plane.act(uuid, "redeploy")
            await plane.advance(100)
            assert (plane.state(uuid), plane.get(uuid)["synchronized"]) == ("Running", True)

    run(test)


def test_a_batch_that_fails_ends_the_redeploy() -> None:
    async def test() -> None:
        async with Plane() as plane:
            uuid, _ = await start(plane, 2, target_num_containers=8)
            before = [c["uuid"] for c in plane.containers(uuid)]
            await plane.patch(uuid, monitor_seconds=5, container_envvars=exits(1, 1, only="3"))
            reply = await plane.act(uuid, "redeploy")
            await plane.advance(60)
            kept = [c["uuid"] for c in plane.containers(uuid)][3:]
            assert kept == before[3:]
            assert (
                "5 containers of the previous definition and 2 of the new one run"
                in (plane.action(reply)["error"])
            )

    run(test)
