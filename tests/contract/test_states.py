"""The specification's state table over HTTP: ten states by six requests, each permitted or refused, and what
follows.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import pytest

from pulumi_tutum import lifecycle
from tests.contract.conftest import V1, Api, Backend
from tests.support.server import Server
from tests.support.tools import until

pytestmark = pytest.mark.usefixtures("simulated")

SLOW = "3600"


@pytest.fixture(scope="module")
def server(backend: Backend) -> Iterator[Server]:
    """Transitions that never end need a long patience, so that the state stands still while it is tested."""
    if backend.name != "simulated":
        pytest.skip("only simulated containers misbehave on demand")
    with Server(backend=backend.name, nodes=3, container_start_seconds=0, start_timeout=3000) as running:
        yield running


def not_running(api: Api) -> str:
    return str(api.create()["uuid"])


def running(api: Api) -> str:
    return str(api.run(target_num_containers=2)["uuid"])


def stopped(api: Api) -> str:
    uuid = running(api)
    api.act(uuid, "stop")
    api.wait(uuid, "Stopped")
    return uuid


def partly_running(api: Api) -> str:
    environment = {"SIMULATE_EXIT": "3", "SIMULATE_EXIT_AFTER": "0", "SIMULATE_ONLY": "2"}
    uuid = str(api.create(target_num_containers=2, container_envvars=environment)["uuid"])
    api.act(uuid, "start")
    api.wait(uuid, "Partly running")
    return uuid


def starting(api: Api) -> str:
    uuid = str(api.create(container_envvars={"SIMULATE_START_SECONDS": SLOW})["uuid"])
    api.act(uuid, "start")
    return uuid


def scaling(api: Api) -> str:
    uuid = str(api.run(container_envvars={"SIMULATE_START_SECONDS": SLOW, "SIMULATE_ONLY": "2"})["uuid"])
    api.ok("PATCH", f"{V1}/service/{uuid}/", 202, json={"target_num_containers": 2})
    api.act(uuid, "scale")
    return uuid


def redeploying(api: Api) -> str:
    uuid = running(api)
    slow = {"container_envvars": {"SIMULATE_START_SECONDS": SLOW}}
    api.ok("PATCH", f"{V1}/service/{uuid}/", 202, json=slow)
    api.act(uuid, "redeploy")
    return uuid


def slow_to_stop(api: Api) -> str:
    return str(api.run(container_envvars={"SIMULATE_STOP_SECONDS": SLOW})["uuid"])


def stopping(api: Api) -> str:
    uuid = slow_to_stop(api)
    api.act(uuid, "stop")
    return uuid


def terminating(api: Api) -> str:
    uuid = slow_to_stop(api)
    api.ok("DELETE", f"{V1}/service/{uuid}/", 202)
    return uuid


def terminated(api: Api) -> str:
    uuid = not_running(api)
    api.end(uuid)
    return uuid


#: How to get a service into each state.
MAKE: dict[str, Callable[[Api], str]] = {
    lifecycle.NOT_RUNNING: not_running,
    lifecycle.STARTING: starting,
    lifecycle.RUNNING: running,
    lifecycle.PARTLY_RUNNING: partly_running,
    lifecycle.SCALING: scaling,
    lifecycle.REDEPLOYING: redeploying,
    lifecycle.STOPPING: stopping,
    lifecycle.STOPPED: stopped,
    lifecycle.TERMINATING: terminating,
    lifecycle.TERMINATED: terminated,
}


def ask(api: Api, uuid: str, action: str) -> Any:
    if action == "update":
        return api.call("PATCH", f"{V1}/service/{uuid}/", json={"memory": 77})
    if action == "terminate":
        return api.call("DELETE", f"{V1}/service/{uuid}/")
    return api.call("POST", f"{V1}/service/{uuid}/{action}/")


#: What belongs to the containers goes on while a service is on its way somewhere.
MOVING = frozenset(
    {"containers", "link_variables", "synchronized", "calculated_envvars"}
    | {f"{which}_num_containers" for which in ("current", "running", "stopped")}
)


def stable_part(service: dict[str, Any]) -> dict[str, Any]:
    return {k: v for k, v in service.items() if k not in MOVING}


@pytest.mark.parametrize("action", lifecycle.ACTIONS)
@pytest.mark.parametrize("state", lifecycle.STATES)
def test_table(api: Api, state: str, action: str) -> None:
    uuid = MAKE[state](api)
    before = api.wait(uuid, state)
    row = lifecycle.ACTIONS[action]
    answer = ask(api, uuid, action)
    if state not in row.allowed_from:
        assert answer.status_code == 400
        assert answer.json()["error"] == lifecycle.refusal(action, state)
        assert stable_part(api.get(uuid)) == stable_part(before), "a refused action changes nothing"
        return
    assert answer.status_code == 202
    told = answer.json()["state"]
    if row.via is None or state in row.store_only:
        assert told == state
        assert api.get(uuid)["state"] == state
    else:
        assert told in (row.via, *row.targets), "the transitional state, unless it is already past"
        if state != lifecycle.PARTLY_RUNNING:
            api.wait(uuid, *row.targets)
    if action == "update":
        assert api.get(uuid)["memory"] == 77


def test_lenient_server_takes_redeploy_for_a_start(backend: Backend, api: Api) -> None:
    uuid = api.create()["uuid"]
    api.refused(400, "POST", f"{V1}/service/{uuid}/redeploy/")
    with Server(backend=backend.name, nodes=1, lenient=True) as server, Api(server, backend) as lenient:
        uuid = lenient.create()["uuid"]
        assert lenient.act(uuid, "redeploy")["state"] == "Starting"
        lenient.wait(uuid, "Running")


def test_transitions_do_not_last_for_ever(backend: Backend) -> None:
    with Server(backend=backend.name, nodes=1, start_timeout=0.3) as server, Api(server, backend) as api:
        uuid = api.create(image="simulated/hang")["uuid"]
        answer = api.call("POST", f"{V1}/service/{uuid}/start/")
        action_uri = answer.headers["X-Tutum-Action-URI"]
        api.wait(uuid, "Not running", "Stopped")
        until(lambda: api.ok("GET", action_uri)["state"] == "Failed", "the action has failed")
        assert api.ok("GET", action_uri)["error"]
