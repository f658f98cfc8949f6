"""Random walks of programs, against the provider in the SDK's own host, over HTTP to a real control plane.

WALK_STEPS=5000 WALK_SEED=7 make test ARGS="tests/faults/test_walk.py -s" walks further, or elsewhere.
"""

from __future__ import annotations

import contextlib
import os
import random
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import grpc  # type: ignore[import-untyped]
import pytest

from pulumi_tutum import Client
from tests.support import faults
from tests.support.faults import FaultProxy
from tests.support.server import Server
from tests.support.stack import Failed, Stack
from tests.support.walk import Arguments, Walk

STEPS = int(os.environ.get("WALK_STEPS", "2000"))
SEED = int(os.environ.get("WALK_SEED", "20150714"))
WALKS = 4


class _Resolved(Mapping[str, Any]):
    """A resource's arguments, its links' targets looked up when they are asked for: as outputs are."""

    def __init__(self, arguments: Arguments, stack: Stack) -> None:
        self._arguments, self._stack = arguments, stack

    def __getitem__(self, key: str) -> Any:
        value = self._arguments[key]
        if key != "linked_to_service":
            return value
        return [{**link, "to_service": self._stack.state[link["to_service"]].id} for link in value]

    def __iter__(self) -> Iterator[str]:
        return iter(self._arguments)

    def __len__(self) -> int:
        return len(self._arguments)


class HostWorld:
    """The provider's host process, without an engine (see `Stack`)."""

    def __init__(self, server: Server, proxy: FaultProxy) -> None:
        self.server, self.proxy = server, proxy
        self.client = Client(server.user, server.apikey, rest_host=server.url)
        env = {**server.environment, "TUTUM_REST_HOST": proxy.url, "TUTUM_STREAM_HOST": proxy.stream_url}
        self.stack = Stack(env)
        self._is_carried_on = False

    def _arguments(self, program: Mapping[str, Arguments]) -> dict[str, Mapping[str, Any]]:
        return {name: _Resolved(arguments, self.stack) for name, arguments in program.items()}

    def up(self, program: Mapping[str, Arguments], *, refresh: bool) -> None:
        if refresh:
            self.stack.refresh()
        self.stack.up(**self._arguments(program))
        if self._is_carried_on:
            # The engine gives each run a host of its own: one never ends what it has found by its key.
            self.stack.end_run()
            self._is_carried_on = False

    def changes(self, program: Mapping[str, Arguments]) -> Mapping[str, Any]:
        return self.stack.preview(**self._arguments(program))

    def ids(self) -> dict[str, str]:
        return {name: resource.id for name, resource in self.stack.state.items()}

    def destroy(self) -> None:
        self.stack.destroy()

    def disturbances(self) -> dict[str, Callable[[Mapping[str, Arguments], random.Random], None]]:
        return {
            "kill_host": self._kill_host,
            "kill_server": self._kill_server,
            "reset_after_commit": lambda *_: self.proxy.on(faults.reset_after(), "POST"),
            "reset_before": lambda *_: self.proxy.on(faults.reset_before(), "POST"),
            "unavailable": lambda *_: self.proxy.on(faults.status(503), times=3),
            "committed_504": lambda *_: self.proxy.on(faults.status(504, committed=True), "POST"),
            "drop_streams": lambda *_: self.proxy.drop_websockets(),
            "end_of_run": lambda *_: self.stack.end_run(),
        }

    def _meanwhile(self, program: Mapping[str, Arguments]) -> threading.Thread:
        def attempt() -> None:
            with contextlib.suppress(Failed, grpc.RpcError, ValueError):
                self.up(program, refresh=False)

        thread = threading.Thread(target=attempt)
        thread.start()
        return thread

    def _kill_host(self, program: Mapping[str, Arguments], chance: random.Random) -> None:
        assert self.stack.host
        attempt = self._meanwhile(program)
        time.sleep(chance.uniform(0, 0.15))
        if self.stack._host is not None:
            self.stack._host.process.kill()
        attempt.join()
        self.stack.end_run(kill=True)
        self._is_carried_on = True

    def _kill_server(self, program: Mapping[str, Arguments], chance: random.Random) -> None:
        attempt = self._meanwhile(program)
        time.sleep(chance.uniform(0, 0.1))
        self.server.restart(kill=True)
        attempt.join()


@pytest.mark.slow
@pytest.mark.timeout(3000)
@pytest.mark.parametrize("number", range(WALKS))
def test_after_each_up_the_services_are_the_programs(number: int, tmp_path: Path) -> None:
    with (
        Server(
            data=tmp_path / "data",
            node=["a=front", "b=front,ssd", "c=ssd", "d", "e"],
            container_start_seconds=0,
        ) as server,
        FaultProxy(server.url) as proxy,
    ):
        world = HostWorld(server, proxy)
        with world.stack:
            walk = Walk(SEED + number, world)
            walk.run(STEPS // WALKS, server.log)
            print(f"walk {SEED + number}: {STEPS // WALKS} steps, {dict(sorted(walk.taken.items()))}")
        world.client.close()
