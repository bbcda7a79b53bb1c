"""PostgreSQL's catalog: shape, rights and sequence of existing tables, and what hangs on them."""

from collections.abc import Sequence
from dataclasses import dataclass

from psycopg2.extensions import cursor as Cursor  # noqa: N812
from psycopg2.sql import SQL, Identifier

from kgcore.errors import TargetError


@dataclass(frozen=True, slots=True)
class LiveTable:
    """A table that stands in the target under a name the migration will use."""

    name: str
    has_rows: bool
    owner: str
    is_ours: bool  # whether this role may move it
    columns: tuple[tuple[str, str], ...]


def database_identity(cursor: Cursor) -> str:
    """Return 16 hexadecimal digits that are this database's own, whatever address leads to it.

    They stay the same through restarts, renaming and failover.
    """
    cursor.execute(
        "SELECT md5(system_identifier || ' ' || oid) FROM pg_control_system(), pg_database"
        " WHERE datname = current_database()"
    )
    (digest,) = cursor.fetchone() or ("",)
    return str(digest)[:16]


def live_tables(cursor: Cursor, schema: str, names: Sequence[str]) -> tuple[LiveTable, ...]:
    """Return which of the names exist in the schema, whether with rows, and in what shape.

    Raises :class:`TargetError` where a name is taken by something that is not a plain table.
    """
    cursor.execute(
        "SELECT c.relname, c.relkind FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace"
        " WHERE n.nspname = %s AND c.relname = ANY(%s)",
        (schema, list(names)),
    )
    kinds = dict(cursor.fetchall())
    for name, kind in kinds.items():
        if kind != "r":
            raise TargetError(
                f"{schema}.{name} exists and is not a plain table",
                "rename it, or set another schema first in the role's search_path",
            )
    found = []
    for name in sorted(kinds):
        cursor.execute(SQL("SELECT EXISTS (SELECT 1 FROM {})").format(Identifier(schema, name)))
        (has_rows,) = cursor.fetchone() or (False,)
        cursor.execute(
            "SELECT a.attname, format_type(a.atttypid, a.atttypmod) FROM pg_attribute a"
            " WHERE a.attrelid = format('%%I.%%I', %s::text, %s::text)::regclass"
            " AND a.attnum > 0 AND NOT a.attisdropped ORDER BY a.attnum",
            (schema, name),
        )
        columns = tuple(cursor.fetchall())
        cursor.execute(
            "SELECT pg_get_userbyid(relowner), pg_has_role(relowner, 'USAGE') FROM pg_class"
            " WHERE oid = format('%%I.%%I', %s::text, %s::text)::regclass",
            (schema, name),
        )
        owner, is_ours = cursor.fetchone() or ("", False)
        found.append(LiveTable(name, has_rows, owner, is_ours, columns))
    return tuple(found)


def taken_names(
    cursor: Cursor, schema: str, names: Sequence[str], moving: Sequence[str]
) -> list[str]:
    """Return which of the names relations of the schema have, but for indexes of ``moving``."""
    cursor.execute(
        "SELECT c.relname FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace"
        " LEFT JOIN pg_index i ON i.indexrelid = c.oid LEFT JOIN pg_class t ON t.oid = i.indrelid"
        " WHERE n.nspname = %s AND c.relname = ANY(%s)"
        " AND (t.relname IS NULL OR t.relname <> ALL(%s)) ORDER BY 1",
        (schema, list(names), list(moving)),
    )
    return [name for (name,) in cursor.fetchall()]


def count_rows(cursor: Cursor, schema: str, name: str) -> int:
    """Return the number of rows of a table."""
    cursor.execute(SQL("SELECT count(*) FROM {}").format(Identifier(schema, name)))
    (rows,) = cursor.fetchone() or (0,)
    return int(rows)


def lock_holders(cursor: Cursor, schema: str, names: Sequence[str]) -> str:
    """Say who holds a lock on these tables, for a message."""
    cursor.execute(
        "SELECT DISTINCT a.pid, coalesce(a.usename, '?'), coalesce(a.state, '?')"
        " FROM pg_locks l JOIN pg_stat_activity a USING (pid)"
        " JOIN pg_class c ON c.oid = l.relation JOIN pg_namespace n ON n.oid = c.relnamespace"
        " WHERE n.nspname = %s AND c.relname = ANY(%s) AND l.granted AND l.pid <> pg_backend_pid()"
        " LIMIT 5",
        (schema, list(names)),
    )
    return ", ".join(f"pid {pid} of {user} ({state})" for pid, user, state in cursor.fetchall())


def carry_over_rights(cursor: Cursor, old: tuple[str, str], new: tuple[str, str]) -> None:
    """Give table ``new`` the owner and the grants (table, columns, sequence) of ``old``."""
    cursor.execute(_RIGHTS, {"schema": old[0], "name": old[1]})
    rights = cursor.fetchall()
    sequence = owned_sequence(cursor, new)
    for privilege, column, on_sequence, role, grantable in rights:
        if on_sequence and sequence is None:
            continue
        cursor.execute(
            SQL("GRANT {}{} ON {} {} TO {}{}").format(
                SQL(privilege),
                SQL(" ({})").format(Identifier(column)) if column else SQL(""),
                SQL("SEQUENCE" if on_sequence else "TABLE"),
                sequence if on_sequence and sequence else Identifier(*new),
                Identifier(role) if role else SQL("PUBLIC"),
                SQL(" WITH GRANT OPTION" if grantable else ""),
            )
        )
    cursor.execute(_OWNER, {"schema": old[0], "name": old[1]})
    (owner,) = cursor.fetchone() or (None,)
    cursor.execute(SQL("ALTER TABLE {} OWNER TO {}").format(Identifier(*new), Identifier(owner)))


def withdraw_rights(cursor: Cursor, table: tuple[str, str], role: str) -> None:
    """Take away what ``role`` was granted on a table; that it is gone is fine."""
    cursor.execute(
        "SELECT FROM pg_class c, aclexplode(c.relacl) a JOIN pg_roles r ON r.oid = a.grantee"
        " WHERE c.oid = format('%%I.%%I', %s::text, %s::text)::regclass AND r.rolname = %s",
        (*table, role),
    )
    if cursor.rowcount:
        cursor.execute(
            SQL("REVOKE ALL ON TABLE {} FROM {}").format(Identifier(*table), Identifier(role))
        )


_OWNER = """
SELECT pg_get_userbyid(c.relowner) FROM pg_class c
WHERE c.oid = format('%%I.%%I', %(schema)s::text, %(name)s::text)::regclass
"""


def owned_sequence(cursor: Cursor, table: tuple[str, str]) -> Identifier | None:
    """Return the sequence behind the table's identity or serial column, if it has one."""
    cursor.execute(_SEQUENCE, {"schema": table[0], "name": table[1]})
    row = cursor.fetchone()
    return Identifier(*row) if row else None


_SEQUENCE = """
SELECT n.nspname, s.relname FROM pg_depend d
JOIN pg_class s ON s.oid = d.objid AND s.relkind = 'S'
JOIN pg_namespace n ON n.oid = s.relnamespace
WHERE d.classid = 'pg_class'::regclass AND d.refclassid = 'pg_class'::regclass
AND d.deptype IN ('a', 'i')
AND d.refobjid = format('%%I.%%I', %(schema)s::text, %(name)s::text)::regclass
ORDER BY d.refobjsubid LIMIT 1
"""

# privilege, column or NULL, whether on the sequence, role or NULL for PUBLIC, grantable.
# The owner's own rights come with ownership and are left out.
_RIGHTS = """
WITH live AS (
    SELECT format('%%I.%%I', %(schema)s::text, %(name)s::text)::regclass AS oid
), rights AS (
    SELECT a.privilege_type, NULL::name AS column_name, false AS on_sequence,
           a.grantee, a.is_grantable, c.relowner
    FROM live JOIN pg_class c USING (oid), aclexplode(c.relacl) a
    UNION ALL
    SELECT a.privilege_type, t.attname, false, a.grantee, a.is_grantable, c.relowner
    FROM live JOIN pg_class c USING (oid)
    JOIN pg_attribute t ON t.attrelid = c.oid AND NOT t.attisdropped, aclexplode(t.attacl) a
    UNION ALL
    SELECT a.privilege_type, NULL, true, a.grantee, a.is_grantable, s.relowner
    FROM live JOIN pg_depend d ON d.refobjid = live.oid AND d.deptype IN ('a', 'i')
        AND d.classid = 'pg_class'::regclass
    JOIN pg_class s ON s.oid = d.objid AND s.relkind = 'S', aclexplode(s.relacl) a
)
SELECT privilege_type, column_name, on_sequence,
       CASE WHEN grantee <> 0 THEN pg_get_userbyid(grantee) END, is_grantable
FROM rights WHERE grantee <> relowner
AND privilege_type IN ('SELECT', 'INSERT', 'UPDATE', 'DELETE', 'TRUNCATE', 'REFERENCES', 'TRIGGER',
                       'MAINTAIN', 'USAGE')
ORDER BY 1, 2, 4
"""


def dependents(cursor: Cursor, schema: str, names: Sequence[str]) -> list[str]:
    """Name the views, rules and foreign keys of others that hang on the live tables."""
    cursor.execute(
        """
        WITH live AS (
            SELECT c.oid, c.relname FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
            WHERE n.nspname = %(schema)s AND c.relname = ANY(%(names)s) AND c.relkind = 'r'
        )
        SELECT DISTINCT format('view %%s uses %%I', v.oid::regclass, live.relname)
        FROM live JOIN pg_depend d ON d.refobjid = live.oid
            AND d.refclassid = 'pg_class'::regclass AND d.classid = 'pg_rewrite'::regclass
        JOIN pg_rewrite r ON r.oid = d.objid JOIN pg_class v ON v.oid = r.ev_class
        WHERE v.oid <> live.oid
        UNION
        SELECT format('table %%s refers to %%I', k.conrelid::regclass, live.relname)
        FROM live JOIN pg_constraint k ON k.confrelid = live.oid AND k.contype = 'f'
        WHERE k.conrelid NOT IN (SELECT oid FROM live)
        UNION
        SELECT format('trigger %%I is on %%I', t.tgname, live.relname)
        FROM live JOIN pg_trigger t ON t.tgrelid = live.oid AND NOT t.tgisinternal
        UNION
        SELECT format('policy %%I is on %%I', p.polname, live.relname)
        FROM live JOIN pg_policy p ON p.polrelid = live.oid
        ORDER BY 1
        """,
        {"schema": schema, "names": list(names)},
    )
    return [text for (text,) in cursor.fetchall()]
