"""Services that exist already: taken over (`adopt`), read (`Service.get`), looked up (`get_service`)."""

from __future__ import annotations

from typing import Any

from pulumi_tutum import waiting
from tests.support.scenario import Scenario


def existing(scenario: Scenario, name: str, *, start: bool = True, **body: Any) -> str:
    """A service that somebody made with the plain API; its uuid."""
    uuid: str = scenario.client.create_service({"image": "acme/web:1", "name": name, **body})["uuid"]
    if start:
        scenario.client.start_service(uuid)
        waiting.until(scenario.client, uuid, "Running")
    return uuid


def test_adopt(scenario: Scenario) -> None:
    by_uuid = existing(scenario, "ex-uuid", tags=[{"name": "front"}])
    by_name = existing(scenario, "ex-name", bindings=[{"container_path": "/data"}])
    idle = existing(scenario, "ex-idle", start=False)
    program = f"""
        tutum.Service("by-uuid", image="acme/web:2", adopt="{by_uuid}")
        tutum.Service("by-name", image="acme/web:1",
            adopt="ex-name", bindings=[{{"container_path": "/data"}}])
        tutum.Service("idle", image="acme/web:1", name="ex-idle", adopt="/api/v1/service/{idle}/")
    """
    # A difference that needs a replacement is an error before anything is changed, in preview and up.
    # (Nothing of the refused one; the engine may be at others meanwhile, so there are none.)
    refused = 'tutum.Service("by-name", image="acme/web:2", adopt="ex-name")\n'
    scenario.program(refused + 'tutum.Service("none", image="acme/web", adopt="ex-no-such")\n')
    for run in (scenario.preview, scenario.up):
        errors = "\n".join(run(fails=True).errors)
        assert "bindings: differs" in errors or "ex-no-such" in errors
        assert not scenario.asked()
    scenario.program(refused.replace('adopt="ex-name"', 'adopt="ex-name", name="other"'))
    errors = "\n".join(scenario.preview(fails=True).errors)
    assert "bindings: differs" in errors
    assert "name: differs" in errors

    scenario.program(program)
    preview = scenario.preview()
    assert set(preview.ops) == {"by-uuid", "by-name", "idle"}
    for name, uuid in (("by-uuid", by_uuid), ("by-name", by_name), ("idle", idle)):
        (notice,) = preview.diagnostics("warning", name)
        assert uuid in notice
        assert "adopt" in notice
    scenario.up()
    assert [scenario.id(name) for name in ("by-uuid", "by-name", "idle")] == [by_uuid, by_name, idle]
    assert scenario.asked("by-uuid") == ["update", "redeploy"]
    assert scenario.asked("by-name") == []
    assert scenario.asked("idle") == ["start"]
    adopted = scenario.live("by-uuid")
    assert (adopted["image_name"], adopted["name"], adopted["tags"]) == ("acme/web:2", "ex-uuid", [])
    scenario.assert_settled()

    # Once it is taken over, the input says nothing any more; the name stays.
    scenario.program(
        program.replace(f'adopt="{by_uuid}"', 'adopt="ex-gone"').replace(', adopt="ex-name"', "")
    )
    scenario.assert_settled()
    # A replacement is another service, made and not adopted.
    scenario.program(program.replace('"/data"', '"/other"'))
    assert "delete-replaced" in scenario.up().ops["by-name"]
    assert scenario.id("by-name") != by_name
    scenario.destroy()
    assert not scenario.living("ex-")


def test_reading_without_owning(scenario: Scenario) -> None:
    shared = existing(
        scenario,
        "ex-shared",
        container_ports=[{"protocol": "tcp", "inner_port": 80, "published": True}],
        container_envvars=[{"key": "PASS", "value": "of-the-shared-one"}],
        bindings=[{"container_path": "/data"}],
    )
    scenario.program(f"""
        shared = tutum.Service.get("shared", "{shared}")
        looked = tutum.get_service(name="ex-shared")
        assert looked.uuid == tutum.get_service(uuid="{shared}").uuid == "{shared}"
        tutum.Service("web", image="acme/web",
            linked_to_service=[{{"to_service": shared, "name": "a"}}, looked])
        pulumi.export("shared", [shared.name, shared.state, shared.image, shared.endpoint_uris])
        pulumi.export("looked", [looked.name, looked.state, looked.image_name, looked.endpoint_uris])
        pulumi.export("port", [shared.container_ports[0].inner_port, looked.container_ports[0].inner_port])
        pulumi.export("environment", [shared.container_envvars, looked.container_envvars])
    """)
    assert scenario.preview().ops == {"shared": ["read"], "web": ["create"]}
    scenario.up()
    outputs = scenario.project.outputs()
    assert outputs["shared"] == outputs["looked"]
    assert outputs["shared"][:3] == ["ex-shared", "Running", "acme/web:1"]
    assert len(outputs["shared"][3]) == 1
    assert outputs["port"] == [80, 80]
    assert outputs["environment"] == [{"PASS": "of-the-shared-one"}] * 2
    assert "of-the-shared-one" not in scenario.project.run("stack", "export").stdout
    assert [link["name"] for link in scenario.live("web")["linked_to_service"]] == ["a", "ex-shared"]
    assert scenario.preview("--expect-no-changes").ops == {"shared": ["read"]}
    scenario.client.update_service(shared, {"image": "acme/web:7"})
    scenario.up()
    assert scenario.project.outputs()["shared"][2] == "acme/web:7", "read anew, and not changed back"
    # However it is, nothing is expected of it.
    scenario.client.stop_service(shared)
    waiting.until(scenario.client, shared, "Stopped")
    refreshed = scenario.refresh()
    assert not refreshed.diagnostics("warning", "shared")
    assert not scenario.state("shared").get("initErrors")
    assert scenario.state("shared")["outputs"]["state"] == "Stopped"
    scenario.client.start_service(shared)
    waiting.until(scenario.client, shared, "Running")
    scenario.destroy()
    assert scenario.client.get_service(shared)["state"] == "Running"

    scenario.client.terminate_service(shared)
    waiting.until(scenario.client, shared, "Terminated")
    scenario.program(f'tutum.Service.get("shared", "{shared}")')
    (error,) = scenario.up(fails=True).diagnostics("error", "shared")
    assert f"there is no service {shared}" in error
    # In the program's own Python a lookup that fails is an exception.
    scenario.program("""
        try:
            tutum.get_service(name="ex-shared")
        except tutum.NotFound as error:
            pulumi.export("error", str(error))
    """)
    scenario.up()
    assert "ex-shared" in scenario.project.outputs()["error"]


def test_an_ambiguous_name_is_never_guessed(scenario: Scenario) -> None:
    """Services of stacks may have the same names."""
    uris = []
    for stack in ("ex-one", "ex-two"):
        body = {"name": stack, "services": [{"name": "twin", "image": "acme/web"}]}
        uris += scenario.client.request("POST", "/api/v1/stack/", body=body)["services"]
    scenario.program('tutum.Service("twin", image="acme/web", adopt="twin")')
    (error,) = [text for text in scenario.preview(fails=True).errors if "adopt" in text]
    assert all(uri.split("/")[-2] in error for uri in uris)
    for uri in uris:
        scenario.client.terminate_service(uri)
