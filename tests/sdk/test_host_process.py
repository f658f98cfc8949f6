"""host.py in the SDK's own host process, which the tests drive as the engine does."""

from __future__ import annotations

import json
import os
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from google.protobuf import empty_pb2  # type: ignore[import-untyped]
from pulumi.runtime.proto import provider_pb2

from tests.support.dynamic_host import Host, error_text, init_failure, struct
from tests.support.tools import until

ROOT = Path(__file__).parents[2]
PROGRAM = Path(__file__).parent / "program"
# `ProbeProvider()` by reference, as it stands in states: no code, no attributes.
PROVIDER = "gASVHgAAAAAAAACMBXByb2JllIwNUHJvYmVQcm92aWRlcpSTlCmBlC4="
Start = Callable[..., Host]


@pytest.fixture
def log(tmp_path: Path) -> Path:
    return tmp_path / "log"


@pytest.fixture
def start(python: Path, log: Path) -> Iterator[Start]:
    hosts = []

    def start(terminal: bool = False, **env: str) -> Host:
        env = {"PYTHONPATH": str(ROOT), "PROBE_LOG": str(log), "CI": "", **env}
        hosts.append(Host(PROGRAM, provider=PROVIDER, python=python, env=env, terminal=terminal))
        return hosts[-1]

    yield start
    for host in hosts:
        host.close()


def records(log: Path, operation: str) -> list[dict[str, Any]]:
    lines = log.read_text(encoding="utf-8").splitlines() if log.exists() else []
    return [record for record in map(json.loads, lines) if record["operation"] == operation]


def test_a_call_tells_what_the_engine_asked(start: Start, log: Path) -> None:
    host = start()
    host.create("web", {}, timeout=420).result()
    host.stub.Update(
        provider_pb2.UpdateRequest(
            id="id-1",
            urn=host.urn("web"),
            olds=host.properties({"a": "output"}),
            news=host.properties({"a": "new"}),
            old_inputs=host.properties({"b": "old input"}),
            ignoreChanges=["c"],
        )
    )
    host.stub.Delete(
        provider_pb2.DeleteRequest(id="id-1", urn=host.urn("web"), properties=host.properties({}))
    )
    known = {"urn": host.urn("web"), "project": "project", "stack": "dev"}
    unknown: dict[str, Any] = {"timeout": None, "preview": False, "ignore_changes": [], "old_inputs": None}
    assert records(log, "create") == [{"operation": "create", **known, **unknown, "timeout": 420.0}]
    assert records(log, "update") == [
        {
            "operation": "update",
            **known,
            **unknown,
            "ignore_changes": ["c"],
            "old_inputs": ["__provider", "b"],
        }
    ]
    assert records(log, "delete") == [{"operation": "delete", **known, **unknown}]


def test_failures_say_what_exists(start: Start) -> None:
    host = start()
    text = "{} left it ill\n  exit code 3"

    refused = host.create("web", {"create": "refuse"}).exception()
    assert error_text(refused) == "refused\n  because"
    assert init_failure(refused) is None

    failed = init_failure(host.create("web", {"create": "partial", "n": 1}).exception())
    assert failed is not None
    assert failed.id == "id-1"
    assert list(failed.reasons) == [text.format("create").replace("\n", "\n\t")]
    outs = dict(failed.properties)
    assert (outs["create"], outs["n"], outs["__provider"]) == ("partial", 1.0, PROVIDER)

    ill = {"update": "partial", "read": "partial"}
    update = provider_pb2.UpdateRequest(id="id-7", olds=host.properties({}), news=host.properties(ill))
    failed = init_failure(host.stub.Update.future(update).exception())
    assert failed is not None
    assert (failed.id, dict(failed.properties)["__provider"]) == ("id-7", PROVIDER)

    read = provider_pb2.ReadRequest(id="id-8", properties=host.properties(ill), inputs=host.properties({}))
    failed = init_failure(host.stub.Read.future(read).exception())
    assert failed is not None
    assert (failed.id, dict(failed.inputs)["__provider"]) == ("id-8", PROVIDER)


def test_as_many_calls_at_once_as_the_engine_sends(start: Start, log: Path) -> None:
    size = 250
    host = start()
    # Short calls that queue up before the pool is widened. They must not be taken for idle workers later.
    for call in [host.create(f"short{i}", {}) for i in range(100)]:
        call.result()
    calls = [host.create(f"r{i}", {"create": "crowd", "size": size}) for i in range(size)]
    assert [call.exception() for call in calls] == [None] * size
    # Nor is there a thread for a call that came when another thread was free.
    threads = records(log, "arrived")[-1]["threads"]
    for i in range(size):
        host.create(f"later{i}", {}).result()
    host.create("last", {"create": "crowd", "size": 1}).result()
    assert records(log, "arrived")[-1]["threads"] < threads + size / 10


def test_cancel_ends_all_waits_and_those_to_come(start: Start, log: Path) -> None:
    host = start()
    calls = [host.create(f"r{i}", {"create": "wait"}) for i in range(20)]
    until(lambda: len(records(log, "waiting")) == 20, "20 waits")
    host.cancel()
    calls.append(host.create("late", {"create": "wait"}))
    for call in calls:
        failed = init_failure(call.exception())
        assert failed is not None
        assert list(failed.reasons) == ["cancelled while waiting"]


def test_a_call_that_the_engine_gives_up_ends(start: Start, log: Path) -> None:
    host = start()
    call = host.create("web", {"create": "wait"})
    until(lambda: records(log, "waiting"), "the wait")
    call.cancel()
    until(lambda: records(log, "cancelled"), "its end")
    # What the engine saved is unknown now.
    host.cancel()
    assert host.end() == 0
    assert not records(log, "end")


def test_the_end_runs_what_was_to_run_then(start: Start, log: Path) -> None:
    host = start()
    host.create("web", {}).result()
    assert not records(log, "end")
    host.cancel()
    assert host.end() == 0
    assert len(records(log, "end")) == 1


def test_the_end_waits_for_nobody(start: Start, log: Path) -> None:
    host = start(PROBE_LATE="1")
    host.create("web", {}).result()
    host.cancel()
    assert host.end() == 0
    assert len(records(log, "end")) == 1


def test_no_end_without_the_engines_word(start: Start, log: Path) -> None:
    host = start()
    host.create("web", {}).result()
    assert host.end() == 0
    assert not records(log, "end")


def test_a_host_ends_with_its_engine(start: Start, log: Path) -> None:
    host = start()
    host.create("web", {"create": "wait"})
    until(lambda: records(log, "waiting"), "the wait")
    host.lose_engine()
    until(lambda: records(log, "cancelled"), "the end of the wait")
    assert host.process.wait(60) == 1
    assert not records(log, "end")


def test_progress_at_a_terminal(start: Start, log: Path) -> None:
    host = start(terminal=True)
    call = host.create("web", {"create": "wait"})
    until(lambda: ("INFO", "web", "nearly there", True) in host.logged, "a status line")
    until(lambda: ("WARNING", "web", "slow today", False) in host.logged, "a warning")
    assert sum(text == "settling" for _, _, text, _ in host.logged) <= 1
    host.cancel()
    call.exception()


def test_no_progress_where_nobody_looks_on(start: Start, log: Path) -> None:
    for host in start(), start(terminal=True, CI="true"):
        host.create("web", {"create": "wait"})
        until(lambda: host.logged, "a warning")  # noqa: B023
        host.cancel()
        assert host.end() == 0
        assert host.logged == [("WARNING", "web", "slow today", False)]


def test_a_plain_host(start: Start, log: Path) -> None:
    host = start(terminal=True, PULUMI_TUTUM_PLAIN_HOST="1")
    error = host.create("web", {"create": "partial"}).exception()
    assert init_failure(error) is None
    assert "create left it ill\n  exit code 3\n  It exists (id id-1)" in error.details()
    nothing = dict.fromkeys(["urn", "project", "stack", "timeout", "preview", "old_inputs"])
    assert records(log, "create") == [{"operation": "create", **nothing, "ignore_changes": []}]

    crowd = {"create": "crowd", "size": 5, "patience": 1}
    errors = [call.exception() for call in [host.create(f"r{i}", crowd) for i in range(5)]]
    assert any("4 of 5 at the same time" in str(error) for error in errors)

    host.cancel()
    assert host.end() == 0
    assert len(records(log, "end")) == 1
    assert host.logged == []


def test_what_the_stock_host_ignores_still_works(start: Start, log: Path) -> None:
    """The answers that pass through the stand-in for `empty_pb2` are the real ones."""
    host = start()
    host.create("web", {}).result()
    answer = host.stub.Delete(provider_pb2.DeleteRequest(id="id-1", properties=host.properties({})))
    assert answer == empty_pb2.Empty()
    call = host.create("web", {"create": "wait"})
    until(lambda: records(log, "waiting"), "the wait")
    assert host.stub.Delete(
        provider_pb2.DeleteRequest(id="id-1", properties=struct({"__provider": PROVIDER}))
    ) == empty_pb2.Empty()  # fmt: skip
    assert not call.done()
    host.cancel()
    call.exception()


def printed(python: Path, program: str, *, plain: bool) -> str:
    """What a program of `program/` prints."""
    done = subprocess.run(
        [python, PROGRAM / program],
        env={**os.environ, "PYTHONPATH": str(ROOT), "PULUMI_TUTUM_PLAIN_HOST": str(int(plain))},
        capture_output=True,
        text=True,
        check=True,
    )
    return done.stdout


@pytest.mark.parametrize(("plain", "known"), [(False, "True"), (True, "False")])
def test_a_program_learns_whether_the_engine_calls_hooks(python: Path, plain: bool, known: str) -> None:
    assert printed(python, "hooks.py", plain=plain).split() == ["None", known]


def positions(python: Path, *, plain: bool) -> dict[str, list[str]]:
    """For each service, where the engine is told that it is declared, and its stack trace."""
    lines = printed(python, "declarations.py", plain=plain).splitlines()
    return {name: positions for name, *positions in map(str.split, lines)}


def test_the_engine_is_told_where_a_service_is_declared(python: Path) -> None:
    source = (PROGRAM / "declarations.py").read_text(encoding="utf-8").splitlines()
    inside, plainly, called = (
        f"declarations.py:{number}"
        for mark in ("inside", "plain", "called")
        for number, line in enumerate(source, 1)
        if line.endswith(f"# {mark}")
    )
    assert positions(python, plain=False) == {
        "plain": [plainly, plainly],
        "called": [inside, inside, called],
        "late": [inside, inside],
    }


def test_a_plain_program_tells_what_the_sdk_tells(python: Path) -> None:
    told = positions(python, plain=True).values()
    assert len(told) == 3
    # Our own constructor comes first.
    assert all(frames[0].startswith("resource.py:") for frames in told)
    assert all(len(frames) > 5 for frames in told)
