"""The harness itself (tests/support/engine.py), on a provider that does nothing but what it is told."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.support.engine import Project
from tests.support.tools import until

# In a module of its own: from __main__ a provider is pickled by value.
THINGS = """
import os, pathlib, time
from pulumi.dynamic import (
    CheckFailure, CheckResult, CreateResult, DiffResult, ReadResult, Resource, ResourceProvider, UpdateResult
)


class Things(ResourceProvider):
    serialize_as_secret_always = False

    def check(self, olds, news):
        return CheckResult(news, [CheckFailure("", "n: must not be 13")] if news.get("n") == 13 else [])

    def diff(self, id, olds, news):
        replaces = ["kind"] if news.get("kind") != olds.get("kind") else []
        return DiffResult(changes=bool(replaces) or olds.get("n") != news.get("n"), replaces=replaces)

    def create(self, props):
        gate = os.environ.get("GATE")
        if gate:
            pathlib.Path(gate + ".reached").touch()
            while not pathlib.Path(gate).exists():
                time.sleep(0.02)
        return CreateResult("id-" + props["kind"], dict(props))

    def update(self, id, olds, news):
        return UpdateResult(dict(news))

    def read(self, id, props):
        seen = pathlib.Path("seen")
        return ReadResult(id, {**props, "n": float(seen.read_text())} if seen.exists() else props)


class Thing(Resource, module="test", name="Thing"):
    def __init__(self, name, **props):
        super().__init__(Things(), name, {"n": 1, "kind": "a", **props})
"""

PROGRAM = """
import os, pulumi
from things import Thing
get = pulumi.Config("test")
thing = Thing("thing", n=get.get_int("n") or 1, kind=get.get("kind") or "a", hidden=get.get_secret("hidden"))
pulumi.export("n", thing.n)
pulumi.export("hidden", thing.hidden)
"""

Make = Callable[..., Project]


@pytest.fixture
def make(new_project: Make) -> Make:
    def make(**options: object) -> Project:
        project = new_project(PROGRAM, **options)
        project.write(THINGS, "things.py")
        return project

    return make


@pytest.fixture(scope="module")
def project(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Project]:
    """One stack for the tests that go through its life, in their order."""
    with Project(
        tmp_path_factory.mktemp("harness") / "project", PROGRAM, secrets={"test:hidden": "hush"}
    ) as project:
        project.write(THINGS, "things.py")
        yield project


class TestLife:
    def test_preview_of_the_first_up(self, project: Project) -> None:
        result = project.preview()
        assert result.ops == {"thing": ["create"]}
        assert result.steps[0].type == "pulumi-python:dynamic/test:Thing"
        assert project.resources() == {}

    def test_up(self, project: Project) -> None:
        assert project.up().ops == {"thing": ["create"]}
        assert project.resources()["thing"]["id"] == "id-a"
        assert project.outputs() == {"n": 1, "hidden": "hush"}

    def test_preview_without_a_change(self, project: Project) -> None:
        result = project.preview()
        assert result.ops == {}
        assert [step.op for step in result.steps] == ["same"]

    def test_change_by_configuration(self, project: Project) -> None:
        project.config_set({"test:n": "2"})
        result = project.up()
        assert result.ops == {"thing": ["update"]}
        assert result.steps[0].old["outputs"]["n"] == 1
        assert project.outputs()["n"] == 2

    def test_replacement(self, project: Project) -> None:
        project.config_set({"test:kind": "b", "test:n": "3"})
        result = project.up()
        assert result.ops == {"thing": ["create-replacement", "replace", "delete-replaced"]}
        assert result.steps[0].keys == ("kind",)

    def test_refused_input(self, project: Project) -> None:
        project.config_set({"test:n": "13"})
        result = project.preview(fails=True)
        assert len(result.errors) == 1
        assert "n: must not be 13" in result.errors[0]
        assert result.errors == result.diagnostics("error", "thing")
        project.config_set({"test:n": "3"})

    def test_refresh(self, project: Project) -> None:
        assert project.refresh().ops == {}
        project.write("7", "seen")
        assert project.refresh().ops == {"thing": ["update"]}
        assert project.resources()["thing"]["outputs"]["n"] == 7

    def test_destroy(self, project: Project) -> None:
        assert project.destroy().ops == {"thing": ["delete"]}
        assert project.resources() == {}

    def test_everything_written_can_be_searched(self, project: Project) -> None:
        written = dict(project.written())
        assert {"dev.json", "stdout", "stderr", "events"} <= {path.name for path in written}
        # `stack output --show-secrets` wrote it, and nothing else did.
        found = [path.parent.name for path, text in written.items() if "hush" in text]
        assert found
        assert all(name.endswith("-stack") for name in found)


def test_an_unexpected_end_fails_with_the_output(make: Make) -> None:
    project = make()
    project.write("raise RuntimeError('from the program')")
    with pytest.raises(AssertionError, match=r"expected to succeed(?s:.)*from the program"):
        project.up()
    with pytest.raises(AssertionError, match="expected to fail"):
        project.run("stack", "ls", fails=True)


def test_nothing_of_the_caller_reaches_the_program(make: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TUTUM_USER", "somebody")
    monkeypatch.setenv("PULUMI_CONFIG_PASSPHRASE", "another")
    monkeypatch.setenv("PYTHONPATH", "/nowhere")
    project = make(env={"TUTUM_REST_HOST": "http://127.0.0.1:1"})
    project.write("import os, pulumi; pulumi.export('env', dict(os.environ))")
    project.up()
    seen = project.outputs()["env"]
    assert seen["TUTUM_REST_HOST"] == "http://127.0.0.1:1"
    assert "TUTUM_USER" not in seen
    assert "PYTHONPATH" not in seen
    assert seen["HOME"].startswith(str(project.folder.parent))


class TestInTheBackground:
    @pytest.fixture
    def gate(self, tmp_path: Path) -> Path:
        return tmp_path / "gate"

    @pytest.fixture
    def waiting(self, make: Make, gate: Path) -> Project:
        """A project whose creation waits until `gate` exists."""
        return make(env={"GATE": str(gate)})

    def reached(self, gate: Path) -> None:
        until(gate.with_name("gate.reached").exists, "create")

    def test_a_run_can_be_looked_at(self, waiting: Project, gate: Path) -> None:
        running = waiting.start("up", "--skip-preview", "--yes")
        self.reached(gate)
        running.until("creating")
        assert any("pulumi.dynamic" in command for command in running.children().values())
        gate.touch()
        assert running.wait().returncode == 0
        assert waiting.resources()["thing"]["id"] == "id-a"

    def test_interrupt_is_what_ctrl_c_does(self, waiting: Project, gate: Path) -> None:
        running = waiting.start("up", "--skip-preview", "--yes")
        self.reached(gate)
        running.interrupt()
        running.until("ancel")
        gate.touch()
        result = running.wait()
        assert result.returncode != 0
        assert waiting.resources()["thing"]["id"] == "id-a"

    def test_kill_leaves_the_lock_and_a_pending_creation(self, waiting: Project, gate: Path) -> None:
        running = waiting.start("up", "--skip-preview", "--yes")
        self.reached(gate)
        running.kill()
        assert running.children() != {}
        gate.touch()
        assert "locked" in waiting.up(fails=True).output
        waiting.cancel()
        pending = waiting.export()["pending_operations"]
        assert [operation["type"] for operation in pending] == ["creating"]
        running.end()
        assert running.children() == {}
        assert waiting.up().ops == {"thing": ["create"]}

    def test_one_that_hangs_is_ended(self, waiting: Project, gate: Path) -> None:
        running = waiting.start("up", "--skip-preview", "--yes")
        self.reached(gate)
        with pytest.raises(AssertionError, match=r"did not end within 0\.1 s"):
            running.wait(0.1)
        assert running.children() == {}


def test_two_projects_of_one_name_know_nothing_of_each_other(make: Make) -> None:
    first, second = make(), make()
    first.up()
    assert second.resources() == {}
    assert json.loads(second.run("stack", "ls", "--json").stdout)[0]["resourceCount"] == 0


def test_the_engine_asks_for_no_plugin_of_this_package(make: Make) -> None:
    """Without pulumi-plugin.json it would try the network at every run (and go on after some seconds)."""
    project = make(env={"PULUMI_DISABLE_AUTOMATIC_PLUGIN_ACQUISITION": "false"})
    result = project.preview("--logtostderr", "-v=7")
    assert "GetRequiredPlugins" in result.stderr
    assert "tutum" not in "".join(line for line in result.stderr.splitlines() if "ownload" in line)
