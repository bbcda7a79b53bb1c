"""Many threads and processes write at once: no error, nothing lost, nothing left behind."""

import json
import subprocess
import sys
import threading
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import psycopg2
import pytest

from kgcore.backends import PostgreSQLBackend, get_backend
from kgcore.graph import KnowledgeGraph
from tests.conftest import ROOT
from tests.graph.writer import NAMES, ROUNDS, write
from tests.pgbouncer import SESSIONS
from tests.servers import Database
from workers.embedded import PostgresServer

THREADS = 10
PROCESSES = 8


@pytest.fixture(params=["sqlite", "postgres", "pgbouncer"])
def place(request: pytest.FixtureRequest, tmp_path: Path) -> dict[str, Any]:
    """How to open an empty database: ``get_backend(**place)``."""
    if request.param == "sqlite":
        return {"kind": "sqlite", "db_path": str(tmp_path / "kg.db")}
    parameters = request.getfixturevalue("postgres").parameters
    if request.param == "pgbouncer":
        parameters = request.getfixturevalue("bounced")
    return {"kind": "postgres", **parameters, "pool_size": 3, "max_overflow": 2}


@pytest.fixture
def shared(place: dict[str, Any]) -> Iterator[KnowledgeGraph]:
    with get_backend(**place) as backend:
        graph = KnowledgeGraph(backend)
        graph.init_schema()
        yield graph


def start(place: dict[str, Any], writer: str | None) -> "subprocess.Popen[str]":
    process = subprocess.Popen(
        [sys.executable, "-m", "tests.graph.writer"],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        cwd=ROOT,
    )
    assert process.stdin is not None
    process.stdin.write(json.dumps(place | {"writer": writer}) + "\n")
    process.stdin.flush()
    return process


def go_on(processes: "list[subprocess.Popen[str]]") -> None:
    """Let the processes go on, at the same time, when all of them are ready to."""
    for process in processes:
        assert process.stdout is not None
        assert process.stdout.readline() == "ready\n"
    for process in processes:
        assert process.stdin is not None
        process.stdin.write("go\n")
        process.stdin.flush()


def finish(process: "subprocess.Popen[str]") -> str:
    output, errors = process.communicate(timeout=100)
    assert (process.returncode, errors) == (0, "")
    return output


def most_at_once(times: Sequence[tuple[float, float]]) -> int:
    """Return how many of the spans of time (start, end) overlap at most."""
    return max(sum(start <= moment < end for start, end in times) for moment, _ in times)


def test_threads_and_processes(
    place: dict[str, Any], shared: KnowledgeGraph, request: pytest.FixtureRequest
) -> None:
    counter = shared.add_entity("counter", "all")
    processes = [start(place, f"process {number}") for number in range(PROCESSES)]
    met = threading.Barrier(THREADS + 1)

    def work(number: int) -> tuple[int, float, float]:
        met.wait(timeout=60)
        began = time.monotonic()
        return write(shared, f"thread {number}"), began, time.monotonic()

    with ThreadPoolExecutor(THREADS) as pool:
        threads = [pool.submit(work, number) for number in range(THREADS)]
        go_on(processes)  # To open the graph,
        go_on(processes)  # and to write.
        met.wait(timeout=60)
        done = [thread.result() for thread in threads]
    done += [tuple(json.loads(finish(process))) for process in processes]
    related = sum(found for found, _, _ in done)
    assert most_at_once([(began, ended) for _, began, ended in done]) > THREADS

    stats = shared.get_stats()
    writers = THREADS + PROCESSES
    assert related == writers * ROUNDS * 3
    assert stats["relationships"]["total"] == related
    assert stats["entities"]["by_type"] == {
        "counter": 1,
        "shared": len(NAMES),
        "starter": PROCESSES,
    }
    assert stats["missions"]["total"] == ROUNDS
    entity = shared.get_entity(counter)
    assert entity is not None
    assert len(entity["metadata"]) == writers * ROUNDS  # Nobody's key was lost.
    assert {row["name"] for row in shared.list_entities("shared")} == set(NAMES)
    pool_stats = shared.pool_stats()
    if pool_stats is not None:
        assert (pool_stats.in_use, pool_stats.waiting) == (0, 0)
        assert pool_stats.size <= 3
        assert isinstance(shared.backend, PostgreSQLBackend)
        others = shared.backend.fetchall(
            "SELECT state FROM pg_stat_activity"
            " WHERE datname = current_database() AND pid <> pg_backend_pid()"
            " AND backend_type = 'client backend'"  # Autovacuum may be at work, too.
        )
        assert {row["state"] for row in others} <= {"idle"}
        kept = SESSIONS if "pgbouncer" in request.node.name else pool_stats.size
        assert len(others) < kept


@pytest.mark.parametrize("place", ["sqlite", "postgres"], indirect=True)
def test_twenty_start_at_once(place: dict[str, Any]) -> None:
    processes = [start(place, None) for _ in range(20)]
    go_on(processes)
    for process in processes:
        finish(process)
    with get_backend(**place) as backend:
        assert KnowledgeGraph(backend).get_stats()["entities"]["total"] == 0


def test_a_deadlock_reaches_no_caller(postgres: Database) -> None:
    with get_backend("postgres", **postgres.parameters, options="-c deadlock_timeout=50ms") as made:
        graph = KnowledgeGraph(made)
        graph.init_schema()
        graph.add_entities([("node", "a"), ("node", "b")])
        met = threading.Barrier(2)
        tries: list[str] = []

        def crossing(first: str, second: str) -> None:
            def work(kg: KnowledgeGraph) -> None:
                kg.add_entity("node", first, {"by": first})
                tries.append(first)
                if tries.count(first) == 1:
                    met.wait(timeout=10)
                kg.add_entity("node", second, {"by": first})

            graph.run_transaction(work)

        with ThreadPoolExecutor(2) as pool:
            for done in [pool.submit(crossing, "a", "b"), pool.submit(crossing, "b", "a")]:
                done.result(timeout=30)
        assert len(tries) == 3  # Or there was no deadlock.
        assert len({row["metadata"]["by"] for row in graph.list_entities()}) == 1


def test_serialization_failures_reach_no_caller(postgres: Database) -> None:
    strict = "-c default_transaction_isolation=serializable"
    with get_backend("postgres", **postgres.parameters, options=strict) as made:
        graph = KnowledgeGraph(made)
        graph.init_schema()
        node = graph.add_entity("node", "a", {"count": 0})
        tries: list[int] = []

        def increment(kg: KnowledgeGraph) -> None:
            tries.append(1)
            entity = kg.get_entity(node)
            assert entity is not None
            kg.update_entity(node, {"count": entity["metadata"]["count"] + 1})

        def work() -> None:
            for _ in range(15):
                graph.run_transaction(increment)

        with ThreadPoolExecutor(4) as pool:
            for done in [pool.submit(work) for _ in range(4)]:
                done.result(timeout=60)
        entity = graph.get_entity(node)
        assert entity is not None
        assert entity["metadata"] == {"count": 60}
        assert len(tries) > 60  # Or nothing collided.


def test_a_lock_that_stays_is_an_error_in_the_end(
    postgres: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("kgcore.graph.session.RETRY_SECONDS", 0.5)
    with get_backend("postgres", **postgres.parameters, options="-c lock_timeout=50ms") as made:
        graph = KnowledgeGraph(made)
        graph.init_schema()
        graph.add_entity("node", "a")
        holder = postgres.connect()
        holder.autocommit = False
        holder.cursor().execute("SELECT * FROM entities FOR UPDATE")
        began = time.monotonic()
        with pytest.raises(psycopg2.errors.LockNotAvailable):
            graph.add_entity("node", "a", {"new": 1})
        assert 0.5 < time.monotonic() - began < 5
        timer = threading.Timer(0.2, holder.rollback)
        timer.start()
        graph.add_entity("node", "a", {"new": 1})
        timer.join()


def test_a_restart_of_the_server_under_load(own_postgres_server: PostgresServer) -> None:
    server = own_postgres_server
    backend = PostgreSQLBackend(
        server.host, server.port, server.database, server.user, server.password, pool_size=4
    )
    graph = KnowledgeGraph(backend)
    graph.init_schema()
    end = threading.Event()
    written: list[str] = []

    def work(writer: int) -> None:
        number = 0
        while not end.is_set():
            name = f"{writer}/{number}"
            graph.add_entity("node", name)
            written.append(name)
            assert graph.find_entity("node", name) is not None
            graph.log_mission(name, "success")
            number += 1

    with ThreadPoolExecutor(6) as pool:
        workers = [pool.submit(work, writer) for writer in range(6)]
        try:
            for mode in ("fast", "immediate"):
                time.sleep(0.5)
                before = len(written)
                server.stop(mode)
                server.start()
                deadline = time.monotonic() + 20
                while len(written) <= before + 20 and time.monotonic() < deadline:
                    time.sleep(0.05)
                assert len(written) > before + 20
        finally:
            end.set()
        for worker in workers:
            worker.result(timeout=30)  # No error reached a caller.
    found = {row["name"] for row in graph.iter_entities("node")}
    assert found == set(written)
    assert graph.get_stats()["missions"]["total"] == len(written)
    stats = graph.pool_stats()
    assert stats is not None
    assert stats.in_use == 0
    assert stats.closed >= 2
    graph.close()
