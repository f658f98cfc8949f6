"""The program's side, under Pulumi's mocks: how arguments are spelled for the engine, what outputs are."""

from __future__ import annotations

import asyncio
import enum
import functools
import inspect
import json
import math
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pulumi
import pytest
from pulumi.runtime import mocks
from pulumi.runtime.settings import SETTINGS

import pulumi_tutum as tutum
from pulumi_tutum import desired, schema
from pulumi_tutum.provider import CONFIG
from pulumi_tutum.resource import _OUTPUTS
from tests.support.stub import UUID

TYPE = "pulumi-python:dynamic/tutum:Service"


class Recorder(mocks.Mocks):
    """Remembers registrations, and answers each with the same outputs."""

    def __init__(self, outputs: dict[str, Any] | None = None) -> None:
        self.registered: dict[str, mocks.MockResourceArgs] = {}
        self.outputs = outputs or {}

    def new_resource(self, args: mocks.MockResourceArgs) -> tuple[str | None, dict[Any, Any]]:
        self.registered[args.name] = args
        number = len(self.registered)
        return f"{number}0000000-0000-4000-8000-000000000000", dict(self.outputs)

    def call(self, args: mocks.MockCallArgs) -> tuple[dict[Any, Any], list[tuple[str, str]]]:
        return {}, []


def run(
    program: Callable[[], Any], outputs: dict[str, Any] | None = None, *, preview: bool = False
) -> Recorder:
    """Runs a program to its end, all registrations included."""
    recorder = Recorder(outputs)
    pulumi.runtime.set_mocks(recorder, preview=preview)

    @pulumi.runtime.test  # type: ignore[untyped-decorator]
    def whole() -> Any:
        return program()

    whole()
    return recorder


@pytest.fixture(scope="module", autouse=True)
def loop() -> Iterator[None]:
    """The SDK keeps futures of one program for the next, so all have the same event loop. Its mocks want
    another one in each thread, which they leave open; so there is one thread."""
    loop, other = asyncio.new_event_loop(), asyncio.new_event_loop()
    asyncio.set_event_loop(loop)
    executor = ThreadPoolExecutor(1, initializer=lambda: asyncio.set_event_loop(other))
    loop.set_default_executor(executor)
    yield
    executor.shutdown()
    asyncio.set_event_loop(None)
    loop.close()
    other.close()


def inputs(recorder: Recorder, name: str = "web") -> dict[str, Any]:
    return {k: v for k, v in recorder.registered[name].inputs.items() if k != "__provider"}


def wire(**arguments: Any) -> Any:
    """What the engine gets of arguments of a Service."""
    return inputs(run(lambda: tutum.Service("web", **{"image": "acme/web", **arguments})))


# -- the class and the table -------------------------------------------------------------------------------


def test_parameters_are_those_of_the_table() -> None:
    parameters = inspect.signature(tutum.Service.__init__).parameters
    assert list(parameters) == ["self", "resource_name", "opts", *schema.INPUTS, *schema.OPTIONS]
    assert [p.name for p in parameters.values() if p.kind is p.KEYWORD_ONLY and p.default is p.empty] == [
        "image"
    ]


def test_outputs_are_those_of_the_table() -> None:
    properties = [name for name, value in vars(tutum.Service).items() if isinstance(value, property)]
    assert properties == list(_OUTPUTS)
    details = {*inspect.get_annotations(tutum.ServiceDetails), "container_envvars", "link_variables"}
    assert details == {*schema.INPUTS, *schema.COMPUTED, "endpoint_uris"} - {"image"}


@pytest.mark.parametrize(
    ("args", "output", "name"),
    [
        (tutum.ContainerPortArgs, tutum.ContainerPort, "container_ports"),
        (tutum.LinkArgs, tutum.Link, "linked_to_service"),
        (tutum.BindingArgs, tutum.Binding, "bindings"),
        (tutum.TagArgs, tutum.Tag, "tags"),
        (tutum.HealthcheckArgs, tutum.Healthcheck, "healthcheck"),
    ],
)
def test_nested_types_are_those_of_the_table(args: Any, output: Any, name: str) -> None:
    kind = schema.INPUTS[name].kind
    record = kind.item if isinstance(kind, schema.ListOf) else kind
    assert isinstance(record, schema.Record)
    assert set(args.__annotations__) | set(getattr(args.__base__, "__annotations__", {})) >= set(
        record.names()
    )
    assert set(args.__required_keys__) == {f.name for f in record.fields if f.required}
    assert list(inspect.get_annotations(output)) == [f.name for f in record.fields]


def test_the_type_token() -> None:
    assert run(lambda: tutum.Service("web", image="x")).registered["web"].typ == TYPE


def test_a_subclass_is_the_same_kind_of_resource_with_typed_outputs() -> None:
    class Web(tutum.Service):
        pass

    def program() -> Any:
        return Web("web", image="x", target_num_containers=2).target_num_containers.apply(check)

    def check(number: Any) -> None:
        assert type(number) is int

    assert run(program, {"target_num_containers": 2.0}).registered["web"].typ == TYPE


# -- arguments ---------------------------------------------------------------------------------------------


def test_only_what_is_given_is_sent() -> None:
    assert wire() == {"image": "acme/web"}
    assert wire(name=None, tags=["a"]) == {"image": "acme/web", "tags": ["a"]}


def test_a_service_stands_for_its_id_wherever_it_is() -> None:
    def program() -> None:
        db = tutum.Service("my db", image="x")
        tutum.Service(
            "web",
            image="x",
            linked_to_service=[
                {"to_service": db, "name": "DB"},
                {"to_service": db},
                {"to_service": pulumi.Output.from_input(db)},
                pulumi.Output.from_input(db),
                db,
                {"to_service": UUID},
                UUID,
                pulumi.Output.from_input(UUID),
                pulumi.Output.from_input(UUID).apply(lambda uuid: {"to_service": uuid}),
            ],
            bindings=[{"volumes_from": db}, {"volumes_from": pulumi.Output.from_input(db)}],
        )
        tutum.Service(
            "late", image="x", linked_to_service=pulumi.Output.from_input(UUID).apply(lambda _: [db])
        )

    recorder = run(program)
    db = "10000000-0000-4000-8000-000000000000"
    named = {"to_service": db, "name": "my-db"}
    assert inputs(recorder)["linked_to_service"] == [
        {"to_service": db, "name": "DB"},
        named,
        named,
        named,
        named,
        *[{"to_service": UUID}] * 4,
    ]
    assert inputs(recorder)["bindings"] == [{"volumes_from": db}, {"volumes_from": db}]
    assert inputs(recorder, "late")["linked_to_service"] == [named]


def test_sets_and_what_is_awaited_are_spelled_like_the_rest() -> None:
    async def late(value: Any) -> Any:
        return value

    def program() -> None:
        a, b = (tutum.Service(name, image="x") for name in ("a", "b"))
        ways: dict[str, Any] = {
            "set": {b, a},
            "awaited": late([a, {"to_service": late(b)}]),
            "awaited-items": [late(a), {"to_service": late(b)}],
        }
        for name, links in ways.items():
            tutum.Service(name, image="x", linked_to_service=links, tags=late({"t"}), memory=late(math.nan))

    recorder = run(program)
    ids = [f"{number}0000000-0000-4000-8000-000000000000" for number in (1, 2)]
    for name in ("set", "awaited", "awaited-items"):
        sent = inputs(recorder, name)
        links = [{"to_service": id, "name": link} for id, link in zip(ids, "ab", strict=True)]
        assert sent["linked_to_service"] == links, name
        assert sent["tags"] == ["t"]
        assert [str(problem) for problem in desired.problems(sent)] == ["memory: cannot be of type float nan"]


class _Protocol(enum.Enum):
    TCP = "tcp"


def test_values_are_spelled_so_that_pulumi_can_carry_them() -> None:
    sent = wire(
        tags={"b", "a"},
        roles=("global",),
        bindings=[{"container_path": Path("/data")}],
        container_ports=[{"protocol": _Protocol.TCP, "inner_port": 80}],
        container_envvars={1: "x", "B": 2},
    )
    assert sent["tags"] == ["a", "b"]
    assert sent["roles"] == ["global"]
    assert sent["bindings"] == [{"container_path": "/data"}]
    assert sent["container_ports"] == [{"protocol": "tcp", "inner_port": 80}]
    assert sent["container_envvars"] == {"1": "x", "B": 2}


def test_malformed_values_in_outputs_reach_check_too() -> None:
    recorder = run(lambda: tutum.Service("web", image="x", tags=pulumi.Output.from_input(object())))  # type: ignore[arg-type]
    (problem,) = desired.problems(inputs(recorder))
    assert str(problem) == "tags: cannot be of type object"


_CIRCLE: list[Any] = []
_CIRCLE.append(_CIRCLE)


@pytest.mark.parametrize(
    ("arguments", "path"),
    [
        ({"container_ports": [object()]}, "container_ports[0]: cannot be of type object"),
        (
            {"container_ports": [{"inner_port": 2**60, "protocol": "tcp"}]},
            "container_ports[0].inner_port: cannot be of type int of more than 53 bits",
        ),
        ({"bindings": [{"container_path": b"/x"}]}, "bindings[0].container_path: cannot be of type bytes"),
        ({"container_envvars": {"A": lambda: 1}}, "container_envvars.A: cannot be of type function"),
        ({"container_envvars": {None: "x"}}, "container_envvars: a variable's name must be"),
        ({"memory": float("nan")}, "memory: cannot be of type float nan"),
        ({"container_envvars": {"A": "\udcff"}}, "container_envvars.A: cannot be of type str with"),
        ({"container_envvars": {"\udcff": "x"}}, "container_envvars: a variable's name must be"),
        ({"linked_to_service": 5}, "linked_to_service: must be a list"),
        ({"linked_to_service": [5]}, "linked_to_service[0]: must be an object"),
        ({"linked_to_service": ["db"]}, "linked_to_service[0].to_service: must be a Service, a uuid or"),
        ({"tags": 5, "image": None}, "image: is required"),
        ({"tags": _CIRCLE}, "tags: cannot be of type list or dict that contains itself"),
    ],
)
def test_malformed_arguments_never_raise_and_reach_check(arguments: dict[str, Any], path: str) -> None:
    sent = wire(**arguments)
    json.dumps(sent)
    reasons = [str(problem) for problem in desired.problems(sent)]
    assert any(reason.startswith(path) for reason in reasons), reasons


def test_secrets_stay_secret(monkeypatch: pytest.MonkeyPatch) -> None:
    def program() -> Any:
        password = pulumi.Output.secret("hunter22")
        web = tutum.Service("web", image="x", container_envvars={"PASS": password, "MODE": "prod"})
        return asyncio.ensure_future(check(web))

    async def check(web: tutum.Service) -> None:
        assert await web.container_envvars.is_secret()

    run(program)


def test_hidden_inputs_go_along_only_where_they_are_needed(monkeypatch: pytest.MonkeyPatch) -> None:
    def program() -> None:
        component = pulumi.ComponentResource("acme:shop:Shop", "shop")
        tutum.Service("plain", image="x")
        tutum.Service(
            "child", opts=pulumi.ResourceOptions(parent=component, delete_before_replace=True), image="x"
        )

    recorder = run(program)
    assert desired.URN not in inputs(recorder, "plain")
    assert inputs(recorder, "child")[desired.DELETE_FIRST] is True
    monkeypatch.setenv("PULUMI_TUTUM_PLAIN_HOST", "1")
    recorder = run(program)
    assert inputs(recorder, "plain")[desired.URN] == f"urn:pulumi:stack::project::{TYPE}::plain"
    assert inputs(recorder, "child")[desired.URN].endswith(f"acme:shop:Shop${TYPE}::child")


# -- outputs -----------------------------------------------------------------------------------------------


def test_outputs_are_typed_and_missing_keys_are_none() -> None:
    found: dict[str, Any] = {}

    def program() -> Any:
        web = tutum.Service("web", image="x")
        names = ("container_ports", "target_num_containers", "tags", "memory", "endpoint_uris")
        # One by one: Output.all makes plain dicts of typed ones.
        return [getattr(web, name).apply(functools.partial(found.__setitem__, name)) for name in names]

    run(
        program,
        {
            "container_ports": [{"protocol": "tcp", "inner_port": 80.0, "published": True}],
            "target_num_containers": 2.0,
            "tags": [{"name": "a"}],
            "endpoint_uris": [],
        },
    )
    (port,), number = found["container_ports"], found["target_num_containers"]
    assert isinstance(port, tutum.ContainerPort)
    assert type(port.inner_port) is type(port["inner_port"]) is type(number) is int
    assert port.endpoint_uri is port["endpoint_uri"] is None
    assert port["port_name"] is port.port_name is None
    assert found["tags"][0].name == found["tags"][0]["name"] == "a"
    assert found["memory"] is None
    assert found["endpoint_uris"] == []


@pytest.mark.parametrize("plain", [False, True])
def test_the_sdk_waits_for_few_outputs_of_a_service(plain: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    """It looks at all that it waits for each time that one resolves."""
    if not hasattr(pulumi.Output, "_untrack"):
        pytest.skip("this SDK does not track Outputs")
    monkeypatch.setenv("PULUMI_TUTUM_PLAIN_HOST", "1" if plain else "")
    tracked: list[int] = []

    def program() -> None:
        tutum.Service("db", image="x")
        before = len(SETTINGS.outputs)
        tutum.Service("web", image="x")
        tracked.append(len(SETTINGS.outputs) - before)

    run(program)
    assert (tracked[0] < 10) is not plain


def test_the_import_option_names_what_works_instead() -> None:
    """Pulumi itself ends with a traceback of its own."""
    with pytest.raises(pulumi.RunError, match=f"'found'.*adopt='{UUID}'"):
        tutum.Service("found", pulumi.ResourceOptions(import_=UUID), image="x")


PORT: Any = {"protocol": "tcp", "inner_port": 80.0, "published": True}
LINK: Any = {"to_service": f"/api/v1/service/{UUID}/"}


@pytest.mark.parametrize(
    "read",
    [
        lambda web: pulumi.Output.concat("see ", web.container_ports[0].endpoint_uri),
        lambda web: pulumi.Output.concat("see ", web.container_ports[0]["port_name"]),
        lambda web: web.container_ports.apply(lambda ports: "see " + ports[0]["endpoint_uri"]),
        lambda web: web.container_ports.apply(lambda ports: "see " + ports[0].endpoint_uri),
        lambda web: pulumi.Output.all(web.container_ports).apply(lambda all: "see " + all[0][0].endpoint_uri),
        lambda web: pulumi.Output.json_dumps({"ports": web.container_ports}),
        lambda web: pulumi.Output.concat("see ", web.linked_to_service[0].from_service),
        lambda web: pulumi.Output.concat("see ", web.linked_to_service[0].name),
        lambda web: web.linked_to_service.apply(lambda links: "see " + links[0]["name"]),
        lambda web: pulumi.Output.concat("see ", web.endpoint_uris[0]),
    ],
)
@pytest.mark.parametrize("plain", [False, True])
def test_what_is_not_known_yet_is_unknown_in_previews(
    read: Callable[[Any], Any], plain: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    found: list[Any] = []
    if plain:
        monkeypatch.setenv("PULUMI_TUTUM_PLAIN_HOST", "1")

    def program() -> Any:
        web = tutum.Service("web", image="x", container_ports=[PORT], linked_to_service=[UUID])
        return read(web).apply(found.append)

    run(program, {"image": "x", "container_ports": [PORT], "linked_to_service": [LINK]}, preview=True)
    assert found == []


def test_what_is_known_of_nested_outputs_is_known_in_previews() -> None:
    found: list[Any] = []

    def program() -> Any:
        web = tutum.Service("web", image="x", container_ports=[PORT])
        port = web.container_ports[0]
        return [value.apply(found.append) for value in (port.inner_port, port["protocol"], port.outer_port)]

    run(program, {"container_ports": [PORT]}, preview=True)
    assert sorted(found, key=str) == [80, None, "tcp"]
    assert type(found[found.index(80)]) is int


def test_nested_outputs_of_one_service_are_inputs_of_another_in_previews() -> None:
    def program() -> None:
        web = tutum.Service("web", image="x", container_ports=[PORT], linked_to_service=[UUID])
        tutum.Service("whole", image="x", container_ports=web.container_ports)
        tutum.Service(
            "items",
            image="x",
            container_ports=[web.container_ports[0], PORT],
            linked_to_service=[web.linked_to_service[0]],
        )

    answered = {
        "container_ports": [{**PORT, "port_name": "http"}],
        "linked_to_service": [{**LINK, "name": "db"}],
    }
    recorder = run(program, answered, preview=True)
    port = {"protocol": "tcp", "inner_port": 80, "published": True}
    assert inputs(recorder, "whole")["container_ports"] == [port]
    assert inputs(recorder, "items")["container_ports"] == [port, port]
    assert inputs(recorder, "items")["linked_to_service"] == [{**LINK, "name": "db"}]


@pytest.mark.parametrize("preview", [False, True])
def test_the_uuid_and_the_uri_follow_from_the_id(preview: bool) -> None:
    found: list[Any] = []
    given_by_mocks: list[Any] = []

    def program() -> Any:
        web = tutum.Service("web", image="x")
        return [value.apply(found.append) for value in (web.uuid, web.resource_uri)]

    run(program, preview=preview)
    id_ = "10000000-0000-4000-8000-000000000000"
    assert sorted(found) == [f"/api/v1/service/{id_}/", id_]

    def other() -> Any:
        return tutum.Service("web", image="x").uuid.apply(given_by_mocks.append)

    run(other, {"uuid": UUID}, preview=preview)
    assert given_by_mocks == [UUID]


def test_paths_of_ignore_changes_without_an_effect_are_warned_of_once(
    caplog: pytest.LogCaptureFixture,
) -> None:
    paths = ["container_envvars[0].value", "imgae", "image"]

    def program() -> None:
        options = pulumi.ResourceOptions(ignore_changes=paths)
        tutum.Service("web", options, image="x", container_envvars=[{"key": "MODE", "value": "a"}])
        tutum.Service.get("other", UUID, options)

    run(program)
    (text,) = [text for text in caplog.messages if "ignore_changes" in text]
    assert "`container_envvars.MODE`" in text
    assert "`image`" in text


@pytest.mark.parametrize("known", [True, False])
def test_what_the_state_has_no_value_of_is_null_in_previews_of_what_stays(known: bool) -> None:
    found: list[Any] = []

    def program() -> Any:
        web = tutum.Service("web", image="x", memory=None)
        names = ("memory", "healthcheck", "stack", "image")
        return [getattr(web, name).apply(found.append) for name in names]

    # The mocks, too, take what they are not told for unknown.
    run(program, {"uuid": UUID, "image": "x"} if known else {"image": "x"}, preview=True)
    assert found.count(None) == (3 if known else 0)
    assert "x" in found


def test_get_sends_no_inputs() -> None:
    recorder = run(lambda: tutum.Service.get("found", UUID, pulumi.ResourceOptions(protect=True)))
    assert recorder.registered["found"].resource_id == UUID
    assert inputs(recorder, "found") == {}


# -- Provider ----------------------------------------------------------------------------------------------


def test_a_provider_passes_its_settings_as_configuration() -> None:
    def program() -> Any:
        other = tutum.Provider("other", user="eve", apikey="k3y", rest_host="http://x", timeout_seconds=5)
        tutum.Service("web", opts=pulumi.ResourceOptions(provider=other), image="x")
        return other.urn

    recorder = run(program)
    args = recorder.registered["other"]
    assert args.typ == "pulumi:providers:pulumi-python"
    assert args.inputs["tutum:user"] == "eve"
    assert "k3y" in str(args.inputs["tutum:apikey"])
    assert args.inputs["tutum:apikey"] != "k3y", "the key is a secret"
    assert args.inputs["tutum:restHost"] == "http://x"
    assert "pulumi:providers:pulumi-python::other" in str(recorder.registered["web"].provider)
    parameters = set(inspect.signature(tutum.Provider.__init__).parameters) - {
        "self",
        "resource_name",
        "opts",
    }
    assert parameters == set(CONFIG.values())


# -- the package -------------------------------------------------------------------------------------------


def test_the_names_that_users_may_rely_on() -> None:
    assert tutum.__all__ == sorted(tutum.__all__)
    assert all(hasattr(tutum, name) for name in tutum.__all__)
    assert set(tutum.__all__) == {
        *("Service", "Provider", "Client", "get_service", "ServiceDetails"),
        *("ContainerPort", "Link", "Binding", "Tag", "Healthcheck"),
        *("ContainerPortArgs", "EnvVarArgs", "LinkArgs", "BindingArgs", "TagArgs", "HealthcheckArgs"),
        *("TutumError", "ConfigError", "ValidationError", "TransportError", "StreamError", "WaitError"),
        *("ApiError", "BadRequest", "AuthError", "NotFound", "Conflict"),
    }
