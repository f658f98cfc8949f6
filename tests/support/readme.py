"""The README as a user reads it: its fenced blocks, by section."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
PAGES = [ROOT / "README.md", ROOT / "ARCHITECTURE.md", *sorted((ROOT / "docs").glob("*.md"))]


@dataclass(frozen=True)
class Block:
    """A fenced block: where it stands (`README.md:51`), the heading above it, its language, its text."""

    where: str
    heading: str
    language: str
    text: str


def blocks(page: Path = ROOT / "README.md") -> list[Block]:
    """The fenced blocks of a page, in order."""
    found: list[Block] = []
    heading = ""
    opened: tuple[int, str] | None = None
    lines: list[str] = []
    for number, line in enumerate(page.read_text(encoding="utf-8").splitlines(), 1):
        fence = re.fullmatch(r"```(\w*)", line)
        if fence and opened is None:
            opened, lines = (number, fence[1]), []
        elif fence and opened is not None:
            found.append(Block(f"{page.name}:{opened[0]}", heading, opened[1], "\n".join(lines) + "\n"))
            opened = None
        elif opened is not None:
            lines.append(line)
        elif line.startswith("#"):
            heading = line.lstrip("# ")
    assert opened is None, f"{page.name}: the block of line {opened} is not closed"
    return found


def block(heading: str, language: str, number: int = 0) -> str:
    """The text of one block of the README; the assertion fails when there is none."""
    found = [b.text for b in blocks() if b.heading == heading and b.language == language]
    assert number < len(found), f"README.md has no {language} block {number} under '{heading}'"
    return found[number]
