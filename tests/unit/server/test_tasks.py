"""What tasks of a swarm mean. The tasks are cut down from those that engines have shown (20.10)."""

from __future__ import annotations

import re
from typing import Any

import pytest

from pulumi_tutum.server.backends import CREATED, EXITED, RESTARTING, RUNNING, WAITING
from pulumi_tutum.server.backends.tasks import (
    ONCE,
    POLICIES,
    STOPPED,
    Verdict,
    is_own,
    is_superseded,
    node,
    policy,
    tag_constraints,
    tag_labels,
    tags_in,
    verdict,
)

HERE = "node.id==n1"


def task(state: str, code: int = 0, error: str = "", *, run: int = 1, began: bool = True) -> dict[str, Any]:
    status: dict[str, Any] = {"State": state, "Err": error}
    if began:
        status["ContainerStatus"] = {"ContainerID": "c0ffee", "ExitCode": code}
    spec = {"ForceUpdate": run, "Placement": {"Constraints": [HERE]}}
    return {"Spec": spec, "NodeID": "n1", "Status": status}


def waiting(error: str = "", run: int = 1) -> dict[str, Any]:
    return {**task("pending", error=error, run=run, began=False), "NodeID": ""}


def parked(run: int = 1) -> dict[str, Any]:
    found = waiting("no suitable node (scheduling constraints not satisfied on 3 nodes)", run)
    found["Spec"] = {**found["Spec"], "Placement": {"Constraints": [HERE, STOPPED]}}
    return found


def judge(*tasks: dict[str, Any], stopped: bool = False, restart: str = "none", **more: Any) -> Verdict:
    settings = {"run": 1, "away": lambda task: False, **more}
    return verdict(tasks, stopped=stopped, restart=restart, **settings)


EXIT_3 = task("failed", 3, "task: non-zero exit (3)")


@pytest.mark.parametrize(
    ("tasks", "options", "status", "code"),
    [
        ([], {"run": 0, "stopped": True}, CREATED, None),
        ([], {}, None, None),
        ([task("running", run=1)], {"run": 2}, None, None),
        ([task("preparing", began=False)], {}, CREATED, None),
        ([task("running")], {}, RUNNING, None),
        ([task("complete")], {}, EXITED, 0),
        ([EXIT_3], {}, EXITED, 3),
        ([EXIT_3], {"restart": "on-failure"}, RESTARTING, 3),
        ([task("complete")], {"restart": "on-failure"}, EXITED, 0),
        ([task("complete")], {"restart": "any"}, RESTARTING, 0),
        ([EXIT_3, task("ready", began=False)], {"restart": "any"}, RESTARTING, 3),
        ([EXIT_3, task("running")], {"restart": "any"}, RUNNING, None),
        ([task("shutdown", 143)], {}, RESTARTING, 143),
        ([{**task("running"), "DesiredState": "running"}, task("preparing", began=False)], {}, RUNNING, None),
        ([task("shutdown", 143), parked()], {"stopped": True, "restart": "any"}, EXITED, 143),
        ([EXIT_3, task("shutdown", began=False), parked()], {"stopped": True}, EXITED, 3),
        ([task("shutdown", -1)], {"stopped": True}, EXITED, 137),
        ([task("shutdown", 143), task("running", run=2)], {"run": 2}, RUNNING, None),
    ],
)
def test_status(tasks: list[dict[str, Any]], options: dict[str, Any], status: str, code: int | None) -> None:
    found = judge(*tasks, **options)
    assert (found.status, found.exit_code, found.failure) == (status, code, "")


@pytest.mark.parametrize(
    ("ended", "reason"),
    [
        (
            task("rejected", error="No such image: sha256:ff32", began=False),
            "No such image on its node: acme/web:2",
        ),
        (
            task("rejected", error="invalid mount config: bind source path does not exist: /nope"),
            "invalid mount config: bind source path does not exist: /nope",
        ),
        (
            task(
                "failed",
                127,
                "starting container failed: failed to create shim task: OCI runtime create failed: runc "
                'create failed: unable to start container process: exec: "/nope": no such file or directory: '
                "unknown",
            ),
            'exec: "/nope": no such file or directory',
        ),
    ],
)
@pytest.mark.parametrize("restart", ["none", "any"])
def test_what_never_ran_is_a_failure_to_start(ended: dict[str, Any], reason: str, restart: str) -> None:
    assert judge(ended, restart=restart, image="acme/web:2").failure == reason
    again = judge(ended, task("ready", began=False), restart=restart, image="acme/web:2")
    assert (again.status, again.failure) == (CREATED, reason)


def test_what_keeps_a_task_from_its_node_may_pass() -> None:
    found = judge(waiting("no suitable node (host-mode port already in use on 1 node)"))
    assert (found.status, found.failure) == (CREATED, "")
    assert found.blocked == "no suitable node (host-mode port already in use on 1 node)"


def test_reasons() -> None:
    assert judge(EXIT_3).reason == ""
    unhealthy = task("failed", 137, "task: non-zero exit (137): dockerexec: unhealthy container")
    assert judge(unhealthy, memory=64).reason == "the container was unhealthy"
    killed = task("failed", 137, "task: non-zero exit (137)")
    assert judge(killed, memory=64).reason == "killed, probably out of memory (it may use 64 MB)"
    assert judge(killed).reason == ""


@pytest.mark.parametrize("tasks", [[task("running")], [task("running"), waiting("no suitable node")]])
@pytest.mark.parametrize("restart", [ONCE, "on-failure", "any"])
def test_a_container_whose_node_is_away_waits(tasks: list[dict[str, Any]], restart: str) -> None:
    found = judge(*tasks, restart=restart, away=lambda task: True)
    assert (found.status, found.exit_code, found.failure) == (WAITING, None, "")
    assert found.origin is tasks[0]
    assert judge(waiting(), away=lambda task: True).status == CREATED
    stopped = judge(task("running"), parked(), stopped=True, away=lambda task: True)
    assert (stopped.status, stopped.exit_code) == (EXITED, 137)


def at(found: dict[str, Any], created: float, updated: float = 0.0, reported: float = 0.0) -> dict[str, Any]:
    """A task with its times, in seconds after noon."""

    def time(seconds: float) -> str:
        return f"2026-11-30T12:00:{seconds:012.9f}Z"

    status = {**found["Status"], "Timestamp": time(reported or updated)}
    return {**found, "CreatedAt": time(created), "UpdatedAt": time(updated), "Status": status}


RUNS = {**task("running"), "DesiredState": "running"}
#: Ended with code 3, and the swarm made another task because of that.
ENDED = [at(EXIT_3, 0, 9.2), at(task("ready", began=False), 9)]
ENDED_AND_RUNS = [at(EXIT_3, 0, 9.2), at(RUNS, 9)]
#: Its node died, and reported code 255 when it was back.
MOVED = [at(task("failed", 255, "task: non-zero exit (255)"), 0, 30), at(RUNS, 9)]


@pytest.mark.parametrize(
    ("tasks", "restart", "expected"),
    [
        (ENDED, ONCE, (EXITED, 3, 0, True)),
        (ENDED_AND_RUNS, ONCE, (EXITED, 3, 0, True)),
        ([task("complete")], ONCE, (EXITED, 0, 0, False)),
        (MOVED, ONCE, (RUNNING, None, 0, False)),
        ([*MOVED[:1], at(EXIT_3, 9, 40)], ONCE, (EXITED, 3, 0, True)),
        # Within a second or two either may be the case.
        ([at(EXIT_3, 0, 10, reported=8.9), at(RUNS, 9)], ONCE, (EXITED, 3, 0, True)),
        ([at(EXIT_3, 0, 10, reported=9.9), at(RUNS, 9)], ONCE, (RUNNING, None, 0, False)),
        (ENDED, "any", (RESTARTING, 3, 1, False)),
        (ENDED_AND_RUNS, "any", (RUNNING, None, 1, False)),
        (MOVED, "any", (RUNNING, None, 0, False)),
        ([*MOVED[:1], at(waiting(), 9)], "any", (WAITING, None, 0, False)),
        ([task("shutdown", 143), at(waiting(), 9)], ONCE, (WAITING, None, 0, False)),
        (
            [task("running"), task("rejected", error="No such image", began=False)],
            ONCE,
            (WAITING, None, 0, False),
        ),
    ],
)
def test_a_program_that_ends_is_told_from_a_node_that_dies(
    tasks: list[dict[str, Any]], restart: str, expected: tuple[Any, ...]
) -> None:
    found = judge(*tasks, restart=restart)
    assert (found.status, found.exit_code, found.restarts, found.again) == expected


def test_a_task_that_was_seen_to_be_given_up_did_not_end_by_itself() -> None:
    lost = {**task("running"), "ID": "t1", "DesiredState": "shutdown"}
    assert is_superseded(lost)
    assert not is_superseded(RUNS)
    assert not is_superseded({**EXIT_3, "DesiredState": "shutdown"})
    back = {**at(EXIT_3, 0, 9.1), "ID": "t1"}
    assert judge(back, at(RUNS, 9), restart=ONCE).status == EXITED
    assert judge(back, at(RUNS, 9), restart=ONCE, superseded={"t1"}).status == RUNNING


def test_what_keeps_a_container_from_another_node_is_told() -> None:
    blocked = judge(task("running"), waiting("no suitable node (host-mode port already in use on 2 nodes)"))
    assert (blocked.status, blocked.reason) == (WAITING, "")
    assert blocked.blocked == "no suitable node (host-mode port already in use on 2 nodes)"
    missing = task("rejected", error="No such image: sha256:ff32", began=False)
    found = judge(task("running"), missing, task("ready", began=False), image="acme/web:2")
    assert (found.status, found.failure) == (WAITING, "")
    assert found.reason == "No such image on its node: acme/web:2"


def test_a_task_that_had_no_node_is_no_failure_to_start() -> None:
    # The node died while the container started. Then the swarm was told that any node will do.
    without_node = {**waiting("no suitable node (scheduling constraints not satisfied on 3 nodes)")}
    without_node["Status"] = {**without_node["Status"], "State": "shutdown"}
    for last in (task("starting"), task("starting", began=False)):
        found = judge(last, without_node, task("preparing", began=False))
        assert (found.status, found.failure) == (
            WAITING if last["Status"].get("ContainerStatus") else CREATED,
            "",
        )


def test_policies() -> None:
    assert {name: policy({"RestartPolicy": given}) for name, given in POLICIES.items()} == {
        "OFF": ONCE,
        "ON_FAILURE": "on-failure",
        "ALWAYS": "any",
    }
    assert policy({"RestartPolicy": {"Condition": "none"}}) == "none"


def test_every_tag_has_a_label_that_a_constraint_can_name() -> None:
    labels = tag_labels(["web", "ssd/fast"])
    assert tags_in(labels) == ["ssd/fast", "web"]
    constraints = tag_constraints(["web", "ssd/fast"])
    assert [c.removeprefix("node.labels.").removesuffix("==1") in labels for c in constraints] == [True] * 2
    assert all(re.fullmatch(r"node\.labels\.[a-z0-9_.-]+==1", c, re.IGNORECASE) for c in constraints)
    assert all(map(is_own, [*constraints, HERE, STOPPED]))
    assert not is_own("node.labels.zone==a")


def described(**status: str) -> dict[str, Any]:
    return {
        "ID": "n1",
        "Spec": {"Labels": {"io.tutum.tag.web": "1", "zone": "a"}, "Availability": "active"},
        "Status": {"State": "ready", "Addr": "10.0.0.7", **status},
        "Description": {
            "Hostname": "one",
            "Resources": {"NanoCPUs": 2_000_000_000, "MemoryBytes": 1 << 30},
            "Engine": {"EngineVersion": "20.10.24"},
        },
    }


def test_nodes() -> None:
    found = node(described(), "uuid")
    assert (found.name, found.tags, found.up, found.address) == ("one", ("web",), True, "10.0.0.7")
    assert found.open
    assert (found.cpu, found.memory_mb, found.docker_version) == (2, 1024, "20.10.24")
    assert not node(described(State="down"), "uuid").up
    for availability, is_drained in (("pause", False), ("drain", True)):
        closed = described()
        closed["Spec"]["Availability"] = availability
        shown = node(closed, "uuid")
        assert (shown.up, shown.open, shown.drained) == (True, False, is_drained)
    # Nodes that have not reported to a new leader yet.
    unknown = node(described(State="unknown"), "uuid")
    assert (unknown.up, unknown.open) == (True, False)
    manager = {**described(Addr="0.0.0.0"), "ManagerStatus": {"Addr": "10.0.0.1:2377"}}
    assert node(manager, "uuid").address == "10.0.0.1"
