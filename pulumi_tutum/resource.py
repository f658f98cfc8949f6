"""The program's side: the `Service` resource, `Provider`, `get_service`, and the types of their inputs and
outputs.

Nothing here asks the control plane, but for `get_service`. The constructor only spells arguments so that
the engine can carry them: `Service` objects become ids, sets lists, and what Pulumi cannot carry a mark
that check refuses with its path. So a wrong argument is a message about that argument, never a traceback.
"""

from __future__ import annotations

import asyncio
import enum
import inspect
import math
import os
import re
import typing
from collections.abc import Awaitable, Collection, Mapping, Sequence
from typing import Any, TypedDict, TypeVar

import pulumi
import pulumi.dynamic

from . import config, desired, host, ignored, lifecycle, outputs, previews, removals, schema
from .client import Client
from .errors import NotFound
from .provider import CONFIG, EXPLICIT, ServiceProvider

__all__ = [
    "Binding",
    "BindingArgs",
    "ContainerPort",
    "ContainerPortArgs",
    "EnvVarArgs",
    "Healthcheck",
    "HealthcheckArgs",
    "Link",
    "LinkArgs",
    "Provider",
    "Service",
    "ServiceDetails",
    "Tag",
    "TagArgs",
    "get_service",
]

_T = TypeVar("_T")

# -- nested inputs: dicts of these shapes ----------------------------------------------------------------


class _ContainerPortRequired(TypedDict):
    protocol: pulumi.Input[str]
    inner_port: pulumi.Input[int]


class ContainerPortArgs(_ContainerPortRequired, total=False):
    """A port of the containers. An `outer_port` implies `published`; without it a published port is
    dynamic."""

    outer_port: pulumi.Input[int]
    published: pulumi.Input[bool]


class EnvVarArgs(TypedDict):
    """An environment variable in the API's spelling; a dict of names and values does as well."""

    key: pulumi.Input[str]
    value: pulumi.Input[str | int | float]


class _LinkRequired(TypedDict):
    to_service: pulumi.Input[ServiceReference]


class LinkArgs(_LinkRequired, total=False):
    """A link. Default name: the resource name of a Service object, else the target's service name."""

    name: pulumi.Input[str]


class BindingArgs(TypedDict, total=False):
    """A volume: `container_path` (with `host_path`, a folder of the node), or `volumes_from` another
    service."""

    host_path: pulumi.Input[str]
    container_path: pulumi.Input[str]
    rewritable: pulumi.Input[bool]
    volumes_from: pulumi.Input[ServiceReference]


class TagArgs(TypedDict):
    """A tag in the API's spelling; the bare name does as well."""

    name: pulumi.Input[str]


class HealthcheckArgs(TypedDict, total=False):
    """How to tell that a container works: either `http` (a path that answers 2xx or 3xx) or `command`; or
    `disabled`, so that not even the image's own HEALTHCHECK is made."""

    http: pulumi.Input[str]
    port: pulumi.Input[int]
    command: pulumi.Input[str]
    interval_seconds: pulumi.Input[int]
    timeout_seconds: pulumi.Input[int]
    retries: pulumi.Input[int]
    start_period_seconds: pulumi.Input[int]
    disabled: pulumi.Input[bool]


# -- nested outputs: dicts whose keys are attributes as well; a key without a value is None --------------


@pulumi.output_type
class ContainerPort(dict[str, Any]):
    protocol: str
    inner_port: int
    outer_port: int | None
    published: bool
    port_name: str | None
    endpoint_uri: str | None


@pulumi.output_type
class Link(dict[str, Any]):
    to_service: str
    name: str | None
    from_service: str | None


@pulumi.output_type
class Binding(dict[str, Any]):
    host_path: str | None
    container_path: str | None
    rewritable: bool
    volumes_from: str | None


@pulumi.output_type
class Tag(dict[str, Any]):
    name: str


@pulumi.output_type
class Healthcheck(dict[str, Any]):
    http: str | None
    port: int | None
    command: str | None
    interval_seconds: int | None
    timeout_seconds: int | None
    retries: int | None
    start_period_seconds: int | None
    disabled: bool | None


# -- Service ---------------------------------------------------------------------------------------------


def _typed_outputs(cls: type[_T]) -> type[_T]:
    """Makes Pulumi properties of a resource's annotations.

    Annotations alone would do, but the SDK resolves those anew for each resource, and not those of a base
    class.
    """

    def read(name: str, hint: Any) -> property:
        may_be_null = type(None) in typing.get_args(typing.get_args(hint)[0])

        def getter(self: Any) -> Any:
            return previews.shown(self, name, self._memory, may_be_null=may_be_null)

        getter.__name__ = name
        getter.__annotations__ = {"return": hint}
        return property(pulumi.getter(name=name)(getter))

    for name, hint in inspect.get_annotations(cls, eval_str=True).items():
        setattr(cls, name, read(name, hint))
    # Left in place, the SDK would compile and resolve them for each resource all the same.
    cls.__annotations__ = {}
    return cls


@_typed_outputs
class Service(pulumi.dynamic.Resource, module="tutum", name="Service"):
    """A Tutum service: a template of containers, and how many of them should run.

    Arguments and outputs have the API's names, and its shapes except for `container_envvars`, which is a dict
    of names and values. The README's tables say what each means, which changes replace the service, and what
    `running`, `wait`, `rollback_on_failure` and `adopt` do. `id` is the service's uuid.
    """

    # Inputs, as they are now.
    image: pulumi.Output[str]
    name: pulumi.Output[str]
    target_num_containers: pulumi.Output[int | None]
    run_command: pulumi.Output[str | None]
    entrypoint: pulumi.Output[str | None]
    container_ports: pulumi.Output[Sequence[ContainerPort]]
    container_envvars: pulumi.Output[Mapping[str, str]]
    linked_to_service: pulumi.Output[Sequence[Link]]
    bindings: pulumi.Output[Sequence[Binding]]
    autorestart: pulumi.Output[str]
    autodestroy: pulumi.Output[str]
    sequential_deployment: pulumi.Output[bool]
    roles: pulumi.Output[Sequence[str]]
    privileged: pulumi.Output[bool]
    deployment_strategy: pulumi.Output[str]
    tags: pulumi.Output[Sequence[Tag]]
    autoredeploy: pulumi.Output[bool]
    network: pulumi.Output[str]
    pid: pulumi.Output[str]
    cpu_shares: pulumi.Output[int | None]
    memory: pulumi.Output[int | None]
    healthcheck: pulumi.Output[Healthcheck | None]
    monitor_seconds: pulumi.Output[int | None]
    running: pulumi.Output[bool]
    wait: pulumi.Output[bool]
    timeout_seconds: pulumi.Output[int | None]
    job: pulumi.Output[bool]
    rollback_on_failure: pulumi.Output[bool]
    adopt: pulumi.Output[str | None]
    # What Tutum sets.
    uuid: pulumi.Output[str]
    resource_uri: pulumi.Output[str]
    image_name: pulumi.Output[str]
    image_tag: pulumi.Output[str | None]
    public_dns: pulumi.Output[str]
    state: pulumi.Output[str]
    synchronized: pulumi.Output[bool]
    deployed_datetime: pulumi.Output[str | None]
    started_datetime: pulumi.Output[str | None]
    stopped_datetime: pulumi.Output[str | None]
    destroyed_datetime: pulumi.Output[str | None]
    current_num_containers: pulumi.Output[int]
    running_num_containers: pulumi.Output[int]
    stopped_num_containers: pulumi.Output[int]
    stack: pulumi.Output[str | None]
    containers: pulumi.Output[Sequence[str]]
    linked_from_service: pulumi.Output[Sequence[Link]]
    link_variables: pulumi.Output[Mapping[str, str]]
    # Where it can be reached now: see `outputs.endpoint_uris`.
    endpoint_uris: pulumi.Output[Sequence[str]]

    def __init_subclass__(cls, module: str = "tutum", name: str = "Service", **kwargs: Any) -> None:
        # A program's subclass stays the same kind of resource.
        super().__init_subclass__(module=module, name=name, **kwargs)

    def __init__(
        self,
        resource_name: str,
        opts: pulumi.ResourceOptions | None = None,
        *,
        image: pulumi.Input[str],
        name: pulumi.Input[str] | None = None,
        target_num_containers: pulumi.Input[int] | None = None,
        run_command: pulumi.Input[str] | None = None,
        entrypoint: pulumi.Input[str] | None = None,
        container_ports: pulumi.Input[Sequence[pulumi.Input[ContainerPortArgs | ContainerPort]]]
        | None = None,
        container_envvars: pulumi.Input[Mapping[str, pulumi.Input[str | int | float]]]
        | pulumi.Input[Sequence[pulumi.Input[EnvVarArgs]]]
        | None = None,
        linked_to_service: pulumi.Input[Sequence[pulumi.Input[LinkArgs | Link | ServiceReference]]]
        | None = None,
        bindings: pulumi.Input[Sequence[pulumi.Input[BindingArgs | Binding]]] | None = None,
        autorestart: pulumi.Input[str] | None = None,
        autodestroy: pulumi.Input[str] | None = None,
        sequential_deployment: pulumi.Input[bool] | None = None,
        roles: pulumi.Input[Sequence[pulumi.Input[str]]] | None = None,
        privileged: pulumi.Input[bool] | None = None,
        deployment_strategy: pulumi.Input[str] | None = None,
        tags: pulumi.Input[Sequence[pulumi.Input[str | TagArgs | Tag]]] | None = None,
        autoredeploy: pulumi.Input[bool] | None = None,
        network: pulumi.Input[str] | None = None,
        pid: pulumi.Input[str] | None = None,
        cpu_shares: pulumi.Input[int] | None = None,
        memory: pulumi.Input[int] | None = None,
        healthcheck: pulumi.Input[HealthcheckArgs | Healthcheck] | None = None,
        monitor_seconds: pulumi.Input[int] | None = None,
        running: pulumi.Input[bool] | None = None,
        wait: pulumi.Input[bool] | None = None,
        timeout_seconds: pulumi.Input[int] | None = None,
        job: pulumi.Input[bool] | None = None,
        rollback_on_failure: pulumi.Input[bool] | None = None,
        adopt: pulumi.Input[str] | None = None,
    ) -> None:
        arguments = locals()
        opts = opts if opts is not None else pulumi.ResourceOptions()
        if isinstance(opts, pulumi.ResourceOptions) and opts.import_ is not None:
            raise pulumi.RunError(
                f"resource '{resource_name}': Pulumi cannot import dynamic resources; "
                f"give adopt={opts.import_!r} instead of ResourceOptions(import_=...)"
            )
        # What has no value here would be no attribute of the resource.
        props: dict[str, Any] = dict.fromkeys(_OUTPUTS)
        self._is_read = isinstance(opts, pulumi.ResourceOptions) and opts.id is not None
        if isinstance(opts, pulumi.ResourceOptions) and not self._is_read:
            props |= {argument: _sendable(argument, arguments[argument]) for argument in _INPUTS}
            if not host.tells_urn():
                props[desired.URN] = _urn(resource_name, opts.parent)
            if opts.delete_before_replace is not None:
                props[desired.DELETE_FIRST] = opts.delete_before_replace
        host.tell_declarations()
        self._memory = previews.current_memory()
        own = pulumi.ResourceOptions(additional_secret_outputs=_SECRETS)
        if self._memory is not None and not self._is_read:
            own.hooks = pulumi.ResourceHookBinding(before_update=[self._memory.hook])
        super().__init__(ServiceProvider(), resource_name, props, pulumi.ResourceOptions.merge(own, opts))
        host.await_one([pulumi.get(self, name) for name in _OUTPUTS])
        removals.note(self, None if self._is_read else adopt, is_read=self._is_read, make_client=_client)
        if isinstance(opts, pulumi.ResourceOptions) and not self._is_read:
            warning = ignored.warning(opts.ignore_changes or (), props)
            if warning:
                pulumi.log.warn(warning, self)

    @classmethod
    def get(
        cls, resource_name: str, id: pulumi.Input[str], opts: pulumi.ResourceOptions | None = None
    ) -> Service:
        """Reads the service with this uuid, without owning it: it is not changed and not destroyed.

        The `up` fails when there is none.
        """
        found = pulumi.ResourceOptions.merge(opts, pulumi.ResourceOptions(id=id))
        return Service(resource_name, found, image="")


_INPUTS = (*schema.INPUTS, *schema.OPTIONS)
_OUTPUTS = (*_INPUTS, *schema.COMPUTED, outputs.ENDPOINT_URIS)
_SECRETS = [name for name, attribute in schema.ATTRIBUTES.items() if attribute.secret]
#: The inputs that are lists of records with read-only keys, and those keys.
_READ_ONLY = {name: schema.read_only_keys(name) for name in schema.INPUTS if schema.read_only_keys(name)}


# -- spelling arguments for the engine -------------------------------------------------------------------


def _sendable(name: str, value: Any) -> Any:
    """An argument as the engine can carry it."""
    try:
        return _spelled(name, value)
    except RecursionError:
        return _mark("list or dict that contains itself")


def _spelled(name: str, value: Any) -> Any:
    value = _awaited(value)
    if name in _READ_ONLY and isinstance(value, pulumi.Output):
        # The outputs of a service as inputs of another: only their read-only keys may be unknown.
        return value.apply(lambda resolved: _sendable(name, resolved), run_with_unknowns=True)
    if name in _READ_ONLY and isinstance(value, (list, tuple, set, frozenset)):
        return [_record(name, item) for item in _ordered(value)]
    if name == "container_envvars" and isinstance(value, (list, tuple)):
        return _carried(_environment(value))
    return _carried(value)


def _awaited(value: Any) -> Any:
    """What is awaited as an Output, so that what comes of it is spelled, too."""
    return pulumi.Output.from_input(value) if isinstance(value, Awaitable) else value


def _ordered(items: Collection[Any]) -> Sequence[Any]:
    """The items as a sequence; those of a set in an order that each run has anew."""
    if not isinstance(items, (set, frozenset)):
        return list(items)
    return sorted(items, key=lambda i: i.pulumi_resource_name if isinstance(i, Service) else str(i))


def _environment(entries: Sequence[Any]) -> Any:
    """A list of variables as the dict that the state has, so that `ignore_changes` finds them by their names.

    One that is not well-formed stays as it is, for check.
    """
    for entry in entries:
        if not isinstance(entry, Mapping) or set(entry) != {"key", "value"} or entry["value"] is None:
            return entries
    names = [entry["key"] for entry in entries]
    if not all(isinstance(name, str) for name in names) or len(set(names)) != len(names):
        return entries
    return {entry["key"]: entry["value"] for entry in entries}


def _record(name: str, item: Any) -> Any:
    """A record in a list, without its read-only keys."""
    item = _awaited(item)
    if isinstance(item, pulumi.Output):
        return item.apply(lambda resolved: _record(name, resolved), run_with_unknowns=True)
    if isinstance(item, Mapping):
        item = {key: value for key, value in item.items() if key not in _READ_ONLY[name]}
    return _link(item) if name == "linked_to_service" else _carried(item)


def _link(item: Any) -> Any:
    """A link; where its target is a Service object it gets its default name."""
    if isinstance(item, (Service, ServiceDetails, str)):
        item = {"to_service": item}
    if not isinstance(item, Mapping):
        return _carried(item)
    target = _awaited(item.get("to_service"))
    if item.get("name") is None:
        if isinstance(target, Service):
            item = {**item, "name": _link_name(target)}
        elif isinstance(target, pulumi.Output):
            return target.apply(lambda resolved: _link({**item, "to_service": resolved}))
    return _carried(item)


def _link_name(target: Service) -> str:
    name = re.sub(r"[^A-Za-z0-9_.-]", "-", target.pulumi_resource_name)
    return name.strip("-_.")[:63].rstrip("-_.") or "service"


def _carried(value: Any) -> Any:
    """Any value as Pulumi can carry it; what it cannot carry becomes a mark of its type."""
    if isinstance(value, str) and not _is_unicode(value):
        return _mark("str with surrogates, which is no Unicode")
    if value is None or isinstance(value, (bool, str)) or schema.is_unknown(value):
        return value.value if isinstance(value, enum.Enum) else value
    value = _awaited(value)
    if isinstance(value, Service):
        # Before engine 3.260 or so, previews do not know the id of what is only read; the outputs they do.
        return value.uuid if value._is_read else value.id
    if isinstance(value, ServiceDetails):
        return value.uuid
    if isinstance(value, pulumi.Output):
        return value.apply(_carried)
    if isinstance(value, pulumi.Resource):
        return value
    if isinstance(value, enum.Enum):
        return _carried(value.value)
    if isinstance(value, int):
        # All numbers travel as floats, and a larger one would come out as another.
        return value if abs(value) < 2**53 else _mark("int of more than 53 bits")
    if isinstance(value, float):
        return value if math.isfinite(value) else _mark(f"float {value}")
    if isinstance(value, os.PathLike):
        return _carried(os.fspath(value))
    if isinstance(value, Mapping):
        return {_key(key): _carried(item) for key, item in value.items()}
    if isinstance(value, (list, tuple, set, frozenset)):
        return [_carried(item) for item in _ordered(value)]
    return _mark(type(value).__name__)


def _key(key: Any) -> str:
    """A key of a dict; a key that is no text is one that check refuses."""
    if isinstance(key, str):
        return key if _is_unicode(key) else ""
    return str(key) if isinstance(key, int) else ""


def _is_unicode(text: str) -> bool:
    """False for what `os.environ` makes of bytes that are no UTF-8: the engine cannot carry it."""
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True


def _mark(kind: str) -> dict[str, str]:
    return {desired.UNSUPPORTED: kind}


def _urn(resource_name: str, parent: pulumi.Resource | None) -> Awaitable[str | None]:
    """The URN that the resource will have. Awaited, not an Output: that would make it depend on its parent,
    and so, for a component, on itself."""

    async def urn() -> str | None:
        is_stack = parent is None or parent.pulumi_resource_type == "pulumi:pulumi:Stack"
        return await pulumi.create_urn(resource_name, removals.TYPE, None if is_stack else parent).future()

    return asyncio.ensure_future(urn())


# -- a second account ------------------------------------------------------------------------------------


class Provider(pulumi.ProviderResource):
    """An account and control plane of its own, for `ResourceOptions(provider=...)`.

    What is given here counts as Pulumi configuration of this provider. Credentials in the environment and in
    `~/.tutum` are those of the default account; they are not used where `apikey` is given.
    """

    def __init__(
        self,
        resource_name: str,
        opts: pulumi.ResourceOptions | None = None,
        *,
        user: pulumi.Input[str] | None = None,
        apikey: pulumi.Input[str] | None = None,
        rest_host: pulumi.Input[str] | None = None,
        stream_host: pulumi.Input[str] | None = None,
        ca_bundle: pulumi.Input[str] | None = None,
        timeout_seconds: pulumi.Input[int] | None = None,
        monitor_seconds: pulumi.Input[int] | None = None,
        namespace: pulumi.Input[str] | None = None,
    ) -> None:
        arguments = locals()
        props = {key: arguments[setting] for key, setting in CONFIG.items() if arguments[setting] is not None}
        if apikey is not None:
            props["tutum:apikey"] = pulumi.Output.secret(apikey)
            props[EXPLICIT] = "true"
        super().__init__("pulumi-python", resource_name, props, opts)


# -- looking one up --------------------------------------------------------------------------------------


class ServiceDetails:
    """A service as it is: every attribute of the API, and `endpoint_uris`.

    It stands for the service wherever a Service object would. `container_envvars` (a dict) and
    `link_variables` are secret Outputs.
    """

    uuid: str
    name: str
    resource_uri: str
    image_name: str
    image_tag: str | None
    public_dns: str
    state: str
    synchronized: bool
    target_num_containers: int | None
    current_num_containers: int
    running_num_containers: int
    stopped_num_containers: int
    deployed_datetime: str | None
    started_datetime: str | None
    stopped_datetime: str | None
    destroyed_datetime: str | None
    stack: str | None
    containers: list[str]
    run_command: str | None
    entrypoint: str | None
    container_ports: list[ContainerPort]
    linked_to_service: list[Link]
    linked_from_service: list[Link]
    bindings: list[Binding]
    autorestart: str
    autodestroy: str
    autoredeploy: bool
    sequential_deployment: bool
    roles: list[str]
    privileged: bool
    deployment_strategy: str
    tags: list[Tag]
    network: str
    pid: str
    cpu_shares: int | None
    memory: int | None
    healthcheck: Healthcheck | None
    monitor_seconds: int | None
    endpoint_uris: list[str]

    def __init__(self, service: Mapping[str, Any], containers: Sequence[Mapping[str, Any]] = ()) -> None:
        """From the API's detail object and, where endpoints need them, the containers in list shape."""
        seen = outputs.outputs(service, {}, containers)
        self._secrets = {name: seen.get(name) or {} for name in _SECRETS}
        for name, record in _RECORDS.items():
            if name in seen:
                seen[name] = _hydrated(record, seen[name])
        names = inspect.get_annotations(ServiceDetails)
        self.__dict__ |= {name: seen.get(name) for name in names}

    @property
    def container_envvars(self) -> pulumi.Output[Mapping[str, str]]:
        return pulumi.Output.secret(self._secrets["container_envvars"])

    @property
    def link_variables(self) -> pulumi.Output[Mapping[str, str]]:
        return pulumi.Output.secret(self._secrets["link_variables"])

    def __repr__(self) -> str:
        return f"<ServiceDetails {self.name!r} ({self.uuid}): {self.state}>"


_RECORDS: dict[str, type[dict[str, Any]]] = {
    "container_ports": ContainerPort,
    "linked_to_service": Link,
    "linked_from_service": Link,
    "bindings": Binding,
    "tags": Tag,
    "healthcheck": Healthcheck,
}


def _hydrated(record: type[dict[str, Any]], value: Any) -> Any:
    if isinstance(value, list):
        return [_hydrated(record, item) for item in value]
    return record(**{name: value.get(name) for name in typing.get_type_hints(record)})


def get_service(
    *, uuid: str | None = None, name: str | None = None, client: Client | None = None
) -> ServiceDetails:
    """Looks a service up, by its uuid (or resource URI) or by its name; terminated ones do not count.

    Args:
        client: of the account to ask; default: the one of the stack's configuration and the environment.

    Raises:
        NotFound: there is none.
        Conflict: several living services have the name; the message lists their uuids.
        ValueError: not exactly one of `uuid` and `name` was given.
    """
    if (uuid is None) == (name is None):
        raise ValueError("get_service takes either uuid or name")
    asked = client or _client()
    found = asked.get_service(uuid) if uuid is not None else asked.find_service(str(name))
    if found["state"] in lifecycle.ENDING:
        raise NotFound(f"service {uuid} is {found['state']}")
    containers = list(asked.list_containers(found["uuid"])) if outputs.needs_containers(found) else []
    return ServiceDetails(found, containers)


def _client() -> Client:
    """A client for the account that the stack's configuration names."""
    settings = pulumi.Config("tutum")
    explicit = {setting: settings.get(key.partition(":")[2]) for key, setting in CONFIG.items()}
    explicit.pop("namespace")
    return Client(settings=config.resolve(explicit))


ServiceReference = Service | ServiceDetails | str
"""What stands for a service: a Service, what `get_service` returned, a uuid or a resource URI."""
