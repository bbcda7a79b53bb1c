"""Cutover: one short transaction moves the live tables aside and the new ones in; revert undoes it.

Readers see the old state before it and the new one after it. Owners and grants of the old tables
go over to the new ones. The old tables are kept in a schema of their own.
"""

import random
import time
from collections.abc import Sequence
from typing import Literal as OneOf

from psycopg2 import errors
from psycopg2.extensions import cursor as Cursor  # noqa: N812
from psycopg2.sql import SQL, Identifier

from kgcore.errors import RunError, TargetBusyError, TargetError
from kgcore.migration.model import PlannedTable, Run
from kgcore.model import Kind
from kgcore.schema import catalog
from kgcore.schema.postgres import all_indexes, reported_type

# A reader that waits behind our waiting lock waits too, so each try is short, but longer than
# deadlock_timeout (1 s), after which autovacuum makes way.
_LOCK_TIMEOUT_MS = 1_300
_PAUSE_SECONDS = (0.3, 1.7)
_REVERT_SECONDS = 60.0


def require_replaceable(
    cursor: Cursor, schema: str, tables: Sequence[PlannedTable], if_exists: OneOf["fail", "replace"]
) -> None:
    """Raise :class:`TargetError` unless the live tables may be moved aside.

    With ``fail`` they may exist, empty and in the graph's shape (``init_schema()`` was called).
    Nothing else may hang on them: a view or a foreign key would follow the old table.
    """
    planned = {item.table.name: item.table for item in tables}
    found = catalog.live_tables(cursor, schema, tuple(planned))
    foreign = next((table for table in found if not table.is_ours), None)
    if foreign is not None:
        raise TargetError(
            f"{schema}.{foreign.name} belongs to {foreign.owner}, and only an owner may move it",
            f'as {foreign.owner} or a superuser: GRANT "{foreign.owner}" TO CURRENT_USER, with the'
            " role of PG_USER in its place; or connect as the owner",
        )
    if if_exists == "fail":
        filled = [table.name for table in found if table.has_rows]
        if filled:
            raise TargetError(
                f"the target has rows in {schema}.{', '.join(filled)}",
                "--if-exists replace moves the old tables aside (kg revert brings them back),"
                f" or empty them: TRUNCATE {', '.join(sorted(t.name for t in found))} CASCADE",
            )
        for table in found:
            known = {column.name: reported_type(column) for column in planned[table.name].columns}
            if any(known.get(name) != kind for name, kind in table.columns):
                raise TargetError(
                    f"{schema}.{table.name} exists, empty, but in another shape than the graph's",
                    f"drop it if it is not needed: DROP TABLE {schema}.{table.name} CASCADE, or"
                    " move it aside with --if-exists replace",
                )
    indexes = [index.name for table in planned.values() for index in all_indexes(table)]
    taken = catalog.taken_names(cursor, schema, indexes, tuple(planned))
    if taken:
        raise TargetError(
            f"{schema} has {', '.join(taken)} already, where an index of that name would come",
            "rename what is there: ALTER INDEX … RENAME, or ALTER TABLE … RENAME",
        )
    hanging = catalog.dependents(cursor, schema, tuple(planned))
    if hanging:
        raise TargetError(
            f"{'; '.join(hanging)}: they would go on using the old tables",
            "drop them before the migration and create them again after it",
        )


def prepare(cursor: Cursor, run: Run) -> list[str]:
    """Do what can be done before, then lock the live tables that there are; return their names.

    Who then says nothing for a lease's time loses the connection: every reader waits for the lock.
    Raises :class:`TargetBusyError` where others hold the tables for ``lock_seconds``.
    """
    for name in run.tables:  # Ours alone: there is nobody to wait for, and nobody who waits.
        cursor.execute(
            SQL("ALTER TABLE {} RESET (autovacuum_enabled)").format(Identifier(run.staging, name))
        )
        if run.options.worker_role is not None:
            catalog.withdraw_rights(cursor, (run.staging, name), run.options.worker_role)
    cursor.execute(
        "SELECT set_config('idle_in_transaction_session_timeout', %s, true)",
        (f"{run.options.lease_seconds:.3f}s",),
    )
    mend = f"end those transactions, then: kg resume {run.run_id}"
    return _locked(cursor, run.schema, list(run.tables), run.options.lock_seconds, mend)


def cut_over(cursor: Cursor, run: Run, old: Sequence[str]) -> None:
    """Move the ``old`` live tables to the archive and staged ones into place.

    In the transaction in which :func:`prepare` locked them. Raises :class:`TargetError` where they
    got rows since the run began and ``if_exists`` is ``fail``.
    """
    schema, staging, archive = run.schema, run.staging, run.archive
    tables = tuple(run.tables.values())
    require_replaceable(cursor, schema, tables, run.options.if_exists)
    # Also where there is nothing to keep: revert must tell that from an archive that was dropped.
    cursor.execute(SQL("CREATE SCHEMA {}").format(Identifier(archive)))
    for name in old:
        catalog.carry_over_rights(cursor, (schema, name), (staging, name))
    for name in old:
        _move(cursor, schema, name, archive)
    for item in tables:
        if item.table.key.kind is Kind.ROW:  # It has told rows apart until they were verified.
            cursor.execute(
                SQL("ALTER TABLE {} DROP COLUMN {}").format(
                    Identifier(staging, item.table.name), Identifier(item.table.key.name)
                )
            )
        _move(cursor, staging, item.table.name, schema)
    cursor.execute(SQL("DROP SCHEMA {}").format(Identifier(staging)))
    for item in tables:
        if item.table.key.kind is Kind.KEY:
            _require_fresh_ids(cursor, schema, item)


def revert(
    cursor: Cursor, schema: str, archive: str, aside: str, tables: Sequence[PlannedTable]
) -> tuple[str, ...]:
    """Bring the old tables back; the new ones go to the schema ``aside``. Returns their names.

    Raises :class:`TargetBusyError` as :func:`prepare`, :class:`RunError` where the tables of the
    run are no longer there.
    """
    cursor.execute("SELECT to_regnamespace(%s) IS NULL", (archive,))
    (dropped,) = cursor.fetchone() or (True,)
    if dropped:
        raise RunError(
            f"the old tables are gone: someone dropped the schema {archive}",
            "there is nothing to go back to; the migrated tables stay live",
        )
    names = [item.table.name for item in tables]
    mend = "end those transactions and try again; nothing was changed"
    present = _locked(cursor, schema, names, _REVERT_SECONDS, mend)
    if present != sorted(names):
        missing = ", ".join(sorted(set(names) - set(present)))
        raise RunError(
            f"{schema} no longer has {missing}", "someone dropped or moved it; nothing was changed"
        )
    hanging = catalog.dependents(cursor, schema, names)
    if hanging:
        raise RunError(
            f"{'; '.join(hanging)}: they would go on using the migrated tables",
            "drop them first and create them again afterwards",
        )
    cursor.execute(SQL("CREATE SCHEMA {}").format(Identifier(aside)))
    for name in names:
        _move(cursor, schema, name, aside)
    cursor.execute(
        "SELECT relname FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace"
        " WHERE n.nspname = %s AND c.relkind = 'r' ORDER BY 1",
        (archive,),
    )
    back = tuple(name for (name,) in cursor.fetchall())
    for name in back:
        _move(cursor, archive, name, schema)
    cursor.execute(SQL("DROP SCHEMA IF EXISTS {}").format(Identifier(archive)))
    return back


def _locked(
    cursor: Cursor, schema: str, names: Sequence[str], seconds: float, mend: str
) -> list[str]:
    """Lock those of the tables that exist, all or none; try for so long."""
    deadline = time.monotonic() + seconds
    while True:
        cursor.execute("SAVEPOINT kg_lock")
        cursor.execute(
            "SELECT c.relname FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace"
            " WHERE n.nspname = %s AND c.relname = ANY(%s) AND c.relkind = 'r' ORDER BY 1",
            (schema, list(names)),
        )
        present = [name for (name,) in cursor.fetchall()]
        if not present:
            return []
        try:
            cursor.execute(f"SET LOCAL lock_timeout = {_LOCK_TIMEOUT_MS}")
            cursor.execute(
                SQL("LOCK TABLE {} IN ACCESS EXCLUSIVE MODE").format(
                    SQL(", ").join(Identifier(schema, name) for name in present)
                )
            )
        except errors.LockNotAvailable:
            cursor.execute("ROLLBACK TO SAVEPOINT kg_lock")
        else:
            return present
        if time.monotonic() >= deadline:
            raise TargetBusyError(
                f"others held a table of {schema} ({', '.join(present)}) for {seconds:g} s:"
                f" {catalog.lock_holders(cursor, schema, present)}",
                mend,
            )
        time.sleep(random.uniform(*_PAUSE_SECONDS))  # noqa: S311 (jitter, no secret)


def _move(cursor: Cursor, schema: str, name: str, to: str) -> None:
    """Indexes, constraints and the identity sequence go along."""
    cursor.execute(
        SQL("ALTER TABLE {} SET SCHEMA {}").format(Identifier(schema, name), Identifier(to))
    )


def _require_fresh_ids(cursor: Cursor, schema: str, planned: PlannedTable) -> None:
    """Postcondition: the sequence's next value is above every id, unless ids are used up."""
    name = planned.table.name
    sequence = catalog.owned_sequence(cursor, (schema, name))
    if sequence is None:
        raise TargetError(f"{schema}.{name} came without its sequence", "report this as a bug")
    cursor.execute(
        SQL(
            "SELECT s.last_value >= m.id AND (s.is_called OR s.last_value > m.id) FROM {} AS s,"
            " (SELECT coalesce(max({}), 0) AS id FROM {}) AS m"
        ).format(sequence, Identifier(planned.table.key.name), Identifier(schema, name))
    )
    (fresh,) = cursor.fetchone() or (False,)
    if not fresh:
        raise TargetError(
            f"the next insert into {schema}.{name} would get an id that is taken",
            "report this as a bug; the live tables were left as they were",
        )
