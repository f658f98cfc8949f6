"""engine/install.py, run as `make engine` runs it, on a private PATH with programs of our own."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

SCRIPT = Path(__file__).parents[2] / "engine" / "install.py"
PROGRAMS = {
    "pulumi",
    "pulumi-language-python",
    "pulumi-language-python-exec",
    "pulumi-resource-pulumi-python",
}

# Stands for the Go tool chain: knows its version, "builds" what it is told to, and has one module.
GO = """\
case "$1" in
version) echo "go version go{version} linux/amd64" ;;
build)
    echo "build $PWD $*" >>"{log}"
    echo "github.com/pulumi/some/package" >&2
    {during_build}
    while [ "$1" != -o ]; do shift; done
    printf '#!/bin/sh\\necho v3.259.0\\n' >"$2"
    /bin/chmod +x "$2" ;;
list) echo "{module}" ;;
esac
"""


class Machine:
    """A computer that has only what a test puts on its PATH."""

    def __init__(self, folder: Path) -> None:
        self.bin = folder / "bin"
        self.cache = folder / "cache"
        self.into = folder / "checkout" / ".engine"
        self.go_log = folder / "go.log"
        self.module = folder / "module"
        self.bin.mkdir()

    def program(self, name: str, body: str, folder: Path | None = None) -> Path:
        path = (folder or self.bin) / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(f"#!/bin/sh\n{body}\n", encoding="utf-8")
        path.chmod(0o755)
        return path

    def pulumi(self, version: str, folder: Path | None = None, without: str = "") -> None:
        self.program("pulumi", f"echo {version}", folder)
        for name in PROGRAMS - {"pulumi", without}:
            self.program(name, "exit 0", folder)

    def go(self, version: str = "1.26.0", during_build: str = "") -> None:
        for name in ("python/cmd/pulumi-language-python-exec", "python/dist/pulumi-resource-pulumi-python"):
            self.program(name, 'if __name__ == "__main__":', self.module)
        body = GO.format(version=version, during_build=during_build, log=self.go_log, module=self.module)
        self.program("go", body)

    def start(self, into: Path | None = None) -> subprocess.Popen[str]:
        environment = {
            "PATH": str(self.bin),
            "XDG_CACHE_HOME": str(self.cache),
            "HOME": str(self.cache / "home"),
        }
        command = [sys.executable, str(SCRIPT), "--into", str(into or self.into)]
        return subprocess.Popen(
            command, env=environment, stderr=subprocess.PIPE, text=True, start_new_session=True
        )

    def install(self, into: Path | None = None) -> tuple[int, list[str]]:
        """Run it to its end: exit code and the lines it said."""
        with self.start(into) as process:
            said = process.communicate(timeout=60)[1].splitlines()
        return process.returncode, said

    def installed(self) -> dict[str, Path]:
        return {entry.name: entry.resolve() for entry in (self.into / "bin").iterdir()}

    def in_cache(self) -> list[str]:
        """Names in the cache, but for the lock that always stays."""
        return sorted(entry.name for entry in (self.cache / "pulumi-tutum" / "engine").glob("[!l]*"))


@pytest.fixture
def machine(tmp_path: Path) -> Machine:
    return Machine(tmp_path)


class TestPulumiOnPath:
    def test_is_linked(self, machine: Machine) -> None:
        machine.pulumi("v3.300.1")
        code, said = machine.install()
        assert (code, said) == (0, [f"engine: pulumi 3.300.1 from {machine.bin}"])
        assert machine.installed() == {name: machine.bin / name for name in PROGRAMS}

    def test_is_asked_without_a_trace_in_the_home_of_the_user(self, machine: Machine) -> None:
        machine.pulumi('v3.300.1; /bin/mkdir -p "${PULUMI_HOME:-$HOME/.pulumi}/logs"')
        assert machine.install()[0] == 0
        assert not (machine.cache / "home").exists()

    def test_may_be_a_link_to_where_its_companions_are(self, machine: Machine, tmp_path: Path) -> None:
        machine.pulumi("v3.300.1", folder=tmp_path / "cellar")
        (machine.bin / "pulumi").symlink_to(tmp_path / "cellar" / "pulumi")
        assert machine.install()[0] == 0
        assert set(machine.installed().values()) == {tmp_path / "cellar" / name for name in PROGRAMS}

    def test_says_nothing_the_second_time(self, machine: Machine) -> None:
        machine.pulumi("v3.300.1")
        machine.install()
        assert machine.install() == (0, [])

    def test_that_went_away_is_looked_for_again(self, machine: Machine, tmp_path: Path) -> None:
        machine.pulumi("v3.300.1", folder=tmp_path / "old")
        (machine.bin / "pulumi").symlink_to(tmp_path / "old" / "pulumi")
        machine.install()
        (machine.bin / "pulumi").unlink()
        (tmp_path / "old").rename(tmp_path / "gone")
        machine.pulumi("v3.301.0")
        assert machine.install() == (0, [f"engine: pulumi 3.301.0 from {machine.bin}"])

    def test_is_not_our_own_link(self, machine: Machine) -> None:
        machine.pulumi("v3.300.1", folder=machine.into / "bin")
        machine.bin = machine.into / "bin"
        assert "engine: no pulumi on PATH" in machine.install()[1]

    @pytest.mark.parametrize(
        ("version", "complaint"),
        [
            ("v3.215.9", "{pulumi} is too old: 3.215.9, and 3.216 or newer is needed"),
            ("v2.300.0", "{pulumi} is too old: 2.300.0, and 3.216 or newer is needed"),
            ("hello", "{pulumi} does not tell its version: 'hello'"),
            ("v3.300.1; exit 3", "{pulumi} does not run: "),
        ],
    )
    def test_that_will_not_do_is_named(self, machine: Machine, version: str, complaint: str) -> None:
        machine.pulumi(version)
        code, said = machine.install()
        assert code == 1
        assert said[0].startswith("engine: " + complaint.format(pulumi=machine.bin / "pulumi"))
        assert not (machine.into / "bin").exists()

    @pytest.mark.parametrize("missing", sorted(PROGRAMS - {"pulumi"}))
    def test_without_a_companion_is_named(self, machine: Machine, missing: str) -> None:
        machine.pulumi("v3.300.1", without=missing)
        code, said = machine.install()
        assert code == 1
        assert said[0] == f"engine: {machine.bin / 'pulumi'} comes without {missing}"


def test_with_nothing_at_all_one_sentence_says_what_to_install(machine: Machine) -> None:
    code, said = machine.install()
    assert code == 1
    assert said[-1] == (
        "engine: no engine: install the Pulumi CLI (https://get.pulumi.com) or Go 1.25 or newer, "
        "and run this again."
    )
    assert machine.in_cache() == []


class TestOfficialInstaller:
    CURL = """\
while [ "$1" != -o ]; do shift; done
/bin/cat >"$2" <<'SCRIPT'
{script}
SCRIPT
"""
    SCRIPT = """\
while [ "$1" != --install-root ]; do shift; done
/bin/mkdir -p "$2/bin"
for name in {names}; do
    printf '#!/bin/sh\\necho v3.259.0\\n' >"$2/bin/$name"
    /bin/chmod +x "$2/bin/$name"
done
echo "export PATH=changed" >"$HOME/.profile"
"""

    def offer(self, machine: Machine, names: set[str]) -> None:
        script = self.SCRIPT.format(names=" ".join(sorted(names)))
        machine.program("curl", self.CURL.format(script=script))

    def test_fills_the_cache(self, machine: Machine) -> None:
        self.offer(machine, PROGRAMS | {"pulumi-language-go"})
        code, said = machine.install()
        assert (code, len(machine.in_cache())) == (0, 1)
        assert set(machine.installed()) == PROGRAMS
        assert said[-1].startswith("engine: pulumi 3.259.0 from ")

    def test_does_not_touch_the_profile(self, machine: Machine) -> None:
        (machine.cache / "home").mkdir(parents=True)
        self.offer(machine, PROGRAMS)
        assert machine.install()[0] == 0
        assert list((machine.cache / "home").iterdir()) == []

    def test_that_leaves_half_of_it_does_not_count(self, machine: Machine) -> None:
        self.offer(machine, PROGRAMS - {"pulumi-language-python"})
        code, said = machine.install()
        assert (code, machine.in_cache()) == (1, [])
        assert "engine: the official installer left no pulumi-language-python" in said

    def test_that_cannot_be_reached_gives_way_to_the_build(self, machine: Machine) -> None:
        machine.program("curl", "echo 'curl: (28) Connection timed out' >&2; exit 28")
        machine.go()
        code, said = machine.install()
        assert code == 0
        assert "engine: the official installer cannot be had: curl: (28) Connection timed out" in said


class TestBuild:
    def test_fills_the_cache_for_every_checkout(self, machine: Machine, tmp_path: Path) -> None:
        machine.go()
        assert machine.install()[0] == 0
        assert machine.install(into=tmp_path / "second")[0] == 0
        assert len(machine.go_log.read_text().splitlines()) == 2
        assert [name.split("-")[0] for name in machine.in_cache()] == ["3.259.0"]
        for name in PROGRAMS:
            first, second = machine.into / "bin" / name, tmp_path / "second" / "bin" / name
            assert os.access(first, os.X_OK)
            assert first.resolve() == second.resolve()

    def test_uses_the_pinned_modules(self, machine: Machine) -> None:
        machine.go()
        machine.install()
        cli, language = machine.go_log.read_text().splitlines()
        assert cli.startswith(f"build {SCRIPT.parent / 'cli'} ")
        assert "-mod=readonly" in cli
        assert "version.Version=3.259.0" in cli
        assert language.startswith(f"build {SCRIPT.parent / 'language'} ")

    def test_lets_sigint_end_the_program(self, machine: Machine) -> None:
        machine.go()
        machine.install()
        script = (machine.into / "bin" / "pulumi-language-python-exec").read_text()
        assert script.endswith('signal.signal(signal.SIGINT, signal.SIG_DFL)\n\nif __name__ == "__main__":\n')

    def test_that_fails_leaves_nothing_and_tells_why(self, machine: Machine) -> None:
        machine.go(during_build="echo 'no space left on device' >&2; exit 1")
        code, said = machine.install()
        assert (code, machine.in_cache()) == (1, [])
        assert "engine: go build of pulumi failed: no space left on device" in said

    def test_needs_a_go_that_can_do_it(self, machine: Machine) -> None:
        machine.go(version="1.19.8")
        code, said = machine.install()
        assert code == 1
        assert f"engine: {machine.bin / 'go'} is too old: 1.19.8, and 1.21 or newer is needed" in said

    @pytest.mark.parametrize("how", [signal.SIGKILL, signal.SIGTERM])
    def test_that_was_ended_half_way_is_made_again(
        self, machine: Machine, tmp_path: Path, how: signal.Signals
    ) -> None:
        started = tmp_path / "started"
        machine.go(during_build=f'echo >"{started}"; while [ -e "{started}" ]; do /bin/sleep 0.05; done')
        with machine.start() as process:
            wait_for(started)
            process.send_signal(how)
            process.communicate(timeout=60)
        assert all(name.startswith("new-") for name in machine.in_cache())
        started.unlink()

        machine.go()
        assert machine.install()[0] == 0
        assert [name.split("-")[0] for name in machine.in_cache()] == ["3.259.0"]

    def test_of_two_checkouts_at_once_happens_once(self, machine: Machine, tmp_path: Path) -> None:
        started, go_on = tmp_path / "started", tmp_path / "go on"
        machine.go(during_build=f'echo >"{started}"; until [ -e "{go_on}" ]; do /bin/sleep 0.05; done')
        with machine.start() as first:
            wait_for(started)
            with machine.start(into=tmp_path / "second") as second:
                assert second.stderr is not None
                said = [second.stderr.readline() for _ in range(2)]
                go_on.touch()
                second.communicate(timeout=60)
            first.communicate(timeout=60)
        assert said[1] == "engine: another checkout is making the engine; waiting for it\n"
        assert (first.returncode, second.returncode) == (0, 0)
        assert len(machine.go_log.read_text().splitlines()) == 2


def wait_for(path: Path) -> None:
    deadline = time.monotonic() + 60
    while not path.exists():
        assert time.monotonic() < deadline, f"{path} did not appear"
        time.sleep(0.02)
