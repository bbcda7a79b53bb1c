"""Chunks cover every id exactly once, in about equal shares."""

import json
import sqlite3
from dataclasses import replace
from itertools import pairwise

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from kgcore.errors import SourceError
from kgcore.migration.model import MIN_ID, Chunk, Options, Origin, PlannedTable, Stage
from kgcore.migration.pipeline import planned_steps, unlocked
from kgcore.migration.stages import plan as stage
from kgcore.migration.stages.plan import chunks, plan
from kgcore.model import ForeignKey
from kgcore.schema import TABLES, sqlite_ddl

KEYS = Origin("t", ("id",))


@settings(max_examples=300, deadline=None)
@given(st.sets(st.integers(-(2**63), 2**63 - 1) | st.integers(-20, 20)), st.integers(1, 12))
@example({2**63 - 1, -(2**63)}, 1)
def test_chunks_cover_all_ids_once(ids: set[int], chunk_rows: int) -> None:
    connection = sqlite3.connect(":memory:")
    connection.execute("CREATE TABLE t (id INTEGER PRIMARY KEY)")
    connection.executemany("INSERT INTO t VALUES (?)", [(row_id,) for row_id in ids])
    found = list(chunks(connection, KEYS, len(ids), chunk_rows))
    connection.close()
    assert sum(chunk.rows for chunk in found) == len(ids)
    for chunk in found:
        inside = [i for i in ids if chunk.lower <= i and (chunk.upper is None or i < chunk.upper)]
        assert len(inside) == chunk.rows <= chunk_rows
    if found:
        assert found[0].lower == MIN_ID
        assert found[-1].upper is None
        assert all(left.upper == right.lower for left, right in pairwise(found))
        assert max(c.rows for c in found) - min(c.rows for c in found) <= 1


def test_an_empty_range_is_no_chunk() -> None:
    with pytest.raises(ValueError, match="empty chunk"):
        Chunk("t", 5, 5, 1)


def graph(more: str = "") -> sqlite3.Connection:
    connection = sqlite3.connect(":memory:")
    for statement in sqlite_ddl():
        connection.execute(statement)
    connection.executescript(more)
    return connection


@settings(deadline=None)
@given(st.lists(st.sampled_from((0, 1, 40, 200)), min_size=1, max_size=60))
def test_no_chunk_weighs_too_much_unless_it_is_one_row(sizes: list[int]) -> None:
    connection = graph()
    connection.executemany(
        "INSERT INTO file_snapshots (file_path, metadata) VALUES ('é', ?)",
        [("x" * size,) for size in sizes],
    )
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(stage, "CHUNK_BYTES", 150)
        planned = {item.table.name: item for item in plan(connection, Options(chunk_rows=9)).tables}
    found = planned["file_snapshots"].chunks
    assert sum(chunk.rows for chunk in found) == len(sizes)
    assert [chunk.upper for chunk in found[:-1]] == [chunk.lower for chunk in found[1:]]
    for chunk in found:
        weights = [
            size + 2  # of the path
            for row_id, size in enumerate(sizes, 1)
            if row_id >= chunk.lower and (chunk.upper is None or row_id < chunk.upper)
        ]
        assert len(weights) == chunk.rows
        assert sum(weights) <= 150 or chunk.rows == 1


@pytest.mark.parametrize(
    ("more", "message"),
    [
        ("DROP TABLE relationships", "no table relationships"),
        ("ALTER TABLE entities RENAME COLUMN type TO kind", "no column"),
        ("ALTER TABLE mission_history DROP COLUMN cost_usd", "no column cost_usd"),
        (
            "ALTER TABLE file_snapshots RENAME TO f; CREATE VIEW file_snapshots AS SELECT * FROM f",
            "is a view",
        ),
        (
            "DROP TABLE file_snapshots; CREATE VIRTUAL TABLE file_snapshots USING fts5(file_path)",
            "is a virtual table",
        ),
        (f"CREATE TABLE {'long' * 16} (id INTEGER PRIMARY KEY)", "63 bytes"),
        (f"ALTER TABLE entities ADD COLUMN {'é' * 32} TEXT", "63 bytes"),
    ],
)
def test_what_is_no_graph_is_refused_by_name(more: str, message: str) -> None:
    with pytest.raises(SourceError, match=message):
        plan(graph(more), Options())


def test_the_order_of_the_stages() -> None:
    connection = graph(
        "INSERT INTO entities (type, name) VALUES ('a', 'b');"
        "INSERT INTO relationships (from_id, to_id, type) VALUES (1, 1, 't')"
    )
    tables = {item.table.name: item for item in plan(connection, Options()).tables}
    left: dict[tuple[Stage, str], int] = {}
    for step in planned_steps(tuple(tables.values())):
        left[step.stage, step.table] = left.get((step.stage, step.table), 0) + 1
    assert set(tables) == {table.name for table in TABLES}
    order = []
    while any(left.values()):
        free = unlocked(tables, left)
        group = next(group for group in sorted(left) if left[group] and group in free)
        left[group] = 0
        order.append(group)
    position = {group: number for number, group in enumerate(order)}
    for table in tables:
        assert position[Stage.KEY, table] > position[Stage.INDEX, table]
        if (Stage.LOAD, table) in position:
            assert position[Stage.INDEX, table] > position[Stage.LOAD, table]
            assert position[Stage.VERIFY, table] > position[Stage.INDEX, table]
    assert position[Stage.KEY, "relationships"] > position[Stage.INDEX, "entities"]
    assert position[Stage.VERIFY, "relationships"] > position[Stage.KEY, "relationships"]
    assert order[-1] == (Stage.CUTOVER, "")


def test_a_description_is_read_as_it_was_written_also_by_an_earlier_version() -> None:
    connection = graph("CREATE TABLE loose (x TEXT PRIMARY KEY CHECK (x <> ''), y) WITHOUT ROWID")
    for item in plan(connection, Options()).tables:
        stored = json.loads(json.dumps(item.to_json()))
        assert PlannedTable.from_json(stored) == replace(item, chunks=())
    earlier = {
        "table": {
            "name": "relationships",
            "columns": [{"name": "id", "kind": "key", "nullable": False}],
            "indexes": [{"name": "i", "columns": ["id"], "unique": False, "gin": False}],
            "foreign_keys": [{"name": "k", "column": "from_id", "table": "entities"}],
        },
        "rows": 3,
        "last_key": 4,
        "absent": [],
    }
    read = PlannedTable.from_json(earlier)
    assert read.table.foreign_keys == (ForeignKey("k", ("from_id",), "entities"),)
    assert (read.rows, read.last_key, read.source.table) == (3, 4, "relationships")


def test_a_table_may_have_as_many_columns_as_postgres_takes() -> None:
    columns = ", ".join(f"c{number} TEXT" for number in range(1_500))
    connection = graph(f"CREATE TABLE wide (id INTEGER PRIMARY KEY, {columns})")
    connection.execute("INSERT INTO wide (c7) VALUES ('x')")
    (planned,) = plan(connection, Options(only=("wide",))).tables
    assert planned.rows == 1


def test_places_of_integer_keys_in_utf_16() -> None:
    connection = sqlite3.connect(":memory:")
    connection.executescript(
        "PRAGMA encoding = 'UTF-16le';"
        "CREATE TABLE t (k INTEGER, n TEXT, PRIMARY KEY (k, n)) WITHOUT ROWID;"
        "INSERT INTO t VALUES (-5, 'a'), (7, 'b'), (70, 'é'), (800, 'd'), (9000, 'e')"
    )
    (planned,) = plan(connection, Options(only=("t",), chunk_rows=2)).tables
    assert [(place, key.partition(",")[0]) for place, key in planned.source.seeks] == [
        (2, "70"),
        (4, "9000"),
    ]
