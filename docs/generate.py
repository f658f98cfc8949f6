"""Write the generated parts of the documentation; with --check only compare them (1: out of date).

A generated part stands between `<!-- generated: NAME -->` and `<!-- end -->` in README.md or a page of docs/.
"""

from __future__ import annotations

import argparse
import re
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

import click  # noqa: E402

from pulumi_tutum import cli, lifecycle, schema  # noqa: E402 - the folder above is not on the path of a script

_PART = re.compile(r"(<!-- generated: ([a-z-]+) -->\n).*?(<!-- end -->)", re.DOTALL)


def _records() -> str:
    """The keys of the nested inputs, and of their read-only ones."""
    records = {
        "container_ports": schema.CONTAINER_PORT,
        "linked_to_service": schema.LINK,
        "bindings": schema.BINDING,
        "healthcheck": schema.HEALTHCHECK,
    }
    lines = ["| input | key | type | default | meaning |", "|---|---|---|---|---|"]
    for name, record in records.items():
        for field in record.fields:
            default = "`" + str(field.default).lower() + "`" if field.default is not None else "-"
            default = "required" if field.required else "read-only" if field.computed else default
            lines.append(f"| `{name}` | `{field.name}` | {field.kind.shape} | {default} | {field.doc} |")
    return "\n".join(lines) + "\n"


def _options() -> str:
    lines = ["| input | type | default | meaning |", "|---|---|---|---|"]
    for option in schema.OPTIONS.values():
        default = "-" if option.default is None else f"`{option.default}`"
        lines.append(f"| `{option.name}` | {option.kind.shape} | {default} | {option.doc} |")
    return "\n".join(lines) + "\n"


def _remarks() -> str:
    return "".join(f"- `{a.name}`: {a.remark}.\n" for a in lifecycle.ACTIONS.values() if a.remark)


def _commands() -> str:
    lines = ["| command | meaning |", "|---|---|", *_command_lines(cli.main, "")]
    return "\n".join(lines) + "\n"


def _command_lines(group: click.Group, prefix: str) -> Iterator[str]:
    context = click.Context(group)
    for name in group.list_commands(context):
        command = group.commands[name]
        options: list[str] = []
        arguments: list[str] = []
        for parameter in command.params:
            if isinstance(parameter, click.Argument):
                arguments.append(parameter.make_metavar(context))
            elif name != "serve":  # it has a table of its own
                options.append(f"[{'/'.join(parameter.opts[-1:] + parameter.secondary_opts)}]")
        usage = " ".join([prefix + name, *options, *arguments])
        yield f"| `{_cell(usage)}` | {_cell(command.help or '')} |"
        if isinstance(command, click.Group):
            yield from _command_lines(command, f"{prefix}{name} ")


def _serve() -> str:
    lines = ["| option | default | meaning |", "|---|---|---|"]
    for option in cli.serve.params:
        assert isinstance(option, click.Option)
        usage = [option.opts[0], *([option.metavar] if option.metavar else [])]
        default = f"`{option.default}`" if option.show_default else "-"
        meaning = [option.help or ""]
        if isinstance(option.type, click.Choice):
            meaning.append(f"({', '.join(f'`{choice}`' for choice in option.type.choices)})")
        lines.append(f"| `{_cell(' '.join(usage))}` | {default} | {_cell(' '.join(meaning))} |")
    return "\n".join(lines) + "\n"


def _cell(text: str) -> str:
    """Text for a cell of a table."""
    return " ".join(text.split()).replace("|", "\\|")


PARTS: dict[str, Callable[[], str]] = {
    "inputs": schema.markdown,
    "options": _options,
    "nested": _records,
    "outputs": lambda: schema.markdown(computed=True),
    "commands": _commands,
    "serve": _serve,
    "states": lifecycle.markdown,
    "remarks": _remarks,
}


def pages() -> Iterator[Path]:
    """The files that may hold generated parts."""
    yield ROOT / "README.md"
    yield from sorted((ROOT / "docs").glob("*.md"))


def renewed(text: str) -> str:
    """The page with its generated parts made anew. A name that is not in `PARTS` is a KeyError."""
    return _PART.sub(lambda part: f"{part[1]}{PARTS[part[2]]()}{part[3]}", text)


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--check", action="store_true", help="write nothing, only compare")
    check = parser.parse_args(arguments).check
    texts = {page: page.read_text(encoding="utf-8") for page in pages()}
    old = [page for page, text in texts.items() if renewed(text) != text]
    for page in old:
        name = page.relative_to(ROOT)
        if check:
            print(f"{name} is out of date: run `make docs`", file=sys.stderr)
        else:
            page.write_text(renewed(texts[page]), encoding="utf-8")
            print(f"{name} renewed")
    return 1 if check and old else 0


if __name__ == "__main__":
    sys.exit(main())
