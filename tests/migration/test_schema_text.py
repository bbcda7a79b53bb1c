"""Names and texts of a file's schema that PostgreSQL has a use of its own for, or can't have."""

import sqlite3
from contextlib import closing
from pathlib import Path

import pytest

from kgcore.errors import SourceError
from kgcore.migration import new_run
from kgcore.migration.dry_run import dry_run
from kgcore.migration.model import Options
from kgcore.migration.workplace import Workplace
from tests.migration.any_comparer import differences
from tests.migration.conftest import Migrate
from tests.migration.graphs import file_of
from tests.servers import Database


def latin_1(path: Path, script: str) -> Path:
    """A file made by a script, whose schema has its ``é`` as one byte, which is not UTF-8."""
    file_of(path, script)
    with closing(sqlite3.connect(path)) as connection:
        connection.execute("PRAGMA writable_schema = ON")
        rows = connection.execute("SELECT rowid, name, tbl_name, sql FROM sqlite_master").fetchall()
        for row_id, *texts in rows:
            raw = [None if text is None else text.encode("latin-1") for text in texts]
            connection.execute(
                "UPDATE sqlite_master SET name = CAST(? AS TEXT), tbl_name = CAST(? AS TEXT),"
                " sql = CAST(? AS TEXT) WHERE rowid = ?",
                (*raw, row_id),
            )
        connection.commit()
    return path


def test_schema_text_in_another_encoding_is_shown_and_stops_nothing(
    migrate: Migrate, postgres: Database, place: Workplace, tmp_path: Path
) -> None:
    source = latin_1(
        tmp_path / "latin.db",
        """
        CREATE TABLE t (id /* é */ INTEGER PRIMARY KEY, a TEXT DEFAULT 'café', b TEXTé,
                        c TEXT CONSTRAINT "é" CHECK (c <> 'x') CHECK (c <> 'é'),
                        g TEXT AS (a || 'é'), up TEXT REFERENCES "é" (x));
        CREATE INDEX "ié" ON t (a);
        CREATE VIEW "vé" AS SELECT 'é' FROM t;
        CREATE TABLE "éa" (x);
        INSERT INTO t (id, a, b, c) VALUES (1, NULL, 'y', 'z');
        """,
    )
    options = Options(only=("*",), exclude=("?a",))
    dry_run(new_run.prepare(source, place.data_dir, options))
    report = migrate(source, only=("*",), exclude=("?a",))
    assert report.is_done, report.errors
    assert postgres.rows("SELECT id, a, b, c FROM t") == [(1, None, "y", "z")]
    assert {(note.object, note.ddl) for note in report.run.not_carried_over} == {
        ("default", r"a TEXT DEFAULT 'caf\xe9'"),
        ("check name", r"\xe9"),
        ("check", r"CHECK (c <> '\xe9')"),
        ("generated column", r"g AS (a || '\xe9')"),
        ("foreign key", r"FOREIGN KEY (up) REFERENCES \xe9 (x)"),
        ("index", r'CREATE INDEX "i\xe9" ON t (a)'),
        (r"view v\xe9", r"""CREATE VIEW "v\xe9" AS SELECT '\xe9' FROM t"""),
    }


@pytest.mark.parametrize(
    ("script", "message"),
    [
        ('CREATE TABLE t (x, "café" TEXT)', r"the name of column caf\\xe9 of table t is not valid"),
        ('CREATE TABLE "café" (x)', r"the name of table caf\\xe9 is not valid UTF-8"),
    ],
)
def test_a_name_in_another_encoding_is_refused(tmp_path: Path, script: str, message: str) -> None:
    source = latin_1(tmp_path / "latin.db", script + "; CREATE TABLE u (x)")
    with pytest.raises(SourceError, match=message) as refused:
        new_run.prepare(source, tmp_path / "data", Options(only=("*",)))
    pattern = refused.value.hint.partition("--exclude ")[2].strip("'")
    (kept,) = new_run.prepare(
        source, tmp_path / "data", Options(only=("*",), exclude=(pattern,))
    ).tables
    assert kept.table.name == "u"


def test_names_that_postgresql_gives_itself_are_no_obstacle(
    migrate: Migrate, postgres: Database, tmp_path: Path
) -> None:
    source = file_of(
        tmp_path / "names.db",
        """
        CREATE TABLE t (id INTEGER PRIMARY KEY, a INTEGER UNIQUE, b INTEGER NOT NULL,
                        CONSTRAINT t_a_key CHECK (a > 0), CONSTRAINT t_pkey CHECK (b > 0),
                        CONSTRAINT t_b_not_null CHECK (b < 9),
                        CONSTRAINT t_b_not_null CHECK (b <> 5));
        CREATE TABLE t_id_seq (id INTEGER PRIMARY KEY);
        CREATE TABLE t_id_seq_id_seq (x);
        CREATE TABLE u (id INTEGER PRIMARY KEY, x INTEGER);
        CREATE INDEX u_id_seq ON u (x);
        INSERT INTO t VALUES (1, 1, 1);
        """,
    )
    report = migrate(source, only=("*",))
    assert report.is_done, report.errors
    assert differences(source, postgres.connect()) == []
    renamed = {(note.object, note.ddl) for note in report.run.not_carried_over}
    assert renamed == {
        ("check name", "t_pkey"),
        ("check name", "t_b_not_null"),
        ("index name", "u_id_seq"),
    }
    assert postgres.rows(
        "SELECT conname FROM pg_constraint WHERE contype = 'c' AND conname LIKE 't%' ORDER BY 1"
    ) == [("t_a_key",), ("t_b_not_null_2",), ("t_b_not_null_3",), ("t_pkey_2",)]


def test_foreign_keys_of_the_same_columns(
    migrate: Migrate, postgres: Database, tmp_path: Path
) -> None:
    source = file_of(
        tmp_path / "keys.db",
        """
        CREATE TABLE p (id INTEGER PRIMARY KEY, code INTEGER UNIQUE);
        CREATE TABLE c (id INTEGER PRIMARY KEY, a INTEGER,
                        FOREIGN KEY (a) REFERENCES p (id), FOREIGN KEY (a) REFERENCES p (code),
                        FOREIGN KEY (a) REFERENCES p (id) ON DELETE SET NULL,
                        FOREIGN KEY (a) REFERENCES p);
        INSERT INTO p VALUES (1, 2), (2, 1); INSERT INTO c VALUES (1, 1);
        """,
    )
    report = migrate(source, only=("*",))
    assert report.is_done, report.errors
    assert postgres.rows(
        "SELECT pg_get_constraintdef(oid) FROM pg_constraint WHERE contype = 'f'"
        " AND connamespace = 'public'::regnamespace ORDER BY 1"
    ) == [("FOREIGN KEY (a) REFERENCES p(code)",), ("FOREIGN KEY (a) REFERENCES p(id)",)]
    assert [note.ddl for note in report.run.not_carried_over] == [
        "FOREIGN KEY (a) REFERENCES p (id) ON DELETE SET NULL"
    ]


def test_checks_are_foretold_whatever_the_columns_are_called(
    place: Workplace, tmp_path: Path
) -> None:
    source = file_of(
        tmp_path / "ids.db",
        r"""
        PRAGMA ignore_check_constraints = ON;
        CREATE TABLE t (id INTEGER PRIMARY KEY, KG_ID TEXT CHECK (kg_id > 'A'), kg_id_,
                        slashed TEXT CHECK (slashed LIKE 'a\_%'));
        CREATE UNIQUE INDEX folded ON t (coalesce(kg_id_, ''));
        INSERT INTO t VALUES (1, 'b', 7, 'a\bc'), (2, 'C', 'x', 'A\b'), (3, '7', 'y', 'a\b'),
                             (4, 'B', '7', 'a\b'), (5, 'd', 'z', 'b\b');
        """,
    )
    found = dry_run(new_run.prepare(source, place.data_dir, Options(only=("*",))))
    assert found.unforetold == ()
    rejects = sorted((reject.example_ids, reject.sqlstate) for reject in found.tables["t"].rejects)
    assert rejects == [((3,), "23514"), ((4,), "23505"), ((5,), "23514")]
