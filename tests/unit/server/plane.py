"""A control plane on a clock that tests move by hand, without HTTP."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine, Mapping, Sequence
from typing import Any

from pulumi_tutum.errors import ServerError
from pulumi_tutum.server.backends import Backend
from pulumi_tutum.server.backends.simulated import SimulatedBackend
from pulumi_tutum.server.clock import ManualClock
from pulumi_tutum.server.control import ControlPlane, Reply, RequestInfo, Settings
from pulumi_tutum.server.store import Row, SqliteStore, Store

REQUEST = RequestInfo("POST", "/api/v1/", "test", "127.0.0.1")


async def quiet() -> None:
    """Let the event loop run until nothing is ready any more."""
    loop = asyncio.get_running_loop()
    still = 0
    for _ in range(100_000):
        await asyncio.sleep(0)
        still = still + 1 if not loop._ready else 0  # type: ignore[attr-defined]
        if still == 3:
            return
    raise AssertionError("the event loop does not come to rest")


class FailingStore(SqliteStore):
    """Refuses to write while `failing`."""

    failing = False

    def write(self, puts: Sequence[Row], drops: Sequence[tuple[str, str]]) -> None:
        if self.failing:
            raise ServerError("The server cannot store anything now: disk full.", status=503)
        super().write(puts, drops)


class Plane:
    """A control plane with a simulated backend; containers start when the clock has moved `start_seconds`."""

    def __init__(
        self,
        nodes: int | Mapping[str, Sequence[str]] = 1,
        *,
        store: Store | None = None,
        start_seconds: float = 1.0,
        clock: ManualClock | None = None,
        backend: Backend | None = None,
        **settings: Any,
    ) -> None:
        self.clock = clock or ManualClock()
        self.backend: Any = backend or SimulatedBackend(
            nodes, container_start_seconds=start_seconds, clock=self.clock
        )
        self.control = ControlPlane(Settings(**settings), store, self.backend, self.clock)

    async def __aenter__(self) -> Plane:
        await self.control.open()
        await quiet()
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.control.close()

    async def create(self, **body: Any) -> str:
        """Create a service; returns its uuid."""
        reply = await self.control.create_service({"image": "acme/web", **body}, REQUEST)
        return str(reply.body["uuid"])

    async def act(self, uuid: str, verb: str, **options: Any) -> Reply:
        return await self.control.act("service", uuid, verb, REQUEST, options)

    async def patch(self, uuid: str, **body: Any) -> Reply:
        return await self.control.update("service", uuid, body, REQUEST)

    async def act_and_wait(self, uuid: str, verb: str) -> Reply:
        """Act, and let everything come to its end."""
        reply = await self.act(uuid, verb)
        await self.advance(30)
        return reply

    async def up(self, **body: Any) -> str:
        """Create a service, start it and wait until it has settled."""
        uuid = await self.create(**body)
        await self.act(uuid, "start")
        await self.advance(5)
        return uuid

    async def advance(self, seconds: float = 0.0) -> None:
        """Move the clock, letting everything that becomes ready run before it moves on."""
        end = self.clock.now + seconds
        await quiet()
        while (due := self.clock.next_due()) is not None and due <= end:
            self.clock.advance(max(due - self.clock.now, 0.0))
            await quiet()
        self.clock.advance(end - self.clock.now)
        await quiet()

    def get(self, uuid: str) -> dict[str, Any]:
        return self.control.detail("service", uuid)

    def state(self, uuid: str) -> str:
        return str(self.get(uuid)["state"])

    def containers(self, uuid: str) -> list[dict[str, Any]]:
        """Details of a service's containers, in ordinal order."""
        return [self.control.detail("container", c.split("/")[-2]) for c in self.get(uuid)["containers"]]

    def action(self, reply: Reply) -> dict[str, Any]:
        assert reply.action_uri is not None
        return self.control.detail("action", reply.action_uri.split("/")[-2])

    def last_action(self, uuid: str) -> dict[str, Any]:
        return self.control.listing("action", {"object": f"/api/v1/service/{uuid}/"})[-1]


def run(test: Callable[[], Coroutine[Any, Any, None]]) -> None:
    """Run an asynchronous test on an event loop of its own."""
    asyncio.run(test())
