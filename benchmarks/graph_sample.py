"""The graph that ``benchmarks.graph`` measures on, the same for both databases."""

import random
from collections import Counter
from dataclasses import dataclass

from kgcore.graph import KnowledgeGraph

_DOMAINS = ("coding", "docs", "tests", "research", "operations")


@dataclass(frozen=True)
class Sample:
    """Ids by which the measured calls find something."""

    entities: list[int]
    missions: list[int]
    files: list[int]
    #: Missions with 9 to 11 outgoing ``worked_on``; all missions if there are none.
    of_ten: list[int]
    #: The concept that every tenth relationship leads to.
    hub: int


def fill(
    graph: KnowledgeGraph, entities: int, relationships: int, *, few_flags: bool = False
) -> Sample:
    """Add 10 % missions, 50 % files, 40 % bugs, agents and concepts, and relate them.

    Of the relationships 60 % are ``worked_on``, 8 % ``caused_bug``, 12 % ``fixed_bug``, 10 %
    ``depends_on``, and 10 % lead to one concept: the hub. Every seventh mission failed.

    With ``few_flags`` it has what was seen in a real graph: no ``caused_bug`` (they are
    ``fixed_bug``, too), and 74 failed missions.
    """
    chance = random.Random(1)
    missions = [
        ("mission", f"mission-{n:06d}", {"domain": chance.choice(_DOMAINS), "task": f"task {n}"})
        for n in range(entities // 10)
    ]
    files = [
        (
            "file",
            f"src/package_{n % 97}/module_{n:06d}.py",
            {"language": "python", "lines": n % 900},
        )
        for n in range(entities // 2)
    ]
    rest = entities - len(missions) - len(files)
    bugs = [("bug", f"bug-{n:06d}", {"severity": n % 5}) for n in range(rest // 2)]
    others = [
        (("agent", "concept")[n % 2], f"other-{n:06d}", {"team": f"team {n % 40}"})
        for n in range(rest - len(bugs))
    ]
    ids = graph.add_entities([*missions, *files, *bugs, *others])
    mission_ids = ids[: len(missions)]
    file_ids = ids[len(missions) : len(missions) + len(files)]
    bug_ids = ids[len(missions) + len(files) :][: len(bugs)]
    hub = ids[-1]

    def edge(n: int) -> tuple[int, int, str, dict[str, int]]:
        mission = chance.choice(mission_ids)
        draw = chance.random()
        metadata = {"added": n % 120, "removed": n % 60}
        if draw < 0.6:
            # Some files are changed much more often than others.
            file = file_ids[int(len(file_ids) * chance.random() ** 2)]
            return mission, file, "worked_on", metadata
        if draw < 0.8:
            kind = "caused_bug" if draw < 0.68 and not few_flags else "fixed_bug"
            return mission, chance.choice(bug_ids), kind, metadata
        if draw < 0.9:
            return chance.choice(file_ids), chance.choice(file_ids), "depends_on", metadata
        return chance.choice(ids), hub, "relates_to", metadata

    edges = [edge(n) for n in range(relationships)]
    graph.add_relationships(edges)
    worked_on = Counter(mission for mission, _, kind, _ in edges if kind == "worked_on")
    of_ten = [mission for mission in mission_ids if 9 <= worked_on[mission] <= 11]
    with graph.transaction():
        for number, (_, name, metadata) in enumerate(missions):
            graph.log_mission(
                name,
                "failed" if (number < 74 if few_flags else number % 7 == 0) else "success",
                str(metadata["domain"]),
                cost_usd=number % 100 / 50,
                iterations=number % 9,
                duration_seconds=number % 300 / 7,
                files_modified=number % 12,
            )
    return Sample(ids, mission_ids, file_ids, of_ten or mission_ids, hub)
