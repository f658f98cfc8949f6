"""Images that come from a registry: pull policy, credentials, and what is said when there are none."""

from __future__ import annotations

import json
import platform
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.support import images
from tests.support.docker_engine import DockerEngine
from tests.support.real import Real
from tests.support.registry import Registry, layer
from tests.support.server import Server

pytestmark = [
    pytest.mark.docker,
    pytest.mark.skipif(platform.machine() != "x86_64", reason="the registry's images are made for x86_64"),
]


@pytest.fixture(scope="module")
def files() -> bytes:
    return layer(images.read(images.busybox(), "usr/bin/busybox"))


@pytest.fixture
def registry() -> Iterator[Registry]:
    with Registry() as registry:
        yield registry


def pulls(registry: Registry) -> int:
    """How often a manifest was given out by its tag."""
    return sum(1 for path, status in registry.asked if "/manifests/1" in path and status == 200)


def forget(engine: DockerEngine, name: str) -> None:
    with engine.client() as client:
        client.images.remove(name, force=True)


def test_an_image_is_pulled_when_it_is_missing(
    engine: DockerEngine, registry: Registry, files: bytes
) -> None:
    identity = registry.push("acme/web", "1", files, {"Env": ["PATH=/bin", "FROM=registry"]})
    image = f"{registry.host}/acme/web:1"
    with (
        Server(backend="docker", node=[engine.url], stop_seconds=1) as server,
        Real(server, [engine.url]) as real,
    ):
        service = real.run(image, run_command="sleep 1000", target_num_containers=3)
        assert {c.attrs["Image"] for c in real.inside(service)} == {identity}
        assert real.env(service)["FROM"] == "registry"
        assert pulls(registry) <= 2, "those who wait for the same image wait for one pull"
        # It is there: a newer one under the same tag is not asked for.
        registry.push("acme/web", "1", files, {"Env": ["PATH=/bin", "FROM=newer"]})
        service = real.redeploy(service)
        assert real.env(service)["FROM"] == "registry"
        real.terminate_all()
    forget(engine, image)


def test_always_pull_takes_the_newest_and_never_takes_none(
    engine: DockerEngine, registry: Registry, files: bytes
) -> None:
    registry.push("acme/web", "1", files, {"Env": ["PATH=/bin", "FROM=old"]})
    image = f"{registry.host}/acme/web:1"
    options: dict[str, Any] = {"backend": "docker", "node": [engine.url], "stop_seconds": 1}
    with Server(pull="never", **options) as server, Real(server, [engine.url]) as real:
        service = real.create(image, run_command="sleep 1000")
        assert real.start(service)["state"] == "Not running"
        assert f"No such image: {image}" in real.why(service)
        assert registry.asked == []
    with Server(pull="always", **options) as server, Real(server, [engine.url]) as real:
        service = real.run(image, run_command="sleep 1000")
        registry.push("acme/web", "1", files, {"Env": ["PATH=/bin", "FROM=new"]})
        service = real.redeploy(service)
        assert real.env(service)["FROM"] == "new"
        real.terminate_all()
    forget(engine, image)


def test_credentials_are_dockers_own(engine: DockerEngine, files: bytes, tmp_path: Path) -> None:
    with Registry("alice", "s3cret-of-alice") as registry:
        registry.push("acme/web", "1", files, {"Env": ["PATH=/bin"]})
        image = f"{registry.host}/acme/web:1"
        with (
            Server(
                backend="docker",
                node=[engine.url],
                stop_seconds=1,
                environ={"DOCKER_CONFIG": str(tmp_path)},
            ) as server,
            Real(server, [engine.url]) as real,
        ):
            service = real.create(image, run_command="sleep 1000")
            assert real.start(service)["state"] == "Not running"
            assert f"No such image: {image} (it cannot be pulled: " in real.why(service)
            # `docker login` while the server runs.
            (tmp_path / "config.json").write_text(
                json.dumps({"auths": {registry.host: {"auth": registry.credentials}}})
            )
            assert real.start(service)["state"] == "Running"
            assert "s3cret" not in server.log()
            real.terminate_all()
        forget(engine, image)
