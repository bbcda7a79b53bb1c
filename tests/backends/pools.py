"""Questions about a pool and its connections."""

from collections.abc import Callable
from typing import Any

from kgcore.backends import ConnectionPool
from tests.servers import Database

MakePool = Callable[..., ConnectionPool]


def ask(connection: Any, sql: str) -> Any:
    with connection.cursor() as cursor:
        cursor.execute(sql)
        return cursor.fetchone()[0]


def sessions(postgres: Database) -> int:
    sql = "SELECT count(*) FROM pg_stat_activity WHERE application_name = 'pooled' AND datname = %s"
    return int(postgres.rows(sql, (postgres.database,))[0][0])


def some_wait(pool: ConnectionPool, number: int) -> bool:
    return pool.stats().waiting == number
