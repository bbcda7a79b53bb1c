"""``make bench``: a whole migration next to the floor, in one run, several times; medians, ratios.

Everything is private: servers, workers, the sample. ``--rows`` scales the sample. Both sides begin
alike: nothing is left of the other, and the server's pages are on the disk.
"""

import argparse
import itertools
import json
import os
import statistics
import subprocess
import sys
import tempfile
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import psutil

from benchmarks import floor
from benchmarks.workers import family, running
from kgcore.migration import new_run
from kgcore.migration.model import Options
from kgcore.sample import make_synthetic
from workers.embedded import PostgresServer, RedisServer
from workers.embedded.postgres import wheel_programs

#: Entities, relationships, missions, snapshots of 1,650,000 rows.
_SHAPE = (400_000, 1_000_000, 50_000, 200_000)

# With --tuned: what a person would set for a bulk load on 24 GiB. Both sides run on it.
_TUNED = {
    "shared_buffers": "1GB",
    "max_wal_size": "8GB",
    "maintenance_work_mem": "256MB",
    "checkpoint_timeout": "30min",
}
_STAGES = ("freeze", "plan", "load", "index", "verify", "cutover", "total")


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--rows", type=int, default=1_650_000, help="of all tables together")
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--chunk-rows", type=int, default=Options().chunk_rows)
    parser.add_argument("--no-floor", action="store_true", help="measure the migration alone")
    parser.add_argument("--tuned", action="store_true", help="a server set up for bulk loads")
    parser.add_argument("--source", type=Path, help="a graph to use instead of a synthetic one")
    choice = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="kg-bench-") as scratch_name:
        scratch = Path(scratch_name)
        source = choice.source or sample_of(scratch / "sample.db", choice.rows)
        with (
            PostgresServer(scratch / "pg", settings=_TUNED if choice.tuned else {}) as postgres,
            RedisServer(scratch / "redis") as redis,
        ):
            environment = {
                **os.environ,
                **postgres.environment(),
                **redis.environment(),
                "KG_DATA_DIR": str(scratch / "data"),
            }
            _measure(choice, source, scratch, environment, postgres)


def _measure(
    choice: argparse.Namespace,
    source: Path,
    scratch: Path,
    environment: dict[str, str],
    postgres: PostgresServer,
) -> None:
    prepared = new_run.prepare(source, scratch / "floor", Options())
    files = scratch / "files"
    files.mkdir()
    streams = (
        [] if choice.no_floor else floor.write_files(prepared.source.path, prepared.tables, files)
    )
    rows = sum(table.rows for table in prepared.tables)
    print(
        f"{rows:,} rows, {prepared.source.bytes / 2**20:,.0f} MiB of SQLite;"
        f" {os.cpu_count()} cores; {choice.rounds} rounds",
        flush=True,
    )
    psql = wheel_programs() / "psql"
    floors: list[dict[str, float]] = []
    ours: list[dict[str, float]] = []
    with running(choice.workers, environment) as workers, _watched(workers) as peak:
        for number in range(choice.rounds + 1):
            if not choice.no_floor:
                clear(environment)
                floors.append(floor.measure(_parameters(postgres), prepared.tables, streams, psql))
            clear(environment)
            ours.append(_migrate(source, environment, choice.chunk_rows))
            if number == 0:  # The first round warms caches and imports; it isn't counted.
                floors.clear()
                ours.clear()
                continue
            print(
                f"round {number}: ours {_line(ours[-1])}"
                + ("" if choice.no_floor else f"; floor {_line(floors[-1])}"),
                flush=True,
            )
        print(f"largest worker process: {max(peak, default=0) / 2**20:,.0f} MiB")
    _print(ours, floors)


def _print(ours: list[dict[str, float]], floors: list[dict[str, float]]) -> None:
    median = {name: statistics.median(run[name] for run in ours) for name in _STAGES}
    print(f"\n{'stage':<10}{'ours':>8}{'floor':>8}{'ratio':>8}{'median ratio of rounds':>26}")
    for name in _STAGES:
        line = f"{name:<10}{median[name]:>8.2f}"
        if floors and name in floors[0]:
            least = statistics.median(run[name] for run in floors)
            ratio = statistics.median(
                mine[name] / theirs[name] for mine, theirs in zip(ours, floors, strict=True)
            )
            line += f"{least:>8.2f}{median[name] / least:>8.2f}{ratio:>26.2f}"
        print(line)


def _migrate(source: Path, environment: dict[str, str], chunk_rows: int) -> dict[str, float]:
    command = [sys.executable, "-m", "workers.cli", "migrate", str(source)]
    command += ["--chunk-rows", str(chunk_rows)]
    done = subprocess.run(
        [*command, "--if-exists", "replace", "--json"],
        env=environment,
        stdout=subprocess.PIPE,
        check=True,
    )
    report = json.loads(done.stdout)
    if report["totals"]["verified_rows"] != report["totals"]["source_rows"]:
        raise RuntimeError(f"not all rows were verified: {report}")
    return dict(report["seconds"])


def clear(environment: dict[str, str]) -> None:
    """Let a side begin with nothing of the other: no tables for autovacuum, no pages to write."""
    script = (
        f"DROP SCHEMA IF EXISTS {floor.SCHEMA} CASCADE;\n"
        "SELECT format('DROP SCHEMA %I CASCADE', nspname) FROM pg_namespace"
        " WHERE nspname LIKE 'kg\\_before\\_%' \\gexec\n"
        "SELECT format('DROP TABLE %I.%I CASCADE', schemaname, tablename) FROM pg_tables"
        " WHERE schemaname = 'public' \\gexec\nCHECKPOINT;\n"
    )
    libpq = {
        name.replace("PG_", "PG"): value
        for name, value in environment.items()
        if name.startswith("PG_")
    }
    subprocess.run(
        [wheel_programs() / "psql", "-q"],
        input=script.encode(),
        env={**environment, **libpq},
        check=True,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )


@contextmanager
def _watched(workers: list[psutil.Process]) -> Iterator[list[int]]:
    """Collect the largest resident size of any of the workers' processes, while the block runs."""
    peak: list[int] = []
    ended = threading.Event()

    def watch() -> None:
        while not ended.wait(0.1):
            for member in itertools.chain.from_iterable(map(family, workers)):
                with suppress(psutil.NoSuchProcess):
                    peak[:] = [max([*peak, member.memory_info().rss])]

    watcher = threading.Thread(target=watch)
    watcher.start()
    try:
        yield peak
    finally:
        ended.set()
        watcher.join()


def sample_of(path: Path, rows: int) -> Path:
    """Make a graph of so many rows, shaped like the benchmark's."""
    entities, relationships, missions, snapshots = (
        round(part * rows / sum(_SHAPE)) for part in _SHAPE
    )
    make_synthetic(
        path,
        entities=entities,
        relationships=relationships,
        missions=missions,
        snapshots=snapshots,
    )
    return path


def _parameters(server: PostgresServer) -> dict[str, str]:
    return {
        "host": server.host,
        "port": str(server.port),
        "dbname": server.database,
        "user": server.user,
        "password": server.password,
    }


def _line(seconds: dict[str, float]) -> str:
    return ", ".join(f"{name} {seconds[name]:.2f}" for name in _STAGES if name in seconds)


if __name__ == "__main__":
    main()
