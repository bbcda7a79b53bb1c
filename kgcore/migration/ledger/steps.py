"""A step's life: claimed in a short transaction, then done and recorded in one with its work."""

import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from psycopg2.extensions import cursor as Cursor  # noqa: N812

from kgcore.errors import StepFencedError
from kgcore.migration.ledger.lease import step_lock_key
from kgcore.migration.ledger.runs import end_run, lock_run
from kgcore.migration.model import IN_PROGRESS, Outcome, Run, RunState, Stage, Step, StepRef

#: Given the open steps of each stage of each table, says which stages may go.
Unlock = Callable[[Mapping[tuple[Stage, str], int]], frozenset[tuple[Stage, str]]]


def claim(cursor: Cursor, run: Run, step_id: int, worker: str) -> Step | None:
    """Count an attempt and take the lease; None where there is nothing to do for this worker.

    That is: the step is done, not ready, of another run, someone works on it at this moment, or its
    attempts are used up (:func:`end_exhausted`).
    """
    if not acquire(cursor, step_id):
        return None
    cursor.execute(
        "UPDATE kg_migration.steps AS step SET attempts = attempts + 1, worker = %(worker)s,"
        " started_at = clock_timestamp(),"
        " lease_until = clock_timestamp() + make_interval(secs => %(lease)s)"
        " FROM kg_migration.stages AS stage"
        " WHERE step.step_id = %(step)s AND step.run_id = %(run)s AND NOT step.done"
        " AND step.attempts < %(most)s AND stage.run_id = step.run_id AND stage.stage = step.stage"
        " AND stage.table_name = step.table_name AND stage.ready"
        f" RETURNING {_STEP}",
        {
            "worker": worker,
            "lease": run.options.lease_seconds,
            "most": run.options.max_attempts,
            "step": step_id,
            "run": run.run_id,
        },
    )
    row = cursor.fetchone()
    return None if row is None else _step(run, step_id, row)


def end_exhausted(cursor: Cursor, run: Run, step_id: int) -> Step | float | None:
    """Let the run fail if a step that nobody works on has no attempt left; return that step.

    Who claimed it just now may not have its lock yet: then return after how many seconds to ask
    again.
    """
    if not acquire(cursor, step_id):
        return None
    cursor.execute(
        f"SELECT {_STEP}, step.error,"
        " extract(epoch FROM started_at + make_interval(secs => %s) - clock_timestamp())::float8"
        " FROM kg_migration.steps AS step"
        " WHERE step_id = %s AND run_id = %s AND NOT done AND attempts >= %s",
        (_CLAIM_SECONDS, step_id, run.run_id, run.options.max_attempts),
    )
    row = cursor.fetchone()
    if row is None:
        return None
    *columns, error, too_early = row
    if too_early > 0:
        return float(too_early)
    step = _step(run, step_id, columns)
    return step if fail_exhausted(cursor, run.run_id, step, error) else None


# From the claim to the lock there is a commit and the begin of a transaction.
_CLAIM_SECONDS = 1.0

_STEP = (
    "step.position, step.stage, step.table_name, step.index_name, step.lower_id, step.upper_id,"
    " step.planned_rows, step.weight, step.attempts"
)


def _step(run: Run, step_id: int, row: Sequence[Any]) -> Step:
    return Step(step_id, run.run_id, row[0], Stage(row[1]), *row[2:])


def acquire(cursor: Cursor, step_id: int) -> bool:
    """Take the step's lock until the transaction ends; False where another worker has it."""
    cursor.execute("SELECT pg_try_advisory_xact_lock(%s)", (step_lock_key(step_id),))
    (taken,) = cursor.fetchone() or (False,)
    if not taken:
        return False
    cursor.execute("SELECT NOT done FROM kg_migration.steps WHERE step_id = %s", (step_id,))
    (is_open,) = cursor.fetchone() or (False,)
    return bool(is_open)


def hold(cursor: Cursor, step: Step) -> bool:
    """Take the lock of a step that was claimed, until the transaction ends.

    False where another worker has claimed it since, or done it. Who only asks for a step has its
    lock for a moment, too, and is waited for: turned away by it, the last attempt would be lost.
    """
    until = time.monotonic() + _CLAIM_SECONDS
    while _is_claimed(cursor, step):
        # Once it is taken nobody claims the step any more; before, someone may have.
        if acquire(cursor, step.step_id):
            return _is_claimed(cursor, step)
        if time.monotonic() > until:
            break
        time.sleep(0.02)
    return False


def _is_claimed(cursor: Cursor, step: Step) -> bool:
    cursor.execute(
        "SELECT NOT done AND attempts = %s FROM kg_migration.steps WHERE step_id = %s",
        (step.attempts, step.step_id),
    )
    (is_ours,) = cursor.fetchone() or (False,)
    return bool(is_ours)


def is_done(cursor: Cursor, step_id: int) -> bool:
    """Whether the step's work and its record are committed."""
    cursor.execute("SELECT done FROM kg_migration.steps WHERE step_id = %s", (step_id,))
    (done,) = cursor.fetchone() or (False,)
    return bool(done)


def close(
    cursor: Cursor, ref: StepRef, outcome: Outcome, unlock: Unlock, end: RunState | None = None
) -> RunState:
    """Record the step as done in the transaction of its work, and unlock what waited for it.

    Returns the run's state. Raises :class:`StepFencedError`, by which the work is rolled back, when
    the run was cancelled, ended or resumed in the meantime; in a paused run what was begun counts.
    Holding the run's row makes exactly one last finisher.
    """
    state = require_current(cursor, ref, or_paused=True)
    # One statement, because all other finishers wait meanwhile.
    cursor.execute(
        "WITH closed AS (UPDATE kg_migration.steps SET done = true,"
        " finished_at = clock_timestamp(), lease_until = NULL, error = NULL, lane = %s,"
        " loaded_rows = %s, rejected_rows = %s, verified_rows = %s, mismatched_rows = %s,"
        " mismatched_ids = %s WHERE step_id = %s RETURNING run_id, stage, table_name)"
        " UPDATE kg_migration.stages SET open_steps = open_steps - 1"
        " FROM closed WHERE stages.run_id = closed.run_id AND stages.stage = closed.stage"
        " AND stages.table_name = closed.table_name RETURNING open_steps",
        (
            outcome.lane,
            outcome.loaded,
            outcome.rejected,
            outcome.verified,
            outcome.mismatched,
            list(outcome.mismatched_ids),
            ref.step_id,
        ),
    )
    (left,) = cursor.fetchone() or (0,)
    if end is not None:
        end_run(cursor, ref.run_id, end)
    if left == 0:
        _unlock(cursor, ref.run_id, unlock)
    return end or state


def tables_with_keys(cursor: Cursor, run_id: str) -> set[str]:
    """Return the tables whose keys have been added."""
    cursor.execute(
        "SELECT table_name FROM kg_migration.steps WHERE run_id = %s AND stage = 'key' AND done",
        (run_id,),
    )
    return {name for (name,) in cursor.fetchall()}


def charge_keys(cursor: Cursor, run_id: str, table: str, removed: int) -> None:
    """Count rows as set aside by a table's key step, which is done, for another table's keys."""
    cursor.execute(
        "UPDATE kg_migration.steps SET loaded_rows = loaded_rows - %(rows)s,"
        " rejected_rows = rejected_rows + %(rows)s"
        " WHERE run_id = %(run)s AND stage = 'key' AND table_name = %(table)s",
        {"rows": removed, "run": run_id, "table": table},
    )


def require_current(
    cursor: Cursor, ref: StepRef, *, lock: bool = True, or_paused: bool = False
) -> RunState:
    """Return the run's state; raise :class:`StepFencedError` unless it runs in the same epoch.

    With ``lock`` it stays so until the transaction ends; without, it is a look that spares the work
    of a step whose run has ended. With ``or_paused`` a paused run will do.
    """
    state, epoch = lock_run(cursor, ref.run_id, wait=lock)
    goes_on = state in IN_PROGRESS if or_paused else state is RunState.RUNNING
    if not goes_on or epoch != ref.epoch:
        raise StepFencedError(
            f"run {ref.run_id} is {state} in epoch {epoch}; a writer of epoch {ref.epoch} is late",
            "nothing to do: its work was rolled back",
        )
    return state


def record_failure(cursor: Cursor, run: Run, step: Step, error: str) -> bool:
    """Note why an attempt failed; return whether the step is to be tried again: sent again now.

    Otherwise its attempts are used up, and the run has failed. The caller holds the run's lock.
    """
    cursor.execute(
        "UPDATE kg_migration.steps SET error = %s, lease_until = NULL,"
        " dispatched_at = clock_timestamp()"
        # A late writer must not touch the lease of who does the step now.
        " WHERE step_id = %s AND NOT done AND attempts = %s",
        (error, step.step_id, step.attempts),
    )
    return step.attempts < run.options.max_attempts or not fail_exhausted(
        cursor, run.run_id, step, error
    )


def fail_exhausted(cursor: Cursor, run_id: str, step: Step, error: str | None) -> bool:
    """End a running run because one of its steps can't be done; False if another did it."""
    state, _ = lock_run(cursor, run_id)
    if is_done(cursor, step.step_id):
        return False
    if state is RunState.RUNNING:
        why = error or "its worker died each time"
        end_run(
            cursor,
            run_id,
            RunState.FAILED,
            f"{step} failed {min(step.attempts, 999)} times: {why}",
            f"mend the cause, then: kg resume {run_id} (or give up: kg cancel {run_id})",
        )
    return True


def _unlock(cursor: Cursor, run_id: str, unlock: Unlock) -> None:
    cursor.execute(
        "SELECT stage, table_name, open_steps, ready FROM kg_migration.stages WHERE run_id = %s",
        (run_id,),
    )
    rows = cursor.fetchall()
    free = unlock({(Stage(stage), table): left for stage, table, left, _ in rows})
    fresh = [
        (stage, table) for stage, table, _, ready in rows if not ready and (stage, table) in free
    ]
    if fresh:
        cursor.execute(
            "UPDATE kg_migration.stages SET ready = true"
            " WHERE run_id = %s AND (stage, table_name) IN %s",
            (run_id, tuple(fresh)),
        )
