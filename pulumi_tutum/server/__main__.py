"""`python -m pulumi_tutum.server`: the same as `pulumi-tutum serve`, without the other commands."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from .app import ALLOWANCES, BACKENDS, LOG_LEVELS, ServeOptions, serve


def node(text: str) -> tuple[str, tuple[str, ...]]:
    """`NAME` or `NAME=tag,tag`."""
    name, _, tags = text.partition("=")
    return name, tuple(tag for tag in tags.split(",") if tag)


def options(arguments: list[str]) -> ServeOptions:
    parser = argparse.ArgumentParser(prog="pulumi-tutum serve")
    default = ServeOptions()
    parser.add_argument("--host", default=default.host)
    parser.add_argument("--port", type=int, default=default.port)
    parser.add_argument("--backend", choices=BACKENDS, default=default.backend)
    parser.add_argument("--data", type=Path)
    parser.add_argument("--nodes", type=int, default=default.nodes)
    parser.add_argument("--node", type=node, action="append", default=[])
    parser.add_argument("--container-start-seconds", type=float, default=default.container_start_seconds)
    parser.add_argument("--lenient", action="store_true")
    parser.add_argument("--start-timeout", type=float, default=default.start_timeout)
    parser.add_argument("--retain-terminated", type=float, default=default.retain_terminated)
    parser.add_argument("--dns-suffix")
    parser.add_argument("--public-address", default=default.public_address)
    parser.add_argument("--tls-cert", type=Path)
    parser.add_argument("--tls-key", type=Path)
    parser.add_argument("--insecure", action="store_true")
    parser.add_argument("--allow", choices=ALLOWANCES, action="append", default=[])
    parser.add_argument("--log-level", choices=LOG_LEVELS, default=default.log_level)
    values = vars(parser.parse_args(arguments))
    values["node"], values["allow"] = tuple(values["node"]), tuple(values["allow"])
    return ServeOptions(**values)


if __name__ == "__main__":
    sys.exit(serve(options(sys.argv[1:])))
