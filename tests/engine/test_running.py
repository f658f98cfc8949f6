"""Wanted states other than "running, and I wait": `running`, `wait`, a target of 0, jobs."""

from __future__ import annotations

from pulumi_tutum import waiting
from tests.support.scenario import Scenario

JOB = {"SIMULATE_EXIT_AFTER": "0"}
FIRST = f"""
    JOB = {JOB}
    tutum.Service("never", image="acme/web:1", running=False)
    tutum.Service("pause", image="acme/web:1")
    tutum.Service("change", image="acme/web:1")
    tutum.Service("zero", image="acme/web:1", target_num_containers=0)
    tutum.Service("many", image="acme/web:1", target_num_containers=2)
    tutum.Service("job", image="simulated/exit:0", container_envvars=JOB, autodestroy="ON_SUCCESS")
    tutum.Service("jobs", image="simulated/exit:0", container_envvars=JOB, autodestroy="ALWAYS",
        target_num_containers=3)
    tutum.Service("impatient", image="simulated/slow:2", wait=False)
"""
SECOND = FIRST.replace('"pause", ', '"pause", running=False, ')
SECOND = SECOND.replace('"never", image="acme/web:1"', '"never", image="acme/web:2"')
SECOND = SECOND.replace('"change", image="acme/web:1"', '"change", image="acme/web:2", running=False')
SECOND = SECOND.replace("target_num_containers=0", "target_num_containers=2")
SECOND = SECOND.replace(
    '"many", image="acme/web:1", target_num_containers=2',
    '"many", image="acme/web:1", target_num_containers=0',
)
SECOND = SECOND.replace('autodestroy="ON_SUCCESS"', 'autodestroy="ON_SUCCESS", memory=64')
SECOND = SECOND.replace(
    '"simulated/slow:2", wait=False', '"simulated/slow:2", wait=False, target_num_containers=2'
)
THIRD = SECOND.replace("running=False", "running=True")


def test_wanted_states(scenario: Scenario) -> None:
    scenario.program(FIRST)
    scenario.up()
    names = {"never", "pause", "change", "zero", "many", "job", "jobs", "impatient"}
    assert scenario.asked("never") == ["create"]
    assert scenario.requests("impatient") == 2, "the start is accepted, that is all"
    assert states(scenario, "never", "pause", "zero", "job", "jobs") == [
        "Not running",
        "Running",
        "Not running",
        "Not running",
        "Not running",
    ]
    assert scenario.project.resources()["zero"]["outputs"]["endpoint_uris"] == []
    # Whatever became of the one that nobody waits for: it is no change.
    assert scenario.preview("--expect-no-changes").ops == {}
    waiting.until(scenario.client, scenario.id("impatient"), "Running")
    assert scenario.preview("--expect-no-changes").ops == {}
    assert set(scenario.refresh().ops) <= {"impatient"}
    scenario.assert_settled()
    ids = {name: scenario.id(name) for name in names}

    scenario.program(SECOND)
    assert set(scenario.preview().ops) == names - {"jobs"}
    assert set(scenario.up().ops) == names - {"jobs"}
    assert scenario.asked("never") == ["update"]
    assert scenario.asked("pause") == ["stop"]
    assert sorted(scenario.asked("change")) == ["stop", "update"]
    assert scenario.asked("zero") == ["update", "start"]
    assert scenario.asked("many") == ["update", "scale"]
    assert scenario.asked("job") == ["update", "start"], "it runs again: what it is made of has changed"
    assert scenario.asked("impatient") == ["update", "scale"]
    assert states(scenario, "never", "pause", "change", "zero", "job") == [
        "Not running",
        "Stopped",
        "Stopped",
        "Running",
        "Not running",
    ]
    assert scenario.live("zero")["running_num_containers"] == 2
    assert scenario.live("many")["current_num_containers"] == 0
    assert scenario.live("change")["image_name"] == "acme/web:2"
    waiting.until(scenario.client, scenario.id("impatient"), "Running")
    scenario.refresh()
    scenario.assert_settled()

    scenario.program(THIRD)
    assert set(scenario.up().ops) == {"never", "pause", "change"}
    assert scenario.asked("never") == ["start"]
    assert scenario.asked("pause") == ["start"]
    assert scenario.asked("change") == ["redeploy"]
    assert states(scenario, "never", "pause", "change") == ["Running"] * 3
    assert {name: scenario.id(name) for name in names} == ids
    scenario.assert_settled()
    scenario.destroy()
    assert not scenario.living()


def states(scenario: Scenario, *names: str) -> list[str]:
    return [scenario.live(name)["state"] for name in names]
