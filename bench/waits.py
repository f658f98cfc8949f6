"""How quickly the provider sees that a service runs, and how many requests it needs for it.

The provider class is called as the host calls it, in this process, against a control plane in another one.
"""

from __future__ import annotations

import os
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from typing import Any

from tests.support.faults import FaultProxy
from tests.support.server import Server

from .deploys import ROOT, SERVICES, project, pulumi
from .measure import Line, Row, Run, median, percentile


def reaction(run: Run) -> Iterator[Line]:
    """(f) from the control plane's Running to `create` returning."""
    alone, together = run.scaled(30), run.scaled(100)
    with Server(container_start_seconds=0.5, log_level="warning") as server, _environment(server):
        provider = _provider()
        with _observer(server) as running_since:

            def late(number: int) -> float:
                """Milliseconds that `create` returned after the service was seen Running."""
                name = f"service-{number}"
                checked = provider.check({}, {"image": "tutum/hello-world", "name": name})
                assert not checked.failures, checked.failures
                made = provider.create(checked.inputs)
                returned = time.monotonic()
                return (returned - running_since(made.outs["resource_uri"])) * 1000

            one_by_one = [late(number) for number in range(alone)]
            with ThreadPoolExecutor(together) as pool:
                at_once = list(pool.map(late, range(alone, alone + together)))
    for samples, how, goal in ((one_by_one, "one after another", 50.0), (at_once, "at once", None)):
        what = f"from Running to create's return, 95th percentile of {len(samples)}, {how}"
        spread = (min(samples), max(samples))
        note = f"median {median(samples):.0f} ms"
        yield Row("f", what, "ms", percentile(samples, 0.95), goal=goal, spread=spread, note=note)


def _provider() -> Any:
    from pulumi.dynamic import ConfigureRequest
    from pulumi.dynamic.config import Config

    from pulumi_tutum.provider import ServiceProvider

    provider = ServiceProvider()
    provider.configure(ConfigureRequest(config=Config({"tutum:monitorSeconds": "0"}, "bench")))
    return provider


@contextmanager
def _environment(server: Server) -> Iterator[None]:
    before = dict(os.environ)
    os.environ.update(server.environment)
    try:
        yield
    finally:
        os.environ.clear()
        os.environ.update(before)


@contextmanager
def _observer(server: Server) -> Iterator[Callable[[str], float]]:
    """A function that answers when a service, by its resource URI, became Running; it waits for that."""
    command = [sys.executable, "-m", "bench.observer", server.stream_url, server.headers["Authorization"]]
    process = subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    if process.stdout.readline() != "ready\n":
        process.wait()
        raise RuntimeError("the observer could not listen to the events")
    times: dict[str, float] = {}
    news = threading.Condition()

    def read() -> None:
        assert process.stdout is not None
        for line in process.stdout:
            uri, _, when = line.partition(" ")
            with news:
                times.setdefault(uri, float(when))
                news.notify_all()

    reader = threading.Thread(target=read, daemon=True)
    reader.start()

    def since(uri: str) -> float:
        with news:
            if not news.wait_for(lambda: uri in times, 30):
                raise RuntimeError(f"no event said that {uri} is Running")
            return times[uri]

    try:
        yield since
    finally:
        process.terminate()
        process.wait()
        reader.join()
        process.stdout.close()


def requests_per_create(run: Run) -> Iterator[Line]:
    """Requests of an `up` of many new services, without a preview, counted by a proxy before the server."""
    count = run.scaled(100)
    with Server(container_start_seconds=2.0, log_level="warning") as server, FaultProxy(server.url) as proxy:
        hosts = {"TUTUM_REST_HOST": proxy.url, "TUTUM_STREAM_HOST": proxy.stream_url}
        with project(run, SERVICES, count, {**server.environment, **hosts}) as made:
            pulumi(made, "up", "--yes", "--skip-preview", "--parallel", "200")
        seen = Counter(f"{request.method} {_kind(request.path)}" for request in proxy.seen)
    total = sum(seen.values())
    note = ", ".join(f"{number} {kind}" for kind, number in seen.most_common())
    what = f"requests for each of {count} creates of services that take 2 s"
    yield Row("requests", what, "requests", total / count, goal=6, note=note)


def _kind(path: str) -> str:
    """The last word of a path that is no uuid."""
    words = [word for word in path.split("/") if word and len(word) != 36]
    return words[-1] if words else path
