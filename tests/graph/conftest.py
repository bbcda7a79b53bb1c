"""Graphs on both databases."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from kgcore.backends import get_backend
from kgcore.graph import KnowledgeGraph
from tests.servers import Database


@pytest.fixture(params=["sqlite", "postgres"])
def graph(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[KnowledgeGraph]:
    """An empty graph, on each database in turn."""
    if request.param == "sqlite":
        with KnowledgeGraph(db_path=tmp_path / "kg.db") as made:
            yield made
        return
    database: Database = request.getfixturevalue("postgres")
    with postgres_graph_of(database) as made:
        yield made


@pytest.fixture
def postgres_graph(postgres: Database) -> Iterator[KnowledgeGraph]:
    """An empty graph on PostgreSQL."""
    with postgres_graph_of(postgres) as made:
        yield made


@pytest.fixture
def sqlite_graph(tmp_path: Path) -> Iterator[KnowledgeGraph]:
    """An empty graph on SQLite."""
    with KnowledgeGraph(db_path=tmp_path / "kg.db") as made:
        yield made


def postgres_graph_of(database: Database) -> KnowledgeGraph:
    made = KnowledgeGraph(get_backend("postgres", **database.parameters, pool_size=4))
    made.init_schema()
    return made
