"""What tasks of a swarm mean. The tasks are cut down from those that engines have shown (20.10)."""

from __future__ import annotations

from typing import Any

import pytest

from pulumi_tutum.server.backends import CREATED, EXITED, RESTARTING, RUNNING
from pulumi_tutum.server.backends.tasks import STOPPED, Verdict, node, verdict

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
    assert judge(unhealthy, memory=64).reason == "dockerexec: unhealthy container"
    killed = task("failed", 137, "task: non-zero exit (137)")
    assert judge(killed, memory=64).reason == "killed, probably out of memory (it may use 64 MB)"
    assert judge(killed).reason == ""


@pytest.mark.parametrize("tasks", [[task("running")], [task("running"), waiting("no suitable node")]])
def test_a_container_whose_node_is_away_is_coming_back(tasks: list[dict[str, Any]]) -> None:
    found = judge(*tasks, away=lambda task: True)
    assert (found.status, found.reason) == (RESTARTING, "its node does not answer")
    assert judge(waiting(), away=lambda task: True).status == CREATED


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
    drained = described()
    drained["Spec"]["Availability"] = "drain"
    assert not node(drained, "uuid").up
    paused = described()
    paused["Spec"]["Availability"] = "pause"
    assert (node(paused, "uuid").up, node(paused, "uuid").open) == (True, False)
    manager = {**described(Addr="0.0.0.0"), "ManagerStatus": {"Addr": "10.0.0.1:2377"}}
    assert node(manager, "uuid").address == "10.0.0.1"
