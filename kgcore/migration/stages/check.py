"""Check: the careful lane's encoder. Every value is held against its column, or the row refused.

Rows become PostgreSQL's text COPY. Work goes column by column: most columns are cleared as a whole
by a test that runs in C, and only a column with something odd in it is looked at value by value.

What is stored is exact, or it is refused: no rounding, no truncation, no replacement. Only a repair
that was asked for may change a value, and only one that was refused.
"""

import re
from collections.abc import Callable, Iterable, Mapping, Sequence, Set
from dataclasses import dataclass, field
from itertools import compress
from typing import Any

from kgcore.migration.copy_text import IS_PLAIN, NUMBERS, ONE, Refused
from kgcore.migration.model import Refusal, Repaired
from kgcore.migration.repairs import Repairs
from kgcore.model import Column, Kind, Table
from kgcore.schema.postgres import LONGEST_KEY

Row = tuple[Any, ...]

_NULL = "\\N"
_SPECIAL = re.compile(r"[\\\t\n\r\0]")


@dataclass(frozen=True, slots=True)
class CheckedRows:
    """Lines of text COPY with the ids they came from, and the rows that were refused.

    ``repaired`` has by repair the ids of the rows it changed; some may be among the refused.
    """

    ids: tuple[int, ...]
    lines: tuple[str, ...]
    refusals: tuple[Refusal, ...]
    repaired: Mapping[str, frozenset[int]] = field(default_factory=dict)


_NO_REPAIRS = Repairs()


def check(table: Table, rows: Sequence[Row], repairs: Repairs = _NO_REPAIRS) -> CheckedRows:
    """Encode rows (columns in the table's order, id first) and say which can't be stored."""
    if not rows:
        return CheckedRows((), (), ())
    values: list[Sequence[Any]] = list(zip(*rows, strict=True))
    encoded = [
        _encode_column(column, cells) for column, cells in zip(table.columns, values, strict=True)
    ]
    repaired: dict[str, set[int]] = {}
    if repairs:
        for position, column in enumerate(table.columns):
            if Refused in set(map(type, encoded[position])):
                values[position], encoded[position], changed = _mended(
                    column, values[position], encoded[position], repairs
                )
                for name, places in changed.items():
                    repaired.setdefault(name, set()).update(rows[place][0] for place in places)
    by_repair = {name: frozenset(ids) for name, ids in repaired.items()}
    refused = _too_long(table, values)
    for column, cells in zip(table.columns, encoded, strict=True):
        if Refused in set(map(type, cells)):
            for position, cell in enumerate(cells):
                if isinstance(cell, Refused) and position not in refused:
                    refused[position] = Refusal(
                        rows[position][0], column.name, cell.reason, cell.sqlstate
                    )
    if not refused:
        lines = tuple(map("\t".join, zip(*encoded, strict=True)))
        return CheckedRows(tuple(values[0]), lines, (), by_repair)
    for cells in encoded:
        for position in refused:
            cells[position] = ""  # Its line is left out below.
    kept = [position not in refused for position in range(len(rows))]
    return CheckedRows(
        tuple(compress(values[0], kept)),
        tuple(compress(map("\t".join, zip(*encoded, strict=True)), kept)),
        tuple(refused[position] for position in sorted(refused)),
        by_repair,
    )


def summed(checked: Iterable[CheckedRows], refused: Set[int]) -> tuple[Repaired, ...]:
    """Return what the repairs did to rows that were stored after all."""
    ids: dict[str, list[int]] = {}
    for rows in checked:
        for name, changed in rows.repaired.items():
            ids.setdefault(name, []).extend(sorted(changed - refused))
    return tuple(Repaired(name, len(of), tuple(of)) for name, of in sorted(ids.items()) if of)


def _mended(
    column: Column, cells: Sequence[Any], encoded: Sequence[Any], repairs: Repairs
) -> tuple[list[Any], list[Any], dict[str, list[int]]]:
    """Return values and texts of a column with the refused ones repaired, and which by what."""
    values, texts = list(cells), list(encoded)
    changed: dict[str, list[int]] = {}
    one = ONE[column.kind]
    for position, text in enumerate(encoded):
        value, used = cells[position], set[str]()
        found = text
        while isinstance(found, Refused) and value is not None:
            step = repairs.mend(column.kind, value)
            if step is None:
                break
            value = step[0]
            used.add(step[1])
            found = one(value)
        if found is not text and not isinstance(found, Refused):
            values[position], texts[position] = value, found
            for name in used:
                changed.setdefault(name, []).append(position)
    return values, texts, changed


def _encode_column(column: Column, cells: Sequence[Any]) -> list[Any]:
    """Return for each cell its text, or a :class:`Refused`."""
    encoded: list[Any] | None = _WHOLE[column.kind](cells)
    if encoded is None:
        encoded = _each(column.kind, cells)
    if not column.nullable and None in cells:
        missing = Refused("NULL in a column that must have a value", "23502")
        encoded = [
            missing if cell is None else text for cell, text in zip(cells, encoded, strict=True)
        ]
    return encoded


def _each(kind: Kind, cells: Sequence[Any]) -> list[Any]:
    """Look at a column value by value; what is plainly right is told apart before any call."""
    one, is_plain, number = ONE[kind], IS_PLAIN.get(kind), NUMBERS.get(kind)
    if is_plain is not None:
        return [
            cell if type(cell) is str and is_plain(cell) else _NULL if cell is None else one(cell)
            for cell in cells
        ]
    return [
        repr(cell) if type(cell) is number else _NULL if cell is None else one(cell)
        for cell in cells
    ]


def _too_long(table: Table, values: Sequence[Sequence[Any]]) -> dict[int, Refusal]:
    """Return by position the rows whose text doesn't surely fit into an index."""
    refused: dict[int, Refusal] = {}
    columns = dict(zip(table.column_names, values, strict=True))
    for names in table.text_keys:
        if sum(_bytes_at_most(columns[name]) for name in names) <= LONGEST_KEY:
            continue
        for position, cells in enumerate(zip(*(columns[name] for name in names), strict=True)):
            texts = [cell for cell in cells if type(cell) is str]
            if 4 * sum(map(len, texts)) <= LONGEST_KEY:
                continue
            size = sum(len(text.encode()) for text in texts)
            if size > LONGEST_KEY:
                reason = f"{size:,} bytes of text in a B-tree index, which takes {LONGEST_KEY:,}"
                refused[position] = Refusal(values[0][position], names[-1], reason, "54000")
    return refused


def _bytes_at_most(cells: Sequence[Any]) -> int:
    """A cheap bound of a column's longest text in UTF-8."""
    texts = [cell for cell in cells if type(cell) is str]
    longest = max(map(len, texts), default=0)
    return longest if "".join(texts).isascii() else 4 * longest


# Whole columns: the answer is None where the column has to be looked at value by value.


def _whole_integers(cells: Sequence[Any]) -> list[str] | None:
    types = set(map(type, cells))
    if types == {int}:
        return list(map(str, cells))
    if types <= {int, type(None)}:
        return [_NULL if cell is None else str(cell) for cell in cells]
    return None


def _whole_reals(cells: Sequence[Any]) -> list[str] | None:
    if set(map(type, cells)) <= {float, type(None)}:
        return [_NULL if cell is None else repr(cell) for cell in cells]
    return None


def _whole_texts(cells: Sequence[Any]) -> list[str] | None:
    types = set(map(type, cells))
    if types == {str}:
        return list(cells) if _SPECIAL.search("".join(cells)) is None else None
    if types <= {str, type(None)} and _SPECIAL.search("".join(filter(None, cells))) is None:
        return [_NULL if cell is None else cell for cell in cells]
    return None


def _never(_cells: Sequence[Any]) -> list[str] | None:
    return None


_WHOLE: dict[Kind, Callable[[Sequence[Any]], list[str] | None]] = {
    Kind.KEY: _whole_integers,
    Kind.INTEGER: _whole_integers,
    Kind.REAL: _whole_reals,
    Kind.TEXT: _whole_texts,
    Kind.BLOB: _never,
    Kind.JSON: _never,
    Kind.TIMESTAMP: _never,
    Kind.ROW: _whole_integers,
    Kind.NUMERIC: _never,
    Kind.BOOLEAN: _never,
    Kind.DATE: _never,
}
