"""Client and stream over TLS: which certificates are trusted, and that the limits hold there, too."""

from __future__ import annotations

import shutil
import socket
import ssl
import subprocess
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from pulumi_tutum import stream, waiting
from pulumi_tutum.client import Client
from pulumi_tutum.errors import Cancelled, StreamError, TransportError
from tests.support.server import Server
from tests.support.stub import UUID
from tests.support.tools import need


@pytest.fixture(scope="module")
def certificate(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """A certificate for 127.0.0.1 that nobody trusts by himself, and its key."""
    openssl = shutil.which("openssl")
    need("openssl", openssl, "install the package openssl")
    folder = tmp_path_factory.mktemp("tls")
    cert, key = folder / "cert.pem", folder / "key.pem"
    subprocess.run(
        [
            str(openssl), "req", "-x509", "-nodes", "-newkey", "ec",
            "-pkeyopt", "ec_paramgen_curve:prime256v1",
            "-days", "2", "-subj", "/CN=pulumi-tutum test", "-addext", "subjectAltName=IP:127.0.0.1",
            "-keyout", str(key), "-out", str(cert),
        ],
        check=True,
        capture_output=True,
    )  # fmt: skip
    return cert, key


@pytest.fixture(scope="module")
def server(certificate: tuple[Path, Path]) -> Iterator[Server]:
    with Server(tls_cert=certificate[0], tls_key=certificate[1]) as running:
        yield running


def test_a_trusted_certificate(server: Server, certificate: tuple[Path, Path]) -> None:
    with Client(server.user, server.apikey, rest_host=server.url, ca_bundle=str(certificate[0])) as client:
        assert client.settings.stream_host.startswith("wss://")
        made = client.create_service({"image": "tutum/hello-world"}, key="over-tls")
        client.start_service(made["uuid"])
        assert waiting.until(client, made["uuid"], "Running")["state"] == "Running"
        frames = list(stream.logs(client.settings, made["uuid"], follow=False))
        assert all(frame["type"] == "log" for frame in frames)
        client.terminate_service(made["uuid"])


def test_an_unknown_certificate_is_refused_and_the_way_out_named(server: Server) -> None:
    with Client(server.user, server.apikey, rest_host=server.url) as client:
        with pytest.raises(TransportError, match="TUTUM_CA_BUNDLE") as caught:
            client.start_service(UUID)
        assert not caught.value.sent
        with pytest.raises(StreamError, match="TUTUM_CA_BUNDLE"):
            list(stream.logs(client.settings, UUID, follow=False))


@pytest.fixture
def dripping(certificate: tuple[Path, Path]) -> Iterator[str]:
    """An HTTPS server that answers one byte at a time, for ever; yields its address."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(*certificate)
    over = threading.Event()

    def drip(connection: socket.socket) -> None:
        try:
            with context.wrap_socket(connection, server_side=True) as secure:
                secure.recv(65536)
                secure.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 100000\r\n\r\n")
                while not over.wait(0.05):
                    secure.sendall(b" ")
        except OSError:
            # The client has gone, as it should.
            pass

    def accept() -> None:
        while True:
            try:
                connection, _ = listener.accept()
            except OSError:
                return
            threading.Thread(target=drip, args=(connection,), daemon=True).start()

    with socket.create_server(("127.0.0.1", 0)) as listener:
        threading.Thread(target=accept, daemon=True).start()
        yield f"https://127.0.0.1:{listener.getsockname()[1]}"
        over.set()
        listener.shutdown(socket.SHUT_RDWR)


def test_one_byte_at_a_time_ends_at_the_deadline(dripping: str, certificate: tuple[Path, Path]) -> None:
    with (
        Client("bob", "k3y-0123456789", rest_host=dripping, ca_bundle=str(certificate[0])) as client,
        pytest.raises(TransportError, match="did not answer in time"),
    ):
        client.start_service(UUID, deadline=time.monotonic() + 0.5)


def test_one_byte_at_a_time_ends_with_an_interruption(dripping: str, certificate: tuple[Path, Path]) -> None:
    stop = threading.Event()
    threading.Timer(0.3, stop.set).start()
    with (
        Client("bob", "k3y-0123456789", rest_host=dripping, ca_bundle=str(certificate[0])) as client,
        pytest.raises(Cancelled),
    ):
        client.start_service(UUID, deadline=time.monotonic() + 1000, cancelled=stop)
