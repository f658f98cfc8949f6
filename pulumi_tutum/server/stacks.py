"""The verbs on stacks: the same on each of their services."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from .. import schema
from ..errors import BadRequest, Conflict, Problem, ServerError
from ..lifecycle import ENDING, TERMINATED, permitted
from . import model, stackfile
from .core import Core, bad_request
from .model import Action, RequestInfo, Service, Stack, new_uuid, uri
from .records import Change
from .services import Reply, Scope, Services
from .shapes import can_be_canceled


class Stacks:
    """See the module's docstring."""

    def __init__(self, core: Core, services: Services) -> None:
        self.core = core
        self.records = core.records
        self.services = services
        core.on_settled.append(self._settled)

    def begin(self) -> None:
        """At the start: end the actions whose last service came to rest just before the server stopped."""
        for stack in self.records.stacks.values():
            self._end_actions(stack.uuid)

    def members(self, stack: Stack) -> list[Service]:
        """The services of a stack that are not ending, in order of creation."""
        found = [self.records.services[u] for u in self.records.of_stack.get(stack.uuid, ())]
        return sorted((s for s in found if s.state not in ENDING), key=lambda s: s.seq)

    def create(self, body: Mapping[str, Any], request: RequestInfo | None) -> Reply:
        name = body.get("name")
        if not isinstance(name, str) or not schema.NAME_PATTERN.fullmatch(name):
            raise bad_request([Problem("name", "is required: letters, digits, - or _, 1 to 63")], "stack")
        if any(
            s.name.lower() == name.lower() and s.state != TERMINATED for s in self.records.stacks.values()
        ):
            raise Conflict(f"There is a stack with the name '{name}' already")
        bodies = self._bodies(body.get("services"))
        stack = Stack(new_uuid(), self.records.next_seq(), name)
        nickname = body.get("nickname")
        stack.nickname = nickname if isinstance(nickname, str) else ""
        with self.records.change() as change:
            change.add(stack)
            self._define(change, stack, bodies)
            action = self.core.act(change, "Stack Create", uri("stack", stack.uuid), request)
        return Reply(self.core.shapes.stack(stack), 201, uri("action", action.uuid))

    def update(self, uuid: str, body: Mapping[str, Any], request: RequestInfo | None) -> Reply:
        """PATCH: the services given are updated by name, or made; those not given are terminated. If a part
        of it is refused, nothing changes.
        """
        stack = self._stack(uuid)
        object_, text = uri("stack", stack.uuid), "Stack Update"
        if stack.terminating:
            error = BadRequest(f"Stack cannot be updated in state '{stack.state}'")
            self.core.refuse(text, object_, request, error)
        bodies: list[dict[str, Any]] = []
        leaving: list[Service] = []
        if body.get("services") is not None:
            bodies = self._bodies(body["services"])
            kept = {str(b["name"]).lower() for b in bodies}
            leaving = [s for s in self.members(stack) if s.name.lower() not in kept]
        for service in leaving:
            if not permitted("terminate", service.state):
                error = BadRequest(
                    f"Service '{service.name}': cannot be terminated in state '{service.state}'"
                )
                self.core.refuse(text, object_, request, error)
        try:
            with self.records.change() as change:
                if isinstance(body.get("nickname"), str):
                    change.edit(stack).nickname = body["nickname"]
                defined = self._define(change, stack, bodies, leaving)
                self.services.check_leaving(leaving, defined)
                parts = self.services.begin_all(change, leaving, "terminate", request, {})
                change.announce(change.edit(stack))
                action = self._act(change, stack, text, request, parts)
        except Conflict as error:
            self.core.refuse(text, object_, request, error)
        for service in leaving:
            self.core.convergence.kick(service.uuid)
        return Reply(self.core.shapes.stack(stack), 202, uri("action", action.uuid))

    @staticmethod
    def _bodies(given: Any) -> list[dict[str, Any]]:
        """The services of a request with the API's keys, each with its name.

        Raises:
            BadRequest, Conflict: something is wrong with them as a list.
        """
        if given is None:
            given = []
        if not isinstance(given, list) or not all(isinstance(s, Mapping) for s in given):
            raise bad_request([Problem("services", "must be a list of objects")], "stack")
        bodies: list[dict[str, Any]] = []
        names: set[str] = set()
        for i, item in enumerate(given):
            where = (
                f"Service '{item['name']}': " if isinstance(item.get("name"), str) else f"Service {i + 1}: "
            )
            try:
                body = stackfile.to_attributes(item)
            except BadRequest as error:
                raise bad_request([Problem("", error.message)], "stack", where) from None
            image = body.get("image")
            name = body.get("name") or (model.default_name(image) if isinstance(image, str) else "")
            if isinstance(name, str) and name.lower() in names:
                raise Conflict(f"{where}the name is given twice")
            if isinstance(name, str):
                names.add(name.lower())
            bodies.append({**body, "name": name})
        return bodies

    def _define(
        self,
        change: Change,
        stack: Stack,
        bodies: Sequence[Mapping[str, Any]],
        leaving: Sequence[Service] = (),
    ) -> list[Service]:
        """Make or update a stack's services.

        Args:
            leaving: those that the same request terminates; no other may begin to refer to them.
        """
        present = {s.name.lower(): s for s in self.members(stack)}
        uuids: dict[str, str] = {}
        for body in bodies:
            name = str(body["name"]).lower()
            uuids[name] = present[name].uuid if name in present else new_uuid()
        scope = Scope(stack.uuid, uuids, frozenset(s.uuid for s in leaving))
        defined: list[Service] = []
        for body in bodies:
            name = str(body["name"])
            where = f"Service '{name}': "
            service = present.get(name.lower())
            if service is not None:
                self.services.patch(change, service, body, scope, where)
            else:
                service = self.services.create(change, body, scope, uuids[name.lower()], where=where)
                self.core.act(change, "Service Create", uri("service", service.uuid), None)
            defined.append(service)
        self.services.check_volumes(defined, named=True)
        return defined

    def act(
        self, uuid: str, verb: str, request: RequestInfo | None, options: Mapping[str, Any] | None = None
    ) -> Reply:
        """start, stop, redeploy, terminate: of each service whose state permits it."""
        stack = self._stack(uuid)
        # A retry brings the options of the first try.
        options = {name: value for name, value in (options or {}).items() if name != "parts"}
        object_, text = uri("stack", stack.uuid), f"Stack {verb.capitalize()}"
        members = self.members(stack)
        lenient = self.core.settings.lenient
        able = [s for s in members if permitted(verb, s.state, lenient=lenient)]
        if verb == "terminate":
            blocked = [s for s in members if s not in able]
            if stack.terminating or blocked:
                state = blocked[0].state if blocked else stack.state
                refused = BadRequest(f"Stack cannot be terminated in state '{state}'")
                self.core.refuse(text, object_, request, refused, verb)
            try:
                self.services.check_leaving(members)
            except Conflict as error:
                self.core.refuse(text, object_, request, error, verb)
        elif not able:
            participle = {"stop": "stopped"}.get(verb, f"{verb}ed")
            refused = BadRequest(f"Stack cannot be {participle} in state '{stack.state}'")
            self.core.refuse(text, object_, request, refused, verb)
        with self.records.change() as change:
            parts = self.services.begin_all(change, able, verb, request, options)
            if verb == "terminate":
                change.edit(stack).terminating = True
            action = self._act(change, stack, text, request, parts, verb, options)
        for service in able:
            self.core.convergence.kick(service.uuid)
        self.core.settle_stack(stack.uuid)
        self._end_actions(stack.uuid)
        return Reply(self.core.shapes.stack(stack), 202, uri("action", action.uuid))

    def _act(
        self,
        change: Change,
        stack: Stack,
        text: str,
        request: RequestInfo | None,
        parts: Sequence[str],
        verb: str = "",
        options: Mapping[str, Any] | None = None,
    ) -> Action:
        """Record a stack's action, which ends with those of its services."""
        kept = {**(options or {}), "parts": parts}
        state = "In progress" if parts or verb else "Success"
        return self.core.act(
            change, text, uri("stack", stack.uuid), request, state=state, verb=verb, options=kept
        )

    # -- a stack's action lasts as long as those of its services

    def _settled(self, service: Service) -> None:
        if service.stack:
            self._end_actions(service.stack)

    def _end_actions(self, stack: str) -> None:
        found = [self.records.actions[u] for u in self.records.actions_of.get(uri("stack", stack), ())]
        try:
            for action in found:
                parts = self._parts(action)
                if action.end is None and all(part.end is not None for part in parts):
                    with self.records.change() as change:
                        self._end(change.edit(action), parts)
        except ServerError:
            self.core.clock.call_later(1.0, self._end_actions, stack)

    def _end(self, action: Action, parts: list[Action]) -> None:
        action.end = self.core.clock.time()
        action.error = "; ".join(part.error for part in parts if part.error)
        if action.state == "Canceling":
            action.state = "Canceled"
        else:
            action.state = "Success" if all(part.state == "Success" for part in parts) else "Failed"

    def _parts(self, action: Action) -> list[Action]:
        """The actions of services that a stack's action consists of."""
        found = (self.records.actions.get(uuid) for uuid in action.options.get("parts", ()))
        return [part for part in found if part is not None]

    def cancel(self, action: Action, request: RequestInfo | None) -> None:
        """Call off what can be called off of it."""
        with self.records.change() as change:
            change.edit(action).state = "Canceling"
        for part in self._parts(action):
            if can_be_canceled(part):
                self.services.cancel(part, request)

    def export(self, uuid: str) -> dict[str, Any]:
        stack = self._stack(uuid)
        names: dict[str, str] = {}
        for service in self.records.services.values():
            of = self.records.stack_name(service)
            full = f"{service.name}.{of}" if of and service.stack != stack.uuid else service.name
            names[uri("service", service.uuid)] = full
        return {
            s.name: stackfile.to_stackfile(self.core.shapes.service(s), names) for s in self.members(stack)
        }

    def _stack(self, uuid: str) -> Stack:
        found: Stack = self.core.find("stack", uuid)
        return found
