"""Whatever is called in whatever order: both databases give the same answers."""

import contextlib
from collections.abc import Callable
from typing import Any

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from kgcore.graph import KnowledgeGraph, UnknownEntityError

TYPES = st.sampled_from(["mission", "file", "bug"])
NAMES = st.sampled_from(["a", "B", "ä%_", "", "it's"])
KINDS = st.sampled_from(["worked_on", "caused_bug", "fixed_bug"])
KEYS = st.sampled_from(["k", 'q".[', ""])
METADATA = st.none() | st.dictionaries(
    KEYS,
    st.recursive(
        st.none()
        | st.booleans()
        | st.integers(-(2**70), 2**70)
        | st.floats(allow_nan=False, allow_infinity=False)
        | st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0"), max_size=4),
        lambda inner: st.lists(inner, max_size=2) | st.dictionaries(KEYS, inner, max_size=2),
        max_leaves=4,
    ),
    max_size=3,
)
#: What others may have written, who are no dict.
SCALARS = st.sampled_from(
    [None, "null", "5", "1.50", "true", '""', '"abc"', '"{\\"a\\": 1}"', '"\\u00e4"', "[1, null]"]
)
PLACES = st.integers(0, 9)
SMALL = st.integers(0, 3)
Call = tuple[str, tuple[Any, ...]]


def call(name: str, *arguments: st.SearchStrategy[Any]) -> st.SearchStrategy[Call]:
    return st.tuples(st.just(name), st.tuples(*arguments))


CALLS = st.one_of(
    call("add_entity", TYPES, NAMES, METADATA),
    call("add_entity", TYPES, NAMES, METADATA),
    call("add_entities", st.lists(st.tuples(TYPES, NAMES, METADATA), max_size=4)),
    call("update", PLACES, METADATA.map(lambda found: found or {}), st.booleans()),
    call("delete_entity", PLACES),
    call("add_relationship", PLACES, PLACES, KINDS, METADATA),
    call("add_relationship", PLACES, PLACES, KINDS, METADATA),
    call("add_relationships", st.lists(st.tuples(PLACES, PLACES, KINDS, METADATA), max_size=4)),
    call(
        "log_mission",
        NAMES,
        st.sampled_from(["success", "failed", "running"]),
        st.sampled_from([None, "coding", "docs"]),
        st.floats(0, 100),
        SMALL,
        st.floats(0, 100),
        SMALL,
        METADATA,
    ),
    call("log_file_snapshot", NAMES, NAMES, st.none() | SMALL, st.none(), st.none(), METADATA),
    call("rolled_back", TYPES, NAMES),
    call("written_by_others", PLACES, SCALARS),
    call("create_search_index"),
)


def act(graph: KnowledgeGraph, name: str, arguments: tuple[Any, ...]) -> object:
    """Make a call; entities are named by their place among all, ids differ between databases."""
    ids = [row["id"] for row in graph.iter_entities()] + [2**40]

    def at(place: int) -> int:
        return int(ids[place % len(ids)])

    try:
        match name, arguments:
            case "update", (place, metadata, merge):
                return graph.update_entity(at(place), metadata, merge=merge)
            case "delete_entity", (place,):
                return graph.delete_entity(at(place))
            case "add_relationship", (start, end, kind, metadata):
                graph.add_relationship(at(start), at(end), kind, metadata)
            case "add_relationships", (edges,):
                graph.add_relationships([(at(a), at(b), *rest) for a, b, *rest in edges])
            case "written_by_others", (place, written):
                json = "CAST(? AS jsonb)" if graph.backend.name == "postgres" else "?"
                for table, column in (("entities", "id"), ("relationships", "from_id")):
                    sql = f"UPDATE {table} SET metadata = {json} WHERE {column} = ?"
                    graph.backend.execute(sql, (written, at(place)))
                graph.backend.commit()
            case "rolled_back", (kind, entity):
                with contextlib.suppress(ZeroDivisionError), graph.transaction():
                    graph.add_entity(kind, entity, {"lost": True})
                    graph.log_mission(entity, "success", files_modified=1 // 0)
            case _:
                getattr(graph, name)(*arguments)
    except UnknownEntityError:
        return "unknown"
    return None


def answers(graph: KnowledgeGraph) -> list[Any]:
    """Ask everything there is to ask, without ids and times."""
    entities = list(graph.iter_entities())
    questions: list[Callable[[], Any]] = [
        lambda: entities,
        graph.list_entities,
        lambda: graph.list_entities("file", limit=2),
        graph.get_mission_history,
        lambda: graph.get_mission_history("failed", "coding"),
        graph.get_risky_files,
        graph.get_stats,
        graph.cost_by_domain,
        graph.success_rate,
        graph.evolution_report,
        lambda: graph.find_by_metadata({"k": None}),
        lambda: graph.search("A"),
        lambda: graph.search("ä"),
        lambda: graph.search("it's"),
        lambda: graph.search("ABC"),
        graph.list_relationships,
        lambda: graph.list_relationships(relationship_type="worked_on", limit=2),
    ]
    for name in ("a", "ä%_"):
        questions += [
            lambda name=name: graph.get_file_history(name),  # type: ignore[misc]
            lambda name=name: graph.get_files_for_mission(name),  # type: ignore[misc]
            lambda name=name: graph.get_missions_for_file(name),  # type: ignore[misc]
            lambda name=name: graph.get_bug_relationships(name),  # type: ignore[misc]
            lambda name=name: graph.similar_missions(name),  # type: ignore[misc]
        ]
    for entity in entities[:4]:
        questions += [
            lambda id=entity["id"]: graph.find_related(id, direction="both"),  # type: ignore[misc]
            lambda id=entity["id"]: graph.neighbors(id, 2, limit=3),  # type: ignore[misc]
            lambda id=entity["id"]: graph.shortest_path(id, entities[-1]["id"]),  # type: ignore[misc]
        ]
    return [without_ids(ask()) for ask in questions]


def without_ids(found: Any) -> Any:
    if isinstance(found, dict):
        hidden = {"id", "from_id", "to_id", "created_at", "updated_at"}
        return {key: without_ids(value) for key, value in found.items() if key not in hidden}
    if isinstance(found, list | tuple):
        return [without_ids(element) for element in found]
    return found


@settings(
    max_examples=50, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(calls=st.lists(CALLS, max_size=14))
def test_both_databases_answer_alike(
    sqlite_graph: KnowledgeGraph, postgres_graph: KnowledgeGraph, calls: list[Call]
) -> None:
    for graph in (sqlite_graph, postgres_graph):
        with graph.transaction():
            for table in ("relationships", "entities", "mission_history", "file_snapshots"):
                graph.backend.execute(f"DELETE FROM {table}")
    for name, arguments in calls:
        results = [act(graph, name, arguments) for graph in (sqlite_graph, postgres_graph)]
        assert results[0] == results[1]
    assert answers(sqlite_graph) == answers(postgres_graph)
