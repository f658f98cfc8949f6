"""What failing probes of a health check say, in words for users: pure functions.

Answers and outputs are foreign texts. They are shown as one line of bounded length, in which the values of
the container's environment are masked before anything is cut off."""

from __future__ import annotations

import re
import time
from collections.abc import Mapping, Sequence

from ... import schema

#: How much of an answer or of an output is shown.
_SHOWN = 300
#: The Docker engine keeps so many characters of a probe's output. A secret may be cut off there.
_ENGINE_KEEPS = 4096


def http_failure(path: str, port: int, answer: str, failures: int, since: float) -> str:
    """`GET /health on port 80 answered 503 'maintenance', 3 times in a row since 12:00:05 UTC`.

    Args:
        port: the port inside the container.
        answer: what came instead of a good answer, a verb first.
        since: when the first of the failures was, in seconds since the epoch.
    """
    return f"GET {path} on port {port} {answer}{_how_often(failures, since)}"


def command_failure(
    command: str, code: int, output: str, hidden: Sequence[str], failures: int, since: float | None
) -> str:
    """``command `test -e /ready` exited with code 1 without any output, once at 12:00:05 UTC``.

    Args:
        code: its exit code; below 0: the engine could not run it, or ended it, and the output says why.
        output: what it wrote; the engine may have cut it off.
        hidden: values that are masked.
        since: as for `http_failure`; None: not known.
    """
    shown = beginning_of(command, hidden)
    what = f"command `{shown}`" if shown else "the command of its health check"
    said = _end_of(output, hidden)
    often = _how_often(failures, since)
    if code < 0:
        return f"{what} failed{often}" + (f": {said}" if said else "")
    return f"{what} exited with code {code} " + (
        f"and the output '{said}'{often}" if said else f"without any output{often}"
    )


def hidden_values(environment: Mapping[str, str]) -> list[str]:
    """The values of a container's environment that foreign texts must not show."""
    return schema.secret_values({"container_envvars": environment})


def beginning_of(text: str, hidden: Sequence[str]) -> str:
    """The beginning of a foreign text."""
    line = _one_line(schema.masked(text, hidden))
    return line if len(line) <= _SHOWN else f"{line[: _SHOWN - 1]}…"


def _end_of(text: str, hidden: Sequence[str]) -> str:
    """The end of a command's output: what went wrong is said last."""
    masked = schema.masked(text, hidden)
    if len(text.encode()) >= _ENGINE_KEEPS - 3:
        # What is left of a secret that was cut off cannot be recognized.
        masked = masked[: -max(map(len, hidden), default=1)]
    line = _one_line(masked)
    return line if len(line) <= _SHOWN else f"…{line[1 - _SHOWN :]}"


def _one_line(text: str) -> str:
    return " ".join(re.sub(r"[\x00-\x1f\x7f]+", " ", text).split())


def _how_often(failures: int, since: float | None) -> str:
    times = "once" if failures == 1 else f"{failures} times in a row"
    if since is None:
        return f", {times}"
    word = "at" if failures == 1 else "since"
    return f", {times} {word} {time.strftime('%H:%M:%S', time.gmtime(since))} UTC"
