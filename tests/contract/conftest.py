"""One real server per test module, and a thin, honest client: what it sends is what the test says.

The same tests run over every backend (real ones are slow: `-m slow`), and `BACKENDS` has what differs.
Tests that need containers to misbehave on demand ask for the fixture `simulated` and are skipped elsewhere.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from typing import Any

import pytest
import requests

from pulumi_tutum import Client
from tests.support import images
from tests.support.docker_engine import DockerEngine, missing
from tests.support.faults import FaultProxy
from tests.support.server import Server
from tests.support.swarm import SwarmCluster
from tests.support.tools import need, until

V1 = "/api/v1"


@dataclass(frozen=True)
class Backend:
    """What tests need to know of a backend: options of `serve`, and an image that runs and one that logs."""

    name: str
    options: Mapping[str, Any]
    image: str
    missing_image: str = "simulated/missing"
    environment: Mapping[str, str] = field(default_factory=dict)


@contextmanager
def simulated_backend() -> Iterator[Backend]:
    options = {"nodes": 3, "container_start_seconds": 0.02, "node": ["front=web,eu"]}
    yield Backend("simulated", options, image="tutum/hello-world")


def talkative() -> images.Image:
    """As a simulated container does, it says something when it starts."""
    config = {**images.hello().config, "Cmd": ["sh", "-c", "echo Started; exec httpd -f -p 80 -h /www"]}
    return replace(images.hello(), config=config)


@contextmanager
def docker_backend() -> Iterator[Backend]:
    lacking = missing()
    need(f"Docker Engine ({', '.join(lacking)} missing)", not lacking, "be root, and install docker.io")
    with DockerEngine() as engine:
        images.load(engine, talkative())
        options = {"node": [f"front={engine.url},web,eu"], "stop_seconds": 1}
        yield Backend("docker", options, image="tutum/hello-world", missing_image="test/not-there")


@contextmanager
def swarm_backend() -> Iterator[Backend]:
    lacking = missing()
    need(f"Docker Engine ({', '.join(lacking)} missing)", not lacking, "be root, and install docker.io")
    with SwarmCluster(3) as cluster:
        images.load(cluster, talkative())
        with cluster.daemons[0].client() as client:
            (node,) = client.nodes.list(filters={"name": "node1"})
            node.update({**node.attrs["Spec"], "Labels": {"io.tutum.tag.web": "1", "io.tutum.tag.eu": "1"}})
        nodes = [f"node{number}={url}" for number, url in enumerate(cluster.node_urls, 1)]
        options = {"node": nodes, "stop_seconds": 1}
        yield Backend("swarm", options, image="tutum/hello-world", missing_image="test/not-there")


BACKENDS = {"simulated": simulated_backend, "docker": docker_backend, "swarm": swarm_backend}
REAL = (pytest.mark.docker, pytest.mark.slow, pytest.mark.timeout(300))


@pytest.fixture(
    scope="session",
    params=[pytest.param(name, marks=() if name == "simulated" else REAL) for name in BACKENDS],
)
def backend(request: pytest.FixtureRequest) -> Iterator[Backend]:
    with BACKENDS[request.param]() as backend:
        yield backend


@pytest.fixture
def simulated(backend: Backend) -> None:
    """The test needs containers that misbehave on demand."""
    if backend.name != "simulated":
        pytest.skip("only simulated containers misbehave on demand")


@pytest.fixture(scope="module")
def server(backend: Backend) -> Iterator[Server]:
    with Server(backend=backend.name, **backend.options) as running:
        yield running
        assert "unexpected error" not in running.log(), running.log()


@pytest.fixture(scope="module")
def api(server: Server, backend: Backend) -> Iterator[Api]:
    with Api(server, backend) as client:
        yield client


class Api:
    """Requests to a server, and the few steps that most tests begin with."""

    _names = itertools.count(1)

    def __init__(self, server: Server, backend: Backend) -> None:
        self.server = server
        self.backend = backend
        self.session = requests.Session()
        self.session.trust_env = False
        self.session.headers.update(server.headers)

    def __enter__(self) -> Api:
        return self

    def __exit__(self, *_: object) -> None:
        self.session.close()

    def call(self, method: str, path: str, **options: Any) -> requests.Response:
        """Send; every answer must be the API's: JSON, or nothing."""
        url = path if path.startswith("http") else self.server.url + path
        answer = self.session.request(method, url, timeout=60, allow_redirects=False, **options)
        assert answer.status_code < 500, (method, path, answer.status_code, answer.text)
        if answer.content:
            assert answer.headers["Content-Type"] == "application/json"
            assert isinstance(answer.json(), dict)
        if answer.status_code >= 400 and method != "HEAD":
            assert isinstance(answer.json()["error"], str)
            assert answer.json()["error"]
        return answer

    def ok(self, method: str, path: str, status: int = 200, **options: Any) -> dict[str, Any]:
        """Send, expect a status, return the object."""
        answer = self.call(method, path, **options)
        assert answer.status_code == status, (method, path, answer.status_code, answer.text)
        return dict(answer.json())

    def refused(self, status: int, method: str, path: str, **options: Any) -> dict[str, Any]:
        """Send, expect an error, return its body."""
        return self.ok(method, path, status, **options)

    def name(self, prefix: str = "svc") -> str:
        """A name nobody has."""
        return f"{prefix}-{next(self._names)}"

    def create(self, **body: Any) -> dict[str, Any]:
        """A new service: the backend's image and a fresh name unless given."""
        body = {"image": self.backend.image, "name": self.name(), **body}
        return self.ok("POST", f"{V1}/service/", 201, json=body)

    def act(self, uuid: str, action: str, **options: Any) -> dict[str, Any]:
        return self.ok("POST", f"{V1}/service/{uuid}/{action}/", 202, **options)

    def get(self, uuid: str, kind: str = "service") -> dict[str, Any]:
        return self.ok("GET", f"{V1}/{kind}/{uuid}/")

    def wait(self, uuid: str, *states: str, kind: str = "service") -> dict[str, Any]:
        """Wait until an object is in one of these states."""
        last: dict[str, Any] = {}

        def arrived() -> bool:
            last.update(self.get(uuid, kind))
            return last["state"] in states

        until(arrived, f"{kind} {uuid} in {' or '.join(states)}")
        return last

    def run(self, **body: Any) -> dict[str, Any]:
        """A new service that is Running."""
        uuid = self.create(**body)["uuid"]
        self.act(uuid, "start")
        return self.wait(uuid, "Running")

    def run_until_it_writes(self, **body: Any) -> dict[str, Any]:
        """A new service that is Running, and whose containers have written a line each.

        A real container runs a moment before its first line can be read.
        """
        service = self.run(**body)

        def has_written() -> bool:
            return all(self.ok("GET", f"{path}logs/")["logs"] for path in service["containers"])

        until(has_written, f"the containers of {service['name']} have written")
        return service

    def end(self, *uuids: str) -> None:
        """Terminate services and wait for it."""
        for uuid in uuids:
            self.ok("DELETE", f"{V1}/service/{uuid}/", 202)
        for uuid in uuids:
            self.wait(uuid, "Terminated")

    def listed(self, path: str, **params: Any) -> list[dict[str, Any]]:
        """The objects of a list, first page."""
        return list(self.ok("GET", path, params=params)["objects"])


@pytest.fixture
def client(server: Server) -> Iterator[Client]:
    """The package's client of the module's server."""
    with Client(server.user, server.apikey, rest_host=server.url) as client:
        yield client


@pytest.fixture
def proxy(server: Server) -> Iterator[FaultProxy]:
    """Between a test's stack and the module's server; it sees every request."""
    with FaultProxy(server.url) as proxy:
        yield proxy
