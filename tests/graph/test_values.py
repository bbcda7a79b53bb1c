"""What comes in and out at the edges, and how a graph is made."""

import math
import re
from collections.abc import Callable, Sized
from datetime import date, datetime, timedelta, timezone
from decimal import Decimal
from functools import partial
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


@pytest.mark.parametrize(
    ("numbers", "error"),
    [
        ({"cost_usd": math.nan}, ValueError),
        ({"duration_seconds": math.inf}, ValueError),
        ({"cost_usd": 10**400}, ValueError),
        ({"cost_usd": "1.5"}, TypeError),
        ({"cost_usd": True}, TypeError),
        ({"iterations": 1.5}, TypeError),
        ({"iterations": 2**63}, ValueError),
        ({"files_modified": "3"}, TypeError),
        ({"size_bytes": "big"}, TypeError),
        ({"lines_of_code": 2.5}, TypeError),
        ({"size_bytes": 1e300}, ValueError),
        ({"cost_usd": Decimal("NaN")}, ValueError),
        ({"cost_usd": Decimal("1e400")}, ValueError),
    ],
)
def test_numbers_that_fit_no_column_are_refused(
    graph: KnowledgeGraph, numbers: dict[str, Any], error: type[Exception]
) -> None:
    (name,) = numbers
    of_file = name in {"size_bytes", "lines_of_code"}
    log = partial(graph.log_file_snapshot, "a") if of_file else partial(graph.log_mission, "m", "?")
    with pytest.raises(error, match=name):
        log(**numbers)
    assert graph.get_mission_history() == graph.get_file_history("a") == []


def test_the_largest_numbers_come_back(graph: KnowledgeGraph) -> None:
    graph.log_mission("m", "success", cost_usd=5, iterations=2**63 - 1, duration_seconds=1e308)
    (mission,) = graph.get_mission_history()
    assert (mission["cost_usd"], mission["duration_seconds"]) == (5.0, 1e308)
    assert mission["iterations"] == 2**63 - 1


def test_numbers_of_other_types_that_fit(graph: KnowledgeGraph) -> None:
    cost: Any = Decimal("1.25")
    graph.log_mission("m", "success", cost_usd=cost, iterations=3.0)  # type: ignore[arg-type]
    (mission,) = graph.get_mission_history(limit=2.0)  # type: ignore[arg-type]
    assert (mission["cost_usd"], mission["iterations"]) == (1.25, 3)
    assert isinstance(mission["iterations"], int)


@pytest.mark.parametrize(
    ("identity", "error"), [(2**63, ValueError), (-(2**63) - 1, ValueError), ("1", TypeError)]
)
def test_ids_that_no_row_can_have_are_refused(
    graph: KnowledgeGraph, identity: Any, error: type[Exception]
) -> None:
    known = graph.add_entity("file", "a")
    calls: list[Callable[[], object]] = [
        lambda: graph.get_entity(identity),
        lambda: graph.update_entity(identity, {}),
        lambda: graph.delete_entity(identity),
        lambda: graph.list_entities(after=("2026-01-02T03:04:05Z", identity)),
        lambda: graph.add_relationship(known, identity, "knows"),
        lambda: graph.add_relationship(identity, known, "knows"),
        lambda: graph.add_relationships([(known, identity, "knows")]),
        lambda: graph.get_relationship(identity),
        lambda: graph.list_relationships(from_id=identity),
        lambda: graph.list_relationships(to_id=identity),
        lambda: graph.list_relationships(after=identity),
        lambda: graph.delete_relationship(identity),
        lambda: graph.find_related(identity),
        lambda: graph.neighbors(identity),
        lambda: graph.shortest_path(known, identity),
        lambda: graph.shortest_path(identity, known),
    ]
    for call in calls:
        with pytest.raises(error, match="64 bits" if error is ValueError else "must be an int"):
            call()


def test_a_filter_takes_the_type_of_its_column(graph: KnowledgeGraph) -> None:
    with pytest.raises(TypeError, match="str"):
        graph.list_entities(7)  # type: ignore[arg-type]
    with pytest.raises(TypeError, match="int"):
        graph.list_relationships(from_id="7")  # type: ignore[arg-type]


def test_times_that_are_none_are_refused(graph: KnowledgeGraph) -> None:
    with pytest.raises(TypeError, match="datetime"):
        graph.delete_file_snapshots(before=date(2026, 1, 2))  # type: ignore[arg-type]
    east = timezone(timedelta(hours=2))
    for edge in (datetime(1, 1, 1, tzinfo=east), "9999-12-31T23:59:59-02:00"):
        with pytest.raises(ValueError, match="years 1 to 9999"):
            graph.delete_file_snapshots(before=edge)


def test_limits_are_numbers(graph: KnowledgeGraph) -> None:
    for size in (0, -1):
        with pytest.raises(ValueError, match="page_size"):
            graph.iter_entities(page_size=size)
    with pytest.raises(TypeError, match="limit"):
        graph.list_entities(limit=1.5)  # type: ignore[arg-type]


def test_the_largest_limits_mean_all(graph: KnowledgeGraph) -> None:
    mission, file = graph.add_entities([("mission", "m"), ("file", "a")])
    graph.add_relationship(mission, file, "worked_on")
    graph.log_mission("m", "success", "coding")
    graph.log_mission("n", "success", "coding")
    graph.log_file_snapshot("a")
    most = 2**63 - 1
    calls: list[Callable[[], Sized | None]] = [
        lambda: graph.list_entities("file", limit=most),
        lambda: list(graph.iter_entities("file", page_size=most)),
        lambda: graph.list_relationships(limit=most),
        lambda: graph.find_related(mission, limit=most),
        lambda: graph.find_by_metadata({}, "file", limit=most),
        lambda: graph.search("a", "file", limit=most),
        lambda: graph.neighbors(mission, depth=most, limit=most),
        lambda: graph.shortest_path(file, file, max_depth=most, max_nodes=most),
        lambda: graph.get_risky_files(most),
        lambda: graph.similar_missions("m", most),
        lambda: graph.get_mission_history("success", limit=most)[1:],
        lambda: graph.get_file_history("a", most),
    ]
    for call in calls:
        assert len(call() or ()) == 1
    with pytest.raises(ValueError, match="limit must fit into 64 bits"):
        graph.list_entities(limit=most + 1)


#: Metadata as others may have written it, and as it comes out.
WRITTEN = {
    None: {},
    "{}": {},
    "null": {},
    "5": 5,
    "true": True,
    '""': "",
    '"abc"': "abc",
    '"{\\"a\\": 1}"': '{"a": 1}',
    '"\\u00e9"': "é",
    "[1, null]": [1, None],
    '{"a": null}': {"a": None},
}


def test_whatever_metadata_is_it_comes_out_alike(graph: KnowledgeGraph) -> None:
    other = graph.add_entity("file", "other")
    ids = graph.add_entities([("file", str(number)) for number in range(len(WRITTEN))])
    to_json = "CAST(? AS jsonb)" if graph.backend.name == "postgres" else "?"
    for entity_id, written in zip(ids, WRITTEN, strict=True):
        graph.backend.execute(
            f"UPDATE entities SET metadata = {to_json} WHERE id = ?", (written, entity_id)
        )
        graph.backend.execute(
            "INSERT INTO relationships (from_id, to_id, type, metadata)"
            f" VALUES (?, ?, 'knows', {to_json})",
            (other, entity_id, written),
        )
    graph.backend.commit()
    for entity_id, value in zip(ids, WRITTEN.values(), strict=True):
        assert got(graph.get_entity(entity_id))["metadata"] == value
    pairs = graph.find_related(other)
    assert [entity["metadata"] for entity, _ in pairs] == list(WRITTEN.values())
    assert [relationship["metadata"] for _, relationship in pairs] == list(WRITTEN.values())
    assert [row["name"] for row in graph.search("é")] == ["8"]
    assert graph.update_entity(ids[3], {"new": 1}, merge=True)
    assert got(graph.get_entity(ids[3]))["metadata"] == {"new": 1}


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
        with pytest.raises(SettingsError) as caught:
            KnowledgeGraph("c.db")  # type: ignore[arg-type]
        assert caught.value.hint == "write KnowledgeGraph(db_path='c.db')"
    with get_knowledge_graph() as default:
        assert default.backend.name == "sqlite"
    assert (tmp_path / "data" / "knowledge_graph.db").exists()
