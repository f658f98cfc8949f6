"""The verbs on services, and on their containers."""

from __future__ import annotations

import asyncio
from collections import ChainMap
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from .. import lifecycle, schema
from ..errors import BadRequest, Conflict, Problem, ServerError
from ..lifecycle import (
    ACTIONS,
    ENDING,
    NOT_RUNNING,
    PARTLY_RUNNING,
    REDEPLOYING,
    RUNNING,
    SCALING,
    STABLE,
    STARTING,
    STOPPED,
    TRANSITIONAL,
    permitted,
    refusal,
)
from . import model
from .backends import GONE, Observed
from .clock import Timer
from .core import Core, bad_request
from .dependencies import in_order
from .deployment import NO_HEALTH_PORT, lacks_health_port
from .model import Action, Container, RequestInfo, Service, new_uuid, uri
from .records import Change, volume_sources

#: What an HTTP health check depends on.
_OF_HEALTH = ("healthcheck", "image", "container_ports")
#: When to ask again whether a run has ended, in seconds.
_RUN_SECONDS = 1.0
#: Seconds until what nodes called for is tried again after it failed: at first, and at most.
_AGAIN_FIRST, _AGAIN_MOST = 2.0, 300.0


@dataclass(frozen=True)
class Reply:
    """The answer to a request that changes something.

    Attributes:
        body: the object, detail shape.
        action_uri: for the header `X-Tutum-Action-URI`, or None.
    """

    body: dict[str, Any]
    status: int = 202
    action_uri: str | None = None


@dataclass(frozen=True)
class Scope:
    """Where references to services are looked up.

    Attributes:
        stack: uuid of the stack whose names come first.
        members: services that the request defines, which may be new: lower-cased name to uuid.
        leaving: uuids of services that the request terminates.
    """

    stack: str = ""
    members: Mapping[str, str] = field(default_factory=dict)
    leaving: frozenset[str] = frozenset()


class Services:
    """See the module's docstring."""

    def __init__(self, core: Core) -> None:
        self.core = core
        self.records = core.records
        core.on_settled.append(self._settled)
        #: Services for which nodes came or went while they were busy.
        self._follow: set[str] = set()
        #: Of services that are owed containers: the next try, and the pause before the one after it.
        self._tries: dict[str, Timer] = {}
        self._pauses: dict[str, float] = {}

    # -- definitions

    def resolve(self, reference: str, scope: Scope, listed: Collection[str] = ()) -> str | None:
        """uuid of the live service that a URI, uuid, name or `name.stack` means.

        Args:
            listed: services that the definition refers to already. They are found also when they are
                terminated, so that a request may repeat what an answer lists.
        """
        uuid = schema.service_uuid(reference)
        if uuid is None:
            uuid = self._uuid_of(reference.lower(), scope)
            uuid = uuid or next((u for u in listed if self._is_called(u, reference.lower(), scope)), None)
        if uuid in listed or uuid in scope.members.values():
            return uuid
        service = self.records.services.get(uuid or "")
        if service is None or service.state in ENDING or service.uuid in scope.leaving:
            return None
        return service.uuid

    def _uuid_of(self, name: str, scope: Scope) -> str | None:
        """uuid of the live service with a lower-cased `name` or `name.stack`."""
        by_name = self.records.by_name
        uuid = scope.members.get(name) or by_name.get((scope.stack, name)) or by_name.get(("", name))
        if uuid is not None or "." not in name:
            return uuid
        name, _, stack_name = name.rpartition(".")
        stacks = [stack.uuid for stack in self.records.stacks.values() if stack.name.lower() == stack_name]
        return next((by_name[stack, name] for stack in stacks if (stack, name) in by_name), None)

    def _is_called(self, uuid: str, name: str, scope: Scope) -> bool:
        """Whether a service, which may be terminated, has a lower-cased `name` or `name.stack`."""
        service = self.records.services.get(uuid)
        if service is None:
            return False
        stack_name = self.records.stack_name(service)
        if service.stack == scope.stack or not stack_name:
            return name == service.name.lower()
        return name == f"{service.name}.{stack_name}".lower()

    def define(
        self, body: Mapping[str, Any], scope: Scope, old: Service | None = None, where: str = ""
    ) -> dict[str, Any]:
        """The definition that a POST or PATCH asks for, tidy.

        Raises:
            BadRequest: with the messages by field.
        """
        given = {n: body[n] for n in (*schema.INPUTS, *model.EXTRAS) if n in body}
        given.pop("name", None) if old is not None else None
        problems: list[Problem] = []
        self._aliases(given, body, problems)
        self._links(given, scope, old, problems)
        self._bindings(given, scope, old, problems)
        merged: dict[str, Any] = {**(old.definition if old is not None else {}), **given}
        if old is not None:
            self._forbidden(given, old, problems)
        elif merged.get("deployment_strategy") == schema.EVERY_NODE:
            merged.pop("target_num_containers", None)
        if merged.get("image") == "":
            merged["image"] = None
        for name in model.EXTRAS:
            value = merged.get(name)
            if value is not None and (
                not isinstance(value, str) or "\0" in value or (value and not value.startswith("/"))
            ):
                problems.append(Problem(name, "must be an absolute path"))
        known = {p.path for p in problems}
        problems += [p for p in schema.problems(merged, strict=False) if p.path not in known]
        if problems:
            raise bad_request(problems, where=where)
        extras = {n: merged[n] for n in model.EXTRAS if merged.get(n)}
        definition = model.tidy({**schema.normal(merged, defaults=False), **extras})
        definition.pop("name", None)
        return definition

    @staticmethod
    def _aliases(given: dict[str, Any], body: Mapping[str, Any], problems: list[Problem]) -> None:
        for name, attribute in schema.INPUTS.items():
            for alias in attribute.aliases:
                if alias not in body:
                    continue
                if body.get(name) is not None and body[alias] is not None and body[name] != body[alias]:
                    problems.append(Problem(name, f"{name} and {alias} contradict each other"))
                if given.get(name) is None:
                    given[name] = body[alias]

    def _links(
        self, given: dict[str, Any], scope: Scope, old: Service | None, problems: list[Problem]
    ) -> None:
        links = given.get("linked_to_service")
        if not isinstance(links, list):
            return
        held = old.get("linked_to_service") if old is not None else ()
        names = {schema.service_uuid(link["to_service"]) or "": link["name"] for link in held}
        out = []
        for i, link in enumerate(links):
            reference = link.get("to_service") if isinstance(link, Mapping) else None
            if isinstance(link, Mapping) and isinstance(reference, str):
                target = self.resolve(reference, scope, names)
                if target is None:
                    problems.append(Problem(f"linked_to_service[{i}].to_service", "there is no such service"))
                else:
                    link = {**link, "to_service": uri("service", target)}
                    if link.get("name") in (None, ""):
                        link["name"] = self._name_of(target, scope) or names[target]
            out.append(link)
        given["linked_to_service"] = out

    def _name_of(self, uuid: str, scope: Scope) -> str:
        """The name of a service; "" if it is forgotten."""
        service = self.records.services.get(uuid)
        if service is not None:
            return service.name
        return next((name for name, member in scope.members.items() if member == uuid), "")

    def _bindings(
        self, given: dict[str, Any], scope: Scope, old: Service | None, problems: list[Problem]
    ) -> None:
        bindings = given.get("bindings")
        if not isinstance(bindings, list):
            return
        listed = volume_sources(old.definition) if old is not None else ()
        out = []
        for i, binding in enumerate(bindings):
            if isinstance(binding, Mapping):
                # go-tutum spells the key wrong.
                reference = binding.get("volumes_from") or binding.get("volume_from")
                if isinstance(reference, str) and reference:
                    target = self.resolve(reference, scope, listed)
                    if target is None:
                        problems.append(Problem(f"bindings[{i}].volumes_from", "there is no such service"))
                    else:
                        binding = {**binding, "volumes_from": uri("service", target)}
            out.append(binding)
        given["bindings"] = out

    def check_volumes(self, defined: Sequence[Service], *, named: bool) -> None:
        """Refuse services whose volumes come from themselves: none of them could start, or be terminated
        before the others.

        Args:
            defined: services with their new definitions; new ones need not be among the records yet.
            named: the message says which of them it is.

        Raises:
            BadRequest: volumes lead back to one of them.
        """
        # There may be many services: they are not copied for each request.
        services = ChainMap({service.uuid: service for service in defined}, self.records.services)
        for service in defined:
            where = f"Service '{service.name}': " if named else ""
            for i, binding in enumerate(service.get("bindings")):
                source = schema.service_uuid(binding.get("volumes_from") or "")
                if source is not None and service.uuid in _sources(source, services):
                    problem = Problem(f"bindings[{i}].volumes_from", "leads back to this service")
                    raise bad_request([problem], where=where)

    @staticmethod
    def _forbidden(given: dict[str, Any], old: Service, problems: list[Problem]) -> None:
        strategy = given.get("deployment_strategy", old.get("deployment_strategy")) or "EMPTIEST_NODE"
        if (strategy == schema.EVERY_NODE) != old.every_node:
            problems.append(Problem("deployment_strategy", "cannot be changed to or from EVERY_NODE"))
        elif old.every_node and given.get("target_num_containers") is not None:
            problems.append(
                Problem(
                    "target_num_containers",
                    "cannot be given with EVERY_NODE: one container runs on every node",
                )
            )

    # -- create, update

    def create(
        self,
        change: Change,
        body: Mapping[str, Any],
        scope: Scope,
        uuid: str = "",
        key: str = "",
        where: str = "",
    ) -> Service:
        """Add a service to a change."""
        definition = self.define(body, scope, where=where)
        name = body.get("name") or model.default_name(definition["image"])
        if (scope.stack, name.lower()) in self.records.by_name:
            raise Conflict(f"{where}There is a service with the name '{name}' already")
        if problems := self._refusals(definition, name):
            raise bad_request(problems, where=where)
        nickname = body.get("nickname")
        service = Service(
            uuid or new_uuid(),
            self.records.next_seq(),
            name,
            definition,
            stack=scope.stack,
            nickname=nickname if isinstance(nickname, str) else "",
            key=key,
        )
        return change.add(service)

    def refused(self, definition: Mapping[str, Any]) -> list[Problem]:
        """What of a definition, which may be a part of one, the backend refuses."""
        if problems := schema.problems(definition, strict=False, partial=True):
            raise bad_request(problems)
        return self._refusals(model.tidy(schema.normal(definition, defaults=False)), "")

    def _refusals(
        self, definition: Mapping[str, Any], name: str, old: Mapping[str, Any] | None = None
    ) -> list[Problem]:
        """What of a definition in normal form this control plane cannot carry out.

        Args:
            old: the definition that it replaces.
        """
        problems = self.core.backend.refuse(model.wire(definition, name))
        if old is None or any(definition.get(n) != old.get(n) for n in _OF_HEALTH):
            image = self.records.images.get(definition.get("image") or "")
            info = image.info if image is not None else None
            if info is not None and lacks_health_port(definition, info):
                problems.append(Problem("healthcheck.http", NO_HEALTH_PORT))
        return problems

    def create_service(
        self, body: Mapping[str, Any], request: RequestInfo | None, key: str | None, run: str = ""
    ) -> Reply:
        if key and (held := self.records.by_key.get(key)):
            service = self.records.services[held]
            if service.key_closed:
                raise Conflict(
                    f"Service '{service.name}' ({service.uuid}) was made with this key already, by "
                    "somebody whose state holds it; to take it over, set adopt to its uuid"
                )
            if service.run != run:
                if self.core.hub.lives(service.run):
                    raise Conflict(
                        f"Service '{service.name}' ({service.uuid}) is just being made with this key by "
                        "another run, which has not ended; two stacks with the same names need "
                        "a tutum:namespace each",
                        retry_after=_RUN_SECONDS,
                    )
                with self.records.change() as change:
                    change.edit(service).run = run
            return Reply(self.core.shapes.service(service), 200)
        uuid = new_uuid()
        with self.records.change() as change:
            # Events come in this order: the action, then what it does.
            action = self.core.act(change, "Service Create", uri("service", uuid), request)
            service = self.create(change, body, Scope(), uuid, key=key or "")
            service.run = run if key else ""
        return self._reply(service, action, 201)

    def close_keys(self, keys: Iterable[str], uuids: Iterable[str] = ()) -> int:
        """The makers of these keys' services, and of these services, have them safe; returns how many live
        services that concerns."""
        named = dict.fromkeys([*uuids, *(self.records.by_key.get(key, "") for key in keys)])
        services = [s for uuid in named if (s := self.records.services.get(uuid)) is not None]
        found = [s for s in services if s.key and s.state not in ENDING]
        with self.records.change() as change:
            for service in found:
                if not service.key_closed:
                    change.edit(service).key_closed = True
        return len(found)

    def update(self, uuid: str, body: Mapping[str, Any], request: RequestInfo | None) -> Reply:
        service = self.core.service(uuid)
        if not permitted("update", service.state):
            self._refuse("update", service, request)
        with self.records.change() as change:
            action = self.core.act(change, "Service Update", uri("service", service.uuid), request)
            self.patch(change, service, body, Scope(service.stack))
            self.check_volumes([service], named=False)
        return self._reply(service, action)

    def patch(
        self, change: Change, service: Service, body: Mapping[str, Any], scope: Scope, where: str = ""
    ) -> None:
        """Change a definition."""
        definition = self.define(body, scope, service, where)
        if problems := self._refusals(definition, service.name, service.definition):
            raise bad_request(problems, where=where)
        change.edit(service).definition = definition
        if isinstance(body.get("nickname"), str):
            service.nickname = body["nickname"]
        change.announce(service)

    # -- actions

    def act(
        self, uuid: str, verb: str, request: RequestInfo | None, options: Mapping[str, Any] | None = None
    ) -> Reply:
        service = self.core.service(uuid)
        options = dict(options or {})
        if verb not in ACTIONS or verb == "update":
            raise BadRequest(f"There is no action '{verb}'")
        if not permitted(verb, service.state, lenient=self.core.settings.lenient):
            self._refuse(verb, service, request)
        if verb == "scale" and service.every_node:
            error = BadRequest("A service with EVERY_NODE cannot be scaled: one container runs on every node")
            self.core.refuse("Service Scale", uri("service", service.uuid), request, error, verb)
        if verb == "terminate":
            try:
                self.check_leaving([service])
            except Conflict as error:
                self.core.refuse(_text(verb), uri("service", service.uuid), request, error, verb)
        with self.records.change() as change:
            if service.state in ACTIONS[verb].store_only:
                action = self.core.act(change, _text(verb), uri("service", service.uuid), request, verb=verb)
            else:
                action = self.core.act(
                    change,
                    _text(verb),
                    uri("service", uuid),
                    request,
                    state="In progress",
                    verb=verb,
                    options=options,
                )
                self.begin(change, service, verb, action, options)
        self.core.convergence.kick(service.uuid)
        return self._reply(service, action)

    def begin(
        self, change: Change, service: Service, verb: str, action: Action, options: Mapping[str, Any]
    ) -> None:
        """Move a service into the transitional state of an action that its state permits."""
        if verb == "redeploy" and service.state == NOT_RUNNING:
            verb = "start"
        row = ACTIONS[verb]
        change.edit(service)
        service.finished = ()
        service.owed = service.owed and not action.is_user_action
        service.fresh = verb == "redeploy" or (verb == "start" and service.state == NOT_RUNNING)
        service.trigger_body = (
            str(options.get("trigger_body", "")) if verb in ("redeploy", "start") else service.trigger_body
        )
        if verb == "redeploy":
            service.deployment += 1
            service.reuse_volumes = bool(options.get("reuse_volumes", True))
        for c in self.records.containers_of(service.uuid):
            _forget_failure(change, c)
            if verb == "terminate":
                change.edit(c).wanted = "gone"
                c.keep_volumes = False
            elif c.wanted == "gone":
                continue
            elif verb == "stop" and (c.active or c.wanted == "running"):
                change.edit(c).wanted = "stopped"
            elif verb == "start" and not c.runs:
                change.edit(c).ran = False
                c.deployed_by = action.uuid
        if verb == "terminate":
            for waiting in service.queue:
                self._end_waiting(change, waiting, "Canceled", "")
            service.queue = ()
        assert row.via is not None
        service.state, service.action = row.via, action.uuid

    def _refuse(self, verb: str, service: Service, request: RequestInfo | None) -> None:
        error = BadRequest(refusal(verb, service.state))
        self.core.refuse(_text(verb), uri("service", service.uuid), request, error, verb)

    def check_leaving(self, leaving: Sequence[Service], defined: Sequence[Service] = ()) -> None:
        """Refuse to terminate services whose volumes others use. Among those that leave, that is no obstacle.

        Args:
            defined: services with the definitions that they will have.

        Raises:
            Conflict: it names the users.
        """
        uuids = {service.uuid for service in leaving}
        for service in leaving:
            known = [self.records.services[u] for u in self.records.mounters.get(service.uuid, ())]
            candidates = {user.uuid: user for user in (*known, *defined) if user.uuid not in uuids}
            users = [u for u in candidates.values() if service.uuid in volume_sources(u.definition)]
            if users:
                names = ", ".join(f"'{user.name}'" for user in users)
                which = "Service" if len(leaving) == 1 else f"Service '{service.name}'"
                raise Conflict(f"{which} cannot be terminated while its volumes are used by {names}")

    def enqueue(
        self,
        service: Service,
        verb: str,
        request: RequestInfo | None,
        options: Mapping[str, Any],
        text: str = "",
    ) -> Action:
        """Do it now, or when the service has settled; for what nobody waits for (triggers, autoredeploy, new
        nodes).
        """
        busy = service.state not in STABLE
        if not busy and not permitted(verb, service.state, lenient=self.core.settings.lenient):
            self._refuse(verb, service, request)
        if service.state in ENDING:
            self._refuse(verb, service, request)
        stored = service.state in ACTIONS[verb].store_only
        with self.records.change() as change:
            action = self.core.act(
                change,
                text or _text(verb),
                uri("service", service.uuid),
                request,
                state="Pending" if busy else "Success" if stored else "In progress",
                verb=verb,
                options=options,
            )
            if busy:
                change.edit(service).queue = (*service.queue, action.uuid)
            elif not stored:
                self.begin(change, service, verb, action, options)
        self.core.convergence.kick(service.uuid)
        return action

    def _settled(self, service: Service) -> None:
        """A service came to rest: what waited for that begins."""
        if service.queue:
            with self.records.change() as change:
                first, *rest = service.queue
                change.edit(service).queue = tuple(rest)
                action = self.records.actions.get(first)
                if action is None or action.end is not None:
                    pass
                elif permitted(action.verb, service.state, lenient=self.core.settings.lenient):
                    change.edit(action).state = "In progress"
                    if service.state in ACTIONS[action.verb].store_only:
                        self.core.convergence.end_action(change, action.uuid)
                    else:
                        self.begin(change, service, action.verb, action, action.options)
                else:
                    self._end_waiting(change, first, "Failed", refusal(action.verb, service.state))
            self._kick_soon(service)
        else:
            try:
                if service.uuid in self._follow:
                    self.make_up(service)
                elif service.owed:
                    self._look_at_owed(service)
            except ServerError:
                self._try_later(service)

    def _kick_soon(self, service: Service) -> None:
        asyncio.get_running_loop().call_soon(self._kick, service)

    def _kick(self, service: Service) -> None:
        if service.state in STABLE and service.queue:
            self._settled(service)
        else:
            self.core.convergence.kick(service.uuid)

    def _end_waiting(self, change: Change, uuid: str, state: str, error: str) -> None:
        action = self.records.actions.get(uuid)
        if action is not None and action.end is None:
            change.edit(action).state = state
            action.error, action.end = error, self.core.clock.time()

    def follow_nodes(self) -> None:
        """Nodes came or went: an EVERY_NODE service that is up gets a container on each new one, and what is
        owed is tried at once."""
        for service in list(self.records.services.values()):
            is_up = service.every_node and service.state not in (NOT_RUNNING, STOPPED, *ENDING)
            if service.owed or is_up:
                self._pauses.pop(service.uuid, None)
                self.make_up(service)

    def make_up(self, service: Service) -> None:
        """Bring a service back to its number of containers, by itself; if it is busy, once it has settled."""
        self._forget_try(service)
        if service.state in TRANSITIONAL and service.state not in ENDING:
            self._follow.add(service.uuid)
            return
        if service.state not in ENDING:
            if self._lacks_containers(service):
                self._rescale(service)
            elif service.every_node and service.goal != (goal := len(self.core.world.candidates(service))):
                with self.records.change() as change:
                    change.edit(service).goal = goal
                self.core.convergence.kick(service.uuid)
        self._follow.discard(service.uuid)

    def _lacks_containers(self, service: Service, finished: Collection[int | str] = ()) -> bool:
        """Whether there are too few containers.

        Args:
            finished: ordinals (EVERY_NODE: nodes) whose containers need not be there any more.
        """
        staying = self.records.staying_of(service.uuid)
        if service.every_node:
            filled = {*(c.node for c in staying), *finished}
            return any(node.uuid not in filled for node in self.core.world.candidates(service))
        return len(staying) + len(finished) < (service.target or 0)

    def _rescale(self, service: Service) -> None:
        with self.records.change() as change:
            action = self.core.act(
                change, "Service Scale", uri("service", service.uuid), None, state="In progress", verb="scale"
            )
            change.edit(service).state = SCALING
            if not service.owed:
                service.finished = ()
            service.action, service.owed = action.uuid, True
            for c in self.records.containers_of(service.uuid):
                _forget_failure(change, c)
        self.core.convergence.kick(service.uuid)

    def _look_at_owed(self, service: Service) -> None:
        """Check whether a service that has settled has the containers that it is owed."""
        if self._lacks_containers(service, service.finished):
            self._try_later(service)
        elif service.state != NOT_RUNNING or not service.every_node:
            # One that has lost all its containers waits for nodes.
            self._pauses.pop(service.uuid, None)
            with self.records.change() as change:
                change.edit(service).owed = False

    def _try_later(self, service: Service) -> None:
        pause = self._pauses.get(service.uuid, _AGAIN_FIRST)
        self._pauses[service.uuid] = min(2 * pause, _AGAIN_MOST)
        self._forget_try(service)
        self._tries[service.uuid] = self.core.clock.call_later(pause, self._try_again, service)

    def _forget_try(self, service: Service) -> None:
        if (timer := self._tries.pop(service.uuid, None)) is not None:
            timer.cancel()

    def _try_again(self, service: Service) -> None:
        if not service.owed and service.uuid not in self._follow:
            self._pauses.pop(service.uuid, None)
            return
        try:
            self.make_up(service)
        except ServerError:
            self._try_later(service)

    def announce_image(self, image: str) -> int:
        """A new version of an image was pushed: services with `autoredeploy` that run it are redeployed."""
        wanted, count = schema.default_tag(image), 0
        for service in list(self.records.services.values()):
            if not service.get("autoredeploy") or service.definition["image"] != wanted:
                continue
            if service.state in (RUNNING, PARTLY_RUNNING, STARTING, SCALING, REDEPLOYING):
                self.enqueue(service, "redeploy", None, {"reuse_volumes": True}, "Service Autoredeploy")
                count += 1
        return count

    def _reply(self, service: Service, action: Action, status: int = 202) -> Reply:
        return Reply(self.core.shapes.service(service), status, uri("action", action.uuid))

    # -- containers

    def act_on_container(
        self, uuid: str, verb: str, request: RequestInfo | None, options: Mapping[str, Any] | None = None
    ) -> Reply:
        container = self.core.container(uuid)
        service = self.core.service(container.service)
        object_ = uri("container", container.uuid)
        if verb not in CONTAINER_ACTIONS:
            raise BadRequest(f"There is no action '{verb}' of containers")
        text = f"Container {verb.capitalize()}"
        # What its restart policy or its backend is bringing back can be stopped and removed like what runs.
        state = RUNNING if container.active and container.state == STARTING else container.state
        if state not in CONTAINER_ACTIONS[verb]:
            error = BadRequest(f"Container cannot be {_PARTICIPLES[verb]} in state '{container.state}'")
            self.core.refuse(text, object_, request, error, verb)
        if service.state not in STABLE:
            error = BadRequest(
                f"Container cannot be {_PARTICIPLES[verb]} while its service is in state '{service.state}'"
            )
            self.core.refuse(text, object_, request, error, verb)
        with self.records.change() as change:
            action = self.core.act(change, text, object_, request, state="In progress", verb=verb)
            change.edit(container)
            if verb == "redeploy":
                # The rolling replacement does it: this container alone is of an older deployment.
                change.edit(service).state = REDEPLOYING
                service.reuse_volumes = bool((options or {}).get("reuse_volumes", True))
                service.action = action.uuid
                service.fresh, service.finished = False, ()
                for c in self.records.containers_of(service.uuid):
                    change.edit(c).deployment = service.deployment
                    c.failure = ""
                container.deployment = -1
            else:
                container.failure = ""
                container.action = action.uuid
                container.wanted = {"start": "running", "stop": "stopped", "terminate": "gone"}[verb]
                if verb == "start":
                    container.ran = False
        self.core.convergence.kick(service.uuid)
        return Reply(self.core.shapes.container(container), 202, uri("action", action.uuid))

    def lose(self, containers: list[Container], reason: str, *, again: bool = False) -> None:
        """Containers are gone without anybody having asked for it.

        Args:
            again: others are to take their place, now or when nodes come; see `make_up`.
        """
        with self.records.change() as change:
            for c in containers:
                if c.live:
                    self.core.convergence.apply(change, c, Observed(c.uuid, GONE, reason=reason))
                service = self.records.services[c.service]
                if again and service.state in (RUNNING, PARTLY_RUNNING):
                    change.edit(service).owed = True
        for c in containers:
            self.core.discard(c.uuid)
        for uuid in {c.service for c in containers}:
            self.core.convergence.kick(uuid)

    # -- stacks and links need

    def begin_all(
        self,
        change: Change,
        services: Sequence[Service],
        verb: str,
        request: RequestInfo | None,
        options: Mapping[str, Any],
    ) -> list[str]:
        """Begin an action on each of several services, whose states permit it; `kick` them afterwards. Each
        is begun after those that it needs, or, when they end, before them.

        Returns:
            uuids of the actions.
        """
        ordered = in_order(services)
        if verb in ("stop", "terminate"):
            ordered.reverse()
        actions: list[str] = []
        for service in ordered:
            action = self.core.act(
                change,
                _text(verb),
                uri("service", service.uuid),
                request,
                state="In progress",
                verb=verb,
                options=options,
            )
            self.begin(change, service, verb, action, options)
            actions.append(action.uuid)
        return actions

    def cancel(self, action: Action, request: RequestInfo | None) -> None:
        """Call an action off that waits or is on its way."""
        service = self.records.services.get(model.uuid_in(action.object))
        with self.records.change() as change:
            if action.state == "Pending":
                self._end_waiting(change, action.uuid, "Canceled", "")
                if service is not None:
                    change.edit(service).queue = tuple(u for u in service.queue if u != action.uuid)
            else:
                change.edit(action).state = "Canceling"
        if service is not None:
            self.core.convergence.cancel(service.uuid)


def _sources(uuid: str, services: Mapping[str, Service]) -> set[str]:
    """A service, and all whose volumes it uses, directly or through others."""
    found: set[str] = set()
    left = [uuid]
    while left:
        service = services.get(left.pop())
        if service is not None and service.uuid not in found:
            found.add(service.uuid)
            left += volume_sources(service.definition)
    return found


CONTAINER_ACTIONS: dict[str, frozenset[str]] = {
    "start": frozenset({"Stopped"}),
    "stop": frozenset({"Running"}),
    "terminate": frozenset({"Running", "Stopped"}),
    "redeploy": frozenset({"Running", "Stopped"}),
}
_PARTICIPLES = {verb: lifecycle.ACTIONS[verb].participle for verb in CONTAINER_ACTIONS}


def _forget_failure(change: Change, container: Container) -> None:
    """Another action begins: what kept the container from coming up before does not count for it."""
    if container.failure:
        change.edit(container).failure = ""


def _text(verb: str) -> str:
    return f"Service {verb.capitalize()}"
