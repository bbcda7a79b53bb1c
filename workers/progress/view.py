"""A run as the ledger has it at one moment, in the channel's terms."""

import json
from collections.abc import Mapping
from dataclasses import dataclass

from kgcore.backends import ConnectionPool
from kgcore.migration import ledger

Fields = Mapping[str, str | float]


@dataclass(frozen=True, slots=True)
class View:
    """The fields of the hash and the bitmap.

    ``counts`` are the fields that add up the steps in the bitmap; ``facts`` are the others. The run
    was planned ``age_seconds`` ago; ``took_seconds`` is None while it is in progress.
    """

    run_id: str
    facts: Fields
    counts: Fields
    bitmap: bytes
    age_seconds: float
    took_seconds: float | None


def from_ledger(pool: ConnectionPool, run_id: str) -> View:
    """Read it. Raises :class:`RunNotFoundError`."""
    with ledger.frozen_view(pool) as cursor:
        run = ledger.read_run(cursor, run_id)
        age, took = ledger.run_seconds(cursor, run_id)
        tables = ledger.table_totals(cursor, run_id)
        stages = ledger.stage_progress(cursor, run_id)
        workers = ledger.worker_totals(cursor, run_id)
        positions = ledger.done_positions(cursor, run_id)
    facts: dict[str, str | float] = {
        "state": str(run.state),
        "errors": json.dumps([run.error] if run.error else []),
        "weight": sum(stage.weight for stage in stages.values()),
        **{f"total:{name}": table.source_rows for name, table in tables.items()},
    }
    counts: dict[str, str | float] = {
        "done_weight": sum(stage.done_weight for stage in stages.values()),
        **{f"done:{name}": table.done_rows for name, table in tables.items()},
    }
    for stage, progress in stages.items():
        counts[f"left:{stage}"] = progress.steps - progress.done_steps
    for name, worker in workers.items():
        counts |= {f"rows:{name}": worker.rows, f"steps:{name}": worker.steps}
    bitmap = bytearray(max(positions, default=-1) // 8 + 1)
    for position in positions:
        bitmap[position // 8] |= 0x80 >> position % 8  # Redis counts bits from the left.
    return View(run_id, facts, counts, bytes(bitmap), age, took)
