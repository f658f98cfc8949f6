"""Several engines: tags and strategies place containers among them, and one may go away and come back."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.support import images
from tests.support.docker_engine import DockerEngine
from tests.support.real import V1, Real
from tests.support.server import Server, StartFailed
from tests.support.tools import until

pytestmark = [pytest.mark.docker]


@dataclass
class Pair:
    """Two engines under one server; `second` may be killed."""

    first: DockerEngine
    second: DockerEngine
    server: Server
    real: Real

    def states(self) -> dict[str, str]:
        nodes = self.real.ok("GET", f"{V1}/node/?limit=100")["objects"]
        return {n["nickname"]: n["state"] for n in nodes}

    def names(self, service: dict[str, object], engine: DockerEngine) -> list[str]:
        """The containers of a service on an engine, by name and ordinal."""
        with engine.client() as client:
            label: dict[str, str | list[str] | bool] = {"label": f"io.tutum.service={service['uuid']}"}
            return sorted(
                str(c.name).partition(".")[0]
                for c in client.containers.list(filters=label, ignore_removed=True)
            )


@pytest.fixture
def pair(engine: DockerEngine, tmp_path: Path) -> Iterator[Pair]:
    with DockerEngine() as second:
        images.load(second, images.busybox(), images.redis())
        nodes = [f"one={engine.url},front,ssd", f"two={second.url},back"]
        with (
            Server(backend="docker", node=nodes, data=tmp_path / "data", stop_seconds=1) as server,
            Real(server, [engine.url, second.url]) as real,
        ):
            yield Pair(engine, second, server, real)
            real.terminate_all()


def test_tags_and_strategies_place_containers(pair: Pair) -> None:
    real = pair.real
    assert pair.states() == {"one": "Deployed", "two": "Deployed"}
    front = real.run(name="front", tags=["front", "ssd"], target_num_containers=2)
    assert pair.names(front, pair.first) == ["front-1", "front-2"]
    assert pair.names(front, pair.second) == []
    spread = real.run(name="spread", target_num_containers=4, deployment_strategy="HIGH_AVAILABILITY")
    assert len(pair.names(spread, pair.first)) == len(pair.names(spread, pair.second)) == 2
    each = real.run(name="each", deployment_strategy="EVERY_NODE")
    assert len(pair.names(each, pair.first)) == len(pair.names(each, pair.second)) == 1
    empty = real.run(name="empty", deployment_strategy="EMPTIEST_NODE")
    assert pair.names(empty, pair.second) == ["empty-1"]
    nowhere = real.create(tags=["moon"])
    assert real.start(nowhere)["state"] == "Not running"
    assert "moon" in real.why(nowhere)


def test_an_engine_goes_away_and_comes_back(pair: Pair) -> None:
    real = pair.real
    kept = real.run(name="kept", tags=["back"], bindings=[{"container_path": "/data"}], autorestart="ALWAYS")
    real.sh(kept, "echo precious >/data/it")
    pair.second.kill()
    until(lambda: pair.states() == {"one": "Deployed", "two": "Unreachable"}, "the node is unreachable")
    # The server knows it after its own restart too, and does not take the containers for gone.
    pair.server.restart(kill=True)
    assert pair.states() == {"one": "Deployed", "two": "Unreachable"}
    assert [c["name"] for c in real.containers(kept)] == ["kept-1"]
    other = real.run(name="other", target_num_containers=2)
    assert pair.names(other, pair.first) == ["other-1", "other-2"]
    pair.second.start()
    until(lambda: pair.states() == {"one": "Deployed", "two": "Deployed"}, "the node is back")
    real.wait(kept, "Running")
    assert real.sh(kept, "cat /data/it") == "precious\n"


def test_a_server_needs_an_engine_at_its_first_start(docker_tools: None) -> None:
    with pytest.raises(
        StartFailed, match=r"cannot reach the Docker Engine at unix:///no/such\.sock: No such file"
    ):
        Server(backend="docker", node=["unix:///no/such.sock"])
    with pytest.raises(StartFailed, match=r"--node http://x: give \[NAME=\]URL"):
        Server(backend="docker", node=["http://x"])
