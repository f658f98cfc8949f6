"""What a change costs: the fewest calls for each kind of update, on services that change all at once."""

from __future__ import annotations

from tests.support.scenario import Scenario

BEFORE = """
    cache = tutum.Service("cache", image="acme/cache:1")
    tutum.Service("linked", image="acme/web",
        linked_to_service=[cache, {"to_service": cache.id, "name": "c2"}])
    tutum.Service("same", image="acme/web",
        container_ports=[{"protocol": "tcp", "inner_port": 80}, {"protocol": "udp", "inner_port": 53}],
        container_envvars={"N": 8, "A": "a"}, tags=["front", "eu"],
        linked_to_service=[{"to_service": cache, "name": "x"}, {"to_service": cache.uuid, "name": "y"}])
    tutum.Service("count", image="acme/web", target_num_containers=2)
    tutum.Service("fewer", image="acme/web", target_num_containers=3)
    tutum.Service("image", image="acme/web:1")
    tutum.Service("both", image="acme/web:1", target_num_containers=1)
    tutum.Service("env", image="acme/web", container_envvars={"A": "1", "B": "2"})
    tutum.Service("resources", image="acme/web", memory=64, run_command="run")
    tutum.Service("tags", image="acme/web", tags=["front"])
    tutum.Service("strategy", image="acme/web", target_num_containers=2)
    tutum.Service("autoredeploy", image="acme/web")
    tutum.Service("options", image="acme/web")
    tutum.Service("health", image="acme/web", healthcheck={"command": "true"})
"""
AFTER = """
    cache = tutum.Service("cache", image="acme/cache:2")
    tutum.Service("linked", image="acme/web",
        linked_to_service=[cache, {"to_service": cache.id, "name": "c2"}])
    tutum.Service("same", image="acme/web:latest", target_num_containers=1, autorestart="OFF",
        container_ports=[{"protocol": "udp", "inner_port": 53, "published": False},
                         {"protocol": "tcp", "inner_port": 80}],
        container_envvars=[{"key": "A", "value": "a"}, {"key": "N", "value": "8"}],
        tags=[{"name": "eu"}, "front"],
        linked_to_service=[{"to_service": cache.resource_uri, "name": "y"},
                           {"to_service": cache, "name": "x"}])
    tutum.Service("count", image="acme/web", target_num_containers=4)
    tutum.Service("fewer", image="acme/web", target_num_containers=1)
    tutum.Service("image", image="acme/web:2")
    tutum.Service("both", image="acme/web:2", target_num_containers=3)
    tutum.Service("env", image="acme/web", container_envvars={"B": "3"})
    tutum.Service("resources", image="acme/web", cpu_shares=512)
    tutum.Service("tags", image="acme/web", tags=["eu"])
    tutum.Service("strategy", image="acme/web", target_num_containers=2,
        deployment_strategy="HIGH_AVAILABILITY")
    tutum.Service("autoredeploy", image="acme/web", autoredeploy=True)
    tutum.Service("options", image="acme/web", timeout_seconds=60, rollback_on_failure=True)
    tutum.Service("health", image="acme/web", healthcheck={"command": "true", "retries": 5})
"""
#: What is sent to change a service; those that are not named do not change.
CALLS = {
    "cache": ["update", "redeploy"],
    "count": ["update", "scale"],
    "fewer": ["update", "scale"],
    "image": ["update", "redeploy"],
    "both": ["update", "redeploy"],
    "env": ["update", "redeploy"],
    "resources": ["update", "redeploy"],
    "tags": ["update"],
    "strategy": ["update"],
    "autoredeploy": ["update"],
    "options": [],
    "health": ["update", "redeploy"],
}
#: Requests of any kind about one service that `up` makes or changes, at most.
MOST = 6


def test_each_kind_of_change(scenario: Scenario) -> None:
    scenario.program(BEFORE)
    preview = scenario.preview()
    names = set(preview.ops)
    assert len(names) == 14
    assert not scenario.living(), "a preview made something"
    up = scenario.up()
    assert up.ops == {key: ["create"] for key in names}
    for name in names:
        assert scenario.asked(name) == ["create", "start"], name
        assert scenario.requests(name) <= MOST
        live = scenario.live(name)
        assert (live["state"], live["synchronized"]) == ("Running", True)
        (shown,) = (step.new["inputs"]["name"] for step in preview.steps if step.name == name)
        assert live["name"] == shown, "the preview knew the automatic name"
    assert scenario.proxy.count("GET", "/v1/events") == 1, "one connection for all waits"
    assert scenario.preview("--expect-no-changes").ops == {}
    assert scenario.refresh("--expect-no-changes").ops == {}
    ids = {name: scenario.id(name) for name in names}

    scenario.program(AFTER)
    changed = {name: ["update"] for name in CALLS}
    expected = scenario.preview().ops
    # Its link to cache.resource_uri, an output of a service that changes, is not known before.
    assert {name: ops for name, ops in expected.items() if name != "same"} == changed
    assert scenario.up().ops == changed
    for name, calls in CALLS.items():
        assert scenario.asked(name) == calls, name
        assert scenario.requests(name) <= MOST
    assert {name: scenario.id(name) for name in names} == ids
    assert all(scenario.live(name)["synchronized"] for name in names)
    assert scenario.live("count")["running_num_containers"] == 4
    assert scenario.live("fewer")["current_num_containers"] == 1
    both = scenario.live("both")
    assert (both["image_name"], both["running_num_containers"]) == ("acme/web:2", 3)
    assert scenario.live("env")["container_envvars"] == [{"key": "B", "value": "3"}]
    resources = scenario.live("resources")
    assert not resources["memory"]
    assert not resources["run_command"]
    assert resources["cpu_shares"] == 512
    assert [tag["name"] for tag in scenario.live("tags")["tags"]] == ["eu"]
    scenario.assert_settled()

    scenario.destroy()
    assert scenario.asked() == ["terminate"] * len(names)
    assert not scenario.living()
    assert scenario.project.resources() == {}
