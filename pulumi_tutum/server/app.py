"""The whole server: `create_app` makes the ASGI application, `serve` is all of `pulumi-tutum serve`."""

from __future__ import annotations

import asyncio
import contextlib
import importlib
import ipaddress
import logging
import os
import re
import signal
import socket
import ssl
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlsplit

import uvicorn

from .. import __version__, schema
from ..errors import ConfigError, TutumError
from . import limits, logs
from .auth import Authority, open_authority
from .backends import Backend
from .backends.simulated import SimulatedBackend
from .control import ControlPlane, Settings
from .dockercloud import translate
from .http import Edge
from .openapi import document_route
from .routes import ROUTES
from .store import MemoryStore, SqliteStore, Store
from .streams import stream_routes

log = logging.getLogger("pulumi_tutum.server")


@dataclass(frozen=True)
class ServeOptions:
    """What `pulumi-tutum serve` can be told; the command's options have the same names.

    Attributes:
        port: 0 picks a free one.
        data: the folder that keeps everything; None: memory.
        nodes: how many nodes the simulated backend has, `node` ones included.
        node: nodes; simulated: `NAME=tag,tag`; docker and swarm: `[NAME=]URL[,tag,...]`.
        container_start_seconds: how long a simulated container takes to start.
        start_timeout: seconds after which an action that does not get anywhere is Failed.
        node_grace: seconds for which a node may not answer before its containers are placed anew.
        retain_terminated: seconds for which terminated services stay visible.
        dns_suffix: what names of services end in; None: `localhost`, and endpoints are given as addresses.
        public_address: the address at which published ports answer; "": the node's own, else 127.0.0.1.
        insecure: serve a public address without TLS.
        allow: what services may ask of their machine (backends/policy.py); real backends only.
        publish_address: the address of the nodes at which ports are published; real backends only.
        public_url: where containers reach this API; "": found out where the engine is on this machine.
        pull: when images are pulled (`missing`, `always`, `never`); real backends only.
        stop_seconds: how long a container may take to stop before it is killed; real backends only.
    """

    host: str = "127.0.0.1"
    port: int = 8280
    backend: str = "simulated"
    data: Path | None = None
    nodes: int = 3
    node: tuple[str, ...] = ()
    container_start_seconds: float = 0.2
    lenient: bool = False
    start_timeout: float = 120.0
    node_grace: float = 20.0
    retain_terminated: float = 3600.0
    dns_suffix: str | None = None
    public_address: str = ""
    tls_cert: Path | None = None
    tls_key: Path | None = None
    insecure: bool = False
    allow: tuple[str, ...] = ()
    publish_address: str = "127.0.0.1"
    public_url: str = ""
    pull: str = "missing"
    stop_seconds: int = 10
    log_level: str = "info"


def create_app(control: ControlPlane, authority: Authority) -> Edge:
    """The ASGI application over a control plane that is open."""
    routes = [*ROUTES, document_route(ROUTES)]
    return Edge(control, authority, routes, stream_routes(), families=[translate])


def serve(options: ServeOptions, environ: Mapping[str, str] | None = None) -> int:
    """Serve until SIGTERM or SIGINT. Returns the exit code; what prevents a start is one sentence on standard
    error.
    """
    logs.configure(options.log_level)
    try:
        return _run(_serve(options, os.environ if environ is None else environ))
    except TutumError as error:
        print(f"pulumi-tutum: {error}", file=sys.stderr)
        return 2


def _run(main: object) -> int:
    """Run on uvloop where it is installed."""
    try:
        import uvloop
    except ImportError:
        loop = asyncio.new_event_loop()
    else:
        loop = uvloop.new_event_loop()
    asyncio.set_event_loop(loop)
    try:
        return loop.run_until_complete(main)  # type: ignore[arg-type]
    finally:
        loop.run_until_complete(loop.shutdown_asyncgens())
        loop.close()


async def _serve(options: ServeOptions, environ: Mapping[str, str]) -> int:
    public = not _is_loopback(options.host)
    tls = _check_tls(options)
    if public and tls is None and not options.insecure:
        raise ConfigError(
            f"{options.host} can be reached by other machines: give --tls-cert and --tls-key, or --insecure."
        )
    listener = _listen(options.host, options.port)
    with contextlib.closing(listener):
        url = f"{'https' if tls else 'http'}://{_bracketed(options.host)}:{listener.getsockname()[1]}"
        # The store comes first: it locks the data folder, in which the credentials are kept too.
        store = SqliteStore(options.data) if options.data is not None else MemoryStore()
        opened = open_authority(environ, options.data, may_make=not public)
        control = _control_plane(options, opened.authority, store, url)
        await control.open()
        listeners = [listener, *_reach_containers(control, options, url)]
        try:
            if opened.made_apikey is not None:
                _say(f"TUTUM_USER={opened.authority.user}", f"TUTUM_APIKEY={opened.made_apikey}")
            limits.LimitedHttp.most = limits.raise_descriptor_limit()
            config = uvicorn.Config(
                create_app(control, opened.authority),
                host=options.host,
                ssl_certfile=options.tls_cert,
                ssl_keyfile=options.tls_key,
                **limits.uvicorn_settings(),
            )
            await _Server(config, url, options).serve(listeners)
        finally:
            for extra in listeners[1:]:
                extra.close()
            await control.close()
    log.info("stopped")
    return 0


class _Server(uvicorn.Server):
    """uvicorn, with an end by signal that is no failure, and the one line that says where it listens."""

    def __init__(self, config: uvicorn.Config, url: str, options: ServeOptions) -> None:
        super().__init__(config)
        self._url = url
        self._options = options

    def capture_signals(self) -> contextlib.AbstractContextManager[None]:  # type: ignore[override]
        # uvicorn's own raises the signal again when it is done, and the process would die of it.
        return contextlib.nullcontext()

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        loop = asyncio.get_running_loop()
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, self._stop)
        await super().startup(sockets)
        if self.started:
            log.info(
                "started",
                extra={"version": __version__, "backend": self._options.backend, "address": self._url},
            )
            _say(f"listening on {self._url}")

    def _stop(self) -> None:
        self.force_exit = self.should_exit
        self.should_exit = True


def _say(*lines: str) -> None:
    """Standard output, which whoever started us may have closed."""
    with contextlib.suppress(OSError):
        print(*lines, sep="\n", flush=True)


def _is_loopback(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def _bracketed(host: str) -> str:
    return f"[{host}]" if ":" in host else host


def _check_tls(options: ServeOptions) -> ssl.SSLContext | None:
    """The TLS settings, tried out before anything else is started. None: no TLS."""
    if options.tls_cert is None and options.tls_key is None:
        return None
    if options.tls_cert is None or options.tls_key is None:
        raise ConfigError("--tls-cert and --tls-key go together.")
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    try:
        context.load_cert_chain(options.tls_cert, options.tls_key)
    except (OSError, ssl.SSLError) as error:
        reason = getattr(error, "strerror", None) or getattr(error, "reason", None) or "not usable"
        raise ConfigError(f"The certificate or its key cannot be used: {reason}.") from None
    return context


def _listen(host: str, port: int) -> socket.socket:
    if not 0 <= port <= 65535:
        raise ConfigError(f"Cannot listen on port {port}: ports are 0 to 65535.")
    try:
        family, kind, protocol, _, address = socket.getaddrinfo(
            host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
        )[0]
    except OSError as error:
        raise ConfigError(f"{host} is not an address of this machine: {error.strerror}.") from None
    listener = socket.socket(family, kind, protocol)
    try:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind(address)
    except (OSError, OverflowError) as error:
        listener.close()
        reason = getattr(error, "strerror", None) or str(error)
        raise ConfigError(f"Cannot listen on {_bracketed(host)}:{port}: {reason}.") from None
    return listener


def _reach_containers(control: ControlPlane, options: ServeOptions, url: str) -> list[socket.socket]:
    """See to it that containers with the role `global` reach the API: a loopback address is not theirs.

    Returns:
        what has to be listened on besides.
    """
    address = control.container_address
    loopback = _is_loopback(options.host)
    if options.public_url or not address or not (loopback or _is_any(options.host)):
        return []
    parts = urlsplit(url)
    try:
        extra = [_listen(address, parts.port or 0)] if loopback else []
    except ConfigError as error:
        log.warning("containers cannot reach this API; give --public-url", extra={"error": str(error)})
        return []
    control.reached_at(f"{parts.scheme}://{_bracketed(address)}:{parts.port}")
    return extra


def _is_any(host: str) -> bool:
    with contextlib.suppress(ValueError):
        return ipaddress.ip_address(host).is_unspecified
    return False


_HOST = re.compile(r"[A-Za-z0-9_-]+(\.[A-Za-z0-9_-]+)*|[0-9A-Fa-f:.]*:[0-9A-Fa-f:.]*")


def _control_plane(options: ServeOptions, authority: Authority, store: Store, url: str) -> ControlPlane:
    for option, host in (("--dns-suffix", options.dns_suffix), ("--public-address", options.public_address)):
        # They become part of URIs and of names of services.
        if host and not _HOST.fullmatch(host):
            raise ConfigError(f"{option} {host!r} must be a host's name or address.")
    settings = Settings(
        user=authority.user,
        rest_url=options.public_url.rstrip("/") or url,
        dns_suffix=options.dns_suffix,
        public_address=options.public_address,
        start_timeout=options.start_timeout,
        node_grace=options.node_grace,
        retain_terminated=options.retain_terminated,
        lenient=options.lenient,
    )
    return ControlPlane(settings, store, _backend(options))


def _backend(options: ServeOptions) -> Backend:
    """The backend by its name. Those for real containers need a package that not every server has."""
    if options.backend == "simulated":
        nodes: dict[str, tuple[str, ...]] = {}
        for name, tags in map(_simulated_node, options.node):
            if name in nodes:
                raise ConfigError(f"--node {name!r} is given twice.")
            nodes[name] = tags
        for number in range(1, options.nodes - len(nodes) + 1):
            nodes.setdefault(f"node-{number}", ())
        return SimulatedBackend(nodes, container_start_seconds=options.container_start_seconds)
    try:
        module = importlib.import_module(f".backends.{options.backend}", __package__)
    except ImportError:
        raise ConfigError(
            f"The {options.backend} backend is not installed: pip install 'pulumi-tutum[docker]'."
        ) from None
    backend: Backend = module.open_backend(
        nodes=options.node,
        allow=options.allow,
        publish_address=options.publish_address,
        pull=options.pull,
        stop_seconds=options.stop_seconds,
        ephemeral=options.data is None,
    )
    return backend


def _simulated_node(text: str) -> tuple[str, tuple[str, ...]]:
    """`NAME=tag,tag` (or `NAME`) as name and tags."""
    name, _, tags = text.partition("=")
    if not name.strip():
        raise ConfigError(f"--node {text!r} must be NAME or NAME=tag,tag.")
    found = tuple(tag.strip() for tag in tags.split(",") if tag.strip())
    for problem in schema.ATTRIBUTES["tags"].kind.problems(found, "tags", True):
        raise ConfigError(f"--node {text!r}: {problem}.")
    return name.strip(), found
