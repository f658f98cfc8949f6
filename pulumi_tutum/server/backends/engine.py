"""One Docker Engine: connected to, lost, found again; what both the docker and the swarm backend do with one.

docker-py blocks, so each engine has threads: a few that carry out calls, one for each stream (events, logs, a
command's output). Whatever goes wrong in them reaches the event loop as a `BackendError` with a text for
users; `transient` says that the engine did not answer, in which case it is looked for again, with growing
pauses, until it is back.

The private methods of docker-py that are used (`_get`, `_post_json`, `_url`, and the file below a streamed
response) are used here only; a test pins them."""

from __future__ import annotations

import asyncio
import codecs
import contextlib
import functools
import hashlib
import http.client
import json
import logging
import os
import posixpath
import queue
import re
import shlex
import shutil
import socket
import ssl
import struct
import subprocess
import tempfile
import threading
import time
from calendar import timegm
from collections.abc import (
    AsyncGenerator,
    AsyncIterator,
    Awaitable,
    Callable,
    Iterable,
    Iterator,
    Mapping,
    Sequence,
)
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Generic, TypeVar
from urllib.parse import urlencode, urlsplit

import docker
import requests
from docker.utils import parse_repository_tag

from ...errors import BackendError, ConfigError, Problem
from ..clock import is_set_within
from . import ContainerSpec, ImageInfo, LogLine

log = logging.getLogger("pulumi_tutum.server")

T = TypeVar("T")

#: Labels of everything that a backend makes. `SERVER` tells its things from those of others on the same
#: engine.
SERVER, SERVICE, CONTAINER = "io.tutum.server", "io.tutum.service", "io.tutum.container"
ORDINAL, REVISION = "io.tutum.ordinal", "io.tutum.revision"

PULL_POLICIES = ("missing", "always", "never")

#: The least memory in MB that engines accept.
LEAST_MEMORY = 6

#: Programs that are made to be process 1.
_INITS = frozenset(
    {"init", "systemd", "tini", "dumb-init", "catatonit", "s6-svscan", "my_init", "runit", "docker-init"}
)
_THREADS = 16
#: Calls that wait for something (a container that stops, an image that comes) have threads of their own.
_SLOW_THREADS = 64
_CALL_SECONDS = 60
#: An engine that dies with its machine closes no connection: it is asked now and then.
_PING_EVERY, _PING_SECONDS = 10.0, 10
_RECONNECT_FIRST, _RECONNECT_MOST = 0.1, 2.0
_READ = 1 << 16
#: A line without an end is given out in pieces of this many bytes.
_LONGEST_LINE = 1 << 18
#: What a stream may hold that nobody has taken yet.
_BATCHES = 4


def labels(server_id: str, spec: ContainerSpec) -> dict[str, str]:
    """The labels of a container. Anyone with access to the engine reads them: nothing secret goes here."""
    return {
        SERVER: server_id,
        SERVICE: spec.service_uuid,
        CONTAINER: spec.uuid,
        ORDINAL: str(spec.ordinal),
        REVISION: spec.revision,
    }


def unfit(definition: Mapping[str, Any]) -> Iterator[Problem]:
    """What of a service's definition no engine takes."""
    memory = definition.get("memory")
    if memory is not None and memory < LEAST_MEMORY:
        yield Problem("memory", f"must be {LEAST_MEMORY} or more: the Docker Engine takes no less")
    if definition.get("cpu_shares") == 1:
        yield Problem("cpu_shares", "must be 2 or more, or 0 for the default: the kernel takes no less")
    for name in ("entrypoint", "run_command"):
        try:
            shlex.split(definition.get(name) or "")
        except ValueError:
            yield Problem(name, "has an unclosed quotation")


@dataclass(frozen=True)
class Command:
    """What a container runs; None: what its image says.

    Attributes:
        init: a small init is to be its process 1, because its own program is none.
    """

    entrypoint: list[str] | None
    arguments: list[str] | None
    init: bool


def command_of(spec: ContainerSpec, image: ImageInfo | None) -> Command:
    """What a container runs, split as a shell does.

    Raises:
        BackendError: it cannot be split.
    """
    try:
        entrypoint = shlex.split(spec.entrypoint) if spec.entrypoint else None
        arguments = shlex.split(spec.run_command) if spec.run_command else None
        program = (entrypoint or shlex.split(image.entrypoint if image else "") or arguments or [])[:1]
        program = program or shlex.split(image.run_command if image else "")[:1]
    except ValueError as error:
        raise BackendError(f"the command cannot be read: {error}") from None
    own = bool(program) and posixpath.basename(program[0]) in _INITS
    return Command(entrypoint, arguments, init=spec.pid != "host" and not own)


# -- where engines are ---------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Address:
    """An engine as the operator names it: `[NAME=]URL[,tag,...]`.

    Attributes:
        url: unix:///path, tcp://host:port or ssh://[user@]host[:port][/path of its socket].
    """

    name: str
    url: str
    tags: tuple[str, ...] = ()

    @property
    def host(self) -> str:
        """The machine's name or address; "" of this machine."""
        host = urlsplit(self.url).hostname or ""
        return "" if host in ("localhost", "::1") or host.startswith("127.") else host


def addresses(words: Sequence[str], environ: Mapping[str, str] = os.environ) -> list[Address]:
    """What `--node` was given; without any, the engine that the `docker` command would use.

    Raises:
        ConfigError: one that cannot be read, or a name given twice.
    """
    words = words or [environ.get("DOCKER_HOST") or "unix:///var/run/docker.sock"]
    found: list[Address] = []
    for word in words:
        place, *tags = word.split(",")
        name, given, url = place.partition("=")
        if not given:
            name, url = "", place
        parts = urlsplit(url)
        if not (
            (parts.scheme == "unix" and parts.path) or (parts.scheme in ("tcp", "ssh") and parts.hostname)
        ):
            raise ConfigError(
                f"--node {word}: give [NAME=]URL[,tag,...] with a URL like unix:///var/run/docker.sock, "
                "tcp://host:2376 or ssh://user@host"
            )
        found.append(
            Address(name or parts.hostname or "local", url, tuple(t.strip() for t in tags if t.strip()))
        )
    names = [a.name for a in found]
    for name in names:
        if names.count(name) > 1:
            raise ConfigError(f"two nodes are called {name}: give them names, --node NAME=URL")
    return found


@dataclass(frozen=True)
class Certificates:
    """What Docker's own variables say about TLS: a folder with ca.pem, cert.pem and key.pem."""

    folder: Path
    verify: bool

    @classmethod
    def find(cls, environ: Mapping[str, str]) -> Certificates | None:
        folder, verify = environ.get("DOCKER_CERT_PATH", ""), environ.get("DOCKER_TLS_VERIFY", "")
        if not folder and not verify:
            return None
        return cls(Path(folder) if folder else Path.home() / ".docker", bool(verify))

    def for_docker_py(self) -> docker.tls.TLSConfig:
        pair = (str(self.folder / "cert.pem"), str(self.folder / "key.pem"))
        return docker.tls.TLSConfig(client_cert=pair, ca_cert=str(self.folder / "ca.pem"), verify=self.verify)

    def context(self) -> ssl.SSLContext:
        """The same for connections of our own.

        Raises:
            ConfigError: a file is missing or is none of the kind.
        """
        try:
            context = ssl.create_default_context(cafile=str(self.folder / "ca.pem"))
            context.load_cert_chain(self.folder / "cert.pem", self.folder / "key.pem")
        except (OSError, ssl.SSLError) as error:
            raise ConfigError(f"DOCKER_CERT_PATH {self.folder}: {error.strerror or error}") from None
        if not self.verify:
            context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
        return context


# -- threads -------------------------------------------------------------------------------------------------


class Workers:
    """Threads that carry out blocking calls. Unlike those of an executor they never keep the process
    alive."""

    def __init__(self, name: str, most: int) -> None:
        self._name, self._most = name, most
        self._jobs: queue.SimpleQueue[Callable[[], None] | None] = queue.SimpleQueue()
        self._threads = 0
        self._busy = 0
        self._closed = False

    async def run(self, function: Callable[[], T]) -> T:
        """The function's result. When the caller is cancelled, the function goes on all the same."""
        loop = asyncio.get_running_loop()
        future: asyncio.Future[T] = loop.create_future()

        def settle(result: T | None, error: BaseException | None) -> None:
            self._busy -= 1
            if future.cancelled():
                return
            if error is not None:
                future.set_exception(error)
            else:
                future.set_result(result)  # type: ignore[arg-type]

        def job() -> None:
            result, failure = None, None
            try:
                result = function()
            except BaseException as error:
                failure = error
            with contextlib.suppress(RuntimeError):  # the loop is closed: nobody waits any more
                loop.call_soon_threadsafe(settle, result, failure)

        if self._closed:
            raise BackendError("the server is stopping", transient=True)
        self._busy += 1
        if self._threads < min(self._busy, self._most):
            self._threads += 1
            threading.Thread(target=self._work, name=f"{self._name} {self._threads}", daemon=True).start()
        self._jobs.put(job)
        return await future

    def _work(self) -> None:
        while (job := self._jobs.get()) is not None:
            job()

    def close(self) -> None:
        """Ends the threads once they have nothing left to do."""
        self._closed = True
        for _ in range(self._threads):
            self._jobs.put(None)


class Pipe(Generic[T]):
    """Carries items from a thread to the loop. The thread waits while `room` items are not taken, so that
    what a slow reader leaves does not pile up."""

    def __init__(self, room: int) -> None:
        self._loop = asyncio.get_running_loop()
        self._items: asyncio.Queue[T | BaseException | None] = asyncio.Queue()
        self._room = threading.Semaphore(room)
        self._closed = False

    def put(self, item: T) -> bool:
        """Called by the thread. False: nobody will take it."""
        self._room.acquire()
        return self._hand_over(item)

    def end(self, error: BaseException | None = None) -> None:
        """Called by the thread, last."""
        self._hand_over(error)

    def _hand_over(self, item: T | BaseException | None) -> bool:
        if self._closed:
            return False
        try:
            self._loop.call_soon_threadsafe(self._items.put_nowait, item)
        except RuntimeError:  # the loop is closed
            return False
        return True

    async def __aiter__(self) -> AsyncIterator[T]:
        while True:
            item = await self._items.get()
            if item is None:
                return
            if isinstance(item, BaseException):
                raise item
            self._room.release()
            yield item

    def close(self) -> None:
        """Called by the reader: nothing more is wanted."""
        self._closed = True
        self._room.release()


# -- what goes wrong -----------------------------------------------------------------------------------------

#: What the engine puts around the reason that matters.
_AROUND = re.compile(
    r"^(?:failed to create (?:shim )?task(?: for container)?: |OCI runtime (?:create|exec) failed: "
    r"|runc (?:create|exec) failed: |unable to start container process: |error during container init: "
    r"|container_linux\.go:\d+: |starting container process caused: |process_linux\.go:\d+: "
    r"|Error response from daemon: |driver failed programming external connectivity on endpoint [^:]*: "
    r"|Error starting userland proxy: |failed to set up container networking: )+"
)


def plain(text: str) -> str:
    """The engine's own words without what it wraps around them."""
    text = " ".join(text.split())
    return _AROUND.sub("", text).removesuffix(": unknown").strip()


def readable(error: Exception) -> BackendError:
    """What docker-py raised, as a text for users."""
    if isinstance(error, BackendError):
        return error
    if isinstance(error, docker.errors.APIError):
        said: Any = error.explanation  # bytes, when the answer was no JSON
        text = said.decode("utf-8", "replace") if isinstance(said, bytes) else said
        # 503: a swarm manager without a leader, a proxy before the engine.
        return BackendError(plain(text or str(error)), transient=error.status_code == 503)
    if isinstance(error, requests.exceptions.Timeout):
        return BackendError("the Docker Engine did not answer in time", transient=True)
    if isinstance(error, (requests.exceptions.RequestException, OSError)):
        return BackendError("the connection to the Docker Engine was lost", transient=True)
    if tls := re.search(r"certificate verify failed: [^(']*[^(' ]", str(error)):
        return BackendError(f"the engine is not trusted: {tls[0]}", transient=True)
    if isinstance(error, docker.errors.DockerException):
        return BackendError(plain(str(error)), transient="fetching server API version" in str(error))
    return BackendError(f"unexpected answer of the Docker Engine ({type(error).__name__})", transient=True)


# -- one engine ----------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Facts:
    """What an engine says about itself and its machine."""

    id: str = ""
    name: str = ""
    version: str = ""
    cpus: int = 1
    memory_mb: int = 0
    disk_gb: int = 0
    swarm: Mapping[str, Any] = field(default_factory=dict)
    time: str = ""


class Engine:
    """One Docker Engine; see the module's docstring.

    Args:
        pull: when images are pulled, one of PULL_POLICIES.
    """

    def __init__(
        self, address: Address, *, pull: str = "missing", environ: Mapping[str, str] = os.environ
    ) -> None:
        self.address = address
        self.facts = Facts()
        #: It answered when it was last asked. While False, calls are refused without trying.
        self.up = False
        #: Why it is down, for the log.
        self.trouble = ""
        self._pull = pull
        self._url = address.url
        self._certificates = Certificates.find(environ) if address.url.startswith("tcp:") else None
        self._context = self._certificates.context() if self._certificates else None
        self._client: docker.APIClient | None = None
        self._workers = Workers(f"engine {address.name}", _THREADS)
        self._slow = Workers(f"engine {address.name} slow", _SLOW_THREADS)
        self._tunnel: _Tunnel | None = _Tunnel(address.url) if address.url.startswith("ssh:") else None
        self._task: asyncio.Task[None] | None = None
        self._lost = asyncio.Event()
        self._closing = False
        #: Images that are being looked for.
        self._images: dict[str, asyncio.Task[Mapping[str, Any]]] = {}

    def __str__(self) -> str:
        return f"the Docker Engine at {self.address.url}"

    # -- life

    async def open(
        self,
        *,
        filters: Mapping[str, Sequence[str]],
        on_event: Callable[[dict[str, Any]], None],
        on_up: Callable[[], Awaitable[None]],
        on_down: Callable[[], None],
    ) -> None:
        """Connect, and stay connected until `close`. Returns when the first attempt has succeeded or failed.

        Args:
            filters: of the events that matter (`{"type": ["container"]}`).
            on_event: called on the loop.
            on_up: awaited each time when the engine is there (again), when events are flowing already.
            on_down: called when it is not there any more.
        """
        tried = asyncio.Event()

        async def stay() -> None:
            pause = _RECONNECT_FIRST
            while True:
                stream = None
                try:
                    await self._workers.run(self._connect)
                    stream = _Events(self, filters, on_event, self._lost.set)
                    self._lost.clear()
                    await self._workers.run(stream.start)
                    self.up, self.trouble, pause = True, "", _RECONNECT_FIRST
                    await on_up()
                    log.info(
                        "connected to an engine",
                        extra={"node": self.address.name, "version": self.facts.version},
                    )
                    tried.set()
                    await self._watch()
                    self.trouble = "the connection was lost"
                except Exception as error:
                    self.trouble = str(readable(error))
                    if not isinstance(error, BackendError):
                        log.debug("engine: %r", error)
                finally:
                    if stream is not None:
                        stream.close()
                    if self.up and not self._closing:
                        self.up = False
                        log.warning(
                            "an engine does not answer",
                            extra={"node": self.address.name, "error": self.trouble},
                        )
                        on_down()
                tried.set()
                await asyncio.sleep(pause)
                pause = min(pause * 2, _RECONNECT_MOST)

        self._task = asyncio.get_running_loop().create_task(stay(), name=f"engine {self.address.name}")
        await tried.wait()

    async def close(self) -> None:
        """Let go of it."""
        self._closing = True
        if self._task is not None:
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)
        for task in self._images.values():
            task.cancel()
        self.up = False
        self._workers.close()
        self._slow.close()
        if self._client is not None:
            self._client.close()
        if self._tunnel is not None:
            self._tunnel.close()

    def _connect(self) -> None:
        if self._tunnel is not None:
            self._url = self._tunnel.open()
        self._probe(self._url)
        old, self._client = self._client, None
        if old is not None:
            old.close()
        tls = self._certificates.for_docker_py() if self._certificates else False
        client = _Client(self._url, version="auto", timeout=_CALL_SECONDS, tls=tls, max_pool_size=32)
        self.facts = self._facts(client)
        self._client = client

    def _facts(self, client: Any) -> Facts:
        info = client.info()
        root = info.get("DockerRootDir", "")
        return Facts(
            id=info.get("ID", ""),
            name=info.get("Name", ""),
            version=info.get("ServerVersion", ""),
            cpus=int(info.get("NCPU") or 1),
            memory_mb=int(info.get("MemTotal") or 0) >> 20,
            disk_gb=_disk_gb(root) if not self.address.host else 0,
            swarm=info.get("Swarm") or {},
            time=info.get("SystemTime", ""),
        )

    async def learn(self) -> None:
        """Ask again what it is: it may have been made a manager of its swarm, or none any more."""
        with contextlib.suppress(BackendError):
            self.facts = await self.call(self._facts)

    def _probe(self, url: str) -> None:
        """Look whether somebody listens: docker-py leaks a socket when nobody does."""
        parts = urlsplit(url)
        try:
            if parts.scheme == "unix":
                with contextlib.closing(socket.socket(socket.AF_UNIX)) as probe:
                    probe.settimeout(_PING_SECONDS)
                    probe.connect(parts.path)
            else:
                socket.create_connection(
                    (parts.hostname or "", parts.port or 2375), timeout=_PING_SECONDS
                ).close()
        except OSError as error:
            reason = error.strerror or str(error)
            raise BackendError(f"cannot reach {self}: {reason}", transient=True) from None

    async def _watch(self) -> None:
        """Until it is lost."""

        def ping(client: Any) -> None:
            client._result(client._get(client._url("/_ping"), timeout=_PING_SECONDS))

        while not self._lost.is_set():
            if not await is_set_within(_PING_EVERY, self._lost):
                await self.call(ping)

    # -- calls

    @property
    def client(self) -> Any:
        """docker-py's low-level client. Its stubs know too little to be of use.

        Raises:
            BackendError: transient, the engine is not connected.
        """
        if self._client is None:
            raise self.unreachable()
        return self._client

    def unreachable(self) -> BackendError:
        """The error of every call while it is down."""
        return BackendError(self.trouble or f"cannot reach {self}", transient=True)

    async def call(self, function: Callable[[Any], T], *, slow: bool = False) -> T:
        """Carry out a function of docker-py's client in a thread.

        Args:
            slow: it may take long, and must not keep others waiting.

        Raises:
            BackendError: whatever went wrong. docker-py's own `NotFound` passes, for those who expect it.
        """
        # Not `up`: while `on_up` is awaited, calls work already.
        if self._client is None or self._lost.is_set():
            raise self.unreachable()
        client = self.client
        try:
            return await (self._slow if slow else self._workers).run(lambda: function(client))
        except docker.errors.NotFound:
            raise
        except Exception as error:
            found = readable(error)
            if not isinstance(
                error,
                (BackendError, docker.errors.DockerException, requests.exceptions.RequestException, OSError),
            ):
                log.exception("a call to the engine ended unexpectedly")
            raise found from None

    # -- images

    async def image(self, image: str) -> ImageInfo:
        """What an image is; see `find_image`."""
        return image_info(await self.find_image(image))

    async def find_image(self, image: str) -> Mapping[str, Any]:
        """An image as the engine describes it; pulled before, if the policy says so.

        The containers of a service all ask at the same time: who asks meanwhile gets the same answer.

        Raises:
            BackendError: it is not there, and could not be had.
        """
        task = self._images.get(image)
        if task is None:
            task = self._images[image] = asyncio.get_running_loop().create_task(self._find_image(image))
            task.add_done_callback(functools.partial(self._has_looked, image))
        # One who gives up must not end it for the others.
        return await asyncio.shield(task)

    def _has_looked(self, image: str, task: asyncio.Task[Mapping[str, Any]]) -> None:
        self._images.pop(image, None)
        if not task.cancelled():
            task.exception()  # whoever still waits for it has been told

    async def _find_image(self, image: str) -> Mapping[str, Any]:
        found = None if self._pull == "always" else await self.describe_image(image)
        if found is None and self._pull != "never" and not image.startswith("sha256:"):
            await self._pull_image(image)
            found = await self.describe_image(image)
        if found is None:
            raise BackendError(f"No such image: {image}")
        return found

    async def inspect_image(self, image: str) -> ImageInfo | None:
        """What an image is; None: the engine does not have it."""
        found = await self.describe_image(image)
        return None if found is None else image_info(found)

    async def describe_image(self, image: str) -> Mapping[str, Any] | None:
        """An image as the engine describes it; None: the engine does not have it."""
        try:
            found: Mapping[str, Any] = await self.call(lambda client: client.inspect_image(image))
        except docker.errors.NotFound:
            return None
        return found

    async def _pull_image(self, image: str) -> None:
        def pull(client: Any) -> None:
            # `docker login` may have been called since.
            client.reload_config()
            repository, tag = parse_repository_tag(image)
            for line in client.pull(repository, tag=tag or "latest", stream=True, decode=True):
                if line.get("error"):
                    raise BackendError(line["error"])

        try:
            await self.call(pull, slow=True)
        except docker.errors.NotFound as error:
            raise BackendError(f"No such image: {image} (it cannot be pulled: {readable(error)})") from None
        except BackendError as error:
            if error.transient:
                raise
            raise BackendError(f"No such image: {image} (it cannot be pulled: {plain(str(error))})") from None

    # -- streams

    def stream(self, path: str, parameters: Mapping[str, Any]) -> _Connection:
        """A GET whose answer goes on; blocks until it begins.

        Raises:
            docker.errors.NotFound: there is no such thing.
        """
        # The engine answers HTTP/1.0 without chunks, so that many lines can be read at once.
        request = (
            f"GET /v{self.client.api_version}{path}?{urlencode(parameters)} HTTP/1.0\r\nHost: docker\r\n\r\n"
        )
        return _Connection(self._url, self._context, request.encode())

    async def logs(
        self, path: str, *, tail: int | None, follow: bool, after: str = ""
    ) -> AsyncGenerator[tuple[list[LogLine], str], None]:
        """Lines of `/containers/<id>/logs` or `/services/<id>/logs`, as fast as they are taken.

        Args:
            after: a position: only what comes after it.

        Yields:
            lines, and the position after them; no lines, when a line has begun that has not ended.

        Raises:
            docker.errors.NotFound: there is no such thing.
        """
        parameters: dict[str, Any] = {"stdout": 1, "stderr": 1, "timestamps": 1, "follow": int(follow)}
        parameters["tail"] = "all" if tail is None else str(tail)
        if after:
            parameters["since"] = seconds(after)
        connection = await self.call(lambda _: self.stream(path, parameters))
        pipe: Pipe[tuple[list[LogLine], str]] = Pipe(_BATCHES)

        def read() -> None:
            try:
                for batch in log_batches(iter(connection.read, b""), after):
                    if not pipe.put(batch):
                        break
            except Exception:
                # The connection ended with the engine, which others notice.
                log.debug("a log stream broke off", exc_info=True)
            connection.close()
            pipe.end()

        threading.Thread(target=read, name=f"logs {self.address.name}", daemon=True).start()
        try:
            async for batch in pipe:
                yield batch
        finally:
            pipe.close()
            connection.cut()

    async def log_end(self, path: str) -> str:
        """The position after what is written by now; "" when nothing is. Raises as `logs` does."""
        position = ""
        async with contextlib.aclosing(self.logs(path, tail=1, follow=False)) as batches:
            async for batch in batches:
                position = batch[1]
        return position

    async def exec(self, container: str, command: Sequence[str], *, tty: bool) -> Exec:
        """Run a command in a container, with `tty` at a terminal.

        Raises:
            BackendError: it does not run, or the command cannot be begun.
        """

        def begin(client: Any) -> tuple[str, _Connection]:
            identity = client.exec_create(container, list(command), stdin=True, tty=tty)["Id"]
            body = json.dumps({"Tty": tty, "Detach": False}).encode()
            head = (
                f"POST /v{client.api_version}/exec/{identity}/start HTTP/1.1\r\nHost: docker\r\n"
                "Connection: Upgrade\r\nUpgrade: tcp\r\nContent-Type: application/json\r\n"
                f"Content-Length: {len(body)}\r\n\r\n"
            )
            return identity, _Connection(self._url, self._context, head.encode() + body)

        try:
            identity, connection = await self.call(begin)
        except docker.errors.NotFound:
            raise BackendError("the container is gone") from None
        return Exec(self, identity, connection, tty)


def _disk_gb(folder: str) -> int:
    with contextlib.suppress(OSError):
        stat = os.statvfs(folder)
        return stat.f_blocks * stat.f_frsize >> 30
    return 0


def image_info(inspected: Mapping[str, Any]) -> ImageInfo:
    """An image as the engine describes it."""
    config = inspected.get("Config") or {}
    test: list[str] = (config.get("Healthcheck") or {}).get("Test") or []
    ports = (port.partition("/") for port in sorted(config.get("ExposedPorts") or {}, key=_port_order))
    return ImageInfo(
        inspected.get("Id", ""),
        environment=dict(entry.partition("=")[::2] for entry in config.get("Env") or ()),
        ports=tuple((protocol or "tcp", int(number)) for number, _, protocol in ports if number.isdecimal()),
        volumes=tuple(sorted(config.get("Volumes") or {})),
        run_command=_words(config.get("Cmd")),
        entrypoint=_words(config.get("Entrypoint")),
        working_dir=config.get("WorkingDir") or "",
        has_check=bool(test) and test[0] != "NONE",
    )


def _port_order(port: str) -> tuple[int, str]:
    number, _, protocol = port.partition("/")
    return (int(number) if number.isdecimal() else 0), protocol


def _words(command: Any) -> str:
    if isinstance(command, str):
        return command
    return shlex.join(command or ())


class _Client(docker.APIClient):
    """docker-py's client, without the environment's proxies and certificates: those are for the web."""

    @property
    def trust_env(self) -> bool:
        return False

    @trust_env.setter
    def trust_env(self, _: bool) -> None:
        """The library sets it to what it thinks best."""


class _Tunnel:
    """An engine's socket on another machine, brought here by the ssh command with the user's own settings."""

    def __init__(self, url: str) -> None:
        parts = urlsplit(url)
        self._host = f"{parts.username}@{parts.hostname}" if parts.username else parts.hostname or ""
        self._port = parts.port
        self._far = parts.path if parts.path not in ("", "/") else "/var/run/docker.sock"
        self._folder: Path | None = None
        self._process: subprocess.Popen[bytes] | None = None

    def open(self) -> str:
        """The URL of its near end, whose other end answers.

        Raises:
            BackendError: transient, ssh's own words.
        """
        if self._folder is None:
            self._folder = Path(tempfile.mkdtemp(prefix="tutum-ssh-"))
        near, said = self._folder / "docker.sock", self._folder / "said"
        if self._process is not None and self._process.poll() is None:
            return f"unix://{near}"
        self._end()
        near.unlink(missing_ok=True)
        options = ["BatchMode=yes", "ExitOnForwardFailure=yes", "ServerAliveInterval=5", "ConnectTimeout=10"]
        command = ["ssh", "-T", *(word for option in options for word in ("-o", option))]
        command += ["-p", str(self._port)] if self._port else []
        # The command there ends with its input: so with this process, however that ends.
        command += ["-L", f"{near}:{self._far}", "--", self._host, "cat >/dev/null"]
        try:
            with said.open("wb") as errors:
                self._process = subprocess.Popen(
                    command, stdin=subprocess.PIPE, stdout=errors, stderr=errors, start_new_session=True
                )
        except OSError as error:
            raise BackendError(f"cannot run ssh: {error.strerror}", transient=True) from None
        deadline = time.monotonic() + 30
        while not near.exists():
            if self._process.poll() is not None or time.monotonic() > deadline:
                self._end()
                last = said.read_text(errors="replace").strip().splitlines()[-1:]
                raise BackendError(f"ssh to {self._host}: {''.join(last) or 'no answer'}", transient=True)
            time.sleep(0.02)
        return f"unix://{near}"

    def _end(self) -> None:
        if self._process is not None:
            self._process.terminate()
            self._process.communicate()
            self._process = None

    def close(self) -> None:
        self._end()
        if self._folder is not None:
            shutil.rmtree(self._folder, ignore_errors=True)
            self._folder = None


class _Connection:
    """A connection of its own for an answer that goes on: read by one thread, cut by another.

    docker-py is too slow for logs (its answers come in chunks, one to a line), and does not say how to end
    one."""

    def __init__(self, url: str, tls: ssl.SSLContext | None, request: bytes) -> None:
        parts = urlsplit(url)
        if parts.scheme == "unix":
            self._socket = socket.socket(socket.AF_UNIX)
        else:
            at = (parts.hostname or "", parts.port or 2375)
            self._socket = socket.create_connection(at, timeout=_CALL_SECONDS)
        self._lock = threading.Lock()
        self._closed = False
        try:
            self._socket.settimeout(_CALL_SECONDS)
            if parts.scheme == "unix":
                self._socket.connect(parts.path)
            elif tls is not None:
                self._socket = tls.wrap_socket(self._socket, server_hostname=parts.hostname)
            self._socket.sendall(request)
            self._response = http.client.HTTPResponse(self._socket)
            self._response.begin()
            self._file = self._response.fp
            if self._response.status >= 400:
                raise self._error()
            self._socket.settimeout(None)
        except BaseException:
            self.close()
            raise

    def _error(self) -> Exception:
        text = self._response.read().decode("utf-8", "replace")
        with contextlib.suppress(ValueError, KeyError, TypeError):
            text = json.loads(text)["message"]
        kind = docker.errors.NotFound if self._response.status == 404 else docker.errors.APIError
        return kind(text, explanation=text)

    def read(self) -> bytes:
        """What there is; b"" at the end. The file, not the socket: it may hold what came with the headers."""
        try:
            return self._file.read1(_READ)
        except (OSError, ValueError):
            if self._closed or self._cut:
                return b""
            raise

    _cut = False

    def send(self, data: bytes) -> None:
        self._socket.sendall(data)

    def end_input(self) -> None:
        self._socket.shutdown(socket.SHUT_WR)

    def cut(self) -> None:
        """Wakes the thread that reads; it closes then. Closing here could hit another socket of the same
        number."""
        with self._lock:
            self._cut = True
            if not self._closed:
                with contextlib.suppress(OSError):
                    self._socket.shutdown(socket.SHUT_RDWR)

    def close(self) -> None:
        with self._lock:
            self._closed = True
            with contextlib.suppress(OSError):
                if hasattr(self, "_response"):
                    self._response.close()
                self._socket.close()


class _Events:
    """An engine's events, read by a thread."""

    def __init__(
        self,
        engine: Engine,
        filters: Mapping[str, Sequence[str]],
        on_event: Callable[[dict[str, Any]], None],
        on_end: Callable[[], None],
    ) -> None:
        self._engine = engine
        self._parameters = {"filters": json.dumps({name: list(values) for name, values in filters.items()})}
        # The engine answers before it begins to listen; what happens in between would be missed otherwise.
        if since := seconds(engine.facts.time):
            self._parameters["since"] = since
        self._on_event, self._on_end = on_event, on_end
        self._loop = asyncio.get_running_loop()
        self._connection: _Connection | None = None
        self._closed = False

    def start(self) -> None:
        connection = self._connection = self._engine.stream("/events", self._parameters)
        threading.Thread(target=self._read, args=(connection,), name="events", daemon=True).start()

    def _read(self, connection: _Connection) -> None:
        decode = json.JSONDecoder().raw_decode
        text, utf8 = "", codecs.getincrementaldecoder("utf-8")("replace")
        try:
            while data := connection.read():
                text += utf8.decode(data)
                events = []
                while text := text.lstrip():
                    try:
                        event, end = decode(text)
                    except ValueError:
                        break
                    events.append(event)
                    text = text[end:]
                if events:
                    self._loop.call_soon_threadsafe(self._tell, events)
        except Exception:
            log.debug("the event stream broke off", exc_info=True)
        connection.close()
        with contextlib.suppress(RuntimeError):  # the loop is closed
            self._loop.call_soon_threadsafe(self._ended)

    def _tell(self, events: list[dict[str, Any]]) -> None:
        if not self._closed:
            for event in events:
                self._on_event(event)

    def _ended(self) -> None:
        if not self._closed:
            self._on_end()

    def close(self) -> None:
        self._closed = True
        if self._connection is not None:
            self._connection.cut()


# -- log frames ----------------------------------------------------------------------------------------------

_ERROR = 3
_HEAD = struct.Struct(">BxxxL")


def log_batches(chunks: Iterable[bytes], after: str = "") -> Iterator[tuple[list[LogLine], str]]:
    """Lines out of the engine's log frames: one list for each chunk, and the position after it.

    A line longer than 16 KB comes in several frames, each with the time of the first; they are joined, as
    bytes, since the engine cuts characters too.

    Args:
        after: a position; lines up to there are left out. Positions are times as the engine writes them,
            which all have the same length.
    """
    buffer = b""
    time_of = _Seconds().of
    unpack = _HEAD.unpack_from
    #: stream -> the time and the pieces of a line that has not ended, and their length.
    open_lines: dict[str, tuple[float, list[bytes], int]] = {}
    stamp = after
    for chunk in chunks:
        buffer = buffer + chunk if buffer else chunk
        lines: list[LogLine] = []
        before = stamp
        at, size = 0, len(buffer)
        while at + 8 <= size:
            kind, length = unpack(buffer, at)
            end = at + 8 + length
            if end > size:
                break
            body = buffer[at + 8 : end]
            when, _, text = body.decode("utf-8", "replace").partition(" ")
            at = end
            if after and when <= after:
                continue
            stamp = when
            stream = "stdout" if kind == 1 else "stderr"
            if text.endswith("\n") and stream not in open_lines:
                lines.append(LogLine(stream, time_of(when), text))
                continue
            begun, pieces, total = open_lines.pop(stream, (time_of(when), [], 0))
            pieces.append(body.partition(b" ")[2])
            total += len(pieces[-1])
            if text.endswith("\n") or total >= _LONGEST_LINE:
                lines.append(LogLine(stream, begun, _joined(pieces)))
            else:
                open_lines[stream] = (begun, pieces, total)
        buffer = buffer[at:]
        if lines or stamp != before:
            yield lines, stamp
    rest = [LogLine(stream, when, _joined(pieces)) for stream, (when, pieces, _) in open_lines.items()]
    if rest:
        yield rest, stamp


def _joined(pieces: list[bytes]) -> str:
    return b"".join(pieces).decode("utf-8", "replace")


class _Seconds:
    """RFC 3339 times in seconds since the epoch. Lines come many to a second, so its value is kept."""

    def __init__(self) -> None:
        self._second, self._value = "", 0.0

    def of(self, stamp: str) -> float:
        second = stamp[:19]
        if second != self._second:
            try:
                self._value = float(timegm(time.strptime(second, "%Y-%m-%dT%H:%M:%S")))
            except ValueError:
                return 0.0
            self._second = second
        fraction = stamp[19:].rstrip("Z")
        try:
            return self._value + (float(fraction) if fraction else 0.0)
        except ValueError:
            return self._value


def seconds(stamp: str) -> str:
    """An engine's time as its parameters want it: `seconds.nanoseconds`; "" when there is none."""
    match = re.match(r"(\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d)(?:\.(\d{1,9}))?\d*(Z|[+-]\d\d:\d\d)?$", stamp)
    if match is None:
        return ""
    whole = timegm(time.strptime(match[1], "%Y-%m-%dT%H:%M:%S"))
    if match[3] and match[3] != "Z":
        sign = -1 if match[3][0] == "-" else 1
        whole -= sign * (int(match[3][1:3]) * 3600 + int(match[3][4:6]) * 60)
    return f"{whole}.{(match[2] or '0').ljust(9, '0')}"


# -- commands in containers ----------------------------------------------------------------------------------


class Exec:
    """A command in a container: an `ExecSession`. Without a terminal, too, the character \\x04 ends its
    input."""

    def __init__(self, engine: Engine, identity: str, connection: _Connection, tty: bool) -> None:
        self._engine, self._id, self._connection, self._tty = engine, identity, connection, tty
        self._pipe: Pipe[tuple[str, str]] = Pipe(16)
        self._ended = asyncio.Event()
        self._typed: queue.Queue[bytes | None] = queue.Queue()
        self._writing = False
        self._code: int | None = None
        threading.Thread(target=self._read, name="exec", daemon=True).start()

    def _read(self) -> None:
        decoders = {s: codecs.getincrementaldecoder("utf-8")("replace") for s in ("stdout", "stderr")}
        try:
            for stream, data in self._pieces(iter(self._connection.read, b"")):
                text = decoders[stream].decode(data)
                if text and not self._pipe.put((stream, text)):
                    return
        except Exception:
            log.debug("a command's output broke off", exc_info=True)
        finally:
            self._typed.put(None)
            self._connection.close()
            self._pipe.end()

    def _pieces(self, chunks: Iterable[bytes]) -> Iterator[tuple[str, bytes]]:
        """What it writes, by stream; a terminal has but one, and no frames."""
        buffer = b""
        for chunk in chunks:
            if self._tty:
                yield "stdout", chunk
                continue
            buffer += chunk
            while len(buffer) >= 8:
                kind, length = _HEAD.unpack_from(buffer)
                if len(buffer) < 8 + length:
                    break
                yield "stdout" if kind == 1 else "stderr", buffer[8 : 8 + length]
                buffer = buffer[8 + length :]

    async def output(self) -> AsyncIterator[tuple[str, str]]:
        async for item in self._pipe:
            yield item
        self._ended.set()

    async def send(self, text: str) -> None:
        if not self._writing:
            self._writing = True
            threading.Thread(target=self._write, name="exec input", daemon=True).start()
        # A command that does not read its input must not fill the server's memory.
        while self._typed.qsize() > 64:
            await asyncio.sleep(0.05)
        self._typed.put(text.encode())

    def _write(self) -> None:
        with contextlib.suppress(OSError):
            while (data := self._typed.get()) is not None:
                keep, end, _ = (data, b"", b"") if self._tty else data.partition(b"\x04")
                if keep:
                    self._connection.send(keep)
                if end:
                    self._connection.end_input()
                    return

    async def wait(self) -> int:
        """The exit code, once the output has ended."""
        await self._ended.wait()
        if self._code is None:
            self._code = await self._exit_code()
        return self._code

    async def _exit_code(self) -> int:
        # The output can end before the process does: a moment, or as long as one runs that closes it.
        pause = 0.01
        while True:
            try:
                state = await self._engine.call(lambda client: client.exec_inspect(self._id))
            except docker.errors.NotFound:
                return 137
            if not state.get("Running") and state.get("ExitCode") is not None:
                return int(state["ExitCode"])
            await asyncio.sleep(pause)
            pause = min(pause * 2, 1.0)

    async def close(self) -> None:
        self._pipe.close()
        self._connection.cut()
        self._ended.set()


def short_id(text: str) -> str:
    """Eight characters that stand for a text."""
    return hashlib.sha256(text.encode()).hexdigest()[:8]
