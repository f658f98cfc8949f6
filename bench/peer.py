"""The peers of a service: dynamic resources that do nothing.

`Noop` has the same inputs and outputs as a service, `Echo` the same inputs, which are its outputs, too. What
those are is in the file that BENCH_RECORDED names, from a real service's state. They have what a careful
author gives them: an importable provider class without attributes, kept in the state in clear.
"""

from __future__ import annotations

import json
import os
import uuid
from pathlib import Path
from typing import Any

import pulumi
from pulumi.dynamic import CheckResult, CreateResult, Resource, ResourceProvider

_RECORDED: dict[str, Any] = json.loads(Path(os.environ["BENCH_RECORDED"]).read_text(encoding="utf-8"))


class NoopProvider(ResourceProvider):
    """Says that everything is well. Without `diff` the engine compares the inputs by itself."""

    serialize_as_secret_always = False

    def check(self, _olds: dict[str, Any], news: dict[str, Any]) -> CheckResult:
        return CheckResult({**_RECORDED["inputs"], **news}, [])

    def create(self, props: dict[str, Any]) -> CreateResult:
        return CreateResult(str(uuid.uuid4()), {**props, **_RECORDED["outputs"]})


class Noop(Resource, module="bench", name="Noop"):
    """A resource with the arguments that a program gives a service."""

    def __init__(self, name: str, **declared: Any) -> None:
        outputs = dict.fromkeys(_RECORDED["outputs"])
        options = pulumi.ResourceOptions(additional_secret_outputs=_RECORDED["secrets"])
        super().__init__(NoopProvider(), name, {**outputs, **declared}, options)


class EchoProvider(ResourceProvider):
    """Returns the inputs."""

    serialize_as_secret_always = False

    def check(self, _olds: dict[str, Any], news: dict[str, Any]) -> CheckResult:
        return CheckResult({**_RECORDED["inputs"], **news}, [])

    def create(self, props: dict[str, Any]) -> CreateResult:
        return CreateResult(str(uuid.uuid4()), dict(props))


class Echo(Resource, module="bench", name="Echo"):
    """A resource with the arguments that a program gives a service, and no output of its own."""

    def __init__(self, name: str, **declared: Any) -> None:
        options = pulumi.ResourceOptions(additional_secret_outputs=_RECORDED["secrets"])
        super().__init__(EchoProvider(), name, declared, options)
