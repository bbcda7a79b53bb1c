"""Runs as a whole: sweep, resume, cancel, revert. Work happens in ``run_step``."""

import logging
from collections.abc import Collection
from dataclasses import dataclass
from typing import Literal

from psycopg2 import errors

from kgcore.backends import ConnectionPool
from kgcore.errors import RunError, TargetBusyError
from kgcore.migration import ledger, sources
from kgcore.migration.model import (
    IN_PROGRESS,
    PROTOCOL,
    RESUMABLE,
    Options,
    Run,
    RunState,
    Stage,
    StepRef,
)
from kgcore.migration.stages import cutover, finish
from kgcore.schema import catalog

_log = logging.getLogger(__name__)

_DROP_TRIES = 10


def target_identity(pool: ConnectionPool) -> str:
    """Return what tells the target from all other databases; no name or address is in it."""
    with ledger.transaction(pool) as cursor:
        return catalog.database_identity(cursor)


def ready(pool: ConnectionPool, run: Run) -> tuple[StepRef, ...]:
    """Return the steps that can be done now, and note that they are being sent."""
    with ledger.transaction(pool) as cursor:
        return ledger.next_steps(cursor, run)


@dataclass(frozen=True, slots=True)
class Swept:
    """The steps to send: ``lost`` ones again, ``fresh`` ones for the first time."""

    lost: tuple[StepRef, ...] = ()
    fresh: tuple[StepRef, ...] = ()


def sweep(
    pool: ConnectionPool,
    run_id: str,
    *,
    empty: Collection[Stage] = tuple(Stage),
    grace_seconds: float = 5.0,
) -> Swept:
    """Free what hangs and return the steps to send. A run that isn't running is left alone.

    Backends whose lease ran out are terminated. A step whose worker is gone is sent again at once;
    one that was sent and never claimed, only if its stage's queue is ``empty``, because there it
    may just be waiting its turn.
    """
    with ledger.transaction(pool) as cursor:
        run = ledger.read_run(cursor, run_id)
        if run.state is not RunState.RUNNING:
            return Swept()
        ledger.terminate_holders(cursor, run_id, expired_only=True)
        stale = ledger.stale_steps(cursor, run, grace_seconds)
        lost = stale.lost + tuple(ref for ref in stale.idle if ref.stage in empty)
        ledger.mark_dispatched(cursor, lost)
        return Swept(lost, ledger.next_steps(cursor, run))


def resume(
    pool: ConnectionPool,
    run_id: str,
    *,
    max_rejects: int | None = None,
    if_exists: Literal["fail", "replace"] | None = None,
    address: str | None = None,
) -> Run:
    """Let a run go on, in a new epoch if it had ended short of done; return it.

    The options that are given take the place of those the run began with, and so does the address
    at which machines without the source fetch it from now on.
    A run that is done is returned as it is. Raises :class:`RunError` for one that is cancelled or
    found a mismatch.
    """
    with ledger.transaction(pool) as cursor:
        ledger.upgrade(cursor)
        state, _ = ledger.lock_run(cursor, run_id)
        run = ledger.read_run(cursor, run_id)
        if state is RunState.DONE:
            return run
        require_protocol(run)
        if state is RunState.PAUSED:
            raise RunError(f"run {run_id} is paused", f"to let it go on: kg unpause {run_id}")
        if state not in RESUMABLE:
            raise RunError(f"run {run_id} is {state}", "start a new one: kg migrate SOURCE")
        if state is RunState.MISMATCH:
            raise RunError(
                f"run {run_id} found rows that differ from their source",
                f"kg report {run_id} names them; give it up with kg cancel {run_id}",
            )
        changes = {"max_rejects": max_rejects, "if_exists": if_exists}
        chosen = {name: value for name, value in changes.items() if value is not None}
        options = Options.from_json(run.options.to_json() | chosen)
        if address is not None:
            ledger.set_address(cursor, run_id, address)
        if state is RunState.RUNNING:
            ledger.set_options(cursor, run_id, options)
        else:
            ledger.reopen(cursor, run_id, options)
        return ledger.read_run(cursor, run_id)


def require_protocol(run: Run) -> None:
    """Raise :class:`RunError` where the run was begun by a version that does things otherwise."""
    if run.protocol != PROTOCOL:
        raise RunError(
            f"run {run.run_id} was begun by another version: its protocol is {run.protocol},"
            f" this version's is {PROTOCOL}",
            f"go on with that version, or give the run up: kg cancel {run.run_id}",
        )


def cancel(pool: ConnectionPool, run_id: str) -> RunState:
    """End a run for good: its writers are stopped, staging is dropped, live tables stay.

    Returns the state it had; of a cancelled one what was left behind is dropped. Raises
    :class:`RunError` if it is done.
    """
    with ledger.transaction(pool) as cursor:
        ledger.upgrade(cursor)
        state, _ = ledger.lock_run(cursor, run_id)
        run = ledger.read_run(cursor, run_id)
        if state is RunState.DONE:
            raise RunError(f"run {run_id} is done", f"to undo it: kg revert {run_id}")
        ledger.end_run(cursor, run_id, RunState.CANCELLED, "cancelled")
    try:
        _drop_staging(pool, run)
    finally:
        sources.release(run.source)
    return state


def _drop_staging(pool: ConnectionPool, run: Run) -> None:
    """Stop the run's writers, none of whom can commit any more, and drop what they hold."""
    for attempt in range(_DROP_TRIES):
        with ledger.transaction(pool) as cursor:
            ledger.terminate_holders(cursor, run.run_id, expired_only=False)
        try:
            with ledger.transaction(pool) as cursor:
                cursor.execute("SET LOCAL lock_timeout = '1s'")
                finish.drop_staging(cursor, run.staging)
        except errors.LockNotAvailable:
            if attempt == _DROP_TRIES - 1:
                raise TargetBusyError(
                    f"others hold tables of {run.staging}; the run is cancelled all the same",
                    f'end their transactions, then: DROP SCHEMA "{run.staging}" CASCADE',
                ) from None
        else:
            return


def revert(pool: ConnectionPool, run_id: str) -> tuple[tuple[str, ...], str]:
    """Undo a cutover: the old tables are live again.

    Returns their names, and the schema in which the migrated tables are kept, with all that was
    written to them since. Raises :class:`RunError` unless the run's tables are the live ones.
    """
    with ledger.transaction(pool) as cursor:
        ledger.upgrade(cursor)
        state, _ = ledger.lock_run(cursor, run_id)
        run = ledger.read_run(cursor, run_id)
        if state is not RunState.DONE:
            raise RunError(f"run {run_id} is {state}", "only a run that is done can be reverted")
        live = ledger.latest_done(cursor, run.schema)
        if live != run_id:
            mend = (
                f"revert the later one first: kg revert {live}"
                if live
                else "it was reverted already; kg runs shows when"
            )
            raise RunError(f"the tables of run {run_id} are not the live ones", mend)
        tables = tuple(run.tables.values())
        aside = kept_schema(run_id)
        back = cutover.revert(cursor, run.schema, run.archive, aside, tables)
        ledger.mark_reverted(cursor, run_id)
    return back, aside


def kept_schema(run_id: str) -> str:
    """Return where a revert puts the run's tables."""
    return f"kg_reverted_{run_id.replace('-', '_')}"


def has_ended(pool: ConnectionPool, run_id: str) -> bool:
    """Whether the run is in one of its ends."""
    return state_of(pool, run_id) not in IN_PROGRESS


def state_of(pool: ConnectionPool, run_id: str) -> RunState:
    """Return the run's state. Raises :class:`RunNotFoundError`."""
    with ledger.transaction(pool) as cursor:
        return ledger.lock_run(cursor, run_id, wait=False)[0]
