"""Services that need others, over HTTP: they wait for them, in a stack and one by one."""

from __future__ import annotations

from typing import Any

import pytest

from tests.contract.conftest import V1, Api
from tests.support.tools import until


def shop(api: Api) -> dict[str, Any]:
    """A new stack, in which the services come before those that they need."""
    image = api.backend.image
    services = [
        {"name": "web", "image": image, "links": ["app"]},
        {"name": "app", "image": image, "links": ["db"], "volumes_from": ["data"]},
        {"name": "data", "image": image, "volumes": ["/data"]},
        {"name": "db", "image": image, "target_num_containers": 2},
    ]
    body = {"name": api.name("shop"), "services": services}
    return api.ok("POST", f"{V1}/stack/", 201, json=body)


def act(api: Api, stack: dict[str, Any], verb: str) -> dict[str, Any]:
    """The action on a stack, after it has ended."""
    answer = api.call("POST", f"{stack['resource_uri']}{verb}/")
    assert answer.status_code == 202, answer.text
    return ended(api, answer.headers["X-Tutum-Action-URI"])


def ended(api: Api, action: str) -> dict[str, Any]:
    """An action, after it has ended."""
    until(lambda: api.ok("GET", action)["end_date"] is not None, "the action ends")
    return api.ok("GET", action)


def start(api: Api, uuid: str) -> str:
    """Start a service; the URI of the action."""
    answer = api.call("POST", f"{V1}/service/{uuid}/start/")
    assert answer.status_code == 202, answer.text
    return answer.headers["X-Tutum-Action-URI"]


def members(api: Api, stack: dict[str, Any]) -> dict[str, dict[str, Any]]:
    found = [api.ok("GET", uri) for uri in api.ok("GET", stack["resource_uri"])["services"]]
    return {service["name"]: service for service in found if service["state"] != "Terminated"}


def container(api: Api, service: dict[str, Any]) -> dict[str, Any]:
    return api.ok("GET", api.get(service["uuid"])["containers"][0])


def variables(api: Api, service: dict[str, Any]) -> dict[str, str]:
    return {v["key"]: v["value"] for v in container(api, service)["container_envvars"]}


def assert_connected(api: Api, stack: dict[str, Any]) -> None:
    """Everything runs, with the variables of the present containers and with the source's volumes."""
    services = members(api, stack)
    assert {s["state"] for s in services.values()} == {"Running"}
    environment = variables(api, services["app"])
    for ordinal, uri in enumerate(services["db"]["containers"], 1):
        assert uri.split("/")[-2] in environment[f"DB_{ordinal}_NAME"]
    assert container(api, services["app"])["uuid"] in variables(api, services["web"])["APP_1_NAME"]
    mine, theirs = container(api, services["app"]), container(api, services["data"])
    assert mine["bindings"] == theirs["bindings"] != []
    assert mine["node"] == theirs["node"]


def test_a_stack_is_started_and_redeployed_in_the_order_of_its_needs(api: Api) -> None:
    stack = shop(api)
    for verb in ("start", "redeploy", "stop", "start", "redeploy"):
        before = members(api, stack)
        action = act(api, stack, verb)
        assert (action["state"], action["error"]) == ("Success", None)
        if verb != "stop":
            assert_connected(api, stack)
        if verb == "redeploy":
            after = members(api, stack)
            assert all(before[name]["containers"] != after[name]["containers"] for name in before)
    assert act(api, stack, "stop")["state"] == "Success"
    api.ok("DELETE", stack["resource_uri"], 202)
    api.wait(stack["uuid"], "Terminated", kind="stack")


def test_a_service_that_fails_is_named_by_those_that_wait_for_it(api: Api) -> None:
    image, missing = api.backend.image, api.backend.missing_image
    services = [
        {"name": "web", "image": image, "links": ["app"]},
        {"name": "app", "image": image, "volumes_from": ["db"]},
        {"name": "db", "image": missing, "volumes": ["/data"]},
        {"name": "other", "image": image},
    ]
    body = {"name": api.name("broken"), "services": services}
    stack = api.ok("POST", f"{V1}/stack/", 201, json=body)
    action = act(api, stack, "start")
    assert action["state"] == "Failed"
    states = {name: service["state"] for name, service in members(api, stack).items()}
    assert states == {"web": "Not running", "app": "Not running", "db": "Not running", "other": "Running"}
    assert "app: needs service 'db', whose start failed: db-1: No such image" in action["error"]
    assert "web-1: needs service 'app', whose start failed: app: needs service 'db'" in action["error"]
    api.ok("DELETE", stack["resource_uri"], 202)
    api.wait(stack["uuid"], "Terminated", kind="stack")


def test_services_that_are_started_one_by_one_wait_too(api: Api) -> None:
    data = api.create(bindings=[{"container_path": "/data"}])
    user = api.create(bindings=[{"volumes_from": data["resource_uri"]}])
    web = api.create(linked_to_service=[{"to_service": user["resource_uri"], "name": "USER"}])
    actions = [start(api, service["uuid"]) for service in (data, user, web)]
    assert [ended(api, action)["state"] for action in actions] == ["Success"] * 3
    assert container(api, user)["uuid"] in variables(api, web)["USER_1_NAME"]
    assert container(api, user)["bindings"] == container(api, data)["bindings"] != []
    # Those that need the others first: what is under way is waited for, not refused.
    actions = []
    for service in (data, user, web):
        answer = api.call("POST", f"{V1}/service/{service['uuid']}/redeploy/")
        assert answer.json()["state"] == "Redeploying"
        actions.append(answer.headers["X-Tutum-Action-URI"])
    assert [ended(api, action)["state"] for action in actions] == ["Success"] * 3
    assert container(api, user)["uuid"] in variables(api, web)["USER_1_NAME"]
    assert container(api, user)["bindings"] == container(api, data)["bindings"] != []
    api.end(web["uuid"], user["uuid"])
    api.end(data["uuid"])


@pytest.mark.usefixtures("simulated")
def test_a_service_is_starting_while_it_waits(api: Api) -> None:
    slow = {"SIMULATE_START_SECONDS": "2"}
    db = api.create(target_num_containers=2, sequential_deployment=True, container_envvars=slow)
    links = [{"to_service": db["resource_uri"], "name": "DB"}]
    web = api.create(linked_to_service=links)
    start(api, db["uuid"])
    action = start(api, web["uuid"])
    found = api.get(web["uuid"])
    assert (found["state"], found["running_num_containers"]) == ("Starting", 0)
    refused = api.refused(400, "POST", f"{V1}/service/{web['uuid']}/start/")
    assert refused["error"] == "Service cannot be started in state 'Starting'"
    assert ended(api, action)["state"] == "Success"
    assert {"DB_1_NAME", "DB_2_NAME"} <= set(variables(api, web))


def test_a_patch_may_repeat_what_get_lists(api: Api) -> None:
    db = api.create()
    links = [{"to_service": db["resource_uri"], "name": "DB"}]
    web, other = api.create(linked_to_service=links), api.create()
    api.end(db["uuid"])
    listed = api.get(web["uuid"])["linked_to_service"]
    assert [link["to_service"] for link in listed] == [db["resource_uri"]]
    again = api.ok("PATCH", web["resource_uri"], 202, json={"linked_to_service": listed})
    assert again["linked_to_service"] == listed
    everything = api.get(web["uuid"])
    assert api.ok("PATCH", web["resource_uri"], 202, json=everything)["linked_to_service"] == listed
    error = api.refused(400, "PATCH", other["resource_uri"], json={"linked_to_service": links})["error"]
    assert error == "linked_to_service[0].to_service: there is no such service"
    api.end(web["uuid"], other["uuid"])


def test_a_stacks_patch_that_is_refused_changes_nothing(api: Api) -> None:
    stack = shop(api)
    before = members(api, stack)
    services: list[dict[str, Any]] = [
        {"name": name, "image": "acme/other"} for name in ("web", "app", "db", "new")
    ]
    answer = api.call("PATCH", stack["resource_uri"], json={"nickname": "n", "services": services})
    assert answer.status_code == 409
    assert answer.json()["error"] == "Service cannot be terminated while its volumes are used by 'app'"
    action = api.ok("GET", answer.headers["X-Tutum-Action-URI"])
    assert (action["action"], action["state"]) == ("Stack Update", "Failed")
    assert members(api, stack) == before
    assert api.ok("GET", stack["resource_uri"])["nickname"] == stack["nickname"]
    services[1]["bindings"] = []
    api.ok("PATCH", stack["resource_uri"], 202, json={"services": services})
    until(lambda: sorted(members(api, stack)) == ["app", "db", "new", "web"], "data ends")
    api.ok("DELETE", stack["resource_uri"], 202)
    api.wait(stack["uuid"], "Terminated", kind="stack")
