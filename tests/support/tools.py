"""What a test needs of the machine, and waiting for what is not there yet."""

from __future__ import annotations

import os
import time
from collections.abc import Callable

import pytest


def need(name: str, condition: object, how: str, *, in_ci: bool = True) -> None:
    """Go on only where `condition` is true: otherwise skip with a printed reason, or fail in CI.

    `how` says how to get it. `in_ci=False` is for what CI cannot have either.
    """
    if condition:
        return
    reason = f"no {name}: {how}"
    if in_ci and os.environ.get("CI", "").lower() in ("1", "true"):
        pytest.fail(reason, pytrace=False)
    pytest.skip(reason)


def until(condition: Callable[[], object], what: str, seconds: float = 60.0) -> None:
    """Wait until `condition()` is true. The deadline is generous: it ends a hang and measures nothing."""
    deadline = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > deadline:
            raise AssertionError(f"not within {seconds:g} s: {what}")
        time.sleep(0.02)
