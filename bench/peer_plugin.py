"""Where pulumi-docker comes from when `--peer` asks for it: its plugin, and its SDK for Python.

The first of these is taken:

1. the `pulumi-resource-docker` that `--peer` names;
2. the one on PATH, or the newest one of the user's Pulumi plugins;
3. one that is built with Go from the modules pinned in `peer-plugin/`, into the user's cache folder.

The third has the same code for containers as pulumi-docker: the Terraform provider for Docker, on Pulumi's
bridge for such providers. pulumi-docker's own module cannot be built outside its repository.
"""

from __future__ import annotations

import hashlib
import os
import platform
import re
import shutil
import subprocess
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path

from .measure import Missing, say

NAME = "pulumi-resource-docker"
SDK = ("pulumi-docker==5.2.0", "parver==0.5", "Arpeggio==2.0.3")
"""pulumi-docker, and what it needs and the project has not. It is to run on the same Pulumi SDK as ours."""
_SOURCE = Path(__file__).resolve().parent / "peer-plugin"


@dataclass(frozen=True)
class Plugin:
    """A `pulumi-resource-docker`.

    Attributes:
        path: the program.
        what: what it is, for the table.
    """

    path: Path
    what: str


def plugin(named: Path | None) -> Plugin:
    """The plugin that the user named, or has, or one that is built now."""
    if named:
        if not named.is_file():
            raise Missing(f"there is no {named}")
        return Plugin(named.absolute(), "pulumi-docker")
    if found := _installed():
        return Plugin(found, "pulumi-docker")
    return Plugin(_built(), "pulumi-docker's code for containers")


def _installed() -> Path | None:
    if found := shutil.which(NAME):
        return Path(found).absolute()
    home = Path(os.environ.get("PULUMI_HOME") or Path.home() / ".pulumi")
    found_there = sorted(home.glob(f"plugins/resource-docker-v*/{NAME}"), key=_version)
    return found_there[-1] if found_there else None


def _version(path: Path) -> tuple[int, ...]:
    return tuple(int(number) for number in re.findall(r"\d+", path.parent.name))


def _built() -> Path:
    key = hashlib.sha256(f"{platform.system()} {platform.machine()}".encode())
    for source in sorted(_SOURCE.iterdir()):
        key.update(source.read_bytes())
    cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "pulumi-tutum" / "peer-plugin"
    program = cache / key.hexdigest()[:12] / NAME
    if program.is_file():
        return program
    go = shutil.which("go")
    if go is None:
        raise Missing(f"no {NAME}, and no go on PATH to build it with")
    say(f"building {NAME} with Go (once; some minutes) into {program.parent}")
    program.parent.mkdir(parents=True, exist_ok=True)
    # The user's settings for Go would change the result.
    settings = {"CGO_ENABLED": "0", "GO111MODULE": "on", "GOWORK": "off", "GOFLAGS": ""}
    with tempfile.TemporaryDirectory(prefix="new-", dir=program.parent) as new:
        # The tag leaves out Docker Compose, which containers do not need.
        options = [
            "-mod=readonly",
            "-trimpath",
            "-buildvcs=false",
            "-ldflags",
            "-s -w",
            "-tags",
            "no_compose",
        ]
        command = [go, "build", *options, "-o", str(Path(new) / NAME), "."]
        done = subprocess.run(
            command, cwd=_SOURCE, env=os.environ | settings, capture_output=True, text=True, check=False
        )
        if done.returncode:
            raise Missing(f"{NAME} cannot be built: {_last_line(done.stderr)}")
        (Path(new) / NAME).replace(program)
    return program


def install_sdk(folder: Path) -> None:
    """Install pulumi-docker's Python package into a folder of its own: the project does not depend on it."""
    options = ["--quiet", "--disable-pip-version-check", "--no-deps", "--target", str(folder)]
    command = [sys.executable, "-m", "pip", "install", *options, *SDK]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        raise Missing(f"{SDK[0]} cannot be installed: {_last_line(done.stderr)}")


def _last_line(text: str) -> str:
    return (text.strip() or "it does not say why").splitlines()[-1]
