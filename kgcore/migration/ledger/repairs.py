"""What repairs did: counted by step, with the first ids, and the rows they added."""

from collections.abc import Sequence
from dataclasses import dataclass

from psycopg2.extensions import cursor as Cursor  # noqa: N812
from psycopg2.extras import execute_values

from kgcore.migration.model import Repaired, Step

# How many ids are kept of each: enough to look at what was done.
_EXAMPLES = 20


@dataclass(frozen=True, slots=True)
class RepairTotals:
    """What one repair did to one table, with the first ids."""

    table: str
    repair: str
    rows: int
    example_ids: tuple[int, ...]


def record_repairs(
    cursor: Cursor, run_id: str, step_id: int, table: str, repaired: Sequence[Repaired]
) -> None:
    """Note what a step's repairs did, in the transaction that did it."""
    execute_values(
        cursor,
        "INSERT INTO kg_migration.repairs (run_id, step_id, table_name, repair, rows, row_ids)"
        " VALUES %s",
        [
            (run_id, step_id, table, item.repair, item.rows, list(item.ids[:_EXAMPLES]))
            for item in repaired
        ],
        template="(%s, %s, %s, %s, %s, %s::bigint[])",
    )


def was_repaired(cursor: Cursor, step: Step) -> bool:
    """Whether values of the chunk that this step verifies were repaired when it was loaded."""
    cursor.execute(
        "SELECT EXISTS (SELECT 1 FROM kg_migration.repairs JOIN kg_migration.steps AS load"
        " USING (run_id, step_id, table_name) WHERE run_id = %s AND table_name = %s"
        " AND load.stage = 'load' AND load.lower_id = %s)",
        (step.run_id, step.table, step.lower),
    )
    (found,) = cursor.fetchone() or (False,)
    return bool(found)


def was_relinked(cursor: Cursor, run_id: str) -> bool:
    """Whether rows were merged, made up or pointed elsewhere when the run's keys were built."""
    cursor.execute(
        "SELECT EXISTS (SELECT 1 FROM kg_migration.repairs JOIN kg_migration.steps"
        " USING (run_id, step_id) WHERE run_id = %s AND stage <> 'load')",
        (run_id,),
    )
    (found,) = cursor.fetchone() or (False,)
    return bool(found)


def repair_totals(cursor: Cursor, run_id: str) -> tuple[RepairTotals, ...]:
    """Return what a run's repairs did, by table and repair."""
    cursor.execute(
        "SELECT table_name, repair, sum(rows)::bigint,"
        " (SELECT array_agg(id) FROM (SELECT id FROM kg_migration.repairs AS r, unnest(r.row_ids)"
        "  AS id WHERE r.run_id = repairs.run_id AND r.table_name = repairs.table_name"
        "  AND r.repair = repairs.repair ORDER BY id LIMIT %(most)s) AS first)"
        " FROM kg_migration.repairs WHERE run_id = %(run)s"
        " GROUP BY run_id, table_name, repair ORDER BY table_name, repair",
        {"run": run_id, "most": _EXAMPLES},
    )
    return tuple(
        RepairTotals(table, repair, rows, tuple(ids or ()))
        for table, repair, rows, ids in cursor.fetchall()
    )


def count_placeholders(cursor: Cursor, run_id: str) -> dict[str, int]:
    """Return by table how many rows were added that the source does not have."""
    cursor.execute(
        "SELECT table_name, count(*) FROM kg_migration.placeholders WHERE run_id = %s GROUP BY 1",
        (run_id,),
    )
    return dict(cursor.fetchall())
