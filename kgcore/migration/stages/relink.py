"""Relink: repairs that need other rows. Relationships of merged entities, and missing entities.

Done in SQL, on staging, on live tables at a retry, and on the rows verification reads again: those
come from the source each time, and what the ledger says of merges is held against them.
"""

from collections.abc import Sequence
from dataclasses import dataclass

from psycopg2.extensions import cursor as Cursor  # noqa: N812
from psycopg2.sql import SQL, Composable, Composed, Identifier, Literal

from kgcore.migration.model import Chunk
from kgcore.migration.repairs import PLACEHOLDER_TYPE
from kgcore.model import ForeignKey, Index, Table


@dataclass(frozen=True, slots=True)
class Placed:
    """The ids of the rows that were made up, and of those that refer to them."""

    added: tuple[int, ...]
    saved: tuple[int, ...]


def repoint(
    cursor: Cursor, run_id: str, children: Identifier, table: Table, key: ForeignKey
) -> tuple[int, ...]:
    """Let children of merged rows refer to the rows that took their place; return their ids."""
    cursor.execute(
        SQL(
            "UPDATE {children} AS child SET {column} = merged.merged_into"
            " FROM kg_migration.rejects AS merged WHERE merged.run_id = {run}"
            " AND merged.table_name = {parent} AND merged.merged_into IS NOT NULL"
            " AND merged.row_id = child.{column} RETURNING child.{key}"
        ).format(
            children=children,
            column=Identifier(*key.columns),
            key=Identifier(table.key.name),
            run=Literal(run_id),
            parent=Literal(key.table),
        )
    )
    return tuple(sorted(row_id for (row_id,) in cursor.fetchall()))


def add_placeholders(
    cursor: Cursor,
    run_id: str,
    children: Identifier,
    table: Table,
    key: ForeignKey,
    parents: Identifier,
) -> Placed:
    """Make up the missing entities that the children refer to, and note them in the ledger.

    One whose type and name are taken is not made.
    """
    cursor.execute(
        SQL(
            "SELECT child.{key}, child.{column} FROM {children} AS child"
            " WHERE child.{column} IS NOT NULL AND NOT EXISTS"
            " (SELECT 1 FROM {parents} AS parent WHERE parent.id = child.{column}) ORDER BY 1"
        ).format(
            key=Identifier(table.key.name),
            column=Identifier(*key.columns),
            children=children,
            parents=parents,
        )
    )
    missing = dict(cursor.fetchall())
    cursor.execute(
        SQL(
            "INSERT INTO {} ({}) SELECT {} FROM unnest({}::bigint[]) AS made (id)"
            " ON CONFLICT DO NOTHING RETURNING id"
        ).format(
            parents,
            SQL(", ").join(map(Identifier, _PLACEHOLDER)),
            SQL(", ").join(_PLACEHOLDER.values()),
            Literal(sorted(set(missing.values()))),
        )
    )
    added = {row_id for (row_id,) in cursor.fetchall()}
    cursor.execute(
        "INSERT INTO kg_migration.placeholders (run_id, table_name, row_id)"
        " SELECT %s, %s, unnest(%s::bigint[])",
        (run_id, key.table, sorted(added)),
    )
    saved = tuple(row_id for row_id, parent in missing.items() if parent in added)
    return Placed(tuple(sorted(added)), saved)


def expect_placeholders(
    cursor: Cursor, run_id: str, rows: Identifier, staged: Identifier, table: Table, chunk: Chunk
) -> int:
    """Put what placeholders of the chunk's range must look like among the rows; return how many.

    What further columns hold was for the target to say.
    """
    cursor.execute(
        SQL(
            "INSERT INTO {rows} ({columns}) SELECT {values} FROM kg_migration.placeholders AS noted"
            " JOIN {staged} AS made ON made.id = noted.row_id"
            " WHERE noted.run_id = {run} AND noted.table_name = {table} AND noted.row_id >= {lower}"
            " AND ({upper}::bigint IS NULL OR noted.row_id < {upper}::bigint)"
        ).format(
            rows=rows,
            columns=SQL(", ").join(map(Identifier, table.column_names)),
            values=SQL(", ").join(
                _PLACEHOLDER.get(name, Identifier("made", name)) for name in table.column_names
            ),
            staged=staged,
            run=Literal(run_id),
            table=Literal(chunk.table),
            lower=Literal(chunk.lower),
            upper=Literal(chunk.upper),
        )
    )
    return cursor.rowcount


def false_merges(
    cursor: Cursor, run_id: str, rows: Identifier, staged: Identifier, table: Table, index: Index
) -> tuple[int, ...]:
    """Return the ids of rows that were merged into a row which is not there or not their equal."""
    cursor.execute(
        SQL(
            "SELECT source.{key} FROM {rows} AS source JOIN kg_migration.rejects AS merged"
            " ON merged.row_id = source.{key} WHERE merged.run_id = {run}"
            " AND merged.table_name = {table}"
            " AND merged.merged_into IS NOT NULL AND NOT EXISTS (SELECT 1 FROM {staged} AS kept"
            "  WHERE kept.{key} = merged.merged_into AND ({kept}) = ({source})) ORDER BY 1"
        ).format(
            key=Identifier(table.key.name),
            rows=rows,
            staged=staged,
            kept=_listed("kept", index.columns),
            source=_listed("source", index.columns),
            run=Literal(run_id),
            table=Literal(table.name),
        )
    )
    return tuple(row_id for (row_id,) in cursor.fetchall())


def _listed(alias: str, columns: Sequence[str]) -> Composed:
    return SQL(", ").join(Identifier(alias, column) for column in columns)


# Nothing is known of them but their ids. The epoch as their time, because clients can read it.
_PLACEHOLDER: dict[str, Composable] = {
    "id": SQL("made.id"),
    "type": Literal(PLACEHOLDER_TYPE),
    "name": SQL("'missing entity ' || made.id"),
    "metadata": SQL("""'{"placeholder": true}'::jsonb"""),
    "created_at": SQL("'1970-01-01T00:00:00Z'::timestamptz"),
    "updated_at": SQL("'1970-01-01T00:00:00Z'::timestamptz"),
}
