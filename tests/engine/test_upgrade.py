"""Another release of the package finds the state that this one has made, and the other way round."""

from __future__ import annotations

import re
import shutil
from collections.abc import Callable
from pathlib import Path

import pulumi_tutum
from tests.support.scenario import Scenario

PROGRAM = """
    db = tutum.Service("db", image="acme/db", container_envvars={"PASS": "x"}, memory=64)
    tutum.Service("web", image="acme/web", linked_to_service=[db], tags=["front"],
        container_ports=[{"protocol": "tcp", "inner_port": 80, "published": True}])
    pulumi.export("version", tutum.__version__)
"""


def test_a_state_outlives_the_release(new_scenario: Callable[..., Scenario], tmp_path: Path) -> None:
    # A release that differs in its version, in the provider's code, and in what an instance of it can do.
    other = tmp_path / "other-release"
    shutil.copytree(Path(pulumi_tutum.__file__).parent, other / "pulumi_tutum")
    edit(other / "pulumi_tutum" / "__init__.py", r'__version__ = ".*"', '__version__ = "0.0.1"')
    edit(
        other / "pulumi_tutum" / "provider.py",
        r"    serialize_as_secret_always = False\n",
        "    serialize_as_secret_always = False\n    generation = 1\n\n    def older(self): return 1\n",
    )
    scenario = new_scenario()
    scenario.program(PROGRAM)
    scenario.project.env["PYTHONPATH"] = str(other)
    scenario.up()
    assert scenario.project.outputs()["version"] == "0.0.1"
    before = {resource["inputs"]["__provider"] for resource in scenario.project.resources().values()}
    scenario.assert_settled()

    del scenario.project.env["PYTHONPATH"]
    scenario.program(PROGRAM.replace('    pulumi.export("version", tutum.__version__)', ""))
    assert scenario.preview().ops == {}
    scenario.program(PROGRAM.replace('"acme/web"', '"acme/web:2"'))
    assert scenario.up().ops == {"web": ["update"]}
    assert scenario.project.outputs()["version"] == pulumi_tutum.__version__
    resources = scenario.project.resources().values()
    assert {resource[bag]["__provider"] for resource in resources for bag in ("inputs", "outputs")} == before
    assert len(before) == 1

    scenario.project.env["PYTHONPATH"] = str(other)
    scenario.destroy()
    assert not scenario.living()


def edit(path: Path, pattern: str, replacement: str) -> None:
    text, changed = re.subn(pattern, replacement, path.read_text(encoding="utf-8"))
    assert changed == 1
    path.write_text(text, encoding="utf-8")
