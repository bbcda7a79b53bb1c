"""What the sweeper needs to know: steps that nobody works on though they could be done."""

from dataclasses import dataclass

from psycopg2.extensions import cursor as Cursor  # noqa: N812

from kgcore.migration.ledger.lease import step_lock_key


@dataclass(frozen=True, slots=True)
class Stale:
    """Steps that nobody works on. ``lost`` ones were claimed once, and their worker is gone;
    ``idle`` ones were sent (or never sent) and not claimed for the grace time.
    """

    lost: tuple[int, ...]
    idle: tuple[int, ...]


def ready_steps(cursor: Cursor, run_id: str) -> tuple[int, ...]:
    """Return all steps that could be done now and are not, in the order in which to send them."""
    cursor.execute(
        f"SELECT step.step_id {_READY} ORDER BY step.weight DESC, step.step_id", {"run": run_id}
    )
    return tuple(step_id for (step_id,) in cursor.fetchall())


def stale_steps(cursor: Cursor, run_id: str, grace_seconds: float) -> Stale:
    """Return the ready steps whose lock nobody holds, after a grace time since the last sign."""
    cursor.execute(
        f"""
        SELECT step.step_id, step.started_at IS NOT NULL
            AND step.started_at >= coalesce(step.dispatched_at, step.started_at)
        {_READY}
        AND greatest(step.dispatched_at, step.started_at, '-infinity')
            < clock_timestamp() - make_interval(secs => %(grace)s)
        AND NOT EXISTS (
            SELECT 1 FROM pg_locks AS held
            WHERE held.locktype = 'advisory' AND held.objsubid = 1
            AND held.database = (SELECT oid FROM pg_database WHERE datname = current_database())
            AND (held.classid::bigint << 32 | held.objid::bigint) = (%(zero)s | step.step_id)
        )
        ORDER BY step.weight DESC, step.step_id
        """,
        {"run": run_id, "grace": grace_seconds, "zero": step_lock_key(0)},
    )
    rows = cursor.fetchall()
    return Stale(
        tuple(step_id for step_id, claimed in rows if claimed),
        tuple(step_id for step_id, claimed in rows if not claimed),
    )


_READY = """
FROM kg_migration.steps AS step
JOIN kg_migration.stages AS stage ON stage.run_id = step.run_id
    AND stage.stage = step.stage AND stage.table_name = step.table_name
WHERE step.run_id = %(run)s AND NOT step.done AND stage.ready
"""
