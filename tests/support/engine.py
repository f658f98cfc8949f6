"""The real Pulumi CLI on throw-away projects, for tests of what a user sees and what ends up in the state.

    project = Project(folder, PROGRAM, env=server.environment)
    assert project.preview().ops == {"web": ["create"]}
    project.up()
    assert project.resources()["web"]["outputs"]["state"] == "Running"
    assert project.up(fails=True).errors == ["..."]

Every project has a folder, a backend, a HOME and a PULUMI_HOME of its own. The environment is that of the
tests without anything of Pulumi's, Tutum's or Python's; `python` is the interpreter of the tests unless
another one is named. An operation takes about 1.2 s.
"""

from __future__ import annotations

import contextlib
import functools
import json
import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any

from tests.support.tools import need, until

ENGINE = Path(__file__).parents[2] / ".engine" / "bin"
SECONDS = 110.0
_HIDDEN = ("PULUMI_", "TUTUM_", "PYTHON", "VIRTUAL_ENV", "XDG_", "DOCKER_")


@dataclass(frozen=True)
class Step:
    """One thing that the engine did, or in a preview would do, to one resource."""

    op: str
    """Pulumi's word: same, create, update, delete, replace, create-replacement, delete-replaced, read, ..."""
    name: str
    type: str
    keys: tuple[str, ...]
    """The properties that asked for a replacement."""
    old: Mapping[str, Any]
    new: Mapping[str, Any]


@dataclass(frozen=True)
class Result:
    """What one run of the CLI said, and what its engine reported."""

    args: tuple[str, ...]
    returncode: int
    stdout: str
    stderr: str
    events: tuple[dict[str, Any], ...]

    @property
    def output(self) -> str:
        return self.stdout + self.stderr

    @functools.cached_property
    def steps(self) -> list[Step]:
        """One for each of the program's resources and operation on it, in the order of their beginning."""
        steps = []
        for event in self.events:
            # What a refresh found is known only at its end; until then its operation is "refresh".
            kind = "resOutputsEvent" if self.args[0] == "refresh" else "resourcePreEvent"
            step = event.get(kind, {}).get("metadata")
            if step and step["op"] != "refresh" and not step["type"].startswith("pulumi:"):
                steps.append(
                    Step(
                        op=step["op"],
                        name=_name(step["urn"]),
                        type=step["type"],
                        keys=tuple(step.get("keys") or ()),
                        old=step.get("old") or {},
                        new=step.get("new") or {},
                    )
                )
        return steps

    @property
    def ops(self) -> dict[str, list[str]]:
        """Resource name -> what was done to it, without those that stayed the same: {} means no change."""
        ops: dict[str, list[str]] = {}
        for step in self.steps:
            if step.op != "same":
                ops.setdefault(step.name, []).append(step.op)
        return ops

    @property
    def errors(self) -> list[str]:
        return self.diagnostics("error")

    def diagnostics(self, severity: str = "error", name: str | None = None) -> list[str]:
        """Messages of one severity (error, warning, info, info#err, debug), of one resource or of all.

        Ephemeral ones, which only change the resource's row, are not among them: see `progress`.
        """
        return [text for text, ephemeral in self._messages(severity, name) if not ephemeral]

    def progress(self, name: str | None = None) -> list[str]:
        """The ephemeral messages that were shown in the row of one resource, or of all."""
        return [text for text, ephemeral in self._messages("info", name) if ephemeral]

    def _messages(self, severity: str, name: str | None) -> Iterator[tuple[str, bool]]:
        for event in self.events:
            message = event.get("diagnosticEvent", {})
            if message.get("severity") == severity and name in (None, _name(message.get("urn", ""))):
                yield message["message"].strip(), message.get("ephemeral", False)


class Running:
    """A run of the CLI that goes on, in a session of its own. Its output can be read while it goes on."""

    def __init__(self, args: Sequence[str], log: Path, cwd: Path, env: Mapping[str, str]) -> None:
        self.args = tuple(args)
        self._log = log
        self._mark = f"PULUMI_HOME={env['PULUMI_HOME']}".encode()
        log.mkdir(parents=True)
        command = ["pulumi", *args, "--non-interactive", "--color", "never"]
        if args[0] in ("preview", "up", "refresh", "destroy", "import"):
            command += ["--event-log", str(log / "events")]
        with (log / "stdout").open("wb") as stdout, (log / "stderr").open("wb") as stderr:
            self.process = subprocess.Popen(
                [shutil.which("pulumi", path=env["PATH"]) or "pulumi", *command[1:]],
                cwd=cwd,
                env=env,
                stdin=subprocess.DEVNULL,
                stdout=stdout,
                stderr=stderr,
                start_new_session=True,
            )

    @property
    def output(self) -> str:
        """What it has written so far."""
        return self._text("stdout") + self._text("stderr")

    def events(self) -> Iterator[dict[str, Any]]:
        """What its engine has reported so far; the last line may be half written."""
        for line in self._text("events").splitlines():
            with contextlib.suppress(json.JSONDecodeError):
                yield json.loads(line)

    def wait(self, seconds: float = SECONDS) -> Result:
        """Its result. When it does not end in time, it is ended and the test fails with its output."""
        try:
            code = self.process.wait(seconds)
        except subprocess.TimeoutExpired:
            self.end()
            raise AssertionError(f"{self} did not end within {seconds:g} s\n{self.output}") from None
        return Result(self.args, code, self._text("stdout"), self._text("stderr"), tuple(self.events()))

    def until(self, text: str, seconds: float = SECONDS) -> None:
        """Wait until its output holds `text`; fails at once when it ends without."""
        until(lambda: text in self.output or self.process.poll() is not None, f"{text!r} in {self}", seconds)
        assert text in self.output, f"{self} ended without {text!r}\n{self.output}"

    def interrupt(self) -> None:
        """What Ctrl-C sends to the CLI. (In a terminal its children get it too; the engine shields them.)"""
        self.process.send_signal(signal.SIGINT)

    def kill(self) -> None:
        """SIGKILL to the CLI, in which the engine runs; the hosts live on (`children`)."""
        self.process.kill()
        self.process.wait()

    def children(self) -> dict[int, str]:
        """The other processes that it started and that still run: pid -> command line. Linux only.

        Found by their session (the engine gives each plugin a process group of its own) and, as a number may
        have passed on to a stranger, by their environment.
        """
        found = {}
        for folder in Path("/proc").glob("[0-9]*"):
            with contextlib.suppress(OSError):
                state, _, _, session = (folder / "stat").read_text().rpartition(")")[2].split()[:4]
                if int(session) != self.process.pid or state == "Z" or folder.name == session:
                    continue
                if self._mark in (folder / "environ").read_bytes().split(b"\0"):
                    command = (folder / "cmdline").read_bytes().decode(errors="replace")
                    found[int(folder.name)] = " ".join(command.split("\0")).strip()
        return found

    def end(self) -> None:
        """End whatever of it still runs."""
        self.process.kill()
        self.process.wait()
        for pid in self.children():
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        until(lambda: not self.children(), f"end of the children of {self}")

    def _text(self, name: str) -> str:
        path = self._log / name
        return path.read_text(encoding="utf-8", errors="replace") if path.exists() else ""

    def __str__(self) -> str:
        return f"pulumi {' '.join(self.args)}"


def _name(urn: str) -> str:
    return urn.rpartition("::")[2]


class Project:
    """A Pulumi project with one stack, and the operations on it."""

    def __init__(
        self,
        folder: Path,
        program: str,
        *,
        name: str = "project",
        stack: str = "dev",
        config: Mapping[str, str] | None = None,
        secrets: Mapping[str, str] | None = None,
        env: Mapping[str, str] | None = None,
        python: Path = Path(sys.executable),
        monitor_seconds: int | None = 0,
    ) -> None:
        """Make the project in the new `folder`; `program` is its __main__.py.

        `monitor_seconds` is its `tutum:monitorSeconds`; None leaves the package's default, for tests of that.

        `name` and `stack` may be those of another project in another folder: the backends are separate.
        `config` and `secrets` are `config_set`; `env` is added to the environment of every run.
        """
        need("Pulumi engine", (ENGINE / "pulumi").exists(), "make engine")
        self.name, self.stack = name, stack
        self.folder = folder / "program"
        self.state = folder / "state"
        self._logs = folder / "runs"
        self._started: list[Running] = []
        for made in (self.folder, self.state, folder / "home"):
            made.mkdir(parents=True)
        kept = {key: value for key, value in os.environ.items() if not key.startswith(_HIDDEN)}
        self.env = kept | {
            "PATH": os.pathsep.join([str(python.parent), str(ENGINE), os.environ["PATH"]]),
            "HOME": str(folder / "home"),
            "PULUMI_HOME": str(folder / "home" / ".pulumi"),
            "PULUMI_BACKEND_URL": self.state.as_uri(),
            "PULUMI_CONFIG_PASSPHRASE": "a passphrase for tests",
            "PULUMI_SKIP_UPDATE_CHECK": "true",
            # The engine asks the network for plugins of packages that it does not know.
            "PULUMI_DISABLE_AUTOMATIC_PLUGIN_ACQUISITION": "true",
            # Without it the CLI has no --event-log.
            "PULUMI_DEBUG_COMMANDS": "true",
            **(env or {}),
        }
        settings = f"name: {name}\nruntime: python\n"
        if monitor_seconds is not None:
            settings += f"config:\n  tutum:monitorSeconds:\n    value: {monitor_seconds}\n"
        self.write(settings, "Pulumi.yaml")
        self.write(program)
        self.run("stack", "init", stack)
        self.config_set(config or {})
        self.config_set(secrets or {}, secret=True)

    # -- what it is made of -----------------------------------------------------------------------------

    def write(self, text: str, name: str = "__main__.py") -> None:
        """Write a file of the program; the next run uses it."""
        (self.folder / name).write_text(text, encoding="utf-8")

    def config_set(self, values: Mapping[str, str], *, secret: bool = False) -> None:
        """Set stack configuration: key (`tutum:user`) -> value."""
        if values:
            kind = "--secret" if secret else "--plaintext"
            self.run("config", "set-all", *(f"{kind}={key}={value}" for key, value in values.items()))

    # -- operations -------------------------------------------------------------------------------------

    def preview(self, *args: str, fails: bool = False) -> Result:
        return self.run("preview", *args, fails=fails)

    def up(self, *args: str, fails: bool = False) -> Result:
        """Without a preview first: that would take as long again."""
        return self.run("up", "--skip-preview", "--yes", *args, fails=fails)

    def refresh(self, *args: str, fails: bool = False) -> Result:
        return self.run("refresh", "--skip-preview", "--yes", *args, fails=fails)

    def destroy(self, *args: str, fails: bool = False) -> Result:
        return self.run("destroy", "--skip-preview", "--yes", *args, fails=fails)

    def cancel(self) -> Result:
        """Take the lock away that a killed run left behind."""
        return self.run("cancel", "--yes")

    def run(self, *args: str, fails: bool = False, seconds: float = SECONDS) -> Result:
        """Run the CLI to its end. Any other end than the expected one fails the test with its output."""
        running = self.start(*args)
        result = running.wait(seconds)
        if (result.returncode != 0) != fails:
            wanted = "to fail" if fails else "to succeed"
            raise AssertionError(
                f"{running}: expected {wanted}, exit code {result.returncode}\n{result.output}"
            )
        return result

    def start(self, *args: str, env: Mapping[str, str] | None = None) -> Running:
        """Run the CLI in the background: for tests that interrupt or kill it, or look at it meanwhile."""
        log = self._logs / f"{len(self._started):03}-{args[0]}"
        self._started.append(Running(args, log, self.folder, self.env | dict(env or {})))
        return self._started[-1]

    # -- the state --------------------------------------------------------------------------------------

    def export(self) -> dict[str, Any]:
        """The deployment as it is stored (`resources`, `pending_operations`, ...), read without the CLI."""
        path = self.state / ".pulumi" / "stacks" / self.name / f"{self.stack}.json"
        latest: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))["checkpoint"]["latest"]
        return latest or {}

    def resources(self) -> dict[str, dict[str, Any]]:
        """The program's own resources in the state, by name; those still to be deleted are left out."""
        return {
            _name(resource["urn"]): resource
            for resource in self.export().get("resources", [])
            if not resource["type"].startswith("pulumi:") and not resource.get("delete")
        }

    def outputs(self) -> dict[str, Any]:
        """The stack's outputs, secrets in clear."""
        outputs: dict[str, Any] = json.loads(
            self.run("stack", "output", "--json", "--show-secrets").stdout or "{}"
        )
        return outputs

    def written(self) -> Iterator[tuple[Path, str]]:
        """Every file that the runs have written: state, history, backups, output, events."""
        for folder in (self.state, self._logs):
            for path in sorted(folder.rglob("*")):
                if path.is_file():
                    yield path, path.read_text(encoding="utf-8", errors="replace")

    # -- the end ----------------------------------------------------------------------------------------

    def close(self) -> None:
        """End what still runs of it, the hosts of killed engines included."""
        for running in self._started:
            running.end()

    def __enter__(self) -> Project:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.close()
