"""What a user reads: each warning once, rows that end clean, no hidden inputs, and what will be lost."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from tests.support.engine import Result
from tests.support.scenario import Scenario
from tests.support.server import Server
from tests.support.tools import until


def update(scenario: Scenario, *args: str) -> Result:
    """`pulumi up` as users run it: with its preview."""
    return scenario.project.run("up", "--yes", *args)


def test_each_warning_is_told_once_in_the_preview_and_once_in_the_update(scenario: Scenario) -> None:
    both = """
        db = tutum.Service("db", image="redis", bindings={bindings},
            opts=ResourceOptions(delete_before_replace=True))
        tutum.Service("web", image="acme/web", linked_to_service=[db])
        """
    scenario.program(both.format(bindings=[]))
    scenario.up()
    scenario.program(both.format(bindings=[{"container_path": "/more"}]))
    warning = "the volumes of the old one, and the data in them, are destroyed: /data"
    result = update(scenario)
    # The events are those of the update; what is printed under "Diagnostics" is that of the preview, too.
    (told,) = result.diagnostics("warning")
    assert warning in told
    printed = [
        line for line in result.stdout.splitlines() if line.startswith("    warning: ") and warning in line
    ]
    assert len(printed) == 2


def test_a_row_ends_without_what_was_said_on_the_way(new_scenario: Callable[..., Scenario]) -> None:
    scenario = new_scenario(env={"PULUMI_TUTUM_PROGRESS": "1"})
    slow = {"SIMULATE_START_SECONDS": "1.5", "SIMULATE_STOP_SECONDS": "1"}
    scenario.program(f"""
        tutum.Service("web", image="acme/web", target_num_containers=2, container_envvars={slow})
        tutum.Service("late", image="simulated/hang", timeout_seconds=7)
        """)
    for result in (scenario.up(fails=True), scenario.destroy()):
        for name in ("web", "late"):
            shown = result.progress(name)
            # What ends at once needs no status.
            assert any(shown) or (name, result.args[0]) == ("late", "destroy"), "there was a status"
            assert shown[-1:] in ([], [""])
        assert not [line for line in result.stdout.splitlines() if "created (" in line and "running" in line]


def test_a_preview_shows_no_hidden_input(scenario: Scenario) -> None:
    scenario.program('tutum.Service("web", image="acme/web")')
    scenario.up()
    name = scenario.live("web")["name"]
    scenario.program("""
        first = ResourceOptions(delete_before_replace=True)
        tutum.Service("web", image="acme/web", name="own-name", opts=first)
        """)
    preview = scenario.preview("--diff")
    assert f'"{name}" => "own-name"' in preview.stdout
    assert "__" not in preview.stdout
    scenario.up()
    scenario.assert_settled()
    # Its name is given now: it cannot stand beside a service of the same name.
    scenario.program(
        'tutum.Service("web", image="acme/web", name="own-name", bindings=[{"container_path": "/x"}])'
    )
    preview = scenario.preview("--diff")
    assert "__" not in preview.stdout
    ops = scenario.up().ops["web"]
    assert ops == ["delete-replaced", "replace", "create-replacement"]
    scenario.assert_settled()
    # And without a name again.
    scenario.program('tutum.Service("web", image="acme/web")')
    assert "__" not in scenario.preview("--diff").stdout
    scenario.up()
    assert scenario.live("web")["name"].startswith("web-")
    scenario.assert_settled()


def test_what_a_removed_service_takes_with_it_is_told(scenario: Scenario) -> None:
    scenario.program('tutum.Service("db", image="redis")\ntutum.Service("web", image="acme/web")')
    scenario.up()
    scenario.program("")
    removed = scenario.up()
    (told,) = removed.diagnostics("warning")
    assert removed.diagnostics("warning", "db") == [told]
    assert told.endswith("destroys its volumes and the data in them: /data")


def test_an_image_whose_option_replaces_it_loses_its_volumes_with_a_warning(scenario: Scenario) -> None:
    program = 'tutum.Service("db", image="{}", opts=ResourceOptions(replace_on_changes=["image"]))'
    scenario.program(program.format("redis:6"))
    scenario.up()
    scenario.program(program.format("redis:7"))
    (told,) = scenario.preview().diagnostics("warning", "db")
    assert told.endswith("destroys its volumes and the data in them: /data")


def test_a_new_password_leaves_old_variables_elsewhere_and_the_preview_says_so(scenario: Scenario) -> None:
    program = """
        db = tutum.Service("db", image="acme/db", container_envvars={{"PASS": "{}"}})
        tutum.Service("web", image="acme/web", linked_to_service=[db])
        """
    scenario.program(program.format("first-password"))
    scenario.up()
    scenario.program(program.format("second-password"))
    preview = scenario.preview()
    (told,) = preview.diagnostics("warning", "db")
    web = scenario.live("web")["name"]
    assert f"`pulumi-tutum redeploy {web}`" in told
    assert "-password" not in told


def test_a_wrong_key_and_a_name_given_twice_are_told_in_the_preview(
    new_scenario: Callable[..., Scenario],
) -> None:
    scenario = new_scenario(config={"tutum:user": "bob"}, secrets={"tutum:apikey": "wrong-key"})
    scenario.project.env.pop("TUTUM_APIKEY")
    scenario.program('tutum.Service("web", image="acme/web")')
    (told,) = scenario.preview().diagnostics("warning")
    assert "the control plane refuses the credentials" in told
    assert "wrong-key" not in told

    twice = new_scenario()
    twice.program('for name in ("a", "b"): tutum.Service(name, image="acme/web", name="shop")')
    (error,) = [e for e in twice.preview(fails=True).errors if "shop" in e]
    assert "is the name of another service of this program: urn:pulumi:" in error


def test_a_number_is_told_as_it_was_written(scenario: Scenario) -> None:
    scenario.program(
        'tutum.Service("web", image="acme/web", container_ports=[{"protocol": "tcp", "inner_port": 70000}])'
    )
    (error,) = [e for e in scenario.preview(fails=True).errors if "inner_port" in e]
    assert error.endswith("must be a whole number from 1 to 65535, not 70000")


def test_a_hanging_service_is_destroyed_without_waiting_for_its_start(
    new_scenario: Callable[..., Scenario], plane: Server
) -> None:
    scenario = new_scenario(plane)
    scenario.program('tutum.Service("web", image="simulated/hang", target_num_containers=2, wait=False)')
    scenario.up()
    until(lambda: scenario.live("web")["state"] == "Starting", "it hangs")
    scenario.destroy()
    assert scenario.live("web")["state"] == "Terminated"
    assert any("/cancel/" in seen.path for seen in scenario.seen())


def test_a_service_that_died_is_told_by_preview_and_refresh(scenario: Scenario) -> None:
    dies: dict[str, Any] = {"SIMULATE_EXIT": "9", "SIMULATE_EXIT_AFTER": "1", "SIMULATE_LOG_LINES": "1"}
    scenario.program(f'tutum.Service("web", image="acme/web", monitor_seconds=0, container_envvars={dies})')
    scenario.up()
    until(lambda: scenario.live("web")["state"] == "Stopped", "it died")
    why = ("it is Stopped: 0/1 containers running", "exit code 9", "| line 1")
    for result in (scenario.preview(), scenario.refresh(), scenario.preview()):
        told = "\n".join(result.diagnostics("warning", "web"))
        assert all(words in told for words in why), told
    # In one run, the log is told once.
    again = scenario.preview("--refresh")
    assert "\n".join(again.diagnostics("warning", "web")).count("| line 1") == 1
