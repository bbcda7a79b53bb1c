"""Who is given which steps: by kind, by database, by version, and in turn with other runs."""

import json
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import redis

from kgcore.backends import PostgreSQLBackend
from kgcore.errors import RunError
from kgcore.migration import runs
from kgcore.migration.model import PROTOCOL
from tests.faults.scene import QuickKg, Scene
from tests.migration.comparer import differences
from tests.migration.graphs import small_graph
from tests.servers import Database, fresh_database, launcher
from tests.workers.kg import Kg, wait_for
from workers.embedded import PostgresServer
from workers.queues import InOrderOfKinds


@contextmanager
def _worker(kg: Kg, *command: str) -> Iterator[subprocess.Popen[str]]:
    """A worker with options of its own, ready."""
    before = QuickKg(kg.environment, kg.directory).answering()
    with subprocess.Popen(
        [*launcher(), *command],
        env=kg._environment(),
        cwd=kg.directory,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        text=True,
        start_new_session=True,
    ) as process:
        try:
            wait_for(
                lambda: (
                    QuickKg(kg.environment, kg.directory).answering() > before
                    or process.poll() is not None
                )
            )
            yield process
        finally:
            process.terminate()
            process.wait(30)


def _kg_worker(*options: str) -> list[str]:
    return [sys.executable, "-m", "workers.cli", "worker", "--concurrency", "1", *options]


def _doctor(kg: Kg) -> dict[str, dict[str, str]]:
    return {check["name"]: check for check in kg("doctor", "--json").json}


def test_machines_are_given_only_their_kinds_of_steps(scene: Scene) -> None:
    scene.begin()
    plain = Kg(scene.kg.environment, scene.kg.directory)
    with _worker(scene.kg, *_kg_worker("--queues", "load,verify", "--name", "rows@h")):
        checks = _doctor(plain)
        assert not checks["workers"]["ok"]
        assert "nobody takes index steps" in checks["workers"]["found"]
        assert checks["workers"]["mend"] == "start one: kg worker --queues index"
        with scene.follow() as coordinator:
            wait_for(lambda: not scene.ids("stage = 'load' AND NOT done"))
            assert scene.fact("state") == "running"
            with _worker(scene.kg, *_kg_worker("--queues", "index", "--name", "tables@h")):
                scene.complete(coordinator)
    by_worker: dict[str, set[str]] = {}
    for worker, stage in scene.database.rows("SELECT worker, stage FROM kg_migration.steps"):
        by_worker.setdefault(worker, set()).add(stage)
    assert sorted(map(sorted, by_worker.values())) == [
        ["cutover", "index", "key"],
        ["load", "verify"],
    ]


def test_a_kind_that_does_not_exist_is_refused(scene: Scene) -> None:
    done = scene.kg("worker", "--queues", "load,cutover")
    assert done.code == 2
    assert "load, index, verify" in done.err


def test_two_databases_over_one_broker(
    scene: Scene, postgres_server: PostgresServer, tmp_path: Path
) -> None:
    """Each worker does its own database's run, whoever is quicker."""
    other_source = small_graph(tmp_path / "other.db", rows=500)
    with fresh_database(postgres_server) as database:
        other = QuickKg(scene.kg.environment | database.environment(), tmp_path)
        with other.workers(1):
            refused = scene.kg("migrate", scene.source)
            assert refused.code == 1
            assert "workers answer, but none of this database and version" in refused.err
            checks = _doctor(Kg(scene.kg.environment, tmp_path))
            assert not checks["workers"]["ok"]
            assert "another database" in next(
                check["found"] for name, check in checks.items() if name.startswith("worker w0@")
            )
            with (
                _worker(scene.kg, *_kg_worker("--name", "x@%h")),
                scene.kg.start("migrate", scene.source, "--chunk-rows", "20", "--json") as one,
                other.start("migrate", other_source, "--chunk-rows", "20", "--json") as two,
            ):
                results = [process.communicate(timeout=90) for process in (one, two)]
        for (out, err), source, target in zip(
            results, (scene.source, other_source), (scene.database, database), strict=True
        ):
            report = json.loads(out)
            assert report["state"] == "done", err
            assert report["workers"] == 1
            assert differences(source, target.connect()) == []
            assert target.rows("SELECT max(attempts) FROM kg_migration.steps") == [(1,)]


def test_a_small_run_does_not_wait_for_the_end_of_a_large_one(scene: Scene, tmp_path: Path) -> None:
    """Both in one database, into schemas of their own, with one worker for both."""
    scene.database.rows("CREATE SCHEMA small")
    large = small_graph(tmp_path / "large.db", rows=1000)
    beside = QuickKg(scene.kg.environment | {"PGOPTIONS": "-c search_path=small"}, tmp_path)
    with scene.kg.workers(1):
        sent = scene.kg("migrate", large, "--chunk-rows", "1", "--detach", "--json")
        assert sent.code == 0, sent.err
        scene.run = sent.json["run_id"]
        assert len(scene.ids("true")) > 3000
        with redis.Redis.from_url(scene.redis_url) as client:
            assert client.info("memory")["used_memory"] < 50_000_000
        assert scene.in_the_broker() < 60
        done = beside("migrate", scene.source, "--chunk-rows", "100", "--json")
        assert done.code == 0, done.err
        assert scene.fact("state") == "running"
        assert scene.ids("stage = 'load' AND NOT done")
    assert differences(scene.source, scene.database.connect(), "small") == []
    runs.cancel(scene.backend.pool, scene.run)


def test_loads_come_first_but_not_for_ever() -> None:
    queues = [f"kg.v1.target.{kind}" for kind in ("verify", "index", "load")]
    order = InOrderOfKinds(queues)

    def taken(waiting: set[str]) -> str:
        name = next(name for name in order.consume(3) if name.rpartition(".")[2] in waiting)
        return order.rotate(name).rpartition(".")[2]

    everything = {"load", "index", "verify"}
    assert [taken(everything) for _ in range(32)] == ["load"] * 32
    assert [taken({"load", "index"}) for _ in range(2)] == ["index"] * 2
    assert [taken(everything) for _ in range(2)] == ["verify"] * 2
    assert [taken(everything) for _ in range(31)] == ["load"] * 31
    assert [taken({"index", "verify"}) for _ in range(2)] == ["index"] * 2
    assert [taken(everything) for _ in range(32)] == ["load"] * 32
    assert [taken({"load"}) for _ in range(9)] == ["load"] * 9
    assert [taken(everything) for _ in range(24)] == ["load"] * 24
    assert taken(everything) == "verify"


def test_another_protocol_is_given_no_work(scene: Scene) -> None:
    older = (
        "import sys, kgcore.migration.model as model; model.PROTOCOL = 1\n"
        "from celery.__main__ import main\n"
        "sys.argv = ['celery', '-A', 'workers.app', 'worker', '-c', '1', '-n', 'older@h']\n"
        "main()"
    )
    with _worker(scene.kg, sys.executable, "-c", older):
        refused = scene.kg("migrate", scene.source)
        assert refused.code == 1
        assert "older@h" in refused.err
        check = _doctor(Kg(scene.kg.environment, scene.kg.directory))["worker older@h"]
        assert f"protocol 1; here it is {PROTOCOL}" in check["found"]
        assert "install the same version" in check["mend"]
    # A message that came to the wrong one all the same does nothing.
    scene.begin()
    scene.database.rows("UPDATE kg_migration.runs SET protocol = 1")
    with scene.kg.workers(1):
        scene.send((scene.run, scene.held_step, 1))
        wait_for(lambda: scene.in_the_broker() == 0)
        assert set(scene.attempts().values()) == {0}
    with pytest.raises(RunError, match="begun by another version: its protocol is 1"):
        runs.resume(scene.backend.pool, scene.run)
    runs.cancel(scene.backend.pool, scene.run)


def test_a_workers_name_for_a_database_is_its_own(
    postgres_each: Database, postgres_server: PostgresServer
) -> None:
    def identity(**changes: Any) -> str:
        with PostgreSQLBackend(**(postgres_each.parameters | changes)) as backend:
            return runs.target_identity(backend.pool)

    assert identity() == identity(host="localhost")
    assert identity() != identity(database="postgres")
    # Nobody needs a right for it.
    postgres_each.rows("CREATE ROLE nobody_special LOGIN PASSWORD 'x'")
    try:
        assert identity(user="nobody_special", password="x") == identity()
    finally:
        postgres_each.rows("DROP ROLE nobody_special")
