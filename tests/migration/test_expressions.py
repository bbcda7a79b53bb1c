"""Expressions of a file's schema that PostgreSQL would compute otherwise, or not at all."""

from pathlib import Path

from kgcore.migration import new_run
from kgcore.migration.dry_run import dry_run
from kgcore.migration.model import Options
from kgcore.migration.workplace import Workplace
from tests.migration.any_comparer import differences
from tests.migration.conftest import Migrate
from tests.migration.graphs import file_of
from tests.servers import Database

OVERFLOWING = """
CREATE TABLE sums (id INTEGER PRIMARY KEY, a INTEGER, b INTEGER, c INTEGER,
                   CHECK (a + b > 0), CHECK (a + c > 0), CHECK (c * 2 < 100));
CREATE INDEX products ON sums (a * b);
CREATE INDEX small ON sums (c * c) WHERE -c < 0;
INSERT INTO sums VALUES (1, 9223372036854775807, 2, 3), (2, 1, 1, 1);
CREATE TABLE least (id INTEGER PRIMARY KEY, a INTEGER, CHECK (-a <> 5), CHECK (abs(a - 1) <> 7));
INSERT INTO least VALUES (1, -9223372036854775808), (2, 1);
CREATE TABLE squares (id INTEGER PRIMARY KEY, r REAL, s REAL, g REAL AS (r * r), h REAL AS (s * s),
                      i AS (-s), j REAL AS (s * -5.0));
INSERT INTO squares VALUES (1, 1e300, 0.5), (2, 1e-300, 0.0), (3, 2, -0.0);
"""

OTHERWISE = """
CREATE TABLE halves (id INTEGER PRIMARY KEY, x INTEGER, h AS (x / 2), d AS (coalesce(x, 1)));
CREATE UNIQUE INDEX half ON halves (x / 2);
INSERT INTO halves VALUES (1, 5), (2, 2.5), (3, 7), (4, NULL);
CREATE TABLE codes (id INTEGER PRIMARY KEY, code TEXT, b BOOLEAN, n INTEGER, r REAL,
  trimmed NUM AS (trim(code)), kept TEXT AS (trim(code)), said BOOLEAN AS (b AND n > 0),
  doubled INTEGER AS (r * 2), worded TEXT AS (n || ''), halved REAL AS (n), size AS (length(code)),
  raised AS (upper(code)));
INSERT INTO codes VALUES (1, 'A1', 1, 7, 0.5), (2, 'B2', 'yes', 8, 1e17), (3, '07', 0, NULL, 2.0);
CREATE TABLE cut (id INTEGER PRIMARY KEY, a TEXT, n INTEGER AS (length(a)), u TEXT AS (a));
INSERT INTO cut VALUES (1, 'ab' || char(0) || 'cd'), (2, CAST(x'61c3c34261' AS TEXT)), (3, 'x');
CREATE TABLE truths (id INTEGER PRIMARY KEY, q INTEGER CHECK (q IS TRUE), z INTEGER,
                     CHECK ((z IS NOT TRUE) = (z = 0)));
INSERT INTO truths VALUES (1, 5, 0), (2, -1, 7);
CREATE TABLE far (id INTEGER PRIMARY KEY, b TEXT CHECK (substr(b, 3000000000) = ''));
INSERT INTO far VALUES (1, 'x');
"""


def test_what_would_overflow_on_the_server_is_not_computed_there(
    migrate: Migrate, postgres: Database, place: Workplace, tmp_path: Path
) -> None:
    source = file_of(tmp_path / "large.db", OVERFLOWING)
    prepared = new_run.prepare(source, place.data_dir, Options(only=("*",)))
    assert dry_run(prepared).rejected_rows == 0
    report = migrate(source, only=("*",))
    assert report.is_done, report.errors
    assert report.totals["rejected_rows"] == 0
    assert differences(source, postgres.connect()) == []
    notes = report.run.not_carried_over
    assert {(note.object, note.ddl) for note in notes} == {
        ("check", "CHECK (a + b > 0)"),
        ("check", "CHECK (a + c > 0)"),
        ("index", "CREATE INDEX products ON sums (a * b)"),
        ("check", "CHECK (-a <> 5)"),
        ("check", "CHECK (abs(a - 1) <> 7)"),
        ("generated column", "g AS (r * r)"),
    }
    assert all("with the values here" in note.why for note in notes)
    # What surely fits is computed by the server as ever.
    assert postgres.rows(
        "SELECT attname FROM pg_attribute WHERE attgenerated = 's' AND attnum > 0 ORDER BY 1"
    ) == [("h",), ("i",), ("j",)]
    assert postgres.rows("SELECT count(*) FROM pg_indexes WHERE indexname = 'small'") == [(1,)]


def test_what_sqlite_computes_otherwise_is_not_computed_by_the_server(
    migrate: Migrate, postgres: Database, tmp_path: Path
) -> None:
    source = file_of(tmp_path / "otherwise.db", OTHERWISE)
    report = migrate(source, only=("*",), exclude=("cut",))
    assert report.is_done, report.errors
    assert report.totals["rejected_rows"] == 0
    assert {note.ddl for note in report.run.not_carried_over if note.object != "type"} == {
        "h AS (x / 2)",
        "d AS (coalesce(x, 1))",
        "CREATE UNIQUE INDEX half ON halves (x / 2)",
        "trimmed AS (trim(code))",
        "said AS (b AND n > 0)",
        "doubled AS (r * 2)",
        "CHECK (substr(b, 3000000000) = '')",
    }
    # A repair changes what the column is made of, and leaves what SQLite made of it.
    repairs = ("remove-nul", "replace-invalid-utf8")
    report = migrate(source, only=("*",), repairs=repairs, if_exists="replace")
    assert report.is_done, report.errors
    assert report.totals["rejected_rows"] == 0
    assert postgres.rows("SELECT a, n FROM cut ORDER BY id")[0] == ("abcd", 2)
    found = differences(file_of(source, OTHERWISE + "DROP TABLE cut"), postgres.connect())
    assert found == []


def test_an_index_whose_rows_may_be_too_long_is_left_out(
    migrate: Migrate, postgres: Database, tmp_path: Path
) -> None:
    numbers = [f"i{place}" for place in range(20)]
    declared = "".join(f", {name} INTEGER" for name in numbers)
    source = file_of(
        tmp_path / "long.db",
        f"""
        CREATE TABLE t (id INTEGER PRIMARY KEY, a TEXT, b TEXT{declared});
        CREATE INDEX tripled ON t (lower(b) || upper(b) || b);
        CREATE INDEX wide ON t (a, {", ".join(numbers)});
        CREATE INDEX alone ON t (a);
        CREATE INDEX doubled ON t (b || b);
        INSERT INTO t (id, a, b) VALUES (1, hex(randomblob(1295)), hex(randomblob(600)));
        """,
    )
    report = migrate(source, only=("*",))
    assert report.is_done, report.errors
    assert {note.ddl.split()[2] for note in report.run.not_carried_over} == {"tripled", "wide"}
    assert postgres.rows(
        "SELECT indexname FROM pg_indexes WHERE indexname IN ('alone', 'doubled') ORDER BY 1"
    ) == [("alone",), ("doubled",)]


def test_a_file_in_utf_16_is_foretold_as_one_in_utf_8(
    migrate: Migrate, postgres: Database, place: Workplace, tmp_path: Path
) -> None:
    script = """
        PRAGMA encoding = 'UTF-16le';
        CREATE TABLE t (id INTEGER PRIMARY KEY, at DATETIME UNIQUE, long TEXT UNIQUE,
                        a TEXT CHECK (a < 'B'), n INTEGER AS (length(a)));
        CREATE INDEX han ON t (wide);
        CREATE TABLE days (at DATETIME PRIMARY KEY);
        CREATE TABLE shifts (id INTEGER PRIMARY KEY, at DATETIME REFERENCES days);
        INSERT INTO t VALUES
          (1, '2026-01-02T03:04:05Z', hex(randomblob(750)), 'Ā', ''),
          (2, '2026-01-02 03:04:05', 'x', 'A', replace(hex(zeroblob(550)), '0', '中'));
        INSERT INTO days VALUES ('2026-01-02T03:04:05Z');
        INSERT INTO shifts VALUES (1, '2026-01-02 03:04:05');
    """.replace("n INTEGER AS", "wide TEXT, n INTEGER AS")
    source = file_of(tmp_path / "utf16.db", script)
    prepared = new_run.prepare(source, place.data_dir, Options(only=("*",)))
    found = dry_run(prepared)
    assert found.unforetold == ()
    rejects = [
        (name, reject.column, reject.sqlstate, reject.example_ids)
        for name, table in found.tables.items()
        for reject in table.rejects
    ]
    assert rejects == [("t", "at", "23505", (2,))]
    report = migrate(source, only=("*",), max_rejects=1)
    assert report.is_done, report.errors
    assert postgres.rows("SELECT table_name, row_id FROM kg_migration.rejects") == [("t", 2)]
    assert postgres.rows("SELECT n, length(long) FROM t") == [(1, 1500)]
    assert {note.ddl for note in report.run.not_carried_over} == {
        "CHECK (a < 'B')",
        "CREATE INDEX han ON t (wide)",  # 3,300 bytes in UTF-8.
    }
