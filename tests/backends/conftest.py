"""Pools on a real server."""

from collections.abc import Iterator
from typing import Any

import psycopg2
import pytest

from kgcore.backends import ConnectionPool
from tests.backends.pools import MakePool
from tests.servers import Database


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
