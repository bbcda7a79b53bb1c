"""Reads from streaming replicas that are near enough to the primary.

How far a replica is behind is told without comparing clocks of different machines. Now and then the
primary is asked for its position in the log, and the moment of the question is noted by this
process's own clock: whatever was committed before is below that position. Then the replica is asked
how far it has replayed. The latest noted position that lies within that is the replica's *covered*
moment: it has everything that was committed until then. Its lag is the time since, and a thread
that wrote later than that does not read there.
"""

import itertools
import math
import os
import time
from collections import deque
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, TypeVar

import psycopg2
from psycopg2.errors import QueryCanceled
from psycopg2.extensions import connection as Connection  # noqa: N812

from kgcore.backends.base import NotARead
from kgcore.backends.pool import ConnectionPool, PoolStats
from kgcore.errors import KGError

T = TypeVar("T")

# A look costs a reader two short round trips; covered moments are at least so old on average.
_LOOK_SECONDS = 1.0
# A replica that failed is let alone so long: nobody shall wait for it at each read.
_ASIDE_SECONDS = 5.0
# Who finds all connections of a replica in use for so long goes to the primary.
_POOL_SECONDS = 1.0
_KEPT_POSITIONS = 1000
# Of a page of the log, and of the first page of a segment of it: the same in all versions.
_WAL_PAGE_HEADER = 24
_WAL_SEGMENT_HEADER = 40

_PRIMARY = """
    SELECT (lsn - '0/0')::bigint, (pg_control_system()).system_identifier,
        (pg_walfile_name_offset(lsn)).*, current_setting('wal_block_size')::integer
    FROM pg_current_wal_insert_lsn() AS lsn
"""
# The timeline is that of the last restart point: after a failover it comes late, never early.
_REPLICA = """
    SELECT (pg_last_wal_replay_lsn() - '0/0')::bigint, (pg_control_system()).system_identifier,
        (pg_control_checkpoint()).timeline_id, pg_is_in_recovery()
"""


class NoReplica(Exception):  # noqa: N818  # A signal to the backend, never an error.
    """No replica can do this read: it is the primary's."""


@dataclass(frozen=True, slots=True)
class ReplicaStats:
    """A replica at one moment."""

    #: Seconds since everything that was committed is known to be there; None if it is not known.
    lag_seconds: float | None
    #: Why it is not read from, or was not when it was last looked at; empty if it can be.
    fault: str


@dataclass(frozen=True, slots=True)
class _Position:
    """The primary's: what was committed before ``at`` lies below ``lsn``."""

    at: float
    lsn: int
    cluster: tuple[int, int]  # Identifier of the system, timeline.


@dataclass(slots=True, eq=False)
class _Replica:
    pool: ConnectionPool
    covered: float = -math.inf
    next_look: float = -math.inf
    fault: str = field(default="it was not looked at yet")

    def set_aside(self, error: Exception) -> None:
        self.covered = -math.inf
        self.fault = str(error).strip()
        self.next_look = time.monotonic() + _ASIDE_SECONDS


class Replicas:
    """The replicas of one primary, each with a pool of its own. All threads may use one object.

    ``max_lag`` is in seconds. There is no thread behind it: a reader who finds that a look is due
    takes it, the others go on by the last one.
    """

    def __init__(
        self,
        openers: Mapping[str, Callable[[], Connection]],
        primary: ConnectionPool,
        max_lag: float,
        pool_size: int,
        max_overflow: int,
    ) -> None:
        self._replicas = {
            name: _Replica(ConnectionPool(opener, pool_size, max_overflow, _POOL_SECONDS))
            for name, opener in openers.items()
        }
        self._primary = primary
        self._max_lag = max_lag
        self._positions: deque[_Position] = deque(maxlen=_KEPT_POSITIONS)
        self._turn = itertools.count()
        self._pid = os.getpid()

    def read(self, written: float, work: Callable[[Connection], T]) -> T:
        """Return what ``work`` makes of a connection to a replica that covers ``written``.

        Raises :class:`NoReplica` where none does, and what ``work`` raises if the primary would
        raise it, too.
        """
        self._notice_fork()
        replicas = list(self._replicas.values())
        first = next(self._turn)
        for step in range(len(replicas)):
            replica = replicas[(first + step) % len(replicas)]
            now = time.monotonic()
            if now >= replica.next_look:
                self._look(replica)
            if replica.covered <= max(written, now - self._max_lag):
                continue
            try:
                return self._read_from(replica, work)
            except NoReplica:
                continue
        raise NoReplica

    def stats(self) -> dict[str, ReplicaStats]:
        """Return the state of each replica by its name, after a look where one is due."""
        self._notice_fork()
        found = {}
        for name, replica in self._replicas.items():
            if time.monotonic() >= replica.next_look:
                self._look(replica)
            lag = time.monotonic() - replica.covered
            fault = replica.fault
            if not fault and lag > self._max_lag:
                fault = f"it is more than {self._max_lag:g} s behind"
            found[name] = ReplicaStats(lag if math.isfinite(lag) else None, fault)
        return found

    def pool_stats(self) -> dict[str, PoolStats]:
        """Return the numbers of each replica's pool by its name; no server is asked."""
        return {name: replica.pool.stats() for name, replica in self._replicas.items()}

    def close(self) -> None:
        """Close the pools."""
        for replica in self._replicas.values():
            replica.pool.close()

    def _read_from(self, replica: _Replica, work: Callable[[Connection], T]) -> T:
        try:
            with replica.pool.connection() as connection:
                try:
                    return work(connection)
                except psycopg2.Error as error:
                    # A timeout is the caller's own. What else fails here may be right on the
                    # primary: a conflict with the replay, a table that is not there yet.
                    if isinstance(error, QueryCanceled):
                        raise
                    if connection.closed:
                        replica.set_aside(error)
        except NotARead:
            raise
        except KGError as error:  # It can't be connected to, or its pool is exhausted.
            replica.set_aside(error)
        raise NoReplica

    def _look(self, replica: _Replica) -> None:
        replica.next_look = math.inf  # Whoever comes meanwhile goes by the last look.
        try:
            primary = self._position()
        except (psycopg2.Error, KGError):
            # What is known of the replica stays known; it gets older, until it is too old.
            replica.next_look = time.monotonic() + _LOOK_SECONDS
            return
        except BaseException:  # Ctrl-C.
            replica.next_look = -math.inf
            raise
        try:
            lsn, system, timeline, in_recovery = _ask(replica.pool, _REPLICA)
        except (psycopg2.Error, KGError) as error:
            replica.set_aside(error)
            return
        except BaseException:
            replica.next_look = -math.inf
            raise
        replica.fault, replica.covered = "", -math.inf
        if not in_recovery:
            replica.fault = "it is no replica: it takes writes itself"
        elif (system, timeline) != primary.cluster:
            replica.fault = "it is of another cluster or timeline than the primary"
        elif lsn is not None:
            replica.covered = self._covered_by(lsn)
        replica.next_look = time.monotonic() + _LOOK_SECONDS

    def _position(self) -> _Position:
        """Return the primary's position, asking for it unless it was just asked for."""
        now = time.monotonic()
        last = self._positions[-1] if self._positions else None
        if last is not None and now - last.at < _LOOK_SECONDS / 2:
            return last
        lsn, system, file, offset, page = _ask(self._primary, _PRIMARY)
        timeline = int(file[:8], 16)
        position = _Position(now, end_of_records(lsn, offset, page), (system, timeline))
        if last is not None and last.cluster != position.cluster:
            self._positions.clear()  # A failover: positions of another history mean nothing now.
        self._positions.append(position)
        return position

    def _covered_by(self, lsn: int) -> float:
        return max(
            (noted.at for noted in list(self._positions) if noted.lsn <= lsn), default=-math.inf
        )

    def _notice_fork(self) -> None:
        if self._pid != os.getpid():  # Who was looking at the moment of the fork is not here.
            self._pid = os.getpid()
            for replica in self._replicas.values():
                replica.next_look = -math.inf


def end_of_records(lsn: int, offset: int, page: int) -> int:
    """Return where the last record ends, for the position at which the next one will be inserted.

    ``offset`` is that of the position in its segment, ``page`` a page's size, all in bytes. Where a
    page was filled to its end, or a segment was ended early, the next record begins behind a
    header, and a replica that has replayed everything would seem to be that far behind until then.
    """
    if offset == _WAL_SEGMENT_HEADER:
        return lsn - _WAL_SEGMENT_HEADER
    return lsn - _WAL_PAGE_HEADER if offset % page == _WAL_PAGE_HEADER else lsn


def _ask(pool: ConnectionPool, sql: str) -> tuple[Any, ...]:
    with pool.connection(_POOL_SECONDS) as connection:
        connection.autocommit = True
        with connection.cursor() as cursor:
            cursor.execute(sql)
            return tuple(cursor.fetchone() or ())
