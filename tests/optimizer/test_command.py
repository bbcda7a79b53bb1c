"""``kg optimize`` as a user meets it."""

from pathlib import Path

from tests.graph.conftest import postgres_graph_of
from tests.servers import Database
from tests.workers.conftest import kg as kg  # noqa: PLC0414  # A fixture.
from tests.workers.kg import Kg


def test_on_postgres(kg: Kg, postgres: Database) -> None:
    with postgres_graph_of(postgres) as graph:
        file = graph.add_entity("file", "a.py")
        graph.add_relationship(graph.add_entity("mission", "m"), file, "worked_on")
    shown = kg("optimize", "--backend", "postgres", "--memory", "16GB", "--vacuum", "--analyze")
    assert shown.code == 0, shown.err
    for part in ("vacuum: entities", "analyze: entities", "indexes", "slow queries", "settings"):
        assert part in shown.out
    found = kg("optimize", "--backend", "postgres", "--json").json
    assert set(found) == {
        "done",
        "backend",
        "tables",
        "indexes",
        "slow_queries",
        "settings",
        "notes",
    }
    assert found["done"] == []
    plans = kg("optimize", "--backend", "postgres", "--explain", "find-related", "--json").json
    assert set(plans) == {"done", "plans"}
    assert plans["plans"][0]["ms"] is not None


def test_on_sqlite_and_what_is_refused(kg: Kg, tmp_path: Path) -> None:
    assert kg("sample", "graph.db", "--entities", "50", "--relationships", "90").code == 0
    shown = kg("optimize", "--db-path", "graph.db", "--sql", "SELECT * FROM entities")
    assert shown.code == 0, shown.err
    assert "read all of entities" in shown.out
    refused = kg("optimize", "--db-path", "graph.db", "--sql", "DELETE FROM entities")
    assert refused.code == 2
    assert "only one statement that reads" in refused.err
    misspelt = kg("optimize", "--db-path", "graph.db", "--sql", "SELECT * FROM entitys")
    assert (misspelt.code, len(misspelt.err.splitlines())) == (2, 2)
    assert "no such table: entitys" in misspelt.err
    both = kg("optimize", "--explain", "stats", "--sql", "SELECT 1")
    assert (both.code, "both given" in both.err) == (2, True)
    assert kg("optimize", "--db-path", str(tmp_path / "missing.db")).code == 1
    assert kg("optimize", "--memory", "lots", "--db-path", "graph.db").code == 2
