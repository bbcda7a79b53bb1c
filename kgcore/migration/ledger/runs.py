"""Runs: created whole in one transaction, ended once, reopened by a resume."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from datetime import datetime
from pathlib import Path

from psycopg2 import errors
from psycopg2.extensions import cursor as Cursor  # noqa: N812
from psycopg2.extras import Json, execute_values

from kgcore.errors import RunNotFoundError, TargetBusyError, TargetError
from kgcore.migration.ledger.described import described
from kgcore.migration.ledger.install import is_current, is_installed
from kgcore.migration.ledger.lease import terminate_holders
from kgcore.migration.model import (
    IN_PROGRESS,
    NewStep,
    Options,
    Run,
    RunState,
    SourceSnapshot,
    Stage,
)


@dataclass(frozen=True, slots=True)
class RunSummary:
    """A line of ``kg runs``. Times are the target's."""

    run_id: str
    state: RunState
    source: str
    rows: int
    began_at: datetime
    finished_at: datetime | None
    reverted_at: datetime | None
    error: str | None


def create_run(
    cursor: Cursor,
    run: Run,
    steps: Sequence[NewStep],
    ready: frozenset[tuple[Stage, str]],
    seconds: Mapping[str, float],
) -> None:
    """Write run, source, stages and steps. ``seconds`` has what ``freeze`` and ``plan`` took.

    Raises :class:`TargetBusyError` while another run into the same schema is in progress.
    """
    try:
        cursor.execute(
            "INSERT INTO kg_migration.runs (run_id, protocol, state, epoch, target_schema,"
            " staging_schema, archive_schema, options, began_at, freeze_seconds, plan_seconds)"
            " VALUES (%s, %s, %s, %s, %s, %s, %s, %s,"
            " clock_timestamp() - make_interval(secs => %s), %s, %s)",
            (
                run.run_id,
                run.protocol,
                run.state,
                run.epoch,
                run.schema,
                run.staging,
                run.archive,
                Json(run.options.to_json()),
                seconds["freeze"] + seconds["plan"],
                seconds["freeze"],
                seconds["plan"],
            ),
        )
    except errors.UniqueViolation:
        raise TargetBusyError(
            f"another run into schema {run.schema} is in progress", *_BUSY_HINT
        ) from None
    cursor.execute(
        "INSERT INTO kg_migration.sources (run_id, original_path, snapshot_path, sha256, bytes,"
        " address, tables, not_carried_over) VALUES (%s, %s, %s, %s, %s, %s, %s, %s)"
        " RETURNING source_id",
        (
            run.run_id,
            str(run.source.original),
            str(run.source.path),
            run.source.sha256,
            run.source.bytes,
            run.source.address,
            Json([table.to_json() for table in run.tables.values()]),
            Json([asdict(note) for note in run.not_carried_over]),
        ),
    )
    (source_id,) = cursor.fetchone() or (None,)
    counts: dict[tuple[Stage, str], int] = {}
    for step in steps:
        counts[step.stage, step.table] = counts.get((step.stage, step.table), 0) + 1
    execute_values(
        cursor,
        "INSERT INTO kg_migration.stages (run_id, stage, table_name, open_steps, ready) VALUES %s",
        [(run.run_id, *group, count, group in ready) for group, count in counts.items()],
    )
    execute_values(
        cursor,
        "INSERT INTO kg_migration.steps (run_id, source_id, position, stage, table_name,"
        " index_name, lower_id, upper_id, planned_rows, weight) VALUES %s",
        [
            (
                *(run.run_id, source_id, position, step.stage, step.table, step.index),
                *(step.lower, step.upper, step.rows, step.weight),
            )
            for position, step in enumerate(steps)
        ],
        page_size=1000,
    )
    # Without statistics the next steps are looked for by sorting all: 6.5 ms instead of 1.4, after
    # each step of a run of 20,000.
    cursor.execute("ANALYZE kg_migration.steps, kg_migration.stages")


def read_run(cursor: Cursor, run_id: str) -> Run:
    """Return the run. Raises :class:`RunNotFoundError`, :class:`TargetError` for an old ledger."""
    if is_installed(cursor) and not is_current(cursor):
        raise TargetError(
            "the ledger in schema kg_migration is of an earlier version of jarvis-kg",
            "kg migrate, kg resume, kg cancel and kg revert bring it up to date",
        )
    run = find_run(cursor, run_id)
    if run is None:
        raise _no_such(run_id)
    return run


def find_run(cursor: Cursor, run_id: str) -> Run | None:
    """Return the run, or None where there is none of that name, or no ledger."""
    if not is_installed(cursor):
        return None
    cursor.execute(
        "SELECT r.state, r.epoch, r.target_schema, r.staging_schema, r.archive_schema, r.options,"
        " s.original_path, s.snapshot_path, s.sha256, s.bytes, s.source_id, r.protocol, r.error,"
        # In an older ledger, which has no such column and is still to be read, the name means the
        # NULL outside.
        " r.hint, (SELECT address FROM kg_migration.sources one WHERE one.source_id = s.source_id)"
        " FROM kg_migration.runs r JOIN (SELECT run_id, source_id, original_path, snapshot_path,"
        " sha256, bytes FROM kg_migration.sources) s USING (run_id)"
        " CROSS JOIN (SELECT NULL::text AS address) older"
        " WHERE run_id = %s",
        (run_id,),
    )
    row = cursor.fetchone()
    if row is None:
        return None
    source = described(cursor, row[10], row[8], run_id)
    return Run(
        run_id=run_id,
        state=RunState(row[0]),
        epoch=row[1],
        schema=row[2],
        staging=row[3],
        archive=row[4],
        options=Options.from_json(row[5]),
        source=SourceSnapshot(Path(row[6]), Path(row[7]), row[8], row[9], row[14]),
        tables=source.tables,
        protocol=row[11],
        error=row[12],
        hint=row[13],
        not_carried_over=source.not_carried_over,
    )


def list_runs(cursor: Cursor, limit: int = 100) -> tuple[RunSummary, ...]:
    """Return the latest runs, newest first."""
    cursor.execute(
        "SELECT r.run_id, r.state, s.original_path, (SELECT coalesce(sum((t->>'rows')::bigint), 0)"
        " FROM jsonb_array_elements(s.tables) t)::bigint, r.began_at, r.finished_at,"
        " r.reverted_at, r.error"
        " FROM kg_migration.runs r JOIN kg_migration.sources s USING (run_id)"
        " ORDER BY r.planned_at DESC LIMIT %s",
        (limit,),
    )
    return tuple(RunSummary(row[0], RunState(row[1]), *row[2:]) for row in cursor.fetchall())


def running_run(cursor: Cursor, schema: str) -> str | None:
    """Return the id of the run in progress into this schema, if there is one."""
    cursor.execute(
        "SELECT run_id FROM kg_migration.runs WHERE target_schema = %s AND state = ANY(%s)",
        (schema, [str(state) for state in IN_PROGRESS]),
    )
    row = cursor.fetchone()
    return row[0] if row else None


def latest_done(cursor: Cursor, schema: str) -> str | None:
    """Return the run whose tables are live in the schema: the last cut over and not reverted."""
    cursor.execute(
        "SELECT run_id FROM kg_migration.runs WHERE target_schema = %s AND state = 'done'"
        " AND reverted_at IS NULL ORDER BY finished_at DESC LIMIT 1",
        (schema,),
    )
    row = cursor.fetchone()
    return row[0] if row else None


def lock_run(cursor: Cursor, run_id: str, *, wait: bool = True) -> tuple[RunState, int]:
    """Lock the run's row until the transaction ends; return its state and epoch.

    Whoever changes a run's state or counts holds this lock, and locks the run before its steps.
    Who then says nothing for a lease's time loses the connection: all others wait for the lock.
    ``wait=False`` only reads, without it. Raises :class:`RunNotFoundError`.
    """
    if not is_installed(cursor):
        raise _no_such(run_id)
    cursor.execute(_LOCK if wait else _LOOK, (run_id,))
    row = cursor.fetchone()
    if row is None:
        raise _no_such(run_id)
    return RunState(row[0]), row[1]


_LOOK = "SELECT state, epoch FROM kg_migration.runs WHERE run_id = %s"
# A reject's foreign key holds the row FOR KEY SHARE: with FOR UPDATE two steps that have rejects
# would wait for each other at their ends.
_LOCK = (
    "SELECT state, epoch, set_config('idle_in_transaction_session_timeout',"
    " ceil((options->>'lease_seconds')::numeric * 1000)::text, true)"
    " FROM kg_migration.runs WHERE run_id = %s FOR NO KEY UPDATE"
)


def end_run(cursor: Cursor, run_id: str, state: RunState, error: str = "", hint: str = "") -> None:
    """Set a running run's end, and why. The caller holds its lock."""
    cursor.execute(
        "UPDATE kg_migration.runs SET state = %s, error = nullif(%s, ''), hint = nullif(%s, ''),"
        " finished_at = clock_timestamp() WHERE run_id = %s",
        (state, error, hint, run_id),
    )


def reopen(cursor: Cursor, run_id: str, options: Options) -> None:
    """Let an ended run go on in a new epoch, with fresh attempts. The caller holds its lock.

    Who still works on a step of the epoch before can't commit any more, and is stopped. Raises
    :class:`TargetBusyError` while another run into the same schema is in progress.
    """
    try:
        cursor.execute(
            "UPDATE kg_migration.runs SET state = 'running', epoch = epoch + 1, options = %s,"
            " error = NULL, hint = NULL, finished_at = NULL WHERE run_id = %s",
            (Json(options.to_json()), run_id),
        )
    except errors.UniqueViolation:
        raise TargetBusyError(
            "another run into the same schema is in progress", *_BUSY_HINT
        ) from None
    terminate_holders(cursor, run_id, expired_only=False)
    _forget_attempts(cursor, run_id)


def pause(cursor: Cursor, run_id: str) -> None:
    """Let nothing new of a running run begin. The caller holds its lock."""
    cursor.execute("UPDATE kg_migration.runs SET state = 'paused' WHERE run_id = %s", (run_id,))


def unpause(cursor: Cursor, run_id: str, options: Options) -> None:
    """Let a paused run go on in the same epoch, with fresh attempts. The caller holds its lock."""
    cursor.execute(
        "UPDATE kg_migration.runs SET state = 'running', options = %s, paced_until = NULL"
        " WHERE run_id = %s",
        (Json(options.to_json()), run_id),
    )
    _forget_attempts(cursor, run_id)


def _forget_attempts(cursor: Cursor, run_id: str) -> None:
    # Leases stay: of who works on a step through a pause, and of who hangs.
    cursor.execute(
        "UPDATE kg_migration.steps SET attempts = 0, dispatched_at = NULL, started_at = NULL"
        " WHERE run_id = %s AND NOT done",
        (run_id,),
    )


def set_address(cursor: Cursor, run_id: str, address: str) -> None:
    """Say where the run's source is to be fetched from now on."""
    cursor.execute(
        "UPDATE kg_migration.sources SET address = %s WHERE run_id = %s", (address, run_id)
    )


def set_options(cursor: Cursor, run_id: str, options: Options) -> None:
    """Change what was chosen for a run. The caller holds its lock."""
    cursor.execute(
        "UPDATE kg_migration.runs SET options = %s WHERE run_id = %s",
        (Json(options.to_json()), run_id),
    )


def mark_reverted(cursor: Cursor, run_id: str) -> None:
    """Note that the run's tables are no longer live. The caller holds its lock."""
    cursor.execute(
        "UPDATE kg_migration.runs SET reverted_at = clock_timestamp() WHERE run_id = %s", (run_id,)
    )


def _no_such(run_id: str) -> RunNotFoundError:
    return RunNotFoundError(f"there is no run {run_id!r} in this database", "kg runs lists them")


_BUSY_HINT = ("kg runs names it; wait for it, kg resume it, or kg cancel it",)
