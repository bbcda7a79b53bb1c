"""Check: the careful lane's encoder. Every value is held against its column, or the row refused.

Rows become PostgreSQL's text COPY. Work goes column by column: most columns are cleared as a whole
by a test that runs in C, and only a column with something odd in it is looked at value by value.

What is stored is exact, or it is refused: no rounding, no truncation, no replacement. Only a repair
that was asked for may change a value, and only one that was refused.
"""

import re
from collections.abc import Callable, Iterable, Mapping, Sequence, Set
from dataclasses import dataclass, field
from datetime import UTC, date, datetime, timedelta
from itertools import compress
from typing import Any

from kgcore.migration import json_faults
from kgcore.migration.json_faults import json_fault
from kgcore.migration.model import InvalidText, Refusal, Repaired
from kgcore.migration.repairs import Repairs, ServerInstant
from kgcore.model import Column, Kind, Table
from kgcore.schema.postgres import LONGEST_KEY
from kgcore.schema.translate.types import FALSE, TRUE

Row = tuple[Any, ...]

_NULL = "\\N"
_ESCAPES = (("\\", "\\\\"), ("\t", "\\t"), ("\n", "\\n"), ("\r", "\\r"))
_SPECIAL = re.compile(r"[\\\t\n\r\0]")
_PLAIN_TEXT = re.compile(r"[^\\\t\n\r\0]*")
# The form nearly all timestamps have, except the 29th of February.
_PLAIN_INSTANT = re.compile(
    r"(?!0000)\d{4}-"
    r"(?:(?:0[13578]|1[02])-(?:0[1-9]|[12]\d|3[01])|(?:0[469]|11)-(?:0[1-9]|[12]\d|30)"
    r"|02-(?:0[1-9]|1\d|2[0-8]))"
    r"T(?:[01]\d|2[0-3]):[0-5]\d:[0-5]\d(?:\.\d{1,6})?Z",
    re.ASCII,
)
_DAY = re.compile(r"\d{4}-\d\d-\d\d", re.ASCII)
_INSTANT = re.compile(
    r"(\d{4})-(\d\d)-(\d\d)"
    r"(?:[T ](\d\d)(?::?(\d\d)(?::?(\d\d)(?:\.(\d{1,9}))?)?)?(Z|[+-]\d\d(?::?\d\d)?)?)?",
    re.ASCII,
)


@dataclass(frozen=True, slots=True)
class Refused:
    """Why a value does not fit its column."""

    reason: str
    sqlstate: str


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
    one = _ONE[column.kind]
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
    one, is_plain, number = _ONE[kind], _IS_PLAIN.get(kind), _NUMBERS.get(kind)
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


# Single values; NULL never comes here.


def _integer(value: Any) -> str | Refused:
    match value:
        case int():
            return str(value)
        case float() if value.is_integer() and -(2.0**63) <= value < 2.0**63:
            return str(int(value))
        case float():
            return Refused("a REAL that is no 64-bit integer in an integer column", "22003")
        case str() if _is_canonical(value, int) and -(2**63) <= int(value) < 2**63:
            return value
    return _misplaced(value, "an integer")


def _real(value: Any) -> str | Refused:
    match value:
        case float():
            return repr(value)  # inf and -inf included: PostgreSQL holds them too.
        case int() if abs(value) <= 2**53 or int(float(value)) == value:
            return repr(float(value))
        case int():
            return Refused("an integer that double precision can't hold exactly", "22003")
        case str() if _is_canonical(value, float):
            return value
    return _misplaced(value, "a real")


def _text(value: Any) -> str | Refused:
    match value:
        case str() if "\0" in value:
            return Refused("text with a NUL character (U+0000)", "22021")
        case str():
            return _escaped(value)
        case int():
            return str(value)
    return _misplaced(value, "a text")


def _blob(value: Any) -> str | Refused:
    match value:
        case bytes() if type(value) is bytes:
            return "\\\\x" + value.hex()
        case str() | bytes():
            return Refused("text in a BLOB column", "42804")
    return _misplaced(value, "a BLOB")


def _json(value: Any) -> str | Refused:
    match value:
        case str():
            fault = json_fault(value)
            return _escaped(value) if fault is None else Refused(*fault)
        case int():
            return str(value)
    return _misplaced(value, "JSON text")


def _instant(value: Any) -> str | Refused:
    """Return the instant in UTC. Epoch numbers, julian days and words such as 'now' are refused."""
    if not isinstance(value, str):
        return _misplaced(value, "an ISO 8601 timestamp")
    if _PLAIN_INSTANT.fullmatch(value) or isinstance(value, ServerInstant):
        return str(value)
    found = _INSTANT.fullmatch(value)
    if found is None:
        return Refused("not an ISO 8601 timestamp", "22007")
    year, month, day, hour, minute, second, fraction, zone = found.groups()
    digits = (fraction or "").ljust(6, "0")
    if digits[6:].strip("0"):
        return Refused("finer than a microsecond", "22008")
    try:
        instant = datetime(
            int(year),
            int(month),
            int(day),
            int(hour or 0),
            int(minute or 0),
            int(second or 0),
            int(digits[:6]),
            UTC,
        ) - _offset(zone)
    except (ValueError, OverflowError):
        return Refused("no such date or time (years 0001 to 9999, no 24:00, no second 60)", "22008")
    return instant.isoformat()


def _numeric(value: Any) -> str | Refused:
    """Return a number's shortest digits, which read as a double again are the same double."""
    match value:
        case int() | float():
            return repr(value)
        case str() if _is_canonical(value, int) or _is_canonical(value, float):
            return value
    return _misplaced(value, "a number")


def _boolean(value: Any) -> str | Refused:
    match value:
        case 0 | 1 if type(value) is int:
            return str(value)
        case str() if value.lower() in (*TRUE, *FALSE):
            return value
        case int():
            return Refused("an INTEGER other than 0 and 1 in a boolean column", "22P02")
        case str():
            return Refused("text that says neither true nor false", "22P02")
    return _misplaced(value, "a boolean")


def _day(value: Any) -> str | Refused:
    if not isinstance(value, str):
        return _misplaced(value, "an ISO 8601 date")
    if not _DAY.fullmatch(value):
        return Refused("not an ISO 8601 date", "22007")
    try:
        return date.fromisoformat(value).isoformat()
    except ValueError:
        return Refused("no such date (years 0001 to 9999)", "22008")


def _offset(zone: str | None) -> timedelta:
    if zone is None or zone == "Z":
        return timedelta()
    hours, minutes = int(zone[1:3]), int(zone[-2:]) if len(zone) > 3 else 0
    if hours > 23 or minutes > 59:
        raise ValueError(zone)
    distance = timedelta(hours=hours, minutes=minutes)
    return -distance if zone[0] == "-" else distance


def _escaped(text: str) -> str:
    for raw, escaped in _ESCAPES:
        text = text.replace(raw, escaped)
    return text


def _misplaced(value: Any, wanted: str) -> Refused:
    if isinstance(value, InvalidText):
        return Refused("text that is not valid UTF-8", "22021")
    found = {int: "an INTEGER", float: "a REAL", str: "TEXT", bytes: "a BLOB"}[type(value)]
    return Refused(f"{found} where {wanted} belongs", "42804")


def _is_canonical(value: str, number: Callable[[str], object]) -> bool:
    """Whether turning the text into a number and back gives the same text: nothing is lost."""
    try:
        return len(value) < 400 and str(number(value)) == value
    except ValueError:
        return False


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
_IS_PLAIN: dict[Kind, Callable[[str], object]] = {
    Kind.TEXT: _PLAIN_TEXT.fullmatch,
    Kind.JSON: json_faults.is_plain,
    Kind.TIMESTAMP: _PLAIN_INSTANT.fullmatch,
}
_NUMBERS = {Kind.KEY: int, Kind.INTEGER: int, Kind.REAL: float, Kind.ROW: int}
_ONE: dict[Kind, Callable[[Any], str | Refused]] = {
    Kind.KEY: _integer,
    Kind.INTEGER: _integer,
    Kind.REAL: _real,
    Kind.TEXT: _text,
    Kind.BLOB: _blob,
    Kind.JSON: _json,
    Kind.TIMESTAMP: _instant,
    Kind.ROW: _integer,
    Kind.NUMERIC: _numeric,
    Kind.BOOLEAN: _boolean,
    Kind.DATE: _day,
}
