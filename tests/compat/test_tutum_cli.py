"""The tutum CLI of 2015, unchanged, against this control plane: every command people used."""

from __future__ import annotations

import json
import os
import re
import subprocess
import textwrap
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import pexpect
import pytest
import requests

from tests.compat.python27 import TUTUM, Python27, with_packages
from tests.support.server import Server
from tests.support.tools import until

Tutum = Callable[..., str]


@pytest.fixture(scope="module")
def python27() -> Python27:
    return with_packages(TUTUM)


@pytest.fixture(scope="module")
def cli(python27: Python27, server: Server) -> Tutum:
    """Run `tutum <arguments>`; returns its output, fails when it fails."""

    def run(*arguments: str, stdin: str = "", code: int = 0, environ: dict[str, str] | None = None) -> str:
        done = python27.run(
            "-c",
            "from tutumcli.tutum_cli import main; main()",
            *arguments,
            environ=server.environment if environ is None else environ,
            stdin=stdin,
        )
        assert done.returncode == code, (arguments, done.stdout, done.stderr)
        assert "Traceback" not in done.stderr
        return done.stdout if code == 0 else done.stdout + done.stderr

    return run


def state(cli: Tutum, service: str) -> str:
    return str(json.loads(cli("service", "inspect", service))["state"])


def arrives(cli: Tutum, service: str, wanted: str) -> None:
    until(lambda: state(cli, service) == wanted, f"{service} is {wanted}")


def test_life_of_a_service(cli: Tutum) -> None:
    uuid = cli(
        *("service", "create", "-n", "web", "-t", "2", "-p", "80", "-e", "MODE=prod", "-e", "EMPTY="),
        *("--cpushares", "512", "--memory", "64", "--autorestart", "ON_FAILURE", "--tag", "local"),
        "tutum/hello-world",
    ).strip()
    assert "web" in cli("service", "ps")
    assert "Not running" in cli("service", "ps")
    assert cli("service", "ps", "-q").split() == [uuid]
    service = json.loads(cli("service", "inspect", uuid[:8]))
    assert service["uuid"] == uuid
    assert (service["cpu_shares"], service["memory"], service["autorestart"]) == (512, 64, "ON_FAILURE")
    assert service["container_envvars"] == [
        {"key": "MODE", "value": "prod"},
        {"key": "EMPTY", "value": ""},
    ]
    assert cli("service", "start", "web").strip() == uuid
    arrives(cli, "web", "Running")
    assert uuid[:8] in cli("service", "ps", "-s", "Running")
    assert cli("service", "scale", "web", "3").strip() == uuid
    arrives(cli, "web", "Running")
    assert json.loads(cli("service", "inspect", "web"))["current_num_containers"] == 3
    cli("service", "set", "-e", "MODE=test", "--redeploy", "web")
    arrives(cli, "web", "Running")
    cli("service", "redeploy", "--not-reuse-volumes", "web")
    arrives(cli, "web", "Running")
    cli("service", "stop", "web")
    arrives(cli, "web", "Stopped")
    assert "tutum-cli/0.21.1 python-tutum/0.21.1" in cli("action", "inspect", last_action(cli))
    cli("service", "terminate", "web")
    arrives(cli, uuid, "Terminated")


def last_action(cli: Tutum) -> str:
    return cli("action", "list", "-q", "-l", "100").split()[-1]


def test_run_with_sync(cli: Tutum) -> None:
    """The CLI polls the action of the header until it is done."""
    output = cli("service", "run", "--sync", "-n", "synced", "tutum/hello-world")
    assert "Success" in output
    assert state(cli, "synced") == "Running"
    output = cli("service", "terminate", "--sync", "synced")
    assert "Success" in output


def test_run_short_form_with_links_and_volumes(cli: Tutum) -> None:
    cli("run", "-n", "db", "--expose", "3306", "-v", "/var/lib/mysql", "tutum/mysql")
    uuid = cli(
        *("run", "-n", "app", "--link-service", "db:DB", "--volumes-from", "db", "-p", "8080:80"),
        *("--role", "global", "--deployment-strategy", "HIGH_AVAILABILITY", "tutum/wordpress-stackable"),
    ).strip()
    arrives(cli, "app", "Running")
    service = json.loads(cli("service", "inspect", uuid))
    assert [link["name"] for link in service["linked_to_service"]] == ["DB"]
    assert service["container_ports"][0]["outer_port"] == 8080
    assert service["bindings"][0]["volumes_from"].startswith("/api/v1/service/")
    variables = cli("service", "env", "list", "app")
    assert "DB_1_PORT_3306_TCP" in variables
    assert "TUTUM_SERVICE_HOSTNAME" in variables
    assert "app-1" in cli("container", "ps")


def test_wrong_requests_are_errors(cli: Tutum) -> None:
    text = cli("service", "create", "-p", "99999:80", "tutum/hello-world", code=3)
    assert "Status 400" in text
    assert "outer_port" in text
    assert "Cannot find a service" in cli("service", "inspect", "nothing", code=3)
    cli("service", "create", "-n", "same", "tutum/hello-world")
    assert "Status 409" in cli("service", "create", "-n", "same", "tutum/hello-world", code=3)
    assert "Status 400" in cli("service", "stop", "same", code=3)


def test_environment_commands(cli: Tutum) -> None:
    cli("service", "run", "-n", "envs", "-e", "A=1", "tutum/hello-world")
    cli("service", "env", "add", "-e", "B=2", "envs")
    cli("service", "env", "update", "-e", "A=3", "envs")
    assert set(cli("service", "env", "list", "--user", "-q", "envs").split()) == {"A=3", "B=2"}
    assert "(*)" in cli("service", "ps"), "edited and not yet redeployed"
    cli("service", "env", "remove", "-n", "A", "--redeploy", "envs")
    arrives(cli, "envs", "Running")
    cli("service", "env", "set", "-e", "C=4", "envs")
    assert cli("service", "env", "list", "--user", "-q", "envs").split() == ["C=4"]
    assert "PATH" in cli("service", "env", "list", "--image", "envs")


def test_logs(cli: Tutum, python27: Python27, server: Server) -> None:
    cli("service", "run", "-n", "logged", "-e", "SIMULATE_LOG_LINES=20", "tutum/hello-world")
    arrives(cli, "logged", "Running")
    lines = cli("service", "logs", "logged").splitlines()
    assert len(lines) == 21
    assert all("logged-1" in line for line in lines)
    assert len(cli("service", "logs", "-t", "5", "logged").splitlines()) == 5
    assert cli("container", "logs", "logged-1")
    assert "Status" not in cli("action", "logs", last_action(cli))
    with background(python27, server, "service", "logs", "-f", "logged") as following:
        assert following.stdout is not None
        assert "logged-1" in following.stdout.readline()
        cli("service", "terminate", "logged")
        _, errors = following.communicate(timeout=60)
    assert following.returncode == 0, errors


@contextmanager
def background(python27: Python27, server: Server, *arguments: str) -> Iterator[subprocess.Popen[str]]:
    """`tutum <arguments>`, killed at the end if it still runs."""
    process = subprocess.Popen(
        [python27.python, "-u", "-c", "from tutumcli.tutum_cli import main; main()", *arguments],
        env=python27.environment(server.environment),
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    with process:
        try:
            yield process
        finally:
            process.kill()


def test_events(cli: Tutum, python27: Python27, server: Server) -> None:
    seen: list[str] = []
    with background(python27, server, "event") as listening:
        assert listening.stdout is not None
        output = listening.stdout.fileno()
        os.set_blocking(output, False)

        def told() -> bool:
            # The CLI does not say when it is connected: something happens until it hears of it.
            cli("service", "create", "tutum/hello-world", "-n", f"event-{os.urandom(3).hex()}")
            with suppress(BlockingIOError):
                seen.append(os.read(output, 65536).decode())
            return "service" in "".join(seen)

        until(told, "an event")


def test_exec(cli: Tutum, python27: Python27, server: Server) -> None:
    """In a terminal, as people use it: without one, the CLI writes to a connection that is closed."""
    cli("service", "run", "-n", "shell", "-e", "WHO=me", "tutum/hello-world")
    arrives(cli, "shell", "Running")
    for command, output in (
        (["exec", "shell-1", "echo", "one two"], "one two"),
        (["container", "exec", "shell-1", "env"], "WHO=me"),
    ):
        child = pexpect.spawn(
            python27.python,
            ["-c", "from tutumcli.tutum_cli import main; main()", *command],
            env=python27.environment(server.environment),
            timeout=60,
            encoding="utf-8",
        )
        child.expect_exact(output)
        child.expect(pexpect.EOF)
        child.close()
        assert child.exitstatus == 0


def test_containers(cli: Tutum) -> None:
    cli("service", "run", "-n", "cont", "-t", "2", "tutum/hello-world")
    arrives(cli, "cont", "Running")
    assert cli("container", "ps", "--service", "cont").count("cont-") >= 2
    assert len(cli("container", "ps", "-q", "--service", "cont").split()) == 2
    container = json.loads(cli("container", "inspect", "cont-2"))
    assert container["state"] == "Running"
    cli("container", "stop", "cont-2")
    until(lambda: json.loads(cli("container", "inspect", "cont-2"))["state"] == "Stopped", "it is stopped")
    assert state(cli, "cont") == "Partly running"
    cli("container", "start", "cont-2")
    arrives(cli, "cont", "Running")
    cli("container", "redeploy", "cont-2")
    arrives(cli, "cont", "Running")
    cli("container", "terminate", "cont-1")
    until(lambda: json.loads(cli("service", "inspect", "cont"))["current_num_containers"] == 1, "one is left")


def test_stacks(cli: Tutum, tmp_path: Path) -> None:
    stackfile = tmp_path / "tutum.yml"
    stackfile.write_text(
        textwrap.dedent(
            """\
            lb:
              image: tutum/haproxy
              links: [web]
              ports: ["80"]
              roles: [global]
            web:
              image: tutum/hello-world
              target_num_containers: 2
              environment: {A: b}
              restart: on-failure
            """
        )
    )
    uuid = cli("stack", "create", "-n", "shop", "-f", str(stackfile)).strip()
    assert "shop" in cli("stack", "list")
    cli("stack", "start", "shop")
    until(lambda: json.loads(cli("stack", "inspect", "shop"))["state"] == "Running", "the stack runs")
    assert "web.shop" in json.loads(cli("service", "inspect", "web.shop"))["public_dns"]
    assert cli("service", "ps", "--stack", "shop").count("shop") >= 2
    assert "tutum/haproxy" in cli("stack", "export", "shop")
    stackfile.write_text(stackfile.read_text().replace("A: b", "A: c"))
    cli("stack", "update", "-f", str(stackfile), "shop")
    cli("stack", "redeploy", "shop")
    until(lambda: json.loads(cli("stack", "inspect", "shop"))["state"] == "Running", "it runs again")
    cli("stack", "stop", "shop")
    until(lambda: json.loads(cli("stack", "inspect", "shop"))["state"] == "Stopped", "it is stopped")
    cli("stack", "terminate", "shop")
    until(lambda: json.loads(cli("stack", "inspect", uuid))["state"] == "Terminated", "it is gone")
    cli("up", "-n", "again", "-f", str(stackfile))
    until(lambda: json.loads(cli("stack", "inspect", "again"))["state"] == "Running", "up starts it")


def test_nodes_clusters_and_tags(cli: Tutum) -> None:
    nodes = cli("node", "list", "-q").split()
    assert len(nodes) == 3
    assert "Deployed" in cli("node", "list")
    assert json.loads(cli("node", "inspect", nodes[0]))["uuid"] == nodes[0]
    cli("tag", "add", "-t", "ssd", "-t", "fast", nodes[0])
    assert {"ssd", "fast"} <= set(cli("tag", "list", "-q", nodes[0]).split())
    cli("tag", "rm", "-t", "ssd", nodes[0])
    assert "ssd" not in cli("tag", "list", "-q", nodes[0]).split()
    cli("service", "create", "-n", "tagged", "tutum/hello-world")
    cli("tag", "set", "-t", "fast", "tagged")
    assert cli("tag", "list", "-q", "tagged").split() == ["fast"]
    assert cli("nodecluster", "list", "-q").split()
    assert cli("nodecluster", "provider", "-q").split() == ["simulated"]
    assert "simulated" in cli("nodecluster", "region")
    assert "simulated" in cli("nodecluster", "nodetype")
    cli("nodecluster", "az")
    assert "sudo -H sh -s" in cli("node", "byo")
    cli("node", "healthcheck", nodes[0])


def test_triggers(cli: Tutum, server: Server) -> None:
    cli("service", "run", "-n", "triggered", "tutum/hello-world")
    cli("trigger", "create", "-n", "push", "triggered")
    # The CLI joins host and path without a slash of its own.
    listed = cli(
        "trigger", "list", "triggered", environ={**server.environment, "TUTUM_REST_HOST": server.url + "/"}
    )
    assert "push" in listed
    (url,) = (word for word in listed.split() if word.endswith("/call/"))
    answer = requests.post(url, data=b"pushed", timeout=60)
    assert answer.status_code == 202
    until(
        lambda: (
            "pushed" in cli("service", "env", "list", "--tutum", "triggered")
            and state(cli, "triggered") == "Running"
        ),
        "it was redeployed with the trigger's body",
    )
    cli("trigger", "rm", "triggered", "push")
    assert "push" not in cli("trigger", "list", "triggered")


def test_volumes_and_groups(cli: Tutum) -> None:
    cli("service", "run", "-n", "vols", "-v", "/data", "tutum/hello-world")
    arrives(cli, "vols", "Running")
    volume = cli("volume", "list", "-q").split()[-1]
    assert json.loads(cli("volume", "inspect", volume))["uuid"] == volume
    group = cli("volumegroup", "list", "-q").split()[-1]
    assert json.loads(cli("volumegroup", "inspect", group))["state"] == "Created"


def test_actions(cli: Tutum) -> None:
    assert "Service" in cli("action", "list")
    action = last_action(cli)
    assert json.loads(cli("action", "inspect", action))["uuid"] == action


def test_login_and_wrong_credentials(cli: Tutum, server: Server, python27: Python27) -> None:
    hosts = {k: v for k, v in server.environment.items() if k.endswith("_HOST")}
    cli("login", "-u", server.user, "-p", server.apikey, environ=hosts)
    kept = python27.packages / "home" / ".tutum"
    cli("service", "ps", environ=hosts)
    # Other releases wrote the credentials in quotes, and sent the quotes along.
    kept.write_text(re.sub(r"basic_auth = (\S+)", r'basic_auth = "\1"', kept.read_text()))
    assert '"' in kept.read_text()
    cli("service", "ps", environ=hosts)
    kept.unlink()
    wrong = {**hosts, "TUTUM_USER": server.user, "TUTUM_APIKEY": "wrong"}
    done = python27.run(
        "-c", "from tutumcli.tutum_cli import main; main()", "service", "ps", environ=wrong, stdin="x\nx\n"
    )
    assert done.returncode != 0
    header = {**hosts, "TUTUM_AUTH": f"ApiKey {server.user}:{server.apikey}"}
    cli("service", "ps", environ=header)
