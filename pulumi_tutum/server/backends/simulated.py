"""Containers that exist in memory only: for trying things out, for examples and for tests of failure.

Time is the control plane's clock. A container runs `container_start_seconds` after it was started (0: at
once). Nodes are `node-1`, `node-2`, ... or have the names and tags they are given, and can be added and
removed while it runs.

Containers misbehave when they are told to, by an image of the repository `simulated/...` or by environment
variables (of the service, as they reach the container); variables win.

  image                    variable                     what happens
  simulated/exit:<code>    SIMULATE_EXIT=<code>         it exits with that code, 1 s after it runs
                           SIMULATE_EXIT_AFTER=<s>      ... that many seconds after it runs (0: at once)
  simulated/crash:<n>      SIMULATE_CRASHES=<n>         it crashes (exit code 1) n times, then stays up; its
                                                        restart policy is what brings it back
  simulated/hang           SIMULATE_HANG=1              it is started and never runs
  simulated/unstartable    SIMULATE_START_ERROR=<text>  the start fails with that text
  simulated/missing        -                            there is no such image; so with any tag `missing`
  simulated/slow:<s>       SIMULATE_START_SECONDS=<s>   it needs that many seconds to run
  simulated/slow-stop:<s>  SIMULATE_STOP_SECONDS=<s>    it needs that many seconds to stop
  simulated/unhealthy      SIMULATE_UNHEALTHY=1         its health check, if there is one, fails
  simulated/checked:<s>    SIMULATE_HEALTHY_AFTER=<s>   its health check passes s seconds after it runs;
                                                        without one of its service it has one, the HEALTHCHECK
                                                        of its image
  simulated/chatty:<n>     SIMULATE_LOG_LINES=<n>       it writes n lines when it runs

`SIMULATE_ONLY=<ordinals>` (comma-separated) limits all of these to those containers of the service.

An empty variable counts as not given. A container with a value that makes no sense does not start: the error
of the start names the variable or the image, and says what is allowed.

A container writes `Started <name> from <image>` when it runs and `Exited with code <n>` (stderr) when it
exits. Exec knows `echo`, `env`, `hostname`, `exit <n>`, `cat` and `sh -c <one of these>`; anything else is
answered by exit code 127.
"""

from __future__ import annotations

import asyncio
import dataclasses
import math
import re
import shlex
from collections import deque
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Collection, Mapping, Sequence
from typing import Any, ClassVar

from ...errors import BackendError, Problem
from ..clock import Clock, LoopClock, Timer, sleep
from ..model import uuid_for
from . import (
    CREATED,
    EXITED,
    GONE,
    RESTARTING,
    RUNNING,
    WAITING,
    BackendNode,
    ContainerSpec,
    ExecSession,
    ImageInfo,
    LinkSpec,
    LogLine,
    Observed,
    Watcher,
    waits_for,
)
from .probes import command_failure, hidden_values, http_failure

#: What some well-known images bring along, by the last part of their repository.
IMAGES: dict[str, ImageInfo] = {
    "hello-world": ImageInfo("", ports=(("tcp", 80),), run_command="/run.sh"),
    "mysql": ImageInfo(
        "",
        environment={"MYSQL_USER": "admin", "MYSQL_PASS": "**Random**"},
        ports=(("tcp", 3306),),
        volumes=("/var/lib/mysql",),
        run_command="/run.sh",
    ),
    "mariadb": ImageInfo("", ports=(("tcp", 3306),), volumes=("/var/lib/mysql",), run_command="mysqld"),
    "redis": ImageInfo("", ports=(("tcp", 6379),), volumes=("/data",), run_command="redis-server"),
    "postgres": ImageInfo(
        "", ports=(("tcp", 5432),), volumes=("/var/lib/postgresql/data",), run_command="postgres"
    ),
    "mongo": ImageInfo("", ports=(("tcp", 27017),), volumes=("/data/db",), run_command="mongod"),
    "wordpress": ImageInfo(
        "", ports=(("tcp", 80),), volumes=("/var/www/html",), run_command="apache2-foreground"
    ),
    "wordpress-stackable": ImageInfo(
        "",
        environment={
            "DB_HOST": "**LinkMe**",
            "DB_NAME": "wordpress",
            "DB_PASS": "**ChangeMe**",
            "DB_PORT": "**LinkMe**",
            "DB_USER": "admin",
            "DEBIAN_FRONTEND": "noninteractive",
        },
        ports=(("tcp", 80),),
        run_command="/run-wordpress.sh",
    ),
    "nginx": ImageInfo("", ports=(("tcp", 80), ("tcp", 443)), run_command="nginx -g 'daemon off;'"),
    "alpine": ImageInfo("", run_command="/bin/sh"),
    "busybox": ImageInfo("", run_command="sh"),
    "haproxy": ImageInfo("", ports=(("tcp", 80), ("tcp", 443), ("tcp", 1936)), run_command="/run.sh"),
}
_COMMON = {"HOME": "/", "PATH": "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"}
#: Seconds until a container that its restart policy brings back runs again: doubled each time, as the engine
#: does.
_BACK_OFF, _BACK_OFF_MAX = 0.1, 60.0
_KEPT_LINES = 2000


def image_info(image: str) -> ImageInfo:
    """What a simulated image brings; of one that is not in the table, only PATH and HOME are known."""
    last = re.split(r"[:@]", image.rsplit("/", 1)[-1])[0]
    known = IMAGES.get(last, ImageInfo("", ports_known=False))
    return dataclasses.replace(known, id=f"sim-{image}", environment={**_COMMON, **known.environment})


@dataclasses.dataclass(frozen=True)
class Behaviour:
    """What a container does; see the module's docstring."""

    start_seconds: float | None = None
    stop_seconds: float = 0.0
    exit_code: int | None = None
    exit_after: float = 1.0
    crashes: int = 0
    hang: bool = False
    start_error: str = ""
    unhealthy: bool = False
    image_check: bool = False
    healthy_after: float = 0.0
    log_lines: int = 0


def behaviour(spec: ContainerSpec) -> Behaviour:
    """How a container with this image and environment behaves; one with a wrong value does not start."""
    try:
        return _behaviour(spec)
    except _Wrong as wrong:
        return Behaviour(start_error=str(wrong))


def _behaviour(spec: ContainerSpec) -> Behaviour:
    told = _Told(spec)
    if not told.concerns(spec.ordinal):
        return Behaviour()
    exit_after = told.seconds("SIMULATE_EXIT_AFTER")
    healthy_after = told.seconds("SIMULATE_HEALTHY_AFTER", "checked")
    refusal = "the entrypoint could not be executed" if told.image == "unstartable" else ""
    return Behaviour(
        start_seconds=told.seconds("SIMULATE_START_SECONDS", "slow"),
        stop_seconds=told.seconds("SIMULATE_STOP_SECONDS", "slow-stop") or 0.0,
        exit_code=told.whole("SIMULATE_EXIT", "exit", 255),
        exit_after=1.0 if exit_after is None else exit_after,
        crashes=told.whole("SIMULATE_CRASHES", "crash", _MOST) or 0,
        hang=told.flag("SIMULATE_HANG", "hang"),
        start_error=told.variables.get("SIMULATE_START_ERROR") or refusal,
        unhealthy=told.flag("SIMULATE_UNHEALTHY", "unhealthy"),
        image_check=healthy_after is not None,
        healthy_after=healthy_after or 0.0,
        log_lines=told.whole("SIMULATE_LOG_LINES", "chatty", _MOST) or 0,
    )


class _Wrong(Exception):
    """An image or a variable has a value that makes no sense; the text says which, and what is allowed."""


class _Told:
    """What a container is told to do, by its image and its variables.

    Attributes:
        image: the last part of `simulated/...`, "" for any other image.
        argument: the image's tag, "" without.
    """

    def __init__(self, spec: ContainerSpec) -> None:
        self.variables = spec.environment
        self.image = self.argument = ""
        if spec.image.startswith("simulated/"):
            self.image, _, tag = spec.image.removeprefix("simulated/").partition(":")
            self.argument = "" if tag == "latest" else tag

    def concerns(self, ordinal: int) -> bool:
        """Whether the container with this ordinal misbehaves at all."""
        text = self.variables.get("SIMULATE_ONLY", "")
        if not text:
            return True
        words = [word.strip() for word in text.split(",")]
        if not all(re.fullmatch("[0-9]{1,9}", word) for word in words):
            raise _Wrong("SIMULATE_ONLY must be the numbers of containers, separated by commas: 1,3")
        return str(ordinal) in {word.lstrip("0") for word in words}

    def seconds(self, variable: str, image: str = "") -> float | None:
        """The seconds in a variable, else in the tag of an image; None without both."""
        allowed = f"a number of seconds from 0 to {_LONGEST}"
        return self._number(variable, image, allowed, _LONGEST)

    def whole(self, variable: str, image: str, most: int) -> int | None:
        """The whole number in a variable, else in the tag of an image; None without both."""
        allowed = f"a whole number from 0 to {most}"
        number = self._number(variable, image, allowed, most)
        if number is None:
            return None
        if not number.is_integer():
            raise _Wrong(f"{self._source(variable, image)} must be {allowed}")
        return int(number)

    def _source(self, variable: str, image: str) -> str:
        """Which of the two a value comes from."""
        return variable if self.variables.get(variable) else f"the tag of the image simulated/{image}"

    def _number(self, variable: str, image: str, allowed: str, most: int) -> float | None:
        text = self.variables.get(variable, "")
        if not text and image and self.image == image:
            # An image without a tag does not say how long, how often or with which code.
            text = self.argument or "0"
        if not text:
            return None
        try:
            number = float(text)
        except ValueError:
            number = math.nan
        # NaN is in no range.
        if not text.isascii() or not 0 <= number <= most:
            raise _Wrong(f"{self._source(variable, image)} must be {allowed}")
        return number

    def flag(self, variable: str, image: str) -> bool:
        """Whether a variable, else the image, says yes."""
        text = self.variables.get(variable, "").lower()
        if not text:
            return self.image == image
        if text not in _FLAGS:
            raise _Wrong(f"{variable} must be 1 or 0")
        return _FLAGS[text]


def _is_checked(container: _Container) -> bool:
    """Whether it has a health check: its service's, or the HEALTHCHECK of its image."""
    check = container.spec.healthcheck
    return container.behaviour.image_check if not check else not check.get("disabled")


#: Seconds, and how often something happens, at most.
_LONGEST = _MOST = 10**9
_FLAGS = {
    "1": True,
    "true": True,
    "yes": True,
    "on": True,
    "0": False,
    "false": False,
    "no": False,
    "off": False,
}


class _Container:
    """One simulated container."""

    __slots__ = (
        "behaviour",
        "check",
        "failing_since",
        "finished",
        "lines",
        "news",
        "restarts",
        "seen",
        "spec",
        "timer",
    )

    def __init__(self, spec: ContainerSpec, seen: Observed) -> None:
        self.spec = spec
        self.seen = seen
        self.behaviour = behaviour(spec)
        self.timer: Timer | None = None
        self.check: Timer | None = None  # the verdict of its health check
        self.restarts = seen.restarts
        self.failing_since = 0.0  # since when its health check fails
        self.lines: deque[LogLine] | None = None
        self.news: set[asyncio.Event] | None = None
        self.finished = 0  # how many lines were ever written


def _health_detail(container: _Container) -> str:
    """What a failing health check of a simulated container would say."""
    spec = container.spec
    check = spec.healthcheck or {}
    failures = int(check.get("retries", 3))
    if "http" not in check:
        # Of the HEALTHCHECK of a simulated image the command is not known.
        command, hidden = check.get("command", ""), hidden_values(spec.environment)
        return command_failure(command, 1, "unhealthy", hidden, failures, container.failing_since)
    tcp = [port.inner_port for port in spec.ports if port.protocol == "tcp"]
    port = check.get("port") or (tcp[0] if tcp else 80)
    return http_failure(check["http"], port, "answered 503 'unhealthy'", failures, container.failing_since)


class SimulatedBackend:
    """See the module's docstring.

    Args:
        nodes: how many nodes, or their names and tags.
        container_start_seconds: from start to running.
        clock: the control plane's.
    """

    name = "simulated"
    #: The control plane gives the containers addresses of an overlay network.
    overlay: ClassVar[bool] = True

    def __init__(
        self,
        nodes: int | Mapping[str, Sequence[str]] = 1,
        *,
        container_start_seconds: float = 0.2,
        clock: Clock | None = None,
    ) -> None:
        self._clock = clock or LoopClock()
        self._start_seconds = container_start_seconds
        named = {f"node-{i}": () for i in range(1, nodes + 1)} if isinstance(nodes, int) else nodes
        self._initial = {name: tuple(tags) for name, tags in named.items()}
        self._nodes: dict[str, BackendNode] = {}
        self._containers: dict[str, _Container] = {}
        self._watcher: Watcher | None = None
        self._server_id = ""
        #: Images that `announce` renewed: name to version.
        self._versions: dict[str, int] = {}

    # -- life

    async def open(
        self, server_id: str, watcher: Watcher, known: Sequence[tuple[ContainerSpec, Observed]]
    ) -> None:
        self._server_id, self._watcher = server_id, watcher
        for name, tags in self._initial.items():
            self._make_node(uuid_for(server_id, "node", name), name, tags)
        for spec, seen in known:
            if seen.status in ("", GONE):
                continue
            if seen.status == WAITING:
                seen = dataclasses.replace(seen, status=RUNNING, reason="")
            container = _Container(spec, seen)
            self._containers[spec.uuid] = container
            if seen.status == RUNNING:
                self._schedule_exit(container)
            elif seen.status == RESTARTING:
                container.timer = self._clock.call_later(_BACK_OFF, self._run, container)

    async def close(self) -> None:
        for container in self._containers.values():
            self._still(container)
        self._watcher = None

    def refuse(self, definition: Mapping[str, Any]) -> list[Problem]:
        return []

    # -- nodes

    def _make_node(self, uuid: str, name: str, tags: Sequence[str]) -> BackendNode:
        node = BackendNode(
            uuid,
            name,
            tuple(tags),
            address="127.0.0.1",
            docker_version="1.7.0",
            cpu=1,
            memory_mb=1024,
            disk_gb=60,
        )
        self._nodes[uuid] = node
        return node

    async def nodes(self) -> list[BackendNode]:
        return list(self._nodes.values())

    async def set_node_tags(self, node: str, tags: Sequence[str]) -> None:
        """There is no place for them here that would outlive the process: the records keep them."""

    def add_node(self, uuid: str, name: str, tags: Sequence[str]) -> None:
        """A node comes."""
        self._make_node(uuid, name, tags)
        if self._watcher:
            self._watcher.nodes_changed()

    def remove_node(self, uuid: str) -> None:
        """A node goes, with its containers."""
        if self._nodes.pop(uuid, None) is None:
            return
        for container in [c for c in self._containers.values() if c.seen.node == uuid]:
            self._forget(container, "its node was removed")
        if self._watcher:
            self._watcher.nodes_changed()

    def set_node_up(self, uuid: str, up: bool) -> None:
        """A node stops answering, or answers again."""
        if uuid in self._nodes:
            self._nodes[uuid] = dataclasses.replace(self._nodes[uuid], up=up)
            for container in [c for c in self._containers.values() if c.seen.node == uuid]:
                self._follow_node(container, up)
            if self._watcher:
                self._watcher.nodes_changed()

    def _follow_node(self, container: _Container, up: bool) -> None:
        """What runs on a node cannot be seen while the node does not answer."""
        if up and container.seen.status == WAITING:
            self._see(container, status=RUNNING, reason="")
            self._schedule_exit(container)
        elif not up and container.seen.status in (RUNNING, RESTARTING):
            self._still(container)
            node = self._nodes[container.seen.node].name
            reason = waits_for(container.spec.name, f"node {node}")
            self._see(container, status=WAITING, reason=reason, healthy=None)

    # -- images

    async def image(self, image: str, node: str) -> ImageInfo:
        repository, _, tag = image.rpartition(":")
        if repository == "simulated/missing" or tag == "missing":
            raise BackendError(f"No such image: {image}")
        info = image_info(image)
        version = self._versions.get(image, 0)
        return dataclasses.replace(info, id=f"{info.id}#{version}") if version else info

    def announce(self, image: str) -> None:
        """The image behind a name has changed."""
        self._versions[image] = self._versions.get(image, 0) + 1
        if self._watcher:
            self._watcher.image_changed(image)

    # -- containers

    async def containers(self) -> list[Observed]:
        return [c.seen for c in self._containers.values()]

    async def create(self, spec: ContainerSpec) -> Observed:
        container = self._containers.get(spec.uuid)
        if container is None:
            if spec.node not in self._nodes:
                raise BackendError("the node is gone")
            seen = Observed(
                spec.uuid,
                CREATED,
                node=spec.node,
                backend_id=spec.uuid.replace("-", ""),
                image_id=f"sim-{spec.image}",
                revision=spec.revision,
                service_uuid=spec.service_uuid,
            )
            container = self._containers[spec.uuid] = _Container(spec, seen)
        return container.seen

    def _of(self, uuid: str) -> _Container:
        container = self._containers.get(uuid)
        if container is None:
            raise BackendError("No such container")
        return container

    async def start(self, uuid: str) -> Observed:
        container = self._of(uuid)
        if container.seen.status in (RUNNING, RESTARTING) or container.timer is not None:
            return container.seen
        node = self._nodes.get(container.seen.node)
        if node is not None and not node.up:
            raise BackendError(f"node {node.name} does not answer", transient=True)
        does = container.behaviour
        if does.start_error:
            raise BackendError(does.start_error)
        container.restarts = 0
        seconds = self._start_seconds if does.start_seconds is None else does.start_seconds
        if does.hang:
            return container.seen
        if seconds > 0:
            container.timer = self._clock.call_later(seconds, self._run, container)
            # Asked again while it comes up, an exited container must not look as if it had exited anew.
            container.seen = dataclasses.replace(container.seen, status=CREATED, exit_code=None, reason="")
        else:
            self._run(container, tell=False)
        return container.seen

    def _run(self, container: _Container, tell: bool = True) -> None:
        container.timer = None
        does = container.behaviour
        is_checked = _is_checked(container)
        healthy = not does.unhealthy if is_checked and not does.healthy_after else None
        if healthy is False:
            container.failing_since = self._clock.time()
        self._see(
            container,
            tell,
            status=RUNNING,
            exit_code=None,
            reason="",
            healthy=healthy,
            health_detail=_health_detail(container) if healthy is False else "",
            restarts=container.restarts,
            last_exit_code=container.seen.exit_code,
        )
        if is_checked and healthy is None:
            container.check = self._clock.call_later(does.healthy_after, self._judge, container)
        self._log(container, "stdout", f"Started {container.spec.name} from {container.spec.image}\n")
        # Lines that would be dropped at once are only counted: writing them all could block the server.
        dropped = max(does.log_lines - _KEPT_LINES, 0)
        container.finished += dropped
        for i in range(dropped, does.log_lines):
            self._log(container, "stdout", f"line {i + 1}\n")
        self._schedule_exit(container)

    def _judge(self, container: _Container) -> None:
        """The health check has its verdict."""
        container.check = None
        self._set_healthy(container, not container.behaviour.unhealthy)

    def _set_healthy(self, container: _Container, healthy: bool) -> None:
        container.failing_since = self._clock.time()
        self._see(container, healthy=healthy, health_detail="" if healthy else _health_detail(container))

    def _schedule_exit(self, container: _Container) -> None:
        does = container.behaviour
        if does.exit_code is not None:
            container.timer = self._clock.call_later(
                does.exit_after, self.exit, container.spec.uuid, does.exit_code
            )
        elif container.restarts < does.crashes:
            container.timer = self._clock.call_later(does.exit_after, self.exit, container.spec.uuid, 1)

    def exit(self, uuid: str, code: int, reason: str = "") -> None:
        """The container exits by itself (also called by tests)."""
        container = self._containers.get(uuid)
        if container is None or container.seen.status not in (RUNNING, RESTARTING):
            return
        self._still(container)
        self._log(container, "stderr", f"Exited with code {code}\n")
        policy = container.spec.autorestart
        if policy == "ALWAYS" or (policy == "ON_FAILURE" and code != 0):
            container.restarts += 1
            self._see(
                container,
                status=RESTARTING,
                exit_code=code,
                reason=reason,
                healthy=None,
                health_detail="",
                restarts=container.restarts,
            )
            wait = min(_BACK_OFF * 2 ** min(container.restarts - 1, 20), _BACK_OFF_MAX)
            container.timer = self._clock.call_later(wait, self._run, container)
        else:
            self._see(container, status=EXITED, exit_code=code, reason=reason, healthy=None, health_detail="")

    def set_healthy(self, uuid: str, healthy: bool) -> None:
        """The health check's verdict changes (for tests)."""
        self._set_healthy(self._of(uuid), healthy)

    async def stop(self, uuid: str) -> Observed:
        container = self._containers.get(uuid)
        if container is None:
            return Observed(uuid, GONE)
        if container.behaviour.stop_seconds and container.seen.status == RUNNING:
            await sleep(self._clock, container.behaviour.stop_seconds)
        ran = container.seen.status in (RUNNING, RESTARTING, WAITING)
        self._still(container)
        if ran:
            self._log(container, "stderr", "Exited with code 143\n")
            self._see(
                container, False, status=EXITED, exit_code=143, reason="", healthy=None, health_detail=""
            )
        return container.seen

    async def remove(self, uuid: str, *, volumes: Sequence[str] = ()) -> None:
        container = self._containers.get(uuid)
        if container is None:
            return
        if container.behaviour.stop_seconds and container.seen.status == RUNNING:
            await sleep(self._clock, container.behaviour.stop_seconds)
        if uuid in self._containers:
            self._forget(container, "", tell=False)

    async def sweep(self, kept: Callable[[], Collection[str]]) -> None:
        """Simulated volumes hold nothing, so nothing is ever left over."""

    async def relink(self, uuid: str, links: Sequence[LinkSpec]) -> None:
        container = self._of(uuid)
        container.spec = dataclasses.replace(container.spec, links=tuple(links))

    def links(self, uuid: str) -> tuple[LinkSpec, ...]:
        """The host names that a container sees now (for tests)."""
        return self._of(uuid).spec.links

    def _see(self, container: _Container, tell: bool = True, **values: Any) -> None:
        container.seen = dataclasses.replace(container.seen, **values)
        if tell and self._watcher:
            self._watcher.container_changed(container.seen)

    def _still(self, container: _Container) -> None:
        for timer in (container.timer, container.check):
            if timer is not None:
                timer.cancel()
        container.timer = container.check = None

    def _forget(self, container: _Container, reason: str, tell: bool = True) -> None:
        self._still(container)
        del self._containers[container.spec.uuid]
        self._see(container, tell, status=GONE, reason=reason)
        self._wake(container)

    # -- logs and exec

    def _log(self, container: _Container, stream: str, text: str) -> None:
        if container.lines is None:
            container.lines = deque(maxlen=_KEPT_LINES)
        container.lines.append(LogLine(stream, self._clock.time(), text))
        container.finished += 1
        self._wake(container)

    def _wake(self, container: _Container) -> None:
        for event in container.news or ():
            event.set()

    async def logs(
        self, uuid: str, *, tail: int | None, follow: bool
    ) -> AsyncGenerator[Sequence[LogLine], None]:
        container = self._containers.get(uuid)
        if container is None:
            return
        lines = list(container.lines or ())
        position = container.finished
        if tail is not None:
            lines = lines[len(lines) - min(tail, len(lines)) :]
        news = asyncio.Event()
        if follow:
            if container.news is None:
                container.news = set()
            container.news.add(news)
        try:
            if lines:
                yield lines
            if follow:
                yield ()
            while follow:
                fresh, position = container.finished - position, container.finished
                if fresh:
                    yield list(container.lines or ())[-fresh:]
                if container.seen.status == GONE:
                    return
                if position == container.finished:
                    news.clear()
                    await news.wait()
        finally:
            if container.news is not None:
                container.news.discard(news)

    async def exec(self, uuid: str, command: Sequence[str], *, tty: bool = False) -> ExecSession:
        container = self._of(uuid)
        if container.seen.status != RUNNING:
            raise BackendError("the container does not run")
        return _Exec(container.spec, list(command))


class _Exec:
    """A command in a simulated container."""

    def __init__(self, spec: ContainerSpec, command: list[str]) -> None:
        self._syntax_error = False
        if len(command) == 3 and command[:2] == ["sh", "-c"]:
            try:
                command = shlex.split(command[2])
            except ValueError:
                self._syntax_error = True
        self._spec = spec
        self._command = command
        self._typed: asyncio.Queue[str | None] = asyncio.Queue(maxsize=1000)
        self._code: asyncio.Future[int] = asyncio.get_running_loop().create_future()

    async def output(self) -> AsyncIterator[tuple[str, str]]:
        word, arguments = (self._command or [""])[0], self._command[1:]
        code = 0
        if self._syntax_error:
            yield "stderr", "sh: syntax error: unterminated quoted string\n"
            code = 2
        elif word == "echo":
            yield "stdout", " ".join(arguments) + "\n"
        elif word == "hostname":
            yield "stdout", self._spec.name + "\n"
        elif word == "env":
            yield "stdout", "".join(f"{k}={v}\n" for k, v in sorted(self._spec.environment.items()))
        elif word == "exit":
            number = arguments[0] if arguments else "0"
            if re.fullmatch("[0-9]{1,9}", number):
                code = int(number) % 256
            else:
                yield "stderr", f"sh: exit: Illegal number: {number}\n"
                code = 2
        elif word in ("cat", "sh"):
            while (text := await self._typed.get()) is not None:
                keep, end, _ = text.partition("\x04")
                if keep:
                    yield "stdout", keep
                if end:
                    break
        else:
            yield "stderr", f"sh: {word}: not found\n"
            code = 127
        if not self._code.done():
            self._code.set_result(code)

    async def send(self, text: str) -> None:
        await self._typed.put(text)

    async def wait(self) -> int:
        return await asyncio.shield(self._code)

    async def close(self) -> None:
        if not self._code.done():
            self._code.set_result(137)
        if not self._typed.full():
            self._typed.put_nowait(None)
