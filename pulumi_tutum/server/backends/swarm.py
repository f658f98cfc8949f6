"""Containers on the nodes of a Docker Swarm.

Each container is a swarm service of one replica: replicas of one swarm service would have no names of their
own, no exit codes, and could not be stopped one by one. It carries labels (engine.py), which join what the
swarm has with what the control plane remembers.

A constraint binds it to the node that the control plane chose. Once it runs, the constraint is removed from a
container that is `movable`: this does not restart it, and from then on the swarm itself moves it when its
node dies or is drained, also while no control plane runs. The control plane only learns where it is.

  created    nothing in the swarm yet, but a place in its networks
  started    one replica; each start counts up `ForceUpdate`, so that its tasks can be told from earlier ones
  stopped    a constraint that no node meets. With no replica the swarm would forget the task, and with it
             exit code and logs. What a stopped container has outside of volumes is gone all the same

Ports are published in host mode, names are resolved by dnsrr: neither needs the kernel's IPVS. Names: see
overlays.py.

A manager is asked for all tasks at once: while something is on its way as often as pace.py says, else every
few seconds. Managers tell of changes of services and nodes, engines that are known of their containers,
nobody of tasks. Other engines need not be known (`--node NAME=URL`), but only through a node's own engine can
commands be run in its containers and volumes be removed from it; elsewhere a short task empties them."""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
import functools
import json
import logging
import math
import re
import secrets
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Collection, Coroutine, Mapping, Sequence
from contextlib import aclosing
from dataclasses import dataclass, field
from typing import Any, ClassVar, TypeVar

import docker

from ...errors import BackendError, ConfigError, Problem
from ..clock import at_most, is_set_within
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
    tasks,
    waits_for,
)
from .engine import (
    CONTAINER,
    ORDINAL,
    REVISION,
    SERVER,
    SERVICE,
    Address,
    Engine,
    addresses,
    command_of,
    image_info,
    labels,
    short_id,
    unfit,
)
from .health import HealthChecks, native_check, published_at, published_port_is_probed
from .overlays import Ambiguous, Link, Place, place
from .pace import Pace
from .policy import Policy
from .tasks import PIN, STOPPED, Task, Verdict

log = logging.getLogger("pulumi_tutum.server")

T = TypeVar("T")

#: Labels of services beside those of engine.py: the image's ID and what stands for it in the service, the
#: container's network and links, the volume that a task is to empty.
IMAGE, REFERENCE = "io.tutum.image", "io.tutum.reference"
NETWORK, LINKS, EMPTIES = "io.tutum.network", "io.tutum.links", "io.tutum.empties"
#: The revision of what somebody else has changed.
_CHANGED = "changed by hand"

#: Seconds between two looks at the tasks: the limits while something is on its way, and otherwise. (A look
#: must come within the delay of the policy of `autorestart` OFF.)
_BUSY, _BUSY_MOST, _IDLE_LEAST, _IDLE_MOST = 0.15, 0.5, 1.0, 2.5
#: The swarm knows what an engine has told after the first of these, and at the latest after the second.
_REPORTED, _UNREPORTED = 0.15, 1.5
#: The swarm lets so many seconds pass before it ends what is in an overlay network, so that the others' DNS
#: forgets it first.
_FORGETTING = 2.0
#: Seconds between two looks at all services, nodes and networks; events make it sooner.
_RELIST = 10.0
_ALL = frozenset({"nodes", "services", "networks"})
#: Events of a service that come so soon after a change of ours tell of that. They may also tell of another
#: change: all services are listed so much later.
_OWN, _DOUBT = 1.0, 3.0
#: Containers that begin to run within so many seconds are freed together, at most so many.
_TOGETHER, _AT_ONCE = 1.0, 100
#: What keeps a task from being placed must last this long: a predecessor may just be going.
_PATIENCE = 6.0
#: What runs for so long has started.
_MOMENT = 0.3
#: A node's engine is asked so often whether it is done, with pauses of `_BUSY`.
_REMOVAL_TRIES = 50
#: Seconds that a network is kept when nobody is in it: others may come.
_NETWORK_PAUSE = 3.0
#: Seconds after which a network is tried again that somebody was still in.
_NETWORK_AGAIN = 1.0
#: Seconds that a server which remembers nothing takes at most to remove what it made.
_TIDYING = 20.0
_SOON = Pace(_BUSY, _BUSY_MOST)
_SECOND = 1_000_000_000
_ONE = {"Replicated": {"Replicas": 1}}
_EVENTS = {"type": ["service", "node", "container", "image"]}
_IMAGE_EVENTS = frozenset({"tag", "load", "pull", "import"})
#: Beginnings of those events of containers after which their tasks are others.
_TELLING = ("start", "die", "destroy", "oom", "pause", "unpause", "health_status")


@dataclass
class _Container:
    """A container as this backend knows it.

    Attributes:
        id: of its swarm service.
        node: uuid of the node it is bound to; "" when it may be moved.
        run: how often it has been started.
        stopped: nothing of it is to run.
        tasks: of the swarm service, oldest first, as the swarm describes them.
        verdict: what they mean.
        superseded: IDs of tasks that the swarm gave up before they ended, as long as it knows them.
        blocked_at: since when its node has not taken it (the loop's clock).
        is_awaited: somebody waits for its start.
        starting_at: since when its task may have been in the last state before it runs; 0.0: it is not.
        starting_stamp: the same by the clock of its node.
        told_at: when its engine told something that cannot be seen in the swarm yet; 0.0: nothing.
        changed_at: when its service was last changed by this backend.
        calls: calls about it that are in progress.
        adjusting: its service is being changed because of what was seen of it.
        news: set, and replaced, when something has changed.
    """

    uuid: str
    seen: Observed
    id: str = ""
    node: str = ""
    spec: ContainerSpec | None = None
    place: Place | None = None
    restart: str = "none"
    memory: int = 0
    run: int = 0
    stopped: bool = True
    tasks: list[Task] = field(default_factory=list)
    verdict: Verdict = field(default_factory=lambda: Verdict(None))
    superseded: set[str] = field(default_factory=set)
    blocked_at: float = 0.0
    is_awaited: bool = False
    starting_at: float = 0.0
    starting_stamp: float = 0.0
    told_at: float = 0.0
    changed_at: float = 0.0
    calls: int = 0
    adjusting: bool = False
    news: asyncio.Event = field(default_factory=asyncio.Event)


@dataclass(frozen=True)
class _Node:
    """A node of the swarm: its ID there, and what it is for the control plane.

    Attributes:
        is_tagged: constraints can name all its tags.
    """

    id: str
    described: BackendNode
    is_tagged: bool = True


def open_backend(
    *,
    nodes: Sequence[str] = (),
    allow: Sequence[str] = (),
    publish_address: str = "127.0.0.1",
    pull: str = "missing",
    stop_seconds: int = 10,
    ephemeral: bool = False,
) -> SwarmBackend:
    """The backend as `serve` is told to set it up; see `SwarmBackend`.

    Raises:
        ConfigError: an option that cannot be.
    """
    if publish_address not in ("127.0.0.1", "0.0.0.0", "::"):
        raise ConfigError(
            "--publish-address: a swarm publishes ports at every address of a node; use --backend docker, "
            "or a firewall"
        )
    if publish_address == "127.0.0.1":
        log.warning(
            "a swarm publishes ports at every address of its nodes, not only at 127.0.0.1; "
            "a firewall can keep others out (--publish-address 0.0.0.0 silences this)"
        )
    found = addresses(nodes)
    if any(address.tags for address in found):
        raise ConfigError(
            "--node: tags of a swarm's nodes are labels in the swarm; set them with `pulumi-tutum nodes`"
        )
    return SwarmBackend(
        found, policy=Policy.parse(allow), pull=pull, stop_seconds=stop_seconds, ephemeral=ephemeral
    )


class SwarmBackend:
    """See the module's docstring.

    Args:
        nodes: where engines are; at least one is a manager of the swarm.
        policy: what services may ask of the nodes' machines.
        pull: when images are pulled: `missing`, `always` or `never`.
        stop_seconds: how long a container may take to end before it is killed.
        ephemeral: nothing is remembered beyond this process, so everything goes when it closes.
    """

    name: ClassVar[str] = "swarm"
    overlay: ClassVar[bool] = False
    moves: ClassVar[bool] = True

    def __init__(
        self,
        nodes: Sequence[Address],
        *,
        policy: Policy | None = None,
        pull: str = "missing",
        stop_seconds: int = 10,
        ephemeral: bool = False,
    ) -> None:
        self._policy = policy or Policy()
        self._pull = pull
        self._stop_seconds = stop_seconds
        self._ephemeral = ephemeral
        self._engines = [Engine(address, pull=pull) for address in nodes]
        self._nodes: dict[str, _Node] = {}
        self._containers: dict[str, _Container] = {}
        self._by_id: dict[str, _Container] = {}
        self._leaving: set[str] = set()
        #: Services that empty volumes, and the nodes (uuid) that these are on.
        self._emptying: dict[str, str] = {}
        #: By number; those that nobody is in, and since when (the loop's clock).
        self._networks: dict[int, str] = {}
        self._idle_networks: dict[int, float] = {}
        self._removed_networks: set[str] = set()
        self._network_lock = asyncio.Lock()
        self._tagging = asyncio.Lock()
        self._joining: dict[int, int] = {}
        #: What the manager has under a name, as it was when a container was to be made from it.
        self._images: dict[str, Mapping[str, Any]] = {}
        self._announced: dict[str, str] = {}
        self._tasks: set[asyncio.Task[None]] = set()
        self._wake = asyncio.Event()
        #: What is to be listed at the next look; services also at a later one.
        self._stale: frozenset[str] = _ALL
        self._doubts_at = math.inf
        self._nodes_doubtful = asyncio.Event()
        self._nodes_asked = self._nodes_seen = 0
        self._listed_at = 0.0
        #: When the next look is due, and looks that somebody waits for (the loop's clock).
        self._due_at = 0.0
        self._wanted: list[float] = []
        #: When the last look began that has ended.
        self._seen_at = 0.0
        self._looked = asyncio.Event()
        #: The last state before a container runs; the end of one (whether it is in an overlay network).
        self._starts = Pace(_BUSY, _BUSY_MOST)
        self._ends = {True: Pace(_BUSY, _BUSY_MOST, _FORGETTING), False: Pace(_BUSY, _BUSY_MOST)}
        self._is_freeing = False
        self._server_id = ""
        self._ours: dict[str, str] = {}
        self._known: dict[str, tuple[ContainerSpec, Observed]] = {}
        self._all_tasks: list[Task] = []
        self._making: dict[str, asyncio.Task[None]] = {}
        self._watcher: Watcher | None = None
        self._health = HealthChecks(self._verdict_changed)

    # -- life

    async def open(
        self, server_id: str, watcher: Watcher, known: Sequence[tuple[ContainerSpec, Observed]]
    ) -> None:
        self._server_id = server_id
        self._ours = {"label": f"{SERVER}={server_id}"}
        await asyncio.gather(*(self._open(engine) for engine in self._engines))
        manager = self._manager()
        if manager is None:
            trouble = next((e.trouble for e in self._engines if not e.up), "") or (
                f"{self._engines[0]} is not a swarm manager: make it one (docker swarm init)"
            )
            await self.close()
            raise BackendError(f"{trouble}, or say where one is: --node URL")
        # What is known helps to understand what is found, and to remove what is left of what is not.
        # Only what is found counts.
        self._known = {spec.uuid: (spec, seen) for spec, seen in known}
        await self._list()
        await self._look()
        self._watcher = watcher
        self._spawn(self._follow())
        self._spawn(self._follow_nodes())

    async def _open(self, engine: Engine) -> None:
        async def on_up() -> None:
            self._images.clear()
            self._look_again()

        await engine.open(
            filters=_EVENTS,
            on_event=lambda event: self._on_event(engine, event),
            on_up=on_up,
            on_down=self._look_again,
        )

    async def close(self) -> None:
        self._watcher = None
        if self._ephemeral and self._manager() is not None and self._seen_at:
            try:
                await at_most(_TIDYING + self._stop_seconds, self._remove_all())
            except (BackendError, docker.errors.NotFound, TimeoutError) as error:
                log.warning("cannot tidy up the swarm", extra={"error": str(error)})
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        self._health.close()
        await asyncio.gather(*(engine.close() for engine in self._engines))

    async def _remove_all(self) -> None:
        """The end of a server that remembers nothing."""
        specs = [c.spec for c in self._containers.values() if c.spec]
        volumes = {mount.volume: spec.uuid for spec in specs for mount in spec.volumes if mount.volume}
        of = {uuid: [v for v, user in volumes.items() if user == uuid] for uuid in self._containers}
        await asyncio.gather(*(self.remove(uuid, volumes=own) for uuid, own in of.items()))
        await self.sweep(tuple)
        while any(map(self._answers, self._emptying.values())) or self._networks:
            await self._after_a_look(_BUSY)
            for number, identity in list(self._networks.items()):
                await self._remove_network(number, identity)
        # Nobody will wait for a node that does not answer.
        await asyncio.gather(*map(self._remove_service, self._emptying))

    # -- engines

    def _manager(self) -> Engine | None:
        """An engine that answers for the swarm."""
        return next((e for e in self._engines if e.up and e.facts.swarm.get("ControlAvailable")), None)

    async def _ask(self, function: Callable[[Any], Any], *, slow: bool = False) -> Any:
        """Carry out a function of docker-py's client at a manager."""
        manager = self._manager()
        if manager is None:
            raise BackendError("no manager of the swarm can be reached", transient=True)
        return await manager.call(function, slow=slow)

    def _engine_of(self, node: str) -> Engine | None:
        """The engine of a node (uuid), if it is known and answers."""
        found = self._nodes.get(node)
        if found is None:
            return None
        return next((e for e in self._engines if e.up and e.facts.swarm.get("NodeID") == found.id), None)

    @property
    def container_address(self) -> str:
        """An address of this machine at which containers can reach it; "" when it is no node of the swarm."""
        return next(
            (str(e.facts.swarm.get("NodeAddr", "")) for e in self._engines if e.up and not e.address.host), ""
        )

    # -- what services may ask for

    def refuse(self, definition: Mapping[str, Any]) -> list[Problem]:
        problems = list(unfit(definition))
        way_out = "is not supported by a swarm; use the docker backend, or"
        if definition.get("privileged"):
            problems.append(Problem("privileged", f"true {way_out} set it to false"))
        if definition.get("pid") == "host":
            problems.append(Problem("pid", f"host {way_out} set it to none"))
        if definition.get("cpu_shares"):
            value = definition["cpu_shares"]
            problems.append(Problem("cpu_shares", f"{value} {way_out} leave it out"))
        check = definition.get("healthcheck") or {}
        if "http" in check and not published_port_is_probed(definition, check):
            problems.append(Problem("healthcheck.http", "needs a published port in a swarm; or use command"))
        # What no operator could allow is not his to allow.
        said = {problem.path for problem in problems}
        problems += [problem for problem in self._policy.refuse(definition) if problem.path not in said]
        return [*problems, *self._refuse_links(definition)]

    def _refuse_links(self, definition: Mapping[str, Any]) -> list[Problem]:
        """Names that running containers would have to be restarted for, or that are taken."""
        problems: list[Problem] = []
        links = [
            (link["name"], link["to_service"].rstrip("/").rpartition("/")[2])
            for link in definition.get("linked_to_service") or ()
        ]
        others = []
        called: dict[str, str] = {}
        for c in self._containers.values():
            if c.place is None or c.spec is None:
                continue
            called[c.place.service] = c.spec.service_name
            if c.spec.service_name != definition.get("name"):
                others.append((c, c.place))
        for index, (name, target) in enumerate(links):
            where = f"linked_to_service[{index}].name"
            # One that is just being started has its names already.
            held = [p.names for c, p in others if p.service == target and (c.calls or not c.stopped)]
            if held and not all(name.lower() in names for names in held):
                fitting = sorted(frozenset.intersection(*held))
                known = f" {' or '.join(fitting)}, or" if fitting else ""
                problems.append(
                    Problem(
                        where,
                        f"'{name}' is not a name that the running containers of '{called[target]}' were made "
                        f"with, and a swarm can only give it to them by restarting them; use{known} stop "
                        f"'{called[target]}' before and start it afterwards",
                    )
                )
        if not problems:
            try:
                place("", names=(), niceties=(), links=links, others=[p for _, p in others])
            except Ambiguous as error:
                index = next(i for i, (name, _) in enumerate(links) if name == error.name)
                problems.append(Problem(f"linked_to_service[{index}].name", self._ambiguous(error)))
        return problems

    def _ambiguous(self, error: Ambiguous) -> str:
        names = {
            c.place.service: c.spec.service_name for c in self._containers.values() if c.place and c.spec
        }
        others = " and ".join(sorted(f"'{names.get(other, other)}'" for other in error.others))
        return (
            f"'{error.name}' also means {others} in the swarm network of another link; "
            "choose another name for this link, or run the services under different servers"
        )

    # -- nodes

    async def nodes(self) -> list[BackendNode]:
        return [node.described for node in self._nodes.values()]

    async def set_node_tags(self, node: str, tags: Sequence[str]) -> None:
        found = self._nodes.get(node)
        if found is None:
            raise BackendError("the node is not in the swarm any more")
        await self._change_tags(found.id, lambda present: tags)

    async def _complete_tags(self, node: str) -> None:
        """Give a node (its ID in the swarm) all the labels that its tags need."""
        await self._change_tags(node, lambda present: present)

    async def _change_tags(self, node: str, change: Callable[[Collection[str]], Collection[str]]) -> None:
        def update(client: Any) -> None:
            seen = client.inspect_node(node)
            spec = seen["Spec"]
            labels = spec.get("Labels") or {}
            kept = {k: v for k, v in labels.items() if not tasks.is_tag_label(k)}
            wanted = {**kept, **tasks.tag_labels(change(tasks.tags_in(labels)))}
            if wanted != labels:
                client.update_node(node, seen["Version"]["Index"], {**spec, "Labels": wanted})

        # In the order in which they were asked for.
        async with self._tagging:
            await self._in_sequence(update)
            # What was asked for is seen before anybody is told that it is done.
            await self._list_nodes()

    async def _in_sequence(self, update: Callable[[Any], Any]) -> Any:
        """Read, change, write; again when somebody else wrote in between."""
        for attempt in range(10):
            try:
                return await self._ask(update)
            except BackendError as error:
                if "out of sequence" not in str(error) or attempt == 9:
                    raise
                await asyncio.sleep(0.05 * (attempt + 1))

    # -- looking

    def _look_again(self, *what: str) -> None:
        """Soon, look at the tasks, and list these things, or all."""
        self._stale |= _ALL.intersection(what or _ALL)
        self._look_in(0.0)

    def _look_in(self, seconds: float) -> None:
        """Look at the tasks when that time has passed, or before."""
        due = asyncio.get_running_loop().time() + seconds
        if due < self._due_at:
            self._due_at = due
            self._wake.set()

    def _on_event(self, engine: Engine, event: Mapping[str, Any]) -> None:
        kind, actor = event.get("Type"), event.get("Actor") or {}
        action, now = str(event.get("Action")), asyncio.get_running_loop().time()
        if kind == "image":
            self._images.clear()
            if action in _IMAGE_EVENTS and engine is self._manager():
                self._spawn(self._check_images())
        elif kind == "container":
            told = actor.get("Attributes") or {}
            if told.get(SERVER) == self._server_id and action.startswith(_TELLING):
                container = self._containers.get(told.get(CONTAINER, ""))
                if container is not None:
                    container.told_at = now
                # A call that ends a container looks by itself.
                if container is None or container.is_awaited or not container.calls:
                    self._look_in(_REPORTED)
        elif kind == "node":
            self._nodes_doubtful.set()
        elif (container := self._by_id.get(actor.get("ID", ""))) is not None and not container.calls:
            if container.adjusting or (action != "remove" and now - container.changed_at < _OWN):
                self._doubts_at = min(self._doubts_at, now + _DOUBT)
            else:
                # Nobody of ours changes it, so it is somebody else who does.
                self._look_again("services")

    async def _follow(self) -> None:
        """Look at the swarm for as long as this backend is open."""
        loop = asyncio.get_running_loop()
        while True:
            began, self._due_at = loop.time(), math.inf
            took = 0.0
            try:
                if began - self._listed_at > _RELIST:
                    self._stale = _ALL
                elif began >= self._doubts_at:
                    self._stale |= {"services"}
                if self._stale:
                    await self._list()
                await self._tidy_networks()
                if self._wanted or self._emptying or any(c.id for c in self._containers.values()):
                    await self._look()
                took = loop.time() - began
                self._due_at = min(self._due_at, self._next_look(took))
            except (BackendError, docker.errors.NotFound) as error:
                log.debug("cannot look at the swarm: %s", error)
                self._stale = _ALL
                self._due_at = loop.time() + 0.5
                # Another node may be a manager by now.
                await asyncio.gather(*(engine.learn() for engine in self._engines if engine.up))
            except Exception:
                log.exception("looking at the swarm failed")
                self._due_at = loop.time() + _IDLE_MOST
            # However many ask for it, looking leaves time for other things.
            await asyncio.sleep(max(_BUSY, 3 * took))
            while (left := self._due_at - loop.time()) > 0:
                self._wake.clear()
                await is_set_within(left, self._wake)

    async def _follow_nodes(self) -> None:
        """List the nodes when a manager has told of one; most of what it tells changes nothing here."""
        while True:
            await self._nodes_doubtful.wait()
            self._nodes_doubtful.clear()
            try:
                await self._list_nodes()
            except (BackendError, docker.errors.NotFound):
                self._look_again()
            await asyncio.sleep(_BUSY)

    def _next_look(self, took: float) -> float:
        """When to look again (the loop's clock), after a look that took so long."""
        now = asyncio.get_running_loop().time()
        times = [self._listed_at + _RELIST, self._doubts_at, *self._wanted]
        times += [since + _NETWORK_PAUSE for since in self._idle_networks.values()]
        if self._stale:
            times.append(now + _BUSY)
        if any(map(self._answers, self._emptying.values())):
            times.append(now + _BUSY_MOST)
        if any(c.id for c in self._containers.values()):
            times.append(now + min(max(_IDLE_LEAST, 20 * took), _IDLE_MOST))
        for c in self._containers.values():
            if c.is_awaited and c.id:
                times.append(now + self._pause_of_start(c, now))
            elif c.calls == 0 and (now - c.told_at < _UNREPORTED or self._is_on_its_way(c)):
                times.append(now + _BUSY)
        return min(times)

    def _pause_of_start(self, container: _Container, now: float) -> float:
        """Seconds until the next look at a container whose start a caller waits for."""
        if container.told_at:
            return _SOON.pause(now - container.told_at)
        if self._engine_of(container.node) is not None:
            return _BUSY_MOST  # the engine reports the start
        expected = self._starts.first
        if container.starting_at:
            expected = self._starts.pause(now - container.starting_at)
        # The next one may be faster than those before it.
        return min(expected, _BUSY_MOST)

    def _is_on_its_way(self, container: _Container) -> bool:
        """Whether the swarm is about to do something about a container."""
        if container.seen.status == RESTARTING:
            return self._answers(container.node or container.seen.node)
        return container.seen.status == WAITING and not container.verdict.blocked and not container.node

    async def _after_a_look(self, seconds: float = 0.0) -> None:
        """Return when a look that began later than so many seconds from now has ended."""
        wanted = asyncio.get_running_loop().time() + seconds
        self._wanted.append(wanted)
        self._look_in(seconds)
        try:
            while self._seen_at <= wanted:
                looked = self._looked
                await is_set_within(1.0, looked)
        finally:
            self._wanted.remove(wanted)

    async def _list(self) -> None:
        """What the swarm has of what is stale: nodes, our services, networks."""
        what, self._stale = self._stale, frozenset()
        now = asyncio.get_running_loop().time()
        if "nodes" in what:
            await self._list_nodes()
        if "services" in what:
            self._doubts_at = math.inf
            await self._list_services()
        if "networks" in what:
            await self._list_networks()
        if what == _ALL:
            self._listed_at = now

    async def _list_nodes(self) -> None:
        self._nodes_asked += 1
        number = self._nodes_asked
        entries = await self._ask(lambda client: client.nodes())
        # Answers may overtake each other.
        if number > self._nodes_seen:
            self._nodes_seen = number
            before = self._nodes
            self._see_nodes(entries)
            if self._nodes != before:
                self._look_in(0.0)

    async def _list_services(self) -> None:
        before = dict(self._containers)
        services = await self._ask(lambda client: client.services(filters=self._ours))
        found = set()
        for entry in services:
            made = entry["Spec"].get("Labels") or {}
            if EMPTIES in made:
                self._emptying[entry["ID"]] = self._bound_to(entry["Spec"]["TaskTemplate"])
            elif (uuid := made.get(CONTAINER)) and entry["ID"] not in self._leaving:
                found.add(uuid)
                self._know(uuid, entry)
        for uuid, container in before.items():
            known = self._containers.get(uuid) is container and container.id and not container.calls
            if known and uuid not in found:
                self._gone(container, "it was removed from the swarm")

    def _know(self, uuid: str, entry: Mapping[str, Any]) -> None:
        """A service of ours as the swarm describes it."""
        container = self._containers.get(uuid)
        if container is None:
            spec, seen = self._known.get(uuid, (None, None))
            if seen is None or not seen.status:
                seen = Observed(uuid, CREATED)
            container = self._containers[uuid] = _Container(uuid, seen, spec=spec)
        elif container.calls:
            return
        self._identify(container, entry)

    def _identify(self, container: _Container, entry: Mapping[str, Any]) -> None:
        """Take over what a swarm service says about its container."""
        spec = entry["Spec"]
        made, task = spec.get("Labels") or {}, spec["TaskTemplate"]
        constraints = tasks.constraints(task)
        container.id = entry["ID"]
        self._by_id[entry["ID"]] = container
        container.run = int(task.get("ForceUpdate") or 0)
        replicas = ((spec.get("Mode") or {}).get("Replicated") or {}).get("Replicas")
        container.stopped = STOPPED in constraints or replicas == 0
        container.restart = tasks.policy(task)
        container.memory = (
            int(((task.get("Resources") or {}).get("Limits") or {}).get("MemoryBytes") or 0) >> 20
        )
        container.node = self._bound_to(task)
        home, links = int(made.get(NETWORK) or 0), json.loads(made.get(LINKS) or "[]")
        called = {alias for network in task.get("Networks") or () for alias in network.get("Aliases") or ()}
        # Each name is there with its ordinal, too; see `_networks_of`.
        names = {name for name in called if f"{name}-{made.get(ORDINAL)}" in called}
        if made.get(NETWORK):
            container.place = Place(
                made.get(SERVICE, ""), home, frozenset(names), tuple(Link(n, s, k) for n, s, k in links)
            )
        container.seen = dataclasses.replace(
            container.seen,
            node=container.seen.node or container.node,
            image_id=made.get(IMAGE, ""),
            revision=_CHANGED if _is_changed(container.spec, made, task) else made.get(REVISION, ""),
            service_uuid=made.get(SERVICE, ""),
        )

    def _bound_to(self, template: Mapping[str, Any]) -> str:
        """uuid of the node that a service with this template is bound to; "" of none."""
        found = (c.removeprefix(PIN) for c in tasks.constraints(template) if c.startswith(PIN))
        return self._node_uuid(next(found, ""))

    def _node_uuid(self, node: str) -> str:
        """The uuid of a node of the swarm, by its ID there."""
        return uuid_for(self._server_id, "node", node) if node else ""

    def _see_nodes(self, entries: Sequence[Mapping[str, Any]]) -> None:
        seen: dict[str, _Node] = {}
        # Without a description it has never been there.
        there = sorted((e for e in entries if e.get("Description")), key=lambda e: str(e["CreatedAt"]))
        names = [e["Description"].get("Hostname") for e in there]
        for entry in there:
            uuid = self._node_uuid(entry["ID"])
            described = tasks.node(entry, uuid)
            if names.count(described.name) > 1:
                described = dataclasses.replace(described, name=f"{described.name}-{entry['ID'][:6]}")
            labels = entry["Spec"].get("Labels") or {}
            present = {k: v for k, v in labels.items() if tasks.is_tag_label(k)}
            seen[uuid] = _Node(entry["ID"], described, present == tasks.tag_labels(described.tags))
        if seen != self._nodes:
            self._nodes = seen
            if self._watcher is not None:
                self._watcher.nodes_changed()
        for node in seen.values():
            if not node.is_tagged and self._watcher is not None and not self._tagging.locked():
                # An operator labelled it by hand, in a way that constraints cannot name.
                self._spawn(self._complete_tags(node.id))

    async def _look(self) -> None:
        """All tasks at once, and what follows from them for each container."""
        began = asyncio.get_running_loop().time()
        self._all_tasks = await self._ask(lambda client: client.tasks(filters=self._ours))
        of: dict[str, list[Task]] = {}
        for task in sorted(self._all_tasks, key=lambda t: str(t["CreatedAt"])):
            of.setdefault(task["ServiceID"], []).append(task)
        for service, node in list(self._emptying.items()):
            if node not in self._nodes or any(tasks.ended(t) for t in of.get(service, ())):
                await self._remove_service(service)
                del self._emptying[service]
        for container in list(self._containers.values()):
            if container.id:
                self._consider(container, of.get(container.id, []))
        self._seen_at = began
        self._looked.set()
        self._looked = asyncio.Event()

    def _lives(self, task: Task) -> bool:
        """Whether something of a task may still be on its node."""
        return bool(task.get("NodeID")) and not tasks.ended(task) and not self._is_away(task, "")

    def _answers(self, node: str) -> bool:
        """Whether a node (uuid) is up."""
        found = self._nodes.get(node)
        return found is not None and found.described.up

    def _is_away(self, task: Task, bound: str) -> bool:
        """Whether a task's node, or else the one that it is bound to, does not answer."""
        node = self._nodes.get(self._node_uuid(task.get("NodeID", "")) or bound)
        return node is not None and not node.described.up

    def _consider(self, container: _Container, found: list[Task]) -> None:
        """Bring what is known of a container up to its tasks."""
        c, spec = container, container.spec
        c.tasks = tasks.real(found)
        c.superseded &= {str(task["ID"]) for task in c.tasks}
        c.superseded |= {str(task["ID"]) for task in c.tasks if tasks.is_superseded(task)}
        verdict = tasks.verdict(
            c.tasks,
            run=c.run,
            stopped=c.stopped,
            restart=c.restart,
            away=lambda task: self._is_away(task, c.node),
            superseded=c.superseded,
            checked=spec is not None and spec.image_check,
            image=spec.image if spec else "",
            memory=c.memory,
        )
        if verdict.blocked and not c.verdict.blocked:
            c.blocked_at = asyncio.get_running_loop().time()
        if c.is_awaited:
            self._learn_from_start(c)
        c.verdict = verdict
        self._adjust(c)
        if verdict.status is None:
            if c.stopped and not c.calls and c.seen.status in (RUNNING, RESTARTING, WAITING):
                # Somebody has scaled it to nothing, and the swarm remembers no more of it.
                self._see(c, dataclasses.replace(c.seen, status=EXITED, exit_code=137))
            return
        seen = dataclasses.replace(
            c.seen,
            status=verdict.status,
            exit_code=verdict.exit_code,
            reason=self._why_it_waits(c) if verdict.status == WAITING else verdict.reason,
            healthy=None,
            health_detail="",
            restarts=verdict.restarts,
            last_exit_code=verdict.last_exit_code,
        )
        if (task := verdict.task) is not None:
            seen = dataclasses.replace(
                seen,
                node=self._node_uuid(task.get("NodeID", "")) or c.node or seen.node,
                backend_id=tasks.container_id(task) or seen.backend_id,
                address=tasks.address_in(task, NETWORK, str(c.place.home)) if c.place else "",
            )
        check = spec.healthcheck if spec else None
        if check and "http" in check:
            self._probe(c, seen)
            seen = self._health.judged(c.uuid, seen)
        elif check and "command" in check and seen.status == RUNNING:
            # Until it is healthy its task is still starting.
            seen = dataclasses.replace(seen, healthy=True)
        elif spec and spec.image_check and task is not None and seen.status == RUNNING:
            seen = dataclasses.replace(seen, healthy=tasks.is_healthy(task) or None)
        self._see(c, seen)
        if verdict.failure or verdict.blocked:
            self._stir(c)

    def _learn_from_start(self, container: _Container) -> None:
        """How long the last state before a container runs takes, by the clock of its node."""
        stamp = tasks.entered(container.tasks[-1], "starting") if container.tasks else 0.0
        if stamp and not container.starting_at:
            # It may have been there since the last look.
            container.starting_at, container.starting_stamp = self._seen_at, stamp
        elif container.starting_stamp and (ran := tasks.entered(container.tasks[-1], "running")):
            # With a check it is in that state until it is healthy.
            if container.spec and not (container.spec.healthcheck or container.spec.image_check):
                self._starts.learn(max(ran - container.starting_stamp, 0.0))
            container.starting_stamp = 0.0

    def _why_it_waits(self, container: _Container) -> str:
        """A sentence for users about a container that has run and is to run, but does not."""
        verdict = container.verdict
        name = container.spec.name if container.spec else "the container"
        origin = verdict.origin or verdict.task or {}
        node = self._nodes.get(container.node or self._node_uuid(origin.get("NodeID", "")))
        trouble = _trouble_with(node)
        if container.node:
            where = f"node {node.described.name}" if node else "its node"
            if trouble:
                return waits_for(name, where, trouble)
            if "host-mode port already in use" in verdict.blocked:
                return f"{name} waits for port {_outer_ports(container)}, which is already in use on {where}"
            return f"{name} waits for {where}" + (f": {verdict.blocked}" if verdict.blocked else "")
        if "host-mode port already in use" in verdict.blocked:
            ports = _outer_ports(container)
            return f"{name} cannot be moved: port {ports} is already in use on every node that it may run on"
        if verdict.blocked:
            return f"{name} waits for a node that it may run on: {verdict.blocked}"
        if verdict.reason:
            return f"{name} does not start on another node: {verdict.reason}"
        if node is None:
            return f"{name} is moved to another node by the swarm"
        because = f", which {trouble}" if trouble else ""
        return f"{name} is moved by the swarm from node {node.described.name}{because}"

    # -- what follows from what was seen

    def _adjust(self, container: _Container) -> None:
        """Change a container's service where its tasks ask for it."""
        change = self._adjustment(container)
        if change == self._unbind and container.verdict.status == RUNNING:
            # This can wait. One request serves all containers that have started meanwhile.
            if not self._is_freeing:
                self._is_freeing = True
                self._spawn(self._free())
        elif change is not None:
            container.adjusting = True
            self._spawn(self._adjust_now(container, change))

    def _adjustment(
        self, container: _Container
    ) -> Callable[[_Container], Coroutine[Any, Any, object]] | None:
        """The change that a container's service needs; None: it needs none, or somebody is changing it."""
        c = container
        if c.calls or c.adjusting or c.stopped or not c.id or self._containers.get(c.uuid) is not c:
            return None
        if c.verdict.again:
            return self._park
        return self._unbind if self._is_to_be_unbound(c) else None

    async def _adjust_now(
        self, container: _Container, change: Callable[[_Container], Coroutine[Any, Any, object]]
    ) -> None:
        try:
            await change(container)
        finally:
            container.adjusting = False

    def _is_to_be_unbound(self, container: _Container) -> bool:
        """Whether a container is bound to a node and need not be: it runs there, or cannot."""
        if not container.node or container.spec is None or not container.spec.movable:
            return False
        node = self._nodes.get(container.node)
        if _trouble_with(node):
            return container.verdict.status in (CREATED, WAITING)
        return container.verdict.status == RUNNING

    async def _free(self) -> None:
        """Let the swarm move the containers that have begun to run, all of them together."""
        try:
            await asyncio.sleep(_TOGETHER)
        finally:
            self._is_freeing = False
        running = [c for c in self._containers.values() if c.verdict.status == RUNNING]
        found = [c for c in running if self._adjustment(c) == self._unbind][:_AT_ONCE]
        if not found:
            return
        ids = {"id": [c.id for c in found]}
        entries = await self._ask(lambda client: client.services(filters=ids))
        of = {entry["ID"]: entry for entry in entries}
        for c in found:
            # Somebody may have begun to change it meanwhile.
            if self._adjustment(c) == self._unbind:
                c.adjusting = True
                self._spawn(self._adjust_now(c, functools.partial(self._unbind, entry=of.get(c.id))))

    async def _unbind(self, container: _Container, entry: Mapping[str, Any] | None = None) -> None:
        """Let the swarm move a container from now on. What runs is not restarted by this.

        Args:
            entry: its service, as the swarm has just described it.
        """
        run = container.run

        def unbind(service: dict[str, Any]) -> bool:
            task = service["TaskTemplate"]
            constraints = tasks.constraints(task)
            kept = [c for c in constraints if not c.startswith(PIN)]
            # Meanwhile it may have been stopped or started anew.
            if STOPPED in constraints or int(task.get("ForceUpdate") or 0) != run or kept == constraints:
                return False
            task["Placement"] = {**(task.get("Placement") or {}), "Constraints": kept}
            return True

        await self._change(container, unbind, entry)
        if container.run == run and not container.stopped:
            container.node = ""

    def _see(self, container: _Container, seen: Observed, tell: bool = False) -> None:
        """Remember what was seen, and tell of it when it is news and nobody waits for it."""
        changed = seen != container.seen
        container.seen = seen
        if changed:
            container.told_at = 0.0
            self._stir(container)
            if self._watcher is not None and (tell or not container.calls):
                self._watcher.container_changed(seen)

    @staticmethod
    def _stir(container: _Container) -> None:
        container.news.set()
        container.news = asyncio.Event()

    def _gone(self, container: _Container, reason: str) -> Observed:
        if self._containers.get(container.uuid) is container:
            del self._containers[container.uuid]
        self._by_id.pop(container.id, None)
        self._health.forget(container.uuid)
        self._see(container, dataclasses.replace(container.seen, status=GONE, reason=reason))
        return container.seen

    def _probe(self, container: _Container, seen: Observed) -> None:
        """Have a container's health asked for while it runs."""
        spec, node = container.spec, self._nodes.get(seen.node)
        inner = spec.probed_port if spec is not None else None
        if spec is None or spec.healthcheck is None or inner is None:
            self._health.forget(container.uuid)
            return
        if seen.status != RUNNING or node is None:
            self._health.forget(container.uuid)
            return
        port = inner if spec.network == "host" else published_at(spec, inner) or inner
        self._health.watch(
            container.uuid,
            seen.backend_id,
            node.described.address,
            port,
            spec,
        )

    def _verdict_changed(self, uuid: str) -> None:
        container = self._containers.get(uuid)
        if container is not None:
            self._see(container, self._health.judged(uuid, container.seen), tell=True)

    def _spawn(self, work: Coroutine[Any, Any, object]) -> None:
        async def run() -> None:
            with contextlib.suppress(BackendError, docker.errors.NotFound):
                await work

        task = asyncio.get_running_loop().create_task(run())
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    # -- images

    async def image(self, image: str, node: str) -> ImageInfo:
        """The manager has to know it; the node's own engine is asked where it is known."""
        manager = self._manager()
        if manager is None:
            raise BackendError("no manager of the swarm can be reached", transient=True)
        try:
            found = await manager.find_image(image)
        except BackendError:
            engine = self._engine_of(node)
            if engine is None or engine is manager:
                raise
            return await engine.image(image)
        self._images[image] = found
        return image_info(found)

    async def _reference(self, spec: ContainerSpec) -> tuple[str, ImageInfo]:
        """What stands for an image in a service, and what it is.

        With a tag every node would ask the registry for each task. A digest is pulled only where it is
        missing, with the credentials that the manager was given; an ID must be there.
        """
        found = self._images.get(spec.image) or await self._inspect_image(spec)
        name = _repository(spec.image)
        digests = [d for d in found.get("RepoDigests") or () if d.partition("@")[0] == name]
        pulled = digests and self._pull != "never"
        return (digests[0] if pulled else found["Id"]), image_info(found)

    async def _inspect_image(self, spec: ContainerSpec) -> Mapping[str, Any]:
        for engine in (self._manager(), self._engine_of(spec.node)):
            found = await engine.describe_image(spec.image) if engine is not None else None
            if found is not None:
                return found
        raise BackendError(f"No such image: {spec.image}")

    async def _check_images(self) -> None:
        """Whether the images of our containers are still those behind their names."""
        used: dict[str, set[str]] = {}
        for c in self._containers.values():
            if c.spec is not None and c.seen.image_id:
                used.setdefault(c.spec.image, set()).add(c.seen.image_id)
        for image, ids in used.items():
            manager = self._manager()
            found = await manager.inspect_image(image) if manager is not None else None
            if found is None or ids == {found.id} or self._announced.get(image) == found.id:
                continue
            self._announced[image] = found.id
            if self._watcher is not None:
                self._watcher.image_changed(image)

    # -- networks

    async def _ensure_network(self, number: int) -> None:
        """One that somebody is joining (`_joining`) is not removed."""
        async with self._network_lock:
            if number in self._networks:
                return
            # Never a name that was used before: nodes forget networks late.
            name = f"tutum-{short_id(self._server_id)}-{number}-{secrets.token_hex(3)}"
            made = {SERVER: self._server_id, NETWORK: str(number)}
            self._networks[number] = await self._ask(
                lambda client: client.create_network(name, driver="overlay", attachable=True, labels=made)[
                    "Id"
                ]
            )

    @contextlib.asynccontextmanager
    async def _joined(self, where: Place | None) -> AsyncIterator[None]:
        """While a service is made or changed that joins these networks."""
        numbers = where.networks if where else []
        for number in numbers:
            self._joining[number] = self._joining.get(number, 0) + 1
        try:
            for number in numbers:
                await self._ensure_network(number)
            yield
        finally:
            for number in numbers:
                self._joining[number] -= 1

    async def _list_networks(self) -> None:
        """Which networks there are."""
        async with self._network_lock:
            listed = await self._ask(lambda client: client.networks(filters=self._ours))
            self._networks = {
                int((entry.get("Labels") or {}).get(NETWORK) or 0): entry["Id"]
                for entry in sorted(listed, key=lambda e: str(e.get("Created")), reverse=True)
                if entry["Id"] not in self._removed_networks
            }

    async def _tidy_networks(self) -> None:
        """Remove the networks that nobody has been in for a while."""
        async with self._network_lock:
            now = asyncio.get_running_loop().time()
            for number in self._idle_networks.keys() - self._networks.keys():
                del self._idle_networks[number]
            for number, identity in list(self._networks.items()):
                used = any(c.place and number in c.place.networks for c in self._containers.values())
                if used or self._joining.get(number):
                    self._idle_networks.pop(number, None)
                elif now - self._idle_networks.setdefault(number, now) >= _NETWORK_PAUSE:
                    await self._remove_network(number, identity)

    async def _remove_network(self, number: int, identity: str) -> None:
        with contextlib.suppress(docker.errors.NotFound):
            try:
                await self._ask(lambda client: client.remove_network(identity))
            except BackendError:
                # A task of a service that was removed is still in it.
                now = asyncio.get_running_loop().time()
                self._idle_networks[number] = now - _NETWORK_PAUSE + _NETWORK_AGAIN
                return
        self._removed_networks.add(identity)
        self._networks.pop(number, None)
        self._idle_networks.pop(number, None)

    def _settle(self, spec: ContainerSpec) -> Place | None:
        """Where a container goes now."""
        if spec.network == "host":
            return None
        try:
            return place(
                spec.service_uuid,
                names=spec.linked_as,
                niceties=(spec.service_name, spec.short_name),
                links=[(link.name, link.service_uuid) for link in spec.links if link.service_uuid],
                others=[
                    c.place for c in self._containers.values() if c.place is not None and c.uuid != spec.uuid
                ],
            )
        except Ambiguous as error:
            raise BackendError(f"linked_to_service: {self._ambiguous(error)}") from None

    # -- containers

    async def containers(self) -> list[Observed]:
        return [c.seen for c in self._containers.values() if c.id and c.seen.status != GONE]

    def _of(self, uuid: str) -> _Container:
        container = self._containers.get(uuid)
        if container is None:
            raise BackendError("No such container")
        return container

    @contextlib.contextmanager
    def _calling(self, container: _Container) -> Any:
        """While a call about it is in progress, its answer tells what happened."""
        container.calls += 1
        try:
            yield
        finally:
            container.calls -= 1

    async def create(self, spec: ContainerSpec) -> Observed:
        container = self._containers.get(spec.uuid)
        if container is not None and container.id:
            container.spec = spec
            with self._calling(container):
                await self._after_a_look()
            if container.seen.status != GONE:
                return container.seen
        if spec.node not in self._nodes:
            raise BackendError("the node is not in the swarm any more")
        seen = Observed(
            spec.uuid,
            CREATED,
            node=spec.node,
            image_id=self._images.get(spec.image, {}).get("Id", ""),
            revision=spec.revision,
            service_uuid=spec.service_uuid,
        )
        # From now on others must not take its names. It is made when it is started: a service without
        # replicas would be one more to be changed.
        self._containers[spec.uuid] = _Container(
            spec.uuid, seen, node=spec.node, spec=spec, place=self._settle(spec)
        )
        return seen

    async def _make(self, container: _Container, spec: ContainerSpec) -> None:
        """Make the swarm service of a container; it runs then."""
        making = self._making.get(spec.uuid)
        if making is None:
            # It goes on when the caller is cancelled: `remove` waits for its end, so that nothing is left.
            making = asyncio.get_running_loop().create_task(self._make_now(container, spec))
            self._making[spec.uuid] = making
            making.add_done_callback(functools.partial(self._made, spec.uuid))
        await asyncio.shield(making)

    def _made(self, uuid: str, making: asyncio.Task[None]) -> None:
        self._making.pop(uuid, None)
        if not making.cancelled():
            making.exception()  # whoever still waits for it has been told

    async def _make_now(self, container: _Container, spec: ContainerSpec) -> None:
        reference, info = await self._reference(spec)
        node, where, name = self._nodes.get(spec.node), container.place, service_name(spec)
        if node is None:
            raise BackendError("the node is not in the swarm any more")

        def create(client: Any) -> str:
            body = self._body(spec, node.id, reference, info, where)
            if "@" in reference:
                # The nodes may have to pull it. `docker login` may have been called since.
                client.reload_config()
            return _create_service(client, name, body)

        async with self._joined(where):
            try:
                container.id = await self._ask(create)
            except docker.errors.NotFound:
                # Somebody else has removed a network.
                self._look_again()
                raise BackendError("a network of the server is gone", transient=True) from None
        self._by_id[container.id] = container
        container.restart, container.memory = _policy_of(spec), spec.memory or 0
        container.run, container.stopped = 1, False
        container.seen = dataclasses.replace(container.seen, image_id=info.id)
        container.changed_at = asyncio.get_running_loop().time()

    def _body(
        self,
        spec: ContainerSpec,
        node: str,
        reference: str,
        info: ImageInfo,
        where: Place | None,
    ) -> dict[str, Any]:
        """What docker-py's `create_service` is called with."""
        command = command_of(spec, info)
        made = labels(self._server_id, spec)
        container = {
            "Image": reference,
            "Labels": made,
            "Command": command.entrypoint,
            "Args": command.arguments,
            "Hostname": spec.hostname,
            "Env": _environment(spec),
            "Dir": spec.working_dir,
            "Mounts": self._mounts(spec),
            "StopGracePeriod": self._stop_seconds * _SECOND,
            "Init": command.init,
        }
        if check := native_check(spec.healthcheck):
            names = {
                "test": "Test",
                "interval": "Interval",
                "timeout": "Timeout",
                "retries": "Retries",
                "start_period": "StartPeriod",
            }
            container["Healthcheck"] = {names[key]: value for key, value in check.items()}
        task = {
            "ContainerSpec": {k: v for k, v in container.items() if v is not None},
            "RestartPolicy": tasks.POLICIES[spec.autorestart],
            "Placement": {"Constraints": _constraints(spec, node)},
            "Networks": self._networks_of(spec, where),
            "ForceUpdate": 1,
        }
        if spec.memory:
            task["Resources"] = {"Limits": {"MemoryBytes": spec.memory << 20}}
        return {
            "task_template": task,
            "labels": {**made, IMAGE: info.id, REFERENCE: reference, **_labels_of(where)},
            "mode": _ONE,
            "update_config": {"Parallelism": 0, "FailureAction": "continue", "Order": "stop-first"},
            "endpoint_spec": _endpoint(spec),
        }

    def _networks_of(self, spec: ContainerSpec, where: Place | None) -> list[dict[str, Any]]:
        if where is None:
            return [{"Target": "host"}]
        names = sorted(where.names)
        aliases = [*names, *(f"{name}-{spec.ordinal}" for name in names)]
        return [
            {"Target": self._networks[k], **({"Aliases": aliases} if k == where.home else {})}
            for k in where.networks
        ]

    def _mounts(self, spec: ContainerSpec) -> list[dict[str, Any]]:
        made = {SERVER: self._server_id, SERVICE: spec.service_uuid}
        mounts: list[dict[str, Any]] = []
        for volume in spec.volumes:
            target = literal(volume.container_path)
            mount: dict[str, Any] = {"Target": target, "ReadOnly": not volume.rewritable}
            if volume.volume:
                mount |= {"Type": "volume", "Source": volume.volume, "VolumeOptions": {"Labels": made}}
            elif volume.host_path:
                mount |= {"Type": "bind", "Source": literal(volume.host_path)}
            else:
                continue
            mounts.append(mount)
        return mounts

    async def _change(
        self,
        container: _Container,
        change: Callable[[dict[str, Any]], bool],
        entry: Mapping[str, Any] | None = None,
    ) -> bool:
        """Change a container's service. False: there was nothing to change.

        Args:
            entry: as the swarm has just described it.

        Raises:
            docker.errors.NotFound: it is gone.
        """
        identity = container.id
        known = [entry] if entry is not None else []

        def update(client: Any) -> bool:
            # When it has been changed meanwhile, the next attempt asks.
            entry = known.pop() if known else client.inspect_service(identity)
            spec = entry["Spec"]
            if not change(spec):
                return False
            client.update_service(
                identity,
                entry["Version"]["Index"],
                task_template=spec["TaskTemplate"],
                name=spec["Name"],
                labels=spec["Labels"],
                mode=spec["Mode"],
                update_config=spec.get("UpdateConfig"),
                endpoint_spec=spec.get("EndpointSpec"),
            )
            return True

        changed = bool(await self._in_sequence(update))
        container.changed_at = asyncio.get_running_loop().time()
        return changed

    async def start(self, uuid: str) -> Observed:
        container = self._of(uuid)
        spec = container.spec
        if spec is None:
            raise BackendError("what the container is made of is not known")
        with self._calling(container):
            if container.id:
                await self._after_a_look()
            else:
                await self._make(container, spec)
            if container.stopped or container.seen.status == EXITED:
                where = self._settle(spec)
                run = container.run + 1
                node = self._nodes.get(spec.node)
                if node is None:
                    raise BackendError("the node is not in the swarm any more")
                own = _constraints(spec, node.id)

                def begin(service: dict[str, Any]) -> bool:
                    task = service["TaskTemplate"]
                    if int(task.get("ForceUpdate") or 0) >= run:
                        return False  # asked for before
                    task["ForceUpdate"] = run
                    service["Mode"] = _ONE
                    kept = [c for c in tasks.constraints(task) if not tasks.is_own(c)]
                    task["Placement"] = {**(task.get("Placement") or {}), "Constraints": [*kept, *own]}
                    task["RestartPolicy"] = tasks.POLICIES[spec.autorestart]
                    task["Networks"] = self._networks_of(spec, where)
                    service["Labels"] |= _labels_of(where)
                    service["EndpointSpec"] = _endpoint(spec)
                    return True

                try:
                    async with self._joined(where):
                        await self._change(container, begin)
                except docker.errors.NotFound:
                    return self._lost(container)
                container.run, container.stopped, container.place = run, False, where
                container.node, container.restart = spec.node, _policy_of(spec)
                container.verdict = Verdict(None)
            try:
                with self._awaiting(container):
                    return await self._started(container)
            except docker.errors.NotFound:
                return self._lost(container)

    @contextlib.contextmanager
    def _awaiting(self, container: _Container) -> Any:
        """While somebody waits for its start."""
        container.is_awaited, container.told_at = True, 0.0
        container.starting_at = container.starting_stamp = 0.0
        self._look_in(self._pause_of_start(container, 0.0))
        try:
            yield
        finally:
            container.is_awaited = False

    async def _started(self, container: _Container) -> Observed:
        """Wait until it runs, or will not.

        Raises:
            BackendError: why it does not.
            docker.errors.NotFound: it was removed from the swarm.
        """
        loop = asyncio.get_running_loop()
        while True:
            verdict = container.verdict
            waited = loop.time() - container.blocked_at > _PATIENCE
            if verdict.status == WAITING and verdict.blocked and waited and not self._has_trouble(container):
                # It has run: the swarm goes on trying.
                raise BackendError(container.seen.reason)
            if self._has_trouble(container) and self._is_to_be_unbound(container):
                await self._unbind(container)
                container.blocked_at = loop.time()
                await self._after_a_look()
                continue
            if verdict.failure or (verdict.blocked and waited and not self._has_trouble(container)):
                await self._park(container)
                raise self._start_error(container, verdict.failure or verdict.blocked)
            if container.seen.status == GONE:
                return self._lost(container)
            news = container.news
            if verdict.status in (RESTARTING, EXITED) or (
                verdict.status == RUNNING and await self._lasts(container)
            ):
                return container.seen
            await is_set_within(0.5, news)

    def _has_trouble(self, container: _Container) -> bool:
        """Whether a container is bound to a node that cannot run it now."""
        return bool(container.node and _trouble_with(self._nodes.get(container.node)))

    async def _lasts(self, container: _Container) -> bool:
        """Whether what runs for the swarm really does: a program that ends at once runs for it a moment."""
        engine, identity = self._engine_of(container.seen.node), container.seen.backend_id
        if engine is not None:
            with contextlib.suppress(BackendError, docker.errors.NotFound):
                found = await engine.call(lambda client: client.inspect_container(identity))
                return bool(found["State"].get("Running"))
        await self._after_a_look(_MOMENT)
        return container.verdict.status == RUNNING

    def _lost(self, container: _Container) -> Observed:
        self._gone(container, "")
        raise BackendError("the container was removed from the swarm")

    def _start_error(self, container: _Container, text: str) -> BackendError:
        spec, node = container.spec, self._nodes.get(container.node)
        name = node.described.name if node else ""
        if spec is not None and "host-mode port already in use" in text:
            ports = [(p.protocol, p.outer_port) for p in spec.ports if p.outer_port is not None]
            words = ", ".join(str(number) for _, number in ports)
            return PortTaken(f"port {words} is already in use on node {name}", ports)
        taken = re.search(
            r":(\d+)(?: failed: port is already allocated|: bind: address already in use)", text
        )
        if spec is not None and taken:
            number = int(taken[1])
            ports = [(p.protocol, number) for p in spec.ports if p.outer_port == number]
            return PortTaken(f"port {number} is already in use on node {name}", ports)
        if text.startswith("no suitable node"):
            return BackendError(f"node {name} cannot take it: {text}")
        return BackendError(text)

    async def _park(self, container: _Container) -> None:
        """See to it that nothing of it runs, and that nothing will."""

        def park(service: dict[str, Any]) -> bool:
            task = service["TaskTemplate"]
            constraints = tasks.constraints(task)
            if STOPPED in constraints:
                return False
            task["Placement"] = {**(task.get("Placement") or {}), "Constraints": [*constraints, STOPPED]}
            service["Mode"] = _ONE
            return True

        await self._change(container, park)
        container.stopped = True

    async def stop(self, uuid: str) -> Observed:
        container = self._containers.get(uuid)
        if container is None:
            return Observed(uuid, GONE)
        if not container.id:
            return container.seen
        with self._calling(container):
            try:
                await self._park(container)
            except docker.errors.NotFound:
                return self._gone(container, "")
            is_running = container.seen.status == RUNNING
            has_ended = await self._end(container, remove=False)
            await self._until_it_ended(
                lambda: container.seen.status != GONE and any(map(self._lives, container.tasks)),
                self._pace_of_end(container) if is_running and not has_ended else None,
            )
            if container.seen.status == GONE:
                return container.seen
            if container.seen.status in (RUNNING, RESTARTING, WAITING):
                # Its node does not answer; when it is back, the swarm ends what is left there.
                self._see(container, dataclasses.replace(container.seen, status=EXITED, exit_code=137))
            return container.seen

    async def remove(self, uuid: str, *, volumes: Sequence[str] = ()) -> None:
        if making := self._making.get(uuid):
            await asyncio.wait({making})
        container = self._containers.get(uuid)
        if container is not None and container.id:
            identity = container.id
            container.calls += 1  # until the end: nobody needs to be told
            self._leaving.add(identity)
            try:
                await self._remove_service(identity)
                if not await self._end(container, remove=True):
                    pace = self._pace_of_end(container) if container.seen.status == RUNNING else None
                    await self._until_it_ended(lambda: self._is_left(uuid), pace)
            except BaseException:
                container.calls -= 1
                raise
            finally:
                self._leaving.discard(identity)
            self._gone(container, "")
            self._look_in(0.0)  # networks may go
        elif container is not None:
            del self._containers[uuid]
        elif volumes:
            # Its removal was begun before this server was started.
            await self._until_it_ended(lambda: self._is_left(uuid))
        seen = container.seen if container is not None else self._known.get(uuid, (None, None))[1]
        for volume in volumes:
            await self._remove_volume(volume, seen.node if seen else "", seen.image_id if seen else "")

    def _is_left(self, uuid: str) -> bool:
        """Whether something of a container whose service was removed may be left on its node."""
        return any(tasks.made_for(t, CONTAINER, uuid) and self._lives(t) for t in self._all_tasks)

    def _pace_of_end(self, container: _Container) -> Pace:
        """How long it takes until the swarm has ended a container that runs."""
        return self._ends[container.place is not None]

    async def _until_it_ended(self, lives: Callable[[], bool], pace: Pace | None = None) -> None:
        """Look until a container does not live any more.

        Args:
            pace: of what the swarm ends in its own time; None: it may have ended by now.
        """
        loop = asyncio.get_running_loop()
        began = loop.time()
        await self._after_a_look(pace.first if pace else 0.0)
        while lives():
            await self._after_a_look((pace or _SOON).pause(loop.time() - began))
        if pace is not None:
            pace.learn(loop.time() - began)

    async def _end(self, container: _Container, *, remove: bool) -> bool:
        """End a container through its node's engine. False: that is not known.

        The swarm has been told already, but lets two seconds pass before it ends what is in an overlay
        network, so that the others' DNS forgets it first; and two more before it removes it.
        """
        engine, identity = self._engine_of(container.seen.node), container.seen.backend_id
        if engine is None or not identity:
            return False
        seconds = self._stop_seconds

        def end(client: Any) -> int:
            client.stop(identity, timeout=seconds)
            code = int(client.inspect_container(identity)["State"].get("ExitCode") or 0)
            if remove:
                with contextlib.suppress(docker.errors.APIError):
                    client.remove_container(identity, v=True)
            return code

        try:
            code = await engine.call(end, slow=True)
        except docker.errors.NotFound:
            return True
        except BackendError:
            return False
        if container.seen.status in (RUNNING, RESTARTING):
            self._see(
                container, dataclasses.replace(container.seen, status=EXITED, exit_code=code, reason="")
            )
        return True

    async def _remove_service(self, identity: str) -> None:
        with contextlib.suppress(docker.errors.NotFound):
            await self._ask(lambda client: client.remove_service(identity))

    # -- volumes

    async def _remove_volume(self, volume: str, node: str, image: str) -> None:
        """Remove a volume from its node, or at least what is in it."""
        engine = self._engine_of(node)
        if engine is None and node and node in self._nodes:
            if image:
                await self._empty(volume, node, image)
            return
        for candidate in [engine] if engine is not None else [e for e in self._engines if e.up]:
            await self._remove_from(candidate, volume)

    async def _remove_from(self, engine: Engine, volume: str) -> None:
        for _ in range(_REMOVAL_TRIES):
            try:
                await engine.call(lambda client: client.remove_volume(volume))
            except docker.errors.NotFound:
                return
            except BackendError as error:
                if error.transient:
                    raise
                # The container that used it is being removed, or another container uses it.
                if self._is_mounted(volume):
                    return
                await asyncio.sleep(_BUSY)
        log.warning("cannot remove a volume", extra={"volume": volume, "node": engine.address.name})

    def _is_mounted(self, volume: str) -> bool:
        return any(
            v.volume == volume
            for c in self._containers.values()
            if c.spec is not None
            for v in c.spec.volumes
        )

    async def _empty(self, volume: str, node: str, image: str) -> None:
        """Leave a task that empties a volume on a node whose engine is not known; the node may be down."""
        if self._is_mounted(volume):
            return
        words = "rm -rf /volume/* /volume/.[!.]* /volume/..?*"
        body = {
            "task_template": {
                "ContainerSpec": {
                    "Image": image,
                    "Labels": {SERVER: self._server_id},
                    "Command": ["sh", "-c", words],
                    "Mounts": [{"Type": "volume", "Source": volume, "Target": "/volume"}],
                    "User": "0",
                },
                "RestartPolicy": {"Condition": "none"},
                "Placement": {"Constraints": [f"node.id=={self._nodes[node].id}"]},
            },
            "labels": {SERVER: self._server_id, EMPTIES: volume},
            "mode": _ONE,
            "endpoint_spec": {"Mode": "dnsrr"},
        }
        name = f"tutum-empty-{volume}"
        self._emptying[await self._ask(lambda client: _create_service(client, name, body))] = node

    async def sweep(self, kept: Callable[[], Collection[str]]) -> None:
        for engine in self._engines:
            if engine.up:
                found = await engine.call(lambda client: client.volumes(filters=self._ours)["Volumes"] or ())
                for name in {v["Name"] for v in found}.difference(kept()):
                    await self._remove_from(engine, name)

    async def relink(self, uuid: str, links: Sequence[LinkSpec]) -> None:
        """A running container cannot join another network; those of its links' targets find it as it is."""
        container = self._containers.get(uuid)
        if container is not None and container.spec is not None:
            container.spec = dataclasses.replace(container.spec, links=tuple(links))

    # -- logs and commands

    async def logs(
        self, uuid: str, *, tail: int | None, follow: bool
    ) -> AsyncGenerator[Sequence[LogLine], None]:
        container = self._containers.get(uuid)
        if container is None:
            return
        begun = [t for t in container.tasks if self._readable(t)]
        last = begun[-1]["ID"] if begun else ""
        end, behind, left = "", follow, tail
        if follow and begun:
            # How much of the last run is there already, and where that ends.
            count = 0
            source = self._task_logs(
                container, begun[-1], tail if len(begun) > 1 and tail else 1, follow=False
            )
            try:
                async with aclosing(source) as batches:
                    async for batch in batches:
                        count, end = count + len(batch[0]), batch[1]
            except BackendError as error:
                if not error.transient:
                    raise
                last = ""
            left = tail and max(tail - count, 0)
        #: Tasks of which nothing more can come, and how far the others were read.
        done: set[str] = set()
        positions: dict[str, str] = {}
        if tail is not None and len(begun) > 1 and (last or not follow):
            # The last lines of all runs together: newest run first.
            parts: list[list[LogLine]] = []
            for task in reversed(begun[:-1] if follow else begun):
                done.add(task["ID"])
                if left:
                    async with aclosing(self._task_logs(container, task, left, follow=False)) as batches:
                        parts.append([line async for lines, _ in batches for line in lines])
                    left -= min(len(parts[-1]), left)
            for part in reversed(parts):
                if part:
                    yield part
        while True:
            if behind and (not last or not end or tail == 0):
                behind = False
                if last or not any(tasks.container_id(t) for t in container.tasks):
                    tail = None
                yield ()
            again = False
            for task in [t for t in container.tasks if t["ID"] not in done and self._readable(t)]:
                identity = task["ID"]
                # Of the last run's old lines none is wanted, or there is none.
                after = positions.get(identity, "" if identity != last or behind else end)
                source = self._task_logs(container, task, tail, follow=follow, after=after)
                try:
                    async with aclosing(source) as batches:
                        async for lines, reached in batches:
                            positions[identity], tail = reached, None
                            if lines:
                                yield lines
                            if behind and identity == last and reached >= end:
                                behind = False
                                yield ()
                    tail, lost = None, False
                except BackendError as error:
                    if not (follow and error.transient):
                        raise
                    lost = True
                if behind and identity == last:
                    behind = False
                    yield ()
                # Its stream ends with its engine, too, and before the swarm has seen that it ended.
                if not lost and (not follow or self._has_ended(container, identity)):
                    done.add(identity)
                else:
                    again = True
            if not follow or container.seen.status == GONE:
                return
            if again or all(t["ID"] in done or not self._readable(t) for t in container.tasks):
                news = container.news
                await is_set_within(1.0, news)

    def _readable(self, task: Task) -> bool:
        """Whether there is a container whose lines can be had."""
        return bool(tasks.container_id(task)) and self._answers(self._node_uuid(task.get("NodeID", "")))

    async def _task_logs(
        self, container: _Container, task: Task, tail: int | None, *, follow: bool, after: str = ""
    ) -> AsyncGenerator[tuple[Sequence[LogLine], str], None]:
        """The lines of one task, until it has ended, as `Engine.logs` gives them."""
        engine = self._engine_of(self._node_uuid(task["NodeID"]))
        if engine is not None:
            path = f"/containers/{tasks.container_id(task)}/logs"
        else:
            engine, path = self._manager(), f"/tasks/{task['ID']}/logs"
        if engine is None:
            return
        position = after
        with contextlib.suppress(docker.errors.NotFound):
            if follow and not self._has_ended(container, task["ID"]):
                stream = engine.logs(path, tail=tail, follow=True, after=after)
                async with aclosing(_until(stream, self._end_of(container, task["ID"]))) as following:
                    async for batch in following:
                        position = batch[1]
                        yield batch
            if not self._readable(task):
                return
            # Through a manager, following knows no end: what came last is read again, without.
            tail = None if position else tail
            async with aclosing(engine.logs(path, tail=tail, follow=False, after=position)) as rest:
                async for batch in rest:
                    yield batch

    @staticmethod
    def _has_ended(container: _Container, task: str) -> bool:
        found = next((t for t in container.tasks if t["ID"] == task), None)
        return container.seen.status == GONE or found is None or tasks.ended(found)

    def _is_readable(self, container: _Container, task: str) -> bool:
        """Whether a task (its ID) is on a node that answers. Without that node a stream never ends."""
        return any(t["ID"] == task and self._readable(t) for t in container.tasks)

    async def _end_of(self, container: _Container, task: str) -> None:
        while not self._has_ended(container, task) and self._is_readable(container, task):
            news = container.news
            await is_set_within(1.0, news)

    async def exec(self, uuid: str, command: Sequence[str], *, tty: bool = False) -> ExecSession:
        container = self._of(uuid)
        if container.seen.status != RUNNING:
            raise BackendError("the container does not run")
        engine = self._engine_of(container.seen.node)
        if engine is None:
            node = self._nodes.get(container.seen.node)
            name = node.described.name if node else "its node"
            raise BackendError(
                f"a swarm's manager runs no commands in containers: say where the engine of {name} is "
                f"(serve --node {name}=URL)"
            )
        return await engine.exec(container.seen.backend_id, command, tty=tty)


# -- rules ---------------------------------------------------------------------------------------------------


async def _until(stream: AsyncGenerator[T, None], end: Coroutine[Any, Any, None]) -> AsyncGenerator[T, None]:
    """What a stream gives until it ends, or `end` does."""
    ended = asyncio.ensure_future(end)
    following: asyncio.Future[T] | None = None
    try:
        while True:
            following = asyncio.ensure_future(anext(stream))
            await asyncio.wait({following, ended}, return_when=asyncio.FIRST_COMPLETED)
            if not following.done():
                return
            try:
                yield following.result()
            except StopAsyncIteration:
                return
    finally:
        ended.cancel()
        if following is not None:
            following.cancel()
            await asyncio.gather(following, return_exceptions=True)
        await stream.aclose()


def _constraints(spec: ContainerSpec, node: str) -> list[str]:
    """The constraints of a container that is about to be started on a node (its ID in the swarm)."""
    pin = f"{PIN}{node}"
    return [*tasks.tag_constraints(spec.tags), pin] if spec.movable else [pin]


def _policy_of(spec: ContainerSpec) -> str:
    """The restart policy of a container, as `tasks.verdict` takes it."""
    return tasks.policy({"RestartPolicy": tasks.POLICIES[spec.autorestart]})


def _endpoint(spec: ContainerSpec) -> dict[str, Any]:
    """The `EndpointSpec` of a container's service."""
    ports = [
        {
            "Protocol": port.protocol,
            "TargetPort": port.inner_port,
            "PublishedPort": port.outer_port,
            "PublishMode": "host",
        }
        for port in spec.ports
        if port.outer_port is not None and spec.network != "host"
    ]
    return {"Mode": "dnsrr", "Ports": ports}


def _outer_ports(container: _Container) -> str:
    """The outer ports of a container, for messages."""
    ports = container.spec.ports if container.spec else ()
    return ", ".join(str(port.outer_port) for port in ports if port.outer_port is not None)


def _trouble_with(node: _Node | None) -> str:
    """Why a node runs nothing, for messages; "" when it can."""
    if node is None:
        return "is not in the swarm any more"
    if not node.described.up:
        return "does not answer"
    return "is drained" if node.described.drained else ""


def _labels_of(where: Place | None) -> dict[str, str]:
    """What a container's labels say of its place, beside its names."""
    if where is None:
        return {}
    links = [[link.name, link.service, link.home] for link in where.links]
    return {NETWORK: str(where.home), LINKS: json.dumps(links)}


def _environment(spec: ContainerSpec) -> list[str]:
    return [f"{name}={literal(value)}" for name, value in spec.environment.items()]


def _is_changed(spec: ContainerSpec | None, made: Mapping[str, str], template: Mapping[str, Any]) -> bool:
    """Whether somebody else has changed what a container is made of (`docker service update`)."""
    if spec is None:
        return False
    now, command = template["ContainerSpec"], command_of(spec, None)
    return (
        now["Image"] != made.get(REFERENCE, now["Image"])
        or sorted(now.get("Env") or ()) != sorted(_environment(spec))
        or (now.get("Command") or None, now.get("Args") or None)
        != (command.entrypoint or None, command.arguments or None)
    )


def _create_service(client: Any, name: str, body: Mapping[str, Any]) -> str:
    """The ID of a new swarm service; or of this very one, if its creation was begun before."""
    try:
        return str(client.create_service(name=name, **body)["ID"])
    except docker.errors.APIError as error:
        if error.status_code != 409:
            raise
    found = client.inspect_service(name)
    made = found["Spec"].get("Labels") or {}
    if any(made.get(label) != body["labels"].get(label) for label in (CONTAINER, EMPTIES)):
        raise BackendError(f"another swarm service has the name {name}")
    return str(found["ID"])


def service_name(spec: ContainerSpec) -> str:
    """A container's swarm service: readable, valid for a swarm, and never that of its predecessor."""
    name = "-".join(re.findall(r"[A-Za-z0-9]+", spec.name))[:50].strip("-")
    return f"{name or 'c'}-{spec.uuid[:8]}"


def literal(text: str) -> str:
    """What a swarm makes this text of: it takes environment, host names and mounts for templates."""
    return text.replace("{{", '{{"{{"}}')


def _repository(image: str) -> str:
    """An image's name without tag and digest."""
    name = image.partition("@")[0]
    head, slash, last = name.rpartition("/")
    return f"{head}{slash}{last.partition(':')[0]}"
