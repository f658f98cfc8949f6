"""What the benchmarks on real engines have in common: the `docker` command, and services."""

from __future__ import annotations

import itertools
import os
import shutil
import subprocess
import time
from collections.abc import Callable
from functools import partial
from typing import Any

from pulumi_tutum import Client
from tests.support.docker_engine import missing
from tests.support.server import Server

from .measure import Missing

IMAGE = "tutum/hello-world"
_DEADLINE = 120.0
_POLL = 0.02
_names = (f"bench-{number}" for number in itertools.count())


def require_engine() -> None:
    """
    Raises:
        Missing: there can be no engine here.
    """
    if needed := missing() + ([] if _program() else ["docker"]):
        raise Missing(f"no Docker Engine: {', '.join(needed)} missing")


def _program() -> str | None:
    """The distribution's own command, if it is there: it is as old as the engine, and fits."""
    return shutil.which("docker", path=os.pathsep.join(["/usr/bin", os.environ["PATH"]]))


def docker_command(url: str, *arguments: str) -> str:
    command = [str(_program()), "--host", url, *arguments]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        raise RuntimeError(f"docker {' '.join(arguments)}: {done.stderr.strip()}")
    return done.stdout


def until(condition: Callable[[], object], what: str) -> None:
    began = time.monotonic()
    while not condition():
        waited = time.monotonic() - began
        if waited > _DEADLINE:
            raise RuntimeError(f"waited in vain for {what}")
        # To look takes processor time from what is looked at.
        time.sleep(max(_POLL, waited / 30))


def client_of(server: Server) -> Client:
    return Client(server.user, server.apikey, rest_host=server.url)


def created(client: Client, **definition: Any) -> str:
    """The uuid of a new service, once it is Running."""
    made = client.create_service({"image": IMAGE, "name": next(_names), **definition})
    client.start_service(made["uuid"])
    until(lambda: _settled(client.get_service(made["uuid"])), f"{made['name']} to run")
    return str(made["uuid"])


def _settled(service: dict[str, Any]) -> bool:
    if service["state"] not in ("Starting", "Running"):
        raise RuntimeError(f"{service['name']} is {service['state']}")
    return bool(service["state"] == "Running")


def clear(client: Client) -> None:
    """Terminate all services, and wait until they are."""
    alive = [s["uuid"] for s in client.list_services() if s["state"] != "Terminated"]
    for uuid in alive:
        client.terminate_service(uuid)
    for uuid in alive:
        until(partial(_terminated, client, uuid), "the end of a service")


def _terminated(client: Client, uuid: str) -> bool:
    return bool(client.get_service(uuid)["state"] == "Terminated")


def remove_containers(url: str) -> None:
    if found := docker_command(url, "ps", "--all", "--quiet").split():
        docker_command(url, "rm", "--force", "--volumes", *found)
