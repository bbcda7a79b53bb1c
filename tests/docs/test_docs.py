"""The documentation says what is: commands parse, everything is described."""

import inspect
import re
from pathlib import Path
from typing import Any

import pytest
import typer
from typer.exceptions import TyperException

import kgcore
import kgcore.backends
import kgcore.migration
from kgcore import errors
from kgcore.config import Settings
from kgcore.migration import MigrationProgress, migrate_to_postgresql
from kgcore.migration.repairs import REPAIRS, Repair
from tests.conftest import ROOT
from tests.docs.pages import (
    COMMANDS,
    FENCE,
    LINK,
    PAGES,
    blocks,
    docs,
    parse,
    sections,
    shell_commands,
)
from workers.cli.main import app


def test_pages_have_commands_and_examples() -> None:
    assert len(shell_commands()) > 20
    assert sum(block.runs for block in blocks("python")) >= 4
    assert sum(block.runs for block in blocks("sql")) >= 4


@pytest.mark.parametrize(
    ("place", "words"),
    [
        pytest.param(place, words, id=f"{place} {' '.join(words)}")
        for place, words in shell_commands()
    ],
)
def test_every_command_parses(place: str, words: list[str]) -> None:
    if words != ["--help"]:
        parse(words, place)


def test_a_wrong_option_would_be_found() -> None:
    with pytest.raises(TyperException, match="No such option"):
        COMMANDS["kg migrate"].make_context("kg migrate", ["graph.db", "--no-such-option"])


@pytest.mark.parametrize("name", COMMANDS)
def test_every_command_and_option_is_described(name: str) -> None:
    described = sections(ROOT / "docs" / "commands.md")
    assert name in described, f"docs/commands.md has no heading {name!r}"
    for parameter in COMMANDS[name].params:
        for option in parameter.opts:
            if option.startswith("--"):
                # `--option` or `--option VALUE`, but not the beginning of a longer one.
                assert re.search(rf"`{option}[` ]", described[name]), f"{name}: {option}"
            else:
                shown = (parameter.metavar or option).strip("[]")
                assert re.search(shown, described[name], re.IGNORECASE), f"{name}: {shown}"


@pytest.mark.parametrize("name", COMMANDS)
def test_no_option_is_described_that_does_not_exist(name: str) -> None:
    described = sections(ROOT / "docs" / "commands.md")[name]
    rows = "\n".join(line for line in described.splitlines() if line.startswith("| `--"))
    known = {option for parameter in COMMANDS[name].params for option in parameter.opts}
    cells = [row.split(" | ")[0] for row in rows.splitlines()]
    assert set(re.findall(r"`(--[a-z-]+)", " ".join(cells))) <= known


def test_options_before_a_command_are_described() -> None:
    opening = docs("commands.md").partition("## kg migrate")[0]
    for parameter in typer.main.get_command(app).params:
        for option in parameter.opts:
            assert f"`{option}`" in opening


def test_the_readme_names_every_command() -> None:
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    assert [name for name in COMMANDS if not re.search(rf"`{name}[ `]", text)] == []


def test_the_readme_begins_with_the_two_commands() -> None:
    first = next(block for block in blocks("bash") if block.page.name == "README.md")
    assert first.code.splitlines() == [
        "make demo",
        ".venv/bin/kg migrate your.db --local-workers 2",
    ]


@pytest.mark.parametrize("name", [name.upper() for name in Settings.model_fields])
def test_every_setting_is_described(name: str) -> None:
    assert re.search(rf"^\| `{name}` \|", docs("settings.md"), re.MULTILINE)
    example = (ROOT / ".env.example").read_text(encoding="utf-8")
    assert re.search(rf"^(# )?{name}=", example, re.MULTILINE)


def test_no_setting_is_described_that_does_not_exist() -> None:
    described = re.findall(r"^\| `([A-Z_]+)` \|", docs("settings.md"), re.MULTILINE)
    assert set(described) == {name.upper() for name in Settings.model_fields}


@pytest.mark.parametrize(
    "error",
    [
        item
        for _, item in inspect.getmembers(errors, inspect.isclass)
        if item.__module__ == errors.__name__
    ],
)
def test_every_error_code_is_described(error: type[errors.KGError]) -> None:
    row = f"| `{error.code}` | `{error.__name__}` | {error.exit_code} |"
    assert row in docs("troubleshooting.md")


@pytest.mark.parametrize("repair", REPAIRS.values(), ids=lambda repair: repair.name)
def test_every_repair_is_described_with_its_example(repair: Repair) -> None:
    """That the example is what the repair does is shown where repairs are tested."""
    before, after = repair.example
    assert f"| `{repair.name}` | {repair.summary} | `{before}` | `{after}` |" in docs("repairs.md")


def test_no_repair_is_described_that_does_not_exist() -> None:
    described = re.findall(r"^\| `([a-z0-9-]+)` \|", docs("repairs.md"), re.MULTILINE)
    assert described == list(REPAIRS)


@pytest.mark.parametrize("module", [kgcore, kgcore.backends, kgcore.migration])
def test_every_export_is_named(module: Any) -> None:
    text = docs("library.md")
    assert [name for name in module.__all__ if not re.search(rf"`{name}[`(]", text)] == []


def test_every_parameter_and_result_of_the_call_is_named() -> None:
    section = sections(ROOT / "docs" / "library.md")["migrate_to_postgresql"]
    fields = [name for name in MigrationProgress.__dataclass_fields__ if not name.startswith("_")]
    fields += [
        name for name, value in vars(MigrationProgress).items() if isinstance(value, property)
    ]
    parameters = [
        name
        for name, parameter in inspect.signature(migrate_to_postgresql).parameters.items()
        if parameter.kind is not inspect.Parameter.VAR_KEYWORD
    ]
    assert [name for name in [*parameters, *fields] if f"`{name}`" not in section] == []


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_links_lead_somewhere(page: Path) -> None:
    text = FENCE.sub("", page.read_text(encoding="utf-8"))
    for link in LINK.findall(text):
        if link.startswith("https://"):
            continue
        path, _, anchor = link.partition("#")
        aim = (page.parent / path).resolve() if path else page
        assert aim.exists(), link
        if anchor:
            headings = {
                re.sub(r"[^\w -]", "", title.lower()).replace(" ", "-") for title in sections(aim)
            }
            assert anchor in headings, link


def test_every_page_is_on_the_map() -> None:
    linked = set(LINK.findall(docs("index.md")))
    assert {page.name for page in (ROOT / "docs").glob("*.md")} - {"index.md"} <= linked
