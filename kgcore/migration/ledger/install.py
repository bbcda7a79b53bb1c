"""Create the ledger's schema where it is missing, and what a ledger of an earlier version lacks."""

from importlib.resources import files

from psycopg2 import errors
from psycopg2.extensions import cursor as Cursor  # noqa: N812

from kgcore.errors import TargetError

# Any constant, the same in every version: two first runs at once must not race in CREATE SCHEMA.
_LOCK = 0x6B67_0000_0000_0001


def is_installed(cursor: Cursor) -> bool:
    """Whether the database has a ledger."""
    cursor.execute("SELECT to_regclass('kg_migration.runs') IS NOT NULL")
    (there,) = cursor.fetchone() or (False,)
    return bool(there)


def _is_current(cursor: Cursor) -> bool:
    cursor.execute("SELECT to_regclass('kg_migration.steps_waiting') IS NOT NULL")
    (current,) = cursor.fetchone() or (False,)
    return bool(current)


def install(cursor: Cursor) -> None:
    """Create what is missing of ``kg_migration``. Raises :class:`TargetError` without the right."""
    cursor.execute("SELECT pg_advisory_xact_lock(%s)", (_LOCK,))
    script = "ledger.sql"
    if is_installed(cursor):
        if _is_current(cursor):
            return
        script = "upgrade.sql"
    cursor.execute("SAVEPOINT kg_install")
    try:
        cursor.execute((files(__package__) / script).read_text(encoding="utf-8"))
    except errors.InsufficientPrivilege as error:
        cursor.execute("ROLLBACK TO SAVEPOINT kg_install")
        cursor.execute(
            "SELECT format('GRANT CREATE ON DATABASE %I TO %I', current_database(), current_user)"
        )
        (grant,) = cursor.fetchone() or ("",)
        raise TargetError(
            f"no right to create the schema kg_migration: {error.diag.message_primary}",
            f"as the database's owner: {grant};",
        ) from None
