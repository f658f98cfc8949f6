"""Services on each Python and SDK: a stack from the first `up` to the `destroy`, on the real engine."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.sdk.test_host_process import ROOT
from tests.support.engine import Project
from tests.support.server import Server

pytestmark = [pytest.mark.engine, pytest.mark.timeout(300)]

PROGRAM = """
import pulumi
import pulumi_tutum as tutum

password = pulumi.Output.secret("hush-hush")
db = tutum.Service("db", image="tutum/mysql:5.6", container_envvars={"MYSQL_PASS": password})
web = tutum.Service(
    "web",
    image="tutum/hello-world",
    target_num_containers=2,
    container_ports=[{"protocol": "tcp", "inner_port": 80, "published": True}],
    linked_to_service=[{"to_service": db, "name": "DB"}],
)
found = tutum.Service.get("found", db.uuid)
pulumi.export("urls", web.endpoint_uris)
pulumi.export("see", pulumi.Output.concat("see ", web.container_ports[0].port_name, " of ", db.uuid))
pulumi.export("left out", [web.memory, web.network, web.bindings, found.state])
"""


@pytest.fixture(scope="module")
def server() -> Iterator[Server]:
    with Server() as server:
        yield server


@pytest.fixture
def project(new_project: Callable[..., Project], python: Path, server: Server) -> Project:
    env = {**server.environment, "PYTHONPATH": str(ROOT)}
    return new_project(PROGRAM, name=f"sdk-{python.parent.parent.name}", python=python, env=env)


def test_a_stack_from_the_first_up_to_the_destroy(project: Project) -> None:
    result = project.up()
    assert result.ops == {"db": ["create"], "web": ["create"], "found": ["read"]}
    assert "Traceback" not in result.output
    outputs = project.outputs()
    assert len(outputs["urls"]) == 2
    assert outputs["see"] == f"see http of {project.resources()['db']['id']}"
    assert outputs["left out"] == [None, "bridge", [], "Running"]
    assert project.preview("--expect-no-changes").ops in ({}, {"found": ["read"]})

    project.write(PROGRAM.replace("containers=2", "containers=3"))
    assert project.up().ops["web"] == ["update"]
    assert len(project.outputs()["urls"]) == 3
    refreshed = project.refresh()
    assert "Traceback" not in refreshed.output
    for path, text in project.written():
        assert "hush-hush" not in text, path
    project.destroy()
    assert project.resources() == {}
