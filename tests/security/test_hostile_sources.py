"""A SQLite file from a stranger: nothing that it holds is run, and no other file is touched."""

import shutil
import sqlite3
import struct
import subprocess
import sys
from contextlib import closing
from pathlib import Path

import pytest

from kgcore.errors import SourceError
from kgcore.migration import new_run, runs
from kgcore.migration.model import Options, RunState
from kgcore.migration.reports import read_report
from kgcore.migration.stages.freeze import freeze
from tests.migration.comparer import differences
from tests.migration.graphs import small_graph
from tests.security.conftest import TwoRoles

_SUPER_JOURNAL = bytes([0xD9, 0xD5, 0x05, 0xF9, 0x20, 0xA1, 0x63, 0xD7])
_CUT_OFF = """
import os, signal, sqlite3, sys
c = sqlite3.connect(sys.argv[1], isolation_level=None)
c.execute('PRAGMA cache_size=5'); c.execute('BEGIN')
c.execute("UPDATE entities SET name = name || 'spoiled'")
os.kill(os.getpid(), signal.SIGKILL)
"""


def rewrite_schema(path: Path, *statements: str) -> Path:
    """Change ``sqlite_master`` by hand."""
    with closing(sqlite3.connect(path)) as connection:
        connection.execute("PRAGMA writable_schema = ON")
        for statement in statements:
            connection.execute(statement)
        connection.commit()
    return path


def test_a_journal_can_not_have_another_file_deleted(tmp_path: Path) -> None:
    """SQLite itself deletes the file that a hot journal names as the one above it."""
    source = small_graph(tmp_path / "graph.db", rows=5_000)
    subprocess.run([sys.executable, "-c", _CUT_OFF, source], check=False)
    precious = tmp_path / "precious"
    precious.write_text("not to be lost")
    name = str(precious).encode()
    with (tmp_path / "graph.db-journal").open("ab") as journal:
        journal.write(struct.pack(">I", (1 << 30) // 4096 + 1) + name)
        journal.write(struct.pack(">II", len(name), sum(name)) + _SUPER_JOURNAL)
    with pytest.raises(SourceError, match="transaction over several databases"):
        freeze(source, tmp_path / "data")
    assert precious.read_text() == "not to be lost"
    assert list((tmp_path / "data").iterdir()) == []
    # That it is a danger at all: plain SQLite falls for it.
    for suffix in ("", "-journal"):
        shutil.copyfile(f"{source}{suffix}", tmp_path / f"plain.db{suffix}")
    with closing(sqlite3.connect(tmp_path / "plain.db")) as plain:
        plain.execute("SELECT count(*) FROM entities").fetchone()
    assert not precious.exists()


def test_what_a_schema_would_run_is_not_run(roles: TwoRoles, tmp_path: Path) -> None:
    """Triggers, views, checks, defaults, expression indexes: the rows arrive, and nothing else."""
    source = small_graph(tmp_path / "graph.db")
    with closing(sqlite3.connect(source)) as connection:
        connection.executescript(
            """
            CREATE TRIGGER spoil AFTER UPDATE ON entities BEGIN
              DELETE FROM relationships; SELECT load_extension('/tmp/evil.so'); END;
            CREATE VIEW other AS SELECT load_extension('/tmp/evil.so') AS evil, * FROM entities;
            CREATE INDEX expression ON entities (lower(name));
            ALTER TABLE mission_history ADD COLUMN secret TEXT
              GENERATED ALWAYS AS (upper(status)) VIRTUAL;
            ALTER TABLE file_snapshots ADD COLUMN note TEXT DEFAULT 'plain';
            """
        )
    rewrite_schema(
        source,
        "UPDATE sqlite_master SET sql = replace(sql, 'domain TEXT',"
        " 'domain TEXT CHECK (load_extension(''/tmp/evil.so'') IS NULL)')"
        " WHERE name = 'mission_history'",
    )
    run = roles.start(source)
    roles.go_on(run)
    assert read_report(roles.owners.pool, run.run_id).is_done
    assert differences(source, roles.database.connect()) == []


@pytest.mark.parametrize(
    "lie",
    [
        "UPDATE sqlite_master SET sql = 'CREATE VIEW entities AS SELECT load_extension(''x'')'"
        " WHERE name = 'entities'",
        "UPDATE sqlite_master SET type = 'view' WHERE name = 'entities'",
        "UPDATE sqlite_master SET rootpage = 100000 WHERE name = 'entities'",
        "UPDATE sqlite_master SET sql = 'CREATE /* a */ VIRTUAL TABLE entities USING fts5(name)',"
        " rootpage = 0 WHERE name = 'entities'",
        "UPDATE sqlite_master SET sql = 'CREATE VIRTUAL TABLE entities USING csv(''/etc/passwd'')',"
        " rootpage = 0 WHERE name = 'entities'",
        "UPDATE sqlite_master SET sql = 'DROP TABLE relationships' WHERE name = 'entities'",
    ],
    ids=["view", "type", "page", "virtual", "module", "statement"],
)
def test_a_schema_that_lies_is_refused(lie: str, tmp_path: Path) -> None:
    source = rewrite_schema(small_graph(tmp_path / "graph.db"), lie)
    with pytest.raises(SourceError) as caught:
        new_run.prepare(source, tmp_path / "data", Options())
    assert caught.value.hint
    assert list((tmp_path / "data" / "sources").iterdir()) == []


@pytest.mark.parametrize("way", ["link", "dots", "absolute"])
def test_a_worker_reads_nothing_outside_of_its_root(
    way: str, roles: TwoRoles, tmp_path: Path
) -> None:
    """Whatever the ledger says: it is the right file, and still not opened, and not deleted."""
    run = roles.start(small_graph(tmp_path / "graph.db"), max_attempts=1)
    outside = tmp_path / "outside.db"
    shutil.copyfile(run.source.path, outside)
    run.source.path.unlink()
    named = {
        "link": run.source.path,
        "dots": roles.owners.data_dir / "sources" / ".." / ".." / outside.name,
        "absolute": outside,
    }[way]
    if way == "link":
        named.symlink_to(outside)
    roles.database.rows(
        "UPDATE kg_migration.sources SET snapshot_path = %s WHERE run_id = %s",
        (str(named), run.run_id),
    )
    roles.go_on(run)
    ((state,),) = roles.database.rows("SELECT state FROM kg_migration.runs")
    assert state == RunState.FAILED
    assert roles.database.rows("SELECT sum(loaded_rows) FROM kg_migration.steps") == [(0,)]
    runs.cancel(roles.owners.pool, run.run_id)
    assert outside.exists()
