"""The work of a step of each stage, done in the transaction that also records it.

Each takes the worker's place, that transaction's cursor, the run, the step and its message, and
returns what it did; what it raises fails the step. Which step comes when, ``pipeline`` knows.
"""

from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path

from psycopg2.extensions import cursor as Cursor  # noqa: N812
from psycopg2.sql import Identifier

from kgcore.errors import MismatchError, RejectsError, SourceError
from kgcore.migration import ids, lanes, ledger, related
from kgcore.migration.model import Outcome, Refusal, Run, Stage, Step, StepRef
from kgcore.migration.repairs import choose
from kgcore.migration.stages import cutover, extract, finish, verify
from kgcore.migration.workplace import Workplace
from kgcore.schema import catalog

# Rows are left out of the source by their ids, which stand in the query.
_MOST_REJECTED = 5_000


def _load(place: Workplace, cursor: Cursor, run: Run, step: Step, _ref: StepRef) -> Outcome:
    source = _local(place, run)
    planned = run.tables[step.table].written
    relation = Identifier(run.staging, step.table)
    repairs = choose(run.options.repairs)
    loaded = lanes.load_chunk(cursor, relation, source, planned, step.chunk, repairs)
    _reject(cursor, place, run, step, loaded.refusals)
    ledger.record_repairs(cursor, run.run_id, step.step_id, step.table, loaded.repaired)
    _all_of(step, loaded.rows + len(loaded.refusals))
    return Outcome(loaded=loaded.rows, rejected=len(loaded.refusals), lane=loaded.lane)


def _index(place: Workplace, cursor: Cursor, run: Run, step: Step, _ref: StepRef) -> Outcome:
    planned = run.tables[step.table]
    aside = partial(_reject, cursor, place, run, step)
    removed = finish.build_index(cursor, run.staging, planned.table, step.index or "", aside)
    return Outcome(loaded=-removed, rejected=removed)


def _key(place: Workplace, cursor: Cursor, run: Run, step: Step, _ref: StepRef) -> Outcome:
    planned = run.tables[step.table]
    aside = partial(_reject_with_children, cursor, place, run, step)
    children = Identifier(run.staging, step.table)
    relink = partial(
        related.mend_key, cursor, run, step.step_id, run.staging, children, planned.table
    )
    removed = finish.add_keys(cursor, run.staging, planned, aside, relink)
    return Outcome(loaded=-removed, rejected=removed)


def _verify(place: Workplace, cursor: Cursor, run: Run, step: Step, _ref: StepRef) -> Outcome:
    source = _local(place, run)
    planned = run.tables[step.table]
    table, chunk = planned.table, step.chunk
    verify.settle(cursor)
    repaired = run.options.repairs and ledger.was_repaired(cursor, step)
    # Repairs of other rows may have changed any that refer to them.
    if not (repaired or (run.options.repairs and ledger.was_relinked(cursor, run.run_id))):
        rejected = ledger.rejected_ids(cursor, run.run_id, step, _MOST_REJECTED)
        if len(rejected) <= _MOST_REJECTED:
            equal = lanes.equal_rows(cursor, run.staging, source, planned, chunk, rejected)
            if equal is not None:
                return Outcome(verified=equal)
    rows = verify.SOURCE_ROWS
    verify.create_source_rows(cursor, run.staging, table)
    repairs = choose(run.options.repairs if repaired else ())
    refused = lanes.read_again(cursor, rows, source, planned, chunk, repairs)
    added, unequal = related.expect(cursor, run, rows, table, chunk)
    found = verify.compare(cursor, run.staging, table, chunk, (run.run_id, [*refused]))
    return Outcome(
        verified=found.equal - added,
        mismatched=found.mismatched + len(unequal),
        mismatched_ids=found.examples + unequal,
    )


def _cutover(_place: Workplace, cursor: Cursor, run: Run, _step: Step, ref: StepRef) -> Outcome:
    """Check the totals, then move the tables. The ends that aren't ``done`` are raised."""
    totals = ledger.table_totals(cursor, run.run_id)
    added = ledger.count_placeholders(cursor, run.run_id)
    mismatched = {name: t.mismatched_rows for name, t in totals.items() if t.mismatched_rows}
    for name, of_table in totals.items():
        staged = catalog.count_rows(cursor, run.staging, name) - added.get(name, 0)
        accounted = of_table.loaded_rows + of_table.rejected_rows
        if staged != of_table.loaded_rows or accounted != of_table.source_rows:
            mismatched.setdefault(name, abs(of_table.source_rows - staged))
        elif of_table.verified_rows != staged:
            mismatched.setdefault(name, abs(of_table.verified_rows - staged))
    if mismatched:
        named = ", ".join(f"{rows:,} of {name}" for name, rows in mismatched.items())
        raise MismatchError(
            f"verification found rows that differ from their source: {named}",
            f"kg report {run.run_id} names them; nothing was cut over",
        )
    ids.require_same(cursor, run)
    rejects = ledger.count_rejects(cursor, run.run_id)
    if rejects > run.options.max_rejects:
        raise RejectsError(
            f"{rejects:,} rows were refused, {run.options.max_rejects:,} are allowed",
            f"see them: kg rejects {run.run_id}; to leave them out:"
            f" kg resume {run.run_id} --max-rejects {rejects}",
        )
    old = cutover.prepare(cursor, run)
    # Cancel takes this lock, too, so the two can't cross. Taken before, it would let cancel, pause
    # and resume wait for whoever holds the live tables.
    ledger.require_current(cursor, ref)
    cutover.cut_over(cursor, run, old)
    return Outcome()


def _reject(
    cursor: Cursor, place: Workplace, run: Run, step: Step, refusals: Sequence[Refusal]
) -> None:
    if not refusals:
        return
    planned = run.tables[step.table].written
    row_ids = [refusal.row_id for refusal in refusals]
    accepted = choose(run.options.repairs).accepting(step.table, refusals)
    with place.held(run) as source:
        rows = extract.read_raw(source, planned, row_ids)
        ledger.record_rejects(cursor, step.step_id, step.table, refusals, rows, accepted)
    related.note_accepted(cursor, run, step.step_id, step.table, accepted)


def _reject_with_children(
    cursor: Cursor, place: Workplace, run: Run, step: Step, refusals: Sequence[Refusal]
) -> None:
    """Set rows aside, and before them all of other tables that hang on them by keys that stand.

    That is so where tables refer to each other in a circle: the keys of one must be the first. Its
    rows would be taken away unsaid, or keep these from being removed.
    """
    standing = {
        name: run.tables[name].table for name in ledger.tables_with_keys(cursor, run.run_id)
    }
    hanging: dict[str, dict[int, Refusal]] = {name: {} for name in standing}
    waiting = [(run.tables[step.table].table, [refusal.row_id for refusal in refusals])]
    while waiting:
        parent, gone = waiting.pop(0)
        for name, table in standing.items():
            for key in table.foreign_keys:
                if key.table != parent.name:
                    continue
                found = finish.children(cursor, run.staging, table, key, parent, gone)
                fresh = {
                    child.row_id: child for child in found if child.row_id not in hanging[name]
                }
                if fresh:
                    hanging[name] |= fresh
                    waiting.append((table, list(fresh)))
    lost = {name: (standing[name], list(rows)) for name, rows in hanging.items() if rows}
    for name, (_, gone) in lost.items():
        _reject(cursor, place, run, replace(step, table=name), list(hanging[name].values()))
        ledger.charge_keys(cursor, run.run_id, name, len(gone))
    if lost:
        finish.remove(cursor, run.staging, lost)
    _reject(cursor, place, run, step, refusals)


def _all_of(step: Step, rows: int) -> int:
    if rows != step.rows:
        raise SourceError(
            f"{step} gave {rows:,} rows where {step.rows:,} were planned",
            "the source snapshot was changed; cancel the run and start again",
        )
    return rows


def _local(place: Workplace, run: Run) -> Path:
    """Return the path of the source, which is kept on this machine while the step is done."""
    with place.held(run) as path:
        return path


#: How a step of each stage is done.
WORK: dict[Stage, Callable[[Workplace, Cursor, Run, Step, StepRef], Outcome]] = {
    Stage.LOAD: _load,
    Stage.INDEX: _index,
    Stage.KEY: _key,
    Stage.VERIFY: _verify,
    Stage.CUTOVER: _cutover,
}

#: Their steps read the source from start to end; index and key steps, only where rows are refused.
READERS = frozenset({Stage.LOAD, Stage.VERIFY})
