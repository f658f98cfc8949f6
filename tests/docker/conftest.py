"""One engine for all tests that only use it; a test that kills, restarts or configures one makes its own."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.support import images
from tests.support.docker_engine import DockerEngine, missing
from tests.support.real import Real
from tests.support.server import Server
from tests.support.tools import need


@pytest.fixture(scope="session")
def docker_tools() -> None:
    """Skip where no engine can be had (an error in CI)."""
    lacking = missing()
    how = "be root, and apt-get install docker.io iptables iproute2"
    need(f"Docker Engine ({', '.join(lacking)} missing)", not lacking, how)


@pytest.fixture(scope="session")
def engine(docker_tools: None) -> Iterator[DockerEngine]:
    """An engine in the machine's own network, with the small images."""
    with DockerEngine() as engine:
        images.load(engine, images.busybox(), images.hello(), images.hits(), images.redis())
        yield engine


@pytest.fixture(scope="module")
def server(engine: DockerEngine, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """A server that remembers, on the module's `engine`; modules with other needs have their own."""
    data = tmp_path_factory.mktemp("data")
    with Server(backend="docker", node=[engine.url], data=data, stop_seconds=1) as server:
        yield server
        assert "unexpected" not in server.log(), server.log()


@pytest.fixture
def real(server: Server, engine: DockerEngine) -> Iterator[Real]:
    """The services of the module's `server`; at the end nothing of them may be left."""
    with Real(server, engine.node_urls) as real:
        yield real
        real.terminate_all()
