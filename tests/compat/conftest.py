"""A server for clients of the time, and what they have in common."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.support.server import Server


@pytest.fixture(scope="module")
def server() -> Iterator[Server]:
    with Server(nodes=3, container_start_seconds=0) as running:
        yield running
        assert "unexpected error" not in running.log(), running.log()
