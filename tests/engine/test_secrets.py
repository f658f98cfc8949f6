"""A canary: secret values go through a whole session of successes and failures, and turn up nowhere."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.support.scenario import Scenario
from tests.support.server import Server
from tests.support.tools import until

KEY = "canary-apikey-5f0c"
WRONG_KEY = "canary-wrong-key-c5ee"
#: Values of environments.
SECRETS = {
    "ofConfig": "canary-config-81aa",
    "ofLinked": "canary-linked-92bb",
    "ofFailed": "canary-failed-a3cc",
    "ofUpdate": "canary-update-b4dd",
}
OUTSIDE = "canary-outside-d6ff"
CANARIES = [KEY, WRONG_KEY, *SECRETS.values(), OUTSIDE]
#: No secret in the program, and so in the inputs; as an output it is one all the same.
PLAIN = "plain-in-the-program"

PROGRAM = f"""
    secret = pulumi.Config().require_secret
    db = tutum.Service("db", image="acme/db",
        container_envvars={{"PASS": secret("ofLinked"), "PLAIN": "{PLAIN}", "SAID": "acme/web:latest"}})
    web = tutum.Service("web", image="acme/web",
        container_envvars=[{{"key": "PASS", "value": secret("ofConfig")}}], linked_to_service=[db])
    pulumi.export("environment", web.container_envvars)
    pulumi.export("variables", db.link_variables)
    pulumi.export("connection", Output.concat("db://", web.container_envvars["PASS"]))
"""
#: The failure and the log tail of a container say what its environment holds, and what its links bring.
FAILING = """
    tutum.Service("failing", image="acme/web", linked_to_service=[db], timeout_seconds=60,
        container_envvars={"SIMULATE_START_ERROR": Output.concat("cannot use ", secret("ofFailed")),
                           "PASS": secret("ofFailed")})
    tutum.Service("exits", image="acme/web", linked_to_service=[db], timeout_seconds=60,
        container_envvars={"SIMULATE_EXIT": "1", "SIMULATE_EXIT_AFTER": "0", "PASS": secret("ofFailed")})
"""
WRONG = """
    tutum.Service("wrong", image="acme/web", container_envvars={"A=B": secret("ofConfig")},
        container_ports=[{"protocol": "tcp", "inner_port": secret("ofConfig")}], tags=secret("ofConfig"),
        run_command=secret("ofConfig").apply(lambda s: "'" + s), adopt=5)
"""


@pytest.fixture
def server(tmp_path: Path) -> Iterator[Server]:
    with Server(container_start_seconds=0.02, data=tmp_path / "data", apikey=KEY) as running:
        yield running


def test_nothing_secret_is_written(
    new_scenario: Callable[..., Scenario], server: Server, tmp_path: Path
) -> None:
    """(That a key in the environment is written nowhere is looked at after every scenario: conftest.py.)"""
    scenario = new_scenario(
        server, env={"TUTUM_APIKEY": ""}, secrets={**SECRETS, "tutum:apikey": server.apikey}
    )
    scenario.program(PROGRAM)
    scenario.preview("--diff")
    scenario.up("--diff")
    outputs = json.dumps([r["outputs"] for r in scenario.project.resources().values()])
    assert PLAIN not in outputs
    assert "ciphertext" in outputs
    assert scenario.live("web")["container_envvars"] == [{"key": "PASS", "value": SECRETS["ofConfig"]}]

    outside = [{"key": "PASS", "value": OUTSIDE}]
    scenario.client.update_service(scenario.id("web"), {"container_envvars": outside})
    scenario.client.redeploy_service(scenario.id("web"))
    until(lambda: scenario.live("web")["synchronized"], "the redeploy")
    assert "web" in scenario.refresh("--diff").ops
    scenario.up("--diff")

    scenario.program(PROGRAM, WRONG)
    assert "run_command" in "".join(scenario.preview("--diff", fails=True).errors)
    scenario.program(PROGRAM.replace('secret("ofConfig")', 'secret("ofUpdate")'), FAILING)
    scenario.preview("--diff")
    failed = scenario.up("--diff", "--continue-on-error", fails=True)
    for name in ("failing", "exits"):
        (message,) = failed.diagnostics("error", name)
        assert scenario.id(name) in message
    # What a container says may be what it was told, also by one that it links to.
    assert "from [secret]" in "".join(failed.diagnostics("error", "exits"))
    assert "failed: failing-" in "".join(failed.diagnostics("error", "failing"))
    scenario.refresh("--diff")
    scenario.project.run("stack", "export")
    scenario.project.run("stack", "output", "--json")
    scenario.project.run("stack", "history", "--json")

    # A request that the server refuses, and one that is not answered by it.
    scenario.project.env["TUTUM_AUTH"] = f"ApiKey {server.user}:{WRONG_KEY}"
    scenario.refresh(fails=True)
    scenario.project.env["TUTUM_AUTH"] = f"{WRONG_KEY}\nof two lines"
    scenario.refresh(fails=True)
    del scenario.project.env["TUTUM_AUTH"]
    scenario.destroy()

    for path, text in scenario.project.written():
        assert not found(text), f"{path} holds {found(text)}"
    assert not found(server.log())
    # The environments must be there: containers are made from them. The key need not.
    server.stop()
    stored = b"".join(path.read_bytes() for path in (tmp_path / "data").rglob("*") if path.is_file())
    assert SECRETS["ofUpdate"].encode() in stored
    assert KEY.encode() not in stored


def found(text: str) -> list[str]:
    return [canary for canary in CANARIES if canary in text]


def test_nothing_secret_is_on_a_command_line(new_scenario: Callable[..., Scenario], server: Server) -> None:
    scenario = new_scenario(server, secrets=SECRETS)
    scenario.program(PROGRAM.replace('"acme/db"', '"simulated/slow:3"'))
    running = scenario.project.start("up", "--skip-preview", "--yes")
    until(lambda: "Starting" in {s["state"] for s in scenario.client.list_services()}, "the start")
    commands = [*running.children().values(), *(f"{command_line(pid)}" for pid in (server.pid, os.getpid()))]
    assert any("pulumi" in command for command in commands)
    assert not found(json.dumps(commands))
    assert running.wait().returncode == 0
    scenario.destroy()


def command_line(pid: int) -> str:
    return Path(f"/proc/{pid}/cmdline").read_bytes().decode(errors="replace")
