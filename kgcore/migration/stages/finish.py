"""Finish: indexes, keys, constraints, sequences and statistics of a loaded table.

Indexes are built one a step, several of a table at once (CREATE INDEX locks don't exclude each
other; ALTER TABLE … ADD PRIMARY KEY would). The key step then attaches them in no time.

A row that breaks a constraint is found by the constraint itself, once: its build fails, the rows
at fault are named by a query, set aside by the caller, and the build is tried again.
"""

from collections.abc import Callable, Sequence

from psycopg2 import errors
from psycopg2.extensions import cursor as Cursor  # noqa: N812
from psycopg2.sql import SQL, Identifier, Literal

from kgcore.migration.model import PlannedTable, Refusal
from kgcore.model import ForeignKey, Index, Table
from kgcore.schema import postgres as ddl

#: Takes the rows out of the run's way: records them as rejects. The stage deletes them itself.
SetAside = Callable[[Sequence[Refusal]], None]

# With PostgreSQL's default of 64 MB sorts of a million rows spill: 8 % more time. More is left.
_BUILD_MEMORY = (
    "SELECT set_config('maintenance_work_mem', greatest(262144,"
    " pg_size_bytes(current_setting('maintenance_work_mem')) / 1024) || 'kB', true)"
)


def create_staging(cursor: Cursor, schema: str, tables: Sequence[Table]) -> None:
    """Create the schema and its bare tables. They are logged: unlogged rows die in a crash.

    Until the cutover autovacuum leaves them alone: it would hold locks that index builds wait for.
    """
    cursor.execute(SQL("CREATE SCHEMA {}").format(Identifier(schema)))
    for table in tables:
        cursor.execute(ddl.create_table(schema, table) + SQL(" WITH (autovacuum_enabled = off)"))


def drop_staging(cursor: Cursor, schema: str) -> None:
    """Drop the schema with all that is in it, if it is there."""
    cursor.execute(SQL("DROP SCHEMA IF EXISTS {} CASCADE").format(Identifier(schema)))


def indexes(table: Table) -> tuple[Index, ...]:
    """Return all indexes of a table, the primary key's first."""
    return (ddl.primary_key(table), *table.indexes)


def build_index(cursor: Cursor, schema: str, table: Table, name: str, aside: SetAside) -> int:
    """Build one index; return how many rows were set aside.

    For a unique one those are all but the first of the rows with equal values.
    """
    index = next(index for index in indexes(table) if index.name == name)
    cursor.execute(_BUILD_MEMORY)
    statement = ddl.create_index(schema, table, index)
    cursor.execute("SAVEPOINT kg_index")
    try:
        cursor.execute(statement)
    except errors.UniqueViolation:
        cursor.execute("ROLLBACK TO SAVEPOINT kg_index")
        removed = _remove(cursor, schema, table, _duplicates(cursor, schema, table, index), aside)
        cursor.execute(statement)
        return removed
    return 0


def add_keys(cursor: Cursor, schema: str, planned: PlannedTable, aside: SetAside) -> int:
    """Attach keys, add and validate foreign keys, set the sequence, gather statistics.

    Rows that refer to a row that does not exist are set aside; returns how many.
    """
    table = planned.table
    unique = [index for index in indexes(table) if index.unique]
    for index in unique:
        cursor.execute(ddl.attach_constraint(schema, table, index))
    removed = sum(_add_foreign_key(cursor, schema, table, key, aside) for key in table.foreign_keys)
    _set_sequence(cursor, schema, planned)
    cursor.execute(SQL("ANALYZE {}").format(Identifier(schema, table.name)))
    return removed


def _add_foreign_key(
    cursor: Cursor, schema: str, table: Table, key: ForeignKey, aside: SetAside
) -> int:
    cursor.execute(ddl.add_foreign_key(schema, table, key))
    cursor.execute("SAVEPOINT kg_key")
    try:
        cursor.execute(ddl.validate_foreign_key(schema, table, key))
    except errors.ForeignKeyViolation:
        cursor.execute("ROLLBACK TO SAVEPOINT kg_key")
        removed = _remove(cursor, schema, table, _orphans(cursor, schema, table, key), aside)
        # DELETE leaves trigger events behind, and a table with those can't be altered.
        cursor.execute("SET CONSTRAINTS ALL IMMEDIATE")
        cursor.execute(ddl.validate_foreign_key(schema, table, key))
        return removed
    return 0


def _duplicates(cursor: Cursor, schema: str, table: Table, index: Index) -> list[Refusal]:
    columns = SQL(", ").join(map(Identifier, index.columns))
    cursor.execute(
        SQL(
            "SELECT id, first FROM (SELECT {key} AS id, first_value({key}) OVER same AS first"
            " FROM {table} WINDOW same AS (PARTITION BY {columns} ORDER BY {key})) AS ranked"
            " WHERE id <> first ORDER BY id"
        ).format(
            key=Identifier(table.key.name),
            table=Identifier(schema, table.name),
            columns=columns,
        )
    )
    named = ", ".join(index.columns)
    column = index.columns[0] if len(index.columns) == 1 else None
    return [
        Refusal(row_id, column, f"the same ({named}) as the row with id {first}", "23505")
        for row_id, first in cursor.fetchall()
    ]


def _orphans(cursor: Cursor, schema: str, table: Table, key: ForeignKey) -> list[Refusal]:
    cursor.execute(
        SQL(
            "SELECT child.{key}, child.{column} FROM {table} AS child"
            " WHERE child.{column} IS NOT NULL AND NOT EXISTS"
            " (SELECT 1 FROM {parent} AS parent WHERE parent.id = child.{column}) ORDER BY 1"
        ).format(
            key=Identifier(table.key.name),
            column=Identifier(key.column),
            table=Identifier(schema, table.name),
            parent=Identifier(schema, key.table),
        )
    )
    return [
        Refusal(row_id, key.column, f"no row with id {parent} in {key.table}", "23503")
        for row_id, parent in cursor.fetchall()
    ]


def _remove(
    cursor: Cursor, schema: str, table: Table, refusals: Sequence[Refusal], aside: SetAside
) -> int:
    aside(refusals)
    cursor.execute(
        SQL("DELETE FROM {} WHERE {} = ANY(%s)").format(
            Identifier(schema, table.name), Identifier(table.key.name)
        ),
        ([refusal.row_id for refusal in refusals],),
    )
    return cursor.rowcount


def _set_sequence(cursor: Cursor, schema: str, planned: PlannedTable) -> None:
    """Let the next insert get an id the source never gave out, rejected rows' ids included."""
    table = planned.table
    cursor.execute(
        SQL("SELECT setval(pg_get_serial_sequence({}, {}), greatest(%s, 1), %s)").format(
            Literal(SQL("{}").format(Identifier(schema, table.name)).as_string(cursor)),
            Literal(table.key.name),
        ),
        (planned.last_key, planned.last_key > 0),
    )
