"""How the graph's statements are run: committed one by one, and tried again when they collide."""

from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from functools import partial
from typing import Any, TypeVar

import psycopg2
from psycopg2.errors import DeadlockDetected, LockNotAvailable, SerializationFailure
from tenacity import Retrying, retry_if_exception, stop_after_delay, wait_random_exponential

from kgcore.backends import KGBackend, PostgreSQLBackend, Row
from kgcore.backends.casters import instant_text
from kgcore.errors import TargetUnreachableError
from kgcore.graph.dialect import NOW, POSTGRES, SQLITE

T = TypeVar("T")
Params = Sequence[Any]

#: A server's restart takes seconds; a deadlock is found by PostgreSQL after one.
RETRY_SECONDS = 15.0
_FIRST_WAIT_SECONDS = 0.02
_LONGEST_WAIT_SECONDS = 1.0

_COLLISIONS = (SerializationFailure, DeadlockDetected, LockNotAvailable)


class Session:
    """Runs statements on a backend. All threads may use one object.

    Outside a transaction of the caller's, each statement is committed by itself. It is tried again
    for up to 15 seconds where nothing of it happened: a serialization failure, a deadlock, a lock
    timeout, a server that can't be connected to at this moment. Where the connection was lost in
    the middle nobody knows whether it happened: then it is tried again only if twice makes no
    difference to the graph. In a transaction of the caller's nothing is tried again, because all of
    it would have to be.
    """

    def __init__(self, backend: KGBackend) -> None:
        self.backend = backend
        self.dialect = POSTGRES if isinstance(backend, PostgreSQLBackend) else SQLITE

    def rows(self, sql: str, params: Params = (), *, heavy: bool = False) -> list[Row]:
        """Return the rows of a statement that only reads; ``heavy`` if it may look at much."""
        if heavy:
            sql = self.dialect.heavy + sql
        return self._retried(self.backend.read, sql, params, repeatable=True)

    def row(self, sql: str, params: Params = ()) -> Row | None:
        """Return the first row of a statement that only reads, or None."""
        return next(iter(self.rows(sql, params)), None)

    def records(self, sql: str, params: Params = (), *, heavy: bool = False) -> list[Row]:
        """Return the rows of :meth:`rows` as the graph's callers get them."""
        return [self.dialect.record(row) for row in self.rows(sql, params, heavy=heavy)]

    def record(self, sql: str, params: Params = ()) -> Row | None:
        """Return the first row as the graph's callers get it, or None."""
        return next(iter(self.records(sql, params)), None)

    def write(self, sql: str, params: Params = (), *, repeatable: bool = True) -> list[Row]:
        """Run a statement that writes; return its rows.

        ``repeatable`` says that doing it twice is the same as once.
        """
        return self._retried(self._write, sql, params, repeatable=repeatable)

    def atomically(self, work: Callable[[], T], *, repeatable: bool) -> T:
        """Do work of several statements in one transaction."""

        def in_transaction() -> T:
            with self.backend.transaction():
                return work()

        return self._retried(in_transaction, repeatable=repeatable)

    def _write(self, sql: str, params: Params) -> list[Row]:
        backend = self.backend
        if self.dialect.is_postgres or backend.in_transaction:
            return backend.fetch_and_commit(sql, self._with_time(params))
        with backend.transaction():
            # The time is taken when the write lock is held: times follow the order of the writes.
            return backend.fetchall(sql, self._with_time(params))

    def _with_time(self, params: Params) -> Params:
        now = None if self.dialect.is_postgres else instant_text(datetime.now(UTC))
        return [now if value is NOW else value for value in params]

    def _retried(self, work: Callable[..., T], *arguments: Any, repeatable: bool) -> T:
        try:
            return work(*arguments)  # At first without tenacity: it takes longer than a short read.
        except Exception as error:
            if not self._may_try_again(error, repeatable=repeatable):
                raise
        may_try_again = partial(self._may_try_again, repeatable=repeatable)
        return Retrying(
            retry=retry_if_exception(may_try_again),
            stop=stop_after_delay(RETRY_SECONDS),
            wait=wait_random_exponential(_FIRST_WAIT_SECONDS, _LONGEST_WAIT_SECONDS),
            reraise=True,
        )(work, *arguments)

    def _may_try_again(self, error: BaseException, *, repeatable: bool) -> bool:
        if self.backend.in_transaction:
            return False  # All of it would have to be done again.
        if isinstance(error, TargetUnreachableError):
            return error.passing
        return isinstance(error, _COLLISIONS) or (repeatable and is_lost(error))


def is_lost(error: BaseException) -> bool:
    """Whether PostgreSQL's connection broke in the middle of a statement."""
    if isinstance(error, psycopg2.InterfaceError):
        return True
    if not isinstance(error, psycopg2.DatabaseError):
        return False
    if error.pgcode is None:  # libpq's own words, not the server's.
        return type(error) in {psycopg2.OperationalError, psycopg2.DatabaseError}
    return error.pgcode in {"57P01", "57P02", "57P03"} or error.pgcode.startswith("08")


class Part:
    """A part of the graph's API: what :class:`KnowledgeGraph` is put together from."""

    _session: Session
