"""HTTP health checks, made by the server: images rarely have a program that could make them.

A container is asked as soon as it runs, and then every second or every interval, whichever is shorter, until
it has answered once; from then on every interval. Failures count once per interval, and not during the start
period; `retries` of them in a row make it unhealthy, one answer of 2xx or 3xx makes it healthy."""

from __future__ import annotations

import asyncio
import contextlib
import http.client
from collections.abc import Callable, Mapping
from typing import Any

from . import ContainerSpec, probed_port
from .engine import Workers

_THREADS = 8
_SECOND = 1_000_000_000


class HealthChecks:
    """See the module's docstring.

    Args:
        tell: called on the loop with a container's uuid when the verdict on it has changed.
    """

    def __init__(self, tell: Callable[[str], None]) -> None:
        self._tell = tell
        self._workers = Workers("health", _THREADS)
        self._tasks: dict[str, tuple[str, str, asyncio.Task[None]]] = {}
        self._verdicts: dict[str, bool | None] = {}

    def verdict(self, uuid: str) -> bool | None:
        """None: there is no check, or it is not known yet."""
        return self._verdicts.get(uuid)

    def watch(self, uuid: str, run: str, host: str, port: int, check: Mapping[str, Any]) -> None:
        """Ask a container from now on.

        Args:
            run: stands for one run of it: when it has started anew, all is forgotten.
            host, port: where it is reached.
            check: the attribute `healthcheck` of the service.
        """
        place = f"{host}:{port}"
        known = self._tasks.get(uuid)
        if known is not None and known[:2] == (run, place):
            return
        # With another address it is still the same run: what is known of it stays.
        verdict = self._verdicts.get(uuid) if known is not None and known[0] == run else None
        self.forget(uuid)
        self._verdicts[uuid] = verdict
        task = asyncio.get_running_loop().create_task(
            self._ask(uuid, host, port, check), name=f"health {uuid}"
        )
        self._tasks[uuid] = run, place, task

    def forget(self, uuid: str) -> None:
        """It does not run any more."""
        self._verdicts.pop(uuid, None)
        entry = self._tasks.pop(uuid, None)
        if entry is not None:
            entry[2].cancel()

    def close(self) -> None:
        for uuid in list(self._tasks):
            self.forget(uuid)
        self._workers.close()

    async def _ask(self, uuid: str, host: str, port: int, check: Mapping[str, Any]) -> None:
        loop = asyncio.get_running_loop()
        path, seconds = check["http"], float(check.get("timeout_seconds", 5))
        interval, retries = float(check.get("interval_seconds", 5)), int(check.get("retries", 3))
        began = loop.time()
        counted = began + float(check.get("start_period_seconds", 0))
        failures = 0
        while True:
            asked = loop.time()
            if await self._workers.run(lambda: answers(host, port, path, seconds)):
                # Once it has answered, it has started.
                counted, failures = min(counted, asked), 0
                self._judge(uuid, True)
            elif asked >= counted + interval - 0.1:
                counted, failures = asked, failures + 1
                if failures >= retries:
                    self._judge(uuid, False)
            pause = interval if self.verdict(uuid) is not None else min(interval, 1.0)
            await asyncio.sleep(max(asked + pause - loop.time(), 0.05))

    def _judge(self, uuid: str, healthy: bool) -> None:
        if self._verdicts.get(uuid) is not healthy:
            self._verdicts[uuid] = healthy
            self._tell(uuid)


def answers(host: str, port: int, path: str, seconds: float) -> bool:
    """Whether a GET of the path is answered with 2xx or 3xx in time."""
    connection = http.client.HTTPConnection(host, port, timeout=seconds)
    try:
        connection.request("GET", path, headers={"User-Agent": "pulumi-tutum-health", "Connection": "close"})
        return 200 <= connection.getresponse().status < 400
    except (OSError, http.client.HTTPException):
        return False
    finally:
        with contextlib.suppress(OSError):
            connection.close()


def published_at(spec: ContainerSpec, inner: int) -> int | None:
    """The outer port of a container's inner tcp port; None: it is not published."""
    tcp = [p for p in spec.ports if p.protocol == "tcp" and p.inner_port == inner]
    return next((p.outer_port for p in tcp if p.outer_port), None)


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
