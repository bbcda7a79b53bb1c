"""Backup and restore of the graph's schema in PostgreSQL."""

import time
from pathlib import Path

from psycopg2.errors import InsufficientPrivilege
from psycopg2.extensions import cursor as Cursor  # noqa: N812
from psycopg2.extensions import make_dsn
from psycopg2.sql import SQL, Identifier

from kgcore.backends import PostgreSQLBackend
from kgcore.backup import archive
from kgcore.backup.files import ARCHIVE, differences, new_file, refuse_other_kind
from kgcore.backup.model import Backup, IfExists, Restored
from kgcore.backup.programs import environment, fitting, run
from kgcore.errors import BackupError, TargetError
from kgcore.schema.catalog import count_rows


def backup(
    backend: PostgreSQLBackend, path: Path, *, overwrite: bool, bin_dir: Path | None
) -> Backup:
    """Dump the graph's schema: see :func:`kgcore.backup.backup`."""
    began = time.monotonic()
    with new_file(path, overwrite=overwrite) as part, backend.pool.connection() as connection:
        dumping = fitting("pg_dump", connection.server_version, bin_dir)[0]
        reading = fitting("pg_restore", connection.server_version, bin_dir)
        env = environment(connection.info)
        # pg_dump sees what this transaction sees, so what is counted is what it writes.
        connection.set_session(isolation_level="REPEATABLE READ", readonly=True)
        with connection.cursor() as cursor:
            cursor.execute("SELECT pg_export_snapshot()")
            (snapshot,) = cursor.fetchone() or ("",)
            schema = _current_schema(cursor)
            expected = _counts(cursor, schema)
            if not expected:
                raise BackupError(
                    f"schema {schema} has no tables", "is this the right database? See PG_DATABASE"
                )
            pattern = '"' + schema.replace('"', '""') + '"'
            run(
                dumping,
                [
                    *("--format=custom", "--no-password", f"--snapshot={snapshot}"),
                    *(f"--schema={pattern}", f"--file={part}"),
                ],
                env,
            )
        found = _of_schema(archive.read(reading, part, env)[1], schema)
        if expected != found:
            raise BackupError(
                f"the copy does not hold what it should: {differences(expected, found)}",
                "it was thrown away; try again, and look at the disk",
            )
    return Backup(path, backend.name, path.stat().st_size, expected, time.monotonic() - began)


def restore(
    backend: PostgreSQLBackend,
    path: Path,
    *,
    if_exists: IfExists,
    privileges: bool,
    bin_dir: Path | None,
) -> Restored:
    """Restore the graph's schema: see :func:`kgcore.backup.restore`."""
    began = time.monotonic()
    refuse_other_kind(path, ARCHIVE)
    with backend.pool.connection() as connection:
        connection.autocommit = True
        programs = fitting("pg_restore", connection.server_version, bin_dir)
        env = environment(connection.info)
        program, contents = archive.read(programs, path, env)
        with connection.cursor() as cursor:
            schema = _current_schema(cursor)
            expected = _chosen(path, contents, schema)
            existing = [name for name in _tables(cursor, schema) if name in expected]
            with_rows = tuple(name for name in existing if _has_rows(cursor, schema, name))
            if with_rows and if_exists == "fail":
                raise BackupError(
                    f"the database has rows in {', '.join(with_rows)} (schema {schema})",
                    "--if-exists replace overwrites them; kg backup FILE keeps them",
                )
            options = ["--clean", "--if-exists"] if existing else []
            options += [] if privileges else ["--no-privileges"]
            run(
                program,
                [
                    # Of an archive of the whole database only the graph's schema is taken.
                    *("--single-transaction", "--exit-on-error", "--no-password", "--no-owner"),
                    *(*options, f"--schema={schema}"),
                    *("--dbname", make_dsn(dbname=connection.info.dbname), str(path)),
                ],
                env,
            )
            counts = _counts(cursor, schema)
            found = {name: rows for name, rows in counts.items() if name in expected}
            if found != expected:
                raise BackupError(
                    f"restored, but then others wrote: {differences(expected, found)}",
                    "stop the writers, and restore again with --if-exists replace",
                )
            for name in expected:
                cursor.execute(SQL("ANALYZE {}").format(Identifier(schema, name)))
    return Restored(path, backend.name, expected, with_rows, time.monotonic() - began)


def _chosen(path: Path, contents: archive.Contents, schema: str) -> dict[str, int]:
    chosen = _of_schema(contents, schema)
    if not chosen:
        there = ", ".join(sorted({name for name, _ in contents}))
        raise BackupError(
            f"{path} holds no tables of schema {schema}, only of: {there}",
            "make that the first schema of the role's search path: ALTER ROLE … SET search_path",
        )
    return chosen


def _of_schema(contents: archive.Contents, schema: str) -> dict[str, int]:
    return {name: rows for (place, name), rows in contents.items() if place == schema}


def _current_schema(cursor: Cursor) -> str:
    cursor.execute("SELECT current_schema()")
    (schema,) = cursor.fetchone() or (None,)
    if schema is None:
        raise TargetError(
            "no schema of the search path exists",
            "create one, or set another: ALTER ROLE … SET search_path = …",
        )
    return str(schema)


def _tables(cursor: Cursor, schema: str) -> list[str]:
    """Return the tables that pg_dump writes rows of: those of extensions are not among them."""
    cursor.execute(
        "SELECT c.relname FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace"
        " WHERE n.nspname = %s AND c.relkind = 'r' AND NOT EXISTS (SELECT 1 FROM pg_depend d"
        " WHERE d.classid = 'pg_class'::regclass AND d.objid = c.oid AND d.deptype = 'e')"
        " ORDER BY c.relname",
        (schema,),
    )
    return [name for (name,) in cursor.fetchall()]


def _counts(cursor: Cursor, schema: str) -> dict[str, int]:
    try:
        return {name: count_rows(cursor, schema, name) for name in _tables(cursor, schema)}
    except InsufficientPrivilege as error:
        raise BackupError(
            str(error.diag.message_primary), f"GRANT SELECT ON ALL TABLES IN SCHEMA {schema} TO …"
        ) from None


def _has_rows(cursor: Cursor, schema: str, name: str) -> bool:
    cursor.execute(SQL("SELECT EXISTS (SELECT 1 FROM {})").format(Identifier(schema, name)))
    (there,) = cursor.fetchone() or (False,)
    return bool(there)
