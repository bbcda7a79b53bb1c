"""What a claim reads of the ledger doesn't grow with the run."""

import sqlite3
from contextlib import closing
from pathlib import Path

from kgcore.backends import PostgreSQLBackend
from kgcore.migration import ledger, new_run
from kgcore.migration.model import Options
from tests.servers import Database


def test_a_source_is_described_once_and_its_address_each_time(
    postgres: Database, tmp_path: Path
) -> None:
    """Rows without an id: their table is described with a place for each chunk."""
    path = tmp_path / "keys.db"
    with closing(sqlite3.connect(path)) as sqlite, sqlite:
        sqlite.execute("CREATE TABLE t (key TEXT PRIMARY KEY, value TEXT) WITHOUT ROWID")
        sqlite.executemany("INSERT INTO t VALUES (?, 'x')", ((f"key {n}",) for n in range(50)))
    options = Options(chunk_rows=1, only=("t",))
    with PostgreSQLBackend(**postgres.parameters, pool_size=1) as backend:
        prepared = new_run.prepare(path, tmp_path / "data", options)
        run = new_run.start(backend.pool, prepared, options)
        with ledger.transaction(backend.pool) as cursor:
            first = ledger.read_run(cursor, run.run_id)
            ledger.set_address(cursor, run.run_id, "http://10.0.0.1:8765/secret")
            second = ledger.read_run(cursor, run.run_id)
    assert len(first.tables["t"].source.seeks) >= 49
    assert second.tables is first.tables
    assert (first.source.address, second.source.address) == (None, "http://10.0.0.1:8765/secret")
