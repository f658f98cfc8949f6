"""One service on its way to where its state says it goes.

While a service is on its way, or one of its containers is, it has one task (`Transition`). The task looks at
the records, does the next thing, and waits until something has changed: a backend's answer, an observation,
or the deadline. Nothing is remembered outside the records but what may be lost (which starts were asked for,
what failed), so that after a crash a new task goes on from the store.

`wanted` of a container is where it is to go. The task asks the backend for it, and clears it when the
container is there. Which containers are wanted where follows from the service's state:

  Starting       those that have not run yet are started, missing ones placed, those above the target removed
  Scaling        the same without starting what had stopped
  Redeploying    containers of an older deployment are replaced in batches; the first container that fails
                 ends the redeploy, so that the others go on running; before anything is removed, the new
                 image is looked for, and the operator's policy asked
  Stopping, Terminating    they are stopped, removed

uptime.py says when a container is up. A service stays in its transitional state until all its containers are
up, or one of them has failed. With `sequential_deployment` each container is begun when the one before it is
up. A redeploy replaces the first container alone, and then the others in batches of at most a quarter of the
service, each batch when the one before it is up. A container that exits before it is up has failed; it stays,
so that its output can be read. A container that could not be started and never ran is removed again; its
record tells why. What autodestroy removes on the way is not made again: jobs are not run twice. A container
whose only node does not answer just now is placed when it does; once the node is given up, it has failed.

dependencies.py says which other services it waits for: in `_deploy`, before containers are placed or removed,
and in `_bring_up`, before a placed container is made.

Deadline: `start_timeout` seconds in which no further container gets where it is to go. The seconds in which a
container is only watched do not count; but restarts, which begin that window again, cannot put the deadline
off for ever. At the deadline the transition is given up: its action is Failed with the reasons, and the
service has the state that its containers give it.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable

from ..errors import BackendError, ServerError
from ..lifecycle import (
    DEPLOYING,
    NOT_RUNNING,
    REDEPLOYING,
    RUNNING,
    SCALING,
    STARTING,
    STOPPED,
    STOPPING,
    TERMINATED,
    TERMINATING,
    TRANSITIONAL,
    containers_text,
)
from . import backends, uptime
from .backends import Observed, PortTaken
from .clock import Timer, sleep
from .dependencies import Dependencies
from .deployment import check_health_port
from .model import Action, Container, Image, Service, has_exited
from .records import Change
from .scheduler import NoNode, NotYet
from .settling import RETRY_MAX, RETRY_SECONDS, Settling

log = logging.getLogger("pulumi_tutum.server")

_PORT_TRIES = 20
#: Exit codes of what was killed by a signal, or ended with its engine.
_KILLED = frozenset({137, 143, 255})
#: What a service asks of its machine, which the operator may have forbidden since it was defined.
_ALLOWED = ("privileged", "pid", "network", "bindings")
#: How long a transition that was given up may still clean up after itself.
_CLEANING_SECONDS = 15.0


class Transition:
    """See the module's docstring.

    Args:
        over: called when it has ended, whatever the reason.
    """

    def __init__(self, settling: Settling, service: Service, over: Callable[[], None]) -> None:
        self.settling = settling
        self.over = over
        self.records = settling.records
        self.world = settling.world
        self.service = service
        self.task: asyncio.Task[None] | None = None
        self.wake = asyncio.Event()
        self.ops: dict[str, asyncio.Task[None]] = {}
        #: What the backend said about a container while a call about it was in progress.
        self.told: dict[str, Observed] = {}
        #: Containers whose start the backend has accepted.
        self.asked: set[str] = set()
        #: Containers that this run has begun to bring up.
        self.begun: set[str] = set()
        #: Why, by container name, in order.
        self.failures: dict[str, str] = {}
        #: What waits for a node that does not answer just now, by container name, and why.
        self.awaiting: dict[str, str] = {}
        self.dependencies = Dependencies(self.world)
        #: Services that it needs keep it from placing containers, and these containers from being made.
        self.held_up = False
        self.held: set[str] = set()
        self._needs_changed = asyncio.Event()
        #: Ordinals (EVERY_NODE: nodes) that could not be filled and are not tried again by this run.
        self.given_up: set[int | str] = set()
        #: What a backend that is to be asked again said last, by container.
        self.troubles: dict[str, str] = {}
        self.image_found = False
        self.cancelled = False
        self._expiries = 0
        self._timer: Timer | None = None
        #: Wakes this run when a container that is watched is up.
        self._watch: Timer | None = None
        #: By how many seconds the deadline was put off because containers were watched.
        self._put_off = 0.0
        #: Containers that are on their way, and whether they run already.
        self._waiting: set[tuple[str, bool]] = set()
        self._action = service.action
        self._progress = self._most_progress()

    def _begin_anew(self) -> None:
        """Another action began while containers were still on their way."""
        self._action = self.service.action
        self.failures.clear()
        self.given_up.clear()
        self.begun.clear()
        self.asked.clear()
        self.image_found, self.cancelled, self._expiries = False, False, 0
        self._put_off = 0.0
        for c in self.records.containers_of(self.service.uuid):
            if c.uuid in self.ops and c.wanted in ("stopped", "gone"):
                # A call that brings it up must not win over what is wanted now.
                self.ops.pop(c.uuid).cancel()
        self._progress = self._most_progress()
        self._arm(self.world.settings.start_timeout)

    def _most_progress(self) -> int:
        """How often a container may get where it is to go, generously."""
        containers = len(self.records.containers_of(self.service.uuid))
        wanted = self.service.target
        return 10 + 8 * (containers + (len(self.records.nodes) if wanted is None else wanted))

    async def run(self) -> None:
        self._arm(self.world.settings.start_timeout)
        try:
            while True:
                self.wake.clear()
                if self.service.action != self._action:
                    self._begin_anew()
                try:
                    if self._step():
                        break
                except ServerError as error:
                    log.warning("cannot store: %s", error.message)
                    await sleep(self.settling.clock, RETRY_SECONDS)
                    continue
                except Exception:
                    # A bug must not leave the service in a transitional state for ever.
                    log.exception("converging a service ended unexpectedly")
                    self.failures[self.service.name] = "internal error; the server's log has more"
                    self.cancelled = True
                    await sleep(self.settling.clock, RETRY_MAX)
                    continue
                await self.wake.wait()
        finally:
            for timer in (self._timer, self._watch):
                if timer:
                    timer.cancel()
            for op in self.ops.values():
                op.cancel()
            self.over()

    # -- the deadline

    def _arm(self, seconds: float) -> None:
        if self._timer:
            self._timer.cancel()
        self._timer = self.settling.clock.call_later(seconds, self._expire)

    def _expire(self) -> None:
        if self.waits_for_others:
            # They have deadlines of their own.
            self._arm(self.world.settings.start_timeout)
            self.look_at_needs()
            return
        more = self._watched_for()
        if more > 0:
            self._put_off += more
            self._arm(more)
            return
        self._expiries += 1
        try:
            self._give_up(final=self._expiries > 1)
        except ServerError:
            self._expiries -= 1
            self._arm(RETRY_SECONDS)
            return
        self._arm(min(_CLEANING_SECONDS, self.world.settings.start_timeout))
        self.wake.set()

    def _watched_for(self) -> float:
        """Seconds for which the deadline is put off, since containers are only watched; 0 when nothing is,
        or when restarts have begun the window too often."""
        monitor = self.service.monitor_seconds
        if self._put_off > uptime.MANY_RESTARTS * monitor + uptime.LOOP_SECONDS:
            return 0.0
        now, longest = self.settling.clock.time(), 0.0
        for c in self.records.containers_of(self.service.uuid):
            if c.wanted != "running" or not c.runs:
                continue
            seen = uptime.look(c, monitor, now)
            if seen.up:
                longest = max(longest, RETRY_SECONDS)  # the next step sees it
            elif seen.again_in is not None:
                longest = max(longest, seen.again_in)
            elif c.status == backends.RESTARTING and not uptime.has_own_check(c) and not seen.failure:
                longest = max(longest, monitor)
        return longest

    def _note_progress(self, live: list[Container]) -> None:
        """A container has come further on its way: the deadline begins anew; not without end, whatever
        containers do."""
        waiting = {(c.uuid, c.runs) for c in live if c.wanted}
        if self._waiting - waiting and self._expiries == 0 and self._progress > 0:
            self._progress -= 1
            self._put_off = 0.0
            self._arm(self.world.settings.start_timeout)
        self._waiting = waiting

    def _give_up(self, final: bool, reason: str = "") -> None:
        within = reason or f"within {self.world.settings.start_timeout:g} seconds"
        for op in self.ops.values():
            op.cancel()
        self.ops.clear()
        self.failures.update(self.awaiting)
        with self.records.change() as change:
            for c in self.records.containers_of(self.service.uuid):
                if not c.wanted:
                    continue
                if c.wanted == "gone" and not final:
                    continue
                if c.wanted == "running" and (waits := self._why_it_waits(c)):
                    self._fail(change, c, f"{waits} (not {within})" if reason else waits)
                elif c.wanted == "running":
                    verb = "start"
                    detail = f": {c.health_detail}" if c.runs and c.health_detail else ""
                    if c.runs:
                        verb = "become healthy" if uptime.has_own_check(c) else "stay up"
                    self._fail(change, c, f"did not {verb} {within}{detail}")
                else:
                    verb = "be stopped" if c.wanted == "stopped" else "be removed"
                    self._fail(change, c, f"could not {verb} {within}")
        self.cancelled = True

    def _fail(self, change: Change, c: Container, reason: str) -> None:
        """A container does not get where it was to go; see the module's docstring for what becomes of it."""
        if c.uuid in self.troubles:
            reason += f": {self.troubles.pop(c.uuid)}"
        self.failures[c.name] = reason
        starting = c.wanted == "running"
        change.edit(c).reason = reason
        if starting:
            c.failure = reason
        if starting and not c.runs:
            self.given_up.add(c.node if self.service.every_node else c.ordinal)
            if c.started is None:
                self.settling.end_action(change, c.action, reason)
                c.action, c.wanted = "", "gone"
                return
            if c.uuid in self.asked and not c.waits:
                # The backend has accepted the start: it must not come up later.
                self.settling.end_action(change, c.action, reason)
                c.action, c.wanted, c.ran = "", "stopped", True
                return
        c.ran = True
        self.settling.arrived(change, c, reason)

    # -- one step

    def _step(self) -> bool:
        """Do what can be done now. True: the service has come to rest."""
        service = self.service
        action = self.records.actions.get(service.action)
        if action is not None and action.state == "Canceling" and not self.cancelled:
            self._give_up(final=False, reason="before it was canceled")
        live = self.records.containers_of(service.uuid)
        self._note_progress(live)
        self.awaiting.clear()
        was_held_up, self.held_up = self.held_up, False
        with self.records.change() as change:
            self._look_at_started(change, live)
            if service.state in DEPLOYING:
                self._note_exits(live)
                if not self.cancelled:
                    self._deploy(change, live)
        if was_held_up and not self.held_up:
            self._arm(self.world.settings.start_timeout)
        live = self.records.containers_of(service.uuid)
        for c in live:
            if c.uuid not in self.ops:
                self._carry_out(c)
        self.settling.rest(service)
        if self._expiries > 1:
            self._come_to_rest()
            return True
        if self.ops or self.awaiting or any(c.wanted for c in self.records.containers_of(service.uuid)):
            return False
        self._come_to_rest()
        return True

    def _look_at_started(self, change: Change, live: list[Container]) -> None:
        """Which of the containers that run are up by now, and which have failed; looks again in time."""
        if self._watch:
            self._watch.cancel()
            self._watch = None
        monitor, now = self.service.monitor_seconds, self.settling.clock.time()
        waits = []
        for c in live:
            if c.wanted != "running" or not c.runs or c.uuid in self.ops:
                continue
            seen = uptime.look(c, monitor, now)
            if seen.failure:
                self._fail(change, c, seen.failure)
            elif seen.up:
                self.settling.arrived(change, c)
            elif seen.again_in is not None:
                waits.append(seen.again_in)
        if waits:
            self._watch = self.settling.clock.call_later(min(waits), self.wake.set)

    def _carry_out(self, c: Container) -> None:
        backend = self.settling.backend
        if c.wanted == "gone":
            self._operate(c, lambda: self._remove(c))
        elif c.wanted == "stopped":
            if c.active or c.uuid in self.asked:
                self._operate(c, lambda: backend.stop(c.uuid))
            else:
                with self.records.change() as change:
                    self.settling.arrived(change, c)
        elif c.wanted == "running" and not c.runs and c.uuid not in self.asked:
            self._begin(c)

    def _begin(self, c: Container) -> None:
        """Have a container brought up; fail it if it can run on one node only, and that was given up."""
        node = self.settling.awaited_node(c)
        if node is not None and node.given_up and c.status:
            with self.records.change() as change:
                self._fail(change, c, self._why_it_waits(c))
            return
        self.begun.add(c.uuid)
        self._operate(c, lambda: self._bring_up(c))

    def _why_it_waits(self, c: Container) -> str:
        """A sentence about a container that waits for a node; "" when it does not wait."""
        told = self.told.get(c.uuid)
        if told is not None and told.status == backends.WAITING:
            return told.reason
        if c.waits:
            return c.reason
        node = self.settling.awaited_node(c)
        return backends.waits_for(c.name, f"node {node.name}") if node is not None else ""

    def _deploy(self, change: Change, live: list[Container]) -> None:
        """Decide which containers are to come, to start and to go next."""
        service = self.service
        staying = [c for c in live if c.wanted != "gone"]
        redeploying = service.state == REDEPLOYING
        old = [c for c in staying if redeploying and c.deployment < service.deployment]
        moving = any(c.wanted for c in live) or bool(self.ops)
        excess, missing = self._slots(staying, live)
        if redeploying and any(c.wanted == "gone" for c in live):
            missing = []  # what is leaving keeps its ordinal, and its volumes, for its successor
        for c in excess:
            change.edit(c).wanted = "gone"
            c.keep_volumes = False
        old = [c for c in old if c not in excess]
        has_failed = bool(old and self.failures)
        if (old or missing) and not has_failed and self._is_held_up(old, missing):
            old, missing = [], []
        if old:
            # None after one that failed.
            if moving or excess or self.failures:
                return
            batch = self._batch(staying, len(staying) + len(missing))
            if not self.image_found:
                self._look_for_image(old[0].node)
            elif missing:
                self._place(change, missing[:batch])
            else:
                for c in old[:batch]:
                    change.edit(c).wanted = "gone"
                    c.keep_volumes = service.reuse_volumes
            return
        idle = [c for c in staying if c not in excess and self._should_start(c)]
        if not service.get("sequential_deployment"):
            for c in idle:
                change.edit(c).wanted = "running"
            self._place(change, missing)
        elif not moving and not self.failures:
            if idle and (not missing or idle[0].ordinal < _ordinal(missing[0])):
                change.edit(idle[0]).wanted = "running"
            else:
                self._place(change, missing[:1])

    def _batch(self, staying: list[Container], size: int) -> int:
        """How many containers a redeploy replaces at the same time: the first alone, then a quarter of
        `size`."""
        service = self.service
        is_first = all(c.deployment < service.deployment for c in staying)
        if is_first or service.get("sequential_deployment"):
            return 1
        return max(size // 4, 1)

    # -- waiting for services that it needs

    @property
    def waits_for_others(self) -> bool:
        return self.held_up or bool(self.held)

    def look_at_needs(self) -> None:
        """Something about a service that this one needs has changed."""
        self.wake.set()
        self._needs_changed.set()

    def _is_held_up(self, old: list[Container], missing: list[tuple[int, str | None]]) -> bool:
        """Whether a service that this one needs keeps it from placing containers, now or at all."""
        obstacle = self.dependencies.before_placing(self.service, old, missing)
        if obstacle is None:
            return False
        if obstacle.lasting:
            self.failures[self.service.name] = obstacle.reason
            self.cancelled = True
        else:
            self.awaiting[self.service.name] = obstacle.reason
            self.held_up = True
        return True

    async def _wait_for_others(self, c: Container) -> None:
        """Wait until a container's environment and volumes can be made up.

        Raises:
            BackendError: a service that it needs has failed.
        """
        obstacle = self.dependencies.before_making(self.service, c)
        if obstacle is None:
            return
        self.held.add(c.uuid)
        try:
            while obstacle is not None and not obstacle.lasting:
                self._needs_changed.clear()
                await self._needs_changed.wait()
                obstacle = self.dependencies.before_making(self.service, c)
        finally:
            self.held.discard(c.uuid)
        if obstacle is not None:
            raise BackendError(obstacle.reason)
        self._arm(self.world.settings.start_timeout)

    def _should_start(self, c: Container) -> bool:
        """Stopped containers that a start has not brought up yet (it cleared `ran`)."""
        return (
            self.service.state == STARTING
            and not c.runs
            and not c.wanted
            and not c.ran
            and c.name not in self.failures
        )

    def _slots(
        self, staying: list[Container], live: list[Container]
    ) -> tuple[list[Container], list[tuple[int, str | None]]]:
        """Containers that are too many, and (ordinal, node) of those that are missing."""
        service = self.service
        taken = {c.ordinal for c in live}
        free = (n for n in range(1, len(live) + 100_000) if n not in taken)
        if service.every_node:
            nodes = [n.uuid for n in self.world.candidates(service)]
            reachable = {n.uuid for n in self.world.candidates(service, awaited=True)}
            held: set[str] = set()
            excess = []
            for c in staying:
                outdated = service.state == REDEPLOYING and c.node not in reachable
                if outdated or c.node in held:
                    excess.append(c)
                held.add(c.node)
            leaving = {c.node for c in live if c.wanted == "gone"}
            filled = held | leaving | self.given_up | set(service.finished)
            wanted = [n for n in nodes if n not in filled]
            return excess, [(next(free), n) for n in wanted]
        target = service.target or 0
        excess = self.world.excess(service, staying)
        filled = self.given_up | set(service.finished)
        missing = target - len(staying) - len(filled)
        found: list[tuple[int, str | None]] = []
        while missing > 0 and len(found) < missing:
            ordinal = next(free)
            if ordinal not in filled:
                found.append((ordinal, None))
        return excess, found

    def _place(self, change: Change, slots: list[tuple[int, str | None]]) -> None:
        service = self.service
        if not slots:
            if service.every_node and not self.failures and not self.world.candidates(service):
                if self.world.candidates(service, awaited=True):
                    self.awaiting[service.name] = "no node is up"
                else:
                    self._explain_no_candidates()
            return
        loads = self.world.loads(service)
        for ordinal, node in slots:
            try:
                container = self.world.place(change, service, ordinal, loads, node)
            except NotYet as error:
                self.awaiting[f"{service.name}-{ordinal}"] = str(error)
            except NoNode as error:
                self.failures[f"{service.name}-{ordinal}"] = str(error)
                self.given_up.add(node if node is not None else ordinal)
            else:
                self.begun.add(container.uuid)

    def _explain_no_candidates(self) -> None:
        tags = [tag["name"] for tag in self.service.get("tags")]
        self.failures[self.service.name] = (
            f"no node has all the tags {', '.join(tags)}" if tags else "no node is up"
        )

    # -- calls to the backend

    def _operate(self, c: Container, work: Callable[[], Awaitable[Observed]]) -> None:
        async def operate() -> None:
            seen = await self._insist(c, work)
            # Nothing is awaited between storing the answer and forgetting the call.
            while seen is not None and c.live:
                try:
                    with self.records.change() as change:
                        self.settling.apply(change, c, seen)
                    break
                except ServerError:
                    await sleep(self.settling.clock, RETRY_SECONDS)
            # As in `Convergence.kick`: the next request must find a state that agrees with the containers.
            self.settling.rest(self.service)

        self._launch(c.uuid, operate)

    def _launch(self, key: str, work: Callable[[], Awaitable[None]]) -> None:
        async def launch() -> None:
            try:
                await work()
            except asyncio.CancelledError:
                raise
            except Exception:
                log.exception("a call to the backend ended unexpectedly")
                self.failures[self.service.name] = "internal error; the server's log has more"
                self.cancelled = True
                self._drop_wishes(key)
            finally:
                if self.ops.get(key) is asyncio.current_task():
                    del self.ops[key]
                self.wake.set()

        self.ops[key] = asyncio.get_running_loop().create_task(launch(), name=f"container {key}")

    def _drop_wishes(self, key: str) -> None:
        container = self.records.containers.get(key)
        if container is not None and container.live and container.wanted:
            try:
                with self.records.change() as change:
                    self.settling.arrived(change, container, "internal error")
            except ServerError:
                log.warning("cannot store the end of a failed call")

    async def _insist(self, c: Container, work: Callable[[], Awaitable[Observed]]) -> Observed | None:
        """What the backend answers; None when it refused, which is recorded then. Passing troubles are waited
        out.
        """
        wait = RETRY_SECONDS
        while True:
            try:
                seen = await work()
                told = self.told.pop(c.uuid, None)
                if (
                    told is not None
                    and told.status != seen.status
                    and c.spec is not None
                    and seen.status != backends.GONE
                ):
                    # Which of the two is newer? A second look decides.
                    seen = await self.settling.backend.create(c.spec)
                self.troubles.pop(c.uuid, None)
                return seen
            except ServerError:
                pass
            except BackendError as error:
                if not error.transient and c.wanted != "gone":
                    self.troubles.pop(c.uuid, None)
                    await self._refused(c, str(error))
                    return None
                log.warning("the backend did not do it yet", extra={"container": c.name, "error": str(error)})
                self.troubles[c.uuid] = str(error)
            await sleep(self.settling.clock, wait)
            wait = min(wait * 2, RETRY_MAX)

    async def _refused(self, c: Container, reason: str) -> None:
        while True:
            try:
                with self.records.change() as change:
                    self._fail(change, c, reason)
                return
            except ServerError:
                await sleep(self.settling.clock, RETRY_SECONDS)

    def _check_policy(self, of: Service | Container) -> None:
        if problems := self.settling.backend.refuse({name: of.get(name) for name in _ALLOWED}):
            raise BackendError("; ".join(map(str, problems)))

    async def _bring_up(self, c: Container) -> Observed:
        backend = self.settling.backend
        self._check_policy(c)
        if c.spec is None:
            info = await backend.image(c.image, c.node)
            await self._wait_for_others(c)
            with self.records.change() as change:
                self.world.specify(change, self.service, c, info)
                known = self.records.images.get(c.image)
                if known is None:
                    change.add(Image(c.image, self.records.next_seq(), info))
                elif known.info != info:
                    change.edit(known).info = info
        else:
            self._renew(c)
        assert c.spec is not None
        seen = await backend.create(c.spec)
        # Did it run and exit while this server was down? A job is not run twice; one that was killed, as with
        # its engine, has not finished.
        finished = has_exited(seen) and seen.exit_code not in _KILLED and c.status in ("", backends.CREATED)
        if seen.status not in (backends.RUNNING, backends.RESTARTING) and not finished:
            seen = await self._start(c)
            self.asked.add(c.uuid)
        return seen

    def _renew(self, c: Container) -> None:
        try:
            with self.records.change() as change:
                self.world.renew(change, self.service, c)
        except NoNode as error:
            raise BackendError(str(error), transient=isinstance(error, NotYet)) from None

    async def _start(self, c: Container) -> Observed:
        """Start a container that was created; where a dynamic port turns out to be somebody else's, with
        another.
        """
        backend = self.settling.backend
        for _ in range(_PORT_TRIES):
            try:
                return await backend.start(c.uuid)
            except PortTaken as error:
                if c.started is not None:
                    raise
                with self.records.change() as change:
                    try:
                        changed = self.world.change_ports(change, self.service, c, error.ports)
                    except NoNode as none:
                        raise BackendError(str(none)) from None
                if not changed:
                    raise
            await backend.remove(c.uuid)
            assert c.spec is not None
            await backend.create(c.spec)
        return await backend.start(c.uuid)

    async def _remove(self, c: Container) -> Observed:
        volumes: list[str] = []
        if not c.keep_volumes:
            volumes = [
                v.uuid for v in self.records.volumes_of.get(c.service, {}).values() if v.ordinal == c.ordinal
            ]
        if c.status or c.spec is not None:
            if self.settling.answers(c.node):
                await self.settling.kept_output.keep(c)
            await self.settling.backend.remove(c.uuid, volumes=volumes)
        return Observed(c.uuid, backends.GONE)

    def _look_for_image(self, node: str) -> None:
        image = self.service.definition["image"]

        async def look() -> None:
            wait = RETRY_SECONDS
            while not self.image_found:
                try:
                    self._check_policy(self.service)
                    info = await self.settling.backend.image(image, node)
                    check_health_port(self.service.definition, info)
                    self.image_found = True
                except BackendError as error:
                    if not error.transient:
                        self.failures[self.service.name] = str(error)
                        return
                    await sleep(self.settling.clock, wait)
                    wait = min(wait * 2, RETRY_MAX)

        self._launch("image", look)

    # -- the end

    def _come_to_rest(self) -> None:
        service, now = self.service, self.settling.clock.time()
        before = service.state
        live = self.records.containers_of(service.uuid)
        with self.records.change() as change:
            change.edit(service)
            if before == TERMINATING:
                self._end(change, live)
            elif before in TRANSITIONAL:
                if before in DEPLOYING:
                    self._note_exits(live)
                    self._note_deployment(service, now, live)
                if before == REDEPLOYING and self.failures:
                    self._note_versions(service, live)
                for c in live:
                    if c.deployment != service.deployment:
                        change.edit(c).deployment = service.deployment
                if before == STOPPING:
                    service.stopped = now
            if before != TERMINATING:
                service.state = self.settling.state_of(service)
                if service.state in (STOPPED, NOT_RUNNING) and before not in (STOPPED, NOT_RUNNING, STOPPING):
                    service.stopped = now if before == RUNNING or self.begun else service.stopped
            if before in TRANSITIONAL:
                self._end_action(change)
        self.settling.settled(service)

    def _note_exits(self, live: list[Container]) -> None:
        """Containers of this transition that have exited, or have not come up, are failures."""
        begun = [c for uuid in self.begun if (c := self.records.containers.get(uuid)) is not None]
        for c in (*live, *begun):
            if c.failure:
                self.failures.setdefault(c.name, c.failure)
        for c in begun:
            has_exited = c.ran and not c.runs and not c.wanted and c.exit_code is not None
            if has_exited and (failure := uptime.exit_failure(c, 0)):
                self.failures.setdefault(c.name, failure)

    def _note_versions(self, service: Service, live: list[Container]) -> None:
        """Add to the failure of a redeploy how many containers run which definition."""
        if not self.begun:
            return
        running = [c for c in live if c.steady and not c.failure]
        old = sum(c.deployment < service.deployment for c in running)
        versions = (
            f"{containers_text(old)} of the previous definition and {len(running) - old} of the new one run"
        )
        said = self.failures.get(service.name)
        self.failures[service.name] = f"{said}; {versions}" if said else versions

    def _note_deployment(self, service: Service, now: float, live: list[Container]) -> None:
        if service.every_node:
            service.goal = len(self.world.candidates(service))
        else:
            service.goal = service.target or 0
        began = any(
            (c := self.records.containers.get(u)) is not None and c.started is not None for u in self.begun
        )
        if began or (live and service.state != SCALING):
            if service.fresh:
                service.deployed = now
            if service.state != SCALING:
                service.started = now
        service.fresh = False

    def _end(self, change: Change, live: list[Container]) -> None:
        """The service is terminated; or, when its containers cannot be removed, it is back."""
        service, now = self.service, self.settling.clock.time()
        holder = self.records.by_name.get((service.stack, service.name.lower()), service.uuid)
        blocked = [c for c in live if self.settling.answers(c.node)]
        if blocked and holder == service.uuid and not (service.key and service.key in self.records.by_key):
            service.state = self.settling.state_of(service)
            return
        for c in live:
            self.settling.ended(change, c)
        service.state, service.destroyed, service.token = TERMINATED, now, ""
        for volume in list(self.records.volumes_of.get(service.uuid, {}).values()):
            change.edit(volume).state = "Terminated"
            volume.destroyed = now
        for group in [g for (owner, _), g in self.records.group_at.items() if owner == service.uuid]:
            change.edit(group).state = "Terminated"
            group.destroyed = now
        for trigger in list(self.records.triggers_of.get(service.uuid, ())):
            change.drop(self.records.triggers[trigger])

    def _end_action(self, change: Change) -> None:
        service = self.service
        error = "; ".join(
            reason if reason.startswith(f"{name} ") else f"{name}: {reason}"
            for name, reason in self.failures.items()
        )
        if service.state == TERMINATED:
            error = ""
        action = self.records.actions.get(service.action)
        if action is not None and action.state == "Canceling":
            _cancel(change, action, self.settling.clock.time())
        self.settling.end_action(change, service.action, error)
        service.action, service.concluded = "", service.action


def _cancel(change: Change, action: Action, now: float) -> None:
    change.edit(action).state = "Canceled"
    action.end = now


def _ordinal(slot: tuple[int, str | None]) -> int:
    return slot[0]
