"""Which steps to send now: enough that no worker waits, and few enough that other runs get theirs.

A run of 20,000 chunks doesn't fill the queue with 20,000 messages, because a second run's steps
would wait behind all of them. Each step that is done makes room for the next ones.
"""

from psycopg2.extensions import cursor as Cursor  # noqa: N812

from kgcore.migration.model import Run, RunState, Stage, StepRef

#: Stages whose steps send rows, and so are held to ``max_rows_per_second``.
PACED = frozenset({Stage.LOAD, Stage.VERIFY})

# Of each stage so many steps wait in the queue beyond one for each that is being done: idle workers
# find something, and the number doubles with each round until all of them are busy.
_SPARE = 16
# A step that waits for its turn occupies its worker, and one or two of them keep the pace.
_SPARE_PACED = 2


def next_steps(cursor: Cursor, run: Run) -> tuple[StepRef, ...]:
    """Return the steps to send now, in that order, and note that they are being sent.

    None where the run isn't running. Two that ask at the same time may both get a step: it is done
    once all the same.
    """
    if run.state is not RunState.RUNNING:
        return ()
    cursor.execute(
        "SELECT stage, count(*), count(*) FILTER (WHERE started_at >= dispatched_at)"
        " FROM kg_migration.steps WHERE run_id = %s AND NOT done AND dispatched_at IS NOT NULL"
        " GROUP BY stage",
        (run.run_id,),
    )
    under_way = {Stage(stage): (sent, begun) for stage, sent, begun in cursor.fetchall()}
    room = {stage: _room(stage, *under_way.get(stage, (0, 0)), run) for stage in Stage}
    most = sum(room.values())
    if run.options.max_workers is not None:
        most = min(most, run.options.max_workers - sum(sent for sent, _ in under_way.values()))
    if most <= 0:
        return ()
    cursor.execute(
        """
        SELECT step.step_id, step.stage FROM kg_migration.stages AS stage
        CROSS JOIN LATERAL (
            SELECT step_id, stage, weight FROM kg_migration.steps
            WHERE run_id = stage.run_id AND stage = stage.stage AND table_name = stage.table_name
            AND NOT done AND dispatched_at IS NULL
            ORDER BY weight DESC, step_id LIMIT %(most)s
        ) AS step
        WHERE stage.run_id = %(run)s AND stage.ready AND stage.open_steps > 0
        ORDER BY step.weight DESC, step.step_id
        """,
        {"run": run.run_id, "most": most},
    )
    chosen: list[StepRef] = []
    for step_id, name in cursor.fetchall():
        stage = Stage(name)
        if room[stage] > 0 and len(chosen) < most:
            room[stage] -= 1
            chosen.append(StepRef(run.run_id, step_id, run.epoch, stage))
    mark_dispatched(cursor, tuple(chosen))
    return tuple(chosen)


def mark_dispatched(cursor: Cursor, refs: tuple[StepRef, ...]) -> None:
    """Note that messages for these steps are about to be sent."""
    if refs:
        cursor.execute(
            "UPDATE kg_migration.steps SET dispatched_at = clock_timestamp() WHERE step_id IN"
            # Two that send the same steps lock them in the same order.
            " (SELECT step_id FROM kg_migration.steps WHERE step_id = ANY(%s)"
            " ORDER BY step_id FOR NO KEY UPDATE)",
            ([ref.step_id for ref in refs],),
        )


def _room(stage: Stage, sent: int, begun: int, run: Run) -> int:
    """Return how many more of a stage may be sent, of which so many are, and so many begun."""
    paced = run.options.max_rows_per_second is not None and stage in PACED
    return max(begun + (_SPARE_PACED if paced else _SPARE) - (sent - begun), 0)
