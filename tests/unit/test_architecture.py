"""ARCHITECTURE.md holds: imports go down only, each third party has its homes, and importing the package is
cheap."""

from __future__ import annotations

import ast
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PACKAGE = ROOT / "pulumi_tutum"

#: What may be imported where; everything else outside of the standard library is a mistake.
HOMES = {
    "pulumi": {"host", "previews", "provider", "removals", "resource"},
    "grpc": {"host"},
    "google": {"host"},
    # docker-py lets errors of requests through.
    "requests": {"transport", "server.backends.engine"},
    "urllib3": {"transport"},
    "websocket": {"stream"},
    "click": {"cli"},
    "rich": {"cli"},
    "anyio": {"server.clock"},
    "starlette": {"server.http", "server.streams"},
    "uvicorn": {"server.app", "server.limits"},
    "uvloop": {"server.app"},
    "docker": {"server.backends.engine", "server.backends.docker", "server.backends.swarm"},
    # Only while types are checked.
    "typing_extensions": {"client"},
}


def modules() -> dict[str, Path]:
    """`server.http` -> its file."""
    found = {}
    for path in PACKAGE.rglob("*.py"):
        parts = path.relative_to(PACKAGE).with_suffix("").parts
        name = ".".join(parts[:-1] if parts[-1] == "__init__" else parts)
        found[name] = path
    return found


def levels() -> dict[str, int]:
    """Module -> its level in ARCHITECTURE.md, where the indent tells the folder."""
    found: dict[str, int] = {}
    folders = {2: ""}
    for line in (ROOT / "ARCHITECTURE.md").read_text(encoding="utf-8").splitlines():
        match = re.match(r"( +)(\w+(?:\.py|/)(?:, \w+\.py)*) .*?(?:level (\d+)|$)", line)
        if not match:
            continue
        indent, names, level = len(match[1]), match[2], int(match[3] or 0)
        for name in re.findall(r"\w+(?=\.py|/)", names):
            full = folders[indent] + name
            found[full] = level
            folders[indent + 2] = f"{full}."
    return found


def imports(path: Path, name: str) -> Iterator[tuple[str, bool]]:
    """Every module that a file imports, `pulumi_tutum.x` as `.x`, and whether only in a function or for
    types."""
    tree = ast.parse(path.read_text(encoding="utf-8"))
    package = name.split(".") if path.name == "__init__.py" and name else name.split(".")[:-1]
    late = set()
    for node in ast.walk(tree):
        is_types = isinstance(node, ast.If) and ast.unparse(node.test) == "TYPE_CHECKING"
        if is_types or isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef)):
            late |= {id(inner) for inner in ast.walk(node)}
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            for alias in node.names:
                yield alias.name, id(node) in late
        elif isinstance(node, ast.ImportFrom) and node.level:
            base = package[: len(package) - (node.level - 1)]
            target = [*base, *(node.module or "").split(".")] if node.module else base
            names = [".".join([*target, alias.name]) for alias in node.names]
            for full in names:
                yield "." + (full if full in modules() else ".".join(target)), id(node) in late
        elif isinstance(node, ast.ImportFrom):
            yield (node.module or "").replace("pulumi_tutum.", ".", 1), id(node) in late


@pytest.mark.parametrize("name", sorted(set(modules()) - {""}))
def test_imports_go_down_only(name: str) -> None:
    known = levels()
    assert name in known, f"ARCHITECTURE.md does not mention {name}"
    for target, late in imports(modules()[name], name):
        # `from . import __version__` is the package itself, which is there by then.
        if not target.startswith(".") or target == "." or late:
            continue
        own = target.removeprefix(".")
        if own == name.rpartition(".")[0] or own.startswith(f"{name}."):
            continue
        assert known[own] < known[name], f"{name} (level {known[name]}) imports {own} (level {known[own]})"


@pytest.mark.parametrize("name", sorted(modules()))
def test_third_parties_have_their_homes(name: str) -> None:
    for target, _ in imports(modules()[name], name):
        party = target.split(".")[0]
        if party and party not in sys.stdlib_module_names and party != "pulumi_tutum":
            assert name in HOMES.get(party, ()), f"{name} imports {party}"


def test_nothing_but_the_command_line_knows_the_server() -> None:
    for name, path in modules().items():
        if name.startswith("server"):
            continue
        for target, late in imports(path, name):
            if target.startswith(".server"):
                assert name == "cli", f"{name} imports {target}"
                assert late, "cli imports the server before it is asked to serve"


def test_importing_the_package_loads_no_server_and_no_http() -> None:
    code = (
        "import sys, pulumi_tutum\n"
        "print([m for m in sys.modules if m.split('.')[0] in ('requests', 'urllib3', 'websocket', 'click')\n"
        "       or m.split('.')[:2] in [['pulumi_tutum', m] for m in ('server', 'transport', 'cli')]])"
    )
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert run.stdout.strip() == "[]"
