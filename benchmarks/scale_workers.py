"""How a migration's time falls with the number of workers, where they are the bottleneck."""

import json
import os
import sqlite3
import time
from collections.abc import Sequence
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path

import psutil

from benchmarks.migration import clear, sample_of
from benchmarks.scale_hold import Way, held
from benchmarks.scale_stage import Stage, cpu_seconds, table
from benchmarks.workers import family, running
from kgcore.migration.model import Options

_WARM_ROWS = 4_000
_WARM_CHUNK = 100


@dataclass(frozen=True)
class Round:
    """One migration: wall-clock from the first step to the last, and CPU by who used it."""

    workers: int
    seconds: float
    worker_cpu: float
    server_cpu: float
    busy_cores: float
    wal_bytes: int
    target_bytes: int
    index_bytes: int


def measure(
    stage: Stage, numbers: Sequence[int], rows: int, chunk_rows: int, share: float, way: Way
) -> list[Round]:
    """Migrate the same graph with each number of workers, and say so while it goes on."""
    source = _two_forms(sample_of(stage.scratch / "scale.db", rows))
    warm = _two_forms(sample_of(stage.scratch / "warm.db", _WARM_ROWS))
    rounds = []
    for number in numbers:
        with running(number, stage.environment) as workers:
            # Imports and connections are made before anybody is held.
            _migrate(stage, warm, _WARM_CHUNK)
            with held([family(worker) for worker in workers], share, way):
                rounds.append(_round(stage, workers, source, chunk_rows))
        print(f"{number} workers: {rounds[-1].seconds:.1f} s", flush=True)
    return rounds


def shown(rounds: Sequence[Round]) -> str:
    """Return the table."""
    one = rounds[0]
    return table(
        {
            "workers": "workers",
            "seconds": "seconds",
            "speed-up": "speed-up",
            "efficiency": "efficiency",
            "worker": "CPU s of workers",
            "server": "CPU s of PostgreSQL",
            "busy": f"cores busy, of {os.cpu_count()}",
        },
        [
            {
                "workers": str(each.workers),
                "seconds": f"{each.seconds:.1f}",
                "speed-up": f"{one.seconds / each.seconds:.2f}",
                "efficiency": f"{one.seconds * one.workers / each.seconds / each.workers:.2f}",
                "worker": f"{each.worker_cpu:.1f}",
                "server": f"{each.server_cpu:.1f}",
                "busy": f"{each.busy_cores:.2f}",
            }
            for each in rounds
        ],
    )


def per_row(stage: Stage, rows: int) -> str:
    """Migrate a graph as it is, with chunks of the usual size, and return what a row took."""
    warm = sample_of(stage.scratch / "warm-plain.db", _WARM_ROWS)
    source = sample_of(stage.scratch / "plain.db", rows)
    with running(2, stage.environment) as workers:
        _migrate(stage, warm, _WARM_CHUNK)
        each = _round(stage, workers, source, Options().chunk_rows)
    source_bytes = source.stat().st_size
    facts = [
        {"what": name, "value": f"{value / rows:.0f} bytes"}
        for name, value in (
            ("SQLite file", source_bytes),
            ("tables and indexes", each.target_bytes),
            ("of them, indexes", each.index_bytes),
            ("WAL", each.wal_bytes),
        )
    ] + [
        {"what": name, "value": f"{1e6 * seconds / rows:.1f} µs of CPU"}
        for name, seconds in (("workers", each.worker_cpu), ("PostgreSQL", each.server_cpu))
    ]
    return table({"what": "a row takes", "value": "on average"}, facts)


def _round(stage: Stage, workers: Sequence[psutil.Process], source: Path, chunk: int) -> Round:
    server = psutil.Process(stage.postgres.pid)
    wal = stage.ask("SELECT pg_current_wal_lsn()")
    worker_cpu, server_cpu = sum(map(cpu_seconds, workers)), cpu_seconds(server)
    began, machine = time.monotonic(), psutil.cpu_times()
    seconds = _migrate(stage, source, chunk)
    ended, machine_now = time.monotonic(), psutil.cpu_times()
    idle = (machine_now.idle + machine_now.iowait) - (machine.idle + machine.iowait)
    busy = (os.cpu_count() or 1) - idle / (ended - began)
    sizes = stage.ask(
        "SELECT sum(pg_total_relation_size(relid))::bigint, sum(pg_indexes_size(relid))::bigint"
        " FROM pg_stat_user_tables WHERE schemaname = 'public'"
    )
    return Round(
        workers=len(workers),
        seconds=seconds,
        worker_cpu=sum(map(cpu_seconds, workers)) - worker_cpu,
        server_cpu=cpu_seconds(server) - server_cpu,
        busy_cores=busy,
        wal_bytes=int(stage.ask("SELECT pg_wal_lsn_diff(pg_current_wal_lsn(), %s)", wal)),
        target_bytes=sizes[0],
        index_bytes=sizes[1],
    )


def _migrate(stage: Stage, source: Path, chunk_rows: int) -> float:
    """Migrate; return the seconds from the plan to the end, in which workers have the say."""
    command = stage.migrate(source, "--chunk-rows", str(chunk_rows))
    answer, _ = command.communicate()
    report = json.loads(answer)
    if report["totals"]["verified_rows"] != report["totals"]["source_rows"]:
        raise RuntimeError(f"not all rows were verified: {report}")
    clear(stage.environment)
    seconds = report["seconds"]
    return float(seconds["total"] - seconds["freeze"] - seconds["plan"])


def _two_forms(path: Path) -> Path:
    """Write every other timestamp in another form: workers then read and check row by row."""
    tables = ("entities", "relationships", "mission_history", "file_snapshots")
    with closing(sqlite3.connect(path)) as sqlite, sqlite:
        for name in tables:
            sqlite.execute(
                f"UPDATE {name} SET created_at = replace(rtrim(created_at, 'Z'), 'T', ' ')"
                " WHERE rowid % 2 = 0"
            )
    return path
