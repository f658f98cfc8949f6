"""Where the private surface of the SDK cannot be used: plain errors, and what was made is found again."""

from __future__ import annotations

from collections.abc import Callable

from pulumi_tutum.host import PLAIN_HOST
from tests.support.scenario import Scenario

PROGRAM = """
    site = pulumi.ComponentResource("shop:index:Site", "site")
    db = tutum.Service("db", image="acme/db", container_envvars={{"PASS": Output.secret("of-the-db")}},
        opts=ResourceOptions(parent=site))
    tutum.Service("web", image="{image}", linked_to_service=[db], target_num_containers={count})
    tutum.Service("broken", image="{broken}", timeout_seconds=60, bindings=[{{"container_path": "/{path}"}}])
"""


def program(image: str, count: int = 1, broken: str = "acme/web", path: str = "a") -> str:
    return PROGRAM.format(image=image, count=count, broken=broken, path=path)


def test_without_the_private_surface(new_scenario: Callable[..., Scenario]) -> None:
    scenario = new_scenario(env={PLAIN_HOST: "1"})
    scenario.program(program("acme/web:1", broken="acme/web:missing"))
    result = scenario.project.up("--continue-on-error", fails=True)
    (uuid,) = [s["uuid"] for s in scenario.client.list_services() if s["name"].startswith("broken-")]
    assert uuid in result.output
    assert "No such image" in result.output
    assert "broken" not in scenario.project.resources()
    scenario.program(program("acme/web:1"))
    assert scenario.up().ops == {"broken": ["create"]}
    assert scenario.id("broken") == uuid
    assert len(scenario.living()) == 3
    assert scenario.live("broken")["image_name"] == "acme/web:latest"
    scenario.assert_settled()

    scenario.program(program("acme/web:2", count=2, path="b"))
    ops = scenario.up().ops
    assert ops["web"] == ["update"]
    assert ops["broken"] == ["create-replacement", "replace", "delete-replaced"]
    assert scenario.live("web")["running_num_containers"] == 2
    assert len(scenario.living()) == 3
    scenario.assert_settled()
    scenario.client.update_service(scenario.id("web"), {"image": "acme/web:9"})
    assert set(scenario.refresh().ops) == {"web"}
    assert scenario.up().ops == {"web": ["update"]}
    assert scenario.live("web")["image_name"] == "acme/web:2"
    assert "of-the-db" not in scenario.project.run("stack", "export").stdout
    scenario.destroy()
    assert not scenario.living()
