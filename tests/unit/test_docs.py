"""What the documentation says is there is there, and what is there is documented."""

from __future__ import annotations

import ast
import inspect
import re
import subprocess
import sys
from pathlib import Path

import click
import pytest

import pulumi_tutum
from pulumi_tutum import cli, config, provider, schema
from pulumi_tutum.server.backends import simulated
from tests.support.readme import PAGES, ROOT, Block, blocks

README = (ROOT / "README.md").read_text(encoding="utf-8")
EXAMPLES = sorted(path.parent for path in (ROOT / "examples").glob("*/Pulumi.yaml"))


def test_generated_parts_are_current() -> None:
    done = subprocess.run(
        [sys.executable, ROOT / "docs" / "generate.py", "--check"], capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr


def test_check_tells_an_outdated_page(tmp_path: Path) -> None:
    (tmp_path / "docs").mkdir()
    (tmp_path / "docs" / "generate.py").write_text(
        (ROOT / "docs" / "generate.py").read_text(encoding="utf-8")
    )
    (tmp_path / "README.md").write_text("<!-- generated: states -->\nold\n<!-- end -->\n")
    command = [sys.executable, str(tmp_path / "docs" / "generate.py")]
    # The copy finds the package through the installed one.
    assert subprocess.run([*command, "--check"], capture_output=True).returncode == 1
    assert "old" in (tmp_path / "README.md").read_text()
    assert subprocess.run(command, capture_output=True).returncode == 0
    assert "Partly running" in (tmp_path / "README.md").read_text()
    assert subprocess.run([*command, "--check"], capture_output=True).returncode == 0


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_python_blocks_compile(page: Path) -> None:
    for found in blocks(page):
        if found.language == "python":
            compile(found.text, found.where, "exec")


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_links_lead_somewhere(page: Path) -> None:
    text = page.read_text(encoding="utf-8")
    headings = {
        re.sub(r"[^a-z0-9 -]", "", h.lower()).replace(" ", "-") for h in re.findall(r"^#+ (.*)$", text, re.M)
    }
    for target in re.findall(r"\]\(([^)]+)\)", text):
        if target.startswith("#"):
            assert target[1:] in headings, target
        elif "://" not in target:
            assert (page.parent / target.partition("#")[0]).exists(), target


def test_every_input_and_output_is_documented() -> None:
    parameters = set(inspect.signature(pulumi_tutum.Service.__init__).parameters) - {
        "self",
        "resource_name",
        "opts",
    }
    outputs = set(schema.COMPUTED) | {"endpoint_uris"}
    assert set(schema.INPUTS) <= parameters
    missing = [name for name in parameters | outputs if f"`{name}`" not in README]
    assert not missing


def test_every_nested_key_is_documented() -> None:
    for record in (schema.CONTAINER_PORT, schema.LINK, schema.BINDING, schema.HEALTHCHECK):
        for field in record.fields:
            assert f"`{field.name}`" in README


def test_every_command_and_option_is_documented() -> None:
    assert isinstance(cli.main, click.Group)
    context = click.Context(cli.main)
    for name in cli.main.list_commands(context):
        assert f"`{name}" in README, name
    serve = cli.main.get_command(context, "serve")
    assert serve is not None
    for parameter in serve.params:
        for option in parameter.opts:
            assert f"`{option}" in README, option


def test_every_setting_is_documented() -> None:
    """Each environment variable and configuration key that the package reads stands in the README."""
    package = ROOT / "pulumi_tutum"
    sources = [
        package / name for name in ("config.py", "provider.py", "resource.py", "host.py", "desired.py")
    ]
    read = set()
    for source in sources:
        for node in ast.walk(ast.parse(source.read_text(encoding="utf-8"))):
            value = node.value if isinstance(node, ast.Constant) else None
            if isinstance(value, str) and re.fullmatch(r"(PULUMI_)?TUTUM_[A-Z_]+|tutum:[a-zA-Z]+", value):
                read.add(value)
    assert "TUTUM_APIKEY" in read, "nothing was found: the settings moved"
    assert not [name for name in read - {provider.EXPLICIT} if name not in README]
    assert config.DEFAULT_REST_HOST in README


def test_every_misbehaviour_of_simulated_containers_is_documented() -> None:
    source = inspect.getsource(simulated)
    told = set(re.findall(r"SIMULATE_[A-Z_]+|simulated/[a-z-]+", source))
    assert len(told) > 15
    assert not [name for name in told if name not in README]


@pytest.mark.parametrize("example", EXAMPLES, ids=lambda example: example.name)
def test_every_example_is_whole(example: Path) -> None:
    assert f"(examples/{example.name})" in README
    assert "../.." in (example / "requirements.txt").read_text(encoding="utf-8")
    program = (example / "__main__.py").read_text(encoding="utf-8")
    first, second = program.splitlines()[:2]
    assert first.startswith("# To run it: `pulumi-tutum serve")
    assert second.startswith("#   pulumi stack init dev")


@pytest.mark.timeout(300)  # mypy reads all of Pulumi's types, the first time without a cache
def test_the_programs_of_the_readme_and_the_examples_type_check(tmp_path: Path) -> None:
    programs = [
        Block(str(e), "", "python", (e / "__main__.py").read_text(encoding="utf-8")) for e in EXAMPLES
    ]
    programs += [found for found in blocks() if found.language == "python"]
    for number, found in enumerate(programs):
        (tmp_path / f"program_{number}.py").write_text(found.text, encoding="utf-8")
    command = [
        sys.executable,
        "-m",
        "mypy",
        "--strict",
        "--cache-dir",
        str(ROOT / ".mypy_cache" / "docs"),
        str(tmp_path),
    ]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout


def test_every_fault_is_tested() -> None:
    text = (ROOT / "docs" / "faults.md").read_text(encoding="utf-8")
    sources = {
        letter: (ROOT / path).read_text(encoding="utf-8")
        for letter, path in re.findall(r"^- \*\*(\w)\*\* `([^`]+)`", text, re.MULTILINE)
    }
    rows = [line for line in text.splitlines() if line.startswith("| ") and not line.startswith("| fault")]
    assert len(rows) > 30
    for row in rows:
        named = re.findall(r"(\w) `(test_\w+)`", row)
        assert named, row
        for letter, name in named:
            assert f"def {name}(" in sources[letter], f"{letter} {name}"
