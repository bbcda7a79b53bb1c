"""``make bench-graph``: the graph's calls on SQLite and PostgreSQL, next to bare psycopg2.

Everything is private: the servers' settings are PostgreSQL's own, commits are durable. *Bare* is
the same SQL with the same values through one connection in autocommit mode, measured in turn with
the calls. Medians; *least* is the PostgreSQL column of the migration guide.
"""

import argparse
import contextlib
import itertools
import statistics
import tempfile
import threading
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psycopg2
from psycopg2.extras import execute_values

from benchmarks.graph_sample import Sample, fill
from kgcore.backends import KGBackend, PostgreSQLBackend, Row
from kgcore.backends.parameters import portable
from kgcore.backends.placeholders import to_psycopg2
from kgcore.graph import KnowledgeGraph
from kgcore.graph.dialect import NOW
from kgcore.graph.session import Session
from workers.embedded import PostgresServer

THREADS = 10
Statement = tuple[str, Sequence[Any]]


@dataclass(frozen=True)
class Operation:
    """A call to measure; it is given a number that differs each time."""

    name: str
    call: Callable[[KnowledgeGraph, int], object]
    writes: bool = False
    guide_ms: tuple[float, float] | None = None  # SQLite, PostgreSQL.
    rounds: int = 200


class _Captured(Exception):  # noqa: N818  # A signal, not an error.
    pass


class Recorder(Session):
    """Keeps the statements of a call, for sending them without the graph; ``dry`` sends none."""

    def __init__(self, backend: KGBackend) -> None:
        super().__init__(backend)
        self.statements: list[Statement] = []
        self.dry = False

    def rows(self, sql: str, params: Sequence[Any] = (), *, heavy: bool = False) -> list[Row]:
        """Keep and run a statement."""
        self.statements.append((sql, params))
        return super().rows(sql, params, heavy=heavy)

    def write(self, sql: str, params: Sequence[Any] = (), *, repeatable: bool = True) -> list[Row]:
        """Keep a statement, and run it unless dry."""
        self.statements.append((sql, params))
        if self.dry:
            raise _Captured
        return super().write(sql, params, repeatable=repeatable)


def operations(sample: Sample) -> list[Operation]:
    """Return what is measured."""
    entities, missions, files = sample.entities, sample.missions, sample.files

    def one(ids: list[int], number: int) -> int:
        return ids[number * 7919 % len(ids)]

    return [
        Operation("find by id", lambda g, n: g.get_entity(one(entities, n)), guide_ms=(2, 1)),
        Operation(
            "find related (10)",
            lambda g, n: g.find_related(one(missions, n), "worked_on"),
            guide_ms=(15, 5),
        ),
        Operation(
            "add entity",
            lambda g, n: g.add_entity("file", f"new {n}", {"language": "python"}),
            writes=True,
            guide_ms=(5, 2),
        ),
        Operation(
            "add relationship",
            lambda g, n: g.add_relationship(one(missions, n), one(files, n), "worked_on"),
            writes=True,
            guide_ms=(8, 3),
        ),
        Operation("risky files", lambda g, _: g.get_risky_files(), guide_ms=(450, 80), rounds=15),
        Operation("stats", lambda g, _: g.get_stats(), guide_ms=(320, 60), rounds=25),
        Operation(
            "merge metadata",
            lambda g, n: g.update_entity(one(files, n), {"seen": n}, merge=True),
            writes=True,
        ),
        Operation(
            "find by metadata",
            lambda g, n: g.find_by_metadata({"team": f"team {n % 40}"}),
            rounds=15,
        ),
        Operation("search", lambda g, n: g.search(f"module_{n:05d}"), rounds=15),
        Operation("neighbors, depth 2", lambda g, n: g.neighbors(one(missions, n), 2), rounds=25),
        Operation("neighbors of a hub", lambda g, _: g.neighbors(sample.hub), rounds=15),
        Operation(
            "shortest path",
            lambda g, n: g.shortest_path(one(files, n), one(files, n + 1)),
            rounds=15,
        ),
        Operation(
            "similar missions",
            lambda g, n: g.similar_missions(f"mission-{n % 10_000:06d}"),
            rounds=15,
        ),
    ]


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--entities", type=int, default=100_000)
    parser.add_argument("--relationships", type=int, default=250_000)
    choice = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="kg-bench-") as name:
        scratch = Path(name)
        scratch.chmod(0o755)
        with (
            PostgresServer(scratch / "pg") as server,
            KnowledgeGraph(db_path=scratch / "kg.db") as lite,
            KnowledgeGraph(_backend(server)) as big,
        ):
            big.init_schema()
            print(
                f"{choice.entities:,} entities, {choice.relationships:,} relationships", flush=True
            )
            samples = []
            for graph in (lite, big):
                began = time.perf_counter()
                samples.append(fill(graph, choice.entities, choice.relationships))
                print(f"filled {graph.backend.name} in {time.perf_counter() - began:.1f} s")
            lite.backend.execute("ANALYZE")
            lite.backend.commit()
            bare = _connection(server)
            bare.cursor().execute("VACUUM ANALYZE")
            _calls(lite, samples[0], big, samples[1], bare)
            _bulk(lite, big, bare)
            _concurrently(lite, big, server)


def _calls(
    lite: KnowledgeGraph, of_lite: Sample, big: KnowledgeGraph, of_big: Sample, bare: Any
) -> None:
    header = ("median ms", "SQLite", "PostgreSQL", "bare", "ratio", "guide", "least")
    print("{:22}{:>10}{:>12}{:>10}{:>8}{:>14}{:>8}".format(*header))
    for on_lite, on_big in zip(operations(of_lite), operations(of_big), strict=True):
        numbers = itertools.count(1)
        lite_ms = _median(
            [_timed(on_lite.call, lite, next(numbers)) for _ in range(on_lite.rounds)]
        )
        big_ms, bare_ms = _side_by_side(on_big, big, bare)
        guide, least = "", ""
        if on_big.guide_ms is not None:
            guide = f"{on_big.guide_ms[0]:g} -> {on_big.guide_ms[1]:g}"
            least = "met" if big_ms <= on_big.guide_ms[1] else "MISSED"
        print(
            f"{on_big.name:22}{lite_ms:>10.2f}{big_ms:>12.2f}{bare_ms:>10.2f}"
            f"{big_ms / bare_ms:>8.2f}{guide:>14}{least:>8}",
            flush=True,
        )


def _side_by_side(operation: Operation, graph: KnowledgeGraph, bare: Any) -> tuple[float, float]:
    """Return the medians of the call and of its statements sent bare, measured in turn."""
    recorder = Recorder(graph.backend)
    watched = KnowledgeGraph(graph.backend)
    watched._session = recorder
    ours: list[float] = []
    theirs: list[float] = []
    with bare.cursor() as cursor:
        for number in range(operation.rounds):
            ours.append(_timed(operation.call, graph, 2 * number + 10**6))
            recorder.statements.clear()
            recorder.dry = operation.writes
            with contextlib.suppress(_Captured):
                operation.call(watched, 2 * number + 1 + 10**6)
            ready = [_ready(statement) for statement in recorder.statements]
            began = time.perf_counter()
            for sql, params in ready:
                cursor.execute(sql, params)
                cursor.fetchall()
            theirs.append((time.perf_counter() - began) * 1e3)
    return _median(ours), _median(theirs)


def _bulk(lite: KnowledgeGraph, big: KnowledgeGraph, bare: Any) -> None:
    rows = [("bulk", f"{number:06d}", {"n": number}) for number in range(10_000)]
    times: dict[str, float] = {}
    for name, graph in (("SQLite", lite), ("PostgreSQL", big)):
        began = time.perf_counter()
        graph.add_entities(rows)
        times[name] = time.perf_counter() - began
    with bare.cursor() as cursor:
        began = time.perf_counter()
        execute_values(
            cursor,
            "INSERT INTO entities (type, name, metadata) VALUES %s ON CONFLICT (type, name)"
            " DO UPDATE SET metadata = excluded.metadata, updated_at = now() RETURNING id",
            [("bare", name, f'{{"n": {metadata["n"]}}}') for _, name, metadata in rows],
            page_size=5000,
        )
        times["bare execute_values"] = time.perf_counter() - began
    shown = ", ".join(f"{name} {len(rows) / seconds:,.0f}/s" for name, seconds in times.items())
    print(f"bulk, {len(rows):,} entities: {shown}", flush=True)


def _concurrently(lite: KnowledgeGraph, big: KnowledgeGraph, server: PostgresServer) -> None:
    def with_graph(graph: KnowledgeGraph) -> Callable[[int, int], None]:
        def write(thread: int, number: int) -> None:
            first = graph.add_entity("busy", f"{number % 50}", {"thread": thread})
            second = graph.add_entity("busy", f"{thread}/{number}")
            graph.add_relationship(first, second, "busy")

        return write

    recorder = Recorder(big.backend)
    watched = KnowledgeGraph(big.backend)
    watched._session = recorder
    recorder.dry = True
    with contextlib.suppress(_Captured):
        watched.add_entity("busy", "?", {"thread": 0})
    with contextlib.suppress(_Captured):
        watched.add_relationship(1, 2, "busy")
    entity, relationship = (to_psycopg2(sql) for sql, _ in recorder.statements)
    local = threading.local()

    def write_bare(thread: int, number: int) -> None:
        if not hasattr(local, "cursor"):
            local.cursor = _connection(server).cursor()
        ids = []
        for name in (f"{number % 50}", f"bare {thread}/{number}"):
            local.cursor.execute(entity, ("busy", name, "{}", None, None))
            ids.append(local.cursor.fetchone()[0])
        local.cursor.execute(relationship, ("busy", "{}", None, *ids))

    writers = (("SQLite", with_graph(lite)), ("PostgreSQL", with_graph(big)), ("bare", write_bare))
    print(f"{THREADS} threads that write, 20 % of the entities the same for all:")
    for name, write in writers:
        _write_in_threads(name, write, rounds=60)
    print(f"pool afterwards: {big.pool_stats()}")


def _write_in_threads(name: str, write: Callable[[int, int], None], rounds: int) -> None:
    def work(thread: int) -> list[float]:
        return [_timed(write, thread, number) for number in range(rounds)]

    began = time.perf_counter()
    with ThreadPoolExecutor(THREADS) as pool:
        times = sorted(itertools.chain.from_iterable(pool.map(work, range(THREADS))))
    writes = 3 * len(times)
    seconds = time.perf_counter() - began
    print(
        f"  {name:12}{writes / seconds:>8,.0f} writes/s; three writes: median"
        f" {_median(times):.1f} ms, p99 {times[int(len(times) * 0.99)]:.1f} ms; no error",
        flush=True,
    )


def _timed(call: Callable[..., object], *arguments: Any) -> float:
    began = time.perf_counter()
    call(*arguments)
    return (time.perf_counter() - began) * 1e3


def _median(times: Sequence[float]) -> float:
    return statistics.median(times)


def _ready(statement: Statement) -> Statement:
    sql, params = statement
    return to_psycopg2(sql), portable([None if value is NOW else value for value in params])


def _backend(server: PostgresServer) -> PostgreSQLBackend:
    return PostgreSQLBackend(
        server.host, server.port, server.database, server.user, server.password, pool_size=THREADS
    )


def _connection(server: PostgresServer) -> Any:
    connection = psycopg2.connect(
        host=server.host,
        port=server.port,
        dbname=server.database,
        user=server.user,
        password=server.password,
    )
    connection.autocommit = True
    return connection


if __name__ == "__main__":
    main()
