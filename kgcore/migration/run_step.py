"""How a step is claimed, done once and recorded.

It runs in one transaction that also records it as done: whatever happens to a worker, the ledger
and the tables agree.
"""

import logging
import time
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import replace
from functools import partial

from psycopg2.extensions import cursor as Cursor  # noqa: N812

from kgcore.errors import (
    FetchError,
    KGError,
    MismatchError,
    PoolTimeoutError,
    RejectsError,
    StepFencedError,
    TargetUnreachableError,
)
from kgcore.migration import ledger
from kgcore.migration.model import (
    PROTOCOL,
    Run,
    RunState,
    Stage,
    Step,
    StepRef,
    StepResult,
)
from kgcore.migration.pipeline import unlocked
from kgcore.migration.work import READERS, WORK
from kgcore.migration.workplace import Workplace

_log = logging.getLogger(__name__)


def run_step(place: Workplace, ref: StepRef) -> StepResult:
    """Do one step, exactly once however often it is delivered, and say what comes next.

    A failure is recorded in the ledger and not raised: the step is tried again, up to the run's
    limit, or the run fails. Raises :class:`psycopg2.OperationalError` where the ledger itself can't
    be reached: then nothing was done.
    """
    trouble = None
    try:
        claimed = _claim(place, ref)
    except _SourceAwayError as away:
        # Fetched before the step is claimed: a fetch may take an hour, in which the step is
        # anyone's who has the source already, and no transaction stays open.
        trouble = place.fetch(away.run)
        claimed = _claim(place, ref, anyway=True, its_turn=away.its_turn)
    if isinstance(claimed, StepResult):
        return claimed
    run, step = claimed
    if trouble is not None:
        return _failed(place, run, step, ref, trouble)
    result: StepResult | None = None
    try:
        with (
            _source_kept(place, run, step),
            ledger.lease_kept(place.pool, step, run.options.lease_seconds),
            ledger.transaction(place.pool) as cursor,
        ):
            if not ledger.hold(cursor, step):
                return StepResult(place.worker)
            result = _do(place, cursor, run, step, ref)
    except StepFencedError as fenced:
        _log.info("%s: %s", step, fenced.message)
        return StepResult(place.worker)
    except Exception as error:  # noqa: BLE001 (whatever it is goes into the ledger, with its text)
        # Of a COMMIT it may be the answer alone that was lost: the ledger knows.
        if result is None or not _is_done(place, step):
            return _failed(place, run, step, ref, error)
    if result.state is RunState.DONE:
        place.discard(run)
    return result


def _do(place: Workplace, cursor: Cursor, run: Run, step: Step, ref: StepRef) -> StepResult:
    """Do the step and record it as done; true once the caller's transaction is committed."""
    ledger.require_current(cursor, ref, lock=False)
    if step.stage is Stage.CUTOVER:
        # The source may be deleted after it, so it must last, whatever the role's default is.
        cursor.execute(
            "SELECT set_config('synchronous_commit', 'on', true)"
            " WHERE current_setting('synchronous_commit') = 'off'"
        )
    else:
        # Work and ledger row are one transaction: a crash loses both or neither, and the
        # run goes on from what is there. Waiting for the disk 70 times took 0.3 s.
        cursor.execute("SET LOCAL synchronous_commit = off")
    outcome = WORK[step.stage](place, cursor, run, step, ref)
    end = RunState.DONE if step.stage is Stage.CUTOVER else None
    unlock = partial(unlocked, run.tables, repairs=run.options.repairs)
    state = ledger.close(cursor, ref, outcome, unlock, end)
    dispatch = ledger.next_steps(cursor, replace(run, state=state))
    return StepResult(place.worker, outcome, step, dispatch, end)


def _is_done(place: Workplace, step: Step) -> bool:
    with ledger.transaction(place.pool) as cursor:
        # A COMMIT that is still under way holds it.
        ledger.lock_run(cursor, step.run_id)
        return ledger.is_done(cursor, step.step_id)


def _claim(
    place: Workplace, ref: StepRef, *, anyway: bool = False, its_turn: bool = False
) -> tuple[Run, Step] | StepResult:
    """Return the step if it is this worker's to do, or else what there is to say of it.

    Claims nothing and raises :class:`_SourceAwayError` if its source is not here, but ``anyway``.
    """
    claimed = _try_claim(place, ref, anyway=anyway, its_turn=its_turn)
    if isinstance(claimed, float):
        # Meanwhile nothing is held: no lock, no transaction.
        time.sleep(claimed)
        claimed = _try_claim(place, ref, anyway=anyway, its_turn=True)
    return StepResult(place.worker) if isinstance(claimed, float) else claimed


def _try_claim(
    place: Workplace, ref: StepRef, *, anyway: bool, its_turn: bool = False
) -> tuple[Run, Step] | StepResult | float:
    """Return as :func:`_claim`, or how long to wait first: for the run's pace, or who claims it."""
    with ledger.transaction(place.pool) as cursor:
        run = ledger.find_run(cursor, ref.run_id)
        if run is None or run.protocol != PROTOCOL:
            _log.warning("step %s is of no run this worker knows: left alone", ref.step_id)
            return StepResult(place.worker)
        if run.state is not RunState.RUNNING or run.epoch != ref.epoch:
            _log.info("step %s is of a run that is %s, or an earlier epoch", ref.step_id, run.state)
            return StepResult(place.worker)
        cursor.execute("SET LOCAL synchronous_commit = off")  # An attempt may be forgotten.
        wait = 0.0 if its_turn else ledger.book_turn(cursor, run, ref.step_id)
        if wait is None:
            return StepResult(place.worker)
        if wait > 0:
            return wait
        step = ledger.claim(cursor, run, ref.step_id, place.worker)
        if step is None:
            return _unclaimed(place, cursor, run, ref)
        needs_source = step.stage in READERS and not anyway
        if needs_source and not place.sources.has(run.source):
            raise _SourceAwayError(run, its_turn=its_turn)
    return run, step


def _unclaimed(place: Workplace, cursor: Cursor, run: Run, ref: StepRef) -> StepResult | float:
    spent = ledger.end_exhausted(cursor, run, ref.step_id)
    if isinstance(spent, float):
        return spent
    return StepResult(place.worker, step=spent, state=RunState.FAILED if spent else None)


# Errors of ours after which trying again is right.
_PASSING = (TargetUnreachableError, PoolTimeoutError, FetchError)
# Any other error of ours ends the run at once, in the state that names it.
_ENDS: dict[type[Exception], RunState] = {
    MismatchError: RunState.MISMATCH,
    RejectsError: RunState.REJECTED,
}


def _failed(place: Workplace, run: Run, step: Step, ref: StepRef, error: Exception) -> StepResult:
    message = error.message if isinstance(error, KGError) else f"{type(error).__name__}: {error}"
    message = " ".join(message.split())
    _log.warning("%s failed (attempt %s): %s", step, step.attempts, message)
    with ledger.transaction(place.pool) as cursor:
        try:
            ledger.require_current(cursor, ref, or_paused=True)
        except StepFencedError:
            return StepResult(place.worker)
        if not isinstance(error, KGError) or isinstance(error, _PASSING):
            if ledger.record_failure(cursor, run, step, message):
                again = replace(ref, stage=step.stage)
                return StepResult(place.worker, step=step, dispatch=(again,))
            return StepResult(place.worker, step=step, state=RunState.FAILED)
        state = _ENDS.get(type(error), RunState.FAILED)
        ledger.end_run(cursor, run.run_id, state, message, error.hint)
        return StepResult(place.worker, step=step, state=state)


@contextmanager
def _source_kept(place: Workplace, run: Run, step: Step) -> Iterator[None]:
    """Keep the source of a step that reads it on this machine while the block lasts."""
    with place.held(run) if step.stage in READERS else nullcontext():
        yield


class _SourceAwayError(Exception):
    """The run's source is not on this machine."""

    def __init__(self, run: Run, *, its_turn: bool) -> None:
        super().__init__(run.run_id)
        self.run = run
        self.its_turn = its_turn
