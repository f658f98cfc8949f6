"""`make setup` on machines that lack something, with programs of our own on a private PATH."""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
FILES = ("Makefile", "setup.py", "pyproject.toml", "tests/requirements.txt")
# What the recipes themselves use.
TOOLS = ("make", "sh", "touch", "ln")

# A Python new enough, whose venv copies itself, and which says what it was asked for.
PYTHON = """\
echo "$0 $*" >>{log}
case "$*" in
"-m venv --clear .venv") /bin/mkdir -p .venv/bin; /bin/cp "$0" .venv/bin/python ;;
*sysconfig*) echo .venv ;;
esac
"""
TOO_OLD = 'case "$*" in *version_info*) exit 1 ;; esac'
WITHOUT_VENV = 'case "$*" in *ensurepip*) exit 1 ;; esac'


class Checkout:
    def __init__(self, folder: Path) -> None:
        self.folder, self.bin, self.log = folder / "checkout", folder / "bin", folder / "log"
        (self.folder / "tests").mkdir(parents=True)
        for name in FILES:
            shutil.copy(ROOT / name, self.folder / name)
        self.bin.mkdir()
        for tool in TOOLS:
            (self.bin / tool).symlink_to(shutil.which(tool) or tool)

    def python(self, name: str, body: str = PYTHON) -> None:
        path = self.bin / name
        path.write_text("#!/bin/sh\n" + body.format(log=self.log), encoding="utf-8")
        path.chmod(0o755)

    def setup(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        return self.make("setup", *arguments)

    def make(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        command = [str(self.bin / "make"), *arguments]
        environment = {"PATH": str(self.bin), "VIRTUAL_ENV": "/elsewhere", "PYTHONPATH": "/elsewhere"}
        return subprocess.run(
            command, cwd=self.folder, env=environment, capture_output=True, text=True, timeout=60, check=False
        )

    def asked(self) -> list[str]:
        """What the Pythons were called with, but for the questions about their version."""
        lines = self.log.read_text(encoding="utf-8").splitlines() if self.log.exists() else []
        return [line for line in lines if "version_info" not in line and "ensurepip" not in line]


@pytest.fixture
def checkout(tmp_path: Path) -> Checkout:
    return Checkout(tmp_path)


def test_takes_the_first_python_that_runs(checkout: Checkout) -> None:
    checkout.python("python3.13", "exit 127  # a shim without a Python behind it")
    checkout.python("python3.12")
    checkout.python("python3")
    assert checkout.setup().returncode == 0
    assert checkout.asked()[0].endswith("/python3.12 -m venv --clear .venv")
    assert any("-r tests/requirements.txt" in line for line in checkout.asked())


def test_takes_the_python_it_is_told(checkout: Checkout) -> None:
    checkout.python("python3.13")
    checkout.python("python3.10")
    assert checkout.setup("PYTHON=python3.10").returncode == 0
    assert checkout.asked()[0].endswith("/python3.10 -m venv --clear .venv")


def test_compiles_the_package(checkout: Checkout) -> None:
    checkout.python("python3.13")
    checkout.setup()
    assert checkout.asked()[-1].endswith("-m compileall -q pulumi_tutum")


def test_does_nothing_when_nothing_changed(checkout: Checkout) -> None:
    checkout.python("python3.13")
    checkout.setup()
    before = checkout.asked()
    assert checkout.setup().returncode == 0
    assert checkout.asked() == before


def test_installs_again_when_a_pin_changed(checkout: Checkout) -> None:
    checkout.python("python3.13")
    checkout.setup()
    before = len(checkout.asked())
    stamp = checkout.folder / ".venv" / "ready-python3.13"
    requirements = checkout.folder / "tests" / "requirements.txt"
    requirements.write_text("another==1.0\n", encoding="utf-8")
    os.utime(stamp, (1, 1))
    assert checkout.setup().returncode == 0
    later = checkout.asked()[before:]
    assert any("pip install" in line for line in later)
    assert not any("venv --clear" in line for line in later)


@pytest.mark.parametrize("pythons", [[], ["python3"]], ids=["none", "too old"])
def test_without_a_new_enough_python_says_so(checkout: Checkout, pythons: list[str]) -> None:
    for name in pythons:
        checkout.python(name, TOO_OLD)
    result = checkout.setup()
    assert result.returncode != 0
    sentence = "pulumi-tutum needs Python 3.10 or newer: install it, or name one with PYTHON=..."
    assert result.stderr.splitlines()[0] == sentence


def test_without_the_venv_module_says_so(checkout: Checkout) -> None:
    checkout.python("python3", WITHOUT_VENV)
    result = checkout.setup()
    assert result.returncode != 0
    assert result.stderr.splitlines()[0] == (
        "python3 comes without its venv module: install it (Debian, Ubuntu: apt-get install python3-venv)."
    )


def test_the_benchmarks_get_their_arguments(checkout: Checkout) -> None:
    checkout.python("python3")
    done = checkout.make("--dry-run", "bench", "ARGS=--only peer --peer")
    assert "bench/run.py --only peer --peer\n" in done.stdout
