"""Finish: indexes, keys, constraints, sequences and statistics of a loaded table.

Indexes are built one a step, several of a table at once (CREATE INDEX locks don't exclude each
other; ALTER TABLE … ADD PRIMARY KEY would). The key step then attaches them in no time.

A row that breaks a constraint is found by the constraint itself, once: its build fails, the rows
at fault are named by a query, set aside by the caller, and the build is tried again.
"""

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any

from psycopg2 import errors
from psycopg2.extensions import cursor as Cursor  # noqa: N812
from psycopg2.sql import SQL, Composable, Identifier, Literal

from kgcore.migration.model import PlannedTable, Refusal
from kgcore.migration.repairs import is_merging
from kgcore.model import Check, ForeignKey, Index, Kind, Table
from kgcore.schema import postgres as ddl

#: Takes the rows out of the run's way: records them as rejects. The stage deletes them itself.
SetAside = Callable[[Sequence[Refusal]], None]
#: Mends what it can of the rows that break a foreign key.
Relink = Callable[[ForeignKey], None]

# With PostgreSQL's default of 64 MB sorts of a million rows spill: 8 % more time. More is left.
_BUILD_MEMORY = (
    "SELECT set_config('maintenance_work_mem', greatest(262144,"
    " pg_size_bytes(current_setting('maintenance_work_mem')) / 1024) || 'kB', true)"
)


def create_staging(
    cursor: Cursor, schema: str, tables: Sequence[Table], worker_role: str | None = None
) -> None:
    """Create the schema and its bare tables. They are logged: unlogged rows die in a crash.

    Until the cutover autovacuum leaves them alone: it would hold locks that index builds wait for.
    ``worker_role`` may then send rows there and compare them.
    """
    cursor.execute(SQL("CREATE SCHEMA {}").format(Identifier(schema)))
    for table in tables:
        cursor.execute(ddl.create_table(schema, table) + SQL(" WITH (autovacuum_enabled = off)"))
    if worker_role is not None:
        names = {"schema": Identifier(schema), "role": Identifier(worker_role)}
        cursor.execute(SQL("GRANT USAGE ON SCHEMA {schema} TO {role}").format(**names))
        cursor.execute(
            SQL("GRANT SELECT, INSERT ON ALL TABLES IN SCHEMA {schema} TO {role}").format(**names)
        )


def drop_staging(cursor: Cursor, schema: str) -> None:
    """Drop the schema with all that is in it, if it is there."""
    cursor.execute(SQL("DROP SCHEMA IF EXISTS {} CASCADE").format(Identifier(schema)))


def build_index(cursor: Cursor, schema: str, table: Table, name: str, aside: SetAside) -> int:
    """Build one index; return how many rows were set aside.

    For a unique one those are all but the first of the rows with equal values, of its other unique
    indexes, too.
    """
    index = next(index for index in ddl.all_indexes(table) if index.name == name)
    cursor.execute(_BUILD_MEMORY)
    statement = ddl.create_index(schema, table, index)
    cursor.execute("SAVEPOINT kg_index")
    try:
        cursor.execute(statement)
    except errors.UniqueViolation:
        cursor.execute("ROLLBACK TO SAVEPOINT kg_index")
        removed = _remove_duplicates(cursor, schema, table, aside)
        cursor.execute(statement)
        return removed
    return 0


def add_keys(
    cursor: Cursor, schema: str, planned: PlannedTable, aside: SetAside, relink: Relink
) -> int:
    """Attach keys, add and validate checks and foreign keys, set the sequence, gather statistics.

    Rows that break a check, or refer to a row that does not exist, also after ``relink``, are set
    aside; returns how many.
    """
    table = planned.table
    _lock(cursor, schema, table)
    for index in ddl.all_indexes(table):
        if index.is_constraint:
            cursor.execute(ddl.attach_constraint(schema, table, index))
    removed = sum(_add_check(cursor, schema, table, check, aside) for check in table.checks)
    removed += _add_foreign_keys(cursor, schema, table, aside, relink)
    if table.key.kind is Kind.KEY:
        set_sequence(cursor, schema, planned)
    cursor.execute(SQL("ANALYZE {}").format(Identifier(schema, table.name)))
    return removed


def _lock(cursor: Cursor, schema: str, table: Table) -> None:
    """Take the locks of all that follows in one order: tables may refer to each other."""
    for name in sorted({table.name, *(key.table for key in table.foreign_keys)}):
        mode = "ACCESS EXCLUSIVE" if name == table.name else "SHARE ROW EXCLUSIVE"
        cursor.execute(SQL(f"LOCK TABLE {{}} IN {mode} MODE").format(Identifier(schema, name)))


def _add_check(cursor: Cursor, schema: str, table: Table, check: Check, aside: SetAside) -> int:
    cursor.execute(ddl.add_check(schema, table, check))
    cursor.execute("SAVEPOINT kg_check")
    try:
        cursor.execute(ddl.validate(schema, table, check))
    except errors.CheckViolation:
        cursor.execute("ROLLBACK TO SAVEPOINT kg_check")
        removed = _remove(cursor, schema, table, _breaches(cursor, schema, table, check), aside)
        cursor.execute(ddl.validate(schema, table, check))
        return removed
    return 0


def _add_foreign_keys(
    cursor: Cursor, schema: str, table: Table, aside: SetAside, relink: Relink
) -> int:
    """Add and validate all foreign keys, or none while there are rows that break one.

    One that stood would take rows away unsaid by its ON DELETE, or keep them from being removed.
    """
    removed = 0
    while True:
        cursor.execute("SAVEPOINT kg_keys")
        try:
            for statement in (partial(ddl.add_foreign_key, schema), partial(ddl.validate, schema)):
                for key in table.foreign_keys:
                    cursor.execute(statement(table, key))
        except errors.ForeignKeyViolation:
            cursor.execute("ROLLBACK TO SAVEPOINT kg_keys")
            removed += sum(
                _remove_orphans(cursor, schema, table, key, aside, relink)
                for key in table.foreign_keys
            )
            # These leave trigger events behind, and a table with those can't be altered.
            cursor.execute("SET CONSTRAINTS ALL IMMEDIATE")
        else:
            return removed


def _remove_orphans(
    cursor: Cursor, schema: str, table: Table, key: ForeignKey, aside: SetAside, relink: Relink
) -> int:
    """Remove the rows that break a foreign key; others that refer to them may do so then."""
    relink(key)
    return _remove(cursor, schema, table, _orphans(cursor, schema, table, key), aside)


def _breaches(cursor: Cursor, schema: str, table: Table, check: Check) -> list[Refusal]:
    cursor.execute(
        SQL("SELECT {} FROM {} WHERE NOT ({}) ORDER BY 1").format(
            Identifier(table.key.name), Identifier(schema, table.name), SQL(check.expression)
        )
    )
    reason = f"it breaks the check {check.name}"
    return [Refusal(row_id, None, reason, "23514") for (row_id,) in cursor.fetchall()]


def _remove_duplicates(cursor: Cursor, schema: str, table: Table, aside: SetAside) -> int:
    """Remove all but the first of rows with equal values, for one unique index after the other.

    Where a row is the same as one in one index and as another in another, it depends on their order
    which rows remain. So one step does it for all, in the order of the description; the lock, which
    waits for other builds, lets no second step count the same rows.
    """
    cursor.execute(SQL("LOCK TABLE {} IN EXCLUSIVE MODE").format(Identifier(schema, table.name)))
    return sum(
        _remove(cursor, schema, table, _duplicates(cursor, schema, table, index), aside)
        for index in ddl.all_indexes(table)
        if index.unique
    )


def _duplicates(cursor: Cursor, schema: str, table: Table, index: Index) -> list[Refusal]:
    # A direction belongs to the index alone.
    keys = [SQL(key.removesuffix(" DESC")) for key in index.keys] or ddl.index_keys(index)
    # NULLs are never the same.
    present: list[Composable] = [SQL("({}) IS NOT NULL").format(key) for key in keys]
    if index.where is not None:
        present.append(SQL(f"({index.where})"))
    cursor.execute(
        SQL(
            "SELECT id, first FROM (SELECT {key} AS id, first_value({key}) OVER same AS first"
            " FROM {table} WHERE {present}"
            " WINDOW same AS (PARTITION BY {columns} ORDER BY {key})) AS ranked"
            " WHERE id <> first ORDER BY id"
        ).format(
            key=Identifier(table.key.name),
            table=Identifier(schema, table.name),
            columns=SQL(", ").join(keys),
            present=SQL(" AND ").join(present),
        )
    )
    named = ", ".join(index.columns)
    column = index.columns[0] if len(index.columns) == 1 else None
    merges = is_merging(table, index)
    return [
        Refusal(
            row_id,
            column,
            f"the same ({named}) as the row with id {first}",
            "23505",
            first if merges else None,
        )
        for row_id, first in cursor.fetchall()
    ]


def _orphans(cursor: Cursor, schema: str, table: Table, key: ForeignKey) -> list[Refusal]:
    cursor.execute(
        SQL(
            "SELECT child.{id}, {columns} FROM {child} AS child WHERE {present} AND NOT EXISTS"
            " (SELECT 1 FROM {parent} AS parent WHERE {same}) ORDER BY 1"
        ).format(
            **_related(schema, table, key),
            present=SQL(" AND ").join(
                SQL("child.{} IS NOT NULL").format(Identifier(column)) for column in key.columns
            ),
        )
    )
    return _refer_to_nothing(key, cursor.fetchall())


def children(
    cursor: Cursor, schema: str, table: Table, key: ForeignKey, parent: Table, ids: Sequence[int]
) -> list[Refusal]:
    """Return the refusals of a table's rows that refer to these rows of ``parent``."""
    cursor.execute(
        SQL(
            "SELECT child.{id}, {columns} FROM {child} AS child JOIN {parent} AS parent ON {same}"
            " WHERE parent.{parent_id} = ANY({ids}::bigint[]) ORDER BY 1"
        ).format(
            **_related(schema, table, key),
            parent_id=Identifier(parent.key.name),
            ids=Literal(list(ids)),
        )
    )
    return _refer_to_nothing(key, cursor.fetchall())


def _related(schema: str, table: Table, key: ForeignKey) -> dict[str, Composable]:
    return {
        "id": Identifier(table.key.name),
        "columns": SQL(", ").join(SQL("child.{}").format(Identifier(c)) for c in key.columns),
        "child": Identifier(schema, table.name),
        "parent": Identifier(schema, key.table),
        "same": SQL(" AND ").join(
            SQL("parent.{} = child.{}").format(Identifier(parent), Identifier(child))
            for child, parent in zip(key.columns, key.parents, strict=True)
        ),
    }


def _refer_to_nothing(key: ForeignKey, rows: Sequence[tuple[Any, ...]]) -> list[Refusal]:
    column = key.columns[0] if len(key.columns) == 1 else None
    named = ", ".join(key.parents)
    return [
        Refusal(
            row_id,
            column,
            f"no row with {named} {', '.join(map(str, parent))} in {key.table}",
            "23503",
        )
        for row_id, *parent in rows
    ]


def _remove(
    cursor: Cursor, schema: str, table: Table, refusals: Sequence[Refusal], aside: SetAside
) -> int:
    if refusals:
        aside(refusals)
        ids = [refusal.row_id for refusal in refusals]
        remove(cursor, schema, {table.name: (table, ids)})
    return len(refusals)


def remove(cursor: Cursor, schema: str, refused: Mapping[str, tuple[Table, Sequence[int]]]) -> None:
    """Delete rows of several tables, given by their ids, in one statement.

    Keys between them are looked at when all are gone.
    """
    deletes = [
        SQL("gone_{} AS (DELETE FROM {} WHERE {} = ANY({}::bigint[]))").format(
            SQL(str(number)),
            Identifier(schema, name),
            Identifier(table.key.name),
            Literal(list(ids)),
        )
        for number, (name, (table, ids)) in enumerate(refused.items())
    ]
    cursor.execute(SQL("WITH {} SELECT").format(SQL(", ").join(deletes)))


def set_sequence(cursor: Cursor, schema: str, planned: PlannedTable) -> None:
    """Let the next insert get an id the source never gave out, rejected rows' ids included."""
    table = planned.table
    relation, key = Identifier(schema, table.name), Identifier(table.key.name)
    # Parts of the statement, not parameters: a name may hold what looks like a placeholder.
    sequence = SQL("pg_get_serial_sequence({}, {})").format(
        Literal(relation.as_string(cursor)), Literal(table.key.name)
    )
    cursor.execute(
        SQL("SELECT greatest({}, max({}), pg_sequence_last_value({}::regclass)) FROM {}").format(
            Literal(planned.last_key), key, sequence, relation
        )
    )
    # Placeholders may have higher ids than the source ever had, live tables than both.
    (last,) = cursor.fetchone() or (planned.last_key,)
    cursor.execute(
        SQL("SELECT setval({}, greatest({last}, 1), {last} > 0)").format(
            sequence, last=Literal(last)
        )
    )
