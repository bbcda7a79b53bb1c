"""The ledger: schema ``kg_migration`` in the target, where the truth about every run is kept.

Tables and columns are documented in ``ledger.sql``.
"""

from kgcore.migration.ledger.dispatch import mark_dispatched, next_steps
from kgcore.migration.ledger.install import install, is_installed, upgrade
from kgcore.migration.ledger.lease import (
    count_holders,
    lease_kept,
    renew_lease,
    step_lock_key,
    terminate_holders,
)
from kgcore.migration.ledger.pace import book_turn
from kgcore.migration.ledger.rejects import (
    Reject,
    count_rejects,
    list_rejects,
    record_mended,
    record_rejects,
    still_refused,
    take_in,
)
from kgcore.migration.ledger.repairs import (
    RepairTotals,
    count_placeholders,
    record_repairs,
    repair_totals,
    was_repaired,
)
from kgcore.migration.ledger.rights import grant_ledger
from kgcore.migration.ledger.runs import (
    RunSummary,
    create_run,
    end_run,
    find_run,
    latest_done,
    list_runs,
    lock_run,
    mark_reverted,
    pause,
    read_run,
    reopen,
    running_run,
    set_address,
    set_options,
    unpause,
)
from kgcore.migration.ledger.steps import (
    acquire,
    claim,
    close,
    is_done,
    record_failure,
    require_current,
)
from kgcore.migration.ledger.sweep import Stale, stale_steps
from kgcore.migration.ledger.totals import (
    StageProgress,
    TableTotals,
    WorkerTotals,
    done_positions,
    mismatched_ids,
    run_seconds,
    stage_progress,
    stage_seconds,
    table_totals,
    worker_totals,
)
from kgcore.migration.ledger.transaction import frozen_view, transaction

__all__ = [
    "Reject",
    "RepairTotals",
    "RunSummary",
    "StageProgress",
    "Stale",
    "TableTotals",
    "WorkerTotals",
    "acquire",
    "book_turn",
    "claim",
    "close",
    "count_holders",
    "count_placeholders",
    "count_rejects",
    "create_run",
    "done_positions",
    "end_run",
    "find_run",
    "frozen_view",
    "grant_ledger",
    "install",
    "is_done",
    "is_installed",
    "latest_done",
    "lease_kept",
    "list_rejects",
    "list_runs",
    "lock_run",
    "mark_dispatched",
    "mark_reverted",
    "mismatched_ids",
    "next_steps",
    "pause",
    "read_run",
    "record_failure",
    "record_mended",
    "record_rejects",
    "record_repairs",
    "renew_lease",
    "reopen",
    "repair_totals",
    "require_current",
    "run_seconds",
    "running_run",
    "set_address",
    "set_options",
    "stage_progress",
    "stage_seconds",
    "stale_steps",
    "step_lock_key",
    "still_refused",
    "table_totals",
    "take_in",
    "terminate_holders",
    "transaction",
    "unpause",
    "upgrade",
    "was_repaired",
    "worker_totals",
]
