"""Health checks: HTTP checks, which the server makes itself, and what to say about checks that fail.

The server makes HTTP checks because images rarely have a program that could make them. A container is asked
as soon as it runs, and then every second or every interval, whichever is shorter, until it has answered once;
from then on every interval. Failures count once per interval, and not during the start period; `retries` of
them in a row make it unhealthy, one answer of 2xx or 3xx makes it healthy.

Checks that are commands are run by the Docker engine; `engine_detail` puts its log of them into words."""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
import http.client
import socket
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

from . import ContainerSpec, Observed, probed_port, probes
from .engine import Workers, seconds

_THREADS = 8
_SECOND = 1_000_000_000
#: How much of an answer is read. A secret that is cut off here begins far behind what is shown.
_READ = 65536


class Probe(NamedTuple):
    """What one HTTP probe found: whether the answer is good, and the answer (or the lack of one) in words."""

    good: bool
    text: str


@dataclass
class _Health:
    """What is known of one run of a container.

    Attributes:
        verdict: None while it is not known yet.
        detail: see `Observed.health_detail`.
    """

    verdict: bool | None = None
    detail: str = ""


class HealthChecks:
    """See the module's docstring.

    Args:
        tell: called on the loop with a container's uuid when the verdict on it, or its detail, has changed.
    """

    def __init__(self, tell: Callable[[str], None]) -> None:
        self._tell = tell
        self._workers = Workers("health", _THREADS)
        self._tasks: dict[str, tuple[str, str, asyncio.Task[None]]] = {}
        self._known: dict[str, _Health] = {}

    def verdict(self, uuid: str) -> bool | None:
        """None: there is no check, or it is not known yet."""
        found = self._known.get(uuid)
        return found.verdict if found is not None else None

    def detail(self, uuid: str) -> str:
        """Why the container is not healthy; "" while no probe has failed since the last good one."""
        found = self._known.get(uuid)
        return found.detail if found is not None else ""

    def judged(self, uuid: str, seen: Observed) -> Observed:
        """An observation of a container with what its check has found."""
        return dataclasses.replace(seen, healthy=self.verdict(uuid), health_detail=self.detail(uuid))

    def watch(
        self,
        uuid: str,
        run: str,
        host: str,
        port: int,
        spec: ContainerSpec,
    ) -> None:
        """Ask a container, whose service has an HTTP check, from now on.

        Args:
            run: stands for one run of it: when it has started again, all is forgotten.
            host, port: where it is reached.
        """
        place = f"{host}:{port}"
        known = self._tasks.get(uuid)
        if known is not None and known[:2] == (run, place):
            return
        # With another address it is still the same run: its health stays.
        health = self._known.get(uuid) if known is not None and known[0] == run else None
        self.forget(uuid)
        self._known[uuid] = health or _Health()
        task = asyncio.get_running_loop().create_task(
            self._ask(uuid, host, port, spec), name=f"health {uuid}"
        )
        self._tasks[uuid] = run, place, task

    def forget(self, uuid: str) -> None:
        """It does not run any more."""
        self._known.pop(uuid, None)
        entry = self._tasks.pop(uuid, None)
        if entry is not None:
            entry[2].cancel()

    def close(self) -> None:
        for uuid in list(self._tasks):
            self.forget(uuid)
        self._workers.close()

    async def _ask(self, uuid: str, host: str, port: int, spec: ContainerSpec) -> None:
        check, hidden = spec.healthcheck or {}, probes.hidden_values(spec.environment)
        shown_port = spec.probed_port or port  # as the user knows it
        loop = asyncio.get_running_loop()
        path, limit = check["http"], float(check.get("timeout_seconds", 5))
        interval, retries = float(check.get("interval_seconds", 5)), int(check.get("retries", 3))
        began = loop.time()
        counted = began + float(check.get("start_period_seconds", 0))
        failures = in_a_row = 0
        since = 0.0
        while True:
            asked = loop.time()
            found = await self._workers.run(lambda: probe(host, port, path, limit, hidden))
            if found.good:
                # Once it has answered, it has started.
                counted, failures, in_a_row = min(counted, asked), 0, 0
                self._judge(uuid, True, "")
            else:
                in_a_row += 1
                since = time.time() if in_a_row == 1 else since
                verdict = self.verdict(uuid)
                if asked >= counted + interval - 0.1:
                    counted, failures = asked, failures + 1
                    verdict = False if failures >= retries else verdict
                self._judge(uuid, verdict, probes.http_failure(path, shown_port, found.text, in_a_row, since))
            pause = interval if self.verdict(uuid) is not None else min(interval, 1.0)
            await asyncio.sleep(max(asked + pause - loop.time(), 0.05))

    def _judge(self, uuid: str, verdict: bool | None, detail: str) -> None:
        judged = _Health(verdict, detail)
        if self._known.get(uuid) != judged:
            self._known[uuid] = judged
            self._tell(uuid)


def probe(host: str, port: int, path: str, limit: float, hidden: Sequence[str] = ()) -> Probe:
    """Whether a GET of the path is answered with 2xx or 3xx in time, and what was answered.

    Args:
        limit: seconds.
        hidden: values that are masked in the answer.
    """
    connection = http.client.HTTPConnection(host, port, timeout=limit)
    try:
        connection.request("GET", path, headers={"User-Agent": "pulumi-tutum-health", "Connection": "close"})
        answer = connection.getresponse()
        if 200 <= answer.status < 400:
            return Probe(True, f"answered {answer.status}")
        body = probes.beginning_of(_body(answer), hidden)
        return Probe(False, f"answered {answer.status}" + (f" '{body}'" if body else ""))
    except TimeoutError:
        return Probe(False, f"did not answer within {limit:g} seconds")
    except http.client.RemoteDisconnected:
        return Probe(False, "failed: the connection was closed without an answer")
    except socket.gaierror:
        return Probe(False, f"failed: the host {host} has no address")
    except OSError as error:
        return Probe(False, f"failed: {(error.strerror or type(error).__name__).lower()}")
    except http.client.HTTPException:
        return Probe(False, "was answered with something that is not HTTP")
    finally:
        with contextlib.suppress(OSError):
            connection.close()


def published_at(spec: ContainerSpec, inner: int) -> int | None:
    """The outer port of a container's inner tcp port; None: it is not published."""
    tcp = [p for p in spec.ports if p.protocol == "tcp" and p.inner_port == inner]
    return next((p.outer_port for p in tcp if p.outer_port), None)


def _body(answer: http.client.HTTPResponse) -> str:
    """The beginning of an answer's text; "" when it cannot be read."""
    try:
        return answer.read(_READ).decode("utf-8", "replace")
    except (OSError, http.client.HTTPException):
        return ""


def engine_detail(health: Mapping[str, Any], test: Sequence[str], hidden: Sequence[str]) -> str:
    """Why a Docker engine finds a container not healthy, in words; "" when its last probe was good.

    Args:
        health: `State.Health` of the engine's inspection.
        test: `Config.Healthcheck.Test`.
        hidden: values that are masked.
    """
    log = [entry for entry in health.get("Log") or () if isinstance(entry, Mapping)]
    streak = int(health.get("FailingStreak") or 0)
    if not log or not log[-1].get("ExitCode"):
        return ""
    last = log[-1]
    failed = 0
    for entry in reversed(log):
        if not entry.get("ExitCode"):
            break
        failed += 1
    # Failures in the start period are in the log and not in the streak; of a long streak the log has the end.
    streak = max(streak, failed)
    begin = _clock_time(str(log[-failed].get("Start", ""))) if streak == failed else None
    command = " ".join(test[1:] if test and test[0].startswith("CMD") else test)
    return probes.command_failure(
        command, int(last["ExitCode"]), str(last.get("Output") or ""), hidden, streak, begin
    )


def _clock_time(stamp: str) -> float | None:
    """Seconds since the epoch for a time of the engine's."""
    found = seconds(stamp)
    return float(found) if found else None


def published_port_is_probed(definition: Mapping[str, Any], check: Mapping[str, Any]) -> bool:
    """Whether a service's HTTP check asks a port that can be reached from outside."""
    if definition.get("network") == "host":
        return True
    ports = definition.get("container_ports") or ()
    published = {(p.get("protocol", "tcp"), p["inner_port"]) for p in ports if p.get("published")}
    probed = probed_port(check, ((p.get("protocol", "tcp"), p["inner_port"]) for p in ports))
    return ("tcp", probed) in published


#: The engine's form of a check that is never made.
_NO_CHECK = {"test": ["NONE"]}


def native_check(check: Mapping[str, Any] | None) -> dict[str, Any] | None:
    """A service's health check in the engine's form (nanoseconds); None leaves the HEALTHCHECK of the image.

    The engine makes no check, not even the image's, for a check that is disabled or that the server makes
    (HTTP).
    """
    if not check:
        return None
    if "command" not in check:
        return _NO_CHECK
    return {
        "test": ["CMD-SHELL", check["command"]],
        "interval": int(check.get("interval_seconds", 5)) * _SECOND,
        "timeout": int(check.get("timeout_seconds", 5)) * _SECOND,
        "retries": int(check.get("retries", 3)),
        "start_period": int(check.get("start_period_seconds", 0)) * _SECOND,
    }
