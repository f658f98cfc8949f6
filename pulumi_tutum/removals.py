"""Warnings of a preview about services that are no longer in the program, and the volumes that end with them.

The engine calls no provider for what it would delete, so the program's process has to find out:

- Each Service of the program notes its URN and id (`note`).
- The first one asks the engine which services are in the state.
- When the program has ended well, those in the state that no Service has noted are removed (`removed`).

Nothing here can fail a preview. What cannot be learnt is not warned of.
"""

from __future__ import annotations

import asyncio
import functools
import time
from collections.abc import Callable, Collection, Mapping
from typing import Any

import pulumi

from . import consequences, desired, host, outputs
from .client import Client
from .errors import NotFound, TutumError

__all__ = ["TYPE", "note", "removed", "text"]

#: The type of a Service for the engine.
TYPE = "pulumi-python:dynamic/tutum:Service"
#: The outputs that are asked for.
_ASKED = ("name", "uuid", "resource_uri", "bindings", outputs.OWNED)
_ASK_SECONDS = 2.0  # for all requests together; the end of the program waits for them


def removed(
    state: Mapping[str, Mapping[str, Any]],
    urns: Collection[str],
    ids: Collection[str],
    *,
    stack: str,
    project: str,
    remote_types: Collection[str] | None,
) -> dict[str, Mapping[str, Any]]:
    """The services that the engine would delete, as none of the program has their URN or id.

    Args:
        state: URN -> outputs of each service in the state.
        urns: of the program's services, with their aliases.
        ids: uuids, resource URIs or names of services that the program's services are, or adopt.
        remote_types: components of the program whose children are not registered by its own process; None if
            that is unknown.
    """
    found = {}
    for urn, service in state.items():
        if urn in urns or not urn.startswith(f"urn:pulumi:{stack}::{project}::"):
            continue
        # One that was only read is not deleted.
        if outputs.OWNED not in service:
            continue
        parents = urn.split("::")[2].split("$")[:-1]
        if parents and (remote_types is None or not set(parents).isdisjoint(remote_types)):
            continue
        if {service.get(name) for name in ("uuid", "resource_uri", "name")}.isdisjoint(ids):
            found[urn] = service
    return found


def text(urn: str, service: Mapping[str, Any], paths: Collection[str]) -> str:
    """The warning. A name or bindings that are secret are not among the outputs, and not in the warning."""
    name = service.get("name") or urn.rpartition("::")[2]
    where = f": {', '.join(paths)}" if "bindings" in service else ""
    return (
        f"service {name!r} is not in the program any more: unless it is protected or retained, `pulumi up` "
        f"would terminate it and destroy its volumes and the data in them{where}"
    )


def note(
    service: pulumi.CustomResource,
    adopted: pulumi.Input[str] | None,
    *,
    is_read: bool,
    make_client: Callable[[], Client],
) -> None:
    """Notes, in a preview, that the program has this service.

    Args:
        adopted: the service that it adopts, if any.
        is_read: the program does not own it.
        make_client: makes a client for the stack's account.
    """
    watch = _watch(make_client)
    if watch is not None:
        watch.note(service, adopted, is_read=is_read)


@functools.cache
def _watch(make_client: Callable[[], Client]) -> _Watch | None:
    """The one of this process, which runs one program; None where there is no preview to watch."""
    preview = host.program_preview()
    return _Watch(preview, make_client) if preview is not None else None


class _Watch:
    """What one preview knows of the program's services and of those in the state."""

    def __init__(self, preview: host.ProgramPreview, make_client: Callable[[], Client]) -> None:
        self._preview = preview
        self._make_client = make_client
        self._state: dict[str, dict[str, Any]] | None = None
        self._urns: set[str] = set()
        self._ids: set[str] = set()
        self._notes: list[asyncio.Future[None]] = []
        # The program waits for its Outputs. After its end the engine would not answer any more.
        asked: pulumi.Input[None] = self._ask()
        pulumi.Output.from_input(asked)
        preview.at_good_end(self._warn)

    async def _ask(self) -> None:
        loop = asyncio.get_running_loop()
        self._state = await loop.run_in_executor(None, self._preview.outputs_in_state, TYPE, _ASKED)

    def note(self, service: Any, adopted: Any, *, is_read: bool) -> None:
        self._notes.append(asyncio.ensure_future(self._note(service, adopted, is_read)))

    async def _note(self, service: Any, adopted: Any, is_read: bool) -> None:
        self._urns.add(await service.urn.future())
        self._urns |= await self._preview.aliases(service)
        if not is_read:
            # Unknown (None) if it is to be created.
            adopts = await pulumi.Output.from_input(adopted).future() if adopted is not None else None
            self._ids |= {id_ for id_ in (await service.id.future(), adopts) if id_ is not None}

    def _warn(self) -> None:
        """Runs at the end of the process."""
        if not self._state or not all(noted.done() and not noted.exception() for noted in self._notes):
            return
        preview = self._preview
        gone = removed(
            self._state,
            self._urns,
            self._ids,
            stack=preview.stack,
            project=preview.project,
            remote_types=preview.remote_types(),
        )
        if not gone:
            return
        client = self._client()
        deadline = time.monotonic() + _ASK_SECONDS
        for urn, service in gone.items():
            paths = _lost_volumes(client, service, deadline)
            if paths:
                preview.warn(urn, text(urn, service, paths))

    def _client(self) -> Client | None:
        try:
            return self._make_client()
        except TutumError:
            return None


def _lost_volumes(client: Client | None, service: Mapping[str, Any], deadline: float) -> list[str]:
    uuid = service.get("uuid")
    declared = desired.volume_paths(service)
    if client is None or not uuid:
        return declared
    found = consequences.lost_volumes(client, uuid, service, deadline=deadline)
    if found or not declared:
        return found
    try:
        client.get_service(uuid, deadline=deadline)
    except NotFound:
        return declared  # it is another account's
    except TutumError:
        return declared
    return []
