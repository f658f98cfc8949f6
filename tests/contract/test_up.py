"""What an `up` that ended well means: the containers stay up, jobs have ended, a bad version has stopped."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import pytest

from pulumi_tutum import Client
from tests.support.faults import FaultProxy, sent, writes
from tests.support.server import Server
from tests.support.stack import Failed, Refused, Stack, uuid
from tests.support.tools import until

WEB = {"image": "acme/web"}


@pytest.fixture(scope="module")
def server() -> Iterator[Server]:
    with Server(container_start_seconds=0.02, nodes=3) as server:
        yield server


@pytest.fixture
def make(server: Server, proxy: FaultProxy, request: pytest.FixtureRequest) -> Iterator[Callable[..., Stack]]:
    """Makes the stack of a test, with the configuration that it wants."""
    made: list[Stack] = []

    def stack(**config: str) -> Stack:
        environ = {**server.environment, "TUTUM_REST_HOST": proxy.url}
        settings = {f"tutum:{key}": value for key, value in config.items()}
        made.append(Stack(environ, settings, project=request.node.name[:40]))
        return made[0]

    yield stack
    for one in made:
        one.end_run()
        with one:
            for resource in one.state.values():
                resource.failed = False
            one.destroy()


def exits(code: int, after: float, **more: str) -> dict[str, str]:
    return {"SIMULATE_EXIT": str(code), "SIMULATE_EXIT_AFTER": str(after), **more}


# -- monitor_seconds ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("config", "arguments", "expected"),
    [
        ({"monitorSeconds": ""}, {}, 5),
        ({"monitorSeconds": "9"}, {}, 9),
        ({"monitorSeconds": "9"}, {"monitor_seconds": 3}, 3),
        ({"monitorSeconds": ""}, {"monitor_seconds": 0}, 0),
        ({"monitorSeconds": "9"}, {"job": True}, 0),
        # The default window takes at most half of the time that the operation has.
        ({"monitorSeconds": ""}, {"timeout_seconds": 4}, 2),
        ({"monitorSeconds": "", "timeoutSeconds": "6"}, {}, 3),
    ],
)
def test_what_is_sent(
    make: Callable[..., Stack],
    client: Client,
    config: dict[str, str],
    arguments: dict[str, Any],
    expected: int,
) -> None:
    stack = make(**config)
    web = {**WEB, **arguments, "target_num_containers": 0}
    stack.up(web=web)
    assert client.get_service(uuid(stack))["monitor_seconds"] == expected
    assert stack.preview(web=web) == {}
    assert stack.refresh() == []
    assert stack.preview(web=web) == {}


@pytest.mark.parametrize(
    ("config", "arguments", "said"),
    [
        ({}, {"monitor_seconds": 600}, "must be less than timeout_seconds (600), not 600"),
        ({}, {"monitor_seconds": 30, "timeout_seconds": 20}, "less than timeout_seconds (20), not 30"),
        ({"timeoutSeconds": "20"}, {"monitor_seconds": 20}, "less than timeout_seconds (20), not 20"),
        ({"monitorSeconds": "700"}, {}, "less than timeout_seconds (600), not 700"),
        ({"monitorSeconds": "4000"}, {}, "from 0 to 3600, not 4000"),
        ({}, {"job": True, "autorestart": "ALWAYS"}, "autorestart: cannot be ALWAYS with job"),
        ({}, {"job": True, "running": False}, "running: cannot be False with job"),
        ({}, {"job": True, "monitor_seconds": 5}, "monitor_seconds: must be 0 with job"),
        ({}, {"job": "yes"}, "job: must be true or false"),
    ],
)
def test_what_is_refused_in_the_preview(
    make: Callable[..., Stack], config: dict[str, str], arguments: dict[str, Any], said: str
) -> None:
    with pytest.raises(Refused) as refused:
        make(**config).preview(web={**WEB, **arguments})
    (reason,) = refused.value.reasons
    assert said in reason


def test_a_change_of_the_window_is_a_patch_and_no_window_is_no_change(
    make: Callable[..., Stack], proxy: FaultProxy
) -> None:
    stack = make()
    stack.up(web={**WEB, "monitor_seconds": 1})
    assert writes(sent(proxy, lambda: stack.up(web={**WEB, "monitor_seconds": 2}))) == ["PATCH"]
    assert stack.preview(web=WEB) == {}
    assert stack.up(web=WEB) == {}
    assert stack.preview(web={**WEB, "monitor_seconds": 3}) == {"web": "update"}


def test_a_service_of_the_release_before_is_unchanged_and_gets_a_window_with_its_next_change(
    make: Callable[..., Stack], client: Client, proxy: FaultProxy
) -> None:
    stack = make(monitorSeconds="1")
    stack.up(web={**WEB, "monitor_seconds": 0})
    # As the release before has left it.
    client.update_service(uuid(stack), {"monitor_seconds": None})
    web = stack.state["web"]
    for bag in (web.inputs, web.outputs):
        bag.pop("monitor_seconds", None)
        bag.pop("job", None)
    assert stack.preview(web=WEB) == {}
    assert stack.refresh() == []
    assert stack.preview(web=WEB) == {}
    changed = {**WEB, "image": "acme/web:2"}
    assert writes(sent(proxy, lambda: stack.up(web=changed))) == ["PATCH", "POST redeploy"]
    assert client.get_service(uuid(stack))["monitor_seconds"] == 1


def test_an_adopted_service_keeps_its_window(make: Callable[..., Stack], client: Client) -> None:
    made = client.create_service({**WEB, "monitor_seconds": 2})
    stack = make(monitorSeconds="1")
    stack.up(web={**WEB, "adopt": made["uuid"], "tags": [], "cpu_shares": 7})
    assert client.get_service(made["uuid"])["monitor_seconds"] == 2


# -- success means that it stays up ------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ({"container_envvars": exits(3, 1)}, "exited with code 3"),
        ({"container_envvars": exits(0, 1)}, "exited with code 0"),
        ({"container_envvars": exits(0, 1)}, "Containers that are expected to end need job=True"),
        ({"container_envvars": exits(3, 1), "autodestroy": "ON_SUCCESS"}, "exited with code 3"),
        ({"container_envvars": exits(3, 0), "autorestart": "ALWAYS"}, "crash loop"),
        ({"container_envvars": exits(3, 1, SIMULATE_ONLY="2"), "target_num_containers": 3}, "web-2"),
    ],
)
def test_a_container_that_ends_in_the_window_fails_the_up(
    make: Callable[..., Stack], arguments: dict[str, Any], said: str
) -> None:
    stack = make(monitorSeconds="2")
    web = {**WEB, "name": "web", **arguments}
    with pytest.raises(Failed) as failed:
        stack.up(web=web)
    assert failed.value.kept
    text = str(failed.value)
    assert said in text
    assert "Exited with code" in text, "the last lines of the container"
    # Still wanted otherwise: the next up tries again, and succeeds when it can.
    assert stack.preview(web=web) == {"web": "update"}
    good = {**web, "container_envvars": {}}
    stack.up(web=good)
    assert stack.state["web"].outputs["state"] == "Running"
    assert stack.preview(web=good) == {}


def test_a_version_that_does_not_stay_up_is_rolled_back_where_asked(make: Callable[..., Stack]) -> None:
    stack = make(monitorSeconds="2")
    good = {**WEB, "rollback_on_failure": True, "target_num_containers": 2}
    stack.up(web=good)
    with pytest.raises(Failed, match="rolled back to the last good inputs"):
        stack.up(web={**good, "container_envvars": exits(3, 1)})
    live = stack.state["web"].outputs
    assert (live["state"], live["running_num_containers"], live["synchronized"]) == ("Running", 2, True)


def test_a_bad_version_stops_at_the_first_container_and_the_message_says_who_runs_what(
    make: Callable[..., Stack], client: Client
) -> None:
    stack = make(monitorSeconds="1")
    good = {**WEB, "name": "shop", "target_num_containers": 3, "sequential_deployment": True}
    stack.up(web=good)
    before = [c["uuid"] for c in client.list_containers(uuid(stack))]
    with pytest.raises(Failed) as failed:
        stack.up(web={**good, "container_envvars": exits(1, 0)})
    assert "2 containers of the previous definition and 0 of the new one run" in str(failed.value)
    assert "shop-1" in str(failed.value)
    after = [c["uuid"] for c in client.list_containers(uuid(stack)) if c["state"] == "Running"]
    assert after == before[1:]


# -- jobs --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("autodestroy", [None, "OFF", "ON_SUCCESS", "ALWAYS"])
def test_a_job_is_waited_for(make: Callable[..., Stack], proxy: FaultProxy, autodestroy: str | None) -> None:
    stack = make(monitorSeconds="")
    job = {**WEB, "job": True, "container_envvars": exits(0, 2), "target_num_containers": 2}
    if autodestroy:
        job["autodestroy"] = autodestroy
    stack.up(web=job)
    outputs = stack.state["web"].outputs
    assert outputs["state"] == ("Stopped" if autodestroy == "OFF" else "Not running")
    assert outputs["autodestroy"] == (autodestroy or "ON_SUCCESS")
    assert stack.preview(web=job) == {}
    assert stack.refresh() == []
    assert stack.preview(web=job) == {}
    # It runs again only when its containers would be others.
    assert writes(sent(proxy, lambda: stack.up(web={**job, "autoredeploy": True}))) == ["PATCH"]
    job["image"] = "acme/web:2"
    begun = writes(sent(proxy, lambda: stack.up(web=job)))
    assert begun == ["PATCH", "POST redeploy" if autodestroy == "OFF" else "POST start"]
    assert stack.preview(web=job) == {}


@pytest.mark.parametrize("autodestroy", [None, "OFF", "ALWAYS"])
def test_a_job_that_fails_fails_the_up_and_runs_again(
    make: Callable[..., Stack], proxy: FaultProxy, autodestroy: str | None
) -> None:
    stack = make(monitorSeconds="")
    job = {**WEB, "name": "job", "job": True, "container_envvars": exits(7, 2)}
    if autodestroy:
        job["autodestroy"] = autodestroy
    for _ in range(2):
        with pytest.raises(Failed) as failed:
            stack.up(web=job)
        assert failed.value.kept
        assert "job-1" in str(failed.value)
        assert "code 7" in str(failed.value)
        assert stack.preview(web=job) == {"web": "update"}
    job["container_envvars"] = exits(0, 1)
    stack.up(web=job)
    assert stack.preview(web=job) == {}


def test_a_job_of_which_one_container_fails_has_failed(make: Callable[..., Stack]) -> None:
    stack = make()
    job = {**WEB, "name": "job", "job": True, "target_num_containers": 3}
    env = exits(7, 0.5, SIMULATE_ONLY="2")
    with pytest.raises(Failed, match=r"job-2 exited with code 7|still"):
        # The others run on: the time is up before they end.
        stack.up(web={**job, "container_envvars": env, "timeout_seconds": 3})


def test_a_job_whose_time_was_up_is_waited_for_by_the_next_up(make: Callable[..., Stack]) -> None:
    stack = make()
    job = {**WEB, "job": True, "container_envvars": exits(0, 4), "timeout_seconds": 2}
    with pytest.raises(Failed, match="wanted was: finished"):
        stack.up(web=job)
    stack.up(web={**job, "timeout_seconds": 30})
    assert stack.state["web"].outputs["state"] == "Not running"


def test_a_job_without_wait_returns_at_once(make: Callable[..., Stack]) -> None:
    stack = make()
    job = {**WEB, "job": True, "wait": False, "container_envvars": exits(0, 30)}
    stack.up(web=job)
    assert stack.state["web"].outputs["state"] in ("Starting", "Running")
    assert stack.preview(web=job) == {}


def test_a_job_that_runs_again_by_hand_is_no_drift(make: Callable[..., Stack], client: Client) -> None:
    stack = make()
    job = {**WEB, "job": True, "container_envvars": exits(0, 1)}
    stack.up(web=job)
    client.start_service(uuid(stack))
    until(lambda: client.get_service(uuid(stack))["state"] == "Running", "the job to run")
    assert stack.refresh() == []
    assert stack.preview(web=job) == {}
