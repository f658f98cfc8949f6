"""What a user sees of the window in which containers are watched, with the package's own default."""

from __future__ import annotations

from collections.abc import Callable

from tests.support.scenario import Scenario


def test_an_up_that_ended_well_stays_true(new_scenario: Callable[..., Scenario]) -> None:
    scenario = new_scenario(monitor_seconds=None)
    bad = """
        bad = tutum.Service("bad", image="simulated/exit:3")
        after = tutum.Service("after", image="acme/web", opts=ResourceOptions(depends_on=[bad]))
    """
    scenario.program(bad)
    failed = scenario.up(fails=True)
    (error,) = failed.diagnostics("error", "bad")
    assert "exited with code 3" in error
    assert "Exited with code 3" in error, "its last lines"
    assert list(scenario.project.resources()) == ["bad"], "it is kept, and what depends on it was not made"
    assert scenario.preview().ops == {"bad": ["update"], "after": ["create"]}

    scenario.program(bad.replace("simulated/exit:3", "acme/web"))
    scenario.up()
    assert scenario.live("bad")["monitor_seconds"] == 5
    scenario.assert_settled()
    scenario.destroy()


def test_what_depends_on_a_job_starts_when_the_job_has_ended(new_scenario: Callable[..., Scenario]) -> None:
    scenario = new_scenario(monitor_seconds=None)
    program = """
        job = tutum.Service("job", image="simulated/exit:CODE", job=True,
            container_envvars={"SIMULATE_EXIT_AFTER": "3"})
        web = tutum.Service("web", image="acme/web", monitor_seconds=0,
            opts=ResourceOptions(depends_on=[job]))
        pulumi.export("state", job.state)
    """
    scenario.program(program.replace("CODE", "7"))
    failed = scenario.up(fails=True)
    (error,) = failed.diagnostics("error", "job")
    assert "exited with code 7" in error
    assert list(scenario.project.resources()) == ["job"]

    scenario.program(program.replace("CODE", "0"))
    assert scenario.up().ops == {"job": ["update"], "web": ["create"]}
    assert scenario.project.outputs()["state"] == "Not running"
    scenario.assert_settled()
    scenario.destroy()
