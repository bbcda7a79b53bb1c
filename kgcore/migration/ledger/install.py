"""Create the ledger's schema where it is missing, and what a ledger of an earlier version lacks."""

from importlib.resources import files

from psycopg2 import errors
from psycopg2.extensions import cursor as Cursor  # noqa: N812

from kgcore.errors import TargetError

# Any constant, the same in every version: two first runs at once must not race in CREATE SCHEMA.
_LOCK = 0x6B67_0000_0000_0001

# Stands as the schema's comment; to be changed with ledger.sql and upgrade.sql.
_VERSION = "jarvis-kg, ledger 3"


def is_installed(cursor: Cursor) -> bool:
    """Whether the database has a ledger."""
    cursor.execute("SELECT to_regclass('kg_migration.runs') IS NOT NULL")
    (there,) = cursor.fetchone() or (False,)
    return bool(there)


def is_current(cursor: Cursor) -> bool:
    """Whether the ledger has all that this version reads and writes."""
    cursor.execute(
        "SELECT obj_description(to_regnamespace('kg_migration'), 'pg_namespace') = %s", (_VERSION,)
    )
    (current,) = cursor.fetchone() or (None,)
    return bool(current)


def upgrade(cursor: Cursor) -> None:
    """Bring a ledger of an earlier version up to date; create none where there is none."""
    if is_installed(cursor) and not is_current(cursor):
        install(cursor)


def wait_for_install(cursor: Cursor) -> None:
    """Wait until no other transaction that called :func:`install` is open any more."""
    cursor.execute("SELECT pg_advisory_xact_lock(%s)", (_LOCK,))


def install(cursor: Cursor) -> None:
    """Create what is missing of ``kg_migration``. Raises :class:`TargetError` without the right."""
    wait_for_install(cursor)
    if is_current(cursor):
        return
    # The columns that an earlier version lacks come first: the rest refers to them.
    scripts = ("upgrade.sql", "ledger.sql") if is_installed(cursor) else ("ledger.sql",)
    cursor.execute("SAVEPOINT kg_install")
    try:
        for script in scripts:
            cursor.execute((files(__package__) / script).read_text(encoding="utf-8"))
        cursor.execute("COMMENT ON SCHEMA kg_migration IS %s", (_VERSION,))
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
