"""The engine or its host killed at the worst moments, and two users at once: on the real engine.

What happens to single requests is tested without the engine, in tests/faults.
"""

from __future__ import annotations

import os
import re
import signal
import threading
from collections.abc import Callable, Iterable

import pytest

from pulumi_tutum.host import PLAIN_HOST
from tests.support.faults import Exchange
from tests.support.scenario import Scenario
from tests.support.tools import until

SECRET = "hunter22-very-secret"
SERVICES = """
    import functools
    secret = {"PASS": pulumi.Output.secret("hunter22-very-secret")}
    Web = functools.partial(tutum.Service, image="acme/web", container_envvars=secret)
"""
BEFORE = """
    Web("beside")
    Web("after", name="after")
    Web("again")
"""
REPLACED = """
    volume = [{"container_path": "/data"}]
    Web("beside", bindings=volume)
    Web("after", name="after", bindings=volume)
    Web("again")
    Web("fresh")
    Web("started")
"""


class Hold:
    """Keeps back, until `over`, the answers to what the control plane has carried out: creates and starts.

    The creates of those whose names begin as in `started` are answered.
    """

    def __init__(self, scenario: Scenario, started: Iterable[str] = ()) -> None:
        self.created: set[str] = set()
        self.started: set[str] = set()
        self.over = threading.Event()
        self._pass = tuple(started)
        self._lock = threading.Lock()
        scenario.proxy.on(self._create, "POST", r"/api/v1/service/$", times=None)
        scenario.proxy.on(self._start, "POST", r"/start/$", times=None)

    def _create(self, exchange: Exchange) -> None:
        answer = exchange.forward()
        found = re.search(rb'"name": "([^"]+)"', exchange.seen.body)
        name = found[1].decode() if found else ""
        with self._lock:
            self.created.add(name)
        if not (self._pass and name.startswith(self._pass)):
            self.over.wait(200)
        exchange.reply(answer)

    def _start(self, exchange: Exchange) -> None:
        answer = exchange.forward()
        with self._lock:
            self.started.add(exchange.seen.path.split("/")[4])
        self.over.wait(200)
        exchange.reply(answer)


def uuids(scenario: Scenario) -> dict[str, str]:
    """Of the services that live: name without its suffix -> uuid. Two of one name would be one too many."""
    found = [
        (re.sub(r"-[0-9a-f]{7}$", "", s["name"]), s["uuid"])
        for s in scenario.client.list_services()
        if s["state"] != "Terminated"
    ]
    assert len(dict(found)) == len(found), found
    return dict(found)


@pytest.mark.parametrize(
    "orphans",
    [pytest.param(True, id="hosts live on"), pytest.param(False, id="hosts die too", marks=pytest.mark.slow)],
)
def test_an_engine_that_is_killed(new_scenario: Callable[..., Scenario], orphans: bool) -> None:
    """In the middle of creates, of replacements in both orders, and of making anew what was destroyed."""
    scenario = new_scenario()
    scenario.program(SERVICES, BEFORE)
    scenario.up()
    old = uuids(scenario)
    scenario.program(SERVICES, BEFORE.replace('Web("again")', ""))
    scenario.up()

    scenario.program(SERVICES, REPLACED)
    hold = Hold(scenario, started=["started"])
    running = scenario.project.start("up", "--skip-preview", "--yes", "--parallel", "20")
    until(lambda: len(hold.created) == 5 and len(hold.started) == 1, "all is held", 100)
    running.kill()
    if not orphans:
        running.end()
    hold.over.set()
    scenario.project.cancel()
    scenario.proxy.clear()
    services = [s for s in scenario.client.list_services() if s["state"] != "Terminated"]
    new = {s["name"]: s["uuid"] for s in services if s["uuid"] != old["beside"]}
    assert len(new) == 5

    result = scenario.up("--parallel", "20")
    assert SECRET not in result.output
    made = {scenario.live(name)["name"]: scenario.id(name) for name in scenario.project.resources()}
    assert made == new, "each is the one that the killed run has made"
    assert set(uuids(scenario).values()) == set(new.values()), "and there is no other"
    for name in scenario.project.resources():
        assert scenario.live(name)["state"] == "Running"
    scenario.assert_settled()
    scenario.destroy()
    assert not scenario.living()
    assert not [path for path, text in scenario.project.written() if SECRET in text]


def test_a_host_that_is_killed(new_scenario: Callable[..., Scenario]) -> None:
    scenario = new_scenario()
    scenario.program(SERVICES, 'Web("web")')
    hold = Hold(scenario)
    running = scenario.project.start("up", "--skip-preview", "--yes")
    until(lambda: hold.created, "the create is held", 100)
    for pid, command in running.children().items():
        if "pulumi.dynamic" in command:
            os.kill(pid, signal.SIGKILL)
    result = running.wait()
    hold.over.set()
    assert result.returncode != 0
    assert "web" not in scenario.project.resources()
    scenario.proxy.clear()
    (made,) = uuids(scenario).values()
    scenario.up()
    assert scenario.id("web") == made
    scenario.assert_settled()
    scenario.destroy()
    assert not scenario.living()


def test_a_plain_host(new_scenario: Callable[..., Scenario]) -> None:
    """Without the SDK's private surface nothing is made twice either, after a failure or a kill."""
    scenario = new_scenario(env={PLAIN_HOST: "1"})
    broken = '"SIMULATE_EXIT": "3", "SIMULATE_EXIT_AFTER": "0"'
    scenario.program(SERVICES, f'Web("web", container_envvars={{{broken}}})')
    failed = scenario.project.up(fails=True)
    (made,) = uuids(scenario).values()
    assert made in failed.output
    assert "exit code 3" in failed.output
    assert "web" not in scenario.project.resources()

    scenario.program(SERVICES, 'Web("web")\nWeb("held")')
    hold = Hold(scenario, started=["web"])
    running = scenario.project.start("up", "--skip-preview", "--yes")
    until(lambda: len(hold.created) == 2, "the creates are held", 100)
    running.kill()  # its host lives on for ever
    hold.over.set()
    scenario.project.cancel()
    scenario.proxy.clear()
    scenario.up()
    assert scenario.id("web") == made
    assert len(uuids(scenario)) == 2
    scenario.assert_settled()
    scenario.destroy()
    assert not scenario.living()


def test_two_users_at_the_same_moment(new_scenario: Callable[..., Scenario]) -> None:
    first, second = new_scenario(name="shared"), new_scenario(name="shared")
    for user in (first, second):
        user.program(SERVICES, 'Web("web")')
    hold = Hold(first, started=["web"])
    running = first.project.start("up", "--skip-preview", "--yes")
    until(lambda: hold.started, "the first one's service is being made", 100)
    second.project.config_set({"tutum:timeoutSeconds": "3"})
    (error,) = second.up(fails=True).diagnostics("error", "web")
    assert "another run" in error
    assert "tutum:namespace" in error
    assert "web" not in second.project.resources()
    assert second.asked().count("create") > 1, "it has tried again"
    before = first.client.get_service(next(iter(hold.started)))
    hold.over.set()
    assert running.wait().returncode == 0
    first.proxy.clear()
    second.project.config_set({"tutum:timeoutSeconds": "60"})
    (error,) = second.up(fails=True).diagnostics("error", "web")
    assert "adopt" in error
    assert "web" not in second.project.resources()
    first.assert_settled()
    assert first.live("web")["uuid"] == before["uuid"]
    first.destroy()
    assert not first.living()
