"""What a chunk costs who coordinates: CPU of the command and of its backend, Redis, the ledger.

The chunks are real and have one row each, so that next to nothing is done but coordinating.
"""

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import psutil

from benchmarks.migration import clear, sample_of
from benchmarks.scale_stage import Stage, cpu_seconds, table
from benchmarks.workers import running

_LOOK_SECONDS = 0.2
_WARM_ROWS = 200
_TABLE = "kg_migration.steps"
_STEPS = (
    "SELECT count(*) FILTER (WHERE done), count(*) FILTER (WHERE stage = 'load')"
    " FROM kg_migration.steps WHERE run_id = %s"
)
_WORKERS = 2
_COORDINATORS = (
    "SELECT array_agg(pid) FROM pg_stat_activity"
    " WHERE application_name = 'jarvis-kg' AND datname = current_database()"
)


@dataclass(frozen=True)
class Cost:
    """A run of so many chunks. CPU is of ``seconds``, in which ``steps`` were done."""

    chunks: int
    steps: int
    seconds: float
    planning_cpu: float
    command_cpu: float
    backend_cpu: float
    worker_cpu: float
    server_cpu: float
    redis_peak: int
    redis_state: int
    redis_stream: int
    ledger_bytes: int


def measure(stage: Stage, numbers: Sequence[int], most_seconds: float) -> list[Cost]:
    """Migrate a graph of each number of rows in as many chunks; cancel what takes too long."""
    found = []
    with running(_WORKERS, stage.environment) as workers:
        for number in (_WARM_ROWS, *numbers):
            found.append(_run(stage, workers, number, most_seconds))
            cost = found[-1]
            print(
                f"{cost.chunks:,} chunks: {cost.steps:,} steps in {cost.seconds:.0f} s", flush=True
            )
    return found[1:]


def shown(costs: Sequence[Cost]) -> str:
    """Return the table: a line for each figure, a column for each run."""
    figures: dict[str, Callable[[Cost], str]] = {
        "chunks": lambda cost: f"{cost.chunks:,}",
        "steps done": lambda cost: f"{cost.steps:,}",
        "in seconds": lambda cost: f"{cost.seconds:.0f}",
        "planning: command and backend, CPU ms a chunk": (
            lambda cost: f"{1e3 * cost.planning_cpu / cost.chunks:.2f}"
        ),
        "watching: command, CPU ms a step": (
            lambda cost: f"{1e3 * cost.command_cpu / cost.steps:.2f}"
        ),
        "watching: its backend, CPU ms a step": (
            lambda cost: f"{1e3 * cost.backend_cpu / cost.steps:.2f}"
        ),
        "watching: both, CPU ms a second": (
            lambda cost: f"{1e3 * (cost.command_cpu + cost.backend_cpu) / cost.seconds:.0f}"
        ),
        "workers, CPU ms a step": lambda cost: f"{1e3 * cost.worker_cpu / cost.steps:.1f}",
        "PostgreSQL in all, CPU ms a step": (
            lambda cost: f"{1e3 * cost.server_cpu / cost.steps:.1f}"
        ),
        "Redis: hash and bitmap, bytes": lambda cost: f"{cost.redis_state:,}",
        "Redis: stream of events, bytes": lambda cost: f"{cost.redis_stream:,}",
        "Redis: most in use, bytes a chunk": lambda cost: f"{cost.redis_peak / cost.chunks:.0f}",
        "ledger, bytes a chunk": lambda cost: f"{cost.ledger_bytes / cost.chunks:.0f}",
    }
    columns = {str(number): f"run {number + 1}" for number, _ in enumerate(costs)}
    return table(
        {"figure": "figure", **columns},
        [
            {"figure": name} | {str(number): figure(cost) for number, cost in enumerate(costs)}
            for name, figure in figures.items()
        ],
    )


@dataclass
class _Account:
    """CPU of processes that come and go, as they were seen last."""

    seen: dict[int, float]

    def look(self, pids: Sequence[int]) -> float:
        for pid in pids:
            try:
                self.seen[pid] = cpu_seconds(psutil.Process(pid))
            except psutil.NoSuchProcess:
                continue
        return sum(self.seen.values())


def _run(stage: Stage, workers: Sequence[psutil.Process], rows: int, most_seconds: float) -> Cost:
    source = sample_of(stage.scratch / f"chunks-{rows}.db", rows)
    with stage.broker() as client:
        client.flushall()
        empty = client.info("memory")["used_memory"]
        before = _ledger_bytes(stage)
        command = stage.migrate(source, "--chunk-rows", "1")
        backends, commands = _Account({}), _Account({})
        server = psutil.Process(stage.postgres.pid)
        began: tuple[float, ...] | None = None
        now: tuple[float, ...] = ()
        run, peak = "", 0
        while command.poll() is None:
            time.sleep(_LOOK_SECONDS)
            backend = backends.look(stage.ask(_COORDINATORS) or ())
            now = (
                time.monotonic(),
                commands.look([command.pid]),
                backend,
                sum(map(cpu_seconds, workers)),
                cpu_seconds(server),
            )
            peak = max(peak, client.info("memory")["used_memory"])
            if began is None and client.exists("kg:latest"):
                began, run = now, str(client.get("kg:latest"))
            if began is not None and now[0] - began[0] > most_seconds:
                break
        # Asked for before the run is given up: that takes its staging tables away.
        steps, chunks = stage.ask(_STEPS, run)
        ledger = _ledger_bytes(stage) - before
        state, bits, stream = (
            int(client.memory_usage(f"kg:run:{run}{part}", samples=0) or 0)
            for part in ("", ":steps", ":events")
        )
    if command.poll() is None:
        stage.kg("cancel", run)
    command.communicate()
    if began is None:
        raise RuntimeError("the run was over before anybody looked")
    clear(stage.environment)
    seconds, command_cpu, backend_cpu, worker_cpu, server_cpu = (
        last - first for last, first in zip(now, began, strict=True)
    )
    return Cost(
        chunks=chunks,
        steps=steps,
        seconds=seconds,
        planning_cpu=began[1] + began[2],
        command_cpu=command_cpu,
        backend_cpu=backend_cpu,
        worker_cpu=worker_cpu,
        server_cpu=server_cpu,
        redis_peak=peak - empty,
        redis_state=state + bits,
        redis_stream=stream,
        ledger_bytes=ledger,
    )


def _ledger_bytes(stage: Stage) -> int:
    return int(stage.ask("SELECT coalesce(pg_total_relation_size(to_regclass(%s)), 0)", _TABLE))
