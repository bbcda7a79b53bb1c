"""Predict: scan all chunks with threads, then judge the keys, and put together what was found."""

import os
import sqlite3
from collections.abc import Mapping
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from contextlib import closing
from dataclasses import dataclass

from kgcore.backends import ConnectionPool
from kgcore.migration.dry_run.findings import finding
from kgcore.migration.dry_run.found import ColumnSeen, Scanned
from kgcore.migration.dry_run.keys import break_keys
from kgcore.migration.dry_run.prediction import (
    DryRun,
    PredictedColumn,
    PredictedReject,
    PredictedTable,
)
from kgcore.migration.dry_run.relations import needed
from kgcore.migration.dry_run.sample import estimate
from kgcore.migration.dry_run.scan import scan
from kgcore.migration.dry_run.tally import Tally
from kgcore.migration.model import Chunk, PlannedTable
from kgcore.migration.new_run import Prepared, Watch
from kgcore.migration.repairs import Repairs, proposals
from kgcore.migration.stages import extract
from kgcore.model import Kind, Table
from kgcore.schema import quoted
from kgcore.schema.translate.inspect import declared_types
from kgcore.schema.translate.sql import fold_ascii

_NO_REPAIRS = Repairs()

# A chunk is held in memory twice; more threads than this read no faster.
_MOST_THREADS = 8


@dataclass(frozen=True, slots=True)
class _Declared:
    """A column's type in the file, and its declaration as notes about it have it."""

    type: str = ""
    ddl: str = ""


def dry_run(
    prepared: Prepared,
    chosen: Repairs = _NO_REPAIRS,
    pool: ConnectionPool | None = None,
    watch: Watch | None = None,
) -> DryRun:
    """Check every row as the careful lane does, and every key as the constraints will.

    With the repairs that are chosen; others that would help are proposed. ``pool`` is the target's,
    for the sample that the estimate rests on. ``watch`` is called with ``check``, the rows that are
    looked at, and how many there are. Rows that only the server can judge (JSON nested thousands
    deep, numbers of more than 131,072 digits) are not predicted.
    """
    scanned = _scan_all(prepared, chosen, watch)
    unforetold = break_keys(prepared, scanned, chosen)
    with closing(extract.open_snapshot(prepared.source.path)) as connection:
        tables = {
            item.table.name: _predicted(
                item,
                scanned[item.table.name],
                chosen,
                _evidence(connection, prepared, item, scanned[item.table.name]),
            )
            for item in prepared.tables
        }
    return DryRun(prepared, tables, estimate(pool, prepared, chosen), unforetold)


def _scan_all(prepared: Prepared, chosen: Repairs, watch: Watch | None) -> dict[str, Scanned]:
    """Scan all chunks. Threads do: nearly all of it is C code that leaves the interpreter lock."""
    keyed = needed(prepared.tables)
    found = {item.table.name: Scanned() for item in prepared.tables}
    total = sum(item.rows for item in prepared.tables)
    waiting = [(item.written, chunk) for item in prepared.tables for chunk in item.chunks]
    waiting.reverse()
    threads = min(_cores(), _MOST_THREADS)
    done = 0
    with ThreadPoolExecutor(threads, thread_name_prefix="kg-scan") as executor:

        def begin(planned: PlannedTable, chunk: Chunk) -> Future[Scanned]:
            asked, mixed = keyed[chunk.table], frozenset(found[chunk.table].mixed)
            path = prepared.source.path
            return executor.submit(scan, path, planned, chunk, chosen, asked, mixed)

        at_work: dict[Future[Scanned], str] = {}
        while waiting or at_work:
            # No more than is worked on: what was found is small, but a queue ends late on Ctrl-C.
            while waiting and len(at_work) <= threads:
                planned, chunk = waiting.pop()
                at_work[begin(planned, chunk)] = chunk.table
            for future in wait(at_work, return_when=FIRST_COMPLETED).done:
                scanned = future.result()
                found[at_work.pop(future)].add(scanned)
                done += scanned.rows
                if watch is not None:
                    watch("check", done, total)
    return found


def _cores() -> int:
    """Return how many cores this process may use, as far as the system tells: macOS does not."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def _predicted(
    item: PlannedTable,
    scanned: Scanned,
    chosen: Repairs,
    columns: Mapping[str, PredictedColumn],
) -> PredictedTable:
    saving = scanned.tally.saving.copy()
    for name in chosen.names:
        saving.pop(name, None)
    key = scanned.columns.get(item.table.key.name, ColumnSeen())
    return PredictedTable(
        item.rows,
        scanned.bytes,
        item.chunks,
        None if key.low is None or key.high is None else (int(key.low), int(key.high)),
        columns,
        _rejects(item.table, scanned.tally),
        proposals(item.table.name, saving),
    )


def _rejects(table: Table, tally: Tally) -> tuple[PredictedReject, ...]:
    kinds = {column.name: column.kind for column in table.columns}
    reasons = sorted(tally.reasons.values(), key=lambda item: -item.rows)
    return tuple(
        PredictedReject(
            item.column,
            item.reason,
            item.sqlstate,
            item.rows,
            tuple(sorted(item.examples)),
            finding(kinds.get(item.column or ""), item.sqlstate, item.reason),
            item.repair,
        )
        for item in reasons
    )


def _evidence(
    connection: sqlite3.Connection, prepared: Prepared, item: PlannedTable, scanned: Scanned
) -> dict[str, PredictedColumn]:
    """Return each column's type with what it rests on."""
    declared = _declared(connection, item)
    why = {
        note.ddl: note.why
        for note in prepared.not_carried_over
        if note.table == item.table.name and note.object == "type"
    }
    found = {}
    for column, read in zip(item.table.columns, item.source.reads, strict=True):
        if column.kind is Kind.ROW:
            continue
        seen = scanned.columns.get(column.name, ColumnSeen())
        found[column.name] = PredictedColumn(
            column.kind,
            declared.get(read, _Declared()).type,
            dict(seen.storage.most_common()),
            seen.low,
            seen.high,
            dict(seen.zones.most_common()),
            why.get(declared.get(read, _Declared()).ddl),
        )
    return found


def _declared(connection: sqlite3.Connection, item: PlannedTable) -> dict[str, _Declared]:
    """Return what is declared by what SQLite is asked for the columns: names in small letters."""
    if not item.source.table:
        return {}
    declared = declared_types(connection, item.source.table)
    return {
        quoted(fold_ascii(name)): _Declared(kind, f"{name} {kind}".strip())
        for name, kind in declared.items()
    }
