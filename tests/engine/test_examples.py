"""Each example on the real engine: preview, up, a preview without changes, a destroy that leaves nothing."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

import pulumi_tutum
from tests.support.engine import Project
from tests.support.server import Server

pytestmark = pytest.mark.engine

EXAMPLES = Path(__file__).resolve().parents[2] / "examples"
NAMES = sorted(path.parent.name for path in EXAMPLES.glob("*/Pulumi.yaml"))
#: What a user has to configure, by the comment at the top of the example.
SECRETS = {"wordpress-mysql": {"dbPassword": "correct horse battery staple"}}


@pytest.fixture(scope="module")
def server() -> Iterator[Server]:
    """A control plane as `pulumi-tutum serve` starts it."""
    with Server() as running:
        yield running


@pytest.mark.parametrize("name", NAMES)
def test_example(name: str, server: Server, tmp_path: Path) -> None:
    program = (EXAMPLES / name / "__main__.py").read_text(encoding="utf-8")
    client = pulumi_tutum.Client(server.user, server.apikey, rest_host=server.url)

    def living() -> list[str]:
        return [s["name"] for s in client.list_services() if s["state"] != "Terminated"]

    with Project(tmp_path / "p", program, name=name, env=server.environment) as project:
        project.write((EXAMPLES / name / "Pulumi.yaml").read_text(encoding="utf-8"), "Pulumi.yaml")
        project.config_set(SECRETS.get(name, {}), secret=True)

        made = project.preview().ops
        assert made
        assert all(ops == ["create"] for ops in made.values())
        assert not living(), "a preview made something"

        project.up()
        assert set(project.resources()) == set(made)
        assert len(living()) == len(made)
        assert project.preview("--expect-no-changes").ops == {}
        assert project.refresh().ops == {}

        project.destroy()
        assert not living()
        assert not project.resources()
        for secret in SECRETS.get(name, {}).values():
            assert not [path for path, text in project.written() if secret in text]


def test_wordpress_scales_from_its_configuration(server: Server, tmp_path: Path) -> None:
    folder = EXAMPLES / "wordpress-mysql"
    program = (folder / "__main__.py").read_text(encoding="utf-8")
    with Project(tmp_path / "p", program, name="wordpress-mysql", env=server.environment) as project:
        project.write((folder / "Pulumi.yaml").read_text(encoding="utf-8"), "Pulumi.yaml")
        project.config_set(SECRETS["wordpress-mysql"], secret=True)
        project.up()
        before = project.resources()["web"]["id"]
        assert len(project.outputs()["urls"]) == 2
        project.config_set({"webContainers": "3"})
        assert project.up().ops == {"web": ["update"]}
        assert project.resources()["web"]["id"] == before
        assert len(project.outputs()["urls"]) == 3
        project.destroy()
