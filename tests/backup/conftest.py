"""Graphs with a little of everything in them, on both databases."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from kgcore.graph import KnowledgeGraph
from tests.graph.conftest import postgres_graph_of
from tests.servers import Database

COUNTS = {"entities": 30, "relationships": 29, "mission_history": 3, "file_snapshots": 2}


def fill(graph: KnowledgeGraph) -> None:
    """Add rows whose text would be mistaken for something else if it were taken as it is."""
    names = ["two\nlines", "\\.", "COPY public.entities (id) FROM stdin;", "tab\there", "é😀"]
    names += [f"file {number}" for number in range(25)]
    ids = graph.add_entities([("file", name, {"name": name}) for name in names])
    graph.add_relationships([(ids[0], other, "next") for other in ids[1:]])
    for number in range(3):
        graph.log_mission(f"mission {number}", "success", cost_usd=0.5)
    graph.log_file_snapshot("a.py", "mission 1", 10)
    graph.log_file_snapshot("b.py")


@pytest.fixture
def filled(postgres: Database) -> Iterator[tuple[Database, KnowledgeGraph]]:
    """A filled graph on PostgreSQL."""
    with postgres_graph_of(postgres) as graph:
        fill(graph)
        yield postgres, graph


@pytest.fixture
def filled_each(postgres_each: Database) -> Iterator[tuple[Database, KnowledgeGraph]]:
    """A filled graph on each version of PostgreSQL."""
    with postgres_graph_of(postgres_each) as graph:
        fill(graph)
        yield postgres_each, graph


@pytest.fixture
def sqlite_file(tmp_path: Path) -> Path:
    """A SQLite file with a filled graph, in WAL mode."""
    path = tmp_path / "graph.db"
    with KnowledgeGraph(db_path=path) as graph:
        fill(graph)
    return path
