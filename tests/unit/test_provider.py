"""The provider class by itself: its pickled form, check and diff. (tests/contract has it with a control
plane.)"""

from __future__ import annotations

import socket
import threading
from typing import Any

import pytest
from pulumi.dynamic import Config, ConfigureRequest
from pulumi.dynamic.dynamic import serialize_provider

from pulumi_tutum import desired, outputs, schema
from pulumi_tutum.provider import ServiceProvider
from tests.support.unknown import unknown

URN = "urn:pulumi:dev::shop::pulumi-python:dynamic/tutum:Service::web"
UUID = "2f4f54e5-9d3b-4ac1-85ad-a2d4ff25a179"
#: In every user's state, for ever. A change would leave them with services that nothing can destroy.
PICKLED = "gASVMAAAAAAAAACMFXB1bHVtaV90dXR1bS5wcm92aWRlcpSMD1NlcnZpY2VQcm92aWRlcpSTlCmBlC4="


@pytest.fixture
def provider() -> ServiceProvider:
    return ServiceProvider()


def checked(provider: ServiceProvider, olds: dict[str, Any] | None = None, **news: Any) -> dict[str, Any]:
    result = provider.check(
        olds or {}, {"image": "acme/web", desired.URN: URN, "__provider": PICKLED, **news}
    )
    assert not result.failures
    return result.inputs


def refused(provider: ServiceProvider, **news: Any) -> list[str]:
    result = provider.check({}, {"image": "acme/web", desired.URN: URN, **news})
    assert all(failure.property == "" for failure in result.failures)
    return [failure.reason for failure in result.failures]


def live(inputs: dict[str, Any], **attributes: Any) -> dict[str, Any]:
    """The outputs for inputs of a service that runs as wanted."""
    count = inputs.get("target_num_containers", 1)
    names = ("target_num_containers", "current_num_containers", "running_num_containers")
    service = {
        **{name: value for name, value in inputs.items() if name in schema.INPUTS},
        "image_name": schema.default_tag(inputs["image"]),
        "container_envvars": [{"key": k, "value": v} for k, v in inputs["container_envvars"].items()],
        "uuid": UUID,
        "state": "Running",
        "synchronized": True,
        **dict.fromkeys(names, count),
        **attributes,
    }
    return outputs.outputs(service, inputs)


# -- the pickled form --------------------------------------------------------------------------------------


def test_the_pickled_form_is_the_same_for_ever(provider: ServiceProvider) -> None:
    assert serialize_provider(provider) == PICKLED
    assert ServiceProvider.serialize_as_secret_always is False
    assert provider.__dict__ == {}


# -- configure ---------------------------------------------------------------------------------------------


def test_configure_takes_over_and_refuses_nothing(provider: ServiceProvider) -> None:
    provider.configure(ConfigureRequest(Config({"tutum:user": "x", "tutum:restHost": "nonsense"}, "shop")))
    assert refused(provider, tags=["a b"])  # checks work without credentials and address


def test_a_long_automatic_name_of_an_earlier_release_stays(provider: ServiceProvider) -> None:
    urn = URN.replace("::web", "::" + "w" * 60)
    longer = "w" * 55 + "-1234567"
    old = {**checked(provider), "name": longer, desired.NAME_IS_AUTOMATIC: True}
    inputs = provider.check(old, {"image": "acme/web", desired.URN: urn}).inputs
    assert inputs["name"] == longer
    assert provider.diff(UUID, live(old), inputs).changes is False
    assert (
        provider.check({}, {"image": "acme/web", desired.URN: urn}).inputs["name"].startswith("w" * 48 + "-")
    )


def test_a_namespace_makes_other_names(provider: ServiceProvider) -> None:
    other = ServiceProvider()
    other.configure(ConfigureRequest(Config({"tutum:namespace": "team-a"}, "shop")))
    assert checked(provider)["name"] != checked(other)["name"]


def test_an_explicit_provider_has_credentials_of_its_own(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("TUTUM_AUTH", "TUTUM_USER", "TUTUM_APIKEY"):
        monkeypatch.setenv(name, "ApiKey default:account")
    given = {"tutum:user": "eve", "tutum:apikey": "k3y"}
    used = []
    for config in (given, {**given, "tutum:explicit": "true"}):
        provider = ServiceProvider()
        provider.configure(ConfigureRequest(Config(config, "shop")))
        used.append(provider._state().session.client.settings.authorization)
    assert used == ["ApiKey default:account", "ApiKey eve:k3y"]


# -- check -------------------------------------------------------------------------------------------------


def test_check_fills_in_defaults_and_is_idempotent(provider: ServiceProvider) -> None:
    first = checked(provider, tags=["a"], container_envvars=[{"key": "A", "value": 1.0}])
    assert first["tags"] == [{"name": "a"}]
    assert first["container_envvars"] == {"A": "1"}
    assert first["target_num_containers"] == 1
    assert "__provider" not in first  # the host adds it
    # Given what it gave, all it finds out anew is that the name is given now.
    again = provider.check(first, first).inputs
    assert again == {k: v for k, v in first.items() if k != desired.NAME_IS_AUTOMATIC}


def test_check_keeps_unknown_values_at_any_depth(provider: ServiceProvider) -> None:
    nothing = unknown()
    inputs = checked(
        provider,
        image=nothing,
        container_envvars={"A": nothing, "B": "b"},
        linked_to_service=[{"to_service": nothing, "name": "db"}, nothing],
        tags=nothing,
    )
    assert inputs["image"] is inputs["tags"] is nothing
    assert inputs["container_envvars"] == {"A": nothing, "B": "b"}
    assert inputs["linked_to_service"] == [{"to_service": nothing, "name": "db"}, nothing]


def test_failures_name_the_path_and_never_a_value_of_the_environment(provider: ServiceProvider) -> None:
    reasons = refused(provider, container_envvars={"PASS": ["hunter22"]}, target_num_containers="many")
    assert reasons == [
        "target_num_containers: must be a whole number from 0 to 1000, not a string",
        "container_envvars.PASS: must be a string, not a list",
    ]


def test_automatic_names_stay_for_life(provider: ServiceProvider) -> None:
    first = checked(provider)
    assert first["name"].startswith("web-")
    assert first["name"] == checked(ServiceProvider())["name"], "preview and up are two processes"
    # Under another resource name (an alias leads from the old one), it is still the same service.
    renamed: dict[str, Any] = {desired.URN: URN.replace("::web", "::front")}
    assert checked(provider, first, **renamed)["name"] == first["name"]
    # A name that was given and is not any more is another matter.
    given = checked(provider, name="mine")
    assert desired.NAME_IS_AUTOMATIC not in given
    assert checked(provider, given)["name"] == first["name"]
    assert checked(provider, first, name="mine")["name"] == "mine"


def test_a_replacement_made_beside_the_old_one_has_a_name_of_its_own(provider: ServiceProvider) -> None:
    old = checked(provider)
    new = checked(provider, old, bindings=[{"container_path": "/x"}])
    diff = provider.diff(UUID, live(old), new)
    assert diff.replaces == ["bindings"]
    assert diff.delete_before_replace is False
    second = checked(provider, bindings=[{"container_path": "/x"}])
    assert second["name"] != old["name"]
    # With the resource option that says otherwise, the old one is gone by then.
    option: dict[str, Any] = {desired.DELETE_FIRST: True}
    forced = checked(provider, bindings=[{"container_path": "/x"}], **option)
    assert forced["name"] == old["name"]


def test_a_control_plane_that_is_down_is_tried_once(
    provider: ServiceProvider, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Each further look would take the seconds for which a refused connection is tried again."""
    with socket.socket() as nobody:
        nobody.bind(("127.0.0.1", 0))
        monkeypatch.setenv("TUTUM_REST_HOST", f"http://127.0.0.1:{nobody.getsockname()[1]}")
        monkeypatch.setenv("TUTUM_AUTH", "ApiKey bob:k3y")
        checked(provider, adopt="legacy")
        for number in range(3):
            urn: dict[str, Any] = {desired.URN: f"{URN}{number}"}
            old = checked(provider, **urn)
            new = checked(provider, old, bindings=[{"container_path": "/x"}], **urn)
            assert provider.diff(UUID, live(old), new | urn).replaces == ["bindings"]
            assert checked(provider, bindings=[{"container_path": "/x"}], **urn)["name"] != old["name"]
    down, adoption = capsys.readouterr().err.splitlines()
    assert "no control plane answers" in down
    assert "adopts service 'legacy', which cannot be looked at now" in adoption


# -- diff --------------------------------------------------------------------------------------------------


def test_no_change_is_no_change(provider: ServiceProvider) -> None:
    inputs = checked(provider)
    assert provider.diff(UUID, live(inputs), inputs).changes is False


def test_a_change_is_an_update(provider: ServiceProvider) -> None:
    inputs = checked(provider)
    diff = provider.diff(UUID, live(inputs), {**inputs, "image": "acme/web:2"})
    assert (diff.changes, diff.replaces) == (True, [])


@pytest.mark.parametrize(
    ("change", "keys", "delete_first"),
    [
        ({"name": "b"}, ["name"], False),
        ({"bindings": [{"container_path": "/x", "rewritable": True}]}, ["bindings"], True),
        ({"deployment_strategy": "EVERY_NODE"}, ["deployment_strategy"], True),
        ({"name": "b", "network": "host"}, ["name"], True),
        ({"name": unknown()}, ["name"], False),
    ],
)
def test_replacements(
    provider: ServiceProvider, change: dict[str, Any], keys: list[str], delete_first: bool
) -> None:
    inputs = checked(provider, name="a")
    diff = provider.diff(UUID, live(inputs), {**inputs, **change})
    assert (diff.changes, diff.replaces, diff.delete_before_replace) == (True, keys, delete_first)


@pytest.mark.parametrize(
    ("attributes", "arguments", "changes"),
    [
        ({"state": "Stopped"}, {}, True),
        ({"state": "Starting"}, {}, True),
        ({"synchronized": False}, {}, True),
        ({"running_num_containers": 0, "current_num_containers": 0}, {}, True),
        ({"state": "Stopped"}, {"wait": False}, False),
        ({"state": "Stopped"}, {"running": False}, False),
        ({"state": "Not running"}, {"running": False}, False),
        ({"state": "Running"}, {"running": False}, True),
        ({"state": "Stopped"}, {"target_num_containers": 0}, False),
        (
            {"running_num_containers": 7, "current_num_containers": 7},
            {"deployment_strategy": "EVERY_NODE"},
            False,
        ),
    ],
)
def test_a_service_that_is_not_as_wanted_is_a_change(
    provider: ServiceProvider, attributes: dict[str, Any], arguments: dict[str, Any], changes: bool
) -> None:
    inputs = checked(provider, **arguments)
    assert provider.diff(UUID, live(inputs, **attributes), inputs).changes is changes


@pytest.mark.parametrize(
    "change",
    [{"bindings": [{"container_path": "/y"}]}, {"name": "other"}, {"deployment_strategy": "EVERY_NODE"}],
)
def test_lost_volumes_are_warned_about(
    provider: ServiceProvider, capsys: pytest.CaptureFixture[str], change: dict[str, Any]
) -> None:
    inputs = checked(provider, bindings=[{"container_path": "/x"}])
    provider.diff(UUID, live(inputs), {**inputs, **change})
    warning = capsys.readouterr().err
    assert f"a change of {next(iter(change))} replaces service" in warning
    assert "the volumes of the old one, and the data in them, are destroyed" in warning


@pytest.mark.parametrize(
    "bindings",
    [None, [], [{"container_path": "/x", "host_path": "/y"}], [{"volumes_from": UUID, "container_path": ""}]],
)
def test_where_there_are_no_volumes_there_is_no_warning(
    provider: ServiceProvider, capsys: pytest.CaptureFixture[str], bindings: list[dict[str, Any]] | None
) -> None:
    inputs = checked(provider, bindings=bindings)
    diff = provider.diff(UUID, live(inputs), {**inputs, "bindings": [{"container_path": "/new"}]})
    assert diff.replaces == ["bindings"]
    assert "destroyed" not in capsys.readouterr().err


def test_one_instance_serves_many_threads(provider: ServiceProvider) -> None:
    failed: list[BaseException] = []

    def work(number: int) -> None:
        try:
            urn: dict[str, Any] = {desired.URN: f"{URN}{number}"}
            inputs = checked(provider, **urn)
            assert inputs["name"].startswith(f"web{number}-")
            assert provider.diff(UUID, live(inputs), inputs).changes is False
            assert provider.diff(UUID, live(inputs), {**inputs, "memory": 64}).changes is True
        except BaseException as error:
            failed.append(error)

    threads = [threading.Thread(target=work, args=(n,)) for n in range(100)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not failed


@pytest.mark.parametrize("flag", [{}, {desired.NAME_IS_AUTOMATIC: True}])
def test_hidden_inputs_of_a_name_neither_come_nor_go(provider: ServiceProvider, flag: dict[str, Any]) -> None:
    """The engine shows it. States of the release before have the flag, those of today do not."""
    old = {**checked(provider), **flag}

    def hidden(bag: dict[str, Any]) -> dict[str, Any]:
        return {name: value for name, value in bag.items() if name.startswith("__") and name != desired.URN}

    assert hidden(checked(provider, old)) == flag
    named = checked(provider, old, name="mine", image="acme/web:2")
    assert hidden(named) == flag
    assert provider.diff(UUID, live(old), named).replaces == ["name"]
    replacement = checked(provider, name="mine", image="acme/web:2")
    assert hidden(replacement) == flag
