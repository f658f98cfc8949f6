"""The control plane: the verbs of the API over records, convergence and a backend. No HTTP, no Docker.

Everything runs on one event loop. A verb checks, changes records in one stored step, and answers; what takes
time is carried out afterwards (`convergence`). Every refusal is an `ApiError`; nothing else escapes.
"""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import AsyncGenerator, Callable, Iterable, Mapping, Sequence
from typing import Any, overload

from .. import schema
from ..errors import BackendError, BadRequest, ConfigError, NotFound, Problem
from ..lifecycle import ENDING
from . import model, shapes
from .backends import GONE, Backend, ExecSession, Observed
from .clock import Clock, LoopClock
from .core import Core, bad_request
from .filters import filters
from .infrastructure import Infrastructure
from .model import Action, RequestInfo, Settings, Trigger, new_uuid, uri
from .output import Output
from .services import Reply, Services
from .stacks import Stacks
from .store import MemoryStore, Store

__all__ = ["ControlPlane", "Listing", "Reply", "RequestInfo", "Settings"]


class Listing(Sequence[dict[str, Any]]):
    """Objects in list shape; only those that are looked at are rendered.

    Args:
        found: what is listed.
        render: gives the object of one of them.
        render_json: gives the JSON of this object; default: it is rendered from the object.
    """

    def __init__(
        self,
        found: Sequence[Any],
        render: Callable[[Any], dict[str, Any]],
        render_json: Callable[[Any], bytes] | None = None,
    ) -> None:
        self._found = found
        self._render = render
        self._render_json = render_json or (lambda one: shapes.render(render(one)))

    def __len__(self) -> int:
        return len(self._found)

    @overload
    def __getitem__(self, index: int) -> dict[str, Any]: ...
    @overload
    def __getitem__(self, index: slice) -> list[dict[str, Any]]: ...
    def __getitem__(self, index: int | slice) -> dict[str, Any] | list[dict[str, Any]]:
        if isinstance(index, slice):
            return [self._render(record) for record in self._found[index]]
        return self._render(self._found[index])

    def json(self, part: slice) -> bytes:
        """A JSON list of some of the objects; their keys are in alphabetical order."""
        return b"[" + b", ".join(map(self._render_json, self._found[part])) + b"]"


class ControlPlane:
    """See the module's docstring.

    Args:
        store: where the records are kept; default: in memory only.
        backend: what carries the containers.
        clock: time; the simulated backend wants the same.
    """

    def __init__(
        self, settings: Settings, store: Store | None, backend: Backend, clock: Clock | None = None
    ) -> None:
        self.settings = settings
        self.core = Core(settings, store or MemoryStore(), backend, clock or LoopClock())
        self.records = self.core.records
        self.services = Services(self.core)
        self.stacks = Stacks(self.core, self.services)
        self.output = Output(self.core)
        self._infrastructure: Infrastructure | None = None
        self._filters = filters(self.records, self.core.backend.name)
        self._closed = False

    @property
    def infrastructure(self) -> Infrastructure:
        if self._infrastructure is None:
            raise ConfigError("The control plane is not open.")
        return self._infrastructure

    # -- life

    async def open(self) -> None:
        """Read the store, open the backend, and carry on what was interrupted.

        Raises:
            ConfigError: the store or the backend cannot be used; one plain sentence.
        """
        self.core.load()
        server_id = self._server_id()
        self._infrastructure = Infrastructure(self.core, self.services, server_id)
        known = [
            (c.spec, c.observed()) for c in self.records.containers.values() if c.spec is not None and c.live
        ]
        try:
            await self.core.backend.open(server_id, self, known)
            await self._infrastructure.begin()
            await self.core.reconcile()
            self.stacks.begin()
        except BackendError as error:
            raise ConfigError(f"The {self.core.backend.name} backend cannot be used: {error}") from None

    def _server_id(self) -> str:
        """This server's own name for what it makes, kept in the store."""
        found = next((c for c in self.records.clusters.values() if c.region == "#server"), None)
        if found is None:
            found = model.NodeCluster(new_uuid(), 0, "", "Terminated", region="#server")
            with self.records.change() as change:
                change.add(found)
        return found.uuid

    @property
    def container_address(self) -> str:
        """An address of this machine at which containers can reach it; "" when there is none."""
        return str(getattr(self.core.backend, "container_address", ""))

    def reached_at(self, url: str) -> None:
        """Where containers reach the API, known only now that the backend is open."""
        self.core.world.settings = dataclasses.replace(self.core.world.settings, rest_url=url)

    async def close(self) -> None:
        """Let go of everything; containers stay as they are. Closing twice is no error."""
        if self._closed:
            return
        self._closed = True
        await self.core.close()
        await self.core.backend.close()
        self.core.store.close()

    def health(self) -> dict[str, Any]:
        """`status` is "ok", or says what is wrong."""
        status = "the store cannot be written" if self.records.failing else "ok"
        return {"status": status, "backend": self.core.backend.name, "services": len(self.records.by_name)}

    # -- what the backend tells (`backends.Watcher`)

    def container_changed(self, seen: Observed) -> None:
        record = self.records.containers.get(seen.uuid)
        if (record is None or not record.live) and seen.status != GONE:
            # Its creation was given up, or its node came back after its containers were placed anew.
            remove = functools.partial(self.core.backend.remove, seen.uuid)
            self.core.spawn(remove, "removing a container that is not wanted")
            return
        self.core.convergence.observe(seen)

    def nodes_changed(self) -> None:
        if self._infrastructure is not None:
            self._infrastructure.changed()

    def image_changed(self, image: str) -> None:
        self.services.announce_image(image)

    # -- reading

    def listing(
        self, kind: str, filters: Mapping[str, str] | None = None, request: RequestInfo | None = None
    ) -> Listing:
        """All objects of a kind that match all filters, in order of creation. Unknown filters are ignored.

        A filter's value may name several, separated by commas.
        """
        given = dict(filters or {})
        if kind in shapes.STATIC or kind == "tag":
            every = (
                self.infrastructure.tags() if kind == "tag" else shapes.static(kind, self.core.backend.name)
            )
            wanted = {n: v for n, v in given.items() if n in ("name", "origin", "provider", "region")}
            found = [o for o in every if all(_matches(str(o.get(n)), v) for n, v in wanted.items())]
            return Listing(found, dict)
        tests = self._filters.get(kind)
        if tests is None:
            raise NotFound(f"There is no '{kind}'")
        if kind == "action" and given.pop("include_related", "").lower() == "true" and "object" in given:
            objects = self.core.related(model.uuid_in(given.pop("object")))
            records: Iterable[Any] = [
                a for a in self.records.actions.values() if model.uuid_in(a.object) in objects
            ]
        else:
            records = self._candidates(kind, given)
        for name, value in given.items():
            test = tests.get(name)
            if test is None:
                continue
            if "__gte" in name or "__lte" in name:
                records = [r for r in records if test(r, value)]
            else:
                values = value.split(",") if "," in value else [value]
                records = [r for r in records if any(test(r, v) for v in values)]
        return Listing(list(records), self.core.shapes.listed, self.core.listed_json)

    def _candidates(self, kind: str, given: Mapping[str, str]) -> Iterable[Any]:
        """What a filter leaves over that needs no search."""
        table = self.records.table(kind)
        if "uuid" in given and "," not in given["uuid"]:
            record = table.get(given["uuid"].lower())
            return [] if record is None or not record.seq else [record]
        if kind == "action" and "object" in given and "," not in given["object"]:
            held = self.records.actions_of.get(given["object"], {})
            if held:
                return sorted((self.records.actions[u] for u in held), key=lambda a: a.seq)
        retained = self.core.clock.time() - self.settings.retain_terminated
        if kind == "image":
            return self._images()
        if kind in ("node", "nodecluster"):
            return [r for r in table.values() if r.destroyed is None or r.destroyed > retained if r.seq]
        return table.values()

    def _images(self) -> Iterable[model.Image]:
        """The images that containers were made of, and those that services name."""
        live = (s for s in self.records.services.values() if s.state not in ENDING)
        named = {s.definition["image"]: model.Image(s.definition["image"], 0) for s in live}
        return (named | self.records.images).values()

    def detail(self, kind: str, identifier: str) -> dict[str, Any]:
        """An object in detail shape. Kind `imagetag` takes the image's name with its tag.

        Raises:
            NotFound: there is none.
        """
        if kind in shapes.STATIC:
            found: dict[str, Any] = shapes.static(kind, self.core.backend.name, identifier)
            return found
        if kind == "tag":
            for tag in self.infrastructure.tags():
                if tag["name"] == identifier:
                    return tag
            raise NotFound("There is no such tag")
        if kind == "imagetag":
            for image in self._images():
                if image.uuid == identifier:
                    return self.core.shapes.image_tag(image)
            raise NotFound("There is no such image")
        if kind == "image":
            for image in self._images():
                if model.split_image(image.uuid)[0] == identifier or image.uuid == identifier:
                    return self.core.shapes.image(image)
            raise NotFound("There is no such image")
        if kind not in self._filters:
            raise NotFound(f"There is no '{kind}'")
        record = self.core.find(kind, identifier)
        if kind == "nodecluster" and not record.seq:
            raise NotFound("There is no such nodecluster")
        return self.core.shapes.detail(record)

    def detail_json(self, kind: str, identifier: str) -> bytes:
        """`detail` as JSON; a service's is kept until something in it changes."""
        if kind == "service":
            return self.core.detail_json(identifier)
        return shapes.render(self.detail(kind, identifier))

    def service_of_token(self, token: str) -> str | None:
        """uuid of the live service whose containers (role `global`) were given this token as API key."""
        return self.records.by_token.get(token)

    # -- changing

    async def create_service(
        self,
        body: Mapping[str, Any],
        request: RequestInfo | None = None,
        key: str | None = None,
        run: str = "",
    ) -> Reply:
        """201 with the new service; 200 with the one that was made with the same key. 409: the name or the
        key is taken; with `retry_after` when another run, which is alive, is just making its service.
        """
        return self.services.create_service(body, request, key, run)

    def refused(self, definition: Mapping[str, Any]) -> list[Problem]:
        """What of a definition the backend, or its operator, would not allow; for previews.

        Raises:
            BadRequest: what nobody would allow.
        """
        return self.services.refused(definition)

    async def create_stack(self, body: Mapping[str, Any], request: RequestInfo | None = None) -> Reply:
        return self.stacks.create(body, request)

    def export_stack(self, uuid: str) -> dict[str, Any]:
        """The stackfile of a stack, as JSON: service name to definition."""
        return self.stacks.export(uuid)

    async def create_node(self, body: Mapping[str, Any], request: RequestInfo | None = None) -> Reply:
        """Simulated backend only: `{"name", "tags"}`."""
        return self.infrastructure.create_node(body, request)

    async def create_nodecluster(self, body: Mapping[str, Any], request: RequestInfo | None = None) -> Reply:
        """Simulated backend only."""
        return self.infrastructure.create_cluster(body, request)

    async def update(
        self, kind: str, uuid: str, body: Mapping[str, Any], request: RequestInfo | None = None
    ) -> Reply:
        """PATCH of a service, stack, node or nodecluster."""
        if kind == "service":
            return self.services.update(uuid, body, request)
        if kind == "stack":
            return self.stacks.update(uuid, body, request)
        if kind == "node":
            return self.infrastructure.update_node(uuid, body, request)
        if kind == "nodecluster":
            return self.infrastructure.update_cluster(uuid, body, request)
        raise NotFound(f"There is no '{kind}' that can be changed")

    async def act(
        self,
        kind: str,
        uuid: str,
        action: str,
        request: RequestInfo | None = None,
        options: Mapping[str, Any] | None = None,
    ) -> Reply:
        """An action: of services and containers start, stop, redeploy (option `reuse_volumes`), of services
        scale; of stacks start, stop, redeploy; of actions cancel, retry; of nodes deploy, docker-upgrade,
        health-check; of nodeclusters deploy. 400: the state does not permit it."""
        if kind == "service":
            return self.services.act(uuid, action, request, options)
        if kind == "container":
            return self.services.act_on_container(uuid, action, request, options)
        if kind == "stack":
            if action not in ("start", "stop", "redeploy", "terminate"):
                raise BadRequest(f"There is no action '{action}' of stacks")
            return self.stacks.act(uuid, action, request, options)
        if kind == "node":
            return self.infrastructure.act_on_node(uuid, action, request)
        if kind == "nodecluster":
            return self.infrastructure.act_on_cluster(uuid, action, request)
        if kind == "action":
            return await self._act_on_action(uuid, action, request)
        raise NotFound(f"There is no '{kind}'")

    async def terminate(self, kind: str, uuid: str, request: RequestInfo | None = None) -> Reply:
        """DELETE of a service, container, stack, node or nodecluster."""
        return await self.act(kind, uuid, "terminate", request)

    async def _act_on_action(self, uuid: str, verb: str, request: RequestInfo | None) -> Reply:
        action: Action = self.core.find("action", uuid)
        if verb == "cancel":
            if not shapes.can_be_canceled(action):
                raise BadRequest(f"Action cannot be canceled in state '{action.state}'")
            cancel = self.stacks.cancel if "/stack/" in action.object else self.services.cancel
            cancel(action, request)
            return Reply(self.core.shapes.action(action), 202, uri("action", action.uuid))
        if verb != "retry":
            raise BadRequest(f"There is no action '{verb}' of actions")
        if action.state not in ("Failed", "Canceled", "Success") or action.verb not in shapes.RETRIABLE:
            raise BadRequest(f"Action cannot be retried in state '{action.state}'")
        kind = action.object.rstrip("/").rsplit("/", 2)[-2]
        reply = await self.act(kind, model.uuid_in(action.object), action.verb, request, action.options)
        renewed = self.core.find("action", model.uuid_in(reply.action_uri or ""))
        return Reply(self.core.shapes.action(renewed), 202, reply.action_uri)

    def close_keys(self, keys: Sequence[str], services: Sequence[str] = ()) -> int:
        """Close create keys ("Made once"), and those of services by uuid; returns how many live services that
        concerns."""
        return self.services.close_keys(keys, services)

    def announce_image(self, image: str) -> int:
        """An image was pushed; returns how many services are redeployed for it."""
        if problems := list(schema.INPUTS["image"].kind.problems(image, "image", False)):
            raise bad_request(problems, "image")
        return self.services.announce_image(image)

    # -- the simulated world, without the API's shapes

    def add_node(self, name: str, tags: Sequence[str] = ()) -> str:
        """One more node; returns its uuid."""
        reply = self.infrastructure.create_node({"name": name, "tags": list(tags)}, None)
        return str(reply.body["uuid"])

    def remove_node(self, uuid: str) -> None:
        self.infrastructure.act_on_node(uuid, "terminate", None)

    def set_node_tags(self, uuid: str, tags: Sequence[str]) -> None:
        self.infrastructure.update_node(uuid, {"tags": list(tags)}, None)

    # -- triggers

    def list_triggers(self, service: str, filters: Mapping[str, str] | None = None) -> Listing:
        found: list[Any] = [
            self.records.triggers[u]
            for u in self.records.triggers_of.get(self.core.service(service).uuid, ())
        ]
        for name, test in self._filters["trigger"].items():
            if name in (filters or {}):
                found = [t for t in found if test(t, (filters or {})[name])]
        return Listing(found, self.core.shapes.trigger)

    async def create_trigger(
        self, service: str, body: Mapping[str, Any], request: RequestInfo | None = None
    ) -> Reply:
        owner = self.core.service(service)
        operation = body.get("operation") or "REDEPLOY"
        name = body.get("name")
        if not isinstance(operation, str) or operation.upper() not in ("REDEPLOY", "SCALEUP"):
            raise bad_request([Problem("operation", "must be one of REDEPLOY, SCALEUP")], "trigger")
        if name is not None and not isinstance(name, str):
            raise bad_request([Problem("name", "must be a string")], "trigger")
        if owner.state in ENDING:
            raise BadRequest(f"Service cannot be updated in state '{owner.state}'")
        trigger = Trigger(new_uuid(), self.records.next_seq(), owner.uuid, name or "", operation.upper())
        trigger.name = trigger.name or f"trigger-{len(self.records.triggers_of.get(owner.uuid, ())) + 1}"
        with self.records.change() as change:
            change.add(trigger)
            action = self.core.act(change, "Trigger Create", uri("service", owner.uuid), request)
        return Reply(self.core.shapes.trigger(trigger), 201, uri("action", action.uuid))

    def get_trigger(self, service: str, trigger: str) -> dict[str, Any]:
        return self.core.shapes.trigger(self._trigger(service, trigger))

    def _trigger(self, service: str, trigger: str) -> Trigger:
        found = self.records.triggers.get(trigger.lower())
        if found is None or found.service != service.lower():
            raise NotFound("There is no such trigger")
        return found

    async def delete_trigger(self, service: str, trigger: str, request: RequestInfo | None = None) -> Reply:
        found = self._trigger(service, trigger)
        with self.records.change() as change:
            change.drop(found)
            action = self.core.act(change, "Trigger Delete", uri("service", found.service), request)
        return Reply(self.core.shapes.trigger(found), 202, uri("action", action.uuid))

    async def call_trigger(
        self, service: str, trigger: str, count: int = 1, body: str = "", request: RequestInfo | None = None
    ) -> Reply:
        """Needs no credentials: the trigger's uuid is the secret. `body` becomes `TUTUM_TRIGGER_BODY`. While
        the service is busy, the redeploy or scaling waits (action state Pending)."""
        found = self._trigger(service, trigger)
        owner = self.core.service(found.service)
        if found.operation == "SCALEUP":
            if owner.every_node:
                raise BadRequest(
                    "A service with EVERY_NODE cannot be scaled: one container runs on every node"
                )
            body_ = {"target_num_containers": (owner.target or 0) + count}
            self.services.update(owner.uuid, body_, None)
            action = self.services.enqueue(owner, "scale", request, {}, "Service Scale Up Trigger")
        else:
            options = {"reuse_volumes": True, "trigger_body": body}
            action = self.services.enqueue(owner, "redeploy", request, options, "Service Redeploy Trigger")
        return Reply(self.core.shapes.trigger(found), 202, uri("action", action.uuid))

    # -- streams

    def events(self, run: str = "") -> AsyncGenerator[dict[str, Any], None]:
        """What happens from the first `__anext__` on; ends when the reader is too slow, or at `close`.
        Meanwhile `run` is alive (`create_service`).
        """
        return self.core.hub.events(run)

    def logs(
        self, kind: str, uuid: str, tail: int | None = 300, follow: bool = True
    ) -> AsyncGenerator[list[dict[str, Any]], None]:
        """Frames of a service, container or action, many at a time.

        Raises:
            NotFound: there is none.
        """
        if kind == "service":
            return self.output.of_service(self.core.service(uuid).uuid, tail, follow)
        if kind == "container":
            return self.output.of_container(self.core.container(uuid).uuid, tail, follow)
        if kind == "action":
            return self.output.of_action(self.core.find("action", uuid), follow)
        raise NotFound(f"There are no logs of '{kind}'")

    async def exec(self, uuid: str, command: Sequence[str], *, tty: bool = False) -> ExecSession:
        """Run a command in a container, with `tty` at a terminal.

        Raises:
            BadRequest: it does not run, or the backend cannot.
        """
        container = self.core.container(uuid)
        if container.state != "Running":
            raise BadRequest(f"Nothing can be executed in a container in state '{container.state}'")
        try:
            return await self.core.backend.exec(container.uuid, list(command), tty=tty)
        except BackendError as error:
            raise BadRequest(str(error)) from None


def _matches(value: str, wanted: str) -> bool:
    return value in wanted.split(",")
