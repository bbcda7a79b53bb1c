"""The pace of a run with ``max_rows_per_second``: one budget in the ledger, for all its workers.

A step that sends rows books the time that they are worth at that rate, and begins when those before
it have used up theirs. PostgreSQL's clock alone is asked. On average the rate is never exceeded; a
chunk itself is sent as fast as it goes.
"""

from psycopg2.extensions import cursor as Cursor  # noqa: N812

from kgcore.migration.ledger.dispatch import PACED
from kgcore.migration.ledger.runs import lock_run
from kgcore.migration.ledger.steps import acquire
from kgcore.migration.model import Run


def book_turn(cursor: Cursor, run: Run, step_id: int) -> float | None:
    """Return after how many seconds the step may begin; None where it is not for this worker.

    That is: the step is done, or someone works on it, or waits for its turn.
    """
    rate = run.options.max_rows_per_second
    if rate is None:
        return 0.0
    if not acquire(cursor, step_id):
        return None
    cursor.execute(
        "SELECT planned_rows, coalesce(dispatched_at > clock_timestamp(), false)"
        " FROM kg_migration.steps WHERE step_id = %s AND run_id = %s AND stage = ANY(%s)",
        (step_id, run.run_id, [str(stage) for stage in PACED]),
    )
    row = cursor.fetchone()
    if row is None:
        return 0.0
    rows, waits_already = row
    if waits_already:
        return None
    lock_run(cursor, run.run_id)
    cursor.execute(
        "UPDATE kg_migration.runs SET paced_until = greatest(paced_until, clock_timestamp())"
        " + make_interval(secs => %(seconds)s) WHERE run_id = %(run)s"
        " RETURNING paced_until - make_interval(secs => %(seconds)s),"
        " extract(epoch FROM paced_until - clock_timestamp()) - %(seconds)s",
        {"seconds": rows / rate, "run": run.run_id},
    )
    turn, seconds = cursor.fetchone() or (None, 0.0)
    if seconds <= 0:
        return 0.0
    # Until then the sweeper must not think that the message was lost.
    cursor.execute(
        "UPDATE kg_migration.steps SET dispatched_at = %s WHERE step_id = %s", (turn, step_id)
    )
    return float(seconds)
