"""What a backend is: something that can keep containers on nodes.

The control plane decides everything that Tutum decides (placement, names, scaling, order, links, states); a
backend carries single containers. All verbs are coroutines on the server's event loop; a backend that blocks
does so in threads of its own. Every verb is idempotent and keyed by the container's uuid, because after a
crash the control plane simply asks again:

  * `create` of a uuid that exists answers what is there; `remove`, `stop` of one that is gone succeed.
  * what changes by itself (a container exits, a node comes, an image is pushed) is told through the
    `Watcher`, at least once, in order per container; the watcher's methods may be called from the event loop
    only.
  * after `open`, the backend knows every container of this server that really exists; `containers()` lists
    them, and the control plane reconciles its records with that list.

Errors: `BackendError` with a text for users (`No such image: acme/web:2`); `transient=True` when asking again
may help (the engine does not answer). Nothing else is expected.

A backend whose containers have addresses of the control plane's own overlay network (10.7.0.0/16) says so
with the class attribute `overlay = True`; without it, link variables name hosts (`DB-1`), which outlive a
restart of the target. `volumes_from` is resolved by the control plane into the source's named volumes and
host paths, on the same node.

A backend that moves a running container to another node by itself, when its node dies, says so with the
class attribute `moves = True`. It moves only containers whose spec is `movable`, and only to nodes that have
all the spec's `tags`. `Observed.node` tells where the container is. The control plane never replaces such a
container."""

from __future__ import annotations

from collections.abc import AsyncGenerator, AsyncIterator, Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple, Protocol

from ...errors import BackendError, Problem

#: What a container is doing, as far as a backend can tell. `restarting`: its restart policy is bringing it
#: back. `waiting`: it has run and is to run, but its node does not answer, or no node can take it; the
#: backend starts it without being asked again.
CREATED, RUNNING, RESTARTING, EXITED, GONE = "created", "running", "restarting", "exited", "gone"
WAITING = "waiting"


def waits_for(container: str, node: str, trouble: str = "does not answer") -> str:
    """The sentence for users about a container (its name) that waits for a node."""
    return f"{container} waits for {node}, which {trouble}"


#: As a label of the DNS; Linux itself takes one more.
LONGEST_HOSTNAME = 63


@dataclass(frozen=True)
class PortSpec:
    """A port of one container. `outer_port` is a number when published (already chosen by the control
    plane)."""

    protocol: str
    inner_port: int
    outer_port: int | None = None


@dataclass(frozen=True)
class VolumeSpec:
    """A mount: either of a `host_path`, or of a `volume` (a named volume of this server)."""

    container_path: str
    host_path: str | None = None
    volume: str | None = None
    rewritable: bool = True


@dataclass(frozen=True)
class LinkSpec:
    """Host names under which a container reaches those of a service: `name` resolves to all of `containers`
    (uuids, ordinal order), `name-<n>` to the one with ordinal n."""

    name: str
    containers: tuple[tuple[int, str], ...]
    service_uuid: str = ""


@dataclass(frozen=True)
class ContainerSpec:
    """Everything a backend needs to make one container. Environment is final (merged, expanded)."""

    uuid: str
    name: str  # "web-1"
    service_uuid: str
    service_name: str
    ordinal: int
    node: str  # uuid of the node, one of `Backend.nodes()`
    image: str  # with tag
    revision: str  # hash of the definition it is made from; answers "synchronized"
    entrypoint: str | None = None
    run_command: str | None = None
    working_dir: str | None = None
    environment: Mapping[str, str] = field(default_factory=dict)
    ports: tuple[PortSpec, ...] = ()
    volumes: tuple[VolumeSpec, ...] = ()
    links: tuple[LinkSpec, ...] = ()
    memory: int | None = None  # MB
    cpu_shares: int | None = None
    network: str = "bridge"
    pid: str = "none"
    privileged: bool = False
    autorestart: str = "OFF"
    healthcheck: Mapping[str, Any] | None = None
    #: The image has a HEALTHCHECK, and the service leaves it to that.
    image_check: bool = False
    #: For backends whose containers must be born with the names by which others reach them: those of all
    #: links to the service that are known, and its name without the suffix that Pulumi put to it.
    linked_as: tuple[str, ...] = ()
    short_name: str = ""
    #: For backends that move containers: whether nothing binds it to `node` once it runs, and the tags that
    #: every node which it may be moved to must have.
    movable: bool = False
    tags: tuple[str, ...] = ()

    @property
    def probed_port(self) -> int | None:
        """The inner port that its HTTP health check asks; None: it has no such check, or no tcp port."""
        if not self.healthcheck or "http" not in self.healthcheck:
            return None
        return probed_port(self.healthcheck, ((p.protocol, p.inner_port) for p in self.ports))

    @property
    def hostname(self) -> str:
        """The name; where that is longer than a host's may be, its beginning and the ordinal."""
        number = f"-{self.ordinal}"
        return self.name.removesuffix(number)[: LONGEST_HOSTNAME - len(number)] + number


def probed_port(check: Mapping[str, Any], ports: Iterable[tuple[str, int]]) -> int | None:
    """The inner port that an HTTP health check asks: its own, else the first tcp port. None: there is none.

    Args:
        ports: (protocol, inner port) of the container, the image's included.
    """
    given = check.get("port")
    if given is not None:
        return int(given)
    return next((inner for protocol, inner in ports if protocol == "tcp"), None)


@dataclass(frozen=True)
class Observed:
    """One container as it is now.

    Attributes:
        status: CREATED, RUNNING, RESTARTING, WAITING, EXITED or GONE.
        exit_code: of the last exit, else None.
        reason: why it failed, for users (`No such image`, `port is already allocated`, `out of memory`), or
        ""; for WAITING a sentence that names the container and what it waits for.
        node: uuid of the node it is on.
        healthy: what its health check says, or the HEALTHCHECK of its image where the service has none; None
            without one, or while it is not known yet.
        health_detail: why it is not healthy: what was probed, what it answered, how often and since when; ""
            while no probe has failed. Values of its environment are masked.
        backend_id: the engine's own id (`docker_id`).
        address: its private address, or "".
        image_id: what it was really made from (docker: the image's id), or "".
        revision: of the spec it was made from; another text when it is not what that spec says any more.
        restarts: by its restart policy, since it was last started.
        last_exit_code: of the exit before the present run, where the backend knows it.
    """

    uuid: str
    status: str
    exit_code: int | None = None
    reason: str = ""
    node: str = ""
    healthy: bool | None = None
    backend_id: str = ""
    address: str = ""
    image_id: str = ""
    revision: str = ""
    service_uuid: str = ""
    restarts: int = 0
    last_exit_code: int | None = None
    health_detail: str = ""


@dataclass(frozen=True)
class BackendNode:
    """A machine that can carry containers.

    Attributes:
        up: False: it exists and does not answer (state Unreachable).
        open: False: it takes nothing new.
        drained: it answers, and its operator has removed all containers from it.
    """

    uuid: str
    name: str
    tags: tuple[str, ...] = ()
    up: bool = True
    open: bool = True
    drained: bool = False
    address: str = ""
    docker_version: str = ""
    cpu: int = 1
    memory_mb: int = 0
    disk_gb: int = 0


@dataclass(frozen=True)
class ImageInfo:
    """What an image brings along.

    Attributes:
        ports_known: False: the image may have other ports than `ports`. (The simulator does not know every
            image.)
        has_check: it has a HEALTHCHECK.
    """

    id: str
    environment: Mapping[str, str] = field(default_factory=dict)
    ports: tuple[tuple[str, int], ...] = ()  # (protocol, port)
    volumes: tuple[str, ...] = ()
    run_command: str = ""
    entrypoint: str = ""
    working_dir: str = ""
    ports_known: bool = True
    has_check: bool = False


class LogLine(NamedTuple):
    """One line. `text` ends with a newline unless the container ended in the middle of it."""

    stream: str  # stdout, stderr
    timestamp: float  # seconds since the epoch
    text: str


class PortTaken(BackendError):
    """A container cannot start because somebody else has one of its outer ports.

    Attributes:
        ports: (protocol, outer port); empty when the engine does not say which.
    """

    def __init__(self, message: str, ports: Sequence[tuple[str, int]]) -> None:
        self.ports = tuple(ports)
        super().__init__(message)


class Watcher(Protocol):
    """Who is told of what happens by itself; the control plane. Called on the event loop."""

    def container_changed(self, seen: Observed) -> None: ...

    def nodes_changed(self) -> None: ...

    def image_changed(self, image: str) -> None: ...


class ExecSession(Protocol):
    """A command running inside a container."""

    def output(self) -> AsyncIterator[tuple[str, str]]:
        """(stream, text) until the command ends."""
        ...

    async def send(self, text: str) -> None: ...

    async def wait(self) -> int:
        """The exit code."""
        ...

    async def close(self) -> None: ...


class Backend(Protocol):
    """See the module's docstring."""

    name: str

    async def open(
        self, server_id: str, watcher: Watcher, known: Sequence[tuple[ContainerSpec, Observed]]
    ) -> None:
        """Connect and begin to watch. `known` is what the store remembers: the simulated backend lives on it,
        a real one asks its engine instead."""
        ...

    async def close(self) -> None:
        """Let go of connections; containers stay."""
        ...

    def refuse(self, definition: Mapping[str, Any]) -> list[Problem]:
        """What of a service's definition (wire form) this backend or its operator's policy does not allow."""
        ...

    async def nodes(self) -> list[BackendNode]: ...

    async def set_node_tags(self, node: str, tags: Sequence[str]) -> None:
        """Keep a node's tags with the node, where the backend has a place for them (swarm labels)."""
        ...

    async def image(self, image: str, node: str) -> ImageInfo:
        """Make sure that the image is there (pull if the policy says so). BackendError: there is none."""
        ...

    async def containers(self) -> list[Observed]: ...

    async def create(self, spec: ContainerSpec) -> Observed: ...

    async def start(self, uuid: str) -> Observed:
        """Start it. Returns once the engine has accepted; RUNNING may come later, through the watcher."""
        ...

    async def stop(self, uuid: str) -> Observed: ...

    async def remove(self, uuid: str, *, volumes: Sequence[str] = ()) -> None:
        """Remove it, running or not, and the named volumes given."""
        ...

    async def sweep(self, kept: Callable[[], Collection[str]]) -> None:
        """Remove this server's named volumes but those to be kept: what a crash, or somebody, left over.

        Args:
            kept: asked after the volumes were listed, so that one that is made meanwhile is among them.
        """
        ...

    async def relink(self, uuid: str, links: Sequence[LinkSpec]) -> None:
        """Change the host names that a running container sees, where that is possible without a restart."""
        ...

    def logs(self, uuid: str, *, tail: int | None, follow: bool) -> AsyncGenerator[Sequence[LogLine], None]:
        """The last `tail` lines (None: all), then, with `follow`, new ones until the container is gone.

        Many at a time, since each step costs more than a line. Nothing is read ahead of a slow reader.

        With `follow` there is one empty batch: all that comes after it is new, and none of that is missing.
        What cannot be had just now (the engine does not answer) is not waited for: it comes after it, too.
        """
        ...

    async def exec(self, uuid: str, command: Sequence[str], *, tty: bool = False) -> ExecSession:
        """Run a command. With `tty` it has a terminal: it is shown what is typed, and all is its stdout."""
        ...
