"""Runs: who is just making a service under a key ("Made once"), on a real control plane."""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from pulumi_tutum import stream
from pulumi_tutum.client import Client
from pulumi_tutum.errors import Cancelled, Conflict
from tests.support.server import Server
from tests.support.tools import until

KEY = "key-of-web"
BODY = {"image": "acme/web", "name": "web"}


@pytest.fixture
def server(tmp_path: Path) -> Iterator[Server]:
    with Server(data=tmp_path / "data") as running:
        yield running


@pytest.fixture
def new_client(server: Server) -> Iterator[Callable[[str], Client]]:
    with contextlib.ExitStack() as opened:
        yield lambda run: opened.enter_context(
            Client(server.user, server.apikey, rest_host=server.url, run=run)
        )


@contextlib.contextmanager
def alive(client: Client) -> Iterator[list[bool]]:
    """Lets the client's run live meanwhile; yields whether its stream stands, each time that changes."""
    stop, changes = threading.Event(), [False]

    def listen() -> None:
        with contextlib.suppress(Cancelled):
            for _ in stream.events(
                client.settings, headers=client.run_headers, on_change=changes.append, cancelled=stop
            ):
                pass

    thread = threading.Thread(target=listen)
    thread.start()
    try:
        until(lambda: changes[-1], "the stream")
        yield changes
    finally:
        stop.set()
        thread.join()


def taken(client: Client) -> str:
    """The uuid of the service that the client gets hold of as soon as it can."""
    got: list[str] = []

    def attempt() -> bool:
        with contextlib.suppress(Conflict):
            got.append(client.create_service(BODY, key=KEY)["uuid"])
        return bool(got)

    until(attempt, "the end of the other run")
    return got[0]


def test_a_service_is_its_runs_as_long_as_that_lives(new_client: Callable[[str], Client]) -> None:
    first, second, nobody = new_client("first"), new_client("second"), new_client("")
    with alive(first):
        uuid = first.create_service(BODY, key=KEY)["uuid"]
        assert first.create_service(BODY, key=KEY)["uuid"] == uuid, "its own repeats get it"
        for other in (second, nobody):
            with pytest.raises(Conflict, match="tutum:namespace") as caught:
                other.create_service(BODY, key=KEY)
            assert caught.value.retry_after, "asking again may help"
    assert taken(second) == uuid, "an open key of a run that has ended"
    with alive(second):
        with pytest.raises(Conflict, match="another run"):
            first.create_service(BODY, key=KEY)
        second.close_keys([KEY])
        with pytest.raises(Conflict, match="adopt") as caught:
            first.create_service(BODY, key=KEY)
        assert caught.value.retry_after is None, "asking again does not help"


def test_a_run_outlives_the_control_plane(server: Server, new_client: Callable[[str], Client]) -> None:
    first, second = new_client("first"), new_client("second")
    with alive(first) as changes:
        uuid = first.create_service(BODY, key=KEY)["uuid"]
        before = len(changes)
        server.restart(kill=True)
        until(lambda: len(changes) > before and changes[-1], "the stream after the restart")
        with pytest.raises(Conflict, match="another run"):
            second.create_service(BODY, key=KEY)
        assert first.create_service(BODY, key=KEY)["uuid"] == uuid
    assert taken(second) == uuid


def test_without_a_stream_a_run_does_not_count(new_client: Callable[[str], Client]) -> None:
    uuid = new_client("first").create_service(BODY, key=KEY)["uuid"]
    assert new_client("second").create_service(BODY, key=KEY)["uuid"] == uuid
