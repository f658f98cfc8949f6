"""`pulumi-tutum serve`: its options, what it prints, and how it starts and ends."""

from __future__ import annotations

import json
import re
import shutil
import signal
import socket
import ssl
import subprocess
from pathlib import Path

import pytest
import requests

from tests.contract.conftest import V1, Api, Backend
from tests.support.server import Server, run_to_end
from tests.support.tools import need, until

CREDENTIALS = {"TUTUM_USER": "bob", "TUTUM_APIKEY": "k3y"}


def sentence(*arguments: str, environ: dict[str, str] | None = None) -> str:
    """What a start that cannot be says: one line, exit code 2, nothing on standard output."""
    done = run_to_end(*arguments, environ=environ)
    assert done.returncode == 2, done.stderr
    assert done.stdout == ""
    assert "Traceback" not in done.stderr
    assert done.stderr.count("\n") == 1
    return done.stderr.strip()


def test_output_is_one_line(backend: Backend) -> None:
    with Server(backend=backend.name, **backend.options) as server:
        requests.get(server.url + "/health", timeout=60)
        assert server.stop() == 0
        assert server.output == [f"listening on {server.url}"]
        assert re.fullmatch(r"http://127\.0\.0\.1:[0-9]+", server.url)


def test_made_credentials_are_shown_once(backend: Backend, tmp_path: Path) -> None:
    with Server(backend=backend.name, apikey=None, data=tmp_path, **backend.options) as server:
        assert [line.partition("=")[0] for line in server.output[:2]] == ["TUTUM_USER", "TUTUM_APIKEY"]
        assert len(server.output) == 3
        first = server.apikey
        assert requests.get(server.url + V1 + "/auth/", auth=server.auth, timeout=60).status_code == 200
        server.restart(kill=True)
        assert len(server.output) == 4, "the second start shows none"
        assert requests.get(server.url + V1 + "/auth/", auth=server.auth, timeout=60).status_code == 200
        assert first not in server.log()
        for file in tmp_path.rglob("*"):
            assert first.encode() not in file.read_bytes()


def test_health_says_what_is_well(api: Api) -> None:
    body = api.ok("GET", "/health")
    assert body["status"] == "ok"
    assert body["backend"] == api.backend.name


def test_port_in_use(api: Api) -> None:
    port = api.server.url.rpartition(":")[2]
    assert sentence("--port", port, environ=CREDENTIALS).startswith(
        f"pulumi-tutum: Cannot listen on 127.0.0.1:{port}: "
    )


@pytest.mark.parametrize(
    ("arguments", "text"),
    [
        (["--host", "0.0.0.0"], "--insecure"),
        (["--host", "::"], "--insecure"),
        (["--host", "no.such.host.invalid", "--insecure"], "not an address"),
        (["--tls-cert", __file__], "go together"),
        (["--tls-cert", __file__, "--tls-key", __file__], "cannot be used"),
        (["--data", "/dev/null/folder"], "the data folder /dev/null/folder"),
        (["--node", "a=x y"], "tags[0].name: must be"),
        (["--node", "=x"], "must be NAME"),
        (["--node", "a", "--node", "a=x"], "'a' is given twice"),
        (["--dns-suffix", "a b"], "--dns-suffix 'a b' must be"),
        (["--public-address", "http://x/"], "--public-address 'http://x/' must be"),
    ],
)
def test_what_prevents_a_start_is_one_sentence(arguments: list[str], text: str) -> None:
    assert text in sentence(*arguments, environ=CREDENTIALS)


def test_public_address_needs_credentials() -> None:
    assert "set TUTUM_USER and TUTUM_APIKEY" in sentence("--host", "0.0.0.0", "--insecure")


def test_public_address_with_credentials(backend: Backend) -> None:
    with Server(backend=backend.name, host="0.0.0.0", insecure=True, **backend.options) as server:
        url = server.url.replace("0.0.0.0", "127.0.0.1")
        assert requests.get(url + V1 + "/auth/", auth=server.auth, timeout=60).status_code == 200


def test_data_of_another_server(backend: Backend, tmp_path: Path) -> None:
    with Server(backend=backend.name, data=tmp_path, **backend.options):
        assert "Another server" in sentence("--port", "0", "--data", str(tmp_path), environ=CREDENTIALS)


def test_unknown_options_and_values() -> None:
    for arguments in (
        ["--no-such-option"],
        ["--backend", "lxc"],
        ["--port", "x"],
        ["--port", "99999"],
        ["--log-level", "loud"],
        ["--tls-cert", "/nonexistent"],
        ["--nodes", "-1"],
        ["--container-start-seconds", "-1"],
    ):
        done = run_to_end(*arguments, environ=CREDENTIALS)
        assert done.returncode == 2
        assert "Traceback" not in done.stderr


# -- TLS


@pytest.fixture(scope="module")
def certificate(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    need("openssl", shutil.which("openssl"), "install it with the system's packages")
    folder = tmp_path_factory.mktemp("tls")
    cert, key = folder / "cert.pem", folder / "key.pem"
    command = [
        "openssl",
        "req",
        "-x509",
        "-newkey",
        "rsa:2048",
        "-nodes",
        "-days",
        "2",
        "-subj",
        "/CN=localhost",
    ]
    names = ["-addext", "subjectAltName=DNS:localhost,IP:127.0.0.1"]
    done = subprocess.run(
        [*command, *names, "-keyout", str(key), "-out", str(cert)],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return cert, key


def test_tls(backend: Backend, certificate: tuple[Path, Path]) -> None:
    import websocket

    cert, key = certificate
    options = {"tls_cert": cert, "tls_key": key, "host": "0.0.0.0", **backend.options}
    with Server(backend=backend.name, **options) as server:
        assert server.url.startswith("https://")
        url = server.url.replace("0.0.0.0", "127.0.0.1")
        answer = requests.get(url + V1 + "/auth/", auth=server.auth, verify=str(cert), timeout=60)
        assert answer.status_code == 200
        with pytest.raises(requests.exceptions.SSLError):
            requests.get(url + "/health", timeout=60)
        stream = websocket.create_connection(
            url.replace("https", "wss") + "/v1/events",
            header=server.headers,
            sslopt={"ca_certs": str(cert), "cert_reqs": ssl.CERT_REQUIRED},
            timeout=60,
        )
        stream.ping("x")
        assert stream.recv_data(control_frame=True)[0] == websocket.ABNF.OPCODE_PONG
        # Plain HTTP to a TLS port ends; it does not hang or break the server.
        with socket.create_connection(("127.0.0.1", int(url.rpartition(":")[2])), 60) as plain:
            plain.sendall(b"GET / HTTP/1.1\r\nHost: a\r\n\r\n")
            while plain.recv(1024):
                pass
        # A connection whose end has begun, and whose other end takes its time, keeps the server from nothing.
        stream.send_close()
        assert stream.recv_data(control_frame=True)[0] == websocket.ABNF.OPCODE_CLOSE
        assert server.stop() == 0, server.log()
        stream.shutdown()  # type: ignore[no-untyped-call]


# -- ends


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_signals_end_it_cleanly(backend: Backend, number: signal.Signals) -> None:
    with Server(backend=backend.name, **backend.options) as server, Api(server, backend) as api:
        api.run()
        # An idle connection must not hold it up.
        idle = socket.create_connection(("127.0.0.1", int(server.url.rpartition(":")[2])))
        server.send_signal(number)
        assert server.wait() == 0
        idle.close()
        events = [json.loads(line)["event"] for line in server.log().splitlines()]
        assert "started" in events
        assert events[-1] == "stopped"


# -- data


def test_everything_acknowledged_survives_a_kill(backend: Backend, tmp_path: Path) -> None:
    options = {**backend.options, "data": tmp_path}
    with Server(backend=backend.name, **options) as server, Api(server, backend) as api:
        made = [api.create(container_envvars={"A": str(i)})["uuid"] for i in range(5)]
        runs = api.run(target_num_containers=2)
        moving = api.create(target_num_containers=3)["uuid"]
        api.act(moving, "start")
        before = [api.get(uuid) for uuid in made]
        server.restart(kill=True)
        assert [api.get(uuid) for uuid in made] == before
        again = api.wait(runs["uuid"], "Running")
        assert again["containers"] == runs["containers"]
        api.wait(moving, "Running")
        api.end(moving)
        server.restart()
        assert api.get(moving)["state"] == "Terminated"


def test_the_output_of_a_removed_job_outlives_the_server(tmp_path: Path, backend: Backend) -> None:
    with (
        Server(backend=backend.name, data=tmp_path, **backend.options) as server,
        Api(server, backend) as api,
    ):
        job = api.create(
            container_envvars={"SIMULATE_EXIT": "0", "SIMULATE_EXIT_AFTER": "0"},
            run_command="sh -c 'echo Started'",
            autodestroy="ON_SUCCESS",
        )
        api.act(job["uuid"], "start")
        api.wait(job["uuid"], "Not running")
        (container,) = api.listed(f"{V1}/container/", service=job["resource_uri"])
        api.wait(container["uuid"], "Terminated", kind="container")
        for kill in (True, False):
            server.restart(kill=kill)
            assert "Started" in api.ok("GET", f"{job['resource_uri']}logs/")["logs"]


def test_terminated_services_are_forgotten_after_a_while(backend: Backend) -> None:
    options = {**backend.options, "retain_terminated": 0.5}
    with Server(backend=backend.name, **options) as server, Api(server, backend) as api:
        uuid = api.create()["uuid"]
        api.ok("DELETE", f"{V1}/service/{uuid}/", 202)
        until(lambda: api.call("GET", f"{V1}/service/{uuid}/").status_code == 404, "it is forgotten")
        assert uuid not in [o["uuid"] for o in api.listed(f"{V1}/service/", limit=0)]


def test_names_and_addresses(backend: Backend) -> None:
    ports = [{"protocol": "tcp", "inner_port": 80, "outer_port": 8099, "published": True}]
    with Server(backend=backend.name, dns_suffix="example.org", **backend.options) as server:
        api = Api(server, backend)
        service = api.create(name="Web", container_ports=ports)
        assert service["public_dns"] == "web.bob.svc.example.org"
        assert service["container_ports"][0]["endpoint_uri"] == "http://web.bob.svc.example.org:8099/"
    for address, host in (("192.0.2.7", "192.0.2.7"), ("2001:db8::7", "[2001:db8::7]")):
        with Server(backend=backend.name, public_address=address, **backend.options) as server:
            api = Api(server, backend)
            service = api.create(name="Web", container_ports=ports)
            assert service["public_dns"] == "web.bob.svc.localhost"
            assert service["container_ports"][0]["endpoint_uri"] == f"http://{host}:8099/"


@pytest.mark.usefixtures("simulated")
def test_nodes_and_their_tags(backend: Backend) -> None:
    with Server(backend=backend.name, nodes=3, node=["front=web,eu", "back"]) as server:
        nodes = Api(server, backend).listed(f"{V1}/node/")
        tags = {node["nickname"]: {tag["name"] for tag in node["tags"]} for node in nodes}
        assert len(tags) == 3
        assert {"web", "eu"} <= tags["front"]
        assert not {"web", "eu"} & tags["back"]
