"""One value as PostgreSQL's text COPY has it, or why it does not fit its kind.

What is stored is exact, or it is refused: no rounding, no truncation, no replacement.
"""

import re
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta
from typing import Any

from kgcore.migration import json_faults
from kgcore.migration.json_faults import json_fault
from kgcore.migration.model import InvalidText
from kgcore.migration.repairs import ServerInstant
from kgcore.model import Kind
from kgcore.schema.translate.types import FALSE, TRUE

_ESCAPES = (("\\", "\\\\"), ("\t", "\\t"), ("\n", "\\n"), ("\r", "\\r"))
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


#: Says at once of text of a kind whether it is its own COPY text.
IS_PLAIN: dict[Kind, Callable[[str], object]] = {
    Kind.TEXT: _PLAIN_TEXT.fullmatch,
    Kind.JSON: json_faults.is_plain,
    Kind.TIMESTAMP: _PLAIN_INSTANT.fullmatch,
}
#: The type of a kind's numbers whose digits are what is stored.
NUMBERS = {Kind.KEY: int, Kind.INTEGER: int, Kind.REAL: float, Kind.ROW: int}
#: Returns the COPY text of a value of a kind, which is not NULL.
ONE: dict[Kind, Callable[[Any], str | Refused]] = {
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
