"""The control plane beside the least that the same HTTP server can do (bare.py)."""

from __future__ import annotations

import contextlib
import json
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import requests as http

from tests.support.server import Server

from .measure import Line, Row, Run, by_turns, ratio, seconds

ROOT = Path(__file__).resolve().parent.parent


@dataclass(frozen=True)
class _Bare:
    """The peer, while it runs."""

    url: str
    pid: int


@contextlib.contextmanager
def _bare(run: Run, body: bytes) -> Iterator[_Bare]:
    path = run.folder / "body.json"
    path.write_bytes(body)
    command = [sys.executable, "-m", "bench.bare", str(path)]
    process = subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, text=True)
    try:
        assert process.stdout is not None
        line = process.stdout.readline()
        yield _Bare(line.removeprefix("listening on ").strip(), process.pid)
    finally:
        process.terminate()
        process.communicate()


def requests(run: Run) -> Iterator[Line]:
    """(e) GETs of one running service, a second / of the same bytes from a bare ASGI app."""
    with Server(log_level="warning") as server:
        session = _session(server)
        made = session.post(
            f"{server.url}/api/v1/service/", json={"image": "tutum/hello-world", "name": "web"}
        )
        address = server.url + made.json()["resource_uri"]
        session.post(f"{address}start/").raise_for_status()
        while session.get(address).json()["state"] != "Running":
            time.sleep(0.05)
        body = session.get(address).content
        with _bare(run, body) as bare:

            def a_second(url: str) -> float:
                return _requests_a_second(url, server, 0.5 if run.quick else 3.0)

            samples = by_turns(run, lambda: a_second(address), lambda: a_second(bare.url + "/"))
            listed = by_turns(
                run, lambda: a_second(f"{server.url}/api/v1/service/"), lambda: a_second(bare.url + "/")
            )
    yield ratio(
        "e", "GET of one service / bare ASGI app, same bytes", "a second", samples, goal=0.5, at_least=True
    )
    yield ratio("e", "GET of the list, one service / bare ASGI app", "a second", listed)


def long_list(run: Run) -> Iterator[Line]:
    """A list of many running services, page by page as a client reads it / one `json.dumps` of the list."""
    count = run.scaled(10_000)
    with Server(log_level="warning", container_start_seconds=0) as server:
        _create_and_start_all(server, count)
        session = _session(server)
        samples: tuple[list[float], list[float]] = ([], [])
        for _ in range(run.times + 1):
            began = time.perf_counter()
            services = _all_services(session, server)
            samples[0].append(time.perf_counter() - began)
            samples[1].append(seconds(partial(json.dumps, services)))
            assert len(services) == count
    # The first list renders every service; a later one only those that have changed.
    parts = (("the first time", slice(0, 1)), ("again", slice(1, None)))
    for when, part in parts:
        what = f"list of {count:,} services, read {when} / one json.dumps of it"
        yield ratio("list", what, "s", (samples[0][part], samples[1][part]), goal=4)


def _all_services(session: http.Session, server: Server) -> list[dict[str, Any]]:
    """All services, in pages of 1,000, which is the most that the API gives at once."""
    found: list[dict[str, Any]] = []
    path = "/api/v1/service/?limit=1000"
    while path:
        answer = session.get(server.url + path, timeout=60)
        answer.raise_for_status()
        page = answer.json()
        found += page["objects"]
        path = page["meta"]["next"]
    return found


def _requests_a_second(url: str, server: Server, seconds: float) -> float:
    authorization = server.headers["Authorization"]
    command = [sys.executable, "-m", "bench.load", url, str(seconds), authorization]
    done = subprocess.run(command, cwd=ROOT, stdout=subprocess.PIPE, check=True, text=True)
    return float(done.stdout)


def _session(server: Server) -> http.Session:
    session = http.Session()
    session.headers.update(server.headers)
    return session


def footprint(run: Run) -> Iterator[Line]:
    """(g) start to first answer, and resident memory: idle, with services defined, with services running."""
    body = b'{"meta": {}, "objects": []}'

    def ours() -> float:
        began = time.perf_counter()
        with Server(log_level="warning") as server:
            http.get(f"{server.url}/api/v1/service/", headers=server.headers, timeout=30).raise_for_status()
            return time.perf_counter() - began

    def peer() -> float:
        began = time.perf_counter()
        with _bare(run, body) as bare:
            http.get(bare.url, timeout=30).raise_for_status()
            return time.perf_counter() - began

    yield ratio("g", "control plane, start to first answer / bare ASGI app", "s", by_turns(run, ours, peer))

    def idle() -> float:
        with Server(log_level="warning") as server:
            http.get(f"{server.url}/api/v1/service/", headers=server.headers, timeout=30).raise_for_status()
            return server.resident_bytes() / 2**20

    def bare_idle() -> float:
        with _bare(run, body) as bare:
            http.get(bare.url, timeout=30).raise_for_status()
            return _resident(bare.pid)

    yield ratio(
        "g", "control plane, resident memory, idle / bare ASGI app", "MB", by_turns(run, idle, bare_idle)
    )
    yield from _with_services(run, "in memory", None)
    yield from _with_services(run, "with --data", run.folder / "data")


def _with_services(run: Run, where: str, data: Path | None) -> Iterator[Line]:
    """Memory with many services, all of them running, and how long creating and starting them took."""
    count = run.scaled(10_000)
    with Server(log_level="warning", container_start_seconds=0, data=data) as server:
        before = server.resident_bytes()
        took = _create_and_start_all(server, count)
        after = server.resident_bytes()
    note = f"{(after - before) / count / 1024:.1f} KB each; made and started at {count / took:,.0f} a second"
    yield Row(
        "g", f"resident memory with {count:,} running services, {where}", "MB", after / 2**20, note=note
    )


def _create_and_start_all(server: Server, count: int) -> float:
    """Have so many services running; how many seconds it took to create and start them."""
    began = time.perf_counter()
    with ThreadPoolExecutor(8) as pool:
        share = [range(first, count, 8) for first in range(8)]
        list(pool.map(lambda numbers: _create_and_start(server, numbers), share))
    took = time.perf_counter() - began
    session = _session(server)
    while _not_running(session, server):
        time.sleep(0.2)
    return took


def _create_and_start(server: Server, numbers: range) -> None:
    session = _session(server)
    for number in numbers:
        body = {"image": "tutum/hello-world", "name": f"service-{number}"}
        made = session.post(f"{server.url}/api/v1/service/", json=body, timeout=60)
        made.raise_for_status()
        session.post(f"{server.url}{made.json()['resource_uri']}start/", timeout=60).raise_for_status()


def _not_running(session: http.Session, server: Server) -> int:
    total = 0
    for state in ("Not running", "Starting"):
        answer = session.get(
            f"{server.url}/api/v1/service/", params={"state": state, "limit": "1"}, timeout=60
        )
        answer.raise_for_status()
        total += answer.json()["meta"]["total_count"]
    return total


def _resident(pid: int) -> float:
    """Resident memory of a process in MB."""
    pages = int(Path(f"/proc/{pid}/statm").read_text(encoding="ascii").split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE") / 2**20
