"""Ids: their sum, asked of the source and of the target in words that no lane has a part in.

Both lanes and the verification read a table by the same bounds and the same columns. A fault there
would not show in any comparison of rows; it would show here.
"""

import sqlite3

from psycopg2.extensions import cursor as Cursor  # noqa: N812
from psycopg2.sql import SQL, Identifier, Literal

from kgcore.errors import MismatchError
from kgcore.migration.model import Run
from kgcore.schema import quoted

# Ids are summed modulo the largest prime of 32 bits, by which no sum outgrows 64 bits.
_PRIME = 4_294_967_291


def sum_of_source(connection: sqlite3.Connection, table: str, key: str) -> int:
    """Return the sum of a table's ids; ``key`` is SQLite's expression for them."""
    (found,) = connection.execute(
        f"SELECT coalesce(sum({key} % {_PRIME}), 0) FROM {quoted(table)}"
    ).fetchone()
    return int(found)


def require_same(cursor: Cursor, run: Run) -> None:
    """Raise :class:`MismatchError` unless staging and the rejects have the ids of the source.

    Rows that are counted by their places have none; nothing is asked of them.
    """
    for name, planned in run.tables.items():
        if planned.id_sum is None:
            continue
        cursor.execute(
            _SUM_OF_TARGET.format(
                key=Identifier(planned.table.key.name),
                relation=Identifier(run.staging, name),
                run=Literal(run.run_id),
                table=Literal(name),
                prime=Literal(_PRIME),
            )
        )
        if cursor.fetchone() != (planned.id_sum,):
            raise MismatchError(
                f"the ids of {name} in {run.staging} are not those of the source",
                f"nothing was cut over; give the run up with kg cancel {run.run_id}",
            )


# Placeholders stand in no source, and rejects that a retry loaded stand in the table.
_SUM_OF_TARGET = SQL("""
SELECT coalesce(sum(sign * (id % {prime})), 0) FROM (
    SELECT {key}, 1 FROM {relation}
    UNION ALL
    SELECT row_id, 1 FROM kg_migration.rejects
    WHERE run_id = {run} AND table_name = {table} AND loaded_at IS NULL
    UNION ALL
    SELECT row_id, -1 FROM kg_migration.placeholders
    WHERE run_id = {run} AND table_name = {table}
) AS ids (id, sign)
""")
