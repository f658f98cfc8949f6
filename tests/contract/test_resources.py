"""Everything but services: containers, stacks, actions, nodes, triggers, volumes, images, keys, tokens."""

from __future__ import annotations

import json
from typing import Any

import pytest
import requests

from tests.contract.conftest import V1, Api
from tests.support.tools import until

DATE = r"[A-Z][a-z]{2}, [1-9][0-9]? [A-Z][a-z]{2} [0-9]{4} [0-9:]{8} \+0000"


def uuid_in(uri: str) -> str:
    return uri.rstrip("/").rpartition("/")[2]


# -- containers


def test_containers(api: Api) -> None:
    service = api.run(target_num_containers=2)
    listed = api.listed(f"{V1}/container/", service=service["resource_uri"])
    assert [c["resource_uri"] for c in listed] == service["containers"]
    assert [c["name"] for c in listed] == [f"{service['name']}-1", f"{service['name']}-2"]
    nodes = {n["resource_uri"] for n in api.listed(f"{V1}/node/")}
    assert {c["node"] for c in listed} <= nodes
    assert api.listed(f"{V1}/container/", name=f"{service['name']}-2")[0]["uuid"] == listed[1]["uuid"]
    on_node = api.listed(f"{V1}/container/", node=listed[0]["node"], limit=0)
    assert listed[0]["uuid"] in [c["uuid"] for c in on_node]
    one = listed[0]["uuid"]
    api.ok("POST", f"{V1}/container/{one}/stop/", 202)
    assert api.wait(one, "Stopped", kind="container")["exit_code"] is not None
    api.refused(400, "POST", f"{V1}/container/{one}/stop/")
    api.wait(service["uuid"], "Partly running")
    api.ok("POST", f"{V1}/container/{one}/start/", 202)
    api.wait(service["uuid"], "Running")
    api.ok("DELETE", f"{V1}/container/{one}/", 202)
    api.wait(one, "Terminated", kind="container")
    until(lambda: api.get(service["uuid"])["current_num_containers"] == 1, "one is left")


# -- stacks


def test_life_of_a_stack(api: Api) -> None:
    name = api.name("stack")
    body = {
        "name": name,
        "services": [
            {
                "name": "web",
                "image": api.backend.image,
                "ports": ["80"],
                "links": ["db"],
                "environment": {"A": "b"},
            },
            {"name": "db", "image": api.backend.image, "target_num_containers": 2},
        ],
    }
    created = api.call("POST", f"{V1}/stack/", json=body)
    assert created.status_code == 201
    stack = created.json()
    assert stack["state"] == "Not running"
    assert api.ok("GET", created.headers["X-Tutum-Action-URI"])["object"] == stack["resource_uri"]
    api.refused(409, "POST", f"{V1}/stack/", json=body)
    services = {s["name"]: s for s in api.listed(f"{V1}/service/", stack=stack["resource_uri"])}
    assert set(services) == {"web", "db"}
    assert api.listed(f"{V1}/service/", stack__name=name, name="web")[0]["uuid"] == services["web"]["uuid"]
    web = api.get(services["web"]["uuid"])
    assert web["linked_to_service"][0]["to_service"] == services["db"]["resource_uri"]
    assert web["public_dns"].startswith(f"web.{name}.")
    uuid = stack["uuid"]
    api.ok("POST", f"{V1}/stack/{uuid}/start/", 202)
    api.wait(uuid, "Running", kind="stack")
    exported = api.ok("GET", f"{V1}/stack/{uuid}/export/")
    assert set(exported) == {"web", "db"}
    change = {"services": [{"name": "db", "image": api.backend.image, "target_num_containers": 1}]}
    api.ok("PATCH", f"{V1}/stack/{uuid}/", 202, json=change)
    api.ok("POST", f"{V1}/stack/{uuid}/redeploy/", 202)
    api.wait(uuid, "Running", kind="stack")
    api.ok("POST", f"{V1}/stack/{uuid}/stop/", 202)
    api.wait(uuid, "Stopped", kind="stack")
    api.ok("DELETE", f"{V1}/stack/{uuid}/", 202)
    api.wait(uuid, "Terminated", kind="stack")
    assert {api.get(s["uuid"])["state"] for s in services.values()} == {"Terminated"}


@pytest.mark.parametrize(
    "services",
    [
        [{"name": "a"}],
        [{"image": 5}],
        ["text"],
        "text",
        [{"name": "a", "image": "x", "ports": ["99999:1"]}],
        [{"name": "a", "image": "x", "ports": {"a": 1}}],
        [{"name": "a", "image": "x", "links": ["nobody"]}],
        [{"name": "a", "image": "x", "build": "."}],
    ],
)
def test_stacks_that_are_refused_leave_nothing(api: Api, services: Any) -> None:
    before = api.ok("GET", f"{V1}/service/")["meta"]["total_count"]
    name = api.name("bad")
    api.refused(400, "POST", f"{V1}/stack/", json={"name": name, "services": services})
    assert api.ok("GET", f"{V1}/service/")["meta"]["total_count"] == before
    assert api.listed(f"{V1}/stack/", name=name) == []


def test_a_stack_names_each_service_once(api: Api) -> None:
    services = [{"name": "a", "image": "x"}, {"name": "a", "image": "y"}]
    api.refused(409, "POST", f"{V1}/stack/", json={"name": api.name("twice"), "services": services})


# -- actions


def test_actions(api: Api) -> None:
    service = api.run()
    uri = service["resource_uri"]
    actions = api.listed(f"{V1}/action/", object=uri)
    assert [a["action"] for a in actions] == ["Service Create", "Service Start"]
    assert {a["state"] for a in actions} == {"Success"}
    for action in actions:
        assert action["is_user_action"] is True
        assert action["end_date"] is not None
    assert (
        api.listed(f"{V1}/action/", object=uri, start_date__gte="Sat, 25 Jul 2015 15:57:58 +0000") == actions
    )
    assert api.listed(f"{V1}/action/", object=uri, start_date__lte="2015-07-25T15:57:58Z") == []
    for never in ("yesterday", "", "Sat, 25 Jul 2015 15:57:58 +" + "9" * 20, "1 Jan " + "9" * 20 + " 0:0:0"):
        api.refused(400, "GET", f"{V1}/action/", params={"start_date__gte": never})
    api.refused(400, "POST", f"{V1}/action/{actions[0]['uuid']}/cancel/")


def test_actions_of_related_objects(api: Api) -> None:
    name = api.name("related")
    body = {"name": name, "services": [{"name": n, "image": api.backend.image} for n in ("one", "two")]}
    stack = api.ok("POST", f"{V1}/stack/", 201, json=body)
    api.ok("POST", f"{V1}/stack/{stack['uuid']}/start/", 202)
    api.wait(stack["uuid"], "Running", kind="stack")
    one, two = (api.ok("GET", uri) for uri in stack["services"])
    (container,) = one["containers"]
    api.ok("POST", f"{container}stop/", 202)
    api.wait(one["uuid"], "Stopped")

    def objects(uri: str, related: str) -> set[str]:
        found = api.listed(f"{V1}/action/", object=uri, include_related=related, limit=0)
        return {action["object"] for action in found}

    stack_uri, one_uri, two_uri = stack["resource_uri"], one["resource_uri"], two["resource_uri"]
    for no in ("false", "False"):
        assert objects(one_uri, no) == {one_uri}
    assert objects(one_uri, "true") == {one_uri, container, stack_uri}
    assert objects(container, "True") == {container, one_uri, stack_uri}
    assert objects(stack_uri, "true") == {stack_uri, one_uri, two_uri, container}
    (node,) = {api.ok("GET", container)["node"]}
    api.ok("POST", f"{node}health-check/", 202)
    assert objects(node, "true") == {node}
    assert node in objects(api.ok("GET", node)["node_cluster"], "true")
    assert objects(f"{V1}/service/{api.create()['uuid'][:-1]}x/", "true") == set()


def test_a_refused_action_is_recorded_as_failed(api: Api) -> None:
    service = api.create()
    api.refused(400, "POST", f"{V1}/service/{service['uuid']}/stop/")
    last = api.listed(f"{V1}/action/", object=service["resource_uri"])[-1]
    assert last["state"] == "Failed"
    assert "Not running" in last["error"]


# -- nodes


def test_nodes(api: Api) -> None:
    nodes = api.listed(f"{V1}/node/")
    one = nodes[0]
    assert one["state"] == "Deployed"
    assert api.get(one["uuid"], "node")["uuid"] == one["uuid"]
    tagged = api.ok("PATCH", f"{V1}/node/{one['uuid']}/", 202, json={"tags": ["ssd", {"name": "big"}]})
    assert {"ssd", "big"} <= {tag["name"] for tag in tagged["tags"]}
    names = {tag["name"] for tag in api.listed(f"{V1}/tag/", limit=0)}
    assert {"ssd", "big"} <= names
    service = api.run(tags=["ssd"], target_num_containers=2)
    containers = api.listed(f"{V1}/container/", service=service["resource_uri"])
    assert {c["node"] for c in containers} == {one["resource_uri"]}
    nowhere = api.create(tags=["no-such-tag"])["uuid"]
    answer = api.call("POST", f"{V1}/service/{nowhere}/start/")
    until(lambda: api.ok("GET", answer.headers["X-Tutum-Action-URI"])["state"] == "Failed", "it cannot start")
    assert api.get(nowhere)["state"] == "Not running"
    api.refused(400, "PATCH", f"{V1}/node/{one['uuid']}/", json={"tags": "ssd"})


@pytest.mark.usefixtures("simulated")
def test_every_node_follows_the_nodes(api: Api) -> None:
    before = len(api.listed(f"{V1}/node/", state="Deployed"))
    service = api.run(deployment_strategy="EVERY_NODE")
    assert service["target_num_containers"] is None
    assert service["current_num_containers"] == before
    node = api.ok("POST", f"{V1}/node/", 201, json={"name": api.name("node"), "tags": ["late"]})
    until(lambda: api.get(service["uuid"])["running_num_containers"] == before + 1, "it is on the new node")
    api.ok("DELETE", f"{V1}/node/{node['uuid']}/", 202)
    until(lambda: api.get(service["uuid"])["running_num_containers"] == before, "it has left with the node")
    api.refused(400, "POST", f"{V1}/service/{service['uuid']}/scale/")
    api.end(service["uuid"])


def test_what_there_is_only_to_read(api: Api) -> None:
    for kind in ("provider", "region", "nodetype", "nodecluster"):
        (one, *_) = api.listed(f"{V1}/{kind}/")
        assert api.ok("GET", one["resource_uri"])["name"] == one["name"]
    assert api.listed(f"{V1}/az/") == []


# -- triggers


@pytest.mark.parametrize(
    "definition",
    [
        {"privileged": True},
        {"pid": "host"},
        {"network": "host"},
        {"cpu_shares": 512},
        {"memory": 4},
        {"memory": 64, "privileged": False},
        {"bindings": [{"container_path": "/a"}, {"container_path": "/b", "host_path": "/etc"}]},
    ],
)
def test_what_will_be_refused_is_told_beforehand(api: Api, definition: dict[str, Any]) -> None:
    query = {"definition": json.dumps(definition)}
    refused = api.ok("GET", f"{V1}/refused/", params=query)["refused"]
    body = {"image": api.backend.image, "name": api.name(), **definition}
    answer = api.call("POST", f"{V1}/service/", json=body)
    if refused:
        assert answer.status_code == 400
        assert answer.json()["error"] == "; ".join(f"{p['path']}: {p['reason']}" for p in refused)
    else:
        api.end(answer.json()["uuid"])


@pytest.mark.parametrize("definition", ["{", "[]", '{"memory": 1}', "[" * 5000])
def test_what_nobody_would_take_is_no_question(api: Api, definition: str) -> None:
    api.refused(400, "GET", f"{V1}/refused/", params={"definition": definition})


def test_triggers(api: Api) -> None:
    service = api.run()
    base = f"{V1}/service/{service['uuid']}/trigger/"
    trigger = api.ok("POST", base, 201, json={"name": "push"})
    assert trigger["operation"] == "REDEPLOY"
    assert trigger["url"].endswith(f"/trigger/{trigger['uuid']}/call/")
    assert api.listed(base) == [trigger]
    # Whoever knows the address may call it.
    answer = requests.post(api.server.url + trigger["url"], data="who pushed", timeout=60)
    assert answer.status_code == 202
    api.wait(service["uuid"], "Running")
    until(lambda: "who pushed" in json.dumps(api.get(service["uuid"])), "the trigger's body has arrived")
    assert trigger["uuid"] not in api.server.log()
    up = api.ok("POST", base, 201, json={"operation": "SCALEUP"})
    answer = requests.post(f"{api.server.url}{up['url']}2/", timeout=60)
    assert answer.status_code == 202
    until(lambda: api.get(service["uuid"])["running_num_containers"] == 3, "two more run")
    for count in ("0", "-1", "x", "99999999999"):
        refused = requests.post(f"{api.server.url}{up['url']}{count}/", timeout=60)
        assert refused.status_code == 400
    old = f"{V1}/service/{service['uuid']}/webhook/handler/{trigger['uuid']}/call/"
    assert requests.post(api.server.url + old, timeout=60).status_code == 202
    api.ok("DELETE", f"{base}{trigger['uuid']}/", 202)
    assert requests.post(api.server.url + trigger["url"], timeout=60).status_code == 404
    too_long = requests.post(api.server.url + up["url"], data=b"x" * 100_000, timeout=60)
    assert too_long.status_code == 413
    for body in ({"operation": "EXPLODE"}, {"operation": 5}, {"name": 5}):
        api.refused(400, "POST", base, json=body)


# -- volumes and images


def test_volumes(api: Api) -> None:
    service = api.run(bindings=[{"container_path": "/data"}], target_num_containers=2)
    groups = [
        g for g in api.listed(f"{V1}/volumegroup/", limit=0) if service["resource_uri"] in g["services"]
    ]
    (group,) = groups
    assert len(group["volumes"]) == 2
    volume = api.ok("GET", group["volumes"][0])
    assert volume["volume_group"] == group["resource_uri"]
    assert volume["state"] == "Created"
    (user,) = volume["containers"]
    assert user in service["containers"]
    api.end(service["uuid"])
    until(lambda: api.ok("GET", volume["resource_uri"])["state"] == "Terminated", "the volume is gone")


def test_the_image_of_a_service_that_never_ran(api: Api) -> None:
    service = api.create(image="registry.example:5000/acme/never-run:1.2")
    tag = api.ok("GET", service["image_tag"])
    assert (tag["full_name"], tag["name"], tag["layer"]) == (service["image_name"], "1.2", None)
    assert api.ok("GET", tag["image"])["imagetag_set"] == [service["image_tag"]]


def test_images(api: Api) -> None:
    service = api.run()
    tag = api.ok("GET", service["image_tag"])
    assert tag["full_name"] == service["image_name"]
    assert api.ok("GET", tag["image"])["name"] in service["image_name"]


@pytest.mark.usefixtures("simulated")
def test_a_pushed_image_redeploys_what_follows_it(api: Api) -> None:
    image = "acme/" + api.name("pushed")
    follows, stays = api.run(image=image, autoredeploy=True), api.run(image=image)
    answer = api.ok("POST", f"{V1}/image/announce/", 202, json={"image": image})
    assert answer == {"image": image, "redeployed": 1}
    until(lambda: api.get(follows["uuid"])["containers"] != follows["containers"], "it was redeployed")
    assert api.wait(follows["uuid"], "Running")["state"] == "Running"
    assert api.get(stays["uuid"])["containers"] == stays["containers"]
    for bad in ({}, {"image": 5}, {"image": ""}, {"image": "Not An Image"}):
        api.refused(400, "POST", f"{V1}/image/announce/", json=bad)


# -- made once


def test_create_keys(api: Api) -> None:
    body = {"image": api.backend.image, "name": api.name("keyed")}
    key = {"Idempotency-Key": f"key-of-{body['name']}"}
    first = api.call("POST", f"{V1}/service/", json=body, headers=key)
    again = api.call("POST", f"{V1}/service/", json={**body, "name": api.name()}, headers=key)
    assert (first.status_code, again.status_code) == (201, 200)
    assert again.json()["uuid"] == first.json()["uuid"]
    api.refused(409, "POST", f"{V1}/service/", json=body)
    assert api.ok("POST", f"{V1}/key/close/", json={"keys": [key["Idempotency-Key"], "unknown"]}) == {
        "closed": 1
    }
    assert "adopt" in api.refused(409, "POST", f"{V1}/service/", json=body, headers=key)["error"]
    api.end(first.json()["uuid"])
    uuid = api.ok("POST", f"{V1}/service/", 201, json=body, headers=key)["uuid"]
    assert api.ok("POST", f"{V1}/key/close/", json={"keys": [], "services": [uuid]}) == {"closed": 1}
    api.refused(409, "POST", f"{V1}/service/", json=body, headers=key)
    for wrong in ("x", [1], None):
        for bad in ({"keys": wrong}, {"services": wrong}, {"keys": [], "services": wrong}):
            api.refused(400, "POST", f"{V1}/key/close/", json=bad)
    api.refused(400, "POST", f"{V1}/key/close/", json={})


# -- role global


def test_a_service_token_lives_as_long_as_its_service(api: Api) -> None:
    service = api.run(roles=["global"])
    (container,) = service["containers"]
    variables = {e["key"]: e["value"] for e in api.ok("GET", container)["container_envvars"]}
    header = {"Authorization": variables["TUTUM_AUTH"]}
    assert api.ok("GET", f"{V1}/service/", headers=header)["objects"]
    docker_cloud = {"Authorization": variables["DOCKERCLOUD_AUTH"]}
    url = variables["DOCKERCLOUD_REST_HOST"] + variables["DOCKERCLOUD_SERVICE_API_URI"]
    assert url == variables["DOCKERCLOUD_SERVICE_API_URL"]
    answer = api.ok("GET", variables["DOCKERCLOUD_SERVICE_API_URI"], headers=docker_cloud)
    assert (answer["uuid"], answer["resource_uri"]) == (
        service["uuid"],
        variables["DOCKERCLOUD_SERVICE_API_URI"],
    )
    api.ok("GET", f"{V1}/service/{service['uuid']}/", headers=header)
    created = api.ok(
        "POST", f"{V1}/service/", 201, headers=header, json={"image": api.backend.image, "name": api.name()}
    )
    other = api.run()
    (container,) = other["containers"]
    assert "TUTUM_AUTH" not in {e["key"] for e in api.ok("GET", container)["container_envvars"]}
    api.end(service["uuid"])
    api.refused(401, "GET", f"{V1}/service/", headers=header)
    api.refused(401, "GET", f"{V1}/service/", headers=docker_cloud)
    api.refused(401, "GET", f"{V1}/service/{created['uuid']}/", headers=header)


# -- types, for clients that decode strictly

_DATES = "deployed_datetime destroyed_datetime"
_LIFE = f"{_DATES} started_datetime stopped_datetime"
_LIMITS = "cpu_shares memory"
#: What Go's libraries decode a kind into: numbers into int, texts into string, never one for the other; null
#: is fine everywhere.
GO_TYPES: dict[str, dict[type, str]] = {
    "service": {
        str: f"{_LIFE} autodestroy autorestart deployment_strategy entrypoint image_name image_tag name net "
        "pid public_dns resource_uri run_command stack state uuid working_dir",
        int: f"{_LIMITS} current_num_containers running_num_containers stopped_num_containers "
        "target_num_containers",
        bool: "autoredeploy privileged sequential_deployment synchronized",
        list: "bindings container_envvars container_ports containers linked_from_service linked_to_service "
        "roles tags",
        dict: "link_variables",
    },
    "container": {
        str: f"{_LIFE} autodestroy autorestart entrypoint image_name image_tag name net node pid private_ip "
        "public_dns resource_uri run_command service state uuid working_dir",
        int: f"{_LIMITS} exit_code",
        bool: "privileged synchronized",
        list: "bindings container_envvars container_ports linked_to_container roles",
        dict: "last_metric link_variables",
    },
    "stack": {str: f"{_DATES} name resource_uri state uuid", bool: "synchronized", list: "services"},
    "action": {str: "action body end_date ip location method object path resource_uri start_date state uuid"},
    "node": {
        str: f"{_DATES} availability_zone docker_version last_seen node_cluster public_ip region "
        "resource_uri state uuid",
        list: "tags",
    },
    "nodecluster": {
        str: f"{_DATES} name node_type region resource_uri state uuid",
        int: "current_num_nodes disk target_num_nodes",
        list: "nodes tags",
        dict: "provider_options",
    },
    "volume": {str: "node resource_uri state uuid volume_group", list: "containers"},
    "volumegroup": {str: "name resource_uri state uuid", list: "services volumes"},
    "provider": {str: "label name resource_uri", bool: "available", list: "regions"},
    "region": {str: "label name provider resource_uri", bool: "available", list: "node_types"},
    "nodetype": {str: "label name provider resource_uri", bool: "available", list: "regions"},
    "image": {
        str: "description last_build_date name public_url resource_uri",
        bool: "is_private_image jumpstart",
    },
}


@pytest.fixture(scope="module")
def rich(api: Api) -> dict[str, Any]:
    """A running service that uses much of what there is, in a stack."""
    service = {
        "name": "web",
        "image": api.backend.image,
        "container_ports": [
            {"protocol": "tcp", "inner_port": "80", "outer_port": 0, "published": True, "container": ""}
        ],
        "container_envvars": [{"key": "NUMBER", "value": 1}],
        "bindings": [{"container_path": "/data", "host_path": "", "rewritable": False, "volume_from": ""}],
        "linked_to_service": [{"to_service": "db", "name": "db", "from_service": ""}],
        "tags": ["local"],
        "memory": 64,
        # A swarm has no weights.
        **({} if api.backend.name == "swarm" else {"cpu_shares": 10}),
    }
    services = [service, {"name": "db", "image": api.backend.image, "expose": ["3306"]}]
    stack = api.ok("POST", f"{V1}/stack/", 201, json={"name": api.name("rich"), "services": services})
    api.ok("POST", f"{stack['resource_uri']}start/", 202)
    api.wait(stack["uuid"], "Running", kind="stack")
    return api.ok("GET", stack["services"][0])


@pytest.mark.usefixtures("rich")
@pytest.mark.parametrize("kind", GO_TYPES)
def test_types_as_go_clients_decode_them(api: Api, kind: str) -> None:
    listed = api.listed(f"{V1}/{kind}/", limit=0)
    assert listed
    for one in listed:
        detail = api.ok("GET", one["resource_uri"])
        for wanted, names in GO_TYPES[kind].items():
            for name in names.split():
                assert detail[name] is None or type(detail[name]) is wanted, name
                assert name not in one or one[name] is None or type(one[name]) is wanted, name


def test_types_within_a_service_as_go_clients_decode_them(api: Api, rich: dict[str, Any]) -> None:
    (port,) = rich["container_ports"]
    assert (type(port["inner_port"]), port["outer_port"], port["published"]) == (int, None, True)
    assert rich["tags"] == [{"name": "local"}]
    assert rich["container_envvars"] == [{"key": "NUMBER", "value": "1"}]
    assert all(type(value) is str for value in rich["link_variables"].values())
    container = api.ok("GET", rich["containers"][0])
    assert type(container["container_ports"][0]["outer_port"]) is int
    assert all(type(e["key"]) is type(e["value"]) is str for e in container["container_envvars"])
    (link,) = container["linked_to_container"]
    assert all(type(value) is str for value in (*link["endpoints"], *link["endpoints"].values()))
    layer = api.ok("GET", rich["image_tag"])["layer"]
    assert all(type(port["port"]) is int for port in layer["ports"])
    trigger = api.ok(
        "POST", f"{rich['resource_uri']}trigger/", 201, json={"name": "", "operation": "REDEPLOY"}
    )
    assert all(type(value) is str for value in trigger.values())
