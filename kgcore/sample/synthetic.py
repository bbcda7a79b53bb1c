"""Make a synthetic graph of any size, the same for the same seed and counts.

Rows are made one by one from their position, so memory stays flat: the n-th id, file or mission is
computed, not remembered. Names rise with ids, so a unique index is mostly appended to.
"""

import random
from collections.abc import Iterator
from pathlib import Path

from kgcore.errors import SettingsError
from kgcore.sample.positions import (
    SPAN_SECONDS,
    TYPES,
    entity_name,
    file_count,
    file_name,
    instant,
    mission_name,
    odd_rows,
    spaced,
)
from kgcore.sample.texts import STRANGE_JSON, strange_name
from kgcore.sample.writer import GraphWriter, Progress, Row, SampleCounts, make_graph
from kgcore.schema.graph import ENTITIES, FILE_SNAPSHOTS, MISSION_HISTORY, RELATIONSHIPS

_RELATIONS = ("worked_on", "created_by", "depends_on", "relates_to", "fixed_bug", "caused_bug")
_RELATION_WEIGHTS = (50, 20, 12, 10, 6, 2)
_DOMAINS = ("coding", "coding", "coding", "docs", "tests", "research", "operations", None)
_STATUSES = ("success", "success", "success", "success", "failed", "running", "cancelled")
_VERBS = ("Add", "Fix", "Remove", "Speed up", "Document", "Rework", "Test", "Simplify", "Rename")
_NOUNS = ("parser", "scheduler", "result backend", "retry policy", "event loop", "cache", "worker")

_STRANGE_SHARE = 0.02


def make_synthetic(
    path: Path,
    *,
    entities: int,
    relationships: int,
    missions: int,
    snapshots: int,
    seed: int = 0,
    overwrite: bool = False,
    progress: Progress | None = None,
) -> SampleCounts:
    """Write a graph of exactly these numbers of rows to the SQLite file ``path``.

    Ids have gaps (about 5 %), degrees are skewed, about 2 % of the rows hold unusual text or JSON,
    and the oldest rows of each table (1 of 200) have timestamps in other forms than ``...Z``; all
    of it is valid for PostgreSQL. Raises :class:`SettingsError` if the numbers make no graph, or if
    the file exists and ``overwrite`` is False.
    """
    for name, count in (
        ("entities", entities),
        ("relationships", relationships),
        ("missions", missions),
        ("snapshots", snapshots),
    ):
        if count < 0:
            raise SettingsError(f"{name} is {count}", "give zero or more")
    if relationships and not entities:
        raise SettingsError(
            f"{relationships} relationships have nothing to relate: entities is 0",
            "ask for at least one entity, or for no relationships",
        )

    def fill(writer: GraphWriter) -> None:
        writer.insert_all(ENTITIES, _entities(entities, seed), entities)
        writer.insert_all(
            RELATIONSHIPS, _relationships(relationships, entities, seed), relationships
        )
        writer.insert_all(MISSION_HISTORY, _missions(missions, seed), missions)
        writer.insert_all(
            FILE_SNAPSHOTS, _snapshots(snapshots, entities, missions, seed), snapshots
        )
        # As if the newest rows had been deleted: their ids are not given again.
        writer.execute(
            "UPDATE sqlite_sequence SET seq = seq + 17 WHERE name IN ('entities', 'file_snapshots')"
        )

    return make_graph(path, fill, overwrite=overwrite, progress=progress)


def _entities(rows: int, seed: int) -> Iterator[Row]:
    chance = _random(seed, "entities")
    tasks = _tasks()
    odd = odd_rows(rows)
    for position in range(rows):
        kind = TYPES[position % len(TYPES)]
        draw = chance.random()
        if position == 2:
            name = ""  # Of a concept; empty names are unique, too.
        elif draw < _STRANGE_SHARE and kind != "mission":
            name = strange_name(chance.getrandbits(16), position)
        else:
            name = entity_name(kind, position)
        seconds = SPAN_SECONDS * position // rows
        later = int(chance.random() * 86_400 * 30) if draw > 0.7 else 0
        yield (
            spaced(position, seed),
            kind,
            name,
            _entity_metadata(kind, chance, tasks),
            instant(seconds, position, odd),
            instant(seconds + later, position, odd),
        )


def _relationships(rows: int, entities: int, seed: int) -> Iterator[Row]:
    chance = _random(seed, "relationships")
    draw = chance.random
    kinds = chance.choices(_RELATIONS, _RELATION_WEIGHTS, k=8_192)
    odd = odd_rows(rows)
    for position in range(rows):
        share = draw()
        if share < _STRANGE_SHARE:
            metadata: str | None = chance.choice(STRANGE_JSON)
        elif share < 0.05:
            metadata = None
        elif share < 0.25:
            metadata = "{}"
        else:
            metadata = f'{{"added": {int(draw() * 120)}, "removed": {int(draw() * 60)}}}'
        yield (
            spaced(position, seed),
            # The powers make hubs: the first of 400,000 entities gets 4 % of all that point to one.
            spaced(int(entities * draw() ** 2), seed),
            spaced(int(entities * draw() ** 4), seed),
            kinds[int(draw() * 8_192)],
            metadata,
            instant(SPAN_SECONDS * position // rows, position, odd),
        )


def _missions(rows: int, seed: int) -> Iterator[Row]:
    chance = _random(seed, "missions")
    tasks = _tasks()
    odd = odd_rows(rows)
    for position in range(rows):
        draw = chance.random()
        files = 1 + int(chance.expovariate(0.4))
        # Most costs have few digits, as prices do; the others need all 17.
        cost = round(files * 0.0123, 4) if draw < 0.8 else files * draw / 3
        measured = draw > 0.03
        yield (
            spaced(position, seed),
            mission_name(position),
            chance.choice(_STATUSES),
            chance.choice(_DOMAINS),
            cost if measured else None,
            files + int(draw * 5) if measured else None,
            files * 31 / 7 + chance.random() if measured else None,
            files if measured else None,
            _mission_metadata(chance, tasks),
            instant(SPAN_SECONDS * position // rows, position, odd),
        )


def _snapshots(rows: int, entities: int, missions: int, seed: int) -> Iterator[Row]:
    chance = _random(seed, "snapshots")
    files = max(1, file_count(entities))
    odd = odd_rows(rows)
    for position in range(rows):
        draw = chance.random()
        strange = draw < _STRANGE_SHARE
        lines = int(chance.expovariate(0.004))
        path = file_name(int(files * chance.random() ** 2))
        mission = int(missions * chance.random())
        known = draw > 0.03
        yield (
            spaced(position, seed),
            strange_name(chance.getrandbits(16), position) if strange else path,
            mission_name(mission) if missions and draw < 0.97 else None,
            # Sizes beyond 2^53 tell whether an integer went through a double on its way.
            2**53 + 1 + 2 * position if strange else lines * 37 + int(draw * 37) if known else None,
            lines if known else None,
            f"{chance.getrandbits(256):064x}" if known else None,
            instant(SPAN_SECONDS * position // rows, position, odd),
            chance.choice(STRANGE_JSON) if strange else '{"binary": false}' if known else None,
        )


def _entity_metadata(kind: str, chance: random.Random, tasks: list[str]) -> str | None:
    draw = chance.random()
    if draw < _STRANGE_SHARE:
        return chance.choice(STRANGE_JSON)
    if draw < 0.06:
        return None
    if draw < 0.12:
        return "{}"
    if kind == "file":
        return f'{{"language": "python", "commits": {int(draw * 90)}, "weight": {draw!r}}}'
    return f'{{"domain": "coding", "task": "{_task(tasks, draw)}", "merge": false}}'


def _mission_metadata(chance: random.Random, tasks: list[str]) -> str | None:
    draw = chance.random()
    if draw < _STRANGE_SHARE:
        return chance.choice(STRANGE_JSON)
    if draw < 0.05:
        return None
    return f'{{"task": "{_task(tasks, draw)}", "author": "agent-{int(draw * 1500):08d}"}}'


def _task(tasks: list[str], draw: float) -> str:
    """Nearly every task has words of its own, as in a real graph: it is what a GIN index costs."""
    return f"{tasks[int(draw * len(tasks))]}, case {int(draw * 1e9)}"


def _tasks() -> list[str]:
    return [
        f"{verb} the {noun} of the {other}"
        for noun in _NOUNS
        for verb in _VERBS
        for other in _NOUNS
    ]


def _random(seed: int, table: str) -> random.Random:
    return random.Random(f"{seed}:{table}")  # noqa: S311 - sample data has to be repeatable
