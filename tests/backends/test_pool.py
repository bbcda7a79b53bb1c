"""The pool, on a real server."""

import os
import signal
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import Any

import psycopg2
import pytest
from psycopg2.extensions import ISOLATION_LEVEL_SERIALIZABLE
from psycopg2.extras import RealDictCursor, register_default_jsonb

from kgcore.backends import ConnectionPool
from kgcore.errors import PoolTimeoutError, SettingsError, TargetError
from tests.servers import Database
from workers.embedded import PostgresServer

MakePool = Callable[..., ConnectionPool]


@pytest.fixture
def make_pool(postgres: Database) -> Iterator[MakePool]:
    made: list[ConnectionPool] = []

    def connect() -> Any:
        return psycopg2.connect(**postgres.parameters, application_name="pooled")

    def make(pool_size: int = 1, max_overflow: int = 0, timeout: float = 10.0) -> ConnectionPool:
        made.append(ConnectionPool(connect, pool_size, max_overflow, timeout))
        return made[-1]

    yield make
    for pool in made:
        pool.close()


def ask(connection: Any, sql: str) -> Any:
    with connection.cursor() as cursor:
        cursor.execute(sql)
        return cursor.fetchone()[0]


def sessions(postgres: Database) -> int:
    sql = "SELECT count(*) FROM pg_stat_activity WHERE application_name = 'pooled' AND datname = %s"
    return int(postgres.rows(sql, (postgres.database,))[0][0])


def wait_for(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 10
    while not condition():
        assert time.monotonic() < deadline, "it never came true"
        time.sleep(0.01)


def some_wait(pool: ConnectionPool, number: int) -> bool:
    return pool.stats().waiting == number


def test_nothing_is_opened_before_it_is_needed(make_pool: MakePool, postgres: Database) -> None:
    pool = make_pool(2, 1)
    stats = pool.stats()
    assert (stats.size, stats.available, stats.in_use, stats.idle) == (0, 3, 0, 0)
    with pool.connection():
        stats = pool.stats()
        assert (stats.size, stats.available, stats.in_use, stats.idle) == (1, 2, 1, 0)
    stats = pool.stats()
    assert (stats.size, stats.available, stats.in_use, stats.idle) == (1, 3, 0, 1)
    assert sessions(postgres) == 1


def test_an_exhausted_pool_says_which_settings_to_raise(make_pool: MakePool) -> None:
    pool = make_pool(1, 1)
    with pool.connection(), pool.connection():
        began = time.monotonic()
        with pytest.raises(PoolTimeoutError, match="all 2 connections") as caught:
            pool.getconn(timeout=0.3)
        assert time.monotonic() - began >= 0.3
        assert "PG_POOL_SIZE" in caught.value.hint
        assert "PG_MAX_OVERFLOW" in caught.value.hint
    stats = pool.stats()
    assert stats.waiting == 0
    assert stats.waited_seconds >= 0.3
    assert stats.available == 2


def test_overflow_is_closed_after_use(make_pool: MakePool, postgres: Database) -> None:
    pool = make_pool(2, 3)
    connections = [pool.getconn() for _ in range(5)]
    assert sessions(postgres) == 5
    for connection in connections:
        pool.putconn(connection)
    wait_for(lambda: sessions(postgres) == 2)
    stats = pool.stats()
    assert (stats.size, stats.idle, stats.opened, stats.closed) == (2, 2, 5, 3)


def test_of_two_that_come_back_at_once_one_stays_open(postgres: Database) -> None:
    closing, may_close = threading.Event(), threading.Event()

    class SlowToClose(psycopg2.extensions.connection):
        def close(self) -> None:
            closing.set()
            assert may_close.wait(10)
            super().close()

    pool = ConnectionPool(
        lambda: psycopg2.connect(**postgres.parameters, connection_factory=SlowToClose), 1, 1
    )
    first, second = pool.getconn(), pool.getconn()
    thread = threading.Thread(target=pool.putconn, args=(first,))
    thread.start()
    assert closing.wait(10)
    pool.putconn(second)
    may_close.set()
    thread.join()
    stats = pool.stats()
    assert (stats.size, stats.idle, stats.closed) == (1, 1, 1)
    pool.close()


def test_waiters_are_served_in_order(make_pool: MakePool) -> None:
    pool = make_pool(1, 0)
    order: list[int] = []

    def work(number: int) -> None:
        with pool.connection():
            order.append(number)

    held = pool.getconn()
    threads = [threading.Thread(target=work, args=(number,)) for number in range(5)]
    for number, thread in enumerate(threads):
        thread.start()
        wait_for(partial(some_wait, pool, number + 1))
    pool.putconn(held)
    for thread in threads:
        thread.join()
    assert order == [0, 1, 2, 3, 4]
    assert pool.stats().opened == 1


def test_a_waiter_may_open_where_a_broken_connection_left_room(
    make_pool: MakePool, postgres: Database
) -> None:
    pool = make_pool(1, 0)
    held = pool.getconn()
    answers: list[int] = []

    def work() -> None:
        with pool.connection() as connection:
            answers.append(ask(connection, "SELECT 1"))

    thread = threading.Thread(target=work)
    thread.start()
    wait_for(lambda: pool.stats().waiting == 1)
    held.close()
    pool.putconn(held)
    thread.join()
    assert answers == [1]


def test_a_terminated_connection_is_replaced(make_pool: MakePool, postgres: Database) -> None:
    pool = make_pool(1, 0)
    with pool.connection() as connection:
        pid = ask(connection, "SELECT pg_backend_pid()")
    postgres.rows("SELECT pg_terminate_backend(%s, 5000)", (pid,))
    with pool.connection() as connection:
        assert ask(connection, "SELECT pg_backend_pid()") != pid
    assert pool.stats().closed == 1


def test_a_connection_that_breaks_in_use_is_replaced(
    make_pool: MakePool, postgres: Database
) -> None:
    pool = make_pool(1, 0)
    with pool.connection() as connection:
        pid = ask(connection, "SELECT pg_backend_pid()")
        postgres.rows("SELECT pg_terminate_backend(%s, 5000)", (pid,))
        with pytest.raises(psycopg2.Error):
            ask(connection, "SELECT 1")
    with pool.connection() as connection:
        assert ask(connection, "SELECT 1") == 1


def test_a_restarted_server_costs_no_error(own_postgres_server: PostgresServer) -> None:
    server = own_postgres_server
    pool = ConnectionPool(
        lambda: psycopg2.connect(
            host=server.host,
            port=server.port,
            dbname=server.database,
            user=server.user,
            password=server.password,
        ),
        pool_size=3,
    )
    connections = [pool.getconn() for _ in range(3)]
    for connection in connections:
        pool.putconn(connection)
    server.stop(mode="immediate")
    with pytest.raises(psycopg2.OperationalError):
        pool.getconn()
    server.start()
    for _ in range(4):
        with pool.connection() as connection:
            assert ask(connection, "SELECT 1") == 1
    pool.close()


def test_a_connection_comes_back_as_good_as_new(make_pool: MakePool) -> None:
    pool = make_pool(1, 0)
    with pytest.raises(psycopg2.errors.UndefinedTable), pool.connection() as connection:
        ask(connection, "SELECT 1 FROM nowhere")
    with pool.connection() as connection:
        connection.set_session(ISOLATION_LEVEL_SERIALIZABLE, readonly=True)
        ask(connection, "SELECT 1")
    with pool.connection() as connection:
        connection.autocommit = True
    with pool.connection() as connection, connection.cursor() as cursor:
        assert not connection.autocommit
        cursor.execute("CREATE TABLE made (i integer)")
        assert ask(connection, "SHOW transaction_isolation") == "read committed"
    with pool.connection() as connection:
        assert ask(connection, "SELECT to_regclass('made')") is None
    assert pool.stats().opened == 1


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


def test_ten_threads_hammer(make_pool: MakePool, postgres: Database) -> None:
    pool = make_pool(2, 2)
    most: list[int] = []
    done: list[int] = []

    def work(number: int) -> None:
        for turn in range(60):
            with pool.connection() as connection:
                assert ask(connection, f"SELECT {number * 1000 + turn}") == number * 1000 + turn
                most.append(pool.stats().in_use)
                if turn % 20 == 7:
                    connection.close()
        done.append(number)

    threads = [threading.Thread(target=work, args=(number,)) for number in range(10)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(done) == list(range(10))
    assert max(most) <= 4
    stats = pool.stats()
    assert (stats.in_use, stats.waiting) == (0, 0)
    assert stats.opened - stats.closed == stats.size <= 2


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


def test_close_refuses_waiters_and_closes_what_comes_back(
    make_pool: MakePool, postgres: Database
) -> None:
    pool = make_pool(1, 0)
    held = pool.getconn()
    errors: list[TargetError] = []

    def wait() -> None:
        with pytest.raises(TargetError, match="closed") as caught:
            pool.getconn()
        errors.append(caught.value)

    thread = threading.Thread(target=wait)
    thread.start()
    wait_for(lambda: pool.stats().waiting == 1)
    pool.close()
    thread.join()
    assert len(errors) == 1
    assert ask(held, "SELECT 1") == 1
    pool.putconn(held)
    assert held.closed
    assert sessions(postgres) == 0
    with pytest.raises(TargetError, match="closed"):
        pool.getconn()


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
