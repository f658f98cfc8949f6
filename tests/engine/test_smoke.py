"""The main job on the real engine, once through: up, empty preview, scale, new image, new name, destroy."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import pytest

from pulumi_tutum import Client
from tests.support.engine import Project
from tests.support.server import Server

PROGRAM = """
import pulumi
import pulumi_tutum as tutum

config = pulumi.Config()
db = tutum.Service("db", image="tutum/mysql:5.6",
    container_envvars={"MYSQL_PASS": config.require_secret("dbPass")})
web = tutum.Service("web",
    image=config.require("image"),
    name=config.get("name"),
    target_num_containers=config.require_int("containers"),
    tags=[],
    container_ports=[{"protocol": "tcp", "inner_port": 80, "published": True}],
    linked_to_service=[{"to_service": db, "name": "DB"}])
pulumi.export("urls", web.endpoint_uris)
pulumi.export("port", web.container_ports[0].inner_port)
pulumi.export("variables", db.link_variables)
"""
SECRET = "correct-horse-battery"
#: How the engine marks a secret value in the state.
CIPHER = "4dabf18193072939515e22adb298388d"


@pytest.fixture
def server() -> Iterator[Server]:
    with Server(container_start_seconds=0.05, nodes=3) as server:
        yield server


def test_the_main_job(server: Server, new_project: Callable[..., Project]) -> None:
    project = new_project(
        PROGRAM,
        config={"image": "tutum/wordpress:1", "containers": "2"},
        secrets={"dbPass": SECRET, "tutum:apikey": server.apikey},
        env={k: v for k, v in server.environment.items() if k != "TUTUM_APIKEY"},
    )
    client = Client(server.user, server.apikey, rest_host=server.url)

    preview = project.preview()
    assert not list(client.list_services()), "a preview made something"
    project.up()
    web, db = (project.resources()[name] for name in ("web", "db"))
    live = client.get_service(web["id"])
    assert live["state"] == "Running"
    assert live["running_num_containers"] == 2
    assert live["name"] == web["inputs"]["name"]
    assert live["name"] in preview.output or web["inputs"]["name"].startswith("web-")
    assert live["linked_to_service"][0]["to_service"] == f"/api/v1/service/{db['id']}/"
    outputs = project.outputs()
    assert outputs["port"] == 80
    assert len(outputs["urls"]) == 2
    assert outputs["variables"]

    def unchanged() -> None:
        again = project.preview("--expect-no-changes", "--diff")
        assert "to update" not in again.output

    unchanged()
    project.refresh("--expect-no-changes")
    unchanged()

    project.config_set({"containers": "3"})
    project.up()
    assert client.get_service(web["id"])["running_num_containers"] == 3

    project.config_set({"image": "tutum/wordpress:2"})
    project.up()
    live = client.get_service(web["id"])
    assert (live["image_name"], live["synchronized"]) == ("tutum/wordpress:2", True)
    unchanged()

    project.config_set({"name": "front"})
    project.up()
    new = project.resources()["web"]
    assert new["id"] != web["id"]
    assert client.get_service(web["id"])["state"] == "Terminated"
    assert client.find_service("front")["uuid"] == new["id"]
    unchanged()

    project.destroy()
    assert all(service["state"] == "Terminated" for service in client.list_services())
    assert project.resources() == {}
    assert_nowhere(project, [SECRET, server.apikey])
    assert SECRET not in server.log()


BROKEN = """
import pulumi
import pulumi_tutum as tutum

config = pulumi.Config()
db = tutum.Service("db", image="tutum/mysql:5.6",
    container_envvars=[{"key": "MYSQL_PASS", "value": config.require_secret("dbPass")}])
web = tutum.Service("web", image="acme/web",
    container_envvars={"PASS": config.require_secret("webPass"), "MODE": "plain",
        "SIMULATE_EXIT": config.require("exit"), "SIMULATE_EXIT_AFTER": config.require("after")},
    linked_to_service=[{"to_service": db}])
pulumi.export("environment", web.container_envvars)
"""


def test_secrets_stay_secret_through_failure_refresh_and_repair(
    server: Server, new_project: Callable[..., Project]
) -> None:
    project = new_project(
        BROKEN,
        config={"exit": "3", "after": "0"},
        secrets={"dbPass": SECRET, "webPass": "another-secret-value"},
        env=server.environment,
    )
    secrets = [SECRET, "another-secret-value", server.apikey]

    def hidden() -> None:
        for resource in project.resources().values():
            for name in ("container_envvars", "link_variables"):
                assert set(resource["outputs"][name]) == {CIPHER, "ciphertext"}
        assert_nowhere(project, secrets)

    failed = project.up(fails=True)
    web = project.resources()["web"]
    assert web["initErrors"]
    assert web["outputs"]["state"] == "Stopped"
    assert any("exit code 3" in error for error in failed.errors)
    assert "Traceback" not in failed.output
    hidden()
    project.refresh()
    hidden()
    project.config_set({"after": "3600"})
    project.up()
    repaired = project.resources()["web"]
    assert repaired["id"] == web["id"]
    assert not repaired.get("initErrors")
    assert repaired["inputs"]["container_envvars"]["MODE"] == "plain"
    hidden()
    client = Client(server.user, server.apikey, rest_host=server.url)
    client.update_service(web["id"], {"container_envvars": [{"key": "NEW", "value": "value-from-outside"}]})
    secrets.append("value-from-outside")
    project.refresh()
    hidden()
    assert project.preview().ops == {"web": ["update"]}
    project.up()
    project.preview("--expect-no-changes")
    project.destroy()
    assert_nowhere(project, secrets)


def assert_nowhere(project: Project, secrets: list[str]) -> None:
    """No file of the project's state, history and output holds a secret; `stack output` was asked to show
    them."""
    for path, text in project.written():
        if path.parent.name.endswith("-stack"):
            continue
        for secret in secrets:
            assert secret not in text, f"{path} holds a secret"
