"""A random walk: a program changes step by step, things happen to its services meanwhile, and after each `up`
the control plane has what the program says, and nothing else.

    Walk(seed, world).run(steps)

A `World` is where the program runs: the real engine, or the provider's host asked as the engine does it. Same
seed, same walk: a failure names seed and step.
"""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Protocol

from pulumi_tutum import Client
from pulumi_tutum.lifecycle import ENDING, RUNNING

Arguments = dict[str, Any]

IMAGES = ("acme/web", "acme/web:2", "acme/api:latest")
WITH_VOLUME = "redis"  # the image declares one
TAGS = ("front", "ssd")
LARGEST = 8  # services of the program at a time


class World(Protocol):
    """Where the walk's program runs.

    `program` is resource name -> arguments, in an order in which links lead back. A link's `to_service` is
    the resource name of its target.
    """

    client: Client

    def up(self, program: Mapping[str, Arguments], *, refresh: bool) -> None:
        """Raises when it fails."""

    def changes(self, program: Mapping[str, Arguments]) -> Mapping[str, Any]:
        """What a preview would change."""

    def ids(self) -> dict[str, str]:
        """The ids in the state, by resource name."""

    def destroy(self) -> None: ...

    def disturbances(self) -> dict[str, Callable[[Mapping[str, Arguments], random.Random], None]]:
        """What may go wrong in the middle of an up with this program; each leaves the world usable."""


@dataclass
class Walk:
    """See the module's docstring.

    Attributes:
        program: as it is now.
        taken: how often each kind of step was taken.
    """

    seed: int
    world: World
    program: dict[str, Arguments] = field(default_factory=dict)
    taken: Counter[str] = field(default_factory=Counter)

    def __post_init__(self) -> None:
        self.random = random.Random(self.seed)
        self.kind = ""
        self._number = 0

    def run(self, steps: int, log: Callable[[], str]) -> None:
        """Take the steps, then destroy. The AssertionError of a wrong one names seed, step and program, and
        ends with what the control plane said last (`log`)."""
        for step in range(steps):
            self.kind = "?"
            try:
                self._step()
                self.check()
            except Exception as error:
                said = "\n".join(log().splitlines()[-20:])
                raise AssertionError(
                    f"seed {self.seed}, step {step} ({self.kind}), program {self.program}\n{said}"
                ) from error
        self.world.destroy()
        assert self.living() == {}

    def _step(self) -> None:
        kinds: dict[str, Callable[[], None]] = {
            name.removeprefix("_do_"): getattr(self, name) for name in dir(self) if name.startswith("_do_")
        }
        outside = {
            name.removeprefix("_by_hand_"): getattr(self, name)
            for name in dir(self)
            if name.startswith("_by_hand_")
        }
        disturbances = self.world.disturbances()
        if not self.program:
            kind = "create"
        else:
            group = self.random.choices(("change", "outside", "disturb"), (70, 18, 12))[0]
            names = {"change": kinds, "outside": outside, "disturb": disturbances}[group] or kinds
            kind = self.random.choice(sorted(names))
        self.kind = kind
        self.taken[kind] += 1
        if kind in outside:
            outside[kind]()
        elif kind in disturbances:
            for _ in range(self.random.randint(1, 2)):
                self.random.choice([kinds[name] for name in sorted(kinds)])()
            disturbances[kind](self.program, self.random)
        else:
            kinds[kind]()
        self.world.up(self.program, refresh=kind in outside)

    # -- what the walk asserts -----------------------------------------------------------------------------

    def living(self) -> dict[str, str]:
        """All living services: uuid -> name."""
        return {s["uuid"]: s["name"] for s in self.world.client.list_services() if s["state"] not in ENDING}

    def check(self) -> None:
        """The services are the program's, one each, as declared; and a preview is empty."""
        ids = self.world.ids()
        assert set(ids) == set(self.program)
        living = self.living()
        assert sorted(living) == sorted(ids.values()), f"orphans or losses: {living} against {ids}"
        for name, arguments in self.program.items():
            self._check_service(self.world.client.get_service(ids[name]), arguments, ids)
        assert not self.world.changes(self.program)

    def _check_service(
        self, service: Mapping[str, Any], arguments: Arguments, ids: Mapping[str, str]
    ) -> None:
        image = arguments["image"]
        assert service["image_name"] == (image if ":" in image else f"{image}:latest")
        assert {e["key"]: e["value"] for e in service["container_envvars"]} == arguments.get(
            "container_envvars", {}
        )
        assert {t["name"] for t in service["tags"]} == set(arguments.get("tags", []))
        assert service["deployment_strategy"] == arguments.get("deployment_strategy", "EMPTIEST_NODE")
        assert len(service["bindings"]) == len(arguments.get("bindings", []))
        assert sorted(link["to_service"].split("/")[-2] for link in service["linked_to_service"]) == sorted(
            ids[link["to_service"]] for link in arguments.get("linked_to_service", [])
        )
        if arguments.get("name"):
            assert service["name"] == arguments["name"]
        if arguments.get("running") is False:
            assert service["running_num_containers"] == 0
            return
        target = arguments.get("target_num_containers", 1)
        if arguments.get("deployment_strategy") == "EVERY_NODE":
            assert service["running_num_containers"] == service["current_num_containers"] > 0
        else:
            assert service["running_num_containers"] == service["current_num_containers"] == target
        assert service["state"] == RUNNING or target == 0
        assert service["synchronized"] or target == 0

    # -- changes of the program ----------------------------------------------------------------------------

    def _some(self) -> Arguments:
        """The arguments of one service; makes one where there is none."""
        if not self.program:
            self._do_create()
        return self.program[self.random.choice(sorted(self.program))]

    def _do_create(self) -> None:
        if len(self.program) >= LARGEST:
            self._do_delete()
        self._number += 1
        arguments: Arguments = {"image": self.random.choice((*IMAGES, WITH_VOLUME))}
        if self.random.random() < 0.5:
            arguments["target_num_containers"] = self.random.randint(0, 3)
        if self.random.random() < 0.3:
            arguments["container_ports"] = [{"protocol": "tcp", "inner_port": 80, "published": True}]
        if self.program and self.random.random() < 0.4:
            target = self.random.choice(sorted(self.program))
            arguments["linked_to_service"] = [{"to_service": target, "name": "other"}]
        self.program[f"s{self._number}"] = arguments

    def _do_delete(self) -> None:
        if self.program:
            name = self.random.choice(sorted(self.program))
            del self.program[name]
            for arguments in self.program.values():
                links = [
                    link for link in arguments.get("linked_to_service", []) if link["to_service"] != name
                ]
                if "linked_to_service" in arguments:
                    arguments["linked_to_service"] = links

    def _do_scale(self) -> None:
        arguments = self._some()
        if arguments.get("deployment_strategy") != "EVERY_NODE":
            arguments["target_num_containers"] = self.random.randint(0, 4)

    def _change_image(self, arguments: Arguments) -> None:
        if arguments["image"] != WITH_VOLUME:  # the volume would stay, and pin the next image's containers
            arguments["image"] = self.random.choice(IMAGES)

    def _do_image(self) -> None:
        self._change_image(self._some())

    def _do_image_and_scale(self) -> None:
        arguments = self._some()
        self._change_image(arguments)
        if arguments.get("deployment_strategy") != "EVERY_NODE":
            arguments["target_num_containers"] = self.random.randint(1, 4)

    def _do_environment(self) -> None:
        self._some()["container_envvars"] = {"MODE": str(self.random.randint(1, 3))}

    def _do_tags(self) -> None:
        arguments = self._some()
        # Tags that leave out the node of a volume rightly fail.
        if not arguments.get("bindings") and arguments["image"] != WITH_VOLUME:
            arguments["tags"] = self.random.sample(TAGS, self.random.randint(0, len(TAGS)))

    def _do_strategy(self) -> None:
        arguments = self._some()
        strategy = self.random.choice(("EMPTIEST_NODE", "HIGH_AVAILABILITY", "EVERY_NODE"))
        arguments["deployment_strategy"] = strategy
        if strategy == "EVERY_NODE":
            arguments.pop("target_num_containers", None)

    def _do_rename(self) -> None:
        self._number += 1
        self._some()["name"] = f"named-{self._number}"

    def _do_unname(self) -> None:
        self._some().pop("name", None)

    def _do_bindings(self) -> None:
        arguments = self._some()
        if not arguments.get("tags"):
            arguments["bindings"] = [{"container_path": f"/data{self.random.randint(1, 3)}"}]

    def _do_link(self) -> None:
        order = list(self.program)
        if len(order) > 1:
            at = self.random.randrange(1, len(order))
            target = order[self.random.randrange(at)]
            self.program[order[at]]["linked_to_service"] = [{"to_service": target, "name": "other"}]

    def _do_unlink(self) -> None:
        self._some()["linked_to_service"] = []

    def _do_run_or_not(self) -> None:
        arguments = self._some()
        arguments["running"] = arguments.get("running") is False

    def _do_nothing(self) -> None:
        pass

    # -- changes by somebody else --------------------------------------------------------------------------

    def _of_state(self) -> str | None:
        ids = self.world.ids()
        return ids[self.random.choice(sorted(ids))] if ids else None

    def _by_hand_stop(self) -> None:
        uuid = self._of_state()
        if uuid and self.world.client.get_service(uuid)["state"] == RUNNING:
            self.world.client.stop_service(uuid)

    def _by_hand_scale(self) -> None:
        uuid = self._of_state()
        if uuid:
            service = self.world.client.get_service(uuid)
            if service["state"] == RUNNING and service["deployment_strategy"] != "EVERY_NODE":
                self.world.client.update_service(uuid, {"target_num_containers": self.random.randint(0, 4)})
                self.world.client.scale_service(uuid)

    def _by_hand_tag(self) -> None:
        if uuid := self._of_state():
            self.world.client.update_service(uuid, {"tags": [{"name": "ssd"}]})

    def _by_hand_edit(self) -> None:
        if uuid := self._of_state():
            self.world.client.update_service(
                uuid, {"image": self.random.choice(IMAGES), "autorestart": "ALWAYS"}
            )

    def _by_hand_terminate(self) -> None:
        if uuid := self._of_state():
            self.world.client.terminate_service(uuid)
