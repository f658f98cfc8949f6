"""What the control plane remembers, and the small pure rules over it: names, DNS, ports, dates, revisions.

A record is a plain object with slots. Its values are replaced, never changed in place (`records.Change`
relies on it), and its row in the store is a JSON object without the fields that have their default. A
service's `definition` is the normal form of `schema`, without what equals a default: small, and equal for
equal definitions.
"""

from __future__ import annotations

import dataclasses
import functools
import hashlib
import json
import re
import time
import typing
import uuid as uuids
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any, ClassVar

from .. import schema
from ..lifecycle import NOT_RUNNING
from .backends import (
    EXITED,
    GONE,
    RESTARTING,
    RUNNING,
    WAITING,
    ContainerSpec,
    ImageInfo,
    LinkSpec,
    LogLine,
    Observed,
    PortSpec,
    VolumeSpec,
)

API = "/api/v1"
#: The one region and node type that a backend has.
REGION, NODE_TYPE = "local", "local"

# -- settings


@dataclass(frozen=True)
class Settings:
    """How this control plane is set up.

    Attributes:
        user: the account's name, part of every DNS name.
        rest_url: where the API is reached (`http://127.0.0.1:8280`), for `TUTUM_*_URL` in containers.
        stream_url: the websockets' address; default: `rest_url` as ws or wss.
        dns_suffix: DNS names end with it and endpoints use them; None: names end with `localhost`, endpoints
            use an address.
        public_address: host in endpoints when there is no `dns_suffix`; "": the node's address, else
            127.0.0.1.
        start_timeout: seconds without progress after which a transition is given up.
        retain_terminated: seconds for which terminated objects are still shown.
        lenient: `redeploy` from Not running is taken as `start`.
        port_range: first and last dynamic outer port.
        node_grace: seconds that a node may be unreachable before its containers are placed anew. (Not those
            that the backend moves by itself.)
    """

    user: str = "admin"
    rest_url: str = "http://127.0.0.1:8280"
    stream_url: str = ""
    dns_suffix: str | None = None
    public_address: str = ""
    start_timeout: float = 120.0
    retain_terminated: float = 3600.0
    lenient: bool = False
    port_range: tuple[int, int] = (49153, 65535)
    node_grace: float = 20.0

    @property
    def suffix(self) -> str:
        return self.dns_suffix or "localhost"

    @property
    def stream_host(self) -> str:
        return self.stream_url or re.sub(r"^http", "ws", self.rest_url)


@dataclass(frozen=True)
class RequestInfo:
    """The request behind an action, for its record. `body` is text in which secrets are masked already."""

    method: str = ""
    path: str = ""
    user_agent: str = ""
    ip: str = ""
    body: str = ""


# -- records

_NOT_STORED = {"stored": False}


@dataclass(slots=True, eq=False)
class Service:
    """A service.

    Attributes:
        definition: see the module's docstring; without `name`.
        goal: how many containers the last start, scale or redeploy was to bring (for EVERY_NODE: had
            candidates).
        deployment: grows with each redeploy; containers of an older one are replaced while the state is
            Redeploying.
        fresh: the transition in progress deploys (sets `deployed`), not only starts.
        reuse_volumes, trigger_body: options of the last redeploy.
        finished: places (ordinals, with EVERY_NODE nodes) whose containers the transition in progress has
            deployed, and which autodestroy has removed since: jobs are not run twice.
        action: uuid of the action in progress, or "".
        concluded: uuid of the last action that was carried out, or "".
        queue: uuids of actions that wait until the service settles.
        owed: a node came or went, and containers of the service are missing because of it. The control plane
            tries to start them until they run, or until a user asks for another action.
        key, key_closed: the create key, see "Made once"; run: the run that last got hold of the service with
            it, "" when it has no name.
        token: secret for containers with the role `global`, or "".
        hashed: the definition that `revision` was last worked out for, and its revision. Not stored.
    """

    kind: ClassVar[str] = "service"
    uuid: str
    seq: int
    name: str
    definition: dict[str, Any]
    state: str = NOT_RUNNING
    stack: str = ""
    nickname: str = ""
    deployed: float | None = None
    started: float | None = None
    stopped: float | None = None
    destroyed: float | None = None
    goal: int = 0
    deployment: int = 0
    fresh: bool = False
    reuse_volumes: bool = True
    trigger_body: str = ""
    finished: tuple[int | str, ...] = ()
    action: str = ""
    concluded: str = ""
    queue: tuple[str, ...] = ()
    owed: bool = False
    key: str = ""
    key_closed: bool = False
    run: str = ""
    token: str = ""
    hashed: tuple[dict[str, Any], str] | None = field(default=None, repr=False, metadata=_NOT_STORED)

    def get(self, name: str) -> Any:
        """An attribute's value in normal form, its default when it is not given."""
        value = self.definition.get(name)
        if value is not None:
            return value
        return EXTRAS[name] if name in EXTRAS else schema.INPUTS[name].default

    @property
    def revision(self) -> str:
        """`revision` of its definition. A definition is replaced, never changed in place."""
        if self.hashed is None or self.hashed[0] is not self.definition:
            self.hashed = self.definition, revision(self.definition)
        return self.hashed[1]

    @property
    def monitor_seconds(self) -> int:
        """How long a container has to run before it is up; 0: it is up as soon as it runs."""
        return int(self.get("monitor_seconds") or 0)

    @property
    def every_node(self) -> bool:
        return self.definition.get("deployment_strategy") == schema.EVERY_NODE

    @property
    def target(self) -> int | None:
        """How many containers are asked for; None with EVERY_NODE."""
        return None if self.every_node else int(self.get("target_num_containers"))


#: Attributes that came after the specification; name to default. They reach the containers (`nickname` is for
#: humans).
EXTRAS: dict[str, Any] = {"working_dir": None}


@dataclass(slots=True, eq=False)
class Container:
    """A container.

    Attributes:
        wanted: `running`, `stopped` or `gone` while it is on its way there, else "".
        status: what the backend saw last; "" before it was created.
        ran: it has run since it was last asked to start.
        spec: what it is made of; None until its image is known.
        revision: hash of the definition it is made from.
        deployment: the service's deployment that made it.
        since: when its present run began; a restart by its restart policy begins another run.
        restarted: times of the newest restarts; looping: it is in a crash loop (uptime.py).
        last_exit_code, last_reason: of the newest exit, also while the container runs again.
        failure: why the action in progress, or the last one, did not bring it up; "" otherwise.
        linked: names of environment variables that came from links.
        outer: outer ports that were given out, as (protocol, inner, outer).
        health_detail: why it is not healthy, as the backend says it.
        deployed_by: uuid of the service's action that placed it, or that started it last.
    """

    kind: ClassVar[str] = "container"
    uuid: str
    seq: int
    service: str
    name: str
    ordinal: int
    node: str
    image: str
    deployment: int
    revision: str
    wanted: str = "running"
    status: str = ""
    ran: bool = False
    spec: ContainerSpec | None = None
    image_info: ImageInfo | None = None
    definition: dict[str, Any] = field(default_factory=dict)
    linked: tuple[str, ...] = ()
    outer: tuple[tuple[str, int, int], ...] = ()
    address: str = ""
    backend_id: str = ""
    image_id: str = ""
    exit_code: int | None = None
    reason: str = ""
    healthy: bool | None = None
    health_detail: str = ""
    deployed_by: str = ""
    restarts: int = 0
    restarted: tuple[float, ...] = ()
    looping: bool = False
    since: float | None = None
    last_exit_code: int | None = None
    last_reason: str = ""
    failure: str = ""
    keep_volumes: bool = False
    action: str = ""
    deployed: float | None = None
    started: float | None = None
    stopped: float | None = None
    destroyed: float | None = None

    @property
    def live(self) -> bool:
        return self.status != GONE

    @property
    def runs(self) -> bool:
        """Its engine keeps it alive: it runs, or its restart policy is bringing it back."""
        return self.status in (RUNNING, RESTARTING)

    @property
    def steady(self) -> bool:
        """It runs, and is not in a crash loop."""
        return self.status == RUNNING and not self.looping

    @property
    def waits(self) -> bool:
        """Whether the backend will start it again by itself, as soon as a node can take it."""
        return self.status == WAITING

    @property
    def active(self) -> bool:
        """Whether it runs, or will without being asked."""
        return self.runs or self.waits

    @property
    def state(self) -> str:
        """The API's word: Starting, Running, Stopping, Stopped, Terminating, Terminated."""
        if self.status == GONE:
            return "Terminated"
        if self.wanted == "gone":
            return "Terminating"
        if self.active and self.wanted == "stopped":
            return "Stopping"
        if self.steady:
            return "Running"
        return "Starting" if self.active or self.wanted == "running" else "Stopped"

    def get(self, name: str) -> Any:
        """An attribute of the definition it was made from."""
        value = self.definition.get(name)
        if value is not None:
            return value
        return EXTRAS[name] if name in EXTRAS else schema.INPUTS[name].default

    def observed(self) -> Observed:
        """What is remembered of the last observation."""
        return Observed(
            self.uuid,
            self.status,
            exit_code=self.exit_code,
            reason=self.reason,
            node=self.node,
            healthy=self.healthy,
            backend_id=self.backend_id,
            address=self.address,
            image_id=self.image_id,
            revision=self.revision,
            service_uuid=self.service,
            restarts=self.restarts,
            health_detail=self.health_detail,
        )

    @property
    def unhealthy(self) -> str:
        """`is not healthy`, and why where that is known."""
        return f"is not healthy: {self.health_detail}" if self.health_detail else "is not healthy"


@dataclass(slots=True, eq=False)
class ContainerOutput:
    """The last output of a container that has been removed; its uuid is the container's (kept_output.py).

    Attributes:
        size: bytes of the lines' texts.
    """

    kind: ClassVar[str] = "output"
    uuid: str
    seq: int
    service: str
    lines: tuple[LogLine, ...] = ()
    size: int = 0


@dataclass(slots=True, eq=False)
class Action:
    """What was asked, by whom, and what became of it. `error` is an extension: why it failed."""

    kind: ClassVar[str] = "action"
    uuid: str
    seq: int
    object: str
    action: str
    state: str = "In progress"
    method: str = ""
    path: str = ""
    user_agent: str = ""
    ip: str = ""
    body: str = ""
    start: float = 0.0
    end: float | None = None
    error: str = ""
    is_user_action: bool = True
    verb: str = ""
    options: dict[str, Any] = field(default_factory=dict)


@dataclass(slots=True, eq=False)
class Stack:
    """A set of services under one name. Its state follows from theirs."""

    kind: ClassVar[str] = "stack"
    uuid: str
    seq: int
    name: str
    nickname: str = ""
    state: str = NOT_RUNNING
    terminating: bool = False
    deployed: float | None = None
    destroyed: float | None = None


@dataclass(slots=True, eq=False)
class Node:
    """A node, as last heard of. `backend_tags`: the tags that the backend told last; a change there wins over
    ours. `open`: it takes new containers. `given_up`: it has not answered for `node_grace`.
    """

    kind: ClassVar[str] = "node"
    uuid: str
    seq: int
    name: str
    cluster: str
    state: str = "Deployed"
    nickname: str = ""
    tags: tuple[str, ...] = ()
    backend_tags: tuple[str, ...] = ()
    added: bool = False
    address: str = ""
    docker_version: str = ""
    cpu: int = 1
    memory: int = 0
    disk: int = 0
    last_seen: float | None = None
    deployed: float | None = None
    destroyed: float | None = None
    open: bool = True
    given_up: bool = False


@dataclass(slots=True, eq=False)
class NodeCluster:
    """Nodes that were asked for together. Clusters other than the backend's own exist only in a simulated
    world.
    """

    kind: ClassVar[str] = "nodecluster"
    uuid: str
    seq: int
    name: str
    state: str = "Init"
    node_type: str = ""
    region: str = ""
    disk: int = 60
    target: int = 1
    tags: tuple[str, ...] = ()
    deployed: float | None = None
    destroyed: float | None = None


@dataclass(slots=True, eq=False)
class Volume:
    """A named volume (its name on the backend is its uuid) of one container of a service."""

    kind: ClassVar[str] = "volume"
    uuid: str
    seq: int
    group: str
    service: str
    ordinal: int
    path: str
    node: str
    state: str = "Created"
    destroyed: float | None = None


@dataclass(slots=True, eq=False)
class VolumeGroup:
    """The volumes of all containers of a service at one path."""

    kind: ClassVar[str] = "volumegroup"
    uuid: str
    seq: int
    name: str
    service: str
    path: str
    state: str = "Created"
    destroyed: float | None = None


@dataclass(slots=True, eq=False)
class Trigger:
    """A URL that redeploys or scales up a service without credentials: its uuid is the secret."""

    kind: ClassVar[str] = "trigger"
    uuid: str
    seq: int
    service: str
    name: str
    operation: str = "REDEPLOY"


@dataclass(slots=True, eq=False)
class Image:
    """An image that containers were made of; `uuid` is its name with tag."""

    kind: ClassVar[str] = "image"
    uuid: str
    seq: int
    info: ImageInfo | None = None


Record = (
    Service
    | Container
    | ContainerOutput
    | Action
    | Stack
    | Node
    | NodeCluster
    | Volume
    | VolumeGroup
    | Trigger
    | Image
)
RECORDS: dict[str, type[Record]] = {cls.kind: cls for cls in typing.get_args(Record)}


@functools.cache
def _fields(cls: Any) -> tuple[tuple[str, Any], ...]:
    """Names and defaults (`...` for none) of a record's fields that are stored."""
    found: list[tuple[str, Any]] = []
    for f in dataclasses.fields(cls):
        if f.metadata == _NOT_STORED:
            continue
        default = f.default
        if f.default_factory is not dataclasses.MISSING:
            default = f.default_factory()
        found.append((f.name, ... if default is dataclasses.MISSING else default))
    return tuple(found)


def to_row(record: Record) -> dict[str, Any]:
    """The JSON object that is stored for a record."""
    row: dict[str, Any] = {}
    cls: Any = type(record)
    for name, default in _fields(cls):
        value = getattr(record, name)
        if default is not ... and value == default:
            continue
        row[name] = dataclasses.asdict(value) if isinstance(value, (ContainerSpec, ImageInfo)) else value
    return row


def from_row(kind: str, row: Mapping[str, Any]) -> Record:
    """The record that was stored, perhaps by another patch release: fields that it did not have get their
    default, and those that it had in addition are left out, here and in what the record holds."""
    cls: Any = RECORDS[kind]
    values = _known(cls, row)
    for name in ("queue", "finished", "linked", "tags", "backend_tags", "restarted"):
        if isinstance(values.get(name), list):
            values[name] = tuple(values[name])
    if "lines" in values:
        values["lines"] = tuple(LogLine(*line) for line in values["lines"])
    if "outer" in values:
        values["outer"] = tuple((p, int(i), int(o)) for p, i, o in values["outer"])
    if values.get("spec") is not None:
        values["spec"] = _spec(values["spec"])
    for name in ("info", "image_info"):
        if values.get(name) is not None:
            values[name] = _image_info(values[name])
    record: Record = cls(**values)
    return record


def _known(cls: Any, row: Mapping[str, Any]) -> dict[str, Any]:
    """The part of a stored object that its class knows."""
    return {name: row[name] for name, _ in _fields(cls) if name in row}


def _spec(row: Mapping[str, Any]) -> ContainerSpec:
    values = _known(ContainerSpec, row)
    values["ports"] = tuple(PortSpec(**_known(PortSpec, p)) for p in row.get("ports", ()))
    values["volumes"] = tuple(VolumeSpec(**_known(VolumeSpec, v)) for v in row.get("volumes", ()))
    values["links"] = tuple(
        LinkSpec(
            link["name"], tuple((int(n), str(u)) for n, u in link["containers"]), link.get("service_uuid", "")
        )
        for link in row.get("links", ())
    )
    for name in ("linked_as", "tags"):
        values[name] = tuple(row.get(name, ()))
    return ContainerSpec(**values)


def _image_info(row: Mapping[str, Any]) -> ImageInfo:
    values = _known(ImageInfo, row)
    values["ports"] = tuple((p, int(n)) for p, n in row.get("ports", ()))
    values["volumes"] = tuple(row.get("volumes", ()))
    return ImageInfo(**values)


# -- identities


# The tutum CLI prints the first eight digits of a uuid in a table that takes "3128e042" for a number, and
# shows 3.128e+45.
_READ_AS_NUMBER = re.compile(r"\d+e?\d+")


def new_uuid() -> str:
    """A version-4 uuid: python-tutum takes anything else for a name."""
    while _READ_AS_NUMBER.fullmatch((found := str(uuids.uuid4()))[:8]):
        pass
    return found


def uuid_for(*parts: str) -> str:
    """The same uuid for the same parts, in the form of version 4."""
    digest = bytearray(hashlib.sha256("\0".join(parts).encode()).digest()[:16])
    digest[6] = digest[6] & 0x0F | 0x40
    digest[8] = digest[8] & 0x3F | 0x80
    found = str(uuids.UUID(bytes=bytes(digest)))
    return uuid_for(*parts, "") if _READ_AS_NUMBER.fullmatch(found[:8]) else found


def uri(kind: str, identifier: str) -> str:
    return f"{API}/{kind}/{identifier}/"


#: The parts of Docker Cloud's API, and the kinds of objects in each (tutum-api.md, section 8).
DOCKER_CLOUD_PARTS = {
    "app": ("service", "stack", "container", "trigger"),
    "infra": ("node", "nodecluster", "nodetype", "region", "provider", "az", "token", "tag", "volume"),
    "audit": ("action", "events"),
}
DOCKER_CLOUD_PART_OF = {kind: part for part, kinds in DOCKER_CLOUD_PARTS.items() for kind in kinds}


def docker_cloud_uri(kind: str, identifier: str) -> str:
    """An object's resource URI in Docker Cloud's spelling, without a namespace."""
    return f"/api/{DOCKER_CLOUD_PART_OF[kind]}/v1/{kind}/{identifier}/"


def node_type_uri(backend: str) -> str:
    return f"{API}/nodetype/{backend}/{NODE_TYPE}/"


def region_uri(backend: str) -> str:
    return f"{API}/region/{backend}/{REGION}/"


def uuid_in(reference: str) -> str:
    """The last part of a resource URI, or the text itself."""
    return reference.rstrip("/").rsplit("/", 1)[-1]


def split_image(image: str) -> tuple[str, str]:
    """Repository (with registry) and tag (or digest) of an image that has one of them."""
    if "@" in image:
        repository, _, digest = image.partition("@")
        return repository, digest
    if image.startswith("sha256:"):
        return image, "latest"
    head, _, tail = image.rpartition("/")
    repository, _, tag = tail.partition(":")
    return (f"{head}/{repository}" if head else repository), tag or "latest"


def default_name(image: str) -> str:
    """`tutum.co/acme/api:1.2` -> `api`; what a name may not have becomes `-`."""
    if image.startswith("sha256:"):
        return f"image-{image[7:19]}"
    repository, _ = split_image(image)
    last = split_image(repository.rsplit("/", 1)[-1])[0]
    return re.sub(r"[^A-Za-z0-9_-]", "-", last)[:63].strip("-_") or "service"


# -- DNS, ports, dates


def label(name: str) -> str:
    """A name as a label of the DNS."""
    return name.lower().replace("_", "-")


def service_dns(settings: Settings, name: str, stack: str) -> str:
    return ".".join(filter(None, (label(name), label(stack), label(settings.user), "svc", settings.suffix)))


def container_dns(settings: Settings, name: str, stack: str) -> str:
    return ".".join(filter(None, (label(name), label(stack), label(settings.user), "cont", settings.suffix)))


def node_dns(settings: Settings, uuid: str) -> str:
    return f"{uuid[:8]}-{label(settings.user)}.node.{settings.suffix}"


#: Names of well-known services by inner port (tcp); anything else is "unknown" and its scheme the protocol.
PORT_NAMES = {
    21: "ftp",
    22: "ssh",
    25: "smtp",
    80: "http",
    443: "https",
    3306: "mysql",
    5432: "postgresql",
    6379: "redis",
    27017: "mongodb",
}


def port_name(protocol: str, inner: int) -> str:
    return PORT_NAMES.get(inner, "unknown") if protocol == "tcp" else "unknown"


def scheme(protocol: str, inner: int) -> str:
    name = port_name(protocol, inner)
    return protocol if name == "unknown" else name


_DAYS = ("Mon", "Tue", "Wed", "Thu", "Fri", "Sat", "Sun")
_MONTHS = ("Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec")


def date(seconds: float | None) -> str | None:
    """RFC 2822 as the API writes it: UTC, day of the month without a leading zero, literal `+0000`; or
    null.
    """
    if seconds is None:
        return None
    t = time.gmtime(seconds)
    return (
        f"{_DAYS[t.tm_wday]}, {t.tm_mday} {_MONTHS[t.tm_mon - 1]} {t.tm_year} "
        f"{t.tm_hour:02}:{t.tm_min:02}:{t.tm_sec:02} +0000"
    )


# -- definitions

#: What containers are made from: a change of any of these makes them unsynchronized.
CONTAINER_RELEVANT = tuple(
    name
    for name, a in schema.INPUTS.items()
    if a.change in (schema.REDEPLOY, schema.REPLACE) and name != "name"
)


def tidy(definition: Mapping[str, Any]) -> dict[str, Any]:
    """A definition in normal form without what says nothing: nulls, empty texts, defaults."""
    out: dict[str, Any] = {}
    for name, value in definition.items():
        if value is None or (
            value == ""
            and isinstance(schema.INPUTS[name].kind if name in schema.INPUTS else None, schema.Text)
        ):
            continue
        if name in EXTRAS:
            if value != "":
                out[name] = value
            continue
        if name == "image":
            value = schema.default_tag(value)
        if value != schema.INPUTS[name].default:
            out[name] = value
    return out


def container_definition(definition: Mapping[str, Any]) -> dict[str, Any]:
    """The part of a definition that containers are made from."""
    return {n: definition[n] for n in (*CONTAINER_RELEVANT, *EXTRAS) if n in definition}


def revision(definition: Mapping[str, Any]) -> str:
    """The same text for definitions that make the same containers; order of lists does not count."""
    parts = {n: _sorted(v) for n, v in container_definition(definition).items()}
    return hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()[:16]


def _sorted(value: Any) -> Any:
    return (
        sorted(value, key=lambda item: json.dumps(item, sort_keys=True)) if isinstance(value, list) else value
    )


def wire(definition: Mapping[str, Any], name: str) -> dict[str, Any]:
    """A definition with all its defaults, as the API's bodies carry it."""
    full = schema.normal({**definition, "name": name})
    return schema.body(full)


def exit_message(code: int | None, reason: str, more: str = "") -> str | None:
    """The API's `exit_code_msg`: `Exit code 0 (Success)`, or why a container did not run.

    Args:
        more: what else is to be said of the container.
    """
    if code is None:
        return "; ".join(filter(None, (reason, more))) or None
    words = {0: "Success", 137: "Killed", 139: "Segmentation fault", 143: "Terminated"}
    words |= {125: "Engine error", 126: "Command cannot be executed", 127: "Command not found"}
    text = reason or words.get(code, "General error")
    return f"Exit code {code} ({'; '.join(filter(None, (text, more)))})"


def automatic_tags(backend: str, cluster: str) -> tuple[str, ...]:
    """Tags that every node has by itself: provider, region, node cluster."""
    return (backend, "local", cluster)


def merged_ports(
    definition_ports: Iterable[Mapping[str, Any]], image_ports: Iterable[tuple[str, int]]
) -> list[tuple[str, int, int | None, bool]]:
    """Ports of a container: the user's entries, then the image's that the user did not name.

    Returns:
        (protocol, inner port, fixed outer port or None, published).
    """
    found = [
        (p["protocol"], p["inner_port"], p.get("outer_port"), bool(p.get("published")))
        for p in definition_ports
    ]
    named = {(protocol, inner) for protocol, inner, _, _ in found}
    return found + [
        (protocol, inner, None, False) for protocol, inner in image_ports if (protocol, inner) not in named
    ]


def has_exited(seen: Observed) -> bool:
    """Whether an observation tells of a run that ended."""
    return seen.status == EXITED and seen.exit_code is not None
