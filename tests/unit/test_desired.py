"""Names and keys, what to do next with a service, and what is still wrong with it."""

from __future__ import annotations

from typing import Any

import pytest

from pulumi_tutum import desired, lifecycle, schema
from pulumi_tutum.lifecycle import (
    NOT_RUNNING,
    PARTLY_RUNNING,
    REDEPLOYING,
    RUNNING,
    STARTING,
    STOPPED,
)
from tests.support.unknown import unknown

URN = "urn:pulumi:dev::shop::pulumi-python:dynamic/tutum:Service::"


def inputs(**arguments: Any) -> dict[str, Any]:
    return desired.normal({"image": "acme/web", "name": "web", **arguments})


def service(state: str, running: int = 0, stopped: int = 0, **attributes: Any) -> dict[str, Any]:
    return {
        "image_name": "acme/web:latest",
        "name": "web",
        "target_num_containers": 1,
        "state": state,
        "running_num_containers": running,
        "stopped_num_containers": stopped,
        "current_num_containers": running + stopped,
        "synchronized": True,
        "deployed_datetime": None,
        **attributes,
    }


# -- check -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("arguments", "problem"),
    [
        ({"running": "yes"}, "running: must be true or false, not a string"),
        ({"wait": 1.0}, "wait: must be true or false, not a number"),
        ({"timeout_seconds": 0.0}, "timeout_seconds: must be a whole number from 1"),
        ({"adopt": ""}, "adopt: must be the uuid, URI or name"),
        ({"uuid": "x"}, "uuid: is set by Tutum and cannot be given"),
        (
            {"targetNumContainers": 2.0},
            "targetNumContainers: is not an input of a Service; inputs are image,",
        ),
        ({"tags": [{desired.UNSUPPORTED: "object"}]}, "tags[0]: cannot be of type object"),
        (
            {"bindings": [{"host_path": {desired.UNSUPPORTED: "bytes"}}]},
            "bindings[0].host_path: cannot be of type",
        ),
    ],
)
def test_wrong_arguments_are_refused(arguments: dict[str, Any], problem: str) -> None:
    found = [str(p) for p in desired.problems({"image": "acme/web", **arguments})]
    assert len(found) == 1
    assert found[0].startswith(problem)


def test_hidden_and_unknown_arguments_pass() -> None:
    hidden = {"__provider": "x", desired.URN: URN}
    assert not desired.problems({"image": "acme/web", **hidden, **dict.fromkeys(schema.OPTIONS, unknown())})


def test_normal_form_is_stable() -> None:
    first = inputs(container_envvars=[{"key": "A", "value": 1.0}], tags=["a"], timeout_seconds=60.0)
    assert desired.normal(first) == first
    assert first["running"] is first["wait"] is True
    assert first["timeout_seconds"] == 60


@pytest.mark.parametrize(
    ("resource", "stem"),
    [
        ("web", "web-"),
        ("my web!", "my-web--"),
        ("a::b", "a--b-"),
        ("_x", "x-"),
        ("x" * 80, "x" * 48 + "-"),
        ("日本", "service-"),
        ("äpfel", "pfel-"),
    ],
)
def test_automatic_names_are_names(resource: str, stem: str) -> None:
    key = desired.create_key(URN + resource)
    name = desired.automatic_name(URN + resource, key)
    assert name == stem + key[:7]
    assert not schema.problems({"image": "x", "name": name})


def test_keys_differ_with_everything_that_makes_a_service_another_one() -> None:
    keys = {
        desired.create_key(URN + "web"),
        desired.create_key(URN + "web2"),
        desired.create_key(URN.replace("dev", "prod") + "web"),
        desired.create_key(URN.replace("shop", "other") + "web"),
        desired.create_key(URN + "web", "team-a"),
        desired.create_key(URN + "web", "", "old id"),
        desired.create_key(URN + "web", "old id"),
    }
    assert len(keys) == 7
    assert all(len(key) == 64 for key in keys)
    assert desired.create_key(URN + "web") == desired.create_key(URN + "web")


# -- diff --------------------------------------------------------------------------------------------------


def test_a_name_that_is_not_declared_is_no_change() -> None:
    adopted = {k: v for k, v in inputs().items() if k != "name"}
    assert desired.changes(inputs(), adopted) == {}


def test_adopt_counts_only_at_the_beginning_and_options_need_no_request() -> None:
    assert desired.changes(inputs(adopt="x"), inputs()) == {}
    assert desired.changes(inputs(), inputs(timeout_seconds=5)) == {"timeout_seconds": schema.PATCH}
    assert desired.changes(inputs(), inputs(wait=unknown())) == {"wait": schema.PATCH}


@pytest.mark.parametrize(
    ("ignored", "variables"),
    [
        ([], {"A": "1", "B": "2"}),
        (["container_envvars"], {"A": "9", "C": "3"}),
        (["*"], {"A": "9", "C": "3"}),
        (["container_envvars.A"], {"A": "9", "B": "2"}),
        (['container_envvars["A"]', 'container_envvars["B"]'], {"A": "9"}),
        (["container_envvars.C"], {"A": "1", "B": "2", "C": "3"}),
        (["healthcheck.http", "tags[0]", "image.A", "container_envvars.A.b"], {"A": "1", "B": "2"}),
    ],
)
def test_what_is_ignored_is_left_to_others(ignored: list[str], variables: dict[str, str]) -> None:
    wanted = inputs(container_envvars={"A": "1", "B": "2"}, tags=["t"])
    before = dict(wanted)
    desired.ignore(wanted, ignored, inputs(container_envvars={"A": "9", "C": "3"}, tags=["t"]))
    assert wanted == {**before, "container_envvars": variables}
    assert before["container_envvars"] == {"A": "1", "B": "2"}


FIXED = [{"protocol": "tcp", "inner_port": 80, "outer_port": 8080}]
DYNAMIC = [{"protocol": "tcp", "inner_port": 80, "published": True}]


@pytest.mark.parametrize(
    ("old", "new", "answer"),
    [
        ({"name": "a"}, {"name": "b"}, False),
        ({"name": "a"}, {"name": "a"}, True),
        ({"name": "a"}, {"name": "a", desired.NAME_IS_AUTOMATIC: True}, False),
        ({"container_ports": FIXED}, {"name": "b"}, True),
        ({"name": "a"}, {"name": "b", "container_ports": FIXED}, True),
        ({"name": "a"}, {"name": "b", "container_ports": DYNAMIC}, False),
        ({"name": "a"}, {"name": "b", "container_ports": unknown()}, False),
        ({"name": "a", "network": "host"}, {"name": "b"}, True),
        ({"name": "a"}, {"name": "b", "bindings": [{"container_path": "/x"}]}, False),
        ({"name": "a"}, {"name": "b", "bindings": [{"container_path": "/x", "host_path": "/y"}]}, True),
    ],
)
def test_when_the_old_service_has_to_go_first(old: dict[str, Any], new: dict[str, Any], answer: bool) -> None:
    assert desired.cannot_stand_side_by_side(old, new) is answer


# -- what to do next ---------------------------------------------------------------------------------------

JOB: dict[str, Any] = {"autodestroy": "ON_SUCCESS"}
EVERY: dict[str, Any] = {"deployment_strategy": "EVERY_NODE"}
DEPLOYED: dict[str, Any] = {"deployed_datetime": "Mon, 13 Oct 2014 11:01:43 +0000"}
OUTDATED: dict[str, Any] = {"synchronized": False}

NEXT: list[tuple[str, dict[str, Any], dict[str, Any], dict[str, Any], str | None]] = [
    ("just made", service(NOT_RUNNING), inputs(), {}, "start"),
    ("runs", service(RUNNING, 1), inputs(), {}, None),
    ("stopped", service(STOPPED, 0, 1), inputs(), {}, "start"),
    ("outdated", service(RUNNING, 1, **OUTDATED), inputs(), {}, "redeploy"),
    ("stopped and outdated", service(STOPPED, 0, 1, **OUTDATED), inputs(), {}, "redeploy"),
    ("one is down", service(PARTLY_RUNNING, 1, 1), inputs(target_num_containers=2), {}, "start"),
    ("one is missing", service(PARTLY_RUNNING, 1), inputs(target_num_containers=2), {}, "scale"),
    ("all are there, a scale has failed", service(PARTLY_RUNNING, 1), inputs(), {}, "start"),
    ("all are there, started", service(PARTLY_RUNNING, 1), inputs(), {"done": ["start"]}, None),
    ("too many", service(RUNNING, 3), inputs(), {}, "scale"),
    (
        "redeployed, still short",
        service(PARTLY_RUNNING, 1),
        inputs(target_num_containers=2),
        {"done": ["redeploy"]},
        "scale",
    ),
    ("redeployed, crashed", service(STOPPED, 0, 1), inputs(), {"done": ["redeploy"]}, None),
    (
        "started, one crashed",
        service(PARTLY_RUNNING, 1, 1),
        inputs(target_num_containers=2),
        {"done": ["start"]},
        None,
    ),
    ("started, nothing came", service(NOT_RUNNING), inputs(), {"done": ["start"]}, None),
    (
        "scaled, still short",
        service(PARTLY_RUNNING, 1),
        inputs(target_num_containers=2),
        {"done": ["scale"]},
        None,
    ),
    ("to zero", service(RUNNING, 2), inputs(target_num_containers=0), {}, "scale"),
    ("zero and nothing", service(NOT_RUNNING), inputs(target_num_containers=0), {}, None),
    ("zero and stopped", service(STOPPED, 0, 1), inputs(target_num_containers=0), {}, None),
    ("every node runs", service(RUNNING, 5), inputs(**EVERY), {}, None),
    ("every node, one failed", service(PARTLY_RUNNING, 2), inputs(**EVERY), {}, "start"),
    ("not to run, runs", service(RUNNING, 1), inputs(running=False), {}, "stop"),
    ("not to run, partly", service(PARTLY_RUNNING, 1, 1), inputs(running=False), {}, "stop"),
    ("not to run, outdated", service(STOPPED, 0, 1, **OUTDATED), inputs(running=False), {}, None),
    ("not to run, made", service(NOT_RUNNING), inputs(running=False), {}, None),
    ("not to run, would not stop", service(RUNNING, 1), inputs(running=False), {"done": ["stop"]}, None),
    ("a job, just made", service(NOT_RUNNING), inputs(**JOB), {}, "start"),
    ("a job, done", service(NOT_RUNNING, **DEPLOYED), inputs(**JOB), {}, None),
    (
        "a job, done, new image",
        service(NOT_RUNNING, **DEPLOYED),
        inputs(**JOB),
        {"changed": ["image"]},
        "start",
    ),
    ("a job, done, new tags", service(NOT_RUNNING, **DEPLOYED), inputs(**JOB), {"changed": ["tags"]}, None),
    ("a job, failed", service(NOT_RUNNING, **DEPLOYED), inputs(**JOB), {"again": True}, "start"),
    (
        "a job, one done",
        service(PARTLY_RUNNING, 1, **DEPLOYED),
        inputs(target_num_containers=2, **JOB),
        {},
        None,
    ),
    (
        "a job, scaled",
        service(PARTLY_RUNNING, 1, **DEPLOYED),
        inputs(target_num_containers=2, **JOB),
        {"changed": ["target_num_containers"]},
        "scale",
    ),
    (
        "a job, one failed",
        service(PARTLY_RUNNING, 1, 1, **DEPLOYED),
        inputs(target_num_containers=2, **JOB),
        {},
        "start",
    ),
]


@pytest.mark.parametrize(("now", "wanted", "more", "action"), [n[1:] for n in NEXT], ids=[n[0] for n in NEXT])
def test_the_next_action(
    now: dict[str, Any], wanted: dict[str, Any], more: dict[str, Any], action: str | None
) -> None:
    assert desired.next_action(now, wanted, **more) == action
    assert action is None or lifecycle.permitted(action, now["state"])


@pytest.mark.parametrize("state", sorted(lifecycle.STABLE))
@pytest.mark.parametrize("running", [True, False])
@pytest.mark.parametrize("target", [0, 1, 3])
@pytest.mark.parametrize("autodestroy", ["OFF", "ON_SUCCESS", "ALWAYS"])
@pytest.mark.parametrize("synchronized", [True, False])
def test_no_action_is_asked_for_that_the_state_forbids_and_each_at_most_once(
    state: str, running: bool, target: int, autodestroy: str, synchronized: bool
) -> None:
    up = {RUNNING: 2, PARTLY_RUNNING: 1}.get(state, 0)
    down = {PARTLY_RUNNING: 1, STOPPED: 2}.get(state, 0)
    now = service(state, up, down, synchronized=synchronized, **DEPLOYED)
    wanted = inputs(running=running, target_num_containers=target, autodestroy=autodestroy)
    done: list[str] = []
    while (action := desired.next_action(now, wanted, ["image"], done)) is not None:
        assert lifecycle.permitted(action, state)
        assert action not in done, "the service did not change, and it would be asked for ever"
        done.append(action)
    assert len(done) <= 2


# -- what is wrong -----------------------------------------------------------------------------------------

WRONG: list[tuple[str, dict[str, Any], dict[str, Any], list[str]]] = [
    ("runs", service(RUNNING, 1), inputs(), []),
    ("stopped", service(STOPPED, 0, 1), inputs(), ["it is Stopped: 0/1 containers running"]),
    ("on its way", service(STARTING), inputs(), ["it is Starting: 0/1 containers running"]),
    (
        "partly",
        service(PARTLY_RUNNING, 1, 1),
        inputs(target_num_containers=2),
        ["it is Partly running: 1/2 containers running"],
    ),
    (
        "too few",
        service(RUNNING, 1),
        inputs(target_num_containers=2),
        ["it has 1 container, and should have 2"],
    ),
    (
        "outdated",
        service(RUNNING, 1, **OUTDATED),
        inputs(),
        ["its containers are not those of its definition"],
    ),
    ("not waited for", service(STOPPED, 0, 1, **OUTDATED), inputs(wait=False), []),
    ("stopped as wanted", service(STOPPED, 0, 1, **OUTDATED), inputs(running=False), []),
    ("never started as wanted", service(NOT_RUNNING), inputs(running=False), []),
    (
        "runs and should not",
        service(RUNNING, 1),
        inputs(running=False),
        ["it is Running, and should be stopped"],
    ),
    ("nothing as wanted", service(NOT_RUNNING), inputs(target_num_containers=0), []),
    ("stopped is nothing", service(STOPPED, 0, 1), inputs(target_num_containers=0), []),
    (
        "still some",
        service(RUNNING, 1),
        inputs(target_num_containers=0),
        ["it is Running with 1 container, and should have none"],
    ),
    (
        "on its way to nothing",
        service(REDEPLOYING),
        inputs(target_num_containers=0),
        ["it is Redeploying with 0 containers, and should have none"],
    ),
    ("every node", service(RUNNING, 9), inputs(**EVERY), []),
    (
        "not every node",
        service(PARTLY_RUNNING, 9, 1),
        inputs(**EVERY),
        ["it is Partly running: 9 containers running"],
    ),
    ("job done", service(NOT_RUNNING, **DEPLOYED), inputs(**JOB), []),
    ("job partly done", service(PARTLY_RUNNING, 1, **DEPLOYED), inputs(target_num_containers=2, **JOB), []),
    ("job never run", service(NOT_RUNNING), inputs(**JOB), ["it is Not running: 0/1 containers running"]),
    (
        "job failed",
        service(STOPPED, 0, 1, **DEPLOYED),
        inputs(**JOB),
        ["it is Stopped: 0/1 containers running"],
    ),
]


@pytest.mark.parametrize(("now", "wanted", "found"), [w[1:] for w in WRONG], ids=[w[0] for w in WRONG])
def test_what_is_not_as_wanted(now: dict[str, Any], wanted: dict[str, Any], found: list[str]) -> None:
    assert desired.faults(now, wanted) == found


def test_a_job_that_was_just_run_has_to_prove_it() -> None:
    now, wanted = service(NOT_RUNNING, **DEPLOYED), inputs(**JOB)
    first = {"name": "web-1", "exit_code": 3}
    assert desired.faults(now, wanted, []) == ["it is Not running: 0/1 containers running"]
    assert desired.faults(now, wanted, [first])[1] == "container web-1 exited with code 3"
    assert desired.faults(now, wanted, [first, {"name": "web-1", "exit_code": 0}]) == []
