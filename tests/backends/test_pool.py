"""The pool, on a real server: what is lent, waited for, and given back."""

import threading
import time
from functools import partial

import psycopg2
import pytest
from psycopg2.extensions import ISOLATION_LEVEL_SERIALIZABLE

from kgcore.backends import ConnectionPool
from kgcore.errors import PoolTimeoutError, TargetError
from tests.backends.pools import MakePool, ask, sessions, some_wait
from tests.servers import Database
from tests.workers.kg import wait_for
from workers.embedded import PostgresServer


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
