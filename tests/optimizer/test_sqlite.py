"""The optimizer on SQLite, as far as SQLite has an answer."""

import json
import sqlite3
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest

from kgcore.errors import SettingsError, SourceError
from kgcore.graph import KnowledgeGraph
from kgcore.optimizer import GraphQuery, Optimizer
from kgcore.sample import make_synthetic


@pytest.fixture
def path(tmp_path: Path) -> Path:
    path = tmp_path / "graph.db"
    make_synthetic(path, entities=300, relationships=900, missions=40, snapshots=60)
    with KnowledgeGraph(db_path=path) as graph:
        graph.init_schema()
    with closing(sqlite3.connect(path)) as connection:
        connection.execute("CREATE INDEX needless ON relationships (from_id)")
        connection.execute("CREATE INDEX other ON relationships (created_at)")
        connection.execute("CREATE INDEX expression ON entities (lower(name))")
        connection.execute("CREATE INDEX partial ON relationships (from_id) WHERE to_id > 5")
    return path


@pytest.fixture
def optimizer(path: Path) -> Iterator[Optimizer]:
    with KnowledgeGraph(db_path=path) as graph:
        yield Optimizer(graph.backend)


def test_indexes(optimizer: Optimizer) -> None:
    found = {index.name: index for index in optimizer.indexes()}
    assert found["needless"].redundant_to == "idx_relationships_from_type"
    assert [name for name, index in found.items() if index.redundant_to] == ["needless"]
    assert found["other"].unused
    assert not found["idx_relationships_from_type"].unused
    assert not any(index.unused for name, index in found.items() if name.startswith("sqlite_auto"))
    assert all(index.bytes >= 4096 for index in found.values())


def test_tables_and_analyze(optimizer: Optimizer) -> None:
    before = {table.name: table for table in optimizer.tables()}
    assert before["relationships"].rows == 900
    assert before["relationships"].index_bytes > 0
    assert all("--analyze" in table.advice for table in before.values())
    assert set(optimizer.analyze()) == set(before)
    assert not any(table.advice for table in optimizer.tables())


def test_vacuum_gives_room_back(optimizer: Optimizer, path: Path) -> None:
    with optimizer.backend.transaction():
        optimizer.backend.execute("DELETE FROM relationships")
    optimizer.vacuum()
    assert "0 bytes of the file are free" in optimizer.report().notes[-1]
    free = optimizer.backend.fetchone("PRAGMA freelist_count")
    assert free == {"freelist_count": 0}
    assert optimizer.backend.fetchone("PRAGMA query_only") == {"query_only": 1}
    with closing(sqlite3.connect(path)) as connection:
        assert connection.execute("PRAGMA integrity_check").fetchone() == ("ok",)


@pytest.mark.parametrize("query", list(GraphQuery))
def test_every_named_query_is_explained(optimizer: Optimizer, query: GraphQuery) -> None:
    plans = optimizer.explain_query(query)
    assert plans
    assert all(plan.root.steps and plan.hints for plan in plans)


def test_plans_in_words(optimizer: Optimizer) -> None:
    plan = optimizer.explain("SELECT * FROM relationships WHERE from_id = ? ORDER BY id", (5,))
    assert "look up in relationships by" in str(plan)
    assert plan.indexes & {"needless", "idx_relationships_from_type"}
    scan = optimizer.explain("SELECT * FROM entities WHERE metadata = 'x'")
    assert "every row is read" in scan.hints[0]
    with pytest.raises(SettingsError):
        optimizer.explain("DELETE FROM entities")


@pytest.mark.parametrize(
    ("sql", "why"),
    [
        ("WITH x AS (SELECT 1) DELETE FROM entities", "this one writes"),
        ("WITH x AS (INSERT INTO entities VALUES (1)) SELECT 1", "near .*INSERT.*: syntax error"),
        ("SELECT * FROM nowhere", "no such table: nowhere"),
        ("SELECT ?", "bindings"),
    ],
)
def test_what_is_refused_says_why(optimizer: Optimizer, sql: str, why: str) -> None:
    with pytest.raises(SettingsError, match=why) as caught:
        optimizer.explain(sql)
    assert "\n" not in caught.value.message
    assert caught.value.hint


def test_vacuum_is_no_part_of_a_transaction(optimizer: Optimizer) -> None:
    with optimizer.backend.transaction():
        optimizer.backend.execute("DELETE FROM relationships")
        with pytest.raises(SourceError, match="VACUUM") as caught:
            optimizer.vacuum()
        assert "commit" in caught.value.hint
    assert optimizer.backend.fetchall("SELECT id FROM relationships") == []


def test_the_rest_says_so_in_a_line(optimizer: Optimizer) -> None:
    report = optimizer.report()
    assert report.settings == ()
    assert not report.slow_queries.available
    assert any("PostgreSQL's" in note for note in report.notes)
    json.dumps(report.to_json())
