"""What the sweeper needs to know: steps that nobody works on though they could be done."""

from dataclasses import dataclass

from psycopg2.extensions import cursor as Cursor  # noqa: N812

from kgcore.migration.ledger.lease import step_lock_key
from kgcore.migration.model import Run, Stage, StepRef


@dataclass(frozen=True, slots=True)
class Stale:
    """Steps that nobody works on. ``lost`` ones were claimed once, and their worker is gone;
    ``idle`` ones were sent and not claimed for the grace time.
    """

    lost: tuple[StepRef, ...]
    idle: tuple[StepRef, ...]


def stale_steps(cursor: Cursor, run: Run, grace_seconds: float) -> Stale:
    """Return the steps whose lock nobody holds, after a grace time since the last sign.

    Those that were never sent are not among them: :func:`next_steps` has them.
    """
    cursor.execute(
        """
        SELECT step.step_id, step.stage, coalesce(step.started_at >= step.dispatched_at, false)
        FROM kg_migration.steps AS step
        WHERE step.run_id = %(run)s AND NOT step.done AND step.dispatched_at IS NOT NULL
        AND greatest(step.dispatched_at, step.started_at)
            < clock_timestamp() - make_interval(secs => %(grace)s)
        AND NOT EXISTS (
            SELECT 1 FROM pg_locks AS held
            WHERE held.locktype = 'advisory' AND held.objsubid = 1
            AND held.database = (SELECT oid FROM pg_database WHERE datname = current_database())
            AND (held.classid::bigint << 32 | held.objid::bigint) = (%(zero)s | step.step_id)
        )
        ORDER BY step.weight DESC, step.step_id
        """,
        {"run": run.run_id, "grace": grace_seconds, "zero": step_lock_key(0)},
    )
    found = [
        (StepRef(run.run_id, step_id, run.epoch, Stage(stage)), claimed)
        for step_id, stage, claimed in cursor.fetchall()
    ]
    return Stale(
        tuple(ref for ref, claimed in found if claimed),
        tuple(ref for ref, claimed in found if not claimed),
    )
