"""What users are told when something fails or will be lost: the provider in its real host."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from typing import Any

import pytest

from pulumi_tutum import Client
from tests.support.faults import FaultProxy, reset_after, reset_before, status
from tests.support.server import Server
from tests.support.stack import Failed, Stack
from tests.support.tools import until

WEB = {"image": "acme/web"}
CRASH = {"SIMULATE_EXIT": "3", "SIMULATE_EXIT_AFTER": "0", "SIMULATE_LOG_LINES": "2"}
UNHEALTHY = {"image": "simulated/unhealthy", "healthcheck": {"http": "/health", "port": 8080}}


@pytest.fixture(scope="module")
def server() -> Iterator[Server]:
    with Server(container_start_seconds=0.02, nodes=3) as server:
        yield server


@pytest.fixture
def client(server: Server) -> Iterator[Client]:
    with Client(server.user, server.apikey, rest_host=server.url) as client:
        yield client


@pytest.fixture
def proxy(server: Server) -> Iterator[FaultProxy]:
    with FaultProxy(server.url) as proxy:
        yield proxy


@pytest.fixture
def stack(server: Server, proxy: FaultProxy, request: pytest.FixtureRequest) -> Iterator[Stack]:
    """A stack whose requests go through the proxy; its services have names of their own."""
    environ = {**server.environment, "TUTUM_REST_HOST": proxy.url}
    with Stack(environ, project=request.node.name[:40]) as stack:
        yield stack
        proxy.clear()
        stack.destroy()


def message(stack: Stack, **services: Any) -> str:
    """What an `up` that fails says."""
    with pytest.raises(Failed) as failed:
        stack.up(**services)
    return str(failed.value)


# -- which containers --------------------------------------------------------------------------------------


def test_after_many_failures_only_the_present_ones_are_told(stack: Stack, client: Client) -> None:
    for _ in range(4):
        text = message(
            stack,
            web={**WEB, "target_num_containers": 3, "container_envvars": CRASH, "autodestroy": "ALWAYS"},
        )
        assert text.count("exit code 3") == 3
        stack.end_run()
    first = client.list_containers(stack.state["web"].id)
    assert len(list(first)) >= 12, "the records of the earlier failures are there"
    text = message(
        stack, web={**WEB, "container_envvars": {**CRASH, "SIMULATE_EXIT": "5"}, "autodestroy": "ALWAYS"}
    )
    assert "exit code 5" in text
    assert "exit code 3" not in text
    assert "more containers" not in text


def test_an_unhealthy_container_says_why_also_on_the_second_up(stack: Stack) -> None:
    why = "GET /health on port 8080 answered 503 'unhealthy', 3 times in a row since "
    for _ in range(2):
        text = message(stack, web=UNHEALTHY)
        assert why in text
        assert "Running, not healthy" in text
        assert "Started" in text, "the last lines of its log"
        stack.end_run()


def test_the_output_of_a_command_is_told(stack: Stack) -> None:
    check = {"command": "test -e /ready", "retries": 4}
    text = message(stack, web={**UNHEALTHY, "healthcheck": check})
    assert "command `test -e /ready` exited with code 1 and the output 'unhealthy', 4 times in a row" in text


def test_the_error_of_the_redeploy_is_told_not_that_of_the_scale_after_it(stack: Stack) -> None:
    stack.up(web={**WEB, "target_num_containers": 2})
    text = message(stack, web={"image": "simulated/unstartable", "target_num_containers": 2})
    assert "Service Redeploy failed" in text
    assert "the entrypoint could not be executed" in text


# -- destroy while it starts -------------------------------------------------------------------------------


@pytest.fixture
def hanging(stack: Stack, client: Client) -> str:
    """The uuid of a service that hangs in Starting; the control plane would give up after two minutes."""
    stack.up(web={"image": "simulated/hang", "target_num_containers": 2, "wait": False})
    found = stack.state["web"].id
    until(lambda: client.get_service(found)["state"] == "Starting", "it is Starting")
    return found


def cancels(proxy: FaultProxy) -> int:
    return proxy.count("POST", r"/api/v1/action/[^/]+/cancel/$")


def test_a_service_that_hangs_in_starting_is_destroyed_at_once(
    stack: Stack, client: Client, proxy: FaultProxy, hanging: str
) -> None:
    stack.destroy()
    assert client.get_service(hanging)["state"] == "Terminated"
    assert cancels(proxy) == 1


@pytest.mark.parametrize("action", ["scale", "redeploy"])
def test_so_is_one_that_scales_or_redeploys(
    stack: Stack, client: Client, proxy: FaultProxy, action: str
) -> None:
    stack.up(web=WEB)
    found = stack.state["web"].id
    hang = [{"key": "SIMULATE_HANG", "value": "1"}]
    client.update_service(found, {"target_num_containers": 2, "container_envvars": hang})
    client.request("POST", f"/api/v1/service/{found}/{action}/")
    until(lambda: client.get_service(found)["state"] in ("Scaling", "Redeploying"), "it is on its way")
    stack.destroy()
    assert client.get_service(found)["state"] == "Terminated"
    assert cancels(proxy) == 1


@pytest.mark.parametrize("fault", [reset_before(), reset_after(), status(503)])
def test_a_cancel_whose_answer_is_lost_is_asked_for_again(
    stack: Stack, client: Client, proxy: FaultProxy, hanging: str, fault: Any
) -> None:
    proxy.on(fault, method="POST", path=r"/cancel/$")
    stack.destroy()
    assert client.get_service(hanging)["state"] == "Terminated"


def test_a_server_that_cannot_cancel_is_waited_for(
    stack: Stack, client: Client, proxy: FaultProxy, hanging: str
) -> None:
    proxy.on(status(404), method="POST", path=r"/cancel/$", times=None)
    ended = threading.Thread(target=stack.destroy)
    ended.start()
    until(lambda: cancels(proxy) > 0, "the cancel was asked for")
    assert client.get_service(hanging)["state"] == "Starting"
    for action in client.list_actions(f"/api/v1/service/{hanging}/", "In progress"):
        client.cancel_action(action["resource_uri"])
    ended.join()
    assert client.get_service(hanging)["state"] == "Terminated"


def test_an_update_waits_and_cancels_nothing(
    stack: Stack, client: Client, proxy: FaultProxy, hanging: str
) -> None:
    text = message(stack, web={"image": "simulated/hang", "target_num_containers": 2, "timeout_seconds": 1})
    assert "still Starting" in text
    assert cancels(proxy) == 0
