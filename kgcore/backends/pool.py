"""A pool of psycopg2 connections.

Its own, because psycopg2's ``ThreadedConnectionPool`` raises at once when all connections are in
use, hands out dead ones, and connects under its lock, so that one slow connect stops every thread;
psycopg_pool is for psycopg 3, and SQLAlchemy's pool would bring all of SQLAlchemy.
"""

import os
import threading
import time
import weakref
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial
from typing import NamedTuple

from psycopg2.extensions import connection as Connection  # noqa: N812

from kgcore.backends.connections import is_alive, reset
from kgcore.errors import PoolTimeoutError, SettingsError, TargetError


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


class _Idle(NamedTuple):
    connection: Connection
    since: float


@dataclass(slots=True, eq=False)
class _Waiter:
    ready: threading.Event = field(default_factory=threading.Event)
    granted: bool = False
    idle: _Idle | None = None  # Granted without one, a connection may be opened.


class ConnectionPool:
    """Up to ``pool_size`` connections that stay open, and ``max_overflow`` more while needed.

    Connections are opened by ``open_connection`` when they are first needed. Threads that find all
    in use are served in the order they came. A connection comes back rolled back and as psycopg2
    made it: it makes no difference how its last user left it, but for what ``SET`` changed. If it
    is dropped without coming back it is closed, and makes room for another.

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
        if idle is None:
            return self._lend(self._open())
        try:
            alive = is_alive(idle.connection, time.monotonic() - idle.since)
        except BaseException:  # Ctrl-C.
            self._take_back(idle.connection, usable=False)
            raise
        if alive:
            return idle.connection
        idle.connection.close()
        with self._lock:
            self._opening += 1  # In its place, which nobody else may have.
            self._forget(id(idle.connection))
        return self._lend(self._open())

    def putconn(self, connection: Connection) -> None:
        """Take a lent connection back, in whatever state it is.

        Raises ValueError for one that isn't lent: returned twice, or of another pool.
        """
        key = id(connection)
        with self._lock:
            if key not in self._lent or key in self._returning:
                if connection in self._inherited:
                    return
                raise ValueError("this connection is not lent by this pool")
            self._returning.add(key)
        usable = False
        try:
            usable = reset(connection)
        finally:
            self._take_back(connection, usable=usable)

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

    def close_idle(self) -> None:
        """Close the connections that nobody uses now; later ones are opened when needed."""
        for connection in self._take_idle():
            connection.close()

    def close(self) -> None:
        """Close all idle connections, and those in use when they come back; waiters are refused."""
        with self._lock:
            self._is_closed = True
            for waiter in self._waiters:
                waiter.ready.set()
            self._waiters.clear()
        self.close_idle()

    def after_fork_in_child(self) -> None:
        """Start empty in a forked child. The interpreter calls it; nobody else should.

        The inherited connections are kept and not closed: closing says goodbye to the server, on
        the socket the parent goes on using.
        """
        self._inherited.update(
            connection for ref in self._open_ones.values() if (connection := ref()) is not None
        )
        self._start_empty()

    def _start_empty(self) -> None:
        # In the child of a fork the old lock may be held for ever, by a thread that isn't there. A
        # signal's handler that wants a connection may run while its own thread holds the lock.
        self._lock = threading.RLock()
        self._idle: list[_Idle] = []  # The one used last is lent first: it is surely alive.
        # By id, and weakly: one that is dropped instead of returned keeps no place.
        self._open_ones: dict[int, weakref.ref[Connection]] = {}
        # Their ids, also while they are checked, reset or closed, outside the lock.
        self._lent: set[int] = set()
        self._returning: set[int] = set()
        self._closing: set[int] = set()  # Those found to be of no use, or too many.
        self._opening = 0
        # While someone waits there is no idle connection, and none may be opened.
        self._waiters: deque[_Waiter] = deque()
        self._waited_seconds = 0.0
        self._opened_count = 0
        self._closed_count = 0

    @property
    def _limit(self) -> int:
        return self._pool_size + self._max_overflow

    @property
    def _size(self) -> int:
        return len(self._idle) + len(self._lent) + self._opening

    def _claim_or_wait(self, timeout: float) -> _Idle | None:
        """Return an idle connection, which is lent now, or None for leave to open one."""
        with self._lock:
            self._require_open()
            if self._idle or self._size < self._limit:
                return self._claim()
            waiter = _Waiter()
            self._waiters.append(waiter)
        began = time.monotonic()
        try:
            waiter.ready.wait(min(timeout, threading.TIMEOUT_MAX))
        except BaseException:
            self._withdraw(waiter, began)
            if waiter.granted:
                self._give_back(waiter.idle)
            raise
        self._withdraw(waiter, began)
        if not waiter.granted:
            with self._lock:
                self._require_open()
            raise PoolTimeoutError(
                f"all {self._limit} connections of the pool stayed in use for {timeout:g} s",
                f"raise PG_POOL_SIZE (pool_size, now {self._pool_size}) or PG_MAX_OVERFLOW"
                f" (max_overflow, now {self._max_overflow}), or end transactions sooner",
            )
        return waiter.idle

    def _withdraw(self, waiter: _Waiter, began: float) -> None:
        with self._lock:
            self._waited_seconds += time.monotonic() - began
            if waiter in self._waiters:
                self._waiters.remove(waiter)

    def _claim(self) -> _Idle | None:
        if not self._idle:
            self._opening += 1
            return None
        idle = self._idle.pop()
        self._lent.add(id(idle.connection))
        return idle

    def _take_idle(self) -> list[Connection]:
        with self._lock:
            connections = [idle.connection for idle in self._idle]
            self._idle.clear()
            for connection in connections:
                self._forget(id(connection))
        return connections

    def _forget(self, key: int, dropped: weakref.ref[Connection] | None = None) -> None:
        """Count a connection as closed: the one ``dropped``, or the one that has this id now."""
        with self._lock:
            if dropped is None or self._open_ones.get(key) is dropped:
                self._open_ones.pop(key)
                self._not_lent(key)
                self._closed_count += 1
                self._serve()

    def _not_lent(self, key: int) -> None:
        self._lent.discard(key)
        self._returning.discard(key)
        self._closing.discard(key)

    def _serve(self) -> None:
        """Give what is free to those who wait; the lock is held."""
        while self._waiters and (self._idle or self._size < self._limit):
            waiter = self._waiters.popleft()
            waiter.idle = self._claim()
            waiter.granted = True
            waiter.ready.set()

    def _open(self) -> Connection:
        try:
            connection = self._open_connection()
        except BaseException:
            self._give_back(None)  # Another may have more luck, or meets the same error in time.
            raise
        with self._lock:
            self._opened_count += 1
        return connection

    def _lend(self, connection: Connection) -> Connection:
        """Lend a connection that was just opened."""
        with self._lock:
            key = id(connection)
            self._open_ones[key] = weakref.ref(connection, partial(self._forget, key))
            self._lent.add(key)
            self._opening -= 1
            if not self._is_closed:
                return connection
        self._take_back(connection, usable=False)
        raise _closed_error()

    def _give_back(self, idle: _Idle | None) -> None:
        """Undo a claim."""
        if idle is not None:
            self._take_back(idle.connection, usable=True)
            return
        with self._lock:
            self._opening -= 1
            self._serve()

    def _take_back(self, connection: Connection, *, usable: bool) -> None:
        """Make a lent connection idle, or close it: if it is of no use, or one too many."""
        key = id(connection)
        with self._lock:
            # Two that come back at once must not both take themselves for the one too many.
            wanted = self._waiters or self._size - len(self._closing) <= self._pool_size
            if usable and wanted and not self._is_closed:
                self._not_lent(key)
                self._idle.append(_Idle(connection, time.monotonic()))
                self._serve()
                return
            self._closing.add(key)
        connection.close()
        self._forget(key)

    def _require_open(self) -> None:
        if self._is_closed:
            raise _closed_error()


def _closed_error() -> TargetError:
    return TargetError("the connection pool is closed", "call connect() first")


_POOLS: weakref.WeakSet[ConnectionPool] = weakref.WeakSet()


def _after_fork_in_child() -> None:
    for pool in list(_POOLS):
        pool.after_fork_in_child()


os.register_at_fork(after_in_child=_after_fork_in_child)
