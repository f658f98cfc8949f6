"""host.py between a real engine and each SDK: what a user sees, and what ends up in the state."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.sdk.test_host_process import PROGRAM, ROOT, records
from tests.support.engine import Project
from tests.support.tools import until

pytestmark = [pytest.mark.engine, pytest.mark.timeout(300)]
SECRET = "hush-hush"


@pytest.fixture
def log(tmp_path: Path) -> Path:
    return tmp_path / "log"


@pytest.fixture
def project(new_project: Callable[..., Project], python: Path, log: Path) -> Project:
    project = new_project(
        (PROGRAM / "__main__.py").read_text(encoding="utf-8"),
        name="probe",
        python=python,
        env={"PYTHONPATH": str(ROOT), "PROBE_LOG": str(log)},
    )
    project.write((PROGRAM / "probe.py").read_text(encoding="utf-8"), "probe.py")
    return project


def declare(project: Project, resources: dict[str, dict[str, Any]]) -> None:
    project.env["PROBE"] = json.dumps(resources)


def ill(project: Project) -> dict[str, list[str]]:
    """The resources in the state that are there but failed, with their errors."""
    return {name: state["initErrors"] for name, state in project.resources().items() if "initErrors" in state}


def assert_secret(project: Project) -> None:
    for path, text in project.written():
        assert SECRET not in text, path


def test_what_is_ill_is_kept_and_repaired(project: Project, log: Path) -> None:
    crowd = {f"crowd{i}": {"create": "crowd", "size": 6} for i in range(6)}
    declare(project, {"ill": {"create": "partial"}, "refused": {"create": "refuse"}, **crowd})
    result = project.up("--continue-on-error", "--parallel", "30", fails=True)
    assert result.diagnostics("error", "refused") == ["refused\n  because"]
    (error,) = result.diagnostics("error", "ill")
    assert error == "1 error occurred:\n\t* create left it ill\n\t  exit code 3"
    assert "Traceback" not in result.output
    assert project.resources().keys() == {"ill", *crowd}
    assert ill(project) == {"ill": ["create left it ill\n\t  exit code 3"]}
    assert project.resources()["ill"]["id"] == "id-1"
    assert project.resources()["ill"]["outputs"]["nested"]["plain"] == "seen"
    assert {record["timeout"] for record in records(log, "create")} == {420.0}
    assert len(records(log, "end")) == 1

    # Nothing is new but that it is still ill: an update, which fails in its turn.
    sick = {"create": "partial", "update": "partial", "read": "partial"}
    declare(project, {"ill": sick, **crowd})
    result = project.up(fails=True)
    assert ill(project) == {"ill": ["update left it ill\n\t  exit code 3"]}
    (update,) = records(log, "update")
    assert (update["timeout"], update["ignore_changes"]) == (90.0, ["ignored"])
    assert "nested" in update["old_inputs"]

    result = project.refresh()
    assert "read left it ill" in "".join(result.diagnostics("warning", "ill"))
    assert ill(project) == {"ill": ["read left it ill\n\t  exit code 3"]}

    assert project.resources()["ill"]["outputs"]["nested"]["plain"] == "seen"
    assert "ciphertext" in project.resources()["ill"]["inputs"]["found"]
    assert_secret(project)

    declare(project, {"ill": {}})
    assert project.up().ops == {"ill": ["update"], **{name: ["delete"] for name in crowd}}
    assert {record["timeout"] for record in records(log, "delete")} == {30.0}
    assert project.resources().keys() == {"ill"}
    assert ill(project) == {}
    assert_secret(project)


def test_ctrl_c_keeps_what_exists(project: Project, log: Path) -> None:
    names = [f"r{i}" for i in range(6)]
    declare(project, {name: {"create": "wait"} for name in names})
    running = project.start(
        "up", "--skip-preview", "--yes", "--parallel", "30", env={"PULUMI_TUTUM_PROGRESS": "1"}
    )
    until(lambda: len(records(log, "waiting")) == 6, "6 waits")
    until(lambda: running.output.count("nearly there") >= 6, "their status")
    running.interrupt()
    result = running.wait()
    assert result.returncode != 0
    assert "Traceback" not in result.output
    assert ill(project) == {name: ["cancelled while waiting"] for name in names}
    assert not project.export().get("pending_operations")
    assert len(records(log, "end")) == 1
    for name in names:
        assert result.progress(name)[-1] == "nearly there"
        assert result.diagnostics("warning", name) == ["slow today"]
    assert_secret(project)

    declare(project, {name: {} for name in names})
    assert project.up().ops == {name: ["update"] for name in names}


def test_no_host_outlives_a_killed_engine(project: Project, log: Path) -> None:
    declare(project, {"web": {"create": "wait"}})
    running = project.start("up", "--skip-preview", "--yes")
    until(lambda: records(log, "waiting"), "the wait")
    hosts = [pid for pid, command in running.children().items() if "-m pulumi.dynamic" in command]
    assert hosts
    running.kill()
    until(lambda: not set(hosts) & running.children().keys(), "the end of the host")
    assert records(log, "cancelled")
    assert not records(log, "end")


def test_a_plain_host_loses_only_comfort(project: Project, log: Path) -> None:
    project.env["PULUMI_TUTUM_PLAIN_HOST"] = "1"
    declare(project, {"ill": {"create": "partial"}, "well": {}})
    result = project.up("--continue-on-error", fails=True)
    assert "create left it ill\n  exit code 3\n  It exists (id id-1)" in "".join(result.errors)
    assert project.resources().keys() == {"well"}
    assert len(records(log, "end")) == 1

    declare(project, {"ill": {}, "well": {}})
    assert project.up().ops == {"ill": ["create"]}
    assert_secret(project)
