"""``make bench-rejects``: how fast a graph loads of which 1 % of the rows can't be stored.

The bad rows are spread over all chunks, so that every chunk takes the careful lane. Measured next
to the same graph without them, on private servers, with worker processes.
"""

import argparse
import json
import os
import sqlite3
import statistics
import subprocess
import sys
import tempfile
from contextlib import closing
from pathlib import Path
from typing import Any

from benchmarks.migration import clear, sample_of
from benchmarks.workers import running
from workers.embedded import PostgresServer, RedisServer

# What is wrong with the bad rows of a table: one fault after the other.
_FAULTS = {
    "entities": (
        "metadata = '{\"a\": NaN}'",
        "name = name || char(0)",
        "metadata = '{'",
        "created_at = 1767323045",
        "name = CAST(CAST(name AS BLOB) || x'ff' AS TEXT)",
    ),
    "relationships": (
        "metadata = '\"\\ud800\"'",
        "created_at = 'yesterday'",
        "type = x'00'",
        "metadata = '{'",
        "to_id = 2.5",
    ),
    "mission_history": ("cost_usd = 'dear'", "created_at = '2026-02-30'"),
    "file_snapshots": ("size_bytes = 'large'", "hash = x'00'", "metadata = 'none'"),
}


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--rows", type=int, default=1_650_000, help="of all tables together")
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--percent", type=float, default=1.0, help="of the rows that are bad")
    choice = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="kg-bench-") as scratch_name:
        scratch = Path(scratch_name)
        clean = sample_of(scratch / "clean.db", choice.rows)
        spoiled = _spoiled(clean, scratch / "spoiled.db", choice.percent)
        with (
            PostgresServer(scratch / "pg") as postgres,
            RedisServer(scratch / "redis") as redis,
        ):
            environment = {
                **os.environ,
                **postgres.environment(),
                **redis.environment(),
                "KG_DATA_DIR": str(scratch / "data"),
            }
            with running(choice.workers, environment):
                _measure(choice, clean, spoiled, environment)


def _measure(
    choice: argparse.Namespace, clean: Path, spoiled: Path, environment: dict[str, str]
) -> None:
    kinds = {
        "clean": (clean, []),
        "rejected": (spoiled, ["--max-rejects", str(choice.rows)]),
        "repaired": (spoiled, ["--max-rejects", str(choice.rows), "--repair", "all"]),
    }
    loads: dict[str, list[float]] = {name: [] for name in kinds}
    for number in range(choice.rounds + 1):
        for name, (source, options) in kinds.items():
            report = _migrate(source, environment, options)
            rows, seconds = report["totals"]["source_rows"], report["seconds"]["load"]
            rejected = report["totals"]["rejected_rows"]
            shown = f"{seconds:.2f} s, {rows / seconds:,.0f} rows/s, {rejected:,} rejects"
            print(f"round {number}: {name}: load {shown}", flush=True)
            if number:  # The first round warms up.
                loads[name].append(rows / seconds)
    for name, rates in loads.items():
        print(f"{name:<10}{statistics.median(rates):>12,.0f} rows/s loaded")


def _migrate(source: Path, environment: dict[str, str], options: list[str]) -> dict[str, Any]:
    command = [sys.executable, "-m", "workers.cli", "migrate", str(source), *options]
    done = subprocess.run(
        [*command, "--if-exists", "replace", "--json"],
        env=environment,
        stdout=subprocess.PIPE,
        check=True,
    )
    report = json.loads(done.stdout)
    totals = report["totals"]
    if totals["source_rows"] != totals["loaded_rows"] + totals["rejected_rows"]:
        raise RuntimeError(f"rows are missing: {totals}")
    clear(environment)
    return dict(report)


def _spoiled(clean: Path, path: Path, percent: float) -> Path:
    with closing(sqlite3.connect(clean)) as source, closing(sqlite3.connect(path)) as target:
        source.backup(target)
        every = max(1, round(100 / percent))
        for table, faults in _FAULTS.items():
            for number, fault in enumerate(faults):
                target.execute(
                    f"UPDATE {table} SET {fault}"
                    f" WHERE rowid % {every} = 7 AND rowid / {every} % {len(faults)} = {number}"
                )
        target.commit()
    return path


if __name__ == "__main__":
    main()
