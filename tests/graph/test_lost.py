"""What happens in the wrong moment: a connection is lost, an entity deleted or added meanwhile."""

import threading
import time
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import psycopg2
import pytest

from kgcore.backends import PostgreSQLBackend, Row
from kgcore.graph import KnowledgeGraph, UnknownEntityError
from kgcore.graph.session import Session
from tests.faults.proxy import Proxy
from tests.servers import Database

COMMIT = b"COMMIT\0"


@pytest.fixture
def proxy(postgres: Database) -> Iterator[Proxy]:
    with Proxy(postgres.host, postgres.port) as proxy:
        yield proxy


@pytest.fixture
def behind(postgres: Database, proxy: Proxy) -> Iterator[KnowledgeGraph]:
    """A graph with an entity 1, whose one connection goes through the proxy."""
    parameters = postgres.parameters | {"port": proxy.port, "sslmode": "disable"}
    with KnowledgeGraph(PostgreSQLBackend(**parameters, pool_size=1, max_overflow=0)) as graph:
        graph.init_schema()
        assert graph.add_entity("node", "a") == 1
        yield graph


def lose_answer(graph: KnowledgeGraph, proxy: Proxy, question: bytes) -> threading.Event:
    """Have the graph's connection closed when the server has done what ``question`` asks."""
    row = graph.backend.fetchone("SELECT inet_client_port() AS port")
    assert row is not None
    return proxy.lose_answer(row["port"], question).lost


@pytest.mark.parametrize(
    ("call", "question", "table"),
    [
        (
            lambda kg: kg.add_relationship(1, 1, "knows"),
            b"INSERT INTO relationships",
            "relationships",
        ),
        (lambda kg: kg.add_relationships([(1, 1, "knows")]), COMMIT, "relationships"),
        (lambda kg: kg.log_file_snapshot("a.py"), b"INSERT INTO file_snapshots", "file_snapshots"),
        (
            lambda kg: kg.run_transaction(lambda kg: kg.add_relationship(1, 1, "knows")),
            COMMIT,
            "relationships",
        ),
    ],
    ids=["add_relationship", "add_relationships", "log_file_snapshot", "run_transaction"],
)
def test_what_may_be_done_is_never_done_twice(
    behind: KnowledgeGraph,
    proxy: Proxy,
    postgres: Database,
    call: Callable[[KnowledgeGraph], object],
    question: bytes,
    table: str,
) -> None:
    lost = lose_answer(behind, proxy, question)
    with pytest.raises(psycopg2.OperationalError):
        call(behind)
    assert lost.is_set()
    assert postgres.rows(f"SELECT count(*) FROM {table}") == [(1,)]
    call(behind)  # On a new connection.
    assert postgres.rows(f"SELECT count(*) FROM {table}") == [(2,)]


def test_what_is_the_same_twice_is_done_again(behind: KnowledgeGraph, proxy: Proxy) -> None:
    lost = lose_answer(behind, proxy, b"INSERT INTO entities")
    assert behind.add_entity("node", "a", {"new": 1}) == 1
    assert lost.is_set()
    lost = lose_answer(behind, proxy, COMMIT)
    assert behind.add_entities([("node", "b"), ("node", "a")])[1] == 1
    assert lost.is_set()
    assert behind.get_stats()["entities"]["total"] == 2
    lost = lose_answer(behind, proxy, b"DELETE FROM entities")
    assert behind.delete_entity(1) is False  # As documented: the first try had deleted it.
    assert lost.is_set()
    assert behind.get_entity(1) is None


@pytest.mark.parametrize(
    "call",
    [
        lambda kg, a, b: kg.add_relationship(a, b, "knows"),
        lambda kg, a, b: kg.add_relationships([(b, a, "knows"), (a, a, "knows")]),
    ],
    ids=["add_relationship", "add_relationships"],
)
def test_an_entity_that_is_being_deleted_is_an_unknown_one(
    postgres_graph: KnowledgeGraph,
    postgres: Database,
    call: Callable[[KnowledgeGraph, int, int], object],
) -> None:
    a, b = postgres_graph.add_entities([("node", "a"), ("node", "b")])
    deleting = postgres.connect()
    deleting.autocommit = False
    deleting.cursor().execute("DELETE FROM entities WHERE id = %s", (b,))
    errors: list[Exception] = []

    def relate() -> None:
        try:
            call(postgres_graph, a, b)
        except UnknownEntityError as error:
            errors.append(error)

    thread = threading.Thread(target=relate)
    thread.start()
    waits = (
        "SELECT count(*) FROM pg_stat_activity"
        " WHERE datname = current_database() AND wait_event_type = 'Lock'"
    )
    deadline = time.monotonic() + 10
    while postgres.rows(waits) != [(1,)]:
        assert time.monotonic() < deadline, "it never waited"
    deleting.commit()
    thread.join()
    assert [str(error) for error in errors] == [
        f"an entity was deleted, or not yet added, at that moment: one of {a}, {b}"
    ]
    assert postgres_graph.list_relationships() == []


def test_an_entity_that_comes_too_late_is_named_even_so(graph: KnowledgeGraph) -> None:
    class Late(Session):
        def write(
            self, sql: str, params: Sequence[Any] = (), *, repeatable: bool = True
        ) -> list[Row]:
            rows = super().write(sql, params, repeatable=repeatable)
            self.backend.execute("INSERT INTO entities (id, type, name) VALUES (77, 'node', 'b')")
            self.backend.commit()
            return rows

    a = graph.add_entity("node", "a")
    graph._session = Late(graph.backend)
    with pytest.raises(UnknownEntityError, match=f"not yet added.*{a}, 77"):
        graph.add_relationship(a, 77, "knows")
