"""A swarm moves containers to other nodes by itself, also without the server, which learns where they are."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from typing import Any

import pytest
import requests
from click.testing import CliRunner

from pulumi_tutum import cli, config, stream
from tests.support import images
from tests.support.real import V1, Real
from tests.support.server import Server
from tests.support.stack import Failed, Stack
from tests.support.swarm import SwarmCluster
from tests.support.tools import until

pytestmark = [pytest.mark.docker, pytest.mark.slow]

PORT_80 = {"protocol": "tcp", "inner_port": 80, "published": True}
VOLUME: dict[str, Any] = {"bindings": [{"container_path": "/data"}]}
SPREAD: dict[str, Any] = {"target_num_containers": 3, "deployment_strategy": "HIGH_AVAILABILITY"}


@pytest.fixture(scope="module")
def cluster(docker_tools: None) -> Iterator[SwarmCluster]:
    with SwarmCluster(3) as cluster:
        images.load(cluster, images.busybox(), images.hello(), images.redis())
        yield cluster


@pytest.fixture(scope="module")
def server(cluster: SwarmCluster, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    data = tmp_path_factory.mktemp("data")
    nodes = [f"node{number}={url}" for number, url in enumerate(cluster.node_urls, 1)]
    # With this grace the server would replace nothing within these tests.
    options: dict[str, Any] = {"node": nodes, "stop_seconds": 2, "node_grace": 3600, "start_timeout": 30}
    with Server(backend="swarm", data=data, **options) as server:
        yield server
        for word in ("unexpected", "failed"):
            assert word not in server.log(), server.log()


@pytest.fixture
def real(server: Server, cluster: SwarmCluster) -> Iterator[Real]:
    with Real(server, cluster.node_urls) as real:
        yield real
        for number, daemon in enumerate(cluster.daemons):
            if not daemon.running:
                cluster.start_node(number)
            set_availability(real, number, "active")
        real.terminate_all()
        for number in range(3):
            untag(real, number)


@pytest.fixture
def settings(server: Server) -> config.Settings:
    explicit = {"user": server.user, "apikey": server.apikey, "stream_host": server.stream_url}
    return config.resolve(explicit, {})


def set_availability(real: Real, number: int, availability: str) -> None:
    """`docker node update --availability` of a node."""
    api = real.engines[0].api

    def update() -> bool:
        (entry,) = [n for n in api.nodes() if n["Description"]["Hostname"] == f"node{number + 1}"]
        if entry["Spec"]["Availability"] == availability:
            return True
        spec = {**entry["Spec"], "Availability": availability}
        api.update_node(entry["ID"], entry["Version"]["Index"], spec)
        return True

    until(update, "the node is updated")


def node_uri(real: Real, number: int) -> str:
    found = real.ok("GET", f"{V1}/node/")["objects"]
    return next(str(n["resource_uri"]) for n in found if n["nickname"] == f"node{number + 1}")


def tag(real: Real, number: int, *tags: str) -> None:
    """Give a node further tags."""
    uri = node_uri(real, number)
    names = [t["name"] for t in real.ok("GET", uri)["tags"]]
    real.ok("PATCH", uri, {"tags": [{"name": t} for t in dict.fromkeys([*names, *tags])]})


def untag(real: Real, number: int) -> None:
    real.ok("PATCH", node_uri(real, number), {"tags": []})


def states(real: Real) -> dict[str, str]:
    return {n["nickname"]: n["state"] for n in real.ok("GET", f"{V1}/node/")["objects"]}


def entries(real: Real, service: dict[str, Any]) -> list[dict[str, Any]]:
    """The swarm's services of a Tutum service."""
    found: list[dict[str, Any]] = real.engines[0].api.services(
        filters={"label": f"io.tutum.service={service['uuid']}"}
    )
    return found


def constraints(real: Real, service: dict[str, Any]) -> list[str]:
    templates = [entry["Spec"]["TaskTemplate"] for entry in entries(real, service)]
    return sorted(c for t in templates for c in t["Placement"].get("Constraints") or ())


def is_free(real: Real, service: dict[str, Any]) -> bool:
    return not any(c.startswith("node.id==") for c in constraints(real, service))


def running(real: Real, service: dict[str, Any], *, without: int) -> list[Any]:
    """docker-py's containers of a service that run on all nodes but one."""
    label = {"label": f"io.tutum.service={service['uuid']}"}
    engines = [e for number, e in enumerate(real.engines) if number != without]
    return [c for e in engines for c in e.containers.list(filters=label, ignore_removed=True)]


def on_node(real: Real, number: int, name: str, **body: Any) -> dict[str, Any]:
    """A service of one container that runs on a node, and can be moved to any other one."""
    tag(real, number, name)
    service = real.run(name=name, tags=[name], **body)
    for other in range(3):
        tag(real, other, name)
    return service


def has_moved(real: Real, service: dict[str, Any], dead: str) -> Callable[[], bool]:
    def moved() -> bool:
        state = real.get(service["uuid"])["state"]
        return state == "Running" and dead not in [c["node"] for c in real.containers(service)]

    return moved


def test_what_runs_is_bound_only_by_what_has_to_bind_it(real: Real) -> None:
    tag(real, 1, "there", "a/b")
    tag(real, 2, "there", "a/b")
    free = real.run(tags=["there", "a/b", "swarm"])
    before = [c.id for c in running(real, free, without=-1)]
    until(lambda: is_free(real, free), "nothing binds it to its node")
    coded = b"a/b".hex()
    assert constraints(real, free) == [
        "node.labels.io.tutum.tag.there==1",
        f"node.labels.io.tutum.tagged.{coded}==1",
    ]
    assert [c.id for c in running(real, free, without=-1)] == before
    holder = real.run(**VOLUME)
    sharer = real.run(bindings=[{"volumes_from": holder["resource_uri"]}])
    image_volume = real.run("test/redis")
    everywhere = real.run(deployment_strategy="EVERY_NODE")
    # The last one that is freed, as a sign that the server has looked at all of them.
    last = real.run()
    until(lambda: is_free(real, last), "nothing binds it to its node")
    for bound in (holder, sharer, image_volume, everywhere):
        assert all(c.startswith("node.id==") for c in constraints(real, bound))
        assert len(constraints(real, bound)) == bound["current_num_containers"]


@pytest.mark.parametrize("is_up", [True, False])
def test_a_node_dies(
    real: Real, server: Server, cluster: SwarmCluster, settings: config.Settings, is_up: bool
) -> None:
    command = "sh -c 'echo run; exec httpd -f -p 80 -h /'"
    web = on_node(
        real, 2, "web", run_command=command, container_ports=[PORT_80], container_envvars=ENVIRONMENT
    )
    always = on_node(real, 2, "always", autorestart="ALWAYS")
    holder = on_node(real, 2, "holder", **VOLUME)
    link = {"to_service": web["resource_uri"], "name": "WEB"}
    tag(real, 0, "front")
    client = real.run(name="client", tags=["front"], linked_to_service=[link])
    until(lambda: is_free(real, web) and is_free(real, always), "nothing binds them to their node")
    dead = node_uri(real, 2)
    (before,) = real.containers(web)
    assert before["node"] == dead
    if not is_up:
        server.kill()
    cluster.kill_node(2)
    if is_up:
        real.wait(holder, "Partly running")
    else:
        until(lambda: running(real, web, without=2), "the swarm has moved it")
        until(lambda: running(real, always, without=2), "the swarm has moved it")
        server.start()
    for service in (web, always):
        until(has_moved(real, service, dead), "its container runs elsewhere")
    (after,) = real.containers(web)
    for name in ("uuid", "name", "exit_code", "exit_code_msg"):
        assert after[name] == before[name], name
    assert after["docker_id"] != before["docker_id"]
    (inside,) = running(real, web, without=2)
    assert inside.id == after["docker_id"]
    assert inside.attrs["Config"]["Hostname"] == "web-1"
    assert "GREETING=hello" in inside.attrs["Config"]["Env"]
    # Its port, its name, its commands and its lines are those of the new node.
    (port,) = after["container_ports"]
    assert port["outer_port"] == before["container_ports"][0]["outer_port"]
    assert port["endpoint_uri"] != before["container_ports"][0]["endpoint_uri"]
    assert requests.get(port["endpoint_uri"], timeout=10).status_code in (200, 404)
    (caller,) = running(real, client, without=2)
    assert caller.exec_run(["wget", "-q", "-O", "/dev/null", "http://WEB-1/bin/sh"]).exit_code == 0
    with stream.exec_command(settings, after["uuid"], "hostname") as connection:
        assert [m["output"] for m in connection.messages()] == ["web-1\n"]
    assert [f["log"] for f in stream.logs(settings, web["uuid"], follow=False)] == ["run\n"]

    (held,) = real.containers(holder)
    assert (held["state"], held["node"]) == ("Starting", dead)
    assert held["exit_code_msg"] == "holder-1 waits for node node3, which does not answer"
    assert real.get(holder["uuid"])["state"] == "Partly running"
    assert real.get(holder["uuid"])["running_num_containers"] == 0
    cluster.start_node(2)
    real.wait(holder, "Running")
    # What had moved does not run twice, and stays where it is.
    until(lambda: len(running(real, web, without=-1)) == 1, "it runs once")
    assert [c.id for c in running(real, web, without=-1)] == [inside.id]
    assert real.get(web["uuid"])["state"] == "Running"
    # A stop and a start choose a node again.
    real.act(always, "stop")
    real.wait(always, "Stopped")
    untag(real, 0)
    untag(real, 1)
    assert real.start(always)["state"] == "Running"
    assert [c["node"] for c in real.containers(always)] == [dead]


ENVIRONMENT = [{"key": "GREETING", "value": "hello"}]


def test_a_node_is_drained(real: Real) -> None:
    web = on_node(real, 1, "web")
    holder = on_node(real, 1, "holder", **VOLUME)
    everywhere = real.run(name="everywhere", deployment_strategy="EVERY_NODE")
    until(lambda: is_free(real, web), "nothing binds it to its node")
    drained = node_uri(real, 1)
    set_availability(real, 1, "drain")
    until(has_moved(real, web, drained), "its container runs elsewhere")
    real.wait(holder, "Partly running")
    (held,) = real.containers(holder)
    assert held["exit_code_msg"] == "holder-1 waits for node node2, which is drained"
    until(lambda: len(real.containers(everywhere)) == 2, "one container less")
    assert real.settle(everywhere)["state"] == "Running"
    assert set(states(real).values()) == {"Deployed"}
    set_availability(real, 1, "active")
    real.wait(holder, "Running")
    until(lambda: real.get(everywhere["uuid"])["running_num_containers"] == 3, "a container on each node")


def test_a_node_that_is_active_again_cannot_take_a_container_yet(real: Real) -> None:
    ports: dict[str, Any] = {"container_ports": [{**PORT_80, "outer_port": 8080}]}
    everywhere = real.run(name="everywhere", deployment_strategy="EVERY_NODE", **ports)
    set_availability(real, 1, "drain")
    until(lambda: len(real.containers(everywhere)) == 2, "one container less")
    # Somebody else has the port there meanwhile.
    until(lambda: len(entries(real, everywhere)) == 2, "its swarm service is removed")
    engine = real.engines[1]
    until(lambda: not running(real, everywhere, without=-1)[2:], "its container is removed")
    command = ["sleep", "100000"]
    other = engine.containers.run("test/busybox", command, ports={"80/tcp": 8080}, detach=True)
    try:
        set_availability(real, 1, "active")
        until(lambda: "port 8080 is already in use on node node2" in real.why(everywhere), "it is tried")
        real.wait(everywhere, "Partly running")
    finally:
        other.remove(force=True)
    until(lambda: real.get(everywhere["uuid"])["running_num_containers"] == 3, "a container on each node")
    real.wait(everywhere, "Running")


def test_a_dead_node_that_holds_a_volume_is_named(real: Real, server: Server, cluster: SwarmCluster) -> None:
    program = {"image": "test/busybox", "run_command": "sleep 100000", "name": "web", **SPREAD, **VOLUME}
    sentence = "waits for node node3, which does not answer"
    with Stack(server.environment) as stack:
        stack.up(web=program)
        web = real.get(stack.state["web"].id)
        (waiting,) = [c["name"] for c in real.containers(web) if c["node"] == node_uri(real, 2)]
        cluster.kill_node(2)
        real.wait(web, "Partly running")
        assert real.get(web["uuid"])["running_num_containers"] == 2
        listed = CliRunner().invoke(cli.main, ["ps"], env=server.environment)
        assert f"{waiting} {sentence}" in listed.output
        assert stack.refresh() == ["web"]
        assert f"{waiting} {sentence}" in "\n".join(stack.troubles["web"])
        with pytest.raises(Failed, match=f"{waiting} {sentence}"):
            stack.up(web=program)
        assert f"{waiting} {sentence}" in real.why(web)
        cluster.start_node(2)
        real.wait(web, "Running")
        assert stack.up(web=program) is not None


def test_a_port_that_is_taken_on_the_other_nodes(real: Real, cluster: SwarmCluster) -> None:
    fixed = {"container_ports": [{**PORT_80, "outer_port": 8080}], **SPREAD}
    web = real.run(name="web", **fixed)
    until(lambda: is_free(real, web), "nothing binds them to their nodes")
    cluster.kill_node(2)
    moved = real.wait(web, "Partly running")
    assert moved["running_num_containers"] == 2

    def reasons() -> list[str]:
        return [str(c["exit_code_msg"]) for c in real.containers(web) if c["state"] != "Running"]

    until(lambda: any("8080" in reason for reason in reasons()), "the port is named")
    assert len(reasons()) == 1
    assert "cannot be moved: port 8080 is already in use on every node that it may run on" in reasons()[0]
    cluster.start_node(2)
    real.wait(web, "Running")


def test_a_node_dies_while_a_container_is_starting(real: Real, cluster: SwarmCluster) -> None:
    tag(real, 2, "there")
    check = {"command": "test -e /tmp/well", "interval_seconds": 1, "retries": 100}
    service = real.create(tags=["there"], run_command="sh -c 'sleep 6; touch /tmp/well; sleep 100000'")
    real.patch(service, healthcheck=check)
    real.act(service, "start")
    until(lambda: running(real, service, without=-1), "its container has begun")
    tag(real, 0, "there")
    tag(real, 1, "there")
    assert real.get(service["uuid"])["state"] == "Starting"
    cluster.kill_node(2)
    settled = real.settle(service)
    assert settled["state"] == "Running", real.why(service)
    assert [c["node"] == node_uri(real, 2) for c in real.containers(service)] == [False]
    assert len(running(real, service, without=2)) == 1


def test_a_program_that_fails_is_not_run_again(real: Real, server: Server) -> None:
    fails = real.run(name="fails", run_command="sh -c 'echo run; sleep 3; exit 3'")
    assert real.wait(fails, "Stopped")["stopped_num_containers"] == 1
    (container,) = real.containers(fails)
    assert (container["state"], container["exit_code"]) == ("Stopped", 3)
    crashes = real.run(name="crashes", run_command="sh -c 'echo run; sleep 100000'")
    until(lambda: is_free(real, crashes), "nothing binds it to its node")
    server.kill()
    (inside,) = running(real, crashes, without=-1)
    inside.kill()
    # Nobody tells the swarm not to start it again.
    label = {"label": f"io.tutum.service={crashes['uuid']}"}
    until(lambda: len(real.engines[0].api.tasks(filters=label)) == 2, "the swarm makes another task")
    until(lambda: running(real, crashes, without=-1), "the swarm runs it again")
    server.start()
    assert real.wait(crashes, "Stopped")["stopped_num_containers"] == 1
    (container,) = real.containers(crashes)
    assert (container["state"], container["exit_code"]) == ("Stopped", 137)
    until(lambda: not running(real, crashes, without=-1), "it does not run any more")
    tasks = real.engines[0].api.tasks(filters={"label": f"io.tutum.service={fails['uuid']}"})
    assert len([t for t in tasks if t["Status"].get("ContainerStatus", {}).get("ExitCode") == 3]) == 1
    assert real.start(crashes)["state"] == "Running"


def test_lines_are_followed_to_another_node(
    real: Real, cluster: SwarmCluster, settings: config.Settings
) -> None:
    web = on_node(real, 1, "web", run_command="sh -c 'echo run; exec sleep 100000'")
    until(lambda: is_free(real, web), "nothing binds it to its node")
    lines: list[str] = []

    def read() -> None:
        lines.extend(f["log"] for f in stream.logs(settings, web["uuid"]))

    reader = threading.Thread(target=read, daemon=True)
    reader.start()
    until(lambda: lines == ["run\n"], "its first line is read")
    cluster.kill_node(1)
    until(lambda: lines == ["run\n", "run\n"], "the first line of its next run is read")
    cluster.start_node(1)
    real.terminate(web)
    reader.join(60)
    assert lines == ["run\n", "run\n"]
