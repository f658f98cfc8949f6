"""What an engine is told to do, how often, and how much of it at the same time. The engine here is one that
answers as an engine does, counts, and starts nothing: a real one does not tell."""

from __future__ import annotations

import asyncio
import contextlib
import json
import re
import threading
from collections import Counter
from collections.abc import AsyncIterator, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import pytest

from pulumi_tutum.server.backends import RUNNING, ContainerSpec, Observed
from pulumi_tutum.server.backends.docker import DockerBackend
from pulumi_tutum.server.backends.engine import Address

CPUS = 2
STARTS = 2 * CPUS
CREATES = CPUS


class Counting(ThreadingHTTPServer):
    """An engine. What is `held` ends when `gate` is open."""

    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _Answers)
        self.gate = threading.Event()
        self.lock = threading.Lock()
        self.inside = self.most = 0
        self.held = "/start"
        #: Method and path of each request, without ids and the query.
        self.asked: Counter[str] = Counter()

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

    def note(self) -> str:
        path = self.path.partition("?")[0].removeprefix("/v1.41")
        with self.server.lock:
            self.server.asked[f"{self.command} {re.sub(r'web-[0-9]+[.]c[0-9]+', '<id>', path)}"] += 1
        return path

    def do_GET(self) -> None:
        path = self.note()
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
        path = self.note()
        if path.endswith(self.server.held):
            self.server.enter()
            self.server.gate.wait()
            self.server.leave()
        if path.endswith("/create"):
            self.answer({"Id": self.path.rpartition("=")[2]}, 201)
        else:
            self.answer(None, 204)

    def do_DELETE(self) -> None:
        self.note()
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


@contextlib.asynccontextmanager
async def _backend(engine: Counting) -> AsyncIterator[tuple[DockerBackend, str]]:
    """A backend, and its node."""
    backend = DockerBackend([Address("one", f"tcp://127.0.0.1:{engine.server_port}")])
    await backend.open("server", _Nobody(), [])
    try:
        (node,) = await backend.nodes()
        yield backend, node.uuid
    finally:
        engine.gate.set()
        await backend.close()


def _spec(number: int, node: str, **more: Any) -> ContainerSpec:
    return ContainerSpec(
        f"c{number}", f"web-{number}", "s", "web", number, node, "i:1", "r", entrypoint="run", **more
    )


async def _start(engine: Counting, count: int, inside: int) -> list[Observed]:
    """Have `count` containers started, and the starts end when so many are `inside`."""
    async with _backend(engine) as (backend, node):
        for number in range(count):
            await backend.create(_spec(number, node))
        starts = [asyncio.ensure_future(backend.start(f"c{number}")) for number in range(count)]
        await _until_inside(engine, inside)
        for number in range(count, count + 10):  # has further starts arrive, if there are any under way
            await backend.create(_spec(number, node))
        engine.gate.set()
        return await asyncio.gather(*starts)


def test_starts_take_turns(counting: Counting) -> None:
    seen = asyncio.run(_start(counting, 3 * STARTS, inside=STARTS))
    assert [s.status for s in seen] == [RUNNING] * 3 * STARTS
    assert counting.most == STARTS


def test_a_start_that_takes_long_keeps_no_other_from_its_turn(counting: Counting) -> None:
    seen = asyncio.run(_start(counting, STARTS + 2, inside=STARTS + 2))
    assert [s.status for s in seen] == [RUNNING] * (STARTS + 2)


def test_creates_take_turns_of_their_own(counting: Counting) -> None:
    async def create() -> None:
        async with _backend(counting) as (backend, node):
            creates = [asyncio.ensure_future(backend.create(_spec(n, node))) for n in range(5 * CREATES)]
            await _until_inside(counting, CREATES)
            for _ in range(10):  # has further creates arrive, if there are any under way
                await backend.image("i:1", node)
            counting.gate.set()
            await asyncio.gather(*creates)

    counting.held = "/containers/create"
    asyncio.run(create())
    assert counting.most == CREATES


def test_what_a_service_costs(counting: Counting) -> None:
    """Ten containers, from their image to their end: the calls to the engine."""
    count = 10

    async def live(backend: DockerBackend, node: str, number: int) -> None:
        await backend.image("i:1", node)
        await backend.create(_spec(number, node))
        await backend.start(f"c{number}")
        await backend.remove(f"c{number}")

    async def all_of_them() -> None:
        counting.gate.set()
        async with _backend(counting) as (backend, node):
            counting.asked.clear()
            await asyncio.gather(*(live(backend, node, number) for number in range(count)))
            asked.update(counting.asked)

    asked: Counter[str] = Counter()
    asyncio.run(all_of_them())
    assert asked == {
        "GET /images/i:1/json": 1,
        "POST /containers/create": count,
        "POST /containers/<id>/start": count,
        "GET /containers/<id>/json": count,
        "POST /containers/<id>/stop": count,
        "DELETE /containers/<id>": count,
    }
