"""The Docker and swarm backends beside the `docker` command itself, on engines that are made for this."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from pulumi_tutum import Client
from tests.support import images
from tests.support.docker_engine import DockerEngine
from tests.support.engine import ENGINE
from tests.support.server import Server
from tests.support.swarm import SwarmCluster

from .deploys import DECLARED, ROOT, SERVICES, noops, program, project, pulumi
from .engines import (
    IMAGE,
    clear,
    client_of,
    created,
    docker_command,
    remove_containers,
    require_engine,
    until,
)
from .measure import Line, Missing, Row, Run, Skipped, by_turns, ratio, seconds
from .peer_plugin import NAME, install_sdk, plugin

#: DECLARED, for `docker run` and `docker service create`.
_ENVIRONMENT = [word for k, v in DECLARED["container_envvars"].items() for word in ("--env", f"{k}={v}")]
_RUN = ["--publish", "127.0.0.1::80", "--restart", "on-failure", *_ENVIRONMENT]
_SERVICE = ["--publish", "mode=host,target=80", "--restart-condition", "on-failure", *_ENVIRONMENT]


# -- one engine ------------------------------------------------------------------------------------


def docker(run: Run) -> Iterator[Line]:
    """Creates from the client and from `pulumi up` / `docker run -d`."""
    require_engine()
    with DockerEngine() as engine:
        images.load(engine, images.hello())
        with (
            Server(backend="docker", node=[engine.url], log_level="warning") as server,
            client_of(server) as client,
        ):

            def containers(count: int) -> float:
                took = seconds(lambda: created(client, target_num_containers=count))
                clear(client)
                return took

            def docker_run(count: int, at_once: int = 1, words: Sequence[str] = ()) -> float:
                def one(_: int) -> None:
                    docker_command(engine.url, "run", "--detach", *words, IMAGE)

                with ThreadPoolExecutor(at_once) as pool:
                    took = seconds(lambda: list(pool.map(one, range(count))))
                remove_containers(engine.url)
                return took

            containers(1), docker_run(1)  # leave caches warm
            samples = by_turns(run, lambda: containers(1), lambda: docker_run(1))
            yield ratio(
                "docker", "create of one service until it runs / docker run -d", "s", samples, goal=1.3
            )
            count = 20
            samples = by_turns(run, lambda: containers(count), lambda: docker_run(count))
            what = f"service of {count} containers / {count} docker run -d, one after another"
            yield ratio("docker", what, "s", samples, goal=0.6)
            samples = by_turns(
                run,
                lambda: _up(run, server, client, count),
                lambda: docker_run(count, 8, _RUN) + _up_noops(run, count),
            )
            what = f"up of {count} services / {count} docker run -d, eight at a time + up of {count} no-ops"
            yield ratio("docker", what, "s", samples, goal=1.05)
            samples = by_turns(run, lambda: _up(run, server, client, 1), lambda: _up_noops(run, 1))
            yield ratio("docker", "up of one service / of one no-op", "s", samples, goal=1.2)


def _up(run: Run, server: Server, client: Client, count: int) -> float:
    """`pulumi up` of new services, until all of them run."""
    with project(run, SERVICES, count, server.environment) as made:
        took = seconds(lambda: pulumi(made, "up", "--yes", "--skip-preview"))
        if {s["state"] for s in client.list_services() if s["state"] != "Terminated"} != {"Running"}:
            raise RuntimeError("not all services run")
        clear(client)
    return took


def _up_noops(run: Run, count: int) -> float:
    with noops(run, count) as made:
        return seconds(lambda: pulumi(made, "up", "--yes", "--skip-preview"))


# -- one engine, and others that run containers for a Pulumi program -------------------------------

#: DECLARED, for a container of pulumi-docker, and of docker-py (dockerpy.py).
_VARIABLES = [f"{k}={v}" for k, v in DECLARED["container_envvars"].items()]
_PULUMI_DOCKER = {
    "image": IMAGE,
    "ports": [{"internal": 80, "ip": "127.0.0.1"}],
    "envs": _VARIABLES,
    "restart": "on-failure",
}
_DOCKER_PY = {"image": IMAGE, "ports": ["80"], "env": _VARIABLES, "restart": "on-failure"}
_STAND_IN = "a dynamic provider that only runs docker-py"

#: A service of pulumi-docker on a swarm, which says "created" when its containers run.
_PULUMI_SERVICE = {
    "task_spec": {
        "container_spec": {"image": IMAGE, "env": DECLARED["container_envvars"]},
        "restart_policy": {"condition": "on-failure"},
    },
    "endpoint_spec": {"mode": "dnsrr", "ports": [{"target_port": 80, "publish_mode": "host"}]},
    "converge_config": {},
}


@dataclass(frozen=True)
class _Goals:
    """The highest ratios to pulumi-docker that are wanted. None means that there is no goal."""

    up: float | None = None
    destroy: float | None = None


#: Number of containers on one engine, and the goals.
_ON_ONE_ENGINE = {1: _Goals(up=0.95), 20: _Goals(up=0.75, destroy=0.9)}
_KILLS = "the peer kills at once, ours lets a container end"


@dataclass(frozen=True)
class _Contestant:
    """A program, and what it is run with.

    Attributes:
        settles: whether a preview after an `up` shows no change, and a `destroy` waits for the containers.
    """

    program: str
    declared: dict[str, Any]
    environment: dict[str, str]
    settles: bool = True


@dataclass(frozen=True)
class _PulumiDocker:
    """pulumi-docker, ready to be run."""

    what: str
    environment: dict[str, str]

    def contestant(
        self, resource: str, declared: dict[str, Any], url: str, *, settles: bool = True
    ) -> _Contestant:
        environment = {**self.environment, "DOCKER_HOST": url}
        of_resource = program("import pulumi_docker", f"pulumi_docker.{resource}")
        return _Contestant(of_resource, declared, environment, settles)


def peer(run: Run) -> Iterator[Line]:
    """Our services / containers and services of pulumi-docker, and of a provider that does the least."""
    require_engine()
    try:
        pulumi_docker = _pulumi_docker(run)
    except Missing as problem:
        yield Skipped("peer", "up, preview and destroy / pulumi-docker's", str(problem))
        pulumi_docker = None
    yield from _peer_on_docker(run, pulumi_docker)
    if pulumi_docker:
        yield from _peer_on_swarm(run, pulumi_docker)


def _pulumi_docker(run: Run) -> _PulumiDocker:
    found = plugin(run.plugin)
    sdk = run.folder / "sdk"
    install_sdk(sdk)
    # Pulumi looks on PATH for plugins. Its folder may hold other programs, which nobody is to find.
    folder = run.folder / "plugin"
    folder.mkdir()
    (folder / NAME).symlink_to(found.path)
    path = os.pathsep.join([str(Path(sys.executable).parent), str(ENGINE), str(folder), os.environ["PATH"]])
    return _PulumiDocker(found.what, {"PATH": path, "PYTHONPATH": os.pathsep.join([str(ROOT), str(sdk)])})


def _peer_on_docker(run: Run, pulumi_docker: _PulumiDocker | None) -> Iterator[Line]:
    with DockerEngine() as engine:
        images.load(engine, images.hello())
        data = run.folder / "peer-docker"
        with Server(backend="docker", node=[engine.url], data=data, log_level="warning") as server:
            ours = _Contestant(SERVICES, DECLARED, server.environment)
            stand_in = program("from bench.dockerpy import Container", "Container")
            host = {"DOCKER_HOST": engine.url}
            for count, goals in _ON_ONE_ENGINE.items():
                contest = _Contest(run, [engine.url], count)
                if pulumi_docker:
                    theirs = pulumi_docker.contestant("Container", _PULUMI_DOCKER, engine.url)
                    yield from contest.lines(ours, theirs, pulumi_docker.what, goals, note=_KILLS)
                # The stand-in has no goals: it does less than any provider in use.
                theirs = _Contestant(stand_in, _DOCKER_PY, host)
                yield from contest.lines(ours, theirs, _STAND_IN, _Goals(), note=_KILLS)


def _peer_on_swarm(run: Run, pulumi_docker: _PulumiDocker) -> Iterator[Line]:
    with SwarmCluster(3) as cluster:
        images.load(cluster, images.hello())
        url = cluster.node_urls[0]
        data = run.folder / "peer-swarm"
        with Server(backend="swarm", node=[url], data=data, log_level="warning") as server:
            ours = _Contestant(SERVICES, DECLARED, server.environment)
            # Its preview calls what the swarm has added to the task a change. Its destroy does not wait.
            theirs = pulumi_docker.contestant("Service", _PULUMI_SERVICE, url, settles=False)
            what = f"{pulumi_docker.what}, on a swarm, until it has converged"
            contest = _Contest(run, cluster.node_urls, 10)
            note = "the peer does not wait until the containers have ended"
            yield from contest.lines(ours, theirs, what, _Goals(up=0.3), note)


@dataclass(frozen=True)
class _Contest:
    """Two programs that run by turns on the same engines, with the same number of containers."""

    run: Run
    urls: list[str]
    count: int

    def lines(
        self, ours: _Contestant, theirs: _Contestant, who: str, goals: _Goals, note: str = ""
    ) -> Iterator[Line]:
        """The ratios of `up`, of a preview of the same and of `destroy`.

        Args:
            who: what the peer is, for the table.
            note: a remark about `destroy`.
        """
        self._cycle(ours), self._cycle(theirs)  # leave caches warm
        mine, peers = by_turns(self.run, lambda: self._cycle(ours), lambda: self._cycle(theirs))
        kinds = (
            ("up", goals.up, ""),
            ("preview without a change", None, ""),
            ("destroy", goals.destroy, note),
        )
        for number, (what, goal, remark) in enumerate(kinds):
            samples = [cycle[number] for cycle in mine], [cycle[number] for cycle in peers]
            what = f"{what} of {self.count} / of {self.count} with {who}"
            yield ratio("peer", what, "s", samples, goal=goal, note=remark)

    def _cycle(self, contestant: _Contestant) -> tuple[float, float, float]:
        """Seconds of an `up` until all containers run, of a preview of the same, and of the `destroy`."""
        count = self.count
        with project(
            self.run, contestant.program, count, contestant.environment, contestant.declared
        ) as made:
            up = seconds(lambda: pulumi(made, "up", "--yes", "--skip-preview"))
            if (running := self._containers()) != count:
                raise RuntimeError(f"{running} containers run, not {count}")
            expected = ["--expect-no-changes"] if contestant.settles else []
            preview = seconds(lambda: pulumi(made, "preview", *expected))
            destroy = seconds(lambda: pulumi(made, "destroy", "--yes", "--skip-preview"))
            # A node of a swarm removes an ended container a moment later.
            left = ["--all"] if len(self.urls) == 1 else []
            if contestant.settles and self._containers(*left):
                raise RuntimeError("containers are left")
            until(lambda: not self._containers("--all"), "the containers to go")
        return up, preview, destroy

    def _containers(self, *words: str) -> int:
        """The number of containers that run, or with `--all` of all containers."""
        return sum(len(docker_command(url, "ps", "--quiet", *words).split()) for url in self.urls)


# -- a swarm ---------------------------------------------------------------------------------------


def swarm(run: Run) -> Iterator[Line]:
    """Creates from the client and from `pulumi up` / `docker service create`, on three nodes."""
    require_engine()
    with SwarmCluster(3) as cluster:
        # By its id, nobody asks a registry for it.
        (image,) = images.load(cluster, images.hello())
        url = cluster.node_urls[0]
        with (
            Server(backend="swarm", node=[url], log_level="warning") as server,
            client_of(server) as client,
            cluster.daemons[0].client() as engine,
        ):
            create = ["service", "create", "--quiet", "--no-resolve-image", "--endpoint-mode", "dnsrr"]

            def service() -> float:
                took = seconds(lambda: created(client))
                clear(client)
                return took

            def service_create() -> float:
                took = seconds(lambda: docker_command(url, *create, "--detach=false", image))
                remove()
                return took

            def detached(count: int) -> float:
                def running() -> bool:
                    tasks: Any = engine.api.tasks
                    states = [task["Status"]["State"] for task in tasks()]
                    return states.count("running") == count

                began = time.perf_counter()
                for _ in range(count):
                    docker_command(url, *create, "--detach", *_SERVICE, image)
                until(running, "the containers to run")
                took = time.perf_counter() - began
                remove()
                return took

            def remove() -> None:
                docker_command(url, "service", "rm", *docker_command(url, "service", "ls", "--quiet").split())
                for node in cluster.node_urls:
                    until(partial(_idle, node), "the containers to go")

            service(), service_create()  # leave caches warm
            samples = by_turns(run, service, service_create)
            what = "create of one service until it runs / docker service create --detach=false"
            yield ratio("swarm", what, "s", samples, goal=0.5)
            count = 10
            samples = by_turns(
                run,
                lambda: _up(run, server, client, count),
                lambda: detached(count) + _up_noops(run, count),
            )
            what = (
                f"up of {count} services / {count} docker service create --detach until they run "
                f"+ up of {count} no-ops"
            )
            yield ratio("swarm", what, "s", samples, goal=1.1)


def _idle(url: str) -> bool:
    return not docker_command(url, "ps", "--quiet")


# -- a swarm that loses a node ---------------------------------------------------------------------

#: How many containers a service has, one on each node.
_NODES = 3


def healing(run: Run) -> Iterator[Line]:
    """A node dies, or is drained, that has a container of ours and one of `docker service create`."""
    require_engine()
    with SwarmCluster(_NODES) as cluster:
        (image,) = images.load(cluster, images.hello())
        data = run.folder / "healing"
        # A grace that does not end: what is replaced has been replaced by the swarm.
        options: dict[str, Any] = {"node": cluster.node_urls[:1], "data": data, "node_grace": 3600}
        with Server(backend="swarm", log_level="warning", **options) as server, client_of(server) as client:
            for what, loss in (
                ("its node dies", partial(_kill, cluster)),
                ("its node dies, without a control plane", partial(_kill_both, cluster, server)),
                ("its node is drained", partial(_drain, cluster)),
            ):
                samples: tuple[list[float], list[float]] = ([], [])
                for _ in range(run.times):
                    ours, peer = _replaced(cluster, server, client, image, loss)
                    samples[0].append(ours)
                    samples[1].append(peer)
                what = f"a container runs again after {what} / the peer's, of docker service create"
                yield ratio("healing", what, "s", samples, goal=1.2, note="of the same loss")


def _replaced(
    cluster: SwarmCluster,
    server: Server,
    client: Client,
    image: str,
    loss: Callable[[], Callable[[], None]],
) -> tuple[float, float]:
    """Seconds until what ran on the last node runs on another one: ours, and the peer's.

    Args:
        loss: loses the last node, and returns what brings it back.
    """
    spread = {"target_num_containers": _NODES, "deployment_strategy": "HIGH_AVAILABILITY"}
    uuid = created(client, **spread)
    url, left = cluster.node_urls[0], cluster.node_urls[:-1]
    create = ["service", "create", "--quiet", "--no-resolve-image", "--endpoint-mode", "dnsrr"]
    peer = docker_command(url, *create, "--detach=false", f"--replicas={_NODES}", image).strip()
    labels = (f"io.tutum.service={uuid}", f"com.docker.swarm.service.id={peer}")

    def count(label: str) -> int:
        """How many containers with a label run on the other nodes."""
        filters = ["--quiet", f"--filter=label={label}"]
        return sum(len(docker_command(node, "ps", *filters).split()) for node in left)

    until(lambda: all(count(label) == _NODES - 1 for label in labels), "a container on each node")
    until(lambda: not _bound(url, uuid), "the swarm to be free to move ours")
    began = time.perf_counter()
    restore = loss()
    took: dict[str, float] = {}

    def replaced() -> bool:
        for label in labels:
            if label not in took and count(label) == _NODES:
                took[label] = time.perf_counter() - began
        return len(took) == len(labels)

    until(replaced, "the containers to be replaced")
    restore()
    clear(client)
    docker_command(url, "service", "rm", peer)
    for node in cluster.node_urls:
        until(partial(_idle, node), "the containers to go")
    return took[labels[0]], took[labels[1]]


def _bound(url: str, uuid: str) -> bool:
    """Whether a container of a service may run on one node only."""
    found = docker_command(url, "service", "ls", "--quiet", f"--filter=label=io.tutum.service={uuid}").split()
    placement = "{{.Spec.TaskTemplate.Placement}}"
    return "node.id" in docker_command(url, "service", "inspect", f"--format={placement}", *found)


def _kill(cluster: SwarmCluster) -> Callable[[], None]:
    cluster.kill_node(_NODES - 1)
    return partial(cluster.start_node, _NODES - 1)


def _kill_both(cluster: SwarmCluster, server: Server) -> Callable[[], None]:
    server.kill()
    cluster.kill_node(_NODES - 1)

    def restore() -> None:
        cluster.start_node(_NODES - 1)
        server.start()

    return restore


def _drain(cluster: SwarmCluster) -> Callable[[], None]:
    def update(availability: str) -> None:
        node = cluster.daemons[-1].name
        docker_command(cluster.node_urls[0], "node", "update", f"--availability={availability}", node)

    update("drain")
    return partial(update, "active")


# -- logs ------------------------------------------------------------------------------------------

_WRITERS = 16
#: Seconds until all the containers' streams are open behind a connection that is.
_SETTLE = 2.0
#: Waits for the file of its round, then writes so many lines, numbered over all rounds.
_WRITE = """sh -c '
i=1 last=0
while true; do
    until [ -e /gate/$i ]; do sleep 0.1; done
    next=$((last + $(cat /gate/$i)))
    awk "BEGIN { for (n = $last + 1; n <= $next; n++) print n, \\"as long as many a line: GET / 200 OK\\" }"
    i=$((i + 1)) last=$next
done'
"""


def logs(run: Run) -> Iterator[Line]:
    """Log lines a second of 16 containers through one websocket / what docker-py reads of the same ones."""
    require_engine()
    lines = run.scaled(20_000) * _WRITERS
    gate = run.folder / "gate"
    gate.mkdir()
    rounds: list[int] = []

    def write(count: int) -> None:
        """Have each container write so many lines."""
        rounds.append(count)
        ready = gate / "next"
        ready.write_text(str(count))
        ready.rename(gate / str(len(rounds)))

    with DockerEngine() as engine:
        images.load(engine, images.busybox())
        options: dict[str, Any] = {"node": [engine.url], "allow": f"host-path={gate}", "stop_seconds": 1}
        with (
            Server(backend="docker", log_level="warning", **options) as server,
            client_of(server) as client,
        ):
            uuid = created(
                client,
                image="test/busybox",
                run_command=_WRITE,
                target_num_containers=_WRITERS,
                bindings=[{"host_path": str(gate), "container_path": "/gate", "rewritable": False}],
            )
            stream = f"{server.stream_url}/v1/service/{uuid}/logs/"
            ours = ["websocket", f"{stream}?tail=0", server.headers["Authorization"]]
            label = f"io.tutum.service={uuid}"
            peer = ["docker", engine.url, label]

            def live(reader: Sequence[str]) -> float:
                with _reader(*reader, str(lines)) as process:
                    time.sleep(_SETTLE)
                    write(lines // _WRITERS)
                    return lines / _seconds(process)

            samples = by_turns(run, lambda: live(ours), lambda: live(peer))
            what = f"lines of {_WRITERS} containers through a websocket, while written / through docker-py"
            yield ratio("logs", what, "a second", samples, goal=0.5, at_least=True, note="nothing lost")

            before = server.resident_bytes()
            most = 0
            many = run.scaled(40_000)
            with _reader(*ours, "--wait", str(many * _WRITERS)) as process:
                time.sleep(_SETTLE)
                write(many)
                with engine.client() as api:
                    found: Any = {"label": label}
                    writers: list[Any] = api.containers.list(filters=found)

                    def all_written() -> bool:
                        nonlocal most
                        most = max(most, server.resident_bytes())
                        return all(w.logs(tail=1).startswith(b"%d " % sum(rounds)) for w in writers)

                    until(all_written, "the lines to be written")
                print(file=process.stdin, flush=True)
                _seconds(process)
            what = "resident memory of the server while a reader does not read / before"
            note = f"{many * _WRITERS * 100 / 2**20:.0f} MB of frames wait; all are read later"
            yield Row("logs", what, "MB", most / 2**20, before / 2**20, goal=1.1, note=note)


@contextmanager
def _reader(*arguments: str) -> Iterator[subprocess.Popen[str]]:
    """A reader (lines.py) that is connected."""
    process = subprocess.Popen(
        [sys.executable, "-m", "bench.lines", *arguments],
        cwd=ROOT,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    try:
        assert process.stdout is not None
        if process.stdout.readline() != "ready\n":
            raise RuntimeError("a reader of logs could not begin")
        yield process
    finally:
        process.kill()
        process.communicate()


def _seconds(process: subprocess.Popen[str]) -> float:
    """How long the reader needed for all its lines."""
    assert process.stdout is not None
    if not (line := process.stdout.readline()):
        raise RuntimeError("a reader of logs lost lines")
    return float(line)
