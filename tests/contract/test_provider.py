"""The provider in its real host against a real control plane: every verb, what it sends, what it leaves
behind."""

from __future__ import annotations

import functools
import re
from collections.abc import Iterator
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import pulumi_tutum as tutum
from pulumi_tutum import Client, outputs, schema, waiting
from tests.support.faults import FaultProxy, looked_up, reset_after, reset_before, sent, status, writes
from tests.support.generated import UUIDS, respelled, services, shuffled
from tests.support.server import Server
from tests.support.stack import UNKNOWN, Failed, Refused, Resource, Stack, uuid
from tests.support.tools import until

WEB = {"image": "acme/web"}
CRASH = {"SIMULATE_EXIT": "3", "SIMULATE_EXIT_AFTER": "0"}


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
        for resource in stack.state.values():
            resource.failed = False
        stack.destroy()


# -- create ------------------------------------------------------------------------------------------------


def test_create_makes_starts_and_waits_with_few_requests(
    stack: Stack, proxy: FaultProxy, client: Client
) -> None:
    requests = sent(proxy, lambda: stack.up(web={**WEB, "target_num_containers": 2}))
    assert writes(requests) == ["POST", "POST start"]
    assert len(requests) <= 6
    live = client.get_service(uuid(stack))
    assert (live["state"], live["running_num_containers"]) == ("Running", 2)
    assert stack.preview(web={**WEB, "target_num_containers": 2}) == {}


def test_a_preview_without_a_change_asks_once(stack: Stack, proxy: FaultProxy) -> None:
    services: dict[str, dict[str, Any]] = {"web": WEB, "other": {**WEB, "target_num_containers": 2}}
    stack.up(**services)
    stack.end_run()
    assert sent(proxy, lambda: stack.preview(**services)) == ["GET"]


def test_create_not_running_and_create_of_nothing_do_not_start(stack: Stack, proxy: FaultProxy) -> None:
    for given_name, value in (("running", False), ("target_num_containers", 0)):
        web = {**WEB, given_name: value}
        assert writes(sent(proxy, functools.partial(stack.up, web=web))) == ["POST"]
        assert stack.state["web"].outputs["state"] == "Not running"
        assert stack.preview(web=web) == {}
        stack.destroy()


def test_create_without_waiting_returns_at_once(stack: Stack, proxy: FaultProxy) -> None:
    slow = {**WEB, "wait": False, "container_envvars": {"SIMULATE_START_SECONDS": "3600"}}
    # The GET shows that the credentials are right.
    assert sent(proxy, lambda: stack.up(web=slow)) == ["GET", "POST", "POST start"]
    assert stack.state["web"].outputs["state"] == "Starting"
    assert stack.preview(web=slow) == {}
    assert stack.refresh() == []
    assert stack.preview(web=slow) == {}
    # A service that never gets anywhere can be ended all the same.
    stack.destroy()


def test_every_kind_of_argument_arrives(stack: Stack, client: Client) -> None:
    stack.up(db={"image": "acme/db", "bindings": [{"container_path": "/data"}]})
    arguments = {
        **WEB,
        "name": "everything",
        "target_num_containers": 1,
        "run_command": "/run.sh",
        "entrypoint": "/entry",
        "container_ports": [{"protocol": "tcp", "inner_port": 80, "outer_port": 18080}],
        "container_envvars": {"A": "b"},
        "linked_to_service": [{"to_service": uuid(stack, "db")}],
        "bindings": [{"volumes_from": uuid(stack, "db")}],
        "autorestart": "ON_FAILURE",
        "autodestroy": "ON_SUCCESS",
        "sequential_deployment": True,
        "roles": ["global"],
        "deployment_strategy": "HIGH_AVAILABILITY",
        "tags": [],
        "autoredeploy": True,
        "pid": "none",
        "cpu_shares": 512,
        "memory": 64,
    }
    database = stack.state["db"].inputs
    stack.up(db=database, web=arguments)
    live = client.find_service("everything")
    for name in set(arguments) - {
        "image",
        "container_ports",
        "container_envvars",
        "linked_to_service",
        "bindings",
    }:
        assert live[name] == arguments[name]
    assert live["container_envvars"] == [{"key": "A", "value": "b"}]
    assert live["linked_to_service"][0]["to_service"].split("/")[-2] == uuid(stack, "db")
    assert stack.state["web"].outputs["endpoint_uris"] == [live["container_ports"][0]["endpoint_uri"]]
    assert stack.preview(db=database, web=arguments) == {}
    assert stack.refresh() == []
    assert stack.preview(db=database, web=arguments) == {}
    # Whose volumes are used cannot go.
    with pytest.raises(Failed, match=r"everything|volume"):
        stack.delete("db", stack.state["db"])


@settings(max_examples=40, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(arguments=services())
def test_right_after_an_up_nothing_is_to_be_done(
    stack: Stack, client: Client, arguments: dict[str, Any]
) -> None:
    """The invariant over real HTTP, for services made up by a machine (not started, so that they never
    fail)."""
    target = client.create_service({"image": "acme/db"}, key=None) if needs_target(arguments) else None
    arguments = {**_linked_to(arguments, target["uuid"] if target else ""), "running": False}
    arguments.pop("adopt", None)
    try:
        stack.up(web=arguments)
        assert stack.preview(web=arguments) == {}
        assert stack.refresh() == []
        assert stack.preview(web=arguments) == {}
        assert stack.up(web=arguments) == {}
    finally:
        stack.destroy()
        if target:
            client.terminate_service(target["uuid"])
            waiting.until(client, target["uuid"], "Terminated")


@settings(max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(one=services(), other=services(), random=st.randoms(use_true_random=False))
def test_what_a_preview_says_is_what_an_up_does(
    stack: Stack, proxy: FaultProxy, client: Client, one: dict[str, Any], other: dict[str, Any], random: Any
) -> None:
    """Over real HTTP: an update or a replacement in the preview is one in the up and sends something; where
    the preview says nothing, an update would send nothing."""
    # Most changes are small, or none at all.
    changed = {**other, **{name: value for name, value in one.items() if random.random() < 0.8}}
    if changed.get("deployment_strategy") == "EVERY_NODE":
        changed.pop("target_num_containers", None)
    steps = [respelled(one, random), changed, shuffled(changed, random)]
    target = client.create_service({"image": "acme/db"}, key=None)

    def arguments(made_up: dict[str, Any]) -> dict[str, Any]:
        return {**_linked_to(made_up, target["uuid"]), "name": "web", "running": False}

    try:
        stack.up(web=arguments(one))
        for step in steps:
            _assert_preview_tells(stack, proxy, arguments(step))
    finally:
        stack.destroy()
        client.terminate_service(target["uuid"])
        waiting.until(client, target["uuid"], "Terminated")


def _assert_preview_tells(stack: Stack, proxy: FaultProxy, arguments: dict[str, Any]) -> None:
    old = stack.state["web"]
    foretold = stack.preview(web=arguments)
    if foretold == {}:
        inputs = stack.check("web", old.inputs, arguments)
        assert writes(sent(proxy, lambda: stack.update("web", old, inputs))) == []
        stack.state["web"] = old
    requests = writes(sent(proxy, lambda: stack.up(web=arguments)))
    done = {} if not requests else {"web": "replace" if "POST" in requests else "update"}
    assert done == foretold
    assert stack.preview(web=arguments) == {}
    if done == {"web": "update"}:
        found = outputs.complete(stack.state["web"].outputs)
        _assert_foretold(outputs.lasting(old.outputs, stack.state["web"].inputs), found)


def _assert_foretold(lasting: dict[str, Any], found: dict[str, Any]) -> None:
    """What the preview of an update shows of outputs is what they are after it."""
    for name, value in lasting.items():
        if not schema.answered_keys(name):
            assert found.get(name) == value
            continue
        for record, keys in zip(found.get(name, ()), value, strict=True):
            assert {key: record.get(key) for key in keys} == keys


def needs_target(arguments: dict[str, Any]) -> bool:
    return any(known in str(arguments).lower() for known in UUIDS)


def _linked_to(value: Any, target: str) -> Any:
    """The arguments with every service that was made up replaced by one that exists; each is linked to
    once."""
    if isinstance(value, dict):
        changed = {k: _linked_to(v, target) for k, v in value.items()}
        if changed.get("linked_to_service"):
            changed["linked_to_service"] = changed["linked_to_service"][:1]
        return changed
    if isinstance(value, list):
        return [_linked_to(item, target) for item in value]
    return target if isinstance(value, str) and any(known in value.lower() for known in UUIDS) else value


# -- check -------------------------------------------------------------------------------------------------


def test_bad_input_is_refused_before_anything_is_sent(stack: Stack, proxy: FaultProxy) -> None:
    def act() -> None:
        with pytest.raises(Refused) as refusal:
            stack.up(web={**WEB, "container_ports": [{"protocol": "tcp"}], "memory": 1})
        assert refusal.value.reasons == [
            "container_ports[0].inner_port: is required",
            "memory: must be a whole number from 4 to 2147483647, not 1",
        ]

    assert sent(proxy, act) == []


def test_what_not_every_backend_does_is_asked_for_when_it_is_new(stack: Stack, proxy: FaultProxy) -> None:
    data = {**WEB, "bindings": [{"container_path": "/data"}]}
    web = {**data, "cpu_shares": 512}
    # One question for all that are alike, in a run.
    assert (
        sent(proxy, lambda: stack.preview(web=web, other=web, more={**web, "cpu_shares": 2})) == ["GET"] * 2
    )
    assert sent(proxy, lambda: stack.preview(web=web)) == []
    stack.up(web=web)
    assert sent(proxy, lambda: stack.preview(web=web)) == []
    assert sent(proxy, lambda: stack.preview(web={**web, "pid": "host"})) == ["GET"]
    assert sent(proxy, lambda: stack.preview(web=data)) == []
    # Without an answer the preview goes on: whoever makes the service will be told.
    proxy.on(status(404), "GET", "/refused/")
    assert stack.preview(web=web, other={**WEB, "privileged": True}) == {"other": "create"}


NOBODY = UUIDS[0]


@pytest.mark.parametrize(
    ("reference", "path"),
    [
        ({"linked_to_service": [{"to_service": NOBODY, "name": "a"}]}, "linked_to_service[0].to_service"),
        ({"linked_to_service": [{"to_service": NOBODY.upper()}]}, "linked_to_service[0].to_service"),
        (
            {"bindings": [{"container_path": "/x"}, {"volumes_from": f"/api/v1/service/{NOBODY}/"}]},
            "bindings[1].volumes_from",
        ),
        ({"adopt": NOBODY}, "adopt"),
    ],
    ids=str,
)
def test_a_reference_to_a_service_that_does_not_exist_is_refused_in_the_preview(
    stack: Stack, proxy: FaultProxy, reference: dict[str, Any], path: str
) -> None:
    def act() -> None:
        with pytest.raises(Refused) as refusal:
            stack.preview(web={**WEB, **reference})
        (reason,) = refusal.value.reasons
        assert reason.startswith(f"{path}: ")
        assert NOBODY in reason

    assert looked_up(proxy, act, NOBODY) == 1


def test_a_terminated_service_is_none_to_refer_to(stack: Stack, client: Client) -> None:
    gone = client.create_service({"image": "acme/web"})["uuid"]
    client.terminate_service(gone)
    waiting.until(client, gone, "Terminated")
    with pytest.raises(Refused, match=f"there is no service {gone}"):
        stack.preview(web={**WEB, "linked_to_service": [{"to_service": gone}]})


def test_a_service_is_looked_up_once_in_a_run(stack: Stack, proxy: FaultProxy, client: Client) -> None:
    other = client.create_service({"image": "acme/db", "name": "looked-up-once"})["uuid"]
    linked = {**WEB, "linked_to_service": [{"to_service": other, "name": "a"}]}
    mounted = {**WEB, "bindings": [{"volumes_from": other}]}
    assert looked_up(proxy, lambda: stack.preview(a=linked, b=linked, c=mounted), other) == 1
    stack.up(a=linked)
    stack.end_run()
    # What a service refers to already is not asked for: nothing would be done about it.
    assert looked_up(proxy, lambda: stack.preview(a=linked), other) == 0
    client.terminate_service(other)
    stack.end_run()
    assert stack.preview(a=linked) == {}


def test_services_of_the_program_are_not_looked_up(stack: Stack, proxy: FaultProxy, client: Client) -> None:
    other = client.create_service({"image": "acme/db", "name": "only-read"})["uuid"]
    stack.up(db={"image": "acme/db"})
    database = stack.state["db"].inputs
    web = {**WEB, "linked_to_service": [{"to_service": uuid(stack, "db")}]}
    # It was made in this run, and in the next one it is compared before.
    assert looked_up(proxy, lambda: stack.preview(db=database, web=web), uuid(stack, "db")) == 0
    stack.end_run()
    assert looked_up(proxy, lambda: stack.preview(db=database, web=web), uuid(stack, "db")) == 0
    stack.end_run()
    stack.get("other", other)
    web = {**WEB, "linked_to_service": [{"to_service": other}]}
    assert looked_up(proxy, lambda: stack.check("web", {}, web), other) == 0
    client.terminate_service(other)


def test_without_an_answer_no_reference_is_refused(stack: Stack, proxy: FaultProxy) -> None:
    proxy.on(status(500), "GET", "/api/v1/service/", times=None)
    web = {**WEB, "linked_to_service": [{"to_service": NOBODY}], "bindings": [{"volumes_from": NOBODY}]}
    assert stack.preview(web=web, other=web) == {"web": "create", "other": "create"}


def test_a_link_without_a_name_has_its_targets_name(stack: Stack, proxy: FaultProxy, client: Client) -> None:
    other = client.create_service({"image": "acme/db", "name": "the-target"})["uuid"]
    web = {**WEB, "linked_to_service": [{"to_service": other}]}
    link = {"to_service": f"/api/v1/service/{other}/", "name": "the-target"}
    assert stack.check("web", {}, web)["linked_to_service"] == [link]
    stack.up(web=web)
    (live,) = client.get_service(uuid(stack))["linked_to_service"]
    (found,) = stack.state["web"].outputs["linked_to_service"]
    assert live["name"] == found["name"] == "the-target"
    assert stack.preview(web=web) == {}
    assert stack.refresh() == []
    assert stack.preview(web=web) == {}
    # A name that is given counts, and so does its end.
    named = {**WEB, "linked_to_service": [{"to_service": other, "name": "own"}]}
    assert stack.up(web=named) == {"web": "update"}
    assert stack.up(web=web) == {"web": "update"}
    assert client.get_service(uuid(stack))["linked_to_service"][0]["name"] == "the-target"
    # When nobody can be asked, the name stays.
    stack.end_run()
    proxy.on(status(500), "GET", "/api/v1/service/", times=None)
    assert stack.preview(web=web) == {}
    proxy.clear()
    client.terminate_service(other)


def test_links_of_an_earlier_release_have_no_names_and_are_no_change(
    stack: Stack, proxy: FaultProxy, client: Client
) -> None:
    other = client.create_service({"image": "acme/db", "name": "an-old-target"})["uuid"]
    web = {**WEB, "linked_to_service": [{"to_service": other}]}
    stack.up(web=web)
    for bag in (stack.state["web"].inputs, stack.state["web"].outputs):
        del bag["linked_to_service"][0]["name"]
    stack.end_run()
    assert stack.preview(web=web) == {}
    assert writes(sent(proxy, lambda: stack.up(web={**web, "autoredeploy": True}))) == ["PATCH"]
    assert stack.state["web"].outputs["linked_to_service"][0]["name"] == "an-old-target"
    assert stack.preview(web={**web, "autoredeploy": True}) == {}
    client.terminate_service(other)


def test_unknown_values_survive_the_host(stack: Stack) -> None:
    inputs = stack.check("web", {}, {**WEB, "linked_to_service": [{"to_service": UNKNOWN, "name": "db"}]})
    assert type(inputs["linked_to_service"][0]["to_service"]).__name__ == "Unknown"


def test_a_preview_works_with_a_warning_when_the_control_plane_is_down() -> None:
    environ = {"TUTUM_USER": "u", "TUTUM_APIKEY": "k", "TUTUM_REST_HOST": "http://127.0.0.1:9"}
    with Stack(environ) as stack:
        assert stack.preview(web=WEB, other=WEB) == {"web": "create", "other": "create"}
        warnings = stack.warnings()
        assert len(warnings) == 1
        assert (
            "no control plane answers at http://127.0.0.1:9: start one with `pulumi-tutum serve`"
            in warnings[0]
        )
        with pytest.raises(Failed, match=r"127\.0\.0\.1:9"):
            stack.up(web=WEB)


def test_missing_credentials_are_one_clear_sentence(server: Server, tmp_path: Any) -> None:
    with Stack({"TUTUM_REST_HOST": server.url, "HOME": str(tmp_path)}) as stack:
        with pytest.raises(Failed) as failure:
            stack.up(web=WEB)
        assert str(failure.value).startswith("no credentials: set TUTUM_USER and TUTUM_APIKEY")
        assert "\n" not in str(failure.value)


# -- update: the fewest calls ------------------------------------------------------------------------------

PORTS = [{"protocol": "tcp", "inner_port": 80, "published": True}]


@pytest.mark.parametrize(
    ("change", "requests"),
    [
        ({"target_num_containers": 2}, ["PATCH", "POST scale"]),
        ({"target_num_containers": 0}, ["PATCH", "POST scale"]),
        ({"image": "acme/web:2"}, ["PATCH", "POST redeploy"]),
        ({"container_envvars": {"A": "b"}, "container_ports": PORTS}, ["PATCH", "POST redeploy"]),
        ({"image": "acme/web:2", "target_num_containers": 3}, ["PATCH", "POST redeploy"]),
        ({"tags": []}, []),
        ({"autoredeploy": True, "deployment_strategy": "HIGH_AVAILABILITY"}, ["PATCH"]),
        ({"running": False}, ["POST stop"]),
        ({"running": False, "image": "acme/web:2"}, ["PATCH", "POST stop"]),
        ({"timeout_seconds": 60}, []),
    ],
    ids=str,
)
def test_an_update_sends_as_little_as_possible(
    stack: Stack, proxy: FaultProxy, change: dict[str, Any], requests: list[str]
) -> None:
    stack.up(web=WEB)
    first = uuid(stack)
    changed = {**WEB, **change}
    assert writes(sent(proxy, lambda: stack.up(web=changed))) == requests
    assert uuid(stack) == first
    assert stack.preview(web=changed) == {}
    assert stack.refresh() == []
    assert stack.preview(web=changed) == {}


def test_running_again_redeploys_only_what_is_outdated(stack: Stack, proxy: FaultProxy) -> None:
    stack.up(web=WEB)
    stack.up(web={**WEB, "running": False})
    assert writes(sent(proxy, lambda: stack.up(web=WEB))) == ["POST start"]
    stack.up(web={**WEB, "running": False})
    newer = {**WEB, "image": "acme/web:2"}
    assert writes(sent(proxy, lambda: stack.up(web={**newer, "running": False}))) == ["PATCH"]
    assert writes(sent(proxy, lambda: stack.up(web=newer))) == ["POST redeploy"]


def test_a_service_under_way_is_waited_for_first(stack: Stack, proxy: FaultProxy, client: Client) -> None:
    stack.up(web=WEB)
    client.redeploy_service(uuid(stack))
    changed = {**WEB, "target_num_containers": 2}
    assert writes(sent(proxy, lambda: stack.up(web=changed))) == ["PATCH", "POST scale"]
    assert client.get_service(uuid(stack))["running_num_containers"] == 2


@pytest.mark.parametrize("fault", [reset_after(), reset_before(), status(503), status(503, committed=True)])
def test_an_action_is_repeated_only_after_a_look(
    stack: Stack, proxy: FaultProxy, client: Client, fault: Any
) -> None:
    stack.up(web=WEB)
    proxy.on(fault, method="POST", path=r"/redeploy/$")
    stack.up(web={**WEB, "image": "acme/web:2"})
    actions = [a for a in client.list_actions(f"/api/v1/service/{uuid(stack)}/") if "Redeploy" in a["action"]]
    assert len(actions) == 1, "containers were replaced more than once, or never"
    assert client.get_service(uuid(stack))["synchronized"] is True


# -- replacement -------------------------------------------------------------------------------------------


def test_a_replacement_beside_the_old_one(stack: Stack, client: Client) -> None:
    stack.up(web={**WEB, "bindings": [{"container_path": "/old"}]})
    old = stack.state["web"]
    volumes = {**WEB, "bindings": [{"container_path": "/data"}]}
    assert stack.preview(web=volumes) == {"web": "replace"}
    assert stack.up(web=volumes) == {"web": "replace"}
    new = stack.state["web"]
    assert new.id != old.id
    assert new.inputs["name"] != old.inputs["name"]
    assert client.get_service(old.id)["state"] == "Terminated"
    assert any("the volumes of the old one" in warning for warning in stack.warnings())
    stack.end_run()
    assert stack.preview(web=volumes) == {}


def test_a_replacement_with_the_same_name_comes_after_the_old_one(stack: Stack, client: Client) -> None:
    given_name = {**WEB, "name": "the-same"}
    stack.up(web=given_name)
    old = uuid(stack)
    assert stack.up(web={**given_name, "bindings": [{"container_path": "/data"}]}) == {"web": "replace"}
    assert client.find_service("the-same")["uuid"] == uuid(stack) != old


# -- failures ----------------------------------------------------------------------------------------------


def test_a_service_that_does_not_start_is_kept_and_repaired_in_place(stack: Stack, client: Client) -> None:
    bad = {
        **WEB,
        "target_num_containers": 2,
        "container_envvars": {**CRASH, "SIMULATE_ONLY": "2", "PW": "hunter22"},
    }
    with pytest.raises(Failed) as failure:
        stack.up(web=bad)
    text = str(failure.value)
    assert failure.value.kept
    assert "Partly running (1/2 containers running)" in text
    assert "-2: Stopped, exit code 3" in text
    assert "Exited with code 3" in text
    assert "hunter22" not in text
    assert "Traceback" not in text
    first = uuid(stack)
    assert stack.state["web"].outputs["state"] == "Partly running"
    assert stack.refresh() == ["web"]
    assert "-2: Stopped, exit code 3" in "\n".join(stack.troubles["web"])
    good = {**WEB, "target_num_containers": 2}
    assert stack.up(web=good) == {"web": "update"}
    assert uuid(stack) == first
    assert stack.preview(web=good) == {}


def test_what_is_kept_after_a_failed_update_is_what_there_is(stack: Stack, client: Client) -> None:
    stack.up(web=WEB)
    with pytest.raises(Failed, match="exit code 3") as failure:
        stack.up(web={**WEB, "image": "acme/web:2", "container_envvars": CRASH})
    assert failure.value.kept
    resource = stack.state["web"]
    assert resource.outputs["state"] == "Stopped"
    assert resource.outputs["image_name"] == "acme/web:2"
    assert resource.inputs["image"] == "acme/web"
    assert stack.up(web=WEB) == {"web": "update"}
    assert client.get_service(resource.id)["image_name"] == "acme/web:latest"
    assert stack.preview(web=WEB) == {}


def test_rollback_on_failure_applies_the_last_good_inputs_and_still_fails(
    stack: Stack, client: Client
) -> None:
    stack.up(web=WEB)
    bad = {**WEB, "container_envvars": CRASH, "image": "acme/web:2", "rollback_on_failure": True}
    with pytest.raises(Failed, match="rolled back to the last good inputs"):
        stack.up(web=bad)
    live = client.get_service(uuid(stack))
    assert (live["state"], live["image_name"]) == ("Running", "acme/web:latest")
    assert stack.state["web"].outputs["image"] == "acme/web"
    assert stack.preview(web=bad) == {"web": "update"}
    assert stack.up(web=WEB) == {"web": "update"}
    assert stack.preview(web=WEB) == {}


def test_a_tag_that_no_node_has_fails_with_the_reason(stack: Stack) -> None:
    with pytest.raises(Failed) as failure:
        stack.up(web={**WEB, "tags": ["nowhere"]})
    assert failure.value.kept
    assert "Not running" in str(failure.value)
    assert "nowhere" in str(failure.value) or "node" in str(failure.value)


def test_the_deadline_ends_a_wait(stack: Stack) -> None:
    slow = {**WEB, "timeout_seconds": 1, "container_envvars": {"SIMULATE_START_SECONDS": "2"}}
    with pytest.raises(Failed, match="still Starting") as failure:
        stack.up(web=slow)
    assert failure.value.kept
    # The service goes on by itself; the next up finds that it has arrived.
    assert stack.up(web={**slow, "timeout_seconds": 60}) == {"web": "update"}


def test_a_health_check_without_a_port_is_refused_in_the_preview(stack: Stack) -> None:
    quiet = {"image": "busybox"}
    stack.up(quiet=quiet)  # now the control plane knows the image
    web = {"image": "busybox:latest", "healthcheck": {"http": "/"}}
    with pytest.raises(Refused, match=r"healthcheck\.http: has no port to ask.*set healthcheck\.port"):
        stack.preview(quiet=quiet, web=web)
    ports = [{"protocol": "tcp", "inner_port": 80}]
    for fitting in ({"container_ports": ports}, {"container_ports": UNKNOWN}, {"image": UNKNOWN}):
        assert stack.preview(quiet=quiet, web={**web, **fitting}) == {"web": "create"}
    stack.up(quiet=quiet, web={**web, "container_ports": ports})
    with pytest.raises(Refused, match=r"healthcheck\.http: has no port"):
        stack.preview(quiet=quiet, web=web)
    assert stack.up(quiet=quiet, web={"image": "busybox", "healthcheck": {"http": "/", "port": 81}}) == {
        "web": "update"
    }


def test_a_name_that_is_taken_is_refused_with_a_hint(stack: Stack, client: Client) -> None:
    stranger = client.create_service({"image": "acme/other", "name": "taken"})
    with pytest.raises(Failed, match="adopt") as failure:
        stack.up(web={**WEB, "name": "taken"})
    assert not failure.value.kept
    assert stack.state == {}
    client.terminate_service(stranger["uuid"])


# -- jobs --------------------------------------------------------------------------------------------------

DONE = {"SIMULATE_EXIT": "0", "SIMULATE_EXIT_AFTER": "0"}


@pytest.mark.parametrize("autodestroy", ["ON_SUCCESS", "ALWAYS"])
def test_a_job_that_ends_well_is_done(
    stack: Stack, proxy: FaultProxy, client: Client, autodestroy: str
) -> None:
    job = {**WEB, "autodestroy": autodestroy, "container_envvars": DONE, "target_num_containers": 2}
    stack.up(web=job)
    until(lambda: client.get_service(uuid(stack))["state"] == "Not running", "end of the job")
    assert stack.refresh() == []
    assert stack.preview(web=job) == {}
    # Not run again for what its containers do not see, run again for what they do.
    assert writes(sent(proxy, lambda: stack.up(web={**job, "autoredeploy": True}))) == ["PATCH"]
    assert writes(sent(proxy, lambda: stack.up(web={**job, "image": "acme/web:2"}))) == [
        "PATCH",
        "POST start",
    ]


def test_a_job_that_fails_fails_the_up_and_is_run_again(stack: Stack, proxy: FaultProxy) -> None:
    job = {**WEB, "autodestroy": "ALWAYS", "container_envvars": CRASH}
    for _ in range(2):
        with pytest.raises(Failed, match="exited with code 3") as failed:
            stack.up(web=job)
        # Its container is gone, and its last lines are told all the same; not those of an earlier one.
        assert len(re.findall(r"  web-[0-9a-f]{7}-1 \| Exited with code 3", str(failed.value))) == 1
    assert writes(sent(proxy, lambda: stack.up(web={**job, "container_envvars": DONE}))) == [
        "PATCH",
        "POST start",
    ]


def test_an_end_is_no_success_without_autodestroy(stack: Stack) -> None:
    with pytest.raises(Failed, match="exit code 0"):
        stack.up(web={**WEB, "container_envvars": DONE})


# -- read --------------------------------------------------------------------------------------------------


def test_refresh_shows_what_was_changed_outside_and_up_repairs_it(stack: Stack, client: Client) -> None:
    arguments = {**WEB, "container_envvars": {"A": "b"}, "tags": []}
    stack.up(web=arguments)
    changed = {
        "target_num_containers": 2,
        "tags": [{"name": "front"}],
        "run_command": "/other.sh",
        "container_envvars": [{"key": "A", "value": "from-outside"}],
    }
    client.update_service(uuid(stack), changed)
    assert stack.refresh() == ["web"]
    inputs, outs = stack.state["web"].inputs, stack.state["web"].outputs
    assert inputs["target_num_containers"] == 2
    assert inputs["tags"] == [{"name": "front"}]
    assert "run_command" not in inputs
    assert inputs["container_envvars"] == {"A": "b"}, "a value from outside may be secret"
    assert outs["run_command"] == "/other.sh"
    assert outs["container_envvars"] == {"A": "from-outside"}
    assert stack.preview(web=arguments) == {"web": "update"}
    stack.up(web=arguments)
    live = client.get_service(uuid(stack))
    assert (live["tags"], live["run_command"], live["synchronized"]) == ([], None, True)
    assert live["running_num_containers"] == 1
    assert stack.preview(web=arguments) == {}


def test_a_service_stopped_outside_is_not_healthy_and_is_started_again(
    stack: Stack, proxy: FaultProxy, client: Client
) -> None:
    stack.up(web=WEB)
    client.stop_service(uuid(stack))
    waiting.until(client, uuid(stack), "Stopped")
    assert stack.refresh() == ["web"]
    assert stack.preview(web=WEB) == {"web": "update"}
    assert writes(sent(proxy, lambda: stack.up(web=WEB))) == ["POST start"]


def test_bindings_changed_outside_are_reported_and_not_replaced(stack: Stack, client: Client) -> None:
    stack.up(web=WEB)
    client.update_service(uuid(stack), {"bindings": [{"container_path": "/outside"}]})
    stack.refresh()
    assert any("bindings of service" in warning for warning in stack.warnings())
    assert stack.preview(web=WEB) != {"web": "replace"}
    first = uuid(stack)
    stack.up(web=WEB)
    assert uuid(stack) == first


def test_a_service_terminated_outside_is_gone(stack: Stack, client: Client) -> None:
    stack.up(web=WEB)
    first = uuid(stack)
    client.terminate_service(first)
    waiting.until(client, first, "Terminated")
    with pytest.raises(Failed, match="terminated outside of Pulumi; `pulumi up --refresh` makes a new one"):
        stack.up(web={**WEB, "image": "acme/web:2"})
    assert stack.refresh() == []
    assert stack.state == {}
    assert stack.up(web=WEB) == {"web": "create"}
    assert uuid(stack) != first


def test_get_reads_what_exists_and_says_what_does_not(stack: Stack, client: Client) -> None:
    made = client.create_service({"image": "acme/web", "name": "foreign"})
    outs = stack.get("web", made["uuid"])
    assert (outs["name"], outs["state"]) == ("foreign", "Not running")
    client.terminate_service(made["uuid"])
    waiting.until(client, made["uuid"], "Terminated")
    for missing in (made["uuid"], UUIDS[0]):
        with pytest.raises(Failed, match=f"there is no service {missing}"):
            stack.get("web", missing)


def test_nothing_is_expected_of_what_is_only_read(stack: Stack, client: Client) -> None:
    made = client.create_service({"image": "acme/web", "bindings": [{"container_path": "/data"}]})
    # The engine keeps no inputs of it.
    stack.state["web"] = Resource(made["uuid"], {}, stack.get("web", made["uuid"]))
    client.start_service(made["uuid"])
    waiting.until(client, made["uuid"], "Running")
    client.stop_service(made["uuid"])
    waiting.until(client, made["uuid"], "Stopped")
    assert stack.refresh() == []
    assert stack.warnings() == []
    assert stack.state["web"].outputs["state"] == "Stopped"
    assert stack.state["web"].outputs["bindings"] == [{"container_path": "/data", "rewritable": True}]
    client.terminate_service(made["uuid"])


def test_get_service_finds_the_living_by_uuid_or_name(client: Client) -> None:
    body = {
        "image": "acme/web",
        "name": "looked-up",
        "container_ports": [{"protocol": "tcp", "inner_port": 80, "published": True}],
        "container_envvars": [{"key": "PASS", "value": "hunter22"}],
    }
    gone = client.create_service(body)
    client.terminate_service(gone["uuid"])
    waiting.until(client, gone["uuid"], "Terminated")
    made = client.create_service(body)
    client.start_service(made["uuid"])
    waiting.until(client, made["uuid"], "Running")
    for found in (
        tutum.get_service(name="looked-up", client=client),
        tutum.get_service(uuid=made["uuid"], client=client),
        tutum.get_service(uuid=made["resource_uri"], client=client),
    ):
        assert (found.uuid, found.state, found.image_name) == (made["uuid"], "Running", "acme/web:latest")
        assert found.container_ports[0].inner_port == 80
        assert found.container_ports[0]["endpoint_uri"] is None
        assert len(found.endpoint_uris) == 1
        assert "hunter22" not in repr(found) + str(found)
    for missing in ({"name": "nobody"}, {"uuid": gone["uuid"]}):
        with pytest.raises(tutum.NotFound):
            tutum.get_service(**missing, client=client)
    with pytest.raises(ValueError, match="either uuid or name"):
        tutum.get_service(client=client)
    client.terminate_service(made["uuid"])


# -- delete ------------------------------------------------------------------------------------------------


def test_delete_waits_and_takes_what_is_gone_as_done(stack: Stack, client: Client) -> None:
    stack.up(web={**WEB, "container_envvars": {"SIMULATE_STOP_SECONDS": "0.3"}})
    resource = stack.state["web"]
    stack.delete("web", resource)
    assert client.get_service(resource.id)["state"] == "Terminated"
    stack.delete("web", resource)
    resource.id = UUIDS[0]
    stack.delete("web", resource)
    stack.state.clear()


def test_delete_waits_for_a_transition_first(stack: Stack, client: Client) -> None:
    stack.up(web={**WEB, "wait": False, "container_envvars": {"SIMULATE_START_SECONDS": "0.5"}})
    first = uuid(stack)
    stack.destroy()
    assert client.get_service(first)["state"] == "Terminated"


def test_a_scale_that_failed_is_repaired_when_it_is_taken_back(stack: Stack, client: Client) -> None:
    two = {**WEB, "target_num_containers": 2}
    stack.up(web=two)
    broken = {"image": "acme/web:missing", "target_num_containers": 3, "rollback_on_failure": True}
    with pytest.raises(Failed, match="rolled back"):
        stack.up(web={**WEB, **broken})
    assert client.get_service(uuid(stack))["state"] == "Running"
    stack.up(web=two)
    assert stack.preview(web=two) == {}


# -- adopt -------------------------------------------------------------------------------------------------


def test_adoption_takes_over_by_uuid_or_name(stack: Stack, client: Client) -> None:
    made = client.create_service({"image": "acme/web", "name": "legacy"})
    arguments = {**WEB, "adopt": "legacy", "target_num_containers": 2}
    assert stack.preview(web=arguments) == {"web": "create"}
    assert "adopts service 'legacy'" in stack.warnings()[-1]
    assert stack.up(web=arguments) == {"web": "create"}
    assert uuid(stack) == made["uuid"]
    assert client.get_service(made["uuid"])["running_num_containers"] == 2
    for later in (arguments, {**WEB, "target_num_containers": 2}):
        assert stack.preview(web=later) == {}
    other = client.create_service({"image": "acme/web"})
    stack.up(web=arguments, second={**WEB, "adopt": other["uuid"]})
    assert stack.state["second"].id == other["uuid"]


def test_an_adoption_that_would_replace_is_refused_before_anything_changes(
    stack: Stack, proxy: FaultProxy, client: Client
) -> None:
    made = client.create_service({"image": "acme/web", "name": "stubborn"})
    wrong = {**WEB, "adopt": "stubborn", "name": "other", "bindings": [{"container_path": "/x"}]}

    def act() -> None:
        with pytest.raises(Refused) as refusal:
            stack.up(web=wrong)
        assert [reason.partition(":")[0] for reason in refusal.value.reasons] == ["name", "bindings"]

    assert writes(sent(proxy, act)) == []
    with pytest.raises(Refused, match="no service is named 'nobody'"):
        stack.up(web={**WEB, "adopt": "nobody"})
    client.terminate_service(made["uuid"])
    waiting.until(client, made["uuid"], "Terminated")
    with pytest.raises(Refused, match="is Terminated"):
        stack.up(web={**WEB, "adopt": made["uuid"]})


def test_an_adopted_service_can_be_replaced_later(stack: Stack, client: Client) -> None:
    made = client.create_service({"image": "acme/web", "name": "to-replace"})
    arguments = {**WEB, "adopt": "to-replace"}
    stack.up(web=arguments)
    changed = {**arguments, "bindings": [{"container_path": "/x"}]}
    assert stack.up(web=changed) == {"web": "replace"}
    assert uuid(stack) != made["uuid"]
    assert client.get_service(made["uuid"])["state"] == "Terminated"


def test_a_service_that_is_handed_on_is_not_terminated(stack: Stack, client: Client) -> None:
    """The engine deletes the old resource when the new one has adopted its service, and so it does where `up
    --replace` makes a resource anew that adopts."""
    made = client.create_service({"image": "acme/web", "name": "handed-on"})["uuid"]
    stack.up(web={**WEB, "adopt": made})
    stack.end_run()
    assert stack.up(front={**WEB, "adopt": made}) == {"front": "create", "web": "delete"}
    assert client.get_service(made)["state"] == "Running"
    stack.end_run()
    old = stack.state["front"]
    stack.create("front", stack.check("front", {}, {**WEB, "adopt": made}))
    stack.delete("front", old)
    assert client.get_service(made)["state"] == "Running"
    stack.end_run()
    stack.destroy()
    assert client.get_service(made)["state"] == "Terminated"


# -- made once ---------------------------------------------------------------------------------------------


def test_a_create_whose_answer_is_lost_makes_one_service(
    stack: Stack, proxy: FaultProxy, client: Client
) -> None:
    proxy.on(reset_after(), method="POST", path=r"/api/v1/service/$")
    proxy.on(status(503), method="POST", path=r"/start/$")
    stack.up(web=WEB)
    name = stack.state["web"].inputs["name"]
    assert len([s for s in client.list_services(name=name) if s["state"] != "Terminated"]) == 1


def test_a_run_that_is_killed_is_carried_on_and_one_that_ends_is_closed(stack: Stack, client: Client) -> None:
    inputs = stack.check("web", {}, WEB)
    stack.create("web", inputs)
    made = uuid(stack)
    stack.end_run(kill=True)
    stack.state.clear()  # the engine died before it had saved this
    stack.up(web={**WEB, "image": "acme/web:2"})
    assert uuid(stack) == made
    assert client.get_service(made)["image_name"] == "acme/web:2"
    stack.end_run()
    # Somebody else whose stack has the same names.
    with Stack(stack.env, project=stack.project) as other:
        with pytest.raises(Failed, match="adopt"):
            other.up(web=WEB)
        assert other.state == {}
    assert client.get_service(made)["state"] == "Running"


def test_a_replacement_that_is_killed_is_carried_on(stack: Stack, client: Client) -> None:
    stack.up(web=WEB)
    stack.end_run()
    volumes = {**WEB, "bindings": [{"container_path": "/data"}]}
    old = stack.state["web"]

    def half() -> str:
        inputs = stack.check("web", old.inputs, volumes)
        assert stack.diff("web", old, inputs).replaces == ("bindings",)
        stack.create("web", stack.check("web", {}, volumes))
        made = uuid(stack)
        stack.end_run(kill=True)
        stack.state["web"] = old
        return made

    first = half()
    assert half() == first
    stack.up(web=volumes)
    assert uuid(stack) == first
    assert client.get_service(old.id)["state"] == "Terminated"


def test_after_destroy_the_same_name_makes_a_new_service(stack: Stack) -> None:
    stack.up(web=WEB)
    first = stack.state["web"]
    stack.destroy()
    stack.end_run()
    stack.up(web=WEB)
    assert uuid(stack) != first.id
    assert stack.state["web"].inputs["name"] == first.inputs["name"]


def test_an_interrupted_run_with_other_bindings_is_kept_and_replaced(stack: Stack, client: Client) -> None:
    stack.up(web=WEB)
    made = uuid(stack)
    stack.end_run(kill=True)
    stack.state.clear()
    volumes = {**WEB, "bindings": [{"container_path": "/data"}]}
    with pytest.raises(Failed, match="made by an interrupted run with other bindings") as failure:
        stack.up(web=volumes)
    assert failure.value.kept
    assert stack.up(web=volumes) == {"web": "replace"}
    assert client.get_service(made)["state"] == "Terminated"


# -- without the SDK's private surface ---------------------------------------------------------------------


def test_the_plain_host_does_the_main_job(stack: Stack, client: Client) -> None:
    stack.env = {**stack.env, "PULUMI_TUTUM_PLAIN_HOST": "1"}
    hidden = {"__urn": stack.urn("web")}
    good = {**WEB, **hidden}
    stack.up(web=good)
    assert stack.state["web"].inputs["name"].startswith("web-")
    assert stack.preview(web=good) == {}
    client.stop_service(uuid(stack))
    waiting.until(client, uuid(stack), "Stopped")
    assert stack.refresh() == []
    assert stack.preview(web=good) == {"web": "update"}
    stack.up(web=good)
    stack.destroy()
    stack.end_run()
    # A create that fails cannot be kept in the state: the message has the uuid, the next up finds the
    # service.
    with pytest.raises(Failed) as failure:
        stack.up(web={**good, "container_envvars": CRASH})
    assert not failure.value.kept
    stack.end_run()
    assert stack.up(web=good) == {"web": "create"}
    assert uuid(stack) in str(failure.value)
