"""Previews neither crash nor exaggerate: what they call an update or a replacement, the next `up` does."""

from __future__ import annotations

from tests.support.scenario import Scenario

READ_ONLY = """
    ports = [{{"protocol": "tcp", "inner_port": 80, "outer_port": {port}}}]
    source = tutum.Service("source", image="acme/web", container_ports=ports, {more})
    web = tutum.Service("web", image="acme/web", linked_to_service=[source])

    def of(service, name):
        return Output.concat("see ", getattr(service.container_ports[0], name))

    pulumi.export("endpoint", of(source, "endpoint_uri"))
    pulumi.export("port name", of(source, "port_name"))
    pulumi.export("as key", source.container_ports.apply(lambda ports: "see " + ports[0]["endpoint_uri"]))
    pulumi.export("from", Output.concat("see ", web.linked_to_service[0].from_service))
    pulumi.export("from as key", web.linked_to_service.apply(lambda links: "see " + links[0]["from_service"]))
    pulumi.export("link", Output.concat("see ", web.linked_to_service[0].name))
    pulumi.export("protocol", source.container_ports[0].protocol)
"""


def test_read_only_keys_are_unknown_until_they_are_known(scenario: Scenario) -> None:
    scenario.program(READ_ONLY.format(port=18300, more=""))
    scenario.preview()
    scenario.up()
    outputs = scenario.project.outputs()
    assert outputs["endpoint"] == outputs["as key"]
    assert outputs["endpoint"].endswith(":18300/")
    assert outputs["port name"] == "see http"
    assert outputs["from"] == outputs["from as key"] == f"see {scenario.live('web')['resource_uri']}"
    assert outputs["link"] == "see source"
    scenario.assert_settled()
    # An update that makes new containers, one that does not, and a replacement.
    for port, more in ((18301, ""), (18301, 'tags=["front"],'), (18301, 'tags=["front"], name="another"')):
        scenario.program(READ_ONLY.format(port=port, more=more))
        scenario.preview()
        scenario.up()
        assert scenario.project.outputs()["endpoint"].endswith(f":{port}/")
    scenario.destroy()


OUTPUTS = """
    source = tutum.Service("source", image="acme/web:{n}", target_num_containers={count}, tags=[{tags}],
        container_ports=[{{"protocol": "tcp", "inner_port": 80, "outer_port": 18310}}], timeout_seconds={n}00)
    tutum.Service("id", image="acme/web", linked_to_service=[{{"to_service": source.uuid, "name": "a"}}],
        bindings=[{{"volumes_from": source.resource_uri}}],
        container_envvars={{"ID": source.uuid, "URI": source.resource_uri, "DNS": source.public_dns,
            "STACK": source.stack.apply(str), "MEMORY": source.memory.apply(str),
            "PORT": source.container_ports[0].port_name}})
    tutum.Service("image", image="acme/web", container_envvars={{"IMAGE": source.image_name,
        "TAG": source.image_tag.apply(str)}})
    tutum.Service("containers", image="acme/web", container_envvars={{
        "URI": source.containers.apply(lambda uris: uris[0]),
        "COUNT": source.running_num_containers.apply(str),
        "ENDPOINT": source.container_ports[0].endpoint_uri, "URIS": source.endpoint_uris[0],
        "DATE": source.deployed_datetime, "ALIAS": source.link_variables.apply(lambda v: str(sorted(v)))}})
    for name in ("link_variables", "container_envvars", "public_dns"):
        Output.from_input(getattr(source, name).is_secret()).apply(
            lambda is_secret, name=name: pulumi.log.info(f"{{name}} is secret: {{is_secret}}"))
"""


def test_outputs_that_an_update_cannot_change_stay_known(scenario: Scenario) -> None:
    first = {"n": 1, "count": 1, "tags": ""}
    scenario.program(OUTPUTS.format(**first))
    scenario.up()
    scenario.assert_settled()
    for change, touched in (
        ({"tags": '"front"'}, set()),
        ({"count": 2, "tags": ""}, {"containers"}),
        ({"n": 2}, {"image", "containers"}),
    ):
        first |= change
        scenario.program(OUTPUTS.format(**first))
        preview = scenario.preview()
        assert preview.ops == {name: ["update"] for name in {"source", *touched}}
        assert "destroyed" not in preview.output
        assert "link_variables is secret: True" in preview.output
        assert "container_envvars is secret: True" in preview.output
        assert "public_dns is secret: False" in preview.output
        assert scenario.up().ops == preview.ops
        scenario.assert_settled()
    assert "resourceHooks" not in str(scenario.project.export())
    scenario.destroy()


CHAIN = """
    data = tutum.Service("data", image="acme/db:{n}", bindings=[{{"container_path": "/data"}}])
    for i, source in enumerate((data.uuid, data.resource_uri, data.id)):
        tutum.Service(f"user-{{i}}", image="acme/web",
            bindings=[{{"volumes_from": source}}, {{"container_path": "/x"}}],
            linked_to_service=[{{"to_service": source}}], container_envvars={{"DATA": source}},
            opts=ResourceOptions(additional_secret_outputs=["uuid"]))
    pulumi.export("name", Output.concat("see ", data.name))
"""


def test_users_of_an_id_are_not_touched_by_an_update(scenario: Scenario) -> None:
    scenario.program(CHAIN.format(n=1))
    scenario.up()
    scenario.assert_settled()
    links = scenario.live("user-0")["linked_to_service"]
    assert [link["name"] for link in links] == [scenario.live("data")["name"]]
    scenario.program(CHAIN.format(n=2))
    preview = scenario.preview()
    assert preview.ops == {"data": ["update"]}
    assert "destroyed" not in preview.output
    # Preview and update in one run.
    both = scenario.project.run("up", "--yes")
    assert {step.name for step in both.steps if step.op != "same"} == {"data"}
    scenario.assert_settled()
    scenario.destroy()


WARNED = """
    tutum.Service("listed", image="acme/web", container_envvars=[{{"key": "MODE", "value": "{n}"}}],
        opts=ResourceOptions(ignore_changes=["container_envvars[0].value", "containerPorts"]))
    tutum.Service("right", image="acme/web", container_envvars=[{{"key": "MODE", "value": "{n}"}}],
        opts=ResourceOptions(ignore_changes=["container_envvars.MODE"]))
"""


def test_ignore_changes_without_an_effect_is_said(scenario: Scenario) -> None:
    for n, ops in ((1, {"listed": ["create"], "right": ["create"]}), (2, {"listed": ["update"]})):
        scenario.program(WARNED.format(n=n))
        preview = scenario.preview()
        assert preview.ops == ops
        (warning,) = preview.diagnostics("warning", "listed")
        assert "'container_envvars[0].value'" in warning
        assert "`container_envvars.MODE`" in warning
        assert "`container_ports`" in warning
        assert preview.diagnostics("warning", "right") == []
        scenario.up()
    scenario.destroy()


def test_a_literal_uuid_of_no_service_is_refused_in_the_preview(scenario: Scenario) -> None:
    nobody = "2f4f54e5-9d3b-4ac1-85ad-a2d4ff25a179"
    scenario.program(f'tutum.Service("web", image="acme/web", linked_to_service=["{nobody}"])')
    (error,) = scenario.preview(fails=True).diagnostics("error", "web")
    assert f"linked_to_service[0].to_service: there is no service {nobody}" in error
    scenario.project.env["TUTUM_REST_HOST"] = "http://127.0.0.1:9"
    preview = scenario.preview()
    assert preview.ops == {"web": ["create"]}
    assert "no control plane answers" in preview.output
