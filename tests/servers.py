"""What the server fixtures hand to a test."""

import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import psycopg2

from workers.embedded import PostgresServer

# Tests kill servers but cut no power: what was written to the kernel is there again. Commits stay
# synchronous, or the last of them would be lost with the server.
FAST = {
    "fsync": "off",
    "full_page_writes": "off",
    "max_connections": "200",
    "max_wal_size": "4GB",
}
PostgresConnection = Any  # psycopg2's stubs give its cursors no useful types.


@dataclass(frozen=True)
class Database:
    """One database of a private server: empty at first, dropped after the test."""

    server: PostgresServer
    database: str
    _connections: list[PostgresConnection] = field(default_factory=list, repr=False)

    @property
    def host(self) -> str:
        return self.server.host

    @property
    def port(self) -> int:
        return self.server.port

    @property
    def user(self) -> str:
        return self.server.user

    @property
    def password(self) -> str:
        return self.server.password

    @property
    def parameters(self) -> dict[str, Any]:
        """The arguments host, port, database, user and password."""
        return {
            "host": self.host,
            "port": self.port,
            "database": self.database,
            "user": self.user,
            "password": self.password,
        }

    def environment(self) -> dict[str, str]:
        """The ``PG_`` variables, for the environment of a subprocess."""
        return {f"PG_{name.upper()}": str(value) for name, value in self.parameters.items()}

    def connect(self, **overrides: Any) -> PostgresConnection:
        """Open a connection in autocommit mode; it is closed after the test."""
        connection = psycopg2.connect(**(self.parameters | overrides))
        connection.autocommit = True
        self._connections.append(connection)
        return connection

    def rows(self, sql: Any, params: Any = ()) -> list[tuple[Any, ...]]:
        """Run a statement in a connection of its own; return its rows, none if it has none."""
        connection = self.connect()
        try:
            with connection.cursor() as cursor:
                cursor.execute(sql, params or None)
                return [] if cursor.description is None else cursor.fetchall()
        finally:
            connection.close()

    def close(self) -> None:
        """Close the connections that were opened through this object."""
        while self._connections:
            self._connections.pop().close()


@contextmanager
def fresh_database(server: PostgresServer) -> Iterator[Database]:
    """Make an empty database in the server, and drop it at the end, whoever is connected to it."""
    name = f"test_{next(_numbers)}"
    administration = Database(server, "postgres")
    administration.rows(f'CREATE DATABASE "{name}" STRATEGY file_copy')
    database = Database(server, name)
    try:
        yield database
    finally:
        database.close()
        administration.rows(f'DROP DATABASE IF EXISTS "{name}" WITH (FORCE)')


@contextmanager
def server_directory() -> Iterator[Path]:
    """Make a directory that a server's own user can enter (``tmp_path`` is closed to it)."""
    directory = Path(tempfile.mkdtemp(prefix="jarvis-kg-"))
    directory.chmod(0o755)
    try:
        yield directory
    finally:
        shutil.rmtree(directory)


def launcher() -> tuple[str, ...]:
    """Return the command that makes a server end with this process, even if that is killed."""
    return ("setpriv", "--pdeathsig", "INT") if shutil.which("setpriv") else ()


def _count() -> Iterator[int]:
    number = 0
    while True:
        number += 1
        yield number


_numbers = _count()
