"""What a type checker sees of a program; test_types.py runs one over it. Lines with an error end in `#
error: code`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import pulumi

import pulumi_tutum as tutum

config = pulumi.Config()
db = tutum.Service(
    "db",
    image="tutum/mysql:5.6",
    container_envvars={"MYSQL_PASS": config.require_secret("dbPass"), "MODE": "prod", "SIZE": 3},
    bindings=[{"container_path": "/var/lib/mysql"}, {"host_path": "/data", "container_path": "/data"}],
)
ports: list[tutum.ContainerPortArgs] = [{"protocol": "tcp", "inner_port": 80, "outer_port": 8080}]
web = tutum.Service(
    "web",
    pulumi.ResourceOptions(protect=True),
    image=pulumi.Output.from_input("tutum/wordpress"),
    name="web",
    target_num_containers=config.require_int("containers"),
    container_ports=ports,
    container_envvars=[{"key": "A", "value": "b"}, tutum.EnvVarArgs(key="C", value=db.public_dns)],
    linked_to_service=[
        {"to_service": db, "name": "DB"},
        tutum.LinkArgs(to_service=db.id),
        {"to_service": tutum.get_service(name="legacy")},
        db,
    ],
    bindings=[{"volumes_from": db, "rewritable": False}],
    tags=["front", {"name": "eu"}],
    roles=["global"],
    healthcheck={"http": "/health", "port": 80},
    running=True,
    wait=False,
    timeout_seconds=60,
    rollback_on_failure=True,
)
copy = tutum.Service("copy", image=web.image, container_ports=web.container_ports, tags=web.tags)
other = tutum.Provider("other", user="eve", apikey=config.require_secret("otherKey"), rest_host="https://x")
there = tutum.Service("there", image="x", opts=pulumi.ResourceOptions(provider=other))
found = tutum.Service.get("found", "2f4f54e5-9d3b-4ac1-85ad-a2d4ff25a179")

uris: pulumi.Output[Sequence[str]] = web.endpoint_uris
number: pulumi.Output[int | None] = web.target_num_containers
variables: pulumi.Output[Mapping[str, str]] = db.link_variables
inner: pulumi.Output[int] = web.container_ports.apply(lambda all_ports: all_ports[0].inner_port)
pulumi.export("uris", web.endpoint_uris)
pulumi.export("first", web.container_ports[0].endpoint_uri)

details: tutum.ServiceDetails = tutum.get_service(uuid="x")
running: int = details.running_num_containers

tutum.Service("a")  # error: call-arg
tutum.Service("b", image=5)  # error: arg-type
tutum.Service("c", image="x", container_ports=[{"protocol": "tcp", "inner": 80}])  # error: list-item
tutum.Service("d", image="x", containerPorts=[])  # error: call-arg
tutum.Service("e", image="x", running="yes")  # error: arg-type
wrong: pulumi.Output[str] = web.memory  # error: assignment
