"""Risky files, next to the plain join."""

import random

import pytest

from kgcore.graph import KnowledgeGraph
from kgcore.graph.risk import FEW, FLAGS, flagged_files
from kgcore.optimizer.queries import statements

PLAIN = """
SELECT f.name AS file_path, count(DISTINCT b.id) AS bug_count,
    count(DISTINCT w.id) AS mission_count, count(DISTINCT h.id) AS failed_mission_count
FROM entities f
JOIN relationships w ON w.to_id = f.id AND w.type = 'worked_on'
JOIN entities m ON m.id = w.from_id AND m.type = 'mission'
LEFT JOIN relationships b ON b.from_id = m.id AND b.type = 'caused_bug'
LEFT JOIN mission_history h ON h.mission_id = m.name AND h.status = 'failed'
WHERE f.type = 'file' GROUP BY f.id, f.name
ORDER BY bug_count DESC, failed_mission_count DESC, mission_count DESC, f.id
"""


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize(
    ("bugs", "failed"), [(0.5, 0.3), (0.0, 0.3), (0.0, 0.02), (0.0, 0.0), (2.0, 0.1)]
)
def test_risky_files(
    graph: KnowledgeGraph,
    monkeypatch: pytest.MonkeyPatch,
    seed: int,
    bugs: float,
    failed: float,
) -> None:
    chance = random.Random(seed)
    missions = graph.add_entities([("mission", f"m{number}") for number in range(40)])
    files = graph.add_entities([("file", f"f{number:02d}") for number in range(60)])
    others = graph.add_entities([("bug", f"b{number}") for number in range(20)])
    edges = [
        (chance.choice([*missions, *others[:2]]), chance.choice(others), "caused_bug")
        for _ in range(int(40 * bugs))
    ]
    edges += [
        (
            chance.choice([*missions, *others[:2]]),
            chance.choice([*files[: int(60 * chance.random() ** 2) + 1], *others[:3]]),
            chance.choice(("worked_on", "worked_on", "worked_on", "fixed_bug")),
        )
        for _ in range(300)
    ]
    graph.add_relationships(edges)
    for number in range(0, 40, 2):
        graph.log_mission(f"m{number}", "failed" if chance.random() < failed else "success")
    plain = graph.backend.fetchall(PLAIN)
    expected = [
        row | {"risk_score": 10 * row["bug_count"] + 5 * row["failed_mission_count"]}
        for row in plain
    ]
    assert len(expected) > 20
    for few in (FEW, -1):  # Either way.
        monkeypatch.setattr("kgcore.graph.analytics.FEW", few)
        for limit in (1, 3, 10, 1000):
            assert graph.get_risky_files(limit) == expected[:limit]
    assert graph.get_risky_files() == expected[:10]
    assert graph.get_risky_files(0) == []


@pytest.mark.parametrize("flags", [FEW, FEW + 1])
def test_the_way_is_chosen_by_the_number_of_flags(graph: KnowledgeGraph, flags: int) -> None:
    mission, file = graph.add_entities([("mission", "m"), ("file", "a.py")])
    graph.add_relationship(mission, file, "worked_on")
    graph.add_relationships([(mission, file, "caused_bug")] * (flags - 1))
    graph.log_mission("m", "failed")
    (row,) = graph.backend.fetchall(FLAGS)
    assert row["flags"] == flags
    sent = [call.sql for call in statements(graph.backend, lambda kg: kg.get_risky_files(1))]
    assert (sent == [FLAGS, flagged_files(1)[0]]) is (flags == FEW)
    (found,) = graph.get_risky_files(1)
    assert (found["bug_count"], found["failed_mission_count"]) == (flags - 1, 1)
