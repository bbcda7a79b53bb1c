"""Retry: rejects that were mended, or for which a repair was chosen, are put into their tables.

In one transaction: into staging while the run is ``rejected``, into the live tables once it is
``done``. What fits goes in and is read back; what does not stays a reject, with its reason.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace

from psycopg2.extensions import cursor as Cursor  # noqa: N812
from psycopg2.sql import Identifier

from kgcore.backends import ConnectionPool
from kgcore.errors import MismatchError, RunError, SettingsError
from kgcore.migration import ledger, related
from kgcore.migration.mended import Mended
from kgcore.migration.model import Options, PlannedTable, RawRow, Refusal, Run, RunState
from kgcore.migration.repairs import Repairs, choose
from kgcore.migration.stages import check, extract, insert, load
from kgcore.model import Kind
from kgcore.schema.postgres import all_indexes

#: Stands for the step where the ledger notes what the repairs of a retry did.
_NO_STEP = 0
_BATCH_ROWS = 1_000


@dataclass(frozen=True, slots=True)
class Retried:
    """What a retry did to each table's rejects; ``left`` count against the limit now."""

    run: Run
    loaded: Mapping[str, int]
    refused: Mapping[str, int]
    left: int


def retry(
    pool: ConnectionPool,
    run_id: str,
    *,
    table: str | None = None,
    repairs: Sequence[str] = (),
    mended: Mapping[tuple[str, int], Mended] | None = None,
) -> Retried:
    """Try the rejects of a run again, all that count or one table's; ``mended`` has rows by key.

    The repairs are added to those of the run. Raises :class:`RunError` for a run in another state
    or whose tables are no longer live, :class:`SettingsError` for mended rows that are no rejects,
    :class:`TargetBusyError` where others hold a live table; then nothing was changed.
    """
    with ledger.transaction(pool) as cursor:
        run = _opened(cursor, run_id, repairs)
        chosen = choose(run.options.repairs)
        _take_mended(cursor, run, mended or {})
        schema = run.schema if run.state is RunState.DONE else run.staging
        insert.lock(cursor, schema, list(run.tables))
        loaded, refused = dict[str, int](), dict[str, int]()
        for planned in related.parents_first(run.tables.values()):
            name = planned.table.name
            if table in {None, name} and ledger.count_rejects(cursor, run_id, name):
                _require_ids(run, planned)
                stored, refusals = _retry_table(cursor, run, schema, planned, chosen)
                if stored or refusals:
                    loaded[name], refused[name] = stored, refusals
        return Retried(run, loaded, refused, ledger.count_rejects(cursor, run_id))


def _opened(cursor: Cursor, run_id: str, repairs: Sequence[str]) -> Run:
    state, _ = ledger.lock_run(cursor, run_id)
    run = ledger.read_run(cursor, run_id)
    if state not in {RunState.REJECTED, RunState.DONE}:
        raise RunError(
            f"run {run_id} is {state}; rejects are tried again once it is rejected or done",
            f"kg resume {run_id} lets it go on",
        )
    if state is RunState.DONE and ledger.latest_done(cursor, run.schema) != run_id:
        raise RunError(
            f"the tables of run {run_id} are not the live ones", "kg runs shows which run's are"
        )
    names = choose((*run.options.repairs, *repairs)).names
    options = Options.from_json(run.options.to_json() | {"repairs": names})
    ledger.set_options(cursor, run_id, options)
    return replace(run, options=options)


def _take_mended(cursor: Cursor, run: Run, mended: Mapping[tuple[str, int], Mended]) -> None:
    missing = set(mended)
    for table in sorted({name for name, _ in mended}):
        rows = [
            mended[table, reject.row_id].applied_to(reject.row)
            for reject in ledger.list_rejects(cursor, run.run_id, table)
            if (table, reject.row_id) in mended
        ]
        missing -= {
            (table, row_id) for row_id in ledger.record_mended(cursor, run.run_id, table, rows)
        }
    if missing:
        table, row_id = min(missing)
        raise SettingsError(
            f"the mended row {row_id} of {table} is no reject of run {run.run_id}",
            f"kg rejects {run.run_id} --json lists those there are",
        )


def _retry_table(
    cursor: Cursor, run: Run, schema: str, planned: PlannedTable, repairs: Repairs
) -> tuple[int, int]:
    """Return how many of the table's rejects were stored, and how many are refused again."""
    table = planned.written.table
    relation = Identifier(schema, table.name)
    insert.create_retried(cursor, relation, table)
    refusals, checks = list[Refusal](), list[check.CheckedRows]()
    for batch in _batches(cursor, run.run_id, table.name):
        checked = check.check(table, [extract.typed(row) for row in batch], repairs)
        copied = load.copy_each(cursor, insert.RETRIED, table, checked.ids, checked.lines)
        refusals += checked.refusals + copied.refusals
        checks.append(checked)
    for condition in table.checks:
        refusals += insert.remove_breaches(cursor, table, condition)
    for index in all_indexes(table):
        if index.unique and set(index.columns) <= set(table.column_names):
            refusals += insert.remove_taken(cursor, run.run_id, relation, table, index)
    for key in table.foreign_keys:
        related.mend_key(cursor, run, _NO_STEP, schema, insert.RETRIED, table, key)
        refusals += insert.remove_orphans(cursor, schema, table, key)
    stored = insert.insert(cursor, run.run_id, relation, table)
    unequal = insert.unequal(cursor, relation, table)
    if unequal:
        raise MismatchError(
            f"rows of {table.name} were stored as something else: {', '.join(map(str, unequal))}",
            "nothing was changed; see which trigger on the table changes what is inserted",
        )
    ledger.take_in(cursor, run.run_id, table.name, stored)
    repaired = check.summed(checks, {refusal.row_id for refusal in refusals})
    ledger.record_repairs(cursor, run.run_id, _NO_STEP, table.name, repaired)
    accepted = repairs.accepting(table.name, refusals)
    ledger.still_refused(cursor, run.run_id, table.name, refusals, accepted)
    related.note_accepted(cursor, run, _NO_STEP, table.name, accepted)
    insert.drop_retried(cursor)
    return len(stored), len(refusals) - len(accepted)


def _require_ids(run: Run, planned: PlannedTable) -> None:
    if run.state is RunState.DONE and planned.table.key.kind is Kind.ROW:
        raise RunError(
            f"rows of {planned.table.name} have no integer key, and no number any more once live",
            "insert them by hand, or try the other tables again with --table",
        )


def _batches(cursor: Cursor, run_id: str, table: str) -> Iterator[list[RawRow]]:
    batch: list[RawRow] = []
    for reject in ledger.list_rejects(cursor, run_id, table, open_only=True):
        batch.append(reject.mended or reject.row)
        if len(batch) == _BATCH_ROWS:
            yield batch
            batch = []
    if batch:
        yield batch
