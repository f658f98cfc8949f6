"""The command as a process, against a real control plane: what it prints, how it ends, what it never
shows."""

from __future__ import annotations

import contextlib
import dataclasses
import json
import os
import re
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from typing import Any

import click
import pexpect
import pytest
from click.testing import CliRunner, Result

from pulumi_tutum import cli, lifecycle, waiting
from pulumi_tutum.client import Client
from pulumi_tutum.server.app import ServeOptions
from tests.support.server import Server
from tests.support.stub import HttpStub, Reply
from tests.support.tools import until

COMMAND = [sys.executable, "-c", "from pulumi_tutum.cli import main; main()"]
SECRET = "hunter22-very-secret"
GONE = "00000000-0000-4000-8000-000000000000"

Run = Callable[..., Result]


@pytest.fixture(scope="module")
def server() -> Iterator[Server]:
    with Server(container_start_seconds=0.05) as running:
        yield running


@pytest.fixture
def client(server: Server) -> Iterator[Client]:
    with Client(server.user, server.apikey, rest_host=server.url) as opened:
        yield opened


@pytest.fixture
def web(client: Client, request: pytest.FixtureRequest) -> Iterator[dict[str, Any]]:
    """A service of this test's own, not started."""
    name = re.sub("[^a-z0-9]+", "-", request.node.name.lower())[-40:].strip("-")
    variables = [{"key": "PASS", "value": SECRET}]
    body = {"image": "tutum/hello-world", "name": name, "container_envvars": variables}
    service = client.create_service(body)
    yield service
    if client.get_service(service["uuid"])["state"] not in lifecycle.ENDING:
        waiting.until(client, service["uuid"])
        client.terminate_service(service["uuid"])


def environment(server: Server | None) -> dict[str, str]:
    clean = {k: v for k, v in os.environ.items() if not k.startswith("TUTUM_")}
    return {**clean, "HOME": "/nonexistent", **(server.environment if server else {})}


@pytest.fixture
def run(server: Server) -> Run:
    def call(*arguments: str, credentials: bool = True) -> Result:
        wanted = environment(server if credentials else None)
        changes = {name: wanted.get(name) for name in {*os.environ, *wanted}}
        done = CliRunner().invoke(cli.main, arguments, env=changes)
        assert done.exception is None or isinstance(done.exception, SystemExit), done.exception
        assert server.apikey not in done.output
        return done

    return call


def test_a_service_through_its_life(run: Run, web: dict[str, Any]) -> None:
    name = web["name"]
    for arguments, said in (
        (("start", name), "Running"),
        (("scale", name, "3"), "Running"),
        (("stop", web["uuid"]), "Stopped"),
        (("redeploy", name), "Running"),
        (("terminate", name), "Terminated"),
    ):
        done = run(*arguments)
        assert (done.exit_code, done.stdout, done.stderr) == (0, f"{name}: {said}\n", "")


def test_scale_really_scales(run: Run, web: dict[str, Any], client: Client) -> None:
    assert run("start", web["name"]).exit_code == 0
    assert json.loads(run("scale", web["name"], "2", "--json").stdout)["running_num_containers"] == 2
    assert client.get_service(web["uuid"])["target_num_containers"] == 2


def test_scale_of_what_does_not_run_is_stored(run: Run, web: dict[str, Any]) -> None:
    done = run("scale", web["name"], "2")
    assert (done.exit_code, done.stdout) == (0, f"{web['name']}: Not running\n")


def test_no_wait_returns_at_once(run: Run, web: dict[str, Any]) -> None:
    assert run("start", "--no-wait", web["name"]).stdout == f"{web['name']}: Starting\n"


def test_ps_as_a_table_and_as_json(run: Run, web: dict[str, Any]) -> None:
    lines = run("ps").stdout.splitlines()
    assert lines[0].split() == ["NAME", "UUID", "STATE", "CONTAINERS", "IMAGE", "DEPLOYED", "PUBLIC", "DNS"]
    (row,) = (line for line in lines if line.startswith(web["name"]))
    assert web["uuid"][:8] in row
    assert "Not running" in row
    assert "0/1" in row
    # In a pipe nothing is cut, and nothing padded.
    assert web["public_dns"] == row.split()[-1]
    listed = json.loads(run("ps", "--json").stdout)
    assert web["uuid"] in [service["uuid"] for service in listed]


def test_ps_says_which_containers_do_not_run(run: Run, web: dict[str, Any], client: Client) -> None:
    values = {"SIMULATE_EXIT": "3", "SIMULATE_EXIT_AFTER": "0", "SIMULATE_ONLY": "2"}
    crash = [{"key": key, "value": value} for key, value in values.items()]
    client.update_service(web["uuid"], {"target_num_containers": 2, "container_envvars": crash})
    assert run("start", web["name"]).exit_code == 1
    lines = run("ps").stdout.splitlines()
    assert [line for line in lines if line.startswith("container ")] == [
        f"container {web['name']}-2: Stopped, exit code 3 (General error)"
    ]


@pytest.mark.parametrize(
    ("width", "headings"),
    [
        (80, ["NAME", "UUID", "STATE", "CONTAINERS", "IMAGE"]),
        (110, ["NAME", "UUID", "STATE", "CONTAINERS", "IMAGE", "DEPLOYED"]),
        (160, ["NAME", "UUID", "STATE", "CONTAINERS", "IMAGE", "DEPLOYED", "PUBLIC", "DNS"]),
    ],
)
def test_ps_fits_a_terminal(server: Server, width: int, headings: list[str]) -> None:
    service = {
        "uuid": GONE,
        "resource_uri": f"/api/v1/service/{GONE}/",
        "name": "web",
        "state": "Running",
        "image_name": "tutum/wordpress-stackable:latest",
        "deployed_datetime": "Mon, 13 Oct 2014 11:01:43 +0000",
        "public_dns": "web.bob.svc.localhost",
    }
    with HttpStub(lambda call: {"meta": {"next": None}, "objects": [service]}) as stub:
        terminal = pexpect.spawn(
            COMMAND[0],
            [*COMMAND[1:], "--rest-host", stub.url, "ps"],
            env=environment(server) | {"TERM": "xterm", "COLUMNS": ""},
            dimensions=(24, width),
            encoding="utf-8",
            timeout=100,
        )
        with contextlib.closing(terminal):
            shown = terminal.read()
    lines = re.sub(r"\x1b\[[0-9;]*m", "", shown).splitlines()
    assert lines[0].split() == headings
    assert "tutum/wordpress-stackable:latest" in lines[1]
    assert max(map(len, lines)) <= width


def test_ps_leaves_the_dead_out_unless_asked(run: Run, web: dict[str, Any]) -> None:
    assert run("terminate", web["uuid"]).exit_code == 0
    assert web["name"] not in run("ps").stdout
    assert web["name"] in run("ps", "--all").stdout
    assert web["name"] in run("ps", "--state", "Terminated").stdout


def test_inspect_hides_secrets_unless_told(run: Run, web: dict[str, Any]) -> None:
    for arguments in (("inspect", web["name"]), ("inspect", "--json", web["name"])):
        done = run(*arguments)
        assert done.exit_code == 0
        assert SECRET not in done.stdout
        assert "[secret]" in done.stdout
    assert f"PASS={SECRET}" in run("inspect", "--show-secrets", web["name"]).stdout
    shown = json.loads(run("inspect", "--json", "--show-secrets", web["name"]).stdout)
    assert shown["container_envvars"] == [{"key": "PASS", "value": SECRET}]


def test_services_are_found_by_name_uuid_and_the_beginning_of_it(run: Run, web: dict[str, Any]) -> None:
    for reference in (web["name"], web["uuid"], web["uuid"][:13], web["resource_uri"]):
        assert json.loads(run("inspect", "--json", reference).stdout)["uuid"] == web["uuid"]


def test_logs(run: Run, web: dict[str, Any]) -> None:
    assert run("start", web["name"]).exit_code == 0
    done = run("logs", "--tail", "1", web["name"])
    assert done.exit_code == 0
    assert len(done.stdout.splitlines()) == 1
    assert done.stdout.startswith(f"{web['name']}-1 | ")
    frame = json.loads(run("logs", "--json", "--tail", "1", web["name"]).stdout)
    assert frame["type"] == "log"


def test_logs_of_a_job_whose_containers_are_gone(run: Run, client: Client, web: dict[str, Any]) -> None:
    ends = [{"key": "SIMULATE_EXIT", "value": "0"}, {"key": "SIMULATE_EXIT_AFTER", "value": "0"}]
    client.update_service(web["uuid"], {"autodestroy": "ON_SUCCESS", "container_envvars": ends})
    client.start_service(web["uuid"])
    waiting.until(client, web["uuid"], lifecycle.NOT_RUNNING)
    done = run("logs", web["name"])
    assert done.exit_code == 0
    assert done.stdout.splitlines()[-1] == f"{web['name']}-1 | Exited with code 0"


def test_following_logs_ends_with_ctrl_c(server: Server, run: Run, web: dict[str, Any]) -> None:
    assert run("start", web["name"]).exit_code == 0
    process = subprocess.Popen(
        [*COMMAND, "logs", "-f", web["name"]],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env=environment(server),
    )
    with process:
        assert process.stdout is not None
        assert process.stdout.readline().startswith(f"{web['name']}-1 | ")
        process.send_signal(signal.SIGINT)
        _, errors = process.communicate(timeout=60)
    assert process.returncode == 130
    assert errors == ""


def test_a_broken_pipe_is_no_drama(server: Server, run: Run, web: dict[str, Any]) -> None:
    assert run("start", web["name"]).exit_code == 0
    process = subprocess.Popen(
        [*COMMAND, "logs", "-f", web["name"]],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env=environment(server),
    )
    with process:
        assert process.stdout is not None
        assert process.stderr is not None
        process.stdout.readline()
        process.stdout.close()
        # New lines, so that something is written into the pipe that nobody reads.
        assert run("redeploy", web["name"]).exit_code == 0
        until(lambda: process.poll() is not None, "the command has noticed")
        assert process.stderr.read() == ""


@pytest.mark.parametrize(
    ("redirection", "code", "said"),
    [
        (">/dev/full", 1, "pulumi-tutum: cannot write the output: No space left on device\n"),
        (">&-", 0, ""),
    ],
)
def test_an_output_that_cannot_be_written(
    server: Server, web: dict[str, Any], redirection: str, code: int, said: str
) -> None:
    for arguments in (["ps"], ["inspect", "--json", web["name"]]):
        done = subprocess.run(
            ["sh", "-c", f'"$@" {redirection}', "sh", *COMMAND, *arguments],
            env=environment(server),
            stderr=subprocess.PIPE,
            text=True,
        )
        assert (done.returncode, done.stderr) == (code, said)


def test_characters_that_the_terminal_has_not(server: Server, run: Run, web: dict[str, Any]) -> None:
    assert run("start", web["name"]).exit_code == 0
    done = subprocess.run(
        [*COMMAND, "exec", web["name"], "echo", "gr\N{LATIN SMALL LETTER U WITH DIAERESIS}n \N{CHECK MARK}"],
        env=environment(server) | {"PYTHONIOENCODING": "latin-1"},
        capture_output=True,
        check=True,
    )
    assert done.stdout == b"gr\xfcn \\u2713\n"


def test_exec(run: Run, web: dict[str, Any]) -> None:
    assert run("exec", web["name"], "echo", "hello").exit_code == 3
    assert run("start", web["name"]).exit_code == 0
    for target in (web["name"], f"{web['name']}-1"):
        done = run("exec", target, "echo", "hello there")
        assert (done.exit_code, done.stdout.strip()) == (0, "hello there")
    assert run("exec", web["name"], "exit", "7").exit_code == 7
    # Options behind the container are the command's.
    for command in (["echo", "-i", "a", "-h", "--tty"], ["echo", "--", "-x"]):
        assert run("exec", web["name"], *command).stdout == f"{' '.join(command[1:])}\n"
        assert run("exec", web["name"], "--", *command).stdout == f"{' '.join(command[1:])}\n"
    assert run("exec", "--no-such-option", web["name"], "echo").exit_code == 2


def test_nodes(run: Run) -> None:
    assert "node-1" in run("nodes").stdout
    assert run("nodes", "tag", "node-1", "front", "eu").stdout == "node-1: front, eu\n"
    assert run("nodes", "tag", "--add", "node-1", "eu", "ssd").stdout == "node-1: front, eu, ssd\n"
    (node,) = (n for n in json.loads(run("nodes", "list", "--json").stdout) if n["nickname"] == "node-1")
    assert {"front", "eu", "ssd"} <= {tag["name"] for tag in node["tags"]}
    assert run("nodes", "tag", "node-1").stdout == "node-1: no tags\n"
    for arguments in (("nodes", "--json"), ("nodes", "--json", "list")):
        assert "node-1" in [n["nickname"] for n in json.loads(run(*arguments).stdout)]


def test_a_failure_is_explained_and_secrets_are_masked(run: Run, client: Client, server: Server) -> None:
    variables = [{"key": "PASS", "value": SECRET}, {"key": "SIM_EXIT", "value": "3"}]
    body = {
        "image": "simulated/nowhere",
        "tags": ["no-such-tag"],
        "container_envvars": variables,
        "name": "lost",
    }
    service = client.create_service(body)
    done = run("start", "lost")
    client.terminate_service(service["uuid"])
    assert done.exit_code == 1
    assert "service 'lost'" in done.stderr
    assert "Not running" in done.stderr
    assert "no-such-tag" in done.stderr
    assert SECRET not in done.stderr


def test_a_refused_action_fails_in_one_line(run: Run, web: dict[str, Any]) -> None:
    done = run("stop", web["name"])
    assert done.exit_code == 1
    assert done.stderr == "pulumi-tutum: Service cannot be stopped in state 'Not running'\n"


def test_a_service_that_refuses_keeps_no_other_one_from_it(run: Run, client: Client) -> None:
    names = ["one-of-three", "two-of-three", "three-of-three"]
    uuids = [client.create_service({"image": "tutum/hello-world", "name": name})["uuid"] for name in names]
    assert run("start", names[0], names[2]).exit_code == 0
    # The second is not running, and the third one comes after it.
    done = run("stop", *names)
    assert done.exit_code == 1
    assert done.stderr == "pulumi-tutum: two-of-three: Service cannot be stopped in state 'Not running'\n"
    assert done.stdout == "one-of-three: Stopped\nthree-of-three: Stopped\n"
    assert [s["name"] for s in json.loads(run("terminate", "--json", *names).stdout)] == names
    assert [client.get_service(uuid)["state"] for uuid in uuids] == ["Terminated"] * 3


def test_nothing_is_asked_of_any_where_one_is_not_known(run: Run, web: dict[str, Any]) -> None:
    assert run("start", web["name"], "no-such-service").exit_code == 3
    assert json.loads(run("inspect", "--json", web["name"]).stdout)["state"] == "Not running"


def test_one_that_does_not_get_there_keeps_no_other_one_from_it(run: Run, client: Client) -> None:
    bodies = [{"image": "simulated/missing", "name": "lost"}, {"image": "tutum/hello-world", "name": "found"}]
    uuids = [client.create_service(body)["uuid"] for body in bodies]
    done = run("start", "lost", "found")
    assert run("terminate", *uuids).exit_code == 0
    assert done.exit_code == 1
    assert "service 'lost'" in done.stderr
    assert done.stdout == "found: Running\n"


@pytest.mark.parametrize("reference", ["no-such-service", GONE, "ffffffff-ffff"])
def test_what_is_not_there_is_3(run: Run, reference: str) -> None:
    done = run("inspect", reference)
    assert done.exit_code == 3
    assert done.stderr.count("\n") == 1


def test_what_is_ambiguous_is_3_and_listed(run: Run) -> None:
    uuids = [f"{n}0000000-0000-4000-8000-000000000000" for n in "12"]
    objects = [
        {"uuid": u, "resource_uri": f"/api/v1/service/{u}/", "name": "web", "state": "Running"} for u in uuids
    ]
    with HttpStub(lambda call: {"meta": {"next": None}, "objects": objects}) as stub:
        done = run("--rest-host", stub.url, "inspect", "web")
    assert done.exit_code == 3
    for uuid in uuids:
        assert uuid in done.stderr


def test_an_unreachable_control_plane_is_4(run: Run) -> None:
    done = run("--rest-host", "http://127.0.0.1:9", "start", GONE)
    assert done.exit_code == 4
    assert "pulumi-tutum serve" in done.stderr


def test_missing_credentials_are_2(run: Run) -> None:
    done = run("ps", credentials=False)
    assert done.exit_code == 2
    assert "TUTUM_USER" in done.stderr


def test_wrong_usage_is_2(run: Run) -> None:
    assert run("scale", "web", "many").exit_code == 2
    assert run("fly").exit_code == 2
    assert run("serve", "--node", "=a").exit_code == 2


@pytest.mark.parametrize("value", ["nan", "inf", "-1", "1e400"])
def test_seconds_are_finite(run: Run, value: str) -> None:
    for option in ("container-start-seconds", "start-timeout", "node-grace", "retain-terminated"):
        done = run("serve", f"--{option}", value)
        assert done.exit_code == 2
        assert f"'--{option}'" in done.stderr
    assert run("stop", "--timeout", value, "web").exit_code == 2


def test_refused_credentials_are_1_and_say_where_they_came_from(run: Run) -> None:
    with HttpStub(lambda call: Reply(b"", 401)) as stub:
        done = run("--rest-host", stub.url, "ps")
    assert done.exit_code == 1
    assert "TUTUM_USER and TUTUM_APIKEY" in done.stderr


def test_markup_in_a_name_is_printed_as_it_is(run: Run) -> None:
    objects = [{"uuid": GONE, "resource_uri": "/x/", "name": "[red]web[/red]", "state": "Running"}]
    with HttpStub(lambda call: {"meta": {"next": None}, "objects": objects}) as stub:
        assert "[red]web[/red]" in run("--rest-host", stub.url, "ps").stdout


def test_serve_has_the_options_of_the_server() -> None:
    command = cli.main.commands["serve"]
    options = {p.name: p.default for p in command.params if isinstance(p, click.Option)}
    fields = {field.name: field.default for field in dataclasses.fields(ServeOptions)}
    assert options.keys() == fields.keys()
    for name, default in fields.items():
        if default not in (None, (), False):
            assert options[name] == default, name


def test_serve_runs_the_server() -> None:
    process = subprocess.Popen(
        [*COMMAND, "serve", "--port", "0", "--nodes", "1", "--node", "a=front,eu"],
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
        env={**environment(None), "TUTUM_USER": "bob", "TUTUM_APIKEY": "k3y-0123456789abcdef"},
    )
    with process:
        assert process.stdout is not None
        url = process.stdout.readline().removeprefix("listening on ").strip()
        with Client("bob", "k3y-0123456789abcdef", rest_host=url) as client:
            (node,) = client.list_nodes()
            assert {"front", "eu"} <= {tag["name"] for tag in client.get_node(node["uuid"])["tags"]}
        process.send_signal(signal.SIGTERM)
        assert process.wait(60) == 0


def test_every_command_has_a_help_text(run: Run) -> None:
    def walk(
        command: click.Command, path: tuple[str, ...]
    ) -> Iterator[tuple[tuple[str, ...], click.Command]]:
        yield path, command
        if isinstance(command, click.Group):
            for name, child in command.commands.items():
                yield from walk(child, (*path, name))

    for path, command in walk(cli.main, ()):
        assert command.help, path
    assert run("--help").exit_code == 0


def test_without_the_extra_one_sentence_says_what_to_install() -> None:
    code = "import sys; sys.modules['click'] = None; import pulumi_tutum.cli"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 1
    assert (
        done.stderr
        == "pulumi-tutum: the command needs the extra `server`: pip install 'pulumi-tutum[server]'\n"
    )


def test_without_the_servers_libraries_serve_says_what_to_install() -> None:
    code = "import sys; sys.modules['uvicorn'] = None; from pulumi_tutum.cli import main; main(['serve'])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 2
    assert "pip install 'pulumi-tutum[server]'" in done.stderr
    assert "Traceback" not in done.stderr
