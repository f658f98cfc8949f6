"""Services on real engines: asked for through the API, looked at through the engines."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from types import TracebackType
from typing import Any

import docker
import requests

from pulumi_tutum.lifecycle import ENDING
from tests.support.server import Server
from tests.support.tools import until

V1 = "/api/v1"


class Real:
    """A server's API, and docker-py clients of its engines (names in the order of `urls`)."""

    _names = itertools.count(1)

    def __init__(self, server: Server, urls: Sequence[str]) -> None:
        self.server = server
        self.engines: list[Any] = [docker.DockerClient(base_url=url, timeout=60) for url in urls]
        self.session = requests.Session()
        self.session.trust_env = False
        self.session.headers.update(server.headers)

    def __enter__(self) -> Real:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.session.close()
        for engine in self.engines:
            engine.close()

    # -- the API

    def call(self, method: str, path: str, body: Any = None) -> requests.Response:
        return self.session.request(method, self.server.url + path, json=body, timeout=60)

    def ok(self, method: str, path: str, body: Any = None) -> dict[str, Any]:
        answer = self.call(method, path, body)
        assert answer.status_code < 400, (method, path, answer.status_code, answer.text)
        return dict(answer.json()) if answer.content else {}

    def get(self, uuid: str, kind: str = "service") -> dict[str, Any]:
        return self.ok("GET", f"{V1}/{kind}/{uuid}/")

    def create(self, image: str = "test/busybox", **body: Any) -> dict[str, Any]:
        """A service; one of BusyBox sleeps unless it is told to do something else."""
        if image.startswith("test/busybox") and "run_command" not in body:
            body["run_command"] = "sleep 100000"
        body = {"image": image, "name": f"svc-{next(self._names)}", **body}
        return self.ok("POST", f"{V1}/service/", body)

    def act(self, service: dict[str, Any], action: str, query: str = "") -> dict[str, Any]:
        return self.ok("POST", f"{V1}/service/{service['uuid']}/{action}/{query}")

    def patch(self, service: dict[str, Any], **body: Any) -> dict[str, Any]:
        return self.ok("PATCH", f"{V1}/service/{service['uuid']}/", body)

    def wait(self, service: dict[str, Any], *states: str) -> dict[str, Any]:
        """The service, as soon as it is in one of these states."""
        last: dict[str, Any] = {}

        def arrived() -> bool:
            last.clear()
            last.update(self.get(service["uuid"]))
            return last["state"] in states

        try:
            until(arrived, "")
        except AssertionError:
            what = f"{last.get('name')} is {last.get('state')}, not {' or '.join(states)}"
            found = [(c["name"], c["state"], c["exit_code_msg"]) for c in self.containers(last)]
            raise AssertionError(f"{what}; {found}; {self.why(last)}; {self.server.log()[-3000:]}") from None
        return last

    def settle(self, service: dict[str, Any]) -> dict[str, Any]:
        """The service, as soon as its state lasts."""
        return self.wait(service, "Running", "Partly running", "Stopped", "Not running", "Terminated")

    def start(self, service: dict[str, Any]) -> dict[str, Any]:
        self.act(service, "start")
        return self.settle(service)

    def run(self, image: str = "test/busybox", **body: Any) -> dict[str, Any]:
        """A service that runs."""
        service = self.create(image, **body)
        self.act(service, "start")
        settled = self.settle(service)
        assert settled["state"] == "Running", (settled["state"], self.why(settled))
        return settled

    def redeploy(self, service: dict[str, Any], query: str = "") -> dict[str, Any]:
        self.act(service, "redeploy", query)
        return self.settle(service)

    def scale(self, service: dict[str, Any], count: int) -> dict[str, Any]:
        self.patch(service, target_num_containers=count)
        self.act(service, "scale")
        return self.settle(service)

    def terminate(self, *services: dict[str, Any]) -> None:
        for service in services:
            self.ok("DELETE", f"{V1}/service/{service['uuid']}/")
        for service in services:
            self.wait(service, "Terminated")

    def terminate_all(self) -> None:
        """Whatever a test has left, and see that nothing of it is left on the engines."""
        found = self.ok("GET", f"{V1}/service/?limit=100")["objects"]
        alive = [s for s in found if s["state"] != "Terminated"]

        def ended() -> bool:
            # One that is on its way, or whose volumes are used by another, does not go at once.
            for service in alive:
                if self.get(service["uuid"])["state"] not in ENDING:
                    self.call("DELETE", f"{V1}/service/{service['uuid']}/")
            return all(self.get(s["uuid"])["state"] in ENDING for s in alive)

        until(ended, "all services end")
        for service in found:
            self.wait(service, "Terminated")
        until(lambda: not self.left(), "nothing is left")

    def containers(self, service: dict[str, Any]) -> list[dict[str, Any]]:
        """The API's details of the containers, in order."""
        paths = self.get(service["uuid"])["containers"]
        return [self.ok("GET", path) for path in paths]

    def all_containers(self, service: dict[str, Any]) -> list[dict[str, Any]]:
        """The same, terminated ones included."""
        path = f"{V1}/container/?service={service['uuid']}&limit=100"
        return [self.get(c["uuid"], "container") for c in self.ok("GET", path)["objects"]]

    def why(self, service: dict[str, Any]) -> str:
        """The error of the service's last action."""
        path = f"{V1}/action/?object={V1}/service/{service['uuid']}/&limit=100"
        actions = self.ok("GET", path)["objects"]
        errors = [str(self.get(a["uuid"], "action").get("error") or "") for a in actions]
        return next((e for e in errors if e), "")

    # -- the engines

    def inside(self, service: dict[str, Any], ordinal: int | None = None) -> list[Any]:
        """docker-py's containers of a service, in order of their ordinals."""
        filters = {"label": [f"io.tutum.service={service['uuid']}"]}
        found = [
            c for e in self.engines for c in e.containers.list(all=True, filters=filters, ignore_removed=True)
        ]
        found.sort(key=lambda c: int(c.labels["io.tutum.ordinal"]))
        return [c for c in found if ordinal is None or c.labels["io.tutum.ordinal"] == str(ordinal)]

    def one(self, service: dict[str, Any], ordinal: int = 1) -> Any:
        """docker-py's container of a service."""
        (container,) = self.inside(service, ordinal)
        return container

    def sh(self, service: dict[str, Any], command: str, ordinal: int = 1) -> str:
        """What a shell command in a container writes."""
        return str(self.one(service, ordinal).exec_run(["sh", "-c", command]).output.decode())

    def env(self, service: dict[str, Any], ordinal: int = 1) -> dict[str, str]:
        """A container's environment, as the engine has it."""
        return dict(e.partition("=")[::2] for e in self.one(service, ordinal).attrs["Config"]["Env"])

    def left(self) -> list[str]:
        """Containers and volumes of any server on the engines."""
        ours = {"label": "io.tutum.server"}
        # The low-level call: the other one looks at each, and fails when one goes just then.
        found = [str(c["Names"]) for e in self.engines for c in e.api.containers(all=True, filters=ours)]
        return found + [v.name for e in self.engines for v in e.volumes.list(filters=ours)]
