"""How the commands are put together."""

import subprocess
import sys
from importlib import import_module
from importlib.metadata import version

import pytest
import typer
from typer.main import get_group

from kgcore.migration.model import PROTOCOL
from tests.workers.kg import Kg
from workers.cli.commands import MODULES


@pytest.mark.parametrize("module", MODULES)
def test_the_table_names_what_each_module_has(module: str) -> None:
    app = typer.Typer()
    import_module(f"workers.cli.{module}").register(app)
    assert tuple(get_group(app).commands) == MODULES[module]


def test_to_look_at_progress_needs_no_more_than_that() -> None:
    loaded = subprocess.run(
        [sys.executable, "-c", "import sys, workers.cli.inspect; print(*sys.modules)"],
        capture_output=True,
        text=True,
        check=True,
    ).stdout.split()
    assert "kgcore.config" in loaded
    assert not {"celery", "pyarrow.compute", "sqlglot", "workers.app"} & set(loaded)


@pytest.mark.parametrize("words", [[], ["embedded"]])
def test_without_a_command_there_is_help_and_no_error(kg: Kg, words: list[str]) -> None:
    done = kg(*words)
    assert done.code == 2
    assert done.err == ""
    assert "Usage:" in done.out


def test_version(kg: Kg) -> None:
    done = kg("--version")
    assert (done.code, done.err) == (0, "")
    assert done.out == f"kg {version('jarvis-kg')}, protocol {PROTOCOL}\n"


def test_a_misspelt_command(kg: Kg) -> None:
    done = kg("migrat")
    assert done.code == 2
    assert "No such command 'migrat'. Did you mean 'migrate'?" in done.err
