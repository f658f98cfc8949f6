"""The verbs on stacks: the same on each of their services."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from .. import schema
from ..errors import ApiError, BadRequest, Conflict, Problem, ServerError
from ..lifecycle import ENDING, TERMINATED, permitted
from . import model, stackfile
from .core import Core, bad_request
from .model import Action, RequestInfo, Service, Stack, new_uuid, uri, uuid_in
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
        stack = Stack(new_uuid(), self.records.next_seq(), name)
        nickname = body.get("nickname")
        stack.nickname = nickname if isinstance(nickname, str) else ""
        with self.records.change() as change:
            change.add(stack)
            self._define(change, stack, body.get("services"))
            action = self.core.act(change, "Stack Create", uri("stack", stack.uuid), request)
        return Reply(self.core.shapes.stack(stack), 201, uri("action", action.uuid))

    def update(self, uuid: str, body: Mapping[str, Any], request: RequestInfo | None) -> Reply:
        """PATCH: the services given are updated by name, or made; those not given are terminated."""
        stack = self._stack(uuid)
        if stack.terminating:
            error = BadRequest(f"Stack cannot be updated in state '{stack.state}'")
            self.core.refuse("Stack Update", uri("stack", uuid), request, error)
        leaving: list[Service] = []
        with self.records.change() as change:
            if isinstance(body.get("nickname"), str):
                change.edit(stack).nickname = body["nickname"]
            if body.get("services") is not None:
                kept = self._define(change, stack, body["services"])
                leaving = [s for s in self.members(stack) if s.name.lower() not in kept]
                for service in leaving:
                    if not permitted("terminate", service.state):
                        raise BadRequest(
                            f"Service '{service.name}': cannot be terminated in state '{service.state}'"
                        )
            change.announce(change.edit(stack))
            action = self.core.act(change, "Stack Update", uri("stack", stack.uuid), request)
        if leaving:
            self.services.terminate_all(leaving, request)
        return Reply(self.core.shapes.stack(stack), 202, uri("action", action.uuid))

    def _define(self, change: Any, stack: Stack, given: Any) -> set[str]:
        """Make or update a stack's services; returns their names in lower case."""
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
        present = {s.name.lower(): s for s in self.members(stack)}
        uuids = {
            str(b["name"]).lower(): present[str(b["name"]).lower()].uuid
            if str(b["name"]).lower() in present
            else new_uuid()
            for b in bodies
        }
        scope = Scope(stack.uuid, uuids)
        for body in bodies:
            name = str(body["name"])
            where = f"Service '{name}': "
            if name.lower() in present:
                service = present[name.lower()]
                if permitted("update", service.state):
                    self.services.patch(change, service, body, scope, where)
            else:
                service = self.services.create(change, body, scope, uuids[name.lower()], where=where)
                self.core.act(change, "Service Create", uri("service", service.uuid), None)
        return names

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
                parts = self.services.terminate_all(members, request)
            except ApiError as error:
                self.core.refuse(text, object_, request, error, verb)
        else:
            if not able:
                participle = {"stop": "stopped"}.get(verb, f"{verb}ed")
                refused = BadRequest(f"Stack cannot be {participle} in state '{stack.state}'")
                self.core.refuse(text, object_, request, refused, verb)
            # A service is started after those that it links to.
            replies = [
                self.services.act(service.uuid, verb, request, options)
                for service in in_link_order(able, self.services.depends_on)
            ]
            parts = [uuid_in(reply.action_uri or "") for reply in replies]
        with self.records.change() as change:
            if verb == "terminate":
                change.edit(stack).terminating = True
            kept = {**options, "parts": parts}
            action = self.core.act(
                change, text, object_, request, state="In progress", verb=verb, options=kept
            )
        self.core.settle_stack(stack.uuid)
        self._end_actions(stack.uuid)
        return Reply(self.core.shapes.stack(stack), 202, uri("action", action.uuid))

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


def in_link_order(services: list[Service], targets: Any) -> list[Service]:
    """The services, each after those that it links to; in a circle, in the order given."""
    out: list[Service] = []
    by_uuid = {s.uuid: s for s in services}
    seen: set[str] = set()

    def visit(service: Service) -> None:
        if service.uuid in seen:
            return
        seen.add(service.uuid)
        for target in targets(service):
            if target in by_uuid:
                visit(by_uuid[target])
        out.append(service)

    for service in services:
        visit(service)
    return out
