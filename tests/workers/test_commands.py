"""The commands as a user meets them: real processes, real servers."""

import base64
import json
import sqlite3
import subprocess
import sys
from contextlib import closing
from pathlib import Path

import psutil
import pytest
import redis

from tests.migration.comparer import COLUMNS, differences
from tests.migration.graphs import entity, relationship, small_graph, write_graph
from tests.servers import Database
from tests.workers.kg import Kg, wait_for
from workers.cli.doctor import sqlite_finding

COUNTS = {"source_rows", "loaded_rows", "rejected_rows", "verified_rows", "mismatched_rows"}


def test_the_real_graph_through_two_worker_processes(
    kg: Kg, postgres: Database, real_graph: Path
) -> None:
    with kg.workers(2):
        done = kg("migrate", real_graph, "--json", "--chunk-rows", "5000")
        assert done.code == 0, done.err
        report = done.json
        now = kg("progress", "--json").json
    assert differences(real_graph, postgres.connect()) == []
    assert set(report) == {
        "run_id",
        "state",
        "source",
        "target",
        "tables",
        "totals",
        "seconds",
        "rows_per_second",
        "chunks",
        "workers",
        "errors",
    }
    assert report["state"] == "done"
    assert set(report["source"]) == {"path", "sha256", "bytes"}
    assert report["target"] == {
        "host": postgres.host,
        "port": postgres.port,
        "database": postgres.database,
    }
    assert set(report["tables"]) == set(COLUMNS)
    assert all(set(table) == COUNTS for table in [*report["tables"].values(), report["totals"]])
    assert report["totals"]["verified_rows"] == 120_458
    assert set(report["seconds"]) == {
        "freeze",
        "plan",
        "load",
        "index",
        "verify",
        "cutover",
        "total",
    }
    assert report["workers"] == 2
    assert report["chunks"] == 4 + 11 + 3 + 8
    assert report["errors"] == []
    assert set(now) == {
        "run_id",
        "state",
        "stage",
        "percent",
        "tables",
        "rows_per_second",
        "eta_seconds",
        "workers",
        "errors",
        "updated_at",
    }
    assert (now["run_id"], now["state"], now["percent"]) == (report["run_id"], "done", 100.0)
    assert sum(table["done_rows"] for table in now["tables"].values()) == 120_458
    assert all(t["done_rows"] == t["total_rows"] for t in now["tables"].values())
    assert sum(worker["rows"] for worker in now["workers"].values()) == 120_458
    assert len(now["workers"]) == 2


def test_local_workers_come_and_go_with_the_command(
    kg: Kg, postgres: Database, tmp_path: Path
) -> None:
    source = small_graph(tmp_path / "graph.db")
    done = kg("migrate", source, "--local-workers", "2")
    assert done.code == 0, done.err
    assert "done" in done.out
    assert "kg revert" in done.out
    assert "error" not in done.err.lower()
    assert differences(source, postgres.connect()) == []
    assert not [
        p
        for p in psutil.process_iter(["cmdline", "environ"])
        if "celery" in str(p.info["cmdline"]) and str(tmp_path) in str(p.info["environ"])
    ]
    assert list((tmp_path / "data" / "sources").iterdir()) == []


def test_the_life_of_a_run(kg: Kg, postgres: Database, tmp_path: Path) -> None:
    """Migrate, refuse, replace, revert; what the looking commands say of it."""
    first = small_graph(tmp_path / "first.db")
    second = small_graph(tmp_path / "second.db", rows=100)
    with kg.workers(1):
        one = kg("migrate", first, "--json").json
        checks = {check["name"]: check for check in kg("doctor", "--json").json}
        assert all(check["ok"] for check in checks.values())
        assert "--if-exists replace" in checks["tables"]["mend"]
        refused = kg("migrate", second, "--json")
        assert refused.code == 1
        assert refused.json["state"] == "failed"
        assert "--if-exists replace" in refused.err
        assert differences(first, postgres.connect()) == []
        two = kg("migrate", second, "--if-exists", "replace", "--json").json
    assert differences(second, postgres.connect()) == []
    assert [run["run_id"] for run in kg("runs", "--json").json] == [two["run_id"], one["run_id"]]
    assert kg("report", two["run_id"], "--json").json == two
    assert kg("rejects", two["run_id"]).out.strip() == "no rejects"
    assert kg("revert", one["run_id"]).code == 1  # It isn't the live one.
    reverted = kg("revert", two["run_id"], "--json")
    assert reverted.code == 0, reverted.err
    assert set(reverted.json["restored"]) == set(COLUMNS)
    assert differences(first, postgres.connect()) == []
    assert differences(second, postgres.connect(), reverted.json["kept_in"]) == []
    assert "reverted" in kg("runs").out


def test_rejects_exit_with_3_and_resume_finishes(
    kg: Kg, postgres: Database, tmp_path: Path
) -> None:
    source = write_graph(
        tmp_path / "graph.db",
        entities=[entity(1), entity(2), entity(3, metadata="{")],
        relationships=[relationship(1, 1, 2), relationship(2, 1, 77)],
    )
    with kg.workers(1):
        stopped = kg("migrate", source, "--json")
        assert stopped.code == 3
        run = stopped.json["run_id"]
        assert stopped.json["state"] == "rejected"
        assert stopped.json["totals"]["rejected_rows"] == 2
        assert postgres.rows("SELECT to_regclass('entities')") == [(None,)]
        lines = kg("rejects", run, "--json").out.splitlines()
        assert len(lines) == 2
        assert '"metadata": {"type": "text", "value": "{"}' in lines[0]
        assert kg("resume", run, "--max-rejects", "1").code == 3
        resumed = kg("resume", run, "--max-rejects", "2", "--json")
    assert resumed.code == 0, resumed.err
    assert resumed.json["state"] == "done"
    assert postgres.rows("SELECT count(*) FROM entities") == [(2,)]


def test_a_file_that_is_no_graph_and_what_of_it_is_not_carried_over(
    kg: Kg, postgres: Database, tmp_path: Path
) -> None:
    source = tmp_path / "shop.db"
    with closing(sqlite3.connect(source)) as connection:
        connection.executescript(
            "CREATE TABLE InvoiceLine (code TEXT PRIMARY KEY, price NUMERIC);"
            "CREATE VIEW dear AS SELECT * FROM InvoiceLine WHERE price > 9;"
            "INSERT INTO InvoiceLine VALUES ('a', 9.5), ('b', 10)"
        )
    said = kg("migrate", source, "--only", "*", "--names", "snake", "--dry-run")
    assert said.code == 0, said.err
    assert "view dear: a view's query is not translated" in said.out
    assert "CREATE VIEW dear AS SELECT * FROM InvoiceLine WHERE price > 9" in said.out
    done = kg(
        *("migrate", source, "--only", "invoice*", "--names", "snake"),
        *("--local-workers", "1", "--json"),
    )
    assert done.code == 0, done.err
    assert list(done.json["tables"]) == ["invoice_line"]
    assert [note["object"] for note in done.json["not_carried_over"]] == ["view dear"]
    assert postgres.rows("SELECT code, price::text FROM invoice_line ORDER BY 1") == [
        ("a", "9.5"),
        ("b", "10"),
    ]


def test_a_dry_run_predicts_every_reject_and_changes_nothing(
    kg: Kg, postgres: Database, tmp_path: Path
) -> None:
    source = write_graph(
        tmp_path / "graph.db",
        entities=[
            entity(1),
            entity(2, name="file 1"),
            entity(3, metadata="nope"),
            entity(4, at="2026-02-30T00:00:00Z"),
        ],
        relationships=[relationship(1, 1, 2), relationship(2, 1, 77), relationship(3, 1, 1)],
        unique=False,
    )
    before = postgres.rows("SELECT oid, relname FROM pg_class ORDER BY 1")
    done = kg("migrate", source, "--dry-run", "--json")
    assert done.code == 3, done.err
    assert postgres.rows("SELECT oid, relname FROM pg_class ORDER BY 1") == before
    tables = done.json["tables"]
    predicted = {
        (name, reject["sqlstate"], *reject["example_ids"])
        for name, table in tables.items()
        for reject in table["rejects"]
    }
    assert predicted == {
        ("entities", "23505", 2),
        ("entities", "22P02", 3),
        ("entities", "22008", 4),
        ("relationships", "23503", 1, 2),
    }
    assert tables["entities"]["columns"]["metadata"] == "jsonb"
    assert kg("migrate", source, "--dry-run", "--max-rejects", "5").code == 0
    with kg.workers(1):
        real = kg("migrate", source, "--json").json
    for name, table in tables.items():
        assert real["tables"][name]["rejected_rows"] == table["rejected_rows"], name


def test_detached_then_followed_by_progress_alone(
    kg: Kg, postgres: Database, tmp_path: Path
) -> None:
    source = small_graph(tmp_path / "graph.db", rows=5_000)
    with kg.workers(1):
        sent = kg("migrate", source, "--detach", "--json", "--chunk-rows", "200")
        assert sent.code == 0, sent.err
        run = sent.json["run_id"]
        followed = kg("progress", run, "--follow", "--json")
    assert followed.code == 0, followed.err
    assert list((tmp_path / "data" / "sources").iterdir()) == []
    steps = [json.loads(line) for line in followed.out.splitlines()]
    assert steps[-1]["state"] == "done"
    for name in COLUMNS:
        rows = [step["tables"][name]["done_rows"] for step in steps]
        assert rows == sorted(rows)
    assert differences(source, postgres.connect()) == []


@pytest.mark.parametrize(
    ("version", "ok"), [("3.36.0", False), ("3.37.0", True), ("3.100.1", True), ("4.0", True)]
)
def test_doctor_knows_the_oldest_sqlite(version: str, ok: bool) -> None:
    found = sqlite_finding(version)
    assert found.ok is ok
    assert ("3.37 or newer" in found.mend) is not ok


def test_doctor_names_each_fault_with_its_mend(kg: Kg, tmp_path: Path) -> None:
    found = kg("doctor", "--json")
    assert found.code == 1
    checks = {check["name"]: check for check in found.json}
    assert checks["target"]["ok"]
    assert checks["broker"]["ok"]
    assert checks["sqlite"]["found"] == f"SQLite {sqlite3.sqlite_version}"
    assert not checks["workers"]["ok"]
    assert "kg worker" in checks["workers"]["mend"]
    wrong = Kg(
        kg.environment | {"PG_PASSWORD": "wr0ng-secret", "KG_REDIS_URL": "redis://:s3@127.0.0.1:1"},
        tmp_path,
    )
    checks = {check["name"]: check for check in wrong("doctor", "--json").json}
    assert not checks["target"]["ok"]
    assert "PG_PASSWORD" in checks["target"]["mend"]
    assert not checks["broker"]["ok"]
    assert "wr0ng-secret" not in str(checks)
    bad = Kg(kg.environment | {"PG_PORT": "abc"}, tmp_path)
    done = bad("doctor")
    assert done.code == 1
    assert "PG_PORT" in done.out


def test_messages_carry_nothing_but_a_step(kg: Kg, redis_url: str, tmp_path: Path) -> None:
    """With all workers stopped, what lies in the broker is read."""
    source = small_graph(tmp_path / "graph.db")
    with kg.workers(1) as workers:
        for process in psutil.Process(workers[0].pid).children(recursive=True):
            process.suspend()
        sent = kg("migrate", source, "--detach", "--json")
        assert sent.code == 0, sent.err
        with redis.Redis.from_url(redis_url) as client:
            (queue,) = client.keys("kg.v*.load")
            messages = client.lrange(queue, 0, -1)
            dump = b"".join(client.dump(key) or b"" for key in client.scan_iter())
    assert messages
    body = json.loads(base64.b64decode(json.loads(messages[0])["body"]))
    assert body[0][0] == sent.json["run_id"]
    assert [type(part) for part in body[0]] == [str, int, int]
    assert body[1] == {}
    for secret in (kg.environment["PG_PASSWORD"], str(source), kg.environment["PG_DATABASE"]):
        assert secret.encode() not in dump


def test_a_worker_started_by_celery_itself_joins_in(
    kg: Kg, postgres: Database, tmp_path: Path
) -> None:
    source = small_graph(tmp_path / "graph.db")
    with subprocess.Popen(
        [sys.executable, "-m", "celery", "-A", "workers.app", "worker", "--concurrency", "1"],
        env=kg._environment(),
        cwd=tmp_path,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    ) as worker:
        try:
            wait_for(kg.answering)
            assert kg("migrate", source).code == 0
        finally:
            worker.terminate()
            worker.wait(30)
    assert differences(source, postgres.connect()) == []


def test_sample_then_migrate(kg: Kg, postgres: Database, tmp_path: Path) -> None:
    made = kg(
        "sample",
        "graph.db",
        "--entities",
        "2000",
        "--relationships",
        "3000",
        "--missions",
        "200",
        "--snapshots",
        "300",
        "--seed",
        "3",
    )
    assert made.code == 0, made.err
    with closing(sqlite3.connect(tmp_path / "graph.db")) as sqlite:
        assert sqlite.execute("SELECT count(*), max(id) > 2000 FROM entities").fetchone() == (
            2000,
            1,
        )
    assert kg("sample", "graph.db").code == 2  # It is there already.
    done = kg("migrate", "graph.db", "--local-workers", "2", "--json")
    assert done.code == 0, done.err
    assert differences(tmp_path / "graph.db", postgres.connect()) == []
