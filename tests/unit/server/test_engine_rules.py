"""What the Docker backend makes of options, definitions and of what an engine says: pure rules."""

from __future__ import annotations

import asyncio
import dataclasses
import functools
import struct
import threading
from pathlib import Path
from typing import Any

import docker
import pytest
import requests
from hypothesis import given
from hypothesis import strategies as st

from pulumi_tutum.errors import BackendError, ConfigError, Problem
from pulumi_tutum.server.backends import ContainerSpec, ImageInfo, LinkSpec, LogLine
from pulumi_tutum.server.backends.docker import link_names, observed, open_backend, taken_port
from pulumi_tutum.server.backends.engine import (
    Address,
    Certificates,
    Pipe,
    Workers,
    addresses,
    command_of,
    image_info,
    log_batches,
    plain,
    readable,
    seconds,
)
from pulumi_tutum.server.backends.policy import Policy

SPEC = ContainerSpec("c", "web-1", "s", "web", 1, "n", "acme/web:1", "r")


# -- where engines are


def test_nodes_are_named_by_url_or_by_name() -> None:
    assert addresses(["a=tcp://10.0.0.1:2376,front,ssd", "ssh://me@box:22", "unix:///run/x.sock"]) == [
        Address("a", "tcp://10.0.0.1:2376", ("front", "ssd")),
        Address("box", "ssh://me@box:22"),
        Address("local", "unix:///run/x.sock"),
    ]
    assert addresses([], {}) == [Address("local", "unix:///var/run/docker.sock")]
    assert addresses([], {"DOCKER_HOST": "tcp://h:1"}) == [Address("h", "tcp://h:1")]


@pytest.mark.parametrize("word", ["", "box", "http://x", "unix://", "tcp://", "a=b=c", "a=,tag"])
def test_other_nodes_are_refused(word: str) -> None:
    with pytest.raises(ConfigError, match=r"give \[NAME=\]URL"):
        addresses([word])


def test_two_nodes_need_two_names() -> None:
    with pytest.raises(ConfigError, match="two nodes are called local"):
        addresses(["unix:///a.sock", "unix:///b.sock"])


def test_this_machine_has_no_host() -> None:
    here = ["unix:///x.sock", "tcp://localhost:1", "tcp://127.0.0.1:1", "ssh://127.0.0.1"]
    assert [Address("x", url).host for url in here] == [""] * 4
    assert Address("x", "ssh://me@box").host == "box"


def test_another_machine_needs_an_address_to_publish_at() -> None:
    with pytest.raises(ConfigError, match="node box is another machine"):
        open_backend(nodes=["ssh://box"])
    open_backend(nodes=["ssh://box"], publish_address="0.0.0.0")


def test_missing_certificates_are_named(tmp_path: Path) -> None:
    assert Certificates.find({}) is None
    found = Certificates.find({"DOCKER_CERT_PATH": str(tmp_path), "DOCKER_TLS_VERIFY": "1"})
    assert found == Certificates(tmp_path, True)
    with pytest.raises(ConfigError, match="DOCKER_CERT_PATH"):
        found.context()


# -- the operator's policy


def refused(policy: Policy, **definition: Any) -> list[str]:
    return [problem.path for problem in policy.refuse(definition)]


def paths(*given: str) -> list[dict[str, str]]:
    return [{"host_path": path, "container_path": "/x"} for path in given]


def test_nothing_is_allowed_by_itself() -> None:
    definition = {"privileged": True, "pid": "host", "network": "host", "bindings": paths("/srv")}
    names = ["privileged", "pid", "network", "bindings[0].host_path"]
    assert refused(Policy(), **definition) == names
    everything = Policy.parse(["privileged,host-path", "host-pid, host-network"])
    assert refused(everything, **definition) == []
    assert refused(Policy(), bindings=[{"container_path": "/x"}], network="bridge", pid="none") == []


def test_host_paths_may_be_limited_to_folders() -> None:
    policy = Policy.parse(["host-path=/srv/", "host-path=/data/a"])
    allowed = ["/srv", "/srv/x", "/srv/../srv/x", "/data/a/b"]
    assert refused(policy, bindings=paths(*allowed)) == []
    others = ["/", "/srv2", "/srv/../etc", "/data", "/data/ab", "//etc"]
    assert len(refused(policy, bindings=paths(*others))) == len(others)
    # Without a folder, any.
    assert refused(Policy.parse(["host-path=/srv", "host-path"]), bindings=paths("/etc")) == []


@pytest.mark.parametrize("word", ["root", "privileged=yes", "host-path=srv", "host-path="])
def test_what_cannot_be_allowed_is_refused(word: str) -> None:
    with pytest.raises(ConfigError, match=f"--allow {word}: give one of privileged"):
        Policy.parse([word])


def test_what_no_engine_takes_is_refused() -> None:
    backend = open_backend(nodes=["unix:///x.sock"])
    assert backend.refuse({"memory": 5}) == [
        Problem("memory", "must be 6 or more: the Docker Engine takes no less")
    ]
    assert [p.path for p in backend.refuse({"cpu_shares": 1})] == ["cpu_shares"]
    assert backend.refuse({"cpu_shares": 0}) == backend.refuse({"cpu_shares": 2}) == []
    assert [p.path for p in backend.refuse({"entrypoint": "it's", "run_command": '"'})] == [
        "entrypoint",
        "run_command",
    ]
    assert backend.refuse({"memory": 6, "run_command": "sh -c 'x'", "healthcheck": {"http": "/"}}) == []


def test_http_checks_of_other_machines_need_a_published_port() -> None:
    backend = open_backend(nodes=["ssh://box"], publish_address="0.0.0.0")
    port = {"protocol": "tcp", "inner_port": 80, "published": False}
    check = {"http": "/"}
    assert [p.path for p in backend.refuse({"healthcheck": check, "container_ports": [port]})] == [
        "healthcheck.http"
    ]
    assert backend.refuse({"healthcheck": check, "container_ports": [{**port, "published": True}]}) == []
    assert backend.refuse({"healthcheck": {"command": "true"}, "container_ports": [port]}) == []


# -- commands


@pytest.mark.parametrize(
    ("spec", "image", "init"),
    [
        ({}, ImageInfo("i", run_command="nginx -g 'daemon off;'"), True),
        ({}, ImageInfo("i", entrypoint="/init"), False),
        ({}, ImageInfo("i", entrypoint="/sbin/tini --", run_command="app"), False),
        ({"entrypoint": "app"}, ImageInfo("i", entrypoint="/init"), True),
        ({"run_command": "/lib/systemd/systemd"}, ImageInfo("i"), False),
        ({"pid": "host"}, ImageInfo("i", run_command="app"), False),
    ],
)
def test_an_init_is_given_to_what_has_none(spec: dict[str, Any], image: ImageInfo, init: bool) -> None:
    assert command_of(dataclasses.replace(SPEC, **spec), image).init is init


def test_commands_are_split_as_a_shell_does() -> None:
    command = command_of(dataclasses.replace(SPEC, entrypoint="sh -c", run_command="'a b' \"c\""), None)
    assert (command.entrypoint, command.arguments) == (["sh", "-c"], ["a b", "c"])
    command = command_of(SPEC, None)
    assert (command.entrypoint, command.arguments) == (None, None)


# -- links


def test_link_names_lead_to_the_service_and_to_each_container() -> None:
    names = dict(
        (name, target) for target, name in link_names([LinkSpec("DB", ((1, "x"), (2, "y")), "uuid")])
    )
    assert names["DB"] == names["db"] == "uuid"
    assert names["DB-1"] == names["db-1"] == "uuid-1"
    # Room for those that will come.
    assert names["DB-32"] == "uuid-32"
    assert "DB-33" not in names
    many = dict((name, target) for target, name in link_names([LinkSpec("db", ((40, "x"),), "uuid")]))
    assert many["db-64"] == "uuid-64"
    assert "DB" not in many


# -- what an engine says


def inspected(**state: Any) -> dict[str, Any]:
    labels = {"io.tutum.container": "c", "io.tutum.service": "s", "io.tutum.revision": "r"}
    networks = {"net": {"IPAddress": "10.0.0.2"}, "other": {"IPAddress": "10.9.9.9"}}
    return {
        "Id": "id",
        "Image": "sha256:1",
        "RestartCount": 2,
        "State": {"Status": "running", "Running": False, "ExitCode": 0, **state},
        "Config": {"Labels": labels},
        "NetworkSettings": {"Networks": networks},
    }


def see(**state: Any) -> tuple[str, int | None, str, bool | None]:
    seen = observed(inspected(**state), "n", "net")
    assert (seen.uuid, seen.service_uuid, seen.revision, seen.address) == ("c", "s", "r", "10.0.0.2")
    assert (seen.backend_id, seen.image_id, seen.restarts, seen.node) == ("id", "sha256:1", 2, "n")
    return seen.status, seen.exit_code, seen.reason, seen.healthy


def test_states_of_containers() -> None:
    assert see(Running=True) == ("running", None, "", None)
    # While it waits for its restart, the engine calls it running too.
    assert see(Running=True, Restarting=True, Status="restarting", ExitCode=3) == ("restarting", 3, "", None)
    assert see(Status="exited", ExitCode=0) == ("exited", 0, "", None)
    assert see(Status="exited", ExitCode=137, OOMKilled=True) == ("exited", 137, "out of memory", None)
    assert see(Status="created") == ("created", None, "", None)
    failed = "OCI runtime create failed: runc create failed: no such file: unknown"
    assert see(Status="created", ExitCode=127, Error=failed) == ("created", None, "no such file", None)
    assert see(Running=True, Health={"Status": "healthy"}) == ("running", None, "", True)
    assert see(Running=True, Health={"Status": "unhealthy"}) == ("running", None, "", False)
    assert see(Running=True, Health={"Status": "starting"}) == ("running", None, "", None)
    assert see(Status="exited", ExitCode=1, Health={"Status": "unhealthy"})[3] is None


@pytest.mark.parametrize(
    ("said", "reason"),
    [
        (
            "failed to create shim task: OCI runtime create failed: runc create failed: unable to start "
            "container process: unable to apply caps: operation not permitted: unknown",
            "unable to apply caps: operation not permitted",
        ),
        (
            "driver failed programming external connectivity on endpoint web-1 (0123): Error starting "
            "userland proxy: listen tcp4 127.0.0.1:80: bind: address already in use",
            "listen tcp4 127.0.0.1:80: bind: address already in use",
        ),
        ("No such image: a:1", "No such image: a:1"),
    ],
)
def test_reasons_are_freed_of_what_is_around_them(said: str, reason: str) -> None:
    assert plain(said) == reason


@pytest.mark.parametrize(
    ("said", "port"),
    [
        ("Bind for 127.0.0.1:49153 failed: port is already allocated", ("", 49153)),
        ("listen tcp4 127.0.0.1:80: bind: address already in use", ("tcp", 80)),
        ("listen udp6 [::1]:53: bind: address already in use", ("udp", 53)),
        ("failed to bind host port for 0.0.0.0:80:172.31.0.2:8000/tcp: address already in use", ("tcp", 80)),
        ("failed to bind host port 127.0.0.1:5432/tcp: address already in use", ("tcp", 5432)),
        ("failed to bind host port [::]:53/udp: address already in use", ("udp", 53)),
        ("listen tcp4 10.0.0.1:80: bind: cannot assign requested address", None),
    ],
)
def test_a_port_that_is_taken_is_known_in_the_words_of_all_engines(
    said: str, port: tuple[str, int] | None
) -> None:
    assert taken_port(said) == port


def test_errors_are_readable_and_say_whether_to_try_again() -> None:
    def told(error: Exception) -> tuple[str, bool]:
        found = readable(error)
        return str(found), found.transient

    class Answer:
        status_code = 500

    answered = docker.errors.APIError("x", response=Answer(), explanation="it is so")  # type: ignore[arg-type]
    assert told(answered) == ("it is so", False)
    assert told(requests.exceptions.ReadTimeout())[1]
    assert told(requests.exceptions.ConnectionError())[1]
    assert told(OSError(32, "Broken pipe")) == ("the connection to the Docker Engine was lost", True)
    mine = BackendError("mine")
    assert readable(mine) is mine


def test_images() -> None:
    config: dict[str, Any] = {
        "Env": ["A=b=c", "EMPTY="],
        "ExposedPorts": {"443/tcp": {}, "80/tcp": {}, "53/udp": {}},
        "Volumes": {"/b": {}, "/a": {}},
        "Cmd": ["run", "with space"],
        "Entrypoint": None,
        "WorkingDir": "/w",
    }
    assert image_info({"Id": "i", "Config": config}) == ImageInfo(
        "i",
        environment={"A": "b=c", "EMPTY": ""},
        ports=(("udp", 53), ("tcp", 80), ("tcp", 443)),
        volumes=("/a", "/b"),
        run_command="run 'with space'",
        working_dir="/w",
    )
    assert image_info({"Id": "i"}) == ImageInfo("i")


@pytest.mark.parametrize(
    ("stamp", "number"),
    [
        ("2024-01-02T03:04:05.000000007Z", "1704164645.000000007"),
        ("2024-01-02T04:04:05.5+01:00", "1704164645.500000000"),
        ("2024-01-02T03:04:05Z", "1704164645.000000000"),
        ("0001-01-01T00:00:00Z", "-62135596800.000000000"),
        ("nonsense", ""),
    ],
)
def test_times(stamp: str, number: str) -> None:
    assert seconds(stamp) == number


# -- log frames


def frame(kind: int, text: str | bytes, nanoseconds: int = 0) -> bytes:
    data = text.encode() if isinstance(text, str) else text
    body = f"2024-01-02T03:04:05.{nanoseconds:09}Z ".encode() + data
    return struct.pack(">BxxxL", kind, len(body)) + body


def lines(*chunks: bytes, after: str = "") -> list[LogLine]:
    return [line for batch, _ in log_batches(chunks, after) for line in batch]


def test_frames_become_lines() -> None:
    data = frame(1, "out\n", 500_000_000) + frame(2, "err ✓\n")
    assert lines(data) == [
        LogLine("stdout", 1704164645.5, "out\n"),
        LogLine("stderr", 1704164645.0, "err ✓\n"),
    ]


def test_pieces_of_a_long_line_are_joined_per_stream() -> None:
    data = [frame(1, "aaa", 1), frame(2, "x", 2), frame(1, "bbb\n", 1), frame(1, "c\n", 3), frame(2, "y", 2)]
    assert [(line.stream, line.text) for line in lines(*data)] == [
        ("stdout", "aaabbb\n"),
        ("stdout", "c\n"),
        ("stderr", "xy"),
    ]


def test_a_character_that_is_cut_between_two_pieces_is_whole() -> None:
    said = "é✓ done\n".encode()
    for cut in range(len(said) + 1):
        data = [frame(1, piece, 1) for piece in (said[:cut], said[cut:]) if piece]
        assert "".join(line.text for line in lines(*data)) == said.decode()
    assert lines(frame(1, b"\xff\xfe\n"))[0].text == "\ufffd\ufffd\n"


def test_a_line_without_an_end_does_not_fill_the_memory() -> None:
    piece = frame(1, "x" * 16384)
    found = lines(*([piece] * 40))
    assert sum(len(line.text) for line in found) == 40 * 16384
    assert max(len(line.text) for line in found) <= 1 << 18


@given(
    st.lists(
        st.tuples(st.sampled_from([1, 2]), st.text(st.characters(codec="utf-8", exclude_characters="\n")))
    ),
    st.data(),
)
def test_frames_may_be_cut_anywhere(told: list[tuple[int, str]], data: st.DataObject) -> None:
    whole = b"".join(frame(kind, f"{text}\n", i) for i, (kind, text) in enumerate(told))
    cuts = sorted(data.draw(st.lists(st.integers(0, len(whole)), max_size=8)))
    chunks = [whole[a:b] for a, b in zip([0, *cuts], [*cuts, len(whole)], strict=True)]
    names = {1: "stdout", 2: "stderr"}
    assert [(x.stream, x.text) for x in lines(*chunks)] == [(names[k], f"{t}\n") for k, t in told]


def test_reading_goes_on_after_a_position() -> None:
    data = [frame(1, f"{i}\n", i) for i in range(6)]
    *_, (_, position) = log_batches(data[:3])
    assert [line.text for line in lines(*data, after=position)] == ["3\n", "4\n", "5\n"]


# -- threads


def test_workers_answer_raise_and_outlive_who_gives_up() -> None:
    async def main() -> None:
        workers = Workers("test", 2)
        squares = (workers.run(functools.partial(pow, i, 2)) for i in range(10))
        assert await asyncio.gather(*squares) == [i * i for i in range(10)]
        with pytest.raises(ZeroDivisionError):
            await workers.run(lambda: 1 / 0)
        go, done = threading.Event(), threading.Event()

        def work() -> None:
            go.wait(10)
            done.set()

        task = asyncio.ensure_future(workers.run(work))
        await asyncio.sleep(0)
        task.cancel()
        go.set()
        assert await workers.run(lambda: done.wait(10))
        workers.close()
        with pytest.raises(BackendError):
            await workers.run(lambda: None)

    asyncio.run(main())


def test_a_pipe_makes_a_fast_writer_wait() -> None:
    async def main() -> None:
        pipe: Pipe[int] = Pipe(3)
        written: list[int] = []

        def write() -> None:
            for i in range(100):
                if not pipe.put(i):
                    return
                written.append(i)
            pipe.end()

        writer = threading.Thread(target=write)
        writer.start()
        read: list[int] = []
        async for item in pipe:
            assert len(written) <= len(read) + 5
            read.append(item)
            if len(read) == 50:
                break
        assert read == list(range(50))
        pipe.close()
        writer.join(10)
        assert not writer.is_alive()
        assert len(written) < 60

    asyncio.run(main())
