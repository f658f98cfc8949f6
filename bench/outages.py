"""How long a service of one container with a fixed port does not answer while it is redeployed."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from typing import Any

import requests

from tests.support import images
from tests.support.docker_engine import DockerEngine
from tests.support.server import Server
from tests.support.swarm import SwarmCluster

from .engines import IMAGE, client_of, created, docker_command, require_engine, until
from .measure import Line, Run, by_turns, ratio

_PORT, _PEERS_PORT = 18080, 18081
_PAUSE = 0.005
_DEADLINE = 60.0


def outages(run: Run) -> Iterator[Line]:
    """Seconds without an answer during a redeploy / during the same by Docker's own commands."""
    require_engine()
    with DockerEngine() as engine:
        images.load(engine, images.hello())
        address = "127.0.0.1"

        def run_it() -> None:
            publish = f"--publish={address}:{_PEERS_PORT}:80"
            docker_command(engine.url, "run", "--detach", "--init", "--name=peer", publish, IMAGE)

        def replace_it() -> None:
            docker_command(engine.url, "stop", "peer")
            docker_command(engine.url, "rm", "peer")
            run_it()

        run_it()
        with Server(backend="docker", node=[engine.url], log_level="warning") as server:
            ours = _redeployed(server, address)
            peer = _without_answer(f"http://{address}:{_PEERS_PORT}/", replace_it)
            what = "a redeployed service of one container does not answer / docker stop, rm and run"
            yield ratio("outages", what, "s", by_turns(run, ours, peer))
    with SwarmCluster(1) as cluster:
        (image,) = images.load(cluster, images.hello())
        url, address = cluster.node_urls[0], cluster.addresses[0]
        publish = f"--publish=mode=host,published={_PEERS_PORT},target=80"
        create = ["service", "create", "--quiet", "--no-resolve-image", "--endpoint-mode=dnsrr", "--init"]
        docker_command(url, *create, "--detach=false", "--name=peer", publish, image)
        with Server(backend="swarm", node=[url], log_level="warning") as server:
            ours = _redeployed(server, address)
            update = ["service", "update", "--force", "--detach", "--quiet", "--no-resolve-image", "peer"]
            peer = _without_answer(f"http://{address}:{_PEERS_PORT}/", lambda: docker_command(url, *update))
            what = "the same on a swarm / docker service update --force"
            yield ratio("outages", what, "s", by_turns(run, ours, peer))


def _redeployed(server: Server, address: str) -> Callable[[], float]:
    """Redeploys a service; how long it did not answer."""
    client = client_of(server)
    port = {"protocol": "tcp", "inner_port": 80, "outer_port": _PORT, "published": True}
    uuid = created(client, container_ports=[port])

    def redeploy() -> None:
        client.redeploy_service(uuid)
        until(lambda: client.get_service(uuid)["state"] == "Running", "the end of a redeploy")

    return _without_answer(f"http://{address}:{_PORT}/", redeploy)


def _without_answer(url: str, replace: Callable[[], Any]) -> Callable[[], float]:
    """Does something to what answers at a URL; how long it did not answer."""

    def measure() -> float:
        watch = _Watch(url)
        watch.start()
        watch.reach(watch.answers)
        replace()
        watch.reach(watch.ended)
        return watch.seconds

    return measure


class _Watch(threading.Thread):
    """Asks a URL again and again until it has stopped answering and answers again."""

    def __init__(self, url: str) -> None:
        super().__init__(daemon=True)
        self.url = url
        self.answers, self.ended = threading.Event(), threading.Event()
        self.seconds = 0.0

    def reach(self, event: threading.Event) -> None:
        if not event.wait(_DEADLINE):
            raise RuntimeError(f"waited in vain for {self.url}")

    def run(self) -> None:
        while not self._answered():
            time.sleep(_PAUSE)
        self.answers.set()
        # From the last answer to the next one: so much may be lost.
        last = time.perf_counter()
        while self._answered():
            last = time.perf_counter()
            time.sleep(_PAUSE)
        while not self._answered():
            time.sleep(_PAUSE)
        self.seconds = time.perf_counter() - last
        self.ended.set()

    def _answered(self) -> bool:
        try:
            return requests.get(self.url, timeout=(0.2, 1)).ok
        except requests.RequestException:
            return False
