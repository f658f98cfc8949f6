"""One operation of the engine on one service: what it asks of the control plane, and how long it may take.

The heart is `Operation.reach`: whatever the service is now, it brings it to the inputs with as few requests
as possible, and either it is there or an error says what is not. Creating, adopting, updating, repairing
and rolling back are all this one function, begun with a service in another state.
"""

from __future__ import annotations

import contextlib
import threading
import time
from collections.abc import Callable, Collection, Mapping, Sequence
from typing import Any

from . import config, desired, host, lifecycle, outputs, schema
from .client import Client, Detail
from .errors import (
    ApiError,
    BadRequest,
    Cancelled,
    Conflict,
    Gone,
    NotAllowed,
    NotFound,
    RateLimited,
    ServerError,
    TransportError,
    UnexpectedState,
)
from .waiting import Waiter, explain

__all__ = ["Operation", "Session"]

#: Between two attempts of an action whose first answer never came, in seconds.
_FIRST_PAUSE, _LONGEST_PAUSE = 0.2, 5.0
#: How long an interrupted create still listens for its answer, in seconds.
_LAST_WORD = 1.0
#: How long a create waits for the end of another run that makes the same service. The host of a killed engine
#: ends within some 5 seconds; that of a machine that was lost counts as dead after 60.
_OTHER_RUN_SECONDS = 75.0
_MONITOR = "monitor_seconds"


class Session:
    """What all operations of a provider host share: one account, one client, one events connection.

    Args:
        explicit: settings as `config.resolve` takes them.
        environ: the environment to look at, if not the process's own.
        namespace: config `tutum:namespace`.
    """

    def __init__(
        self,
        explicit: Mapping[str, Any] | None = None,
        environ: Mapping[str, str] | None = None,
        namespace: str = "",
    ) -> None:
        self.namespace = namespace
        self._explicit = dict(explicit or {})
        self._environ = environ
        self._lock = threading.Lock()
        self._client: Client | None = None
        self._waiter: Waiter | None = None

    @property
    def client(self) -> Client:
        """Made at first use, so that a host without credentials can check and preview.

        Raises:
            ConfigError: no or unusable credentials or addresses.
        """
        with self._lock:
            if self._client is None:
                settings = config.resolve(self._explicit, self._environ)
                self._client = Client(settings=settings, run=host.run())
            return self._client

    @property
    def waiter(self) -> Waiter:
        """The one that all waits share. Raises like `client`."""
        client = self.client
        with self._lock:
            if self._waiter is None:
                self._waiter = Waiter(client)
            return self._waiter

    def find(self, reference: str, **limits: Any) -> Detail:
        """The living service with this uuid, URI or name. Raises NotFound or Conflict (ambiguous)."""
        uuid = schema.service_uuid(reference)
        if uuid is None:
            return self.client.find_service(reference, **limits)
        service = self.client.get_service(uuid, **limits)
        if service["state"] in lifecycle.ENDING:
            raise NotFound(f"service {uuid} is {service['state']}")
        return service


class _Patient:
    """An interruption that leaves a request under way some seconds; a pause between two it ends at once."""

    def __init__(self, cancelled: threading.Event, seconds: float) -> None:
        self._cancelled = cancelled
        self._seconds = seconds
        self._end: float | None = None

    def is_set(self) -> bool:
        if not self._cancelled.is_set():
            return False
        self._end = self._end or time.monotonic() + self._seconds
        return time.monotonic() >= self._end

    def wait(self, timeout: float | None = None) -> bool:
        return self._cancelled.wait(timeout)


class Operation:
    """See the module's docstring.

    Args:
        session: of the host.
        call: the engine's call that is served.
        inputs: its inputs; `timeout_seconds` among them counts when the call brings no custom timeout.

    Attributes:
        service: as it was last seen, in detail shape; None as long as there is none.
    """

    def __init__(self, session: Session, call: host.Call, inputs: Mapping[str, Any]) -> None:
        self.session = session
        self.call = call
        self.service: Detail | None = None
        self._actions: list[str] = []
        own = inputs.get("timeout_seconds")
        self._seconds = call.timeout_seconds or (float(own) if isinstance(own, (int, float)) else None)
        self.deadline = 0.0
        self.extend()

    def extend(self) -> None:
        """Lets the time run anew, from now."""
        seconds = self._seconds
        if seconds is None:
            seconds = self.session.client.settings.timeout_seconds
        self.deadline = time.monotonic() + seconds

    @property
    def limits(self) -> dict[str, Any]:
        """For every request of the operation."""
        return {"deadline": self.deadline, "cancelled": self.call.cancelled}

    @property
    def seen(self) -> Detail:
        """The service as last seen, once there is one."""
        assert self.service is not None
        return self.service

    @property
    def uuid(self) -> str:
        return str(self.seen["uuid"])

    def title(self) -> str:
        """The service, for messages."""
        return f"service {self.seen.get('name')!r} ({self.uuid})"

    # -- getting hold of a service -----------------------------------------------------------------------

    def read(self, uuid: str) -> None:
        """Reads the service anew."""
        self.service = self.session.client.get_service(uuid, **self.limits)

    def make(self, inputs: Mapping[str, Any], key: str | None) -> None:
        """Creates the service, or gets hold of the one that an earlier run has made with this key.

        Where that run has not ended yet, this waits for its end, but not for long.
        """
        if self.call.cancelled.is_set():
            raise Cancelled("interrupted before the service was created")
        client = self.session.client
        body = schema.body({**inputs, "monitor_seconds": self._window(inputs)})
        if key and client.run_headers:
            # By its stream the control plane knows that this run lives, and gives the service to no other.
            self.session.waiter.listen(**self.limits)
        # What was made must get into the state; nobody else knows of it.
        patient = _Patient(self.call.cancelled, _LAST_WORD)
        give_up = min(self.deadline, time.monotonic() + _OTHER_RUN_SECONDS)
        while True:
            try:
                self.service = client.create_service(body, key=key, deadline=self.deadline, cancelled=patient)
                return
            except Conflict as error:
                if error.retry_after is None or time.monotonic() + error.retry_after >= give_up:
                    raise
                self.call.progress("waiting for the end of another run, which is making it")
                if self.call.cancelled.wait(error.retry_after):
                    raise Cancelled("interrupted while another run was making the service") from None

    # -- bringing it to the inputs -----------------------------------------------------------------------

    def reach(
        self, inputs: Mapping[str, Any], changed: Collection[str] = (), *, again: bool = False
    ) -> list[dict[str, Any]]:
        """Brings the service to the inputs.

        Order: wait until nothing is under way, PATCH, at most one start, stop or redeploy, and a scale only
        if the number of containers is still another. An action whose answer did not come is repeated after
        the state was read again.

        Args:
            changed: attributes that are sent even if the service has them already.
            again: the last operation failed; a job that seems to have finished is run again.

        Returns:
            the service's containers, in list shape, as far as the outputs need them.

        Raises:
            WaitError: it did not get there; `service` is as it was then.
            TutumError: a request failed.
        """
        done: list[str] = []
        patched: set[str] = set()
        pending = {name for name in changed if name in schema.INPUTS}
        attempts = 0
        has_ended = False
        while True:
            pending |= set() if patched else self._differing(inputs)
            on_its_way = self.seen["state"] in lifecycle.TRANSITIONAL
            if inputs.get("wait") is False and not pending and (done or on_its_way):
                return self._containers(inputs, bool(done))
            self._settle(inputs, patched, done)
            if pending:
                self._patch(inputs, pending)
                patched, pending = pending, set()
                continue
            action = desired.next_action(self.seen, inputs, patched, done, again=again)
            if action is None:
                has_ended = self._await_end_of_job(inputs)
                break
            if action != "stop" and not patched and self._lacks_window(inputs):
                pending = {_MONITOR}
                continue
            attempts += 1
            if self._act(action, attempts):
                done.append(action)
        began = has_ended or "start" in done or "redeploy" in done
        containers = self._containers(inputs, began)
        self._verify(inputs, began, containers)
        return containers

    def _differing(self, inputs: Mapping[str, Any]) -> set[str]:
        """The attributes that a PATCH can and has to change."""
        found = desired.differences(self.seen, inputs)
        return {name for name, needs in found.items() if needs != schema.REPLACE}

    def _patch(self, inputs: Mapping[str, Any], names: Collection[str]) -> None:
        """Sends attributes; the client repeats a PATCH by itself."""
        self.call.progress("updating the definition")
        if self._lacks_window(inputs):
            names = {*names, _MONITOR}
            inputs = {**inputs, _MONITOR: self._window(inputs)}
        body = schema.body(inputs, names)
        self.service = self.session.client.update_service(self.uuid, body, **self.limits)

    def _window(self, inputs: Mapping[str, Any]) -> int:
        """The `monitor_seconds` of a service with these inputs."""
        settings = self.session.client.settings
        seconds = self._seconds or settings.timeout_seconds
        return desired.monitor_seconds(inputs, settings.monitor_seconds, seconds)

    def _lacks_window(self, inputs: Mapping[str, Any]) -> bool:
        """Whether the service gets another `monitor_seconds`, which the program leaves to the provider.

        An adopted service keeps what it has.
        """
        if inputs.get(_MONITOR) is not None:
            return False
        now = self.seen.get(_MONITOR)
        if now is not None and "adopt" in inputs:
            return False
        return (now or 0) != self._window(inputs)

    def _await_end_of_job(self, inputs: Mapping[str, Any]) -> bool:
        """Waits until all containers of a job have ended; False when there is nothing to wait for."""
        waits = desired.is_job(inputs) and inputs.get("wait") is not False and desired.target(inputs) != 0
        if not waits or self.seen["state"] not in (lifecycle.RUNNING, lifecycle.PARTLY_RUNNING):
            return False
        ends = (lifecycle.STOPPED, lifecycle.NOT_RUNNING)
        self.await_state(lambda service: service["state"] in ends or None, "finished")
        return True

    def _act(self, action: str, attempt: int) -> bool:
        """Asks for an action. False: it is not known or not certain that it is under way; look again."""
        ask: Callable[..., Detail] = getattr(self.session.client, f"{action}_service")
        before = self.seen["state"]
        try:
            self.service = ask(self.uuid, **self.limits)
        except (TransportError, ServerError, RateLimited) as error:
            self._pause(attempt, error)
            self.read(self.uuid)
            return False
        except ApiError as error:
            # Somebody else may have been faster; a refusal in the state that we know of is final.
            self.read(self.uuid)
            if self.seen["state"] == before:
                raise
            self._pause(attempt, error)
            return False
        if self.seen.action_uri:
            self._actions.append(self.seen.action_uri)
        return True

    def _pause(self, attempt: int, error: Exception) -> None:
        asked = getattr(error, "retry_after", None)
        seconds = min(_LONGEST_PAUSE, max(_FIRST_PAUSE * 2.0 ** min(attempt, 10), float(asked or 0)))
        if time.monotonic() + seconds >= self.deadline:
            raise error
        if self.call.cancelled.wait(seconds):
            raise Cancelled(f"interrupted while {self.title()} was {self.seen['state']}", self.service)

    def _settle(self, inputs: Mapping[str, Any], patched: Collection[str], done: Sequence[str]) -> None:
        """Waits while the service is on its way from one state to another."""
        if self.call.cancelled.is_set():
            raise Cancelled(f"interrupted while {self.title()} was {self.seen['state']}", self.service)
        if self.seen["state"] in lifecycle.ENDING:
            raise Gone(f"{self.title()} was terminated by somebody else", self.service)

        def verdict(service: Detail) -> bool | None:
            if service["state"] not in lifecycle.STABLE:
                return None
            # What somebody else began may end anyhow; what we asked for should end well, or lead on.
            return (
                not done
                or not desired.faults(service, inputs)
                or desired.next_action(service, inputs, patched, done) is not None
            )

        wanted = "finished" if desired.is_job(inputs) else "running"
        try:
            self.await_state(verdict, "stopped" if inputs.get("running") is False else wanted)
        except UnexpectedState as error:
            now = error.service or {}
            if now.get("state") != lifecycle.RUNNING or inputs.get("running") is False:
                raise
            # Somebody else has had a hand in it.
            found = ", ".join([*_deviations(now, inputs), *desired.faults(now, inputs)])
            raise UnexpectedState(f"{self.title()} runs, but {found}", now, error.reasons) from None

    def await_state(
        self, verdict: Callable[[Detail], bool | None], wanted: str, *, quiet: bool = False
    ) -> None:
        """Waits for a verdict on the service; see `Waiter.wait` for how it ends. `quiet`: no progress."""
        self.service = self.session.waiter.wait(
            self.uuid,
            verdict=verdict,
            progress=None if quiet else self.call.progress,
            service=self.service,
            wanted=wanted,
            action=self._actions,
            **self.limits,
        )

    # -- ending it ---------------------------------------------------------------------------------------

    def terminate(self, uuid: str) -> None:
        """Terminates the service and waits for its end; returns at once when it is over already.

        The API refuses to terminate a service that is Starting, Scaling or Redeploying. The action behind
        that is cancelled first, since a service that hangs there would hold up its end.

        Raises:
            TutumError: it still lives, and why.
        """
        attempts = 0
        while True:
            attempts += 1
            try:
                self.read(uuid)
                state = str(self.seen["state"])
                if state == lifecycle.TERMINATED:
                    return
                if state in lifecycle.TRANSITIONAL:
                    if state in lifecycle.DEPLOYING and not self._cancel_actions(attempts):
                        continue
                    self.await_state(_has_left(state), "terminated", quiet=True)
                    continue
                if self._act("terminate", attempts):
                    self.await_state(lambda s: s["state"] == lifecycle.TERMINATED or None, "terminated")
                    return
            except NotFound:
                return

    def _cancel_actions(self, attempt: int) -> bool:
        """Cancels what is under way, and what waits behind it. False: no certain answer came; look again.

        An action that has ended meanwhile, or that the server does not cancel, is left alone.
        """
        client, uri = self.session.client, schema.service_uri(self.uuid)
        try:
            for state in ("Pending", "In progress"):
                for action in list(client.list_actions(uri, state, **self.limits)):
                    if action.get("can_be_canceled") is False:
                        continue
                    self.call.progress(f"cancelling {action.get('action') or 'the action under way'}")
                    with contextlib.suppress(BadRequest, NotFound, NotAllowed):
                        client.cancel_action(str(action["resource_uri"]), **self.limits)
        except (TransportError, ServerError, RateLimited) as error:
            self._pause(attempt, error)
            return False
        return True

    # -- looking at the result ---------------------------------------------------------------------------

    def containers(self) -> list[dict[str, Any]]:
        """The service's containers, in list shape and ordinal order, also those that are gone."""
        return list(self.session.client.list_containers(self.uuid, **self.limits))

    def _containers(self, inputs: Mapping[str, Any], began: bool) -> list[dict[str, Any]]:
        """The containers, where they are needed: for endpoints, and as proof that a job went well."""
        needed = self._may_have_finished(inputs, began) or outputs.needs_containers(self.seen)
        return self.containers() if needed else []

    def _verify(
        self, inputs: Mapping[str, Any], began: bool, containers: Sequence[Mapping[str, Any]]
    ) -> None:
        """Raises UnexpectedState unless the service is what the inputs say.

        Args:
            began: this operation has started the service, or waited for its end.
        """
        found = _deviations(self.seen, inputs)
        proof = None
        if self._may_have_finished(inputs, began):
            # The looks of a job that was not deployed at all are those of one that has finished.
            has_failed = self._has_failed() and not desired.failed_exits(containers)
            proof = [] if has_failed else containers
        found += desired.faults(self.seen, inputs, proof)
        if found:
            reasons = explain(
                self.session.client, self.seen, action=self._actions, cancelled=self.call.cancelled
            )
            raise UnexpectedState(f"{self.title()}: {', '.join(found)}", self.service, reasons)

    def _has_failed(self) -> bool:
        """Whether the action that this operation asked for has failed."""
        if not self._actions:
            return False
        action = self.session.client.get_action(self._actions[-1], **self.limits)
        return bool(action.get("state") == "Failed")

    def _may_have_finished(self, inputs: Mapping[str, Any], began: bool) -> bool:
        """Whether this operation has begun what may be a job, and which seems to have ended."""
        return began and desired.may_finish(inputs) and self.seen["state"] != lifecycle.RUNNING


def _has_left(state: str) -> Callable[[Detail], bool | None]:
    """The verdict of a wait for a service to be in another state."""
    return lambda service: service["state"] != state or None


def _deviations(service: Mapping[str, Any], inputs: Mapping[str, Any]) -> list[str]:
    """What of a definition that a PATCH can change is not as wanted, in words."""
    found = desired.differences(service, inputs)
    return [
        f"its {name} is not what was asked for" for name, needs in found.items() if needs != schema.REPLACE
    ]
