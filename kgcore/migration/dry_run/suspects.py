"""Suspects: which values of an Arrow array the careful check must look at, found for all at once.

What is no suspect is stored as it is: the careful check takes it, too. A suspect may be fine.
Everything here runs in C and leaves the interpreter lock.
"""

import pyarrow as pa
import pyarrow.compute as pc

from kgcore.model import Column, Kind, Table
from kgcore.schema.postgres import LONGEST_KEY

# RE2 reads an array at about 500 MB/s, twenty times as fast as a JSON parser value by value. So
# JSON is known by its form: up to three levels deep, without \u. All other is a suspect.
_STRING = r'"(?:[^"\\\x00-\x1f]|\\["\\/bfnrt])*"'
_NUMBER = r"-?(?:0|[1-9][0-9]*)(?:\.[0-9]+)?(?:[eE][+-]?[0-9]+)?"
_SPACE = r"[ \t\n\r]*"
_SCALAR = f"(?:{_STRING}|{_NUMBER}|true|false|null)"


def _around(value: str) -> str:
    """Return the form of JSON that is one level deeper."""
    pair = f"{_STRING}{_SPACE}:{_SPACE}{value}{_SPACE}"
    items = f"{_SPACE}(?:{value}{_SPACE}(?:,{_SPACE}{value}{_SPACE})*)?"
    pairs = f"{_SPACE}(?:{pair}(?:,{_SPACE}{pair})*)?"
    return rf"(?:{_SCALAR}|\[{items}\]|\{{{pairs}\}})"


_JSON = rf"\A{_SPACE}{_around(_around(_SCALAR))}{_SPACE}\z"

_DAY = (
    r"(?:(?:0[13578]|1[02])-(?:0[1-9]|[12][0-9]|3[01])|(?:0[469]|11)-(?:0[1-9]|[12][0-9]|30)"
    r"|02-(?:0[1-9]|1[0-9]|2[0-8]))"
)
_YEAR = r"(?:[1-9][0-9]{3}|0[1-9][0-9]{2}|00[1-9][0-9]|000[1-9])"
_TIME = r"[T ](?:[01][0-9]|2[0-3]):[0-5][0-9]:[0-5][0-9](?:\.[0-9]{1,6})?"
_OFFSET = r"[+-](?:[01][0-9]|2[0-3])(?::?[0-5][0-9])?"
# With an offset, not in the first or the last years: the instant may be before or after all others.
_INSTANT = rf"\A(?:{_YEAR}-{_DAY}(?:{_TIME}Z?)?|[1-8][0-9]{{3}}-{_DAY}{_TIME}{_OFFSET})\z"
_DATE = rf"\A{_YEAR}-{_DAY}\z"

_BITS = pa.array([0, 1], pa.int64())
_FORMS = {Kind.JSON: _JSON, Kind.TIMESTAMP: _INSTANT, Kind.DATE: _DATE}


def suspects(column: Column, values: pa.Array) -> pa.BooleanArray | None:
    """Return which values might not fit their column, None where all do.

    ``values`` are of the type :func:`~kgcore.schema.arrow.read_type` says, or all NULL.
    """
    found = _missing(column, values)
    if values.null_count == len(values):
        return found
    if column.kind is Kind.BOOLEAN:
        found = _either(found, pc.invert(pc.is_in(values, _BITS)), values)
    elif column.kind in _FORMS:
        fitting = pc.match_substring_regex(values, _FORMS[column.kind])
        found = _either(found, pc.invert(fitting), values)
    elif column.kind is Kind.TEXT and b"\0" in memoryview(values.buffers()[2]).tobytes():
        found = _either(found, pc.match_substring(values, "\0"), values)
    if pa.types.is_string(values.type) and not _is_utf8(values):
        found = _either(found, pc.invert(pc.string_is_ascii(values)), values)
    return found


def too_long(table: Table, columns: dict[str, pa.Array]) -> dict[str, pa.BooleanArray]:
    """Return by column which rows have more text than surely fits into one of its indexes."""
    found: dict[str, pa.BooleanArray] = {}
    for names in table.text_keys:
        texts = [columns[name] for name in names if pa.types.is_string(columns[name].type)]
        lengths = [pc.fill_null(pc.binary_length(text), 0) for text in texts]
        if sum(pc.max(length).as_py() or 0 for length in lengths) <= LONGEST_KEY:
            continue
        total = lengths[0].cast(pa.int64())
        for length in lengths[1:]:
            total = pc.add(total, length)
        over = pc.greater(total, LONGEST_KEY)
        for name in names:
            found[name] = pc.or_(found[name], over) if name in found else over
    return found


def _missing(column: Column, values: pa.Array) -> pa.BooleanArray | None:
    return None if column.nullable or not values.null_count else pc.is_null(values)


def _either(
    found: pa.BooleanArray | None, more: pa.BooleanArray, values: pa.Array
) -> pa.BooleanArray | None:
    more = pc.and_(pc.fill_null(more, fill_value=False), pc.is_valid(values))
    if not pc.any(more).as_py():
        return found
    return more if found is None else pc.or_(found, more)


def _is_utf8(values: pa.Array) -> bool:
    try:
        values.validate(full=True)
    except pa.ArrowInvalid:
        return False
    return True
