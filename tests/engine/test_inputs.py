"""Bad input is refused in the preview, with its path, and nothing is sent. Unknown values are none."""

from __future__ import annotations

from tests.support.scenario import Scenario

WRONG_VALUES = """
    import datetime
    canary = "canary-in-a-bad-value"
    tutum.Service("wrong", image="Acme Web",
        name="no spaces please",
        target_num_containers=1.5,
        run_command="'unfinished",
        entrypoint=["a", "list"],
        container_ports=[{"protocol": "icmp", "inner_port": 0}, {"inner_port": 80}, "80/tcp",
                         {"protocol": "tcp", "inner_port": 80, "outer": 8080}],
        container_envvars={"A=B": "x", "PASS": [canary], "DAY": datetime.date(2015, 7, 1), "ON": True,
                           "SECRET": pulumi.Output.secret({"key": canary})},
        linked_to_service=[{"to_service": "mysql", "name": "db"}, {"name": "x"}, 17],
        bindings=[{"host_path": "srv"}, {"container_path": "/a", "volumes_from": "other"}, {}],
        autorestart="always",
        autodestroy=True,
        sequential_deployment="yes",
        roles=["admin"],
        privileged=1,
        deployment_strategy="SPREAD",
        tags=["two words", 3],
        autoredeploy="no",
        network="overlay",
        pid="container",
        cpu_shares=-1,
        memory=3,
        healthcheck={"http": "/", "command": "true", "every": 5},
        running="no",
        wait=0,
        timeout_seconds=0,
        rollback_on_failure="yes",
        adopt="")
"""
PATHS = [
    "image",
    "name",
    "target_num_containers",
    "run_command",
    "entrypoint",
    "container_ports[0].protocol",
    "container_ports[0].inner_port",
    "container_ports[1].protocol",
    "container_ports[2]",
    "container_ports[3].outer",
    "container_envvars.A=B",
    "container_envvars.PASS",
    "container_envvars.DAY",
    "container_envvars.ON",
    "container_envvars.SECRET",
    "linked_to_service[0].to_service",
    "linked_to_service[1].to_service",
    "linked_to_service[2]",
    "bindings[0].host_path",
    "bindings[1].volumes_from",
    "bindings[2]",
    "autorestart",
    "autodestroy",
    "sequential_deployment",
    "roles[0]",
    "privileged",
    "deployment_strategy",
    "tags[0].name",
    "tags[1]",
    "autoredeploy",
    "network",
    "pid",
    "cpu_shares",
    "memory",
    "healthcheck",
    "healthcheck.every",
    "running",
    "wait",
    "timeout_seconds",
    "rollback_on_failure",
    "adopt",
]
ACROSS = """
    tutum.Service("across", image=None,
        autorestart="ALWAYS", autodestroy="ON_SUCCESS",
        deployment_strategy="EVERY_NODE", target_num_containers=2,
        container_ports=[{"protocol": "tcp", "inner_port": 80}, {"protocol": "tcp", "inner_port": 80},
                         {"protocol": "tcp", "inner_port": 81, "outer_port": 8080},
                         {"protocol": "tcp", "inner_port": 82, "outer_port": 8080}],
        container_envvars=[{"key": "A", "value": "1"}, {"key": "A", "value": "2"}],
        bindings=[{"container_path": "/a"}, {"container_path": "/a"}],
        healthcheck={"http": "/", "command": "true"})
"""
ACROSS_PATHS = [
    "image",
    "autodestroy",
    "target_num_containers",
    "container_ports[1]",
    "container_ports[3].outer_port",
    "container_envvars[1].key",
    "bindings[1].container_path",
    "healthcheck",
]


def refused(scenario: Scenario, name: str, operation: str = "preview") -> dict[str, str]:
    """What the program is refused for: path -> reason."""
    result = getattr(scenario, operation)(fails=True)
    assert not scenario.seen(), "something was sent"
    assert "canary" not in result.output
    prefix = f"resource '{name}' has a problem: "
    found = [text.partition(prefix)[2] for text in result.errors if prefix in text]
    return {path: reason for path, _, reason in (text.partition(": ") for text in found)}


def test_every_wrong_value_is_named(scenario: Scenario) -> None:
    scenario.program(WRONG_VALUES)
    wrong = refused(scenario, "wrong")
    assert sorted(wrong) == sorted(PATHS)
    assert "get_service(name=" in wrong["linked_to_service[0].to_service"]
    assert "one of OFF, ON_FAILURE, ALWAYS" in wrong["autorestart"]
    assert "from 0 to 1000" in wrong["target_num_containers"]
    assert "container_path" in wrong["bindings[2]"]
    scenario.program(ACROSS)
    assert sorted(refused(scenario, "across")) == sorted(ACROSS_PATHS)
    # `up` without a preview does not let it pass either.
    assert sorted(refused(scenario, "across", "up")) == sorted(ACROSS_PATHS)
    assert scenario.project.resources() == {}
    assert not scenario.living()
