"""What a user gets: the wheel that setup.py makes."""

from __future__ import annotations

import email
import json
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

import pulumi_tutum

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> zipfile.ZipFile:
    source = tmp_path_factory.mktemp("source")
    for name in ("setup.py", "pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(ROOT / name, source)
    for name in ("pulumi_tutum", "tests", "examples"):
        shutil.copytree(ROOT / name, source / name, ignore=shutil.ignore_patterns("__pycache__"))
    # With the pinned setuptools that is installed here: no network.
    command: list[str | Path] = [
        sys.executable,
        "-m",
        "pip",
        "wheel",
        "-q",
        "--no-deps",
        "--no-build-isolation",
        "-w",
        source,
        source,
    ]
    subprocess.run(command, check=True)
    (built,) = source.glob("*.whl")
    return zipfile.ZipFile(built)


def test_holds_the_package_and_nothing_else(wheel: zipfile.ZipFile) -> None:
    roots = {name.split("/")[0] for name in wheel.namelist()}
    assert roots == {"pulumi_tutum", f"pulumi_tutum-{pulumi_tutum.__version__}.dist-info"}
    modules = {str(path.relative_to(ROOT)) for path in (ROOT / "pulumi_tutum").rglob("*.py")}
    assert modules <= set(wheel.namelist())


def test_is_typed(wheel: zipfile.ZipFile) -> None:
    assert "pulumi_tutum/py.typed" in wheel.namelist()


def test_tells_pulumi_that_it_has_no_plugin(wheel: zipfile.ZipFile) -> None:
    assert json.loads(wheel.read("pulumi_tutum/pulumi-plugin.json")) == {"resource": False}


def test_brings_the_server_only_when_asked(wheel: zipfile.ZipFile) -> None:
    (name,) = (name for name in wheel.namelist() if name.endswith("/METADATA"))
    metadata = email.message_from_bytes(wheel.read(name))
    assert metadata["License-Expression"] == "Apache-2.0"
    requirements = metadata.get_all("Requires-Dist") or []
    always = {
        requirement.split(">")[0].split("<")[0]
        for requirement in requirements
        if "extra ==" not in requirement
    }
    assert always == {"pulumi", "requests", "websocket-client"}
    assert metadata.get_all("Provides-Extra") == ["server", "docker"]
