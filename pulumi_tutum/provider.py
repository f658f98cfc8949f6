"""The dynamic provider: what the engine asks of a Service, in six verbs.

`ServiceProvider` is pickled by reference into every user's state (`pulumi_tutum.provider.ServiceProvider`):
module and class never move, and an instance holds nothing before `configure`. In the provider host one
instance serves all resources, from many threads at once.

What the verbs rest on: desired.py says what is wanted and what to do next, operation.py does it, outputs.py
says what the state keeps, host.py knows the engine.
"""

from __future__ import annotations

import json
import os
import socket
import threading
import time
import traceback
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any, NoReturn
from urllib.parse import urlsplit

from pulumi.dynamic import (
    CheckFailure,
    CheckResult,
    ConfigureRequest,
    CreateResult,
    DiffResult,
    ReadResult,
    ResourceProvider,
    UpdateResult,
)

from . import config, consequences, desired, host, lifecycle, outputs, schema
from .client import Limits
from .errors import (
    AuthError,
    Cancelled,
    ConfigError,
    Conflict,
    Gone,
    NotFound,
    Problem,
    TutumError,
    UnexpectedState,
    ValidationError,
    WaitError,
)
from .operation import Operation, Session
from .waiting import explain

__all__ = ["CONFIG", "EXPLICIT", "ServiceProvider"]

#: Pulumi config key -> setting, as config.py names them; `namespace` is the provider's own.
CONFIG = {
    "tutum:user": "user",
    "tutum:apikey": "apikey",
    "tutum:restHost": "rest_host",
    "tutum:streamHost": "stream_host",
    "tutum:caBundle": "ca_bundle",
    "tutum:timeoutSeconds": "timeout_seconds",
    "tutum:monitorSeconds": "monitor_seconds",
    "tutum:namespace": "namespace",
}
#: Config key of an explicit Provider: its credentials are its own, whatever the environment says.
EXPLICIT = "tutum:explicit"
_OF_THE_DEFAULT_ACCOUNT = ("TUTUM_AUTH", "TUTUM_USER", "TUTUM_APIKEY", "TUTUM_PASS")

#: Seconds for a look at the control plane before anything is done (adoption, replacement); previews wait
#: for it.
_LOOK_SECONDS = 15.0
_ASK_SECONDS = 5.0
_CONNECT_SECONDS = 2.0
#: The host's functions at the end of a run have 3 seconds together.
_CLOSE_SECONDS = 2.5


@dataclass
class _Existing:
    """A resource that exists: whoever checks its URN without old inputs after this makes its replacement."""

    name: str
    id: str = ""
    delete_first: bool = False
    outputs: Mapping[str, Any] = field(default_factory=dict)
    marks: Mapping[str, Any] = field(default_factory=dict)


def _marks(inputs: Mapping[str, Any]) -> dict[str, Any]:
    """The hidden inputs that stay for the life of a resource: the engine shows it when one comes or goes."""
    names = (desired.NAME_IS_AUTOMATIC, desired.DELETE_FIRST)
    return {name: inputs[name] for name in names if name in inputs}


class ServiceProvider(ResourceProvider):
    """See the module's docstring."""

    # Readable in the state and cheap to store: there is nothing secret in a reference to a class.
    serialize_as_secret_always = False

    def configure(self, req: ConfigureRequest) -> None:
        """Takes the configuration over; no request is made, nothing is refused yet."""
        given = {setting: req.config.get(key) for key, setting in CONFIG.items()}
        namespace = given.pop("namespace") or ""
        environ = None
        if req.config.get(EXPLICIT):
            environ = {k: v for k, v in os.environ.items() if k not in _OF_THE_DEFAULT_ACCOUNT}
        self._host = _HostState(Session(given, environ, str(namespace)))
        host.prepare()

    # -- check -------------------------------------------------------------------------------------------

    def check(self, olds: dict[str, Any], news: dict[str, Any]) -> CheckResult:
        """Refuses bad arguments, and makes inputs of good ones: normal forms, defaults, the automatic name.

        A failure never names a property: the engine would print its value, which may be secret.
        """
        call, state = host.current(), self._state()
        state.warn_if_unreachable(call)
        found = desired.problems(news)
        if found:
            return CheckResult(news, [CheckFailure("", str(problem)) for problem in found])
        inputs = desired.normal(news)
        found = state.window_problems(inputs)
        found += state.refused(desired.questionable(olds, inputs))
        found += self._look_targets_up(olds, inputs)
        state.warn_of_wrong_credentials(call, exists=bool(desired.visible(olds)))
        if desired.URN in news:
            inputs[desired.URN] = news[desired.URN]
        urn = call.urn or news.get(desired.URN)
        found += state.claim_name(urn, news.get("name"))
        existing = state.existing.get(urn)
        marks = _marks(olds) or (existing.marks if existing else {})
        if desired.visible(olds):
            existing = None
            state.existing[urn] = _Existing(str(olds.get("name", "")), marks=marks)
        elif existing:
            inputs.pop("adopt", None)  # that was for the first of this name
            if existing.id:
                state.warn_of_lost_volumes(call, existing.id, existing.outputs, _destroys("replacement"))
        elif "adopt" in inputs and not schema.is_unknown(inputs["adopt"]):
            found += self._announce_adoption(call, inputs)
        if urn and not desired.visible(olds):
            delete_first = news.get(desired.DELETE_FIRST, existing.delete_first if existing else None)
            state.keys[urn] = self._create_key(urn, existing, delete_first=bool(delete_first))
        state.names_given[urn] = news.get("name") is not None
        self._fill_in_name(urn, olds, inputs)
        inputs |= marks
        return CheckResult(desired.terse(inputs, olds), [CheckFailure("", str(problem)) for problem in found])

    def _fill_in_name(self, urn: str | None, olds: Mapping[str, Any], inputs: dict[str, Any]) -> None:
        """Where the program gives no name: the one that the resource has had, else an automatic one."""
        if inputs.get("name") is not None:
            return
        if desired.visible(olds) and (desired.has_automatic_name(olds) or olds.get("name") is None):
            name = olds.get("name")
        elif "adopt" in inputs and not desired.visible(olds):
            return  # it stays the adopted one's, which nobody could tell us
        elif urn:
            key = self._state().keys.get(urn) or self._create_key(urn, None)
            name = desired.automatic_name(urn, key)
        else:
            return  # the API has a default of its own
        if name is not None:
            inputs["name"] = name

    def _look_targets_up(self, olds: Mapping[str, Any], inputs: dict[str, Any]) -> list[Problem]:
        """Refuses new references to services that do not exist, and gives each link without a name the name
        that Tutum will give it: its target's.

        Services that this program makes or reads are known. Others are asked for, once each in a run.
        """
        state = self._state()
        known_before = {uuid for _, uuid in desired.references(olds)}
        problems = []
        for path, uuid in desired.references(inputs):
            if uuid not in known_before and state.is_missing(uuid):
                reason = f"there is no service {uuid}: it was terminated, or never existed"
                problems.append(Problem(path, reason))
        links = inputs.get("linked_to_service")

        def name_of(uuid: str) -> str | None:
            return state.name_of(uuid) or desired.earlier_name(olds, links, uuid)

        inputs["linked_to_service"] = desired.named_links(links, name_of)
        return problems

    def _create_key(self, urn: str, existing: _Existing | None, *, delete_first: bool = False) -> str:
        """The key under which the resource's service is made once; see `desired.create_key`.

        A replacement that is made while the old service still lives needs a key (and with it a name) of its
        own. One that is made after the old one's end gets the first one's, which is free by then. A run that
        was killed in between must be followed by one that decides alike; but the engine tells of the old
        service then even if that has been deleted. So what counts is whether it still lives.
        """
        namespace = self._state().session.namespace
        if existing is None or delete_first:
            return desired.create_key(urn, namespace)
        old = self._living(existing)
        return desired.create_key(urn, namespace, old)

    def _living(self, existing: _Existing) -> str:
        """The id of a service that is about to be replaced; "" when it is gone."""
        if self._state().unreachable:
            return existing.id
        try:
            reference = existing.id or existing.name
            found = self._state().session.find(reference, deadline=time.monotonic() + _LOOK_SECONDS)
            return str(found["uuid"])
        except NotFound:
            return ""
        except TutumError:
            return existing.id

    def _announce_adoption(self, call: host.Call, inputs: dict[str, Any]) -> list[Problem]:
        """Says which service will be adopted, or returns why it cannot be; its name becomes an input."""
        if self._state().unreachable:
            call.warn(f"adopts service {inputs['adopt']!r}, which cannot be looked at now")
            return []
        try:
            found = self._state().session.find(inputs["adopt"], deadline=time.monotonic() + _LOOK_SECONDS)
        except (NotFound, Conflict, ValidationError) as error:
            return [Problem("adopt", f"{error}; without adopt, a new service is created")]
        except TutumError as error:
            call.warn(f"cannot look at the service to adopt: {error}")
            return []
        if inputs.get("name") is None:
            inputs["name"] = found["name"]
            inputs[desired.NAME_IS_AUTOMATIC] = True
        problems = _not_adoptable(found, inputs)
        if not problems:
            call.warn(
                f"adopts service {found['name']!r} ({found['uuid']}) instead of creating one; "
                "from then on it is this resource's, and `pulumi destroy` terminates it"
            )
        return problems

    # -- diff --------------------------------------------------------------------------------------------

    def diff(self, id_: str, olds: dict[str, Any], news: dict[str, Any]) -> DiffResult:
        """Compares outputs with inputs: other spellings are no change; a service not as wanted is one.

        With `changes=None` the engine compares the inputs itself, and so knows the changed ones by name
        (`replace_on_changes`, the display); that is of use only when they differ from the old inputs.
        """
        call, state = host.current(), self._state()
        news = dict(news)
        state.remember(id_, olds.get("name"))
        olds = state.with_link_names(olds)
        desired.ignore(news, call.ignore_changes, olds)
        changed = desired.changes(olds, news)
        replaces = desired.replaced(changed)
        state.taken_over.discard(id_)
        urn = call.urn or news.get(desired.URN)
        name_is_given = state.names_given.get(urn, not desired.has_automatic_name(news))
        delete_first = desired.cannot_stand_side_by_side(
            olds, {**news, desired.NAME_IS_AUTOMATIC: not name_is_given}
        )
        if urn:
            marks = _marks(call.old_inputs or news)
            state.existing[urn] = _Existing(str(olds.get("name", "")), id_, delete_first, olds, marks)
        if replaces:
            what = f"a change of {' and '.join(replaces)} replaces service {{!r}}: "
            what += "the volumes of the old one, and the data in them, are destroyed"
            state.warn_of_lost_volumes(call, id_, olds, what)
        elif consequences.changes_link_variables(olds, news, changed):
            state.warn_of_old_variables(call, id_, olds)
        faults = desired.faults(olds, news) if "state" in olds else []
        if olds.get(desired.FAILED):
            faults.insert(0, "its last operation failed")
        changes: bool | None = bool(changed or faults)
        before = call.old_inputs
        if changed and before is not None and desired.visible(before) != desired.visible(news):
            changes = None
        elif changes and before is not None:
            # The inputs are the same, so the engine has no difference to show.
            found = [f"its {name} is not what was declared" for name in changed] + faults
            why = state.explain(id_) if faults and id_ not in state.explained else []
            text = f"service {olds.get('name')!r} is repaired by an update: {', '.join(found)}"
            call.warn("\n  ".join([text, *why]))
        if changes is False and "state" in olds:
            state.warn_if_it_died(call, id_, news)
        return DiffResult(changes, replaces, delete_before_replace=delete_first)

    # -- create ------------------------------------------------------------------------------------------

    def create(self, props: dict[str, Any]) -> CreateResult:
        """Makes the service, or gets hold of the one that an interrupted run has made, or of the adopted one;
        then brings it to the inputs."""
        call, state, inputs = host.current(), self._state(), desired.normal(props)
        urn = call.urn or props.get(desired.URN)
        key: str | None = None

        def work(operation: Operation) -> Sequence[Mapping[str, Any]]:
            nonlocal key
            if "adopt" in inputs:
                _adopt(operation, inputs)
            else:
                if urn:
                    key = state.keys.get(urn) or desired.create_key(urn, state.session.namespace)
                _make(operation, inputs, key)
            if "adopt" in inputs or operation.seen["state"] != lifecycle.NOT_RUNNING:
                state.taken_over.add(operation.uuid)
            return operation.reach(inputs)

        try:
            outs = _carry_out(call, state.session, inputs, work)
        except host.Failure as failure:
            if key and failure.kept:
                state.close_at_end(key)
            raise
        finally:
            call.end_progress()
        if key and not call.dropped:
            state.close_at_end(key)
        state.remember(outs["uuid"], outs.get("name"))
        return CreateResult(outs["uuid"], outs)

    # -- update ------------------------------------------------------------------------------------------

    def update(self, id_: str, olds: dict[str, Any], news: dict[str, Any]) -> UpdateResult:
        """Brings the service to the new inputs, in place; also repairs one whose last operation failed."""
        call, state, inputs = host.current(), self._state(), desired.normal(news)
        state.close_at_end()
        failed_before = bool(olds.get(desired.FAILED))
        before, last_good = state.with_link_names(olds), desired.normal(call.old_inputs or olds)

        def work(operation: Operation) -> Sequence[Mapping[str, Any]]:
            _read_living(operation, id_)
            found = desired.definition(operation.seen, inputs)
            for bag in (inputs, before, last_good):
                desired.ignore(bag, call.ignore_changes, found)
            changed = desired.changes(before, inputs)
            in_place = [name for name, needs in changed.items() if needs != schema.REPLACE]
            return operation.reach(inputs, in_place, again=failed_before)

        was_good = olds.get(desired.FAILED) in (None, desired.BUT_WAS_GOOD)
        try:
            outs = _carry_out(call, state.session, inputs, work, last_good=last_good if was_good else None)
        finally:
            call.end_progress()
        return UpdateResult(outs)

    # -- read --------------------------------------------------------------------------------------------

    def read(self, id_: str, props: dict[str, Any]) -> ReadResult:
        """The service as it is: for `refresh` (outputs, and inputs that were changed outside), and for
        `Service.get`, which owns nothing."""
        call, state = host.current(), self._state()
        session = state.session
        is_get = "state" not in props
        # Options are kept of what is owned only: there is nothing to expect of what a `get` has read.
        is_owned = outputs.OWNED in props
        before = call.old_inputs if is_owned else None
        declared = desired.normal(before or props) if is_owned else {}
        # A job that has failed looks like one that has finished; its containers, which are gone, tell.
        failed_before = bool(props.get(desired.FAILED))
        is_failed_job = failed_before and desired.may_finish(declared)

        service, containers = _look(call, session, id_, declared, with_containers=is_failed_job)
        if service is None:
            if is_get:
                call.fail(f"there is no service {id_}: it was terminated, or never existed")
            return ReadResult("", {})
        state.remember(service["uuid"], service.get("name"))
        found = desired.definition(service, declared)
        faults = []
        if service["state"] in lifecycle.STABLE and is_owned:
            # By its own definition: where that is another than the declared one, the inputs show it.
            proof = containers if is_failed_job else None
            faults = desired.faults(service, {**declared, **found}, proof)
        outs = outputs.outputs(service, declared, containers, failed=bool(faults) and failed_before)
        if "bindings" in declared and not schema.same(
            "bindings", declared["bindings"], found.get("bindings")
        ):
            # To bring them back would replace the service and destroy its data: that is for the user.
            call.warn(
                f"the bindings of service {service['name']!r} were changed outside of Pulumi. They stay as "
                "they are; a change of bindings in the program replaces the service"
            )
            outs["bindings"] = found["bindings"] = declared["bindings"]
        outs = outputs.kept(outs, props)
        # Where the host does not tell the inputs they stay, and the next diff goes by the outputs.
        inputs = outputs.inputs_after_read(before, found) if before else None
        if faults and call.urn:  # elsewhere it would fail the whole refresh
            self._state().explained.add(str(service["uuid"]))
            call.fail(
                f"service {service['name']!r} ({service['uuid']}): {', '.join(faults)}",
                id=service["uuid"],
                properties=outs,
                inputs=inputs,
                reasons=explain(session.client, service, cancelled=call.cancelled),
            )
        return ReadResult(service["uuid"], outs, inputs)

    # -- delete ------------------------------------------------------------------------------------------

    def delete(self, id_: str, props: dict[str, Any]) -> None:
        """Terminates the service and waits for its end. One that is gone already is what was wanted."""
        call, state, trouble = host.current(), self._state(), None
        state.close_at_end()
        if call.urn and id_ in state.taken_over:
            # The engine believes that it was another one. `up --replace` asks for a new service without a
            # sign that it replaces one: where that is adopted, or has an open key, it is the old one again.
            # So it is when a program hands a service from one resource to another by `adopt`. To delete it
            # now would leave the resource without any.
            return
        state.warn_of_lost_volumes(call, id_, props, _destroys("termination"))
        try:
            operation = Operation(state.session, call, props)
            operation.terminate(id_)
        except TutumError as error:
            trouble = error
        finally:
            call.end_progress()
        if trouble is not None:
            call.fail(str(trouble), reasons=_reasons(trouble))
        state.remember_end(id_)
        existing = state.existing.get(call.urn)
        if existing and existing.id == id_:
            del state.existing[call.urn]  # what is checked after this is no replacement made beside it

    # -- the host ----------------------------------------------------------------------------------------

    def _state(self) -> _HostState:
        """What the host knows. Made here when nobody has called `configure` (tests, other hosts)."""
        state: _HostState = self.__dict__.get("_host") or self.__dict__.setdefault(
            "_host", _HostState(Session())
        )
        return state


class _HostState:
    """What one provider host remembers from call to call.

    Attributes:
        session: the account and its connections.
        existing: URN -> what is known of the service that it has.
        keys: URN -> the create key of the service that is to be made for it.
        taken_over: ids of services that `create` returned and that had been there before, until they are
            compared: then they are in the state.
        names_given: URN -> whether the program gives its service a name.
        unreachable: no control plane answered when the first resource was checked.
        explained: ids of services of which a refresh has said why they do not run.
    """

    def __init__(self, session: Session) -> None:
        self.session = session
        self.existing: dict[str | None, _Existing] = {}
        self.keys: dict[str, str] = {}
        self.taken_over: set[str] = set()
        self.unreachable = False
        self.names_given: dict[str | None, bool] = {}
        self.explained: set[str] = set()
        self._lock = threading.Lock()
        self._asking = threading.Lock()
        self._answers = True
        self._refused: dict[str, list[Problem]] = {}
        # uuid -> name of the service, None for one that does not exist.
        self._names: dict[str, str | None] = {}
        self._closes = False
        self._made: list[str] = []
        self._looked = False
        self._credentials_known = False
        self._owners: dict[str, str] = {}
        self._volumes_told: set[str] = set()
        self._not_running: set[str] | None = None

    def close_at_end(self, key: str = "") -> None:
        """Has keys closed once the run is over, for then what was made under them is in the state: this one,
        and those of all services that were in the state before, which a killed run may have left open.

        Only for runs that change something: a preview sends nothing.
        """
        with self._lock:
            if not self._closes:
                self._closes = True
                host.at_end(self._close)
            if key:
                self._made.append(key)

    def _close(self) -> None:
        before = [existing.id for existing in self.existing.values() if existing.id]
        if self._made or before:
            self.session.client.close_keys(self._made, before, deadline=time.monotonic() + _CLOSE_SECONDS)

    # -- what a preview says beforehand ----------------------------------------------------------------

    def claim_name(self, urn: str | None, name: Any) -> list[Problem]:
        """Notes which resource of the program has a given name; a problem when another one has it already."""
        if urn is None or not isinstance(name, str):
            return []
        with self._lock:
            # The control plane's names ignore case.
            owner = self._owners.setdefault(name.lower(), urn)
        if owner == urn:
            return []
        return [Problem("name", f"{name!r} is the name of another service of this program: {owner}")]

    def warn_of_lost_volumes(self, call: host.Call, uuid: str, service: Mapping[str, Any], what: str) -> None:
        """Says once which volumes end with a service.

        Args:
            service: its outputs.
            what: the beginning of the warning, with `{!r}` for the service's name; the paths follow.
        """
        with self._lock:
            if uuid in self._volumes_told:
                return
            self._volumes_told.add(uuid)
        try:
            paths = consequences.lost_volumes(self.session.client, uuid, service, **self._look_limits(call))
        except ConfigError:
            paths = desired.volume_paths(service)
        if paths:
            call.warn(f"{what.format(service.get('name'))}: {', '.join(paths)}")

    def warn_of_old_variables(self, call: host.Call, uuid: str, service: Mapping[str, Any]) -> None:
        """Says which services go on with the variables that an update of the one they link to changes."""
        try:
            names = consequences.services_with_old_variables(
                self.session.client, uuid, **self._look_limits(call)
            )
        except ConfigError:
            return
        if names:
            call.warn(
                f"services that link to {service.get('name')!r} keep its old variables until they are "
                f"redeployed: {', '.join(names)}. Unless this update redeploys them, do it afterwards with "
                + " and ".join(f"`pulumi-tutum redeploy {name}`" for name in names if " " not in name)
            )

    def warn_if_it_died(self, call: host.Call, uuid: str, inputs: Mapping[str, Any]) -> None:
        """Says that a service, which needs no change by the state, does not run any more as it did.

        A run that has changed something looks at what it changes anyway.
        """
        if self._closes or uuid not in self._services_that_do_not_run(call):
            return
        try:
            service = self.session.client.get_service(uuid, **self._look_limits(call))
        except TutumError:
            return
        if service["state"] not in lifecycle.STABLE:
            return
        faults = desired.faults(service, inputs)
        if faults:
            text = (
                f"service {service['name']!r} does not run as it did after its last `pulumi up`: "
                f"{', '.join(faults)}. `pulumi up --refresh` repairs it"
            )
            call.warn("\n  ".join([text, *self.explain(uuid, service)]))

    def _services_that_do_not_run(self, call: host.Call) -> set[str]:
        """The uuids of all services at rest of which not every container runs; asked for once."""
        with self._asking:
            if self._not_running is None:
                self._not_running = set()
                with suppress(TutumError):  # another request will say what is wrong
                    self._not_running = self._ask_which_do_not_run(call)
            return self._not_running

    def _ask_which_do_not_run(self, call: host.Call) -> set[str]:
        states = lifecycle.STABLE - {lifecycle.RUNNING}
        found = self.session.client.list_services(states, **self._look_limits(call))
        return {service["uuid"] for service in found}

    def explain(self, uuid: str, service: Mapping[str, Any] | None = None) -> list[str]:
        """Why a service does not run, in lines; nothing where that cannot be learnt."""
        try:
            client = self.session.client
            found = service or client.get_service(uuid, deadline=time.monotonic() + _ASK_SECONDS)
            return explain(client, found)
        except TutumError:
            return []

    def _look_limits(self, call: host.Call) -> Limits:
        """For requests that a preview can do without."""
        seconds = 0.0 if self.unreachable else _ASK_SECONDS
        return {"deadline": time.monotonic() + seconds, "cancelled": call.cancelled}

    def warn_if_unreachable(self, call: host.Call) -> None:
        """Once a process: previews send nothing, and should all the same say that an `up` would not work."""
        with self._lock:
            if self._looked:
                return
            self._looked = True
        from urllib.request import getproxies  # late: it takes longer to import than all of ours

        try:
            address = urlsplit(self.session.client.settings.rest_host)
        except ConfigError as error:
            call.warn(str(error))
            return
        if getproxies() and not config.is_loopback(address.geturl()):
            return  # who can tell
        port = address.port or (443 if address.scheme == "https" else 80)
        try:
            socket.create_connection((address.hostname or "", port), timeout=_CONNECT_SECONDS).close()
        except OSError:
            self.unreachable = True
            call.warn(
                f"no control plane answers at {address.geturl()}: start one with `pulumi-tutum serve`, "
                "or set TUTUM_REST_HOST (or tutum:restHost)"
            )

    def window_problems(self, inputs: Mapping[str, Any]) -> list[Problem]:
        """What is wrong with the window in which the service's containers are watched."""
        try:
            settings = self.session.client.settings
        except ConfigError:
            return []  # reported once, for all resources
        own = inputs.get("timeout_seconds")
        timeout = float(own) if isinstance(own, (int, float)) else settings.timeout_seconds
        monitor = desired.monitor_seconds(inputs, settings.monitor_seconds, timeout)
        return desired.window_problems(monitor, timeout)

    def warn_of_wrong_credentials(self, call: host.Call, *, exists: bool) -> None:
        """Once a process, unless an answer has shown that they are right: a preview that asks for nothing
        else should not end well with a wrong key.

        Args:
            exists: the resource is in the state, so that its diff would ask which services do not run.
        """
        with self._asking:
            if self._credentials_known or self.unreachable:
                return
            self._credentials_known = True
            limits: Limits = {"deadline": time.monotonic() + _ASK_SECONDS, "cancelled": call.cancelled}
            try:
                if exists:
                    self._not_running = self._ask_which_do_not_run(call)
                else:
                    self.session.client.request("GET", "/api/v1/service/", params={"limit": 1}, **limits)
            except AuthError as error:
                call.warn(
                    "the control plane refuses the credentials, so `pulumi up` would fail. Set TUTUM_USER "
                    f"and TUTUM_APIKEY, or tutum:user and tutum:apikey. {error}"
                )
            except TutumError:
                pass  # it may pass until something is asked for that is needed

    def refused(self, definition: Mapping[str, Any]) -> list[Problem]:
        """What of a definition the control plane would refuse, as far as it says so beforehand.

        Asked once for each, since many services are alike; no more after a question without an answer, for
        whoever makes the service will be told.
        """
        if not definition or self.unreachable:
            return []
        question = json.dumps(definition, sort_keys=True)
        with self._asking:
            if question not in self._refused and self._answers:
                try:
                    found = self.session.client.refused(definition, deadline=time.monotonic() + _ASK_SECONDS)
                    self._refused[question] = found
                    self._credentials_known = True
                except TutumError:
                    self._answers = False
            return list(self._refused.get(question, ()))

    def remember(self, uuid: str, name: Any) -> None:
        """Takes note of a service that this program makes, changes or reads: nobody has to ask for it."""
        if isinstance(name, str):
            with self._asking:
                self._names[uuid] = name

    def remember_end(self, uuid: str) -> None:
        """Takes note of a service that was terminated."""
        with self._asking:
            self._names[uuid] = None

    def is_missing(self, uuid: str) -> bool:
        """Whether the control plane says that there is no such service. False if it says nothing."""
        self._look_up(uuid)
        return uuid in self._names and self._names[uuid] is None

    def name_of(self, uuid: str) -> str | None:
        """The name of a service; None if there is none, or the control plane does not tell."""
        self._look_up(uuid)
        return self._names.get(uuid)

    def with_link_names(self, outs: Mapping[str, Any]) -> dict[str, Any]:
        """Outputs in which links without a name have the names of their targets, as far as those are known.

        The state of an earlier release has links without names.
        """
        links = desired.named_links(outs.get("linked_to_service"), self._names.get)
        return {**outs, "linked_to_service": links} if links is not None else dict(outs)

    def _look_up(self, uuid: str) -> None:
        """Asks for a service, unless it is known; no more after a question without an answer."""
        with self._asking:
            if uuid in self._names or self.unreachable or not self._answers:
                return
            try:
                found = self.session.find(uuid, deadline=time.monotonic() + _ASK_SECONDS)
                self._names[uuid] = str(found["name"])
            except NotFound:
                self._names[uuid] = None
            except TutumError:
                self._answers = False


# -- what the verbs share --------------------------------------------------------------------------------


def _destroys(what: str) -> str:
    """The beginning of a warning of lost volumes: the `what` (replacement, termination) of a service."""
    return f"the {what} of service {{!r}} destroys its volumes and the data in them"


def _make(operation: Operation, inputs: Mapping[str, Any], key: str | None) -> None:
    try:
        operation.make(inputs, key)
    except Conflict as error:
        if error.retry_after is not None:
            raise  # another run is making it
        raise Conflict(
            f"{error}. If that is this resource's own service, which is to be replaced, it has to be deleted "
            "first: ResourceOptions(delete_before_replace=True); if it is to be taken over: adopt=<its uuid>",
            status=error.status,
        ) from None
    other = _replaced_in(operation.seen, inputs)
    if other:
        raise UnexpectedState(
            f"{operation.title()} was made by an interrupted run with other {' and '.join(other)}; "
            "the next `pulumi up` replaces it",
            operation.service,
        )


def _adopt(operation: Operation, inputs: Mapping[str, Any]) -> None:
    found = operation.session.find(inputs["adopt"], **operation.limits)
    problems = _not_adoptable(found, inputs)
    if problems:
        raise ValidationError(problems)
    operation.service = found


def _not_adoptable(service: Mapping[str, Any], inputs: Mapping[str, Any]) -> list[Problem]:
    """The differences for which an adopted service would have to be replaced."""
    return [
        Problem(name, f"differs from that of service {service['name']!r}, and cannot be changed: not adopted")
        for name in _replaced_in(service, inputs)
    ]


def _replaced_in(service: Mapping[str, Any], inputs: Mapping[str, Any]) -> list[str]:
    return desired.replaced(desired.differences(service, inputs))


def _read_living(operation: Operation, uuid: str) -> None:
    try:
        operation.read(uuid)
        if operation.seen["state"] not in lifecycle.ENDING:
            return
    except NotFound:
        pass
    operation.service = None
    raise Gone(f"service {uuid} was terminated outside of Pulumi; `pulumi up --refresh` makes a new one")


def _look(
    call: host.Call, session: Session, uuid: str, inputs: Mapping[str, Any], *, with_containers: bool
) -> tuple[Mapping[str, Any] | None, Sequence[Mapping[str, Any]]]:
    """The service and, where they are needed, its containers; (None, ()) when it is gone. Fails the call
    when the control plane does not tell."""
    try:
        operation = Operation(session, call, inputs)
        operation.read(uuid)
        needed = with_containers or outputs.needs_containers(operation.seen)
        containers = operation.containers() if needed else []
    except NotFound:
        return None, ()
    except TutumError as error:
        trouble = error
    else:
        is_gone = operation.seen["state"] in lifecycle.ENDING
        return (None, ()) if is_gone else (operation.seen, containers)
    call.fail(str(trouble))


def _carry_out(
    call: host.Call,
    session: Session,
    inputs: Mapping[str, Any],
    work: Callable[[Operation], Sequence[Mapping[str, Any]]],
    *,
    last_good: Mapping[str, Any] | None = None,
) -> dict[str, Any]:
    """Does the work of a create or update, and returns the outputs.

    When it fails, and there is a service, that is kept in the state as it is now. With
    `rollback_on_failure` the inputs of the last success, if there was one, are applied again before.
    """
    operation: Operation | None = None
    try:
        operation = Operation(session, call, inputs)
        containers = work(operation)
        return outputs.kept(outputs.outputs(operation.seen, inputs, containers))
    except TutumError as error:
        failure = error
    except Exception as error:
        # A bug of ours must not lose a service either.
        if operation is None or operation.service is None:
            raise
        place = traceback.extract_tb(error.__traceback__)[-1]
        failure = TutumError(
            f"{operation.title()}: a bug in pulumi-tutum: {type(error).__name__} in {place.name}, "
            f"{os.path.basename(place.filename)}, line {place.lineno}"
        )
    message, declared = str(failure), inputs
    if last_good is not None and inputs.get("rollback_on_failure") and operation and operation.service:
        rolled_back = _roll_back(operation, failure, last_good)
        if rolled_back:
            message, declared = f"{message}; {rolled_back}", last_good
    _fail(call, operation, failure, message, declared, was_good=last_good is not None)


def _roll_back(operation: Operation, failure: TutumError, inputs: Mapping[str, Any]) -> str:
    """Applies inputs again; returns how that went, in words, or "" where it makes no sense."""
    if isinstance(failure, (Cancelled, Gone)):
        return ""
    try:
        operation.extend()
        operation.read(operation.uuid)
        operation.reach(inputs, again=True)
    except TutumError as error:
        return f"rolling back failed, too: {error}"
    return "rolled back to the last good inputs"


def _fail(
    call: host.Call,
    operation: Operation | None,
    failure: TutumError,
    message: str,
    inputs: Mapping[str, Any],
    *,
    was_good: bool,
) -> NoReturn:
    service: Mapping[str, Any] | None = operation.service if operation is not None else None
    if isinstance(failure, WaitError) and failure.service and message == str(failure):
        service = failure.service  # seen later than our own
    if service is not None and str(service["uuid"]) not in message:
        message = f"service {service.get('name')!r} ({service['uuid']}): {message}"
    if service is None or service.get("state") in lifecycle.ENDING:
        call.fail(message, reasons=_reasons(failure))
    reasons = [*_reasons(failure), "It is kept in the state: the next `pulumi up` carries on with it."]
    call.fail(
        message,
        id=str(service["uuid"]),
        properties=outputs.kept(
            outputs.outputs(service, inputs, failed=desired.BUT_WAS_GOOD if was_good else True)
        ),
        reasons=reasons,
    )


def _reasons(failure: TutumError) -> list[str]:
    return failure.reasons if isinstance(failure, WaitError) else []
