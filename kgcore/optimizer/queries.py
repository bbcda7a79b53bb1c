"""The graph's own queries by name, to be explained: the very statements that the library sends."""

from collections.abc import Callable
from dataclasses import dataclass
from enum import StrEnum
from typing import Any

from kgcore.backends import KGBackend, Row
from kgcore.errors import SettingsError
from kgcore.graph import KnowledgeGraph
from kgcore.graph.session import Params, Session


@dataclass(frozen=True, slots=True)
class Sent:
    """A statement as the library sends it."""

    sql: str
    params: Params
    #: Sent so that PostgreSQL does not compile it.
    heavy: bool


class GraphQuery(StrEnum):
    """Reading calls of :class:`~kgcore.KnowledgeGraph`."""

    GET_ENTITY = "get-entity"
    FIND_ENTITY = "find-entity"
    LIST_ENTITIES = "list-entities"
    FIND_RELATED = "find-related"
    NEIGHBORS = "neighbors"
    SHORTEST_PATH = "shortest-path"
    FIND_BY_METADATA = "find-by-metadata"
    SEARCH = "search"
    MISSION_HISTORY = "mission-history"
    SIMILAR_MISSIONS = "similar-missions"
    FILE_HISTORY = "file-history"
    FILES_FOR_MISSION = "files-for-mission"
    MISSIONS_FOR_FILE = "missions-for-file"
    BUG_RELATIONSHIPS = "bug-relationships"
    RISKY_FILES = "risky-files"
    STATS = "stats"
    EVOLUTION_REPORT = "evolution-report"


@dataclass(frozen=True, slots=True)
class Example:
    """What the calls are made with: an entity, one that is related to it, a mission, a file."""

    entity: Row
    other: int
    mission: str
    file: str


_CALLS: dict[GraphQuery, Callable[[KnowledgeGraph, Example], object]] = {
    GraphQuery.GET_ENTITY: lambda kg, e: kg.get_entity(e.entity["id"]),
    GraphQuery.FIND_ENTITY: lambda kg, e: kg.find_entity(e.entity["type"], e.entity["name"]),
    GraphQuery.LIST_ENTITIES: lambda kg, e: kg.list_entities(e.entity["type"]),
    GraphQuery.FIND_RELATED: lambda kg, e: kg.find_related(e.entity["id"]),
    GraphQuery.NEIGHBORS: lambda kg, e: kg.neighbors(e.entity["id"], depth=2),
    GraphQuery.SHORTEST_PATH: lambda kg, e: kg.shortest_path(e.entity["id"], e.other),
    GraphQuery.FIND_BY_METADATA: lambda kg, _: kg.find_by_metadata({"domain": "coding"}),
    GraphQuery.SEARCH: lambda kg, e: kg.search(e.entity["name"]),
    GraphQuery.MISSION_HISTORY: lambda kg, _: kg.get_mission_history(),
    GraphQuery.SIMILAR_MISSIONS: lambda kg, e: kg.similar_missions(e.mission),
    GraphQuery.FILE_HISTORY: lambda kg, e: kg.get_file_history(e.file),
    GraphQuery.FILES_FOR_MISSION: lambda kg, e: kg.get_files_for_mission(e.mission),
    GraphQuery.MISSIONS_FOR_FILE: lambda kg, e: kg.get_missions_for_file(e.file),
    GraphQuery.BUG_RELATIONSHIPS: lambda kg, e: kg.get_bug_relationships(e.mission),
    GraphQuery.RISKY_FILES: lambda kg, _: kg.get_risky_files(),
    GraphQuery.STATS: lambda kg, _: kg.get_stats(),
    GraphQuery.EVOLUTION_REPORT: lambda kg, _: kg.evolution_report(),
}


def named_call(
    backend: KGBackend, query: GraphQuery, entity_id: int | None = None
) -> Callable[[KnowledgeGraph], object]:
    """Return the call of that name with an example of the graph's own."""
    example = _example(backend, entity_id)
    return lambda kg: _CALLS[query](kg, example)


def statements(backend: KGBackend, call: Callable[[KnowledgeGraph], object]) -> tuple[Sent, ...]:
    """Make a call that only reads; return the statements it sent, each once.

    Raises :class:`SettingsError` for a call that writes, before it does.
    """
    graph = _Observed(backend)
    call(graph)
    return tuple({sent.sql: sent for sent in graph.sent}.values())


class _Observed(KnowledgeGraph):
    def __init__(self, backend: KGBackend) -> None:
        super().__init__(backend)
        self.sent: list[Sent] = []
        self._session = _Recording(backend, self.sent)


class _Recording(Session):
    def __init__(self, backend: KGBackend, sent: list[Sent]) -> None:
        super().__init__(backend)
        self._sent = sent

    def rows(self, sql: str, params: Params = (), *, heavy: bool = False) -> list[Row]:
        self._sent.append(Sent(sql, params, heavy))
        return super().rows(sql, params, heavy=heavy)

    def write(self, *_: Any, **__: Any) -> list[Row]:
        raise _writes()

    def atomically(self, *_: Any, **__: Any) -> Any:
        raise _writes()


def _writes() -> SettingsError:
    return SettingsError("this call writes, and only reading is explained", "choose a reading call")


def _example(backend: KGBackend, entity_id: int | None) -> Example:
    edge = backend.fetchone("SELECT from_id, to_id FROM relationships ORDER BY id DESC LIMIT 1")
    chosen = entity_id if entity_id is not None else (edge or {}).get("from_id")
    row = backend.fetchone(
        "SELECT id, type, name FROM entities WHERE id = ?"
        if chosen is not None
        else "SELECT id, type, name FROM entities ORDER BY id DESC LIMIT 1",
        () if chosen is None else (chosen,),
    )
    if row is None and entity_id is not None:
        raise SettingsError(f"there is no entity {entity_id}", "name another with --entity")
    entity = row or {"id": 0, "type": "file", "name": "none"}
    other = edge["to_id"] if edge else entity["id"]
    return Example(entity, other, _name(backend, entity, "mission"), _name(backend, entity, "file"))


def _name(backend: KGBackend, entity: Row, kind: str) -> str:
    """Return the name of the entity if it is of that kind, else of one that is."""
    if entity["type"] == kind:
        return str(entity["name"])
    row = backend.fetchone("SELECT name FROM entities WHERE type = ? LIMIT 1", (kind,))
    return "none" if row is None else str(row["name"])
