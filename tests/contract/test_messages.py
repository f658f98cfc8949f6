"""What users are told when something fails or will be lost: the provider in its real host."""

from __future__ import annotations

import re
import threading
from collections.abc import Iterator
from typing import Any

import pytest

from pulumi_tutum import Client, waiting
from tests.support.faults import FaultProxy, reset_after, reset_before, status
from tests.support.server import Server
from tests.support.stack import Failed, Refused, Stack
from tests.support.tools import until

WEB = {"image": "acme/web"}
CRASH = {"SIMULATE_EXIT": "3", "SIMULATE_EXIT_AFTER": "0", "SIMULATE_LOG_LINES": "2"}
UNHEALTHY = {"image": "simulated/unhealthy", "healthcheck": {"http": "/health", "port": 8080}}


@pytest.fixture(scope="module")
def server() -> Iterator[Server]:
    with Server(container_start_seconds=0.02, nodes=3) as server:
        yield server


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


def test_a_container_whose_check_has_not_passed_is_named_at_the_deadline(stack: Stack) -> None:
    late = {**WEB, "image": "simulated/checked:60", "healthcheck": {"command": "true"}, "timeout_seconds": 2}
    text = message(stack, web={**late, "target_num_containers": 2})
    for number in (1, 2):
        assert re.search(rf"container web-\w+-{number}: Running, its health check has not passed yet", text)
    assert "Started" in text, "the last lines of its log"


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


# -- what a preview says beforehand --------------------------------------------------------------------------


def said(stack: Stack, **services: Any) -> list[str]:
    """The warnings of a preview, which is a run of its own."""
    stack.end_run()
    stack.preview(**services)
    found = stack.warnings()
    stack.end_run()
    return found


def test_a_wrong_key_is_told_in_the_preview(server: Server) -> None:
    with Stack({**server.environment, "TUTUM_APIKEY": "wr0ng-k3y"}) as stack:
        assert stack.preview(web=WEB, other=WEB, more={**WEB, "privileged": True})
        (warning,) = stack.warnings()
    assert "the control plane refuses the credentials" in warning
    assert "Set TUTUM_USER and TUTUM_APIKEY, or tutum:user and tutum:apikey" in warning
    assert "401" in warning
    assert "wr0ng-k3y" not in warning


def test_a_right_key_is_found_out_once(stack: Stack, proxy: FaultProxy) -> None:
    stack.preview(web=WEB, other=WEB)
    stack.preview(web=WEB)
    assert stack.warnings() == []
    assert proxy.count("GET") == 1


def test_two_services_with_one_name_are_told_apart_in_the_preview(stack: Stack) -> None:
    with pytest.raises(Refused) as refused:
        stack.preview(web={**WEB, "name": "Shop"}, other={**WEB, "name": "shop"})
    assert refused.value.reasons == [
        f"name: 'shop' is the name of another service of this program: {stack.urn('web')}"
    ]


def test_a_name_may_stay_in_a_replacement_and_be_handed_on(stack: Stack) -> None:
    named = {**WEB, "name": "handed-on"}
    stack.up(web=named)
    stack.end_run()
    assert stack.up(web={**named, "bindings": [{"container_path": "/x"}]}) == {"web": "replace"}
    stack.end_run()
    assert stack.preview(front=named) == {"web": "delete", "front": "create"}


REDIS = {"image": "redis", "target_num_containers": 2}


def test_volumes_of_an_image_that_a_replacement_destroys_are_named(stack: Stack, client: Client) -> None:
    stack.up(db=REDIS)
    replaced = {**REDIS, "bindings": [{"container_path": "/more"}]}
    name = stack.state["db"].outputs["name"]
    (warning,) = said(stack, db=replaced)
    assert warning == (
        f"a change of bindings replaces service {name!r}: the volumes of the old one, and the data in them, "
        "are destroyed: /data"
    )
    # Those of bindings and of the image; each is told once, although the old service is deleted as well.
    stack.up(db=replaced)
    assert stack.warnings() == [warning]
    (warning,) = said(stack, db={**REDIS, "name": "other"})
    assert warning.endswith(": /data, /more")


def test_without_volumes_there_is_no_such_warning(stack: Stack, client: Client) -> None:
    stack.up(web=WEB, none={**REDIS, "target_num_containers": 0}, db=REDIS)
    db = stack.state["db"].id
    user = {**WEB, "bindings": [{"volumes_from": db}]}
    stack.up(web=WEB, none={**REDIS, "target_num_containers": 0}, db=REDIS, user=user)
    changed = [{"container_path": "/new"}]
    found = said(
        stack, web={**WEB, "bindings": changed}, none={**REDIS, "bindings": changed}, db=REDIS, user=WEB
    )
    assert found == []


def test_a_delete_says_which_volumes_it_destroys(stack: Stack) -> None:
    stack.up(db=REDIS, web=WEB)
    name = stack.state["db"].outputs["name"]
    stack.up(web=WEB)
    assert stack.warnings() == [
        f"the termination of service {name!r} destroys its volumes and the data in them: /data"
    ]


def test_what_the_state_knows_of_volumes_is_told_without_a_control_plane(
    stack: Stack, proxy: FaultProxy
) -> None:
    bound = {**WEB, "bindings": [{"container_path": "/data"}]}
    stack.up(web=bound)
    stack.end_run()
    proxy.on(status(404), "GET", "/volumegroup/", times=None)
    (warning,) = said(stack, web={**bound, "bindings": [{"container_path": "/other"}]})
    assert warning.endswith(": /data")


def linked(stack: Stack) -> dict[str, Any]:
    """A database with a password, and the arguments of a service that links to it."""
    db = {"image": "acme/db", "container_envvars": {"PASS": "first-pass"}}
    stack.up(db=db)
    web = {**WEB, "linked_to_service": [{"to_service": stack.state["db"].id, "name": "db"}]}
    stack.up(db=db, web=web)
    return {"db": db, "web": web}


def test_services_that_keep_old_link_variables_are_named(stack: Stack) -> None:
    services = linked(stack)
    web = stack.state["web"].outputs["name"]
    changed = {**services, "db": {**services["db"], "container_envvars": {"PASS": "second-pass"}}}
    (warning,) = said(stack, **changed)
    assert f"keep its old variables until they are redeployed: {web}." in warning
    assert f"`pulumi-tutum redeploy {web}`" in warning
    assert "-pass" not in warning
    # Ports are variables as well.
    port = [{"protocol": "tcp", "inner_port": 5432}]
    assert len(said(stack, **{**services, "db": {**services["db"], "container_ports": port}})) == 1


@pytest.mark.parametrize(
    "change",
    [
        {"container_envvars": {"PASS": "first-pass", "PATH": "/bin"}},
        {"target_num_containers": 2},
        {"memory": 64},
        {"running": False, "container_envvars": {"PASS": "second-pass"}},
    ],
)
def test_where_no_link_variable_changes_nothing_is_said(stack: Stack, change: dict[str, Any]) -> None:
    services = linked(stack)
    assert said(stack, **{**services, "db": {**services["db"], **change}}) == []


def test_services_without_containers_have_no_old_variables(stack: Stack, client: Client) -> None:
    services = linked(stack)
    services["web"]["running"] = False
    services["web"]["target_num_containers"] = 0
    client.terminate_service(stack.state["web"].id)
    waiting.until(client, stack.state["web"].id, "Terminated")
    del stack.state["web"]
    stack.up(**services)
    assert said(stack, **{**services, "db": {"image": "acme/db"}}) == []


# -- services that died since their last up ------------------------------------------------------------------

DYING = {
    "monitor_seconds": 0,
    **WEB,
    "container_envvars": {"SIMULATE_EXIT": "9", "SIMULATE_EXIT_AFTER": "1", "SIMULATE_LOG_LINES": "2"},
}


@pytest.fixture
def dead(stack: Stack, client: Client) -> dict[str, Any]:
    """The arguments of a service that ran, and died after its `up`."""
    stack.up(web=DYING)
    until(lambda: client.get_service(stack.state["web"].id)["state"] == "Stopped", "it died")
    return DYING


WHY = ("it is Stopped: 0/1 containers running", "Stopped, exit code 9 (General error)", "| line 2")


def test_a_preview_says_that_a_service_died(stack: Stack, dead: dict[str, Any]) -> None:
    (warning,) = said(stack, web=dead)
    assert "does not run as it did after its last `pulumi up`" in warning
    assert "`pulumi up --refresh`" in warning
    assert all(words in warning for words in WHY)


def test_a_refresh_says_why_and_the_preview_after_it(stack: Stack, dead: dict[str, Any]) -> None:
    stack.end_run()
    assert stack.refresh() == ["web"]
    (warning,) = said(stack, web=dead)
    assert "is repaired by an update" in warning
    assert all(words in warning for words in WHY)
