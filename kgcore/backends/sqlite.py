"""The graph in a SQLite file."""

import os
import shutil
import sqlite3
import tempfile
import time
import weakref
from collections.abc import Iterable
from contextlib import closing
from pathlib import Path
from typing import Any

from kgcore.backends.base import KGBackend, NotARead, Params, T, Take
from kgcore.backends.parameters import sqlite_parameters
from kgcore.backends.sqlite_connection import ThreadConnection
from kgcore.backends.threads import PerThread
from kgcore.errors import SourceError
from kgcore.schema import sqlite_ddl

BUSY_SECONDS = 30.0
_RETRY_SECONDS = 0.02


class SQLiteBackend(KGBackend):
    """A SQLite file, in WAL mode; it and its directory are created where they are missing.

    Each thread has a connection of its own. Readers never wait. A transaction takes the one write
    lock when it begins (``BEGIN IMMEDIATE``) and waits for it up to 30 seconds, then raises
    :class:`SourceError`. One that began with a read and then wrote would fail at once wherever
    another had written in between. So keep transactions short, and read outside them.

    ``:memory:`` is a database of this object's, shared by its threads, gone when it is closed. It
    is a temporary file: SQLite's own lets no one read while another writes.

    JSON and timestamps are text here: ``row["metadata"]`` is a ``str``. An open backend can't be
    taken through a fork, because SQLite's file locks don't survive one: close it before.
    """

    name = "sqlite"

    def __init__(self, db_path: Path | str) -> None:
        self.db_path = Path(db_path)
        self._in_memory = str(db_path) == ":memory:"
        self._file = self._temporary_file() if self._in_memory else self.db_path
        self._mine: PerThread[ThreadConnection] = PerThread()
        self._open: set[ThreadConnection] = set()
        self._pid = os.getpid()
        self._closed = False

    def __repr__(self) -> str:
        return f"SQLiteBackend({str(self.db_path)!r})"

    def connect(self) -> None:
        """Open the file. Raises :class:`SourceError` if it can't be, or is no SQLite database."""
        if self._closed:
            self._closed = False
            if self._in_memory:
                self._file = self._temporary_file()
        with self._call():
            pass

    def init_schema(self) -> None:
        """Create what is missing of the graph's tables and indexes, and commit."""
        try:
            for statement in sqlite_ddl():
                self._read(statement, (), _drained)  # Passes if nothing is missing.
        except NotARead:
            with self.transaction():
                for statement in sqlite_ddl():
                    self.execute(statement)

    def commit(self) -> None:
        """End this thread's transaction and keep its work."""
        self._end("COMMIT")

    def rollback(self) -> None:
        """End this thread's transaction and undo its work."""
        self._end("ROLLBACK")

    def close(self) -> None:
        """Undo this thread's transaction and close the connections, also those of other threads.

        One that another thread has in a call or a transaction is closed when that ends; until then
        its work may still be committed.
        """
        self.rollback()
        self._closed = True  # Before the look at what is open: see _connect.
        if self._pid == os.getpid():
            for connection in self._open.copy():
                connection.retire()
            if self._in_memory:
                shutil.rmtree(self._file.parent, ignore_errors=True)

    @property
    def in_transaction(self) -> bool:
        """Whether this thread has an open transaction."""
        connection = self._mine.get()
        return connection is not None and connection.in_transaction

    def _begin(self) -> None:
        try:
            with self._call() as connection:
                connection.execute("PRAGMA query_only = OFF")
                connection.execute("BEGIN IMMEDIATE")
        except sqlite3.OperationalError as error:
            self.rollback()
            if not _is(error, sqlite3.SQLITE_BUSY):
                raise
            raise SourceError(
                f"{self.db_path}: another writer kept the lock for {BUSY_SECONDS:g} s",
                "end its transaction; PostgreSQL (KG_BACKEND=postgres) lets many write at once",
            ) from None

    def _end(self, command: str) -> None:
        mine = self._mine.get()
        if mine is None or not mine.begin_call():
            return
        with mine as connection:
            if connection.in_transaction:
                connection.execute(command)
            # Outside a transaction nothing is written: SQLite itself tells reads from writes.
            connection.execute("PRAGMA query_only = ON")

    def _run(self, sql: str, params: Params, take: Take[T]) -> T:
        with self._call() as connection:
            cursor = connection.cursor()
            try:
                cursor.execute(sql, sqlite_parameters(params))
                return take(cursor)
            finally:  # One that stays open would keep its snapshot, and the WAL could not shrink.
                cursor.close()

    def _run_counted(self, sql: str, params: Params) -> int:
        with self._call() as connection:
            before = connection.total_changes
            rows = self._run(sql, params, _drained)
            if rows >= 0 or connection.total_changes == before:
                return max(rows, 0)
        # The driver doesn't count for statements that begin with WITH.
        return self._run("SELECT changes()", (), lambda cursor: int(cursor.fetchone()[0]))

    def _run_many(self, sql: str, seq: Iterable[Params]) -> None:
        with self._call() as connection, closing(connection.cursor()) as cursor:
            cursor.executemany(sql, map(sqlite_parameters, seq))

    def _read(self, sql: str, params: Params, take: Take[T]) -> T:
        try:
            return self._run(sql, params, take)
        except sqlite3.OperationalError as error:
            if _is(error, sqlite3.SQLITE_READONLY):
                raise NotARead from None
            raise

    def _call(self) -> ThreadConnection:
        """Return this thread's connection for a ``with`` block, in which it stays open."""
        mine = self._mine.get()
        while mine is None or not mine.begin_call():
            mine = self._connect()
        return mine

    def _connect(self) -> ThreadConnection:
        """Give this thread a connection; another's :meth:`close` may close it at any moment."""
        file = self._file
        if self._closed:
            raise SourceError(f"{self.db_path}: the backend is closed", "call connect() first")
        if not self._open:
            self._pid = os.getpid()
        elif self._pid != os.getpid():
            raise SourceError(
                f"{self.db_path} is open in the process this one was forked from",
                "close the backend before the fork, and connect after it",
            )
        try:
            file.parent.mkdir(parents=True, exist_ok=True)
            made = ThreadConnection(_opened(file), on_close=self._open.discard)
        except (OSError, sqlite3.DatabaseError) as error:
            raise SourceError(
                f"{self.db_path} can't be used as SQLite database: {error}",
                "check SQLITE_DB_PATH, and the rights to the file and its directory",
            ) from None
        self._mine.take()
        self._mine.set(made, ThreadConnection.close)
        self._open.add(made)
        if self._closed or self._file is not file:  # A close() that missed it has come meanwhile.
            made.retire()
        return made

    def _temporary_file(self) -> Path:
        directory = Path(tempfile.mkdtemp(prefix="jarvis-kg-"))
        weakref.finalize(self, _remove, directory, os.getpid())
        return directory / "memory.db"


def _remove(directory: Path, owner: int) -> None:
    if os.getpid() == owner:  # And not in a forked child that ends.
        shutil.rmtree(directory, ignore_errors=True)


def _opened(file: Path) -> sqlite3.Connection:
    # Not the same thread: any may close the backend, and with it the others' connections.
    connection = sqlite3.connect(
        file, timeout=BUSY_SECONDS, isolation_level=None, check_same_thread=False
    )
    try:
        _use_wal(connection)
        connection.execute("PRAGMA foreign_keys = ON")
        connection.execute("PRAGMA query_only = ON")
    except BaseException:
        connection.close()
        raise
    return connection


def _use_wal(connection: sqlite3.Connection) -> None:
    # While others do the same SQLite refuses at once, whatever the timeout: waiting could deadlock.
    deadline = time.monotonic() + BUSY_SECONDS
    while True:
        try:
            connection.execute("PRAGMA journal_mode = WAL")
        except sqlite3.OperationalError as error:
            if not _is(error, sqlite3.SQLITE_BUSY) or time.monotonic() > deadline:
                raise
            time.sleep(_RETRY_SECONDS)
        else:
            return


def _drained(cursor: Any) -> int:
    cursor.fetchall()  # The driver counts when the statement is through, and RETURNING has rows.
    return int(cursor.rowcount)


def _is(error: sqlite3.Error, code: int) -> bool:
    return error.sqlite_errorcode & 0xFF == code  # Without the extension in the upper bits.
