"""The public names under a strict type checker: typical programs are clean, mistakes are found."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

PROGRAM = Path(__file__).with_name("program.py")


@pytest.mark.timeout(300)
def test_typical_programs_are_clean_and_mistakes_are_found(tmp_path: Path) -> None:
    from mypy import api

    out, errors, _ = api.run(["--strict", "--no-error-summary", f"--cache-dir={tmp_path}", str(PROGRAM)])
    assert not errors
    found = {
        (int(line), code) for line, code in re.findall(r"program\.py:(\d+): error: .*\[([a-z-]+)\]", out)
    }
    lines = PROGRAM.read_text(encoding="utf-8").splitlines()
    expected = {
        (number, match[1])
        for number, line in enumerate(lines, 1)
        if (match := re.search(r"# error: ([a-z-]+)$", line))
    }
    assert found == expected, out
