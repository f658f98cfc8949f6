"""What the verbs share: records, convergence, events, rendered answers, actions, retention."""

from __future__ import annotations

import asyncio
import collections
import heapq
import logging
from collections.abc import Awaitable, Callable, Iterable, Mapping
from typing import Any, NoReturn

from ..errors import ApiError, BackendError, BadRequest, NotFound, Problem, ServerError
from ..lifecycle import (
    DEPLOYING,
    ENDING,
    NOT_RUNNING,
    PARTLY_RUNNING,
    REDEPLOYING,
    RUNNING,
    SCALING,
    STARTING,
    STOPPED,
    STOPPING,
    TERMINATED,
    TERMINATING,
)
from . import backends
from .backends import Backend, Observed
from .clock import Clock, sleep
from .convergence import Convergence
from .dependencies import needs
from .deployment import World
from .hub import Hub
from .model import (
    Action,
    Container,
    Node,
    NodeCluster,
    Record,
    RequestInfo,
    Service,
    Settings,
    Stack,
    Volume,
    VolumeGroup,
    new_uuid,
    uri,
    uuid_in,
)
from .records import Change, Records, link_targets, object_uri
from .shapes import Shapes, render
from .store import Store

log = logging.getLogger("pulumi_tutum.server")

#: How many actions are kept per object.
ACTIONS_KEPT = 100
#: Seconds between attempts to remove what was given up with its node: at first, and at most.
_DISCARD_PAUSE, _DISCARD_MAX = 1.0, 60.0
#: How many services are kept as rendered JSON, in detail shape (2 KB or more) and in list shape (1 KB). More
#: services than that are rendered when they are asked for.
DETAILS_KEPT, LISTED_KEPT = 4096, 16_384
_SWEEP_PAUSE = 0.5
_EVENT_TYPES = ("service", "container", "action", "stack", "node", "nodecluster")
#: Kinds among which `include_related` looks: what a container has to do with its node does not count.
_RELATED = (("service", "container", "stack"), ("node", "nodecluster"))
#: Kinds that end, and are forgotten `retain_terminated` seconds later. (Nodes are remembered, and no longer
#: shown: one of those that the command line names must not come back after a restart.)
_ENDING_KINDS = (Service, Container, Stack, NodeCluster, Volume, VolumeGroup)


class Core:
    """See the module's docstring. `verbs` hooks are set by the control plane."""

    def __init__(self, settings: Settings, store: Store, backend: Backend, clock: Clock) -> None:
        self.settings = settings
        self.store = store
        self.backend = backend
        self.clock = clock
        self.records = Records(store)
        overlay, moves = (bool(getattr(backend, name, False)) for name in ("overlay", "moves"))
        self.world = World(self.records, settings, backend.name, overlay, moves)
        self.shapes = Shapes(self.world)
        self.hub = Hub()
        self.convergence = Convergence(self.world, backend, clock, self._settled)
        self.on_settled: list[Any] = []
        self._details: dict[str, bytes] = {}
        self._listed: dict[str, bytes] = {}
        self._retired: list[tuple[float, str, str]] = []
        self._purging = False
        self._sweeping = False
        self._background: set[asyncio.Task[None]] = set()
        self.records.listen(self._changed)

    # -- life

    def load(self) -> None:
        self.records.load()
        for kind in (cls.kind for cls in _ENDING_KINDS):
            for record in self.records.table(kind).values():
                if record.destroyed is not None:
                    self._retire(record)

    async def reconcile(self) -> None:
        """Bring the records and what the backend really has together, and carry on what was interrupted."""
        seen = {o.uuid: o for o in await self.backend.containers()}
        for observed in seen.values():
            container = self.records.containers.get(observed.uuid)
            if container is None or not container.live:
                log.warning("removing a container that nobody knows", extra={"container": observed.uuid})
                try:
                    await self.backend.remove(observed.uuid)
                except BackendError as error:
                    log.warning("cannot remove it", extra={"container": observed.uuid, "error": str(error)})
        with self.records.change() as change:
            for container in [c for c in self.records.containers.values() if c.live]:
                found = seen.get(container.uuid)
                if found is not None:
                    stale = found.status == container.status == backends.EXITED
                    if not stale and _differs(container, found):
                        self.convergence.apply(change, container, found)
                elif container.status and container.wanted not in ("running", "gone"):
                    self.convergence.apply(
                        change, container, Observed(container.uuid, backends.GONE, reason="it is gone")
                    )
                elif container.status:
                    change.edit(container).status = ""
        self.sweep_soon()
        for service in list(self.records.services.values()):
            self.convergence.kick(service.uuid)

    def sweep_soon(self) -> None:
        """Have the backend remove volumes that no record knows any more."""
        if self._sweeping:
            return
        self._sweeping = True

        async def sweep() -> None:
            # Services end in crowds.
            await sleep(self.clock, _SWEEP_PAUSE)
            self._sweeping = False
            await self.backend.sweep(
                lambda: {v.uuid for v in self.records.volumes.values() if v.state == "Created"}
            )

        self.spawn(sweep, "removing volumes that nobody needs")

    def discard(self, uuid: str) -> None:
        """Have the backend remove a container that counts as gone already, as soon as it can."""

        async def discard() -> None:
            wait = _DISCARD_PAUSE
            while True:
                try:
                    await self.backend.remove(uuid)
                    return
                except BackendError as error:
                    if not error.transient:
                        raise
                await sleep(self.clock, wait)
                wait = min(wait * 2, _DISCARD_MAX)

        self.spawn(discard, "removing a container that was given up")

    async def close(self) -> None:
        self.hub.close()
        await self.convergence.close()
        for task in list(self._background):
            task.cancel()
        await asyncio.gather(*self._background, return_exceptions=True)

    def spawn(self, work: Callable[[], Awaitable[None]], name: str) -> None:
        """Run a coroutine beside everything else, until the server closes."""

        async def run() -> None:
            try:
                await work()
            except (BackendError, ApiError) as error:
                log.warning("%s failed: %s", name, error)
            except asyncio.CancelledError:
                raise
            except Exception:
                log.exception("%s ended unexpectedly", name)

        task = asyncio.get_running_loop().create_task(run(), name=name)
        self._background.add(task)
        task.add_done_callback(self._background.discard)

    # -- looking up

    def service(self, uuid: str) -> Service:
        found: Service = self._found("service", uuid, self.records.services)
        return found

    def container(self, uuid: str) -> Container:
        found: Container = self._found("container", uuid, self.records.containers)
        return found

    def find(self, kind: str, identifier: str) -> Any:
        return self._found(kind, identifier, self.records.table(kind))

    @staticmethod
    def _found(kind: str, uuid: str, table: Mapping[str, Any]) -> Any:
        record = table.get(uuid) or table.get(uuid.lower())
        if record is None:
            raise NotFound(f"There is no such {kind}")
        return record

    # -- rendered answers

    def detail_json(self, uuid: str) -> bytes:
        """A service's detail as JSON, rendered once per change."""
        rendered = self._details.get(uuid)
        if rendered is None:
            service = self.service(uuid)
            rendered = render(self.shapes.service(service))
            if len(self._details) >= DETAILS_KEPT:
                self._details.pop(next(iter(self._details)))
            self._details[service.uuid] = rendered
        return rendered

    def listed_json(self, record: Record) -> bytes:
        """A record in list shape as JSON; a service's is rendered once per change."""
        rendered = self._listed.get(record.uuid)
        if rendered is None:
            rendered = render(self.shapes.listed(record))
            # Clients read a list from its first service to its last. If the last services took the place of
            # the first ones, no kept service would ever be read.
            if isinstance(record, Service) and len(self._listed) < LISTED_KEPT:
                self._listed[record.uuid] = rendered
        return rendered

    def _forget_rendered(self, service: Service | str) -> None:
        """Drop what was rendered of a service and of those that show something of it."""
        uuid = service if isinstance(service, str) else service.uuid
        forgotten = [uuid, *self.records.linkers.get(uuid, ())]
        if isinstance(service, Service):
            forgotten += link_targets(service.definition)
        for other in forgotten:
            self._details.pop(other, None)
            self._listed.pop(other, None)

    # -- after each change

    def _changed(self, told: list[tuple[Record, Record | None, bool]], announced: frozenset[str]) -> None:
        stacks: dict[str, None] = {}
        relink: dict[str, None] = {}
        #: Services for which others may wait, and whether circles of links may be others now.
        needed: dict[str, bool] = {}
        for record, old, dropped in told:
            if isinstance(record, Service):
                self._forget_rendered(record)
                if isinstance(old, Service):
                    self._forget_rendered(old)
                    if old.get("linked_to_service") != record.get("linked_to_service"):
                        relink[record.uuid] = None
                if record.stack:
                    stacks[record.stack] = None
                if isinstance(old, Service) and _outlook(old) != _outlook(record):
                    needed[record.uuid] = record.state in DEPLOYING
            elif isinstance(record, Container):
                self._forget_rendered(record.service)
                was = old if isinstance(old, Container) else None
                if was is None or _placement(record) != _placement(was):
                    needed.setdefault(record.service, False)
                if _membership(record) != (was is not None and _membership(was)):
                    relink.update(dict.fromkeys(self.records.linkers.get(record.service, ())))
                    relink[record.service] = None
                elif was is not None and record.runs and not was.runs:
                    relink[record.service] = None
                service = self.records.services.get(record.service)
                if service is not None and service.stack:
                    stacks[service.stack] = None
            elif isinstance(record, (Node, Stack)):
                self._details.clear()
                self._listed.clear()
            if (
                not dropped
                and isinstance(record, _ENDING_KINDS)
                and getattr(record, "destroyed", None) is not None
                and getattr(old, "destroyed", None) is None
            ):
                self._retire(record)
                if isinstance(record, Volume):
                    self.sweep_soon()
            if self.hub.watched and not dropped and record.kind in _EVENT_TYPES:
                self._publish(record, old, record.uuid in announced)
        for uuid in relink:
            self.convergence.relink(uuid)
        for uuid, indirect in needed.items():
            self.convergence.wake_dependents(uuid, indirect=indirect)
        for uuid in stacks:
            self.settle_stack(uuid)

    def _publish(self, record: Record, old: Record | None, announced: bool) -> None:
        state = record.state  # type: ignore[union-attr]
        if old is None:
            action = "create"
        elif old.state != state or announced:  # type: ignore[union-attr]
            action = "delete" if isinstance(record, Container) and state == "Terminated" else "update"
        else:
            return
        self.hub.publish(
            {
                "type": record.kind,
                "action": action,
                "parents": self.parents(record),
                "resource_uri": object_uri(record),
                "state": state,
                "uuid": record.uuid,
                "datetime": _iso(self.clock.time()),
            }
        )

    def parents(self, record: Record) -> list[str]:
        """The URIs that an event names as parents."""
        if isinstance(record, Service):
            return [uri("stack", record.stack)] if record.stack else []
        if isinstance(record, Container):
            service = self.records.services.get(record.service)
            found = [uri("service", record.service)]
            if service is not None and service.stack:
                found.append(uri("stack", service.stack))
            node = self.records.nodes.get(record.node)
            if node is not None:
                found += [uri("node", node.uuid), uri("nodecluster", node.cluster)]
            return found
        if isinstance(record, Node):
            return [uri("nodecluster", record.cluster)]
        return [record.object] if isinstance(record, Action) else []

    def related(self, uuid: str) -> set[str]:
        """uuids of an object, of those that it belongs to, and of those that belong to it."""
        for kinds in _RELATED:
            found = [record for kind in kinds for record in self.records.table(kind).values()]
            owners = {r.uuid: {uuid_in(parent) for parent in self.parents(r)} for r in found}
            if uuid in owners:
                members = {u for u, theirs in owners.items() if uuid in theirs}
                return {uuid} | members | (owners[uuid] & owners.keys())
        return {uuid}

    def settle_stack(self, uuid: str) -> None:
        """Give a stack the state that its services give it."""
        stack = self.records.stacks.get(uuid)
        if stack is None or stack.state == TERMINATED:
            return
        services = [self.records.services[u] for u in self.records.of_stack.get(uuid, ())]
        state = stack_state([s.state for s in services], stack.terminating)
        if state == stack.state:
            return
        try:
            with self.records.change() as change:
                change.edit(stack).state = state
                if state == TERMINATED:
                    stack.destroyed = self.clock.time()
                if state in (RUNNING, PARTLY_RUNNING) and any(s.deployed is not None for s in services):
                    stack.deployed = max(s.deployed for s in services if s.deployed is not None)
        except ServerError:
            self.clock.call_later(1.0, self.settle_stack, uuid)

    def _settled(self, service: Service) -> None:
        for hook in self.on_settled:
            hook(service)

    # -- retention

    def _retire(self, record: Any) -> None:
        heapq.heappush(
            self._retired, (record.destroyed + self.settings.retain_terminated, record.kind, record.uuid)
        )
        if not self._purging:
            self._purging = True
            self._wait_for_purge()

    def _wait_for_purge(self) -> None:
        if not self._retired:
            self._purging = False
            return
        wait = max(self._retired[0][0] - self.clock.time(), 0.0)
        self.clock.call_later(min(max(wait, 0.01), 3600.0), self._purge)

    def _purge(self) -> None:
        now = self.clock.time()
        due: list[tuple[float, str, str]] = []
        while self._retired and self._retired[0][0] <= now and len(due) < 1000:
            due.append(heapq.heappop(self._retired))
        try:
            with self.records.change() as change:
                for _, kind, uuid in due:
                    record = self.records.table(kind).get(uuid)
                    if record is not None and record.destroyed is not None:
                        change.drop(record)
                        if uuid in self.records.outputs:
                            change.drop(self.records.outputs[uuid])
                        for action in self.records.actions_of.get(object_uri(record), ()):
                            change.drop(self.records.actions[action])
        except ServerError:
            for entry in due:
                heapq.heappush(self._retired, entry)
            self.clock.call_later(5.0, self._purge)
            return
        self._wait_for_purge()

    # -- actions

    def act(
        self,
        change: Change,
        text: str,
        object_: str,
        request: RequestInfo | None,
        *,
        state: str = "Success",
        verb: str = "",
        error: str = "",
        options: Mapping[str, Any] | None = None,
    ) -> Action:
        """Record an action. Only the newest of an object are kept."""
        now = self.clock.time()
        r = request or RequestInfo()
        action = Action(
            new_uuid(),
            self.records.next_seq(),
            object_,
            text,
            state,
            r.method,
            r.path,
            r.user_agent,
            r.ip,
            r.body,
            now,
            now if state in ("Success", "Failed", "Canceled") else None,
            error,
            request is not None,
            verb,
            dict(options or {}),
        )
        change.add(action)
        held = self.records.actions_of.get(object_, {})
        for uuid in list(held)[: max(len(held) + 1 - ACTIONS_KEPT, 0)]:
            old = self.records.actions[uuid]
            if old.end is not None:
                change.drop(old)
        return action

    def refuse(
        self, text: str, object_: str, request: RequestInfo | None, error: ApiError, verb: str = ""
    ) -> NoReturn:
        """Record a Failed action, name it in the error (tutum-api.md, 2.4 and 4.3), and raise that."""
        with self.records.change() as change:
            action = self.act(change, text, object_, request, state="Failed", verb=verb, error=error.message)
        error.action_uri = uri("action", action.uuid)
        raise error


def bad_request(problems: Iterable[Problem], kind: str = "service", where: str = "") -> BadRequest:
    """The 400 for problems: one text, and the messages by field under the kind's name (tutum-api.md, 2.3)."""
    found = list(problems)
    nested: dict[str, list[str]] = collections.defaultdict(list)
    for problem in found:
        name = problem.path.split("[", 1)[0].split(".", 1)[0] or "__all__"
        nested[name].append(f"{where}{problem}")
    return BadRequest(where + "; ".join(map(str, found)), detail={kind: dict(nested)})


def stack_state(states: list[str], terminating: bool) -> str:
    """A stack's state, from those of its services."""
    live = [s for s in states if s not in ENDING]
    if terminating:
        return TERMINATING if live or TERMINATING in states else TERMINATED
    for state in (REDEPLOYING, STARTING, STOPPING):
        if state in live:
            return state
    if not live or set(live) == {NOT_RUNNING}:
        return NOT_RUNNING
    if set(live) <= {RUNNING, SCALING}:
        return RUNNING
    return STOPPED if set(live) <= {STOPPED, NOT_RUNNING} else PARTLY_RUNNING


def _outlook(service: Service) -> tuple[object, ...]:
    """What of a service tells others whether to wait for it."""
    return service.state, service.target, needs(service.definition)


def _placement(c: Container) -> tuple[object, ...]:
    """What of a container tells other services whether it is placed."""
    return c.live, c.spec is not None, c.wanted == "gone", c.status == "", c.deployment


def _membership(c: Container) -> bool:
    """Whether others that link to its service see the container."""
    return c.live and c.spec is not None and c.wanted != "gone"


def _differs(c: Container, seen: Observed) -> bool:
    if seen.status == backends.WAITING and c.reason != seen.reason:
        return True
    return (c.status, c.exit_code, c.healthy, c.restarts, c.node, c.revision, c.address) != (
        seen.status,
        seen.exit_code,
        seen.healthy,
        seen.restarts,
        seen.node or c.node,
        seen.revision or c.revision,
        seen.address or c.address,
    ) or (c.wanted == "running" and seen.status in (backends.RUNNING, backends.RESTARTING))


def _iso(seconds: float) -> str:
    import time

    return time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(seconds))
