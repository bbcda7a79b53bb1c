"""Judge: the careful check of suspect rows, and which repairs would save those it refuses."""

from collections.abc import Collection, Mapping, Sequence, Set
from functools import partial
from typing import Any

from kgcore.migration.dry_run.found import Scanned
from kgcore.migration.repairs import Repairs, for_rows
from kgcore.migration.stages import check
from kgcore.model import Column, Table

Row = tuple[Any, ...]

_UNESCAPED = {"\\\\": "\\", "\\t": "\t", "\\n": "\n", "\\r": "\r"}


def judge(
    found: Scanned, table: Table, rows: Sequence[Row], repairs: Repairs, keyed: Set[str]
) -> None:
    """Hold rows against the careful check, and try the repairs on those that it refuses."""
    checked = check.check(table, rows, repairs)
    if checked.repaired:
        _note_mended(found, table, checked, keyed)
    if not checked.refusals:
        return
    bad = {refusal.row_id for refusal in checked.refusals}
    by_id = {row[0]: row for row in rows if row[0] in bad}
    names = table.column_names
    for refusal in checked.refusals:
        value = by_id[refusal.row_id][names.index(refusal.column or table.key.name)]
        found.tally.count(refusal, None, value)
    found.refused.extend(bad)
    for columns, of in _by_fault(table, by_id, repairs).items():
        narrow = Table(table.name, (table.key, *columns), table.indexes)
        places = [0, *(names.index(column.name) for column in columns)]
        cells = {row[0]: tuple(row[place] for place in places) for row in of}
        found.tally.save(for_rows(cells.keys(), partial(_still_refused, narrow, cells)).values())


def _by_fault(
    table: Table, rows: Mapping[int, Row], repairs: Repairs
) -> dict[tuple[Column, ...], list[Row]]:
    """Return refused rows by the columns that are at fault: no others need to be tried again."""
    faults: dict[int, list[Column]] = {row_id: [] for row_id in rows}
    for place, column in enumerate(table.columns[1:], 1):
        alone = Table(table.name, (table.key, column), table.indexes)
        cells = [(row_id, row[place]) for row_id, row in rows.items()]
        for refusal in check.check(alone, cells, repairs).refusals:
            faults[refusal.row_id].append(column)
    found: dict[tuple[Column, ...], list[Row]] = {}
    for row_id, columns in faults.items():
        # Together too long for an index, where it is none alone.
        found.setdefault(tuple(columns or table.columns[1:]), []).append(rows[row_id])
    return found


def _still_refused(
    table: Table, rows: Mapping[int, Row], ids: Collection[int], repairs: Repairs
) -> Set[int]:
    """Return which rows can't be stored with these repairs; each of their columns is at fault."""
    kinds = [column.kind for column in table.columns[1:]]

    def is_mended(row: Row) -> bool:
        pairs = zip(kinds, row[1:], strict=True)
        return all(cell is not None and repairs.mend(kind, cell) for kind, cell in pairs)

    mended = [rows[row_id] for row_id in ids if is_mended(rows[row_id])]
    refusals = check.check(table, mended, repairs).refusals
    stored = {row[0] for row in mended} - {refusal.row_id for refusal in refusals}
    return frozenset(ids) - stored


def _note_mended(found: Scanned, table: Table, checked: check.CheckedRows, keyed: Set[str]) -> None:
    """Keep what repairs made of values that keys compare, as the line has them."""
    changed = frozenset[int]().union(*checked.repaired.values())
    places = [place for place, name in enumerate(table.column_names) if name in keyed]
    for row_id, line in zip(checked.ids, checked.lines, strict=True):
        if row_id not in changed:
            continue
        texts = line.split("\t")
        for place in places:
            if texts[place] != "\\N":
                name = table.column_names[place]
                found.mended.setdefault(name, {})[row_id] = _unescaped(texts[place])


def _unescaped(text: str) -> str:
    if "\\" not in text:
        return text
    parts, place = [], 0
    while place < len(text):
        pair = text[place : place + 2]
        parts.append(_UNESCAPED.get(pair, text[place]))
        place += 2 if pair in _UNESCAPED else 1
    return "".join(parts)
