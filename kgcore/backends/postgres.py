"""The graph in PostgreSQL."""

import math
import re
import threading
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import psycopg2
from psycopg2.errors import InFailedSqlTransaction, InsufficientPrivilege, ReadOnlySqlTransaction
from psycopg2.extensions import TRANSACTION_STATUS_INERROR
from psycopg2.extensions import connection as Connection  # noqa: N812
from psycopg2.extensions import cursor as Cursor  # noqa: N812
from psycopg2.extras import execute_batch

from kgcore.backends.base import KGBackend, NotARead, Params, Row, T, Take, all_rows
from kgcore.backends.casters import read_quickly, with_instants
from kgcore.backends.connect_errors import OLDEST, connect_error, too_old
from kgcore.backends.parameters import portable
from kgcore.backends.placeholders import to_psycopg2
from kgcore.backends.pool import ConnectionPool, PoolStats
from kgcore.backends.replicas import NoReplica, Replicas, ReplicaStats
from kgcore.backends.threads import PerThread
from kgcore.config import Address, parse_address
from kgcore.errors import SettingsError, TargetError
from kgcore.schema.graph import TABLES
from kgcore.schema.postgres import all_indexes, postgres_ddl

_PAGE_ROWS = 1000
_SCHEMA_LOCK = 7_710_183_401_552_946_017  # Any number that nobody else locks.

# Others are not tried as reads: the server would refuse them, and log that as an error. A comment
# ends at its first end (?>…): else several would be tried as one, in ways that double with each.
_MAY_READ = re.compile(
    r"(?:\s|--[^\n]*\n|(?>/\*.*?\*/)|\(|SET\s+LOCAL\s[^;']*;)*(SELECT|WITH|VALUES|TABLE|SHOW|EXPLAIN)\b",
    re.I | re.S,
)
# One round trip, where BEGIN, the statement and ROLLBACK would be three. The line end keeps the
# caller's statement on lines of its own in the server's messages.
_READ_ONLY = "SET TRANSACTION READ ONLY;\n"


class PostgreSQLBackend(KGBackend):
    """A PostgreSQL database, through a :class:`ConnectionPool` of its own.

    A parameter left None is not passed to libpq, so that its own rules hold: ``PGHOST``,
    ``PGPASSFILE``, service files. Further keywords (``application_name``, ``connect_timeout``) are
    libpq's. At most ``pool_size + max_overflow`` connections are open at a time; a thread that
    needs one more waits up to ``pool_timeout`` seconds for it, then :class:`PoolTimeoutError`.

    A thread holds a connection from its first :meth:`execute` to :meth:`commit` or
    :meth:`rollback`; a fetch outside a transaction holds one while it lasts. Nothing is left in a
    session between transactions, so PgBouncer may pool transactions. A fork's child gets
    connections of its own.

    JSONB comes back as ``dict`` or ``list``, timestamps as aware :class:`~datetime.datetime`.
    """

    name = "postgres"

    def __init__(
        self,
        host: str | None = None,
        port: int | None = None,
        database: str | None = None,
        user: str | None = None,
        password: str | None = None,
        pool_size: int = 10,
        max_overflow: int = 20,
        sslmode: str | None = None,
        sslrootcert: Path | str | None = None,
        pool_timeout: float = 30.0,
        replicas: Sequence[str] = (),
        replica_max_lag: float = 10.0,
        **libpq: Any,
    ) -> None:
        named = {
            "host": host,
            "port": port,
            "dbname": database,
            "user": user,
            "password": password,
            "sslmode": sslmode,
            "sslrootcert": None if sslrootcert is None else str(sslrootcert),
            **libpq,
        }
        self._parameters = {name: value for name, value in named.items() if value is not None}
        self._pool_options = (pool_size, max_overflow, pool_timeout)
        self._replica_hosts = _replica_hosts(replicas)
        self._replica_max_lag = replica_max_lag
        self._mine: PerThread[_Lent] = PerThread()
        self._written = threading.local()
        self._set_up()

    def __repr__(self) -> str:
        shown = ("host", "port", "dbname", "user")
        facts = (f"{name}={self._parameters[name]!r}" for name in shown if name in self._parameters)
        return f"PostgreSQLBackend({', '.join(facts)})"

    def connect(self) -> None:
        """Open the first connection and use it. Raises :class:`TargetError` with what mends it."""
        if self.pool.closed:
            self._set_up()
        with self.pool.connection() as connection, connection.cursor() as cursor:
            try:
                # A pooler between says yes before it has asked the server, or lets no BEGIN pass.
                cursor.execute("SELECT 1")
            except psycopg2.OperationalError as error:
                raise connect_error(error, self._parameters) from None

    def init_schema(self) -> None:
        """Create what is missing of the graph's tables and indexes, and commit.

        They are created in the first schema of the search path. Raises :class:`TargetError` if
        there is none, or the role may not create in it.
        """
        with self.transaction():  # So that it is the primary who answers.
            schema = self._current_schema()
            is_complete = self._is_complete(schema)
        if is_complete:
            return
        try:
            with self.transaction(), self._connection().cursor() as cursor:
                cursor.execute("SELECT pg_advisory_xact_lock(%s)", (_SCHEMA_LOCK,))
                for statement in postgres_ddl(schema):
                    cursor.execute(statement)
        except InsufficientPrivilege as error:
            raise TargetError(
                f"the graph's tables can't be created: {error.diag.message_primary}",
                f'as the owner of the database: GRANT USAGE, CREATE ON SCHEMA "{schema}" TO'
                f" {self._parameters.get('user', '<user>')}",
            ) from None

    def pool_stats(self) -> PoolStats:
        """Return how many connections to the primary are open, available, waited for."""
        return self.pool.stats()

    def replica_pool_stats(self) -> dict[str, PoolStats]:
        """Return the same of each replica's pool, by its name."""
        return {} if self._replicas is None else self._replicas.pool_stats()

    def replica_stats(self) -> dict[str, ReplicaStats]:
        """Return how far each replica is behind, and why one is not read from, by its name."""
        return {} if self._replicas is None else self._replicas.stats()

    def read(self, sql: str, params: Params = ()) -> list[Row]:
        """Return all rows of a statement of which the caller knows that it only reads.

        Timestamps come as ISO 8601 text that ends in Z.
        """
        if self._replicas is not None or self.in_transaction:
            return with_instants(self.fetchall(sql, params))
        return self._in_autocommit(sql, params, read_quickly)

    def fetch_and_commit(self, sql: str, params: Params = ()) -> list[Row]:
        """Run a statement that writes, in one round trip; return its rows."""
        if self.in_transaction:
            return self.fetchall(sql, params)
        try:
            return self._in_autocommit(sql, params)
        finally:
            self._note_write()

    def commit(self) -> None:
        """End this thread's transaction and keep its work.

        Raises :class:`psycopg2.errors.InFailedSqlTransaction` after a statement that failed: the
        server would undo everything and call that success.
        """
        lent = self._mine.take()
        if lent is None:
            return
        try:
            if lent.connection.info.transaction_status == TRANSACTION_STATUS_INERROR:
                raise InFailedSqlTransaction(
                    "a statement of this transaction failed, so all of it was rolled back"
                )
            lent.connection.commit()
        finally:
            self._note_write()
            lent.give_back()

    def rollback(self) -> None:
        """End this thread's transaction and undo its work."""
        lent = self._mine.take()
        if lent is not None:
            lent.give_back()  # Which rolls back.

    def close(self) -> None:
        """Roll this thread's transaction back and close the pool.

        Connections in use by other threads are closed when their transaction ends.
        """
        self.rollback()
        self.pool.close()
        if self._replicas is not None:
            self._replicas.close()

    @property
    def in_transaction(self) -> bool:
        """Whether this thread has an open transaction."""
        return self._mine.get() is not None

    def _set_up(self) -> None:
        """Make the pools; nothing is connected to."""
        pool_size, max_overflow, _ = self._pool_options
        self.pool = ConnectionPool(partial(_open, self._parameters), *self._pool_options)
        self._replicas: Replicas | None = None
        if self._replica_hosts:
            openers = {
                name: partial(_open, _as_replica(self._parameters, host, port))
                for name, (host, port) in self._replica_hosts.items()
            }
            self._replicas = Replicas(
                openers, self.pool, self._replica_max_lag, pool_size, max_overflow
            )

    def _note_write(self) -> None:
        if self._replicas is not None:
            self._written.at = time.monotonic()

    def _wrote_at(self) -> float:
        return getattr(self._written, "at", -math.inf)

    def _begin(self) -> None:
        pool = self.pool  # After close() and connect() it is another.
        lent = _Lent(pool.getconn(), pool)
        try:
            self._mine.set(lent, _Lent.give_back)
        except BaseException:  # Ctrl-C.
            lent.give_back()
            raise

    def _connection(self) -> Connection:
        lent = self._mine.get()
        if lent is None:
            raise TargetError("this thread has no open transaction", "begin one with execute()")
        return lent.connection

    def _in_autocommit(
        self, sql: str, params: Params, prepare: Callable[[Cursor], None] | None = None
    ) -> list[Row]:
        pool = self.pool
        connection = pool.getconn()
        try:
            connection.autocommit = True  # BEGIN and COMMIT around it would be two round trips.
            cursor = connection.cursor()  # Closed when it is dropped; a block took 0.3 µs more.
            if prepare is not None:
                prepare(cursor)
            cursor.execute(to_psycopg2(sql), portable(params))
            return all_rows(cursor)
        finally:
            pool.putconn(connection)

    def _run(self, sql: str, params: Params, take: Take[T]) -> T:
        with self._connection().cursor() as cursor:
            cursor.execute(to_psycopg2(sql), portable(params))
            return take(cursor)

    def _run_counted(self, sql: str, params: Params) -> int:
        return self._run(sql, params, _changed_rows)

    def _run_many(self, sql: str, seq: Iterable[Params]) -> None:
        with self._connection().cursor() as cursor:
            execute_batch(cursor, to_psycopg2(sql), map(portable, seq), _PAGE_ROWS)

    def _read(self, sql: str, params: Params, take: Take[T]) -> T:
        if _MAY_READ.match(sql) is None:
            raise NotARead

        def read(connection: Connection) -> T:
            connection.autocommit = True
            with connection.cursor() as cursor:
                try:
                    cursor.execute(_READ_ONLY + to_psycopg2(sql), portable(params))
                except ReadOnlySqlTransaction:
                    raise NotARead from None
                return take(cursor)

        if self._replicas is not None:
            with suppress(NoReplica):
                return self._replicas.read(self._wrote_at(), read)
        with self.pool.connection() as connection:
            return read(connection)

    def _current_schema(self) -> str:
        row = self.fetchone("SELECT current_schema() AS name")
        if row is None or row["name"] is None:
            raise TargetError(
                "no schema of the search path exists",
                "create one, or set another: ALTER ROLE … SET search_path = …",
            )
        return str(row["name"])

    def _is_complete(self, schema: str) -> bool:
        """Whether nothing is missing: CREATE … IF NOT EXISTS would wait for all writers even so."""
        names = [table.name for table in TABLES]
        for table in TABLES:
            names += [index.name for index in all_indexes(table)]
        row = self.fetchone(
            "SELECT count(*) AS found FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace"
            " WHERE n.nspname = ? AND c.relname IN (SELECT jsonb_array_elements_text(?))",
            (schema, names),
        )
        return row is not None and row["found"] == len(names)


class _Lent(NamedTuple):
    """A connection, and the pool that it goes back to."""

    connection: Connection
    pool: ConnectionPool

    def give_back(self) -> None:
        """Return it, in whatever state it is."""
        self.pool.putconn(self.connection)


def _changed_rows(cursor: Any) -> int:
    # rowcount alone is the number of rows a SELECT returned, too.
    command = (cursor.statusmessage or "").partition(" ")[0]
    return int(cursor.rowcount) if command in {"INSERT", "UPDATE", "DELETE", "MERGE"} else 0


def _open(parameters: Mapping[str, Any]) -> Connection:
    try:
        connection: Connection = psycopg2.connect(**parameters, client_encoding="UTF8")
    except psycopg2.OperationalError as error:
        raise connect_error(error, parameters) from None
    except psycopg2.ProgrammingError as error:  # libpq knows no such parameter.
        raise SettingsError(str(error).strip(), "see libpq's connection parameters") from None
    if connection.server_version < OLDEST * 10000:
        connection.close()
        raise too_old(connection.server_version)
    return connection


def _replica_hosts(replicas: Sequence[str]) -> dict[str, Address]:
    try:
        return {name: parse_address(name) for name in replicas}
    except ValueError as error:
        raise SettingsError(str(error), "set PG_REPLICA_HOSTS to host:port,host:port") from None


def _as_replica(parameters: Mapping[str, Any], host: str, port: int | None) -> dict[str, Any]:
    """Return the parameters for a replica: the primary's, and no long waits for a dead one."""
    chosen = {"connect_timeout": 3, "tcp_user_timeout": 5000} | dict(parameters) | {"host": host}
    chosen.pop("hostaddr", None)
    return chosen if port is None else chosen | {"port": port}
