"""How the graph's statements are sent to PostgreSQL, and what is tried again."""

import threading
import time

import pytest

from kgcore.backends import PostgreSQLBackend
from kgcore.errors import TargetUnreachableError
from kgcore.graph import KnowledgeGraph
from kgcore.graph.session import Session
from tests.servers import Database

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


def test_a_refused_login_is_an_error_at_once(postgres: Database) -> None:
    wrong = postgres.parameters | {"password": "guessed-wrong"}
    with KnowledgeGraph(PostgreSQLBackend(**wrong)) as graph:
        began = time.monotonic()
        with pytest.raises(TargetUnreachableError, match="password authentication failed"):
            graph.get_entity(1)
        assert time.monotonic() - began < 5


def test_a_full_server_is_tried_again(postgres: Database, postgres_graph: KnowledgeGraph) -> None:
    postgres_graph.add_entity("file", "a")
    role = f"limited_{postgres.database}"
    postgres.rows(f"CREATE ROLE {role} LOGIN PASSWORD 'of-the-role' CONNECTION LIMIT 1")
    postgres.rows(f"GRANT SELECT ON entities TO {role}")
    limited = postgres.parameters | {"user": role, "password": "of-the-role"}
    holder = postgres.connect(user=role, password="of-the-role")
    timer = threading.Timer(0.3, holder.close)
    try:
        with KnowledgeGraph(PostgreSQLBackend(**limited)) as graph:
            timer.start()
            assert graph.find_entity("file", "a") is not None
            assert holder.closed
    finally:
        timer.join()
        postgres.rows(f"DROP OWNED BY {role}; DROP ROLE {role}")
