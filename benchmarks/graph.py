"""``make bench-graph``: the graph's calls on SQLite and PostgreSQL, next to bare psycopg2.

Everything is private: the servers' settings are PostgreSQL's own, commits are durable. *Bare* is
the same SQL with the same values through one connection in autocommit mode, measured in turn with
the calls. Medians; *least* is the PostgreSQL column of the migration guide. The aims: no call takes
more than 1.25 times as long as bare, risky files 40 ms, stats 15 ms. Risky files and stats are
measured once more on a graph with few bugs and failed missions, as real ones have.
"""

import argparse
import contextlib
import itertools
import statistics
import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Sequence
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
MOST_RATIO = 1.25
Statement = tuple[str, Sequence[Any]]


@dataclass(frozen=True)
class Operation:
    """A call to measure; it is given a number that differs each time."""

    name: str
    call: Callable[[KnowledgeGraph, int], object]
    writes: bool = False
    guide_ms: tuple[float, float] | None = None  # SQLite, PostgreSQL.
    aim_ms: float | None = None  # PostgreSQL.
    rounds: int = 200


@dataclass(frozen=True)
class Graphs:
    """The same graph on both databases, and a bare connection to the second."""

    lite: KnowledgeGraph
    of_lite: Sample
    big: KnowledgeGraph
    of_big: Sample
    bare: Any


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


def of_all() -> list[Operation]:
    """Return what is measured on both graphs."""
    return [
        Operation(
            "risky files",
            lambda g, _: g.get_risky_files(),
            guide_ms=(450, 80),
            aim_ms=40,
            rounds=15,
        ),
        Operation("stats", lambda g, _: g.get_stats(), guide_ms=(320, 60), aim_ms=15, rounds=25),
    ]


def operations(sample: Sample) -> list[Operation]:
    """Return what is measured."""
    entities, missions, files = sample.entities, sample.missions, sample.files

    def one(ids: list[int], number: int) -> int:
        return ids[number * 7919 % len(ids)]

    return [
        Operation("find by id", lambda g, n: g.get_entity(one(entities, n)), guide_ms=(2, 1)),
        Operation(
            "find related (10)",
            lambda g, n: g.find_related(one(sample.of_ten, n), "worked_on"),
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
        *of_all(),
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
        with PostgresServer(scratch / "pg") as server:
            print(f"{choice.entities:,} entities, {choice.relationships:,} relationships")
            with _graphs(server, scratch, choice) as graphs:
                _calls(graphs, operations(graphs.of_lite), operations(graphs.of_big))
                _bulk(graphs.lite, graphs.big, graphs.bare)
                _concurrently(graphs.lite, graphs.big, server)
            print("no caused_bug, 74 failed missions:")
            with _graphs(server, scratch, choice, few_flags=True) as graphs:
                _calls(graphs, of_all(), of_all())


@contextlib.contextmanager
def _graphs(
    server: PostgresServer, scratch: Path, choice: argparse.Namespace, *, few_flags: bool = False
) -> Iterator[Graphs]:
    """Fill a graph on each database, and have PostgreSQL's tables vacuumed."""
    database = "few" if few_flags else "many"
    _connection(server).cursor().execute(f"CREATE DATABASE {database}")
    with (
        KnowledgeGraph(db_path=scratch / f"{database}.db") as lite,
        KnowledgeGraph(_backend(server, database)) as big,
    ):
        big.init_schema()
        samples = []
        for graph in (lite, big):
            began = time.perf_counter()
            sample = fill(graph, choice.entities, choice.relationships, few_flags=few_flags)
            samples.append(sample)
            seconds = time.perf_counter() - began
            print(f"filled {graph.backend.name} in {seconds:.1f} s", flush=True)
        lite.backend.execute("ANALYZE")
        lite.backend.commit()
        bare = _connection(server, database)
        bare.cursor().execute("VACUUM ANALYZE")
        yield Graphs(lite, samples[0], big, samples[1], bare)


def _calls(graphs: Graphs, on_lite: list[Operation], on_big: list[Operation]) -> None:
    header = ("median ms", "SQLite", "PostgreSQL", "bare", "ratio", "<= 1.25", "guide", "least")
    print("{:22}{:>10}{:>12}{:>10}{:>8}{:>9}{:>14}{:>8}  aim".format(*header))
    for lite, big in zip(on_lite, on_big, strict=True):
        numbers = itertools.count(1)
        lite_ms = _median(
            [_timed(lite.call, graphs.lite, next(numbers)) for _ in range(lite.rounds)]
        )
        big_ms, bare_ms = _side_by_side(big, graphs.big, graphs.bare)
        guide, least, aim = "", "", ""
        if big.guide_ms is not None:
            guide = f"{big.guide_ms[0]:g} -> {big.guide_ms[1]:g}"
            least = _judged(big_ms, big.guide_ms[1])
        if big.aim_ms is not None:
            aim = f"{big.aim_ms:g} ms {_judged(big_ms, big.aim_ms)}"
        ratio = big_ms / bare_ms
        print(
            f"{big.name:22}{lite_ms:>10.2f}{big_ms:>12.2f}{bare_ms:>10.2f}{ratio:>8.2f}"
            f"{_judged(ratio, MOST_RATIO):>9}{guide:>14}{least:>8}  {aim}",
            flush=True,
        )


def _judged(found: float, most: float) -> str:
    return "met" if found <= most else "MISSED"


def _side_by_side(operation: Operation, graph: KnowledgeGraph, bare: Any) -> tuple[float, float]:
    """Return the medians of the call and of its statements sent bare, measured in turn."""
    recorder = Recorder(graph.backend)
    watched = KnowledgeGraph(graph.backend)
    watched._session = recorder
    ours: list[float] = []
    theirs: list[float] = []
    with bare.cursor() as cursor:
        for number in range(10**6, 10**6 + 2 * operation.rounds, 2):
            if not operation.writes:
                # The statements of a read are found out by making it: so bare finds its pages in
                # memory, and the call shall, too.
                operation.call(graph, number)
            ours.append(_timed(operation.call, graph, number))
            recorder.statements.clear()
            recorder.dry = operation.writes
            with contextlib.suppress(_Captured):
                # A write of the same once more would be another: an update of what is there.
                operation.call(watched, number + 1 if operation.writes else number)
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
            local.cursor = _connection(server, "many").cursor()
        ids = []
        for name in (f"{number % 50}", f"bare {thread}/{number}"):
            local.cursor.execute(entity, ("busy", name, "{}", None, None))
            ids.append(local.cursor.fetchone()[0])
        local.cursor.execute(relationship, ("busy", "{}", None, *ids))

    writers = (("SQLite", with_graph(lite)), ("PostgreSQL", with_graph(big)), ("bare", write_bare))
    print(f"{THREADS} threads that write, 50 names the same for all (guide: LOCKS -> no locks):")
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


def _backend(server: PostgresServer, database: str) -> PostgreSQLBackend:
    return PostgreSQLBackend(
        server.host, server.port, database, server.user, server.password, pool_size=THREADS
    )


def _connection(server: PostgresServer, database: str | None = None) -> Any:
    connection = psycopg2.connect(
        host=server.host,
        port=server.port,
        dbname=database or server.database,
        user=server.user,
        password=server.password,
    )
    connection.autocommit = True
    return connection


if __name__ == "__main__":
    main()
