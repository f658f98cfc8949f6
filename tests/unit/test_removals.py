"""Which services of the state are no longer in the program, and what is said of them."""

from __future__ import annotations

from typing import Any

import pytest

from pulumi_tutum import removals

UUID = "2f4f54e5-9d3b-4ac1-85ad-a2d4ff25a179"
PREFIX = "urn:pulumi:dev::shop::"
DB = f"{PREFIX}{removals.TYPE}::db"
CHILD = f"{PREFIX}acme:index:Group$acme:index:Stack${removals.TYPE}::db"
SERVICE: dict[str, Any] = {
    "name": "db-1",
    "uuid": UUID,
    "resource_uri": f"/api/v1/service/{UUID}/",
    "bindings": [{"container_path": "/data"}],
    "running": True,
}
READ = {name: value for name, value in SERVICE.items() if name != "running"}


@pytest.mark.parametrize(
    ("state", "known", "is_removed"),
    [
        ({DB: SERVICE}, {}, True),
        ({DB: SERVICE}, {"urns": {DB}}, False),
        ({DB: SERVICE}, {"urns": {CHILD}}, True),
        ({DB: SERVICE}, {"ids": {UUID}}, False),
        ({DB: SERVICE}, {"ids": {f"/api/v1/service/{UUID}/"}}, False),
        ({DB: SERVICE}, {"ids": {"db-1"}}, False),
        ({DB: SERVICE}, {"ids": {"db-2"}}, True),
        ({DB: READ}, {}, False),
        ({DB: SERVICE}, {"stack": "prod"}, False),
        ({DB: SERVICE}, {"project": "other"}, False),
        ({CHILD: SERVICE}, {}, True),
        ({CHILD: SERVICE}, {"remote_types": {"acme:index:Group"}}, False),
        ({CHILD: SERVICE}, {"remote_types": {"acme:index:Other"}}, True),
        ({CHILD: SERVICE}, {"remote_types": None}, False),
        ({DB: SERVICE}, {"remote_types": None}, True),
        ({}, {}, False),
    ],
)
def test_what_is_removed(state: dict[str, Any], known: dict[str, Any], is_removed: bool) -> None:
    program: dict[str, Any] = {
        "urns": set(),
        "ids": set(),
        "stack": "dev",
        "project": "shop",
        "remote_types": set(),
    }
    found = removals.removed(state, **(program | known))
    assert found == (state if is_removed else {})


def test_the_warning_names_the_service_and_the_paths() -> None:
    said = removals.text(DB, SERVICE, ["/data", "/log"])
    assert said.startswith("service 'db-1' is not in the program any more")
    assert said.endswith(": /data, /log")


def test_what_is_secret_is_not_in_the_warning() -> None:
    said = removals.text(DB, {"uuid": UUID, "wait": True}, ["/data"])
    assert said.startswith("service 'db' is not")
    assert said.endswith("the data in them")
