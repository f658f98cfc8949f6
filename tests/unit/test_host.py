"""host.py where what it looks for is missing, or other than usual. In the real host: tests/sdk."""

from __future__ import annotations

import sys
import threading
import traceback
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from typing import Any

import grpc  # type: ignore[import-untyped]
import pytest
from pulumi.runtime import rpc
from pulumi.runtime.proto import provider_pb2, provider_pb2_grpc

from pulumi_tutum import host
from tests.support.dynamic_host import error_text, init_failure, struct

CREATE = provider_pb2.CreateRequest(
    urn="urn:pulumi:dev::shop::pulumi-python:dynamic/tutum:Service::a::b",
    properties=struct({"__provider": "pickled", "image": "nginx"}),
    timeout=90,
)


@contextmanager
def serving(create: Callable[[], dict[str, Any]], around: Callable[..., Any] = lambda f: f) -> Iterator[Any]:
    """A gRPC server whose handler is written as the SDK's, `around` being what an SDK puts around it."""

    class Servicer(provider_pb2_grpc.ResourceProviderServicer):
        @around
        def Create(self, request: Any, context: Any) -> Any:
            return provider_pb2.CreateResponse(id="made", properties=struct(create()))

    server = grpc.server(ThreadPoolExecutor(4))
    provider_pb2_grpc.add_ResourceProviderServicer_to_server(Servicer(), server)
    port = server.add_insecure_port("127.0.0.1:0")
    server.start()
    try:
        with grpc.insecure_channel(f"127.0.0.1:{port}") as channel:
            yield provider_pb2_grpc.ResourceProviderStub(channel)
    finally:
        server.stop(0).wait()


def with_traceback(handler: Callable[..., Any]) -> Callable[..., Any]:
    """As SDKs do since 3.260."""

    def wrapper(self: Any, request: Any, context: Any) -> Any:
        try:
            return handler(self, request, context)
        except Exception:
            context.abort(grpc.StatusCode.UNKNOWN, traceback.format_exc())

    return wrapper


def fail() -> dict[str, Any]:
    host.current().fail("it is ill", id="id-1", properties={"image": "nginx"}, reasons=["exit code 3", "log"])


def test_outside_a_call_nothing_is_known_and_nothing_breaks(capsys: pytest.CaptureFixture[str]) -> None:
    call = host.current()
    assert (call.urn, call.stack, call.project, call.timeout_seconds) == (None, None, None, None)
    assert (call.preview, call.old_inputs, call.ignore_changes, call.dropped) == (None, None, (), False)
    assert not call.cancelled.is_set()
    call.progress("unseen")
    call.warn("seen")
    assert capsys.readouterr() == ("", "warning: seen\n")


def test_a_failure_outside_a_call_stands_alone() -> None:
    with pytest.raises(host.Failure) as caught:
        fail()
    failure = caught.value
    assert str(failure) == (
        "it is ill\n  exit code 3\n  log\n  It exists (id id-1), which this operation could not record."
    )
    assert (failure.id, failure.kept) == ("id-1", False)
    with pytest.raises(host.Failure) as caught:
        host.current().fail("refused")
    assert (str(caught.value), caught.value.id, caught.value.kept) == ("refused", None, False)


def test_a_stranger_named_context_is_not_believed() -> None:
    def handler(request: Any, context: Any) -> host.Call:
        return host.current()

    assert handler(CREATE, object()).urn is None


@pytest.mark.parametrize("around", [lambda handler: handler, with_traceback])
def test_a_failure_in_a_call_is_the_engines_own(around: Callable[..., Any]) -> None:
    with serving(fail, around) as stub:
        error = stub.Create.future(CREATE).exception()
    assert error_text(error) == "it is ill\n  exit code 3\n  log"
    failed = init_failure(error)
    assert failed is not None
    assert dict(failed.properties) == {"image": "nginx", "__provider": "pickled"}


def test_handlers_of_another_shape_give_a_plain_failure() -> None:
    def renamed(handler: Callable[..., Any]) -> Callable[..., Any]:
        def Create(self: Any, message: Any, rpc_context: Any) -> Any:
            fail()

        return Create

    with serving(fail, renamed) as stub:
        error = stub.Create.future(CREATE).exception()
    assert init_failure(error) is None
    assert "It exists (id id-1)" in error.details()


def test_outputs_that_cannot_travel_give_a_plain_failure() -> None:
    def fail_oddly() -> dict[str, Any]:
        host.current().fail("it is ill", id="id-1", properties={"odd": object()})

    with serving(fail_oddly) as stub:
        error = stub.Create.future(CREATE).exception()
    assert init_failure(error) is None
    assert "it is ill\n  It exists (id id-1)" in error.details()


def test_the_switch_turns_it_off(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(host.PLAIN_HOST, "1")
    with serving(lambda: {"urn": host.current().urn}) as stub:
        assert dict(stub.Create(CREATE).properties) == {"urn": None}
    monkeypatch.setenv(host.PLAIN_HOST, "0")
    with serving(lambda: {"urn": host.current().urn}) as stub:
        assert dict(stub.Create(CREATE).properties) == {"urn": CREATE.urn}


def test_names_come_out_of_the_urn() -> None:
    def names() -> dict[str, Any]:
        call = host.current()
        return {"stack": call.stack, "project": call.project, "timeout": call.timeout_seconds}

    with serving(names) as stub:
        assert dict(stub.Create(CREATE).properties) == {"stack": "dev", "project": "shop", "timeout": 90.0}
        known = dict(stub.Create(provider_pb2.CreateRequest(urn="odd")).properties)
        assert known == {"stack": None, "project": None, "timeout": None}


def test_a_call_given_up_is_noticed_at_once() -> None:
    waiting, over, answers = threading.Event(), threading.Event(), []

    def wait() -> dict[str, Any]:
        call = host.current()
        answers.append(call.dropped)
        cancelled = call.cancelled
        waiting.set()
        answers.append(cancelled.wait(60))
        answers.append(call.dropped)
        answers.append(host.current().cancelled.is_set())
        over.set()
        return {}

    with serving(wait) as stub:
        call = stub.Create.future(CREATE)
        assert waiting.wait(60)
        call.cancel()
        assert over.wait(60)
    assert answers == [False, True, True, True]


@pytest.mark.parametrize("address", ["", "--verbose", "example.com:80", "127.0.0.1", "127.0.0.1:http"])
def test_without_an_engine_a_warning_goes_to_standard_error(
    address: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def warn() -> dict[str, Any]:
        host.current().progress("unseen")
        host.current().warn("seen")
        return {}

    monkeypatch.setattr(sys, "argv", ["host", address])
    with serving(warn) as stub:
        stub.Create(CREATE)
    assert capsys.readouterr() == ("", "warning: seen\n")


def test_prepare_leaves_other_processes_alone() -> None:
    main = sys.modules["__main__"]
    before, threads = dict(vars(main)), threading.active_count()
    host.prepare()
    assert vars(main) == before
    assert threading.active_count() == threads


def test_prepare_widens_the_pool_that_it_runs_on() -> None:
    size = 12
    together, queued_up = threading.Barrier(size), threading.Event()

    def prepare_later() -> None:
        queued_up.wait(60)
        host.prepare(size)

    with ThreadPoolExecutor(2) as pool:
        first = pool.submit(prepare_later)
        # These wait for a thread when `prepare` runs; the next ones come after it.
        queued = [pool.submit(together.wait, 60) for _ in range(size // 2)]
        queued_up.set()
        first.result()
        queued += [pool.submit(together.wait, 60) for _ in range(size - len(queued))]
        assert sorted(future.result() for future in queued) == list(range(size))
        pool.submit(lambda: host.prepare(3)).result()  # never narrower
        again = [pool.submit(together.wait, 60) for _ in range(size)]
        assert sorted(future.result() for future in again) == list(range(size))


def test_a_secret_is_one_to_the_sdk() -> None:
    marked = host.secret({"PASSWORD": "x"})
    assert rpc.is_rpc_secret(marked)
    assert rpc.unwrap_rpc_secret(marked) == {"PASSWORD": "x"}


def test_programs_learn_whether_the_host_tells_the_urn(monkeypatch: pytest.MonkeyPatch) -> None:
    assert host.tells_urn()
    monkeypatch.setenv(host.PLAIN_HOST, "1")
    assert not host.tells_urn()
