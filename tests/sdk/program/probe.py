"""A provider that does what its inputs tell it, and writes down what its host tells it, as lines of JSON.

The inputs `create`, `update`, `read` say how that operation goes; "ok" when they say nothing:

    partial   the resource exists but is ill       refuse   an error, nothing exists
    wait      until the run is cancelled           crowd    until `size` creates are here at the same time
"""

from __future__ import annotations

import json
import os
import threading
import time
from typing import Any

import pulumi
from pulumi.dynamic import (
    ConfigureRequest,
    CreateResult,
    DiffResult,
    ReadResult,
    Resource,
    ResourceProvider,
    UpdateResult,
)

from pulumi_tutum import host

_writing = threading.Lock()
_arrived = threading.Condition()
_crowd = 0
# As a value that was set outside: no input tells the engine that it is secret.
FOUND = host.secret({"a": "hush-hush"})


def record(operation: str, **facts: Any) -> None:
    with _writing, open(os.environ["PROBE_LOG"], "a", encoding="utf-8") as log:
        log.write(json.dumps({"operation": operation, **facts}) + "\n")


def begin(operation: str) -> host.Call:
    call = host.current()
    old = call.old_inputs
    record(
        operation,
        urn=call.urn,
        project=call.project,
        stack=call.stack,
        timeout=call.timeout_seconds,
        preview=call.preview,
        ignore_changes=call.ignore_changes,
        old_inputs=None if old is None else sorted(old),
    )
    return call


def carry_out(operation: str, call: host.Call, id: str, props: dict[str, Any]) -> dict[str, Any]:
    global _crowd
    outs = {key: value for key, value in props.items() if key != "__provider"}
    outs["derived"] = "copied " + props["nested"]["secret"] if "nested" in props else ""
    outs["found"] = FOUND
    todo = props.get(operation, "ok")
    if todo == "partial":
        inputs = {**(call.old_inputs or {}), "found": FOUND}
        call.fail(f"{operation} left it ill", id=id, properties=outs, inputs=inputs, reasons=["exit code 3"])
    if todo == "refuse":
        call.fail("refused", reasons=["because"])
    if todo == "crash":
        raise ValueError("crashed")
    if todo == "wait":
        for text in ("settling", "settling", "nearly there"):
            call.progress(text)
        call.warn("slow today")
        record("waiting")
        if not call.cancelled.wait(90):
            raise TimeoutError("nobody cancelled")
        record("cancelled")
        call.fail("cancelled while waiting", id=id, properties=outs)
    if todo == "crowd":
        with _arrived:
            _crowd += 1
            record("arrived", crowd=_crowd, threads=threading.active_count())
            _arrived.notify_all()
            if not _arrived.wait_for(lambda: _crowd >= props["size"], props.get("patience", 90)):
                _crowd -= 1
                call.fail(f"{_crowd + 1} of {props['size']:.0f} at the same time")
    return outs


class ProbeProvider(ResourceProvider):
    serialize_as_secret_always = False

    def configure(self, req: ConfigureRequest) -> None:
        host.prepare()
        host.at_end(lambda: record("end"))
        if "PROBE_LATE" in os.environ:
            host.at_end(lambda: time.sleep(3600))

    def diff(self, _id: str, _olds: dict[str, Any], _news: dict[str, Any]) -> DiffResult:
        begin("diff")
        return DiffResult(changes=any(_olds.get(key) != value for key, value in _news.items()))

    def create(self, props: dict[str, Any]) -> CreateResult:
        return CreateResult("id-1", carry_out("create", begin("create"), "id-1", props))

    def update(self, _id: str, _olds: dict[str, Any], _news: dict[str, Any]) -> UpdateResult:
        return UpdateResult(carry_out("update", begin("update"), _id, _news))

    def read(self, id_: str, props: dict[str, Any]) -> ReadResult:
        call = begin("read")
        return ReadResult(
            id_, carry_out("read", call, id_, props), {**(call.old_inputs or {}), "found": FOUND}
        )

    def delete(self, _id: str, _props: dict[str, Any]) -> None:
        begin("delete")


class Probe(Resource, module="probe", name="Probe"):
    derived: pulumi.Output[str]

    def __init__(self, name: str, props: dict[str, Any], opts: pulumi.ResourceOptions) -> None:
        super().__init__(ProbeProvider(), name, {"derived": None, **props}, opts)
