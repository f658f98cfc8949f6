"""Containers on one or several Docker Engines.

Everything made here carries labels (engine.py); the label with the container's uuid joins what an engine has
with what the control plane remembers, whichever of them died in between.

On each engine there is one bridge network per server, for links. It costs an engine much to put a container
into such a network, so containers are in the engine's default one, as those of `docker run` are, until a link
needs them. One whose service links, or is linked to, is made in the server's network. One that is linked to
later joins it while it runs, before who links to it starts, and stays in both.

Links need no change of a running container when their target scales or is redeployed. Every container has, in
the server's network, the names `<service uuid>` and `<service uuid>-<ordinal>`. Who links to that service as
`DB` has, in its own endpoint, `DB` for the first and `DB-1`, `DB-2`, ... for the others, further ones than
there are: the engine looks them up when they are asked for. Names are compared as they are written, so each
is there in lower case too.

Every container has a small init as process 1, so that it ends at once when it is told to, unless its image
brings one or it shares the host's processes."""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
import ipaddress
import logging
import re
import time
from collections.abc import (
    AsyncGenerator,
    Callable,
    Collection,
    Coroutine,
    Iterable,
    Mapping,
    Sequence,
)
from dataclasses import dataclass, field
from typing import Any, ClassVar

import docker
from docker.types import IPAMConfig, IPAMPool, Mount

from ...errors import BackendError, ConfigError, Problem
from ..clock import is_set_within
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
    PortTaken,
    Watcher,
    waits_for,
)
from .engine import (
    CONTAINER,
    REVISION,
    SERVER,
    SERVICE,
    Address,
    Engine,
    addresses,
    command_of,
    labels,
    plain,
    readable,
    seconds,
    short_id,
    unfit,
)
from .health import HealthChecks, engine_detail, native_check, published_at, published_port_is_probed
from .policy import Policy
from .probes import hidden_values

log = logging.getLogger("pulumi_tutum.server")

#: So many names `DB-<n>` are there beyond the containers that there are.
_ROOM = 32
_EVENTS = {
    "type": ["container", "image", "network"],
    "event": [
        "create",
        "start",
        "die",
        "oom",
        "destroy",
        "health_status",
        "rename",
        "tag",
        "load",
        "pull",
        "import",
    ],
}
_IMAGE_PAUSE = 0.3
_RESTART = {"OFF": "no", "ON_FAILURE": "on-failure", "ALWAYS": "always"}
_NO_RESTART = {"Name": "no"}
#: An engine's own network, in which the containers of `docker run` are. It knows no names.
_DEFAULT = "bridge"
_SECOND = 1_000_000_000
#: The engine's own default for the interval of health checks, in nanoseconds.
_PROBE_INTERVAL = 30 * _SECOND
#: Containers that an engine starts at the same time, for each of its processors. A start is work for them,
#: with locks in the kernel: all at once they take longer than in turns.
_STARTS_PER_CPU = 2
#: Containers that an engine creates at the same time, beside those. Who is created early waits for its start.
_CREATES_PER_CPU = 1
#: What takes so long waits for something else, and keeps no other from its turn.
_TURN_SECONDS = 5.0
#: An engine that was killed while it started a container can never start that one again: containerd knows
#: its id, or the id of its task, or has its folder.
_HALF_STARTED = re.compile(r"[0-9a-f]{64}: (already|file) exists|id already in use")
#: Why a container need not join a network, or cannot any more.
_JOINED_OR_GOING = re.compile(r"already exists in network|marked for removal")


@dataclass
class _Container:
    """A container as this backend knows it."""

    uuid: str
    engine: Engine | None
    seen: Observed
    spec: ContainerSpec | None = None
    id: str = ""
    #: When its present run began, by the engine's clock, in nanoseconds.
    began: int = 0
    #: With which code its last run ended.
    last_exit_code: int | None = None
    #: It is in the server's network.
    joined: bool = False
    joining: asyncio.Lock = field(default_factory=asyncio.Lock)
    #: Calls about it that are in progress, and whether something has happened to it since it was last looked
    #: at.
    calls: int = 0
    stale: bool = False
    news: asyncio.Event = field(default_factory=asyncio.Event)
    #: When its failing health check is looked at again.
    next_look: asyncio.TimerHandle | None = None

    @property
    def restart(self) -> dict[str, str]:
        """What its engine is to do when it ends."""
        return {"Name": _RESTART[self.spec.autorestart if self.spec is not None else "OFF"]}


def open_backend(
    *,
    nodes: Sequence[str] = (),
    allow: Sequence[str] = (),
    publish_address: str = "127.0.0.1",
    pull: str = "missing",
    stop_seconds: int = 10,
    ephemeral: bool = False,
) -> DockerBackend:
    """The backend as `serve` is told to set it up; see `DockerBackend`.

    Raises:
        ConfigError: an option that cannot be.
    """
    engines = addresses(nodes)
    remote = next((engine for engine in engines if engine.host), None)
    if remote is not None and _is_loopback(publish_address):
        raise ConfigError(
            f"node {remote.name} is another machine, and nobody could reach what it publishes at "
            f"{publish_address}: give --publish-address (0.0.0.0 for all of its addresses)"
        )
    return DockerBackend(
        engines,
        policy=Policy.parse(allow),
        publish_address=publish_address,
        pull=pull,
        stop_seconds=stop_seconds,
        ephemeral=ephemeral,
    )


class DockerBackend:
    """See the module's docstring.

    Args:
        nodes: where the engines are.
        policy: what services may ask of their machine.
        publish_address: the address of the engines' machines at which ports are published.
        pull: when images are pulled: `missing`, `always` or `never`.
        stop_seconds: how long a container may take to end before it is killed.
        ephemeral: nothing is remembered beyond this process, so everything goes when it closes.
    """

    name = "docker"
    overlay: ClassVar[bool] = False

    def __init__(
        self,
        nodes: Sequence[Address],
        *,
        policy: Policy | None = None,
        publish_address: str = "127.0.0.1",
        pull: str = "missing",
        stop_seconds: int = 10,
        ephemeral: bool = False,
    ) -> None:
        self._policy = policy or Policy()
        self._publish_address = publish_address
        self._stop_seconds = stop_seconds
        self._ephemeral = ephemeral
        self._engines = [Engine(address, pull=pull) for address in nodes]
        self._by_node: dict[str, Engine] = {}
        self._node_of: dict[Engine, str] = {}
        self._containers: dict[str, _Container] = {}
        self._by_id: dict[str, str] = {}
        self._images: dict[str, ImageInfo] = {}
        self._announced: dict[str, str] = {}
        self._gateways: dict[Engine, str] = {}
        self._pools: dict[Engine, IPAMPool] = {}
        self._networking: dict[Engine, asyncio.Lock] = {}
        #: Engines that have a default network.
        self._with_default: set[Engine] = set()
        #: Containers to which links lead, and which were not made yet.
        self._expected: set[str] = set()
        self._starts: dict[Engine, asyncio.Semaphore] = {}
        self._creates: dict[Engine, asyncio.Semaphore] = {}
        self._doomed: dict[Engine, set[str]] = {}
        self._image_checks: set[Engine] = set()
        self._tasks: set[asyncio.Task[None]] = set()
        self._server_id = self._network = ""
        self._watcher: Watcher | None = None
        self._health = HealthChecks(self._verdict_changed)

    # -- life

    async def open(
        self, server_id: str, watcher: Watcher, known: Sequence[tuple[ContainerSpec, Observed]]
    ) -> None:
        self._server_id = server_id
        self._network = f"tutum-{short_id(server_id)}"
        for engine in self._engines:
            node = uuid_for(server_id, "node", engine.address.name)
            self._by_node[node], self._node_of[engine] = engine, node
            self._networking[engine] = asyncio.Lock()
        for spec, seen in known:
            if seen.status not in ("", GONE):
                self._containers[spec.uuid] = _Container(
                    spec.uuid, self._by_node.get(spec.node), seen, spec, seen.backend_id
                )
        await asyncio.gather(*(self._open(engine) for engine in self._engines))
        if not any(engine.up for engine in self._engines) and not self._containers:
            trouble = self._engines[0].trouble
            await self.close()
            raise BackendError(f"{trouble}. Start it, or say where it is: --node URL")
        self._watcher = watcher

    async def _open(self, engine: Engine) -> None:
        await engine.open(
            filters=_EVENTS,
            on_event=lambda event: self._on_event(engine, event),
            on_up=lambda: self._resync(engine),
            on_down=lambda: self._lose_sight(engine),
        )
        if not engine.up:
            self._lose_sight(engine)

    async def close(self) -> None:
        self._watcher = None
        for task in list(self._tasks):
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        self._health.close()
        for container in self._containers.values():
            if container.next_look is not None:
                container.next_look.cancel()
        await asyncio.gather(*(self._leave(engine) for engine in self._engines))

    async def _leave(self, engine: Engine) -> None:
        if engine.up:
            try:
                await engine.call(
                    self._remove_all if self._ephemeral else self._remove_idle_network, slow=True
                )
            except (BackendError, docker.errors.NotFound) as error:
                log.warning(
                    "cannot tidy up an engine", extra={"node": engine.address.name, "error": str(error)}
                )
        await engine.close()

    def _remove_all(self, client: Any) -> None:
        """The end of a server that remembers nothing."""
        ours = {"label": f"{SERVER}={self._server_id}"}
        for container in client.containers(all=True, filters=ours):
            with contextlib.suppress(docker.errors.APIError):
                client.remove_container(container["Id"], force=True, v=True)
        for volume in client.volumes(filters=ours)["Volumes"] or ():
            with contextlib.suppress(docker.errors.APIError):
                client.remove_volume(volume["Name"])
        self._remove_idle_network(client)

    def _remove_idle_network(self, client: Any) -> None:
        """A network of no container is made again when it is needed."""
        ours = {"label": f"{SERVER}={self._server_id}"}
        if not client.containers(all=True, filters=ours):
            for network in client.networks(filters=ours):
                with contextlib.suppress(docker.errors.APIError):
                    client.remove_network(network["Id"])

    def refuse(self, definition: Mapping[str, Any]) -> list[Problem]:
        problems = [*self._policy.refuse(definition), *unfit(definition)]
        check = definition.get("healthcheck") or {}
        remote = any(engine.address.host for engine in self._engines)
        if "http" in check and remote and not published_port_is_probed(definition, check):
            problems.append(
                Problem(
                    "healthcheck.http",
                    "needs a published port where engines are on other machines; or use command",
                )
            )
        return problems

    @property
    def container_address(self) -> str:
        """An address of this machine at which its containers can reach it; "" when no engine is on this
        machine."""
        return next(
            (self._gateways[e] for e in self._engines if e in self._gateways and not e.address.host), ""
        )

    # -- nodes

    async def nodes(self) -> list[BackendNode]:
        return [
            BackendNode(
                node,
                engine.address.name,
                engine.address.tags,
                up=engine.up,
                address=self._public_host(engine),
                docker_version=engine.facts.version,
                cpu=engine.facts.cpus,
                memory_mb=engine.facts.memory_mb,
                disk_gb=engine.facts.disk_gb,
            )
            for node, engine in self._by_node.items()
        ]

    def _public_host(self, engine: Engine) -> str:
        """Where published ports answer."""
        with contextlib.suppress(ValueError):
            if not ipaddress.ip_address(self._publish_address).is_unspecified:
                return self._publish_address
        return engine.address.host or "127.0.0.1"

    async def set_node_tags(self, node: str, tags: Sequence[str]) -> None:
        """An engine has no place for them: the control plane keeps them."""

    def _nodes_changed(self) -> None:
        if self._watcher is not None:
            self._watcher.nodes_changed()

    def _lose_sight(self, engine: Engine) -> None:
        """An engine does not answer: what ran there may have ended."""
        for container in self._containers.values():
            if container.engine is engine and container.seen.status in (RUNNING, RESTARTING):
                name = container.spec.name if container.spec else "the container"
                reason = waits_for(name, f"node {engine.address.name}")
                self._health.forget(container.uuid)
                seen = dataclasses.replace(container.seen, status=WAITING, reason=reason, healthy=None)
                self._see(container, seen, tell=True)
        self._nodes_changed()

    # -- what an engine really has

    async def _resync(self, engine: Engine) -> None:
        """Bring what is known of an engine's containers up to date; it has just been connected to."""
        self._starts.setdefault(engine, asyncio.Semaphore(_STARTS_PER_CPU * engine.facts.cpus))
        self._creates.setdefault(engine, asyncio.Semaphore(_CREATES_PER_CPU * engine.facts.cpus))
        before = {
            c.uuid: c for c in self._containers.values() if c.engine is engine and c.seen.status != GONE
        }
        await self._ensure_network(engine)
        await self._look_for_default(engine)
        ours = {"label": f"{SERVER}={self._server_id}"}
        listed = await engine.call(lambda client: client.containers(all=True, filters=ours))
        found = {entry["Labels"].get(CONTAINER, ""): entry["Id"] for entry in listed}

        async def look(uuid: str, identity: str) -> None:
            container = self._containers.get(uuid)
            if container is None:
                container = self._containers[uuid] = _Container(uuid, engine, Observed(uuid, ""))
            container.engine = engine
            self._identify(container, identity)
            await self._refresh(container)
            if self._watcher is not None and not container.calls:
                # Even if nothing has changed here: the control plane may have given it up meanwhile.
                self._watcher.container_changed(container.seen)

        await asyncio.gather(*(look(uuid, identity) for uuid, identity in found.items() if uuid))
        for uuid, container in before.items():
            if uuid not in found and self._containers.get(uuid) is container and not container.calls:
                self._gone(container, "it was removed from the engine")
        self._nodes_changed()
        self._check_images(engine)

    async def _ensure_network(self, engine: Engine) -> None:
        """One bridge network with our name; a crash can have left none or, with old engines, two."""

        def ensure(client: Any) -> str:
            ours = {"label": f"{SERVER}={self._server_id}"}
            found = [n for n in client.networks(filters=ours) if n["Name"] == self._network]
            found.sort(key=lambda n: n.get("Created", ""))
            for extra in found[1:]:
                with contextlib.suppress(docker.errors.APIError):
                    client.remove_network(extra["Id"])
            if not found:
                made = {SERVER: self._server_id}
                options = {"driver": "bridge", "labels": made, "check_duplicate": True}
                # Where it was before somebody removed it: at its gateway containers find this server.
                pools = [self._pools[engine]] if engine in self._pools else []
                try:
                    client.create_network(self._network, ipam=IPAMConfig(pool_configs=pools), **options)
                except docker.errors.APIError:
                    if not pools:
                        raise
                    client.create_network(self._network, **options)
            for block in client.inspect_network(self._network)["IPAM"]["Config"] or ():
                gateway = str(block.get("Gateway") or "").partition("/")[0]
                if gateway and ":" not in gateway:
                    self._pools[engine] = IPAMPool(subnet=block["Subnet"], gateway=gateway)
                    return gateway
            return ""

        async with self._networking[engine]:
            try:
                self._gateways[engine] = await engine.call(ensure)
            except docker.errors.NotFound as error:
                raise BackendError(
                    f"the server's network cannot be made: {error.explanation}", transient=True
                ) from None

    async def _look_for_default(self, engine: Engine) -> None:
        """Whether an engine has a default network: its operator can have turned it off."""
        try:
            await engine.call(lambda client: client.inspect_network(_DEFAULT))
        except docker.errors.NotFound:
            self._with_default.discard(engine)
        else:
            self._with_default.add(engine)

    def _identify(self, container: _Container, identity: str) -> None:
        self._by_id.pop(container.id, None)
        container.id = identity
        self._by_id[identity] = container.uuid

    async def _refresh(self, container: _Container) -> Observed:
        """Look at a container now."""
        engine = container.engine
        if engine is None:
            return container.seen
        container.stale = False
        identity = container.id
        try:
            inspected = await engine.call(lambda client: _inspect(client, identity))
        except docker.errors.NotFound:
            if container.id == identity:
                return self._gone(container, "")
            return container.seen
        if self._containers.get(container.uuid) is not container:
            return container.seen
        container.began = _nanoseconds(inspected["State"].get("StartedAt", ""))
        container.joined = self._network in _networks(inspected)
        seen = observed(inspected, self._node_of[engine], self._network)
        seen = dataclasses.replace(seen, last_exit_code=container.last_exit_code)
        check = container.spec.healthcheck if container.spec else None
        if check and "http" in check:
            self._probe(container, engine, seen)
            seen = self._health.judged(container.uuid, seen)
        else:
            self._look_at_health_again(container, inspected)
        self._see(container, seen)
        return seen

    def _probe(self, container: _Container, engine: Engine, seen: Observed) -> None:
        """Have a container's health asked for while it runs."""
        spec = container.spec
        inner = spec.probed_port if spec is not None else None
        if spec is None or spec.healthcheck is None or inner is None or seen.status != RUNNING:
            self._health.forget(container.uuid)
            return
        outer = published_at(spec, inner)
        if spec.network == "host":
            host, port = self._public_host(engine), inner
        elif engine.address.host or not seen.address:
            host, port = self._public_host(engine), outer or inner
        else:
            host, port = seen.address, inner
        self._health.watch(
            container.uuid,
            f"{container.id}/{container.began}",
            host,
            port,
            spec,
        )

    def _verdict_changed(self, uuid: str) -> None:
        container = self._containers.get(uuid)
        if container is not None:
            self._see(container, self._health.judged(uuid, container.seen), tell=True)

    def _look_at_health_again(self, container: _Container, inspected: Mapping[str, Any]) -> None:
        """The engine tells of changes of the verdict only. As long as probes fail, look what they say now."""
        if container.next_look is not None:
            container.next_look.cancel()
            container.next_look = None
        status = ((inspected["State"].get("Health") or {}).get("Status")) or "none"
        if status in ("none", "healthy") or not inspected["State"].get("Running"):
            return
        interval = int((inspected["Config"].get("Healthcheck") or {}).get("Interval") or _PROBE_INTERVAL)
        container.next_look = asyncio.get_running_loop().call_later(
            max(interval / _SECOND, 1.0), self._look_again, container
        )

    def _see(self, container: _Container, seen: Observed, tell: bool = False) -> None:
        """Remember what was seen, and tell of it when it is news and nobody waits for it."""
        changed = seen != container.seen
        container.seen = seen
        if changed:
            container.news.set()
            container.news = asyncio.Event()
            if self._watcher is not None and (tell or not container.calls):
                self._watcher.container_changed(seen)

    def _gone(self, container: _Container, reason: str) -> Observed:
        if self._containers.get(container.uuid) is container:
            del self._containers[container.uuid]
        self._by_id.pop(container.id, None)
        self._health.forget(container.uuid)
        if container.next_look is not None:
            container.next_look.cancel()
        self._see(container, dataclasses.replace(container.seen, status=GONE, reason=reason))
        return container.seen

    # -- events

    def _on_event(self, engine: Engine, event: Mapping[str, Any]) -> None:
        if event.get("Type") == "image":
            self._check_images(engine)
            return
        actor = event.get("Actor") or {}
        attributes = actor.get("Attributes") or {}
        if event.get("Type") == "network":
            if attributes.get("name") == self._network and self._watcher is not None:
                # As `docker system prune` removes one without containers. But at its gateway those with the
                # role `global` find this server.
                self._spawn(self._ensure_network(engine))
            return
        if attributes.get(SERVER) != self._server_id:
            return
        what, identity = str(event.get("Action", "")), actor.get("ID", "")
        uuid = self._by_id.get(identity) or attributes.get(CONTAINER, "")
        container = self._containers.get(uuid)
        if container is None:
            self._on_stranger(engine, what, identity, uuid)
            return
        if what == "create" or container.id not in ("", identity):
            return
        if what == "die" and str(attributes.get("exitCode", "")).isdigit():
            # A restart policy may have it run again before anybody looks.
            container.last_exit_code = int(attributes["exitCode"])
        if what == "start" and container.seen.status == RUNNING:
            # Seen already; had it died in between, the event of that is being dealt with.
            since = int(event.get("timeNano") or 0) - container.began
            if 0 <= since < 10 * _SECOND:
                return
        self._look_again(container)

    def _on_stranger(self, engine: Engine, what: str, identity: str, uuid: str) -> None:
        """A container of ours that is not known: its creation was under way when this server died, or still
        is."""
        if what not in ("create", "start") or not uuid:
            return
        container = self._containers[uuid] = _Container(uuid, engine, Observed(uuid, ""))
        self._identify(container, identity)
        self._look_again(container)

    def _look_again(self, container: _Container) -> None:
        if container.stale:
            return
        container.stale = True
        if not container.calls:
            self._spawn(self._refresh(container))

    def _spawn(self, work: Coroutine[Any, Any, object]) -> None:
        async def run() -> None:
            try:
                await work
            except BackendError:
                pass  # the engine is away: all is looked at again when it is back
            except docker.errors.NotFound:
                pass

        task = asyncio.get_running_loop().create_task(run())
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    # -- images

    async def image(self, image: str, node: str) -> ImageInfo:
        info = await self._engine(node).image(image)
        self._images[image] = info
        return info

    def _check_images(self, engine: Engine) -> None:
        """Soon, look whether the images of our containers are still those behind their names."""
        if engine in self._image_checks or self._watcher is None:
            return
        self._image_checks.add(engine)

        async def check() -> None:
            try:
                # A pull tells several times.
                await asyncio.sleep(_IMAGE_PAUSE)
            finally:
                self._image_checks.discard(engine)
            used: dict[str, set[str]] = {}
            for c in self._containers.values():
                if c.engine is engine and c.spec is not None and c.seen.image_id:
                    used.setdefault(c.spec.image, set()).add(c.seen.image_id)
            for image, ids in used.items():
                found = await engine.inspect_image(image)
                if found is None or ids == {found.id} or self._announced.get(image) == found.id:
                    continue
                self._announced[image] = found.id
                if self._watcher is not None:
                    self._watcher.image_changed(image)

        self._spawn(check())

    # -- containers

    async def containers(self) -> list[Observed]:
        return [c.seen for c in self._containers.values() if c.seen.status not in ("", GONE)]

    def _engine(self, node: str) -> Engine:
        engine = self._by_node.get(node)
        if engine is None:
            raise BackendError("the node is not one of this server's any more")
        return engine

    def _of(self, uuid: str) -> tuple[_Container, Engine]:
        container = self._containers.get(uuid)
        if container is None:
            raise BackendError("No such container")
        if container.engine is None:
            raise BackendError("the container's node is not one of this server's any more")
        return container, container.engine

    @contextlib.contextmanager
    def _calling(self, container: _Container) -> Any:
        """While a call about it is in progress, what happens to it is looked at once, afterwards."""
        container.calls += 1
        try:
            yield
        finally:
            container.calls -= 1
            if container.stale and not container.calls and self._containers.get(container.uuid) is container:
                self._spawn(self._refresh(container))

    async def create(self, spec: ContainerSpec) -> Observed:
        container = self._containers.get(spec.uuid)
        if container is not None and container.id:
            container.spec = spec
            with self._calling(container):
                seen = await self._refresh(container)
            if seen.status != GONE:
                return seen
        engine = self._engine(spec.node)
        joined = self._is_linked(engine, spec)
        config = await self._config(engine, spec, joined=joined)
        # Known from now on: the event of its creation can come before the answer.
        container = self._containers.get(spec.uuid)
        if container is None:
            container = self._containers[spec.uuid] = _Container(spec.uuid, engine, Observed(spec.uuid, ""))
        container.spec, container.joined = spec, joined
        with self._calling(container):
            try:
                async with _turn(self._creates, engine):
                    identity, made = await self._make(engine, spec, config)
            except BaseException:
                if not container.id and self._containers.get(spec.uuid) is container:
                    del self._containers[spec.uuid]
                raise
            self._identify(container, identity)
            if not made:
                return await self._refresh(container)
            container.seen = Observed(
                spec.uuid,
                CREATED,
                node=spec.node,
                backend_id=identity,
                revision=spec.revision,
                service_uuid=spec.service_uuid,
            )
            return container.seen

    async def _make(self, engine: Engine, spec: ContainerSpec, config: dict[str, Any]) -> tuple[str, bool]:
        """Create a container: its id, and whether it is new."""
        name = container_name(spec)

        def make(client: Any) -> tuple[str, bool]:
            for _ in range(50):
                try:
                    return str(client.create_container_from_config(config, name)["Id"]), True
                except docker.errors.APIError as error:
                    if error.status_code != 409:
                        raise
                # The name is taken: by this very container, if its creation was begun before.
                with contextlib.suppress(docker.errors.NotFound):
                    found = client.inspect_container(name)
                    if found["Config"]["Labels"].get(CONTAINER) == spec.uuid:
                        return str(found["Id"]), False
                    raise BackendError(f"another container has the name {name}")
                time.sleep(0.1)
            raise BackendError(f"the name {name} is taken, and no container has it", transient=True)

        try:
            try:
                return await engine.call(make)
            except docker.errors.NotFound as error:
                if self._network not in str(error.explanation):
                    raise
                await self._ensure_network(engine)
                return await engine.call(make)
        except docker.errors.NotFound as error:
            raise BackendError(plain(str(error.explanation))) from None

    def _is_linked(self, engine: Engine, spec: ContainerSpec) -> bool:
        """Whether a container is to be made in the server's network: for links, or for want of another."""
        linked = spec.links or spec.linked_as or spec.uuid in self._expected
        return spec.network != "host" and (bool(linked) or engine not in self._with_default)

    async def _config(self, engine: Engine, spec: ContainerSpec, *, joined: bool) -> dict[str, Any]:
        """The body with which a container is created.

        Args:
            joined: it is to be in the server's network.
        """
        client = engine.client
        info = self._images.get(spec.image)
        if info is None and not spec.entrypoint:
            info = self._images[spec.image] = await engine.image(spec.image)
        command = command_of(spec, info)
        bridge = spec.network != "host"
        bindings: dict[str, list[tuple[str, int]]] = {}
        for port in spec.ports if bridge else ():
            if port.outer_port is not None:
                place = f"{port.inner_port}/{port.protocol}"
                bindings.setdefault(place, []).append((self._publish_address, port.outer_port))
        mounts, binds = self._mounts(spec)
        host = client.create_host_config(
            network_mode=self._network if joined else _DEFAULT if bridge else "host",
            port_bindings=bindings or None,
            mounts=mounts or None,
            binds=binds or None,
            mem_limit=f"{spec.memory}m" if spec.memory else None,
            memswap_limit=f"{spec.memory}m" if spec.memory else None,
            cpu_shares=spec.cpu_shares,
            pid_mode="host" if spec.pid == "host" else None,
            privileged=spec.privileged,
            restart_policy={"Name": _RESTART[spec.autorestart]},
            init=command.init,
            extra_hosts=self._hosts(spec) if not bridge else None,
        )
        networking = None
        if joined:
            endpoint = client.create_endpoint_config(aliases=aliases(spec), links=link_names(spec.links))
            networking = client.create_networking_config({self._network: endpoint})
        config: dict[str, Any] = client.create_container_config(
            image=spec.image,
            command=command.arguments,
            entrypoint=command.entrypoint,
            working_dir=spec.working_dir,
            environment=[f"{name}={value}" for name, value in spec.environment.items()],
            hostname=spec.hostname,
            labels=labels(self._server_id, spec),
            ports=[(port.inner_port, port.protocol) for port in spec.ports] if bridge else None,
            healthcheck=native_check(spec.healthcheck),
            host_config=host,
            networking_config=networking,
        )
        # docker-py's own parameter for it is refused by engines that it believes to be too old.
        config["StopTimeout"] = self._stop_seconds
        return config

    def _hosts(self, spec: ContainerSpec) -> list[str]:
        """The names of links for a container in the machine's own network, which has no DNS of the engine's:
        with the addresses of now, in its /etc/hosts."""
        found = []
        for link in spec.links:
            for ordinal, uuid in link.containers:
                target = self._containers.get(uuid)
                if target is not None and target.seen.address and target.seen.node == spec.node:
                    names = (link.name, f"{link.name}-{ordinal}")
                    both = dict.fromkeys((*names, *map(str.lower, names)))
                    found += [f"{name}:{target.seen.address}" for name in both]
        return found

    def _mounts(self, spec: ContainerSpec) -> tuple[list[Any], list[str]]:
        made = {SERVER: self._server_id, SERVICE: spec.service_uuid}
        mounts, binds = [], []
        for volume in spec.volumes:
            readonly = not volume.rewritable
            if volume.volume:
                mounts.append(
                    Mount(
                        volume.container_path, volume.volume, type="volume", read_only=readonly, labels=made
                    )
                )
            elif volume.host_path and ":" in volume.host_path + volume.container_path:
                mounts.append(Mount(volume.container_path, volume.host_path, type="bind", read_only=readonly))
            elif volume.host_path:
                # Unlike a mount, this makes a folder that is not there yet.
                binds.append(f"{volume.host_path}:{volume.container_path}:{'ro' if readonly else 'rw'}")
        return mounts, binds

    async def start(self, uuid: str) -> Observed:
        container, engine = self._of(uuid)
        with self._calling(container):
            try:
                await self._join_for_links(engine, container)
                async with _turn(self._starts, engine):
                    await self._start(container, engine)
            except docker.errors.NotFound as error:
                text = plain(str(error.explanation))
                if "no such container" in text.lower():
                    self._gone(container, "")
                    raise BackendError("the container was removed from the engine") from None
                raise self._start_error(container, text) from None
            except BackendError as error:
                if error.transient:
                    raise
                raise self._start_error(container, str(error)) from None
            return await self._refresh(container)

    async def _start(self, container: _Container, engine: Engine) -> None:
        try:
            await engine.call(lambda client: self._begin(client, container))
        except (BackendError, docker.errors.NotFound) as error:
            spec = container.spec
            if re.search(r"network \S+ not found", str(error)) and spec is not None:
                # Somebody has removed it, as `docker system prune` does; the container knows it by its id.
                await self._ensure_network(engine)
                await engine.call(lambda client: self._join(client, container.id, spec, leave=True))
            elif _HALF_STARTED.search(str(error)) and spec is not None:
                await engine.call(lambda client: client.remove_container(container.id, force=True), slow=True)
                config = await self._config(engine, spec, joined=container.joined)
                identity, _ = await self._make(engine, spec, config)
                self._identify(container, identity)
            else:
                raise
            await engine.call(lambda client: self._begin(client, container))

    def _begin(self, client: Any, container: _Container) -> None:
        if container.seen.status == EXITED and container.restart != _NO_RESTART:
            client.update_container(container.id, restart_policy=container.restart)
        client.start(container.id)

    def _halt(self, client: Any, container: _Container) -> None:
        if container.restart != _NO_RESTART:
            # When the engine is itself started, it starts such a container too, though it was told to stop;
            # with `on-failure`, if it ended by the signal. (It does not with `unless-stopped`; but those do
            # not come back when the engine has crashed.)
            client.update_container(container.id, restart_policy=_NO_RESTART)
        client.stop(container.id, timeout=self._stop_seconds)

    def _start_error(self, container: _Container, text: str) -> BackendError:
        spec, taken = container.spec, taken_port(text)
        if taken is not None and spec is not None:
            protocol, number = taken
            ports = [(p.protocol, number) for p in spec.ports if p.outer_port == number]
            ports = [p for p in ports if p[0] == protocol] or ports
            return PortTaken(f"port {number} is already in use on the node", ports)
        if spec is not None and spec.privileged and "operation not permitted" in text:
            return BackendError(f"the machine does not permit a privileged container: {text}")
        return BackendError(text)

    async def stop(self, uuid: str) -> Observed:
        container = self._containers.get(uuid)
        if container is None:
            return Observed(uuid, GONE)
        engine = container.engine
        if engine is None:
            return self._gone(container, "its node is not one of this server's any more")
        with self._calling(container):
            try:
                await engine.call(lambda client: self._halt(client, container), slow=True)
            except docker.errors.NotFound:
                return self._gone(container, "")
            return await self._refresh(container)

    async def remove(self, uuid: str, *, volumes: Sequence[str] = ()) -> None:
        container = self._containers.get(uuid)
        if container is None or container.engine is None:
            if container is not None:
                self._gone(container, "")
            engines = [e for e in self._engines if e.up] if volumes else []
        else:
            engine, identity = container.engine, container.id
            engines = [engine]
            alive = container.seen.status in (RUNNING, RESTARTING, WAITING) or container.stale
            container.calls += 1  # until the end: nobody needs to be told
            try:
                await engine.call(lambda client: self._end(client, identity, alive), slow=True)
            except BaseException:
                container.calls -= 1
                raise
            self._gone(container, "")
        for engine in engines:
            doomed = self._doomed.setdefault(engine, set())
            doomed.update(volumes)
            if doomed:
                await self._remove_volumes(engine, doomed)

    def _end(self, client: Any, identity: str, alive: bool) -> None:
        """A container's end: it may tidy up first, for a while."""
        with contextlib.suppress(docker.errors.NotFound):
            if alive:
                client.stop(identity, timeout=self._stop_seconds)
            try:
                client.remove_container(identity, force=True, v=True)
            except docker.errors.APIError as error:
                if error.status_code != 409:
                    raise
                # Somebody else removes it.
                for _ in range(600):
                    client.inspect_container(identity)
                    time.sleep(0.1)
                raise

    async def _remove_volumes(self, engine: Engine, doomed: set[str]) -> None:
        """Remove what is not in use; what is, stays doomed until the last user is removed."""

        def remove(client: Any) -> set[str]:
            done = set()
            for volume in list(doomed):
                try:
                    client.remove_volume(volume)
                except docker.errors.NotFound:
                    pass
                except docker.errors.APIError as error:
                    if error.status_code != 409:
                        raise
                    continue
                done.add(volume)
            return done

        doomed -= await engine.call(remove)

    async def sweep(self, kept: Callable[[], Collection[str]]) -> None:
        ours = {"label": f"{SERVER}={self._server_id}"}
        for engine in self._engines:
            if engine.up:
                found = await engine.call(lambda client: client.volumes(filters=ours)["Volumes"] or ())
                doomed = self._doomed.setdefault(engine, set())
                doomed.update({v["Name"] for v in found}.difference(kept()))
                if doomed:
                    await self._remove_volumes(engine, doomed)

    async def relink(self, uuid: str, links: Sequence[LinkSpec]) -> None:
        container, engine = self._of(uuid)
        if container.spec is None or container.spec.network == "host":
            return
        spec = container.spec = dataclasses.replace(container.spec, links=tuple(links))
        identity, wanted = container.id, link_names(spec.links)

        def relink(client: Any) -> bool:
            found = _networks(client.inspect_container(identity)).get(self._network)
            have = {tuple(entry.split(":", 1)) for entry in (found or {}).get("Links") or ()}
            # Names that are not needed do no harm while their link is there; names of a link that went must
            # go.
            if (
                (found is not None or not wanted)
                and set(wanted) <= have
                and {a for _, a in have if _ not in dict(wanted)} == set()
            ):
                return False
            self._join(client, identity, spec, leave=found is not None)
            return True

        with self._calling(container):
            try:
                await self._join_targets(engine, spec)
                if await engine.call(relink):
                    await self._refresh(container)
            except docker.errors.NotFound:
                raise BackendError("the container is gone") from None

    async def _join_for_links(self, engine: Engine, container: _Container) -> None:
        """Before a container starts: it and those to which its links lead are in the server's network."""
        if container.spec is not None:
            await self._join_targets(engine, container.spec)
        if container.uuid in self._expected:
            await self._join_late(engine, container)
            self._expected.discard(container.uuid)

    async def _join_targets(self, engine: Engine, spec: ContainerSpec) -> None:
        """See to it that the containers to which a container's links lead are in the server's network."""
        if spec.network == "host":
            return
        late = []
        for uuid in {uuid for link in spec.links for _, uuid in link.containers}:
            target = self._containers.get(uuid)
            if target is None or not target.id:
                self._expected.add(uuid)
            elif target.engine is engine and not target.joined:
                late.append(self._join_late(engine, target))
        await asyncio.gather(*late)

    async def _join_late(self, engine: Engine, container: _Container) -> None:
        """Have a container that was made without links join the server's network.

        Raises:
            BackendError: it cannot. One that is gone, or about to be, is no error.
        """
        async with container.joining:
            spec = container.spec
            if container.joined or spec is None or spec.network == "host":
                return
            try:
                await self._connect(engine, container.id, spec)
            except (BackendError, docker.errors.NotFound) as error:
                found = readable(error)
                reason = f"{spec.name} cannot be linked to: {found}"
                raise BackendError(reason, transient=found.transient) from None
            await self._refresh(container)

    async def _connect(self, engine: Engine, identity: str, spec: ContainerSpec) -> None:
        def connect(client: Any) -> None:
            try:
                self._join(client, identity, spec, leave=False)
            except docker.errors.APIError as error:
                if not _JOINED_OR_GOING.search(str(error.explanation)):
                    raise

        try:
            await engine.call(connect)
        except docker.errors.NotFound as error:
            if self._network in str(error.explanation):
                await self._ensure_network(engine)
                await engine.call(connect)

    def _join(self, client: Any, identity: str, spec: ContainerSpec, *, leave: bool) -> None:
        """Connect a container to the network, with its names and those of its links."""
        if leave:
            client.disconnect_container_from_network(identity, self._network, force=True)
        client.connect_container_to_network(
            identity, self._network, aliases=aliases(spec), links=link_names(spec.links)
        )

    # -- logs and commands

    async def logs(
        self, uuid: str, *, tail: int | None, follow: bool
    ) -> AsyncGenerator[Sequence[LogLine], None]:
        container = self._containers.get(uuid)
        if container is None or container.engine is None:
            return
        position, limit, behind = "", tail, follow
        while True:
            path = f"/containers/{container.id}/logs"
            try:
                end = await container.engine.log_end(path) if behind else ""
                if behind and (tail == 0 or not end):
                    position, limit, behind = end, None, False
                    yield ()
                source = container.engine.logs(path, tail=limit, follow=follow, after=position)
                async with contextlib.aclosing(source):
                    async for lines, reached in source:
                        position, limit = reached, None
                        if lines:
                            yield lines
                        if behind and reached >= end:
                            behind = False
                            yield ()
            except docker.errors.NotFound:
                return
            except BackendError as error:
                if not (follow and error.transient):
                    raise
            if not follow:
                return
            if behind:
                behind = False
                yield ()
            # The stream ends with each run of the container, and with the engine.
            while not self._may_write(container):
                if container.seen.status == GONE:
                    return
                await is_set_within(1.0, container.news)
            # Ended while it seems to run: its end is about to be seen.
            await asyncio.sleep(0.05)

    @staticmethod
    def _may_write(container: _Container) -> bool:
        return container.seen.status == RUNNING and container.engine is not None and container.engine.up

    async def exec(self, uuid: str, command: Sequence[str], *, tty: bool = False) -> ExecSession:
        container, engine = self._of(uuid)
        if container.seen.status != RUNNING:
            raise BackendError("the container does not run")
        return await engine.exec(container.id, command, tty=tty)


@contextlib.asynccontextmanager
async def _turn(turns: Mapping[Engine, asyncio.Semaphore], engine: Engine) -> AsyncGenerator[None, None]:
    """One of the calls of a kind that an engine is to carry out at the same time.

    Raises:
        BackendError: transient, the engine was never there.
    """
    places = turns.get(engine)
    if places is None:
        raise engine.unreachable()
    await places.acquire()
    with contextlib.ExitStack() as held:
        held.callback(places.release)
        held.callback(asyncio.get_running_loop().call_later(_TURN_SECONDS, held.close).cancel)
        yield


def _is_loopback(address: str) -> bool:
    with contextlib.suppress(ValueError):
        return ipaddress.ip_address(address).is_loopback
    return address == "localhost"


# -- rules ---------------------------------------------------------------------------------------------------


def container_name(spec: ContainerSpec) -> str:
    """Its name on the engine: readable, and never that of its predecessor."""
    return f"{spec.name}.{spec.uuid[:8]}"


#: An engine's network driver, its proxy, and what does both since version 28.
_TAKEN = re.compile(
    r":(\d+)(?: failed: port is already allocated|: bind: address already in use)"
    r"|failed to bind host port (?:for )?(?:\[[^]]*\]|[^:\s]*):(\d+)\S*: address already in use"
)


def taken_port(text: str) -> tuple[str, int] | None:
    """The outer port that an engine found in use when it started a container, with its protocol ("" where
    that is not told); None: it could not start it for another reason."""
    found = _TAKEN.search(text)
    if found is None:
        return None
    protocol = re.search(r"(?:listen |/)(tcp|udp)", text)
    return protocol[1] if protocol else "", int(found[1] or found[2])


def aliases(spec: ContainerSpec) -> list[str]:
    """The names that a container has in the network; see the module's docstring."""
    return [spec.service_uuid, f"{spec.service_uuid}-{spec.ordinal}"]


def link_names(links: Iterable[LinkSpec]) -> list[tuple[str, str]]:
    """(name in the network, name that the container itself uses for it), for all links of a container."""
    found: dict[str, str] = {}
    for link in links:
        if not link.service_uuid:
            continue
        highest = max((ordinal for ordinal, _ in link.containers), default=0)
        # In steps, so that scaling rarely asks for more.
        highest = (highest // _ROOM + 1) * _ROOM
        for name in dict.fromkeys((link.name, link.name.lower())):
            found[name] = link.service_uuid
            found.update((f"{name}-{n}", f"{link.service_uuid}-{n}") for n in range(1, highest + 1))
    return [(target, name) for name, target in found.items()]


def observed(inspected: Mapping[str, Any], node: str, network: str) -> Observed:
    """A container as the engine describes it."""
    state, config = inspected["State"], inspected["Config"]
    made = config.get("Labels") or {}
    if state.get("Restarting"):
        status = RESTARTING
    elif state.get("Running"):
        status = RUNNING
    else:
        status = CREATED if state.get("Status") == "created" else EXITED
    code = int(state.get("ExitCode") or 0) if status in (EXITED, RESTARTING) else None
    reason = plain(state.get("Error") or "") if status != RUNNING else ""
    if state.get("OOMKilled") and status in (EXITED, RESTARTING):
        reason = "out of memory"
    health = (state.get("Health") or {}).get("Status")
    healthy = {"healthy": True, "unhealthy": False}.get(health or "") if status == RUNNING else None
    detail = ""
    if health and status == RUNNING:
        variables = dict(entry.partition("=")[::2] for entry in config.get("Env") or ())
        test = (config.get("Healthcheck") or {}).get("Test") or ()
        detail = engine_detail(state["Health"], test, hidden_values(variables))
    networks = _networks(inspected)
    return Observed(
        made.get(CONTAINER, ""),
        status,
        exit_code=code,
        reason=reason,
        node=node,
        healthy=healthy,
        backend_id=inspected["Id"],
        address=next((ip for name in (network, _DEFAULT) if (ip := _address_in(networks, name))), ""),
        image_id=inspected.get("Image", ""),
        revision=made.get(REVISION, ""),
        service_uuid=made.get(SERVICE, ""),
        restarts=int(inspected.get("RestartCount") or 0),
        health_detail=detail,
    )


def _networks(inspected: Mapping[str, Any]) -> Mapping[str, Any]:
    """The networks of a container, by name."""
    found: Mapping[str, Any] = (inspected.get("NetworkSettings") or {}).get("Networks") or {}
    return found


def _address_in(networks: Mapping[str, Any], name: str) -> str:
    return str((networks.get(name) or {}).get("IPAddress") or "")


def _inspect(client: Any, identity: str) -> dict[str, Any]:
    """A container; with the init's words when that could not run the command, which the engine does not
    know."""
    found: dict[str, Any] = client.inspect_container(identity)
    state = found["State"]
    if state.get("ExitCode") in (126, 127) and not state.get("Error") and not state.get("Running"):
        with contextlib.suppress(docker.errors.APIError):
            words = client.logs(identity, stdout=False, tail=1).decode("utf-8", "replace")
            if match := re.match(r"\[FATAL tini \(\d+\)\] (.+)", words):
                state["Error"] = match[1]
    return found


def _nanoseconds(stamp: str) -> int:
    whole, _, fraction = seconds(stamp).partition(".")
    return int(whole) * _SECOND + int(fraction or 0) if whole else 0
