"""Bad input, on real files and a real server: exact, or a reject with its reason, or refused whole.

What is refused before it is read is in ``test_freeze`` (files) and ``test_plan`` (tables).
"""

import json
import os
import sqlite3
from collections.abc import Callable, Container, Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any

import pytest

from kgcore.errors import SourceError
from kgcore.migration.model import InvalidText
from kgcore.migration.stages.freeze import freeze
from tests.migration.conftest import Migrate
from tests.migration.graphs import entity, mission, small_graph, snapshot, write_graph
from tests.servers import Database

REFUSED = object()


def outcome(
    migrate: Migrate, postgres: Database, path: Path, table: str, column: str
) -> tuple[dict[int, Any], dict[int, str]]:
    """Migrate; return by id what is stored in the column, as text, and why rows were refused."""
    report = migrate(path, max_rejects=10**6, if_exists="replace", only=(table,))
    assert report.is_done, report.errors
    counts = report.tables[table]
    assert counts.source_rows == counts.loaded_rows + counts.rejected_rows
    connection = postgres.connect(options="-c TimeZone=UTC -c extra_float_digits=1")
    with connection.cursor() as cursor:
        cursor.execute(f'SELECT id, "{column}"::text FROM {table} ORDER BY id')
        stored = dict(cursor.fetchall())
        cursor.execute(
            "SELECT row_id, sqlstate, column_name FROM kg_migration.rejects WHERE run_id = %s",
            (report.run.run_id,),
        )
        rejects = cursor.fetchall()
        assert {name for _, _, name in rejects} <= {column}
        refused = {row_id: state for row_id, state, _ in rejects}
        cursor.execute(
            "SELECT lane FROM kg_migration.steps WHERE run_id = %s AND stage = 'load'",
            (report.run.run_id,),
        )
        assert cursor.fetchall() == [("careful" if refused else "fast",)]
        return stored, refused


Case = tuple[Any, Any, str]


def require(
    migrate: Migrate,
    postgres: Database,
    write: Callable[[list[Case]], Path],
    where: tuple[str, str],
    expected: list[Case],
    careful: Container[Any] = (),
) -> None:
    """Each case is (value, what is stored or REFUSED, SQLSTATE), and has its number as id.

    Those that can be stored are migrated again, by themselves: the fast lane must store the same of
    all but the values that are for the careful lane alone.
    """
    quick = [case for case in expected if not case[2] and case[0] not in careful]
    for cases in (expected, quick):
        stored, refused = outcome(migrate, postgres, write(cases), *where)
        shown = [
            (value, refused.get(number, ""), stored.get(number, REFUSED))
            for number, (value, *_) in enumerate(cases, 1)
        ]
        assert shown == [(value, state, text) for value, text, state in cases]


def test_metadata(migrate: Migrate, postgres: Database, tmp_path: Path) -> None:
    deep = "[" * 10_000 + "]" * 10_000
    cases = [
        (None, None, ""),
        ("{}", "{}", ""),
        ("", REFUSED, "22P02"),
        ("{'a': 1}", REFUSED, "22P02"),
        ('{"a": NaN}', REFUSED, "22P02"),
        ("Infinity", REFUSED, "22P02"),
        ('"\\u0000"', REFUSED, "22P05"),
        ('"\\ud800"', REFUSED, "22P02"),
        ('"\\ud83d\\ude00"', '"😀"', ""),
        ('{"a": 1, "a": 2}', '{"a": 2}', ""),
        ("7", "7", ""),
        ('"word"', '"word"', ""),
        ("null", "null", ""),
        ("1e400", "1" + "0" * 400, ""),
        ("[1.00, -0, 0.1000000000000000055511151231257827]",) * 2 + ("",),
        (deep, deep, ""),
        ("[" * 100_000 + "]" * 100_000, REFUSED, "54001"),
        ("1e200000", REFUSED, "22003"),
        ("9" * 140_000, REFUSED, "22003"),
        ('{"a": 1}{"b": 2}', REFUSED, "22P02"),
        ('{"tab": "a\tb"}', REFUSED, "22P02"),
        (b'{"a": 1}', REFUSED, "42804"),
        (2.5, "2.5", ""),  # A TEXT column makes text of it.
    ]
    cases = [
        (value, stored.replace("-0,", "0,") if isinstance(stored, str) else stored, state)
        for value, stored, state in cases
    ]

    def write(cases: list[Case]) -> Path:
        path = tmp_path / "graph.db"
        path.unlink(missing_ok=True)
        rows = [entity(number, metadata=value) for number, (value, *_) in enumerate(cases, 1)]
        return write_graph(path, entities=rows)

    require(migrate, postgres, write, ("entities", "metadata"), cases)


def test_metadata_of_many_megabytes(migrate: Migrate, postgres: Database, tmp_path: Path) -> None:
    """Alone among small rows; a worker holds a few copies of the chunk."""
    megabytes = 100 if os.environ.get("KG_TEST_SLOW") == "1" else 8
    large = json.dumps({"text": "x" * (megabytes * 2**20)})
    path = write_graph(
        tmp_path / "graph.db", entities=[entity(1), entity(2, metadata=large), entity(3)]
    )
    report = migrate(path)
    assert report.is_done, report.errors
    ((length,),) = postgres.rows(
        "SELECT length(metadata->>'text') FROM entities WHERE metadata <> '{}'"
    )
    assert length == megabytes * 2**20


def test_text(migrate: Migrate, postgres: Database, tmp_path: Path) -> None:
    texts = [
        "",
        " ",
        "tab\tnewline\nreturn\rboth\r\n",
        "\\",
        "\\N",
        "\\.",
        "a\n\\.\nb",
        "\\t\\x41\\101",
        "שלום עולם",
        "👩‍👩‍👧‍👦",
        "é e\u0301",
        "\u202egnp.exe",
        "\ufeffBOM \ufffe \uffff",
        "\x01\x1e\x1f\x7f",
        "'; DROP TABLE entities; --",
        "%s ? $1 {}",
        "x" * 2_600,
    ]
    refused = [("a\0b", "22021"), (b"blob", "42804"), ("n" * 2**20, "54000")]
    cases = [*((text, text, "") for text in texts), *((v, REFUSED, s) for v, s in refused)]
    cases.append((InvalidText(b"a\xff"), REFUSED, "22021"))

    def write(cases: list[Case]) -> Path:
        return untyped(tmp_path / "graph.db", "file_snapshots", "file_path", cases)

    require(migrate, postgres, write, ("file_snapshots", "file_path"), cases)
    assert postgres.rows(
        "SELECT max(octet_length(bytes[array_position(columns, 'file_path')]))"
        " FROM kg_migration.rejects"
    ) == [(2**20,)]
    # In a column without an index text may be as long as it likes.
    cases = [("n" * 2**20, "n" * 2**20, ""), ("", "", "")]
    path = untyped(tmp_path / "graph.db", "file_snapshots", "hash", cases)
    assert outcome(migrate, postgres, path, "file_snapshots", "hash") == (
        {number: text for number, (_, text, _) in enumerate(cases, 1)},
        {},
    )


def test_reals(migrate: Migrate, postgres: Database, tmp_path: Path) -> None:
    cases = [
        (-0.0, "-0", ""),
        (0.1, "0.1", ""),
        (5e-324, "5e-324", ""),
        (1.7976931348623157e308, "1.7976931348623157e+308", ""),
        (float("inf"), "Infinity", ""),  # 1e400 is that in SQLite.
        (2**53, "9.007199254740992e+15", ""),
        (2**53 + 1, REFUSED, "22003"),
        ("1.5", "1.5", ""),
        ("1.50", REFUSED, "42804"),
        ("dear", REFUSED, "42804"),
        (b"1.5", REFUSED, "42804"),
    ]

    def write(cases: list[Case]) -> Path:
        return untyped(tmp_path / "graph.db", "mission_history", "cost_usd", cases)

    require(migrate, postgres, write, ("mission_history", "cost_usd"), cases, careful={"1.5"})


def test_integers(migrate: Migrate, postgres: Database, tmp_path: Path) -> None:
    cases = [
        (2**63 - 1, "9223372036854775807", ""),
        (-(2**63), "-9223372036854775808", ""),
        (2**53 + 1, "9007199254740993", ""),
        (2.0, "2", ""),
        (2.5, REFUSED, "22003"),  # Beside it the integer above 2^53 keeps its digits.
        (1e300, REFUSED, "22003"),
        ("7", "7", ""),
        ("07", REFUSED, "42804"),
        ("seven", REFUSED, "42804"),
        (b"7", REFUSED, "42804"),
        (None, None, ""),
    ]

    def write(cases: list[Case]) -> Path:
        return untyped(tmp_path / "graph.db", "mission_history", "iterations", cases)

    where = ("mission_history", "iterations")
    require(migrate, postgres, write, where, cases, careful={2.0, "7"})


def untyped(path: Path, table: str, column: str, cases: list[Case]) -> Path:
    """A graph whose rows have these values; the column's type converts none of them."""
    path.unlink(missing_ok=True)
    numbers = range(1, len(cases) + 1)
    write_graph(path, missions=map(mission, numbers), snapshots=map(snapshot, numbers))
    with closing(sqlite3.connect(path)) as connection:
        connection.execute(f"ALTER TABLE {table} DROP COLUMN {column}")
        connection.execute(f"ALTER TABLE {table} ADD COLUMN {column}")
        for number, (value, *_) in enumerate(cases, 1):
            mark = "CAST(? AS TEXT)" if isinstance(value, InvalidText) else "?"
            connection.execute(
                f"UPDATE {table} SET {column} = {mark} WHERE id = ?", (value, number)
            )
        connection.commit()
    return path


def test_timestamps(migrate: Migrate, postgres: Database, tmp_path: Path) -> None:
    cases = [
        ("2026-01-02T03:04:05Z", "2026-01-02 03:04:05+00", ""),
        ("2026-01-02T03:04:05+05:45", "2026-01-01 21:19:05+00", ""),
        ("2026-01-02 03:04:05", "2026-01-02 03:04:05+00", ""),
        ("2026-01-02", "2026-01-02 00:00:00+00", ""),
        ("2026-01-02T03:04:05.678901Z", "2026-01-02 03:04:05.678901+00", ""),
        ("2026-01-02T03:04:05.678901000Z", "2026-01-02 03:04:05.678901+00", ""),
        ("2026-01-02T03:04:05.678901234Z", REFUSED, "22008"),
        ("0001-01-01T00:00:00Z", "0001-01-01 00:00:00+00", ""),
        ("9999-12-31T23:59:59.999999Z", "9999-12-31 23:59:59.999999+00", ""),
        ("0000-01-01T00:00:00Z", REFUSED, "22008"),
        ("10000-01-01T00:00:00Z", REFUSED, "22007"),
        ("2026-01-02T24:00:00Z", REFUSED, "22008"),
        ("2016-12-31T23:59:60Z", REFUSED, "22008"),
        ("2026-02-29T00:00:00Z", REFUSED, "22008"),
        ("", REFUSED, "22007"),
        ("now", REFUSED, "22007"),
        ("infinity", REFUSED, "22007"),
        ("20260102", REFUSED, "22007"),
        ("1767323045", REFUSED, "22007"),
        (1767323045, REFUSED, "42804"),
        (1767323045.5, REFUSED, "42804"),
        (2461042.5, REFUSED, "42804"),
        (None, REFUSED, "23502"),
    ]

    def write(cases: list[Case]) -> Path:
        return untyped(tmp_path / "graph.db", "file_snapshots", "created_at", cases)

    where = ("file_snapshots", "created_at")
    require(migrate, postgres, write, where, cases, careful={"2026-01-02T03:04:05.678901000Z"})


@pytest.mark.parametrize("rows", [0, 1])
def test_no_row_and_one_row(
    migrate: Migrate, postgres: Database, tmp_path: Path, rows: int
) -> None:
    path = write_graph(tmp_path / "graph.db", entities=[entity(-7)][:rows])
    report = migrate(path)
    assert report.is_done, report.errors
    assert postgres.rows("SELECT id FROM entities") == [(-7,)][:rows]
    assert postgres.rows("INSERT INTO entities (type, name) VALUES ('a', 'b') RETURNING id") == [
        (1,)
    ]


def test_names_that_need_quoting(migrate: Migrate, postgres: Database, tmp_path: Path) -> None:
    names = ['x"; DROP TABLE entities; --', "select", "UPPER", "with space", "é" * 31, "%s", "a'b"]
    listed = ", ".join('"' + name.replace('"', '""') + '" TEXT' for name in names)
    table = '"Order; ""by"" %s"'
    path = write_graph(
        tmp_path / "graph.db",
        entities=[entity(1)],
        more=f'CREATE TABLE {table} ("Id" INTEGER PRIMARY KEY, {listed});'
        f"INSERT INTO {table} VALUES (5, {', '.join(['NULL'] * len(names))});"
        f"UPDATE {table} SET \"UPPER\" = 'kept'",
    )
    assert migrate(path).is_done
    with postgres.connect().cursor() as cursor:
        cursor.execute(f"SELECT * FROM {table}")
        assert [column.name for column in cursor.description] == ["Id", *names]
        assert cursor.fetchall() == [(5, *("kept" if n == "UPPER" else None for n in names))]


def test_nothing_that_the_file_defines_runs(
    migrate: Migrate, postgres: Database, tmp_path: Path
) -> None:
    """Triggers, views, an index on an expression, and a default that SQLite must not evaluate."""
    path = write_graph(
        tmp_path / "graph.db",
        entities=[entity(1), entity(2)],
        more="""
            CREATE TABLE log (id INTEGER PRIMARY KEY, what TEXT DEFAULT (load_extension('evil')));
            INSERT INTO log VALUES (1, 'first');
            CREATE TRIGGER spy AFTER INSERT ON entities BEGIN DELETE FROM entities; END;
            CREATE VIEW all_of_it AS SELECT * FROM entities, log;
            CREATE INDEX by_expression ON entities (lower(name) || abs(id));
            ALTER TABLE entities ADD COLUMN made TEXT AS (upper(name)) VIRTUAL;
        """,
    )
    before = path.read_bytes()
    assert migrate(path).is_done
    assert path.read_bytes() == before
    assert postgres.rows("SELECT id, name FROM entities ORDER BY 1") == [
        (1, "file 1"),
        (2, "file 2"),
    ]
    assert postgres.rows("SELECT what FROM log") == [("first",)]
    assert postgres.rows("SELECT to_regclass('all_of_it')") == [(None,)]


def test_a_schema_that_lies(migrate: Migrate, postgres: Database, tmp_path: Path) -> None:
    """The table's statement names another column than the one its rows were written for."""
    path = write_graph(tmp_path / "graph.db", entities=[entity(1), entity(2)])
    with closing(sqlite3.connect(path)) as connection:
        connection.execute("PRAGMA writable_schema=ON")
        connection.execute(
            "UPDATE sqlite_master SET sql = replace(sql, 'metadata TEXT', 'metadata INTEGER')"
            " WHERE name = 'entities'"
        )
        connection.execute(
            "UPDATE sqlite_master SET sql = replace(sql, 'file_path', 'elsewhere')"
            " WHERE name = 'file_snapshots'"
        )
        connection.commit()
    with pytest.raises(SourceError, match="table file_snapshots has no column file_path"):
        migrate(path)
    with closing(sqlite3.connect(path)) as connection:
        connection.execute("PRAGMA writable_schema=ON")
        connection.execute("UPDATE sqlite_master SET sql = replace(sql, 'elsewhere', 'file_path')")
        connection.commit()
    assert migrate(path).is_done
    assert postgres.rows("SELECT metadata::text FROM entities") == [("{}",), ("{}",)]


def test_an_unreadable_file(tmp_path: Path) -> None:
    source = small_graph(tmp_path / "graph.db")
    source.chmod(0)
    with as_nobody(), pytest.raises(SourceError, match="can't be read") as caught:
        freeze(source, tmp_path / "data")
    assert "permissions" in caught.value.hint


@contextmanager
def as_nobody() -> Iterator[None]:
    """Root reads everything: act as another user for a while, in a directory that it may enter."""
    if os.geteuid() != 0:
        yield
        return
    from_root = [path for path in Path.cwd().parents if not path.stat().st_mode & 0o001]
    modes = {path: path.stat().st_mode for path in [Path.cwd(), *from_root]}
    for path in modes:
        path.chmod(0o755)
    os.seteuid(65534)
    try:
        yield
    finally:
        os.seteuid(0)
        for path, mode in modes.items():
            path.chmod(mode)
