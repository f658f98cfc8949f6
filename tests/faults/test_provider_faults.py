"""Whole runs with faults: the provider in the SDK's own host, over real sockets, through a proxy that
misbehaves, to a real control plane that is killed at times.

Expected of every fault: a clear end within the deadline, nothing lost, nothing made twice, no secret in any
text. docs/faults.md is the table of it all.
"""

from __future__ import annotations

import re
import threading
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import grpc  # type: ignore[import-untyped]
import pytest

from pulumi_tutum import Client, desired, waiting
from pulumi_tutum.host import PLAIN_HOST
from pulumi_tutum.lifecycle import ENDING
from tests.support import faults
from tests.support.faults import Exchange, Fault, FaultProxy
from tests.support.server import Server
from tests.support.stack import Failed, Stack

SECRET = "hunter22-very-secret"
WEB: dict[str, Any] = {"image": "acme/web", "container_envvars": {"PASS": SECRET}, "timeout_seconds": 60}
SLOW = {**WEB, "image": "simulated/slow:1"}
BROKEN = {**WEB, "container_envvars": {"PASS": SECRET, "SIMULATE_EXIT": "3", "SIMULATE_EXIT_AFTER": "0"}}
CREATE = ("POST", r"/api/v1/service/$")
START = ("POST", r"/start/$")
DETAIL = ("GET", r"/api/v1/service/[0-9a-f-]{36}/$")


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    data = tmp_path_factory.mktemp("server") / "data"
    with Server(container_start_seconds=0.05, data=data) as running:
        yield running


@pytest.fixture
def proxy(server: Server) -> Iterator[FaultProxy]:
    with FaultProxy(server.url) as made:
        yield made


@pytest.fixture
def direct(server: Server) -> Iterator[Client]:
    """Past the proxy: what the control plane really has."""
    with Client(server.user, server.apikey, rest_host=server.url) as opened:
        yield opened


@pytest.fixture
def new_stack(
    server: Server, proxy: FaultProxy, direct: Client, request: pytest.FixtureRequest
) -> Iterator[Callable[..., Stack]]:
    """Makes stacks, all of one project and so with the same names. What they leave is terminated."""
    made: list[Stack] = []
    project = re.sub(r"\W+", "-", request.node.name)[:40]

    def make(**env: str) -> Stack:
        to_proxy = {"TUTUM_REST_HOST": proxy.url, "TUTUM_STREAM_HOST": proxy.stream_url}
        made.append(Stack({**server.environment, **to_proxy, **env}, project=project))
        return made[-1]

    yield make
    for stack in made:
        stack.end_run(kill=True)
    for service in direct.list_services():
        if service["state"] not in ENDING:
            waiting.until(direct, service["uuid"])
            direct.terminate_service(service["uuid"])
            waiting.until(direct, service["uuid"], "Terminated")


@pytest.fixture
def stack(new_stack: Callable[..., Stack]) -> Stack:
    return new_stack()


def living(direct: Client) -> list[str]:
    return [s["uuid"] for s in direct.list_services() if s["state"] not in ENDING]


def failure(server: Server, stack: Stack, **services: Mapping[str, Any]) -> Failed:
    """How an up fails; what it says, anywhere, has no secret in it."""
    with pytest.raises(Failed) as caught:
        stack.up(**services)
    for text in (str(caught.value), *stack.warnings()):
        assert SECRET not in text
        assert server.apikey not in text
        # The newest SDKs put one around a plain error.
        assert PLAIN_HOST in stack.env or "Traceback" not in text
    return caught.value


def assert_one(stack: Stack, direct: Client, **services: Mapping[str, Any]) -> None:
    """The services are the state's, they run, and nothing is left to be done."""
    assert sorted(living(direct)) == sorted(resource.id for resource in stack.state.values())
    for resource in stack.state.values():
        assert direct.get_service(resource.id)["state"] == "Running"
    assert stack.preview(**services) == {}


def then(act: Callable[[str], object]) -> Fault:
    """The request is carried out; `act` gets the uuid in its path; then it is answered."""

    def fault(exchange: Exchange) -> None:
        answer = exchange.forward()
        act(exchange.seen.path.split("/")[4])
        exchange.reply(answer)

    return fault


# -- a create whose answer is lost -------------------------------------------------------------------------

LOST: dict[str, Fault] = {
    "reset before": faults.reset_before(),
    "reset after": faults.reset_after(),
    "504 after": faults.status(504, committed=True),
    "503 before": faults.status(503, retry_after="1"),
    "truncated": faults.truncated(),
}


@pytest.mark.parametrize("fault", LOST.values(), ids=LOST)
def test_any_request_of_a_deployment_may_be_lost(
    stack: Stack, direct: Client, proxy: FaultProxy, fault: Fault
) -> None:
    proxy.on(fault, *CREATE)
    proxy.on(fault, *START)
    proxy.on(fault, *DETAIL)
    stack.up(web=WEB)
    (uuid,) = living(direct)
    starts = [a for a in direct.list_actions(f"/api/v1/service/{uuid}/") if a["action"] == "Service Start"]
    assert [a["state"] for a in starts] == ["Success"], "started once"
    assert_one(stack, direct, web=WEB)

    changed = {**WEB, "image": "acme/web:2"}
    proxy.on(fault, "PATCH")
    proxy.on(fault, "POST", r"/redeploy/$")
    stack.up(web=changed)
    actions = direct.list_actions(f"/api/v1/service/{uuid}/")
    assert sum(a["action"] == "Service Redeploy" for a in actions) == 1, "redeployed once"
    assert_one(stack, direct, web=changed)

    proxy.on(fault, "DELETE")
    stack.destroy()
    assert living(direct) == []


def test_a_create_without_an_answer_ends_in_time_and_is_found_again(
    server: Server, stack: Stack, direct: Client, proxy: FaultProxy
) -> None:
    proxy.on(faults.hang(committed=True), *CREATE, times=None)
    failed = failure(server, stack, web={**WEB, "timeout_seconds": 2})
    assert "did not answer in time" in str(failed)
    assert stack.state == {}
    (uuid,) = living(direct)
    stack.end_run()  # in good order; but this key it leaves open
    proxy.clear()
    stack.up(web=WEB)
    assert stack.state["web"].id == uuid
    assert_one(stack, direct, web=WEB)


# -- processes that are killed -----------------------------------------------------------------------------


def killed_while_held(stack: Stack, proxy: FaultProxy, path: tuple[str, str], **services: Any) -> None:
    """An up whose host is killed when a request is done and not yet answered; nothing of it is saved."""
    before = dict(stack.state)
    held = threading.Event()
    proxy.on(_holding(held), *path, times=None)
    assert stack.host

    def attempt() -> None:
        with pytest.raises((Failed, grpc.RpcError, ValueError)):
            stack.up(**services)

    run = threading.Thread(target=attempt)
    run.start()
    assert held.wait(60)
    stack.host.process.kill()
    run.join(60)
    stack.end_run(kill=True)
    proxy.clear()
    stack.state = before
    stack.condemned.clear()


def _holding(held: threading.Event) -> Fault:
    def fault(exchange: Exchange) -> None:
        exchange.forward()
        held.set()
        exchange.over.wait()
        exchange.reset()

    return fault


@pytest.mark.parametrize("path", [CREATE, START, DETAIL], ids=["create", "start", "wait"])
def test_a_killed_host(stack: Stack, direct: Client, proxy: FaultProxy, path: tuple[str, str]) -> None:
    killed_while_held(stack, proxy, path, web=WEB)
    (uuid,) = living(direct)
    changed = {**WEB, "image": "acme/web:2"}
    stack.up(web=changed)
    assert stack.state["web"].id == uuid
    assert direct.get_service(uuid)["image_name"] == "acme/web:2"
    assert_one(stack, direct, web=changed)


@pytest.mark.parametrize("named", [False, True], ids=["beside the old one", "after the old one"])
@pytest.mark.parametrize("path", [CREATE, START], ids=["create", "start"])
def test_a_killed_replacement(
    stack: Stack, direct: Client, proxy: FaultProxy, path: tuple[str, str], named: bool
) -> None:
    first = {**WEB, "name": "named"} if named else WEB
    second = {**first, "bindings": [{"container_path": "/data"}]}
    stack.up(web=first)
    stack.end_run()
    old = stack.state["web"].id
    killed_while_held(stack, proxy, path, web=second)
    (new,) = set(living(direct)) - {old}
    assert (old in living(direct)) == (not named)
    # Where the old one was deleted first, the engine has saved that.
    if named:
        stack.state.clear()
    stack.up(web=second)
    assert stack.state["web"].id == new
    assert_one(stack, direct, web=second)


def test_killed_while_it_is_made_again(stack: Stack, direct: Client, proxy: FaultProxy) -> None:
    stack.up(web=WEB)
    old = stack.state["web"].id
    stack.destroy()
    stack.end_run()
    killed_while_held(stack, proxy, CREATE, web=WEB)
    (uuid,) = living(direct)
    assert uuid != old
    stack.up(web=WEB)
    assert stack.state["web"].id == uuid
    assert_one(stack, direct, web=WEB)


@pytest.mark.parametrize("path", [CREATE, START], ids=["create", "start"])
def test_the_control_plane_is_killed_in_the_middle(
    server: Server, stack: Stack, direct: Client, proxy: FaultProxy, path: tuple[str, str]
) -> None:
    proxy.on(then(lambda _: server.restart(kill=True)), *path)
    stack.up(web=SLOW, other=WEB)
    assert_one(stack, direct, web=SLOW, other=WEB)
    proxy.on(then(lambda _: server.restart(kill=True)), "POST", r"/redeploy/$")
    changed = {**SLOW, "image": "acme/web"}
    stack.up(web=changed, other=WEB)
    assert_one(stack, direct, web=changed, other=WEB)


def test_keys_outlive_the_control_plane(
    server: Server, new_stack: Callable[..., Stack], direct: Client
) -> None:
    stack, other = new_stack(), new_stack()
    stack.up(web=WEB)
    made = stack.state.pop("web")  # the engine died before it had saved this
    stack.end_run(kill=True)
    server.restart(kill=True)
    stack.up(web=WEB)
    assert stack.state["web"].id == made.id, "it was open"
    stack.end_run()
    server.restart(kill=True)
    assert "adopt" in str(failure(server, other, web=WEB)), "it was closed"
    assert other.state == {}
    assert_one(stack, direct, web=WEB)


def test_what_a_killed_run_has_saved_is_closed_by_the_next_run(
    server: Server, new_stack: Callable[..., Stack], direct: Client
) -> None:
    stack, other = new_stack(), new_stack()
    replaced = {**WEB, "bindings": [{"container_path": "/data"}]}
    stack.up(web=WEB, replaced=WEB)
    stack.up(web=WEB, replaced=replaced)  # made under a key of its own
    stack.end_run(kill=True)
    changed = {**replaced, "autoredeploy": True}
    stack.up(web=WEB, replaced=changed)
    stack.end_run()
    assert "adopt" in str(failure(server, other, web=WEB))
    other.end_run(kill=True)
    assert other.state == {}
    assert_one(stack, direct, web=WEB, replaced=changed)


def test_what_was_taken_over_can_be_replaced(stack: Stack, direct: Client) -> None:
    stack.up(web=WEB)
    made = stack.state.pop("web").id  # the engine died before it had saved this
    stack.end_run(kill=True)
    stack.up(web=WEB)
    assert stack.state["web"].id == made
    named = {**WEB, "name": "named"}
    stack.up(web=named)
    assert_one(stack, direct, web=named)


# -- two runs ----------------------------------------------------------------------------------------------


def test_two_runs_at_once_of_stacks_with_the_same_names(
    server: Server, new_stack: Callable[..., Stack], direct: Client, proxy: FaultProxy
) -> None:
    first, second = new_stack(), new_stack()
    made, go_on = threading.Event(), threading.Event()

    def hold(_: str) -> None:
        made.set()
        go_on.wait(60)

    proxy.on(then(hold), *START)
    run = threading.Thread(target=lambda: first.up(web=WEB))
    run.start()
    assert made.wait(60)
    (uuid,) = living(direct)
    before = direct.get_service(uuid)
    failed = failure(server, second, web={**WEB, "image": "acme/other", "timeout_seconds": 3})
    assert "another run" in str(failed)
    assert "tutum:namespace" in str(failed)
    assert second.state == {}
    assert direct.get_service(uuid)["image_name"] == before["image_name"]
    go_on.set()
    run.join(60)
    assert_one(first, direct, web=WEB)

    # The first run ends while the second one waits for that.
    waits = threading.Event()
    proxy.on(then(lambda _: waits.set()), *CREATE)
    texts: list[str] = []
    run = threading.Thread(target=lambda: texts.append(str(failure(server, second, web=WEB))))
    run.start()
    assert waits.wait(60)
    first.end_run()
    run.join(60)
    assert uuid in texts[0]
    assert "adopt" in texts[0]
    assert second.state == {}
    assert_one(first, direct, web=WEB)

    # Beside each other.
    third = new_stack()
    third.config = {"tutum:namespace": "third"}
    third.up(web=WEB)
    assert sorted(living(direct)) == sorted([uuid, third.state["web"].id])


def test_a_run_waits_for_the_end_of_one_that_was_killed(
    new_stack: Callable[..., Stack], direct: Client, proxy: FaultProxy
) -> None:
    killed, stack = new_stack(), new_stack()
    killed.up(web=WEB)
    # Its host lives on for some seconds without its engine.
    asked = threading.Event()
    proxy.on(then(lambda _: asked.set()), *CREATE)
    run = threading.Thread(target=lambda: stack.up(web=WEB))
    run.start()
    assert asked.wait(60)
    killed.host.lose_engine()
    run.join(60)
    assert stack.state["web"].id == killed.state["web"].id
    assert_one(stack, direct, web=WEB)


# -- states ------------------------------------------------------------------------------------------------


def says(state: str) -> Fault:
    return faults.edit(lambda service: {**service, "state": state})


STATES: dict[str, tuple[str, ...]] = {
    "unknown": ("Hibernating", "", "Hibernating"),
    "regresses": ("Running", "Not running", "Starting"),
    "skips": ("Stopping", "Redeploying", "Scaling"),
}


@pytest.mark.parametrize("states", STATES.values(), ids=STATES)
def test_states_that_make_no_sense_for_a_while(
    stack: Stack, direct: Client, proxy: FaultProxy, states: tuple[str, ...]
) -> None:
    proxy.on(faults.status(404), "GET", "/v1/events", times=None)  # else one wrong look costs 10 seconds
    for state in states:
        proxy.on(says(state), *DETAIL)
    stack.up(web=WEB)
    stack.refresh()
    stack.up(web=WEB)
    assert_one(stack, direct, web=WEB)


def test_a_state_that_stays_unknown_ends_in_time(
    server: Server, stack: Stack, direct: Client, proxy: FaultProxy
) -> None:
    proxy.on(says("Hibernating"), *DETAIL, times=None)
    failed = failure(server, stack, web={**WEB, "timeout_seconds": 2})
    assert failed.kept
    assert "Hibernating" in str(failed)
    proxy.clear()
    stack.up(web=WEB)
    assert_one(stack, direct, web=WEB)


def test_terminated_by_somebody_else_while_we_wait(
    server: Server, stack: Stack, direct: Client, proxy: FaultProxy
) -> None:
    def terminate(uuid: str) -> None:
        waiting.until(direct, uuid, "Running")
        direct.terminate_service(uuid)

    proxy.on(then(terminate), *START)
    failed = failure(server, stack, web=SLOW)
    assert "terminated by somebody else" in str(failed)
    assert not failed.kept
    assert stack.state == {}
    stack.up(web=WEB)
    assert_one(stack, direct, web=WEB)


def test_edited_by_somebody_else_while_we_wait(
    server: Server, stack: Stack, direct: Client, proxy: FaultProxy
) -> None:
    proxy.on(then(lambda uuid: direct.update_service(uuid, {"image": "acme/other", "tags": []})), *START)
    failed = failure(server, stack, web=SLOW)
    assert failed.kept
    assert "its image is not what was asked for" in str(failed)
    stack.up(web=SLOW)
    assert_one(stack, direct, web=SLOW)


def test_scaled_by_somebody_else_while_we_wait(
    server: Server, stack: Stack, direct: Client, proxy: FaultProxy
) -> None:
    def scale(uuid: str) -> None:
        direct.update_service(uuid, {"target_num_containers": 2})
        waiting.until(direct, uuid, "Running")
        direct.scale_service(uuid)

    proxy.on(then(scale), *START)
    failed = failure(server, stack, web=SLOW)
    assert failed.kept
    assert "its target_num_containers is not what was asked for" in str(failed)
    stack.up(web=SLOW)
    assert_one(stack, direct, web=SLOW)
    assert direct.get_service(stack.state["web"].id)["running_num_containers"] == 1


# -- credentials and addresses -----------------------------------------------------------------------------


def test_credentials_are_revoked_in_the_middle(
    server: Server, stack: Stack, direct: Client, proxy: FaultProxy
) -> None:
    def revoke(_: str) -> None:
        proxy.on(faults.status(401), times=None)
        proxy.drop_websockets()

    proxy.on(then(revoke), *START)
    failed = failure(server, stack, web=SLOW)
    assert failed.kept
    assert "401" in str(failed)
    assert "TUTUM_AUTH" in str(failed)
    proxy.clear()
    stack.up(web=SLOW)
    assert_one(stack, direct, web=SLOW)


def test_credentials_go_nowhere_else(server: Server, stack: Stack, direct: Client, proxy: FaultProxy) -> None:
    with FaultProxy(server.url) as elsewhere:
        address = elsewhere.url.replace("127.0.0.1", "localhost")
        proxy.on(faults.redirect(address), times=None)
        assert "redirects to localhost" in str(failure(server, stack, web=WEB))
        assert stack.state == {}
        proxy.clear()

        def poison(answer: Any) -> None:
            for service in answer.get("objects", [answer]):
                if "uuid" in service:
                    service["resource_uri"] = f"{address}/api/v1/service/{service['uuid']}/"

        for method in ("GET", "POST", "PATCH", "DELETE"):
            proxy.on(faults.edit(poison), method, r"/api/v1/(service|container)/", times=None)
        stack.up(web=WEB)
        stack.up(web={**WEB, "image": "acme/web:2", "target_num_containers": 2})
        stack.refresh()
        stack.destroy()
        assert elsewhere.requests() == []
    assert living(direct) == []


# -- streams -----------------------------------------------------------------------------------------------

NO_STREAM: dict[str, Fault] = {
    "refused": faults.status(403),
    "no such address": faults.status(404),
    "never upgraded": faults.hang(),
    "reset": faults.reset_before(),
    "no websocket": faults.answer(200, b"{}"),
}


@pytest.mark.parametrize("fault", NO_STREAM.values(), ids=NO_STREAM)
def test_without_a_stream(stack: Stack, direct: Client, proxy: FaultProxy, fault: Fault) -> None:
    proxy.on(fault, "GET", "/v1/events", times=None)
    stack.up(web=WEB, other=WEB)
    assert_one(stack, direct, web=WEB, other=WEB)


@pytest.mark.parametrize(
    "fault",
    [
        pytest.param(FaultProxy.drop_websockets, id="dropped"),
        # Pings find it after 10 seconds.
        pytest.param(FaultProxy.freeze_websockets, id="half-open", marks=pytest.mark.slow),
    ],
)
def test_a_stream_that_ends_in_the_middle(
    stack: Stack, direct: Client, proxy: FaultProxy, fault: Callable[[FaultProxy], None]
) -> None:
    proxy.on(then(lambda _: fault(proxy)), *START)
    stack.up(web=SLOW)
    assert_one(stack, direct, web=SLOW)


# -- without what the provider would like to have ----------------------------------------------------------


def without_keys(proxy: FaultProxy, first: Fault | None = None) -> None:
    """Makes the control plane one that never heard of create keys; `first` happens to the first create."""

    def forgetting(fault: Fault) -> Fault:
        def forgetful(exchange: Exchange) -> None:
            ours = ("idempotency-key", "x-tutum-run")
            exchange.seen.headers = {k: v for k, v in exchange.seen.headers.items() if k.lower() not in ours}
            fault(exchange)

        return forgetful

    proxy.on(faults.status(404), "POST", "/key/close/", times=None)
    if first:
        proxy.on(forgetting(first), *CREATE)
    proxy.on(forgetting(then(lambda _: None)), *CREATE, times=None)


@pytest.mark.parametrize("fault", LOST.values(), ids=LOST)
def test_a_server_without_keys_makes_one_service(
    stack: Stack, direct: Client, proxy: FaultProxy, fault: Fault
) -> None:
    without_keys(proxy, fault)
    stack.up(web=WEB)
    assert_one(stack, direct, web=WEB)
    stack.end_run()
    assert stack.up(web=WEB) == {}


def test_a_server_without_keys_after_a_killed_run(
    server: Server, stack: Stack, direct: Client, proxy: FaultProxy
) -> None:
    without_keys(proxy)
    stack.up(web=WEB)
    made = stack.state.pop("web").id
    stack.end_run(kill=True)
    failed = failure(server, stack, web=WEB)
    assert "adopt" in str(failed)
    assert living(direct) == [made], "nothing is guessed, nothing made twice"
    stack.up(web={**WEB, "adopt": made})
    assert_one(stack, direct, web=WEB)


def test_a_plain_host(
    server: Server, new_stack: Callable[..., Stack], direct: Client, proxy: FaultProxy
) -> None:
    stack = new_stack(**{PLAIN_HOST: "1"})
    urn = {desired.URN: stack.urn("web")}  # the program passes it where the host cannot tell it
    failed = failure(server, stack, web={**BROKEN, **urn})
    (uuid,) = living(direct)
    assert not failed.kept
    assert uuid in str(failed)
    assert "exit code 3" in str(failed)
    stack.end_run()
    stack.up(web={**WEB, **urn})
    assert stack.state["web"].id == uuid, "by its open key"
    assert_one(stack, direct, web={**WEB, **urn})
    stack.end_run()

    del stack.state["web"]
    assert "adopt" in str(failure(server, stack, web={**WEB, **urn})), "closed when it was safe"
