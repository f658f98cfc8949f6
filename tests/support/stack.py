"""A stack without an engine: the SDK's real provider host, asked in the engine's order, and a state like
the engine's.

    with Stack(server.environment) as stack:
        stack.up(web={"image": "acme/web"})
        assert stack.up(web={"image": "acme/web:2"}) == {"web": "update"}

Much faster than the engine, and as strict about the provider: every call goes through the host's process,
where numbers become floats and errors gRPC's. What the engine decides (which step follows from a diff, what
is kept after a failure) is decided here as engine 3.259 does it (pkg/resource/deploy/step_generator.go).
"""

from __future__ import annotations

import copy
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from typing import Any

import grpc  # type: ignore[import-untyped]
from pulumi.dynamic.dynamic import serialize_provider
from pulumi.runtime import rpc
from pulumi.runtime.proto import provider_pb2

from pulumi_tutum.provider import ServiceProvider
from tests.support.dynamic_host import Host, error_text, init_failure, struct

UNKNOWN = rpc.UNKNOWN
TYPE = "pulumi-python:dynamic/tutum:Service"


class Refused(Exception):
    """check has refused the inputs; `reasons` as the user reads them."""

    def __init__(self, reasons: list[str]) -> None:
        self.reasons = reasons
        super().__init__("; ".join(reasons))


class Failed(Exception):
    """An operation failed. `kept`: the resource stays in the state, marked as failed."""

    def __init__(self, text: str, *, kept: bool) -> None:
        self.kept = kept
        super().__init__(text)


@dataclass
class Resource:
    """What the state has of a resource."""

    id: str
    inputs: dict[str, Any]
    outputs: dict[str, Any]
    failed: bool = False


@dataclass(frozen=True)
class Diff:
    """`changes` as the engine understands the answer; `replaces` are the keys."""

    changes: bool
    replaces: tuple[str, ...] = ()
    delete_first: bool = False

    def __bool__(self) -> bool:
        return self.changes


@dataclass
class Stack:
    """One stack of one project. The host lives until `end_run`; the next operation starts another one.

    Args:
        env: for the host: where the control plane is, and credentials.
        config: Pulumi configuration, `tutum:user` and so on. Unless it says otherwise, containers are not
            watched; `tutum:monitorSeconds` "" leaves the package's default.
    """

    env: Mapping[str, str]
    config: Mapping[str, str] = field(default_factory=dict)
    name: str = "dev"
    project: str = "project"
    state: dict[str, Resource] = field(default_factory=dict)
    #: Replaced resources that are still to be deleted; like the engine's, they outlive a run that fails.
    condemned: list[tuple[str, Resource]] = field(default_factory=list)
    #: What the last refresh said about each resource that was not healthy.
    troubles: dict[str, list[str]] = field(default_factory=dict)
    _host: Host | None = None

    @property
    def host(self) -> Host:
        if self._host is None:
            folder = Path(tempfile.gettempdir())
            self._host = Host(folder, provider=serialize_provider(ServiceProvider()), env=self.env)
            config = {"tutum:monitorSeconds": "0", **self.config}
            self._host.stub.Configure(provider_pb2.ConfigureRequest(args=struct(config)))
        return self._host

    def end_run(self, *, kill: bool = False) -> None:
        """The end of a run, as the engine does it; or as a SIGKILL does."""
        if self._host is not None:
            if not kill:
                self._host.cancel()
                self._host.end()
            self._host.close()
            self._host = None

    def __enter__(self) -> Stack:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.end_run(kill=True)

    def warnings(self) -> list[str]:
        """What the host said under the name of any resource, since it runs."""
        return [
            text for severity, _, text, passing in self.host.logged if severity == "WARNING" and not passing
        ]

    # -- operations --------------------------------------------------------------------------------------

    def up(self, **services: Mapping[str, Any]) -> dict[str, str]:
        """Registers the services in order, then deletes what is not among them. Name -> what was done
        (`same` is left out); stops at the first failure."""
        done: dict[str, str] = {}
        for name, arguments in services.items():
            operation = self._register(name, arguments)
            if operation != "same":
                done[name] = operation
        while self.condemned:
            self.delete(*self.condemned[0])
            del self.condemned[0]
        for name in [name for name in self.state if name not in services]:
            self.delete(name, self.state[name])
            del self.state[name]
            done[name] = "delete"
        return done

    def preview(self, **services: Mapping[str, Any]) -> dict[str, str]:
        """What an up would do: check and diff only."""
        done = {name: "delete" for name in self.state if name not in services}
        for name, arguments in services.items():
            old = self.state.get(name)
            inputs = self.check(name, old.inputs if old else {}, arguments)
            if old is None:
                done[name] = "create"
                continue
            diff = self.diff(name, old, inputs)
            if diff.replaces:
                self.check(name, {}, arguments)
                done[name] = "replace"
            elif diff or old.failed:
                done[name] = "update"
        return done

    def refresh(self) -> list[str]:
        """Reads everything; returns the names of what was not healthy."""
        sick = []
        self.troubles = {}
        for name, resource in list(self.state.items()):
            try:
                bags = {"properties": resource.outputs, "inputs": resource.inputs}
                answer = self._call("Read", id=resource.id, urn=self.urn(name), **bags)
            except grpc.RpcError as error:
                failure = init_failure(error)
                if failure is None:
                    raise Failed(error_text(error), kept=False) from None
                sick.append(name)
                self.troubles[name] = list(failure.reasons)
                inputs = rpc.deserialize_properties(failure.inputs) or resource.inputs
                outputs = rpc.deserialize_properties(failure.properties)
                self.state[name] = Resource(resource.id, inputs, outputs, failed=True)
                continue
            if not answer.id:
                del self.state[name]
                continue
            inputs = (
                rpc.deserialize_properties(answer.inputs) if answer.HasField("inputs") else resource.inputs
            )
            self.state[name] = Resource(answer.id, inputs, rpc.deserialize_properties(answer.properties))
        return sick

    def destroy(self) -> None:
        for name in reversed(list(self.state)):
            self.delete(name, self.state[name])
            del self.state[name]

    def _register(self, name: str, arguments: Mapping[str, Any]) -> str:
        old = self.state.get(name)
        if old is None:
            self.create(name, self.check(name, {}, arguments))
            return "create"
        inputs = self.check(name, old.inputs, arguments)
        diff = self.diff(name, old, inputs)
        if diff.replaces:
            inputs = self.check(name, {}, arguments)
            if diff.delete_first:
                self.delete(name, old)
                del self.state[name]
            self.create(name, inputs)
            if not diff.delete_first:
                self.condemned.append((name, old))
            return "replace"
        if not diff and not old.failed:
            old.inputs = inputs
            return "same"
        self.update(name, old, inputs)
        return "update"

    # -- single calls ------------------------------------------------------------------------------------

    def urn(self, name: str) -> str:
        return f"urn:pulumi:{self.name}::{self.project}::{TYPE}::{name}"

    def check(self, name: str, olds: Mapping[str, Any], news: Mapping[str, Any]) -> dict[str, Any]:
        answer = self._call("Check", urn=self.urn(name), olds=olds, news=news)
        if answer.failures:
            # The engine would print the value of a property that is named here.
            assert not any(failure.property for failure in answer.failures)
            raise Refused([failure.reason for failure in answer.failures])
        return dict(rpc.deserialize_properties(answer.inputs, True))

    def diff(self, name: str, old: Resource, inputs: Mapping[str, Any]) -> Diff:
        answer = self._call(
            "Diff", id=old.id, urn=self.urn(name), olds=old.outputs, news=inputs, old_inputs=old.inputs
        )
        kinds = provider_pb2.DiffResponse
        changes = answer.changes == kinds.DIFF_SOME
        if answer.changes == kinds.DIFF_UNKNOWN:
            changes = struct(old.inputs) != struct(_known(inputs))
        return Diff(changes, tuple(answer.replaces) if changes else (), answer.deleteBeforeReplace)

    def create(self, name: str, inputs: Mapping[str, Any]) -> None:
        try:
            answer = self._call("Create", urn=self.urn(name), properties=inputs)
        except grpc.RpcError as error:
            raise self._kept(name, dict(inputs), error) from None
        self.state[name] = Resource(answer.id, dict(inputs), rpc.deserialize_properties(answer.properties))

    def update(self, name: str, old: Resource, inputs: Mapping[str, Any]) -> None:
        try:
            answer = self._call(
                "Update", id=old.id, urn=self.urn(name), olds=old.outputs, news=inputs, old_inputs=old.inputs
            )
        except grpc.RpcError as error:
            raise self._kept(name, old.inputs, error) from None
        self.state[name] = Resource(old.id, dict(inputs), rpc.deserialize_properties(answer.properties))

    def delete(self, name: str, resource: Resource) -> None:
        try:
            bags = {"properties": resource.outputs, "old_inputs": resource.inputs}
            self._call("Delete", id=resource.id, urn=self.urn(name), **bags)
        except grpc.RpcError as error:
            raise Failed(error_text(error), kept=True) from None

    def get(self, name: str, uuid: str) -> dict[str, Any]:
        """`Service.get`: the outputs of a service that the stack does not own."""
        try:
            answer = self._call("Read", id=uuid, urn=self.urn(name), properties={})
        except grpc.RpcError as error:
            raise Failed(error_text(error), kept=False) from None
        return dict(rpc.deserialize_properties(answer.properties))

    def _kept(self, name: str, inputs: dict[str, Any], error: grpc.RpcError) -> Failed:
        failure = init_failure(error)
        if failure is not None:
            outputs = rpc.deserialize_properties(failure.properties)
            self.state[name] = Resource(failure.id, inputs, outputs, failed=True)
        return Failed(error_text(error), kept=failure is not None)

    def _call(self, method: str, **fields: Any) -> Any:
        bags = ("olds", "news", "properties", "inputs", "old_inputs")
        for bag in bags:
            if bag in fields:
                # An empty bag of old properties is that of a resource that does not exist.
                values = _known(copy.deepcopy(dict(fields[bag])))
                fields[bag] = struct(values) if bag == "olds" and not values else self.host.properties(values)
        request = getattr(provider_pb2, f"{method}Request")(**fields)
        return getattr(self.host.stub, method)(request, timeout=120)


def _known(value: Any) -> Any:
    """As the engine sends it: unknowns as their sign, nulls left out."""
    if isinstance(value, Mapping):
        return {k: _known(v) for k, v in value.items() if v is not None}
    if isinstance(value, (list, tuple)):
        return [_known(item) for item in value]
    return UNKNOWN if type(value).__name__ == "Unknown" else value


def uuid(stack: Stack, name: str = "web") -> str:
    """The id of a resource of the stack: its service's uuid."""
    return stack.state[name].id
