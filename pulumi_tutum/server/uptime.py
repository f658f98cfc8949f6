"""When a container counts as up, and when it is in a crash loop. Pure.

A container is up
  * with a health check of its service: when the check has passed;
  * without one: when it has run for the service's `monitor_seconds`, or before that when the HEALTHCHECK of
    its image has passed. With `monitor_seconds` 0 it is up as soon as it runs, and the HEALTHCHECK of the
    image is only reported.

A restart by the restart policy begins the window again. `MANY_RESTARTS` restarts within `LOOP_SECONDS` are a
crash loop. A container leaves the crash loop when it has run for `LOOP_SECONDS` without a restart.
"""

from __future__ import annotations

from dataclasses import dataclass

from . import backends
from .model import Container

#: So many restarts within so many seconds are a crash loop.
MANY_RESTARTS, LOOP_SECONDS = 3, 60.0

_FINISHES = ("ON_SUCCESS", "ALWAYS")


@dataclass(frozen=True)
class Look:
    """What one look at a container that should come up shows.

    Attributes:
        up: the container is up.
        failure: why the container does not get up, for users; "" as long as it may.
        again_in: seconds after which the container is up if nothing happens to it; None when time alone does
            not decide.
    """

    up: bool = False
    failure: str = ""
    again_in: float | None = None


def look(container: Container, monitor_seconds: int, now: float) -> Look:
    """Whether a container that has been started is up.

    Args:
        monitor_seconds: of its service.
        now: seconds since the epoch.
    """
    if not is_watched(container, monitor_seconds):
        return Look(up=container.runs)
    if container.looping:
        return Look(failure=crash_loop(container))
    if container.healthy is False:
        return Look(failure=container.unhealthy)
    if container.status != backends.RUNNING:
        return Look()
    if container.healthy:
        return Look(up=True)
    if has_own_check(container):
        return Look()
    left = monitor_seconds - ran_seconds(container, now)
    return Look(up=True) if left <= 0 else Look(again_in=left)


def is_watched(container: Container, monitor_seconds: int) -> bool:
    """Whether it takes more than to run for the container to be up."""
    return monitor_seconds > 0 or has_own_check(container)


def has_own_check(container: Container) -> bool:
    """Whether the service defines a health check for the container."""
    check = container.spec.healthcheck if container.spec is not None else None
    return check is not None and not check.get("disabled")


def is_well(container: Container, monitor_seconds: int) -> bool:
    """Whether a container that its engine keeps alive does its work, as far as that is known."""
    if not container.steady:
        return False
    return container.healthy is not False or not is_watched(container, monitor_seconds)


def ran_seconds(container: Container, now: float) -> float:
    """How long the present run of the container lasts."""
    began = container.since if container.since is not None else container.started
    return 0.0 if began is None else max(now - began, 0.0)


def exit_failure(container: Container, monitor_seconds: int) -> str:
    """Why the exit of a container that was to come up is a failure, for users; "" when it is none.

    Exit code 0 is a success where `autodestroy` removes the container then, and for containers that are not
    watched.
    """
    code = container.exit_code
    if code == 0 and container.get("autodestroy") in _FINISHES:
        return ""
    watched = is_watched(container, monitor_seconds)
    if code == 0 and not watched:
        return ""
    text = _exit(code, container.reason)
    if has_own_check(container):
        return f"{text} before it was healthy"
    return f"{text} before it had run for {monitor_seconds} seconds" if watched else text


def crash_loop(container: Container) -> str:
    """What a crash loop is called, for users."""
    text = f"is in a crash loop: {container.restarts} restarts"
    if container.last_exit_code is None:
        return text
    return f"{text}, the last time it {_exit(container.last_exit_code, container.last_reason)}"


def _exit(code: int | None, reason: str) -> str:
    text = f"exited with code {code}"
    return f"{text} ({reason})" if reason else text


def note_restarts(container: Container, restarts: int, now: float) -> None:
    """Bring the record up to a new number of restarts of the present start."""
    new = restarts - container.restarts
    container.restarts = restarts
    if new <= 0:
        if new < 0:
            container.restarted, container.looping = (), False
        return
    recent = [t for t in container.restarted if now - t < LOOP_SECONDS]
    recent += [now] * min(new, MANY_RESTARTS)
    container.restarted = tuple(recent[-MANY_RESTARTS:])
    container.looping = container.looping or len(container.restarted) >= MANY_RESTARTS


def calm_in(container: Container, now: float) -> float | None:
    """Seconds until a container leaves its crash loop if it goes on running; None when it does not run, or is
    in none."""
    if not container.looping or container.status != backends.RUNNING:
        return None
    return max(LOOP_SECONDS - ran_seconds(container, now), 0.0)
