"""The outputs of a Service as the program sees them. The only module that knows about previews.

The state, and so the engine, has no output with its default, and packed link variables (outputs.py).
Here they are completed.

The engine asks the provider for no preview. In one, it shows the program the checked inputs in place of the
outputs, and the id of a service that exists. So this module completes the outputs:

- `uuid` and `resource_uri` follow from the id.
- An output that the update cannot change keeps its value (`outputs.lasting`). The old outputs come from a
  resource hook, which the engine calls before each update. Hooks are bound in previews only, so the state has
  none.
- A read-only key of a nested output (`endpoint_uri`) is unknown until the service has it, never None.

Where hooks are missing (an old engine, a user's unit tests with mocks) only the second part is left out.
"""

from __future__ import annotations

import asyncio
import weakref
from collections.abc import Awaitable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import pulumi
from pulumi.output import UNKNOWN

from . import desired, host, outputs, schema

__all__ = ["Memory", "current_memory", "shown"]

#: The outputs that follow from the id alone, and how.
_OF_THE_ID = {"uuid": "{}", "resource_uri": "/api/v1/service/{}/"}
#: The inputs that are lists of records with keys that Tutum sets, and those keys.
_ANSWERED = {name: schema.answered_keys(name) for name in schema.INPUTS if schema.answered_keys(name)}
_SECRET = frozenset(name for name, attribute in schema.ATTRIBUTES.items() if attribute.secret)
_HOOK = "pulumi-tutum-preview"


@dataclass(frozen=True)
class _Value:
    """The resolved state of an Output."""

    value: Any
    is_known: bool
    is_secret: bool


class Memory:
    """What the engine tells in one preview about the services that it updates.

    Attributes:
        hook: to be bound to each service as `before_update`.
    """

    def __init__(self) -> None:
        self._lasting: dict[str, dict[str, _Value]] = {}
        options = pulumi.ResourceHookOptions(on_dry_run=True)
        self.hook = pulumi.ResourceHook(_HOOK, self._remember, options)

    async def _remember(self, args: pulumi.ResourceHookArgs) -> None:
        try:
            secret: set[str] = set()
            old = {}
            for name, value in (args.old_outputs or {}).items():
                if isinstance(value, pulumi.Output):
                    secret.add(name)
                    value = await value.future(with_unknowns=True)
                old[name] = value
            new = {}
            for name, value in (args.new_inputs or {}).items():
                is_output = isinstance(value, pulumi.Output)
                new[name] = await value.future(with_unknowns=True) if is_output else value
            found = outputs.lasting(old, new)
        except Exception as error:
            # An error here would fail the preview. Without this call the outputs are unknown.
            pulumi.log.debug(f"outputs of {args.urn} are not known in the preview: {type(error).__name__}")
            return
        self._lasting[args.urn] = {
            name: _Value(value, is_known=True, is_secret=name in secret) for name, value in found.items()
        }

    def lasting(self, urn: str | None, name: str) -> _Value | None:
        """An output of a service, if the service is updated and its update cannot change the output."""
        return self._lasting.get(urn or "", {}).get(name)


#: The connection to an engine, which each run has of its own -> what was told over it.
_memories: weakref.WeakKeyDictionary[Any, Memory] = weakref.WeakKeyDictionary()


def current_memory() -> Memory | None:
    """The memory of the preview that runs; None in an `up`, or if the engine has no hooks."""
    engine = host.engine_with_hooks() if pulumi.runtime.is_dry_run() else None
    if engine is None:
        return None
    if engine not in _memories:
        _memories[engine] = Memory()
    return _memories[engine]


def shown(
    service: pulumi.CustomResource, name: str, memory: Memory | None, *, may_be_null: bool
) -> pulumi.Output[Any]:
    """An output of a service as the program sees it.

    Args:
        name: of the output.
        memory: of the preview that runs.
        may_be_null: the output may have no value.
    """
    raw: pulumi.Output[Any] = pulumi.get(service, name)
    if not pulumi.runtime.is_dry_run():
        return _completed_output(service, name, raw)
    resolved = asyncio.ensure_future(_resolved(service, name, raw, memory, may_be_null))
    return _output(raw, resolved)


def _completed_output(
    service: pulumi.CustomResource, name: str, raw: pulumi.Output[Any]
) -> pulumi.Output[Any]:
    """The output of a service that exists, if need be made from the id or by default."""
    if name in _OF_THE_ID:
        return raw.apply(lambda value: service.id.apply(_OF_THE_ID[name].format) if value is None else value)
    if name == outputs.LINK_VARIABLES:
        return raw.apply(outputs.unpacked)
    if name not in outputs.ABSENT:
        return raw
    return raw.apply(lambda value: _default(name) if value is None else value)


def _default(name: str) -> Any:
    """What an output is that the state leaves out; None if it leaves out only what is null."""
    return schema.copied(outputs.ABSENT.get(name))


def _output(raw: pulumi.Output[Any], resolved: Awaitable[_Value]) -> pulumi.Output[Any]:
    async def value() -> Any:
        return (await resolved).value

    async def is_known() -> bool:
        return (await resolved).is_known

    async def is_secret() -> bool:
        return (await resolved).is_secret

    return pulumi.Output(raw.resources(), value(), is_known(), is_secret())


async def _resolved(
    service: pulumi.CustomResource,
    name: str,
    raw: pulumi.Output[Any],
    memory: Memory | None,
    may_be_null: bool,
) -> _Value:
    # The engine marks what it has, and says nothing of an output that it does not have.
    is_secret = await raw.is_secret() or name in _SECRET
    found = _Value(await raw.future(with_unknowns=True), await raw.is_known(), is_secret)
    if found.value is None and name in desired.DEFAULTS:
        return _Value(_default(name), True, found.is_secret)
    if await pulumi.get(service, "uuid").is_known():
        # The service stays as it is, or is only read. The state has no nulls, and the SDK takes a value that
        # is missing for one that is not known yet.
        if found.value is None and (name in outputs.ABSENT or may_be_null):
            return _Value(_default(name), True, found.is_secret)
        if found.value is not None or name not in _OF_THE_ID:
            return _Value(outputs.unpacked(found.value), found.is_known, found.is_secret)
    kept = memory.lasting(await service.urn.future(), name) if memory is not None else None
    if name in _ANSWERED and isinstance(found.value, (list, tuple)):
        value = _completed(name, found.value, kept.value if kept is not None else ())
        return _Value(value, not schema.has_unknown(value), found.is_secret)
    if found.value is not None:
        return found
    if name in _OF_THE_ID:
        id_ = await service.id.future()
        return _Value(_OF_THE_ID[name].format(id_), True, found.is_secret) if id_ else found
    if kept is not None:
        return _Value(kept.value, True, found.is_secret or kept.is_secret)
    return found


def _completed(name: str, items: Sequence[Any], lasting: Sequence[Mapping[str, Any]]) -> list[Any]:
    """Records with the keys that Tutum sets: those that last have their values, the others are unknown."""
    completed = []
    for i, item in enumerate(items):
        if isinstance(item, Mapping):
            known = lasting[i] if i < len(lasting) else {}
            missing = [key for key in _ANSWERED[name] if item.get(key) is None]
            values = {**item, **{key: known.get(key, UNKNOWN) for key in missing}}
            item = type(item)(**values)
        completed.append(item)
    return completed
