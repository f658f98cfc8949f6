"""How much a server asks of a swarm's manager."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.support import images
from tests.support.engine_calls import EngineCalls
from tests.support.real import Real
from tests.support.server import Server
from tests.support.swarm import SwarmCluster
from tests.support.tools import until

pytestmark = [pytest.mark.docker, pytest.mark.slow]

SERVICES = 10


@pytest.fixture(scope="module")
def cluster(docker_tools: None) -> Iterator[SwarmCluster]:
    with SwarmCluster(3) as cluster:
        images.load(cluster, images.busybox())
        yield cluster


@pytest.fixture(scope="module")
def calls(cluster: SwarmCluster) -> Iterator[EngineCalls]:
    """The manager, which alone is known: of containers on other nodes nobody tells."""
    with EngineCalls(cluster.node_urls[0]) as calls:
        yield calls


@pytest.fixture(scope="module")
def server(calls: EngineCalls) -> Iterator[Server]:
    with Server(backend="swarm", node=[calls.url], stop_seconds=1) as server:
        yield server


@pytest.fixture
def real(server: Server, cluster: SwarmCluster) -> Iterator[Real]:
    with Real(server, cluster.node_urls) as real:
        yield real
        real.terminate_all()


def test_services_that_start_and_end_together(real: Real, calls: EngineCalls) -> None:
    services = [real.create(run_command="sh -c 'sleep 100000'") for _ in range(SERVICES)]
    calls.forget()
    for service in services:
        real.act(service, "start")
    for service in services:
        real.wait(service, "Running")
    until(lambda: calls.count("POST", r"/services/.*/update") == SERVICES, "nothing binds them to nodes")
    assert calls.count("POST", "/services/create") == SERVICES
    # What is read for many is read once.
    assert calls.count("GET", "/services/.*") == 0
    assert calls.count("GET", "/images/.*") <= SERVICES
    assert calls.count("GET", "/services") <= 6
    assert calls.count("GET", "/(nodes|networks)") <= 8
    assert calls.count() <= 90, calls.matching()

    calls.forget()
    real.terminate(*services)
    assert calls.count("DELETE", "/services/.*") == SERVICES
    assert calls.count("GET", "/(services|nodes|networks)") <= 10
    assert calls.count("GET", "/tasks") <= 35
    assert calls.count() <= 70, calls.matching()


def test_a_server_with_nothing_to_look_at_asks_for_no_tasks(real: Real, calls: EngineCalls) -> None:
    service = real.run()
    real.terminate(service)
    until(lambda: calls.count("DELETE", "/networks/.*"), "its network goes")
    calls.forget()
    until(lambda: calls.count("GET", "/networks") == 2, "all is listed twice")
    assert calls.count("GET", "/tasks") == 0
