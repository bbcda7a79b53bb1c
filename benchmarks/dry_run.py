"""``make bench-dry-run``: how fast a dry run checks a graph, clean and with rows that don't fit.

Time on the clock, and of the processor: others may use the machine, too. Freezing the source and
the sample in the target are left out; they take the same whatever is in the rows.
"""

import argparse
import os
import statistics
import tempfile
import time
from pathlib import Path

from benchmarks.migration import sample_of
from benchmarks.rejects import _spoiled
from kgcore.migration import new_run, sources
from kgcore.migration.dry_run import dry_run
from kgcore.migration.model import Options


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--rows", type=int, default=1_650_000, help="of all tables together")
    parser.add_argument("--percent", type=float, nargs="*", default=[1.0], help="of rows are bad")
    choice = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="kg-bench-") as scratch_name:
        scratch = Path(scratch_name)
        clean = sample_of(scratch / "clean.db", choice.rows)
        _measure("clean", clean, scratch, choice.rounds)
        for percent in choice.percent:
            spoiled = _spoiled(clean, scratch / f"spoiled-{percent:g}.db", percent)
            _measure(f"{percent:g} % bad", spoiled, scratch, choice.rounds)


def _measure(name: str, source: Path, scratch: Path, rounds: int) -> None:
    prepared = new_run.prepare(source, scratch / "data", Options())
    rates, costs, rejected = [], [], 0
    for _ in range(rounds):
        wall, cpu = time.monotonic(), time.process_time()
        found = dry_run(prepared)
        rates.append(found.rows / (time.monotonic() - wall))
        costs.append((time.process_time() - cpu) / found.rows)
        rejected = found.rejected_rows
    sources.release(prepared.source)
    print(
        f"{name:<10}{statistics.median(rates):>12,.0f} rows/s"
        f"{statistics.median(costs) * 1e6:>8.2f} µs of processor time a row,"
        f" {len(os.sched_getaffinity(0))} cores; {rejected:,} rejects",
        flush=True,
    )


if __name__ == "__main__":
    main()
