"""Programs of many services on the real engine, beside programs of as many resources that do nothing."""

from __future__ import annotations

import itertools
import json
import math
import os
import shutil
import subprocess
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager, suppress
from functools import cache
from pathlib import Path
from typing import Any

from tests.support.engine import ENGINE, Project
from tests.support.server import Server

from .measure import Line, Row, Run, by_turns, median, ratio, seconds

ROOT = Path(__file__).resolve().parent.parent

#: With it in the environment, each process compiles every module anew.
BYTECODE = ("PYTHONDONTWRITEBYTECODE",)

#: What the programs declare: a small web service as most are.
DECLARED: dict[str, Any] = {
    "image": "tutum/hello-world",
    "container_ports": [{"protocol": "tcp", "inner_port": 80, "published": True}],
    "container_envvars": {"MODE": "production", "GREETING": "hello"},
    "autorestart": "ON_FAILURE",
}
_PROGRAM = """
import json, os
{imports}
declared = json.loads(os.environ["BENCH_DECLARED"])
for number in range(int(os.environ["BENCH_COUNT"])):
    {resource}(f"service-{{number}}", **declared)
"""


def program(imports: str, resource: str) -> str:
    """A program that makes as many resources of a class as it is told to."""
    return _PROGRAM.format(imports=imports, resource=resource)


SERVICES = program("import pulumi_tutum", "pulumi_tutum.Service")
NOOPS = program("from bench.peer import Noop", "Noop")
ECHOES = program("from bench.peer import Echo", "Echo")

_numbers = itertools.count()


@contextmanager
def project(
    run: Run,
    program: str,
    count: int,
    env: Mapping[str, str],
    declared: Mapping[str, Any] = DECLARED,
    monitor_seconds: int | None = 0,
) -> Iterator[Project]:
    """A new project whose program makes `count` resources."""
    if not (ENGINE / "pulumi").exists():
        raise RuntimeError("there is no Pulumi engine: run `make engine`")
    folder = run.folder / f"project-{next(_numbers)}"
    folder.mkdir()
    settings = {"BENCH_COUNT": str(count), "BENCH_DECLARED": json.dumps(declared), "PYTHONPATH": str(ROOT)}
    # Projects leave out what is Python's; the two sides run alike.
    settings |= {name: os.environ[name] for name in BYTECODE if name in os.environ}
    with Project(folder, program, env={**settings, **env}, monitor_seconds=monitor_seconds) as made:
        yield made
    shutil.rmtree(folder, ignore_errors=True)


@contextmanager
def services(
    run: Run,
    count: int,
    start_seconds: float = 0.0,
    env: Mapping[str, str] | None = None,
    monitor_seconds: int | None = 0,
) -> Iterator[Project]:
    """A project of services, and a control plane of its own for it; `monitor_seconds` as in Project."""
    with (
        Server(container_start_seconds=start_seconds, log_level="warning") as server,
        project(
            run, SERVICES, count, {**server.environment, **(env or {})}, monitor_seconds=monitor_seconds
        ) as made,
    ):
        yield made


def noops(run: Run, count: int, env: Mapping[str, str] | None = None) -> AbstractContextManager[Project]:
    """A project of resources that do nothing, with the inputs and outputs of a real service."""
    return project(run, NOOPS, count, {"BENCH_RECORDED": str(recorded(run)), **(env or {})})


def echoes(run: Run, count: int) -> AbstractContextManager[Project]:
    """A project of resources that do nothing, and return the inputs of a real service."""
    return project(run, ECHOES, count, {"BENCH_RECORDED": str(recorded(run))})


@cache
def recorded(run: Run) -> Path:
    """The file with the checked inputs and the outputs of a real service, for the peer."""
    with services(run, 1) as made:
        pulumi(made, "up", "--yes", "--skip-preview")
        shown = json.loads(pulumi(made, "stack", "export", "--show-secrets"))
        (service,) = (r for r in shown["deployment"]["resources"] if r["type"].endswith("tutum:Service"))
    inputs, outputs = (
        _plain({k: v for k, v in service[kind].items() if k != "__provider"})
        for kind in ("inputs", "outputs")
    )
    found = {"inputs": inputs, "outputs": outputs, "secrets": service.get("additionalSecretOutputs", [])}
    path = run.folder / "recorded.json"
    path.write_text(json.dumps(found), encoding="utf-8")
    return path


def _plain(value: Any) -> Any:
    """A property without the marks of secrets."""
    if isinstance(value, dict):
        return (
            json.loads(value["plaintext"])
            if "plaintext" in value
            else {k: _plain(v) for k, v in value.items()}
        )
    return [_plain(item) for item in value] if isinstance(value, list) else value


def pulumi(made: Project, *arguments: str) -> str:
    """Run the CLI as a user does; its standard output."""
    done = subprocess.run(
        [str(ENGINE / "pulumi"), *arguments, "--non-interactive", "--color", "never"],
        cwd=made.folder,
        env=made.env,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
    )
    if done.returncode:
        raise RuntimeError(
            f"pulumi {' '.join(arguments)} failed:\n{done.stdout[-3000:]}\n{done.stderr[-3000:]}"
        )
    return done.stdout


def _up_seconds(made: Project, *options: str) -> float:
    return seconds(lambda: pulumi(made, "up", "--yes", "--skip-preview", *options))


def up_at_once(run: Run) -> Iterator[Line]:
    """(a) `up` of services whose containers start at once / of no-op resources."""
    count = run.scaled(50)
    with noops(run, count) as made:
        _up_seconds(made)  # leaves compiled files and a warm disk cache
    what = f"up of {count} services whose containers start at once / of {count} no-op resources"
    yield ratio("a", what, "s", _ups(run, count, noops), goal=1.15)
    for count, goal in ((run.scaled(100), 1.2), (run.scaled(400), 1.3)):
        what = f"up of {count} services / of {count} no-op resources that return their inputs"
        yield ratio("a", what, "s", _ups(run, count, echoes), goal=goal)
    count, window = run.scaled(20), 5.0
    what = (
        f"up of {count} services with the default window, --parallel 200 / {window:g} s + of no-op resources"
    )
    samples = _ups(run, count, noops, "--parallel", "200", monitor_seconds=None)
    yield ratio("a", what, "s", samples, goal=1.15, peer_adds=window)


def _ups(
    run: Run,
    count: int,
    peers: Callable[[Run, int], AbstractContextManager[Project]],
    *options: str,
    monitor_seconds: int | None = 0,
) -> tuple[list[float], list[float]]:
    """Seconds of `up` of services, and of as many peers."""

    def ours() -> float:
        with services(run, count, monitor_seconds=monitor_seconds) as made:
            return _up_seconds(made, *options)

    def peer() -> float:
        with peers(run, count) as made:
            return _up_seconds(made, *options)

    return by_turns(run, ours, peer)


def preview_unchanged(run: Run) -> Iterator[Line]:
    """(b) `preview` of unchanged services / of unchanged no-op resources."""
    for count, goal in ((1, 1.05), (run.scaled(20), 1.1), (run.scaled(100), 1.15)):
        yield _preview(run, count, goal)


def _preview(run: Run, count: int, goal: float) -> Line:
    with services(run, count) as ours, noops(run, count) as peer:
        for made in (ours, peer):
            pulumi(made, "up", "--yes", "--skip-preview")

        def preview(made: Project) -> float:
            return seconds(lambda: pulumi(made, "preview", "--expect-no-changes"))

        samples = by_turns(run, lambda: preview(ours), lambda: preview(peer))
    what = f"preview of {count} unchanged services / of {count} unchanged no-op resources"
    return ratio("b", what, "s", samples, goal=goal)


def state_size(run: Run) -> Iterator[Line]:
    """(d) bytes of state per service less those of a no-op resource / bytes of the API's detail object."""
    from pulumi_tutum import Client

    count = 20
    nothing = run.folder / "nothing.json"
    nothing.write_text(json.dumps({"inputs": {}, "outputs": {}, "secrets": []}), encoding="utf-8")
    with (
        Server(container_start_seconds=0) as server,
        project(run, SERVICES, count, server.environment) as ours,
        project(run, NOOPS, count, {"BENCH_RECORDED": str(nothing)}, {}) as peer,
    ):
        sizes = []
        for made in (ours, peer):
            pulumi(made, "up", "--yes", "--skip-preview")
            sizes.append(
                (made.state / ".pulumi" / "stacks" / made.name / f"{made.stack}.json").stat().st_size
            )
        client = Client(server.user, server.apikey, rest_host=server.url)
        details = [len(_answer(server, s["resource_uri"])) for s in client.list_services()]
    own = (sizes[0] - sizes[1]) / count
    note = f"state file: {sizes[0] / count:,.0f} bytes a service, {sizes[1] / count:,.0f} a no-op resource"
    yield Row(
        "d",
        "state of a service, less a no-op resource's / the API's detail object",
        "bytes",
        own,
        median(details),
        goal=1.5,
        note=note,
    )


def _answer(server: Server, path: str) -> bytes:
    import requests

    answer = requests.get(server.url + path, headers=server.headers, timeout=30)
    answer.raise_for_status()
    return answer.content


def all_at_once(run: Run) -> Iterator[Line]:
    """Services that take 2 s each / 2 s and no-op resources; then with the engine's default parallelism."""
    count, each = run.scaled(100), 2.0

    def samples(run: Run, *options: str) -> tuple[list[float], list[float]]:
        def ours() -> float:
            with services(run, count, start_seconds=each) as made:
                return _up_seconds(made, *options)

        def peer() -> float:
            with noops(run, count) as made:
                return _up_seconds(made, *options)

        return by_turns(run, ours, peer)

    what = f"up of {count} services that take 2 s each, --parallel 200 / 2 s + up of {count} no-op resources"
    yield ratio("speed", what, "s", samples(run, "--parallel", "200"), goal=1.15, peer_adds=each)
    at_a_time = 4 * (os.cpu_count() or 1)
    rounds = math.ceil(count / at_a_time)
    what = f"the same with default parallelism ({at_a_time}) / {rounds} x 2 s + up of {count} no-op resources"
    yield ratio("speed", what, "s", samples(run), peer_adds=rounds * each)


def host_memory(run: Run) -> Iterator[Line]:
    """Peak memory of the provider host / of a no-op resource's host."""
    for count in (run.scaled(100), run.scaled(1000)):
        # A checkpoint after each step would make minutes of the large run; the host knows nothing of it.
        quick = {"PULUMI_SKIP_CHECKPOINTS": "1", "PULUMI_EXPERIMENTAL": "1"}
        peaks = []
        with services(run, count, 1.0, quick) as ours, noops(run, count, quick) as peer:
            for made in (ours, peer):
                peaks.append(_host_peak(made, "--parallel", "200"))
        what = f"peak memory of the provider host, {count} services / {count} no-op resources"
        yield Row("memory", what, "MB", peaks[0], peaks[1], note="once")


def _host_peak(made: Project, *options: str) -> float:
    """The most resident memory that the provider host of an `up` had, in MB."""
    running = made.start("up", "--yes", "--skip-preview", *options)
    peak = 0.0
    while running.process.poll() is None:
        for pid, command in running.children().items():
            if "pulumi.dynamic" in command or "dynamic/__main__" in command:
                with suppress(OSError, ValueError):
                    status = Path(f"/proc/{pid}/status").read_text(encoding="ascii")
                    line = next(line for line in status.splitlines() if line.startswith("VmHWM:"))
                    peak = max(peak, int(line.split()[1]) / 1024)
        time.sleep(0.05)
    if running.wait().returncode or not peak:
        raise RuntimeError(f"the up failed, or its host was not found:\n{running.output[-3000:]}")
    return peak
