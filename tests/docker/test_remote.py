"""Engines that are reached over TLS and over ssh."""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support import images
from tests.support.docker_engine import DockerEngine, run
from tests.support.real import Real
from tests.support.server import Server, StartFailed
from tests.support.tools import need, until

pytestmark = [pytest.mark.docker, pytest.mark.slow]


def free_port() -> int:
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        return int(s.getsockname()[1])


def everything(real: Real) -> None:
    """Calls, events, logs and commands all go the same way."""
    service = real.run(run_command="sh -c 'echo up; exec sleep 1000'", target_num_containers=2)
    real.one(service, 2).kill()
    real.wait(service, "Partly running")
    until(lambda: "up" in real.ok("GET", f"/api/v1/service/{service['uuid']}/logs/")["logs"], "a log line")
    real.terminate_all()


@pytest.fixture
def certificates(tmp_path: Path) -> Path:
    """An authority, a server for 127.0.0.1 and a client, as Docker wants their files to be named."""
    need("openssl", shutil.which("openssl"), "apt-get install openssl")

    def key(name: str, *more: str) -> None:
        run(
            *("openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes"),
            *("-subj", f"/CN={name}", "-days", "2", "-keyout", f"{tmp_path}/{name}-key.pem"),
            *("-out", f"{tmp_path}/{name}.pem", *more),
        )

    key("ca")
    authority = ("-CA", f"{tmp_path}/ca.pem", "-CAkey", f"{tmp_path}/ca-key.pem")
    leaf = ("-addext", "basicConstraints=critical,CA:FALSE")
    key("server", *authority, *leaf, "-addext", "subjectAltName=IP:127.0.0.1")
    key("cert", *authority, *leaf, "-addext", "extendedKeyUsage=clientAuth")
    (tmp_path / "cert-key.pem").rename(tmp_path / "key.pem")
    return tmp_path


def test_an_engine_over_tls(docker_tools: None, certificates: Path) -> None:
    url = f"tcp://127.0.0.1:{free_port()}"
    files = {"cacert": "ca", "cert": "server", "key": "server-key"}
    options = [
        word for name, file in files.items() for word in (f"--tls{name}", f"{certificates}/{file}.pem")
    ]
    with DockerEngine(options=["--host", url, "--tlsverify", *options]) as engine:
        images.load(engine, images.busybox())
        environ = {"DOCKER_CERT_PATH": str(certificates), "DOCKER_TLS_VERIFY": "1"}
        with (
            Server(backend="docker", node=[url], stop_seconds=1, environ=environ) as server,
            Real(server, engine.node_urls) as real,
        ):
            everything(real)
        with pytest.raises(StartFailed, match="cannot be used"):
            Server(backend="docker", node=[url])


@pytest.fixture
def ssh(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """An ssh server on loopback, and settings with which the ssh command reaches it as `box`."""
    sshd = shutil.which("sshd")
    need("ssh server", sshd and shutil.which("ssh"), "apt-get install openssh-server")
    assert sshd is not None
    port = free_port()
    for name in ("host", "user"):
        run("ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", str(tmp_path / name))
    (tmp_path / "sshd").write_text(
        f"Port {port}\nListenAddress 127.0.0.1\nHostKey {tmp_path}/host\nUsePAM no\nStrictModes no\n"
        f"PermitRootLogin yes\nAuthorizedKeysFile {tmp_path}/user.pub\nPidFile none\n"
    )
    (tmp_path / "config").write_text(
        f"Host box\nHostName 127.0.0.1\nPort {port}\nIdentityFile {tmp_path}/user\nUser root\n"
        f"UserKnownHostsFile {tmp_path}/known\nStrictHostKeyChecking no\n"
    )
    (tmp_path / "bin").mkdir()
    command = tmp_path / "bin" / "ssh"
    command.write_text(f'#!/bin/sh\nexec {shutil.which("ssh")} -F {tmp_path}/config "$@"\n')
    command.chmod(0o755)
    monkeypatch.setenv("PATH", f"{command.parent}:{os.environ['PATH']}")
    Path("/run/sshd").mkdir(exist_ok=True)
    with subprocess.Popen(
        [sshd, "-D", "-e", "-f", str(tmp_path / "sshd")], stderr=subprocess.DEVNULL
    ) as daemon:
        yield "box"
        daemon.terminate()


def test_an_engine_over_ssh(engine: DockerEngine, ssh: str) -> None:
    url = f"ssh://{ssh}{engine.url.removeprefix('unix://')}"
    with (
        Server(backend="docker", node=[f"far={url}"], publish_address="0.0.0.0", stop_seconds=1) as server,
        Real(server, engine.node_urls) as real,
    ):
        everything(real)
        # However the server ends, its tunnel ends too.
        server.kill()
        tunnel = f"{url.removeprefix('ssh://box')} -- box"
        until(lambda: tunnel not in run("ps", "-eo", "args"), "the tunnel is gone")
        server.start()
        everything(real)
    with pytest.raises(StartFailed, match="ssh to nobody"):
        Server(backend="docker", node=["ssh://nobody.invalid"], publish_address="0.0.0.0")
