"""What comes in and out at the edges, and how a graph is made."""

import math
import re
from pathlib import Path
from typing import Any

import pytest

from kgcore.backends import Row
from kgcore.config import load_settings
from kgcore.errors import KGError, SettingsError
from kgcore.graph import KnowledgeGraph, get_knowledge_graph

INSTANT = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(\.\d{6})?Z")


def names(rows: list[Row]) -> list[str]:
    return [row["name"] for row in rows]


def got(row: Row | None) -> Row:
    assert row is not None
    return row


@pytest.mark.parametrize("name", ["nul\0", "half \ud800"])
def test_what_postgres_cannot_hold_is_refused(graph: KnowledgeGraph, name: str) -> None:
    for call in (
        lambda: graph.add_entity("file", name),
        lambda: graph.find_entity(name, "x"),
        lambda: graph.add_entities([("file", name)]),
        lambda: graph.log_mission("m", "success", name),
        lambda: graph.log_file_snapshot("a", content_hash=name),
        lambda: graph.add_entity("file", "a", {"k": name}),
        lambda: graph.search(name),
    ):
        with pytest.raises(ValueError):  # noqa: PT011  # The two have nothing else in common.
            call()
    assert graph.list_entities() == []


def test_values_that_are_no_json_are_refused(graph: KnowledgeGraph) -> None:
    with pytest.raises(ValueError, match="JSON"):
        graph.add_entity("file", "a", {"n": math.nan})
    with pytest.raises(TypeError):
        graph.add_entity("file", "a", {"n": object()})
    with pytest.raises(TypeError, match="dict"):
        graph.add_entity("file", "a", ["list"])  # type: ignore[arg-type]
    with pytest.raises(TypeError, match="str"):
        graph.add_entity("file", 7)  # type: ignore[arg-type]
    harmless = {"k": "\\u0000"}
    assert got(graph.get_entity(graph.add_entity("file", "b", harmless)))["metadata"] == harmless


def test_times_and_metadata_of_others_come_out_alike(graph: KnowledgeGraph) -> None:
    sql = (
        "INSERT INTO entities (type, name, metadata, created_at, updated_at) VALUES (?, ?, ?, ?, ?)"
    )
    for name, time in (
        ("whole", "2024-05-06T07:08:09Z"),
        ("milliseconds", "2024-05-06T07:08:09.120Z"),
        ("microseconds", "2024-05-06T07:08:09.119999Z"),
        ("offset", "2024-05-06T09:08:10+02:00"),
    ):
        graph.backend.execute(sql, ("file", name, None, time, time))
    graph.backend.commit()
    found = {row["name"]: row["updated_at"] for row in graph.iter_entities()}
    assert found == {
        "whole": "2024-05-06T07:08:09Z",
        "milliseconds": "2024-05-06T07:08:09.120000Z",
        "microseconds": "2024-05-06T07:08:09.119999Z",
        "offset": "2024-05-06T07:08:10Z",
    }
    assert got(graph.find_entity("file", "whole"))["metadata"] == {}
    graph.delete_entity(got(graph.find_entity("file", "offset"))["id"])
    assert names(graph.list_entities()) == ["milliseconds", "microseconds", "whole"]
    page = graph.list_entities(limit=2)[-1]
    after = (page["updated_at"], page["id"])
    assert names(graph.list_entities(after=after)) == ["whole"]


def test_get_knowledge_graph(graph: KnowledgeGraph, request: Any, tmp_path: Path) -> None:
    if graph.backend.name == "sqlite":
        settings = load_settings(sqlite_db_path=tmp_path / "new" / "kg.db")
    else:
        parameters = request.getfixturevalue("postgres").parameters
        settings = load_settings(
            kg_backend="postgres", **{f"pg_{name}": value for name, value in parameters.items()}
        )
    with get_knowledge_graph(settings) as made:
        assert made.backend.name == graph.backend.name
        made.add_entity("file", "a")
    with pytest.raises(KGError, match="closed"):
        made.list_entities()


def test_a_graph_needs_one_database(tmp_path: Path) -> None:
    with pytest.raises(SettingsError, match="db_path"):
        KnowledgeGraph()
    with KnowledgeGraph(db_path=tmp_path / "a.db") as graph:
        assert graph.pool_stats() is None
        assert "a.db" in repr(graph)
        with pytest.raises(SettingsError):
            KnowledgeGraph(graph.backend, db_path=tmp_path / "b.db")
    with get_knowledge_graph() as default:
        assert default.backend.name == "sqlite"
    assert (tmp_path / "data" / "knowledge_graph.db").exists()
