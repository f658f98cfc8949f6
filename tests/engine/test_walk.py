"""A random walk on the real engine, which is killed now and then, as is the control plane.

WALK_STEPS=400 WALK_SEED=7 make test ARGS="tests/engine/test_walk.py -s" walks further, or elsewhere.
"""

from __future__ import annotations

import json
import os
import random
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest

from tests.support import faults
from tests.support.scenario import Scenario
from tests.support.server import Server
from tests.support.walk import Arguments, Walk

STEPS = int(os.environ.get("WALK_STEPS", "40"))
SEED = int(os.environ.get("WALK_SEED", "20150714"))

PROGRAM = """
import json

made = {}
for name, arguments in json.load(open("program.json")).items():
    for link in arguments.get("linked_to_service", []):
        link["to_service"] = made[link["to_service"]]
    made[name] = tutum.Service(name, **arguments)
"""


class EngineWorld:
    """The real engine, in front of it nothing but the command line."""

    def __init__(self, scenario: Scenario) -> None:
        self.scenario, self.project, self.client = scenario, scenario.project, scenario.client
        scenario.program(PROGRAM)

    def _write(self, program: Mapping[str, Arguments]) -> None:
        self.project.write(json.dumps(program), "program.json")

    def up(self, program: Mapping[str, Arguments], *, refresh: bool) -> None:
        self._write(program)
        self.project.up(*(["--refresh"] if refresh else []))

    def changes(self, program: Mapping[str, Arguments]) -> Mapping[str, Any]:
        return self.project.preview().ops

    def ids(self) -> dict[str, str]:
        return {name: resource["id"] for name, resource in self.project.resources().items()}

    def destroy(self) -> None:
        self.project.destroy()

    def disturbances(self) -> dict[str, Callable[[Mapping[str, Arguments], random.Random], None]]:
        proxy = self.scenario.proxy
        return {
            "kill_engine": self._kill_engine,
            "kill_engine_and_host": lambda program, chance: self._kill_engine(program, chance, hosts=True),
            "interrupt": self._interrupt,
            "kill_server": self._kill_server,
            "reset_after_commit": lambda *_: proxy.on(faults.reset_after(), "POST"),
            "committed_504": lambda *_: proxy.on(faults.status(504, committed=True), "POST"),
        }

    def _begin(self, program: Mapping[str, Arguments]) -> Any:
        self._write(program)
        return self.project.start("up", "--skip-preview", "--yes")

    def _kill_engine(
        self, program: Mapping[str, Arguments], chance: random.Random, *, hosts: bool = False
    ) -> None:
        running = self._begin(program)
        time.sleep(chance.uniform(0.8, 2.2))
        running.kill()
        if hosts:
            running.end()
        self.project.cancel()

    def _interrupt(self, program: Mapping[str, Arguments], chance: random.Random) -> None:
        running = self._begin(program)
        time.sleep(chance.uniform(0.8, 2.2))
        running.interrupt()
        running.wait()

    def _kill_server(self, program: Mapping[str, Arguments], chance: random.Random) -> None:
        running = self._begin(program)
        time.sleep(chance.uniform(0.8, 2.0))
        self.scenario.server.restart(kill=True)
        running.wait()


@pytest.mark.slow
@pytest.mark.timeout(6000)
def test_after_each_up_the_services_are_the_programs(tmp_path: Path) -> None:
    nodes = ["a=front", "b=front,ssd", "c=ssd", "d", "e"]
    with (
        Server(data=tmp_path / "data", node=nodes, container_start_seconds=0.05) as server,
        Scenario(tmp_path / "scenario", server) as scenario,
    ):
        walk = Walk(SEED, EngineWorld(scenario))
        walk.run(STEPS, server.log)
        print(f"walk {SEED}: {STEPS} steps, {dict(sorted(walk.taken.items()))}")
