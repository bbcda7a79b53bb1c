"""Two roles: an owner that plans, builds and cuts over, and a worker role that only sends rows.

The worker role needs no DDL: it copies into staging, compares through a TEMP table, and writes its
part of the ledger. A run grants it that much when it starts (``Options.worker_role``) and takes the
rights on the tables back when they go live. What an administrator grants once, is here.
"""

from psycopg2.extensions import cursor as Cursor  # noqa: N812

from kgcore.errors import TargetError
from kgcore.schema import quoted


def administrators_grants(database: str, schema: str, owner: str, worker: str) -> tuple[str, ...]:
    """Return the statements that an administrator runs once, in this database, for both roles.

    The roles exist. ``schema`` is where the live tables are, or will be.
    """
    d, s, o, w = map(quoted, (database, schema, owner, worker))
    return (
        f"GRANT CONNECT, CREATE, TEMPORARY ON DATABASE {d} TO {o};",
        f"GRANT USAGE, CREATE ON SCHEMA {s} TO {o};",
        # The coordinator ends the connections of workers that hang.
        f"GRANT {w} TO {o};",
        f"GRANT CONNECT, TEMPORARY ON DATABASE {d} TO {w};",
        # Up to PostgreSQL 14 everybody may create in the schema public.
        f"REVOKE CREATE ON SCHEMA {s} FROM PUBLIC;",
    )


def require_worker_role(cursor: Cursor, worker: str | None) -> None:
    """Raise :class:`TargetError` unless the role exists and this one may end its connections."""
    if worker is None:
        return
    cursor.execute("SELECT current_user, to_regrole(%s) IS NOT NULL", (quoted(worker),))
    user, exists = cursor.fetchone() or ("", False)
    if not exists:
        raise TargetError(
            f"KG_WORKER_ROLE is {worker}, and there is no such role",
            f"create it: CREATE ROLE {quoted(worker)} LOGIN; kg doctor --grants prints the rest",
        )
    cursor.execute(
        "SELECT pg_has_role(%s, 'USAGE') OR pg_has_role('pg_signal_backend', 'USAGE')", (worker,)
    )
    (may_end,) = cursor.fetchone() or (False,)
    if not may_end:
        raise TargetError(
            f"role {user} may not end the connections of {worker}, of workers that hang",
            f"as a superuser: GRANT {quoted(worker)} TO {quoted(user)}",
        )
