"""Malformed HTTP over raw sockets, from a seed: an answer in the API's shape or a close, and life goes on."""

from __future__ import annotations

import json
import os
import random
import socket
from collections.abc import Callable, Iterator

import pytest
import requests

from tests.support.server import Server

#: How many requests; `FUZZ_REQUESTS` asks for more by hand, `FUZZ_SEED` for others.
REQUESTS = int(os.environ.get("FUZZ_REQUESTS", "2000"))
SEED = int(os.environ.get("FUZZ_SEED", "20151013"))
SECONDS = 60.0


@pytest.fixture(scope="module")
def server() -> Iterator[Server]:
    with Server(nodes=1, container_start_seconds=0) as running:
        yield running


METHODS = [
    b"GET",
    b"POST",
    b"PATCH",
    b"DELETE",
    b"PUT",
    b"HEAD",
    b"OPTIONS",
    b"TRACE",
    b"get",
    b"G\x00T",
    b"PRI",
    b"",
]
PATHS = [
    b"/api/v1/service/",
    b"/api/v1/service",
    b"/api/v1/service/7eaf7fff-882c-4f3d-9a8f-a22317ac00ce/",
    b"/api/v1/service/7eaf7fff-882c-4f3d-9a8f-a22317ac00ce/start/",
    b"/api/v1/stack/?limit=1&offset=%ff",
    b"/api/v1/action/?start_date__gte=%00",
    b"/api/app/v1/bob/service/",
    b"/v1/events",
    b"/health",
    b"/%2e%2e/%2e%2e/etc/passwd",
    b"/api/v1/service/%",
    b"/api/v1/service/%f",
    b"//",
    b"*",
    b"http://other.example/api/v1/service/",
    b"/\xff\xfe",
    b"/a b",
    b"",
]
VERSIONS = [
    b"HTTP/1.1",
    b"HTTP/1.1",
    b"HTTP/1.1",
    b"HTTP/1.0",
    b"HTTP/2.0",
    b"HTTP/0.9",
    b"HTTP/1.11",
    b"http/1.1",
    b"",
]
SOUND_HEADERS = [
    b"Host: a",
    b"Content-Type: application/json",
    b"Content-Length: 2",
    b"Transfer-Encoding: chunked",
    b"Expect: 100-continue",
    b"Expect: everything",
    b"Connection: close",
    b"Connection: Upgrade",
    b"Upgrade: websocket",
    b"Upgrade: h2c",
    b"Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==",
    b"Sec-WebSocket-Version: 13",
    b"Authorization: ApiKey bob:wrong",
    b"Authorization: Basic \xff\xff",
    b"Cookie: " + b"a=b; " * 500,
    b"X-Long: " + b"x" * 9000,
    b"\xff\xfe: \xfd",
]
BROKEN_HEADERS = [
    b"Content-Type: application/json; charset=\xff",
    b"Content-Length: 99999999999999999999",
    b"Content-Length: -5",
    b"Content-Length: 2, 2",
    b"Content-Length: x",
    b"Transfer-Encoding: gzip, chunked",
    b"Transfer-Encoding: identity",
    b"Sec-WebSocket-Version: 99",
    b"Authorization: ",
    b": no name",
    b"No colon",
    b" folded",
    b"Bad\x00Name: x",
    b"Bad-Value: a\x00b",
]
BODIES = [
    b"",
    b"{}",
    b"{",
    b'{"image": "x"}',
    b"5\r\nhello\r\n0\r\n\r\n",
    b"zz\r\n",
    b"0\r\n\r\n",
    b"\x00" * 100,
    b"FFFFFFFFFFFFFFFFF\r\n",
]
ENDS = [b"\n", b"\r", b"\r\n\r\n"]


def request_line(chance: random.Random, key: bytes) -> bytes:
    """A request that is more or less one."""

    def mostly(parts: list[bytes]) -> bytes:
        return chance.choice(parts[:3] if chance.random() < 0.85 else parts)

    end = b"\r\n" if chance.random() < 0.9 else chance.choice(ENDS)
    lines = [b" ".join((mostly(METHODS), chance.choice(PATHS), mostly(VERSIONS)))]
    lines += chance.sample(SOUND_HEADERS, chance.randint(0, 4))
    if chance.random() < 0.2:
        lines.append(chance.choice(BROKEN_HEADERS))
    if chance.random() < 0.5:
        lines.append(b"Authorization: ApiKey " + key)
    return end.join(lines) + end + end + chance.choice(BODIES)


def damaged(chance: random.Random, key: bytes) -> bytes:
    """A sound request with some bytes changed, dropped or doubled."""
    body = b'{"image": "tutum/hello-world", "tags": ["a"]}'
    data = bytearray(
        b"POST /api/v1/service/ HTTP/1.1\r\nHost: a\r\nAuthorization: ApiKey " + key + b"\r\n"
        b"Content-Type: application/json\r\nContent-Length: " + str(len(body)).encode() + b"\r\n\r\n" + body
    )
    for _ in range(chance.randint(1, 3)):
        at = chance.randrange(len(data))
        match chance.randint(0, 3):
            case 0:
                data[at] = chance.randrange(256)
            case 1:
                del data[at : at + chance.randint(1, 20)]
            case 2:
                data[at:at] = data[at : at + chance.randint(1, 50)]
            case _:
                data[at:at] = bytes(chance.randrange(256) for _ in range(chance.randint(1, 10)))
        if not data:
            data = bytearray(b"\r\n")
    return bytes(data)


def noise(chance: random.Random, key: bytes) -> bytes:
    """No HTTP at all."""
    return bytes(chance.randrange(256) for _ in range(chance.randint(1, 400)))


KINDS: list[Callable[[random.Random, bytes], bytes]] = [request_line, request_line, damaged, damaged, noise]


def test_whatever_comes_the_server_stays_well(server: Server) -> None:
    chance = random.Random(SEED)
    address = ("127.0.0.1", int(server.url.rpartition(":")[2]))
    key = f"{server.user}:{server.apikey}".encode()
    statuses: dict[int, int] = {}
    for number in range(REQUESTS):
        data = chance.choice(KINDS)(chance, key)
        for status in ask(address, data):
            statuses[status] = statuses.get(status, 0) + 1
            assert status < 500 or status in (501, 505), (number, data)
    print(f"\nsockets: {REQUESTS} requests from seed {SEED}, answers {dict(sorted(statuses.items()))}")
    assert requests.get(server.url + "/health", timeout=SECONDS).json()["status"] == "ok"
    log = server.log()
    assert "unexpected error" not in log, log
    assert "Traceback" not in log
    assert "Exception in ASGI" not in log
    assert server.apikey not in log


def ask(address: tuple[str, int], data: bytes) -> Iterator[int]:
    """Send, say that this was all, and read the statuses of the answers; every body must be the API's."""
    answer = b""
    with socket.create_connection(address, SECONDS) as connection:
        try:
            connection.sendall(data)
            connection.shutdown(socket.SHUT_WR)
            while part := connection.recv(65536):
                answer += part
        except (ConnectionResetError, BrokenPipeError):
            pass
    while answer.startswith(b"HTTP/"):
        head, _, rest = answer.partition(b"\r\n\r\n")
        status = int(head.split(b" ", 2)[1])
        yield status
        fields = {
            name.strip().lower(): value.strip()
            for name, _, value in (line.partition(b":") for line in head.split(b"\r\n")[1:])
        }
        length = int(fields.get(b"content-length", b"0"))
        body, answer = rest[:length], rest[length:]
        if (
            status >= 400
            and length
            and fields.get(b"content-type", b"").startswith(b"application/json")
            and body
        ):
            # The answer to a HEAD has a length and no body: what follows is then the next answer.
            if body.startswith(b"HTTP/"):
                answer = rest
            else:
                assert isinstance(json.loads(body)["error"], str)
