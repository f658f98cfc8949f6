"""What is seen of containers, and what follows from it: for their records, and for services at rest.

Nothing here waits or asks the backend for anything.
"""

from __future__ import annotations

import logging
from collections.abc import Callable

from ..errors import ServerError
from ..lifecycle import PARTLY_RUNNING, REDEPLOYING, RUNNING, SCALING, STARTING, settled_state
from . import backends
from .backends import Backend, Observed
from .clock import Clock
from .deployment import World
from .model import Container, Service
from .records import Change, Records

log = logging.getLogger("pulumi_tutum.server")

DEPLOYING = frozenset({STARTING, SCALING, REDEPLOYING})
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

    def rest(self, service: Service) -> None:
        """Give a service at rest the state that its containers give it."""
        state = self.state_of(service)
        if state == service.state:
            return
        try:
            with self.records.change() as change:
                change.edit(service)
                if not any(c.runs for c in self.records.containers_of(service.uuid)):
                    service.stopped = self.clock.time()
                service.state = state
        except ServerError:
            self.clock.call_later(RETRY_SECONDS, self.rest, service)
            return
        self.settled(service)

    def state_of(self, service: Service) -> str:
        """The stable state that follows from the containers there are."""
        live = [c for c in self.records.containers_of(service.uuid) if c.wanted != "gone"]
        running = [c for c in live if c.runs]
        state = settled_state(len(running), len(live) - len(running), service.goal)
        doubtful = any(c.healthy is False or self._is_cut_off(c) for c in running)
        return PARTLY_RUNNING if state == RUNNING and doubtful else state

    def _is_cut_off(self, container: Container) -> bool:
        """Whether it waits on a node that was given up, because its data are there."""
        node = self.records.nodes.get(container.node)
        return node is not None and node.given_up

    def apply(self, change: Change, container: Container, seen: Observed) -> None:
        """Bring a container's record up to what was observed, and decide what follows for it alone."""
        c, now = change.edit(container), self.clock.time()
        ran_before = c.runs
        c.status = seen.status
        c.node = seen.node or c.node
        c.backend_id = seen.backend_id or c.backend_id
        c.image_id = seen.image_id or c.image_id
        c.revision = seen.revision or c.revision
        c.healthy = seen.healthy
        c.restarts = seen.restarts
        if not self.world.overlay:
            c.address = seen.address
        if c.runs:
            c.ran = True
            if not ran_before:
                c.started = now
                c.deployed = c.deployed or now
            c.exit_code, c.reason = seen.exit_code, seen.reason
            if c.wanted == "running" and self.is_up(c):
                self.arrived(change, c)
        elif seen.status == backends.EXITED:
            c.exit_code, c.reason = seen.exit_code, seen.reason
            c.stopped = now
            c.ran = True
            if c.wanted in ("running", "stopped"):
                self.arrived(change, c)
            destroy = c.get("autodestroy")
            if not c.wanted and (destroy == "ALWAYS" or (destroy == "ON_SUCCESS" and c.exit_code == 0)):
                c.wanted = "gone"
                self._note_finished(change, c)
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

    @staticmethod
    def is_up(container: Container) -> bool:
        """Whether it runs and, where that is asked for, is healthy."""
        if container.spec is not None and container.spec.healthcheck is not None:
            return container.status == backends.RUNNING and container.healthy is True
        return container.runs

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
