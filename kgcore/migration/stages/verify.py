"""Verify: a chunk, read again from the source by the careful lane, is compared in PostgreSQL.

The rows go to a TEMP table of the same types; PostgreSQL joins it with staging on the key and
counts the rows that are distinct. ``*=`` compares the stored bytes of whole rows: -0.0 is not 0.0,
and 1.0 in JSON is not 1.00.
"""

from dataclasses import dataclass

from psycopg2.extensions import cursor as Cursor  # noqa: N812
from psycopg2.sql import SQL, Identifier, Literal

from kgcore.migration.model import Chunk
from kgcore.model import Table

#: The TEMP table of the chunk under comparison.
SOURCE_ROWS = Identifier("kg_source_rows")

# How many ids of rows that differ are kept: enough to see what is wrong.
_EXAMPLES = 20


@dataclass(frozen=True, slots=True)
class Verified:
    """Rows equal in source and staging; rows that are not, and the first of their ids."""

    equal: int
    mismatched: int
    examples: tuple[int, ...]


def create_source_rows(cursor: Cursor, staging: str, table: Table) -> None:
    """Create the TEMP table; it goes with the transaction."""
    # A chunk is compared once: planning it for parallel workers or compiling it costs more.
    # Timestamps without a zone mean UTC.
    cursor.execute(
        # Both sides come in the key's order, so a merge join takes 0.8 of a hash join's time.
        "SET LOCAL jit = off; SET LOCAL max_parallel_workers_per_gather = 0;"
        "SET LOCAL enable_nestloop = off; SET LOCAL enable_hashjoin = off;"
        "SET LOCAL work_mem = '64MB'; SET LOCAL TimeZone = 'UTC'"
    )
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
    # No parameters: a name may hold what psycopg2 would take for a placeholder.
    pairs = _PAIRS.format(
        source=SOURCE_ROWS,
        staging=Identifier(staging, table.name),
        key=Identifier(table.key.name),
        lower=Literal(chunk.lower),
        upper=Literal(chunk.upper),
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


# Each row of the chunk that is in either table, or in both.
_PAIRS = SQL("""
FROM (
    SELECT coalesce(source.{key}, staged.{key}) AS id,
           staged.{key} IS NOT NULL AS is_staged,
           source.{key} IS NOT NULL AND staged.{key} IS NOT NULL AND source *= staged AS same
    FROM {source} AS source
    FULL JOIN (
        SELECT * FROM {staging}
        WHERE {key} >= {lower} AND ({upper}::bigint IS NULL OR {key} < {upper}::bigint)
    ) AS staged ON staged.{key} = source.{key}
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
