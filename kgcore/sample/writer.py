"""Write a new graph: rows first, indexes after them, the final name last.

Everything is written under a temporary name beside the final one (``.NAME.xxxxxxxx.partial``), so a
run that is killed leaves no half graph under the name that was asked for.
"""

import os
import secrets
import sqlite3
from collections.abc import Callable, Iterable, Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass
from pathlib import Path

from kgcore.errors import SettingsError
from kgcore.model import Table
from kgcore.schema import TABLES, quoted, sqlite_ddl

#: Called with the name of the stage, what is done of it, and its total.
Progress = Callable[[str, int, int], None]
Row = tuple[str | int | float | None, ...]

# Rows between two reports: a few a second, and no measurable cost.
_REPORT_ROWS = 20_000
# Files by which SQLite recovers a database of that name: beside a new one they would damage it.
_SIDECARS = ("-wal", "-shm", "-journal")


@dataclass(frozen=True, slots=True)
class SampleCounts:
    """What was written: the rows of each table, and the size of the file."""

    entities: int
    relationships: int
    missions: int
    snapshots: int
    bytes: int


class GraphWriter:
    """Inserts rows into a graph that is being made; it comes from :func:`new_graph`."""

    def __init__(self, connection: sqlite3.Connection, progress: Progress | None) -> None:
        self._connection = connection
        self._progress = progress
        self._inserted = {table.name: 0 for table in TABLES}

    def report(self, stage: str, done: int, total: int) -> None:
        """Tell the caller's ``progress``, if there is one."""
        if self._progress is not None:
            self._progress(stage, done, total)

    def insert(self, table: Table, rows: Iterable[Row]) -> None:
        """Insert rows whose values stand in the order of the table's columns."""
        marks = ", ".join("?" * len(table.columns))
        cursor = self._connection.executemany(
            f"INSERT INTO {quoted(table.name)} VALUES ({marks})", rows
        )
        self._inserted[table.name] += max(cursor.rowcount, 0)

    def insert_all(self, table: Table, rows: Iterable[Row], total: int) -> None:
        """Insert all of a table's rows, of which there are ``total``, and report on the way."""
        self.insert(table, self._reported(table.name, rows, total))
        self.report(table.name, total, total)

    def execute(self, statement: str, values: Row = ()) -> None:
        """Run a statement that changes what was inserted."""
        self._connection.execute(statement, values)

    def counts(self, size: int) -> SampleCounts:
        """Return what was inserted so far, for a file of ``size`` bytes."""
        entities, relationships, missions, snapshots = (self._inserted[t.name] for t in TABLES)
        return SampleCounts(entities, relationships, missions, snapshots, size)

    def _reported(self, stage: str, rows: Iterable[Row], total: int) -> Iterator[Row]:
        for done, row in enumerate(rows):
            if done % _REPORT_ROWS == 0:
                self.report(stage, done, total)
            yield row


def make_graph(
    path: Path, fill: Callable[[GraphWriter], None], *, overwrite: bool, progress: Progress | None
) -> SampleCounts:
    """Make the graph ``path`` of the rows that ``fill`` inserts, and return what was written.

    Raises :class:`SettingsError` if the file exists and ``overwrite`` is False, or if it can't be
    written. Whatever ``fill`` raises goes through; nothing is left behind then.
    """
    _refuse_existing(path, overwrite=overwrite)
    partial = path.with_name(f".{path.name}.{secrets.token_hex(4)}.partial")
    try:
        with _told_to_user(path):
            with closing(_open(partial)) as connection:
                writer = GraphWriter(connection, progress)
                _build(connection, writer, fill)
            _publish(partial, path)
            return writer.counts(path.stat().st_size)
    finally:
        partial.unlink(missing_ok=True)


def _refuse_existing(path: Path, *, overwrite: bool) -> None:
    if path.is_dir():
        raise SettingsError(f"{path} is a directory", "name the file to write")
    if not path.parent.is_dir():
        raise SettingsError(f"the directory {path.parent} does not exist", "make it first")
    if overwrite:
        return
    for existing in (path, *_sidecars(path)):
        if existing.exists() or existing.is_symlink():
            raise SettingsError(f"{existing} exists", "give --force to replace it")


def _sidecars(path: Path) -> Iterator[Path]:
    return (path.with_name(path.name + suffix) for suffix in _SIDECARS)


def _open(partial: Path) -> sqlite3.Connection:
    connection = sqlite3.connect(partial, isolation_level=None)
    for setting in (
        "journal_mode=OFF",
        "synchronous=OFF",
        "locking_mode=EXCLUSIVE",
        "cache_size=-65536",
        "threads=2",
    ):
        connection.execute(f"PRAGMA {setting}").fetchall()
    return connection


def _build(
    connection: sqlite3.Connection, writer: GraphWriter, fill: Callable[[GraphWriter], None]
) -> None:
    statements = sqlite_ddl()
    # An index made after the rows is sorted once; kept up row by row it takes a multiple of that.
    indexes = [statement for statement in statements if statement.startswith("CREATE INDEX")]
    connection.execute("BEGIN")
    for statement in statements:
        if statement not in indexes:
            connection.execute(statement)
    fill(writer)
    for done, statement in enumerate(indexes):
        writer.report("indexes", done, len(indexes))
        connection.execute(statement)
    connection.execute("COMMIT")
    connection.execute("PRAGMA journal_mode=DELETE").fetchall()
    writer.report("indexes", len(indexes), len(indexes))


def _publish(partial: Path, path: Path) -> None:
    with partial.open("rb") as file:
        os.fsync(file.fileno())
    for sidecar in _sidecars(path):
        sidecar.unlink(missing_ok=True)
    partial.replace(path)


@contextmanager
def _told_to_user(path: Path) -> Iterator[None]:
    try:
        yield
    except (sqlite3.OperationalError, OSError) as error:
        raise SettingsError(
            f"{path} can't be written: {error}",
            "check the free space and the permissions of its directory",
        ) from error
