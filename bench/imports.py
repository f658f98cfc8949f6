"""What importing the package costs a program."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator

from .measure import Line, Run, by_turns, ratio


def imports(run: Run) -> Iterator[Line]:
    """(c) `import pulumi_tutum` / `import pulumi`, each in a fresh interpreter (its start not counted).

    The package defers what needs pulumi to the first use of a name, so a program's import is measured.
    """
    imports = ("from pulumi_tutum import Service", "import pulumi")
    for statement in imports:
        _import_seconds(statement)  # leaves compiled files and a warm disk cache
    wide = Run(run.folder, run.times * 3, run.quick)
    ours, theirs = (lambda: _import_seconds(imports[0]), lambda: _import_seconds(imports[1]))
    yield ratio(
        "c", "from pulumi_tutum import Service / import pulumi", "s", by_turns(wide, ours, theirs), goal=1.1
    )


def _import_seconds(statement: str) -> float:
    code = f"import time; began = time.perf_counter(); {statement}; print(time.perf_counter() - began)"
    done = subprocess.run([sys.executable, "-c", code], stdout=subprocess.PIPE, check=True, text=True)
    return float(done.stdout)
