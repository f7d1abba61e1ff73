"""The documentation as data: code blocks, command lines, links and anchors of the Markdown files."""

from __future__ import annotations

import re
import shlex
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).parents[2]
IGNORED = (".venv", "node_modules", "build", "dist")
FENCED = re.compile(r"^```(\w*)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
INLINE = re.compile(r"`([^`\n]+)`")


@dataclass(frozen=True)
class Block:
    """A fenced code block: its language, empty where none is given, and its text."""

    language: str
    text: str


def documents() -> list[Path]:
    """Every Markdown file of the repository."""
    paths = (path for path in ROOT.rglob("*.md") if not set(IGNORED) & set(path.relative_to(ROOT).parts))
    return sorted(path for path in paths if not any(part.startswith(".") for part in path.relative_to(ROOT).parts))


def name_of(path: Path) -> str:
    """A document's path below the repository, for names of tests."""
    return path.relative_to(ROOT).as_posix()


def blocks(path: Path, *languages: str) -> list[str]:
    """The text of a document's code blocks in these languages."""
    return [block.text for block in all_blocks(path) if block.language in languages]


def all_blocks(path: Path) -> list[Block]:
    """Every fenced code block of a document."""
    return [Block(*match) for match in FENCED.findall(path.read_text())]


def shell_lines(path: Path) -> list[str]:
    """The lines of a document's `sh` blocks, continued lines joined."""
    return [line for text in blocks(path, "sh") for line in text.replace("\\\n", " ").splitlines()]


def commands(path: Path) -> list[list[str]]:
    """Every `modtrain ...` line of the `sh` blocks as words, without the program's name and without redirections."""
    lines = (re.fullmatch(r"(?:\w+=\S+ )*modtrain ([^>]*)(?:>.*)?", line) for line in shell_lines(path))
    return [shlex.split(line[1], comments=True) for line in lines if line]


def prose(path: Path) -> str:
    """A document without its code blocks."""
    return FENCED.sub("", path.read_text())


def inline_commands(path: Path) -> list[list[str]]:
    """Every `modtrain ...` in inline code as words, without the program's name."""
    texts = (text.replace("\\|", "|") for text in INLINE.findall(prose(path)))
    return [shlex.split(text)[1:] for text in texts if text.startswith("modtrain ")]


def links(path: Path) -> list[str]:
    """The targets of a document's links and pictures, those of other sites excepted."""
    targets: list[str] = re.findall(r"\]\(([^)\s]+)\)", INLINE.sub("", prose(path)))
    return [target for target in targets if not re.match(r"[a-z]+:", target)]


def paths(path: Path) -> list[str]:
    """The paths of files and folders of the repository that a document names in inline code."""
    return [
        text for text in INLINE.findall(prose(path)) if re.fullmatch(r"(tests|modtrain|cluster|jobs)/[\w./*-]+", text)
    ]


def anchors(path: Path) -> set[str]:
    """The anchors of a document's headings, as GitHub makes them."""
    headings = re.findall(r"^#+ (.*)$", prose(path), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}
