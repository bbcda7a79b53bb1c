"""What of the ledger a role needs that only loads and verifies, and nothing else of it."""

from psycopg2.extensions import cursor as Cursor  # noqa: N812
from psycopg2.sql import SQL, Identifier

# A worker claims a step, renews its lease, records what became of it, and unlocks or ends the run.
# What says where rows come from and go to (sources, ranges, schemas, options) it can only read.
# Rejects it writes, but reads no more of them than whether a row is among them, and what it was
# merged into.
_WORKER_RIGHTS = {
    "runs": "SELECT, UPDATE (state, error, hint, finished_at, paced_until)",
    "sources": "SELECT",
    "stages": "SELECT, UPDATE (open_steps, ready)",
    "steps": (
        "SELECT, UPDATE (done, dispatched_at, attempts, lease_until, worker, started_at,"
        " finished_at, lane, loaded_rows, rejected_rows, verified_rows, mismatched_rows,"
        " mismatched_ids, error)"
    ),
    "rejects": "INSERT, SELECT (run_id, source_id, table_name, row_id, merged_into)",
    "repairs": "INSERT, SELECT (run_id, step_id, table_name)",
    "placeholders": "SELECT",
}


def grant_ledger(cursor: Cursor, role: str) -> None:
    """Let ``role`` do load and verify steps; the caller's role owns the ledger.

    To be called in the transaction that installed the ledger: its lock keeps two grants apart.
    """
    cursor.execute(SQL("GRANT USAGE ON SCHEMA kg_migration TO {}").format(Identifier(role)))
    for table, rights in _WORKER_RIGHTS.items():
        cursor.execute(
            SQL("GRANT {} ON {} TO {}").format(
                SQL(rights), Identifier("kg_migration", table), Identifier(role)
            )
        )
