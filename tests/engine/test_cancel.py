"""Ctrl-C while services settle: the run ends, the state holds what exists, the next run carries on."""

from __future__ import annotations

from collections.abc import Callable

from tests.support.faults import hang
from tests.support.scenario import Scenario
from tests.support.server import Server
from tests.support.tools import until

PROGRAM = """
    for name in ("one", "two", "three"):
        tutum.Service(name, image="{image}")
    tutum.Service("quick", image="acme/web")
"""


def test_interrupted(new_scenario: Callable[..., Scenario], impatient: Server) -> None:
    scenario = new_scenario(impatient)
    scenario.program(PROGRAM.format(image="simulated/hang"))
    scenario.mark()
    running = scenario.project.start("up", "--skip-preview", "--yes")
    until(lambda: scenario.asked().count("create") == 4, "all services are being made")
    running.interrupt()
    result = running.wait()
    assert result.returncode != 0
    assert "Traceback" not in result.output
    state = scenario.project.export()
    assert not state.get("pending_operations")
    resources = scenario.project.resources()
    assert set(resources) == {"one", "two", "three", "quick"}
    assert len(scenario.living()) == len(resources), "nothing is without its resource"
    for name in ("one", "two", "three"):
        (error,) = resources[name]["initErrors"]
        assert "interrupted" in error
        assert resources[name]["id"] in error
    ids = {name: resource["id"] for name, resource in resources.items()}

    # An update that is interrupted, while it waits for the first start to end.
    scenario.program(PROGRAM.format(image="acme/web:2"))
    scenario.mark()
    running = scenario.project.start("up", "--skip-preview", "--yes")
    until(lambda: any(ids["one"] in seen.path for seen in scenario.seen()), "the update")
    running.interrupt()
    assert running.wait().returncode != 0
    assert {name: resource["id"] for name, resource in scenario.project.resources().items()} == ids

    scenario.up()
    assert {name: scenario.id(name) for name in ids} == ids
    assert "create" not in scenario.asked()
    for name in ids:
        assert scenario.live(name)["state"] == "Running"
        assert not scenario.state(name).get("initErrors")
    scenario.assert_settled()

    # A create whose answer never comes: made, but not in the state. The next run gets hold of it.
    scenario.program(PROGRAM.format(image="acme/web:2"), 'tutum.Service("lost", image="acme/web")')
    scenario.proxy.on(hang(committed=True), "POST", "/service/$")
    running = scenario.project.start("up", "--skip-preview", "--yes")
    until(lambda: any(name.startswith("lost-") for name in scenario.living()), "lost is made")
    running.interrupt()
    assert running.wait().returncode != 0
    assert "lost" not in scenario.project.resources()
    (made,) = (s for s in scenario.client.list_services() if s["name"].startswith("lost-"))
    assert scenario.up().ops == {"lost": ["create"]}
    assert scenario.id("lost") == made["uuid"]
    assert len(scenario.living("lost-")) == 1

    # A destroy that is interrupted, with a service that takes its time to stop.
    scenario.program(PROGRAM.format(image="simulated/slow-stop:3"))
    scenario.up()
    running = scenario.project.start("destroy", "--skip-preview", "--yes")
    until(lambda: "Terminating" in {s["state"] for s in scenario.client.list_services()}, "terminating")
    running.interrupt()
    assert running.wait().returncode != 0
    scenario.destroy()
    assert not scenario.living()
    assert scenario.project.resources() == {}
