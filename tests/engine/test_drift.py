"""What somebody changes outside of Pulumi: a refresh shows it and nothing else, the next up puts it right."""

from __future__ import annotations

from typing import Any

from pulumi_tutum import waiting
from tests.support.faults import edit
from tests.support.scenario import Scenario

PROGRAM = """
    db = tutum.Service("untouched", image="acme/db", container_envvars={"A": "a"}, tags=["front", "eu"])
    tutum.Service("untouched-linker", image="acme/web", linked_to_service=[db])
    tutum.Service("scaled", image="acme/web", target_num_containers=2)
    tutum.Service("stopped", image="acme/web")
    tutum.Service("partly", image="acme/web", target_num_containers=2)
    tutum.Service("tagged", image="acme/web", tags=["front"])
    tutum.Service("image", image="acme/web:1")
    tutum.Service("env", image="acme/web", container_envvars={"PASS": Output.secret("as-declared"), "N": 1})
    tutum.Service("ports", image="acme/web", container_ports=[{"protocol": "tcp", "inner_port": 80}])
    tutum.Service("options", image="acme/web", autorestart="ON_FAILURE", memory=128)
    tutum.Service("gone", image="acme/web")
    tutum.Service("bound", image="acme/db", bindings=[{"container_path": "/data"}])
"""
CHANGED_IN_PLACE = {"scaled", "stopped", "partly", "tagged", "image", "env", "ports", "options"}


def test_drift(scenario: Scenario) -> None:
    scenario.program(PROGRAM)
    scenario.up()
    scenario.assert_settled()
    ids = {name: resource["id"] for name, resource in scenario.project.resources().items()}

    change_everything(scenario)
    # Without a refresh nobody knows.
    assert scenario.preview("--expect-no-changes").ops == {}
    refreshed = scenario.refresh()
    found = refreshed.ops
    assert found == {**{key: ["update"] for key in CHANGED_IN_PLACE}, "gone": ["delete"]}
    # What runs as somebody else wants it is well; what does not run is not.
    unwell = {name for name in ids if any("unhealthy" in t for t in refreshed.diagnostics("warning", name))}
    assert unwell == {"stopped", "partly", "options"}
    inputs = {name: resource["inputs"] for name, resource in scenario.project.resources().items()}
    assert inputs["scaled"]["target_num_containers"] == 5
    assert inputs["tagged"]["tags"] == [{"name": "eu"}]
    assert inputs["image"]["image"] == "acme/web:9"
    assert inputs["ports"]["container_ports"][0]["inner_port"] == 81
    assert inputs["options"]["memory"] == 256
    assert "from-outside" not in scenario.project.run("stack", "export").stdout

    preview = scenario.preview()
    assert preview.ops == {**{key: ["update"] for key in CHANGED_IN_PLACE}, "gone": ["create"]}
    # What the engine cannot show, because the inputs are the same, is said in words.
    said = [warning for warning in preview.diagnostics("warning") if "bindings" not in warning]
    assert all("is repaired by an update: it" in warning for warning in said)
    scenario.up()
    assert scenario.asked("stopped") == ["start"]
    assert scenario.asked("partly") == ["start"]
    assert scenario.asked("scaled") == ["update", "scale"]
    assert scenario.asked("tagged") == ["update"]
    assert scenario.asked("image") == ["update", "redeploy"]
    assert {name: scenario.id(name) for name in CHANGED_IN_PLACE} == {n: ids[n] for n in CHANGED_IN_PLACE}
    assert scenario.id("gone") != ids["gone"]
    for name in ids:
        live = scenario.live(name)
        assert (live["state"], live["synchronized"]) == ("Running", True), name
    assert scenario.live("scaled")["running_num_containers"] == 2
    assert scenario.live("image")["image_name"] == "acme/web:1"
    assert {"key": "PASS", "value": "as-declared"} in scenario.live("env")["container_envvars"]
    assert scenario.live("options")["memory"] == 128
    scenario.assert_settled()

    # A server on which bindings can change. To bring them back would destroy data, so that is only said.
    scenario.proxy.on(edit(other_bindings), "GET", f"/{ids['bound']}/$", times=None)
    refreshed = scenario.refresh()
    (warning,) = refreshed.diagnostics("warning", "bound")
    assert "bindings" in warning
    assert scenario.up().ops == {}
    scenario.proxy.clear()

    # What is changed outside is found and put right in one run, too.
    change(scenario, "image", {"image": "acme/web:8"}, "redeploy")
    up = scenario.up("--refresh")
    assert up.ops["image"][-1] == "update"
    assert scenario.live("image")["image_name"] == "acme/web:1"

    # Something that is gone already is no trouble for destroy.
    change(scenario, "gone", None, "terminate")
    scenario.destroy()
    assert not scenario.living()


def other_bindings(service: dict[str, Any]) -> None:
    service["bindings"] = [
        {"container_path": "/else", "host_path": None, "rewritable": True, "volumes_from": None}
    ]


def change_everything(scenario: Scenario) -> None:
    change(scenario, "scaled", {"target_num_containers": 5}, "scale")
    change(scenario, "stopped", None, "stop")
    container = scenario.live("partly")["containers"][0]
    scenario.client.request("POST", f"{container}stop/")
    change(scenario, "partly", None, None)
    change(scenario, "tagged", {"tags": [{"name": "eu"}]}, None)
    change(scenario, "image", {"image": "acme/web:9"}, "redeploy")
    change(scenario, "env", {"container_envvars": [{"key": "PASS", "value": "from-outside"}]}, "redeploy")
    change(scenario, "ports", {"container_ports": [{"protocol": "tcp", "inner_port": 81}]}, "redeploy")
    change(scenario, "options", {"autorestart": "OFF", "memory": 256}, None)
    change(scenario, "gone", None, "terminate")


def change(scenario: Scenario, name: str, body: dict[str, Any] | None, action: str | None) -> None:
    """What somebody else does with the plain API; settled when this returns."""
    client, uuid = scenario.client, scenario.id(name)
    if body is not None:
        client.update_service(uuid, body)
    if action is not None:
        getattr(client, f"{action}_service")(uuid)
    waiting.until(client, uuid, *(["Terminated"] if action == "terminate" else []))
