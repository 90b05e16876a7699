"""The pages of the documentation, and the commands that they show."""

import re
import shlex
from collections.abc import Iterator
from itertools import takewhile
from pathlib import Path
from typing import NamedTuple

ROOT = Path(__file__).parents[2]
PAGES = [
    ROOT / name for name in ("README.md", "CONTRIBUTING.md", "SECURITY.md", "cluster/README.md")
]
PAGES += [
    ROOT / "sweeps/README.md",
    ROOT / "raycib/world/weights/README.md",
    *sorted((ROOT / "docs").glob("*.md")),
]


class Block(NamedTuple):
    """A fenced block."""

    language: str
    text: str


def blocks(page: Path) -> list[Block]:
    return [Block(*found) for found in re.findall(r"(?ms)^```(\w*)\n(.*?)^```$", page.read_text())]


def prose(page: Path) -> str:
    """All that is in no fenced block."""
    return re.sub(r"(?ms)^```.*?^```$", "", page.read_text())


def spans(page: Path) -> list[str]:
    """`Code` in the text."""
    return re.findall(r"`([^`\n]+)`", prose(page))


def commands(page: Path) -> Iterator[list[str]]:
    """Every command of a page, in words: those of bash blocks, and those in the text."""
    for block in blocks(page):
        if block.language == "bash":
            for line in block.text.replace("\\\n", " ").splitlines():
                if not line.startswith("export "):  # its value may be a program's output
                    yield from simple(line)
    for span in spans(page):
        if re.match(r"(python|make|raycib|ray) \S", span) and "..." not in span:
            yield from simple(span)


def simple(line: str) -> Iterator[list[str]]:
    """The commands of a line between `&&`, `|` and `&`."""
    words = shlex.split(line, comments=True)
    while words:
        command = [*takewhile(lambda word: word not in ("&&", "|", "&"), words)]
        words = words[len(command) + 1 :]
        if command:
            yield command
