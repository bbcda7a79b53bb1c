"""Pause and unpause: a run steps aside, and goes on where it was.

The state is in the ledger, so it survives every restart. While a run is paused no worker begins a
step of it; the steps at hand end and count. Then it holds no lock and no connection.
"""

from collections.abc import Callable
from time import sleep

from kgcore.backends import ConnectionPool
from kgcore.errors import RunError
from kgcore.migration import ledger
from kgcore.migration.model import Options, RunState, StepRef
from kgcore.migration.runs import require_protocol

_LOOK_SECONDS = 0.5


def pause(
    pool: ConnectionPool, run_id: str, *, at_once: bool, waiting: Callable[[int], None]
) -> None:
    """Pause a run and return when none of its steps is being done; ``waiting`` gets their number.

    With ``at_once`` they are stopped, and done anew later; what stalls is stopped in any case.
    Nothing happens to a run that is paused already. Raises :class:`RunError` for one that ended.
    """
    with ledger.transaction(pool) as cursor:
        state, _ = ledger.lock_run(cursor, run_id)
        if state is RunState.RUNNING:
            require_protocol(ledger.read_run(cursor, run_id))
            ledger.pause(cursor, run_id)
        elif state is not RunState.PAUSED:
            raise RunError(f"run {run_id} is {state}", "only a run in progress can be paused")
    while True:
        with ledger.transaction(pool) as cursor:
            if ledger.lock_run(cursor, run_id, wait=False)[0] is not RunState.PAUSED:
                return
            ledger.terminate_holders(cursor, run_id, expired_only=not at_once)
            steps = ledger.count_holders(cursor, run_id)
        if not steps:
            return
        waiting(steps)
        sleep(_LOOK_SECONDS)


def unpause(
    pool: ConnectionPool,
    run_id: str,
    *,
    max_workers: int | None = None,
    max_rows_per_second: int | None = None,
) -> tuple[StepRef, ...]:
    """Let a paused run go on; return the steps to send.

    A limit that is given takes the place of the run's own; 0 takes it away. Raises
    :class:`RunError` unless the run is paused.
    """
    with ledger.transaction(pool) as cursor:
        state, _ = ledger.lock_run(cursor, run_id)
        run = ledger.read_run(cursor, run_id)
        if state is not RunState.PAUSED:
            raise RunError(
                f"run {run_id} is {state}", "only a paused run can be unpaused; kg runs lists them"
            )
        limits = {"max_workers": max_workers, "max_rows_per_second": max_rows_per_second}
        chosen = {name: limit or None for name, limit in limits.items() if limit is not None}
        ledger.unpause(cursor, run_id, Options.from_json(run.options.to_json() | chosen))
        return ledger.next_steps(cursor, ledger.read_run(cursor, run_id))
