"""The main job from beginning to end, on the real Pulumi engine: what `make demo` runs.

Everything it makes (a control plane with credentials of its own, a Pulumi state, the project) is in a
temporary folder and is gone at the end, also after an error or Ctrl-C. Exit code 0 only if every step did
what it says.
"""

from __future__ import annotations

import contextlib
import json
import os
import secrets
import shlex
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from types import FrameType
from typing import Any

HERE = Path(__file__).resolve().parent
PROJECT = "wordpress-mysql"
NODES = {"alpha": "wordpress", "beta": "wordpress", "gamma": ""}


class Failed(Exception):
    """A step did not do what it says; the text is for the user."""


class Demo:
    """One run: the environment of its processes, and the folder they work in."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.project = folder / PROJECT
        self.steps = 0
        (folder / "state").mkdir()
        path = [Path(sys.executable).parent, HERE.parent / ".engine" / "bin", os.environ.get("PATH", "")]
        inherited = {k: v for k, v in os.environ.items() if not k.startswith(("TUTUM_", "PULUMI_"))}
        self.environment = inherited | {
            "PATH": os.pathsep.join(map(str, path)),
            "TUTUM_USER": "demo",
            "TUTUM_APIKEY": secrets.token_hex(20),
            "PULUMI_HOME": str(folder / "home"),
            "PULUMI_BACKEND_URL": (folder / "state").as_uri(),
            "PULUMI_CONFIG_PASSPHRASE": secrets.token_hex(20),
            "PULUMI_SKIP_UPDATE_CHECK": "1",
        }
        for command in ("pulumi", "pulumi-tutum"):
            if shutil.which(command, path=self.environment["PATH"]) is None:
                raise Failed(f"there is no `{command}` on PATH: `make demo` sets everything up")

    def step(self, text: str) -> None:
        self.steps += 1
        print(f"\n== {self.steps}. {text}", flush=True)

    def run(self, *command: str, shown: str = "", quiet: bool = False) -> str:
        """Run a command in the project's folder; the output is returned if `quiet`, else shown."""
        print(f"$ {shown or shlex.join(command)}", flush=True)
        child = subprocess.Popen(
            command,
            cwd=self.project,
            env=self.environment,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE if quiet else None,
            text=True,
        )
        try:
            printed, _ = child.communicate()
        except BaseException:
            end(child)
            raise
        if child.returncode:
            raise Failed(f"`{shown or shlex.join(command)}` ended with exit code {child.returncode}")
        return printed or ""

    def outputs(self) -> dict[str, Any]:
        """The stack's outputs, shown and returned."""
        text = self.run("pulumi", "stack", "output", "--json", quiet=True)
        print(text, end="", flush=True)
        outputs: dict[str, Any] = json.loads(text)
        return outputs

    def services(self) -> list[dict[str, Any]]:
        """The services that the control plane has, as its API tells them; terminated ones left out."""
        import pulumi_tutum

        client = pulumi_tutum.Client(
            self.environment["TUTUM_USER"],
            self.environment["TUTUM_APIKEY"],
            rest_host=self.environment["TUTUM_REST_HOST"],
        )
        return [s for s in client.list_services() if s["state"] != "Terminated"]


def serve(demo: Demo, cleanup: contextlib.ExitStack) -> str:
    """Start the control plane on a free port; the address it listens on."""
    command = ["pulumi-tutum", "serve", "--port", "0"]
    for name, tags in NODES.items():
        command += ["--node", f"{name}={tags}"]
    print(f"$ {shlex.join(command)}", flush=True)
    log = demo.folder / "serve.log"
    with log.open("wb") as errors:
        process = subprocess.Popen(
            command,
            env=demo.environment,
            stdout=subprocess.PIPE,
            stderr=errors,
            text=True,
            start_new_session=True,
        )
    cleanup.callback(stop, process)
    assert process.stdout is not None
    for line in process.stdout:
        print(line, end="", flush=True)
        if line.startswith("listening on "):
            return line.split()[-1]
    raise Failed(f"the control plane did not start:\n{log.read_text(encoding='utf-8')[-2000:]}")


def stop(process: subprocess.Popen[str]) -> None:
    process.terminate()
    try:
        process.wait(timeout=15)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()


def end(child: subprocess.Popen[str]) -> None:
    """Let a command end in its own way after Ctrl-C, which at a terminal it got too; else end it."""
    for signum in (signal.SIGINT, signal.SIGINT, signal.SIGKILL):
        with contextlib.suppress(subprocess.TimeoutExpired):
            child.wait(timeout=5)
            return
        child.send_signal(signum)
    child.wait()


def expect(condition: bool, text: str) -> None:
    if not condition:
        raise Failed(text)


def main_job(demo: Demo, cleanup: contextlib.ExitStack) -> None:
    demo.step("The control plane: Tutum's API, with simulated containers on three nodes")
    demo.environment["TUTUM_REST_HOST"] = serve(demo, cleanup)

    demo.step(f"The project: a copy of examples/{PROJECT}, and its configuration")
    shutil.copytree(
        HERE / PROJECT, demo.project, ignore=shutil.ignore_patterns("__pycache__", "Pulumi.*.yaml")
    )
    print((demo.project / "__main__.py").read_text(encoding="utf-8").split('"""')[-1].strip(), end="\n\n")
    demo.run("pulumi", "stack", "init", "demo", quiet=True)
    password = secrets.token_hex(8)
    demo.run(
        *("pulumi", "config", "set", "--secret", "dbPassword", password),
        shown="pulumi config set --secret dbPassword ****",
    )
    demo.run("pulumi", "config", "set", "--path", "nodeTags[0]", "wordpress")

    demo.step("Preview: what would happen; nothing is made yet")
    demo.run("pulumi", "preview")
    expect(not demo.services(), "the preview made a service")

    demo.step("Up: the services are made, and it returns when they really run")
    demo.run("pulumi", "up", "--yes", "--skip-preview")
    outputs = demo.outputs()
    expect(outputs["state"] == "Running", f"web is {outputs['state']}, not Running")
    expect(len(outputs["urls"]) == 2, f"2 URLs were expected, there are {len(outputs['urls'])}")
    demo.run("pulumi-tutum", "ps")

    demo.step("The first log lines, over the websocket")
    for name in (outputs["db"], outputs["web"]):
        demo.run("pulumi-tutum", "logs", "--tail", "4", name)

    demo.step("Scale from the program: 3 containers of WordPress instead of 2")
    demo.run("pulumi", "config", "set", "webContainers", "3")
    demo.run("pulumi", "up", "--yes", "--skip-preview")
    urls = demo.outputs()["urls"]
    expect(len(urls) == 3, f"3 URLs were expected, there are {len(urls)}")

    demo.step("Preview again: the program and the services agree, nothing to do")
    demo.run("pulumi", "preview", "--expect-no-changes")

    demo.step("Destroy: nothing is left")
    demo.run("pulumi", "destroy", "--yes", "--skip-preview")
    left = [s["name"] for s in demo.services()]
    expect(not left, f"destroy left {left}")
    expect(
        password not in (demo.folder / "serve.log").read_text(encoding="utf-8"), "the password is in the log"
    )
    demo.run("pulumi-tutum", "ps")


def interrupted(signum: int, frame: FrameType | None) -> None:
    raise KeyboardInterrupt


def main() -> int:
    signal.signal(signal.SIGTERM, interrupted)
    # A shell starts commands in the background with SIGINT ignored, and what they start inherits it.
    signal.signal(signal.SIGINT, interrupted)
    began = time.monotonic()
    with contextlib.ExitStack() as cleanup:
        folder = Path(tempfile.mkdtemp(prefix="pulumi-tutum-demo-"))
        cleanup.callback(shutil.rmtree, folder, ignore_errors=True)
        try:
            main_job(Demo(folder), cleanup)
        except Failed as error:
            print(f"\nThe demo failed: {error}", file=sys.stderr, flush=True)
            return 1
        except KeyboardInterrupt:
            print("\nInterrupted: everything of the demo is removed.", file=sys.stderr, flush=True)
            return 130
    print(f"\nDone in {time.monotonic() - began:.0f} seconds; everything of the demo is removed.", flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
