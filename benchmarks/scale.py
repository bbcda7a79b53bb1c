"""``make bench-scale``: how a run's time falls with the workers, and what a chunk costs.

Everything is private and real: servers, worker processes, the command. The tables that are printed
at the end are those of ``docs/scale.md``.
"""

import argparse
import tempfile
from pathlib import Path

import psutil

from benchmarks import scale_chunks, scale_hold, scale_workers
from benchmarks.scale_stage import Stage
from workers.embedded import PostgresServer, RedisServer


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rows", type=int, default=80_000, help="of the graph that is migrated")
    parser.add_argument("--chunk-rows", type=int, default=500)
    parser.add_argument("--share", type=float, default=0.05, help="of a core, for each worker")
    parser.add_argument("--workers", type=_numbers, default=(1, 2, 4, 8), metavar="N,…")
    parser.add_argument(
        "--plain-rows", type=int, default=800_000, help="of a graph that nobody is held at; 0: none"
    )
    parser.add_argument("--chunks", type=_numbers, default=(1_000, 20_000), metavar="N,…")
    parser.add_argument(
        "--most-seconds",
        type=float,
        default=100.0,
        help="of a run of --chunks, then it's cancelled",
    )
    parser.add_argument("--hold", choices=("cgroup2", "cgroup1", "signals"), default=None)
    choice = parser.parse_args()
    way = choice.hold or scale_hold.best_way()
    load, *_ = psutil.getloadavg()
    print(
        f"{choice.rows:,} rows in chunks of {choice.chunk_rows:,}; each worker is held to"
        f" {choice.share:.0%} of a core by {way}; load average before: {load:.1f}",
        flush=True,
    )
    with tempfile.TemporaryDirectory(prefix="kg-bench-") as name:
        scratch = Path(name)
        with (
            PostgresServer(scratch / "pg", settings={"max_connections": "200"}) as postgres,
            RedisServer(scratch / "redis") as redis,
        ):
            stage = Stage(scratch, postgres, redis)
            tables = []
            if choice.workers:
                rounds = scale_workers.measure(
                    stage, choice.workers, choice.rows, choice.chunk_rows, choice.share, way
                )
                tables.append(scale_workers.shown(rounds))
            if choice.plain_rows:
                tables.append(scale_workers.per_row(stage, choice.plain_rows))
            if choice.chunks:
                costs = scale_chunks.measure(stage, choice.chunks, choice.most_seconds)
                tables.append(scale_chunks.shown(costs))
    print("", *tables, sep="\n\n")


def _numbers(text: str) -> tuple[int, ...]:
    return tuple(int(part) for part in text.split(",") if part)


if __name__ == "__main__":
    main()
