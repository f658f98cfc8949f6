"""What failing probes of a health check say: answers and outputs in words, bounded, without secrets."""

from __future__ import annotations

import asyncio
import http.server
import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import pytest

from pulumi_tutum.server.backends import ContainerSpec, probes
from pulumi_tutum.server.backends.health import HealthChecks, engine_detail, probe

NOON = 1_700_049_605.0  # 12:00:05 UTC


@contextmanager
def answering(status: int, body: bytes, seconds: float = 0.0) -> Iterator[int]:
    """A web server on a port of its own that gives each GET the same answer."""
    over = threading.Event()

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            over.wait(seconds)
            self.send_response(status)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, format: str, *args: Any) -> None:
            pass

    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    try:
        yield server.server_address[1]
    finally:
        over.set()
        server.shutdown()
        server.server_close()


def free_port() -> int:
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        port: int = sock.getsockname()[1]
        return port


def test_a_bad_answer_is_quoted() -> None:
    with answering(503, b"maintenance\n") as port:
        assert probe("127.0.0.1", port, "/health", 5) == (False, "answered 503 'maintenance'")
    with answering(404, b"") as port:
        assert probe("127.0.0.1", port, "/health", 5) == (False, "answered 404")
    with answering(302, b"elsewhere") as port:
        assert probe("127.0.0.1", port, "/health", 5).good


def test_no_answer_is_told_by_its_kind() -> None:
    assert probe("127.0.0.1", free_port(), "/", 5) == (False, "failed: connection refused")
    with answering(200, b"", seconds=60) as port:
        assert probe("127.0.0.1", port, "/", 0.2) == (False, "did not answer within 0.2 seconds")
    with socket.socket() as silent:
        silent.bind(("127.0.0.1", 0))
        silent.listen()

        def close_at_once() -> None:
            connection, _ = silent.accept()
            connection.recv(1000)
            connection.close()

        threading.Thread(target=close_at_once, daemon=True).start()
        found = probe("127.0.0.1", silent.getsockname()[1], "/", 5)
    assert found == (False, "failed: the connection was closed without an answer")


def test_an_answer_is_bounded_and_shows_no_secret() -> None:
    secret = "s3cret-" * 40
    body = f"{'x' * 290} {secret} more".encode()
    with answering(500, body) as port:
        text = probe("127.0.0.1", port, "/", 5, [secret]).text
    assert len(text) < 350
    assert "s3cret" not in text
    with answering(500, b"cannot log in\nwith hunter22") as port:
        assert (
            probe("127.0.0.1", port, "/", 5, ["hunter22"]).text
            == "answered 500 'cannot log in with [secret]'"
        )


def test_an_http_check_says_how_often_and_since_when() -> None:
    told: list[str] = []

    async def check(port: int) -> tuple[bool | None, str]:
        checks = HealthChecks(told.append)
        settings = {"http": "/health", "port": 80, "interval_seconds": 0.05, "retries": 2}
        spec = ContainerSpec("c", "web-1", "s", "web", 1, "n", "acme/web", "r", healthcheck=settings)
        checks.watch("c", "run", "127.0.0.1", port, spec)
        try:
            while len(told) < 3:
                await asyncio.sleep(0.01)
            return checks.verdict("c"), checks.detail("c")
        finally:
            checks.close()

    with answering(503, b"maintenance") as port:
        verdict, detail = asyncio.run(check(port))
    assert verdict is False
    start, times, rest = detail.partition(", 3 times in a row since ")
    assert (start, times) == (
        "GET /health on port 80 answered 503 'maintenance'",
        ", 3 times in a row since ",
    )
    assert rest.endswith(" UTC")


def entry(code: int, output: str, second: int) -> dict[str, Any]:
    return {"Start": f"2023-11-15T12:00:{second:02}.5Z", "ExitCode": code, "Output": output}


def test_the_engines_log_of_a_command_in_words() -> None:
    health = {
        "Status": "unhealthy",
        "FailingStreak": 2,
        "Log": [entry(0, "", 0), entry(1, "starting\n", 5), entry(7, "no such\nhost hunter22\n", 10)],
    }
    assert engine_detail(health, ["CMD-SHELL", "curl -f http://db"], ["hunter22"]) == (
        "command `curl -f http://db` exited with code 7 and the output 'no such host [secret]', "
        "2 times in a row since 12:00:05 UTC"
    )
    # The log has the last five probes only.
    long = {**health, "FailingStreak": 40, "Log": [entry(1, "", n) for n in range(5)]}
    assert engine_detail(long, ["CMD", "test", "-e", "/x"], []) == (
        "command `test -e /x` exited with code 1 without any output, 40 times in a row"
    )


def test_a_command_that_the_engine_ended_or_could_not_run() -> None:
    late = {"FailingStreak": 1, "Log": [entry(-1, "Health check exceeded timeout (2s)", 5)]}
    assert engine_detail(late, ["CMD-SHELL", "sleep 9"], []) == (
        "command `sleep 9` failed, once at 12:00:05 UTC: Health check exceeded timeout (2s)"
    )


@pytest.mark.parametrize(
    "health", [{}, {"Log": None}, {"Log": []}, {"Log": [entry(1, "", 1), entry(0, "", 2)]}]
)
def test_a_check_that_does_not_fail_says_nothing(health: dict[str, Any]) -> None:
    assert engine_detail(health, ["CMD", "true"], []) == ""


@pytest.mark.parametrize(
    ("write", "start"),
    [
        (lambda text: probes.beginning_of(text, ["topsecret!"]), "aaa"),
        (lambda text: probes.command_failure("c", 1, text, ["topsecret!"], 1, NOON), "command `c`"),
    ],
)
def test_a_secret_that_is_cut_off_is_not_shown(write: Callable[[str], str], start: str) -> None:
    # Where a text is cut to be shown, and where the engine has cut it already.
    for length in range(280, 320):
        assert "tops" not in write("a" * length + "topsecret!" + "b" * length)
    for kept in range(1, 10):
        assert "tops" not in write("a" * (4096 - kept) + "topsecret!"[:kept])
    assert write("aaa").startswith(start)
