"""Sums over a run's steps, for the report and for rebuilding the progress channel."""

from dataclasses import dataclass

from psycopg2.extensions import cursor as Cursor  # noqa: N812

from kgcore.migration.model import Stage


@dataclass(frozen=True, slots=True)
class TableTotals:
    """Rows of one table. When a run is done, source = loaded + rejected, verified = loaded."""

    source_rows: int
    loaded_rows: int
    rejected_rows: int
    verified_rows: int
    mismatched_rows: int
    #: Rows whose load step is done, loaded or rejected: only ever grows.
    done_rows: int


@dataclass(frozen=True, slots=True)
class StageProgress:
    """How many steps of a stage there are and are done, and their weights in the bar."""

    steps: int
    done_steps: int
    weight: float
    done_weight: float


@dataclass(frozen=True, slots=True)
class WorkerTotals:
    """What one worker did for the run."""

    rows: int
    steps: int


def table_totals(cursor: Cursor, run_id: str) -> dict[str, TableTotals]:
    """Return the totals by table, in the order in which the source was described."""
    cursor.execute(
        """
        SELECT t.table_name, t.rows, coalesce(sum(loaded_rows), 0)::bigint,
               coalesce(sum(rejected_rows), 0)::bigint, coalesce(sum(verified_rows), 0)::bigint,
               coalesce(sum(mismatched_rows), 0)::bigint,
               coalesce(sum(planned_rows) FILTER (WHERE done AND stage = 'load'), 0)::bigint
        FROM (
            SELECT run_id, item->'table'->>'name' AS table_name, (item->>'rows')::bigint AS rows,
                   position
            FROM kg_migration.sources, jsonb_array_elements(tables)
                WITH ORDINALITY AS described (item, position)
            WHERE run_id = %s
        ) AS t
        LEFT JOIN kg_migration.steps USING (run_id, table_name)
        GROUP BY t.table_name, t.rows, t.position ORDER BY t.position
        """,
        (run_id,),
    )
    return {row[0]: TableTotals(*row[1:]) for row in cursor.fetchall()}


def stage_progress(cursor: Cursor, run_id: str) -> dict[Stage, StageProgress]:
    """Return the progress of each stage that has steps."""
    cursor.execute(
        "SELECT stage, count(*), count(*) FILTER (WHERE done), sum(weight),"
        " coalesce(sum(weight) FILTER (WHERE done), 0)"
        " FROM kg_migration.steps WHERE run_id = %s GROUP BY stage",
        (run_id,),
    )
    return {Stage(row[0]): StageProgress(*row[1:]) for row in cursor.fetchall()}


def stage_seconds(cursor: Cursor, run_id: str) -> dict[str, float]:
    """Return wall-clock seconds: of each stage from its first start to its last end, and in all.

    Stages of different tables overlap, so the parts may add up to more than the total.
    """
    cursor.execute(
        "SELECT freeze_seconds, plan_seconds,"
        " coalesce(extract(epoch FROM coalesce(finished_at, clock_timestamp()) - began_at), 0)"
        " FROM kg_migration.runs WHERE run_id = %s",
        (run_id,),
    )
    freeze, plan, total = cursor.fetchone() or (0.0, 0.0, 0.0)
    cursor.execute(
        "SELECT CASE stage WHEN 'key' THEN 'index' ELSE stage END,"
        " coalesce(extract(epoch FROM max(finished_at) - min(started_at)), 0)"
        " FROM kg_migration.steps WHERE run_id = %s AND done GROUP BY 1",
        (run_id,),
    )
    spans = {stage: float(seconds) for stage, seconds in cursor.fetchall()}
    return {
        "freeze": float(freeze),
        "plan": float(plan),
        **{stage: spans.get(stage, 0.0) for stage in ("load", "index", "verify", "cutover")},
        "total": float(total),
    }


def run_seconds(cursor: Cursor, run_id: str) -> tuple[float, float | None]:
    """Return how long ago the run was planned, and how long it took from there to its end.

    The second is None while the run is in progress. Both are differences of PostgreSQL's clock.
    """
    cursor.execute(
        "SELECT extract(epoch FROM clock_timestamp() - planned_at),"
        " extract(epoch FROM finished_at - planned_at)"
        " FROM kg_migration.runs WHERE run_id = %s",
        (run_id,),
    )
    age, took = cursor.fetchone() or (0.0, None)
    return float(age), None if took is None else float(took)


def worker_totals(cursor: Cursor, run_id: str) -> dict[str, WorkerTotals]:
    """Return rows loaded or rejected, and steps done, by worker."""
    cursor.execute(
        "SELECT worker, coalesce(sum(planned_rows) FILTER (WHERE stage = 'load'), 0)::bigint,"
        " count(*) FROM kg_migration.steps WHERE run_id = %s AND done GROUP BY worker ORDER BY 1",
        (run_id,),
    )
    return {row[0]: WorkerTotals(*row[1:]) for row in cursor.fetchall()}


def done_positions(cursor: Cursor, run_id: str) -> tuple[int, ...]:
    """Return the positions within the run of the steps that are done."""
    cursor.execute(
        "SELECT position FROM kg_migration.steps WHERE run_id = %s AND done ORDER BY 1", (run_id,)
    )
    return tuple(position for (position,) in cursor.fetchall())


def mismatched_ids(cursor: Cursor, run_id: str) -> dict[str, tuple[int, ...]]:
    """Return by table the first ids of rows that differ from their source."""
    cursor.execute(
        "SELECT table_name, array_agg(id ORDER BY id) FROM kg_migration.steps,"
        " unnest(mismatched_ids) AS id WHERE run_id = %s GROUP BY table_name ORDER BY 1",
        (run_id,),
    )
    return {table: tuple(ids[:20]) for table, ids in cursor.fetchall()}
