"""Insert: rows that come late go into tables that have their keys, indexes and constraints.

They stand in a TEMP table first. What a key or constraint would refuse is taken out there, by
queries, so that the one INSERT stores all that is left. Values stand in the statements themselves,
because a name may hold what psycopg2 would take for a placeholder.
"""

from collections.abc import Sequence

from psycopg2 import errors
from psycopg2.extensions import cursor as Cursor  # noqa: N812
from psycopg2.sql import SQL, Composable, Composed, Identifier, Literal

from kgcore.errors import RunError, TargetBusyError
from kgcore.migration.model import Refusal
from kgcore.migration.repairs import is_merging
from kgcore.model import Check, ForeignKey, Index, Table
from kgcore.schema import catalog
from kgcore.schema.postgres import index_keys

#: The TEMP table of the rows that are tried again.
RETRIED = Identifier("kg_retried")

_LOCK_TIMEOUT_MS = 10_000


def lock(cursor: Cursor, schema: str, names: Sequence[str]) -> None:
    """Keep others from writing to the tables until the transaction ends; they may read.

    Raises :class:`TargetBusyError`.
    """
    cursor.execute("SAVEPOINT kg_lock")
    cursor.execute(f"SET LOCAL lock_timeout = {_LOCK_TIMEOUT_MS}")
    try:
        cursor.execute(
            SQL("LOCK TABLE {} IN SHARE ROW EXCLUSIVE MODE").format(
                SQL(", ").join(Identifier(schema, name) for name in names)
            )
        )
    except errors.LockNotAvailable:
        cursor.execute("ROLLBACK TO SAVEPOINT kg_lock")
        raise TargetBusyError(
            f"others hold a table of {schema}: {catalog.lock_holders(cursor, schema, names)}",
            "end those transactions and try again; nothing was changed",
        ) from None


def create_retried(cursor: Cursor, relation: Identifier, table: Table) -> None:
    """Create the TEMP table with the columns the migration knows, without any constraint."""
    cursor.execute(
        SQL("CREATE TEMP TABLE {} ON COMMIT DROP AS SELECT {} FROM {} WITH NO DATA").format(
            RETRIED, _columns(table), relation
        )
    )


def drop_retried(cursor: Cursor) -> None:
    """Drop the TEMP table, to make way for the next table's."""
    cursor.execute(SQL("DROP TABLE {}").format(RETRIED))


def remove_taken(
    cursor: Cursor, run_id: str, relation: Identifier, table: Table, index: Index
) -> list[Refusal]:
    """Take out the rows whose unique values another row has; say which.

    The id of a placeholder is not taken: the row is what it stands for.
    """
    own = index.columns == (table.key.name,)
    # A direction belongs to the index alone.
    keys = [SQL(key.removesuffix(" DESC")) for key in index.keys] or index_keys(index)
    named = [Identifier(f"kg_{number}") for number in range(len(keys))]
    values = SQL(", ").join(
        SQL("({}) AS {}").format(key, name) for key, name in zip(keys, named, strict=True)
    )
    # NULLs are never the same, and a partial index knows only some rows.
    present: list[Composable] = [SQL("({}) IS NOT NULL").format(key) for key in keys]
    present += [SQL(f"({index.where})")] if index.where is not None else []
    cursor.execute(
        SQL(
            "WITH late AS (SELECT {key} AS kg_id, {values} FROM {retried} WHERE {present}),"
            " there AS (SELECT {key} AS kg_id, {values} FROM {relation} WHERE {present}"
            "  AND NOT EXISTS (SELECT 1 FROM kg_migration.placeholders AS p JOIN late"
            "   ON late.kg_id = p.row_id WHERE p.run_id = {run} AND p.table_name = {name}"
            "   AND p.row_id = {key})),"
            " ranked AS (SELECT kg_id, {named}, first_value(kg_id) OVER"
            "  (PARTITION BY {named} ORDER BY kg_id) AS kg_first FROM late),"
            " taken AS (SELECT ranked.kg_id, coalesce(min(there.kg_id), min(kg_first)) AS kg_by"
            "  FROM ranked LEFT JOIN there USING ({named})"
            "  WHERE there.kg_id IS NOT NULL OR kg_first <> ranked.kg_id GROUP BY 1)"
            " DELETE FROM {retried} AS gone USING taken WHERE gone.{key} = taken.kg_id"
            " RETURNING taken.kg_id, kg_by"
        ).format(
            key=Identifier(table.key.name),
            values=values,
            named=SQL(", ").join(named),
            present=SQL(" AND ").join(present),
            retried=RETRIED,
            relation=relation,
            run=Literal(run_id),
            name=Literal(table.name),
        )
    )
    listed = ", ".join(index.columns)
    column = index.columns[0] if len(index.columns) == 1 else None
    merges = is_merging(table, index)
    return [
        Refusal(row_id, column, "the target has a row with this id already", "23505")
        if own
        else Refusal(
            row_id,
            column,
            f"the same ({listed}) as the row with id {by}",
            "23505",
            by if merges else None,
        )
        for row_id, by in sorted(cursor.fetchall())
    ]


def remove_breaches(cursor: Cursor, table: Table, check: Check) -> list[Refusal]:
    """Take out the rows that break a check; say which.

    A check that asks for a generated column is left to the INSERT.
    """
    cursor.execute("SAVEPOINT kg_check")
    try:
        cursor.execute(
            SQL("DELETE FROM {} WHERE NOT ({}) RETURNING {}").format(
                RETRIED, SQL(check.expression), Identifier(table.key.name)
            )
        )
    except errors.UndefinedColumn:
        cursor.execute("ROLLBACK TO SAVEPOINT kg_check")
        return []
    reason = f"it breaks the check {check.name}"
    return [Refusal(row_id, None, reason, "23514") for (row_id,) in sorted(cursor.fetchall())]


def remove_orphans(cursor: Cursor, schema: str, table: Table, key: ForeignKey) -> list[Refusal]:
    """Take out the rows that refer to a row which does not exist; say which."""
    pairs = list(zip(key.columns, key.parents, strict=True))
    parents = [Identifier(schema, key.table)]
    if key.table == table.name:  # Rows that are tried again may refer to each other.
        parents.append(RETRIED)
    same = SQL(" AND ").join(
        SQL("parent.{} = late.{}").format(Identifier(parent), Identifier(child))
        for child, parent in pairs
    )
    missing = [SQL("late.{} IS NOT NULL").format(Identifier(child)) for child, _ in pairs]
    missing += [
        SQL("NOT EXISTS (SELECT 1 FROM {} AS parent WHERE {})").format(relation, same)
        for relation in parents
    ]
    column = key.columns[0] if len(key.columns) == 1 else None
    refusals: list[Refusal] = []
    while True:
        cursor.execute(
            SQL("DELETE FROM {} AS late WHERE {} RETURNING late.{}, {}").format(
                RETRIED,
                SQL(" AND ").join(missing),
                Identifier(table.key.name),
                _of("late", key.columns),
            )
        )
        found = sorted(cursor.fetchall())
        refusals += [
            Refusal(
                row_id,
                column,
                f"no row with {', '.join(key.parents)} {', '.join(map(str, parent))}"
                f" in {key.table}",
                "23503",
            )
            for row_id, *parent in found
        ]
        if not found or key.table != table.name:
            return refusals


def insert(cursor: Cursor, run_id: str, relation: Identifier, table: Table) -> list[int]:
    """Store the rows, some of them in place of placeholders; return their ids.

    Raises :class:`RunError` where the server refuses one all the same: a constraint of the
    target's own, one over a generated column, or what an index has no room for.
    """
    try:
        return _insert(cursor, run_id, relation, table)
    except (errors.IntegrityError, errors.DataError, errors.ProgramLimitExceeded) as error:
        raise RunError(
            f"{table.name} takes no such row: {error.diag.message_primary}",
            "nothing was changed; mend the row, or try the other tables with --table",
        ) from None


def _insert(cursor: Cursor, run_id: str, relation: Identifier, table: Table) -> list[int]:
    key = Identifier(table.key.name)
    cursor.execute(
        SQL(
            "WITH placeholder AS (DELETE FROM kg_migration.placeholders WHERE run_id = {run}"
            "  AND table_name = {name} AND row_id IN (SELECT {key} FROM {retried})"
            "  RETURNING row_id)"
            " UPDATE {relation} AS there SET ({columns}) = ROW({late}) FROM {retried} AS late,"
            " placeholder WHERE placeholder.row_id = there.{key} AND late.{key} = there.{key}"
        ).format(
            key=key,
            retried=RETRIED,
            relation=relation,
            columns=SQL(", ").join(map(Identifier, table.column_names[1:])),
            late=_of("late", table.column_names[1:]),
            run=Literal(run_id),
            name=Literal(table.name),
        )
    )
    cursor.execute(
        SQL(
            "INSERT INTO {relation} ({columns}) SELECT {columns} FROM {retried} AS late"
            " WHERE NOT EXISTS (SELECT 1 FROM {relation} AS there WHERE there.{key} = late.{key})"
        ).format(relation=relation, columns=_columns(table), retried=RETRIED, key=key)
    )
    cursor.execute("SET CONSTRAINTS ALL IMMEDIATE")
    cursor.execute(SQL("SELECT {} FROM {} ORDER BY 1").format(key, RETRIED))
    return [row_id for (row_id,) in cursor.fetchall()]


def unequal(cursor: Cursor, relation: Identifier, table: Table) -> list[int]:
    """Return the first ids of rows that are not in the table byte for byte."""
    cursor.execute(
        SQL(
            "SELECT late.{key} FROM {retried} AS late LEFT JOIN {relation} AS there"
            " ON there.{key} = late.{key} WHERE there.{key} IS NULL"
            " OR NOT record_image_eq(ROW({late}), ROW({there})) ORDER BY 1 LIMIT 20"
        ).format(
            key=Identifier(table.key.name),
            retried=RETRIED,
            relation=relation,
            late=_of("late", table.column_names),
            there=_of("there", table.column_names),
        )
    )
    return [row_id for (row_id,) in cursor.fetchall()]


def _columns(table: Table) -> Composed:
    return SQL(", ").join(map(Identifier, table.column_names))


def _of(alias: str, columns: Sequence[str]) -> Composed:
    return SQL(", ").join(Identifier(alias, column) for column in columns)
