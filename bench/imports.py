"""What importing the package costs a program."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator

from .measure import Line, Run, by_turns, ratio


def imports(run: Run) -> Iterator[Line]:
    """(c) `import pulumi_tutum` / `import pulumi`, each in a fresh interpreter (its start not counted)."""
    for module in ("pulumi", "pulumi_tutum"):
        _import_seconds(module)  # leaves compiled files and a warm disk cache
    wide = Run(run.folder, run.times * 3, run.quick)
    samples = by_turns(wide, lambda: _import_seconds("pulumi_tutum"), lambda: _import_seconds("pulumi"))
    yield ratio("c", "import pulumi_tutum / import pulumi", "s", samples, goal=1.1)


def _import_seconds(module: str) -> float:
    code = f"import time; began = time.perf_counter(); import {module}; print(time.perf_counter() - began)"
    done = subprocess.run([sys.executable, "-c", code], stdout=subprocess.PIPE, check=True, text=True)
    return float(done.stdout)
