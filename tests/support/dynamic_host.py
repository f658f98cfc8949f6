"""The SDK's own provider host without an engine: its real process, driven over gRPC as the engine does it.

    with Host(PROGRAM, provider=PICKLED, python=python, env={...}) as host:
        answer = host.create("web", {"image": "nginx"})
        host.cancel()
        host.end()

The engine's side of it is a gRPC server of the test's, which keeps what was logged.
"""

from __future__ import annotations

import contextlib
import os
import pty
import signal
import subprocess
import sys
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from types import TracebackType
from typing import Any

import grpc  # type: ignore[import-untyped]
from google.protobuf import empty_pb2, struct_pb2  # type: ignore[import-untyped]
from pulumi.runtime.proto import (
    engine_pb2,
    engine_pb2_grpc,
    provider_pb2,
    provider_pb2_grpc,
    status_pb2,
)

SECONDS = 100.0
_TAKE_TERMINAL = (
    "import fcntl, os, sys, termios\n"
    "fcntl.ioctl(int(sys.argv[1]), termios.TIOCSCTTY, 0)\n"
    "os.execv(sys.argv[2], sys.argv[2:])\n"
)


class _Engine(engine_pb2_grpc.EngineServicer):
    """The part of the engine that a host talks to."""

    def __init__(self) -> None:
        self.logged: list[engine_pb2.LogRequest] = []

    def Log(self, request: engine_pb2.LogRequest, context: Any) -> Any:
        self.logged.append(request)
        return empty_pb2.Empty()


def struct(values: Mapping[str, Any]) -> Any:
    made = struct_pb2.Struct()
    made.update(values)
    return made


def init_failure(error: grpc.RpcError) -> provider_pb2.ErrorResourceInitFailed | None:
    """What the engine makes of the error of a call: a resource that exists but failed, or none."""
    failed = provider_pb2.ErrorResourceInitFailed()
    for detail in _status(error).details:
        if detail.Unpack(failed):
            return failed
    return None


def error_text(error: grpc.RpcError) -> str:
    """The message as the engine takes it: from the status in the metadata, else from the RPC."""
    return _status(error).message or str(error.details())


def _status(error: grpc.RpcError) -> status_pb2.Status:
    found = status_pb2.Status()
    for key, value in error.trailing_metadata() or ():
        if key == "grpc-status-details-bin":
            found.ParseFromString(value)
            # The engine's gRPC library ignores a status that says otherwise.
            assert found.code == error.code().value[0]
    return found


class Host:
    """One host process. `terminal` gives it a controlling terminal, as a run by hand has one."""

    def __init__(
        self,
        program: Path,
        *,
        provider: str,
        python: Path = Path(sys.executable),
        env: Mapping[str, str] | None = None,
        terminal: bool = False,
    ) -> None:
        self.provider = provider
        self._calls: list[Any] = []  # a future that nobody holds is cancelled
        self._engine = _Engine()
        self._server = grpc.server(ThreadPoolExecutor(8))
        engine_pb2_grpc.add_EngineServicer_to_server(self._engine, self._server)
        port = self._server.add_insecure_port("127.0.0.1:0")
        self._server.start()
        command = [str(python), "-u", "-m", "pulumi.dynamic", f"127.0.0.1:{port}"]
        self._terminal: tuple[int, ...] = ()
        if terminal:
            self._terminal = pty.openpty()
            command = [sys.executable, "-c", _TAKE_TERMINAL, str(self._terminal[1]), *command]
        self.process = subprocess.Popen(
            command,
            cwd=program,
            env={**os.environ, "PULUMI_PROJECT": "project", **(env or {})},
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            pass_fds=self._terminal[1:],
            start_new_session=True,
        )
        assert self.process.stdout is not None
        address = f"127.0.0.1:{int(self.process.stdout.readline())}"
        # Go's client, the engine's, takes 16 MB of headers; the error of a failed service is one of them.
        limits = [
            (f"grpc.{limit}", 16 << 20) for limit in ("max_metadata_size", "absolute_max_metadata_size")
        ]
        self._channel = grpc.insecure_channel(address, options=limits)
        self.stub = provider_pb2_grpc.ResourceProviderStub(self._channel)

    @property
    def logged(self) -> list[tuple[str, str, str, bool]]:
        """Severity, resource name, text and whether it passes, of each line that the engine got."""
        return [
            (
                engine_pb2.LogSeverity.Name(line.severity),
                line.urn.rpartition("::")[2],
                line.message,
                line.ephemeral,
            )
            for line in self._engine.logged
        ]

    def urn(self, name: str) -> str:
        return f"urn:pulumi:dev::project::pulumi-python:dynamic/probe:Probe::{name}"

    def properties(self, values: Mapping[str, Any]) -> Any:
        return struct({**values, "__provider": self.provider})

    def create(self, name: str, inputs: Mapping[str, Any], timeout: float = 0) -> Any:
        """A future of the answer; its `exception()` is the RPC's error."""
        request = provider_pb2.CreateRequest(
            urn=self.urn(name), properties=self.properties(inputs), timeout=timeout
        )
        self._calls.append(self.stub.Create.future(request, timeout=SECONDS))
        return self._calls[-1]

    def cancel(self) -> None:
        """What the engine sends at the first Ctrl-C, and at the end of each run."""
        self.stub.Cancel(empty_pb2.Empty(), timeout=SECONDS)

    def end(self) -> int:
        """What the engine does last: closes its connection and interrupts. Gives the host's exit code."""
        self._channel.close()
        # Rarely, another thread takes the signal and Python's main thread sleeps on (the engine kills then).
        for _ in range(10):
            os.killpg(self.process.pid, signal.SIGINT)
            with contextlib.suppress(subprocess.TimeoutExpired):
                return self.process.wait(SECONDS / 10)
        raise AssertionError("the host did not end")

    def lose_engine(self) -> None:
        """What a host sees of an engine that is killed: connections closed, nobody at its address."""
        self._channel.close()
        self._server.stop(0).wait()

    def close(self) -> None:
        with contextlib.suppress(ProcessLookupError):
            self.process.kill()
        self.process.wait()
        assert self.process.stdout is not None
        self.process.stdout.close()
        self._channel.close()
        self._server.stop(0).wait()
        for end in self._terminal:
            os.close(end)

    def __enter__(self) -> Host:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.close()
