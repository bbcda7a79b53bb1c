"""The two lanes: neither lets anything through that the other, or the server, sees differently."""

import json
import sqlite3
from contextlib import closing
from datetime import UTC, datetime
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from psycopg2.sql import SQL, Composed, Identifier

from kgcore.backends import PostgreSQLBackend
from kgcore.migration import lanes, ledger
from kgcore.migration.model import Chunk, InvalidText, PlannedTable
from kgcore.migration.repairs import Repairs
from kgcore.migration.stages import extract
from kgcore.model import Kind, Table
from kgcore.schema import ENTITIES, TABLES
from kgcore.schema import postgres as ddl
from tests.migration.comparer import differences
from tests.migration.conftest import Migrate
from tests.migration.graphs import entity, mission, write_graph
from tests.servers import Database

digits = st.integers(0, 99).map(lambda number: f"{number:02d}")
zones = st.sampled_from(["", "Z", "z", "+02", "-0330", "+05:45", "+24:00", "+15:59", " Z"])
stamps = st.builds(
    lambda *parts: "".join(parts),
    st.sampled_from(["2009", "0000", "0001", "9999", "10000", "-001", "1582", "1969"]),
    st.sampled_from(["-", "", "/"]),
    digits,
    st.sampled_from(["-", "", "/"]),
    digits,
    st.sampled_from(["T", " ", "t", "", "  "]),
    st.sampled_from(["", "11", "24", "1", "23"]),
    st.sampled_from(["", ":30", "30", ":60", ":5"]),
    st.sampled_from(["", ":59", "59", ":60", ":5"]),
    st.sampled_from(["", ".1", ".123456", ".1234567", ".123456000", ".", ",5"]),
    zones,
)
plain_text = st.text(st.characters(exclude_characters="\0", exclude_categories=["Cs"]), max_size=40)
moments = st.datetimes(timezones=st.just(UTC)).map(lambda at: at.isoformat().replace("+00:00", "Z"))
json_texts = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats(allow_nan=False, allow_infinity=False)
    | plain_text,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(plain_text, inner, max_size=3),
    max_leaves=6,
).map(lambda value: json.dumps(value, ensure_ascii=False))


@settings(
    max_examples=25,
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)
@given(
    st.lists(
        st.tuples(plain_text, st.none() | json_texts, moments, moments),
        max_size=30,
        unique_by=lambda row: row[0],
    ),
    st.lists(
        st.tuples(
            st.none() | st.floats(allow_nan=False), st.none() | st.integers(-(2**63), 2**63 - 1)
        ),
        max_size=30,
    ),
)
def test_good_values_of_every_kind_arrive_unchanged(
    migrate: Migrate, postgres: Database, tmp_path: Path, entities: list[Any], missions: list[Any]
) -> None:
    path = tmp_path / "graph.db"
    path.unlink(missing_ok=True)
    write_graph(
        path,
        entities=[
            (number, "t", name, metadata, created, updated)
            for number, (name, metadata, created, updated) in enumerate(entities, 1)
        ],
        missions=[
            (number, f"m{number}", "s", None, cost, iterations, cost, None, None, "2020-01-01")
            for number, (cost, iterations) in enumerate(missions, 1)
        ],
    )
    report = migrate(path, if_exists="replace", chunk_rows=7)
    assert report.is_done, report.errors
    assert differences(path, postgres.connect()) == []


def is_no_utf8(raw: bytes) -> bool:
    try:
        raw.decode()
    except UnicodeDecodeError:
        return True
    return False


any_value = (
    st.none()
    | st.integers(-(2**63), 2**63 - 1)
    | st.floats(allow_nan=False)
    | st.binary(max_size=9)
    | st.binary(max_size=9).filter(is_no_utf8).map(InvalidText)
    | st.text(st.characters(exclude_categories=["Cs"]), max_size=9)
    | json_texts
    | moments
    | stamps
    | st.sampled_from(["1.5", "7", "{}", "\\N", "\\.", "NaN", '"\\u0000"', "[" * 9])
)


RIGHT = object()
# Rows of nothing but surprises would all be refused: most values are what belongs there.
cells = st.sampled_from([RIGHT] * 6 + [None]).flatmap(
    lambda choice: st.just(RIGHT) if choice is RIGHT else any_value
)
_RIGHT: dict[Kind, Any] = {
    Kind.INTEGER: 1,
    Kind.REAL: -0.0,
    Kind.JSON: '{"a": [1.50, null], "a": "\\u00e4\\n"}',
    Kind.TIMESTAMP: "2026-01-02T03:04:05.678901+02:00",
}


def written(table: Table, row_id: int, cells: tuple[Any, ...]) -> tuple[Any, ...]:
    """The row of a table that these cells stand for."""
    named = zip(table.columns[1:], cells, strict=False)
    return (
        row_id,
        *(
            _RIGHT.get(column.kind, f"\t{column.name}\\ {row_id}") if cell is RIGHT else cell
            for column, cell in named
        ),
    )


def write_anything(path: Path, rows: list[tuple[Any, ...]]) -> Path:
    """Fill the four tables with these values; no column has a type, so SQLite converts nothing."""
    path.unlink(missing_ok=True)
    with closing(sqlite3.connect(path)) as sqlite:
        for table in TABLES:
            columns = table.column_names[1:]
            sqlite.execute(
                f"CREATE TABLE {table.name} (id INTEGER PRIMARY KEY, {', '.join(columns)})"
            )
            for row_id, cells in enumerate(rows, 1):
                row = written(table, row_id, cells)[1:]
                # What is not UTF-8 comes into a TEXT value by a cast alone.
                marks = ["CAST(? AS TEXT)" if isinstance(v, InvalidText) else "?" for v in row]
                sqlite.execute(
                    f"INSERT INTO {table.name} ({', '.join(columns)}) VALUES ({', '.join(marks)})",
                    row,
                )
        sqlite.commit()
    return path


def expected(kind: Kind, value: Any) -> Any:
    """What a stored value must be, told from the source's value without the pipeline's code."""
    if value is None:
        return None
    match kind:
        case Kind.KEY | Kind.INTEGER:
            return int(value)
        case Kind.REAL:
            return float(value).hex()
        case Kind.JSON:
            return json.loads(str(value), parse_float=Decimal)
        case Kind.TIMESTAMP:
            moment = datetime.fromisoformat(value)
            return moment if moment.tzinfo else moment.replace(tzinfo=UTC)
    return str(value)


def found_as(kind: Kind, value: Any) -> Any:
    """A value of PostgreSQL in the same form."""
    if value is None:
        return None
    match kind:
        case Kind.REAL:
            return value.hex()
        case Kind.JSON:
            return json.loads(value, parse_float=Decimal)
    return value


def selected(table: Table, relation: Identifier) -> Composed:
    columns = SQL(", ").join(
        SQL("{}::text").format(Identifier(c.name)) if c.kind is Kind.JSON else Identifier(c.name)
        for c in table.columns
    )
    return SQL("SELECT {} FROM {} ORDER BY 1").format(columns, relation)


ANY_ROWS = st.lists(st.tuples(*[cells] * 9), min_size=1, max_size=25)


@settings(
    max_examples=8,
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)
@given(rows=ANY_ROWS, repairs=st.sampled_from([(), ("all",)]))
def test_source_is_loaded_plus_rejected_whatever_is_in_it(
    migrate: Migrate,
    postgres: Database,
    tmp_path: Path,
    rows: list[tuple[Any, ...]],
    repairs: tuple[str, ...],
) -> None:
    """To the row and to the byte: each row is live and equal, or a reject with its own bytes."""
    path = write_anything(tmp_path / "any.db", rows)
    report = migrate(path, if_exists="replace", chunk_rows=9, max_rejects=10**6, repairs=repairs)
    assert report.is_done, report.errors
    for counts in report.tables.values():
        assert counts.source_rows == counts.loaded_rows + counts.rejected_rows == len(rows)
        assert counts.verified_rows == counts.loaded_rows
    kept = {
        (table, row_id): bytes_
        for table, row_id, bytes_ in postgres.rows(
            "SELECT table_name, row_id, bytes FROM kg_migration.rejects WHERE run_id = %s",
            (report.run.run_id,),
        )
    }
    for table in TABLES:
        live = {
            row[0]: row for row in postgres.rows(selected(table, Identifier("public", table.name)))
        }
        for row_id, cells in enumerate(rows, 1):
            row = written(table, row_id, cells)
            if (table.name, row_id) in kept:
                assert row_id not in live or live[row_id][1] == "placeholder"
                for raw, value in zip(kept[table.name, row_id], row, strict=True):
                    assert (raw and bytes(raw)) == original(value)
            elif not repairs:  # What repairs change is in their own tests.
                for column, stored, value in zip(table.columns, live[row_id], row, strict=True):
                    assert found_as(column.kind, stored) == expected(column.kind, value), column


def original(value: Any) -> bytes | None:
    """A value's bytes as rejects keep them."""
    if value is None:
        return None
    if isinstance(value, int | float):
        return repr(value).encode()
    return value.encode() if isinstance(value, str) else bytes(value)


@pytest.mark.parametrize("column", ["name", "metadata"])
def test_a_real_among_text_is_for_the_careful_lane(
    migrate: Migrate, postgres: Database, tmp_path: Path, column: str
) -> None:
    """In a column without a type; ADBC would make text of it in a form of its own."""
    path = write_graph(tmp_path / "graph.db", entities=[entity(1), entity(2), entity(3)])
    with closing(sqlite3.connect(path)) as sqlite:
        rows = sqlite.execute("SELECT * FROM entities").fetchall()
        sqlite.executescript(
            "DROP TABLE entities; CREATE TABLE entities (id INTEGER PRIMARY KEY, type, name,"
            " metadata, created_at, updated_at)"
        )
        sqlite.executemany("INSERT INTO entities VALUES (?, ?, ?, ?, ?, ?)", rows)
        sqlite.execute(f"UPDATE entities SET {column} = 2.5 WHERE id = 2")
        sqlite.commit()
    report = migrate(path, max_rejects=1)
    assert report.is_done, report.errors
    assert postgres.rows("SELECT row_id, column_name, sqlstate FROM kg_migration.rejects") == [
        (2, column, "42804")
    ]


def test_the_fast_lane_takes_what_is_right(backend: PostgreSQLBackend, tmp_path: Path) -> None:
    """Otherwise the comparison above would compare nothing."""
    path = write_graph(tmp_path / "graph.db", entities=[entity(1), entity(2)])
    planned, chunk = PlannedTable(ENTITIES, 2, 2), Chunk("entities", 1, None, 2)
    with ledger.transaction(backend.pool) as cursor:
        cursor.execute(ddl.create_table("public", ENTITIES))
        relation = Identifier("public", "entities")
        assert lanes.fast(cursor, relation, path, planned, chunk) == lanes.Loaded(2, "fast")
        assert lanes.careful(cursor, relation, path, planned, chunk, Repairs()).rows == 2


def test_a_chunk_of_many_pieces_is_stored_and_verified_whole(
    migrate: Migrate, postgres: Database, tmp_path: Path
) -> None:
    """The fast lane encodes 5,000 rows at a time, the server is asked about as many words."""
    rows = [
        entity(number, metadata=f'{{"b": {number}, "aa": null}}') for number in range(1, 10_002)
    ]
    path = write_graph(tmp_path / "graph.db", entities=rows)
    report = migrate(path, chunk_rows=50_000)
    assert report.is_done, report.errors
    assert postgres.rows(
        "SELECT stage, lane, verified_rows FROM kg_migration.steps"
        " WHERE table_name = 'entities' AND stage IN ('load', 'verify') ORDER BY stage"
    ) == [("load", "fast", 0), ("verify", None, 10_001)]
    assert differences(path, postgres.connect()) == []


def test_a_chunk_with_a_bad_row_takes_the_careful_lane_alone(
    migrate: Migrate, postgres: Database, tmp_path: Path
) -> None:
    rows = [entity(number) for number in range(1, 301)]
    rows[120] = entity(121, metadata="{")
    report = migrate(
        write_graph(tmp_path / "graph.db", entities=rows, missions=[mission(1)]),
        chunk_rows=50,
        max_rejects=1,
    )
    assert report.is_done
    lanes = postgres.rows(
        "SELECT lane, count(*) FROM kg_migration.steps WHERE stage = 'load' GROUP BY 1 ORDER BY 1"
    )
    assert lanes == [("careful", 1), ("fast", 6)]


@pytest.mark.parametrize("most", [2, 3])
def test_rejects_are_verified_to_be_missing_however_many_they_are(
    migrate: Migrate, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, most: int
) -> None:
    """Few are left out of the chunk's words by their ids; more, and rows are compared."""
    compared: list[bool] = []
    read_again = lanes.read_again

    def noted(*arguments: Any) -> tuple[int, ...]:
        compared.append(True)
        return read_again(*arguments)

    monkeypatch.setattr("kgcore.migration.work._MOST_REJECTED", most)
    monkeypatch.setattr(lanes, "read_again", noted)
    rows = [entity(number, metadata="{" if number < 4 else "{}") for number in range(1, 10)]
    report = migrate(write_graph(tmp_path / "graph.db", entities=rows), max_rejects=3)
    assert report.is_done
    assert report.totals["verified_rows"] == 6
    assert compared == [True] * (most < 3)


def test_deep_json_is_left_to_the_server(
    migrate: Migrate, postgres: Database, tmp_path: Path
) -> None:
    rows = [entity(number) for number in range(1, 60)]
    rows[10] = entity(11, metadata="[" * 2_000 + "]" * 2_000)
    rows[20] = entity(21, metadata="[" * 100_000 + "]" * 100_000)
    report = migrate(write_graph(tmp_path / "graph.db", entities=rows), max_rejects=1)
    assert report.is_done, report.errors
    assert report.tables["entities"].rejected_rows == 1
    assert postgres.rows("SELECT row_id, column_name, sqlstate FROM kg_migration.rejects") == [
        (21, "metadata", "54001")
    ]


def test_rows_are_read_in_batches_and_undecodable_text_is_marked(tmp_path: Path) -> None:
    path = write_graph(
        tmp_path / "graph.db",
        entities=[entity(number) for number in range(-10, extract.BATCH_ROWS + 10)],
        more="UPDATE entities SET name = CAST(x'ff41' AS TEXT) WHERE id = 5",
    )
    planned = PlannedTable(ENTITIES, 0, 0)
    chunk = Chunk("entities", -(2**63), None, 0)
    batches = list(extract.read_rows(path, planned, chunk))
    assert [len(batch) for batch in batches] == [extract.BATCH_ROWS, 20]
    ids = [row[0] for batch in batches for row in batch]
    assert ids == list(range(-10, extract.BATCH_ROWS + 10))
    assert batches[0][15][2] == InvalidText(b"\xffA")
    (raw,) = extract.read_raw(path, planned, [5])
    assert raw.values[2] == b"\xffA"
    assert raw.storage == ("integer", "text", "text", "text", "text", "text")
