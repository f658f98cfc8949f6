"""Run the benchmarks and print their table; a missed goal is told, and is no error.

usage: bench/run.py [--only a,b] [--quick] [--times N] [--json FILE] [--peer [PLUGIN]]

--peer adds the group `peer`: the same containers from pulumi-docker. PLUGIN is its `pulumi-resource-docker`.
Without it the one on PATH or in ~/.pulumi/plugins is taken, else one is built with Go (peer_plugin.py). Its
Python package is installed for the run only.
"""

from __future__ import annotations

import argparse
import importlib
import json
import os
import platform
import sys
import tempfile
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
# Started as a script, Python looks into this folder first, where a module may have the name of a library.
sys.path[0] = str(ROOT)

from bench.measure import Group, Line, Missing, Run, Skipped, as_json, markdown, say  # noqa: E402 - as above
from tests.support.interrupts import accept_interrupts  # noqa: E402

#: Name for --only: where its function is, and what it measures.
GROUPS: dict[str, tuple[str, str]] = {
    "a": ("bench.deploys:up_at_once", "up of services whose containers start at once"),
    "b": ("bench.deploys:preview_unchanged", "preview of unchanged services"),
    "c": ("bench.imports:imports", "import of the package"),
    "d": ("bench.deploys:state_size", "size of a service in the state"),
    "e": ("bench.server:requests", "requests a second"),
    "f": ("bench.waits:reaction", "from Running to create's return"),
    "g": ("bench.server:footprint", "start and memory of the control plane"),
    "list": ("bench.server:long_list", "a list of 10,000 services"),
    "speed": ("bench.deploys:all_at_once", "100 services that take 2 s each"),
    "requests": ("bench.waits:requests_per_create", "requests that a create sends"),
    "memory": ("bench.deploys:host_memory", "memory of the provider host"),
    "docker": ("bench.containers:docker", "the Docker backend"),
    "swarm": ("bench.containers:swarm", "the swarm backend"),
    "healing": ("bench.containers:healing", "a swarm that loses a node"),
    "outages": ("bench.outages:outages", "a service that is redeployed"),
    "logs": ("bench.containers:logs", "log lines a second"),
    "peer": ("bench.containers:peer", "pulumi-docker on Docker"),
}
#: Groups that fetch what the project does not depend on: measured only when they are asked for.
ON_REQUEST = {"peer"}


def group(name: str) -> Group:
    """The function that measures a group; imported only when it is asked for."""
    module, function = GROUPS[name][0].split(":")
    found: Group = getattr(importlib.import_module(module), function)
    return found


def chosen(only: str, *, peer: bool) -> list[str]:
    """The names of the groups to measure: those of `--only`, or all; and `peer` with `--peer`."""
    names = [name for name in only.split(",") if name] or [name for name in GROUPS if name not in ON_REQUEST]
    return [*names, "peer"] if peer and "peer" not in names else names


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description="Measure, and print the table of ratios.")
    parser.add_argument("--only", help=f"comma-separated groups of {', '.join(GROUPS)}", default="")
    parser.add_argument(
        "--quick", action="store_true", help="few samples of small runs: does it work at all?"
    )
    parser.add_argument("--times", type=int, help="samples of each figure (default: 5; 2 when quick)")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the results there too")
    parser.add_argument(
        "--peer",
        nargs="?",
        const="",
        metavar="PLUGIN",
        help="measure pulumi-docker too, with this pulumi-resource-docker, or one that is found or built",
    )
    options = parser.parse_args(arguments)
    names = chosen(options.only, peer=options.peer is not None)
    unknown = [name for name in names if name not in GROUPS]
    if unknown:
        parser.error(f"unknown: {', '.join(unknown)}; known are {', '.join(GROUPS)}")

    accept_interrupts()
    lines: list[Line] = []
    failed = False
    with tempfile.TemporaryDirectory(prefix="pulumi-tutum-bench-") as folder:
        times = options.times or (2 if options.quick else 5)
        named = Path(options.peer) if options.peer else None
        run = Run(Path(folder), times, options.quick, named)
        for name in names:
            say(f"{name}: {GROUPS[name][1]}")
            try:
                lines.extend(group(name)(run))
            except Missing as problem:
                lines.append(Skipped(name, GROUPS[name][1], str(problem)))
            except Exception as error:  # the other groups still count
                failed = True
                say(f"{name} failed: {error!r}")
                lines.append(Skipped(name, GROUPS[name][1], f"failed: {type(error).__name__}"))
    machine = f"{os.cpu_count()} cores, Python {platform.python_version()}, {platform.machine()}"
    bytecode = "set" if os.environ.get("PYTHONDONTWRITEBYTECODE") else "not set"
    machine += f", PYTHONDONTWRITEBYTECODE {bytecode}"
    print(f"Medians of {run.times}, on {machine}{', quick' if run.quick else ''}.\n")
    print(markdown(lines))
    if options.json:
        options.json.write_text(json.dumps(as_json(lines), indent=2) + "\n", encoding="utf-8")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
