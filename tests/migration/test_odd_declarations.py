"""Tables that were declared otherwise than this project does: the graph's, and others."""

import sqlite3
from collections.abc import Sequence
from contextlib import closing
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from kgcore.errors import SourceError
from kgcore.migration import new_run
from kgcore.migration.local import run_here
from kgcore.migration.model import Options, RunState
from kgcore.migration.reports import read_report
from kgcore.migration.stages import extract
from kgcore.migration.stages.plan import plan
from kgcore.migration.workplace import Workplace
from tests.migration.any_comparer import differences as any_differences
from tests.migration.comparer import differences
from tests.migration.conftest import Migrate
from tests.migration.graphs import (
    NOW,
    entity,
    file_of,
    mission,
    relationship,
    snapshot,
    write_graph,
)
from tests.servers import Database

IDS = (0, 1, 5, 7, 2**63 - 1, -3)


def redeclare(path: Path, table: str, columns: str, options: str = "") -> None:
    """Give a table another declaration, and the rows it had."""
    with closing(sqlite3.connect(path)) as connection:
        connection.executescript(
            f"ALTER TABLE {table} RENAME TO before; CREATE TABLE {table} ({columns}) {options};"
            f"INSERT INTO {table} SELECT * FROM before; DROP TABLE before;"
        )


def test_ids_are_kept_where_they_are_no_row_ids(
    migrate: Migrate, postgres: Database, tmp_path: Path
) -> None:
    path = write_graph(
        tmp_path / "graph.db",
        entities=[entity(row_id) for row_id in IDS],
        relationships=[relationship(4, 7, -3), relationship(2, 0, 2**63 - 1)],
        missions=[mission(row_id) for row_id in IDS],
        snapshots=[snapshot(row_id) for row_id in IDS],
    )
    stamps = "metadata TEXT, created_at TEXT, updated_at TEXT"
    redeclare(
        path,
        "entities",
        f"id INTEGER PRIMARY KEY, type TEXT, name TEXT, {stamps}",
        "WITHOUT ROWID",
    )
    redeclare(
        path,
        "mission_history",
        "id INTEGER, mission_id TEXT, status, domain, cost_usd, iterations, duration_seconds,"
        " files_modified, metadata, created_at, PRIMARY KEY (mission_id DESC)",
        "WITHOUT ROWID",
    )
    redeclare(  # As pandas makes it.
        path,
        "file_snapshots",
        '"id" INTEGER, file_path TEXT, mission_id TEXT, size_bytes INTEGER, lines_of_code INTEGER,'
        " hash TEXT, created_at TEXT, metadata TEXT",
    )
    report = migrate(path, chunk_rows=2)
    assert report.is_done, report.errors
    assert differences(path, postgres.connect()) == []


def test_other_ids_than_the_source_s_are_never_cut_over(
    place: Workplace, postgres: Database, tmp_path: Path
) -> None:
    """Whatever lanes and verification agree on: here the plan says that it was otherwise."""
    path = write_graph(tmp_path / "graph.db", entities=[entity(row_id) for row_id in IDS])
    prepared = new_run.prepare(path, place.data_dir, Options())
    first, *others = prepared.tables
    assert first.id_sum is not None
    other = replace(first, id_sum=first.id_sum + 1)
    run = new_run.start(place.pool, replace(prepared, tables=(other, *others)), Options())
    run_here(place, run, 1)
    report = read_report(place.pool, run.run_id)
    assert report.run.state is RunState.MISMATCH
    assert "the ids of entities" in str(report.errors)
    assert postgres.rows("SELECT to_regclass('entities')") == [(None,)]


@pytest.mark.parametrize(
    ("declared", "ids", "message"),
    [
        ("id", (1, "two", 3), "1 row with the id 'two'"),
        ("id INTEGER", (1, b"2", 3), "1 row with the id X'32'"),
        ("id INTEGER", (1, None, None), "2 rows with no id"),
        ("id INTEGER", (7, 7, 8), "2 rows with the id 7"),
        ("id INTEGER", (1, 2.5, 3), "1 row with the id 2.5"),
        ("id REAL", (1,), "1 row with the id 1.0"),
        ("id INTEGER PRIMARY KEY DESC", (1, 2, None), "1 row with no id"),
    ],
)
def test_ids_that_tell_no_rows_apart_are_refused_by_name(
    tmp_path: Path, declared: str, ids: Sequence[Any], message: str
) -> None:
    path = write_graph(tmp_path / "graph.db")
    with closing(sqlite3.connect(path)) as connection:
        connection.executescript(
            "DROP TABLE entities;"
            f"CREATE TABLE entities ({declared}, type, name, metadata, created_at, updated_at)"
        )
        rows = [(row_id, "t", f"n{n}", None, NOW, NOW) for n, row_id in enumerate(ids)]
        connection.executemany("INSERT INTO entities VALUES (?, ?, ?, ?, ?, ?)", rows)
        connection.commit()
    with pytest.raises(SourceError, match="the ids of table entities") as refused:
        new_run.prepare(path, tmp_path / "data", Options(chunk_rows=1))
    assert message in str(refused.value)
    query = refused.value.hint.partition("to see them: ")[2]
    with closing(sqlite3.connect(path)) as connection:
        assert connection.execute(query).fetchall()
    assert list((tmp_path / "data" / "sources").iterdir()) == []


def test_a_missing_column_arrives_as_null_only_if_asked(
    migrate: Migrate, postgres: Database, tmp_path: Path
) -> None:
    path = write_graph(
        tmp_path / "graph.db",
        missions=[mission(row_id) for row_id in range(1, 8)],
        more="ALTER TABLE mission_history DROP COLUMN cost_usd;"
        "ALTER TABLE mission_history DROP COLUMN metadata",
    )
    with pytest.raises(SourceError, match="no column cost_usd") as refused:
        migrate(path)
    assert "--allow-missing" in refused.value.hint
    report = migrate(path, allow_missing=True, chunk_rows=3)
    assert report.is_done, report.errors
    assert postgres.rows(
        "SELECT count(*), count(cost_usd), count(metadata), sum(duration_seconds) FROM"
        " mission_history"
    ) == [(7, 0, 0, 17.5)]


@pytest.mark.parametrize(
    ("script", "message"),
    [
        ("CREATE VIEW file_snapshots AS SELECT * FROM before", "is a view"),
        ("CREATE VIRTUAL TABLE file_snapshots USING fts5(file_path)", "is a virtual table"),
    ],
)
def test_what_stands_in_the_place_of_a_table_is_refused_before_anything(
    migrate: Migrate, postgres: Database, tmp_path: Path, script: str, message: str
) -> None:
    more = f"ALTER TABLE file_snapshots RENAME TO before; {script}"
    path = write_graph(tmp_path / "graph.db", snapshots=[snapshot(1)], more=more)
    before = postgres.rows("SELECT oid, relname FROM pg_class ORDER BY 1")
    with pytest.raises(SourceError, match=f"file_snapshots {message}"):
        migrate(path, allow_missing=True)
    assert postgres.rows("SELECT oid, relname FROM pg_class ORDER BY 1") == before


def test_what_the_graph_s_own_columns_do_not_take_over_is_listed(tmp_path: Path) -> None:
    path = write_graph(tmp_path / "graph.db", snapshots=[snapshot(1)])
    redeclare(
        path,
        "file_snapshots",
        "id INTEGER PRIMARY KEY NOT NULL, file_path VARCHAR(255) NOT NULL DEFAULT 'none',"
        " mission_id TEXT NOT NULL, size_bytes INTEGER DEFAULT (1 + random()),"
        " lines_of_code INTEGER DEFAULT NULL, hash TEXT,"
        " created_at TEXT NOT NULL DEFAULT (strftime('%Y-%m-%dT%H:%M:%fZ', 'now')),"
        " metadata TEXT NOT NULL DEFAULT '{}'",
    )
    notes = new_run.prepare(path, tmp_path / "data", Options()).not_carried_over
    assert {(note.table, note.object, note.ddl) for note in notes} == {
        ("file_snapshots", "default", "file_path VARCHAR(255) DEFAULT 'none'"),
        ("file_snapshots", "not null", "mission_id TEXT NOT NULL"),
        ("file_snapshots", "default", "size_bytes INTEGER DEFAULT 1 + random()"),
        ("file_snapshots", "not null", "metadata TEXT NOT NULL"),
        ("file_snapshots", "default", "metadata TEXT DEFAULT '{}'"),
    }
    assert {note.why for note in notes} == {
        "the graph's own column may be NULL",
        "the graph's own column has DEFAULT NULL",
    }


def test_names_that_differ_in_the_case_of_other_letters_than_ascii(
    migrate: Migrate, postgres: Database, tmp_path: Path
) -> None:
    path = file_of(
        tmp_path / "names.db",
        """
        CREATE TABLE Ä (id INTEGER PRIMARY KEY, Ö TEXT DEFAULT 'x', ö TEXT COLLATE NOCASE, O, ø);
        CREATE TABLE ä (id INTEGER PRIMARY KEY, up INTEGER REFERENCES Ä, CHECK (Up > 0));
        CREATE INDEX Ü ON Ä (Ö); CREATE INDEX ü ON Ä (ö);
        INSERT INTO Ä VALUES (1, 'große', 'kleine', 'O', 'ø'); INSERT INTO ä VALUES (2, 1);
        """,
    )
    report = migrate(path, only=("*",))
    assert report.is_done, report.errors
    assert any_differences(path, postgres.connect()) == []
    assert postgres.rows(
        "SELECT conrelid::regclass::text, confrelid::regclass::text FROM pg_constraint"
        " WHERE contype = 'f' AND connamespace = 'public'::regnamespace"
    ) == [('"ä"', '"Ä"')]
    assert set(postgres.rows("SELECT indexname FROM pg_indexes WHERE schemaname = 'public'")) >= {
        ("Ü",),
        ("ü",),
    }
    assert set(migrate(path, only=("ä",), if_exists="replace").tables) == {"ä"}
    with pytest.raises(SourceError, match="'Ä' and 'ä' would both become 'ä'"):
        migrate(path, only=("*",), names="lower")


def test_one_odd_value_does_not_refuse_all_the_others(
    migrate: Migrate, postgres: Database, tmp_path: Path
) -> None:
    path = file_of(
        tmp_path / "odd.db",
        """
        CREATE TABLE t (id INTEGER PRIMARY KEY, price DECIMAL(10,2), picture BLOB, size);
        WITH RECURSIVE n (i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 99)
        INSERT INTO t SELECT i, i + 0.5, zeroblob(i), i / 2.0 FROM n;
        UPDATE t SET price = 'n/a' WHERE id = 7;
        UPDATE t SET picture = 'none' WHERE id = 8;
        UPDATE t SET picture = 12 WHERE id = 9;
        UPDATE t SET size = 'small' WHERE id = 70;
        """,
    )
    report = migrate(path, only=("*",), chunk_rows=10, max_rejects=4)
    assert report.is_done, report.errors
    assert postgres.rows("SELECT row_id, column_name FROM kg_migration.rejects ORDER BY 1") == [
        (7, "price"),
        (8, "picture"),
        (9, "picture"),
        (70, "size"),
    ]
    assert postgres.rows(
        "SELECT pg_typeof(price)::text, pg_typeof(picture)::text, pg_typeof(size)::text,"
        " price, length(picture) FROM t WHERE id = 99"
    ) == [("numeric", "bytea", "double precision", 99.5, 99)]


def test_a_table_whose_columns_took_all_names_of_the_row_id(tmp_path: Path) -> None:
    script = "CREATE TABLE t (rowid, _rowid_, oid); INSERT INTO t VALUES (1, 2, 3), (4, 5, 6);"
    path = file_of(tmp_path / "taken.db", script + "CREATE TABLE u (x)")
    with pytest.raises(SourceError, match="table t has columns rowid, _rowid_, oid") as refused:
        new_run.prepare(path, tmp_path / "data", Options(only=("*",), chunk_rows=1))
    assert "--exclude t" in refused.value.hint
    new_run.prepare(path, tmp_path / "data", Options(only=("*",), exclude=("t",)))
    file_of(path, script.replace("oid)", "oid INTEGER PRIMARY KEY)"))
    new_run.prepare(path, tmp_path / "data", Options(only=("*",), chunk_rows=1))


def test_places_are_counted_in_the_collations_of_the_key(tmp_path: Path) -> None:
    path = file_of(
        tmp_path / "collations.db",
        """
        CREATE TABLE t (a TEXT COLLATE NOCASE, b TEXT, c,
                        PRIMARY KEY (a COLLATE BINARY, b COLLATE NOCASE DESC)) WITHOUT ROWID;
        INSERT INTO t VALUES ('a', 'x', 1), ('A', 'x', 2), ('b', 'X', 3), ('B', 'X', 4),
                             ('b', 'y', 5), ('B', 'Y', 6), ('a', 'Y', 7), ('A', 'z', 8);
        """,
    )
    script = "PRIMARY KEY (a COLLATE BINARY, b COLLATE NOCASE)"
    for descending in (True, False):
        if not descending:
            with closing(sqlite3.connect(path)) as connection:
                connection.executescript(
                    f"CREATE TABLE u (a TEXT COLLATE NOCASE, b TEXT, c, {script}) WITHOUT ROWID;"
                    "INSERT INTO u SELECT * FROM t; DROP TABLE t; ALTER TABLE u RENAME TO t"
                )
        with closing(extract.open_snapshot(path)) as connection:
            options = Options(only=("*",), chunk_rows=1)
            (planned,) = plan(connection, options).tables
        place = planned.table.column_names.index("c")
        found = [
            row[place]
            for chunk in planned.chunks
            for batch in extract.read_rows(path, planned, chunk)
            for row in batch
        ]
        assert sorted(found) == list(range(1, 9))
        raws = extract.read_raw(path, planned, range(8))
        assert [int(raw.values[place] or 0) for raw in raws] == found


@pytest.mark.parametrize("cut", [1, 100, 4095])
def test_a_file_that_lacks_its_last_bytes_is_refused(tmp_path: Path, cut: int) -> None:
    path = write_graph(tmp_path / "graph.db", entities=[entity(1)])
    whole = path.read_bytes()
    path.write_bytes(whole[:-cut])
    with pytest.raises(SourceError, match=f"it is cut off, {cut:,} bytes are missing"):
        new_run.prepare(path, tmp_path / "data", Options())
    path.write_bytes(whole[:24] + bytes(8) + whole[32:-cut])  # Its header doesn't know its length.
    with pytest.raises(SourceError, match=f"it is cut off, {cut:,} bytes are missing"):
        new_run.prepare(path, tmp_path / "data", Options())
    path.write_bytes(whole + b"\n")  # What stands behind the last page is none of the database.
    assert new_run.prepare(path, tmp_path / "data", Options()).tables[0].rows == 1
