"""Transactions on a connection of the pool."""

from collections.abc import Iterator
from contextlib import contextmanager

from psycopg2.extensions import cursor as Cursor  # noqa: N812

from kgcore.backends import ConnectionPool


@contextmanager
def transaction(pool: ConnectionPool) -> Iterator[Cursor]:
    """Give a cursor; commit at the end, or roll back when an error leaves the block."""
    with pool.connection() as connection, connection, connection.cursor() as cursor:
        yield cursor


@contextmanager
def frozen_view(pool: ConnectionPool) -> Iterator[Cursor]:
    """Give a cursor whose queries all see the ledger at one moment, and can't change it."""
    with transaction(pool) as cursor:
        cursor.execute("SET TRANSACTION ISOLATION LEVEL REPEATABLE READ READ ONLY")
        yield cursor
