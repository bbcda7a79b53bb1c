"""A pool of psycopg2 connections.

Its own, because psycopg2's ``ThreadedConnectionPool`` raises at once when all connections are in
use, hands out dead ones, and connects under its lock, so that one slow connect stops every thread;
psycopg_pool is for psycopg 3, and SQLAlchemy's pool would bring all of SQLAlchemy.
"""

import os
import select
import threading
import time
import weakref
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

import psycopg2
from psycopg2.extensions import TRANSACTION_STATUS_IDLE, TRANSACTION_STATUS_INERROR
from psycopg2.extensions import TRANSACTION_STATUS_INTRANS
from psycopg2.extensions import connection as Connection  # noqa: N812

from kgcore.errors import PoolTimeoutError, SettingsError, TargetError

# A server that ends a connection is noticed at any time. One that vanished, or a firewall that
# forgot the connection, only by asking: so often that is worth a round trip.
_TRUSTED_SECONDS = 5.0


@dataclass(frozen=True, slots=True)
class PoolStats:
    """A pool at one moment; ``opened``, ``closed`` and ``waited_seconds`` count from its start."""

    size: int  # Open connections: idle + in_use.
    available: int  # Could be had now without waiting: idle ones, and those not yet opened.
    in_use: int  # Lent out, or just being opened, checked or taken back.
    idle: int
    waiting: int  # Threads that wait for a connection.
    waited_seconds: float  # By all threads together.
    opened: int
    closed: int


@dataclass(frozen=True, slots=True)
class _Idle:
    connection: Connection
    since: float = field(default_factory=time.monotonic)


@dataclass(slots=True, eq=False)
class _Waiter:
    ready: threading.Event = field(default_factory=threading.Event)
    granted: bool = False
    idle: _Idle | None = None  # Granted without one, a connection may be opened.


class ConnectionPool:
    """Up to ``pool_size`` connections that stay open, and ``max_overflow`` more while needed.

    Connections are opened by ``open_connection`` when they are first needed. Threads that find all
    in use are served in the order they came. A connection comes back rolled back and in its default
    session state, so it makes no difference how its last user left it.

    After a fork the child's pool is empty: it opens connections of its own, and the parent's stay
    untouched. Raises :class:`SettingsError` for sizes that make no sense.
    """

    def __init__(
        self,
        open_connection: Callable[[], Connection],
        pool_size: int = 10,
        max_overflow: int = 20,
        timeout: float = 30.0,
    ) -> None:
        if pool_size < 1 or max_overflow < 0:
            raise SettingsError(
                f"pool_size {pool_size} and max_overflow {max_overflow} make no pool",
                "set PG_POOL_SIZE to 1 or more, PG_MAX_OVERFLOW to 0 or more",
            )
        self._open_connection = open_connection
        self._pool_size = pool_size
        self._max_overflow = max_overflow
        self._timeout = timeout
        self._inherited: set[Connection] = set()
        self._is_closed = False
        self._start_empty()
        _POOLS.add(self)

    def __repr__(self) -> str:
        return f"ConnectionPool(pool_size={self._pool_size}, max_overflow={self._max_overflow})"

    @property
    def closed(self) -> bool:
        """Whether :meth:`close` was called."""
        return self._is_closed

    @contextmanager
    def connection(self, timeout: float | None = None) -> Iterator[Connection]:
        """Lend a connection for the block; what the block does not commit is rolled back.

        Raises as :meth:`getconn`.
        """
        connection = self.getconn(timeout)
        try:
            yield connection
        finally:
            self.putconn(connection)

    def getconn(self, timeout: float | None = None) -> Connection:
        """Lend a connection until :meth:`putconn`, waiting at most ``timeout`` seconds for one.

        Without ``timeout`` the pool's own holds. Raises :class:`PoolTimeoutError` when it has
        passed, :class:`TargetError` if the pool is closed, and what ``open_connection`` raises.
        """
        idle = self._claim_or_wait(self._timeout if timeout is None else timeout)
        if idle is not None:
            if _is_alive(idle):
                return idle.connection
            self._discard(idle.connection)
        return self._opened()

    def putconn(self, connection: Connection) -> None:
        """Take a lent connection back, in whatever state it is.

        Raises ValueError for one that isn't lent: returned twice, or of another pool.
        """
        with self._lock:
            if connection in self._inherited:
                return
            if connection not in self._lent:
                raise ValueError("this connection is not lent by this pool")
            self._lent.remove(connection)
            self._moving += 1
        usable = _reset(connection)
        with self._lock:
            stays = len(self._idle) + len(self._lent) + self._moving <= self._pool_size
            if usable and not self._is_closed and (stays or self._waiters):
                self._moving -= 1
                self._idle.append(_Idle(connection))
                self._serve()
                return
            self._lent.add(connection)
            self._moving -= 1
        self._discard(connection)
        self._settle()

    def stats(self) -> PoolStats:
        """Return the numbers of this moment."""
        with self._lock:
            return PoolStats(
                size=self._size,
                available=len(self._idle) + self._limit - self._size,
                in_use=self._size - len(self._idle),
                idle=len(self._idle),
                waiting=len(self._waiters),
                waited_seconds=self._waited_seconds,
                opened=self._opened_count,
                closed=self._closed_count,
            )
