"""The programs and commands of the README, taken out of it and run as they are."""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pexpect
import pytest

import pulumi_tutum
from tests.support.engine import ENGINE, Project
from tests.support.readme import block
from tests.support.server import Server
from tests.support.tools import need, until

pytestmark = pytest.mark.engine

FIRST = "A first program"
DEMO = Path(__file__).resolve().parents[2] / "examples" / "demo.py"


@pytest.fixture(scope="module")
def server() -> Iterator[Server]:
    with Server() as running:
        yield running


@pytest.fixture
def client(server: Server) -> pulumi_tutum.Client:
    return pulumi_tutum.Client(server.user, server.apikey, rest_host=server.url)


def test_first_program_as_pasted(server: Server, client: pulumi_tutum.Client, tmp_path: Path) -> None:
    """The files and the commands of the section, in its order, in a shell."""
    with Project(tmp_path / "p", block(FIRST, "python"), name="unused", env=server.environment) as project:
        folder = tmp_path / "pasted"
        folder.mkdir()
        (folder / "Pulumi.yaml").write_text(block(FIRST, "yaml"))
        (folder / "__main__.py").write_text(block(FIRST, "python"))
        # What the README sets must come from there.
        env = {
            k: v
            for k, v in project.env.items()
            if k not in ("PULUMI_BACKEND_URL", "PULUMI_CONFIG_PASSPHRASE")
        }
        shell = shutil.which("bash") or "sh"
        done = subprocess.run(
            [shell, "-euxo", "pipefail", "-c", block(FIRST, "shell", 2)],
            cwd=folder,
            env=env,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            timeout=100,
        )
        assert done.returncode == 0, done.stdout
        assert "Running" in done.stdout
        assert (folder / ".pulumi").is_dir()
        assert "choose-a-password" not in server.log()
    assert not [s for s in client.list_services() if s["state"] != "Terminated"]


def test_serve_as_pasted(tmp_path: Path) -> None:
    """The README's credentials and options for the control plane are taken, and it keeps its data there."""
    credentials, command = block(FIRST, "shell", 1).splitlines()
    export, *pairs = credentials.split()
    assert export == "export"
    chosen = dict(pair.split("=") for pair in pairs)
    assert command.startswith("pulumi-tutum serve --data ")
    data = tmp_path / command.split()[-1]
    with Server(user=chosen["TUTUM_USER"], apikey=chosen["TUTUM_APIKEY"], data=data) as running:
        client = pulumi_tutum.Client(chosen["TUTUM_USER"], chosen["TUTUM_APIKEY"], rest_host=running.url)
        client.create_service({"image": "tutum/hello-world", "name": "kept"})
        running.restart(kill=True)
        assert client.find_service("kept")["state"] == "Not running"


def test_adopting_as_pasted(server: Server, client: pulumi_tutum.Client, tmp_path: Path) -> None:
    legacy = client.create_service({"image": "acme/web:1", "name": "legacy-web"})
    client.start_service(legacy["uuid"])
    program = block("Services that exist already", "python", 0)
    with Project(tmp_path / "p", program, env=server.environment) as project:
        assert "adopt" in project.preview().output
        project.up()
        service = project.resources()["legacy"]
        assert service["id"] == legacy["uuid"]
        assert client.get_service(legacy["uuid"])["image_name"] == "acme/web:2"
        project.destroy()
    assert client.get_service(legacy["uuid"])["state"] == "Terminated"


def test_reading_as_pasted(server: Server, client: pulumi_tutum.Client, tmp_path: Path) -> None:
    shared = client.create_service({"image": "tutum/mysql", "name": "shared-db"})
    with Project(
        tmp_path / "p", block("Services that exist already", "python", 1), env=server.environment
    ) as project:
        project.up()
        assert project.outputs() == {"shared": "Not running"}
        project.destroy()
    assert client.get_service(shared["uuid"])["state"] == "Not running"
    client.terminate_service(shared["uuid"])


def test_second_account_as_pasted(tmp_path: Path) -> None:
    program = block("A second account", "python")
    assert '"https://tutum.example.com"' in program
    with Server(user="alice", apikey="key-of-alice-0123456789") as other:
        program = program.replace("https://tutum.example.com", other.url)
        config, secrets = {"otherUser": other.user}, {"otherKey": other.apikey}
        with Project(tmp_path / "p", program, config=config, secrets=secrets) as project:
            project.up()
            (service,) = pulumi_tutum.Client(other.user, other.apikey, rest_host=other.url).list_services()
            assert service["state"] == "Running"
            project.destroy()
            assert not [path for path, text in project.written() if other.apikey in text]


@pytest.fixture
def engine() -> None:
    need("Pulumi engine", (ENGINE / "pulumi").exists(), "make engine")


@pytest.mark.usefixtures("engine")
def test_demo(tmp_path: Path) -> None:
    """`make demo` from beginning to end; what it makes is below TMPDIR, and is gone."""
    done = run_demo(tmp_path)
    assert done.returncode == 0, done.stdout
    assert "everything of the demo is removed" in done.stdout
    assert not list(tmp_path.iterdir())


def run_demo(folder: Path, **options: Any) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, DEMO],
        env=os.environ | {"TMPDIR": str(folder)},
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=110,
        **options,
    )


@pytest.mark.usefixtures("engine")
@pytest.mark.parametrize("signum", [signal.SIGINT, signal.SIGTERM])
def test_interrupted_demo_leaves_nothing(signum: signal.Signals, tmp_path: Path) -> None:
    """Ctrl-C at a terminal, or SIGTERM, in the middle of its `up`."""
    demo = pexpect.spawn(
        sys.executable,
        [str(DEMO)],
        env=os.environ | {"TMPDIR": str(tmp_path)},
        encoding="utf-8",
        timeout=100,
    )
    with contextlib.closing(demo):
        demo.expect_exact("pulumi up --yes")
        demo.expect("creating")
        demo.sendintr() if signum == signal.SIGINT else demo.kill(signum)
        demo.expect(pexpect.EOF)
    assert demo.exitstatus == 130
    assert not list(tmp_path.iterdir())
    until(lambda: not processes_of(tmp_path), f"end of the processes {processes_of(tmp_path)}")


def processes_of(folder: Path) -> list[str]:
    """The command lines of running processes in whose environment a folder stands. Linux only."""
    found = []
    for entry in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError):
            if os.fsencode(folder) in (entry / "environ").read_bytes():
                found.append((entry / "cmdline").read_bytes().replace(b"\0", b" ").decode())
    return found
