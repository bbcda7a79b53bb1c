"""Repairs of single values: pure functions that return a value which fits better, or None.

Each is asked only about values that were refused, and changes nothing but the fault it is named
after. What it returns is held against the column again, so a value may need several.
"""

import json
import re
from contextlib import suppress
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from typing import Any

from kgcore.migration.model import InvalidText
from kgcore.model import Kind

_TEXTS = frozenset({Kind.TEXT, Kind.JSON, Kind.TIMESTAMP})

# Strings are matched so that what stands inside them is stepped over.
_STRING_OR_CONSTANT = re.compile(r'"(?:[^"\\]|\\.)*"|-?Infinity|NaN', re.DOTALL)
_NUL_ESCAPE = re.compile(r"\\(?:u0000|.)", re.DOTALL)
_SURROGATE = re.compile(
    r"\\u[dD][89abAB][0-9a-fA-F]{2}\\u[dD][c-fC-F][0-9a-fA-F]{2}"
    r"|\\u[dD][89a-fA-F][0-9a-fA-F]{2}|\\.",
    re.DOTALL,
)
_NUMBER = re.compile(r"\d{9,16}(?:\.\d{1,9})?", re.ASCII)
_DATE = re.compile(
    r"([+-]?)(\d{4,9})-(0[1-9]|1[0-2])-(0[1-9]|[12]\d|3[01])"
    r"(?:[T ][\d:.]{0,18}(?:Z|[+-][\d:]{2,6})?)?",
    re.ASCII,
)
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)

# Digits before the point tell the unit; what is left out could as well be something else: fewer
# than 9 a julian day, a year or 20260102; 14 of them 20260102030405.
_UNITS = {
    **dict.fromkeys((9, 10, 11), Decimal(1)),
    **dict.fromkeys((12, 13), Decimal("1e-3")),
    **dict.fromkeys((15, 16), Decimal("1e-6")),
}


class ServerInstant(str):
    """A timestamp in PostgreSQL's own words, such as ``infinity``; no source holds one."""

    __slots__ = ()


def json_as_string(kind: Kind, value: Any) -> str | None:
    """Text that is no JSON becomes a JSON string of that text."""
    if kind is not Kind.JSON or not isinstance(value, str) or _parses(value, strict=True):
        return None
    return json.dumps(value, ensure_ascii=False)


def nan_as_null(kind: Kind, value: Any) -> str | None:
    """NaN, Infinity and -Infinity in JSON become null; all else stays as it is written."""
    return _without_constants(kind, value, lambda _: "null")


def nan_as_string(kind: Kind, value: Any) -> str | None:
    """NaN, Infinity and -Infinity in JSON become strings."""
    return _without_constants(kind, value, lambda name: f'"{name}"')


def remove_nul(kind: Kind, value: Any) -> str | None:
    """NUL characters are taken out of text, and NUL escapes out of JSON."""
    if kind not in _TEXTS or not isinstance(value, str):
        return None
    if kind is not Kind.JSON:
        return _changed(value, value.replace("\0", ""))
    escaped = _NUL_ESCAPE.sub(lambda m: "" if m[0] == "\\u0000" else m[0], value.replace("\0", ""))
    return _changed(value, escaped) if _parses(escaped) else None


def replace_invalid_utf8(kind: Kind, value: Any) -> str | None:
    """Bytes that are not UTF-8, and lone surrogates in JSON, become U+FFFD."""
    if kind not in _TEXTS:
        return None
    if isinstance(value, InvalidText):
        return value.decode(errors="replace")
    if kind is not Kind.JSON or not isinstance(value, str):
        return None
    return _changed(value, _SURROGATE.sub(_paired, value)) if _parses(value) else None


def epoch_timestamp(kind: Kind, value: Any) -> str | None:
    """Seconds, milliseconds or microseconds since 1970 become the instant, to the microsecond."""
    if kind is not Kind.TIMESTAMP or not isinstance(value, int | float | str):
        return None
    written = value if isinstance(value, str) else format(Decimal(repr(value)), "f")
    if _NUMBER.fullmatch(written) is None:
        return None
    unit = _UNITS.get(len(written.partition(".")[0]))
    if unit is None:
        return None
    micros = int((Decimal(written) * unit * 1_000_000).to_integral_value())
    return (_EPOCH + timedelta(microseconds=micros)).isoformat().replace("+00:00", "Z")


def infinite_timestamp(kind: Kind, value: Any) -> ServerInstant | None:
    """Dates after the year 9999 become infinity, those before the year 1 become -infinity."""
    found = _DATE.fullmatch(value) if isinstance(value, str) else None
    if found is None or kind is not Kind.TIMESTAMP:
        return None
    sign, year = found[1], int(found[2])
    if sign == "-" or year == 0:
        return ServerInstant("-infinity")
    if year > 9999:
        return ServerInstant("infinity")
    with suppress(ValueError):  # No such day or time.
        instant = datetime.fromisoformat(value)
        try:
            instant.astimezone(UTC)
        except OverflowError:  # Out of range in UTC alone: the first or the last hours there are.
            return ServerInstant("-infinity" if year == 1 else "infinity")
    return None


def _without_constants(kind: Kind, value: Any, other: Any) -> str | None:
    if kind is not Kind.JSON or not isinstance(value, str) or not _parses(value):
        return None
    return _changed(
        value,
        _STRING_OR_CONSTANT.sub(lambda m: m[0] if m[0].startswith('"') else other(m[0]), value),
    )


def _paired(found: re.Match[str]) -> str:
    lone = len(found[0]) == 6 and found[0][1] == "u"
    return "\\ufffd" if lone else found[0]


def _changed(before: str, after: str) -> str | None:
    return None if after == before else after


def _parses(text: str, *, strict: bool = False) -> bool:
    """Whether Python reads the text as JSON; ``strict`` is without NaN and the infinities."""
    try:
        json.loads(
            text, parse_int=str, parse_float=str, parse_constant=_no_constant if strict else None
        )
    except RecursionError:
        return True  # It goes too deep to say; the server judges it.
    except ValueError:
        return False
    return True


def _no_constant(name: str) -> None:
    raise ValueError(name)
