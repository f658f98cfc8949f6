"""Waiting until a service is where it should be.

One Waiter serves all waits of a process, however many threads wait: one websocket brings the events of the
whole account, and each thread sleeps until something happened to its own service. An event is only a hint
to look: what counts is the service as a GET shows it. So a lost, doubled or reordered event does no harm;
a slow safety poll catches the lost ones. While there is no stream (refused, broken, silent) each wait
polls, with growing and jittered pauses.

Why no event is missed: when the stream has been opened, everything that is waited for is read once, so
what happened before counts; from then on every change is an event. A wait that begins while the stream
stands reads once, too.

A wait ends in one of: the service (reached), UnexpectedState, Gone, WaitTimeout, Cancelled (errors.py); or
AuthError when the credentials are revoked meanwhile. A control plane that cannot be reached is no end: it
may come back until the deadline. All times are on the monotonic clock, so a jump of the wall clock changes
nothing.
"""

from __future__ import annotations

import email.utils
import random
import re
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from . import lifecycle, schema, stream
from .client import Client, Detail, Limits
from .errors import (
    ApiError,
    AuthError,
    Cancelled,
    Gone,
    NotFound,
    RateLimited,
    ServerError,
    StreamError,
    TransportError,
    TutumError,
    UnexpectedState,
    WaitTimeout,
)

if TYPE_CHECKING:
    from .transport import Signal

__all__ = ["Waiter", "explain", "until"]

#: Pauses between polls without a stream, in seconds; each is twice the one before.
_FIRST_POLL, _LONGEST_POLL = 0.4, 5.0
#: The same with a stream: only against lost events.
_FIRST_SAFETY, _LONGEST_SAFETY = 10.0, 30.0
#: How long a wait gives the stream to open before it reads for the first time, when it knows where it starts.
_OPENING = 0.3
#: One read may be stale. So a state that ends a wait badly must be seen twice, this far apart, and what
#: does not show what an event told is read again, once.
_SECOND_LOOK = 0.5
#: So many reads follow events at once; a service that flaps on is read at this interval.
_PROMPT_READS, _FLAPPING = 6, 0.25
#: How often a sleeping wait looks whether it was interrupted.
_SLICE = 0.25
#: How long one read may take before the wait looks around again.
_READ_SECONDS = 10.0
#: What the containers said is gathered for so long, for so many containers, and so many lines of each.
_EXPLAIN_SECONDS, _EXPLAIN_CONTAINERS, _EXPLAIN_LINES, _LINE_LENGTH = 5.0, 5, 10, 400

#: How the names of actions end (`Service Redeploy`) that deploy containers.
_DEPLOYING = ("start", "scale", "redeploy")

_JOB_HINT = "Containers that are expected to end need job=True (in the API: autodestroy ON_SUCCESS)."

Verdict = Callable[[Detail], "bool | None"]


class _Wait:
    """What the stream's thread and one waiting thread know of each other."""

    __slots__ = ("promised", "running", "stale", "uuid", "wake")

    def __init__(self, uuid: str) -> None:
        self.uuid = uuid
        self.wake = threading.Event()
        #: something happened since the last read
        self.stale = False
        #: and what happened is an end of something, which a read must show
        self.promised = False
        #: containers that events have shown running since the last read, minus those shown ended
        self.running: dict[str, bool] = {}


class Waiter:
    """Waits for services of one client. Safe for any number of threads.

    Args:
        client: whose credentials and addresses are used.
        listen: False polls only.
    """

    def __init__(self, client: Client, *, listen: bool = True) -> None:
        self._client = client
        self._listen = listen
        self._lock = threading.Lock()
        self._waits: dict[str, list[_Wait]] = {}
        self._listener: threading.Thread | None = None
        self._connection: stream.Connection | None = None
        self._stop = threading.Event()
        self._standing = False
        #: the first attempt to open the stream is over
        self._tried = threading.Event()

    def close(self) -> None:
        """Ends the stream. Waits go on by polling."""
        self._stop.set()
        with self._lock:
            connection, listener = self._connection, self._listener
        if connection is not None:
            connection.interrupt()
        if listener is not None and listener is not threading.current_thread():
            listener.join(stream.CONNECT_SECONDS)

    def __enter__(self) -> Waiter:
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()

    def wait(
        self,
        uuid: str,
        *,
        verdict: Verdict,
        deadline: float,
        progress: Callable[[str], None] | None = None,
        cancelled: Signal | None = None,
        service: Mapping[str, Any] | None = None,
        wanted: str = "",
        action: str | Sequence[str] = "",
    ) -> Detail:
        """Waits until `verdict` says so.

        Args:
            uuid: the service's.
            verdict: looks at the service's detail object and says True (reached), None (on its way) or
                False (settled where it does not get there by itself). It is also asked about the same object
                with the state `Terminated`, to learn whether that would be an end that is wanted. Must be
                quick and without effects.
            deadline: on the monotonic clock.
            progress: gets a short text each time it changes, such as `2/3 containers running`.
            cancelled: once set, the wait ends at once.
            service: the detail object as the last answer showed it, if there is one: saves a read.
            wanted: what is waited for, in words, for messages: `running`.
            action: URI of the action that was asked for (`Detail.action_uri`), or of several, in their order:
                see `explain`.

        Returns:
            the service for which the verdict was True.
        """
        wait = _Wait(uuid.lower())
        course = _Course(self._client, wait, verdict, deadline, progress, cancelled, wanted, action)
        with self._registered(wait):
            return course.run(service, self)

    def pause(self, quiet: int) -> float:
        """Seconds until the next read of a wait that has seen `quiet` reads in a row without news."""
        first, longest = (_FIRST_SAFETY, _LONGEST_SAFETY) if self._standing else (_FIRST_POLL, _LONGEST_POLL)
        return min(longest, first * 2.0 ** min(quiet, 10)) * random.uniform(0.8, 1.0)

    def opening(self) -> float:
        """Seconds to wait before the first read: the stream, once open, asks for one anyway."""
        return 0.0 if self._tried.is_set() or self._listener is None else _OPENING

    def listen(self, *, deadline: float, cancelled: Signal | None = None) -> None:
        """Opens the stream, unless that was tried before. Returns when it stands, or cannot be had now."""
        self._begin()
        end = min(deadline, time.monotonic() + stream.CONNECT_SECONDS)
        while time.monotonic() < end and not (cancelled is not None and cancelled.is_set()):
            if self._listener is None or self._tried.wait(_SLICE):
                return

    # -- the stream's side -------------------------------------------------------------------------

    @contextmanager
    def _registered(self, wait: _Wait) -> Iterator[None]:
        with self._lock:
            self._waits.setdefault(wait.uuid, []).append(wait)
        self._begin()
        try:
            yield
        finally:
            with self._lock:
                waits = self._waits[wait.uuid]
                waits.remove(wait)
                if not waits:
                    del self._waits[wait.uuid]

    def _begin(self) -> None:
        with self._lock:
            if self._listen and self._listener is None and not self._stop.is_set():
                self._listener = threading.Thread(target=self._listen_on, name="tutum-events", daemon=True)
                self._listener.start()

    def _listen_on(self) -> None:
        """The stream's thread: hands each event to the waits that it is about."""
        try:
            for event in stream.events(
                self._client.settings,
                cancelled=self._stop,
                on_change=self._changed,
                on_open=self._opened,
                user_agent=self._client.user_agent,
                headers=self._client.run_headers,
            ):
                self._handle(event)
        except (TutumError, OSError):
            # Refused credentials, or the end of this waiter: the waits poll, and their reads tell what is
            # wrong.
            pass
        finally:
            self._changed(False)

    def _opened(self, connection: stream.Connection) -> None:
        with self._lock:
            self._connection = connection
        if self._stop.is_set():
            connection.interrupt()

    def _changed(self, standing: bool) -> None:
        """The stream was opened: read everything once. Or it was lost: start to poll."""
        with self._lock:
            news = standing or self._standing or not self._tried.is_set()
            self._standing = standing
            waits = [wait for waits in self._waits.values() for wait in waits] if news else []
        self._tried.set()
        for wait in waits:
            wait.stale = True
            wait.wake.set()

    def _handle(self, event: Mapping[str, Any]) -> None:
        kind, state = event.get("type"), event.get("state")
        uri = event.get("resource_uri")
        if not isinstance(uri, str):
            return
        if kind == "service":
            # A transitional state is no end of any wait: no need to read.
            lasting = state not in lifecycle.TRANSITIONAL
            self._tell([uri], stale=lasting, promised=lasting and state in lifecycle.STATES)
            return
        parents = event.get("parents")
        about = [p for p in parents if isinstance(p, str)] if isinstance(parents, list) else []
        if kind == "container":
            self._tell(about, stale=False, container=uri, running=state == lifecycle.RUNNING)
        elif kind == "action" and state in ("Failed", "Canceled"):
            self._tell(about, stale=True, promised=True)

    def _tell(
        self,
        uris: Sequence[str],
        *,
        stale: bool,
        promised: bool = False,
        container: str = "",
        running: bool = False,
    ) -> None:
        for uri in uris:
            uuid = uri.rstrip("/").rpartition("/")[2].lower()
            with self._lock:
                waits = list(self._waits.get(uuid, ()))
            for wait in waits:
                if container:
                    wait.running[container] = running
                wait.promised = wait.promised or promised
                wait.stale = wait.stale or stale
                wait.wake.set()


class _Course:
    """One wait, from its first look to its end."""

    def __init__(
        self,
        client: Client,
        wait: _Wait,
        verdict: Verdict,
        deadline: float,
        progress: Callable[[str], None] | None,
        cancelled: Signal | None,
        wanted: str,
        action: str | Sequence[str],
    ) -> None:
        self._client = client
        self._wait = wait
        self._verdict = verdict
        self._deadline = deadline
        self._progress = progress
        self._cancelled = cancelled
        self._wanted = wanted
        self._action = action
        self._began = time.monotonic()
        self._service: Detail | None = None
        self._shown = ""
        self._trouble: TutumError | None = None
        self._doubted_since: float | None = None
        self._look_again = False

    def run(self, service: Mapping[str, Any] | None, waiter: Waiter) -> Detail:
        if service is not None and self._judge(Detail(service)):
            return self._reached()
        next_read = time.monotonic() + (waiter.opening() if service is not None else 0.0)
        quiet = reads = 0
        last_read = 0.0
        while True:
            now = time.monotonic()
            if self._cancelled is not None and self._cancelled.is_set():
                raise self._interrupted()
            if now >= self._deadline:
                raise self._late()
            if self._wait.stale:
                # Prompt, unless the service flaps.
                next_read = min(next_read, now if reads < _PROMPT_READS else last_read + _FLAPPING)
            if now < next_read:
                self._sleep(min(next_read, self._deadline) - now)
                self._show()
                continue
            quiet = 0 if self._wait.stale else quiet
            promised, self._wait.promised, self._wait.stale = self._wait.promised, False, False
            last_read, reads = now, reads + 1
            if self._read():
                return self._reached()
            self._look_again = self._look_again or (promised and self._trouble is None)
            next_read = time.monotonic() + self._next(waiter.pause(quiet))
            quiet += 1

    def _sleep(self, seconds: float) -> None:
        self._wait.wake.wait(seconds if self._cancelled is None else min(seconds, _SLICE))
        self._wait.wake.clear()

    def _next(self, pause: float) -> float:
        """The pause before the next read, given what the last one showed."""
        if self._doubted_since is not None or self._look_again:
            return _SECOND_LOOK
        if isinstance(self._trouble, ApiError) and self._trouble.retry_after:
            return max(pause, min(self._trouble.retry_after, 30.0))
        # No answer means no stream worth trusting either.
        return min(pause, _LONGEST_POLL) if self._trouble is not None else pause

    def _read(self) -> bool:
        """Looks at the service; True when it has arrived. Raises when it has ended elsewhere."""
        limits: Limits = {
            "deadline": min(self._deadline, time.monotonic() + _READ_SECONDS),
            "cancelled": self._cancelled,
        }
        self._wait.running.clear()
        try:
            service = self._client.get_service(self._wait.uuid, **limits)
        except NotFound:
            # Terminated long enough ago to be forgotten; the same end as Terminated.
            service = Detail({**(self._service or {"uuid": self._wait.uuid}), "state": lifecycle.TERMINATED})
        except AuthError:
            raise
        except Cancelled:
            raise self._interrupted() from None
        except (TransportError, ServerError, RateLimited) as error:
            self._trouble = error
            return False
        self._trouble = None
        return self._judge(service)

    def _judge(self, service: Detail) -> bool:
        self._service = service
        verdict = self._verdict(service)
        if verdict:
            return True
        ended = Detail({**service, "state": lifecycle.TERMINATED})
        if service.get("state") in lifecycle.ENDING and not self._verdict(ended):
            raise Gone(f"{self._name()} was terminated by somebody else{self._instead()}", service)
        self._show()
        if verdict is None:
            # A doubt that went away came from a read that was stale; this one may be so, too.
            self._look_again, self._doubted_since = self._doubted_since is not None, None
        elif self._doubted_since is None:
            self._doubted_since = time.monotonic()
        elif time.monotonic() - self._doubted_since >= 0.9 * _SECOND_LOOK:
            reasons = self._reasons()
            raise UnexpectedState(f"{self._name()} is {self._standing()}{self._instead()}", service, reasons)
        return False

    def _reached(self) -> Detail:
        assert self._service is not None
        return self._service

    # -- what is said ------------------------------------------------------------------------------

    def _show(self) -> None:
        if self._progress is None or self._service is None:
            return
        text = _progress_text(self._service, list(self._wait.running.values()))
        if text != self._shown:
            self._shown = text
            self._progress(text)

    def _name(self) -> str:
        name = self._service.get("name") if self._service is not None else None
        return f"service {name!r} ({self._wait.uuid})" if name else f"service {self._wait.uuid}"

    def _standing(self) -> str:
        """The state as last seen, with the counts where they say something."""
        if self._service is None:
            return "in an unknown state"
        state = str(self._service.get("state"))
        counts = _counts(self._service, [])
        return f"{state} ({counts})" if counts and state not in lifecycle.ENDING else state

    def _instead(self) -> str:
        return f", wanted was: {self._wanted}" if self._wanted else ""

    def _late(self) -> WaitTimeout:
        after = f"{time.monotonic() - self._began:.0f} seconds"
        trouble = f"; last trouble: {self._trouble}" if self._trouble is not None else ""
        return WaitTimeout(
            f"{self._name()} is still {self._standing()} after {after}{self._instead()}{trouble}",
            self._service,
            self._reasons(),
        )

    def _interrupted(self) -> Cancelled:
        return Cancelled(
            f"interrupted while {self._name()} was {self._standing()}; it goes on by itself", self._service
        )

    def _reasons(self) -> list[str]:
        if self._service is None or self._trouble is not None:
            return []
        return explain(self._client, self._service, action=self._action, cancelled=self._cancelled)


def until(
    client: Client,
    uuid: str,
    *states: str,
    timeout_seconds: float | None = None,
    progress: Callable[[str], None] | None = None,
    cancelled: Signal | None = None,
) -> Detail:
    """For scripts: waits until the service is in one of the states (default: any that lasts), and returns it.

    Raises:
        WaitError: it settled elsewhere, was terminated, or is late (`timeout_seconds`, default that of the
        settings).
    """
    targets = frozenset(states) or lifecycle.STABLE
    ends = targets | lifecycle.STABLE

    def verdict(service: Detail) -> bool | None:
        state = service.get("state")
        return True if state in targets else False if state in ends else None

    seconds = client.settings.timeout_seconds if timeout_seconds is None else timeout_seconds
    with Waiter(client) as waiter:
        return waiter.wait(
            uuid,
            verdict=verdict,
            deadline=time.monotonic() + seconds,
            progress=progress,
            cancelled=cancelled,
            wanted=" or ".join(s for s in lifecycle.STATES if s in targets),
        )


# -- progress --------------------------------------------------------------------------------------

_WAITING_FOR = {
    lifecycle.REDEPLOYING: "waiting for redeploy",
    lifecycle.STOPPING: "waiting for stop",
    lifecycle.TERMINATING: "waiting for termination",
}


def _progress_text(service: Mapping[str, Any], news: Sequence[bool]) -> str:
    state = str(service.get("state"))
    return _WAITING_FOR.get(state) or _counts(service, news) or state


def _counts(service: Mapping[str, Any], news: Sequence[bool]) -> str:
    """`2/3 containers running`, or "" when the counts are not there. `news`: containers that came up
    (True) or ended (False) since the service was read."""
    target = service.get("target_num_containers")
    if target is None:
        # EVERY_NODE has no target.
        target = service.get("current_num_containers")
    running = service.get("running_num_containers")
    if not isinstance(target, int) or not isinstance(running, int):
        return ""
    running = min(max(running + sum(1 if up else 0 for up in news), 0), max(target, running))
    return f"{running}/{target} containers running"


# -- what the containers said ----------------------------------------------------------------------


def explain(
    client: Client,
    service: Mapping[str, Any],
    *,
    action: str | Sequence[str] = "",
    cancelled: Signal | None = None,
    seconds: float = _EXPLAIN_SECONDS,
) -> list[str]:
    """Why a service is not running, in lines for the user.

    First the error of the action, then each container of the present deployment that does not run, is not
    healthy or is not up yet: its name, state, exit code, reason and last log lines. Those that have failed
    come first. Records of containers that earlier deployments left behind are not mentioned. Environment
    values (of 4 or more characters) of the service and of those it links to are masked. Takes at most
    `seconds`, and ends at once when interrupted; what could not be learnt in that time is left out.

    Args:
        service: its detail object.
        action: URI of the action that was asked for, or of several, in their order: the error of the first
            one that failed is shown. Without any, the newest action that deploys containers is looked up.
    """
    limits: Limits = {"deadline": time.monotonic() + seconds, "cancelled": cancelled}
    asked = [action] if isinstance(action, str) else list(action)
    found, listed = _together(
        [
            lambda: _actions(client, service, [uri for uri in asked if uri], limits),
            lambda: list(client.list_containers(service["uuid"], **limits)),
        ],
        limits,
    )
    actions: list[Mapping[str, Any]] = found or []
    said = _action_error(actions)
    present = _of_deployment(listed or [], actions)
    is_checked = _has_check(service)
    containers = _failing(present, said)
    if is_checked and service.get("state") in lifecycle.DEPLOYING:
        containers += filter(_is_unprobed, present)
    shown = containers[:_EXPLAIN_CONTAINERS]
    reports = _together(
        [
            lambda: _hidden(client, service, limits),
            *(lambda c=container: _report(client, c, limits) for container in shown),
        ],
        limits,
    )
    hidden = reports[0]
    lines = [said] if said else []
    for container, report in zip(shown, reports[1:], strict=True):
        detail, log = report if report is not None else (container, [])
        lines.append(_sentence(detail, is_checked=is_checked))
        values = hidden if hidden is not None else _all_values(detail)
        # Without knowing what has to be masked, nothing may be shown.
        if values is not None:
            lines += [
                f"  {detail.get('name', '')} | {schema.masked(text, values)[:_LINE_LENGTH]}" for text in log
            ]
    lines += _others(containers[len(shown) :])
    if any(map(_has_ended_well, shown)):
        lines.append(_JOB_HINT)
    own = schema.secret_values({"container_envvars": service.get("container_envvars")})
    return [schema.masked(line, hidden or own) for line in lines]


def _has_ended_well(container: Mapping[str, Any]) -> bool:
    """Whether a container is stopped because its program has ended with exit code 0."""
    return container.get("state") == lifecycle.STOPPED and container.get("exit_code") == 0


def explain_containers(
    client: Client,
    service: Mapping[str, Any],
    *,
    cancelled: Signal | None = None,
    seconds: float = _EXPLAIN_SECONDS,
) -> list[str]:
    """A sentence for each container that a service has and that does not run or is not healthy."""
    limits: Limits = {"deadline": time.monotonic() + seconds, "cancelled": cancelled}
    listed, hidden = _together(
        [
            lambda: list(client.list_containers(service["uuid"], **limits)),
            lambda: _hidden(client, service, limits),
        ],
        limits,
    )
    present = [c for c in listed or [] if c.get("state") not in lifecycle.ENDING]
    failing = _failing(present, "")
    is_checked = _has_check(service)
    lines = [_sentence(container, is_checked=is_checked) for container in failing[:_EXPLAIN_CONTAINERS]]
    lines += _others(failing[_EXPLAIN_CONTAINERS:])
    own = schema.secret_values({"container_envvars": service.get("container_envvars")})
    return [schema.masked(line, hidden or own) for line in lines]


def _actions(
    client: Client, service: Mapping[str, Any], uris: Sequence[str], limits: Limits
) -> list[Mapping[str, Any]]:
    """The actions of the present deployment, in their order."""
    if uris:
        return [{"resource_uri": uri, **client.get_action(uri, **limits)} for uri in uris]
    listed = client.list_actions(f"/api/v1/service/{service['uuid']}/", **limits)
    deploying = [a for a in listed if str(a.get("action", "")).lower().endswith(_DEPLOYING)]
    return list(deploying[-1:])


def _action_error(actions: Sequence[Mapping[str, Any]]) -> str:
    """What the first failed action says (`error`, an extension of ours); later failures follow from it."""
    for action in actions:
        text = action.get("error")
        if action.get("state") == "Failed" and isinstance(text, str) and text.strip():
            return f"{action.get('action') or 'the action'} failed: {' '.join(text.split())}"
    return ""


def _of_deployment(
    containers: Sequence[Mapping[str, Any]], actions: Sequence[Mapping[str, Any]]
) -> list[Mapping[str, Any]]:
    """The containers (in order of creation) without what earlier deployments left behind.

    A terminated container belongs to the present deployment when one of its actions has deployed it
    (`deployed_by`, an extension of ours) or, where a server does not tell, when it ended after they began;
    and when no later container has its name.
    """
    newest = {container.get("name"): container for container in containers}
    uris = {str(action.get("resource_uri")) for action in actions}
    starts = [_seconds_of(action.get("start_date")) for action in actions]
    began = min((start for start in starts if start is not None), default=None)

    def belongs(container: Mapping[str, Any]) -> bool:
        if container.get("state") != lifecycle.TERMINATED:
            return True
        if newest[container.get("name")] is not container:
            return False
        deployed_by = container.get("deployed_by")
        if actions and isinstance(deployed_by, str):
            return deployed_by in uris
        ended = _seconds_of(container.get("destroyed_datetime"))
        return began is None or ended is None or ended >= began

    return [container for container in containers if belongs(container)]


def _seconds_of(date: Any) -> float | None:
    """Seconds since the epoch for a date of the API's; None for anything else."""
    try:
        return email.utils.parsedate_to_datetime(date).timestamp()
    except (TypeError, ValueError, AttributeError, OverflowError):
        return None


def _failing(containers: Sequence[Mapping[str, Any]], said: str) -> list[Mapping[str, Any]]:
    """The containers that failed, then those that are not healthy, then others that do not run.

    Args:
        said: what was said already; a terminated container whose reason is in it is left out.
    """
    failed: list[Mapping[str, Any]] = []
    unhealthy: list[Mapping[str, Any]] = []
    others: list[Mapping[str, Any]] = []
    for container in containers:
        state, code, reason = (container.get(key) for key in ("state", "exit_code", "exit_code_msg"))
        never_ran = code is None and isinstance(reason, str) and bool(reason.strip())
        if state == lifecycle.RUNNING:
            if _is_unhealthy(container):
                unhealthy.append(container)
        elif state in lifecycle.ENDING:
            if code or (never_ran and str(reason) not in said):
                failed.append(container)
        else:
            (failed if code or never_ran else others).append(container)
    return [*failed, *unhealthy, *others]


def _has_check(service: Mapping[str, Any]) -> bool:
    """Whether a service has a health check of its own."""
    check = service.get("healthcheck")
    return isinstance(check, Mapping) and not check.get("disabled")


def _is_unhealthy(container: Mapping[str, Any]) -> bool:
    """Whether a container runs and its health check has failed."""
    has_failed = container.get("healthy") is False or bool(container.get("health_detail"))
    return has_failed and container.get("state") == lifecycle.RUNNING


def _is_unprobed(container: Mapping[str, Any]) -> bool:
    """Whether a container runs and its health is not known yet."""
    is_unknown = container.get("healthy") is None and not container.get("health_detail")
    return is_unknown and container.get("state") == lifecycle.RUNNING


def _others(containers: Sequence[Mapping[str, Any]]) -> list[str]:
    """The containers for which there was no room."""
    number = len(containers)
    if not number:
        return []
    running = [container for container in containers if container.get("state") == lifecycle.RUNNING]
    if not running:
        verb = "does not run" if number == 1 else "do not run"
    else:
        are_unhealthy = len(running) == number and not any(map(_is_unprobed, running))
        verb = f"{'is' if number == 1 else 'are'} not {'healthy' if are_unhealthy else 'up'}"
    return [f"and {number} more {'container' if number == 1 else 'containers'} that {verb}"]


def _report(
    client: Client, container: Mapping[str, Any], limits: Limits
) -> tuple[Mapping[str, Any], list[str]]:
    """A container's detail object, and its last log lines."""
    detail = client.get_container(container["resource_uri"], **limits)
    try:
        frames = stream.logs(
            client.settings, detail["uuid"], kind="container", tail=_EXPLAIN_LINES, follow=False, **limits
        )
        text = "".join(str(frame.get("log", "")) for frame in frames if frame.get("type") == "log")
        lines = text.splitlines()
    except StreamError:
        lines = client.container_logs(detail["uuid"], _EXPLAIN_LINES, **limits)
    return detail, [line for line in lines if line.strip()][-_EXPLAIN_LINES:]


def _sentence(container: Mapping[str, Any], *, is_checked: bool) -> str:
    """`container web-1: Stopped, exit code 1 (Application Error)`.

    Args:
        is_checked: whether the service has a health check of its own.
    """
    parts = [str(container.get("state"))]
    code = container.get("exit_code")
    reason = container.get("exit_code_msg")
    if isinstance(code, int):
        parts.append(f"exit code {code}")
    text = ", ".join(parts)
    if _is_unhealthy(container):
        detail = container.get("health_detail")
        text += ", not healthy" + (f": {detail}" if isinstance(detail, str) and detail else "")
    elif is_checked and _is_unprobed(container):
        text += ", its health check has not passed yet"
    if isinstance(reason, str) and reason.strip():
        # Tutum's own texts begin with the code once more: `Exit code 1 (General error)`.
        said = re.sub(r"^Exit code -?\d+ \((.*)\)$", r"\1", " ".join(reason.split()))
        text += f" ({said})"
    return f"container {container.get('name') or container.get('uuid')}: {text}"


#: Variables of a container with the role `global`, and how their values begin.
_CREDENTIALS = frozenset({"TUTUM_AUTH", "DOCKERCLOUD_AUTH"})
_SCHEMES = frozenset({"ApiKey", "Basic"})


def _hidden(client: Client, service: Mapping[str, Any], limits: Limits) -> list[str]:
    """Environment values that must not be shown: the service's own, the tokens of its roles, and those of its
    links."""
    values = schema.secret_values({"container_envvars": service.get("container_envvars")})
    values += _tokens(service)
    for link in service.get("linked_to_service") or ():
        target = client.get_service(link["to_service"], **limits)
        values += schema.secret_values({"container_envvars": target.get("container_envvars")})
        variables = target.get("link_variables")
        if isinstance(variables, Mapping):
            values += schema.secret_values(
                {"link_variables": {k: v for k, v in variables.items() if "_ENV_" in k}}
            )
    return values


def _all_values(container: Mapping[str, Any]) -> list[str] | None:
    """Every environment value of a container, whatever it came from; None when it is not known."""
    variables = container.get("container_envvars")
    if not isinstance(variables, list):
        return None
    return schema.secret_values({"container_envvars": variables}) + _tokens(container)


def _tokens(record: Mapping[str, Any]) -> list[str]:
    """The tokens in the variables `TUTUM_AUTH` and `DOCKERCLOUD_AUTH` of a service or container, without the
    words around them that make a header of them."""
    found: list[str] = []
    for name in ("calculated_envvars", "container_envvars"):
        for entry in record.get(name) or ():
            if not isinstance(entry, Mapping) or entry.get("key") not in _CREDENTIALS:
                continue
            scheme, _, pair = str(entry.get("value")).partition(" ")
            if scheme in _SCHEMES:
                found.append(pair.rpartition(":")[2])
    return [token for token in found if len(token) >= schema.MASKED_FROM]


def _together(calls: Sequence[Callable[[], Any]], limits: Limits) -> list[Any]:
    """The results of all calls, made at the same time; None for one that failed or was not ready in time."""
    results: list[Any] = [None] * len(calls)

    def make(i: int) -> None:
        try:
            results[i] = calls[i]()
        except Exception:
            # It is an explanation of a failure; a failure of it must not take the failure's place.
            results[i] = None

    threads = [threading.Thread(target=make, args=(i,), daemon=True) for i in range(len(calls))]
    for thread in threads:
        thread.start()
    deadline, cancelled = limits["deadline"] or 0.0, limits["cancelled"]
    for thread in threads:
        while thread.is_alive() and time.monotonic() < deadline and not (cancelled and cancelled.is_set()):
            thread.join(max(0.0, min(_SLICE, deadline - time.monotonic())))
    return list(results)
