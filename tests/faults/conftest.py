"""Scenes on the session's servers, and on servers that the test may stop."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from kgcore.backends import PostgreSQLBackend
from tests.faults import holds
from tests.faults.scene import QuickKg, Scene
from tests.migration.graphs import small_graph
from tests.servers import Database
from workers.embedded import PostgresServer, RedisServer


@contextmanager
def _scene(environment: dict[str, str], database: Database, directory: Path) -> Iterator[Scene]:
    holds.install(database)
    source = small_graph(directory / "graph.db")
    with PostgreSQLBackend(**database.parameters, pool_size=1, max_overflow=9) as backend:
        yield Scene(QuickKg(environment, directory), database, source, backend)


@pytest.fixture
def scene(kg_environment: dict[str, str], postgres: Database, tmp_path: Path) -> Iterator[Scene]:
    """A scene on the session's servers."""
    with _scene(kg_environment, postgres, tmp_path) as scene:
        yield scene


@pytest.fixture
def redis_scene(
    kg_environment: dict[str, str],
    postgres: Database,
    own_redis_server: RedisServer,
    tmp_path: Path,
) -> Iterator[Scene]:
    """A scene on ``own_redis_server``."""
    environment = kg_environment | {"KG_REDIS_URL": own_redis_server.url}
    with _scene(environment, postgres, tmp_path) as scene:
        yield scene


@pytest.fixture
def postgres_scene(
    kg_environment: dict[str, str], own_postgres_server: PostgresServer, tmp_path: Path
) -> Iterator[Scene]:
    """A scene on ``own_postgres_server``."""
    database = Database(own_postgres_server, own_postgres_server.database)
    environment = kg_environment | database.environment()
    with _scene(environment, database, tmp_path) as scene:
        yield scene
    database.close()
