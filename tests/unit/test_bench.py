"""The core of the benchmarks: what a row says, that every group can be run, and where the peer comes from."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from bench.measure import Line, Missing, Row, Run, Skipped, as_json, by_turns, markdown, percentile, ratio
from bench.peer_plugin import NAME, plugin
from bench.run import GROUPS, chosen, group


def test_every_group_is_there() -> None:
    for name in GROUPS:
        assert callable(group(name))


def test_a_background_job_is_measured_as_any_other() -> None:
    """Children of a shell's background jobs ignore SIGINT, and the engine waits 5 s for plugins that do."""
    child = [sys.executable, "-c", "import signal; print(signal.getsignal(signal.SIGINT))"]
    program = f"""
import subprocess
from tests.support.interrupts import accept_interrupts
accept_interrupts()
subprocess.run({child!r}, check=True)
"""
    job = [sys.executable, "-c", program]
    done = subprocess.run(
        ["sh", "-c", """trap "" INT; exec "$0" "$@" """, *job],
        cwd=Path(__file__).parents[2],
        capture_output=True,
        text=True,
        check=True,
    )
    assert "default_int_handler" in done.stdout


def test_samples_are_taken_by_turns() -> None:
    taken: list[str] = []

    def ours() -> float:
        taken.append("ours")
        return 3.0

    def peer() -> float:
        taken.append("peer")
        return 2.0

    assert by_turns(Run(Path(), times=3), ours, peer) == ([3.0] * 3, [2.0] * 3)
    assert taken == ["ours", "peer"] * 3


@pytest.mark.parametrize(
    ("goal", "at_least", "met"),
    [(1.5, False, True), (1.4, False, False), (1.5, True, True), (1.6, True, False)],
)
def test_a_goal_is_met_or_missed(goal: float, at_least: bool, met: bool) -> None:
    row = ratio("x", "what", "s", ([3.0, 9.0, 1.0], [1.0]), goal=goal, at_least=at_least, peer_adds=1.0)
    assert row.result == 1.5
    assert row.met is met
    assert row.spread == (1.0, 9.0)


def test_without_a_peer_the_figure_is_the_result() -> None:
    assert Row("x", "what", "ms", 40.0, goal=50.0).met
    assert Row("x", "what", "ms", 40.0).met is None


def test_percentile() -> None:
    assert percentile([float(n) for n in range(101)], 0.95) == 95.0
    assert percentile([7.0], 0.95) == 7.0


def test_table_and_json() -> None:
    lines: list[Line] = [
        Row("a", "ours / peer", "s", 3.0, 2.0, goal=1.15, note="a note"),
        Skipped("docker", "x", "no engine"),
    ]
    table = markdown(lines)
    assert "| a | ours / peer | 3 s | 2 s | 1.50 | at most 1.15 | **missed**; a note |" in table
    assert "| docker | x | - | - | skipped | - | no engine |" in table
    first, second = json.loads(json.dumps(as_json(lines)))
    assert (first["result"], first["met"]) == (1.5, False)
    assert second["reason"] == "no engine"


# -- pulumi-docker, the peer -----------------------------------------------------------------------

# Stands for the Go tool chain: "builds" what it is told to, or fails.
GO = """\
echo "$PWD $*" >>{log}
while [ "$1" != -o ]; do shift; done
{end}
"""
SUCCEEDS = 'printf "#!/bin/sh\\n" >"$2"'
FAILS = "echo 'go: some/module@v1.0.0: not found' >&2; exit 1"


@pytest.fixture
def machine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder that is all that is on PATH, and the folder of a user who has nothing."""
    (tmp_path / "bin").mkdir()
    monkeypatch.setenv("PATH", str(tmp_path / "bin"))
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    monkeypatch.delenv("PULUMI_HOME", raising=False)
    monkeypatch.delenv("XDG_CACHE_HOME", raising=False)
    return tmp_path


def _program(path: Path, body: str = "") -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(f"#!/bin/sh\n{body}", encoding="utf-8")
    path.chmod(0o755)
    return path


def test_the_peer_is_measured_only_when_it_is_asked_for() -> None:
    assert "peer" not in chosen("", peer=False)
    assert chosen("", peer=True) == [*chosen("", peer=False), "peer"]
    assert chosen("a,docker", peer=True) == ["a", "docker", "peer"]
    assert chosen("peer", peer=False) == chosen("peer", peer=True) == ["peer"]


def test_the_named_plugin_is_taken(machine: Path) -> None:
    _program(machine / "bin" / NAME)
    named = _program(machine / "elsewhere" / "any-name")
    assert plugin(named).path == named
    with pytest.raises(Missing, match=r"there is no .*/nowhere"):
        plugin(machine / "nowhere")


def test_the_plugin_that_the_user_has_is_found(machine: Path) -> None:
    plugins = machine / "home" / ".pulumi" / "plugins"
    _program(plugins / "resource-docker-v4.9.0" / NAME)
    newest = _program(plugins / "resource-docker-v4.10.0" / NAME)
    _program(plugins / "resource-docker-build-v9.0.0" / f"{NAME}-build")
    assert plugin(None).path == newest
    on_path = _program(machine / "bin" / NAME)
    assert plugin(None).path == on_path


def test_the_plugin_is_built_once(machine: Path) -> None:
    log = machine / "go.log"
    _program(machine / "bin" / "go", GO.format(log=log, end=SUCCEEDS))
    built = plugin(None)
    assert built.path.name == NAME
    assert built.path.is_relative_to(machine / "home")
    # What it is, is told: it is not the whole of pulumi-docker.
    assert built.what == "pulumi-docker's code for containers"
    assert plugin(None) == built
    (line,) = log.read_text(encoding="utf-8").splitlines()
    assert line.split()[:3] == [
        str(Path(__file__).parents[2] / "bench" / "peer-plugin"),
        "build",
        "-mod=readonly",
    ]


@pytest.mark.parametrize(
    ("go", "reason"),
    [
        (None, "no pulumi-resource-docker, and no go on PATH to build it with"),
        (FAILS, "pulumi-resource-docker cannot be built: go: some/module@v1.0.0: not found"),
    ],
)
def test_it_is_told_why_there_is_no_plugin(machine: Path, go: str | None, reason: str) -> None:
    if go:
        _program(machine / "bin" / "go", GO.format(log=machine / "go.log", end=go))
    with pytest.raises(Missing) as caught:
        plugin(None)
    assert str(caught.value) == reason
    assert not [*(machine / "home").rglob(NAME)]
