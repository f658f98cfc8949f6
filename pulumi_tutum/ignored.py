"""Paths of the resource option `ignore_changes` that have no effect on a Service, and the spelling that
works. Pure.

The engine compares paths with the inputs in the state, which have the normal form of `schema.py`, and says
nothing about a path that is not there.
"""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterable, Mapping
from typing import Any

from . import outputs, schema

__all__ = ["warning"]

_INPUTS = {**schema.INPUTS, **schema.OPTIONS}
_SEGMENT = re.compile(r'\.?(?:\[(?P<index>\d+)\]|\["(?P<quoted>(?:\\"|[^"])*)"\]|\[\*\]|(?P<name>[^.\[]+))')
_ANY = "*"


def warning(paths: Iterable[str], declared: Mapping[str, Any]) -> str:
    """A text about the paths that have no effect; "" if there are none.

    Args:
        declared: the program's arguments, as they are sent to the engine.
    """
    found = [f"{path!r} ({reason})" for path in paths if (reason := _reason(path, declared))]
    if not found:
        return ""
    return f"ignore_changes has no effect with {', '.join(found)}"


def _reason(path: str, declared: Mapping[str, Any]) -> str:
    """Why a path has no effect, and what to write; "" if it has."""
    segments = _segments(path)
    if segments is None:
        return "it is not a property path like `container_ports[0].inner_port`"
    name, rest = segments[0], segments[1:]
    if name == _ANY or (isinstance(name, str) and name.startswith("__")):
        return ""
    if name not in _INPUTS:
        return _no_input(str(name))
    return _below(_INPUTS[str(name)].kind, str(name), rest, declared.get(str(name)))


def _segments(path: str) -> list[str | int] | None:
    """The names and indexes of a path; None if the engine cannot read it."""
    segments: list[str | int] = []
    at = len(path) if path.startswith(".") else 0
    while at < len(path):
        match = _SEGMENT.match(path, at)
        if match is None:
            return None
        if match["index"] is not None:
            segments.append(int(match["index"]))
        elif match["quoted"] is not None:
            segments.append(match["quoted"].replace('\\"', '"'))
        else:
            segments.append(match["name"] or _ANY)
        at = match.end()
    return segments or None


def _no_input(name: str) -> str:
    for attribute in schema.INPUTS.values():
        if name in (attribute.read_as, *attribute.aliases):
            return f"write `{attribute.name}`"
    if name in schema.COMPUTED or name == outputs.ENDPOINT_URIS:
        return "it is an output, which no change of the program changes"
    snake = re.sub(r"(?<=[a-z])([A-Z])", r"_\1", name).lower()
    close = difflib.get_close_matches(snake, _INPUTS, n=1)
    hint = f"; write `{close[0]}`" if close else ""
    return f"a Service has no such input{hint}"


def _below(kind: schema.Kind, path: str, segments: list[str | int], declared: Any) -> str:
    """Why the rest of a path has no effect below a value of this kind; "" if it has."""
    if not segments:
        return ""
    segment, rest = segments[0], segments[1:]
    if isinstance(kind, schema.Environment):
        return _in_environment(path, segment, rest, declared)
    if isinstance(kind, schema.ListOf):
        return _in_list(kind, path, segment, rest, declared)
    if isinstance(kind, schema.Record):
        return _in_record(kind, path, segment, rest)
    return f"`{path}` has no parts; write `{path}`"


def _in_environment(path: str, segment: str | int, rest: list[str | int], declared: Any) -> str:
    if isinstance(segment, str):
        if not rest:
            return ""
        spelling = path if segment == _ANY else _with_key(path, segment)
        return f"the value of a variable has no parts; write `{spelling}`"
    names = list(declared) if isinstance(declared, Mapping) else []
    spelling = _with_key(path, names[segment]) if segment < len(names) else f"{path}.NAME"
    return f"variables have names, not indexes, however the program lists them; write `{spelling}`"


def _in_list(kind: schema.ListOf, path: str, segment: str | int, rest: list[str | int], declared: Any) -> str:
    if isinstance(segment, str) and segment != _ANY:
        spelling = "".join(_with_key("", key) for key in [segment, *rest] if isinstance(key, str))
        return f"`{path}` is a list; write `{path}[{_ANY}]{spelling}`"
    here = f"{path}[{segment}]"
    if rest and kind.short is not None and _has_short_form(declared, segment):
        # The engine compares the program's own spelling, which has no parts, with the state.
        return f"the program gives a short form, which has no parts; write `{here}`"
    return _below(kind.item, here, rest, None)


def _has_short_form(declared: Any, segment: str | int) -> bool:
    if not isinstance(declared, (list, tuple)):
        return False
    items = declared if segment == _ANY else declared[int(segment) : int(segment) + 1]
    return any(isinstance(item, str) for item in items)


def _in_record(kind: schema.Record, path: str, segment: str | int, rest: list[str | int]) -> str:
    if isinstance(segment, int):
        return f"`{path}` has names, not indexes; write `{path}.{'` or `'.join(kind.names())}`"
    if segment == _ANY:
        return f"`{path}` has no further parts; write `{path}`" if rest else ""
    names = {f.name: f for f in kind.fields}
    if segment not in names:
        close = difflib.get_close_matches(segment, kind.names(), n=1)
        known = f"write `{path}.{close[0]}`" if close else f"known are {', '.join(kind.names())}"
        return f"`{path}` has no {segment!r}; {known}"
    if names[segment].computed:
        return "it is read-only, so no change of the program changes it"
    return _below(names[segment].kind, f"{path}.{segment}", rest, None)


def _with_key(path: str, key: str) -> str:
    """A path with one more key, in the spelling that the engine can read."""
    if re.fullmatch(r"[A-Za-z0-9_]+", key):
        return f"{path}.{key}"
    quoted = key.replace('"', '\\"')
    return f'{path}["{quoted}"]'
