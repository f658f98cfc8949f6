"""How many containers an engine is told to start at the same time. The engine here is one that answers as an
engine does, counts, and starts nothing: a real one does not tell."""

from __future__ import annotations

import asyncio
import json
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import pytest

from pulumi_tutum.server.backends import RUNNING, ContainerSpec, Observed
from pulumi_tutum.server.backends.docker import DockerBackend
from pulumi_tutum.server.backends.engine import Address

CPUS = 2
AT_ONCE = 2 * CPUS


class Counting(ThreadingHTTPServer):
    """An engine. Starts end when `gate` is open."""

    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _Answers)
        self.gate = threading.Event()
        self.lock = threading.Lock()
        self.inside = self.most = 0

    def enter(self) -> None:
        with self.lock:
            self.inside += 1
            self.most = max(self.most, self.inside)

    def leave(self) -> None:
        with self.lock:
            self.inside -= 1


class _Answers(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: Counting

    def log_message(self, *_: Any) -> None:
        """Say nothing."""

    def answer(self, body: Any, status: int = 200) -> None:
        data = b"" if body is None else json.dumps(body).encode()
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)

    def do_GET(self) -> None:
        path = self.path.partition("?")[0].removeprefix("/v1.41")
        if path == "/events":
            self.send_response(200)
            self.end_headers()
            self.wfile.flush()
            self.rfile.read(1)  # until the other end is closed
        elif path == "/version":
            self.answer({"ApiVersion": "1.41"})
        elif path == "/info":
            self.answer({"NCPU": CPUS})
        elif path.startswith("/networks/"):
            self.answer({"IPAM": {"Config": []}})
        elif path in ("/networks", "/containers/json"):
            self.answer([])
        else:
            identity = path.split("/")[2]
            self.answer({"Id": identity, "State": {"Running": True}, "Config": {"Labels": {}}})

    def do_POST(self) -> None:
        self.rfile.read(int(self.headers.get("Content-Length") or 0))
        if not self.path.endswith("/start"):
            self.answer({"Id": self.path.rpartition("=")[2]}, 201)
            return
        self.server.enter()
        self.server.gate.wait()
        self.server.leave()
        self.answer(None, 204)


class _Nobody:
    """A watcher that does not care."""

    def container_changed(self, seen: Observed) -> None: ...

    def nodes_changed(self) -> None: ...

    def image_changed(self, image: str) -> None: ...


@pytest.fixture
def counting() -> Iterator[Counting]:
    with Counting() as engine:
        thread = threading.Thread(target=engine.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        yield engine
        engine.gate.set()
        engine.shutdown()
        thread.join()


async def _until_inside(engine: Counting, count: int) -> None:
    for _ in range(6000):
        if engine.inside >= count:
            return
        await asyncio.sleep(0.01)
    raise AssertionError(f"only {engine.inside} starts are under way, not {count}")


async def _start(engine: Counting, count: int, inside: int) -> list[Observed]:
    """Have `count` containers started, and the starts end when so many are `inside`."""
    backend = DockerBackend([Address("one", f"tcp://127.0.0.1:{engine.server_port}")])
    await backend.open("server", _Nobody(), [])
    try:
        (node,) = await backend.nodes()

        async def create(number: int) -> None:
            await backend.create(
                ContainerSpec(
                    f"c{number}", f"web-{number}", "s", "web", number, node.uuid, "i:1", "r", entrypoint="run"
                )
            )

        for number in range(count):
            await create(number)
        starts = [asyncio.ensure_future(backend.start(f"c{number}")) for number in range(count)]
        await _until_inside(engine, inside)
        for number in range(count, count + 10):  # has further starts arrive, if there are any under way
            await create(number)
        engine.gate.set()
        return await asyncio.gather(*starts)
    finally:
        engine.gate.set()
        await backend.close()


def test_starts_take_turns(counting: Counting) -> None:
    seen = asyncio.run(_start(counting, 3 * AT_ONCE, inside=AT_ONCE))
    assert [s.status for s in seen] == [RUNNING] * 3 * AT_ONCE
    assert counting.most == AT_ONCE


def test_a_start_that_takes_long_keeps_no_other_from_its_turn(counting: Counting) -> None:
    seen = asyncio.run(_start(counting, AT_ONCE + 2, inside=AT_ONCE + 2))
    assert [s.status for s in seen] == [RUNNING] * (AT_ONCE + 2)
