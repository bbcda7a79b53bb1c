"""How the graph's statements are sent to PostgreSQL."""

from kgcore.backends import PostgreSQLBackend
from kgcore.graph import KnowledgeGraph
from kgcore.graph.session import Session

JIT = "SELECT current_setting('jit') AS jit"


def test_reads_that_look_at_much_are_not_compiled(postgres_graph: KnowledgeGraph) -> None:
    session = Session(postgres_graph.backend)
    assert session.rows(JIT, heavy=True) == [{"jit": "off"}]
    assert not postgres_graph.backend.in_transaction
    assert session.rows(JIT) == [{"jit": "on"}]  # PostgreSQL 18's default.


def test_a_read_with_settings_of_its_own_still_may_not_write(
    postgres_graph: KnowledgeGraph,
) -> None:
    backend = postgres_graph.backend
    assert isinstance(backend, PostgreSQLBackend)
    sql = (
        "SET LOCAL jit = off; WITH made AS (INSERT INTO entities (type, name) VALUES ('a', 'b')"
        " RETURNING id) SELECT id FROM made"
    )
    assert len(backend.fetchall(sql)) == 1
    assert backend.in_transaction  # Committed by whoever wrote it.
    backend.rollback()
    assert postgres_graph.list_entities() == []
