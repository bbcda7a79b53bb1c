"""``kg backup`` and ``kg restore`` as a user meets them."""

from pathlib import Path

import pytest

from kgcore.graph import KnowledgeGraph
from tests.backup.conftest import COUNTS, fill
from tests.graph.conftest import postgres_graph_of
from tests.servers import Database
from tests.workers.conftest import kg as kg  # noqa: PLC0414  # A fixture.
from tests.workers.kg import Kg


@pytest.mark.parametrize("backend", ["sqlite", "postgres"])
def test_there_and_back(kg: Kg, postgres: Database, backend: str) -> None:
    with (
        postgres_graph_of(postgres)
        if backend == "postgres"
        else KnowledgeGraph(db_path=kg.directory / "data/knowledge_graph.db") as graph
    ):
        fill(graph)
        made = kg("backup", "copy", "--backend", backend, "--json")
        assert made.code == 0, made.err
        assert made.json["tables"] == COUNTS
        assert made.json["rows"] == sum(COUNTS.values())
        assert made.json["bytes"] == (kg.directory / "copy").stat().st_size
        again = kg("backup", "copy", "--backend", backend)
        assert (again.code, "copy exists" in again.err) == (2, True)
        graph.add_entity("file", "later")
        refused = kg("restore", "copy", "--backend", backend, "--json")
        assert refused.code == 1
        assert refused.json["code"] == "backup"
        assert "--if-exists replace" in refused.err
        done = kg("restore", "copy", "--backend", backend, "--if-exists", "replace")
        assert done.code == 0, done.err
        assert f"relationships      {COUNTS['relationships']}" in done.out
        assert graph.find_entity("file", "later") is None


def test_a_missing_sqlite_file_is_named_and_not_made(kg: Kg) -> None:
    done = kg("backup", "copy.db")
    assert done.code == 1
    assert "data/knowledge_graph.db" in done.err
    assert "--backend postgres" in done.err
    assert not Path(kg.directory, "data/knowledge_graph.db").exists()
    wrong = kg("backup", "copy.db", "--db-path", "a.db", "--backend", "postgres")
    assert wrong.code == 2
