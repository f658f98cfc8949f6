"""What is seen of containers, and what follows from it: for their records, and for services at rest.

Nothing here waits or asks the backend for anything.
"""

from __future__ import annotations

import logging
from collections.abc import Callable

from ..errors import ServerError
from ..lifecycle import DEPLOYING, REDEPLOYING, STABLE, settled_state
from . import backends, uptime
from .backends import Backend, Observed
from .clock import Clock
from .deployment import World
from .kept_output import KeptOutput
from .model import Container, Node, Service
from .records import Change, Records

log = logging.getLogger("pulumi_tutum.server")

RETRY_SECONDS, RETRY_MAX = 0.5, 5.0


class Settling:
    """See the module's docstring.

    Args:
        settled: called when a service has come to rest, after that is stored.
    """

    def __init__(
        self, world: World, backend: Backend, clock: Clock, settled: Callable[[Service], None]
    ) -> None:
        self.world = world
        self.records: Records = world.records
        self.backend = backend
        self.clock = clock
        self.settled = settled
        self.kept_output = KeptOutput(world.records, backend)
        #: Services that are looked at again later, because of a crash loop.
        self._later: set[str] = set()

    def rest(self, service: Service) -> None:
        """Give a service the state that follows from its containers, unless it is in a transitional state."""
        if service.state not in STABLE:
            return
        try:
            self._leave_crash_loops(service)
            state = self.state_of(service)
            if state == service.state:
                return
            with self.records.change() as change:
                change.edit(service)
                if not any(c.active for c in self.records.containers_of(service.uuid)):
                    service.stopped = self.clock.time()
                service.state = state
        except ServerError:
            self.clock.call_later(RETRY_SECONDS, self.rest, service)
            return
        self.settled(service)

    def _leave_crash_loops(self, service: Service) -> None:
        """Containers that have run long enough are in a crash loop no more; look at the others in time."""
        now = self.clock.time()
        looping = [c for c in self.records.containers_of(service.uuid) if c.looping]
        for container in looping:
            seconds = uptime.calm_in(container, now)
            if seconds is None:
                continue
            if seconds > 0:
                self._look_later(service, seconds)
                continue
            with self.records.change() as change:
                change.edit(container).looping = False

    def _look_later(self, service: Service, seconds: float) -> None:
        if service.uuid in self._later:
            return
        self._later.add(service.uuid)

        def look() -> None:
            self._later.discard(service.uuid)
            self.rest(service)

        self.clock.call_later(seconds, look)

    def state_of(self, service: Service) -> str:
        """The stable state that follows from the containers there are."""
        staying = self.records.staying_of(service.uuid)
        alive = [c for c in staying if c.active]
        monitor = service.monitor_seconds
        well = [c for c in alive if uptime.is_well(c, monitor)]
        return settled_state(len(well), len(alive) - len(well), len(staying) - len(alive), service.goal)

    def awaited_node(self, container: Container) -> Node | None:
        """The node that a container has to wait for, because it does not answer."""
        node = self.records.nodes.get(container.node)
        bound = container.spec is None or not container.spec.movable
        return node if node is not None and node.state == "Unreachable" and bound else None

    def apply(self, change: Change, container: Container, seen: Observed) -> None:
        """Bring a container's record up to what was observed, and decide what follows for it alone."""
        c, now = change.edit(container), self.clock.time()
        monitor = self.records.services[c.service].monitor_seconds
        ran_before, was_running = c.runs, c.status == backends.RUNNING
        c.status = seen.status
        c.node = seen.node or c.node
        c.backend_id = seen.backend_id or c.backend_id
        c.image_id = seen.image_id or c.image_id
        c.revision = seen.revision or c.revision
        c.healthy = seen.healthy
        c.health_detail = seen.health_detail
        restarted = seen.restarts > c.restarts
        uptime.note_restarts(c, seen.restarts, now)
        if seen.status in (backends.EXITED, backends.RESTARTING):
            c.last_exit_code, c.last_reason = seen.exit_code, seen.reason
        elif restarted and seen.last_exit_code is not None:
            c.last_exit_code, c.last_reason = seen.last_exit_code, ""
        if seen.status == backends.RUNNING and (restarted or not was_running):
            c.since = now
        if not self.world.overlay:
            c.address = seen.address
        if c.runs:
            c.ran = True
            if not ran_before:
                c.started = now
                c.deployed = c.deployed or now
            c.exit_code, c.reason = seen.exit_code, seen.reason
            if c.wanted == "running" and uptime.look(c, monitor, now).up:
                self.arrived(change, c)
        elif seen.status == backends.EXITED:
            c.exit_code, c.reason = seen.exit_code, seen.reason
            c.stopped = now
            c.ran, c.looping = True, False
            if c.wanted == "running":
                c.failure = uptime.exit_failure(c, monitor)
                self.arrived(change, c, c.failure)
            elif c.wanted == "stopped":
                self.arrived(change, c)
            destroy = c.get("autodestroy")
            if not c.wanted and (destroy == "ALWAYS" or (destroy == "ON_SUCCESS" and c.exit_code == 0)):
                c.wanted = "gone"
                self._note_finished(change, c)
        elif seen.status == backends.WAITING:
            c.exit_code, c.reason = None, seen.reason
        elif seen.status == backends.GONE:
            c.reason = c.reason or seen.reason
            self.ended(change, c)
        elif c.wanted == "stopped":
            self.arrived(change, c)

    def _note_finished(self, change: Change, c: Container) -> None:
        service = self.records.services[c.service]
        outdated = service.state == REDEPLOYING and c.deployment < service.deployment
        if service.state in DEPLOYING and not outdated:
            slot = c.node if service.every_node else c.ordinal
            change.edit(service).finished = (*service.finished, slot)

    def arrived(self, change: Change, container: Container, error: str = "") -> None:
        """A container is where it was to go, or will not get there; its own action ends."""
        change.edit(container).wanted = ""
        self.end_action(change, container.action, error)
        container.action = ""

    def ended(self, change: Change, container: Container) -> None:
        """A container is gone; with it, unless a successor takes them, its volumes."""
        c, now = change.edit(container), self.clock.time()
        # What somebody else removed may come back, and then wants its data.
        keep = c.keep_volumes or (c.wanted != "gone" and self._is_there(c.node))
        self.arrived(change, c)
        c.status, c.destroyed, c.keep_volumes = backends.GONE, now, False
        self.world.remember_address(c)
        if not keep:
            for volume in list(self.records.volumes_of.get(c.service, {}).values()):
                if volume.ordinal == c.ordinal:
                    change.edit(volume).state = "Terminated"
                    volume.destroyed = now

    def _is_there(self, node: str) -> bool:
        found = self.records.nodes.get(node)
        return found is not None and found.state != "Terminated"

    def answers(self, node: str) -> bool:
        """Whether a node is up. What is left on one that is not is removed when it comes back."""
        found = self.records.nodes.get(node)
        return found is not None and found.state == "Deployed"

    def end_action(self, change: Change, uuid: str, error: str = "") -> None:
        """Finish an action that is in progress."""
        action = self.records.actions.get(uuid)
        if action is not None and action.end is None:
            change.edit(action).state = "Failed" if error else "Success"
            action.error, action.end = error, self.clock.time()
