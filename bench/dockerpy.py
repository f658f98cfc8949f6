"""Another peer: a dynamic provider that only runs docker-py. DOCKER_HOST says on which engine.

It does what pulumi-docker does with a container, and no more: it waits for nothing, keeps nothing in order
and tells nothing.
"""

from __future__ import annotations

import functools
from typing import Any

import docker
from pulumi.dynamic import CreateResult, ReadResult, Resource, ResourceProvider


@functools.cache
def _engine() -> docker.APIClient:
    """One client for all of a process's containers; its settings are those of the environment."""
    return docker.from_env(timeout=60).api


class ContainerProvider(ResourceProvider):
    """Without `diff` the engine compares the inputs by itself."""

    serialize_as_secret_always = False

    def create(self, props: dict[str, Any]) -> CreateResult:
        api: Any = _engine()
        made = api.create_container(
            props["image"],
            environment=props["env"],
            ports=props["ports"],
            host_config=api.create_host_config(
                port_bindings={port: ("127.0.0.1",) for port in props["ports"]},
                restart_policy={"Name": props["restart"]},
            ),
        )
        api.start(made["Id"])
        return CreateResult(made["Id"], {**props, **_seen(made["Id"])})

    def read(self, id_: str, props: dict[str, Any]) -> ReadResult:
        return ReadResult(id_, {**props, **_seen(id_)})

    def delete(self, id_: str, _props: dict[str, Any]) -> None:
        api: Any = _engine()
        api.stop(id_, timeout=0)
        api.remove_container(id_, v=True, force=True)


def _seen(identity: str) -> dict[str, Any]:
    """What pulumi-docker keeps of a container, too."""
    api: Any = _engine()
    found = api.inspect_container(identity)
    return {
        "name": found["Name"].removeprefix("/"),
        "networks": found["NetworkSettings"]["Networks"],
        "bound": found["NetworkSettings"]["Ports"],
    }


class Container(Resource, module="bench", name="Container"):
    """A container of an image."""

    def __init__(self, name: str, **declared: Any) -> None:
        outputs = dict.fromkeys(("name", "networks", "bound"))
        super().__init__(ContainerProvider(), name, {**outputs, **declared})
