"""Missions, files and the questions about them, the same on both databases."""

import re
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from functools import partial
from typing import Any

import pytest

from kgcore.backends import Row
from kgcore.graph import KnowledgeGraph

INSTANT = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(\.\d{6})?Z")


def names(rows: list[Row]) -> list[str]:
    return [row["name"] for row in rows]


def got(row: Row | None) -> Row:
    assert row is not None
    return row


def test_missions(graph: KnowledgeGraph) -> None:
    graph.log_mission("m1", "running")
    graph.log_mission("m2", "failed", "docs", 1.5, 3, 60.25, 4, {"task": "t"})
    before = got(graph.get_mission_history("running")[0])
    graph.log_mission("m1", "success", domain="coding", cost_usd=0.25)
    first, second = graph.get_mission_history()
    assert list(first) == [
        "id",
        "mission_id",
        "status",
        "domain",
        "cost_usd",
        "iterations",
        "duration_seconds",
        "files_modified",
        "metadata",
        "created_at",
    ]
    assert first | {"created_at": "", "id": 0} == {
        "id": 0,
        "mission_id": "m2",
        "status": "failed",
        "domain": "docs",
        "cost_usd": 1.5,
        "iterations": 3,
        "duration_seconds": 60.25,
        "files_modified": 4,
        "metadata": {"task": "t"},
        "created_at": "",
    }
    assert (second["mission_id"], second["status"]) == ("m1", "success")
    assert (second["id"], second["created_at"]) == (before["id"], before["created_at"])
    assert second["metadata"] == {}
    assert graph.get_mission_history("success", "docs") == []
    assert graph.get_mission_history(domain="docs") == [first]
    assert graph.get_mission_history(limit=1) == [first]


def test_file_snapshots(graph: KnowledgeGraph) -> None:
    ids = [
        graph.log_file_snapshot("a.py", "m1", 2**40, 100, "abc", {"binary": False}),
        graph.log_file_snapshot("a.py"),
        graph.log_file_snapshot("b.py"),
    ]
    last, first = graph.get_file_history("a.py")
    assert INSTANT.fullmatch(first.pop("created_at"))
    assert first == {
        "id": ids[0],
        "file_path": "a.py",
        "mission_id": "m1",
        "size_bytes": 2**40,
        "lines_of_code": 100,
        "hash": "abc",
        "metadata": {"binary": False},
    }
    assert last["id"] == ids[1]
    assert (last["mission_id"], last["size_bytes"], last["hash"]) == (None, None, None)
    assert last["metadata"] == {}
    assert list(last)[-2:] == ["created_at", "metadata"]
    assert graph.get_file_history("a.py", limit=1) == [last]


def test_history_is_read_a_page_at_a_time(graph: KnowledgeGraph) -> None:
    for number in range(7):
        graph.log_mission(f"m{number}", "success", "docs" if number % 2 else "coding")
        graph.log_file_snapshot("a.py", f"m{number}")
    for table in ("mission_history", "file_snapshots"):  # Two of one time: then the id decides.
        graph.backend.execute(
            f"UPDATE {table} SET created_at = (SELECT created_at FROM {table} WHERE"
            " mission_id = 'm3') WHERE mission_id = 'm2'"
        )
    graph.backend.commit()

    def pages(read: Callable[..., list[Row]]) -> list[Row]:
        found: list[Row] = []
        after = None
        while page := read(limit=3, after=after):
            found += page
            after = (page[-1]["created_at"], page[-1]["id"])
        return found

    missions = pages(graph.get_mission_history)
    assert [row["mission_id"] for row in missions] == [f"m{number}" for number in range(6, -1, -1)]
    assert missions == graph.get_mission_history()
    in_docs = pages(partial(graph.get_mission_history, domain="docs"))
    assert in_docs == graph.get_mission_history(domain="docs")
    assert pages(partial(graph.get_file_history, "a.py")) == graph.get_file_history("a.py")
    assert pages(partial(graph.get_file_history, "b.py")) == []


def test_missions_and_snapshots_are_deleted(graph: KnowledgeGraph) -> None:
    mission = graph.add_entity("mission", "m1")
    graph.log_mission("m1", "success")
    graph.log_mission("m2", "success")
    assert graph.delete_mission("m1") is True
    assert graph.delete_mission("m1") is False
    assert [row["mission_id"] for row in graph.get_mission_history()] == ["m2"]
    assert graph.get_entity(mission) is not None
    for path in ("a", "b", "a", "b", "a"):
        graph.log_file_snapshot(path)
    times = [row["created_at"] for row in graph.get_file_history("a")]
    assert graph.delete_file_snapshots("a", before=times[-1]) == 0  # Before means before.
    assert graph.delete_file_snapshots("a", before=times[0]) == 2
    assert [row["created_at"] for row in graph.get_file_history("a")] == times[:1]
    assert len(graph.get_file_history("b")) == 2
    assert graph.delete_file_snapshots(before=datetime.now(UTC) + timedelta(hours=1)) == 3
    graph.log_file_snapshot("a")
    with pytest.raises(ValueError, match="before"):
        graph.delete_file_snapshots()
    assert graph.delete_file_snapshots("a") == 1


def test_files_missions_and_bugs(graph: KnowledgeGraph) -> None:
    mission = graph.add_entity("mission", "m1")
    file = graph.add_entity("file", "a.py")
    agent = graph.add_entity("agent", "a.py")
    bugs = [graph.add_entity("bug", name) for name in ("bug 1", "bug 2")]
    graph.add_relationship(mission, file, "worked_on", {"added": 1})
    graph.add_relationship(mission, agent, "worked_on")
    graph.add_relationship(agent, file, "worked_on")
    graph.add_relationship(mission, bugs[0], "caused_bug")
    graph.add_relationship(mission, bugs[1], "fixed_bug")
    (found,) = graph.get_files_for_mission("m1")
    assert found["file"] == {"id": file, "type": "file", "name": "a.py", "metadata": {}}
    assert found["relationship"]["metadata"] == {"added": 1}
    (found,) = graph.get_missions_for_file("a.py")
    assert found["mission"]["name"] == "m1"
    assert found["relationship"]["type"] == "worked_on"
    both = graph.get_bug_relationships("m1")
    assert [row["entity"]["name"] for row in both["caused_bugs"]] == ["bug 1"]
    assert [row["entity"]["name"] for row in both["fixed_bugs"]] == ["bug 2"]
    assert both["fixed_bugs"][0]["relationship"]["type"] == "fixed_bug"


def test_stats(graph: KnowledgeGraph) -> None:
    empty: dict[str, Any] = {"total": 0, "by_type": {}}
    assert graph.get_stats() == {
        "entities": empty,
        "relationships": empty,
        "missions": {
            "total": 0,
            "successful": 0,
            "failed": 0,
            "total_cost_usd": 0.0,
            "avg_cost_usd": 0.0,
            "avg_duration_seconds": 0.0,
            "total_files_modified": 0,
        },
    }
    a, b, _ = graph.add_entities([("file", "a"), ("file", "b"), ("bug", "c")])
    graph.add_relationships([(a, b, "x"), (b, a, "x"), (a, a, "y")])
    graph.log_mission("m1", "success", cost_usd=0.1, duration_seconds=1, files_modified=2)
    graph.log_mission("m2", "failed", cost_usd=0.2, duration_seconds=2, files_modified=3)
    graph.log_mission("m3", "running")
    assert graph.get_stats() == {
        "entities": {"total": 3, "by_type": {"bug": 1, "file": 2}},
        "relationships": {"total": 3, "by_type": {"x": 2, "y": 1}},
        "missions": {
            "total": 3,
            "successful": 1,
            "failed": 1,
            "total_cost_usd": 0.3,
            "avg_cost_usd": 0.1,
            "avg_duration_seconds": 1.0,
            "total_files_modified": 5,
        },
    }


@pytest.mark.parametrize("files", [2**63 - 1, -(2**63), -1])
def test_sums_may_be_beyond_64_bits(graph: KnowledgeGraph, files: int) -> None:
    for mission in "abc":
        graph.log_mission(mission, "success", files_modified=files)
    assert graph.get_stats()["missions"]["total_files_modified"] == 3 * files


def test_mission_queries(graph: KnowledgeGraph) -> None:
    graph.log_mission("m1", "success", "coding", 1.0)
    graph.log_mission("m2", "failed", "coding", 0.5)
    graph.log_mission("m3", "success", "docs", 4.0)
    graph.log_mission("m4", "success", None, 0.0)
    graph.log_mission("m5", "running", "coding", 0.0)

    def ids(rows: list[Row]) -> list[str]:
        return [row["mission_id"] for row in rows]

    assert ids(graph.missions_by_domain("coding")) == ["m5", "m2", "m1"]
    assert ids(graph.successful_missions()) == ["m4", "m3", "m1"]
    assert ids(graph.failed_missions()) == ["m2"]
    assert ids(graph.recent_missions(1, limit=2)) == ["m5", "m4"]
    assert graph.recent_missions(-1) == []
    assert graph.success_rate() == 0.75
    assert graph.success_rate("coding") == 0.5
    assert graph.cost_by_domain() == [
        {
            "domain": domain,
            "missions": missions,
            "total_cost_usd": total,
            "avg_cost_usd": mean,
            "successful": successful,
            "failed": failed,
            "success_rate": rate,
        }
        for domain, missions, total, mean, successful, failed, rate in (
            ("docs", 1, 4.0, 4.0, 1, 0, 1.0),
            ("coding", 3, 1.5, 0.5, 1, 1, 0.5),
            (None, 1, 0.0, 0.0, 1, 0, 1.0),
        )
    ]
    missions = [graph.add_entity("mission", f"m{number}") for number in (1, 3, 4)]
    file = graph.add_entity("file", "a.py")
    graph.add_relationships([(mission, file, "worked_on") for mission in (*missions, missions[0])])
    similar = graph.similar_missions("m1")
    assert [(row["mission_id"], row["shared_files"]) for row in similar] == [
        ("m4", 1),
        ("m3", 1),
        ("m5", 0),
        ("m2", 0),
    ]
    assert graph.similar_missions("m1", limit=1) == similar[:1]


def test_no_domain_comes_before_the_empty_one(graph: KnowledgeGraph) -> None:
    for number in range(8):
        domain = None if number % 2 else ""
        graph.log_mission(str(number), "success" if domain is None else "failed", domain)
    with graph.transaction():
        if graph.backend.name == "postgres":  # Which groups by sorting then, NULL last.
            graph.backend.execute("SET LOCAL enable_hashagg = off")
        assert [row["domain"] for row in graph.cost_by_domain()] == [None, ""]
        lines = graph.evolution_report().splitlines()
    assert [line for line in lines if line.startswith("| none")] == [
        "| none | 4 | 100% | $0.00 |",
        "| none | 4 | 0% | $0.00 |",
    ]


def test_evolution_report(graph: KnowledgeGraph) -> None:
    assert "| Nothing |" in graph.evolution_report()
    graph.log_mission("m1", "success", "a|b", 1.0, duration_seconds=2)
    graph.log_mission("m2", "failed", "a|b", 0.5)
    mission, file = graph.add_entity("mission", "m2"), graph.add_entity("file", "src/a.py")
    graph.add_relationship(mission, file, "worked_on")
    graph.log_file_snapshot("src/a.py", "m2")
    report = graph.evolution_report(days=30)
    assert report.startswith("# Evolution report: the last 30 days\n")
    for line in (
        "| Missions | 2 | 0 | +2 |",
        "| Success rate | 50% | - |  |",
        "| Cost | $1.50 | $0.00 | +1.50 |",
        "| a\\|b | 2 | 50% | $1.50 |",
        "| entities | file | 1 |",
        "| relationships | worked_on | 1 |",
        "| src/a.py | 1 | 1 |",
        "| src/a.py | 5 | 0 | 1 | 1 |",
    ):
        assert line in report.splitlines()
    with pytest.raises(ValueError, match="days"):
        graph.evolution_report(0)
    assert "| Missions | 2 | 0 | +2 |" in graph.evolution_report(400_000)
    for days in (10**6, 10**300):
        assert [row["mission_id"] for row in graph.recent_missions(days)] == ["m2", "m1"]
    assert graph.recent_missions(-(10**6)) == []


def test_pages_go_on_over_infinite_times(postgres_graph: KnowledgeGraph) -> None:
    graph = postgres_graph
    times = (
        "-infinity",
        "0001-01-01T00:00:00Z",
        "2026-01-02T03:04:05Z",
        "9999-12-31T23:59:59.999999Z",
        "infinity",
    )
    for number, time in enumerate(time for time in times for _ in range(3)):
        graph.log_mission(str(number), "success")
        sql = "UPDATE mission_history SET created_at = CAST(? AS timestamptz) WHERE mission_id = ?"
        graph.backend.execute(sql, (time, str(number)))
    graph.backend.commit()
    found: list[str] = []
    after = None
    while page := graph.get_mission_history(limit=2, after=after):
        found += [mission["mission_id"] for mission in page]
        after = (page[-1]["created_at"], page[-1]["id"])
        assert len(found) <= 15, found
    assert found == [str(number) for number in reversed(range(15))]
