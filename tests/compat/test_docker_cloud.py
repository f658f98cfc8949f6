"""The docker-cloud CLI of 2016, unchanged: Docker Cloud's paths, URIs and handshake."""

from __future__ import annotations

import json
from collections.abc import Callable

import pytest

from tests.compat.python27 import DOCKER_CLOUD, Python27, with_packages
from tests.support.server import Server
from tests.support.tools import until

DockerCloud = Callable[..., str]
MAIN = "from dockercloudcli.cli import main; main()"


@pytest.fixture(scope="module")
def python27() -> Python27:
    return with_packages(DOCKER_CLOUD)


def environment(server: Server) -> dict[str, str]:
    return {name.replace("TUTUM", "DOCKERCLOUD"): value for name, value in server.environment.items()}


@pytest.fixture(scope="module")
def cli(python27: Python27, server: Server) -> DockerCloud:
    """Run `docker-cloud <arguments>`; returns its output, fails when it fails."""

    def run(*arguments: str, code: int = 0, **extra: str) -> str:
        done = python27.run("-c", MAIN, *arguments, environ={**environment(server), **extra})
        assert done.returncode == code, (arguments, done.stdout, done.stderr)
        assert "Traceback" not in done.stderr
        return done.stdout if code == 0 else done.stdout + done.stderr

    return run


def inspect(cli: DockerCloud, kind: str, name: str) -> dict[str, object]:
    return dict(json.loads(cli(kind, "inspect", name)))


def arrives(cli: DockerCloud, service: str, wanted: str) -> None:
    until(lambda: inspect(cli, "service", service)["state"] == wanted, f"{service} is {wanted}")


@pytest.mark.parametrize("namespace", ["", "bob"])
def test_life_of_a_service(cli: DockerCloud, namespace: str) -> None:
    name = f"web{namespace}"
    extra = {"DOCKERCLOUD_NAMESPACE": namespace} if namespace else {}
    space = f"{namespace}/" if namespace else ""
    uuid = cli("service", "create", "-n", name, "-t", "2", "-p", "80", "-e", "A=b", "nginx", **extra).strip()
    service = json.loads(cli("service", "inspect", name, **extra))
    assert service["resource_uri"] == f"/api/app/v1/{space}service/{uuid}/"
    assert "Success" in cli("service", "start", "--sync", name, **extra)
    service = json.loads(cli("service", "inspect", name, **extra))
    assert service["state"] == "Running"
    assert all(uri.startswith(f"/api/app/v1/{space}container/") for uri in service["containers"])
    cli("service", "scale", name, "3", **extra)
    arrives(cli, name, "Running")
    cli("service", "set", "-e", "A=c", "--redeploy", name, **extra)
    arrives(cli, name, "Running")
    assert "(*)" not in cli("service", "ps", **extra)
    cli("service", "stop", name, **extra)
    arrives(cli, name, "Stopped")
    cli("service", "terminate", name, **extra)
    arrives(cli, uuid, "Terminated")


def test_containers_nodes_and_actions(cli: DockerCloud) -> None:
    cli("service", "run", "-n", "several", "-t", "2", "nginx")
    arrives(cli, "several", "Running")
    assert cli("container", "ps").count("several-") == 2
    container = inspect(cli, "container", "several-1")
    assert str(container["node"]).startswith("/api/infra/v1/node/")
    assert str(container["service"]).startswith("/api/app/v1/service/")
    cli("container", "stop", "several-1")
    arrives(cli, "several", "Partly running")
    nodes = cli("node", "ls", "-q").split()
    assert len(nodes) == 3
    assert str(inspect(cli, "node", nodes[0])["resource_uri"]) == f"/api/infra/v1/node/{nodes[0]}/"
    assert cli("nodecluster", "ls")
    action = cli("action", "ls", "-q").split()[0]
    assert inspect(cli, "action", action)["resource_uri"] == f"/api/audit/v1/action/{action}/"
    cli("tag", "add", "-t", "ssd", nodes[0])
    assert "ssd" in cli("tag", "ls", "-q", nodes[0])


def test_links_by_name(cli: DockerCloud) -> None:
    cli("service", "run", "-n", "store", "redis")
    cli("service", "create", "-n", "front", "--link", "store:cache", "nginx")
    links = inspect(cli, "service", "front")["linked_to_service"]
    assert isinstance(links, list)
    (link,) = links
    assert link["name"] == "cache"
    assert link["to_service"] == inspect(cli, "service", "store")["resource_uri"]


def test_logs(cli: DockerCloud) -> None:
    cli("service", "run", "-n", "logged", "-e", "SIMULATE_LOG_LINES=10", "nginx")
    arrives(cli, "logged", "Running")
    assert len(cli("service", "logs", "logged").splitlines()) == 11
    assert len(cli("service", "logs", "-t", "3", "logged").splitlines()) == 3


def test_stacks_and_triggers(cli: DockerCloud, tmp_path_factory: pytest.TempPathFactory) -> None:
    stackfile = tmp_path_factory.mktemp("stack") / "docker-cloud.yml"
    stackfile.write_text("web:\n  image: nginx\n  links: [db]\ndb:\n  image: redis\n")
    cli("stack", "up", "-n", "shop", "-f", str(stackfile))
    until(lambda: inspect(cli, "stack", "shop")["state"] == "Running", "the stack runs")
    services = inspect(cli, "stack", "shop")["services"]
    assert isinstance(services, list)
    assert all(uri.startswith("/api/app/v1/service/") for uri in services)
    cli("trigger", "create", "-n", "hook", "web.shop")
    assert "hook" in cli("trigger", "ls", "web.shop")
    cli("stack", "terminate", "shop")


EVENTS = """
import json, sys, threading
import dockercloud

def created():
    dockercloud.Service.create(image="nginx", name="heard").save()

def message(text):
    event = json.loads(text)
    if event["type"] == "service":
        print(event["resource_uri"])
        sys.stdout.flush()
        stream.run_forever_flag = False
        stream.ws.close()

stream = dockercloud.Events()
stream.on_open(lambda: threading.Thread(target=created).start())
stream.on_message(message)
stream.run_forever()
"""


def test_events(python27: Python27, server: Server) -> None:
    done = python27.run("-c", EVENTS, environ=environment(server))
    assert done.stdout.startswith("/api/app/v1/service/"), done.stderr


def test_wrong_credentials_are_refused_in_the_handshake(python27: Python27, server: Server) -> None:
    wrong = {**environment(server), "DOCKERCLOUD_APIKEY": "wrong"}
    code = "import dockercloud; dockercloud.Events().run_forever()"
    done = python27.run("-c", code, environ=wrong)
    assert "AuthError" in done.stderr
    done = python27.run("-c", MAIN, "service", "ps", environ=wrong)
    assert done.returncode != 0


def test_other_namespaces_are_not_there(cli: DockerCloud) -> None:
    assert "404" in cli("service", "ps", code=3, DOCKERCLOUD_NAMESPACE="somebody")
