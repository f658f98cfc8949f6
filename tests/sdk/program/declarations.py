"""Prints the source positions that the engine receives with services.

The program declares one service itself, one in a function and one in a callback.
"""

import pathlib
import sys
from typing import Any

import pulumi
from pulumi.runtime import mocks

import pulumi_tutum


class Nothing(mocks.Mocks):
    def new_resource(self, args: mocks.MockResourceArgs) -> tuple[str, dict[str, Any]]:
        return f"{args.name}-id", args.inputs

    def call(self, args: mocks.MockCallArgs) -> Any:
        return {}


def _line(position: Any) -> str:
    return f"{pathlib.Path(position.uri).name}:{position.line}"


class Monitor(mocks.MockMonitor):
    """Stands for the engine."""

    def RegisterResource(self, request: Any) -> Any:
        if request.custom:
            frames = [request.sourcePosition, *(frame.pc for frame in request.stackTrace.frames)]
            # The SDK sends requests from several threads, so each line is one write.
            sys.stdout.write(" ".join([request.name, *map(_line, frames)]) + "\n")
        return super().RegisterResource(request)  # type: ignore[no-untyped-call]


def declare(name: str) -> pulumi_tutum.Service:
    return pulumi_tutum.Service(name, image="acme/web")  # inside


mocks.set_mocks(Nothing(), monitor=Monitor(Nothing()))


@pulumi.runtime.test  # type: ignore[untyped-decorator]
def program() -> None:
    pulumi_tutum.Service("plain", image="acme/web")  # plain
    declare("called")  # called
    pulumi.Output.from_input("late").apply(declare)


program()
