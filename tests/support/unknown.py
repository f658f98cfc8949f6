"""Values that a preview does not know yet, as the provider host makes them: each an object of its own."""

from __future__ import annotations

from typing import Any

from pulumi.output import Unknown


def unknown() -> Any:
    return Unknown()  # type: ignore[no-untyped-call]
