"""Read a run's report out of the ledger."""

from kgcore.backends import ConnectionPool
from kgcore.migration import ledger
from kgcore.migration.model import Run
from kgcore.migration.stages.report import Report, Target


def read_report(pool: ConnectionPool, run_id: str) -> Report:
    """Return the report of a run in any state. Raises :class:`RunNotFoundError`."""
    with ledger.frozen_view(pool) as cursor:
        run = ledger.read_run(cursor, run_id)
        info = cursor.connection.info
        examples = ledger.mismatched_ids(cursor, run_id)
        progress = ledger.stage_progress(cursor, run_id)
        return Report(
            run=run,
            target=Target(info.host or "localhost", info.port, info.dbname),
            tables=ledger.table_totals(cursor, run_id),
            seconds=ledger.stage_seconds(cursor, run_id),
            chunks=next((p.steps for s, p in progress.items() if s == "load"), 0),
            workers=len(ledger.worker_totals(cursor, run_id)),
            errors=_errors(run, examples),
            mismatched_ids=examples,
            repairs=ledger.repair_totals(cursor, run_id),
        )


def _errors(run: Run, examples: dict[str, tuple[int, ...]]) -> tuple[str, ...]:
    named = tuple(
        f"{table}: rows that differ have the ids {', '.join(map(str, ids))}"
        for table, ids in examples.items()
    )
    return (*((run.error,) if run.error else ()), *named)
