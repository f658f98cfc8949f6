"""Outputs of one service as inputs of another: unknown in previews, at any depth."""

from __future__ import annotations

from tests.support.scenario import Scenario

PROGRAM = """
    ports = [{{"protocol": "tcp", "inner_port": 80, "outer_port": 18120}}]
    source = tutum.Service("source", image="acme/web:{n}", container_ports=ports, tags=["front"],
        target_num_containers=1, container_envvars={{"PASS": Output.secret("of-the-source")}})
    state = source.state  # unknown as long as the source is to be made or changed
    known = lambda value: state.apply(lambda _: value)

    tutum.Service("values", image=source.image_name, run_command=known("run"),
        target_num_containers=source.running_num_containers,
        container_envvars={{"DNS": source.public_dns, "URL": Output.concat("x-", source.endpoint_uris[0]),
                           "PASS": source.container_envvars["PASS"]}},
        container_ports=[{{"protocol": "tcp", "inner_port": source.container_ports[0].inner_port,
                          "published": known(True)}}],
        bindings=[{{"container_path": "/data"}}], tags=[source.tags[0].name],
        deployment_strategy=source.deployment_strategy, memory=known(64), network=known("bridge"),
        healthcheck={{"command": known("true")}}, timeout_seconds=known(60), wait=known(True))
    tutum.Service("lists", image="acme/web",
        container_ports=known([{{"protocol": "tcp", "inner_port": 1}}]),
        container_envvars=known([{{"key": "A", "value": "1"}}]), tags=known(["eu", "front"]),
        linked_to_service=known([]), roles=known(["global"]))
    tutum.Service("items", image="acme/web", tags=["eu", known("front")],
        container_envvars=[{{"key": known("A"), "value": known("1")}}, known({{"key": "B", "value": "2"}})],
        container_ports=[known({{"protocol": "udp", "inner_port": 53}})],
        linked_to_service=[{{"to_service": source.resource_uri, "name": "one"}},
                           known({{"to_service": source}}),
                           Output.all(source.uuid).apply(lambda a: {{"to_service": a[0], "name": "three"}})],
        running=known(True), healthcheck=known({{"command": "true"}}))
    tutum.Service("mounts", image="acme/db", bindings=[{{"volumes_from": source}}], name=known("unk-mounts"))

    # What the source has none of.
    tutum.Service("nulls", image="acme/web", memory=source.memory, cpu_shares=source.cpu_shares,
        run_command=source.run_command, healthcheck=source.healthcheck,
        timeout_seconds=source.timeout_seconds,
        container_envvars={{"STACK": Output.concat("in ", source.stack.apply(str))}})
    pulumi.export("null", source.memory)

    # Read-only keys of nested outputs are there in previews, too.
    pulumi.export("endpoint", source.container_ports[0].endpoint_uri)
    pulumi.export("endpoint as key", source.container_ports[0]["endpoint_uri"])
    pulumi.export("port name", source.container_ports[0].port_name)
    pulumi.export("outer", source.container_ports.apply(lambda ports: [p["outer_port"] for p in ports]))
"""


def test_unknown_values(scenario: Scenario) -> None:
    scenario.program(PROGRAM.format(n=1))
    names = {"source", "values", "lists", "items", "mounts", "nulls"}
    assert scenario.preview().ops == {name: ["create"] for name in names}
    scenario.up()
    values = scenario.live("values")
    environment = {entry["key"]: entry["value"] for entry in values["container_envvars"]}
    assert environment["PASS"] == "of-the-source"
    assert environment["DNS"] == scenario.live("source")["public_dns"]
    assert environment["URL"].endswith(":18120/")
    assert (values["image_name"], values["memory"]) == ("acme/web:1", 64)
    links = {link["name"]: link["to_service"] for link in scenario.live("items")["linked_to_service"]}
    assert len(links) == 3
    assert set(links.values()) == {scenario.live("source")["resource_uri"]}
    assert scenario.live("mounts")["bindings"][0]["volumes_from"] == scenario.live("source")["resource_uri"]
    outputs = scenario.project.outputs()
    assert outputs["endpoint"] == outputs["endpoint as key"] == environment["URL"].removeprefix("x-")
    assert outputs["port name"] == "http"
    assert outputs["outer"] == [18120]
    nulls = scenario.live("nulls")
    assert nulls["memory"] is nulls["cpu_shares"] is nulls["healthcheck"] is None
    scenario.assert_settled()
    assert "[unknown]" not in scenario.preview().output

    # The preview cannot know what stays the same; the update can, and touches nothing but what changes.
    scenario.program(PROGRAM.format(n=2))
    ids = {name: scenario.id(name) for name in names}
    shown = scenario.preview().ops
    assert set(shown) <= names
    assert shown["source"] == shown["values"] == ["update"]
    assert scenario.up().ops == {"source": ["update"], "values": ["update"]}
    assert scenario.asked("values") == ["update", "redeploy"]
    assert {name: scenario.id(name) for name in names} == ids
    assert scenario.live("values")["image_name"] == "acme/web:2"
    scenario.assert_settled()
    assert not [path for path, text in scenario.project.written() if leaked(path.parent.name, text)]
    scenario.destroy()
    assert not scenario.living()


def leaked(run: str, text: str) -> bool:
    """Whether the secret stands where nobody has asked for it; the program itself has it in clear."""
    return "of-the-source" in text and not run.endswith("-stack")
