"""Verify: a chunk, read again from the source by the careful lane, is compared in PostgreSQL.

First the quick way: the source's own values go to a TEMP table, and PostgreSQL counts the rows that
are equal. Only "all of them" is believed. Otherwise the chunk's rows, each value checked, go to a
TEMP table of staging's own types, which is joined with staging on the key, and the rows that are
distinct are counted and named. Both compare stored bytes: -0.0 is not 0.0, and 1.0 in JSON is not
1.00.
"""

from collections.abc import Callable
from dataclasses import dataclass

import psycopg2
from psycopg2.extensions import cursor as Cursor  # noqa: N812
from psycopg2.sql import SQL, Composable, Composed, Identifier, Literal

from kgcore.migration.model import Chunk
from kgcore.model import INTEGERS, Column, Kind, Table
from kgcore.schema.postgres import TYPES

#: The TEMP table of the chunk under comparison, of the types of its table.
SOURCE_ROWS = Identifier("kg_source_rows")
#: The TEMP table of the quick way, of the types in which the values are sent.
SOURCE_VALUES = Identifier("kg_source_values")

# How many ids of rows that differ are kept: enough to see what is wrong.
_EXAMPLES = 20


@dataclass(frozen=True, slots=True)
class Verified:
    """Rows equal in source and staging; rows that are not, and the first of their ids."""

    equal: int
    mismatched: int
    examples: tuple[int, ...]


def settle(cursor: Cursor) -> None:
    """Set what both comparisons need, until the transaction ends."""
    # A chunk is compared once: planning it for parallel workers or compiling it costs more.
    # Both sides come in the key's order, so a merge join takes 0.8 of a hash join's time.
    # Timestamps without a zone mean UTC.
    cursor.execute(
        "SET LOCAL jit = off; SET LOCAL max_parallel_workers_per_gather = 0;"
        "SET LOCAL enable_nestloop = off; SET LOCAL enable_hashjoin = off;"
        "SET LOCAL work_mem = '64MB'; SET LOCAL TimeZone = 'UTC'"
    )


def create_source_values(cursor: Cursor, table: Table, sent_as: Callable[[Column], Kind]) -> None:
    """Create the TEMP table of the quick way; it goes with the transaction."""
    columns = (
        SQL("{} {}").format(Identifier(column.name), SQL(TYPES[sent_as(column)]))
        for column in table.columns
    )
    cursor.execute(
        SQL("CREATE TEMP TABLE {} ({}) ON COMMIT DROP").format(
            SOURCE_VALUES, SQL(", ").join(columns)
        )
    )


def count_equal(cursor: Cursor, staging: str, table: Table, chunk: Chunk) -> tuple[int, int] | None:
    """Return how many of the chunk's rows in staging equal their source, and how many there are.

    None where the server can't read a value that was sent: then the transaction must go back to
    before.
    """
    query = _EQUAL.format(**_names(staging, table, chunk), same=SQL(" AND ").join(_same(table)))
    try:
        cursor.execute(query)
    except psycopg2.DataError:
        return None
    equal, staged = cursor.fetchone() or (0, 0)
    return equal, staged


def all_accounted(cursor: Cursor, staging: str, table: Table, chunk: Chunk, run_id: str) -> bool:
    """Whether each row that was sent is in staging or among the rejects of the run."""
    names = _names(staging, table, chunk)
    cursor.execute(_UNACCOUNTED.format(**names, run=Literal(run_id), table=Literal(table.name)))
    return cursor.fetchone() is None


def create_source_rows(cursor: Cursor, staging: str, table: Table) -> None:
    """Create the TEMP table of whole rows; it goes with the transaction."""
    cursor.execute(
        SQL("CREATE TEMP TABLE {} (LIKE {}) ON COMMIT DROP").format(
            SOURCE_ROWS, Identifier(staging, table.name)
        )
    )


def compare(
    cursor: Cursor, staging: str, table: Table, chunk: Chunk, rejected_in: tuple[str, list[int]]
) -> Verified:
    """Compare the TEMP table with the chunk's rows in staging.

    ``rejected_in`` is the run and the ids the careful lane refused just now: a row that is in
    neither table is in order only if the ledger has it as a reject, and a refused one must be
    there too.
    """
    run_id, refused = rejected_in
    # No parameters: a name may hold what psycopg2 would take for a placeholder. Whole rows are made
    # of columns: a name of a table alone may be that of a column.
    source, staged = (
        SQL(", ").join(Identifier(side, name) for name in table.column_names)
        for side in ("source", "staged")
    )
    pairs = _PAIRS.format(
        source=SOURCE_ROWS,
        staged=_staged(staging, table, chunk),
        key=Identifier(table.key.name),
        source_row=source,
        staged_row=staged,
    )
    cursor.execute(SQL("SELECT count(*) FILTER (WHERE same), count(*) {}").format(pairs))
    equal, number = cursor.fetchone() or (0, 0)
    if equal == number and not refused:
        return Verified(equal, 0, ())
    cursor.execute(
        _FAULTS.format(
            pairs=pairs,
            run=Literal(run_id),
            table=Literal(table.name),
            refused=Literal(refused),
            examples=Literal(_EXAMPLES),
        )
    )
    mismatched, examples = cursor.fetchone() or (0, [])
    return Verified(equal, mismatched, tuple(examples or ()))


def _names(staging: str, table: Table, chunk: Chunk) -> dict[str, Composable]:
    return {
        "source": SOURCE_VALUES,
        "staged": _staged(staging, table, chunk),
        "key": Identifier(table.key.name),
    }


def _staged(staging: str, table: Table, chunk: Chunk) -> Composed:
    return _STAGED.format(
        staging=Identifier(staging, table.name),
        key=Identifier(table.key.name),
        lower=Literal(chunk.lower),
        upper=Literal(chunk.upper),
    )


def _same(table: Table) -> list[Composed]:
    """Return conditions that together are true where all values of two rows have equal bytes."""
    plain = [column for column in table.columns[1:] if column.kind not in _BY_IMAGE]
    imaged = [column for column in table.columns[1:] if column.kind in _BY_IMAGE]
    conditions = [
        SQL("{} IS NOT DISTINCT FROM {}").format(_value("source", column), _value("staged", column))
        for column in plain
    ]
    if imaged:
        source, staged = (
            SQL(", ").join(_value(side, column) for column in imaged)
            for side in ("source", "staged")
        )
        conditions.append(SQL("record_image_eq(ROW({}), ROW({}))").format(source, staged))
    return conditions or [SQL("true").format()]


def _value(side: str, column: Column) -> Composed:
    """Return a value with its column's type; text is compared by its bytes."""
    form = _FORMS.get(
        column.kind, "{}" if column.kind in INTEGERS else f"{{}}::{TYPES[column.kind]}"
    )
    return SQL(form).format(Identifier(side, column.name))


# Kinds of which values may be equal that are not the same.
_BY_IMAGE = frozenset({Kind.JSON, Kind.REAL, Kind.NUMERIC})
_FORMS = {Kind.TEXT: '{} COLLATE "C"'}

_STAGED = SQL("""(
    SELECT * FROM {staging}
    WHERE {key} >= {lower} AND ({upper}::bigint IS NULL OR {key} < {upper}::bigint)
)""")

# No two rows of the source have the same id: with as many equal ones as there are staged, none is
# staged twice.
_EQUAL = SQL("""
SELECT (
    SELECT count(*) FROM {source} AS source
    WHERE EXISTS (SELECT FROM {staged} AS staged WHERE staged.{key} = source.{key} AND {same})
), (
    SELECT count(*) FROM {staged} AS staged
)
""")

# A row that was sent, is not in staging, and is no reject.
_UNACCOUNTED = SQL("""
SELECT FROM {source} AS source
WHERE NOT EXISTS (SELECT FROM {staged} AS staged WHERE staged.{key} = source.{key})
AND NOT EXISTS (
    SELECT FROM kg_migration.rejects
    WHERE run_id = {run} AND table_name = {table} AND row_id = source.{key}
)
LIMIT 1
""")

# Each row of the chunk that is in either table, or in both.
_PAIRS = SQL("""
FROM (
    SELECT coalesce(source.{key}, staged.{key}) AS id,
           staged.{key} IS NOT NULL AS is_staged,
           source.{key} IS NOT NULL AND staged.{key} IS NOT NULL
               AND record_image_eq(ROW({source_row}), ROW({staged_row})) AS same
    FROM {source} AS source
    FULL JOIN {staged} AS staged ON staged.{key} = source.{key}
) AS pairs
""")

_FAULTS = SQL("""
WITH refused AS (
    SELECT unnest({refused}::bigint[]) AS id
), suspects AS (
    SELECT id, is_staged {pairs} WHERE NOT same
    UNION ALL
    SELECT id, false FROM refused
), faults AS (
    SELECT DISTINCT id FROM suspects
    WHERE is_staged OR NOT EXISTS (
        SELECT 1 FROM kg_migration.rejects
        WHERE run_id = {run} AND table_name = {table} AND row_id = suspects.id
    )
)
SELECT (SELECT count(*) FROM faults),
       (SELECT array_agg(id) FROM (SELECT id FROM faults ORDER BY id LIMIT {examples}) AS first)
""")
