"""What takes time: services are carried to where their state says they go, each by its own `Transition`.

Services at rest have no task, no timer, and cost nothing: `kick` gives one to those that need it.
"""

from __future__ import annotations

import asyncio
import dataclasses
import functools
from collections.abc import Callable

from ..errors import BackendError, ServerError
from ..lifecycle import TERMINATED, TRANSITIONAL
from . import backends
from .backends import Backend, Observed
from .clock import Clock, sleep
from .deployment import World
from .model import Container, Service
from .settling import RETRY_MAX, RETRY_SECONDS, Settling, log
from .transition import Transition


class Convergence(Settling):
    """See the module's docstring.

    Args:
        settled: called when a service has come to rest, after that is stored.
    """

    def __init__(
        self, world: World, backend: Backend, clock: Clock, settled: Callable[[Service], None]
    ) -> None:
        super().__init__(world, backend, clock, settled)
        self.runs: dict[str, Transition] = {}
        self._relinking: dict[str, asyncio.Task[None]] = {}
        self._relink_again: set[str] = set()
        #: Observations that could not be stored yet, newest per container.
        self._unsaved: dict[str, Observed] = {}
        self._closed = False

    async def close(self) -> None:
        """Stop all tasks; what they were doing is in the records."""
        self._closed = True
        tasks = [run.task for run in self.runs.values() if run.task] + list(self._relinking.values())
        calls = [call for run in self.runs.values() for call in run.ops.values()]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        # Each transition has cancelled its calls.
        await asyncio.gather(*calls, return_exceptions=True)

    # -- what changes from outside

    def kick(self, uuid: str) -> None:
        """Look at a service: something about it, or what is wanted of it, has changed."""
        if self._closed:
            return
        service = self.records.services.get(uuid)
        if service is not None:
            # The next request must find a state that agrees with the containers.
            self.rest(service)
        run = self.runs.get(uuid)
        if run is not None:
            run.wake.set()
            return
        if service is None or service.state == TERMINATED:
            return
        if service.state in TRANSITIONAL or any(c.wanted for c in self.records.containers_of(uuid)):
            run = self.runs[uuid] = Transition(self, service, functools.partial(self._over, uuid))
            run.task = asyncio.get_running_loop().create_task(run.run(), name=f"converge {uuid}")

    def look_again(self) -> None:
        """Nodes have changed: what waits for one looks at them."""
        for run in self.runs.values():
            run.wake.set()

    def wake_dependents(self, uuid: str, *, indirect: bool) -> None:
        """Something about a service has changed for which others may wait.

        Args:
            indirect: those that wait for a waiting one are woken too, because links may form a circle now.
        """
        left, seen = [uuid], {uuid}
        while left:
            needed = left.pop()
            users = (*self.records.linkers.get(needed, ()), *self.records.mounters.get(needed, ()))
            for user in users:
                run = self.runs.get(user)
                if run is None or not run.waits_for_others or user in seen:
                    continue
                seen.add(user)
                run.look_at_needs()
                if indirect:
                    left.append(user)

    def _over(self, uuid: str) -> None:
        self.runs.pop(uuid, None)
        # What began while it ended gets a new one.
        self.kick(uuid)

    def observe(self, seen: Observed) -> None:
        """The backend saw a container change by itself."""
        if self._closed:
            return
        container = self.records.containers.get(seen.uuid)
        if container is None or not container.live:
            return
        known = container.observed()
        if seen != known and dataclasses.replace(seen, health_detail=known.health_detail) == known:
            # Only the text about failing probes has changed. It is not stored: that would be one write for
            # each probe, and after a restart the backend finds it out again.
            container.health_detail = seen.health_detail
            return
        run = self.runs.get(container.service)
        if run is not None and container.uuid in run.ops and seen.status != backends.GONE:
            # It may be older than what the call in progress is about to answer.
            run.told[container.uuid] = seen
            return
        if self._save(container, seen):
            self.kick(container.service)

    def _save(self, container: Container, seen: Observed) -> bool:
        try:
            with self.records.change() as change:
                self.apply(change, container, seen)
        except ServerError:
            if not self._unsaved:
                self.clock.call_later(RETRY_SECONDS, self._save_again)
            self._unsaved[seen.uuid] = seen
            return False
        self._unsaved.pop(seen.uuid, None)
        return True

    def _save_again(self) -> None:
        waiting, self._unsaved = self._unsaved, {}
        for seen in waiting.values():
            self.observe(seen)

    def cancel(self, uuid: str) -> None:
        """What a service is on its way to was called off (its action is Canceling)."""
        run = self.runs.get(uuid)
        if run is not None:
            run.wake.set()
        else:
            self.kick(uuid)

    # -- links that change while containers run

    def relink(self, uuid: str) -> None:
        """See to it that the running containers of a service see the host names that they should."""
        service = self.records.services.get(uuid)
        if self._closed or service is None:
            return
        linked = service.definition.get("linked_to_service") or service.definition.get(
            "sequential_deployment"
        )
        if not linked and not any(c.spec and c.spec.links for c in self.records.containers_of(uuid)):
            return
        if uuid in self._relinking:
            self._relink_again.add(uuid)
            return
        self._relinking[uuid] = asyncio.get_running_loop().create_task(
            self._relink(uuid), name=f"relink {uuid}"
        )

    async def _relink(self, uuid: str) -> None:
        try:
            while True:
                # Changes come in bursts: let the present one finish.
                await asyncio.sleep(0)
                self._relink_again.discard(uuid)
                again = False
                for c in self.records.containers_of(uuid):
                    if c.spec is None or not c.runs or c.wanted:
                        continue
                    links = self.world.links(c)
                    if links == c.spec.links:
                        continue
                    try:
                        await self.backend.relink(c.uuid, links)
                        with self.records.change() as change:
                            change.edit(c).spec = dataclasses.replace(c.spec, links=links)
                    except ServerError:
                        again = True
                    except BackendError as error:
                        extra = {"container": c.name, "error": str(error)}
                        log.warning("cannot change the links of a container", extra=extra)
                        again = again or error.transient
                if again:
                    await sleep(self.clock, RETRY_MAX)
                elif uuid not in self._relink_again:
                    return
        finally:
            del self._relinking[uuid]
