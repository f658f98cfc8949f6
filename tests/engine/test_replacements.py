"""What replaces a service, in which order, and that nothing else does."""

from __future__ import annotations

from tests.support.scenario import Scenario

BEFORE = """
    bound = tutum.Service("bound", image="acme/db", bindings=[{"container_path": "/data"}])
    tutum.Service("linked", image="acme/web", linked_to_service=[{"to_service": bound, "name": "db"}])
    tutum.Service("renamed", image="acme/web", name="rep-one")
    tutum.Service("kept", image="acme/web", name="rep-kept")
    tutum.Service("unnamed", image="acme/web", name="rep-named")
    tutum.Service("to-every", image="acme/web")
    tutum.Service("from-every", image="acme/web", deployment_strategy="EVERY_NODE")
    tutum.Service("port", image="acme/web", name="rep-port",
        container_ports=[{"protocol": "tcp", "inner_port": 80, "outer_port": 18091}])
    tutum.Service("new-port", image="acme/web", name="rep-new-port")
    tutum.Service("path", image="acme/db", bindings=[{"container_path": "/d", "host_path": "/srv/a"}])
    tutum.Service("network", image="acme/web", name="rep-network", network="host")
    tutum.Service("first", image="acme/db", bindings=[{"container_path": "/old"}],
        opts=ResourceOptions(delete_before_replace=True))
    tutum.Service("on-image", image="acme/web:1", opts=ResourceOptions(replace_on_changes=["image"]))
    tutum.Service("strategy", image="acme/web")
    tutum.Service("reordered", image="acme/db", bindings=[{"container_path": "/a"}, {"container_path": "/b"}])
"""
AFTER = """
    bound = tutum.Service("bound", image="acme/db", bindings=[{"container_path": "/other"}])
    tutum.Service("linked", image="acme/web", linked_to_service=[{"to_service": bound, "name": "db"}])
    tutum.Service("renamed", image="acme/web", name="rep-two")
    tutum.Service("kept", image="acme/web", name="rep-kept", bindings=[{"container_path": "/data"}])
    tutum.Service("unnamed", image="acme/web")
    tutum.Service("to-every", image="acme/web", deployment_strategy="EVERY_NODE")
    tutum.Service("from-every", image="acme/web", target_num_containers=2)
    tutum.Service("port", image="acme/web", name="rep-port-2")
    tutum.Service("new-port", image="acme/web", name="rep-new-port-2",
        container_ports=[{"protocol": "tcp", "inner_port": 80, "outer_port": 18092}])
    tutum.Service("path", image="acme/db", bindings=[{"container_path": "/d", "host_path": "/srv/b"}])
    tutum.Service("network", image="acme/web", name="rep-network-2")
    tutum.Service("first", image="acme/db", bindings=[{"container_path": "/data"}],
        opts=ResourceOptions(delete_before_replace=True))
    tutum.Service("on-image", image="acme/web:2", opts=ResourceOptions(replace_on_changes=["image"]))
    tutum.Service("strategy", image="acme/web", deployment_strategy="HIGH_AVAILABILITY")
    tutum.Service("reordered", image="acme/db",
        bindings=[{"container_path": "/b", "rewritable": True}, {"container_path": "/a"}])
"""
#: Replaced because of these properties, the new one first.
SIDE_BY_SIDE = {
    "bound": ("bindings",),
    "renamed": ("name",),
    "unnamed": ("name",),
    "to-every": ("deployment_strategy",),
    "from-every": ("deployment_strategy",),
    "on-image": ("image",),
}
#: ... the old one first.
ONE_AFTER_THE_OTHER = {
    "kept": ("bindings",),
    "port": ("name",),
    "new-port": ("name",),
    "path": ("bindings",),
    "network": ("name",),
    "first": ("bindings",),
}


def test_each_rule(scenario: Scenario) -> None:
    scenario.program(BEFORE)
    scenario.up()
    scenario.assert_settled()
    old = {name: resource["id"] for name, resource in scenario.project.resources().items()}
    names = {name: scenario.live(name)["name"] for name in old}
    replaced = SIDE_BY_SIDE | ONE_AFTER_THE_OTHER

    scenario.program(AFTER)
    preview = scenario.preview("--diff")
    for name, keys in replaced.items():
        assert "replace" in preview.ops[name]
        (why,) = {step.keys for step in preview.steps if step.name == name and step.op == "replace"}
        assert why == keys
    assert set(preview.ops) == {*replaced, "linked", "strategy"}
    for name in ("bound", "first"):
        (warning,) = preview.diagnostics("warning", name)
        assert "volumes" in warning
        assert "destroyed" in warning
    for name in ("kept", "path", "renamed"):  # they have no volumes of their own
        assert not preview.diagnostics("warning", name)

    ops = scenario.up().ops
    for name in replaced:
        new = scenario.live(name)
        assert new["uuid"] != old[name]
        assert new["state"] == "Running"
        assert scenario.client.get_service(old[name])["state"] == "Terminated"
        sent = [(seen.method, seen.path) for seen in scenario.seen()]
        ended = sent.index(("DELETE", f"/api/v1/service/{old[name]}/"))
        started = sent.index(("POST", f"/api/v1/service/{new['uuid']}/start/"))
        if name in SIDE_BY_SIDE:
            assert ops[name] == ["create-replacement", "replace", "delete-replaced"]
            assert started < ended
            assert new["name"] != names[name], "both lived at the same time"
        else:
            assert ops[name] == ["delete-replaced", "replace", "create-replacement"]
            assert ended < started
    assert scenario.live("kept")["name"] == "rep-kept"
    assert scenario.live("first")["name"] == names["first"]
    assert scenario.live("unnamed")["name"].startswith("unnamed-")
    assert len(scenario.live("to-every")["containers"]) == 3
    assert len(scenario.live("from-every")["containers"]) == 2
    # A link follows its target, in place.
    assert ops["linked"] == ["update"]
    assert (
        scenario.live("linked")["linked_to_service"][0]["to_service"]
        == scenario.live("bound")["resource_uri"]
    )
    assert ops["strategy"] == ["update"]
    assert scenario.id("strategy") == old["strategy"]
    assert scenario.id("reordered") == old["reordered"]
    assert "reordered" not in ops
    scenario.assert_settled()

    scenario.destroy()
    assert not scenario.living()


def test_an_option_that_cannot_work_is_explained_and_loses_nothing(scenario: Scenario) -> None:
    """`delete_before_replace=False` wins over what the provider knows."""
    program = """
        tutum.Service("web", image="acme/web", name="rep-fixed", bindings=BINDINGS,
            opts=ResourceOptions(delete_before_replace=False))
    """
    scenario.program(program.replace("BINDINGS", "[]"))
    scenario.up()
    before = scenario.live("web")
    scenario.program(program.replace("BINDINGS", "[{'container_path': '/x'}]"))
    (error,) = scenario.up(fails=True).diagnostics("error", "web")
    assert "rep-fixed" in error
    assert "delete_before_replace=True" in error
    assert scenario.live("web") == before
    assert scenario.living() == ["rep-fixed"]
    scenario.destroy()
    assert not scenario.living()


def test_a_replacement_that_only_the_command_line_asks_for(scenario: Scenario) -> None:
    """The engine does not tell the provider that it is one."""
    program = """
        tutum.Service("web", image="acme/web", opts=ResourceOptions(delete_before_replace=FIRST))
    """
    scenario.program(program.replace("FIRST", "None"))
    scenario.up()
    before = scenario.live("web")
    urn = scenario.state("web")["urn"]
    (error,) = scenario.up("--replace", urn, fails=True).diagnostics("error", "web")
    assert "delete_before_replace=True" in error
    assert scenario.live("web") == before
    scenario.program(program.replace("FIRST", "True"))
    assert scenario.up("--replace", urn).ops["web"] == ["delete-replaced", "replace", "create-replacement"]
    new = scenario.live("web")
    assert (new["state"], new["name"]) == ("Running", before["name"])
    assert new["uuid"] != before["uuid"]
    assert scenario.client.get_service(before["uuid"])["state"] == "Terminated"
    scenario.project.run("state", "taint", urn)
    scenario.up()
    assert scenario.live("web")["uuid"] != new["uuid"]
    scenario.assert_settled()
    scenario.destroy()
    assert not scenario.living()
