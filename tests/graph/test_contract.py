"""The calls of the graph: names, parameters and results, the same on both databases."""

import re
import threading
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from kgcore.backends import Row
from kgcore.errors import KGError
from kgcore.graph import KnowledgeGraph, UnknownEntityError

INSTANT = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(\.\d{6})?Z")


def names(rows: list[Row]) -> list[str]:
    return [row["name"] for row in rows]


def got(row: Row | None) -> Row:
    assert row is not None
    return row


def test_add_and_get_an_entity(graph: KnowledgeGraph) -> None:
    metadata = {"domain": "coding", "deep": [1, 2.5, None, True, {"ä": "ü\n'?%"}]}
    entity_id = graph.add_entity("file", "a.py", metadata)
    entity = got(graph.get_entity(entity_id))
    assert list(entity) == ["id", "type", "name", "metadata", "created_at", "updated_at"]
    assert entity == graph.find_entity("file", "a.py")
    assert (entity["id"], entity["type"], entity["name"]) == (entity_id, "file", "a.py")
    assert entity["metadata"] == metadata
    assert entity["created_at"] == entity["updated_at"]
    assert INSTANT.fullmatch(entity["created_at"])
    age = datetime.now(UTC) - datetime.fromisoformat(entity["created_at"])
    assert abs(age) < timedelta(minutes=1)


def test_what_does_not_exist_is_none_or_empty(graph: KnowledgeGraph) -> None:
    assert graph.get_entity(1) is None
    assert graph.find_entity("file", "a.py") is None
    assert graph.list_entities() == []
    assert graph.find_related(1) == []
    assert graph.get_mission_history() == []
    assert graph.get_file_history("a.py") == []
    assert graph.get_files_for_mission("m") == []
    assert graph.get_missions_for_file("a.py") == []
    assert graph.get_bug_relationships("m") == {"caused_bugs": [], "fixed_bugs": []}
    assert graph.get_risky_files() == []
    assert graph.neighbors(1, depth=3) == []
    assert graph.shortest_path(1, 2) is None
    assert graph.similar_missions("m") == []
    assert graph.success_rate() == 0.0
    assert graph.cost_by_domain() == []
    assert graph.update_entity(1, {}) is False
    assert graph.update_entity(1, {"a": 1}, merge=True) is False
    assert graph.delete_entity(1) is False
    assert graph.delete_relationship(1) is False
    assert graph.get_relationship(1) is None
    assert graph.list_relationships() == []
    assert graph.delete_mission("m") is False
    assert graph.delete_file_snapshots("a.py") == 0


def test_adding_again_replaces_metadata_and_keeps_the_rest(graph: KnowledgeGraph) -> None:
    first = graph.add_entity("file", "a.py", {"old": 1})
    before = got(graph.get_entity(first))
    assert graph.add_entity("file", "a.py", {"new": 2}) == first
    after = got(graph.get_entity(first))
    assert after["metadata"] == {"new": 2}
    assert after["created_at"] == before["created_at"]
    assert after["updated_at"] > before["updated_at"]
    assert graph.add_entity("bug", "a.py") != first
    graph.add_entity("file", "a.py")
    assert got(graph.get_entity(first))["metadata"] == {}


def test_list_entities_newest_update_first(graph: KnowledgeGraph) -> None:
    for name in "abc":
        graph.add_entity("file", name)
    graph.add_entity("bug", "d")
    graph.add_entity("file", "a", {"again": True})
    assert names(graph.list_entities()) == ["a", "d", "c", "b"]
    assert names(graph.list_entities("file")) == ["a", "c", "b"]
    assert names(graph.list_entities("file", limit=2)) == ["a", "c"]
    assert graph.list_entities(limit=0) == []
    with pytest.raises(ValueError, match="limit"):
        graph.list_entities(limit=-1)


def test_pages_follow_each_other(graph: KnowledgeGraph) -> None:
    graph.add_entities([("file", str(number)) for number in range(25)])  # All of one time.
    graph.add_entity("bug", "late")
    seen: list[Row] = []
    after = None
    while page := graph.list_entities(limit=10, after=after):
        seen += page
        after = (page[-1]["updated_at"], page[-1]["id"])
    assert seen == graph.list_entities(limit=100)
    assert len(seen) == 26
    assert names(graph.list_entities("file", limit=3, after=after)) == []
    by_id = list(graph.iter_entities(page_size=10))
    assert by_id == sorted(seen, key=lambda row: row["id"])
    assert names(list(graph.iter_entities("bug"))) == ["late"]


def test_relationships_in_each_direction(graph: KnowledgeGraph) -> None:
    a, b, c = (graph.add_entity("node", name, {"n": name}) for name in "abc")
    first = graph.add_relationship(a, b, "knows", {"since": 2020})
    graph.add_relationship(c, a, "knows")
    graph.add_relationship(a, a, "likes")
    graph.add_relationship(a, b, "knows")
    related = graph.find_related(a)
    assert [entity["name"] for entity, _ in related] == ["b", "a", "b"]
    entity, relationship = related[0]
    assert entity == {"id": b, "type": "node", "name": "b", "metadata": {"n": "b"}}
    assert list(relationship) == ["type", "metadata", "created_at"]
    assert (relationship["type"], relationship["metadata"]) == ("knows", {"since": 2020})
    assert INSTANT.fullmatch(relationship["created_at"])
    assert [e["name"] for e, _ in graph.find_related(a, direction="incoming")] == ["c", "a"]
    assert [e["name"] for e, _ in graph.find_related(a, direction="both")] == ["b", "c", "a", "b"]
    assert [e["name"] for e, _ in graph.find_related(a, "likes", "both")] == ["a"]
    assert [e["name"] for e, _ in graph.find_related(a, relationship_type="knows")] == ["b", "b"]
    with pytest.raises(ValueError, match="direction"):
        graph.find_related(a, direction="sideways")  # type: ignore[arg-type]
    assert graph.delete_relationship(first) is True
    assert len(graph.find_related(a)) == 2


def test_relationships_are_listed_a_page_at_a_time(graph: KnowledgeGraph) -> None:
    a, b, c = (graph.add_entity("node", name) for name in "abc")
    ids = graph.add_relationships(
        [(a, b, "knows", {"n": 1}), (b, c, "knows"), (a, c, "likes"), (a, b, "likes")]
    )
    first = got(graph.get_relationship(ids[0]))
    assert list(first) == ["id", "from_id", "to_id", "type", "metadata", "created_at"]
    assert INSTANT.fullmatch(first.pop("created_at"))
    assert first == {"id": ids[0], "from_id": a, "to_id": b, "type": "knows", "metadata": {"n": 1}}
    assert graph.get_relationship(ids[3] + 1) is None

    def listed(**chosen: Any) -> list[int]:
        return [ids.index(row["id"]) for row in graph.list_relationships(**chosen)]

    assert listed() == [3, 2, 1, 0]
    assert listed(from_id=a) == [3, 2, 0]
    assert listed(to_id=b) == [3, 0]
    assert listed(from_id=a, to_id=b, relationship_type="knows") == [0]
    assert listed(relationship_type="") == []
    assert listed(limit=2) == [3, 2]
    assert listed(limit=2, after=ids[2]) == [1, 0]
    assert graph.list_relationships(after=ids[0]) == []
    assert graph.list_relationships(limit=4)[-1]["metadata"] == {"n": 1}
    assert [e["name"] for e, _ in graph.find_related(a, limit=2)] == ["b", "c"]
    assert [e["name"] for e, _ in graph.find_related(b, direction="both", limit=2)] == ["a", "c"]
    with pytest.raises(ValueError, match="limit"):
        graph.find_related(a, limit=-1)


def test_a_relationship_needs_both_entities(graph: KnowledgeGraph) -> None:
    a = graph.add_entity("node", "a")
    with pytest.raises(UnknownEntityError, match="id 77") as caught:
        graph.add_relationship(a, 77, "knows")
    assert isinstance(caught.value, KGError)
    with graph.transaction():
        with pytest.raises(UnknownEntityError):
            graph.add_relationship(78, a, "knows")
        with pytest.raises(UnknownEntityError, match="77, 78"):
            graph.add_relationships([(a, a, "x"), (77, a, "x"), (a, 78, "x")])
        graph.add_relationship(a, a, "knows")  # The transaction goes on.
    assert len(graph.find_related(a)) == 1


def test_a_deleted_entity_takes_its_relationships_along(graph: KnowledgeGraph) -> None:
    a, b = graph.add_entity("node", "a"), graph.add_entity("node", "b")
    graph.add_relationship(a, b, "knows")
    assert graph.delete_entity(a) is True
    assert graph.get_entity(a) is None
    assert graph.find_related(b, direction="both") == []
    assert graph.get_stats()["relationships"] == {"total": 0, "by_type": {}}


def test_update_replaces_or_merges(graph: KnowledgeGraph) -> None:
    entity_id = graph.add_entity("file", "a", {"a": 1, "deep": {"x": 1, "y": 2}, "long": 0.1 + 0.2})
    before = got(graph.get_entity(entity_id))
    assert graph.update_entity(entity_id, {"deep": {"x": 3}, "b": None}, merge=True) is True
    after = got(graph.get_entity(entity_id))
    assert after["metadata"] == {"a": 1, "deep": {"x": 3}, "b": None, "long": 0.1 + 0.2}
    assert after["updated_at"] > before["updated_at"]
    assert after["created_at"] == before["created_at"]
    assert graph.update_entity(entity_id, {"c": 1}) is True
    assert got(graph.get_entity(entity_id))["metadata"] == {"c": 1}


def test_bulk_writes(graph: KnowledgeGraph) -> None:
    old = graph.add_entity("file", "old", {"v": 1})
    wanted = [("file", f"{number:05d}", {"n": number}) for number in range(6000, 0, -1)]
    ids = graph.add_entities([*wanted, ("file", "old"), ("bug", "00001"), ("file", "00001", {})])
    assert ids[-3] == old
    assert ids[-1] == ids[5999]
    assert len(set(ids)) == 6002
    for place in (0, 17, 5998):
        assert got(graph.get_entity(ids[place]))["metadata"] == wanted[place][2]
    assert got(graph.get_entity(old))["metadata"] == {}
    assert got(graph.get_entity(ids[-1]))["metadata"] == {}
    edges = [(ids[place], ids[-1 - place], "x", {"place": place}) for place in range(6002)]
    edge_ids = graph.add_relationships([*edges, edges[0], (old, old, "y")])
    assert edge_ids == sorted(set(edge_ids))
    assert len(edge_ids) == 6004
    assert [r["metadata"] for _, r in graph.find_related(ids[1])] == [{"place": 1}]
    assert [e["id"] for e, _ in graph.find_related(ids[1])] == [ids[-2]]
    assert graph.add_entities([]) == graph.add_relationships([]) == []
    with pytest.raises(UnknownEntityError):
        graph.add_relationships([(old, old, "z"), (old, -5, "z")])
    assert graph.find_related(old, "z") == []


def test_a_transaction_is_all_or_nothing(graph: KnowledgeGraph) -> None:
    seen: list[int] = []

    def look() -> None:
        seen.append(graph.get_stats()["entities"]["total"])

    with graph.transaction() as same:
        assert same is graph
        graph.add_entity("file", "a")
        graph.add_entities([("file", "b")])
        thread = threading.Thread(target=look)
        thread.start()
        thread.join()
    look()
    assert seen == [0, 2]

    def fail() -> None:
        with graph.transaction():
            graph.add_entity("file", "c")
            graph.update_entity(1, {"lost": 1}, merge=True)
            raise RuntimeError

    with pytest.raises(RuntimeError):
        fail()
    with graph.transaction():
        graph.add_entity("file", "d")
        with pytest.raises(RuntimeError):
            fail()
    assert sorted(names(graph.list_entities())) == ["a", "b", "d"]
    assert (
        graph.run_transaction(lambda kg: kg.add_entity("file", "d"))
        == got(graph.find_entity("file", "d"))["id"]
    )
