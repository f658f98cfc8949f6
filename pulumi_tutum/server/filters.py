"""The filters of lists: per kind, query parameter to test (tutum-api.md, 2.2)."""

from __future__ import annotations

import datetime
import email.utils
from collections.abc import Callable
from typing import Any

from ..errors import BadRequest
from . import model
from .model import Container, Service, Volume
from .records import Records

Test = Callable[[Any, str], bool]


def _equal(read: Callable[[Any], Any]) -> Test:
    return lambda record, value: str(read(record)) == value


def _reference(read: Callable[[Any], str]) -> Test:
    return lambda record, value: read(record) == model.uuid_in(value)


def _not_before(name: str) -> Test:
    return lambda record, value: getattr(record, name) is not None and getattr(record, name) >= moment(value)


def _not_after(name: str) -> Test:
    return lambda record, value: getattr(record, name) is not None and getattr(record, name) <= moment(value)


def moment(text: str) -> float:
    """Seconds since the epoch for RFC 2822 or ISO 8601."""
    try:
        parsed = email.utils.parsedate_to_datetime(text)
    # Numbers of any length reach the calendar: the last one.
    except (TypeError, ValueError, OverflowError):
        try:
            parsed = datetime.datetime.fromisoformat(text.replace("Z", "+00:00"))
        except ValueError:
            raise BadRequest("A date must be in RFC 2822 or ISO 8601 form") from None
    if parsed.tzinfo is None:
        parsed = parsed.replace(tzinfo=datetime.timezone.utc)
    return parsed.timestamp()


def _uri(read: Callable[[Any], str]) -> Test:
    """For URIs of several names; the last of them is enough."""
    return lambda record, value: ("/" + read(record)).rstrip("/").endswith("/" + value.strip("/"))


def filters(records: Records, backend: str) -> dict[str, dict[str, Test]]:
    """Per kind: query parameter to test. Parameters that are not here are ignored."""
    node_type, region = model.node_type_uri(backend), model.region_uri(backend)

    def stack_of(s: Service) -> str:
        return str(records.stack_name(s))

    def stack_of_container(c: Container) -> str:
        service = records.services.get(c.service)
        return stack_of(service) if service is not None else ""

    common: dict[str, Test] = {
        "uuid": lambda r, v: r.uuid == v.lower(),
        "uuid__startswith": lambda r, v: r.uuid.startswith(v.lower()),
    }
    state, name = _equal(lambda r: r.state), _equal(lambda r: r.name)
    return {
        "service": {
            **common,
            "state": state,
            "name": name,
            "stack": _reference(lambda s: s.stack),
            "stack__name": _equal(stack_of),
        },
        "container": {
            **common,
            "state": state,
            "name": name,
            "service": _reference(lambda c: c.service),
            "node": _reference(lambda c: c.node),
            "service__stack__name": _equal(stack_of_container),
        },
        "stack": {**common, "name": name, "state": state},
        "node": {
            **common,
            "state": state,
            "node_cluster": _reference(lambda n: n.cluster),
            "node_type": _uri(lambda n: node_type),
            "region": _uri(lambda n: region),
            "docker_version": _equal(lambda n: n.docker_version),
        },
        "nodecluster": {
            **common,
            "state": state,
            "name": name,
            "node_type": _uri(lambda c: c.node_type or node_type),
            "region": _uri(lambda c: c.region or region),
        },
        "action": {
            **common,
            "state": state,
            "object": lambda a, v: model.uuid_in(a.object) == model.uuid_in(v),
            "start_date__gte": _not_before("start"),
            "start_date__lte": _not_after("start"),
            "end_date__gte": _not_before("end"),
            "end_date__lte": _not_after("end"),
        },
        "volume": {
            **common,
            "state": state,
            "node": _reference(lambda v: v.node),
            "containers": lambda v, value: _uses_volume(records, v, model.uuid_in(value)),
        },
        "volumegroup": {
            **common,
            "name": name,
            "volumes": lambda g, v: getattr(records.volumes.get(model.uuid_in(v)), "group", None) == g.uuid,
            "services": _reference(lambda g: g.service),
        },
        "trigger": {**common, "name": name},
        "image": {"name": lambda i, v: model.split_image(i.uuid)[0] == v},
    }


def _uses_volume(records: Records, volume: Volume, container: str) -> bool:
    found = records.containers.get(container)
    return bool(found and found.spec and any(m.volume == volume.uuid for m in found.spec.volumes))
