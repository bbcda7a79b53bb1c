"""Backup and restore of a SQLite file, through SQLite's own backup."""

import sqlite3
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from urllib.parse import quote

from kgcore.backup.files import SQLITE, differences, new_file, refuse_other_kind
from kgcore.backup.model import Backup, IfExists, Restored
from kgcore.errors import BackupError
from kgcore.schema import quoted

_BUSY_SECONDS = 30.0


def backup(source: Path, path: Path, *, overwrite: bool) -> Backup:
    """Copy a SQLite file: see :func:`kgcore.backup.backup`."""
    began = time.monotonic()
    refuse_other_kind(source, SQLITE)
    _refuse_leftovers(path)
    with new_file(path, overwrite=overwrite) as part:
        expected = _copied(source, part)
    return Backup(path, "sqlite", path.stat().st_size, expected, time.monotonic() - began)


def restore(target: Path, path: Path, *, if_exists: IfExists) -> Restored:
    """Put a copy in the place of a SQLite file: see :func:`kgcore.backup.restore`.

    An existing file is overwritten in place by one transaction of SQLite's: whoever has it open
    sees the old rows, then the new ones.
    """
    began = time.monotonic()
    refuse_other_kind(path, SQLITE)
    target.parent.mkdir(parents=True, exist_ok=True)
    if not target.exists() or target.stat().st_size == 0:
        _refuse_leftovers(target)
        with new_file(target, overwrite=True) as part:
            expected = _copied(path, part)
        return Restored(path, "sqlite", expected, (), time.monotonic() - began)
    refuse_other_kind(target, SQLITE)
    with _reading(target) as there:
        with_rows = tuple(sorted(name for name, rows in _counts(there).items() if rows))
        page_size = _page_size(there)
    if with_rows and if_exists == "fail":
        raise BackupError(
            f"{target} has rows in {', '.join(with_rows)}",
            "--if-exists replace overwrites them; kg backup FILE keeps them",
        )
    with (
        _with_pages(path, page_size, target.parent) as file,
        _reading(file) as source,
        _failing(target),
    ):
        expected = _sound(source, path)
        with closing(sqlite3.connect(target, timeout=_BUSY_SECONDS)) as writer:
            source.backup(writer, progress=_deadline(target))
    with _reading(target) as there:
        found = _counts(there)
    if found != expected:
        raise BackupError(
            f"restored, but then others wrote: {differences(expected, found)}",
            "stop the writers, and restore again with --if-exists replace",
        )
    return Restored(path, "sqlite", expected, with_rows, time.monotonic() - began)


@contextmanager
def _with_pages(path: Path, size: int, directory: Path) -> Iterator[Path]:
    """Give the file, or one in ``directory`` with the same content, whose pages are of this size.

    A database in WAL mode can't get others while it is open, so not by SQLite's backup either.
    """
    with _reading(path) as reader:
        if _page_size(reader) == size:
            yield path
            return
        _sound(reader, path)  # Damage might not be in what is written anew.
        with tempfile.TemporaryDirectory(prefix=".kg-restore-", dir=directory) as made:
            file = Path(made) / path.name
            with _failing(path):
                reader.execute("COMMIT")  # VACUUM can't be in a transaction.
                reader.execute(f"PRAGMA page_size = {size}")
                reader.execute("VACUUM INTO ?", (str(file),))
            yield file


def _page_size(connection: sqlite3.Connection) -> int:
    (size,) = connection.execute("PRAGMA page_size").fetchone()
    return int(size)


def _refuse_leftovers(path: Path) -> None:
    """Refuse a name beside which a WAL or journal lies: SQLite would mix it into the new file."""
    for suffix in ("-wal", "-journal"):
        leftover = path.with_name(path.name + suffix)
        if leftover.exists():
            raise BackupError(
                f"{leftover} belongs to a database that is in use or was not closed",
                "choose another name, or close that database and remove both files",
            )


def _copied(source: Path, part: Path) -> dict[str, int]:
    """Copy and verify; return the rows by table."""
    with _reading(source) as reader, _failing(source):
        expected = _counts(reader)
        with closing(sqlite3.connect(part, isolation_level=None)) as writer:
            reader.backup(writer)
            # The header still says WAL where the source was in that mode; a copy is one file.
            writer.execute("PRAGMA journal_mode = DELETE")
    with _reading(part) as copy:
        found = _sound(copy, part)
    if found != expected:
        raise BackupError(
            f"the copy does not hold what it should: {differences(expected, found)}",
            "it was thrown away; try again, and look at the disk",
        )
    return expected


@contextmanager
def _reading(path: Path) -> Iterator[sqlite3.Connection]:
    """Open a file for reading, as of one moment: a transaction is open until the block ends."""
    uri = f"file:{quote(str(path.absolute()))}?mode=ro"
    with _failing(path):
        connection = sqlite3.connect(uri, uri=True, timeout=_BUSY_SECONDS, isolation_level=None)
    with closing(connection):
        with _failing(path):
            connection.execute("PRAGMA trusted_schema = OFF")
            connection.execute("BEGIN")
            connection.execute("SELECT count(*) FROM sqlite_master").fetchone()
        yield connection


def _sound(connection: sqlite3.Connection, path: Path) -> dict[str, int]:
    """Return the rows by table; raise :class:`BackupError` if SQLite finds damage."""
    with _failing(path):
        (verdict,) = connection.execute("PRAGMA quick_check(1)").fetchone()
        if verdict != "ok":
            raise BackupError(f"{path} is damaged: {' '.join(verdict.split())}", "take another one")
        return _counts(connection)


def _counts(connection: sqlite3.Connection) -> dict[str, int]:
    names = connection.execute(
        # Not virtual tables, nor those in which they keep what is theirs.
        "SELECT name FROM pragma_table_list WHERE schema = 'main' AND type = 'table'"
        " AND name NOT LIKE 'sqlite\\_%' ESCAPE '\\' ORDER BY name"
    ).fetchall()
    return {
        name: connection.execute(f"SELECT count(*) FROM {quoted(name)}").fetchone()[0]
        for (name,) in names
    }


@contextmanager
def _failing(path: Path) -> Iterator[None]:
    try:
        yield
    except sqlite3.DatabaseError as error:
        raise BackupError(
            f"{path} can't be copied: {error}", "kg backup and kg restore changed nothing"
        ) from None


def _deadline(target: Path) -> Callable[[int, int, int], None]:
    """Return what ends a backup that waits for a writer: SQLite's own timeout isn't heeded."""
    end = time.monotonic() + _BUSY_SECONDS

    def check(status: int, _remaining: int, _pages: int) -> None:
        if status in {sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED} and time.monotonic() > end:
            raise BackupError(
                f"{target}: another writer kept the lock for {_BUSY_SECONDS:g} s",
                "end its transaction, and restore again",
            )

    return check
