"""A real control plane in a process of its own, for tests of everything that talks to one."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from types import TracebackType

__all__ = ["Server", "StartFailed"]

USER, APIKEY = "bob", "k3y-of-bob-0123456789abcdef"
_START_SECONDS = 60.0
_STOP_SECONDS = 30.0


class StartFailed(AssertionError):
    """The process ended, or said nothing in time; the text holds its log."""


class Server:
    """`pulumi-tutum serve --port 0 ...`, started at once, stopped by `stop` or at the end of a `with`.

    Args:
        options: options of `serve` by their Python name: `nodes=3`, `lenient=True`, `data=folder`,
            `node=["a=front,eu", "b"]`; True stands for a flag, a list for a repeated option.
        user, apikey: its credentials. `apikey=None`: it makes its own, which are read from its output.
        environ: further environment variables.

    Attributes:
        url: `http://127.0.0.1:<port>`; the same after `restart`.
        stream_url: the same as `ws://` or `wss://`.
        user, apikey: credentials that work.
        output: the lines on its standard output so far.
    """

    def __init__(
        self,
        *,
        user: str = USER,
        apikey: str | None = APIKEY,
        environ: Mapping[str, str] | None = None,
        **options: object,
    ) -> None:
        self.user, self.apikey = user, apikey or ""
        self._makes_key = apikey is None
        self._environ = dict(environ or {})
        self._options = {"host": "127.0.0.1", "port": 0, **options}
        self._log = tempfile.NamedTemporaryFile("w+", prefix="pulumi-tutum-log-", suffix=".txt")  # noqa: SIM115
        self.output: list[str] = []
        self.url = ""
        self._process: subprocess.Popen[str] | None = None
        self.start()

    @property
    def stream_url(self) -> str:
        return "ws" + self.url.removeprefix("http")

    @property
    def auth(self) -> tuple[str, str]:
        """For `requests`: Basic credentials."""
        return self.user, self.apikey

    @property
    def headers(self) -> dict[str, str]:
        """An `Authorization` header in Tutum's first style."""
        return {"Authorization": f"ApiKey {self.user}:{self.apikey}"}

    @property
    def environment(self) -> dict[str, str]:
        """The environment variables with which clients find this server."""
        return {
            "TUTUM_USER": self.user,
            "TUTUM_APIKEY": self.apikey,
            "TUTUM_REST_HOST": self.url,
            "TUTUM_STREAM_HOST": self.stream_url,
        }

    @property
    def pid(self) -> int:
        return self._running().pid

    def start(self) -> None:
        """Start the process and wait until it accepts connections."""
        environ = {k: v for k, v in os.environ.items() if not k.startswith("TUTUM_")}
        environ.update(PYTHONUNBUFFERED="1", **self._environ)
        if not self._makes_key:
            environ.update(TUTUM_USER=self.user, TUTUM_APIKEY=self.apikey)
        self._process = subprocess.Popen(
            [*command(), *_arguments(self._options)],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=self._log.fileno(),
            text=True,
            env=environ,
        )
        listening = threading.Event()
        self._reader = threading.Thread(
            target=self._read_output, args=(self._process, listening), daemon=True
        )
        self._reader.start()
        if not listening.wait(_START_SECONDS) or not self.url:
            self.kill()
            raise StartFailed(f"the server did not start; its log:\n{self.log()}")
        # A restart gets the same port, so that clients find it again.
        self._options["port"] = self.url.rpartition(":")[2]

    def _read_output(self, process: subprocess.Popen[str], listening: threading.Event) -> None:
        assert process.stdout is not None
        for line in process.stdout:
            self.output.append(line.rstrip("\n"))
            word, _, rest = self.output[-1].partition("=")
            if word == "TUTUM_USER":
                self.user = rest
            elif word == "TUTUM_APIKEY":
                self.apikey = rest
            elif line.startswith("listening on "):
                self.url = line.removeprefix("listening on ").strip()
                listening.set()
        listening.set()

    def kill(self) -> None:
        """SIGKILL: the process gets no chance to tidy up."""
        self._end(signal.SIGKILL)

    def stop(self) -> int:
        """SIGTERM; returns the exit code."""
        return self._end(signal.SIGTERM)

    def restart(self, *, kill: bool = False) -> None:
        """Stop (or kill) and start again: same port, same data."""
        self.kill() if kill else self.stop()
        self.start()

    def send_signal(self, number: signal.Signals) -> None:
        """Send the process a signal, e.g. SIGSTOP to make it a server that does not answer."""
        self._running().send_signal(number)

    def wait(self) -> int:
        """Wait until the process ends by itself; returns the exit code."""
        return self._end(None)

    def log(self) -> str:
        """What it has written to standard error, over all its starts."""
        return Path(self._log.name).read_text(encoding="utf-8", errors="replace")

    def resident_bytes(self) -> int:
        """Its resident memory now (Linux)."""
        text = Path(f"/proc/{self.pid}/status").read_text(encoding="ascii")
        (line,) = (line for line in text.splitlines() if line.startswith("VmRSS:"))
        return int(line.split()[1]) * 1024

    def _running(self) -> subprocess.Popen[str]:
        assert self._process is not None, "the server is not running"
        return self._process

    def _end(self, number: signal.Signals | None) -> int:
        process, self._process = self._process, None
        if process is None:
            return 0
        if number is not None:
            with contextlib.suppress(ProcessLookupError):
                process.send_signal(number)
        try:
            code = process.wait(_STOP_SECONDS)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
            raise AssertionError(f"the server did not stop; its log:\n{self.log()}") from None
        self._reader.join()
        assert process.stdout is not None
        process.stdout.close()
        return code

    def __enter__(self) -> Server:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Stop it, if it still runs, and forget its log."""
        try:
            self._end(signal.SIGTERM)
        finally:
            self._log.close()


def command() -> list[str]:
    """The command that serves, of the package under test."""
    return [
        sys.executable,
        "-c",
        "from pulumi_tutum.cli import main; main(prog_name='pulumi-tutum')",
        "serve",
    ]


def run_to_end(
    *arguments: str, environ: Mapping[str, str] | None = None, seconds: float = 60.0
) -> subprocess.CompletedProcess[str]:
    """Run the command with arguments that make it end by itself."""
    clean = {k: v for k, v in os.environ.items() if not k.startswith("TUTUM_")}
    return subprocess.run(
        [*command(), *arguments],
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        env={**clean, **(environ or {})},
        timeout=seconds,
        check=False,
    )


def _arguments(options: Mapping[str, object]) -> Iterator[str]:
    for name, value in options.items():
        flag = "--" + name.replace("_", "-")
        if value is True:
            yield flag
        elif isinstance(value, Sequence) and not isinstance(value, str):
            for item in value:
                yield from (flag, str(item))
        elif value is not False and value is not None:
            yield from (flag, str(value))


def wait_for(what: str, seconds: float = 60.0) -> Iterator[None]:
    """Loop until the body breaks: `for _ in wait_for("Running"): if ...: break`. Fails after `seconds`."""
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        yield
        time.sleep(0.02)
    raise AssertionError(f"waited {seconds:g} s in vain for {what}")
