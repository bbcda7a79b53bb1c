"""The pool where its users, the system or the server do what they should not."""

import os
import signal
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import psycopg2
import pytest
from psycopg2.extras import RealDictCursor, register_default_jsonb

from kgcore.backends import ConnectionPool
from kgcore.errors import SettingsError
from tests.backends.pools import MakePool, ask, sessions, some_wait
from tests.servers import Database
from tests.workers.kg import wait_for


@pytest.mark.parametrize(
    "spoil",
    [
        lambda connection: setattr(connection, "cursor_factory", RealDictCursor),
        lambda connection: connection.set_client_encoding("LATIN1"),
        lambda connection: register_default_jsonb(connection, loads=str),
    ],
    ids=["cursor", "encoding", "converter"],
)
def test_a_connection_that_was_given_its_own_ways_is_closed(
    spoil: Callable[[Any], object], make_pool: MakePool
) -> None:
    pool = make_pool(1, 0)
    with pool.connection() as connection:
        spoil(connection)
    with pool.connection() as connection:
        assert ask(connection, """SELECT '{"ä": 1}'::jsonb""") == {"ä": 1}
    assert (pool.stats().opened, pool.stats().closed) == (2, 1)


def test_a_connection_that_is_dropped_makes_room(make_pool: MakePool, postgres: Database) -> None:
    """As Ctrl-C makes it in the wrong moment, or whoever forgets to return it."""
    pool = make_pool(1, 0)
    held = [pool.getconn()]
    with ThreadPoolExecutor(1) as thread:
        waiting = thread.submit(pool.getconn)
        wait_for(lambda: some_wait(pool, 1))
        held.clear()
        connection = waiting.result(5)
    assert ask(connection, "SELECT 1") == 1
    wait_for(lambda: sessions(postgres) == 1)
    pool.putconn(connection)
    stats = pool.stats()
    assert (stats.size, stats.in_use, stats.opened, stats.closed) == (1, 0, 2, 1)


def test_a_handler_of_signals_may_use_the_pool(make_pool: MakePool) -> None:
    """It may run while its own thread holds the pool's lock."""
    pool = make_pool(2, 0)
    with pool.connection(), pool.connection():
        pass
    answers = list[int]()

    class Struck(list[Any]):
        """Idle connections; to take one is when the signal comes, once."""

        def pop(self, *_: Any) -> Any:
            if not answers:
                answers.append(0)
                signal.raise_signal(signal.SIGUSR1)
            return super().pop()

    def handle(*_: object) -> None:
        with pool.connection(1) as connection:
            answers.append(ask(connection, "SELECT 7"))

    before = signal.signal(signal.SIGUSR1, handle)
    pool._idle = Struck(pool._idle)
    try:
        with pool.connection() as connection:
            assert ask(connection, "SELECT 1") == 1
    finally:
        signal.signal(signal.SIGUSR1, before)
    assert answers == [0, 7]
    assert (pool.stats().in_use, pool.stats().idle) == (0, 2)


def test_connecting_blocks_nobody_else(postgres: Database) -> None:
    go_on = threading.Event()
    opened: list[Any] = []

    def slow() -> Any:
        if opened:
            assert go_on.wait(10)
        opened.append(psycopg2.connect(**postgres.parameters))
        return opened[-1]

    pool = ConnectionPool(slow, 2)
    first = pool.getconn()
    thread = threading.Thread(target=lambda: pool.putconn(pool.getconn()))
    thread.start()
    wait_for(lambda: pool.stats().in_use == 2)
    pool.putconn(first)
    with pool.connection() as connection:
        assert ask(connection, "SELECT 1") == 1
    go_on.set()
    thread.join()
    pool.close()


def test_a_failed_connect_leaves_its_place_free(postgres: Database) -> None:
    wrong = ConnectionPool(
        lambda: psycopg2.connect(**postgres.parameters | {"database": "no"}), 1, 0
    )
    for _ in range(3):
        with pytest.raises(psycopg2.OperationalError):
            wrong.getconn(timeout=0.1)
    assert wrong.stats().available == 1


def test_what_is_not_lent_is_not_taken_back(make_pool: MakePool, postgres: Database) -> None:
    pool = make_pool()
    connection = pool.getconn()
    pool.putconn(connection)
    with pytest.raises(ValueError, match="not lent"):
        pool.putconn(connection)
    with pytest.raises(ValueError, match="not lent"):
        pool.putconn(postgres.connect())


def test_of_two_threads_that_return_the_same_one_is_refused(make_pool: MakePool) -> None:
    pool = make_pool(1, 0)
    with ThreadPoolExecutor(2) as threads:
        for _ in range(200):
            connection = pool.getconn()
            ends = [threads.submit(pool.putconn, connection) for _ in range(2)]
            errors = [end.exception() for end in ends]
            assert [type(error) for error in errors if error is not None] == [ValueError]
    assert (pool.stats().idle, pool.stats().size) == (1, 1)


@pytest.mark.parametrize(("pool_size", "max_overflow"), [(0, 1), (1, -1)])
def test_senseless_sizes(make_pool: MakePool, pool_size: int, max_overflow: int) -> None:
    with pytest.raises(SettingsError, match="make no pool"):
        make_pool(pool_size, max_overflow)


@pytest.mark.filterwarnings("ignore:This process .* is multi-threaded:DeprecationWarning")
def test_a_fork_shares_no_connection(make_pool: MakePool, postgres: Database) -> None:
    pool = make_pool(2, 0)
    pool.putconn(pool.getconn())
    with pool.connection() as lent, pool.connection():
        pid = ask(lent, "SELECT pg_backend_pid()")
        stats = pool.stats()
        child = os.fork()
        if child == 0:
            os._exit(_as_child(pool, lent, pid))
        assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
        assert ask(lent, "SELECT pg_backend_pid()") == pid
        assert pool.stats() == stats


def _as_child(pool: ConnectionPool, lent: Any, parents_pid: int) -> int:
    try:
        pool.putconn(lent)
        del lent
        with pool.connection() as connection:
            own = ask(connection, "SELECT pg_backend_pid()")
        pool.close()
    except BaseException:  # noqa: BLE001  # The child must not go on as a second pytest.
        return 2
    return 0 if own != parents_pid else 3
