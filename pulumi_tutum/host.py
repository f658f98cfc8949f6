"""What the provider host does beyond the SDK's public API; no other module touches its private surface.

A Python dynamic provider runs in a *host*: a process (`python -m pulumi.dynamic ENGINE_ADDRESS`) with a
gRPC server whose handlers call our methods. What those methods are given leaves out what users need, so
this module reaches past the API, in the ten ways below. Each stands behind a guard: where what it looks for
is missing (another SDK, a method called by hand) it does nothing, and what stands after "else" is what
happens. The environment variable PULUMI_TUTUM_PLAIN_HOST=1 chooses the "else" of all ten. tests/sdk runs
both, on the oldest and the newest SDK.

1. `request` and `context`, local variables of the gRPC handler, found by walking up the frames: URN,
   timeout and old inputs of the call being served. Frames are only read, and only a `grpc.ServicerContext`
   is believed. Else: all of it is unknown, default timeouts hold.
2. `context.abort_with_status` (public gRPC) with the engine's own message `ErrorResourceInitFailed`, as
   Pulumi's native providers do it: a resource that exists but is not healthy stays in the state. Newer SDKs
   wrap the handlers and abort once more, with a traceback; the engine reads the trailing metadata that was
   set first, as long as both name the code UNKNOWN. What stands where a secret stood in the inputs (create,
   update) or in the state (read) becomes secret again, as after a success: the engine does that, so keep a
   value under its own path. Else: a plain exception, whose text names the id.
3. The global `empty_pb2` of the host's main module, replaced by a proxy that notices when the handler
   `Cancel` asks it for its answer. The engine calls it at the first Ctrl-C, while other calls are still
   served, and once more at the end of each run. Else: waits go on to their own end.
4. The handlers' ThreadPoolExecutor, found in the frame of our worker thread: its limit of 4 calls at a
   time (`_max_workers`) is raised, and its count of idle workers begun anew. Threads still come one by one,
   when no idle one is left, some 55 KB each. Else: four at a time.
5. The engine's address, the host's last argument, and `Engine.Log` there: passing status on a resource's
   row, and warnings under its name. Status is sent only in a run at a terminal, on change, at most one line
   a resource each half second. Else: no status; warnings go to standard error.
6. The same address as a sign of the engine's life. When it refuses connections twice, seconds apart, the
   engine was killed (one that ends orderly ends its hosts first), and so ends this process, without
   `at_end`. Else: an orphaned host lives until somebody kills it, as the SDK's always does.

7. In the program: the SDK's list of what the engine can do, to learn whether it calls resource hooks before
   one is bound. With an engine that does not call them, the SDK would fail the program. Else: no hooks, and
   previews know fewer outputs of services that are updated.
8. In the program, in a preview: the engine's function `readStackResourceOutputs`, for the outputs that the
   state has; `exit_code` in the language host's main module, found by its frame, to learn at the end of the
   process whether the program has ended well; `Engine.Log`, which the engine serves until then (its monitor
   it does not); and `_remote` and `_aliases` of resources. Else: no warning about what leaves the program.
9. In the program: `_untrack` of a resource's Outputs. Each time one resolves, newer SDKs look at all that
   have not, some 50 of each service. Those of one resource resolve together, so that the SDK needs to
   know of one. Else: the program's processor time grows with the square of the number of services.
10. In the program: `_get_stack_trace`, which tells the engine where a resource is declared; the state keeps
   it. The SDK takes our own constructor for the program, and adds a dozen frames of its own and of Python,
   1.1 kB a service, which the engine writes at each of its steps. Else: the state names our file, and is so
   much larger.

The end of a run, as the engine does it: `Cancel`, close the connection, SIGINT, and SIGKILL 5 seconds
later. What is given to `at_end` runs between the last two, from `atexit` (public).
"""

from __future__ import annotations

import atexit
import functools
import itertools
import logging
import os
import re
import signal
import socket
import sys
import threading
import time
import uuid
import weakref
from collections import namedtuple
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from functools import cached_property
from pathlib import Path
from types import FrameType
from typing import Any, NoReturn

import grpc  # type: ignore[import-untyped]

from pulumi_tutum.errors import TutumError

__all__ = [
    "PLAIN_HOST",
    "PROGRESS",
    "Call",
    "Failure",
    "ProgramPreview",
    "at_end",
    "await_one",
    "current",
    "engine_with_hooks",
    "prepare",
    "program_preview",
    "run",
    "secret",
    "tell_declarations",
    "tells_urn",
]

PLAIN_HOST = "PULUMI_TUTUM_PLAIN_HOST"
"""Environment variable: set (and not 0), nothing private is touched."""

PROGRESS = "PULUMI_TUTUM_PROGRESS"
"""Environment variable: 1 sends status lines without a terminal too, 0 sends none."""

WORKERS = 1024
"""Calls served at the same time, at most. The engine sends as many as `--parallel` says (4 per CPU), and a
`Cancel` must still find a thread."""

_PROVIDER = "__provider"  # the SDK's key for the pickled provider, in every request
# How Pulumi's protocol spells a secret. The engine takes it from all, and sends it to those only that ask.
_SECRET_KEY, _SECRET = "4dabf18193072939515e22adb298388d", "1b47061264138c4ac30d75fd1eb44270"
_STATUS_SECONDS = 0.5  # between two rounds of status lines
_LOG_DEADLINE = 5.0  # seconds for a call of the engine's Log
_STATE_DEADLINE = 5.0  # seconds for the engine to tell what is in the state
_ENGINE_CHECK_SECONDS = 2.0
_END_SECONDS = 3.0  # for all `at_end` functions together; the engine kills its hosts after 5
_LOG = logging.getLogger(__name__)


class Failure(TutumError):
    """An operation that failed, in the words that the user reads.

    Attributes:
        message: the first line.
        reasons: further lines.
        id: id of the resource when it exists all the same, else None.
        properties: its outputs as they are now, None without `id`.
        inputs: what `read` found of its inputs, or None.
        kept: whether the engine was given all that, and so keeps the resource in its state.
    """

    def __init__(
        self,
        message: str,
        reasons: Sequence[str] = (),
        *,
        id: str | None = None,
        properties: Mapping[str, Any] | None = None,
        inputs: Mapping[str, Any] | None = None,
        kept: bool = True,
    ) -> None:
        self.message = message
        self.reasons = list(reasons)
        self.id = id
        self.properties = properties
        self.inputs = inputs
        self.kept = kept and bool(id)
        lost = [f"It exists (id {id}), which this operation could not record."] if id and not kept else []
        super().__init__("\n  ".join([message, *self.reasons, *lost]))


class Call:
    """The engine's call that the current thread serves. What is unknown is None, empty or inert."""

    def __init__(self, request: Any = None, context: Any = None) -> None:
        self._request = request
        self._context = context
        self._is_over = threading.Event()

    def _field(self, name: str) -> Any:
        """A field of the request; None when it has none of this name, or it was not sent."""
        return getattr(self._request, name, None) or None

    @property
    def urn(self) -> str | None:
        """`urn:pulumi:STACK::PROJECT::[PARENT-TYPE$]TYPE::NAME`"""
        urn: str | None = self._field("urn")
        return urn

    @property
    def stack(self) -> str | None:
        """Name of the stack, without organization or project."""
        return self._of_urn(0)

    @property
    def project(self) -> str | None:
        """Name of the project."""
        return self._of_urn(1)

    def _of_urn(self, part: int) -> str | None:
        parts = (self.urn or "").removeprefix("urn:pulumi:").split("::", 3)
        return parts[part] if len(parts) == 4 else None

    @property
    def timeout_seconds(self) -> float | None:
        """The resource option `custom_timeouts` for this operation, in seconds."""
        seconds: float | None = self._field("timeout")
        return seconds

    @property
    def preview(self) -> bool | None:
        """False in create, update and delete, which no preview runs; the others are not told: None."""
        if hasattr(self._request, "preview"):
            return bool(self._request.preview)
        return False if type(self._request).__name__ == "DeleteRequest" else None

    @property
    def ignore_changes(self) -> tuple[str, ...]:
        """The resource option `ignore_changes` (diff and update)."""
        return tuple(self._field("ignoreChanges") or ())

    @cached_property
    def old_inputs(self) -> dict[str, Any] | None:
        """The checked inputs in the state (diff, update, delete, read); secrets in clear."""
        with _guard("old inputs"):
            from pulumi.runtime import rpc

            for name in ("old_inputs", "inputs"):
                if hasattr(self._request, name) and self._request.HasField(name):
                    inputs: dict[str, Any] = rpc.deserialize_properties(getattr(self._request, name))
                    return inputs
        return None

    @cached_property
    def cancelled(self) -> threading.Event:
        """Set when the user interrupts the run, the engine gives this call up or dies, and after its end."""
        event = threading.Event()
        with _lock:
            _waits.add(event)
            if _cancelled.is_set():
                event.set()
        if self._context is not None:
            with _guard("end of the call"):
                if not self._context.add_callback(event.set):
                    event.set()
        return event

    @property
    def dropped(self) -> bool:
        """True when the engine no longer waits for the answer: nothing of it will be in the state."""
        with _guard("life of the call"):
            if self._context is not None and not self._context.is_active():
                _dropped.set()
                return True
        return False

    def progress(self, text: str) -> None:
        """Shows a passing status on the resource's row. Returns at once, and never raises."""
        if self.urn is not None:
            with _guard("status line"):
                _status_lines().show(self.urn, text, (self.cancelled, self._is_over))

    def end_progress(self) -> None:
        """Takes the status off the resource's row. To be called before the call returns: the row keeps the
        last text, also when the resource is done."""
        self._is_over.set()
        if self.urn is not None and _lines is not None:
            with _guard("status line"):
                _lines.clear(self.urn)

    def warn(self, text: str) -> None:
        """Puts a lasting warning under the resource's name; to standard error where that cannot be.

        The engine calls check and diff of a resource more than once in a run; the same warning is given once.
        """
        if self.urn is not None:
            with _guard("warning"):
                from pulumi.runtime.proto import engine_pb2

                with _warning:
                    if (self.urn, text) not in _warned:
                        _log(engine_pb2.WARNING, text, self.urn, ephemeral=False)
                        _warned.add((self.urn, text))
                return
        print(f"warning: {text}", file=sys.stderr, flush=True)

    def fail(
        self,
        message: str,
        *,
        id: str | None = None,
        properties: Mapping[str, Any] | None = None,
        inputs: Mapping[str, Any] | None = None,
        reasons: Sequence[str] = (),
    ) -> NoReturn:
        """Ends the call with an error: `message`, then `reasons`, a line each.

        With `id` and `properties` (its outputs as they are now) the resource is kept in the state, marked as
        not healthy, so that the next `up` updates it; in `read` give `inputs` too. Values that were secret
        stay so under their own paths only.

        Raises:
            Failure: always. Let it pass: handlers of `Exception` around this call would hide the error.
        """
        failure = Failure(message, reasons, id=id, properties=properties, inputs=inputs)
        if not self._abort(failure):
            failure = Failure(message, reasons, id=id, properties=properties, inputs=inputs, kept=False)
        raise failure

    def _abort(self, failure: Failure) -> bool:
        """Gives the engine the failure in its own terms; False when that could not be done."""
        if self._context is None or self.dropped:
            return False
        with _guard("structured error"):
            status = _status(failure, self._pickled_provider())
            try:
                self._context.abort_with_status(status)
            except Exception:  # its way to return; what it did is what counts
                return bool(self._context.code() is grpc.StatusCode.UNKNOWN)
        return False

    def _pickled_provider(self) -> str | None:
        """The provider as the engine sent it, which must be among the outputs of every resource."""
        for name in ("news", "properties", "inputs"):
            fields = getattr(getattr(self._request, name, None), "fields", {})
            if _PROVIDER in fields:
                return str(fields[_PROVIDER].string_value)
        return None


def current() -> Call:
    """The call that this thread serves; an inert one where it cannot be found."""
    if not _plain():
        with _guard("request"):
            for frame in _frames():
                code = frame.f_code.co_varnames
                if "request" in code and "context" in code:
                    names = frame.f_locals
                    if isinstance(names.get("context"), grpc.ServicerContext):
                        return Call(names["request"], names["context"])
    return Call()


def secret(value: Any) -> Any:
    """`value` as a secret, for outputs and inputs that are given to the engine, at any depth.

    For what was no secret among the resource's inputs. It comes back in later calls as plain `value`.
    """
    return {_SECRET_KEY: _SECRET, "value": value}


def tells_urn() -> bool:
    """For programs, which run in another process: whether `Call.urn` will be known in the host."""
    return not _plain() and _handlers_name_request()


@functools.cache
def _handlers_name_request() -> bool:
    source = ""
    with _guard("source of the host"):
        # Importing it would start a host.
        import pulumi.dynamic

        source = Path(pulumi.dynamic.__file__).with_name("__main__.py").read_text(encoding="utf-8")
    return "def Check(self, request, context)" in source


def engine_with_hooks() -> Any:
    """For programs: the SDK's connection to the engine of this run; None if that calls no resource hooks, and
    under the mocks of a user's unit test."""
    engine = None
    if not _plain():
        with _guard("features of the engine"):
            engine = _engine_with_hooks()
    return engine


def _engine_with_hooks() -> Any:
    from pulumi.runtime import mocks, settings
    from pulumi.runtime.proto import resource_pb2

    run: Any = settings.SETTINGS
    if isinstance(run.monitor, mocks.MockMonitor):
        return None
    if hasattr(run, "feature_support"):  # older SDKs
        has_hooks = run.feature_support.get("resourceHooks", False)
    else:
        has_hooks = resource_pb2.RESOURCE_MONITOR_FEATURE_RESOURCE_HOOKS in run.monitor_features
    return run.monitor if has_hooks else None


def await_one(outputs: Sequence[Any]) -> None:
    """For programs: of several Outputs that resolve together, has the SDK wait for the first only."""
    if not _plain():
        with _guard("tracking"):
            for output in outputs[1:]:
                # From the class: an Output itself takes an unknown name for an attribute of its value.
                type(output)._untrack(output)


@functools.cache
def tell_declarations() -> None:
    """For programs: the state names the lines of the program that declare a service, and no other frames."""
    if not _plain():
        with _guard("stack traces"):
            _shorten_traces()


def _shorten_traces() -> None:
    import asyncio
    import runpy

    import pulumi
    from pulumi.runtime import resource

    whole = resource._get_stack_trace
    ours = _folder_uri(__file__)
    around = (_folder_uri(pulumi.__file__), _folder_uri(asyncio.__file__), Path(runpy.__file__).as_uri())

    @functools.wraps(whole)
    def shortened(*args: Any, **kwargs: Any) -> Any:
        found = trace = whole(*args, **kwargs)
        with _guard("a stack trace"):
            found = type(trace)(frames=_of_the_program(trace.frames, ours, around))
        return found

    resource._get_stack_trace = shortened


def _of_the_program(frames: Sequence[Any], ours: str, around: tuple[str, ...]) -> Sequence[Any]:
    """The frames of a stack trace that are the user's, the innermost first.

    Args:
        frames: the frames of the trace. A frame of Python itself may have no position.
        ours: the beginning of the URIs of this package's files.
        around: the beginnings of the URIs of the files that run a program.

    Returns:
        All frames for a resource of another package, and where no frame is the user's.
    """
    if not frames or not frames[0].pc.uri.startswith(ours):
        return frames
    callers = itertools.dropwhile(lambda frame: frame.pc.uri.startswith(ours), frames)

    def is_the_users(frame: Any) -> bool:
        return frame.pc.uri and not frame.pc.uri.startswith(around)

    return [*itertools.takewhile(is_the_users, callers)] or frames


def _folder_uri(file: str) -> str:
    return Path(file).parent.as_uri() + "/"


class ProgramPreview:
    """The preview that this process runs its program for.

    Attributes:
        stack, project: their names.
    """

    def __init__(self, run: Any, root: Any, main: Mapping[str, Any]) -> None:
        # Made on the program's thread: other threads see other settings.
        self.stack: str = run.stack
        self.project: str = run.project
        self._organization = run.organization
        self._monitor = run.monitor
        self._engine = run.engine
        self._root = root
        self._main = main

    def outputs_in_state(self, type_: str, names: Collection[str]) -> dict[str, dict[str, Any]] | None:
        """The outputs `names` of all resources of a type in the state, by URN, but for those with a secret.

        None when the engine does not tell. Asks while the program runs; it may be called on any thread.
        """
        found: dict[str, dict[str, Any]] | None = None
        with _guard("state"):
            from google.protobuf import json_format, struct_pb2  # type: ignore[import-untyped]
            from pulumi.runtime.proto import resource_pb2

            arguments = struct_pb2.Struct()
            arguments["stackName"] = f"{self._organization}/{self.project}/{self.stack}"
            request = resource_pb2.ResourceInvokeRequest(
                tok="pulumi:pulumi:readStackResourceOutputs", args=arguments
            )
            answer = getattr(self._monitor.Invoke(request, timeout=_STATE_DEADLINE), "return")
            kept = {}
            for urn, resource in answer.fields["outputs"].struct_value.fields.items():
                if resource.struct_value.fields["type"].string_value != type_:
                    continue
                outputs = resource.struct_value.fields["outputs"].struct_value.fields
                kept[urn] = {
                    name: json_format.MessageToDict(outputs[name])
                    for name in names
                    if name in outputs and _SECRET.encode() not in outputs[name].SerializeToString()
                }
            found = kept
        return found

    def remote_types(self) -> set[str] | None:
        """The types of the program's components whose children another process registers; None if unknown."""
        found: set[str] | None = None
        with _guard("components"):
            types, waiting = set(), [self._root]
            while waiting:
                resource = waiting.pop()
                waiting += resource._childResources
                if getattr(resource, "_remote", False):
                    types.add(str(resource.pulumi_resource_type))
            found = types
        return found

    async def aliases(self, resource: Any) -> set[str]:
        """The other URNs under which the engine looks for a resource in the state."""
        from pulumi import Output

        found: set[str] = set()
        with _guard("aliases"):
            found = {str(await Output.from_input(alias).future()) for alias in resource._aliases}
        return found

    def warn(self, urn: str, text: str) -> None:
        """Puts a warning under a resource's name. It can be called until the process ends."""
        with _guard("warning"):
            from pulumi.runtime.proto import engine_pb2

            request = engine_pb2.LogRequest(severity=engine_pb2.WARNING, message=text, urn=urn)
            self._engine.Log(request, timeout=_LOG_DEADLINE)

    def at_good_end(self, function: Callable[[], object]) -> None:
        """Runs `function` at the end of the process, if the program has ended well. It has 3 seconds."""

        def end() -> None:
            if self._main.get("exit_code") == 0:
                with _time_limit(_END_SECONDS), _guard("end of the program"):
                    function()

        atexit.register(end)


def program_preview() -> ProgramPreview | None:
    """For programs: the preview that runs.

    None in an `up`, under mocks, and in a program that is part of a larger process (automation API).
    """
    found = None
    if not _plain():
        with _guard("preview"):
            from pulumi.runtime import mocks, settings

            # While the program runs, `sys.modules` has the program itself under this name.
            main = [f.f_globals for f in _frames() if f.f_globals.get("__name__") == "__main__"][-1]
            run: Any = settings.SETTINGS
            root = settings.get_root_resource()
            is_host = "pulumi-language-python" in main["__file__"]
            is_engine = None not in (run.monitor, run.engine, root)
            if run.dry_run and is_host and is_engine and not isinstance(run.monitor, mocks.MockMonitor):
                found = ProgramPreview(run, root, main)
    return found


def prepare(workers: int = WORKERS) -> None:
    """Makes the host ready: up to `workers` calls at once, an eye on Ctrl-C and on the engine's life.

    To be called from `configure`, which runs on one of the host's worker threads; again is harmless.
    """
    if _plain():
        return
    with _guard("thread pool"):
        _widen(workers)
    with _guard("Cancel"):
        _hook_cancel()
    with _guard("engine watch"):
        _watch_engine()


def run() -> str:
    """A random name for this process, of which the engine has one in each run.

    "" where it may outlive its engine (see 6), so that nobody waits for its end.
    """
    return _run if _watch is not None else ""


def at_end(function: Callable[[], object]) -> None:
    """Runs `function` when the run is over and what its calls returned has been saved.

    That is after the engine's last `Cancel`, on the main thread, where no thread can be started any more. All
    functions together have 3 seconds; the one that is late is interrupted, errors are ignored. None runs when
    host or engine were killed, or the engine gave up a call (second Ctrl-C): what was saved is unknown then.
    Nothing may rely on it: a host that is slow to end is killed.
    """
    with _lock:
        if not _endings:
            atexit.register(_run_endings)
        _endings.append(function)


# What this process knows. `_lock` guards what is made once, and the two collections.
_lock = threading.Lock()
_cancelled = threading.Event()  # the engine sent Cancel
_run = uuid.uuid4().hex
_dropped = threading.Event()  # the engine gave up a call that we were serving
_waits: weakref.WeakSet[threading.Event] = weakref.WeakSet()
_endings: list[Callable[[], object]] = []
_warning = threading.Lock()
_warned: set[tuple[str, str]] = set()  # (URN, text) of what the engine was given


def _is_set(variable: str) -> bool:
    return os.environ.get(variable, "").lower() not in ("", "0", "false")


def _plain() -> bool:
    return _is_set(PLAIN_HOST)


@contextmanager
def _guard(what: str) -> Iterator[None]:
    """Swallows whatever goes wrong inside: the caller's next line is the fallback."""
    try:
        yield
    except Exception as error:
        # The type alone: a text could hold values of properties.
        _LOG.debug("without %s: %s", what, type(error).__name__)


def _frames() -> Iterator[FrameType]:
    frame: FrameType | None = sys._getframe(1)
    while frame is not None:
        yield frame
        frame = frame.f_back


# -- errors that keep the resource -------------------------------------------------------------------------


class _Status(namedtuple("_Status", "code details trailing_metadata"), grpc.Status):  # type: ignore[misc]
    """What `abort_with_status` takes."""


def _status(failure: Failure, provider: str | None) -> _Status:
    from google.protobuf import any_pb2
    from pulumi.runtime.proto import provider_pb2, status_pb2

    text = str(failure)
    status = status_pb2.Status(code=grpc.StatusCode.UNKNOWN.value[0], message=text)
    if failure.id and failure.properties is not None:
        # One reason: the engine counts them ("3 errors occurred"). It puts a tab before the first line only.
        detail = provider_pb2.ErrorResourceInitFailed(
            id=failure.id,
            reasons=[text.replace("\n", "\n\t")],
            properties=_struct(failure.properties, provider),
        )
        if failure.inputs is not None:
            detail.inputs.CopyFrom(_struct(failure.inputs, provider))
        packed = any_pb2.Any()
        packed.Pack(detail)
        status.details.append(packed)
    metadata = (("grpc-status-details-bin", status.SerializeToString()),)
    return _Status(grpc.StatusCode.UNKNOWN, text, metadata)


def _struct(properties: Mapping[str, Any], provider: str | None) -> Any:
    """A protobuf Struct, made as the SDK makes that of a success."""
    import asyncio

    from pulumi.runtime import rpc

    values = {**properties, **({} if provider is None else {_PROVIDER: provider})}
    loop = asyncio.new_event_loop()
    try:
        return loop.run_until_complete(rpc.serialize_properties(values, {}))
    finally:
        loop.close()


# -- Cancel ------------------------------------------------------------------------------------------------


class _EmptyMessages:
    """Stands in for the module `empty_pb2` in the host's main module, and notices the handler `Cancel`."""

    def __init__(self, module: Any) -> None:
        self._module = module

    def __getattr__(self, name: str) -> Any:
        return getattr(self._module, name)

    def Empty(self, *args: Any, **kwargs: Any) -> Any:
        if sys._getframe(1).f_code.co_name == "Cancel":
            _cancel()
        return self._module.Empty(*args, **kwargs)


def _hook_cancel() -> None:
    main: Any = sys.modules["__main__"]
    if hasattr(main, "DynamicResourceProviderServicer") and not isinstance(main.empty_pb2, _EmptyMessages):
        main.empty_pb2 = _EmptyMessages(main.empty_pb2)


def _hooked() -> bool:
    return isinstance(getattr(sys.modules["__main__"], "empty_pb2", None), _EmptyMessages)


def _cancel() -> None:
    with _lock:
        _cancelled.set()
        waits = list(_waits)
    for event in waits:
        event.set()


# -- threads -----------------------------------------------------------------------------------------------


def _widen(workers: int) -> None:
    """Raises the limit of the executor on one of whose threads we run; new threads come as calls do."""
    for frame in _frames():
        if frame.f_code.co_name == "_worker" and "executor_reference" in frame.f_code.co_varnames:
            executor: Any = frame.f_locals["executor_reference"]()
            break
    else:
        return
    if not isinstance(executor, ThreadPoolExecutor) or executor._max_workers >= workers:
        return
    executor._max_workers = workers
    # In Python 3.10 and 3.11 it has counted each call that found no free worker as a free worker.
    executor._idle_semaphore = threading.Semaphore(0)
    for _ in range(executor._work_queue.qsize()):  # a thread for each call that waits already
        executor._adjust_thread_count()


# -- the engine --------------------------------------------------------------------------------------------


def _engine_address() -> tuple[str, int] | None:
    match = re.fullmatch(r"(127\.0\.0\.1|localhost):(\d{1,5})", sys.argv[-1] if sys.argv else "")
    return (match[1], int(match[2])) if match else None


def _engine_alive() -> bool:
    """False only when nobody listens at the engine's address any more."""
    address = _engine_address()
    if address is not None:
        try:
            socket.create_connection(address, timeout=1).close()
        except ConnectionRefusedError:
            return False
        except OSError:
            pass
    return True


_engine: Any = None  # the process's one connection to the engine: a stub of its gRPC service


def _log(severity: Any, text: str, urn: str, *, ephemeral: bool) -> None:
    """Sends a line to the engine; raises when there is none."""
    global _engine
    from pulumi.runtime.proto import engine_pb2, engine_pb2_grpc

    with _lock:
        if _engine is None:
            address = _engine_address()
            if address is None:
                raise LookupError("no engine")
            # Without the option, HTTP_PROXY would apply to loopback too.
            channel = grpc.insecure_channel("{}:{}".format(*address), options=[("grpc.enable_http_proxy", 0)])
            _engine = engine_pb2_grpc.EngineStub(channel)
    request = engine_pb2.LogRequest(severity=severity, message=text, urn=urn, ephemeral=ephemeral)
    _engine.Log(request, timeout=_LOG_DEADLINE)


def _watched() -> bool:
    """Whether somebody looks on: the run has a terminal and is not a CI job, or the environment says so.

    The engine does not tell; but the host is in the session of the command line, so it has the same terminal.
    """
    if PROGRESS in os.environ:
        return _is_set(PROGRESS)
    if _is_set("CI"):
        return False
    try:
        os.close(os.open("/dev/tty", os.O_RDONLY | os.O_NOCTTY))
    except OSError:
        return False
    return True


class _StatusLines:
    """Sends status lines: the latest text of each resource, on change, each half second."""

    def __init__(self) -> None:
        self._changed = threading.Condition()
        self._sending = threading.Lock()
        self._waiting: dict[str, tuple[str, Sequence[threading.Event]]] = {}
        self._shown: dict[str, str] = {}
        self._watched = _watched()
        if self._watched:
            threading.Thread(target=self._run, name="tutum-status", daemon=True).start()

    def show(self, urn: str, text: str, ends: Sequence[threading.Event]) -> None:
        """Shows a text soon, unless one of the events is set by then."""
        if self._watched:
            with self._changed:
                self._waiting[urn] = (text, ends)
                self._changed.notify()

    def clear(self, urn: str) -> None:
        """Replaces what is shown of a resource by nothing, at once."""
        from pulumi.runtime.proto import engine_pb2

        with self._sending:
            if self._shown.pop(urn, ""):
                _log(engine_pb2.INFO, "", urn, ephemeral=True)

    def _run(self) -> None:
        from pulumi.runtime.proto import engine_pb2

        while True:
            with self._changed:
                self._changed.wait_for(lambda: self._waiting)
                lines, self._waiting = self._waiting, {}
            for urn, (text, ends) in lines.items():
                with self._sending, _guard("status line"):
                    # A line after the call's end would overwrite its result.
                    if self._shown.get(urn) != text and not any(end.is_set() for end in ends):
                        _log(engine_pb2.INFO, text, urn, ephemeral=True)
                        self._shown[urn] = text
            time.sleep(_STATUS_SECONDS)


_lines: _StatusLines | None = None


def _status_lines() -> _StatusLines:
    global _lines
    with _lock:
        if _lines is None:
            _lines = _StatusLines()
        return _lines


_watch: threading.Thread | None = None


def _watch_engine() -> None:
    global _watch
    with _lock:
        if _watch is None and _engine_address() is not None:
            _watch = threading.Thread(target=_end_with_engine, name="tutum-engine-watch", daemon=True)
            _watch.start()


def _end_with_engine() -> None:
    """Ends this process when its engine is gone. The calls being served ended before, with their contexts."""
    refused = 0
    while refused < 2:
        time.sleep(_ENGINE_CHECK_SECONDS)
        refused = 0 if _engine_alive() else refused + 1
    os._exit(1)


# -- the end -----------------------------------------------------------------------------------------------


class _TimeIsUp(BaseException):
    """Ends a late `at_end` function; not an Exception, which it might handle."""


def _run_endings() -> None:
    if _dropped.is_set() or (_hooked() and not _cancelled.is_set()) or not _engine_alive():
        return
    with _time_limit(_END_SECONDS):
        for function in _endings:
            with _guard("end"):
                function()


@contextmanager
def _time_limit(seconds: float) -> Iterator[None]:
    """Interrupts what runs inside when it takes longer. On the main thread, where there are signals, only."""

    def late(*_: object) -> NoReturn:
        raise _TimeIsUp

    try:
        with _guard("time limit"):
            signal.signal(signal.SIGALRM, late)
            signal.setitimer(signal.ITIMER_REAL, seconds)
        yield
    except _TimeIsUp:
        pass
