"""Dry run: what a migration would do, found out by reading the whole source. Changes nothing."""

from collections import Counter, defaultdict
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import partial
from typing import Any

from kgcore.migration.model import PlannedTable, Refusal
from kgcore.migration.related import parents_first
from kgcore.migration.repairs import (
    PLACEHOLDER_ENTITIES,
    Proposal,
    Repairs,
    for_key,
    for_row,
    is_merging,
    proposals,
    refers_to_entities,
)
from kgcore.migration.runs import Prepared
from kgcore.migration.stages import check, extract
from kgcore.model import ForeignKey, Index, Kind, Table
from kgcore.schema import quoted
from kgcore.schema.postgres import TYPES

# Of the benchmark's 1.65 million rows: what a row costs two worker processes from freeze to
# cutover, and how many bytes tables and indexes take for each byte of the SQLite file.
_SECONDS_PER_ROW = 7.5e-6
_TARGET_BYTES_PER_SOURCE_BYTE = 1.9

_EXAMPLES = 10
_NO_REPAIRS = Repairs()


@dataclass(frozen=True, slots=True)
class PredictedReject:
    """A reason for which rows of a table would be refused."""

    column: str | None
    reason: str
    sqlstate: str
    rows: int
    example_ids: tuple[int, ...]
    repair: str | None = None  # by which the rows are left out knowingly


@dataclass(frozen=True, slots=True)
class PredictedTable:
    """What would become of a table."""

    rows: int
    chunks: int
    columns: Mapping[str, str]
    rejects: tuple[PredictedReject, ...]
    proposals: tuple[Proposal, ...] = ()

    @property
    def rejected_rows(self) -> int:
        """Rows that would be refused, those among them that a chosen repair leaves out."""
        return sum(reject.rows for reject in self.rejects)

    @property
    def counted_rows(self) -> int:
        """Rows that would count against the limit."""
        return sum(reject.rows for reject in self.rejects if reject.repair is None)


@dataclass(frozen=True, slots=True)
class DryRun:
    """What a run would do. ``seconds`` and ``target_bytes`` are estimates."""

    prepared: Prepared
    tables: Mapping[str, PredictedTable]
    target_bytes: int
    seconds: float

    @property
    def rows(self) -> int:
        """Rows in the source."""
        return sum(table.rows for table in self.tables.values())

    @property
    def rejected_rows(self) -> int:
        """Rows that would be refused."""
        return sum(table.rejected_rows for table in self.tables.values())

    @property
    def counted_rows(self) -> int:
        """Rows that would count against ``--max-rejects``."""
        return sum(table.counted_rows for table in self.tables.values())

    @property
    def proposals(self) -> tuple[Proposal, ...]:
        """Repairs that would help, and how many rows each would save."""
        return tuple(item for table in self.tables.values() for item in table.proposals)

    def to_json(self) -> dict[str, Any]:
        """Return the object that ``kg migrate --dry-run --json`` prints."""
        source = self.prepared.source
        return {
            "state": "dry-run",
            "source": {
                "path": str(source.original),
                "sha256": source.sha256,
                "bytes": source.bytes,
            },
            "tables": {
                name: {
                    "source_rows": table.rows,
                    "chunks": table.chunks,
                    "columns": dict(table.columns),
                    "rejected_rows": table.rejected_rows,
                    "rejects": [
                        {
                            "column": reject.column,
                            "reason": reject.reason,
                            "sqlstate": reject.sqlstate,
                            "rows": reject.rows,
                            "example_ids": list(reject.example_ids),
                            "repair": reject.repair,
                        }
                        for reject in table.rejects
                    ],
                }
                for name, table in self.tables.items()
            },
            "not_carried_over": [asdict(note) for note in self.prepared.not_carried_over],
            "repairs": [
                {"table": item.table, "repair": item.repair, "rows": item.rows}
                for item in self.proposals
            ],
            "totals": {"source_rows": self.rows, "rejected_rows": self.rejected_rows},
            "estimate": {
                "target_bytes": self.target_bytes,
                "seconds": round(self.seconds, 1),
            },
        }


def dry_run(prepared: Prepared, chosen: Repairs = _NO_REPAIRS) -> DryRun:
    """Check every row as the careful lane does, and every key as the constraints will.

    With the repairs that are chosen; others that would help are proposed. Rows that only the server
    can judge (JSON nested thousands deep, numbers of more than 131,072 digits) are not predicted.
    """
    refused: dict[str, dict[int, Refusal]] = {}
    saving: dict[str, dict[int, frozenset[str]]] = {}
    for planned in parents_first(prepared.tables):
        name = planned.table.name
        found, saving[name] = _refused_values(prepared, planned, chosen)
        for index in planned.table.indexes:
            if index.unique:
                _merge(found, _duplicates(prepared, planned, index, found))
        for key in planned.table.foreign_keys:
            gone = refused.get(key.table, {})
            orphans = _orphans(prepared, planned, key, _without_merged(key.table, gone, chosen))
            if PLACEHOLDER_ENTITIES not in chosen or not refers_to_entities(key):
                _merge(found, orphans)
        for row_id, refusal in found.items():
            saving[name].setdefault(row_id, for_key(planned.table, refusal))
        refused[name] = found
    tables = {
        item.table.name: PredictedTable(
            item.rows,
            len(item.chunks),
            {c.name: TYPES[c.kind] for c in item.table.columns if c.kind is not Kind.ROW},
            _summed(item.table.name, refused[item.table.name].values(), chosen),
            proposals(
                item.table.name,
                (names - set(chosen.names) for names in saving[item.table.name].values()),
            ),
        )
        for item in prepared.tables
    }
    rows = sum(item.rows for item in prepared.tables)
    return DryRun(
        prepared,
        tables,
        int(prepared.source.bytes * _TARGET_BYTES_PER_SOURCE_BYTE),
        sum(prepared.seconds.values()) + rows * _SECONDS_PER_ROW,
    )


def _refused_values(
    prepared: Prepared, planned: PlannedTable, chosen: Repairs
) -> tuple[dict[int, Refusal], dict[int, frozenset[str]]]:
    """Return by id the rows whose values don't fit, and the repairs that would save each."""
    refused: dict[int, Refusal] = {}
    saving: dict[int, frozenset[str]] = {}
    table = planned.table
    for chunk in planned.chunks:
        for rows in extract.read_rows(prepared.source.path, planned, chunk):
            found = {item.row_id: item for item in check.check(table, rows, chosen).refusals}
            if found:
                refused |= found
                bad = (row for row in rows if row[0] in found)
                saving |= {row[0]: for_row(partial(_is_storable, table, row)) for row in bad}
    return refused, saving


def _is_storable(table: Table, row: tuple[Any, ...], repairs: Repairs) -> bool:
    return not check.check(table, [row], repairs).refusals


def _without_merged(
    table: str, gone: Mapping[int, Refusal], chosen: Repairs
) -> Mapping[int, Refusal]:
    merged = chosen.accepting(table, gone.values())
    return {row_id: refusal for row_id, refusal in gone.items() if row_id not in merged}


def _duplicates(
    prepared: Prepared, planned: PlannedTable, index: Index, refused: Mapping[int, Refusal]
) -> Iterator[Refusal]:
    """Of rows with equal keys the first that is not refused stays."""
    if index.keys or index.where is not None or planned.source.order:
        return  # The file's own index, and SQLite keeps it.
    merges = is_merging(planned.table, index)
    key, *read = _reads(planned, (planned.table.key.name, *index.columns))
    name, columns = quoted(planned.source.table), ", ".join(read)
    present = " AND ".join(f"{column} IS NOT NULL" for column in read)
    connection = extract.open_snapshot(prepared.source.path)
    try:
        groups = connection.execute(
            f"SELECT group_concat({key}) FROM {name} WHERE {present}"
            f" GROUP BY {columns} HAVING count(*) > 1"
        )
        for (ids,) in groups:
            rows = sorted(int(row_id) for row_id in ids.split(","))
            kept = [row_id for row_id in rows if row_id not in refused]
            for row_id in kept[1:]:
                yield Refusal(
                    row_id,
                    index.columns[0] if len(index.columns) == 1 else None,
                    f"the same ({', '.join(index.columns)}) as another row",
                    "23505",
                    kept[0] if merges else None,
                )
    finally:
        connection.close()


def _orphans(
    prepared: Prepared, planned: PlannedTable, key: ForeignKey, gone: Mapping[int, Refusal]
) -> Iterator[Refusal]:
    """Children of no row, and of rows that will be refused themselves."""
    if planned.source.order:
        return  # Its rows have no id in the file by which they could be named here.
    parent = next(item for item in prepared.tables if item.table.name == key.table)
    own, *columns = _reads(planned, (planned.table.key.name, *key.columns))
    parents = _reads(parent, key.parents)
    name, of = quoted(planned.source.table), quoted(parent.source.table)
    if not planned.rows:
        return
    present = " AND ".join(f"child.{column} IS NOT NULL" for column in columns)
    same = " AND ".join(f"p.{p} = child.{c}" for p, c in zip(parents, columns, strict=True))
    exists = f"EXISTS (SELECT 1 FROM {of} AS p WHERE {same})" if parent.rows else "false"
    connection = extract.open_snapshot(prepared.source.path)
    try:
        missing = connection.execute(
            f"SELECT child.{own} FROM {name} AS child WHERE {present} AND NOT {exists}"
        )
        for (row_id,) in missing:
            yield _orphan(row_id, key)
        if gone and not parent.source.order:
            lost = connection.execute(
                f"SELECT child.{own}, p.{parent.source.reads[0]} FROM {name} AS child"
                f" JOIN {of} AS p ON {same}"
            )
            for row_id, parent_id in lost:
                if parent_id in gone:
                    yield _orphan(row_id, key)
    finally:
        connection.close()


def _reads(planned: PlannedTable, names: Sequence[str]) -> list[str]:
    """Return what SQLite calls these columns."""
    reads = dict(zip(planned.table.column_names, planned.source.reads, strict=True))
    return [reads[name] for name in names]


def _orphan(row_id: int, key: ForeignKey) -> Refusal:
    column = key.columns[0] if len(key.columns) == 1 else None
    return Refusal(row_id, column, f"no such row in {key.table}", "23503")


def _merge(found: dict[int, Refusal], more: Iterable[Refusal]) -> None:
    for refusal in list(more):
        found.setdefault(refusal.row_id, refusal)


def _summed(
    table: str, refusals: Collection[Refusal], chosen: Repairs
) -> tuple[PredictedReject, ...]:
    accepted = chosen.accepting(table, refusals)
    ids: dict[tuple[str | None, str, str, str | None], list[int]] = defaultdict(list)
    for refusal in refusals:
        repair = accepted.get(refusal.row_id)
        ids[refusal.column, refusal.reason, refusal.sqlstate, repair].append(refusal.row_id)
    counts = Counter({why: len(rows) for why, rows in ids.items()})
    return tuple(
        PredictedReject(*why[:3], rows, tuple(sorted(ids[why])[:_EXAMPLES]), why[3])
        for why, rows in counts.most_common()
    )
