"""What the state has of a service: little, and yet all that a program reads. Earlier states stay valid."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from pulumi_tutum import schema
from tests.support.scenario import Scenario

#: Inputs and outputs of the services of `PROGRAM` as the release before has written them, secrets in clear.
EARLIER = Path(__file__).with_name("earlier_state.json")
SECRET = {"4dabf18193072939515e22adb298388d": "1b47061264138c4ac30d75fd1eb44270"}
PROGRAM = """
    db = tutum.Service("db", image="acme/db",
        container_envvars={"PASS": pulumi.Output.secret("hush-hush")}, memory=64)
    web = tutum.Service("web", image="acme/web", linked_to_service=[db], tags=["front"],
        target_num_containers=2, container_ports=[{"protocol": "tcp", "inner_port": 80, "published": True}])
    job = tutum.Service("job", image="simulated/exit:0", job=True)
"""
READ = """
    for service in (db, web, job):
        pulumi.export(service.pulumi_resource_name, {name: getattr(service, name) for name in %s})
"""
ALL = [name for name in schema.ATTRIBUTES if name != "monitor_seconds"] + [*schema.OPTIONS, "endpoint_uris"]


def test_the_state_of_a_service_is_small(scenario: Scenario) -> None:
    # Inputs and outputs once had 10,800 bytes, and what the SDK adds had 1,900 more.
    scenario.program(
        """
        tutum.Service("web", image="tutum/hello-world", container_envvars={"MODE": "production"},
            container_ports=[{"protocol": "tcp", "inner_port": 80, "published": True}])
        """
    )
    scenario.up()
    state = scenario.state("web")
    assert len(json.dumps([state["inputs"], state["outputs"]], separators=(",", ":"))) < 2600
    assert len(json.dumps(state, separators=(",", ":"))) < 3500
    lines = (scenario.project.folder / "__main__.py").read_text(encoding="utf-8").splitlines()
    (declared,) = (number for number, line in enumerate(lines, 1) if "tutum.Service(" in line)
    assert state["sourcePosition"] == f"project:///__main__.py#{declared}"
    assert state["stackTrace"] == [{"sourcePosition": state["sourcePosition"]}]
    assert set(state["inputs"]) == {
        *("__provider", "autodestroy", "container_envvars", "container_ports", "image", "name"),
        "target_num_containers",
    }


def test_a_program_reads_what_the_state_leaves_out(scenario: Scenario) -> None:
    scenario.program(PROGRAM, READ % ALL)
    scenario.up()
    assert_all_is_read(scenario)
    # In a preview without a change, the program reads the same: the stack's outputs stay, too.
    scenario.assert_settled()


def assert_all_is_read(scenario: Scenario) -> None:
    read = scenario.project.outputs()
    for name in ("db", "web", "job"):
        live = scenario.live(name)
        seen = read[name]
        for attribute in schema.COMPUTED:
            # Who links to a service comes after it.
            assert attribute == "linked_from_service" or seen[attribute] == live[attribute], attribute
        assert len(seen["link_variables"]) > 30 or name == "job"
        for option, value in {"running": True, "wait": True, "rollback_on_failure": False}.items():
            assert seen[option] is value
        assert seen["job"] is (name == "job")
        assert (seen["network"], seen["pid"], seen["privileged"]) == ("bridge", "none", False)
        assert seen["bindings"] == seen["roles"] == []
    assert read["web"]["tags"] == [{"name": "front"}]
    assert read["db"]["tags"] == read["db"]["linked_to_service"] == []
    assert read["db"]["container_envvars"] == {"PASS": "hush-hush"}


def test_a_state_of_the_release_before_is_unchanged(scenario: Scenario) -> None:
    scenario.program(PROGRAM)
    scenario.up()
    import_as_before(scenario)
    scenario.assert_settled()
    assert scenario.refresh("--expect-no-changes").ops == {}
    for name, before in recorded().items():
        for kind in ("inputs", "outputs"):
            assert set(scenario.state(name)[kind]) == set(before[kind])

    changed = PROGRAM.replace("memory=64", "memory=65")
    scenario.program(changed)
    preview = scenario.preview("--diff")
    assert preview.ops == {"db": ["update"]}
    assert "memory: 64 => 65" in preview.output
    assert "autorestart" not in preview.output

    scenario.program(PROGRAM, READ % ALL)
    assert scenario.up().ops == {}
    assert_all_is_read(scenario)
    scenario.program(changed, READ % ALL)
    scenario.up()
    assert_all_is_read(scenario)
    assert "autorestart" not in scenario.state("db")["outputs"]
    scenario.assert_settled()
    scenario.destroy()


def recorded() -> dict[str, dict[str, dict[str, Any]]]:
    found: dict[str, dict[str, dict[str, Any]]] = json.loads(EARLIER.read_text(encoding="utf-8"))
    return found


def import_as_before(scenario: Scenario) -> None:
    """Gives the state the form that the release before would have given it."""
    project = scenario.project
    state = json.loads(project.run("stack", "export", "--show-secrets").stdout)
    for resource in state["deployment"]["resources"]:
        name = resource["urn"].rpartition("::")[2]
        if name not in recorded():
            continue
        live = scenario.live(name)
        now = {
            **resource["outputs"],
            "linked_from_service": [{k: v for k, v in i.items() if v} for i in live["linked_from_service"]],
            "link_variables": {**SECRET, "plaintext": json.dumps(live["link_variables"])},
        }
        before = recorded()[name]
        resource["outputs"] = {key: now.get(key, value) for key, value in before["outputs"].items()}
        inputs = resource["inputs"]
        resource["inputs"] = {key: inputs.get(key, value) for key, value in before["inputs"].items()}
    path = project.folder / "state.json"
    path.write_text(json.dumps(state), encoding="utf-8")
    project.run("stack", "import", "--file", str(path))
