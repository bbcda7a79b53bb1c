"""The order of the stages, and how a step is claimed, done once and recorded.

No other file knows either; how the work of each stage is done stands in ``work``.

::

    load(T) ──► index(T) ──► key(T) ──► verify(T) ──► cutover
                    │           ▲
                index(R) ───────┘  for each R that T refers to

R's key comes before T's, too. Tables that refer to each other in a circle take turns, and are
verified after the last of them. Where T has neither foreign keys nor checks, verify(T) follows
index(T), because key(T) takes no row away. Where placeholders were asked for, it also waits for
key(C) of each C that refers to T.

A step runs in one transaction that also records it as done. Whatever happens to a worker, the
ledger and the tables agree.
"""

import logging
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass, replace
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
    NewStep,
    Outcome,
    PlannedTable,
    Run,
    RunState,
    Stage,
    Step,
    StepRef,
)
from kgcore.migration.repairs import PLACEHOLDER_ENTITIES, choose
from kgcore.migration.work import READERS, WORK
from kgcore.migration.workplace import Workplace
from kgcore.schema.postgres import all_indexes

_log = logging.getLogger(__name__)

Group = tuple[Stage, str]
CUTOVER: Group = (Stage.CUTOVER, "")

# What a row costs in a stage, relative to loading it: measured on 1.65 million rows. For the bar,
# and because the longest of the steps that become ready together is sent first.
_WEIGHTS = {Stage.LOAD: 1.0, Stage.INDEX: 0.5, Stage.KEY: 0.6, Stage.VERIFY: 2.0}
_GIN_WEIGHT = 2.0


@dataclass(frozen=True, slots=True)
class StepResult:
    """What became of a step. ``outcome`` is None where there was nothing for this worker to do.

    ``dispatch`` are the steps to send now: those it made ready, or itself to be tried again.
    ``state`` is the run's state afterwards, where this step ended it.
    """

    worker: str
    outcome: Outcome | None = None
    step: Step | None = None
    dispatch: tuple[StepRef, ...] = ()
    state: RunState | None = None


def planned_steps(tables: Sequence[PlannedTable]) -> tuple[NewStep, ...]:
    """Return all steps of a run, largest tables first: they have the longest way to go."""
    steps = []
    for planned in sorted(tables, key=lambda item: item.rows, reverse=True):
        name = planned.table.name
        for stage in (Stage.LOAD, Stage.VERIFY):
            steps += [
                NewStep(stage, name, None, c.lower, c.upper, c.rows, _WEIGHTS[stage] * c.rows)
                for c in planned.chunks
            ]
        steps += [
            NewStep(
                Stage.INDEX,
                name,
                index.name,
                weight=(_GIN_WEIGHT if index.gin else _WEIGHTS[Stage.INDEX]) * planned.rows,
            )
            for index in all_indexes(planned.table)
        ]
        steps.append(NewStep(Stage.KEY, name, weight=_WEIGHTS[Stage.KEY] * planned.rows))
    return (*steps, NewStep(Stage.CUTOVER, weight=1.0))


def unlocked(
    tables: Mapping[str, PlannedTable],
    open_steps: Mapping[Group, int],
    repairs: Sequence[str] = (),
) -> frozenset[Group]:
    """Return the stages of tables that may go, given how many steps of each are still open."""
    return frozenset(
        group
        for group in open_steps
        if all(open_steps.get(before, 0) == 0 for before in _waits_for(group, tables, repairs))
    )


def _waits_for(
    group: Group, tables: Mapping[str, PlannedTable], repairs: Sequence[str]
) -> set[Group]:
    stage, name = group
    match stage:
        case Stage.LOAD:
            return set()
        case Stage.INDEX:
            return {(Stage.LOAD, name)}
        case Stage.KEY:
            parents, circle = _parents(tables, name), _circle(tables, name)
            # A parent's rows are complete once its own keys are added. In a circle one goes first.
            above = (parents - circle - {name}) | {table for table in circle if table < name}
            return (
                {(Stage.INDEX, table) for table in {name, *parents}}
                | {(Stage.KEY, table) for table in above}
                | {(Stage.LOAD, name)}
            )
        case Stage.VERIFY:
            constrained = bool(tables[name].table.foreign_keys or tables[name].table.checks)
            before = {(Stage.KEY if constrained else Stage.INDEX, name), (Stage.LOAD, name)}
            # Keys of a circle's others may take rows away from it.
            before |= {(Stage.KEY, other) for other in _circle(tables, name)}
            if PLACEHOLDER_ENTITIES in choose(repairs):  # Keys of others may add rows to it.
                before |= {
                    (Stage.KEY, other) for other in tables if name in _parents(tables, other)
                }
            return before
        case Stage.CUTOVER:
            return {(step, table) for table in tables for step in (Stage.KEY, Stage.VERIFY)}


def _parents(tables: Mapping[str, PlannedTable], name: str) -> set[str]:
    return {key.table for key in tables[name].table.foreign_keys}


def _circle(tables: Mapping[str, PlannedTable], name: str) -> set[str]:
    """Return the other tables that it refers to and that refer to it, over however many others."""
    return {
        table
        for table in _ancestors(tables, name)
        if table != name and name in _ancestors(tables, table)
    }


def _ancestors(tables: Mapping[str, PlannedTable], name: str) -> set[str]:
    """Return the table and all that it refers to, over however many others."""
    found: set[str] = set()
    waiting = [name]
    while waiting:
        table = waiting.pop()
        if table not in found:
            found.add(table)
            waiting += _parents(tables, table)
    return found


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
        claimed = _claim(place, ref, anyway=True)
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
            if not ledger.acquire(cursor, step.step_id):
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
    place: Workplace, ref: StepRef, *, anyway: bool = False
) -> tuple[Run, Step] | StepResult:
    """Return the step if it is this worker's to do, or else what there is to say of it.

    Claims nothing and raises :class:`_SourceAwayError` if its source is not here, but ``anyway``.
    """
    claimed = _try_claim(place, ref, anyway=anyway)
    if isinstance(claimed, float):
        # Meanwhile nothing is held: no lock, no transaction.
        time.sleep(claimed)
        claimed = _try_claim(place, ref, anyway=anyway, its_turn=True)
    return StepResult(place.worker) if isinstance(claimed, float) else claimed


def _try_claim(
    place: Workplace, ref: StepRef, *, anyway: bool, its_turn: bool = False
) -> tuple[Run, Step] | StepResult | float:
    """Return as :func:`_claim`, or how long to wait first, to keep to the run's pace."""
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
            spent = ledger.end_exhausted(cursor, run, ref.step_id)
            return StepResult(place.worker, step=spent, state=RunState.FAILED if spent else None)
        needs_source = step.stage in READERS and not anyway
        if needs_source and not place.sources.has(run.source):
            raise _SourceAwayError(run)
    return run, step


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

    def __init__(self, run: Run) -> None:
        super().__init__(run.run_id)
        self.run = run
