"""The fast lane against the careful one, and both against the file, whatever it was declared as.

Chunks have a few rows each, so that what ADBC infers from one row meets another of its kind, or of
none.
"""

import sqlite3
from contextlib import closing
from dataclasses import dataclass, replace
from datetime import date
from decimal import Decimal
from pathlib import Path
from typing import Any
from uuid import uuid4

import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st
from psycopg2.sql import SQL, Identifier

from kgcore.backends import PostgreSQLBackend
from kgcore.migration import lanes, ledger
from kgcore.migration.model import InvalidText, Options, PlannedTable
from kgcore.migration.repairs import Repairs
from kgcore.migration.stages import extract
from kgcore.migration.stages.plan import plan
from kgcore.model import Kind
from kgcore.schema import TABLES, quoted
from kgcore.schema import postgres as ddl
from tests.migration.test_lanes import (
    any_value,
    expected,
    found_as,
    json_texts,
    moments,
    plain_text,
    selected,
)

DECLARED = st.sampled_from(
    ["", "INTEGER", "REAL", "NUMERIC", "DECIMAL(10,2)", "TEXT", "VARCHAR(9)", "BLOB", "DATETIME"]
)
REALS = st.floats(allow_nan=False) | st.integers(-9, 9) | st.sampled_from([1.5, 2**53, -(2**53)])
ORDINARY: dict[Kind, st.SearchStrategy[Any]] = {
    Kind.INTEGER: st.integers(-(2**63), 2**63 - 1),
    Kind.REAL: REALS,
    Kind.TEXT: plain_text,
    Kind.BLOB: st.binary(max_size=9),
    Kind.JSON: json_texts,
    Kind.TIMESTAMP: moments,
    Kind.DATE: st.dates().map(str),
    Kind.BOOLEAN: st.sampled_from([0, 1]),
}
ODD = any_value | st.sampled_from([2**53 + 1, -(2**53) - 1, 2.5, "n/a", b"x", 7])
IDS = st.integers(-(2**63), 2**63 - 1) | st.integers(-9, 9)


@dataclass(frozen=True)
class Drawn:
    """A file of one table: its statement, its rows, and how a row is told apart there."""

    name: str
    statement: str
    rows: list[tuple[Any, ...]]
    key: str
    chunk_rows: int = 2

    def write(self, path: Path) -> Path:
        """Write the file; what is not UTF-8 comes into a TEXT value by a cast alone."""
        with closing(sqlite3.connect(path)) as connection:
            connection.execute("PRAGMA synchronous = OFF")
            connection.execute(self.statement)
            for row in self.rows:
                marks = ["CAST(? AS TEXT)" if isinstance(v, InvalidText) else "?" for v in row]
                connection.execute(
                    f"INSERT OR IGNORE INTO {self.name} VALUES ({', '.join(marks)})", row
                )
            connection.commit()
        return path

    def stored(self, path: Path, planned: PlannedTable) -> dict[int, dict[str, Any]]:
        """What the file holds, by id, asked for without the pipeline's code."""
        names = [name for name in planned.table.column_names if name != "kg_row"]
        listed = ", ".join(map(quoted, names))
        with closing(sqlite3.connect(path)) as connection:
            connection.text_factory = lambda raw: raw.decode(errors="surrogateescape")
            rows = connection.execute(f"SELECT {self.key}, {listed} FROM {self.name}").fetchall()
        return {row[0]: dict(zip(names, row[1:], strict=True)) for row in rows}


@st.composite
def files(draw: st.DrawFn) -> Drawn:
    """A table of the graph, or another one, of any declared types and any form of its key."""
    described = draw(st.sampled_from([*TABLES, None, None, None]))
    if described is None:
        name, columns = "t", [f"c{number}" for number in range(draw(st.integers(1, 4)))]
        cells = [draw(st.sampled_from(list(ORDINARY.values()))) for _ in columns]
        cells = [cell | st.none() for cell in cells]
    else:
        name, columns = described.name, list(described.column_names[1:])
        cells = [
            ORDINARY[column.kind] | st.none() if column.nullable else ORDINARY[column.kind]
            for column in described.columns[1:]
        ]
    # One column is odd, and that seldom: or the fast lane would store next to nothing.
    odd = draw(st.sampled_from([None, *range(len(cells))]))
    if odd is not None:
        cells[odd] = st.one_of(*[cells[odd]] * 5, ODD)
    some = draw(st.sampled_from([st.just(""), DECLARED]))
    listed = ", ".join(f"{column} {draw(some)}" for column in columns)
    form = draw(st.sampled_from(["key", "no key", "without rowid"]))
    rows = draw(st.lists(st.tuples(IDS, *cells), max_size=12, unique_by=lambda row: row[0]))
    without_id = described is None and form == "no key"
    statement = f"CREATE TABLE {name} (id INTEGER PRIMARY KEY, {listed})"
    if form == "no key":
        statement = f"CREATE TABLE {name} ({'' if without_id else 'id INTEGER, '}{listed})"
    elif form == "without rowid":
        statement += " WITHOUT ROWID"
    key = "rowid" if without_id else "id"
    if described is None and form == "without rowid":
        key = "row_number() OVER (ORDER BY id) - 1"
    rows = [row[1:] for row in rows] if without_id else rows
    return Drawn(name, statement, rows, key, draw(st.integers(1, 3)))


def _drawn(declared: str, *values: Any) -> Drawn:
    rows = [(number, value) for number, value in enumerate(values, 1)]
    return Drawn("t", f"CREATE TABLE t (id INTEGER PRIMARY KEY, c {declared})", rows, "id", 3)


def wanted(kind: Kind, value: Any) -> Any:
    """What a stored value must be."""
    if value is None:
        return None
    match kind:
        case Kind.NUMERIC:
            return Decimal(str(value))
        case Kind.BOOLEAN:
            return str(value).lower() in {"1", "t", "true", "y", "yes", "on"}
        case Kind.DATE:
            return date.fromisoformat(value)
        case Kind.BLOB:
            return value
    return expected(kind, value)


@settings(
    max_examples=40,
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)
@given(drawn=files())
@example(_drawn("NUMERIC", 1.5, 2**53 + 1, 2.5))
@example(_drawn("", 1.5, 2**53 + 1, 2.5))
@example(_drawn("BLOB", b"a", "text", b"b"))
@example(_drawn("BLOB", b"a", 12, b"b", b"c", 2.5, b"d"))
@example(_drawn("", "a", 2.5, "b"))
def test_what_either_lane_stores_is_what_the_file_holds(
    backend: PostgreSQLBackend, tmp_path: Path, drawn: Drawn
) -> None:
    path = drawn.write(tmp_path / f"{uuid4().hex}.db")  # Source snapshots are never the same path.
    with closing(extract.open_snapshot(path)) as connection:
        options = Options(only=(drawn.name,), chunk_rows=drawn.chunk_rows)
        (planned,) = plan(connection, options).tables
    table = planned.table
    source = drawn.stored(path, planned)
    fast, slow = Identifier("fast", table.name), Identifier("slow", table.name)
    with ledger.transaction(backend.pool) as cursor:
        for schema in ("fast", "slow"):
            cursor.execute(f"DROP SCHEMA IF EXISTS {schema} CASCADE; CREATE SCHEMA {schema}")
            cursor.execute(ddl.create_table(schema, table))
        quick, refused = 0, set[int]()
        for chunk in planned.chunks:
            careful = lanes.careful(cursor, slow, path, planned, chunk, Repairs())
            refused |= {refusal.row_id for refusal in careful.refusals}
            try:
                quick += lanes.fast(cursor, fast, path, planned, chunk).rows
            except lanes.RefusedByFastLaneError:
                continue
            assert not careful.refusals, "the fast lane stored what the careful one refuses"
        cursor.execute("SET LOCAL TimeZone = 'UTC'")
        cursor.execute(selected(table, slow))
        stored = {row[0]: row for row in cursor.fetchall()}
        key = Identifier(table.key.name)
        cursor.execute(
            SQL(
                "SELECT count(*), count(*) FILTER (WHERE f *= s) FROM {} f LEFT JOIN {} s"
                " ON f.{key} = s.{key}"
            ).format(fast, slow, key=key)
        )
        assert cursor.fetchone() == (quick, quick)
    assert stored.keys() | refused == source.keys()
    assert not stored.keys() & refused
    for row_id, row in stored.items():
        for column, value in zip(table.columns, row, strict=True):
            if column.kind is not Kind.ROW:
                held = bytes(value) if isinstance(value, memoryview) else value
                found = held if column.kind is Kind.BLOB else found_as(column.kind, held)
                assert found == wanted(column.kind, source[row_id][column.name]), column


@pytest.mark.parametrize("declared", ["NUMERIC", "INTEGER", "", "BLOB"])
@pytest.mark.parametrize(
    ("values", "is_fast"), [((1.5, 2**53 + 1), False), ((1.5, 2**53, None, 7), True)]
)
def test_a_large_integer_among_reals_is_for_the_careful_lane(
    tmp_path: Path, declared: str, values: tuple[Any, ...], is_fast: bool
) -> None:
    """ADBC would round it; smaller ones are as good as reals."""
    drawn = _drawn(declared, *values)
    path = drawn.write(tmp_path / "t.db")
    with closing(extract.open_snapshot(path)) as connection:
        (planned,) = plan(connection, Options(only=("t",))).tables
    key, column = planned.table.columns
    columns = (key, replace(column, kind=Kind.REAL))
    planned = replace(planned, table=replace(planned.table, columns=columns))
    if is_fast:
        batch = extract.read_arrow(path, planned, planned.chunks[0])
        assert batch.column(1).to_pylist() == [v if v is None else float(v) for v in values]
    else:
        with pytest.raises(extract.UnreadableError):
            extract.read_arrow(path, planned, planned.chunks[0])


def test_a_name_with_large_letters_is_guarded_as_any(tmp_path: Path) -> None:
    path = tmp_path / "t.db"
    with closing(sqlite3.connect(path)) as connection:
        connection.executescript(
            "CREATE TABLE t (id INTEGER PRIMARY KEY, Number NUMERIC);"
            f"INSERT INTO t (Number) VALUES (1.5), ({2**53 + 1})"
        )
    with closing(extract.open_snapshot(path)) as connection:
        (planned,) = plan(connection, Options(only=("t",))).tables
    key, column = planned.table.columns
    columns = (key, replace(column, kind=Kind.REAL))
    planned = replace(planned, table=replace(planned.table, columns=columns))
    with pytest.raises(extract.UnreadableError):
        extract.read_arrow(path, planned, planned.chunks[0])
