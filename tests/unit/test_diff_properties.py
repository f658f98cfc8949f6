"""The invariant, for services made up by a machine: after an up, nothing is to be done, however it was
spelled.

The control plane's part (a body becomes an answer) is played by the rules that the specification gives for
it; the same properties over real HTTP are in tests/contract/test_provider.py.
"""

from __future__ import annotations

from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from pulumi_tutum import desired, outputs, schema
from pulumi_tutum.provider import ServiceProvider
from tests.support.generated import answered, respelled, services, shuffled

URN = {desired.URN: "urn:pulumi:dev::shop::pulumi-python:dynamic/tutum:Service::web"}
PROVIDER = ServiceProvider()


def check(arguments: dict[str, Any], olds: dict[str, Any] | None = None) -> dict[str, Any]:
    result = PROVIDER.check(olds or {}, {**arguments, **URN})
    assert not result.failures, [failure.reason for failure in result.failures]
    return result.inputs


def deployed(inputs: dict[str, Any]) -> dict[str, Any]:
    """The outputs right after an up with these inputs."""
    return outputs.outputs(answered(schema.body(inputs)), inputs)


@given(services())
def test_right_after_an_up_nothing_is_to_be_done(arguments: dict[str, Any]) -> None:
    inputs = check(arguments)
    outs = deployed(inputs)
    assert PROVIDER.diff("id", outs, check(arguments, inputs)).changes is False
    # And after a refresh, which reads the service again.
    found = desired.definition(answered(schema.body(inputs)), inputs)
    assert outputs.inputs_after_read(inputs, found) == inputs


@given(services(), st.randoms())
def test_other_spellings_are_no_change(arguments: dict[str, Any], random: Any) -> None:
    inputs = check(arguments)
    for other in (respelled(arguments, random), shuffled(arguments, random)):
        assert PROVIDER.diff("id", deployed(inputs), check(other, inputs)).changes is False


@given(services())
def test_check_is_idempotent(arguments: dict[str, Any]) -> None:
    inputs = check(arguments)
    again = check(inputs)
    again.pop(desired.NAME_IS_AUTOMATIC, None)
    assert again == {k: v for k, v in inputs.items() if k != desired.NAME_IS_AUTOMATIC}


@given(services(), st.randoms())
def test_check_keeps_the_order_of_lists(arguments: dict[str, Any], random: Any) -> None:
    arguments = shuffled(arguments, random)
    inputs = check(arguments)
    for name in ("tags", "container_ports", "linked_to_service", "bindings"):
        for given_item, item in zip(arguments.get(name) or [], inputs.get(name, []), strict=True):
            assert schema.same(name, schema.normal({name: [given_item]})[name], [item])


@given(services(), services())
def test_each_change_is_classified_right(one: dict[str, Any], other: dict[str, Any]) -> None:
    before = check({**one, "name": "web"})
    after = check({**other, "name": "web"})
    diff = PROVIDER.diff("id", deployed(before), after)
    needs = desired.changes(before, after)
    assert diff.changes is bool(needs)
    assert set(diff.replaces or ()) == {name for name, need in needs.items() if need == schema.REPLACE}
    for name in needs:
        # Every attribute that is said to differ makes a difference by itself.
        value = after.get(name, schema.INPUTS[name].default)
        single = {**before, name: value}
        assert PROVIDER.diff("id", deployed(before), single).changes is True
    # Deployed in turn, nothing is left to be done.
    assert PROVIDER.diff("id", deployed(after), after).changes is False


@given(services(), services())
def test_a_patch_of_what_changed_is_enough(one: dict[str, Any], other: dict[str, Any]) -> None:
    before, after = check({**one, "name": "web"}), check({**other, "name": "web"})
    service = answered(schema.body(before))
    needs = desired.differences(service, after)
    in_place = [name for name, need in needs.items() if need != schema.REPLACE]
    patched = answered({**schema.body(before), **schema.body(after, in_place)})
    assert set(desired.differences(patched, after)) == set(desired.replaced(needs))


@given(services())
def test_nothing_is_ever_refused_that_is_right(arguments: dict[str, Any]) -> None:
    assert not desired.problems(arguments)
    assert not schema.problems(schema.body(desired.normal(arguments)), strict=False)
