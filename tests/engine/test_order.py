"""Services that need one for which the program does not wait."""

from __future__ import annotations

from tests.support.scenario import Scenario

PROGRAM = """
    db = tutum.Service("db", image="simulated/slow:1", wait=False, target_num_containers=3,
        sequential_deployment=True, bindings=[{"container_path": "/data"}])
    tutum.Service("web", image="acme/web", linked_to_service=[{"to_service": db, "name": "DB"}])
    tutum.Service("backup", image="acme/backup", target_num_containers=3, bindings=[{"volumes_from": db}])
"""


def test_a_service_waits_for_one_that_the_program_does_not_wait_for(scenario: Scenario) -> None:
    scenario.program(PROGRAM)
    scenario.up()
    assert scenario.live("db")["state"] in ("Starting", "Running")
    assert scenario.live("web")["state"] == scenario.live("backup")["state"] == "Running"
    web, *_ = scenario.client.list_containers(service=scenario.live("web")["resource_uri"])
    environment = scenario.client.get_container(web["uuid"])["container_envvars"]
    assert {f"DB_{ordinal}_NAME" for ordinal in (1, 2, 3)} <= {v["key"] for v in environment}
    scenario.destroy()
