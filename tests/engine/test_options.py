"""Pulumi's own resource options and arguments, on services."""

from __future__ import annotations

from pulumi_tutum import waiting
from tests.support.scenario import Scenario

IGNORED = """
    tutum.Service("image", image="acme/web:{n}", opts=ResourceOptions(ignore_changes=["image"]))
    tutum.Service("keys", image="acme/web", container_envvars={{"A": "a{n}", "B": "b{n}"}},
        opts=ResourceOptions(ignore_changes=["container_envvars.A"]))
    tutum.Service("listed-keys", image="acme/web",
        container_envvars=[{{"key": "A", "value": "a{n}"}}, {{"key": "B", "value": "b{n}"}}],
        opts=ResourceOptions(ignore_changes=["container_envvars.A"]))
    tutum.Service("indexes", image="acme/web", tags=[{tags}],
        container_ports=[{{"protocol": "tcp", "inner_port": 80{n}}},
                         {{"protocol": "udp", "inner_port": 90{n}}}],
        opts=ResourceOptions(ignore_changes=["tags[0]", "container_ports[1].inner_port"]))
    tutum.Service("all-ports", image="acme/web", run_command="run {n}",
        container_ports=[{{"protocol": "tcp", "inner_port": 80{n}}}],
        opts=ResourceOptions(ignore_changes=["container_ports[*].inner_port"]))
    tutum.Service("elsewhere", image="acme/web:{n}", target_num_containers=1,
        opts=ResourceOptions(ignore_changes=["target_num_containers", "tags"]))
"""


def test_ignore_changes(scenario: Scenario) -> None:
    scenario.program(IGNORED.format(n=1, tags='"front", "eu"'))
    scenario.up()
    scenario.assert_settled()
    # Who ignores a change leaves it to somebody else, whether Pulumi has seen it or not.
    elsewhere = scenario.id("elsewhere")
    scenario.client.update_service(elsewhere, {"target_num_containers": 3, "tags": [{"name": "front"}]})
    scenario.client.scale_service(elsewhere)
    waiting.until(scenario.client, elsewhere, "Running")

    scenario.program(IGNORED.format(n=2, tags='"back", "eu"'))
    wanted = {name: ["update"] for name in ("keys", "listed-keys", "indexes", "all-ports", "elsewhere")}
    preview = scenario.preview()
    assert preview.ops == wanted
    assert "cannot ignore" not in preview.output
    assert scenario.up().ops == wanted
    assert scenario.live("image")["image_name"] == "acme/web:1"
    for name in ("keys", "listed-keys"):
        values = {entry["key"]: entry["value"] for entry in scenario.live(name)["container_envvars"]}
        assert values == {"A": "a1", "B": "b2"}
    indexes = scenario.live("indexes")
    assert [port["inner_port"] for port in indexes["container_ports"]] == [802, 901]
    assert {tag["name"] for tag in indexes["tags"]} == {"front", "eu"}
    assert scenario.asked("elsewhere") == ["update", "redeploy"]
    live = scenario.live("elsewhere")
    assert (live["image_name"], live["running_num_containers"]) == ("acme/web:2", 3)
    assert live["tags"][0]["name"] == "front"
    rest = scenario.live("all-ports")
    assert (rest["run_command"], rest["container_ports"][0]["inner_port"]) == ("run 2", 801)
    assert scenario.preview("--expect-no-changes").ops == {}
    scenario.client.update_service(elsewhere, {"target_num_containers": 2})
    scenario.client.scale_service(elsewhere)
    waiting.until(scenario.client, elsewhere, "Running")
    scenario.refresh()
    assert scenario.preview("--expect-no-changes").ops == {}
    scenario.up()
    assert scenario.asked() == []
    scenario.destroy()


OPTIONS = """
    class Site(pulumi.ComponentResource):
        def __init__(self, name, opts=None):
            super().__init__("shop:index:Site", name, None, opts)
            self.db = tutum.Service(f"{name}-db", image="acme/db", opts=ResourceOptions(parent=self))
            self.web = tutum.Service(f"{name}-web", image="acme/web", linked_to_service=[self.db],
                opts=ResourceOptions(parent=self))
            self.register_outputs({})
"""
FIRST = """
    site = Site("site")
    other = Site("other")
    after = tutum.Service("after", image="acme/web", opts=ResourceOptions(depends_on=[site]))
    tutum.Service("old-name", image="acme/web")
    tutum.Service("moved", image="acme/web")
    tutum.Service("protected", image="acme/web", opts=ResourceOptions(protect=True))
    tutum.Service("retained", image="acme/web", opts=ResourceOptions(retain_on_delete=True))
    secret = tutum.Service("secret", image="acme/web",
        opts=ResourceOptions(additional_secret_outputs=["public_dns"]))
    pulumi.export("environment", site.web.link_variables)
"""
SECOND = """
    site = Site("site")
    other = Site("other")
    after = tutum.Service("after", image="acme/web", opts=ResourceOptions(depends_on=[site]))
    tutum.Service("new-name", image="acme/web", opts=ResourceOptions(aliases=[pulumi.Alias(name="old-name")]))
    tutum.Service("moved", image="acme/web",
        opts=ResourceOptions(parent=site, aliases=[pulumi.Alias(parent=pulumi.ROOT_STACK_RESOURCE)]))
    tutum.Service("secret", image="acme/web",
        opts=ResourceOptions(additional_secret_outputs=["public_dns"]))
"""


def test_the_other_options(scenario: Scenario) -> None:
    scenario.program(OPTIONS, FIRST)
    scenario.up()
    names = set(scenario.project.resources()) - {"site", "other"}
    ids = {name: scenario.id(name) for name in names}
    assert len(set(ids.values())) == 10
    sent = [(seen.method, seen.path) for seen in scenario.seen()]
    started = sent.index(("POST", f"/api/v1/service/{ids['site-web']}/start/"))
    made = [i for i, (method, path) in enumerate(sent) if (method, path) == ("POST", "/api/v1/service/")]
    assert sum(i > started for i in made), "what depends on the component comes after its services"
    assert scenario.live("site-web")["linked_to_service"][0]["name"] == "site-db"
    for name in ("container_envvars", "link_variables", "public_dns"):
        assert "ciphertext" in scenario.state("secret")["outputs"][name]
    scenario.assert_settled()

    # One of two equal components changes only what is its own.
    scenario.program(OPTIONS, FIRST.replace('"after", image="acme/web"', '"after", image="acme/web:2"'))
    result = scenario.up("--target", "**after")
    assert result.ops == {"after": ["update"]}
    (error, *_) = scenario.destroy("--target", "**protected", fails=True).errors
    assert "protected" in error
    assert not scenario.asked()

    # Other names and places in the program, the same services.
    scenario.program(OPTIONS, SECOND)
    scenario.project.run("state", "unprotect", "--all", "--yes")
    before = {name: scenario.live(name) for name in ("old-name", "moved", "site-web")}
    ops = scenario.up().ops
    assert {name: op for name, op in ops.items() if op != ["update"]} == {
        "protected": ["delete"],
        "retained": ["delete"],
    }
    assert set(ops) == {"protected", "retained", "after"}
    assert (scenario.id("new-name"), scenario.id("moved")) == (ids["old-name"], ids["moved"])
    assert scenario.live("new-name") == before["old-name"]
    assert scenario.live("moved") == before["moved"]
    assert scenario.client.get_service(ids["protected"])["state"] == "Terminated"
    assert scenario.client.get_service(ids["retained"])["state"] == "Running"
    scenario.assert_settled()
    scenario.destroy()
    assert [scenario.client.get_service(uuid)["name"] for uuid in ids.values() if alive(scenario, uuid)] == [
        name for name in scenario.living() if name.startswith("retained-")
    ]
    # What is retained keeps its key: the same program does not take it over by accident.
    scenario.program('tutum.Service("retained", image="acme/web")')
    (error,) = scenario.up(fails=True).diagnostics("error", "retained")
    assert "adopt" in error
    assert ids["retained"] in error
    scenario.program(f'tutum.Service("retained", image="acme/web", adopt="{ids["retained"]}")')
    scenario.up()
    scenario.destroy()
    assert not scenario.living()


def alive(scenario: Scenario, uuid: str) -> bool:
    return bool(scenario.client.get_service(uuid)["state"] != "Terminated")
