"""Paths of `ignore_changes` that have no effect, and the spelling that works."""

from __future__ import annotations

from typing import Any

import pytest

from pulumi_tutum import ignored, schema

DECLARED = {"container_envvars": {"MODE": "a", "a.b": "c"}, "tags": ["front", {"name": "eu"}]}

EFFECTIVE = [
    *schema.INPUTS,
    "*",
    "wait",
    "container_envvars.MODE",
    'container_envvars["MODE"]',
    'container_envvars["a.b"]',
    "container_envvars[*]",
    "container_ports[0]",
    "container_ports[1].inner_port",
    'container_ports[0]["inner_port"]',
    "container_ports[*].inner_port",
    "linked_to_service[0].name",
    "bindings[0].host_path",
    "tags[0]",
    "tags[1].name",
    "roles[0]",
    "healthcheck.http",
    '["image"]',
    "__urn",
]

#: path -> what the warning says to write
WITHOUT_EFFECT = {
    "container_envvars[0].value": "`container_envvars.MODE`",
    "container_envvars[0]": "`container_envvars.MODE`",
    "container_envvars[1].value": '`container_envvars["a.b"]`',
    "container_envvars[7].value": "`container_envvars.NAME`",
    "container_envvars[*].value": "`container_envvars`",
    "container_envvars.MODE.value": "`container_envvars.MODE`",
    "containerPorts": "`container_ports`",
    "imgae": "`image`",
    "image_name": "`image`",
    "net": "`network`",
    "image.tag": "`image`",
    "container_ports.inner_port": "`container_ports[*].inner_port`",
    "container_ports[0].innerPort": "`container_ports[0].inner_port`",
    "container_ports[0].endpoint_uri": "read-only",
    "healthcheck[0]": "`healthcheck.http`",
    "healthcheck.htp": "`healthcheck.http`",
    "tags[0].name": "`tags[0]`",
    "tags[*].name": "`tags[*]`",
    "state": "an output",
    "endpoint_uris": "an output",
    "nonsense": "no such input",
    "image[": "property path",
    ".image": "property path",
    "": "property path",
}


@pytest.mark.parametrize("path", EFFECTIVE)
def test_nothing_is_said_of_a_path_with_an_effect(path: str) -> None:
    assert ignored.warning([path], DECLARED) == ""


@pytest.mark.parametrize(("path", "hint"), WITHOUT_EFFECT.items())
def test_the_warning_names_the_spelling_that_works(path: str, hint: str) -> None:
    text = ignored.warning([path], DECLARED)
    assert repr(path) in text
    assert hint in text


@pytest.mark.parametrize(
    "declared", [{}, {"container_envvars": None, "tags": None}, {"tags": "a", "image": 1}]
)
def test_what_is_not_declared_or_not_well_formed_is_no_obstacle(declared: dict[str, Any]) -> None:
    for path in (*EFFECTIVE, *WITHOUT_EFFECT):
        ignored.warning([path], declared)


def test_all_paths_of_a_resource_are_in_one_warning() -> None:
    text = ignored.warning(["imgae", "image", "container_envvars[0]"], DECLARED)
    assert text.count("ignore_changes") == 1
    assert "'imgae'" in text
    assert "'container_envvars[0]'" in text
    assert "'image'" not in text
