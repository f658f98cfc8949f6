"""Services on a swarm of three nodes, of which the server knows the manager only; and one of them dies."""

from __future__ import annotations

import json
import os
import platform
import threading
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import docker
import pytest
import requests

from pulumi_tutum import config, stream
from pulumi_tutum.errors import Cancelled, StreamError
from tests.support import images
from tests.support.real import V1, Real
from tests.support.registry import Registry, layer
from tests.support.server import Server
from tests.support.stack import Stack
from tests.support.swarm import SwarmCluster
from tests.support.tools import until

pytestmark = [pytest.mark.docker, pytest.mark.slow]

SPREAD: dict[str, Any] = {"target_num_containers": 3, "deployment_strategy": "HIGH_AVAILABILITY"}
FREE = {"image": "test/busybox", "run_command": "sleep 100000", "name": "free", **SPREAD}
PORT_80 = {"protocol": "tcp", "inner_port": 80, "published": True}


@pytest.fixture(scope="module")
def cluster(docker_tools: None) -> Iterator[SwarmCluster]:
    with SwarmCluster(3) as cluster:
        images.load(cluster, images.busybox(), images.hello(), images.hits(), images.redis())
        yield cluster


@pytest.fixture(scope="module")
def server(cluster: SwarmCluster, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    data = tmp_path_factory.mktemp("data")
    manager = cluster.node_urls[0]
    with Server(backend="swarm", data=data, stop_seconds=2, node=[manager], node_grace=2) as server:
        yield server
        for word in ("unexpected", "failed"):
            assert word not in server.log(), server.log()


@pytest.fixture
def real(server: Server, cluster: SwarmCluster) -> Iterator[Real]:
    with Real(server, cluster.node_urls) as real:
        yield real
        found = real.ok("GET", f"{V1}/service/?limit=100")["objects"]
        for service in [s for s in found if s["state"] not in ("Terminating", "Terminated")]:
            real.terminate(service)
        ours = {"label": "io.tutum.server"}
        manager = real.engines[0].api
        until(lambda: manager.services(filters=ours) == [], "no service is left")
        until(lambda: manager.networks(filters=ours) == [], "no network is left")
        until(lambda: not containers_left(real), "no container is left")


def containers_left(real: Real) -> list[str]:
    """Of any server, on nodes that are up."""
    ours = {"label": "io.tutum.server"}
    found = []
    for engine in real.engines:
        try:
            found += [c.name for c in engine.containers.list(all=True, filters=ours, ignore_removed=True)]
        except (docker.errors.DockerException, requests.RequestException):
            continue
    return found


@pytest.fixture
def settings(server: Server) -> config.Settings:
    explicit = {"user": server.user, "apikey": server.apikey, "stream_host": server.stream_url}
    return config.resolve(explicit, {})


def nodes(real: Real) -> dict[str, str]:
    """URI of each node -> its state."""
    return {n["resource_uri"]: n["state"] for n in real.ok("GET", f"{V1}/node/")["objects"]}


def places(real: Real, service: dict[str, Any]) -> list[str]:
    """The nodes of a service's containers, in their order."""
    return [c["node"] for c in real.containers(service)]


def tag(real: Real, node: str, *tags: str) -> None:
    real.ok("PATCH", node, {"tags": [{"name": t} for t in tags]})


def on(real: Real, *, manager: bool) -> str:
    """The URI of the manager, or of another node."""
    address = real.engines[0].info()["Swarm"]["NodeAddr"]
    found = real.ok("GET", f"{V1}/node/")["objects"]
    uris = [n["resource_uri"] for n in found]
    return next(str(uri) for uri in uris if (real.ok("GET", uri)["public_ip"] == address) == manager)


def test_a_fixed_port_is_named_at_each_node_where_it_answers(real: Real, server: Server) -> None:
    each = {
        "image": "tutum/hello-world",
        "deployment_strategy": "EVERY_NODE",
        "container_ports": [{**PORT_80, "outer_port": 8090}],
    }
    with Stack(server.environment) as stack:
        stack.up(each=each)
        uris = stack.state["each"].outputs["endpoint_uris"]
        hosts = {str(real.ok("GET", node)["public_ip"]) for node in nodes(real)}
        assert len(hosts) == 3
        assert {urlsplit(uri).hostname for uri in uris} == hosts
        for uri in uris:
            assert "Hello world" in requests.get(uri, timeout=10).text
        assert stack.preview(each=each) == {}
        stack.up()


def test_strategies_and_tags(real: Real, cluster: SwarmCluster) -> None:
    every = set(nodes(real))
    assert len(every) == 3
    spread = real.run(target_num_containers=6, deployment_strategy="HIGH_AVAILABILITY")
    assert sorted(places(real, spread)) == sorted([*every, *every])
    everywhere = real.run("tutum/hello-world", deployment_strategy="EVERY_NODE", container_ports=[PORT_80])
    assert set(places(real, everywhere)) == every
    hosts = set()
    for container in real.containers(everywhere):
        uri = container["container_ports"][0]["endpoint_uri"]
        assert "My hostname is" in requests.get(uri, timeout=10).text
        hosts.add(urlsplit(uri).hostname)
    assert hosts == set(cluster.addresses)
    chosen = on(real, manager=False)
    tag(real, chosen, "data")
    tagged = real.run(target_num_containers=2, tags=["data"])
    assert set(places(real, tagged)) == {chosen}
    tag(real, chosen)


def test_a_link_from_node_to_node(real: Real) -> None:
    one, other = on(real, manager=True), on(real, manager=False)
    tag(real, one, "front")
    tag(real, other, "back")
    counter = real.run("test/redis", name="redis", tags=["back"])
    port = {**PORT_80, "outer_port": 8080}
    link = {"to_service": counter["resource_uri"], "name": "REDIS"}
    web = real.run("test/hits", name="web", tags=["front"], container_ports=[port], linked_to_service=[link])
    (shown,) = web["container_ports"]
    pages: list[str] = []

    def counts() -> bool:
        pages.append(requests.get(shown["endpoint_uri"], timeout=10).text)
        return pages[-1].startswith("hit ")

    until(counts, "the page counts")
    hits = int(pages[-1].split()[1])
    # What Redis keeps is in a volume of the node: it is there again after a redeploy.
    assert real.redeploy(counter)["state"] == "Running"
    until(counts, "the page counts again")
    assert int(pages[-1].split()[1]) > hits
    tag(real, one)
    tag(real, other)


def test_logs_come_from_another_node(real: Real, settings: config.Settings) -> None:
    other = on(real, manager=False)
    tag(real, other, "there")
    script = "i=0; while [ $i -lt 2000 ]; do i=$((i+1)); echo line $i; done; sleep 1; echo last; exit 3"
    service = real.create(tags=["there"], run_command=f"sh -c '{script}'")
    real.act(service, "start")
    until(lambda: real.containers(service), "there is a container")
    (container,) = real.containers(service)
    lines: list[str] = []

    def read() -> None:
        lines.extend(f["log"] for f in stream.logs(settings, container["uuid"], kind="container", tail=5000))

    reader = threading.Thread(target=read, daemon=True)
    reader.start()
    wanted = [*(f"line {n}\n" for n in range(1, 2001)), "last\n"]
    until(lambda: lines[-1:] == ["last\n"], "all is read")
    assert lines == wanted
    real.wait(service, "Stopped")
    tail = [
        f["log"] for f in stream.logs(settings, container["uuid"], kind="container", tail=2, follow=False)
    ]
    assert tail == ["line 2000\n", "last\n"]
    real.terminate(service)
    reader.join(60)
    assert not reader.is_alive()
    tag(real, other)


@pytest.mark.skipif(platform.machine() != "x86_64", reason="the registry's images are made for x86_64")
def test_nodes_pull_the_same_digest_with_dockers_credentials(cluster: SwarmCluster, tmp_path: Path) -> None:
    with Registry("alice", "s3cret-of-alice", address=cluster.gateway) as registry:
        files = layer(images.read(images.busybox(), "usr/bin/busybox"))
        registry.push("acme/web", "1", files, {"Env": ["PATH=/bin", "FROM=registry"]})
        image = f"{registry.host}/acme/web:1"
        environ = {"DOCKER_CONFIG": str(tmp_path)}
        options: dict[str, Any] = {"node": cluster.node_urls[:1], "stop_seconds": 1, "environ": environ}
        with Server(backend="swarm", **options) as server, Real(server, cluster.node_urls) as real:
            service = real.create(image, run_command="sleep 1000", **SPREAD)
            assert real.start(service)["state"] == "Not running"
            assert f"No such image: {image} (it cannot be pulled: " in real.why(service)
            credentials = {"auths": {registry.host: {"auth": registry.credentials}}}
            (tmp_path / "config.json").write_text(json.dumps(credentials))
            # With another image behind the tag by now, all nodes still get the one that the manager has.
            alice = {"username": "alice", "password": "s3cret-of-alice"}
            real.engines[0].api.pull(image, auth_config=alice)
            registry.push("acme/web", "1", files, {"Env": ["PATH=/bin", "FROM=newer"]})
            assert real.start(service)["state"] == "Running", real.why(service)
            found = running(real, service)
            assert len({c["Image"] for c in found}) == 1
            assert len({c["Config"]["Hostname"] for c in found}) == 3
            assert all("FROM=registry" in c["Config"]["Env"] for c in found)
            assert "s3cret" not in server.log()


def running(real: Real, service: dict[str, Any]) -> list[dict[str, Any]]:
    """What the engines say of a service's containers that run."""
    return [c.attrs for c in real.inside(service) if c.status == "running"]


def test_a_command_needs_the_nodes_engine(real: Real, settings: config.Settings) -> None:
    service = real.run(target_num_containers=3, deployment_strategy="HIGH_AVAILABILITY")
    for container in real.containers(service):
        with stream.exec_command(settings, container["uuid"], "hostname") as connection:
            if container["node"] == on(real, manager=True):
                assert [m["output"] for m in connection.messages()] == [f"{container['name']}\n"]
            else:
                with pytest.raises(StreamError, match=r"serve --node node\d=URL"):
                    list(connection.messages())


def test_a_volume_on_another_node_is_emptied(real: Real) -> None:
    other = on(real, manager=False)
    tag(real, other, "there")
    service = real.run(tags=["there"], bindings=[{"container_path": "/data"}])
    (inside,) = real.inside(service)
    inside.exec_run(["sh", "-c", "echo a >/data/a; mkdir /data/.b; echo c >/data/.b/c"])
    theirs = {"label": f"io.tutum.service={service['uuid']}"}
    (volume,) = [v for e in real.engines for v in e.volumes.list(filters=theirs)]
    folder = volume.attrs["Mountpoint"]
    assert sorted(os.listdir(folder)) == [".b", "a"]
    real.terminate(service)
    until(lambda: os.listdir(folder) == [], "it is empty")
    tag(real, other)
    until(lambda: not containers_left(real), "what emptied it is gone")
    volume.remove()


def test_a_volume_is_emptied_though_the_server_dies_meanwhile(real: Real, server: Server) -> None:
    other = on(real, manager=False)
    tag(real, other, "there")
    stubborn = """sh -c 'trap "" TERM; while :; do echo a >/data/a; sleep 0.1; done'"""
    service = real.run(tags=["there"], run_command=stubborn, bindings=[{"container_path": "/data"}])
    theirs = {"label": f"io.tutum.service={service['uuid']}"}
    (volume,) = [v for e in real.engines for v in e.volumes.list(filters=theirs)]
    folder = volume.attrs["Mountpoint"]
    until(lambda: os.listdir(folder) == ["a"], "something is in it")
    real.ok("DELETE", f"{V1}/service/{service['uuid']}/")
    until(lambda: real.engines[0].api.services(filters=theirs) == [], "its removal has begun")
    server.restart(kill=True)
    real.wait(service, "Terminated")
    until(lambda: os.listdir(folder) == [], "it is empty")
    tag(real, other)
    until(lambda: not containers_left(real), "what emptied it is gone")
    volume.remove()


def test_a_node_that_dies(real: Real, server: Server, cluster: SwarmCluster) -> None:
    events: list[dict[str, Any]] = []
    stop = threading.Event()
    explicit = {"user": server.user, "apikey": server.apikey, "stream_host": server.stream_url}

    def listen() -> None:
        with suppress(Cancelled):
            events.extend(stream.events(config.resolve(explicit, {}), cancelled=stop))

    listener = threading.Thread(target=listen, daemon=True)
    listener.start()
    with Stack(server.environment) as stack:
        stack.up(free=FREE)
        nodes_die(real, cluster, stack)
    stop.set()
    listener.join(60)
    told = {e["state"] for e in events if e["type"] == "container" and e["action"] == "update"}
    assert {"Starting", "Running"} <= told
    assert {"Unreachable", "Deployed"} <= {e["state"] for e in events if e["type"] == "node"}


def nodes_die(real: Real, cluster: SwarmCluster, stack: Stack) -> None:
    declared = stack.state["free"]
    free = real.get(declared.id)
    policy = real.run(name="policy", autorestart="ALWAYS", **SPREAD)
    everywhere = real.run(name="everywhere", deployment_strategy="EVERY_NODE")
    pinned = real.run(name="pinned", bindings=[{"container_path": "/data"}], autorestart="ALWAYS", **SPREAD)
    (dead,) = [n for n in nodes(real) if real.ok("GET", n)["public_ip"] == cluster.addresses[2]]
    before = places(real, free)
    assert dead in before
    cluster.kill_node(2)
    until(lambda: nodes(real)[dead] == "Unreachable", "the node is seen to be away")
    for service in (free, policy):

        def moved(service: dict[str, Any] = service) -> bool:
            return real.get(service["uuid"])["state"] == "Running" and dead not in places(real, service)

        until(moved, "its containers run elsewhere")
        assert len(places(real, service)) == 3
    until(lambda: stack.refresh() == [], "a refresh finds nothing wrong")
    assert stack.preview(free=FREE) == {}
    # They were moved by the swarm, and are the same ones for the server.
    assert stack.state["free"].outputs["containers"] == declared.outputs["containers"]
    until(lambda: dead not in places(real, everywhere), "one container less")
    assert real.settle(everywhere)["state"] == "Running"
    assert places(real, pinned).count(dead) == 1
    assert real.wait(pinned, "Partly running")["current_num_containers"] == 3
    cluster.start_node(2)
    until(lambda: nodes(real)[dead] == "Deployed", "the node is back")
    until(lambda: set(places(real, everywhere)) == set(nodes(real)), "a container on the node that came back")
    real.settle(everywhere)

    def returned() -> bool:
        found = real.get(pinned["uuid"])
        return (found["state"], found["running_num_containers"]) == ("Running", 3)

    until(returned, "the container with a volume runs where that is")
    until(lambda: len(real.engines[2].containers.list()) == 2, "what had moved does not run twice")
