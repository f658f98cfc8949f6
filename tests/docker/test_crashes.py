"""The server or the engine dies in the middle of something: it is carried on, nothing lost or made twice."""

from __future__ import annotations

import random
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.support import images
from tests.support.docker_engine import DockerEngine
from tests.support.real import V1, Real
from tests.support.server import Server
from tests.support.tools import until

pytestmark = [pytest.mark.docker]

Service = dict[str, Any]
BODY: Service = {
    "bindings": [{"container_path": "/data"}],
    "target_num_containers": 3,
    "autorestart": "ALWAYS",
}


def create(real: Real) -> Callable[[], Service]:
    def begin() -> Service:
        service = real.create(**BODY)
        real.act(service, "start")
        return service

    return begin


def redeploy(real: Real) -> Callable[[], Service]:
    service = real.run(**BODY)

    def begin() -> Service:
        real.act(service, "redeploy")
        return service

    return begin


def scale(real: Real) -> Callable[[], Service]:
    service = real.run(**{**BODY, "target_num_containers": 1})

    def begin() -> Service:
        real.patch(service, target_num_containers=3)
        real.act(service, "scale")
        return service

    return begin


def terminate(real: Real) -> Callable[[], Service]:
    service = real.run(**BODY)

    def begin() -> Service:
        real.ok("DELETE", f"{V1}/service/{service['uuid']}/")
        return service

    return begin


ACTIONS = {f.__name__: f for f in (create, redeploy, scale, terminate)}


@pytest.fixture(scope="module")
def engine(docker_tools: None) -> Iterator[DockerEngine]:
    with DockerEngine() as engine:
        images.load(engine, images.busybox())
        yield engine


def check(real: Real, action: str, service: Service) -> None:
    """What was begun came to its end, once."""
    if action == "terminate":
        real.wait(service, "Terminated")
        until(lambda: not real.left(), "nothing is left")
        return
    settled = real.wait(service, "Running")
    assert settled["running_num_containers"] == 3
    assert settled["synchronized"]
    shown = {c["uuid"]: c["name"] for c in real.containers(service)}

    def exactly_these() -> bool:
        there = real.engines[0].api.containers(all=True, filters={"label": "io.tutum.server"})
        return sorted(c["Labels"]["io.tutum.container"] for c in there) == sorted(shown)

    until(exactly_these, "the engine has the containers that the API shows, and no others")
    assert sorted(shown.values()) == [f"{settled['name']}-{n}" for n in (1, 2, 3)]
    assert {c.status for c in real.inside(service)} == {"running"}
    volumes = real.engines[0].volumes.list(filters={"label": "io.tutum.server"})
    mounted = [m["Name"] for c in real.inside(service) for m in c.attrs["Mounts"]]
    assert sorted(v.name for v in volumes) == sorted(mounted)
    assert len(real.engines[0].networks.list(filters={"label": "io.tutum.server"})) == 1


@pytest.mark.parametrize(
    ("action", "seconds"), [("create", 0.2), ("redeploy", 0.6), ("scale", 0.3), ("terminate", 0.1)]
)
def test_the_server_is_killed(real: Real, action: str, seconds: float) -> None:
    service = ACTIONS[action](real)()
    time.sleep(seconds)  # no condition is waited for: any moment must do
    real.server.restart(kill=True)
    check(real, action, service)


@pytest.mark.parametrize(
    ("action", "seconds"), [("create", 0.3), ("redeploy", 0.4), ("scale", 0.1), ("terminate", 0.2)]
)
def test_the_engine_is_killed(real: Real, engine: DockerEngine, action: str, seconds: float) -> None:
    service = ACTIONS[action](real)()
    time.sleep(seconds)
    engine.kill()
    engine.start()
    check(real, action, service)


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(6))
def test_any_of_them_is_killed_at_any_moment(real: Real, engine: DockerEngine, seed: int) -> None:
    chance = random.Random(seed)
    for action in ACTIONS:
        service = ACTIONS[action](real)()
        for _ in range(chance.randint(1, 3)):
            time.sleep(chance.uniform(0, 1.0))
            if chance.random() < 0.5:
                real.server.restart(kill=True)
            elif chance.random() < 0.5:
                engine.kill()
                engine.start()
            else:
                engine.kill()
                real.server.restart(kill=True)
                engine.start()
        check(real, action, service)
        real.terminate_all()


def test_what_was_stopped_stays_stopped_when_the_engine_is_restarted(
    real: Real, engine: DockerEngine
) -> None:
    running = real.run(autorestart="ALWAYS")
    # A container that ends by the signal has failed, as its engine sees it.
    stopped = {name: real.run(autorestart=name) for name in ("ALWAYS", "ON_FAILURE")}
    for service in stopped.values():
        real.act(service, "stop")
        real.wait(service, "Stopped")
    engine.stop()
    engine.start()
    real.wait(running, "Running")
    until(lambda: real.one(running).status == "running", "it is up again")
    for name, service in stopped.items():
        assert real.one(service).status == "exited"
        assert real.get(service["uuid"])["state"] == "Stopped"
        assert real.start(service)["state"] == "Running"
        policy = real.one(service).attrs["HostConfig"]["RestartPolicy"]["Name"]
        assert policy == name.lower().replace("_", "-")


def test_what_ended_while_its_engine_was_away_leaves_nothing(engine: DockerEngine) -> None:
    with (
        Server(backend="docker", node=[engine.url], stop_seconds=1, start_timeout=5) as server,
        Real(server, engine.node_urls) as real,
    ):
        service = real.run(bindings=[{"container_path": "/data"}])
        engine.kill()
        real.ok("DELETE", f"{V1}/service/{service['uuid']}/")
        real.wait(service, "Terminated")
        engine.start()
        until(lambda: not real.left(), "its container and its volume are gone")


def test_containers_and_volumes_that_nobody_knows_are_removed(real: Real) -> None:
    """As a crash between the engine's doing and the server's knowing leaves them."""
    service = real.run(**BODY)
    labels = dict(real.one(service).labels)
    engine = real.engines[0]
    network = next(iter(real.one(service).attrs["NetworkSettings"]["Networks"]))
    for uuid in ("11111111-1111-4111-8111-111111111111", "22222222-2222-4222-8222-222222222222"):
        labels["io.tutum.container"] = uuid
        volume = engine.volumes.create(f"left-{uuid}", labels={"io.tutum.server": labels["io.tutum.server"]})
        engine.containers.create(
            "test/busybox",
            labels=labels,
            network=network,
            volumes={volume.name: {"bind": "/data"}},
        )
    foreign = engine.volumes.create("foreign", labels={"io.tutum.server": "somebody-else"})
    until(lambda: len(real.inside(service)) == 3, "containers that appear while the server runs are removed")
    real.server.restart(kill=True)
    check_volumes = {"label": f"io.tutum.server={labels['io.tutum.server']}"}
    until(
        lambda: len(engine.volumes.list(filters=check_volumes)) == 3, "volumes that are left over are removed"
    )
    foreign.remove()
    check(real, "create", service)


def test_the_servers_network_comes_back_where_it_was(real: Real) -> None:
    """After `docker system prune`, which spares no network in which nothing runs."""
    service = real.run(roles=["global"])
    real.act(service, "stop")
    real.wait(service, "Stopped")
    engine = real.engines[0]
    assert len(engine.networks.prune()["NetworksDeleted"]) == 1
    started = real.start(service)
    assert started["state"] == "Running", real.why(service)
    asks = 'timeout 20 wget -qO- --header "Authorization: $TUTUM_AUTH" $TUTUM_SERVICE_API_URL'
    assert f'"uuid": "{service["uuid"]}"' in real.sh(service, asks)


def test_a_server_without_data_leaves_nothing(engine: DockerEngine) -> None:
    with (
        Server(backend="docker", node=[engine.url], stop_seconds=1) as server,
        Real(server, engine.node_urls) as real,
    ):
        mine = {"label": f"io.tutum.server={real.one(real.run(**BODY)).labels['io.tutum.server']}"}
        server.stop()
        assert real.left() == []
        assert real.engines[0].networks.list(filters=mine) == []


def test_a_server_with_data_keeps_what_runs(engine: DockerEngine, tmp_path: Path) -> None:
    with (
        Server(backend="docker", node=[engine.url], data=tmp_path / "data", stop_seconds=1) as server,
        Real(server, engine.node_urls) as real,
    ):
        service = real.run(**BODY)
        before = {c.id: c.attrs["State"]["StartedAt"] for c in real.inside(service)}
        server.restart()
        assert {c.id: c.attrs["State"]["StartedAt"] for c in real.inside(service)} == before
        assert real.get(service["uuid"])["state"] == "Running"
        mine = {"label": f"io.tutum.server={real.one(service).labels['io.tutum.server']}"}
        real.terminate_all()
        server.stop()
        assert real.engines[0].networks.list(filters=mine) == []
