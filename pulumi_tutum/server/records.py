"""All records of the running server, their indexes, and changes that are stored all at once or not at all.

    with records.change() as change:
        change.edit(service).state = STOPPING
        change.add(action)

When the block ends, what was edited, added and dropped is written to the store in one transaction; only then
do the indexes follow and are the listeners told. When the store refuses, or the block raises, every record is
as it was: nothing is ever half-applied. A block must not await. Values are replaced, never changed in place.
"""

from __future__ import annotations

import copy
import dataclasses
import json
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any, TypeVar

from .. import schema
from ..lifecycle import ENDING
from .model import (
    RECORDS,
    Action,
    Container,
    ContainerOutput,
    Image,
    Node,
    NodeCluster,
    Record,
    Service,
    Stack,
    Trigger,
    Volume,
    VolumeGroup,
    from_row,
    to_row,
    uri,
)
from .store import Row, Store

_R = TypeVar("_R", bound=Record)

#: Told of each change once it is stored: (record, its former self or None when it is new, dropped).
Listener = Callable[[list[tuple[Record, Record | None, bool]], frozenset[str]], None]


class Change:
    """What one block does; see the module's docstring."""

    def __init__(self, records: Records) -> None:
        self._records = records
        self.before: dict[int, tuple[Record, Record | None]] = {}
        self.dropped: list[Record] = []
        self.announced: set[str] = set()

    def edit(self, record: _R) -> _R:
        """The record itself, remembered as it is now."""
        if id(record) not in self.before:
            self.before[id(record)] = (record, copy.copy(record))
        return record

    def add(self, record: _R) -> _R:
        self.before[id(record)] = (record, None)
        return record

    def drop(self, record: Record) -> None:
        self.dropped.append(record)

    def announce(self, record: Record) -> None:
        """Tell the listeners of this record even if its state stays the same."""
        self.announced.add(record.uuid)

    def rollback(self) -> None:
        for record, old in self.before.values():
            if old is not None:
                for f in dataclasses.fields(record):
                    setattr(record, f.name, getattr(old, f.name))


class Records:
    """See the module's docstring. The tables map uuid to record, in order of creation."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self._seq = 0
        #: The last write did not succeed.
        self.failing = False
        self._listeners: list[Listener] = []
        self.services: dict[str, Service] = {}
        self.containers: dict[str, Container] = {}
        self.outputs: dict[str, ContainerOutput] = {}
        self.actions: dict[str, Action] = {}
        self.stacks: dict[str, Stack] = {}
        self.nodes: dict[str, Node] = {}
        self.clusters: dict[str, NodeCluster] = {}
        self.volumes: dict[str, Volume] = {}
        self.groups: dict[str, VolumeGroup] = {}
        self.triggers: dict[str, Trigger] = {}
        self.images: dict[str, Image] = {}
        self._tables: dict[str, dict[str, Any]] = {
            "service": self.services,
            "container": self.containers,
            "output": self.outputs,
            "action": self.actions,
            "stack": self.stacks,
            "node": self.nodes,
            "nodecluster": self.clusters,
            "volume": self.volumes,
            "volumegroup": self.groups,
            "trigger": self.triggers,
            "image": self.images,
        }
        assert self._tables.keys() == RECORDS.keys()
        #: (stack uuid, lower-cased name) -> live service
        self.by_name: dict[tuple[str, str], str] = {}
        self.by_key: dict[str, str] = {}
        self.by_token: dict[str, str] = {}
        #: live service -> services that link to it
        self.linkers: dict[str, dict[str, None]] = {}
        #: live service -> services that mount its volumes
        self.mounters: dict[str, dict[str, None]] = {}
        self.of_stack: dict[str, dict[str, None]] = {}
        self._of_service: dict[str, dict[str, Container]] = {}
        #: service -> containers of which there is kept output
        self.outputs_of: dict[str, dict[str, None]] = {}
        self.on_node: dict[str, dict[str, Container]] = {}
        self.running_on: Counter[str] = Counter()
        #: node -> (protocol, outer port) -> container
        self.ports: dict[str, dict[tuple[str, int], str]] = {}
        self.addresses: dict[str, str] = {}
        self.actions_of: dict[str, dict[str, None]] = {}
        self.volumes_of: dict[str, dict[str, Volume]] = {}
        self.group_at: dict[tuple[str, str], VolumeGroup] = {}
        self.triggers_of: dict[str, dict[str, None]] = {}

    # -- reading

    def table(self, kind: str) -> dict[str, Any]:
        return self._tables[kind]

    def containers_of(self, service: str) -> list[Container]:
        """Containers of a service that are not terminated, in ordinal order."""
        return sorted(self._of_service.get(service, {}).values(), key=lambda c: (c.ordinal, c.seq))

    def staying_of(self, service: str) -> list[Container]:
        """Containers of a service that are neither terminated nor being removed, in ordinal order."""
        return [c for c in self.containers_of(service) if c.wanted != "gone"]

    def stack_name(self, service: Service) -> str:
        return self.stacks[service.stack].name if service.stack in self.stacks else ""

    def next_seq(self) -> int:
        self._seq += 1
        return self._seq

    # -- writing

    def listen(self, listener: Listener) -> None:
        self._listeners.append(listener)

    def load(self) -> None:
        """Read everything from the store (once, at the start)."""
        for row in self._store.load():
            if row.kind not in RECORDS:
                continue
            record = from_row(row.kind, json.loads(row.data))
            self._tables[row.kind][record.uuid] = record
            self._index(record)
            self._seq = max(self._seq, record.seq)

    @contextmanager
    def change(self) -> Iterator[Change]:
        """One set of changes; see the module's docstring.

        Raises:
            ServerError: 503, the store could not keep it; all records are as before.
        """
        change = Change(self)
        try:
            yield change
            self._commit(change)
        except BaseException:
            change.rollback()
            raise
        self._follow(change)

    def _commit(self, change: Change) -> None:
        gone = {(record.kind, record.uuid) for record in change.dropped}
        puts = [
            Row(record.kind, record.uuid, record.seq, json.dumps(to_row(record), separators=(",", ":")))
            for record, _ in change.before.values()
            if (record.kind, record.uuid) not in gone
        ]
        if puts or gone:
            self.failing = True
            self._store.write(puts, sorted(gone))
            self.failing = False

    def _follow(self, change: Change) -> None:
        """Let tables, indexes and listeners know; nothing here can fail."""
        told: list[tuple[Record, Record | None, bool]] = []
        for record, old in change.before.values():
            if old is not None:
                self._unindex(old)
            self._tables[record.kind][record.uuid] = record
            self._index(record)
            told.append((record, old, False))
        for record in change.dropped:
            if self._tables[record.kind].pop(record.uuid, None) is not None:
                self._unindex(record)
                told.append((record, record, True))
        announced = frozenset(change.announced)
        for listener in self._listeners:
            listener(told, announced)

    # -- indexes

    def _index(self, record: Record) -> None:
        if isinstance(record, Service):
            if record.state in ENDING:
                if record.stack:
                    self.of_stack.setdefault(record.stack, {})[record.uuid] = None
                return
            self.by_name[record.stack, record.name.lower()] = record.uuid
            if record.key:
                self.by_key[record.key] = record.uuid
            if record.token:
                self.by_token[record.token] = record.uuid
            for target in link_targets(record.definition):
                self.linkers.setdefault(target, {})[record.uuid] = None
            for target in volume_sources(record.definition):
                self.mounters.setdefault(target, {})[record.uuid] = None
            if record.stack:
                self.of_stack.setdefault(record.stack, {})[record.uuid] = None
        elif isinstance(record, Container):
            if record.live:
                self._of_service.setdefault(record.service, {})[record.uuid] = record
                self.on_node.setdefault(record.node, {})[record.uuid] = record
                if _loads(record):
                    self.running_on[record.node] += 1
                taken = self.ports.setdefault(record.node, {})
                for protocol, _, outer in record.outer:
                    taken[protocol, outer] = record.uuid
                if record.address:
                    self.addresses[record.address] = record.uuid
        elif isinstance(record, ContainerOutput):
            self.outputs_of.setdefault(record.service, {})[record.uuid] = None
        elif isinstance(record, Action):
            self.actions_of.setdefault(record.object, {})[record.uuid] = None
        elif isinstance(record, Volume):
            if record.state == "Created":
                self.volumes_of.setdefault(record.service, {})[record.uuid] = record
        elif isinstance(record, VolumeGroup):
            if record.state == "Created":
                self.group_at[record.service, record.path] = record
        elif isinstance(record, Trigger):
            self.triggers_of.setdefault(record.service, {})[record.uuid] = None

    def _unindex(self, record: Record) -> None:
        if isinstance(record, Service):
            held: tuple[tuple[dict[Any, str], Any], ...] = (
                (self.by_name, (record.stack, record.name.lower())),
                (self.by_key, record.key),
                (self.by_token, record.token),
            )
            for index, key in held:
                if index.get(key) == record.uuid:
                    del index[key]
            for target in link_targets(record.definition):
                _discard(self.linkers, target, record.uuid)
            for target in volume_sources(record.definition):
                _discard(self.mounters, target, record.uuid)
            _discard(self.of_stack, record.stack, record.uuid)
        elif isinstance(record, Container):
            if record.live:
                _discard(self._of_service, record.service, record.uuid)
                _discard(self.on_node, record.node, record.uuid)
                if _loads(record):
                    self.running_on[record.node] -= 1
                taken = self.ports.get(record.node, {})
                for protocol, _, outer in record.outer:
                    if taken.get((protocol, outer)) == record.uuid:
                        del taken[protocol, outer]
                if self.addresses.get(record.address) == record.uuid:
                    del self.addresses[record.address]
        elif isinstance(record, ContainerOutput):
            _discard(self.outputs_of, record.service, record.uuid)
        elif isinstance(record, Action):
            _discard(self.actions_of, record.object, record.uuid)
        elif isinstance(record, Volume):
            _discard(self.volumes_of, record.service, record.uuid)
        elif isinstance(record, VolumeGroup):
            group = self.group_at.get((record.service, record.path))
            if group is not None and group.uuid == record.uuid:
                del self.group_at[record.service, record.path]
        elif isinstance(record, Trigger):
            _discard(self.triggers_of, record.service, record.uuid)


def _loads(container: Container) -> bool:
    """Whether placement counts it as running."""
    return container.active or container.wanted == "running"


def _discard(index: dict[str, Any], key: str, member: str) -> None:
    members = index.get(key)
    if members is not None:
        members.pop(member, None)
        if not members:
            del index[key]


def link_targets(definition: Mapping[str, Any]) -> list[str]:
    """uuids of the services that a definition links to."""
    return [schema.service_uuid(link["to_service"]) or "" for link in definition.get("linked_to_service", ())]


def volume_sources(definition: Mapping[str, Any]) -> list[str]:
    """uuids of the services whose volumes a definition mounts."""
    return [
        schema.service_uuid(b["volumes_from"]) or ""
        for b in definition.get("bindings", ())
        if b.get("volumes_from")
    ]


def object_uri(record: Record) -> str:
    return uri(record.kind, record.uuid)
