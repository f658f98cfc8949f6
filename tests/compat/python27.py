"""Tutum's own clients are for Python 2.7: an interpreter, and their pinned releases in a kept folder."""

from __future__ import annotations

import hashlib
import os
import shutil
import subprocess
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from tests.support.tools import need

#: The last releases, which pin what they need in turn.
TUTUM = ("tutum==0.21.1",)
DOCKER_CLOUD = ("docker-cloud==1.0.9",)


def interpreter() -> str | None:
    """A Python 2.7, wherever one is usually found."""
    for name in ("python2.7", "python2"):
        if (found := shutil.which(name)) and _is_27(found):
            return found
    roots = [Path(os.environ.get("PYENV_ROOT", "~/.pyenv")).expanduser() / "versions", Path("/opt/python")]
    for root in roots:
        for candidate in sorted(root.glob("2.7*/bin/python2.7")):
            if _is_27(str(candidate)):
                return str(candidate)
    return None


def _is_27(path: str) -> bool:
    code = "import sys, pip; sys.exit(sys.version_info[:2] != (2, 7))"
    return subprocess.run([path, "-c", code], capture_output=True, check=False).returncode == 0


@dataclass(frozen=True)
class Python27:
    """An interpreter that sees one set of packages."""

    python: str
    packages: Path

    def run(
        self,
        *arguments: str,
        environ: Mapping[str, str],
        stdin: str = "",
        seconds: float = 100.0,
    ) -> subprocess.CompletedProcess[str]:
        """Run it with arguments; nothing of this machine's own accounts reaches it."""
        return subprocess.run(
            [self.python, *arguments],
            env=self.environment(environ),
            input=stdin,
            capture_output=True,
            text=True,
            timeout=seconds,
            check=False,
        )

    def environment(self, environ: Mapping[str, str]) -> dict[str, str]:
        home = self.packages / "home"
        home.mkdir(exist_ok=True)
        clean = {"HOME": str(home), "PATH": os.environ["PATH"], "PYTHONPATH": str(self.packages)}
        return {**clean, "PYTHONIOENCODING": "utf-8", "PYTHONWARNINGS": "ignore", **environ}


def with_packages(requirements: Sequence[str]) -> Python27:
    """An interpreter with these packages, installed at the first use; skips where that cannot be."""
    python = interpreter()
    need("Python 2.7 with pip", python, "Tutum's clients run on nothing newer", in_ci=False)
    assert python is not None
    cache = Path(os.environ.get("XDG_CACHE_HOME", "~/.cache")).expanduser() / "pulumi-tutum"
    key = hashlib.sha256("\n".join([python, *requirements]).encode()).hexdigest()[:12]
    folder = cache / f"python27-{key}"
    if not folder.exists():
        cache.mkdir(parents=True, exist_ok=True)
        temporary = cache / f".python27-{key}.{os.getpid()}"
        command = [python, "-m", "pip", "install", "--quiet", "--disable-pip-version-check"]
        done = subprocess.run(
            [*command, "--target", str(temporary), *requirements], capture_output=True, text=True, check=False
        )
        if done.returncode:
            shutil.rmtree(temporary, ignore_errors=True)
            last = done.stderr.strip().splitlines()[-1] if done.stderr.strip() else "pip failed"
            need(" ".join(requirements), False, f"it cannot be installed ({last})", in_ci=False)
        if folder.exists():
            shutil.rmtree(temporary)
        else:
            temporary.rename(folder)
    return Python27(python, folder)
