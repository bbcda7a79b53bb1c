"""The documentation says what is: commands parse, everything is described, examples run."""

import inspect
import os
import re
import shlex
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import typer
from typer.exceptions import TyperException

import kgcore
import kgcore.backends
import kgcore.migration
from kgcore import errors, get_backend
from kgcore.config import Settings
from kgcore.migration import MigrationProgress, migrate_to_postgresql
from kgcore.migration.repairs import REPAIRS, Repair
from kgcore.sample import make_synthetic
from tests.conftest import CALLERS_ENVIRONMENT, ROOT
from tests.sample.history import History
from tests.servers import Database, server_directory
from workers import embedded
from workers.cli.main import app

PAGES = [ROOT / "README.md", ROOT / "CHANGELOG.md", *sorted((ROOT / "docs").glob("*.md"))]
_FENCE = re.compile(r"^```(\w*)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
_LINK = re.compile(r"(?<!!)\[[^\]]*\]\(([^)\s]+)\)")
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
        for fence in _FENCE.finditer(text):
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
    text = _FENCE.sub("", page.read_text(encoding="utf-8"))
    for link in _LINK.findall(text):
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
    linked = set(_LINK.findall(docs("index.md")))
    assert {page.name for page in (ROOT / "docs").glob("*.md")} - {"index.md"} <= linked


@pytest.mark.parametrize("block", blocks("python"), ids=str)
def test_python_compiles(block: Block) -> None:
    compile(block.code, str(block), "exec")


@pytest.mark.parametrize("block", [b for b in blocks("python") if b.runs], ids=str)
def test_python_examples_run(
    block: Block, postgres: Database, kg_environment: dict[str, str], tmp_path: Path
) -> None:
    make_synthetic(tmp_path / "graph.db", entities=60, relationships=120, missions=10, snapshots=20)
    (tmp_path / "example.py").write_text(_at_home(block.code, postgres))
    done = subprocess.run(
        [sys.executable, "-W", "error", "example.py"],
        env={**kg_environment, "PYTHONPATH": str(ROOT)},
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )
    assert done.returncode == 0, done.stderr
    # The call raises nothing for a target that it can't use: what it printed counts.
    if "Migrated {" in block.code:
        assert "Migrated 210 records" in done.stdout
    if "every row would arrive" in block.code:
        assert "every row would arrive" in done.stdout


def _at_home(code: str, postgres: Database) -> str:
    """Put the private server into an example, as a reader would put their own."""
    named = {
        '"localhost"': postgres.host,
        "5432": postgres.port,
        '"jarvis_kg"': postgres.database,
        '"jarvis"': postgres.user,
        '"secret"': postgres.password,
    }
    for shown, real in named.items():
        code = code.replace(shown, repr(real))
    return code


def test_sql_examples_run(
    postgres: Database, kg_environment: dict[str, str], tmp_path: Path
) -> None:
    make_synthetic(tmp_path / "graph.db", entities=60, relationships=120, missions=10, snapshots=20)
    script = (
        "from kgcore import load_settings\n"
        "from kgcore.migration import migrate_to_postgresql as migrate\n"
        "s = load_settings()\n"
        "p = migrate('graph.db', s.pg_host, s.pg_port, s.pg_database, s.pg_user,"
        " s.pg_password.get_secret_value())\n"
        "assert not p.errors, p.errors\n"
    )
    environment = {**kg_environment, "PYTHONPATH": str(ROOT)}
    subprocess.run([sys.executable, "-c", script], env=environment, cwd=tmp_path, check=True)
    examples = [block for block in blocks("sql") if block.runs]
    answers = [postgres.rows(block.code.replace("%", "%%")) for block in examples]
    assert any(len(rows) == 1 and rows[0][1] == "done" for rows in answers)


@pytest.mark.slow
def test_the_private_servers_of_the_readme(tmp_path: Path) -> None:
    """What a newcomer tries after the demo, line by line, in a checkout with its ``.venv``."""
    block = [block for block in blocks("bash") if block.page.name == "README.md"][1]
    lines = [line.partition("  #")[0].rstrip() for line in block.code.splitlines()]
    script = "\n".join(f"{line} || echo {shlex.quote(f'failed: {line}')}" for line in lines)
    environment = {
        **{name: CALLERS_ENVIRONMENT[name] for name in CALLERS_ENVIRONMENT if _is_neutral(name)},
        "KG_DATA_DIR": str(tmp_path / "data"),
    }
    with server_directory() as place:
        checkout = History(place / "checkout")
        checkout.write("a.py", b"print(1)\n")
        checkout.commit("Begin")
        checkout.write("a.py", b"print(2)\n")
        checkout.commit("Fix a bug")
        programs = checkout.path / ".venv" / "bin"
        programs.mkdir(parents=True)
        (programs / "kg").symlink_to(Path(sys.executable).with_name("kg"))
        try:
            _leave_tables(checkout.path / ".kg-embedded")
            done = _shell(script, checkout.path, environment)
        finally:
            embedded.down(checkout.path / ".kg-embedded")
    failed = [line for line in done.stdout.splitlines() if line.startswith("failed: ")]
    assert failed == ["failed: .venv/bin/kg doctor"], done.stdout + done.stderr
    faults = [line for line in done.stdout.splitlines() if line.startswith("✗")]
    assert faults == ["✗ workers: none answers"]
    assert "! tables: the target has rows in public.entities" in done.stdout
    assert "graph.db: " in done.stdout
    assert "2 missions" in done.stdout
    assert "nothing was changed" in done.stdout
    assert re.search(r"^run \S+: done$", done.stdout, re.MULTILINE)
    assert "stopped" in done.stderr


def _leave_tables(directory: Path) -> None:
    """Do what the demo did: there are tables with rows, and the servers are down."""
    given = embedded.up(directory)
    names = ("host", "port", "database", "user", "password")
    with get_backend("postgres", **{name: given[f"PG_{name.upper()}"] for name in names}) as graph:
        graph.init_schema()
        graph.execute("INSERT INTO entities (type, name) VALUES ('file', 'a.py')")
        graph.commit()
    embedded.down(directory)


@pytest.mark.slow
@pytest.mark.timeout(1200)
@pytest.mark.skipif(
    CALLERS_ENVIRONMENT.get("KG_TEST_SLOW") != "1",
    reason="installs everything anew, which takes minutes; KG_TEST_SLOW=1 asks for it",
)
def test_the_two_commands_of_the_readme_in_an_empty_directory(tmp_path: Path) -> None:
    place = tmp_path / "checkout"
    _shell(f"git clone --quiet {shlex.quote(str(ROOT))} {place}", tmp_path, dict(os.environ))
    environment = {
        **{name: CALLERS_ENVIRONMENT[name] for name in CALLERS_ENVIRONMENT if _is_neutral(name)},
        "KG_DATA_DIR": str(tmp_path / "data"),
    }
    first = next(block for block in blocks("bash") if block.page.name == "README.md")
    demo, migrate = first.code.splitlines()
    kg = place / ".venv" / "bin" / "kg"
    done = _shell(demo, place, environment)
    assert done.stdout.count(": done") == 2, "the history of the checkout, and the synthetic graph"
    assert "Fatal Python error" not in done.stderr
    try:
        _shell(f"{kg} embedded up && {kg} sample your.db", place, environment)
        _shell(f'eval "$({kg} embedded env)" && {migrate} --if-exists replace', place, environment)
    finally:
        _shell(f"{kg} embedded down", place, environment)


def _is_neutral(name: str) -> bool:
    return not re.match(r"PG|KG_|SQLITE_|CELERY_|VIRTUAL_ENV|PYTHON|MAKE", name)


def _shell(line: str, place: Path, environment: dict[str, str]) -> subprocess.CompletedProcess[str]:
    done = subprocess.run(
        ["bash", "-c", line],
        cwd=place,
        env=environment,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, f"{line}: {done.stdout[-2000:]}{done.stderr[-2000:]}"
    return done
