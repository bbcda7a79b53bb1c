"""Words are said to be equal only where each value is the source's: the least difference counts."""

import json
import math
import sqlite3
from collections.abc import Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any
from uuid import uuid4

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from psycopg2.extensions import cursor as Cursor  # noqa: N812
from psycopg2.sql import Identifier

from kgcore.backends import PostgreSQLBackend
from kgcore.migration import lanes, ledger, words
from kgcore.migration.model import Options, PlannedTable
from kgcore.migration.repairs import Repairs
from kgcore.migration.stages import extract, verify
from kgcore.migration.stages.plan import plan
from kgcore.model import Kind
from kgcore.schema import postgres as ddl

_COLUMNS = {
    "whole": ("INTEGER", [1, -(2**63), 2**63 - 1, None]),
    "part": ("REAL", [0.1, -0.0, 5e-324, None]),
    "number": ("DECIMAL(10, 2)", [1, 0.1, 1e300, None]),
    "name": ("TEXT", ["", "naïve 🚀\t\n\\", "n" * 9, None]),
    "raw": ("BLOB", [b"", b"\x00\xff", b"text", None]),
    "doc": ("JSON", ['{"b": 1, "aa": [1.0, 1e2]}', "{}", '"\\u00e9"', None]),
    "at": (
        "TIMESTAMP",
        ["2009-04-24T11:30:00Z", "2009-04-24 11:30:00.500000+02:00", "2009-04-24", None],
    ),
    "day": ("DATE", ["2009-04-24", "0001-01-01", "9999-12-31", None]),
    "yes": ("BOOLEAN", [0, 1, 1, None]),
}


@dataclass(frozen=True)
class Stored:
    """A table of a file, stored by the careful lane in a transaction that is rolled back."""

    cursor: Cursor
    path: Path
    planned: PlannedTable

    def equal(self, rejected: Sequence[int] = ()) -> int | None:
        """What words say of all chunks."""
        found = [
            lanes.equal_rows(self.cursor, "pg_temp", self.path, self.planned, chunk, rejected)
            for chunk in self.planned.chunks
        ]
        return None if None in found else sum(filter(None, found))

    def spoil(self, change: str) -> None:
        """Change what was stored."""
        self.cursor.execute(f'UPDATE pg_temp."{self.planned.table.name}" SET {change}')
        assert self.cursor.rowcount


@pytest.fixture
def cursor(backend: PostgreSQLBackend) -> Iterator[Cursor]:
    with ledger.transaction(backend.pool) as cursor:
        yield cursor


def stored(
    cursor: Cursor,
    path: Path,
    statement: str,
    rows: Sequence[tuple[Any, ...]],
    kind: Kind | None = None,
    *,
    more: str = "",
    chunk_rows: int = 100,
) -> Stored:
    """Write a file with one table and more, and store its rows, the last column as of this kind."""
    with closing(sqlite3.connect(path)) as connection:
        connection.execute(statement)
        marks = ", ".join("?" for _ in rows[0])
        connection.executemany(f"INSERT INTO t VALUES ({marks})", rows)
        connection.commit()
        connection.executescript(more)
    with closing(extract.open_snapshot(path)) as connection:
        (planned,) = plan(connection, Options(only=("t",), chunk_rows=chunk_rows)).tables
    if kind is not None:
        *columns, last = planned.table.columns
        table = replace(planned.table, columns=(*columns, replace(last, kind=kind)))
        planned = replace(planned, table=table)
    cursor.execute("DROP TABLE IF EXISTS pg_temp.t")
    cursor.execute(ddl.create_table("pg_temp", planned.table))
    verify.settle(cursor)
    there = Identifier("pg_temp", "t")
    for chunk in planned.chunks:
        lanes.careful(cursor, there, path, planned, chunk, Repairs())
    return Stored(cursor, path, planned)


def of_all_kinds(cursor: Cursor, path: Path) -> Stored:
    declared = ", ".join(f"{name} {kind}" for name, (kind, _) in _COLUMNS.items())
    rows = zip(*(values for _, values in _COLUMNS.values()), strict=True)
    statement = f"CREATE TABLE t (id INTEGER PRIMARY KEY, {declared})"
    return stored(cursor, path, statement, [(n, *row) for n, row in enumerate(rows, 1)])


def test_values_of_all_kinds_are_said_to_be_equal(cursor: Cursor, tmp_path: Path) -> None:
    found = of_all_kinds(cursor, tmp_path / "t.db")
    kinds = {column.kind for column in found.planned.table.columns}
    assert kinds == set(Kind) - {Kind.ROW}
    assert found.equal() == 4


@pytest.mark.parametrize(
    ("number", "change"),
    [
        (1, "whole = 2"),
        (4, "whole = 0"),
        (3, "whole = NULL"),
        (1, f"part = {math.nextafter(0.1, 1)!r}"),
        (2, "part = '-0'"),
        (3, "part = 0"),
        (1, "number = 1.0"),
        (2, "number = 0.10000000000000001"),
        (1, "name = ' '"),
        (2, "name = 'naïve 🚀\t\n'"),
        (4, "name = ''"),
        (1, "name = NULL"),
        (2, r"raw = '\x00fe'"),
        (1, r"raw = '\x00'"),
        (1, "raw = NULL"),
        (1, """doc = '{"b": 1, "aa": [1, 1e2]}'"""),
        (1, """doc = '{"b": 1, "aa": [1.0, 1e2], "c": null}'"""),
        (3, """doc = '"e"'"""),
        (4, "doc = 'null'"),
        (1, "at = at + interval '1 microsecond'"),
        (2, "at = at + interval '2 hours'"),
        (4, "at = 'epoch'"),
        (3, "at = NULL"),
        (1, "day = day + 1"),
        (2, "day = '0001-01-01 BC'"),
        (1, "yes = true"),
        (4, "yes = false"),
        (2, "id = 5"),
    ],
)
def test_the_least_difference_is_found(
    cursor: Cursor, tmp_path: Path, number: int, change: str
) -> None:
    found = of_all_kinds(cursor, tmp_path / "t.db")
    found.spoil(f"{change} WHERE id = {number}")
    assert found.equal() is None


def test_a_row_too_many_or_too_few_is_found(cursor: Cursor, tmp_path: Path) -> None:
    found = of_all_kinds(cursor, tmp_path / "t.db")
    cursor.execute("INSERT INTO pg_temp.t (id) VALUES (99)")
    assert found.equal() is None
    cursor.execute("DELETE FROM pg_temp.t WHERE id IN (2, 99)")
    assert found.equal() is None
    assert found.equal(rejected=[2]) == 3
    assert found.equal(rejected=[2, 3]) is None, "a reject that is stored"
    cursor.execute("DELETE FROM pg_temp.t")
    assert found.equal(rejected=[1, 2, 3, 4]) == 0


def test_rows_that_changed_places_are_found(cursor: Cursor, tmp_path: Path) -> None:
    found = of_all_kinds(cursor, tmp_path / "t.db")
    found.spoil("id = CASE id WHEN 1 THEN 3 ELSE 1 END WHERE id IN (1, 3)")
    assert found.equal() is None


@pytest.mark.parametrize(
    ("source", "spoilt"),
    [
        (["a\x1fb", "c"], ["a", "b\x1fc"]),
        (["a\x1f", "b"], ["a", "\x1fb"]),
        ([None, "\x1e"], ["\x1e", None]),
        (["\x1e", "a"], [None, "a"]),
    ],
)
def test_text_that_looks_like_what_stands_between_words(
    cursor: Cursor, tmp_path: Path, source: list[str | None], spoilt: list[str | None]
) -> None:
    """It can't be told apart by words, so nothing is said of it; rows are compared one by one."""
    statement = "CREATE TABLE t (id INTEGER PRIMARY KEY, c TEXT)"
    found = stored(cursor, tmp_path / "t.db", statement, [*enumerate(source, 1)])
    assert found.equal() is None
    for number, text in enumerate(spoilt, 1):
        cursor.execute("UPDATE pg_temp.t SET c = %s WHERE id = %s", (text, number))
    assert found.equal() is None


def test_bytes_that_changed_their_place_are_found(cursor: Cursor, tmp_path: Path) -> None:
    statement = "CREATE TABLE t (id INTEGER PRIMARY KEY, c BLOB)"
    rows = [(1, b"\x1e\x1f"), (2, b"\x00"), (3, None), (4, b"")]
    found = stored(cursor, tmp_path / "t.db", statement, rows)
    assert found.equal() == 4
    found.spoil(r"c = CASE id WHEN 1 THEN '\x1e'::bytea ELSE '\x1f00' END WHERE id < 3")
    assert found.equal() is None


@pytest.mark.parametrize(
    ("kind", "ordinary", "value", "word"),
    [
        (Kind.TEXT, "text", b"a", "'a'"),
        (Kind.TEXT, "text", 1.5, "'1.5'"),
        (Kind.INTEGER, 1, b"5", "5"),
        (Kind.REAL, 1.0, b"1", "1"),
        (Kind.TIMESTAMP, "2009-04-24", b"2009-04-24", "'2009-04-24'"),
        (Kind.JSON, "{}", b"{}", "'{}'"),
        (Kind.BLOB, b"", "a", "'a'"),
        (Kind.NUMERIC, 1.5, b"1", "1"),
        (Kind.BOOLEAN, 1, b"1", "true"),
        (Kind.DATE, "2009-04-24", b"2009-04-24", "'2009-04-24'"),
    ],
)
def test_a_value_of_another_class_is_not_equal(
    cursor: Cursor, tmp_path: Path, kind: Kind, ordinary: Any, value: Any, word: str
) -> None:
    """The careful lane refuses it; had something else stored it, words alone would be the same."""
    statement = "CREATE TABLE t (id INTEGER PRIMARY KEY, c)"
    rows = [(1, ordinary), (2, value)]
    found = stored(cursor, tmp_path / "t.db", statement, rows, kind)
    assert found.equal(rejected=[2]) == 1
    cursor.execute(f"INSERT INTO pg_temp.t VALUES (2, {word})")
    assert found.equal() is None


@pytest.mark.parametrize(
    ("word", "spoilt"),
    [
        ("2009-07-01 11:00:00 AMT", "2009-07-01 11:00:00+00"),
        ("2009-07-01 11:00:00 ADT", "2009-07-01 11:00:00+00"),
        ("2009-07-01 11:00:00 MSK", "2009-07-01 11:00:00+00"),
    ],
)
@pytest.mark.parametrize("usual", ["2009-04-24T11:30:00Z", "2009-04-24 11:30:00"])
def test_an_odd_zone_is_not_taken_for_a_usual_one(
    cursor: Cursor, tmp_path: Path, usual: str, word: str, spoilt: str
) -> None:
    """The careful lane refuses it; what something else stored is another instant."""
    statement = "CREATE TABLE t (id INTEGER PRIMARY KEY, c TEXT)"
    rows = [(1, usual), (2, word)]
    found = stored(cursor, tmp_path / "t.db", statement, rows, Kind.TIMESTAMP)
    assert found.equal(rejected=[2]) == 1
    cursor.execute("INSERT INTO pg_temp.t VALUES (2, %s)", (spoilt,))
    assert found.equal() is None


@pytest.mark.parametrize(
    ("kind", "word"),
    [
        (Kind.TIMESTAMP, "2009-04-24T11:30:00.1234567Z"),
        (Kind.TIMESTAMP, "2009-04-24T24:00:00Z"),
        (Kind.DATE, "2009-04-24 11:30"),
        (Kind.BOOLEAN, "tru"),
        (Kind.NUMERIC, "0x10"),
    ],
)
def test_what_the_server_reads_and_nobody_may_store_is_not_equal(
    cursor: Cursor, tmp_path: Path, kind: Kind, word: str
) -> None:
    statement = "CREATE TABLE t (id INTEGER PRIMARY KEY, c BLOB)"
    found = stored(cursor, tmp_path / "t.db", statement, [(1, None), (2, word)], kind)
    assert found.equal(rejected=[2]) == 1
    cursor.execute("INSERT INTO pg_temp.t VALUES (2, %s)", (word,))
    assert found.equal() is None


@pytest.mark.parametrize(
    "instants",
    [
        ["2009-04-24T11:30:00+02:00", "2009-12-24T11:30:00.5+01:00", None],
        ["2009-04-24", "2009-04-24T11:30:00Z", "2009-04-24 11:30:00-03"],
        [None, "2009-04-24 11:30", "2009-04-24T11:30:00.120000+00:00"],
    ],
)
def test_instants_of_any_zone_are_equal(
    cursor: Cursor, tmp_path: Path, instants: list[str | None]
) -> None:
    statement = "CREATE TABLE t (id INTEGER PRIMARY KEY, c TEXT)"
    rows = [*enumerate(instants, 1)]
    found = stored(cursor, tmp_path / "t.db", statement, rows, Kind.TIMESTAMP)
    assert found.equal() == len(rows)


@pytest.mark.parametrize(("columns", "equal"), [(800, 1), (900, None), (1_100, None)])
def test_a_wide_table_is_compared_by_words_or_not_at_all(
    cursor: Cursor, tmp_path: Path, columns: int, equal: int | None
) -> None:
    """Either database has a limit of columns in a query; what it is, is for them to say."""
    declared = ", ".join(f'"{n} % %s %(a)s {{}} "" \\" INTEGER' for n in range(columns))
    statement = f"CREATE TABLE t (id INTEGER PRIMARY KEY, {declared})"
    row = (1, *[None] * (columns - 1), 2)
    found = stored(cursor, tmp_path / "t.db", statement, [row])
    assert found.equal() == equal
    cursor.execute("SELECT count(*) FROM pg_temp.t")
    assert cursor.fetchone() == (1,), "the transaction goes on"


@pytest.mark.parametrize(("number", "equal"), [(2**53, 2), (2**53 + 1, None), (-(2**53), 2)])
def test_a_large_integer_among_reals_is_not_its_rounded_self(
    cursor: Cursor, tmp_path: Path, number: int, equal: int | None
) -> None:
    statement = "CREATE TABLE t (id INTEGER PRIMARY KEY, c)"
    found = stored(cursor, tmp_path / "t.db", statement, [(1, 0.5), (2, 1)], Kind.REAL)
    with closing(sqlite3.connect(found.path)) as connection:
        connection.execute("UPDATE t SET c = ? WHERE id = 2", (number,))
        connection.commit()
    found.spoil(f"c = {number} WHERE id = 2")
    assert found.equal() == equal


@pytest.mark.parametrize("key", ["id INTEGER PRIMARY KEY", "id INTEGER", "id TEXT PRIMARY KEY"])
def test_an_index_with_all_columns_does_not_change_the_order(
    cursor: Cursor, tmp_path: Path, key: str
) -> None:
    statement = f"CREATE TABLE t ({key}, a TEXT, b TEXT)"
    rows = [(number, f"a{number}", f"b{-number}") for number in range(1, 400)]
    more = "CREATE INDEX covering ON t (b, a, id); ANALYZE"
    found = stored(cursor, tmp_path / "t.db", statement, rows, more=more, chunk_rows=50)
    assert len(found.planned.chunks) == 8
    assert found.equal() == 399


def test_the_role_s_own_settings_change_no_word(cursor: Cursor, tmp_path: Path) -> None:
    cursor.execute(
        "SET extra_float_digits = -15; SET DateStyle = 'SQL, DMY'; SET TimeZone = 'Asia/Kolkata';"
        "SET bytea_output = 'escape'"
    )
    found = of_all_kinds(cursor, tmp_path / "t.db")
    assert found.equal() == 4
    found.spoil(f"part = {math.nextafter(0.1, 1)!r} WHERE id = 1")
    assert found.equal() is None


def test_what_the_server_can_t_read_is_not_equal(cursor: Cursor, tmp_path: Path) -> None:
    statement = "CREATE TABLE t (id INTEGER PRIMARY KEY, c TEXT)"
    found = stored(cursor, tmp_path / "t.db", statement, [(1, "{}"), (2, "{x}")], Kind.JSON)
    cursor.execute("INSERT INTO pg_temp.t VALUES (2, '{}')")
    assert found.equal() is None
    cursor.execute("SELECT count(*) FROM pg_temp.t")
    assert cursor.fetchone() == (2,), "the transaction goes on"


documents = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(st.characters(exclude_characters="\0", exclude_categories=["Cs"])),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(
            st.text(st.characters(exclude_characters="\0", exclude_categories=["Cs"]), max_size=3),
            inner,
            max_size=3,
        )
    ),
    max_leaves=9,
)
cells = st.text("ab\x1e\x1f\0é🚀", max_size=3).map(str.encode) | st.none()


@given(columns=st.lists(st.lists(cells, min_size=3, max_size=3), min_size=2, max_size=2))
def test_clear_words_are_the_same_only_for_the_same_cells(
    columns: list[list[bytes | None]],
) -> None:
    one, other = (words.of_values(Kind.NUMERIC, column) for column in columns)
    assert one is not None
    if words.is_clear(one, 3):
        assert (one == other) == (columns[0] == columns[1])


@settings(
    max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(documents=st.lists(st.builds(json.dumps, documents, ensure_ascii=st.booleans()), min_size=1))
def test_json_in_any_writing_is_equal(
    backend: PostgreSQLBackend, tmp_path: Path, documents: list[str]
) -> None:
    statement = "CREATE TABLE t (id INTEGER PRIMARY KEY, c TEXT)"
    with ledger.transaction(backend.pool) as cursor:
        path = tmp_path / f"{uuid4().hex}.db"
        found = stored(cursor, path, statement, [*enumerate(documents, 1)], Kind.JSON)
        assert found.equal() == len(documents)
