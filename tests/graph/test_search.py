"""Search by metadata and by text."""

import json
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from kgcore.backends import PostgreSQLBackend, SQLiteBackend
from kgcore.errors import TargetError
from kgcore.graph import KnowledgeGraph, search_index
from kgcore.graph.containment import contains, parsed
from kgcore.migration import migrate_to_postgresql
from kgcore.optimizer import Optimizer
from kgcore.schema import TABLES
from tests.servers import Database

DOCUMENTS: dict[str, Any] = {
    "flat": {"domain": "coding", "n": 1, "ok": True, "none": None},
    "nested": {"a": {"b": {"c": [1, 2, {"d": "x", "e": 1}]}}, "domain": "docs"},
    "array": {"tags": ["x", "y", ["z", 1]], "n": 1.0},
    "text one": {"n": "1", "ok": "true", 'odd "key".[0]': "x"},
    "large": {"n": 2**70, "small": 1e-7},
    "empty": {},
}


@pytest.fixture
def filled(graph: KnowledgeGraph) -> KnowledgeGraph:
    for name, metadata in DOCUMENTS.items():
        graph.add_entity("document", name, metadata)
    graph.backend.execute("INSERT INTO entities (type, name) VALUES ('document', 'null')")
    graph.backend.commit()
    return graph


@pytest.mark.parametrize(
    ("criteria", "expected"),
    [
        ({"domain": "coding"}, {"flat"}),
        ({"n": 1}, {"flat", "array"}),
        ({"n": 1.0}, {"flat", "array"}),
        ({"n": "1"}, {"text one"}),
        ({"n": True}, set()),
        ({"ok": True}, {"flat"}),
        ({"none": None}, {"flat"}),
        ({"missing": None}, set()),
        ({"n": 2**70}, {"large"}),
        ({"small": 1e-7}, {"large"}),
        ({"a": {}}, {"nested"}),
        ({"a": {"b": {"c": [2]}}}, {"nested"}),
        ({"a": {"b": {"c": [{"d": "x"}, 1, 1]}}}, {"nested"}),
        ({"a": {"b": {"c": 2}}}, set()),
        ({"a": []}, set()),
        ({"tags": ["y", "x"]}, {"array"}),
        ({"tags": [["z"]]}, {"array"}),
        ({"tags": ["z"]}, set()),
        ({"tags": []}, {"array"}),
        ({'odd "key".[0]': "x"}, {"text one"}),
        ({}, set(DOCUMENTS)),
    ],
)
def test_find_by_metadata(
    filled: KnowledgeGraph, criteria: dict[str, Any], expected: set[str]
) -> None:
    found = filled.find_by_metadata(criteria)
    assert {row["name"] for row in found} == expected
    assert found == [row for row in filled.list_entities() if row["name"] in expected]
    assert filled.find_by_metadata(criteria, "document", limit=1) == found[:1]
    assert filled.find_by_metadata(criteria, "file") == []


JSON = st.recursive(
    st.none() | st.booleans() | st.integers(-3, 3) | st.floats(-2, 2) | st.sampled_from("ab"),
    lambda inner: (
        st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from("ab"), inner, max_size=2)
    ),
    max_leaves=6,
)


@settings(
    max_examples=300, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(
    document=st.dictionaries(st.sampled_from("ab"), JSON, max_size=2),
    part=st.dictionaries(st.sampled_from("ab"), JSON, max_size=2),
)
def test_containment_is_that_of_postgres(
    postgres_graph: KnowledgeGraph, document: dict[str, Any], part: dict[str, Any]
) -> None:
    backend = postgres_graph.backend
    row = backend.fetchone(
        "SELECT a, b, CAST(a AS jsonb) @> CAST(b AS jsonb) AS found"
        " FROM (SELECT CAST(? AS text) AS a, CAST(? AS text) AS b) x",
        (document, part),
    )
    assert row is not None
    assert contains(parsed(row["a"]), parsed(row["b"])) is row["found"]


def test_criteria_may_have_many_keys(graph: KnowledgeGraph) -> None:
    wide = {f"key {number}": number for number in range(1200)}
    found = graph.add_entity("file", "wide", wide)
    graph.add_entity("file", "other", wide | {"key 1199": None})
    assert [row["id"] for row in graph.find_by_metadata(wide)] == [found]


def test_criteria_may_be_deep(graph: KnowledgeGraph) -> None:
    deep: dict[str, Any] = {"end": [1]}
    other: dict[str, Any] = {"end": [2]}
    for _ in range(700):
        deep, other = {"in": deep}, {"in": other}
    found = graph.add_entity("file", "deep", deep)
    graph.add_entity("file", "other", other)
    assert [row["id"] for row in graph.find_by_metadata(deep)] == [found]


def test_the_index_finds_metadata(postgres_graph: KnowledgeGraph, postgres: Database) -> None:
    postgres_graph.add_entities(
        [("file", str(number), {"domain": f"d{number % 500}"}) for number in range(20_000)]
    )
    # Until vacuum has put new rows from the pending list into the index, it costs more.
    postgres.rows("VACUUM ANALYZE entities")
    optimizer = Optimizer(postgres_graph.backend)
    (plan,) = optimizer.explain_call(lambda kg: kg.find_by_metadata({"domain": "d7"}))
    assert plan.indexes == {"idx_entities_metadata"}
    assert plan.root.rows == 40
    assert len(postgres_graph.find_by_metadata({"domain": "d7"})) == 40


@pytest.fixture(params=["scan", "index before", "index after"])
def texts(graph: KnowledgeGraph, request: pytest.FixtureRequest) -> KnowledgeGraph:
    if request.param == "index before":
        graph.create_search_index()
    gone = graph.add_entity("file", "a parser that goes", {"zebra": "zebra"})
    graph.add_entity("file", "src/Parser_main.py", {"note": "parser zebra"})
    graph.add_entity("file", "src/Parser_main.py", {"note": "100% sure"})
    graph.delete_entity(gone)
    graph.add_entity("file", "parser.py")
    graph.add_entity("file", "the parser.py", {"deep": [{"x": 'say "hi"\n\\ ä'}]})
    graph.add_entity("bug", "crash", {"in": "the PARSER", "parser_key": 1})
    graph.add_entity("bug", "my parserx.py")
    graph.add_entity("bug", "100! percent", {"key_only": {"Zebra": None}})
    if request.param == "index after":
        graph.create_search_index()
        graph.create_search_index()  # Nothing to do.
    return graph


@pytest.mark.parametrize(
    ("query", "expected"),
    [
        (
            "parser",
            # At equal places the shorter name comes first; metadata comes last.
            ["parser.py", "my parserx.py", "the parser.py", "src/Parser_main.py", "crash"],
        ),
        ("PARSER.PY", ["parser.py", "the parser.py"]),
        ("100%", ["src/Parser_main.py"]),
        ("r_m", ["src/Parser_main.py"]),
        ("0!", ["100! percent"]),
        ('"hi"\n\\', ["the parser.py"]),
        ("ä", ["the parser.py"]),
        ("zebra", []),  # Keys are not searched.
        ("nothing like it", []),
    ],
)
def test_search(texts: KnowledgeGraph, query: str, expected: list[str]) -> None:
    found = [row["name"] for row in texts.search(query)]
    assert found == expected
    assert [row["name"] for row in texts.search(query, limit=1)] == expected[:1]
    of_bugs = [row["name"] for row in texts.search(query, "bug")]
    bugs = {"crash", "my parserx.py", "100! percent"}
    assert of_bugs == [name for name in expected if name in bugs]


def test_an_empty_type_is_a_type(texts: KnowledgeGraph) -> None:
    assert texts.search("parser", entity_type="") == []
    assert texts.find_by_metadata({}, entity_type="") == []
    texts.add_entity("", "parser of no type", {"k": 1})
    assert [row["name"] for row in texts.search("parser", entity_type="")] == ["parser of no type"]
    assert len(texts.find_by_metadata({"k": 1}, entity_type="")) == 1


@pytest.mark.parametrize("query", ["café", "É", "a/b", "tab\there", 'quote"', "back\\slash", "A"])
def test_search_sees_through_escapes(graph: KnowledgeGraph, query: str) -> None:
    """Others write JSON with ``json.dumps``' defaults, or escape even more."""
    to_json = "CAST(? AS jsonb)" if graph.backend.name == "postgres" else "?"
    escaped = "".join(f"\\u{ord(character):04x}" for character in query)
    for name, written in (("1", json.dumps({"k": [query]})), ("2", f'{{"k": "{escaped}"}}')):
        graph.backend.execute(
            f"INSERT INTO entities (type, name, metadata) VALUES ('file', ?, {to_json})",
            (name, written),
        )
    graph.backend.commit()
    graph.add_entity("file", "3", {"k\\": "x"})
    assert [row["name"] for row in graph.search(query)] == ["1", "2"]


def test_a_text_may_be_long_but_not_endless(graph: KnowledgeGraph) -> None:
    long = graph.add_entity("file", "a", {"text": "é" * 24_999})
    assert [row["id"] for row in graph.search("é" * 24_999)] == [long]
    for query in ("é" * 25_000, "%" * 25_000, "a" * 50_000, "\n" * 25_000):
        with pytest.raises(ValueError, match="too long"):
            graph.search(query)


def test_search_of_nothing_finds_all(texts: KnowledgeGraph) -> None:
    assert len(texts.search("")) == 6


def test_the_index_finds_texts(graph: KnowledgeGraph) -> None:
    on_postgres = graph.backend.name == "postgres"
    graph.add_entities(
        [("file", f"module {number:05d}", {"n": f"text {number}"}) for number in range(5_000)]
    )
    optimizer = Optimizer(graph.backend)

    def steps() -> str:
        return str(optimizer.explain_call(lambda kg: kg.search("ule 00042")))

    index = "idx_entities_search" if on_postgres else "entities_search VIRTUAL TABLE INDEX"
    assert index not in steps()
    expected = [graph.search(query) for query in ("ule 00042", "TEXT 77", "42")]
    graph.create_search_index()
    optimizer.vacuum()
    optimizer.analyze()
    assert index in steps()
    assert [graph.search(query) for query in ("ule 00042", "TEXT 77", "42")] == expected
    assert [len(found) for found in expected] == [1, 11, 20]
    assert {table.name for table in optimizer.tables()} == {table.name for table in TABLES}


def test_an_index_that_cannot_be_had_says_why(
    postgres: Database, postgres_graph: KnowledgeGraph
) -> None:
    postgres_graph.add_entity("file", "a")
    role = f"ordinary_{postgres.database}"
    postgres.rows(f"CREATE ROLE {role} LOGIN PASSWORD 'of-the-role'")
    limited = postgres.parameters | {"user": role, "password": "of-the-role"}
    try:
        with KnowledgeGraph(PostgreSQLBackend(**limited)) as graph:
            with pytest.raises(TargetError) as caught:
                graph.create_search_index()
            assert "CREATE EXTENSION pg_trgm" in caught.value.hint
            assert not graph.backend.in_transaction
    finally:
        postgres.rows(f"DROP ROLE {role}")


def test_a_migration_takes_graphs_with_an_index(
    sqlite_graph: KnowledgeGraph, postgres_graph: KnowledgeGraph, postgres: Database
) -> None:
    for graph in (sqlite_graph, postgres_graph):
        graph.add_entity("file", f"parser of {graph.backend.name}")
        graph.create_search_index()
    assert isinstance(sqlite_graph.backend, SQLiteBackend)
    options = {f"pg_{name}": value for name, value in postgres.parameters.items()}
    progress = migrate_to_postgresql(
        sqlite_path=sqlite_graph.backend.db_path, if_exists="replace", **options
    )
    assert progress.errors == []
    assert [row["name"] for row in postgres_graph.search("parser")] == ["parser of sqlite"]
    assert not search_index.exists(postgres_graph.backend)  # It is with the old tables.
    postgres_graph.create_search_index()
    assert search_index.exists(postgres_graph.backend)
