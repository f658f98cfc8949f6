"""Virtual environments with an SDK each, made once and kept in the user's cache folder.

The private surface that host.py touches belongs to the SDK and to Python's own thread pool, so those
tests run on the oldest and the newest SDK, on each supported Python that this machine has.
"""

from __future__ import annotations

import contextlib
import fcntl
import importlib.metadata
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

from tests.support.tools import need

OLDEST = "3.216.0"
NEWEST = "newest"
PYTHONS = ("3.10", "3.11", "3.12", "3.13", "3.14")
CURRENT = "{}.{}".format(*sys.version_info)
#: What the provider needs: requirements of setup.py that belong to no extra.
_NEEDED = [line for line in importlib.metadata.requires("pulumi-tutum") or () if "extra ==" not in line]
_DAY = 24 * 3600.0


def environment(version: str, sdk: str) -> Path:
    """The interpreter of an environment with this Python (`3.10`) and this SDK (`OLDEST`, `NEWEST`).

    Skips the test where the machine lacks that Python; SDKs come from the package index. The newest is looked
    for once a day.
    """
    python = next(filter(_runs, candidates(version)), None)
    # Which Pythons a machine has is its own affair, in CI too.
    need(f"Python {version}", python, "on PATH, or with pyenv", in_ci=False)
    assert python is not None
    cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "pulumi-tutum" / "sdk"
    folder = cache / f"{version}-{sdk}"
    made, inside = folder / "complete", folder / "bin" / "python"
    cache.mkdir(parents=True, exist_ok=True)
    with _only_one(cache / f"{folder.name}.lock"):
        fresh = made.exists() and _runs(inside)
        if not fresh or (sdk == NEWEST and time.time() - made.stat().st_mtime > _DAY):
            if not fresh:
                shutil.rmtree(folder, ignore_errors=True)
                subprocess.run([python, "-m", "venv", folder], check=True)
            wanted = "pulumi" if sdk == NEWEST else f"pulumi=={sdk}"
            command = [str(inside), "-m", "pip", "install", "--quiet", "--upgrade", wanted, *_NEEDED]
            installed = subprocess.run(command, capture_output=True, text=True)
            if installed.returncode == 0:
                made.touch()
            elif not fresh:
                need(f"SDK {sdk} on Python {version}", False, installed.stderr.strip().splitlines()[-1])
    return inside


def versions(python: Path) -> str:
    """The exact versions of an environment, like "3.11.7 with SDK 3.272.0"."""
    code = "import importlib.metadata as m, platform as p; print(p.python_version(), m.version('pulumi'))"
    output = subprocess.run([python, "-c", code], check=True, capture_output=True, text=True).stdout
    return "{} with SDK {}".format(*output.split())


def candidates(version: str) -> list[Path]:
    """Interpreters of this version, on PATH or with pyenv. A name on PATH may be a shim that does not run."""
    if version == CURRENT:
        return [Path(sys.executable)]
    on_path = shutil.which(f"python{version}")
    root = Path(os.environ.get("PYENV_ROOT") or Path.home() / ".pyenv") / "versions"
    return [*([Path(on_path)] if on_path else []), *sorted(root.glob(f"{version}.*/bin/python"))]


def _runs(python: Path) -> bool:
    with contextlib.suppress(OSError):
        return subprocess.run([python, "-c", "import venv"], capture_output=True).returncode == 0
    return False


@contextlib.contextmanager
def _only_one(path: Path) -> Iterator[None]:
    """Other test runs on this machine wait."""
    with path.open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield
