"""The harness itself: engines, swarms and images behave as the tests of the backends take for granted."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import textwrap
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import docker
import pytest
import requests
from docker.models.containers import Container
from docker.types import EndpointSpec, RestartPolicy, ServiceMode

from tests.support import images
from tests.support.docker_engine import DockerEngine, run
from tests.support.swarm import SwarmCluster
from tests.support.tools import until

pytestmark = [pytest.mark.docker, pytest.mark.usefixtures("docker_tools")]


def page(url: str) -> str:
    """What answers at the URL, as soon as something does."""
    pages: list[str] = []

    def answers() -> bool:
        with suppress(requests.ConnectionError):
            pages.append(requests.get(url, timeout=10).text)
        return bool(pages)

    until(answers, f"{url} answers")
    return pages[0]


def port_of(container: Container, inner: str) -> str:
    container.reload()
    (binding,) = container.ports[inner] or []
    return binding["HostPort"]


@pytest.fixture
def client(engine: DockerEngine) -> Iterator[docker.DockerClient]:
    with engine.client() as client:
        yield client
        for container in client.containers.list(all=True):
            container.remove(force=True, v=True)
        client.networks.prune()


def machine() -> tuple[str, list[str]]:
    """What engines change on a machine and never undo: its firewall and forwarding, and what bears the name
    of a slot that nobody holds (other runs may be using theirs)."""
    rules = "iptables-save | grep -v '^#' | sed 's/\\[.*//'"
    firewall = run("sh", "-c", f"{rules}; cat /proc/sys/net/ipv4/ip_forward")
    held = set(re.findall(r"@pulumi-tutum-test-engine-(\d+)", Path("/proc/net/unix").read_text()))
    commands = [
        "ip -br link",
        "ip -br -4 addr | grep ' 198[.]1[89]' || true",
        "ip netns list",
        "cat /proc/self/mountinfo",
        "ls /tmp",
        "find /sys/fs/cgroup -maxdepth 2",
        "ps -eo stat,args | grep -v '^Z'",
    ]
    lines = [line for command in commands for line in run("sh", "-c", command).splitlines()]
    held |= set(re.findall(r"@pulumi-tutum-test-engine-(\d+)", Path("/proc/net/unix").read_text()))
    return firewall, [line for line in lines if (number := slot_of(line)) is not None and number not in held]


def slot_of(line: str) -> str | None:
    """The number of the slot that the line names, or an address of it."""
    if name := re.search(r"(?:^|[ /])tt(\d+)(?![0-9a-z])", line):
        return name[1]
    if address := re.search(r" 198[.](18|19)[.](\d+)[.]", line):
        return str((int(address[1]) - 18) * 16 + int(address[2]) // 16)
    return None


@pytest.mark.parametrize("namespace", [False, True])
def test_an_engine_runs_containers_and_leaves_no_trace(namespace: bool) -> None:
    before = machine()
    with DockerEngine(namespace=namespace) as engine:
        assert images.load(engine, images.hello()) == images.load(engine, images.hello())
        with engine.client() as client:
            # Whatever could stay: a network of its own, a paused and a stubborn container, a volume.
            client.networks.create("net")
            web = client.containers.run(
                "tutum/hello-world",
                detach=True,
                network="net",
                hostname="web-1",
                ports={"80/tcp": (engine.address, 0)},
                volumes={"data": {"bind": "/data"}},
            )
            paused = client.containers.run("tutum/hello-world", "sleep 1000", detach=True, network="net")
            paused.pause()
            assert "My hostname is web-1" in page(f"http://{engine.address}:{port_of(web, '80/tcp')}/")
    assert machine() == before


def test_two_engines_stand_side_by_side(engine: DockerEngine) -> None:
    with DockerEngine() as other:
        assert other.url != engine.url
        with other.client() as client:
            assert client.images.list() == []


def test_containers_find_each_other_by_name(client: docker.DockerClient) -> None:
    client.networks.create("net")
    client.containers.run("test/redis", name="counter", detach=True, network="net")
    address = {"REDIS_PORT_6379_TCP_ADDR": "counter", "REDIS_PORT_6379_TCP_PORT": "6379"}
    web = client.containers.run(
        "test/hits", detach=True, network="net", environment=address, ports={"80/tcp": ("127.0.0.1", 0)}
    )
    url = f"http://127.0.0.1:{port_of(web, '80/tcp')}/"
    until(lambda: page(url).startswith("hit "), "redis counts")
    first = int(page(url).split()[1])
    assert int(page(url).split()[1]) == first + 1


def test_a_container_reaches_this_machine(engine: DockerEngine, client: docker.DockerClient) -> None:
    client.networks.create("net")
    web = client.containers.run("tutum/hello-world", detach=True, ports={"80/tcp": (engine.gateway, 0)})
    url = f"http://{engine.gateway}:{port_of(web, '80/tcp')}/"
    page(url)
    assert b"Hello world" in client.containers.run("test/busybox", ["wget", "-qO-", url], network="net")


def test_a_missing_image_fails_without_a_request_to_the_world(client: docker.DockerClient) -> None:
    with pytest.raises(docker.errors.APIError, match=r"127\.0\.0\.1:9"):
        client.images.pull("test/not-there", tag="latest")


def test_a_crash_leaves_the_containers_and_start_works_at_once() -> None:
    with DockerEngine(live_restore=True) as engine:
        images.load(engine, images.busybox())
        with engine.client() as client:
            container = client.containers.run("test/busybox", ["sleep", "1000"], detach=True)
            container.reload()
            pid = container.attrs["State"]["Pid"]
        engine.kill()
        assert not engine.running
        assert Path(f"/proc/{pid}").exists()
        engine.start()
        with engine.client() as client:
            assert client.containers.get(str(container.id)).status == "running"
        engine.stop()
        engine.start()


def test_what_a_killed_run_left_is_swept_by_the_next() -> None:
    before = machine()
    program = """
        from tests.support.docker_engine import DockerEngine
        engine = DockerEngine()
        engine.start()
        print(engine.url, flush=True)
        input()
    """
    with subprocess.Popen(
        [sys.executable, "-c", textwrap.dedent(program)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        cwd=Path(__file__).parents[2],
        text=True,
    ) as other:
        assert other.stdout is not None
        url = other.stdout.readline().strip()
        other.send_signal(signal.SIGKILL)
    assert os.path.exists(url.removeprefix("unix://"))
    with DockerEngine():
        pass
    assert machine() == before


@pytest.mark.slow
def test_wordpress_finds_its_database(engine: DockerEngine, client: docker.DockerClient) -> None:
    images.load(engine, images.mariadb(), images.wordpress())
    client.networks.create("net")
    password = "se'c\\ret $x"
    client.containers.run(
        "tutum/mysql:5.6", name="db-1", detach=True, network="net", environment={"MYSQL_PASS": password}
    )
    link = {
        "DB_PORT": "tcp://db-1:3306",
        "DB_PORT_3306_TCP_ADDR": "db-1",
        "DB_PORT_3306_TCP_PORT": "3306",
        "DB_ENV_MYSQL_PASS": password,
    }
    web = client.containers.run(
        "tutum/wordpress-stackable",
        detach=True,
        network="net",
        environment=link,
        ports={"80/tcp": ("127.0.0.1", 0)},
    )
    assert "WordPress &rsaquo; Installation" in page(f"http://127.0.0.1:{port_of(web, '80/tcp')}/")


@pytest.mark.slow
def test_a_swarm_runs_services_and_loses_a_node() -> None:
    before = machine()
    with SwarmCluster(3) as swarm:
        assert swarm.ready() == {"node1", "node2", "node3"}
        (image,) = images.load(swarm, images.hello())
        client: Any  # the stubs of docker-py know little of services
        with swarm.daemons[0].client() as client:
            port: Any = {"TargetPort": 80, "PublishedPort": 8080, "PublishMode": "host", "Protocol": "tcp"}
            client.services.create(
                image,
                name="web",
                mode=ServiceMode("global"),
                endpoint_spec=EndpointSpec(mode="dnsrr", ports=[port]),
            )
            for address in swarm.addresses:
                assert "Hello world" in page(f"http://{address}:8080/")
            # One that may run anywhere but on the manager, with a page of its own node.
            free = client.services.create(
                image,
                ["sleep", "1000"],
                name="free",
                constraints=["node.role==worker"],
                restart_policy=RestartPolicy("any", delay=0),
            )

            def nodes_of_free() -> set[str]:
                names = {n["ID"]: n["Description"]["Hostname"] for n in client.api.nodes()}
                tasks = free.tasks(filters={"desired-state": "running"})
                return {names[t["NodeID"]] for t in tasks if t["Status"]["State"] == "running"}

            until(lambda: len(nodes_of_free()) == 1, "the free service runs")
            (home,) = nodes_of_free()
            (other,) = {"node2", "node3"} - {home}
            dead = int(home[-1]) - 1
            swarm.kill_node(dead)
            until(lambda: home not in swarm.ready(), f"{home} is down")
            with pytest.raises(requests.ConnectionError):
                requests.get(f"http://{swarm.addresses[dead]}:8080/", timeout=2)
            until(lambda: nodes_of_free() == {other}, f"the free service runs on {other}")
            swarm.start_node(dead)
            assert home in swarm.ready()
            assert "Hello world" in page(f"http://{swarm.addresses[dead]}:8080/")
    assert machine() == before
