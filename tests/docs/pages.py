"""The pages of the documentation, and what of them can be tried: code blocks and commands."""

import re
import shlex
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import typer
from typer.exceptions import TyperException

from tests.conftest import ROOT
from workers.cli.main import app

PAGES = [ROOT / "README.md", ROOT / "CHANGELOG.md", *sorted((ROOT / "docs").glob("*.md"))]
FENCE = re.compile(r"^```(\w*)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
LINK = re.compile(r"(?<!!)\[[^\]]*\]\(([^)\s]+)\)")
_SHELL = {"|", "||", "&&", ";", ">", ">>", "2>", "<", "&"}
_RUN = "<!-- run -->"


@dataclass(frozen=True)
class Block:
    """A fenced code block."""

    page: Path
    line: int
    language: str
    code: str
    runs: bool

    def __str__(self) -> str:
        return f"{self.page.name}:{self.line}"


def blocks(*languages: str) -> list[Block]:
    found = []
    for page in PAGES:
        text = page.read_text(encoding="utf-8")
        for fence in FENCE.finditer(text):
            if fence[1] in languages:
                before = text[: fence.start()].rstrip()
                line = text.count("\n", 0, fence.start()) + 1
                found.append(Block(page, line, fence[1], fence[2], before.endswith(_RUN)))
    return found


def commands() -> Iterator[tuple[str, Any]]:
    """Every command that can be run, by its whole name."""
    for name, command in typer.main.get_command(app).commands.items():  # type: ignore[attr-defined]
        for inner, deeper in getattr(command, "commands", {"": command}).items():
            yield f"kg {name} {inner}".rstrip(), deeper


COMMANDS = dict(commands())


def shell_commands() -> list[tuple[str, list[str]]]:
    """Every ``kg …`` of a shell block, with where it stands."""
    return [
        (str(block), words)
        for block in blocks("bash", "sh", "console")
        for words in commands_in(block.code)
    ]


def commands_in(script: str) -> list[list[str]]:
    """The words after each `kg` of a script."""
    found = []
    lines = script.replace("\\\n", " ").splitlines()
    for words in (shlex.split(part, comments=True) for line in lines for part in _parts(line)):
        for position, word in enumerate(words):
            if word == "kg" or word.endswith("/bin/kg"):
                rest = words[position + 1 :]
                end = next((i for i, w in enumerate(rest) if w in _SHELL), len(rest))
                found.append(rest[:end])
                break
    return found


def _parts(line: str) -> list[str]:
    """A line of shell, and the lines inside its ``$(…)``."""
    inner = re.findall(r"\$\(([^()]*)\)", line)
    return [re.sub(r"\$\(([^()]*)\)", "X", line), *inner]


def sections(page: Path) -> dict[str, str]:
    """The text under each heading, its deeper headings included in their own."""
    parts = re.split(r"^#+ +(.*)$", page.read_text(encoding="utf-8"), flags=re.MULTILINE)
    return dict(zip(parts[1::2], parts[2::2], strict=True))


def docs(name: str) -> str:
    return (ROOT / "docs" / name).read_text(encoding="utf-8")


def parse(words: list[str], place: str) -> None:
    """Fail unless these words after `kg` are a command with options that it has."""
    name = next(
        (n for n in (" ".join(["kg", *words[:2]]), " ".join(["kg", *words[:1]])) if n in COMMANDS),
        None,
    )
    assert name is not None, f"{place}: no command kg {' '.join(words)}"
    arguments = words[len(name.split()) - 1 :]
    try:
        COMMANDS[name].make_context(name, list(arguments))
    except TyperException as error:
        pytest.fail(f"{place}: {name}: {error.format_message()}", pytrace=False)
