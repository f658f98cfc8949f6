"""The control plane under a random walk: requests, time, exits, nodes, a backend and a store that fail, and
crashes.

After every step: the state table was obeyed, counts and containers agree, no port or address is given out
twice. A crash takes what is on the disk at that moment, wherever the event loop just was, and a new server
goes on from it: whatever was acknowledged is there. At the end the faults stop: every transition ends, every
action is finished, and the backend has exactly the containers that the records have.
"""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import os
import shutil
import tempfile
from collections.abc import Callable, Coroutine, Sequence
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, Phase, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from pulumi_tutum.errors import ApiError, BackendError, BadRequest, Conflict, ServerError
from pulumi_tutum.lifecycle import (
    ACTIONS,
    NOT_RUNNING,
    PARTLY_RUNNING,
    RUNNING,
    STABLE,
    STOPPED,
    TERMINATED,
    TERMINATING,
    permitted,
)
from pulumi_tutum.server.backends import ContainerSpec, ImageInfo, Observed
from pulumi_tutum.server.backends.simulated import SimulatedBackend
from pulumi_tutum.server.clock import ManualClock
from tests.unit.server.plane import FailingStore, Plane

VERBS = [name for name in ACTIONS if name != "update"]
ENVIRONMENTS: list[dict[str, str]] = [
    {},
    {"SIMULATE_EXIT": "0", "SIMULATE_EXIT_AFTER": "2"},
    {"SIMULATE_EXIT": "4", "SIMULATE_EXIT_AFTER": "0", "SIMULATE_ONLY": "1"},
    {"SIMULATE_CRASHES": "2"},
    {"SIMULATE_HANG": "1", "SIMULATE_ONLY": "2"},
    {"SIMULATE_START_ERROR": "no", "SIMULATE_ONLY": "1"},
    {"SIMULATE_STOP_SECONDS": "3"},
    {"SIMULATE_UNHEALTHY": "1", "SIMULATE_ONLY": "2"},
]


#: For each state: whether a number of running containers and a number of all containers agree with it.
COUNTS: dict[str, Callable[[int, int], bool]] = {
    RUNNING: lambda running, current: 0 < running == current,
    PARTLY_RUNNING: lambda running, current: current > 0,
    STOPPED: lambda running, current: running == 0 < current,
    NOT_RUNNING: lambda running, current: running == current == 0,
}


class FailingBackend(SimulatedBackend):
    """Fails the next `trouble` calls, passingly or for good."""

    trouble = 0
    transient = True

    def _maybe(self) -> None:
        if self.trouble > 0:
            self.trouble -= 1
            raise BackendError("the engine is in trouble", transient=self.transient)

    async def image(self, image: str, node: str) -> ImageInfo:
        self._maybe()
        return await super().image(image, node)

    async def create(self, spec: ContainerSpec) -> Observed:
        self._maybe()
        return await super().create(spec)

    async def start(self, uuid: str) -> Observed:
        self._maybe()
        return await super().start(uuid)

    async def stop(self, uuid: str) -> Observed:
        self._maybe()
        return await super().stop(uuid)

    async def remove(self, uuid: str, *, volumes: Sequence[str] = ()) -> None:
        self._maybe()
        await super().remove(uuid, volumes=volumes)


class Machine(RuleBasedStateMachine):
    def __init__(self) -> None:
        super().__init__()
        self.base = Path(tempfile.mkdtemp(prefix="machine-"))
        self.folders = (self.base / str(n) for n in itertools.count())
        self.loop = asyncio.new_event_loop()
        self.clock = ManualClock()
        self.names = (f"s{n}" for n in itertools.count())
        #: What was acknowledged: uuid -> attributes as the last successful request set them.
        self.known: dict[str, dict[str, Any]] = {}
        self.terminated: set[str] = set()

    def run(self, work: Coroutine[Any, Any, Any]) -> Any:
        return self.loop.run_until_complete(work)

    # -- a server, and the next one

    @initialize(nodes=st.integers(1, 3))
    def begin(self, nodes: int) -> None:
        self.nodes = nodes
        self.folder = next(self.folders)
        self.open()

    def open(self) -> None:
        self.store = FailingStore(self.folder)
        self.backend = FailingBackend(self.nodes, container_start_seconds=1, clock=self.clock)
        self.plane = Plane(
            store=self.store, backend=self.backend, clock=self.clock, start_timeout=20, retain_terminated=1e9
        )
        self.run(self.plane.control.open())

    @rule()
    def crash(self) -> None:
        """What is on the disk now is all that is left."""
        old, self.folder = self.folder, next(self.folders)
        shutil.copytree(old, self.folder, ignore=shutil.ignore_patterns("*.lock", "*-shm"))
        self.abandon()
        self.open()
        for uuid, wanted in self.known.items():
            detail = self.plane.get(uuid)
            assert {k: detail[k] for k in wanted} == wanted, "an acknowledged request is lost"

    def abandon(self) -> None:
        self.store.failing = True
        self.run(self.plane.control.close())
        # Timers of the dead server must not fire in the life of the next.
        self.clock._due.clear()

    # -- requests

    @rule(
        count=st.integers(0, 3),
        env=st.sampled_from(ENVIRONMENTS),
        strategy=st.sampled_from(["EMPTIEST_NODE", "HIGH_AVAILABILITY", "EVERY_NODE"]),
        sequential=st.booleans(),
        autodestroy=st.sampled_from(["OFF", "ON_SUCCESS", "ALWAYS"]),
        port=st.sampled_from([None, None, 0, 8080]),
        image=st.sampled_from(["acme/web", "redis", "acme/web:missing"]),
        health=st.booleans(),
        monitor=st.sampled_from([None, 3, 40]),
        autorestart=st.sampled_from(["OFF", "OFF", "ON_FAILURE", "ALWAYS"]),
        then=st.sampled_from([None, 0.0, 3.0]),
    )
    def create(
        self,
        count: int,
        port: int | None,
        health: bool,
        image: str,
        env: dict[str, str],
        then: float | None,
        **more: Any,
    ) -> None:
        """Create a service.

        Args:
            then: the walk starts the service, and waits so many seconds. None: the service is not started.
        """
        if len(self.known) - len(self.terminated) >= 4:
            return
        more["deployment_strategy"] = more.pop("strategy")
        more["sequential_deployment"] = more.pop("sequential")
        more["monitor_seconds"] = more.pop("monitor")
        if more["autorestart"] == "ALWAYS":
            more["autodestroy"] = "OFF"
        body: dict[str, Any] = {"name": next(self.names), "image": image, "container_envvars": env, **more}
        body["target_num_containers"] = count
        if port is not None:
            entry: dict[str, Any] = {"protocol": "tcp", "inner_port": 80, "published": True}
            body["container_ports"] = [{**entry, "outer_port": port} if port else entry]
        if health:
            body["healthcheck"] = {"command": "true"}
        try:
            uuid = self.run(self.plane.create(**body))
        except ServerError:
            assert self.store.failing
            return
        self.known[uuid] = {"name": body["name"], "sequential_deployment": more["sequential_deployment"]}
        if then is not None:
            self.act(-1, "start")
            self.advance(then)

    def some(self, pick: int) -> str | None:
        living = [u for u in self.known if u not in self.terminated]
        return living[pick % len(living)] if living else None

    @rule(pick=st.integers(0, 9), verb=st.sampled_from(VERBS))
    def act(self, pick: int, verb: str) -> None:
        uuid = self.some(pick)
        if uuid is None:
            return
        before, after, error = self.attempt(uuid, lambda: self.plane.act(uuid, verb))
        allowed = permitted(verb, before["state"])
        if verb == "scale" and before["target_num_containers"] is None:
            allowed = False
        if error is None:
            assert allowed, f"{verb} was accepted in {before['state']}"
            assert after["state"] == (
                before["state"] if before["state"] in ACTIONS[verb].store_only else ACTIONS[verb].via
            )
            if verb == "terminate":
                self.terminated.add(uuid)
            return
        assert after == before, "a refused request has changed something"
        assert (isinstance(error, BadRequest) and not allowed) or (self.store.failing and error.status == 503)

    def attempt(
        self, uuid: str, call: Callable[[], Coroutine[Any, Any, Any]]
    ) -> tuple[dict[str, Any], dict[str, Any], ApiError | None]:
        """The service before and after a request, with nothing in between, and its refusal."""

        async def work() -> tuple[dict[str, Any], dict[str, Any], ApiError | None]:
            before, error = self.plane.get(uuid), None
            try:
                await call()
            except ApiError as refused:
                error = refused
            return before, self.plane.get(uuid), error

        found: tuple[dict[str, Any], dict[str, Any], ApiError | None] = self.run(work())
        return found

    @rule(pick=st.integers(0, 9), count=st.integers(0, 4), env=st.sampled_from(ENVIRONMENTS))
    def patch(self, pick: int, count: int, env: dict[str, str]) -> None:
        uuid = self.some(pick)
        if uuid is None:
            return
        body: dict[str, Any] = {"container_envvars": env}
        if self.plane.get(uuid)["target_num_containers"] is not None:
            body["target_num_containers"] = count
        before, after, error = self.attempt(uuid, lambda: self.plane.patch(uuid, **body))
        if error is None:
            assert before["state"] not in (TERMINATING, TERMINATED)
            self.known[uuid] |= {k: v for k, v in body.items() if k != "container_envvars"}
            return
        assert after == before, "a refused request has changed something"
        assert before["state"] in (TERMINATING, TERMINATED) or self.store.failing

    @rule(pick=st.integers(0, 99), verb=st.sampled_from(["start", "stop", "redeploy", "terminate"]))
    def act_on_container(self, pick: int, verb: str) -> None:
        found = [c for c in self.plane.control.records.containers.values() if c.live]
        if found:
            with contextlib.suppress(BadRequest, ServerError, Conflict):
                self.run(self.plane.control.act("container", found[pick % len(found)].uuid, verb))

    # -- the world

    @rule(seconds=st.sampled_from([0.1, 1, 3, 30, 100]))
    def advance(self, seconds: float) -> None:
        self.run(self.plane.advance(seconds))

    @rule(steps=st.integers(1, 12))
    def run_a_little(self, steps: int) -> None:
        """Stop in the middle of whatever is going on."""

        async def few() -> None:
            for _ in range(steps):
                await asyncio.sleep(0)

        self.run(few())

    @rule(pick=st.integers(0, 99), code=st.sampled_from([0, 1, 137]))
    def exit(self, pick: int, code: int) -> None:
        found = list(self.backend._containers)
        if found:
            uuid = found[pick % len(found)]

            async def do() -> None:
                self.backend.exit(uuid, code)

            self.run(do())

    @rule(tagged=st.booleans())
    def add_node(self, tagged: bool) -> None:
        if sum(n.state != "Terminated" for n in self.plane.control.records.nodes.values()) < 5:
            self.quietly(lambda: self.plane.control.create_node({"tags": ["t"] if tagged else []}))

    @rule(pick=st.integers(0, 9))
    def remove_node(self, pick: int) -> None:
        found = [n for n in self.plane.control.records.nodes.values() if n.state == "Deployed"]
        if len(found) > 1 and not self.store.failing:
            self.quietly(lambda: self.plane.control.terminate("node", found[pick % len(found)].uuid))

    def quietly(self, call: Callable[[], Coroutine[Any, Any, Any]]) -> None:
        refused: ApiError | None = None
        try:
            self.run(call())
        except ApiError as error:
            refused = error
        assert refused is None or self.store.failing or isinstance(refused, Conflict)

    @rule(transient=st.booleans(), count=st.integers(1, 4))
    def trouble_backend(self, transient: bool, count: int) -> None:
        self.backend.trouble, self.backend.transient = count, transient

    @precondition(lambda self: hasattr(self, "store"))
    @rule()
    def trouble_store(self) -> None:
        self.store.failing = not self.store.failing

    # -- what always holds

    @invariant()
    def consistent(self) -> None:
        if not hasattr(self, "plane"):
            return
        records = self.plane.control.records
        taken: set[tuple[str, str, int]] = set()
        addresses: set[str] = set()
        for container in records.containers.values():
            if not container.live:
                continue
            for protocol, _, outer in container.outer:
                assert (container.node, protocol, outer) not in taken, "one port, two containers"
                taken.add((container.node, protocol, outer))
            assert container.address not in addresses
            addresses.add(container.address)
        for uuid in self.known:
            detail = self.plane.get(uuid)
            containers = self.plane.containers(uuid)
            assert detail["current_num_containers"] == len(containers)
            ordinals = [c["name"] for c in containers]
            assert len(set(ordinals)) == len(ordinals), "two containers with one ordinal"
            assert detail["running_num_containers"] + detail["stopped_num_containers"] <= len(containers)
            if detail["state"] == TERMINATED:
                assert not containers
            if not self.store.failing and detail["state"] in COUNTS:
                assert COUNTS[detail["state"]](detail["running_num_containers"], len(containers)), detail

    def teardown(self) -> None:
        try:
            if hasattr(self, "plane"):
                self.come_to_an_end()
        finally:
            if hasattr(self, "plane"):
                self.abandon()
            self.loop.close()
            shutil.rmtree(self.base)

    def come_to_an_end(self) -> None:
        self.backend.trouble = 0
        self.store.failing = False
        self.come_to_rest()
        self.settled()
        self.crash()
        self.come_to_rest()
        self.settled()

    def come_to_rest(self) -> None:
        self.run(self.plane.advance(1000))
        # The control plane tries again to start a container that a service is owed. Each try ends.
        for _ in range(60):
            if not self.plane.control.core.convergence.runs:
                return
            self.run(self.plane.advance(1))

    def settled(self) -> None:
        records = self.plane.control.records
        for uuid in self.known:
            detail = self.plane.get(uuid)
            assert detail["state"] in STABLE | {TERMINATED}, detail["state"]
            # A termination that the backend refused for too long is given up, and can be asked for again.
            if uuid in self.terminated and detail["state"] != TERMINATED:
                assert self.plane.control.records.services[uuid].action == ""
            running = detail["running_num_containers"]
            if detail["state"] == "Running":
                assert running > 0
            if detail["state"] in ("Stopped", "Not running"):
                assert running == 0
        for action in records.actions.values():
            assert action.end is not None, (action.action, action.state)
        live = {c.uuid for c in records.containers.values() if c.live}
        there = {o.uuid for o in self.run(self.backend.containers())}
        created = {c.uuid for c in records.containers.values() if c.live and c.status}
        assert there <= live, "a container without a record"
        assert created <= there, "a record without its container"
        assert not [c for c in records.containers.values() if c.live and c.wanted]
        assert not self.plane.control.core.convergence.runs


Machine.TestCase.settings = settings(
    max_examples=int(os.environ.get("MACHINE_EXAMPLES", "40")),
    stateful_step_count=int(os.environ.get("MACHINE_STEPS", "40")),
    deadline=None,
    phases=tuple(p for p in Phase if p is not Phase.shrink or "MACHINE_EXAMPLES" not in os.environ),
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large],
)
TestMachine = pytest.mark.timeout(1800)(Machine.TestCase)
