"""One description; both databases make the same tables of it."""

import sqlite3
from itertools import permutations
from pathlib import Path

import pyarrow as pa

from kgcore.backends import PostgreSQLBackend
from kgcore.model import Kind
from kgcore.schema import TABLES, quoted, sqlite_ddl
from kgcore.schema.arrow import arrow_schema
from kgcore.schema.postgres import all_indexes, postgres_ddl
from tests.migration.comparer import COLUMNS
from tests.servers import Database


def test_the_four_tables_have_the_columns_of_a_real_graph(real_graph: Path) -> None:
    with sqlite3.connect(f"file:{real_graph}?mode=ro&immutable=1", uri=True) as connection:
        for table in TABLES:
            info = connection.execute(f"PRAGMA table_info({quoted(table.name)})").fetchall()
            assert tuple(row[1] for row in info) == table.column_names
    connection.close()


def test_both_databases_have_the_same_columns(postgres: Database) -> None:
    with PostgreSQLBackend(**postgres.parameters) as backend:
        backend.init_schema()
        backend.init_schema()
    connection = sqlite3.connect(":memory:")
    for statement in [*sqlite_ddl(), *sqlite_ddl()]:
        connection.execute(statement)
    for name, columns in COLUMNS.items():
        left = [row[1] for row in connection.execute(f"PRAGMA table_info({name})")]
        right = postgres.rows(
            "SELECT column_name FROM information_schema.columns WHERE table_name = %s"
            " ORDER BY ordinal_position",
            (name,),
        )
        assert left == [column for (column,) in right] == columns.split()
    connection.close()


def test_types_and_indexes_on_postgresql(postgres: Database) -> None:
    with PostgreSQLBackend(**postgres.parameters) as backend:
        backend.init_schema()
    types = dict(
        postgres.rows(
            "SELECT table_name || '.' || column_name, data_type FROM information_schema.columns"
            " WHERE table_schema = 'public'"
        )
    )
    assert types["entities.id"] == "bigint"
    assert types["entities.metadata"] == "jsonb"
    assert types["entities.created_at"] == "timestamp with time zone"
    assert types["mission_history.cost_usd"] == "double precision"
    indexes = {
        definition.split(" USING ")[1]
        for (definition,) in postgres.rows("SELECT indexdef FROM pg_indexes")
        if "public." in definition
    }
    assert {
        "btree (from_id, type)",
        "btree (to_id, type)",
        "gin (metadata)",
        "btree (type, name)",
        "btree (mission_id)",
    } <= indexes
    keys = postgres.rows(
        "SELECT pg_get_constraintdef(oid) FROM pg_constraint WHERE contype = 'f' ORDER BY 1"
    )
    assert keys == [
        (f"FOREIGN KEY ({column}) REFERENCES entities(id) ON DELETE CASCADE",)
        for column in ("from_id", "to_id")
    ]


def test_no_index_is_a_prefix_of_another() -> None:
    for table in TABLES:
        indexes = [i for i in all_indexes(table) if not i.gin]
        for left, right in permutations(indexes, 2):
            assert left.columns != right.columns[: len(left.columns)], (left.name, right.name)


def test_every_kind_has_a_type_everywhere() -> None:
    kinds = {column.kind for table in TABLES for column in table.columns}
    assert kinds <= set(Kind)
    assert len(postgres_ddl("public")) == sum(
        1 + sum(not index.unique for index in table.indexes) for table in TABLES
    )
    assert arrow_schema(TABLES[0]).field("created_at").type == pa.timestamp("us", "UTC")
