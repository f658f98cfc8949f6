"""A user's stack on the real engine, with a control plane behind a proxy that sees every request.

    scenario.program('web = tutum.Service("web", image="acme/web", target_num_containers=2)')
    scenario.up()
    assert scenario.asked("web") == ["create", "start"]
    assert scenario.live("web")["state"] == "Running"

What is in the state is in `project`; what there really is, the control plane's own records say (`live`,
`living`), asked without the proxy.
"""

from __future__ import annotations

import re
import textwrap
from pathlib import Path
from types import TracebackType
from typing import Any

from pulumi_tutum import Client
from tests.support.engine import Project, Result
from tests.support.faults import FaultProxy, Seen
from tests.support.server import Server

HEAD = "import pulumi\nfrom pulumi import Output, ResourceOptions\nimport pulumi_tutum as tutum\n\n"
_SERVICE = re.compile(r"/api/v1/service/(?:([0-9a-f-]{36})/(?:(\w+)/)?)?$")


class Scenario:
    """See the module's docstring.

    Args:
        folder: a new one, for the project.
        server: may be shared; `name`, the project's, keeps the services of scenarios apart.
        options: further ones of `Project`.
    """

    def __init__(self, folder: Path, server: Server, *, name: str = "project", **options: Any) -> None:
        self.server = server
        self.proxy = FaultProxy(server.url)
        env = {
            **server.environment,
            "TUTUM_REST_HOST": self.proxy.url,
            "TUTUM_STREAM_HOST": self.proxy.stream_url,
            **options.pop("env", {}),
        }
        self.project = Project(folder, "", name=name, env=env, **options)
        self.client = Client(server.user, server.apikey, rest_host=server.url)
        self._ids: dict[str, str] = {}
        self._mark = 0

    # -- the program and its runs ---------------------------------------------------------------------------

    def program(self, *parts: str) -> None:
        """What the next runs run; `pulumi`, `Output`, `ResourceOptions` and `tutum` are there."""
        self.project.write(HEAD + "".join(map(textwrap.dedent, parts)))

    def up(self, *args: str, fails: bool = False) -> Result:
        """Like `preview`, `refresh` and `destroy`: the requests of this run are what `asked` tells."""
        return self._run("up", *args, fails=fails)

    def preview(self, *args: str, fails: bool = False) -> Result:
        result = self._run("preview", *args, fails=fails)
        assert not self.asked(), "a preview sends nothing but GETs"
        return result

    def refresh(self, *args: str, fails: bool = False) -> Result:
        result = self._run("refresh", *args, fails=fails)
        assert not self.asked(), "a refresh sends nothing but GETs"
        return result

    def destroy(self, *args: str, fails: bool = False) -> Result:
        return self._run("destroy", *args, fails=fails)

    def _run(self, operation: str, *args: str, fails: bool) -> Result:
        self.mark()
        result: Result = getattr(self.project, operation)(*args, fails=fails)
        assert "Traceback" not in result.output
        resources = self.project.resources().items()
        # Components have none.
        self._ids.update((name, resource["id"]) for name, resource in resources if "id" in resource)
        return result

    def assert_settled(self) -> None:
        """The invariant: another preview shows no change, and a refresh (in the same run) finds none."""
        assert self.preview("--refresh", "--expect-no-changes").ops == {}

    # -- what there is --------------------------------------------------------------------------------------

    def id(self, name: str) -> str:
        """The id that the resource has in the state, or had before it was destroyed."""
        return self._ids[name]

    def state(self, name: str) -> dict[str, Any]:
        """The resource's record in the state: `id`, `inputs`, `outputs`, `initErrors`, ..."""
        return self.project.resources()[name]

    def live(self, name: str) -> dict[str, Any]:
        """The resource's service, from the control plane itself."""
        return self.client.get_service(self.id(name))

    def living(self, prefix: str = "") -> list[str]:
        """The names of all services of the control plane that are not terminated."""
        return [name for name in living(self.server) if name.startswith(prefix)]

    # -- what was asked -------------------------------------------------------------------------------------

    def mark(self) -> None:
        """From here on counts what `seen` and `asked` tell."""
        self._mark = len(self.proxy.seen)

    def seen(self) -> list[Seen]:
        return self.proxy.seen[self._mark :]

    def asked(self, name: str | None = None) -> list[str]:
        """Everything but GETs that was sent about a service, or about all of them, in order: create, update,
        start, stop, scale, redeploy, terminate."""
        found = []
        for seen in self.seen():
            match = _SERVICE.search(seen.path)
            if seen.method == "GET" or match is None:
                continue
            uuid, action = match.groups()
            if uuid is None and name is not None:
                # Only the answer has the uuid of what was created.
                uuid = self.id(name) if f'"name": "{self.live(name)["name"]}"' in _text(seen) else None
            if name is None or uuid == self.id(name):
                words = {"PATCH": "update", "DELETE": "terminate", "POST": "create"}
                found.append(action or words[seen.method])
        return found

    def requests(self, name: str) -> int:
        """How many requests of any kind were about the service itself."""
        gets = [s for s in self.seen() if s.method == "GET" and f"/{self.id(name)}/" in s.path]
        return len(gets) + len(self.asked(name))

    def close(self) -> None:
        self.project.close()
        self.client.close()
        self.proxy.close()

    def __enter__(self) -> Scenario:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


def living(server: Server) -> list[str]:
    """The names of all services of a control plane that are not terminated."""
    with Client(server.user, server.apikey, rest_host=server.url) as client:
        return sorted(s["name"] for s in client.list_services() if s["state"] != "Terminated")


def _text(seen: Seen) -> str:
    return re.sub(r'"\s*:\s*"', '": "', seen.body.decode())
