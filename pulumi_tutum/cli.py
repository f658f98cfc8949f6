"""The `pulumi-tutum` command: parsing and printing only.

Services are named by name, uuid, or the beginning of a uuid. Credentials and addresses come from where
config.py finds them.

Exit codes:
    0    done
    1    failed: the API refused it, a service did not get where it should, a stream broke
    2    wrong usage, or credentials or an address are missing or wrong
    3    no such service (container, node), or the name fits several
    4    the control plane cannot be reached
    130  interrupted (Ctrl-C)
"""

from __future__ import annotations

import codecs
import contextlib
import errno
import io
import json
import math
import os
import shlex
import sys
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, TextIO

try:
    import click
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text
except ImportError:
    raise SystemExit(
        "pulumi-tutum: the command needs the extra `server`: pip install 'pulumi-tutum[server]'"
    ) from None

from . import __version__, lifecycle, schema, stream
from .client import Client
from .errors import (
    ApiError,
    AuthError,
    BadRequest,
    Cancelled,
    ConfigError,
    Conflict,
    Gone,
    NotFound,
    TransportError,
    TutumError,
    UnexpectedState,
    WaitError,
    WaitTimeout,
)
from .waiting import Waiter, explain_containers

__all__ = ["main"]

FAILED, USAGE, UNKNOWN, UNREACHABLE, INTERRUPTED = 1, 2, 3, 4, 130
MASK = "[secret]"


class _Commands(click.Group):
    """A group whose commands end with one line and the right exit code, whatever happens."""

    def invoke(self, ctx: click.Context) -> Any:
        try:
            return super().invoke(ctx)
        except (KeyboardInterrupt, Cancelled):
            ctx.exit(INTERRUPTED)
        except TutumError as error:
            _tell(error)
            ctx.exit(_exit_code(error))
        except OSError as error:
            if error.errno == errno.EPIPE:
                raise  # click's own: it ends without a word
            click.echo(f"pulumi-tutum: cannot write the output: {error.strerror}", err=True)
            # Else Python tries once more at its end, and complains.
            with contextlib.suppress(OSError, ValueError), open(os.devnull, "wb") as nowhere:
                os.dup2(nowhere.fileno(), sys.stdout.fileno())
            ctx.exit(FAILED)


def _tell(error: TutumError, about: str = "") -> None:
    # Which request it was is of no interest here.
    text = error.message if isinstance(error, ApiError) else str(error)
    click.echo(f"pulumi-tutum: {about}{text}", err=True)
    for line in error.reasons if isinstance(error, WaitError) else ():
        click.echo(line, err=True)


def _exit_code(error: TutumError) -> int:
    if isinstance(error, ConfigError):
        return USAGE
    if isinstance(error, NotFound):
        return UNKNOWN
    # An ambiguous name is a Conflict that no request has caused.
    if isinstance(error, Conflict) and not error.method:
        return UNKNOWN
    return UNREACHABLE if isinstance(error, TransportError) and not error.sent else FAILED


class _Seconds(click.FloatRange):
    """A finite number of seconds. (For click, NaN is in every range: it is neither below nor above one.)"""

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> float:
        seconds = float(super().convert(value, param, ctx))
        if not math.isfinite(seconds):
            self.fail(f"{value!r} is not a number of seconds.", param, ctx)
        return seconds


@click.group(cls=_Commands, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(__version__, prog_name="pulumi-tutum")
@click.option(
    "--rest-host", metavar="URL", help="The control plane (default: TUTUM_REST_HOST, http://127.0.0.1:8280)."
)
@click.pass_context
def main(ctx: click.Context, rest_host: str | None) -> None:
    """Tutum services: run a control plane, look at what it runs, and act on it."""
    for output in (sys.stdout, sys.stderr):
        # Logs may have characters that the terminal's encoding has not.
        if isinstance(output, io.TextIOWrapper):
            output.reconfigure(errors="backslashreplace")
    ctx.obj = {"rest_host": rest_host}


def _client(ctx: click.Context) -> Client:
    return Client(rest_host=ctx.obj["rest_host"], user_agent="pulumi-tutum-cli")


_json_option = click.option("--json", "as_json", is_flag=True, help="Print JSON.")
_secrets_option = click.option(
    "--show-secrets", is_flag=True, help="Show the values of environment and link variables."
)


# -- serve -----------------------------------------------------------------------------------------


def _listed(_: click.Context, __: click.Parameter, values: tuple[str, ...]) -> tuple[str, ...]:
    """Values given with commas, repeated, or both."""
    return tuple(item.strip() for value in values for item in value.split(",") if item.strip())


@main.command()
@click.option("--host", default="127.0.0.1", show_default=True, help="Address to listen on.")
@click.option("--port", default=8280, show_default=True, type=click.IntRange(0, 65535), help="0: a free one.")
@click.option(
    "--backend",
    default="simulated",
    show_default=True,
    type=click.Choice(["simulated", "docker", "swarm"]),
    help="What carries the containers.",
)
@click.option(
    "--data", type=click.Path(path_type=Path, file_okay=False), help="Folder that keeps everything."
)
@click.option("--nodes", default=3, show_default=True, type=click.IntRange(0), help="Simulated nodes.")
@click.option(
    "--node",
    multiple=True,
    metavar="NODE",
    help="A node; repeat. Simulated: NAME=tag,tag. Docker: [NAME=]URL[,tag,...], with a URL like "
    "unix:///var/run/docker.sock, tcp://host:2376 or ssh://user@host (default: DOCKER_HOST, else the "
    "local engine).",
)
@click.option(
    "--container-start-seconds",
    default=0.2,
    show_default=True,
    type=_Seconds(0),
    help="How long a simulated container takes to start.",
)
@click.option("--lenient", is_flag=True, help="Take a redeploy of a service that never ran as a start.")
@click.option(
    "--start-timeout",
    default=120.0,
    show_default=True,
    type=_Seconds(0, min_open=True),
    help="Seconds after which an action that gets nowhere has failed.",
)
@click.option(
    "--node-grace",
    default=20.0,
    show_default=True,
    type=_Seconds(0),
    help="Seconds for which a node may not answer before its containers are placed anew.",
)
@click.option(
    "--retain-terminated",
    default=3600.0,
    show_default=True,
    type=_Seconds(0),
    help="Seconds for which terminated services can be seen.",
)
@click.option("--dns-suffix", help="What public_dns names end in.")
@click.option("--public-address", default="", help="Where published ports answer (default: 127.0.0.1).")
@click.option(
    "--publish-address",
    default="127.0.0.1",
    show_default=True,
    help="The address of the nodes at which real containers publish their ports.",
)
@click.option(
    "--public-url",
    default="",
    help="Where containers reach this API (default: found out on the local engine).",
)
@click.option(
    "--pull",
    default="missing",
    show_default=True,
    type=click.Choice(["missing", "always", "never"]),
    help="When real images are pulled.",
)
@click.option(
    "--stop-seconds",
    default=10,
    show_default=True,
    type=click.IntRange(0, 3600),
    help="How long a real container may take to stop before it is killed.",
)
@click.option(
    "--tls-cert",
    type=click.Path(path_type=Path, exists=True, dir_okay=False),
    help="Certificate (PEM, with its chain) for https and wss.",
)
@click.option(
    "--tls-key", type=click.Path(path_type=Path, exists=True, dir_okay=False), help="Its private key (PEM)."
)
@click.option("--insecure", is_flag=True, help="Serve a public address without TLS.")
@click.option(
    "--allow",
    multiple=True,
    callback=_listed,
    metavar="WHAT,...",
    help="What services may ask of their machine: privileged, host-path[=/folder], host-network, host-pid.",
)
@click.option(
    "--log-level",
    default="info",
    show_default=True,
    type=click.Choice(["debug", "info", "warning", "error"]),
    help="What is logged.",
)
@click.pass_context
def serve(ctx: click.Context, /, **options: Any) -> None:
    """Run a control plane."""
    try:
        from .server.app import ServeOptions
        from .server.app import serve as run
    except ImportError as error:
        # One of our own modules is no missing extra.
        if error.name is None or error.name.partition(".")[0] == "pulumi_tutum":
            raise
        raise ConfigError(
            f"the control plane needs {error.name}, of the extra `server`: pip install 'pulumi-tutum[server]'"
        ) from None
    ctx.exit(run(ServeOptions(**options)))


# -- looking ---------------------------------------------------------------------------------------


@main.command()
@click.option("-a", "--all", "everything", is_flag=True, help="Terminated ones, too.")
@click.option("--state", type=click.Choice(list(lifecycle.STATES)), help="Only services in this state.")
@_json_option
@click.pass_context
def ps(ctx: click.Context, everything: bool, state: str | None, as_json: bool) -> None:
    """List services."""
    with _client(ctx) as client:
        services = [
            service
            for service in client.list_services(state=state)
            if everything or state or service.get("state") != lifecycle.TERMINATED
        ]
        if as_json:
            _print_json(services)
            return
        partly = [service for service in services if service.get("state") == lifecycle.PARTLY_RUNNING]
        remarks = [line for service in partly for line in explain_containers(client, service)]
    _table(
        ("NAME", "UUID", "STATE", "CONTAINERS", "IMAGE", "DEPLOYED", "PUBLIC DNS"),
        (
            (
                service.get("name"),
                str(service.get("uuid"))[:8],
                # A star: the containers are not those of the current definition.
                f"{service.get('state')}{'' if service.get('synchronized', True) else ' *'}",
                _count(service),
                service.get("image_name"),
                service.get("deployed_datetime"),
                service.get("public_dns"),
            )
            for service in services
        ),
        spare=("PUBLIC DNS", "DEPLOYED"),
    )
    for remark in remarks:
        click.echo(remark)


@main.command()
@click.argument("services", nargs=-1, required=True, metavar="SERVICE...")
@_json_option
@_secrets_option
@click.pass_context
def inspect(ctx: click.Context, services: tuple[str, ...], as_json: bool, show_secrets: bool) -> None:
    """Show everything about services."""
    with _client(ctx) as client:
        found = [_service(client, name) for name in services]
    shown = [service if show_secrets else _without_secrets(service) for service in found]
    if as_json:
        _print_json(shown[0] if len(shown) == 1 else shown)
        return
    for number, service in enumerate(shown):
        if number:
            click.echo()
        rows = [(name, _text(value)) for name, value in sorted(service.items())]
        _table(("ATTRIBUTE", "VALUE"), rows)


@main.command()
@click.argument("service")
@click.option("-f", "--follow", is_flag=True, help="Go on with new lines.")
@click.option("--tail", default=300, show_default=True, type=click.IntRange(0), help="Lines to begin with.")
@_json_option
@click.pass_context
def logs(ctx: click.Context, service: str, follow: bool, tail: int, as_json: bool) -> None:
    """Show the logs of a service's containers."""
    with _client(ctx) as client:
        found = _service(client, service)
        frames = stream.logs(
            client.settings, found["uuid"], tail=tail, follow=follow, user_agent=client.user_agent
        )
        for frame in frames:
            if as_json:
                click.echo(json.dumps(frame))
            elif frame.get("type") == "log":
                text = str(frame.get("log", "")).rstrip("\r\n")
                for line in text.split("\n"):
                    click.echo(f"{frame.get('source') or found['name']} | {line}")


# What stands behind the container is the command's own, options too.
@main.command("exec", context_settings={"allow_interspersed_args": False})
@click.argument("target", metavar="SERVICE|CONTAINER")
@click.argument("command", nargs=-1, type=click.UNPROCESSED)
@click.option("-i", "--interactive", is_flag=True, help="Send standard input, line by line.")
@click.option("-t", "--tty", is_flag=True, help="Give the command a terminal: for a shell.")
@click.pass_context
def exec_command(
    ctx: click.Context, target: str, command: tuple[str, ...], interactive: bool, tty: bool
) -> None:
    """Run a command (default: sh) in a container; of a service, in its first one that runs.

    Ends with the command's exit code, where the control plane tells it.
    """
    with _client(ctx) as client:
        uuid = _container(client, target)
        # Some write `exec web -- ls`.
        command = command[1:] if command[:1] == ("--",) else command
        line = shlex.join(command) if command else "sh"
        with (
            stream.exec_command(
                client.settings, uuid, line, tty=tty, user_agent=client.user_agent
            ) as connection,
            _keys() if tty else contextlib.nullcontext(),
        ):
            if interactive or tty or not command:
                threading.Thread(target=_send_input, args=(connection, tty), daemon=True).start()
            for frame in connection.frames():
                _print_output(frame)
            ctx.exit(connection.exit_code or 0)


@contextlib.contextmanager
def _keys() -> Iterator[None]:
    """Meanwhile this terminal, if it is one, hands on each key as it is pressed: the other one shows it."""
    if not _is_terminal(sys.stdin):
        yield
        return
    try:
        import termios
        import tty
    except ImportError:
        raise click.UsageError("--tty does not work on this operating system") from None
    before = termios.tcgetattr(sys.stdin)
    try:
        tty.setraw(sys.stdin)
        yield
    finally:
        termios.tcsetattr(sys.stdin, termios.TCSADRAIN, before)


def _pressed() -> Iterator[str]:
    decode = codecs.getincrementaldecoder("utf-8")("replace").decode
    while data := os.read(sys.stdin.fileno(), 4096):
        yield decode(data)


def _send_input(connection: stream.Connection, tty: bool) -> None:
    try:
        for text in _pressed() if tty else sys.stdin:
            connection.send(text)
        # What a terminal sends at the end of its input.
        connection.send("\x04")
    except (TutumError, ValueError, OSError):
        # The command has ended first.
        pass


def _print_output(frame: str) -> None:
    try:
        message = json.loads(frame)
    except ValueError:
        message = None
    if not isinstance(message, dict):
        click.echo(frame, nl=False)
    elif message.get("type") == "error":
        data = message.get("data")
        text = data.get("errorMessage") if isinstance(data, dict) else None
        if text == "UNAUTHORIZED":
            raise AuthError("the stream refused the credentials")
        raise TutumError(f"the command could not be run: {text}")
    elif isinstance(message.get("output"), str):
        click.echo(message["output"], nl=False, err=message.get("streamType") == "stderr")


# -- acting ----------------------------------------------------------------------------------------


def _action_options(command: Callable[..., None]) -> Callable[..., None]:
    for option in (
        _json_option,
        click.option("--timeout", type=_Seconds(0, min_open=True), help="Seconds to wait (default: 600)."),
        click.option("--wait/--no-wait", default=True, show_default=True, help="Wait until it is done."),
    ):
        command = option(command)
    return command


def _act(
    ctx: click.Context,
    names: Sequence[str],
    action: str,
    request: Callable[[Client, str], dict[str, Any]],
    wait: bool,
    timeout: float | None,
    as_json: bool,
) -> None:
    """Asks for the action on all services, then waits for all, and prints them.

    A name that fits none ends it before anything is asked for. A service that refuses, or does not get there,
    keeps no other one from it.
    """
    failures: list[TutumError] = []

    def each(step: Callable[[dict[str, Any]], dict[str, Any]]) -> Iterator[dict[str, Any]]:
        for service in services:
            try:
                yield step(service)
            except (BadRequest, NotFound, UnexpectedState, Gone, WaitTimeout) as error:
                failures.append(error)
                # The API does not say which service it speaks of.
                unnamed = len(names) > 1 and isinstance(error, ApiError)
                _tell(error, f"{service['name']}: " if unnamed else "")

    with _client(ctx) as client:
        services = [_service(client, name) for name in names]
        services = list(each(lambda service: request(client, service["uuid"])))
        if wait:
            deadline = time.monotonic() + (client.settings.timeout_seconds if timeout is None else timeout)
            with Waiter(client) as waiter:
                services = list(each(lambda service: _settle(waiter, service, action, deadline)))
    if as_json:
        shown = [_without_secrets(service) for service in services]
        if len(names) > 1:
            _print_json(shown)
        elif shown:
            _print_json(shown[0])
    else:
        for service in services:
            click.echo(f"{service['name']}: {service['state']}")
    if failures:
        ctx.exit(_exit_code(failures[0]))


def _settle(waiter: Waiter, service: Mapping[str, Any], action: str, deadline: float) -> dict[str, Any]:
    row = lifecycle.ACTIONS[action]
    # An action that changed no state only stored something.
    targets = row.targets | ({service["state"]} if service["state"] in row.store_only else set())

    def verdict(now: Mapping[str, Any]) -> bool | None:
        if now["state"] in targets:
            return True
        return False if now["state"] in lifecycle.STABLE else None

    def progress(text: str) -> None:
        if _is_terminal(sys.stderr):
            click.echo(f"{service['name']}: {text}", err=True)

    return waiter.wait(
        service["uuid"],
        verdict=verdict,
        deadline=deadline,
        progress=progress,
        service=service,
        wanted=" or ".join(state for state in lifecycle.STATES if state in targets),
        action=getattr(service, "action_uri", ""),
    )


def _several(function: Callable[..., None]) -> Callable[..., None]:
    return click.argument("services", nargs=-1, required=True, metavar="SERVICE...")(function)


@main.command()
@_several
@_action_options
@click.pass_context
def start(
    ctx: click.Context, services: tuple[str, ...], wait: bool, timeout: float | None, as_json: bool
) -> None:
    """Start the containers of services."""
    _act(ctx, services, "start", Client.start_service, wait, timeout, as_json)


@main.command()
@_several
@_action_options
@click.pass_context
def stop(
    ctx: click.Context, services: tuple[str, ...], wait: bool, timeout: float | None, as_json: bool
) -> None:
    """Stop the containers of services."""
    _act(ctx, services, "stop", Client.stop_service, wait, timeout, as_json)


@main.command()
@_several
@click.option(
    "--reuse-volumes/--new-volumes", default=None, help="Keep the containers' volumes (the default)."
)
@_action_options
@click.pass_context
def redeploy(
    ctx: click.Context,
    services: tuple[str, ...],
    reuse_volumes: bool | None,
    wait: bool,
    timeout: float | None,
    as_json: bool,
) -> None:
    """Replace the containers of services by new ones, with the current definition."""

    def request(client: Client, uuid: str) -> dict[str, Any]:
        return client.redeploy_service(uuid, reuse_volumes=reuse_volumes)

    _act(ctx, services, "redeploy", request, wait, timeout, as_json)


@main.command()
@click.argument("service")
@click.argument("number", type=click.IntRange(0, schema.MAX_CONTAINERS))
@_action_options
@click.pass_context
def scale(
    ctx: click.Context, service: str, number: int, wait: bool, timeout: float | None, as_json: bool
) -> None:
    """Set how many containers a service has."""

    def request(client: Client, uuid: str) -> dict[str, Any]:
        client.update_service(uuid, {"target_num_containers": number})
        return client.scale_service(uuid)

    _act(ctx, [service], "scale", request, wait, timeout, as_json)


@main.command()
@_several
@_action_options
@click.pass_context
def terminate(
    ctx: click.Context, services: tuple[str, ...], wait: bool, timeout: float | None, as_json: bool
) -> None:
    """Terminate services and their containers. Their data is lost."""
    _act(ctx, services, "terminate", Client.terminate_service, wait, timeout, as_json)


# -- nodes -----------------------------------------------------------------------------------------


@main.group(invoke_without_command=True)
@_json_option
@click.pass_context
def nodes(ctx: click.Context, as_json: bool) -> None:
    """List nodes and set their tags."""
    ctx.default_map = {name: {"as_json": as_json} for name in nodes.commands}
    if ctx.invoked_subcommand is None:
        ctx.invoke(list_nodes, as_json=as_json)


@nodes.command("list")
@_json_option
@click.pass_context
def list_nodes(ctx: click.Context, as_json: bool) -> None:
    """List nodes."""
    with _client(ctx) as client:
        found = list(client.list_nodes())
    if as_json:
        _print_json(found)
        return
    _table(
        ("NAME", "UUID", "STATE", "CONTAINERS", "TAGS"),
        (
            (
                _node_name(node),
                str(node.get("uuid"))[:8],
                node.get("state"),
                node.get("current_num_containers"),
                ", ".join(_tags(node)),
            )
            for node in found
        ),
    )


@nodes.command("tag")
@click.argument("node")
@click.argument("tags", nargs=-1)
@click.option("--add", is_flag=True, help="Keep the tags that it has.")
@_json_option
@click.pass_context
def tag_node(ctx: click.Context, node: str, tags: tuple[str, ...], add: bool, as_json: bool) -> None:
    """Set the tags of a node (none: remove them all)."""
    with _client(ctx) as client:
        found = _one(node, list(client.list_nodes()), "node", _node_names)
        wanted = [*_tags(client.get_node(found["uuid"])), *tags] if add else list(tags)
        changed = client.set_node_tags(found["uuid"], list(dict.fromkeys(wanted)))
    if as_json:
        _print_json(changed)
    else:
        click.echo(f"{_node_name(changed)}: {', '.join(_tags(changed)) or 'no tags'}")


def _node_names(node: Mapping[str, Any]) -> list[Any]:
    return [node.get("nickname"), node.get("external_fqdn"), node.get("name")]


def _node_name(node: Mapping[str, Any]) -> str:
    return next((str(name) for name in _node_names(node) if name), str(node.get("uuid")))


def _tags(node: Mapping[str, Any]) -> list[str]:
    return [str(tag.get("name")) if isinstance(tag, Mapping) else str(tag) for tag in node.get("tags") or ()]


# -- names -----------------------------------------------------------------------------------------


def _service(client: Client, reference: str) -> dict[str, Any]:
    """The service's detail object. A name wins over the beginning of a uuid."""
    if schema.service_uuid(reference):
        return client.get_service(reference)
    living = [s for s in client.list_services() if s.get("state") not in lifecycle.ENDING]
    return client.get_service(_one(reference, living, "service", lambda s: [s.get("name")])["uuid"])


def _container(client: Client, reference: str) -> str:
    """The uuid of a container, given by its own name or (the beginning of its) uuid, or by its service's."""
    containers = [c for c in client.list_containers() if c.get("state") not in lifecycle.ENDING]
    try:
        return str(_one(reference, containers, "container", lambda c: [c.get("name")])["uuid"])
    except NotFound:
        pass
    service = _service(client, reference)
    for container in client.list_containers(service["uuid"]):
        if container.get("state") == lifecycle.RUNNING:
            return str(container["uuid"])
    raise NotFound(f"no container of {service['name']!r} is running")


def _one(
    reference: str,
    candidates: Sequence[dict[str, Any]],
    kind: str,
    names: Callable[[dict[str, Any]], Sequence[Any]],
) -> dict[str, Any]:
    found = [c for c in candidates if reference in names(c)]
    if not found and reference:
        found = [c for c in candidates if str(c.get("uuid", "")).startswith(reference.lower())]
    if not found:
        raise NotFound(f"no {kind} is named {reference!r}, and the uuid of none begins so")
    if len(found) > 1:
        uuids = ", ".join(str(c["uuid"]) for c in found)
        raise Conflict(f"{reference!r} fits {len(found)} {kind}s: {uuids}; say which by its uuid")
    return found[0]


# -- printing --------------------------------------------------------------------------------------


def _without_secrets(service: Mapping[str, Any]) -> dict[str, Any]:
    """The service with the values of its secret attributes replaced."""
    hidden = {a.name for a in schema.ATTRIBUTES.values() if a.secret} | {"calculated_envvars"}
    return {name: _masked(value) if name in hidden else value for name, value in service.items()}


def _masked(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {name: MASK for name in value}
    if isinstance(value, list):
        return [{**entry, "value": MASK} if isinstance(entry, Mapping) else MASK for entry in value]
    return value


def _count(service: Mapping[str, Any]) -> str:
    running, target = service.get("running_num_containers"), service.get("target_num_containers")
    return f"{running}/{service.get('current_num_containers') if target is None else target}"


def _text(value: Any) -> str:
    """One line per entry of a list of objects, and per variable of an environment."""
    if isinstance(value, list) and value and all(isinstance(item, Mapping) for item in value):
        return "\n".join(
            f"{item['key']}={item.get('value')}" if "key" in item else json.dumps(item) for item in value
        )
    if isinstance(value, Mapping):
        return "\n".join(f"{name}={item}" for name, item in value.items())
    return value if isinstance(value, str) else json.dumps(value)


def _is_terminal(output: TextIO | None) -> bool:
    # None: it was closed by whoever started us.
    return output is not None and output.isatty()


def _print_json(value: Any) -> None:
    click.echo(json.dumps(value, indent=2, sort_keys=True))


def _table(headings: Sequence[str], rows: Iterable[Sequence[Any]], spare: Sequence[str] = ()) -> None:
    """Prints a table.

    Args:
        spare: headings of columns that a narrow terminal does without, the first one first.
    """
    # In a pipe nothing is cut: rich would assume 80 columns.
    console = Console(width=None if _is_terminal(sys.stdout) else 100_000, highlight=False)
    cells = [["-" if value is None or value == "" else str(value) for value in row] for row in rows]
    columns = {heading: [row[i] for row in cells] for i, heading in enumerate(headings)}
    for heading in spare:
        widths = [max(map(len, [name, *column])) for name, column in columns.items()]
        if sum(widths) + 2 * len(widths) > console.width:
            del columns[heading]
    table = Table(box=None, pad_edge=False, header_style="bold")
    for heading in columns:
        table.add_column(heading, overflow="fold")
    for row in zip(*columns.values(), strict=True):
        # As Text, so that square brackets in a value are not taken for markup.
        table.add_row(*map(Text, row))
    with console.capture() as captured:
        console.print(table)
    for line in captured.get().splitlines():
        click.echo(line.rstrip())
