"""The websockets, with an ordinary websocket client (tutum-api.md section 7)."""

from __future__ import annotations

import base64
import json
import os
import socket
import struct
import threading
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from typing import Any
from urllib.parse import urlencode

import pytest
import websocket

from tests.contract.conftest import V1, Api
from tests.support.server import Server
from tests.support.tools import until

NOBODY = "7eaf7fff-882c-4f3d-9a8f-a22317ac00ce"
SECONDS = 60.0


@contextmanager
def connect(
    server: Server, path: str, *, credentials: bool = True, receive_bytes: int = 0, user_agent: str = ""
) -> Iterator[websocket.WebSocket]:
    """Open a stream; `path` begins with a slash. `receive_bytes`: how much the system takes in unread."""
    header = [f"Authorization: ApiKey {server.user}:{server.apikey}"] if credentials else []
    header += [f"User-Agent: {user_agent}"] if user_agent else []
    options = [(socket.SOL_SOCKET, socket.SO_RCVBUF, receive_bytes)] if receive_bytes else []
    stream = websocket.WebSocket(sockopt=options)
    try:
        stream.connect(server.stream_url + path, timeout=SECONDS, header=header)  # type: ignore[no-untyped-call]
        yield stream
    finally:
        stream.shutdown()  # type: ignore[no-untyped-call]


def frames(connection: websocket.WebSocket) -> Iterator[dict[str, Any]]:
    """Messages until the server closes."""
    while True:
        opcode, data = connection.recv_data()
        if opcode == websocket.ABNF.OPCODE_CLOSE:
            return
        assert opcode == websocket.ABNF.OPCODE_TEXT
        message = json.loads(data)
        assert isinstance(message, dict)
        yield message


def close_code(connection: websocket.WebSocket) -> int:
    while True:
        opcode, data = connection.recv_data()
        if opcode == websocket.ABNF.OPCODE_CLOSE:
            return int.from_bytes(data[:2], "big")


@pytest.fixture(scope="module")
def chatty(api: Api) -> dict[str, Any]:
    """A running service of two containers that have written 500 lines each."""
    return api.run(target_num_containers=2, container_envvars={"SIMULATE_LOG_LINES": "500"})


# -- logs


@pytest.mark.usefixtures("simulated")
@pytest.mark.parametrize(
    ("query", "lines"), [("", 300), ("&tail=7", 7), ("&tail=0", 0), ("&tail=100000", 1002)]
)
def test_service_logs_tail(api: Api, chatty: dict[str, Any], query: str, lines: int) -> None:
    path = f"/v1/service/{chatty['uuid']}/logs/?follow=false{query}"
    with connect(api.server, path) as stream:
        got = list(frames(stream))
    assert len(got) == lines
    names = {f"{chatty['name']}-1", f"{chatty['name']}-2"}
    for frame in got:
        assert set(frame) == {"type", "source", "log", "streamType", "timestamp"}
        assert frame["type"] == "log"
        assert frame["source"] in names
        assert frame["streamType"] in ("stdout", "stderr")
        assert type(frame["timestamp"]) is int
        assert frame["log"].endswith("\n")


@pytest.mark.parametrize("slash", ["", "/"])
def test_container_logs_have_no_source(api: Api, slash: str) -> None:
    service = api.run_until_it_writes()
    uuid = service["containers"][0].rstrip("/").rpartition("/")[2]
    with connect(api.server, f"/v1/container/{uuid}/logs{slash}?tail=1&follow=false") as stream:
        (frame,) = frames(stream)
    assert set(frame) == {"type", "log", "streamType", "timestamp"}


def test_action_logs(api: Api) -> None:
    uuid = api.create()["uuid"]
    started = api.call("POST", f"{V1}/service/{uuid}/start/")
    api.wait(uuid, "Running")
    action = started.headers["X-Tutum-Action-URI"].rstrip("/").rpartition("/")[2]
    with connect(api.server, f"/v1/action/{action}/logs/?follow=false") as stream:
        got = list(frames(stream))
    assert got
    assert all({"type", "log", "timestamp"} <= set(frame) for frame in got)


def test_logs_follow_until_the_service_is_gone(api: Api) -> None:
    service = api.create()
    with connect(api.server, f"/v1/service/{service['uuid']}/logs/") as stream:
        api.act(service["uuid"], "start")
        first = next(frames(stream))
        assert first["source"] == f"{service['name']}-1"
        api.wait(service["uuid"], "Running")
        api.end(service["uuid"])
        rest = list(frames(stream))
    assert all(frame["type"] == "log" for frame in rest)


def test_logs_without_follow_close_normally(api: Api) -> None:
    uuid = api.create()["uuid"]
    for query in ("follow=false", "follow=False", "follow=0"):
        with connect(api.server, f"/v1/service/{uuid}/logs/?{query}") as stream:
            assert close_code(stream) == 1000


def test_rest_logs(api: Api) -> None:
    service = api.run_until_it_writes()
    for path in (f"{V1}/service/{service['uuid']}/", service["containers"][0]):
        logs = api.ok("GET", f"{path}logs/")["logs"]
        assert logs
        assert api.ok("GET", f"{path}logs/", params={"tail": 1})["logs"] == logs.splitlines(True)[-1]
        assert api.ok("GET", f"{path}logs/", params={"tail": 0})["logs"] == ""
        api.refused(400, "GET", f"{path}logs/", params={"tail": "some"})


def test_the_output_of_a_job_that_autodestroy_removed_stays_readable(api: Api) -> None:
    service = api.create(
        # Simulated containers do as the variables say, real ones as the command says.
        container_envvars={"SIMULATE_EXIT": "3", "SIMULATE_EXIT_AFTER": "0"},
        run_command="sh -c 'echo Started; exit 3'",
        autodestroy="ALWAYS",
    )
    uuid = service["uuid"]
    api.act(uuid, "start")
    api.wait(uuid, "Not running")
    (container,) = api.listed(f"{V1}/container/", service=service["resource_uri"])
    assert api.wait(container["uuid"], "Terminated", kind="container")["exit_code"] == 3

    def check() -> None:
        for kind, of in (("service", uuid), ("container", container["uuid"])):
            assert "Started" in api.ok("GET", f"{V1}/{kind}/{of}/logs/")["logs"]
            assert api.ok("GET", f"{V1}/{kind}/{of}/logs/", params={"tail": 0})["logs"] == ""
            with connect(api.server, f"/v1/{kind}/{of}/logs/?follow=false") as stream:
                got = list(frames(stream))
            assert "Started" in got[0]["log"]
            assert got[0].get("source") == (f"{service['name']}-1" if kind == "service" else None)

    check()
    # Nothing more can come of a container that is gone, and of a service that is.
    with connect(api.server, f"/v1/container/{container['uuid']}/logs/") as stream:
        assert "Started" in next(frames(stream))["log"]
        assert close_code(stream) == 1000
    api.end(uuid)
    check()
    with connect(api.server, f"/v1/service/{uuid}/logs/") as stream:
        assert "Started" in next(frames(stream))["log"]
        assert close_code(stream) == 1000
    for path in (service["resource_uri"], container["resource_uri"]):
        assert "Started\\n" not in json.dumps(api.ok("GET", path))


@pytest.mark.parametrize(
    ("path", "message"),
    [
        (f"/v1/service/{NOBODY}/logs/", "There is no such service"),
        ("/v1/container/nobody/logs/", "There is no such container"),
        (f"/v1/action/{NOBODY}/logs/", "There is no such action"),
        (f"/v1/container/{NOBODY}/exec/", "There is no such container"),
        ("/v1/service/%00/logs/", "There is no such service"),
    ],
)
def test_what_is_not_there_is_said_in_the_stream(api: Api, path: str, message: str) -> None:
    with connect(api.server, path) as stream:
        assert list(frames(stream)) == [{"type": "error", "data": {"errorMessage": message}}]


@pytest.mark.parametrize("tail", ["-1", "x", "1.5", "99999999999", "%C2%B2"])
def test_tails_that_are_none(api: Api, chatty: dict[str, Any], tail: str) -> None:
    with connect(api.server, f"/v1/service/{chatty['uuid']}/logs/?tail={tail}") as stream:
        (frame,) = frames(stream)
    assert frame["type"] == "error"
    assert "tail" in frame["data"]["errorMessage"]


def test_unknown_streams_are_refused_in_the_handshake(api: Api) -> None:
    for path in ("/v1/nothing/", "/v1/service/x/nothing/", "/", "/api/v1/service/", "/v2/events"):
        with pytest.raises(websocket.WebSocketBadStatusException) as caught, connect(api.server, path):
            pass
        assert caught.value.status_code == 404


# -- credentials


@pytest.mark.parametrize(
    "query", ["", "?user=bob", "?token=x", "?user=bob&token=wrong", "?user=&token=", "?user=%00&token=%ff"]
)
@pytest.mark.parametrize(
    "path", ["/v1/events", f"/v1/service/{NOBODY}/logs/", f"/v1/container/{NOBODY}/exec/"]
)
def test_without_credentials_the_stream_says_so(api: Api, path: str, query: str) -> None:
    with connect(api.server, path + query, credentials=False) as stream:
        assert list(frames(stream)) == [{"type": "error", "data": {"errorMessage": "UNAUTHORIZED"}}]


def test_credentials_in_the_query(api: Api) -> None:
    uuid = api.create()["uuid"]
    query = f"?user={api.server.user}&token={api.server.apikey}&follow=false"
    with connect(api.server, f"/v1/service/{uuid}/logs/{query}", credentials=False) as stream:
        assert list(frames(stream)) == []
    assert api.server.apikey not in api.server.log()


@pytest.mark.parametrize("scheme", ["ApiKey", "Basic"])
def test_a_whole_header_in_the_query(api: Api, scheme: str) -> None:
    """go-tutum in a container, with what TUTUM_AUTH holds."""
    pair = f"{api.server.user}:{api.server.apikey}"
    if scheme == "Basic":
        pair = base64.b64encode(pair.encode()).decode()
    query = urlencode({"auth": f"{scheme} {pair}", "follow": "false"})
    uuid = api.create()["uuid"]
    with connect(api.server, f"/v1/service/{uuid}/logs/?{query}", credentials=False) as stream:
        assert list(frames(stream)) == []
    assert api.server.apikey not in api.server.log()
    for wrong in ("", "ApiKey", "Basic x", "ApiKey bob:wrong", "\xff\x00ü"):
        query = urlencode({"auth": wrong})
        with connect(api.server, f"/v1/events?{query}", credentials=False) as stream:
            assert list(frames(stream)) == [{"type": "error", "data": {"errorMessage": "UNAUTHORIZED"}}]


# -- events


def collect(api: Api, act: Any, done: Any) -> list[dict[str, Any]]:
    """Events from before `act()` until one satisfies `done`."""
    with connect(api.server, "/v1/events") as stream:
        act()
        got = []
        for event in frames(stream):
            got.append(event)
            if done(event):
                return got
    raise AssertionError(f"the stream ended after {got}")


def test_events_tell_the_life_of_a_service(api: Api) -> None:
    made: dict[str, Any] = {}

    def live() -> None:
        made.update(api.create())
        api.act(made["uuid"], "start")
        api.wait(made["uuid"], "Running")
        api.end(made["uuid"])

    events = collect(api, live, lambda e: e["state"] == "Terminated" and e["type"] == "service")
    uri = made["resource_uri"]
    of_service = [e for e in events if e["resource_uri"] == uri]
    states = [e["state"] for e in of_service]
    assert states[0] == "Not running"
    assert [s for s in states if s != "Not running"] == ["Starting", "Running", "Terminating", "Terminated"]
    assert of_service[0]["action"] == "create"
    containers = [e for e in events if e["type"] == "container"]
    assert {e["state"] for e in containers} >= {"Starting", "Running", "Terminated"}
    for event in containers:
        kinds = [parent.split("/")[3] for parent in event["parents"]]
        assert uri in event["parents"]
        assert {"node", "nodecluster", "service"} <= set(kinds)
    actions = [e for e in events if e["type"] == "action"]
    assert {e["state"] for e in actions} >= {"In progress", "Success"}
    begin = [(e["type"], e["action"], e["state"]) for e in events if e["type"] != "container"]
    assert begin[:6] == [
        ("action", "create", "Success"),
        ("service", "create", "Not running"),
        ("action", "create", "In progress"),
        ("service", "update", "Starting"),
        ("service", "update", "Running"),
        ("action", "update", "Success"),
    ]
    assert all(e["parents"] == [uri] for e in actions)
    for event in events:
        assert event["action"] in ("create", "update", "delete")
        assert event["uuid"] in event["resource_uri"]


def test_a_connection_misses_nothing_once_it_is_open(api: Api) -> None:
    """The first event after the handshake must come, every time."""
    for _ in range(20):
        made: dict[str, Any] = {}
        events = collect(api, lambda made=made: made.update(api.create()), lambda e: e["type"] == "service")
        assert events[-1]["resource_uri"] == made["resource_uri"]


def test_events_can_be_filtered(api: Api) -> None:
    uuid = api.create()["uuid"]
    uri = f"{V1}/service/{uuid}/"
    with connect(api.server, f"/v1/events/?object={uri}") as stream:
        api.create()
        api.act(uuid, "start")
        assert [next(frames(stream))["state"] for _ in range(2)] == ["Starting", "Running"]


def test_filters_of_events_take_several_values(api: Api) -> None:
    """As go-dockercloud sends them; it says `parents`, the documentation `parent`."""
    one, two = (api.create()["resource_uri"] for _ in range(2))
    queries = [
        f"?object={one},{two}&type=service,container",
        f"?type=container&parent={one},{two}",
        f"?type=container&parents={one},{two}",
    ]
    with ExitStack() as stack:
        of_services, *of_containers = (
            stack.enter_context(connect(api.server, f"/v1/events{query}")) for query in queries
        )
        api.run()
        for uri in (one, two):
            api.ok("POST", f"{uri}start/", 202)
            api.wait(uri.split("/")[-2], "Running")
        told = [next(frames(of_services)) for _ in range(4)]
        assert [(e["resource_uri"], e["state"]) for e in told] == [
            (uri, state) for uri in (one, two) for state in ("Starting", "Running")
        ]
        for stream in of_containers:
            told = [next(frames(stream)) for _ in range(4)]
            assert [e["parents"][0] for e in told] == [one, one, two, two]
            assert {e["type"] for e in told} == {"container"}


# -- exec


@pytest.mark.parametrize("library", ["go-tutum/0.21.0", "mine go-tutum/0.21.0", "go-dockercloud/0.21.0"])
def test_go_is_told_that_a_command_has_ended(api: Api, library: str) -> None:
    """Its `Exec` reads until an output is "EOF"; the command lines of the time would print that."""
    uuid = api.run()["containers"][0].rstrip("/").rpartition("/")[2]
    path = f"/v1/container/{uuid}/exec/?command=echo+one"
    for user_agent, told in (
        (library, ["one\n", "EOF"]),
        ("python-tutum/0.21.2", ["one\n"]),
    ):
        with connect(api.server, path, user_agent=user_agent) as stream:
            assert [frame["output"] for frame in frames(stream)] == told


def test_exec(api: Api) -> None:
    service = api.run(container_envvars={"GREETING": "hello"})
    uuid = service["containers"][0].rstrip("/").rpartition("/")[2]
    path = f"/v1/container/{uuid}/exec/?command="
    with connect(api.server, f"{path}echo+one+%22two+three%22") as stream:
        got = list(frames(stream))
    assert "".join(f["output"] for f in got if f["streamType"] == "stdout") == "one two three\n"
    with connect(api.server, f"{path}cat") as stream:
        stream.send("typed\n")
        assert next(frames(stream))["output"] == "typed\n"
        stream.send("\x04")
        list(frames(stream))


def test_exec_ends_with_the_exit_code_as_the_reason(api: Api) -> None:
    """Where no client of Tutum looks; the frames are Tutum's."""
    uuid = api.run()["containers"][0].rstrip("/").rpartition("/")[2]
    for command, code in (("echo+done", 0), ("sh+-c+%22exit+7%22", 7)):
        with connect(api.server, f"/v1/container/{uuid}/exec/?command={command}") as stream:
            while (frame := stream.recv_data())[0] == websocket.ABNF.OPCODE_TEXT:
                assert json.loads(frame[1]).keys() == {"type", "output", "streamType"}
            assert frame == (websocket.ABNF.OPCODE_CLOSE, struct.pack(">H", 1000) + b"exit code %d" % code)


@pytest.mark.parametrize("command", ["%22unclosed", "", "%20"])
def test_exec_of_nothing(api: Api, command: str) -> None:
    uuid = api.run()["containers"][0].rstrip("/").rpartition("/")[2]
    with connect(api.server, f"/v1/container/{uuid}/exec/?command={command}") as stream:
        (frame,) = frames(stream)
    assert frame["type"] == "error"


def test_exec_in_a_stopped_container(api: Api) -> None:
    service = api.run()
    uuid = service["containers"][0].rstrip("/").rpartition("/")[2]
    api.act(service["uuid"], "stop")
    api.wait(service["uuid"], "Stopped")
    with connect(api.server, f"/v1/container/{uuid}/exec/?command=sh") as stream:
        (frame,) = frames(stream)
    assert frame["type"] == "error"


# -- the connection itself


def test_pings_are_answered(api: Api) -> None:
    with connect(api.server, "/v1/events") as stream:
        for payload in ("", "a", "x" * 125):
            stream.ping(payload)
            opcode, data = stream.recv_data(control_frame=True)
            assert (opcode, data.decode()) == (websocket.ABNF.OPCODE_PONG, payload)


def test_messages_that_nobody_wants_do_no_harm(api: Api) -> None:
    with connect(api.server, "/v1/events") as stream:
        for _ in range(50):
            stream.send("x" * 1000)
            stream.send_binary(b"\x00\xff")
        stream.ping("still there")
        assert stream.recv_data(control_frame=True)[0] == websocket.ABNF.OPCODE_PONG


def test_a_message_too_large_closes(api: Api) -> None:
    # The server closes with our bytes unread, so that a reset may arrive before its goodbye.
    with connect(api.server, "/v1/events") as stream, suppress(ConnectionError):
        stream.send("x" * 300_000)
        assert close_code(stream) == 1009
    api.ok("GET", "/health")


@pytest.mark.usefixtures("simulated")
def test_readers_that_do_not_read_cost_no_memory(api: Api) -> None:
    """Many idle connections, thousands of events: what they do not take is thrown away, not kept."""
    uuid = api.create()["uuid"]
    for _ in range(50):
        api.ok("PATCH", f"{V1}/service/{uuid}/", 202, json={"memory": 64})
    with ExitStack() as readers:
        for _ in range(40):
            readers.enter_context(connect(api.server, "/v1/events", receive_bytes=4096))
        before = api.server.resident_bytes()
        for i in range(1500):
            api.ok("PATCH", f"{V1}/service/{uuid}/", 202, json={"memory": 64 + i % 2})
        grown = api.server.resident_bytes() - before
    # What one connection may pile up is held by tests/unit/server/test_limits.py.
    assert grown < 20_000_000
    api.ok("GET", "/health")


def test_a_server_that_stops_says_goodbye(api: Api) -> None:
    with Server(backend=api.backend.name, **api.backend.options) as server, ExitStack() as stack:
        paths = ("/v1/events", "/v1/events/?type=service")
        streams = [stack.enter_context(connect(server, path)) for path in paths]
        codes: list[int] = []
        readers = [threading.Thread(target=lambda s=s: codes.append(close_code(s))) for s in streams]
        for reader in readers:
            reader.start()
        assert server.stop() == 0
        for reader in readers:
            reader.join(SECONDS)
        assert codes == [1012, 1012]


def test_streams_of_a_killed_server_end(api: Api) -> None:
    with (
        Server(backend=api.backend.name, **api.backend.options) as server,
        connect(server, "/v1/events") as stream,
    ):
        server.kill()
        with pytest.raises((websocket.WebSocketConnectionClosedException, OSError)):
            list(frames(stream))


def test_connections_that_are_gone_are_let_go(api: Api) -> None:
    """Streams whose client vanished are closed on the server too."""
    uuid = api.create()["uuid"]
    with ExitStack() as connections:
        for _ in range(30):
            connections.enter_context(connect(api.server, f"/v1/service/{uuid}/logs/"))
        descriptors = len(_descriptors(api.server))
    until(lambda: len(_descriptors(api.server)) <= descriptors - 30, "the server closed its side")


def _descriptors(server: Server) -> list[str]:
    return os.listdir(f"/proc/{server.pid}/fd")


def test_time_is_told_in_seconds(api: Api) -> None:
    uuid = api.run_until_it_writes()["uuid"]
    with connect(api.server, f"/v1/service/{uuid}/logs/?follow=false") as stream:
        for frame in frames(stream):
            assert abs(frame["timestamp"] - time.time()) < 3600
