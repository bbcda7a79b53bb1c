"""``kg migrate`` where workers don't see this machine's disk."""

from dataclasses import replace
from pathlib import Path

import pytest

from tests.migration.comparer import differences
from tests.migration.graphs import small_graph
from tests.servers import Database
from tests.workers.kg import Kg


def test_workers_without_the_disk(kg: Kg, postgres: Database, tmp_path: Path) -> None:
    source = small_graph(tmp_path / "graph.db")
    published = tmp_path / "published"
    elsewhere = {"KG_DATA_DIR": str(tmp_path / "far"), "KG_SOURCE_ROOT": str(published)}
    far = replace(kg, environment=kg.environment | elsewhere)
    with far.workers(1):
        refused = kg("migrate", source, "--json")
        assert refused.code == 1
        assert refused.json["code"] == "source"
        assert "w0@" in refused.json["errors"][0]
        assert "KG_DATA_DIR" in refused.err
        assert "--serve HOST:PORT" in refused.err
        assert "--publish URL" in refused.err
        assert postgres.rows("SELECT FROM pg_namespace WHERE nspname = 'kg_migration'") == []
        assert list((tmp_path / "data" / "sources").iterdir()) == []

        checks = {check["name"]: check for check in kg("doctor", "--json").json}
        assert not checks["source access"]["ok"]
        assert "--serve HOST:PORT" in checks["source access"]["mend"]
        checks = {check["name"]: check for check in far("doctor", "--json").json}
        assert checks["source access"]["ok"]

        served = kg("migrate", source, "--serve", "127.0.0.1:0", "--json")
        assert (served.code, served.json["state"]) == (0, "done"), served.err
        assert differences(source, postgres.connect()) == []
        (cached,) = (tmp_path / "far" / "cache").glob("*.db")

        cached.unlink()
        url = (published / "sources").as_uri()
        again = kg("migrate", source, "--publish", url, "--if-exists", "replace", "--json")
        assert (again.code, again.json["state"]) == (0, "done"), again.err
        assert cached.exists()
        assert list((published / "sources").iterdir()) == []
        assert differences(source, postgres.connect()) == []


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (("--serve", "8765"), "HOST:PORT"),
        (("--serve", "0.0.0.0:8765"), "every address"),
        (("--serve", "127.0.0.1:0", "--detach"), "--detach"),
        (("--serve", "127.0.0.1:0", "--publish", "memory://x"), "choose one"),
        (("--publish", "nowhere://x"), "nowhere"),
        (("--publish", "ftp://me:hunter2@host/x"), "would stay in the ledger"),
    ],
)
def test_what_can_not_be_asked_for(
    kg: Kg, tmp_path: Path, options: tuple[str, ...], said: str
) -> None:
    refused = kg("migrate", small_graph(tmp_path / "graph.db"), *options)
    assert refused.code == 2
    assert said in refused.err
    assert "hunter2" not in refused.err
