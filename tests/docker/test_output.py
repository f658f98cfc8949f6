"""Logs of real containers, and commands in them, through the websocket."""

from __future__ import annotations

import os
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pexpect
import pytest

from pulumi_tutum import config, stream
from pulumi_tutum.errors import StreamError
from tests.support import images
from tests.support.docker_engine import DockerEngine
from tests.support.real import Real
from tests.support.server import Server
from tests.support.tools import until

pytestmark = [pytest.mark.docker]


@pytest.fixture(scope="module")
def server(engine: DockerEngine) -> Iterator[Server]:
    with Server(backend="docker", node=[engine.url], stop_seconds=2) as server:
        yield server
        assert "unexpected" not in server.log(), server.log()


@pytest.fixture
def settings(server: Server) -> config.Settings:
    explicit = {"user": server.user, "apikey": server.apikey, "stream_host": server.stream_url}
    return config.resolve(explicit, {})


def says(script: str) -> str:
    return f"sh -c '{script}; exec sleep 100000'"


def test_lines_have_source_stream_and_time(real: Real, settings: config.Settings) -> None:
    script = "echo to out; sleep 0.2; echo to err >&2; sleep 0.2; echo äöü ✓"
    service = real.run(name="talk", run_command=says(script))
    frames: list[dict[str, Any]] = []
    for frame in stream.logs(settings, service["uuid"]):
        frames.append(frame)
        if len(frames) == 3:
            break
    assert [f["log"] for f in frames] == ["to out\n", "to err\n", "äöü ✓\n"]
    assert [f["streamType"] for f in frames] == ["stdout", "stderr", "stdout"]
    assert {f["source"] for f in frames} == {"talk-1"}
    assert all(isinstance(f["timestamp"], int) and 0 <= time.time() - f["timestamp"] < 600 for f in frames)


def test_tail_of_several_containers_is_in_order(real: Real, settings: config.Settings) -> None:
    script = "for i in 1 2 3 4 5 6 7 8 9; do echo $i; sleep 0.01; done"
    service = real.run(target_num_containers=2, run_command=says(script))
    until(lambda: all(b"9\n" in c.logs() for c in real.inside(service)), "all is written")
    for follow in (False, True):
        frames: list[dict[str, Any]] = []
        for frame in stream.logs(settings, service["uuid"], tail=5, follow=follow):
            frames.append(frame)
            if len(frames) == 5:
                break
        stamps = [f["timestamp"] for f in frames]
        assert stamps == sorted(stamps)
        assert frames[-1]["log"] == "9\n"
    assert list(stream.logs(settings, service["uuid"], tail=0, follow=False)) == []
    (first, _) = real.containers(service)
    lines = list(stream.logs(settings, first["uuid"], kind="container", tail=2, follow=False))
    assert [f["log"] for f in lines] == ["8\n", "9\n"]


def test_nothing_is_missed_from_the_moment_of_connecting_on(real: Real, settings: config.Settings) -> None:
    service = real.run(target_num_containers=2, run_command=says("echo old"))
    containers = real.inside(service)
    until(lambda: all(c.logs() == b"old\n" for c in containers), "all is written")
    outputs = [Path(f"/proc/{c.attrs['State']['Pid']}/fd/1") for c in containers]
    path = f"/v1/service/{service['uuid']}/logs/"
    for number in range(20):
        deadline = time.monotonic() + 60
        with stream.Connection(settings, path, {"tail": number % 2}, deadline=deadline) as connection:
            for output in outputs:
                output.write_text(f"{number}\n")
            messages = connection.messages()
            lines = [next(messages)["log"] for _ in range(2 + number % 2)]
            assert lines[number % 2 :] == [f"{number}\n"] * 2


def test_the_old_end_and_the_new_begin_at_one_line(real: Real, settings: config.Settings) -> None:
    """While all containers write as fast as they can, long lines among it."""
    script = (
        "long=$(head -c 40000 /dev/zero | tr '\\0' x); i=0; while true; do i=$((i+1)); "
        "if [ $((i % 50)) = 0 ]; then echo $i $long; else echo $i; fi; sleep 0.001; done"
    )
    service = real.run(target_num_containers=2, run_command=f'sh -c "{script}"')
    until(lambda: all(len(c.logs(tail=100)) > 300 for c in real.inside(service)), "they write")
    for tail in (1, 30, 2000):
        seen: dict[str, list[int]] = {}
        for frame in stream.logs(settings, service["uuid"], tail=tail):
            number, _, rest = frame["log"].partition(" ")
            if frame["source"] not in seen and number.startswith("x"):
                # The engine counts the pieces of a long line; this is the last one.
                continue
            assert len(rest) in (0, 40001)
            seen.setdefault(frame["source"], []).append(int(number))
            if sum(map(len, seen.values())) >= tail + 500:
                break
        for numbers in seen.values():
            assert numbers == list(range(numbers[0], numbers[0] + len(numbers)))


def test_long_lines_and_lines_without_an_end_are_whole(real: Real, settings: config.Settings) -> None:
    script = 'head -c 50000 /dev/zero | tr "\\0" x; echo; echo short; printf unfinished; exit 0'
    service = real.create(run_command=f"sh -c '{script}'")
    real.act(service, "start")
    real.wait(service, "Stopped")
    lines = [f["log"] for f in stream.logs(settings, service["uuid"], follow=False)]
    assert lines == ["x" * 50000 + "\n", "short\n", "unfinished"]


def test_following_goes_on_over_restarts_redeploys_and_scaling(real: Real, settings: config.Settings) -> None:
    service = real.run(run_command=says("echo up $(hostname)"))
    got: list[str] = []

    def follow() -> None:
        for frame in stream.logs(settings, service["uuid"]):
            got.append(frame["log"])

    follower = threading.Thread(target=follow)
    follower.start()
    first = f"up {service['name']}-1\n"
    until(lambda: got == [first], "the first line")
    real.act(service, "stop")
    real.wait(service, "Stopped")
    real.start(service)
    until(lambda: got == [first, first], "it was started anew")
    real.redeploy(service)
    until(lambda: got == [first] * 3, "it was deployed anew")
    real.scale(service, 2)
    until(lambda: got == [first] * 3 + [f"up {service['name']}-2\n"], "there is another one")
    real.terminate(service)
    follower.join(60)
    assert not follower.is_alive(), "the stream ends with the service"


def test_nothing_is_lost_and_memory_is_flat_while_nobody_reads(
    real: Real, server: Server, settings: config.Settings
) -> None:
    count = 20_000
    script = f"i=0; while [ $i -lt {count} ]; do echo $i {'x' * 200}; i=$((i+1)); done; sleep 1"
    service = real.run(target_num_containers=2, run_command=says(script))
    path = f"/v1/service/{service['uuid']}/logs/"
    with stream.Connection(settings, path, {"tail": 100_000}) as connection:
        messages = connection.messages()
        seen = [next(messages)]
        before = server.resident_bytes()
        until(
            lambda: all(c.logs(tail=1).startswith(b"19999 ") for c in real.inside(service)), "all is written"
        )
        assert server.resident_bytes() - before < 60 << 20
        while len(seen) < 2 * count:
            seen.append(next(messages))
    for source in {f["source"] for f in seen}:
        numbers = [int(f["log"].split()[0]) for f in seen if f["source"] == source]
        assert numbers == list(range(count))


def run(settings: config.Settings, uuid: str, command: str, *typed: str) -> list[tuple[str, str]]:
    """The output of a command in a container: (stream, text)."""
    with stream.exec_command(settings, uuid, command) as connection:
        for text in typed:
            connection.send(text)
        return [(m["streamType"], m["output"]) for m in connection.messages()]


def test_a_command_gets_input_and_both_outputs(real: Real, settings: config.Settings) -> None:
    service = real.run(name="host")
    uuid = real.containers(service)[0]["uuid"]
    assert run(settings, uuid, "hostname") == [("stdout", "host-1\n")]
    out = run(settings, uuid, "sh -c 'cat; echo done >&2'", "one\n", "two ✓\n", "\x04")
    assert "".join(text for name, text in out if name == "stdout") == "one\ntwo ✓\n"
    assert "".join(text for name, text in out if name == "stderr") == "done\n"
    out = run(settings, uuid, "/no/such/program")
    assert "no such file or directory" in str(out)
    for command, code in (("true", 0), ("sh -c 'echo said; exit 7'", 7)):
        with stream.exec_command(settings, uuid, command) as connection:
            assert connection.exit_code is None
            list(connection.messages())
            assert connection.exit_code == code


def test_the_exit_code_is_known_though_the_output_ends_before(real: Real, settings: config.Settings) -> None:
    uuid = real.containers(real.run())[0]["uuid"]
    with stream.exec_command(settings, uuid, "sh -c 'exec >&- 2>&-; sleep 3; exit 7'") as connection:
        assert list(connection.messages()) == []
        assert connection.exit_code == 7


@pytest.mark.parametrize("asked", [{"tty": True}, {"user_agent": "tutum-cli/0.21.1"}])
def test_a_command_gets_a_terminal(real: Real, settings: config.Settings, asked: dict[str, Any]) -> None:
    """Who asks for it, and the command line of Tutum, which sends keys and expects to see them."""
    uuid = real.containers(real.run())[0]["uuid"]
    with stream.exec_command(settings, uuid, "sh", **asked) as connection:
        typed, shown = "[ -t 0 ] && [ -t 1 ] && echo $((40 + 2)) >&2", ""
        connection.send(f"{typed}\r")
        for message in connection.messages():
            assert message["streamType"] == "stdout"
            shown += message["output"]
            if "\r\n42\r\n" in shown:
                assert typed in shown
                connection.send("exit 3\r")
        assert "\r\n42\r\n" in shown
        assert connection.exit_code == 3


def test_the_command_line_hands_a_terminal_on(real: Real, server: Server) -> None:
    service = real.run()
    code = "from pulumi_tutum.cli import main; main(prog_name='pulumi-tutum')"
    child = pexpect.spawn(
        sys.executable,
        ["-c", code, "exec", "--tty", service["name"]],
        env=os.environ | server.environment,
        timeout=60,
        encoding="utf-8",
    )
    child.expect_exact("# ")
    child.send("stty -echo; sleep 100000\r")
    until(lambda: b"sleep 100000" in real.one(service).top()["Processes"][-1][-1].encode(), "it sleeps")
    child.send("\x03")  # is the container's, not ours
    child.send("echo $((40 + 2)); exit 3\r")
    child.expect_exact("42\r\n")
    child.expect(pexpect.EOF)
    child.close()
    assert child.exitstatus == 3


def test_no_command_in_a_container_that_does_not_run(real: Real, settings: config.Settings) -> None:
    service = real.run()
    uuid = real.containers(service)[0]["uuid"]
    real.act(service, "stop")
    real.wait(service, "Stopped")
    with (
        stream.exec_command(settings, uuid, "true") as connection,
        pytest.raises(StreamError, match="in a container in state 'Stopped'"),
    ):
        list(connection.messages())


def test_the_output_of_removed_containers_is_kept(engine: DockerEngine, tmp_path: Path) -> None:
    options: dict[str, Any] = {"node": [engine.url], "stop_seconds": 1, "data": tmp_path}
    with Server(backend="docker", **options) as server, Real(server, engine.node_urls) as real:
        script = (
            "i=0; while [ $i -lt 1500 ]; do echo line $i; i=$((i+1)); done; sleep 1; echo oops >&2; exit 4"
        )
        job = real.create(run_command=f"sh -c '{script}'", autodestroy="ALWAYS")
        real.act(job, "start")
        real.wait(job, "Not running")
        failed = real.create(run_command="sh -c 'echo first try; exit 5'")
        real.act(failed, "start")
        real.wait(failed, "Stopped")
        real.patch(failed, run_command=says("echo second try"))
        assert real.redeploy(failed)["state"] == "Running"
        until(lambda: real.inside(job) == [] and len(real.inside(failed)) == 1, "what has ended is removed")
        server.restart(kill=True)

        def lines(service: dict[str, Any]) -> list[str]:
            path = f"{service['resource_uri']}logs/?tail=2000"
            return str(real.ok("GET", path)["logs"]).splitlines()

        kept = lines(job)
        assert len(kept) == 1000, "the last ones"
        assert "oops" in kept
        assert kept[0] == "line 501"
        assert lines(failed) == ["first try", "second try"]
        real.terminate(job, failed)
        assert lines(job) == kept
        real.terminate_all()


def test_an_engine_that_is_gone_does_not_hold_up_the_end(docker_tools: None, tmp_path: Path) -> None:
    with DockerEngine() as engine:
        images.load(engine, images.busybox())
        options: dict[str, Any] = {"node": [engine.url], "data": tmp_path, "start_timeout": 3}
        with Server(backend="docker", **options) as server, Real(server, engine.node_urls) as real:
            ended = real.create(run_command="sh -c 'exit 5'")
            real.act(ended, "start")
            real.wait(ended, "Stopped")
            engine.kill()
            (node,) = real.ok("GET", "/api/v1/node/")["objects"]
            until(lambda: real.get(node["uuid"], "node")["state"] == "Unreachable", "the node is unreachable")
            real.ok("DELETE", f"/api/v1/service/{ended['uuid']}/")
            real.wait(ended, "Terminated")
            engine.start()
