"""A backend on an empty database, and a whole migration in this process."""

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from kgcore.backends import PostgreSQLBackend
from kgcore.migration import new_run
from kgcore.migration.local import run_here
from kgcore.migration.model import Options
from kgcore.migration.reports import read_report
from kgcore.migration.stages.report import Report
from kgcore.migration.workplace import Workplace
from tests.servers import Database

Migrate = Callable[..., Report]


@pytest.fixture
def backend(postgres: Database) -> Iterator[PostgreSQLBackend]:
    """A backend on ``postgres``, connected."""
    with PostgreSQLBackend(**postgres.parameters, pool_size=1, max_overflow=9) as backend:
        yield backend


@pytest.fixture
def place(backend: PostgreSQLBackend, tmp_path: Path) -> Workplace:
    """Where steps run in this process."""
    return Workplace(backend.pool, tmp_path / "data", "test")


@pytest.fixture
def migrate(place: Workplace) -> Migrate:
    """A function that migrates a file, with options, and returns the report."""

    def migrate(source: Path, **options: Any) -> Report:
        chosen = Options(**{"chunk_rows": 50} | options)
        prepared = new_run.prepare(source, place.data_dir, chosen)
        run = new_run.start(place.pool, prepared, chosen)
        run_here(place, run, 2)
        return read_report(place.pool, run.run_id)

    return migrate
