"""The documentation's examples run, and so do the commands of the README."""

import os
import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest

from kgcore import get_backend
from kgcore.sample import make_synthetic
from tests.conftest import CALLERS_ENVIRONMENT, ROOT
from tests.docs.pages import (
    Block,
    blocks,
)
from tests.sample.history import History
from tests.servers import Database, server_directory
from workers import embedded


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
