"""When real containers count as up: the window, exits and kills in it, crash loops, the HEALTHCHECK of an
image."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import pytest

from tests.support.docker_engine import DockerEngine
from tests.support.images import busybox, load
from tests.support.real import Real
from tests.support.server import Server
from tests.support.tools import until

pytestmark = [pytest.mark.docker]

_SECOND = 1_000_000_000
#: Its HEALTHCHECK looks for a file; `test/unwell` never has one.
_CHECK = {
    "Test": ["CMD-SHELL", "test -e /tmp/well"],
    "Interval": _SECOND,
    "Timeout": 2 * _SECOND,
    "Retries": 2,
}


@pytest.fixture(scope="module")
def server(engine: DockerEngine) -> Iterator[Server]:
    load(engine, replace(busybox(), name="test/checked:latest", config={"Healthcheck": _CHECK}))
    with Server(backend="docker", node=[engine.url], stop_seconds=1, start_timeout=60) as server:
        yield server
        assert "unexpected" not in server.log(), server.log()


def sh(command: str) -> dict[str, Any]:
    return {"run_command": f"sh -c '{command}'"}


def error(real: Real, service: dict[str, Any]) -> str:
    return real.why(service)


def test_every_container_that_exits_in_the_window_fails_its_service(real: Real) -> None:
    services = [real.create(**sh("echo my last words; exit 3"), monitor_seconds=2) for _ in range(10)]
    for service in services:
        real.act(service, "start")
    for service in services:
        assert real.settle(service)["state"] == "Stopped"
        assert "exited with code 3 before it had run for 2 seconds" in error(real, service)


@pytest.mark.parametrize("after", ["0.3", "1", "2.5"])
def test_an_exit_at_any_time_of_the_window_fails(real: Real, after: str) -> None:
    service = real.create(**sh(f"sleep {after}; exit 1"), monitor_seconds=4)
    assert real.start(service)["state"] == "Stopped"
    assert "exited with code 1" in error(real, service)


def test_a_container_that_is_killed_for_its_memory_fails(real: Real) -> None:
    service = real.create(**sh("sleep 1; x=1; while true; do x=$x$x; done"), memory=8, monitor_seconds=15)
    assert real.start(service)["state"] == "Stopped"
    assert "exited with code" in error(real, service)


def test_all_containers_are_watched_at_the_same_time(real: Real) -> None:
    service = real.create(target_num_containers=4, monitor_seconds=3)
    real.act(service, "start")
    until(lambda: real.get(service["uuid"])["running_num_containers"] == 4, "all four run")
    assert real.get(service["uuid"])["state"] == "Starting"
    real.wait(service, "Running")


def test_a_crash_loop_is_partly_running_with_its_last_exit_code_at_any_instant(real: Real) -> None:
    service = real.create(**sh("sleep 0.2; exit 4"), autorestart="ALWAYS", monitor_seconds=5)
    assert real.start(service)["state"] == "Partly running"
    assert "is in a crash loop" in error(real, service)
    assert "exited with code 4" in error(real, service)
    for _ in range(40):
        (container,) = real.containers(service)
        assert (container["state"], container["exit_code"]) == ("Starting", 4)
        assert "crash loop" in container["exit_code_msg"]
        seen = real.get(service["uuid"])
        assert (seen["state"], seen["running_num_containers"]) == ("Partly running", 0)


def test_a_crash_loop_that_begins_later_is_told_too(real: Real) -> None:
    service = real.run(**sh("test -e /tmp/bad && exit 5; sleep 100000"), autorestart="ALWAYS")
    real.sh(service, "touch /tmp/bad; kill -9 -1")
    real.wait(service, "Partly running")
    until(lambda: "crash loop" in (real.containers(service)[0]["exit_code_msg"] or ""), "the crash loop")
    assert real.containers(service)[0]["exit_code"] == 5


def test_the_check_of_the_image_passes_before_the_window_is_over(real: Real) -> None:
    service = real.create(
        "test/checked", **sh("sleep 1; touch /tmp/well; sleep 100000"), monitor_seconds=3000
    )
    assert real.start(service)["state"] == "Running"


def test_an_image_that_is_unhealthy_in_the_window_fails(real: Real) -> None:
    service = real.create("test/checked", run_command="sleep 100000", monitor_seconds=3000)
    assert real.start(service)["state"] == "Partly running"
    assert "is not healthy" in error(real, service)


@pytest.mark.parametrize(
    "body",
    [{"monitor_seconds": 1}, {}, {"healthcheck": {"disabled": True}, "monitor_seconds": 5}],
    ids=["window", "no window", "disabled"],
)
def test_the_check_of_the_image_decides_nothing_otherwise(real: Real, body: dict[str, Any]) -> None:
    service = real.create("test/checked", run_command="sleep 100000", **body)
    assert real.start(service)["state"] == "Running"
    tested = real.one(service).attrs["Config"].get("Healthcheck", {}).get("Test")
    assert tested == (["NONE"] if "healthcheck" in body else _CHECK["Test"])


@pytest.mark.parametrize("sequential", [False, True])
def test_a_bad_version_leaves_the_others_alone(real: Real, sequential: bool) -> None:
    service = real.run(
        "tutum/hello-world",
        target_num_containers=3,
        sequential_deployment=sequential,
        healthcheck={"http": "/cgi-bin/index.cgi", "interval_seconds": 1},
    )
    before = [c.id for c in real.inside(service)]
    real.patch(service, run_command="sh -c 'exit 1'")
    assert real.redeploy(service)["state"] == "Partly running"
    assert "2 containers of the previous definition and 0 of the new one run" in error(real, service)
    assert [c.id for c in real.inside(service)][1:] == before[1:]
    assert [real.one(service, n).status for n in (2, 3)] == ["running"] * 2
    # And a good version repairs all of it.
    real.patch(service, run_command="")
    assert real.redeploy(service)["state"] == "Running"
