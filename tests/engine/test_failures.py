"""Services that do not get where they should: what the user reads, what is kept, how the next up repairs."""

from __future__ import annotations

from collections.abc import Callable

from pulumi_tutum import waiting
from tests.support.scenario import Scenario
from tests.support.server import Server

SERVICE = """
    import functools
    Service = functools.partial(tutum.Service, timeout_seconds=60)
    Hanging = functools.partial(tutum.Service, image="simulated/hang")
"""
BROKEN = """
    AT_ONCE = {"SIMULATE_EXIT_AFTER": "0"}
    Service("fine", image="acme/web")
    Service("exits", image="simulated/exit:3", container_envvars={**AT_ONCE, "SIMULATE_LOG_LINES": "3"})
    Service("exits-0", image="simulated/exit:0", container_envvars=AT_ONCE)
    Service("job", image="simulated/exit:4", container_envvars=AT_ONCE, autodestroy="ALWAYS")
    Service("some", image="acme/web", target_num_containers=3,
        container_envvars={"SIMULATE_ONLY": "2", "SIMULATE_EXIT": "7", **AT_ONCE})
    Service("missing", image="acme/web:missing")
    Service("unstartable", image="simulated/unstartable")
    Service("nowhere", image="acme/web", tags=["no-such-tag"])
    ports = [{"protocol": "tcp", "inner_port": 80, "outer_port": 18101}]
    holder = Service("holder", image="acme/web", container_ports=ports, tags=["front"])
    Service("taken", image="acme/web", container_ports=ports, tags=["front"],
        opts=ResourceOptions(depends_on=[holder]))
    Hanging("late")
    Hanging("late-own", timeout_seconds=1)
    Hanging("late-custom", timeout_seconds=60,
        opts=ResourceOptions(custom_timeouts=pulumi.CustomTimeouts(create="2s", update="2s")))
"""
MENDED = """
    Service("fine", image="acme/web")
    for name in ("exits", "exits-0", "missing", "unstartable", "late", "late-own"):
        Service(name, image="acme/web:mended")
    Service("late-custom", image="acme/web:mended",
        opts=ResourceOptions(custom_timeouts=pulumi.CustomTimeouts(create="2s", update="60s")))
    Service("job", image="simulated/exit:0", container_envvars={"SIMULATE_EXIT_AFTER": "0"},
        autodestroy="ALWAYS")
    Service("some", image="acme/web", target_num_containers=3)
    Service("nowhere", image="acme/web", tags=["back"])
    ports = [{"protocol": "tcp", "inner_port": 80, "outer_port": 18101}]
    Service("holder", image="acme/web", container_ports=ports, tags=["front"])
    Service("taken", image="acme/web", container_ports=ports, tags=["back"])
    Service("clings", image="simulated/slow-stop:4",
        opts=ResourceOptions(custom_timeouts=pulumi.CustomTimeouts(delete="1s")))
"""
#: What the user has to learn, of each that fails. (Without the timeouts, the late ones would hang on.)
SAYS = {
    "exits": ["Stopped", "exit code 3 (General error)", "Started"],
    "exits-0": ["Stopped", "exit code 0"],
    "job": ["exit code 4"],
    "some": ["Partly running", "2/3", "exit code 7"],
    "missing": ["No such image: acme/web:missing"],
    "unstartable": ["the entrypoint could not be executed"],
    "nowhere": ["no-such-tag"],
    "taken": ["18101"],
    "late": ["Starting", "seconds"],
    "late-own": ["Starting", "seconds"],
    "late-custom": ["Starting", "seconds"],
}

#: Otherwise the engine begins nothing any more after the first failure.
ALL = "--continue-on-error"


def test_each_failure_is_told_kept_and_repaired(
    new_scenario: Callable[..., Scenario], impatient: Server
) -> None:
    scenario = new_scenario(impatient, config={"tutum:timeoutSeconds": "3"})
    scenario.program(SERVICE, BROKEN)
    failed = scenario.up(ALL, fails=True)
    resources = scenario.project.resources()
    ids = {name: resource["id"] for name, resource in resources.items()}
    assert len(scenario.living()) == len(ids), "everything that exists is in the state"
    assert set(ids) == {*SAYS, "fine", "holder"}
    for name, words in SAYS.items():
        (message,) = failed.diagnostics("error", name)
        live = scenario.live(name)
        for word in (live["name"], live["uuid"], *words):
            assert word in message, message
        (error,) = resources[name]["initErrors"]
        assert all(word in error for word in words)
        assert resources[name]["outputs"]["uuid"] == live["uuid"]
    for name in ("fine", "holder"):
        assert not resources[name].get("initErrors")
        assert resources[name]["outputs"]["state"] == "Running"

    # A refresh knows them still, and changes nothing of that.
    refreshed = scenario.refresh()
    for name in ("exits", "some", "missing", "nowhere"):
        assert scenario.state(name)["initErrors"]
        assert any("unhealthy" in text for text in refreshed.diagnostics("warning", name))
    again = {name: ["update"] for name in SAYS}
    assert scenario.preview().ops == again

    # As nothing was mended, it fails again, with the same services.
    assert set(scenario.up(ALL, fails=True).ops) == set(SAYS)
    assert {name: scenario.id(name) for name in ids} == ids
    assert "create" not in scenario.asked()

    scenario.program(SERVICE, MENDED)
    scenario.up()
    assert {name: scenario.id(name) for name in ids} == ids
    for name, resource in scenario.project.resources().items():
        assert not resource.get("initErrors"), name
        wanted = ("Not running",) if name == "job" else ("Running",)
        assert (scenario.live(name)["state"],) == wanted, name
    assert len(scenario.living()) == len(ids) + 1
    scenario.assert_settled()

    # And destroyed while they are broken, too. One takes longer than it may: it is not forgotten.
    scenario.program(SERVICE, BROKEN)
    (error,) = scenario.up(ALL, fails=True).diagnostics("error", "clings")
    assert all(word in error for word in (scenario.id("clings"), "Terminating", "seconds"))
    assert scenario.state("clings")["id"] == scenario.id("clings")
    waiting.until(scenario.client, scenario.id("clings"), "Terminated")
    scenario.project.config_set({"tutum:timeoutSeconds": "60"})
    scenario.destroy("--run-program")
    assert not scenario.living()
    assert scenario.project.resources() == {}


UPDATED = """
    def update(name, **wanted):
        tutum.Service(name, target_num_containers=2, timeout_seconds=60, **wanted)
"""


def test_a_failed_update_is_kept_or_rolled_back(new_scenario: Callable[..., Scenario]) -> None:
    scenario = new_scenario()
    scenario.program(
        UPDATED,
        """
        update("kept", image="acme/web:1")
        update("back", image="acme/web:1", rollback_on_failure=True)
        update("back-exit", image="acme/web:1", rollback_on_failure=True, container_envvars={"A": "a"})
        """,
    )
    scenario.up()
    ids = {name: resource["id"] for name, resource in scenario.project.resources().items()}
    scenario.program(
        UPDATED,
        """
        update("kept", image="acme/web:missing")
        update("back", image="acme/web:missing", rollback_on_failure=True)
        update("back-exit", image="acme/web:2", rollback_on_failure=True,
            container_envvars={"SIMULATE_EXIT": "9", "SIMULATE_EXIT_AFTER": "0"})
        """,
    )
    failed = scenario.up(fails=True)
    for name in ids:
        (message,) = failed.diagnostics("error", name)
        assert scenario.live(name)["name"] in message
        assert ("rolled back" in message) == (name != "kept")
        assert scenario.state(name)["initErrors"]
    assert "exit code 9" in "".join(failed.diagnostics("error", "back-exit"))
    assert scenario.live("kept")["image_name"] == "acme/web:missing"
    for name in ("back", "back-exit"):
        live = scenario.live(name)
        assert (live["image_name"], live["state"], live["synchronized"]) == ("acme/web:1", "Running", True)
        assert live["running_num_containers"] == 2
    assert scenario.live("back-exit")["container_envvars"] == [{"key": "A", "value": "a"}]

    # What was wanted is still wanted. What is tried next, and fails, is rolled back as well.
    assert set(scenario.preview().ops) == set(ids)
    scenario.program(
        UPDATED,
        """
        update("kept", image="acme/web:missing", rollback_on_failure=True)
        update("back", image="acme/api:missing", rollback_on_failure=True)
        update("back-exit", image="acme/web:missing", rollback_on_failure=True)
        """,
    )
    failed = scenario.up(ALL, fails=True)
    for name in ids:
        (message,) = failed.diagnostics("error", name)
        assert "rolled back" in message
        live = scenario.live(name)
        assert (live["image_name"], live["state"], live["synchronized"]) == ("acme/web:1", "Running", True)

    # With what there was before all are well again.
    scenario.program(
        UPDATED,
        """
        update("kept", image="acme/web:1")
        update("back", image="acme/web:1", rollback_on_failure=True)
        update("back-exit", image="acme/web:2", rollback_on_failure=True, container_envvars={"A": "b"})
        """,
    )
    scenario.up()
    assert scenario.asked("back") == [], "it is what it should be"
    assert {name: scenario.id(name) for name in ids} == ids
    for name in ids:
        assert not scenario.state(name).get("initErrors")
        assert scenario.live(name)["state"] == "Running"
    assert scenario.live("back-exit")["image_name"] == "acme/web:2"
    scenario.assert_settled()
    scenario.destroy()
    assert not scenario.living()
