"""Defaults: a literal of the column's own kind, or the present moment."""

import json
import re
from collections.abc import Callable
from datetime import UTC, date, datetime

from kgcore.model import Kind
from kgcore.schema.translate import sql
from kgcore.schema.translate.expressions import translate
from kgcore.schema.translate.parts import Scope, UntranslatableError
from kgcore.schema.translate.types import FALSE, TRUE

_NOWHERE = Scope({})

_ISO_DAY = re.compile(r"\d{4}-\d\d-\d\d", re.ASCII)
_SPACES = re.compile(r"\s+")
# Ways of SQLite to say now, without spaces and in lower case, and the text that each gives.
_DAY, _SECONDS, _CLOCK = "YYYY-MM-DD", "YYYY-MM-DD HH24:MI:SS", "HH24:MI:SS"
_MILLIS = "YYYY-MM-DD HH24:MI:SS.MS"
_NOW = {
    "current_timestamp": _SECONDS,
    "current_date": _DAY,
    "current_time": _CLOCK,
    "datetime('now')": _SECONDS,
    "datetime()": _SECONDS,
    "date('now')": _DAY,
    "date()": _DAY,
    "time('now')": _CLOCK,
    "time()": _CLOCK,
    "strftime('%y-%m-%dt%h:%m:%fz','now')": 'YYYY-MM-DD"T"HH24:MI:SS.MS"Z"',
    "strftime('%y-%m-%dt%h:%m:%sz','now')": 'YYYY-MM-DD"T"HH24:MI:SS"Z"',
    "strftime('%y-%m-%d%h:%m:%f','now')": _MILLIS,
    "strftime('%y-%m-%d%h:%m:%s','now')": _SECONDS,
}
# The formats above by case, because %m and %M, %s and %S differ.
_FORMATS = frozenset(
    {"%Y-%m-%dT%H:%M:%fZ", "%Y-%m-%dT%H:%M:%SZ", "%Y-%m-%d%H:%M:%f", "%Y-%m-%d%H:%M:%S"}
)


def default(written: str, kind: Kind) -> str:
    """Return a column's DEFAULT in PostgreSQL's SQL. Raises :class:`UntranslatableError`."""
    moment = _moment(written)
    if moment is not None:
        return _now(moment, kind)
    literal = _literal(written)
    if literal is None:
        return "NULL"
    if isinstance(literal, str) and not sql.is_unicode(literal):
        raise UntranslatableError("its text is not valid UTF-8")
    value = _as_kind(literal, kind)
    if value is None:
        raise UntranslatableError(f"{literal!r} is no {kind}")
    return value


def _moment(written: str) -> str | None:
    compact = _SPACES.sub("", written)
    while compact.startswith("(") and compact.endswith(")"):
        compact = compact[1:-1]
    found = _NOW.get(compact.lower())
    if found and compact.lower().startswith("strftime") and compact.split("'")[1] not in _FORMATS:
        return None
    return found


def _now(form: str, kind: Kind) -> str:
    utc = "(now() AT TIME ZONE 'UTC')"
    match kind:
        case Kind.TIMESTAMP if "YYYY" in form and "HH24" in form:
            return "now()"
        case Kind.TIMESTAMP if form == _DAY:
            return f"(date_trunc('day', {utc}) AT TIME ZONE 'UTC')"
        case Kind.DATE if form == _DAY:
            return f"{utc}::date"
        case Kind.TEXT:
            return f"to_char({utc}, {sql.text(form)})"
    raise UntranslatableError(f"the present moment is no {kind}")


def _literal(written: str) -> int | float | str | bytes | None:
    """Return the literal's value. A word, and a name in double quotes, are texts to SQLite."""
    stripped = written.strip()
    if re.fullmatch(r"[xX]'[0-9a-fA-F]*'", stripped):
        return bytes.fromhex(stripped[2:-1])
    if re.fullmatch(r'"([^"]|"")*"', stripped):
        return stripped[1:-1].replace('""', '"')
    if re.fullmatch(r"[^\W\d]\w*", stripped) and stripped.lower() not in {"true", "false", "null"}:
        return stripped
    part = translate(stripped, _NOWHERE)
    if part.kind is None:
        return None
    if part.literal is None:
        raise UntranslatableError("it is no literal")
    return part.literal


def _as_kind(literal: int | float | str | bytes, kind: Kind) -> str | None:
    """Convert as the column's affinity would; None where that is not surely the same."""
    if isinstance(literal, str):
        return _from_text(literal, kind)
    value: str | None = None
    match kind, literal:
        case Kind.BOOLEAN, 0 | 1:
            value = "true" if literal else "false"
        case Kind.INTEGER, int():
            value = str(literal)
        case Kind.REAL, (int() | float()) as number if float(number) == number:
            value = sql.real(float(number))
        case Kind.NUMERIC, int() | float():
            value = f"'{literal!r}'::numeric"
        case Kind.TEXT, int():
            value = sql.text(str(literal))
        case Kind.BLOB, bytes():
            value = f"decode('{literal.hex()}', 'hex')"
    return value


def _from_text(literal: str, kind: Kind) -> str | None:
    match kind:
        case Kind.BOOLEAN if literal.lower() in (*TRUE, *FALSE):
            return "true" if literal.lower() in TRUE else "false"
        case Kind.INTEGER | Kind.REAL | Kind.NUMERIC:
            number = _number(literal)
            return None if number is None else _as_kind(number, kind)
    convert = _FROM_TEXT.get(kind)
    return None if convert is None else convert(literal)


def _number(text: str) -> int | float | None:
    for convert in (int, float):
        try:
            number = convert(text)
        except ValueError:
            continue
        return number if str(number) == text else None
    return None


def _json(text: str) -> str | None:
    try:
        json.loads(text, parse_constant=_refuse)
    except ValueError:
        return None
    return None if "\\u" in text else f"{sql.text(text)}::jsonb"


def _refuse(name: str) -> None:
    raise ValueError(name)


def _day(text: str) -> str | None:
    if not _ISO_DAY.fullmatch(text):
        return None
    try:
        return f"'{date.fromisoformat(text).isoformat()}'::date"
    except ValueError:
        return None


def _instant(text: str) -> str | None:
    if not _ISO_DAY.match(text):
        return None
    try:
        moment = datetime.fromisoformat(text)
    except ValueError:
        return None
    aware = moment if moment.tzinfo else moment.replace(tzinfo=UTC)
    return f"'{aware.isoformat()}'::timestamptz"


_FROM_TEXT: dict[Kind, Callable[[str], str | None]] = {
    Kind.TEXT: sql.text,
    Kind.JSON: _json,
    Kind.DATE: _day,
    Kind.TIMESTAMP: _instant,
}
