"""In which networks containers are: the engine's default one until a link needs them in the server's."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import requests

from tests.support import images
from tests.support.docker_engine import DockerEngine
from tests.support.real import Real
from tests.support.server import Server
from tests.support.tools import until

pytestmark = [pytest.mark.docker]

PING = "echo PING | timeout 5 nc"
PORT = {"protocol": "tcp", "inner_port": 80, "published": True}


@pytest.fixture(scope="module")
def engine(docker_tools: None) -> Iterator[DockerEngine]:
    with DockerEngine() as engine:
        images.load(engine, images.busybox(), images.hello(), images.redis())
        yield engine


def networks(real: Real, service: dict[str, Any]) -> list[dict[str, str]]:
    """The networks of each container, with its address there. The server's is called `links`."""
    found = [c.attrs["NetworkSettings"]["Networks"] for c in real.inside(service)]
    return [
        {"links" if name.startswith("tutum-") else name: n["IPAddress"] for name, n in networks.items()}
        for networks in found
    ]


def begun(real: Real, service: dict[str, Any]) -> list[tuple[str, str]]:
    """The containers, and when they began: who has restarted is another."""
    return [(c.id, c.attrs["State"]["StartedAt"]) for c in real.inside(service)]


def link(target: dict[str, Any], name: str = "DB") -> list[dict[str, str]]:
    return [{"to_service": target["resource_uri"], "name": name}]


def servers_network(real: Real, service: dict[str, Any]) -> Any:
    label = {"label": f"io.tutum.server={real.one(service).labels['io.tutum.server']}"}
    return real.engines[0].networks.list(filters=label)


def test_without_links_a_container_is_in_the_default_network(real: Real) -> None:
    web = real.run("tutum/hello-world", container_ports=[PORT], healthcheck={"http": "/"})
    (found,) = networks(real, web)
    assert found.keys() == {"bridge"}
    (shown,) = real.containers(web)
    assert shown["private_ip"] == found["bridge"]
    assert "Hello world" in requests.get(shown["container_ports"][0]["endpoint_uri"], timeout=10).text


def test_targets_join_before_who_links_to_them_starts(real: Real) -> None:
    db = real.run("test/redis", target_num_containers=2)
    before = begun(real, db)
    asks = f"for name in DB db-1 DB-2; do {PING} $name 6379; done >/first; exec sleep 1000"
    client = real.run(run_command=f"sh -c '{asks}'", linked_to_service=link(db))
    until(lambda: real.sh(client, "cat /first") == "+PONG\r\n" * 3, "it finds them as soon as it starts")
    assert begun(real, db) == before
    assert [found.keys() for found in networks(real, db)] == [{"bridge", "links"}] * 2
    assert [found.keys() for found in networks(real, client)] == [{"links"}]
    shown = [c["private_ip"] for c in real.containers(db)]
    assert shown == [found["links"] for found in networks(real, db)]
    # Further containers of a service with links are made in the server's network.
    real.scale(db, 3)
    assert networks(real, db)[2].keys() == {"links"}
    assert real.sh(client, f"{PING} DB-3 6379") == "+PONG\r\n"
    real.redeploy(db)
    assert [found.keys() for found in networks(real, db)] == [{"links"}] * 3
    assert real.sh(client, f"{PING} DB 6379") == "+PONG\r\n"


def test_a_link_of_containers_that_run_lets_both_join(real: Real) -> None:
    db, client = real.run("test/redis"), real.run("tutum/hello-world", container_ports=[PORT])
    before = begun(real, db) + begun(real, client)
    real.patch(client, linked_to_service=link(db))
    until(lambda: real.sh(client, f"{PING} DB 6379") == "+PONG\r\n", "the link is there")
    assert begun(real, db) + begun(real, client) == before
    assert [found.keys() for found in networks(real, client)] == [{"bridge", "links"}]
    (port,) = real.containers(client)[0]["container_ports"]
    assert "Hello world" in requests.get(port["endpoint_uri"], timeout=10).text
    # A link that goes takes its name along; nobody leaves.
    real.patch(client, linked_to_service=[])
    until(lambda: "PONG" not in real.sh(client, f"{PING} DB 6379"), "the name is gone")
    assert begun(real, db) + begun(real, client) == before
    # So it is after a stop and a start.
    real.patch(client, linked_to_service=link(db, "store"))
    for service in (client, db):
        real.act(service, "stop")
        real.wait(service, "Stopped")
    for service in (client, db):
        real.start(service)
    until(lambda: real.sh(client, f"{PING} store 6379") == "+PONG\r\n", "the link is there again")


def test_a_target_that_is_stopped_joins_too(real: Real) -> None:
    db = real.run("test/redis")
    real.act(db, "stop")
    real.wait(db, "Stopped")
    client = real.run(linked_to_service=link(db))
    real.start(db)
    assert real.sh(client, f"{PING} DB 6379") == "+PONG\r\n"


def test_the_control_plane_is_killed_before_a_target_has_joined(real: Real) -> None:
    """As if: its container has left the network when the server is back."""
    db = real.run("test/redis")
    client = real.run(linked_to_service=link(db))
    (network,) = servers_network(real, db)
    real.act(client, "stop")
    real.wait(client, "Stopped")
    real.server.stop()
    network.disconnect(real.one(db).id)
    real.server.start()
    real.start(client)
    assert real.sh(client, f"{PING} DB 6379") == "+PONG\r\n"


def test_containers_of_the_release_before_go_on(real: Real) -> None:
    """Those are all in the server's network, and in no other."""
    db = real.run("test/redis", target_num_containers=2)
    (network,) = servers_network(real, db)
    real.server.stop()
    for n, container in enumerate(real.inside(db), 1):
        network.connect(container.id, aliases=[db["uuid"], f"{db['uuid']}-{n}"])
        real.engines[0].networks.get("bridge").disconnect(container.id)
    before, there = begun(real, db), networks(real, db)
    real.server.start()
    until(lambda: real.get(db["uuid"])["state"] == "Running", "it runs")
    assert [c["private_ip"] for c in real.containers(db)] == [found["links"] for found in there]
    client = real.run(linked_to_service=link(db))
    assert real.sh(client, f"{PING} DB-2 6379") == "+PONG\r\n"
    assert (begun(real, db), networks(real, db)) == (before, there)
    real.redeploy(db)
    assert real.sh(client, f"{PING} DB-2 6379") == "+PONG\r\n"


def test_the_servers_network_comes_back_while_containers_run(real: Real) -> None:
    """`docker system prune` spares no network without containers; but at its gateway the API is found."""
    service = real.run(roles=["global"])
    assert [found.keys() for found in networks(real, service)] == [{"bridge"}]
    assert len(real.engines[0].networks.prune()["NetworksDeleted"]) == 1
    until(lambda: servers_network(real, service), "the network is there again")
    asks = 'timeout 20 wget -qO- --header "Authorization: $TUTUM_AUTH" $TUTUM_SERVICE_API_URL'
    assert f'"uuid": "{service["uuid"]}"' in real.sh(service, asks)
    db = real.run("test/redis")
    client = real.run(linked_to_service=link(db))
    assert real.sh(client, f"{PING} DB 6379") == "+PONG\r\n"


def test_an_engine_without_a_default_network(docker_tools: None, tmp_path: Path) -> None:
    with DockerEngine(options=["--bridge=none"]) as engine:
        images.load(engine, images.busybox(), images.redis())
        with (
            Server(backend="docker", node=[engine.url], stop_seconds=1) as server,
            Real(server, engine.node_urls) as real,
        ):
            db = real.run("test/redis")
            assert [found.keys() for found in networks(real, db)] == [{"links"}]
            client = real.run(linked_to_service=link(db))
            assert real.sh(client, f"{PING} DB 6379") == "+PONG\r\n"
