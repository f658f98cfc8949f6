"""The attribute table: what a service is made of, and every rule that follows from it.

One row of `ATTRIBUTES` per attribute of the specification. The provider's check and diff, the request
bodies, the server's validation and PATCH rules, and the tables in the documentation are derived from the rows
by the functions at the end of this module. A new attribute is one row here and one parameter of
`pulumi_tutum.Service`. `OPTIONS` are the inputs of a Service that are no attributes: they say what the
provider does, and are never sent.

Three forms of a value:
  declared  what a user wrote, in any accepted spelling (`tags=["a"]`, an environment as a dict, a uuid)
  normal    the one spelling kept in Pulumi's inputs and state: the API's own shape, except that
            `container_envvars` is a dict. Order of lists is kept: `ignore_changes` uses indexes.
  wire      what the API's bodies carry, and what the server stores

Values that are not known yet (outputs of services that do not exist, `pulumi.output.Unknown`) may stand at
any depth: they pass every check, stay as they are, and are equal to nothing.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Container, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from .errors import Problem

EVERY_NODE = "EVERY_NODE"

#: What a change of an attribute needs, in the order of how much it disturbs.
PATCH, SCALE, REDEPLOY, REPLACE = "patch", "scale", "redeploy", "replace"

#: What an output follows, where that is not an input: the inputs and states whose change starts, stops or
#: replaces containers.
CONTAINERS = "containers"

#: The largest number of containers that one service may have (the API documents no limit; this is ours).
MAX_CONTAINERS = 1000

NAME_PATTERN = re.compile(r"[A-Za-z0-9](?:[A-Za-z0-9_-]{0,61}[A-Za-z0-9])?")
UUID_PATTERN = re.compile(r"[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}", re.IGNORECASE)
_URI_PATTERN = re.compile(
    r"(?:https?://[^/]+)?/?/?api/v1/service/(" + UUID_PATTERN.pattern + r")/?", re.IGNORECASE
)
_IMAGE_PATTERN = re.compile(
    r"(?:[A-Za-z0-9.-]+(?::[0-9]{1,5})?/)?"  # registry
    r"[a-z0-9]+(?:(?:[._]|__|-+)[a-z0-9]+)*(?:/[a-z0-9]+(?:(?:[._]|__|-+)[a-z0-9]+)*)*"  # repository
    r"(?::[A-Za-z0-9_][A-Za-z0-9_.-]{0,127})?(?:@sha256:[0-9a-f]{64})?"  # tag, digest
    r"|sha256:[0-9a-f]{64}"
)
_TAG_PATTERN = re.compile(r"[^\s,]{1,128}")


def is_unknown(value: Any) -> bool:
    """True for a value that Pulumi does not know yet. By name, so that the server never imports pulumi."""
    kind = type(value)
    return kind.__name__ == "Unknown" and kind.__module__ == "pulumi.output"


def has_unknown(value: Any) -> bool:
    """True if `value` is unknown or holds an unknown at any depth."""
    if isinstance(value, Mapping):
        return any(has_unknown(v) for v in value.values())
    if isinstance(value, (list, tuple)):
        return any(has_unknown(v) for v in value)
    return is_unknown(value)


class _Never:
    """A comparison key that equals nothing, itself included: stands for an unknown value."""

    __hash__ = object.__hash__

    def __eq__(self, other: object) -> bool:
        return False


def default_tag(image: str) -> str:
    """The image with its tag: `acme/web` and `acme/web:latest` are the same. A digest never gets a tag."""
    if "@" in image or image.startswith("sha256:") or ":" in image.rsplit("/", 1)[-1]:
        return image
    return f"{image}:latest"


def service_uuid(reference: str) -> str | None:
    """The uuid in a service URI (absolute or not) or a bare uuid, lower-cased; None for anything else."""
    match = UUID_PATTERN.fullmatch(reference) or _URI_PATTERN.fullmatch(reference)
    return match.group(match.lastindex or 0).lower() if match else None


def service_uri(reference: str) -> str:
    """The resource URI for a uuid or URI; anything else is returned as it is."""
    uuid = service_uuid(reference)
    return f"/api/v1/service/{uuid}/" if uuid else reference


# -- kinds -----------------------------------------------------------------------------------------------


class Kind:
    """The shape of a value: how it is checked, spelled and compared.

    `strict` is the provider's side; the server is as lenient as its clients are old: numbers as strings,
    empty strings for null, keys that it does not know.
    """

    #: for the documentation
    shape = "any"

    def problems(self, value: Any, path: str, strict: bool) -> Iterator[Problem]:
        """What is wrong with a declared value, which is neither unknown nor None ("not given")."""
        raise NotImplementedError

    def normal(self, value: Any) -> Any:
        """The normal form of a valid declared value."""
        return value

    def key(self, value: Any) -> Any:
        """What a normal value is compared by."""
        return value

    def wire(self, value: Any) -> Any:
        """The wire form of a normal value."""
        return value

    def observed(self, value: Any) -> Any:
        """The normal form of a wire value that the API answered."""
        return self.normal(value)


@dataclass(frozen=True)
class Text(Kind):
    """A string; `rule` returns what is wrong with it, or None."""

    rule: Callable[[str], str | None] | None = None
    canonical: Callable[[str], str] | None = None
    nullable: bool = False
    shape = "string"

    def problems(self, value: Any, path: str, strict: bool) -> Iterator[Problem]:
        if not isinstance(value, str):
            yield Problem(path, f"must be a string, not {_kind_name(value)}")
        elif "\0" in value:
            yield Problem(path, "must not contain a NUL character")
        elif value == "" and self.nullable:
            return
        elif self.rule and (reason := self.rule(value)):
            yield Problem(path, reason)

    def key(self, value: Any) -> Any:
        if self.nullable and value == "":
            return None
        return self.canonical(value) if self.canonical and isinstance(value, str) else value


@dataclass(frozen=True)
class Choice(Kind):
    """One of a few words."""

    values: tuple[str, ...]

    @property
    def shape(self) -> str:  # type: ignore[override]
        return " \\| ".join(f"`{v}`" for v in self.values)

    def problems(self, value: Any, path: str, strict: bool) -> Iterator[Problem]:
        if not isinstance(value, str) or value not in self.values:
            shown = f", not {value!r}" if isinstance(value, str) and len(value) < 60 else ""
            yield Problem(path, f"must be one of {', '.join(self.values)}{shown}")


@dataclass(frozen=True)
class Integer(Kind):
    """A whole number in a range. Pulumi sends floats, old clients digits in strings; both are understood."""

    low: int
    high: int

    @property
    def shape(self) -> str:  # type: ignore[override]
        return f"integer, {self.low} " + ("or more" if self.high >= 2**31 - 1 else f"to {self.high}")

    def problems(self, value: Any, path: str, strict: bool) -> Iterator[Problem]:
        number = _whole(value, digits=not strict)
        if number is None or not self.low <= number <= self.high:
            shown = ""
            if isinstance(value, (int, float)) and not isinstance(value, bool):
                whole = _whole(value, digits=False)  # Pulumi's numbers are all floats
                shown = f", not {value if whole is None else whole}"
            elif strict:
                shown = f", not {_kind_name(value)}"
            yield Problem(path, f"must be a whole number from {self.low} to {self.high}{shown}")

    def normal(self, value: Any) -> Any:
        number = _whole(value, digits=True)
        return value if number is None else number


@dataclass(frozen=True)
class Boolean(Kind):
    shape = "boolean"

    def problems(self, value: Any, path: str, strict: bool) -> Iterator[Problem]:
        if not isinstance(value, bool):
            yield Problem(path, f"must be true or false, not {_kind_name(value)}")


@dataclass(frozen=True)
class Field:
    """A key of a nested record.

    Attributes:
        computed: Tutum sets it; it is read-only.
        follows: of a computed key: the other keys of the record, or CONTAINERS, that have to change before
            its value can.
        named_by_target: when it is left out, Tutum takes the name of the service that the record refers to.
    """

    name: str
    kind: Kind
    doc: str
    required: bool = False
    default: Any = None
    computed: bool = False
    follows: tuple[str, ...] = ()
    named_by_target: bool = False


@dataclass(frozen=True)
class Record(Kind):
    """An object with known keys. `rule` yields what is wrong across keys; `tidy` finishes the normal form."""

    fields: tuple[Field, ...]
    rule: Callable[[Mapping[str, Any], str], Iterator[Problem]] | None = None
    tidy: Callable[[dict[str, Any]], dict[str, Any]] | None = None
    empty_is_null: frozenset[Any] = frozenset({""})
    shape = "object"

    def given(self, value: Mapping[str, Any]) -> dict[str, Any]:
        """The keys that say something: not null, not computed, and not one of the nulls of old clients."""
        out: dict[str, Any] = {}
        for f in self.fields:
            item = value.get(f.name)
            if f.computed or item is None:
                continue
            if not is_unknown(item) and isinstance(item, (str, int, float)) and not isinstance(item, bool):
                if item == "" and "" in self.empty_is_null and not f.required:
                    continue
                if item == 0 and 0 in self.empty_is_null and not f.required:
                    continue
            out[f.name] = item
        return out

    def problems(self, value: Any, path: str, strict: bool) -> Iterator[Problem]:
        if not isinstance(value, Mapping):
            yield Problem(path, f"must be an object with {', '.join(self.names())}, not {_kind_name(value)}")
            return
        if strict:
            for name in value:
                if name not in {f.name for f in self.fields}:
                    yield Problem(
                        _join(path, str(name)), f"is not known here; known are {', '.join(self.names())}"
                    )
        given = self.given(value)
        bad = False
        for f in self.fields:
            if f.computed:
                continue
            if f.name not in given:
                if f.required:
                    bad = True
                    yield Problem(_join(path, f.name), "is required")
            elif not is_unknown(given[f.name]):
                for problem in f.kind.problems(given[f.name], _join(path, f.name), strict):
                    bad = True
                    yield problem
        if not bad and self.rule:
            yield from self.rule(given, path)

    def field(self, name: str) -> Field:
        return next(f for f in self.fields if f.name == name)

    def names(self) -> list[str]:
        return [f.name for f in self.fields if not f.computed]

    def normal(self, value: Any) -> Any:
        given = self.given(value)
        out = {
            f.name: given[f.name] if is_unknown(given[f.name]) else f.kind.normal(given[f.name])
            for f in self.fields
            if f.name in given
        }
        for f in self.fields:
            if f.default is not None and f.name not in out:
                out[f.name] = f.default
        return self.tidy(out) if self.tidy else out

    def key(self, value: Any) -> Any:
        return tuple(
            _Never() if is_unknown(value.get(f.name)) else _key(f.kind, value.get(f.name))
            for f in self.fields
            if not f.computed
        )

    def wire(self, value: Any) -> Any:
        return {f.name: f.kind.wire(value[f.name]) for f in self.fields if f.name in value and not f.computed}


def _key(kind: Kind, value: Any) -> Any:
    return None if value is None else kind.key(value)


@dataclass(frozen=True)
class ListOf(Kind):
    """A list of records or words. `ordered` only says whether order has a meaning; it is kept either way.

    `short` turns a short form of an item (a tag as a string) into the full one; `rule` looks at the whole.
    """

    item: Kind
    ordered: bool = False
    short: Callable[[Any], Any] | None = None
    rule: Callable[[Sequence[Any], str], Iterator[Problem]] | None = None

    @property
    def shape(self) -> str:  # type: ignore[override]
        return f"list of {self.item.shape}s"

    def _long(self, item: Any) -> Any:
        return self.short(item) if self.short and not is_unknown(item) else item

    def problems(self, value: Any, path: str, strict: bool) -> Iterator[Problem]:
        if not isinstance(value, (list, tuple)):
            yield Problem(path, f"must be a list, not {_kind_name(value)}")
            return
        good = []
        for i, item in enumerate(value):
            if is_unknown(item):
                continue
            if item is None:
                yield Problem(f"{path}[{i}]", "must not be null")
                continue
            found = list(self.item.problems(self._long(item), f"{path}[{i}]", strict))
            yield from found
            if not found:
                good.append((i, self.item.normal(self._long(item))))
        if self.rule and len(good) == len(value):
            yield from self.rule([item for _, item in good], path)

    def normal(self, value: Any) -> Any:
        return [item if is_unknown(item) else self.item.normal(self._long(item)) for item in value]

    def key(self, value: Any) -> Any:
        keys = [_Never() if is_unknown(item) else self.item.key(item) for item in value]
        return keys if self.ordered else _Bag(keys)

    def wire(self, value: Any) -> Any:
        return [self.item.wire(item) for item in value]

    def observed(self, value: Any) -> Any:
        return [self.item.observed(self._long(item)) for item in value]


class _Bag:
    """Keys compared without regard to order, duplicates counted once."""

    def __init__(self, keys: Iterable[Any]) -> None:
        self.keys = list(keys)

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, _Bag):
            return NotImplemented
        return all(k in other.keys for k in self.keys) and all(k in self.keys for k in other.keys)

    __hash__ = None  # type: ignore[assignment]


@dataclass(frozen=True)
class Environment(Kind):
    """Variables: a dict, or the API's list of `{key, value}`. Normal form: a dict of strings."""

    shape = "object of strings"

    def problems(self, value: Any, path: str, strict: bool) -> Iterator[Problem]:
        if isinstance(value, Mapping):
            for key, item in value.items():
                yield from self._entry(key, item, f"{path}.{key}" if isinstance(key, str) and key else path)
            return
        if not isinstance(value, (list, tuple)):
            yield Problem(
                path, f"must be an object, or a list of objects with key and value, not {_kind_name(value)}"
            )
            return
        seen: set[str] = set()
        for i, entry in enumerate(value):
            at = f"{path}[{i}]"
            if is_unknown(entry):
                continue
            if not isinstance(entry, Mapping):
                yield Problem(at, f"must be an object with key and value, not {_kind_name(entry)}")
                continue
            if strict:
                for name in entry:
                    if name not in ("key", "value"):
                        yield Problem(_join(at, str(name)), "is not known here; known are key, value")
            key = entry.get("key")
            if key is None:
                yield Problem(f"{at}.key", "is required")
                continue
            if is_unknown(key):
                continue
            if isinstance(key, str) and key in seen:
                yield Problem(f"{at}.key", f"{key!r} is given twice")
            yield from self._entry(key, entry.get("value"), at)
            if isinstance(key, str):
                seen.add(key)

    def _entry(self, key: Any, value: Any, path: str) -> Iterator[Problem]:
        # A value is never shown: it may be a secret.
        if not isinstance(key, str) or not key or "=" in key or "\0" in key:
            yield Problem(path, "a variable's name must be a non-empty string without '='")
        if value is None:
            yield Problem(path, "must have a value (an empty string is allowed)")
        elif is_unknown(value):
            return
        elif isinstance(value, bool):
            yield Problem(path, 'must be a string; write "true" or "false" in quotes')
        elif not isinstance(value, (str, int, float)):
            yield Problem(path, f"must be a string, not {_kind_name(value)}")
        elif isinstance(value, str) and "\0" in value:
            yield Problem(path, "must not contain a NUL character")

    def normal(self, value: Any) -> Any:
        if isinstance(value, Mapping):
            return {str(k): self._text(v) for k, v in value.items()}
        for entry in value:
            name = entry if is_unknown(entry) else entry.get("key")
            if is_unknown(name):
                return name  # only in a preview: as long as a name is unknown, the whole is
        return {str(e["key"]): self._text(e.get("value")) for e in value}

    @staticmethod
    def _text(value: Any) -> Any:
        if is_unknown(value) or isinstance(value, str):
            return value
        if isinstance(value, float) and value.is_integer():
            value = int(value)
        return str(value)

    def key(self, value: Any) -> Any:
        return {k: _Never() if is_unknown(v) else v for k, v in value.items()}

    def wire(self, value: Any) -> Any:
        return [{"key": k, "value": v} for k, v in value.items()]


# -- rules of single values ------------------------------------------------------------------------------


def _name_rule(value: str) -> str | None:
    if NAME_PATTERN.fullmatch(value):
        return None
    return "must be 1 to 63 letters, digits, - or _, and begin and end with a letter or digit"


def _image_rule(value: str) -> str | None:
    if _IMAGE_PATTERN.fullmatch(value) and len(value) <= 512:
        return None
    return "must be an image in Docker's form, [registry/]repository[:tag][@digest], repository in lower case"


def _absolute(value: str) -> str | None:
    if not value.startswith("/"):
        return "must be an absolute path"
    if ":" in value:
        return "must not contain ':'"
    return None


def _reference(value: str) -> str | None:
    if service_uuid(value):
        return None
    return "must be a Service, a uuid or a resource URI; look up a name with get_service(name=...)"


def _link_name(value: str) -> str | None:
    if re.fullmatch(r"[A-Za-z0-9](?:[A-Za-z0-9_.-]{0,61}[A-Za-z0-9])?", value):
        return None
    return "must be 1 to 63 letters, digits, - . or _, and begin and end with a letter or digit"


def _tag_rule(value: str) -> str | None:
    return None if _TAG_PATTERN.fullmatch(value) else "must be 1 to 128 characters without spaces and commas"


def _word_rule(value: str) -> str | None:
    import shlex

    try:
        shlex.split(value)
    except ValueError as error:
        return f"must be words as for a shell: {str(error).lower()}"
    return None


# -- rules of records and lists --------------------------------------------------------------------------


def _tidy_port(port: dict[str, Any]) -> dict[str, Any]:
    if "outer_port" in port:
        port["published"] = True
    return port


def _ports_rule(ports: Sequence[Any], path: str) -> Iterator[Problem]:
    inner: dict[tuple[Any, Any], list[tuple[int, Any]]] = {}
    outer: dict[tuple[Any, Any], int] = {}
    for i, port in enumerate(ports):
        protocol, number, fixed = port.get("protocol"), port.get("inner_port"), port.get("outer_port")
        if is_unknown(protocol) or is_unknown(number) or is_unknown(fixed):
            continue
        for _, other in inner.get((protocol, number), ()):
            # The same inner port may be published at several outer ports, and that is all.
            if fixed is None or other is None:
                yield Problem(f"{path}[{i}]", f"{protocol} port {number} is given twice")
                break
        inner.setdefault((protocol, number), []).append((i, fixed))
        if fixed is not None:
            if (protocol, fixed) in outer:
                yield Problem(f"{path}[{i}].outer_port", f"{protocol} port {fixed} is given twice")
            outer.setdefault((protocol, fixed), i)


def _binding_rule(binding: Mapping[str, Any], path: str) -> Iterator[Problem]:
    if "volumes_from" in binding:
        for name in ("container_path", "host_path"):
            if name in binding:
                yield Problem(_join(path, name), "cannot be given together with volumes_from")
    elif "container_path" not in binding:
        yield Problem(path, "needs container_path or volumes_from")


def _bindings_rule(bindings: Sequence[Any], path: str) -> Iterator[Problem]:
    yield from _unique(bindings, path, "container_path")


def _links_rule(links: Sequence[Any], path: str) -> Iterator[Problem]:
    yield from _unique(links, path, "name", fold=True)


def _unique(items: Sequence[Any], path: str, name: str, *, fold: bool = False) -> Iterator[Problem]:
    seen: set[Any] = set()
    for i, item in enumerate(items):
        value = item.get(name)
        if value is None or is_unknown(value):
            continue
        value = value.lower() if fold and isinstance(value, str) else value
        if value in seen:
            yield Problem(f"{path}[{i}].{name}", f"{item.get(name)!r} is given twice")
        seen.add(value)


def _tidy_healthcheck(check: dict[str, Any]) -> dict[str, Any]:
    if is_unknown(check.get("disabled")):
        return check
    if check.pop("disabled", False):
        return {"disabled": True}
    return check


def _healthcheck_rule(check: Mapping[str, Any], path: str) -> Iterator[Problem]:
    disabled = check.get("disabled", False)
    if is_unknown(disabled):
        return
    if disabled:
        for name in check:
            if name != "disabled":
                yield Problem(_join(path, name), "cannot be given together with disabled")
        return
    if ("http" in check) == ("command" in check):
        yield Problem(path, "needs either http or command, or disabled")
    if "port" in check and "http" not in check:
        yield Problem(_join(path, "port"), "goes with http only")


@dataclass(frozen=True)
class _Reference(Text):
    """A reference to a service; normal form: its resource URI."""

    rule: Callable[[str], str | None] | None = _reference

    def normal(self, value: Any) -> Any:
        return service_uri(value)

    def key(self, value: Any) -> Any:
        return service_uri(value)


PORT = Integer(1, 65535)

CONTAINER_PORT = Record(
    (
        Field("protocol", Choice(("tcp", "udp")), "`tcp` or `udp`", required=True),
        Field("inner_port", PORT, "the port inside the container", required=True),
        Field(
            "outer_port",
            PORT,
            "the port of the node; left out: dynamic if `published`; given: implies `published`",
        ),
        Field(
            "published",
            Boolean(),
            "whether the port is reachable from outside, not only through links",
            default=False,
        ),
        Field(
            "port_name",
            Text(),
            "name of the well-known service of this port",
            computed=True,
            follows=("protocol", "inner_port"),
        ),
        Field(
            "endpoint_uri",
            Text(),
            "where a fixed published port answers",
            computed=True,
            follows=("protocol", "inner_port", "outer_port", "published", CONTAINERS),
        ),
    ),
    tidy=_tidy_port,
    # go-tutum always sends `outer_port: 0`, and other clients send empty strings.
    empty_is_null=frozenset({"", 0}),
)
LINK = Record(
    (
        Field("to_service", _Reference(), "a Service, its uuid or its resource URI", required=True),
        Field(
            "name",
            Text(_link_name),
            "the link name; default: the resource name of a Service object, else the target's name",
            named_by_target=True,
        ),
        Field("from_service", Text(), "resource URI of the service that links", computed=True),
    )
)
BINDING = Record(
    (
        Field("host_path", Text(_absolute), "a folder of the node; left out: a volume of its own"),
        Field("container_path", Text(_absolute), "where it is mounted; required unless `volumes_from`"),
        Field("rewritable", Boolean(), "false: mounted read-only", default=True),
        Field("volumes_from", _Reference(), "a Service whose volumes are mounted"),
    ),
    rule=_binding_rule,
)
TAG = Record((Field("name", Text(_tag_rule), "the tag", required=True),))
HEALTHCHECK = Record(
    (
        Field(
            "http",
            Text(lambda v: None if v.startswith("/") else "must be a path that begins with /"),
            "path that must answer 2xx or 3xx",
        ),
        Field("port", PORT, "the inner port for `http`; default: the first tcp port of service and image"),
        Field("command", Text(_word_rule), "command that must exit 0 inside the container"),
        Field("interval_seconds", Integer(1, 3600), "seconds between two probes", default=5),
        Field("timeout_seconds", Integer(1, 3600), "seconds a probe may take", default=5),
        Field("retries", Integer(1, 100), "failures in a row that make it unhealthy", default=3),
        Field("start_period_seconds", Integer(0, 3600), "seconds in which failures do not count", default=0),
        Field("disabled", Boolean(), "true: no check is made, not even the image's own HEALTHCHECK"),
    ),
    rule=_healthcheck_rule,
    tidy=_tidy_healthcheck,
)


# -- the table -------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Attribute:
    """One row.

    Attributes:
        name: the API's name, everywhere.
        kind: shape, checks, comparison.
        doc: one sentence.
        required, default: of inputs; a default of None means that the attribute may be absent or null.
        computed: Tutum sets it; not an input.
        change: what a changed value needs: PATCH (only stored), SCALE, REDEPLOY, or REPLACE.
        patch: the server accepts it in a PATCH.
        read_as: its name in answers, where that differs.
        follows: of computed ones: the inputs, or CONTAINERS, of which one has to change before an update can
            change the value; () is for values that no update changes. None: an update may find another value
            whatever it changes itself, because other services have a part in it.
        listed: it is part of list objects too, not only of details.
        secret: its values must not be shown.
        extension: beyond the specification; old clients ignore it.
        kept: left out of a program, the service keeps what it has: absent is not compared.
        aliases: other names on the wire, accepted and answered (`net`).
    """

    name: str
    kind: Kind
    doc: str
    required: bool = False
    default: Any = None
    computed: bool = False
    change: str = REDEPLOY
    patch: bool = True
    read_as: str = ""
    listed: bool = True
    secret: bool = False
    extension: bool = False
    kept: bool = False
    aliases: tuple[str, ...] = field(default=())
    follows: tuple[str, ...] | None = None

    @property
    def answer(self) -> str:
        """The attribute's name in the API's answers."""
        return self.read_as or self.name


def _computed(
    name: str,
    kind: Kind,
    doc: str,
    *,
    follows: tuple[str, ...] | None,
    listed: bool = True,
    secret: bool = False,
) -> Attribute:
    return Attribute(
        name, kind, doc, computed=True, patch=False, listed=listed, secret=secret, follows=follows
    )


_COUNT = Integer(0, 2**31 - 1)

# fmt: off
ATTRIBUTES: dict[str, Attribute] = {
    a.name: a
    for a in (
        Attribute("image", Text(_image_rule, default_tag),
                  "The image, in Docker's form; no tag means `latest`.", required=True, read_as="image_name"),
        Attribute("name", Text(_name_rule),
                  "The service's name, inherited by containers, endpoints and variables. Left out: the "
                  "resource name plus a short suffix.", change=REPLACE, patch=False),
        Attribute("target_num_containers", Integer(0, MAX_CONTAINERS),
                  "How many containers should run. Not with `EVERY_NODE`.", default=1, change=SCALE),
        Attribute("run_command", Text(_word_rule, nullable=True),
                  "Command of the containers, instead of the image's."),
        Attribute("entrypoint", Text(_word_rule, nullable=True),
                  "Entrypoint of the containers, instead of the image's."),
        Attribute("container_ports", ListOf(CONTAINER_PORT, rule=_ports_rule),
                  "Ports of the containers, added to the image's.", default=[]),
        Attribute("container_envvars", Environment(),
                  "Environment variables, over those of the image and of links.",
                  default={}, listed=False, secret=True),
        Attribute("linked_to_service", ListOf(LINK, rule=_links_rule),
                  "Services that the containers reach by name.", default=[], listed=False),
        Attribute("bindings", ListOf(BINDING, rule=_bindings_rule),
                  "Volumes. A change replaces the service and destroys its volumes.",
                  default=[], change=REPLACE, listed=False),
        Attribute("autorestart", Choice(("OFF", "ON_FAILURE", "ALWAYS")),
                  "Whether containers that stop are restarted.", default="OFF"),
        Attribute("autodestroy", Choice(("OFF", "ON_SUCCESS", "ALWAYS")),
                  "Whether containers that stop are terminated.", default="OFF"),
        Attribute("sequential_deployment", Boolean(),
                  "Start containers one after another, each linked to those before it.", default=False),
        Attribute("roles", ListOf(Choice(("global",))),
                  "Roles whose API access the containers get.", default=[], listed=False),
        Attribute("privileged", Boolean(), "Docker's `privileged` flag.", default=False),
        Attribute("deployment_strategy", Choice(("EMPTIEST_NODE", "HIGH_AVAILABILITY", EVERY_NODE)),
                  "How containers are spread over nodes. To or from `EVERY_NODE` replaces.",
                  default="EMPTIEST_NODE", change=PATCH),
        Attribute("tags", ListOf(TAG, short=lambda v: {"name": v} if isinstance(v, str) else v),
                  "Only nodes with all these tags are used.", default=[], change=PATCH, listed=False),
        Attribute("autoredeploy", Boolean(),
                  "Redeploy when the image is updated in its registry.", default=False, change=PATCH),
        Attribute("network", Choice(("bridge", "host")),
                  "Network mode of the containers.", default="bridge", listed=False, aliases=("net",)),
        Attribute("pid", Choice(("none", "host")),
                  "Process namespace of the containers.", default="none", listed=False),
        Attribute("cpu_shares", Integer(0, 262144),
                  "Relative CPU priority (Docker's default is 1024)."),
        Attribute("memory", Integer(4, 2**31 - 1), "Memory limit in MB."),
        Attribute("healthcheck", HEALTHCHECK,
                  "How a container shows that it works: an HTTP path or a command that is probed. A "
                  "container is up when the check has passed.",
                  listed=False, extension=True),
        Attribute("monitor_seconds", Integer(0, 3600),
                  "Without a health check: how many seconds a container must run before it is up. Default: "
                  "`tutum:monitorSeconds`, else 5.", change=PATCH, listed=False, extension=True, kept=True),
        _computed("uuid", Text(), "Identifies the service; also the resource's id.", follows=()),
        _computed("resource_uri", Text(), "The service's path in the API.", follows=()),
        _computed("image_name", Text(), "The image with its tag.", follows=("image",)),
        _computed("image_tag", Text(), "Resource URI of the image's tag.", follows=("image",)),
        _computed("public_dns", Text(),
                  "Name of the nodes on which containers with published ports run.", follows=("name",)),
        _computed("state", Choice(()), "The service's state.", follows=(CONTAINERS,)),
        _computed("synchronized", Boolean(),
                  "Whether the containers match the definition.", follows=(CONTAINERS,)),
        _computed("deployed_datetime", Text(), "Last deployment, or null.", follows=(CONTAINERS,)),
        _computed("started_datetime", Text(), "Last start, or null.", follows=(CONTAINERS,)),
        _computed("stopped_datetime", Text(), "Last stop, or null.", follows=(CONTAINERS,)),
        _computed("destroyed_datetime", Text(), "Termination, or null.", follows=()),
        _computed("current_num_containers", _COUNT, "Containers there are.", follows=(CONTAINERS,)),
        _computed("running_num_containers", _COUNT, "Containers that run.", follows=(CONTAINERS,)),
        _computed("stopped_num_containers", _COUNT, "Containers that are stopped.", follows=(CONTAINERS,)),
        _computed("stack", Text(), "Resource URI of the stack, or null.", follows=()),
        _computed("containers", ListOf(Text(), ordered=True),
                  "Resource URIs of the containers.", follows=(CONTAINERS,), listed=False),
        _computed("linked_from_service", ListOf(LINK),
                  "Services that link to this one: `from_service`, `to_service`, `name`.",
                  follows=None, listed=False),
        _computed("link_variables", Environment(),
                  "Variables that a service which links to this one gets.",
                  follows=("name", CONTAINERS), listed=False, secret=True),
    )
}

#: Inputs of a Service that say what the provider does. Never on the wire, in no answer.
OPTIONS: dict[str, Attribute] = {
    a.name: a
    for a in (
        Attribute("running", Boolean(),
                  "False: what runs is stopped, and changes are stored for the next start.", default=True),
        Attribute("wait", Boolean(),
                  "False: done when the start is accepted; state and counts are not compared.", default=True),
        Attribute("timeout_seconds", Integer(1, 7 * 24 * 3600),
                  "How long one operation may take; `custom_timeouts` goes first. Default: "
                  "`tutum:timeoutSeconds`, else 600."),
        Attribute("job", Boolean(),
                  "True: the containers are expected to end. `up` waits until all have; exit code 0 is "
                  "success. `autodestroy` defaults to `ON_SUCCESS`.", default=False),
        Attribute("rollback_on_failure", Boolean(),
                  "After a failed update, apply the last good inputs again (the update still fails).",
                  default=False),
        Attribute("adopt", Text(lambda v: None if v else "must be the uuid, URI or name of a service"),
                  "uuid or name of an existing service to take over instead of creating one."),
    )
}
# fmt: on

INPUTS: dict[str, Attribute] = {name: a for name, a in ATTRIBUTES.items() if not a.computed}
COMPUTED: dict[str, Attribute] = {name: a for name, a in ATTRIBUTES.items() if a.computed}


# -- what is derived from it -----------------------------------------------------------------------------


def problems(props: Mapping[str, Any], *, strict: bool = True, partial: bool = False) -> list[Problem]:
    """Everything that is wrong with declared attributes.

    Args:
        props: attribute name to declared value; names that are no inputs are not looked at.
        strict: the provider's side (see `Kind`).
        partial: a PATCH: required attributes may be absent, rules across attributes see only what is there.
    """
    found: list[Problem] = []
    for name, attribute in INPUTS.items():
        value = props.get(name)
        if value is None:
            if attribute.required and not partial:
                found.append(Problem(name, "is required"))
        elif not is_unknown(value):
            found.extend(attribute.kind.problems(value, name, strict))
    bad = {re.split(r"[.\[]", p.path, maxsplit=1)[0] for p in found}
    found.extend(p for p in _across(props, strict) if p.path not in bad)
    return found


def _across(props: Mapping[str, Any], strict: bool) -> Iterator[Problem]:
    """Rules that look at several attributes."""
    if props.get("autorestart") == "ALWAYS" and _is_known(props.get("autodestroy"), "OFF"):
        yield Problem("autodestroy", "must be OFF when autorestart is ALWAYS")
    if (
        strict
        and props.get("deployment_strategy") == EVERY_NODE
        and props.get("target_num_containers") is not None
    ):
        yield Problem(
            "target_num_containers", "cannot be given with EVERY_NODE: one container runs on every node"
        )


def _is_known(value: Any, default: str) -> bool:
    """True for a known value that is given and is not the default."""
    return value is not None and not is_unknown(value) and value != default


def normal(props: Mapping[str, Any], *, defaults: bool = True) -> dict[str, Any]:
    """The normal form of valid declared attributes; with `defaults`, absent ones are filled in."""
    out: dict[str, Any] = {}
    for name, attribute in INPUTS.items():
        value = props.get(name)
        if value is None:
            if defaults and attribute.default is not None and not _not_applicable(name, props):
                out[name] = copied(attribute.default)
        else:
            out[name] = value if is_unknown(value) else attribute.kind.normal(value)
    return out


def _not_applicable(name: str, props: Mapping[str, Any]) -> bool:
    strategy = props.get("deployment_strategy")
    return name == "target_num_containers" and (strategy == EVERY_NODE or is_unknown(strategy))


def copied(value: Any) -> Any:
    """A default, to be changed by whoever gets it."""
    return list(value) if isinstance(value, list) else dict(value) if isinstance(value, dict) else value


def same(name: str, old: Any, new: Any) -> bool:
    """Whether two normal values of an input mean the same. Unknown never is; absent is the default."""
    attribute = INPUTS.get(name) or OPTIONS[name]
    old = attribute.default if old is None else old
    new = attribute.default if new is None else new
    if is_unknown(old) or is_unknown(new):
        return False
    if old is None or new is None:
        return bool(_key(attribute.kind, old) == _key(attribute.kind, new))
    return bool(attribute.kind.key(old) == attribute.kind.key(new))


def changes(old: Mapping[str, Any], new: Mapping[str, Any]) -> dict[str, str]:
    """Which attributes differ between two sets in normal form, and what each needs (PATCH ... REPLACE)."""
    found: dict[str, str] = {}
    for name, attribute in INPUTS.items():
        if attribute.kept and new.get(name) is None:
            continue
        if not same(name, old.get(name), new.get(name)):
            found[name] = attribute.change
    if "deployment_strategy" in found:
        strategies = (old.get("deployment_strategy"), new.get("deployment_strategy"))
        if EVERY_NODE in strategies:
            found["deployment_strategy"] = REPLACE
            found.pop("target_num_containers", None)
    elif new.get("deployment_strategy") == EVERY_NODE:
        found.pop("target_num_containers", None)
    return found


def body(props: Mapping[str, Any], names: Iterable[str] | None = None) -> dict[str, Any]:
    """The JSON body of a POST or PATCH for attributes in normal form.

    Args:
        names: only these; one of them that is absent in `props` is sent as null, which resets it.
    """
    out: dict[str, Any] = {}
    for name, attribute in INPUTS.items():
        if names is not None and name not in names:
            continue
        value = props.get(name)
        if value is not None:
            out[name] = attribute.kind.wire(value)
        elif names is not None:
            default = attribute.default
            out[name] = attribute.kind.wire(default) if default is not None else None
        else:
            continue
        for alias in attribute.aliases:
            out[alias] = out[name]
    return out


def observed(answer: Mapping[str, Any]) -> dict[str, Any]:
    """The inputs, in normal form, of a detail object of the API. Nulls and empty texts are left out."""
    out: dict[str, Any] = {}
    for name, attribute in INPUTS.items():
        value = answer.get(attribute.answer)
        for alias in attribute.aliases:
            value = answer.get(alias) if value is None else value
        if value is None or (value == "" and isinstance(attribute.kind, Text)):
            continue
        out[name] = attribute.kind.observed(value)
    return out


def declared_or_observed(name: str, declared: Any, seen: Any) -> Any:
    """The declared value where the observed one does not contradict it, else the observed one."""
    if declared is None or is_unknown(declared):
        return seen
    if name == "linked_to_service" and isinstance(seen, list):
        seen = _named_as_declared(declared, seen)
    return declared if same(name, declared, seen) else seen


def with_computed(name: str, value: Any, answered: Any) -> Any:
    """A list of records in normal form, each with the read-only keys that the API answered for it."""
    record = record_of(name)
    if record is None or not isinstance(answered, list):
        return value
    computed = [f.name for f in record.fields if f.computed]
    if not computed:
        return value
    left = [entry for entry in answered if isinstance(entry, Mapping)]
    out: list[Any] = []
    for item in value:
        # A key that is not declared (the name of a link) may be anything in the answer.
        keys = [f for f in record.fields if not f.computed and item.get(f.name) is not None]
        for entry in left:
            seen = record.observed(entry)
            if all(_key(f.kind, seen.get(f.name)) == _key(f.kind, item[f.name]) for f in keys):
                left.remove(entry)
                item = {**item, **{k: entry[k] for k in computed if entry.get(k) is not None}}
                break
        out.append(item)
    return out


def read_only_keys(name: str) -> tuple[str, ...]:
    """The keys of an input's records that only Tutum sets; () for other inputs."""
    record = record_of(name)
    fields = record.fields if record is not None else ()
    return tuple(f.name for f in fields if f.computed)


def answered_keys(name: str) -> tuple[str, ...]:
    """The read-only keys of an input's records, and those that Tutum sets when they are left out."""
    record = record_of(name)
    fields = record.fields if record is not None else ()
    return tuple(f.name for f in fields if f.computed or f.named_by_target)


def lasting(
    name: str, items: Sequence[Any], old_items: Sequence[Any], changed: Container[str]
) -> list[dict[str, Any]]:
    """For each record in a list: the read-only keys that it keeps from the records before, with their values.

    Args:
        name: of an input that is a list of records.
        items: the records in normal form.
        old_items: those before, with their read-only keys.
        changed: names of inputs that change, CONTAINERS among them if containers may.
    """
    record = record_of(name)
    assert record is not None
    return [_lasting_keys(record, item, old_items, changed) for item in items]


def _lasting_keys(
    record: Record, item: Any, old_items: Sequence[Any], changed: Container[str]
) -> dict[str, Any]:
    kept: dict[str, Any] = {}
    for f in record.fields:
        if not f.computed or (CONTAINERS in f.follows and CONTAINERS in changed):
            continue
        followed = [record.field(key) for key in f.follows if key != CONTAINERS]
        old = next((old for old in old_items if _agree(followed, item, old)), None)
        if old is not None:
            kept[f.name] = old.get(f.name)
    return kept


def _agree(fields: Iterable[Field], one: Any, other: Any) -> bool:
    """Whether two records have the same values under these keys; an unknown value agrees with none."""
    if not isinstance(one, Mapping) or not isinstance(other, Mapping):
        return False
    return all(
        not is_unknown(one.get(f.name)) and _key(f.kind, one.get(f.name)) == _key(f.kind, other.get(f.name))
        for f in fields
    )


def record_of(name: str) -> Record | None:
    """The record of which an input is a list; None for other attributes."""
    attribute = INPUTS.get(name)
    kind = attribute.kind if attribute is not None else None
    return kind.item if isinstance(kind, ListOf) and isinstance(kind.item, Record) else None


def _named_as_declared(declared: Sequence[Mapping[str, Any]], seen: Sequence[Mapping[str, Any]]) -> list[Any]:
    """A link declared without a name got one from the server: that is no difference."""
    links = [link for link in declared if isinstance(link, Mapping)]
    named = [(link.get("to_service"), link["name"]) for link in links if link.get("name") is not None]
    nameless = [link.get("to_service") for link in links if link.get("name") is None]
    out: list[Any] = []
    for link in seen:
        uri = link.get("to_service")
        if (uri, link.get("name")) in named:
            named.remove((uri, link.get("name")))
        elif uri in nameless:
            nameless.remove(uri)
            link = {k: v for k, v in link.items() if k != "name"}
        out.append(link)
    return out


#: Shorter values are not masked: they would turn every text into holes, and are no secrets.
MASKED_FROM = 4


def secret_values(props: Mapping[str, Any]) -> list[str]:
    """The values of secret attributes (normal or wire form) that a text must not show, longest first."""
    found: set[str] = set()
    for name, attribute in ATTRIBUTES.items():
        value = props.get(name) if attribute.secret else None
        if isinstance(value, Mapping):
            found.update(v for v in value.values() if isinstance(v, str))
        elif isinstance(value, (list, tuple)):
            values = (entry.get("value") for entry in value if isinstance(entry, Mapping))
            found.update(v for v in values if isinstance(v, str))
    return sorted((v for v in found if len(v) >= MASKED_FROM), key=lambda v: (-len(v), v))


def masked(text: str, values: Iterable[str]) -> str:
    """The text with each of the values replaced by `[secret]`; longer ones first."""
    for value in sorted(values, key=len, reverse=True):
        text = text.replace(value, "[secret]")
    return text


def markdown(computed: bool = False) -> str:
    """The table of inputs, or of outputs, for the documentation."""
    if computed:
        lines = ["| output | can change with | meaning |", "|---|---|---|"]
        for a in COMPUTED.values():
            secret = " Secret." if a.secret else ""
            lines.append(f"| `{a.name}` | {_followed(a)} | {a.doc}{secret} |")
    else:
        lines = ["| input | type | default | a change needs | meaning |", "|---|---|---|---|---|"]
        for a in INPUTS.values():
            default = "required" if a.required else f"`{a.default}`" if a.default is not None else "-"
            lines.append(f"| `{a.name}` | {a.kind.shape} | {default} | {a.change} | {a.doc} |")
    return "\n".join(lines) + "\n"


def _followed(attribute: Attribute) -> str:
    """What has to change before an output can, in words."""
    if attribute.follows is None:
        return "any update"
    if not attribute.follows:
        return "nothing"
    return ", ".join(name if name == CONTAINERS else f"`{name}`" for name in attribute.follows)


# -- small things ----------------------------------------------------------------------------------------


def _whole(value: Any, *, digits: bool) -> int | None:
    if isinstance(value, bool):
        return None
    if isinstance(value, int):
        return value
    if isinstance(value, float):
        return int(value) if math.isfinite(value) and value.is_integer() else None
    if digits and isinstance(value, str) and re.fullmatch(r"[0-9]{1,10}", value):
        return int(value)
    return None


def _kind_name(value: Any) -> str:
    """JSON's word for a value's type, for messages; never the value."""
    if value is None:
        return "null"
    if isinstance(value, bool):
        return "a boolean"
    if isinstance(value, (int, float)):
        return "a number"
    if isinstance(value, str):
        return "a string"
    if isinstance(value, (list, tuple)):
        return "a list"
    return "an object" if isinstance(value, Mapping) else type(value).__name__


def _join(path: str, name: str) -> str:
    return f"{path}.{name}" if path else name
