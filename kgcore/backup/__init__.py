"""Backup and restore of a graph: pg_dump and pg_restore, or SQLite's backup, with verification.

A copy gets its name only after it was read back and holds, table by table, the rows that the
database held at the moment it was made of. Writers are not stopped.
"""

from pathlib import Path

from kgcore.backends import KGBackend, PostgreSQLBackend, SQLiteBackend
from kgcore.backup import postgres, sqlite
from kgcore.backup.model import Backup, IfExists, Restored
from kgcore.errors import SettingsError

__all__ = ["Backup", "Restored", "backup", "restore"]


def backup(
    backend: KGBackend, path: Path | str, *, overwrite: bool = False, bin_dir: Path | None = None
) -> Backup:
    """Write a verified copy of the graph to ``path``.

    On PostgreSQL it is an archive of ``pg_dump -Fc`` with everything in the first schema of the
    role's search path; on SQLite it is a SQLite file. Nobody but its owner may read it.
    ``bin_dir`` is where pg_dump and pg_restore are; by default they are looked for.

    Raises :class:`SettingsError` if ``path`` exists and ``overwrite`` is False,
    :class:`~kgcore.errors.BackupError` if no copy could be made or it doesn't hold what it should;
    then ``path`` is as it was.
    """
    if isinstance(backend, PostgreSQLBackend):
        return postgres.backup(backend, Path(path), overwrite=overwrite, bin_dir=bin_dir)
    return sqlite.backup(_sqlite(backend), Path(path), overwrite=overwrite)


def restore(
    backend: KGBackend,
    path: Path | str,
    *,
    if_exists: IfExists = "fail",
    privileges: bool = True,
    bin_dir: Path | None = None,
) -> Restored:
    """Bring the tables of a copy into the database: all of them or, after an error, none.

    Where one of them exists with rows it is refused, unless ``if_exists`` is ``"replace"``; empty
    ones are no obstacle. The tables belong to the role that restores; with ``privileges`` the
    copy's grants are given again. Afterwards all rows are counted.

    Raises :class:`~kgcore.errors.BackupError` with what mends it.
    """
    if isinstance(backend, PostgreSQLBackend):
        return postgres.restore(
            backend, Path(path), if_exists=if_exists, privileges=privileges, bin_dir=bin_dir
        )
    return sqlite.restore(_sqlite(backend), Path(path), if_exists=if_exists)


def _sqlite(backend: KGBackend) -> Path:
    if not isinstance(backend, SQLiteBackend):
        raise SettingsError(
            f"a {type(backend).__name__} can't be copied", "use a SQLite or PostgreSQL backend"
        )
    if str(backend.db_path) == ":memory:":
        raise SettingsError("a graph in memory has no file to copy", "open a file: db_path=…")
    return backend.db_path
