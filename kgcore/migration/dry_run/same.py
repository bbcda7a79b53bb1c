"""Same: SQL by which SQLite takes two values for the same if and only if PostgreSQL will.

7 and '7' in a column without a type become one text, 't' and 1 one boolean, two spellings of an
instant one instant; and a NOCASE column tells case once it is over there.
"""

import sqlite3
from datetime import UTC, datetime
from decimal import Decimal, InvalidOperation
from functools import partial
from typing import Any

from kgcore.model import INTEGERS, Kind
from kgcore.schema.translate.encoding import Encoding
from kgcore.schema.translate.types import TRUE

_FUNCTION = "kg_same"
_TRUE = ", ".join(f"'{word}'" for word in TRUE)


def same(kind: Kind, read: str, *, plain: bool = False) -> str:
    """Return the value of ``read``, an expression of SQLite, as all equal values have it.

    Values that are refused give anything. ``plain`` says that the column's declared type makes
    SQLite store the very same: then an index of the file may serve the comparison.
    """
    call = (
        f"CASE typeof({read}) WHEN 'text' THEN {_FUNCTION}('{kind}', CAST({read} AS BLOB))"
        f" WHEN 'null' THEN NULL ELSE {_FUNCTION}('{kind}', {read}) END"
    )
    text = read if plain else f"CAST({read} AS TEXT)"
    by_kind = {
        **dict.fromkeys(INTEGERS, read if plain else f"CAST({read} AS INTEGER)"),
        Kind.TEXT: f"{text} COLLATE BINARY",
        Kind.DATE: f"{read} COLLATE BINARY",
        Kind.BLOB: read,
        Kind.BOOLEAN: f"CASE typeof({read}) WHEN 'text' THEN lower({read}) IN ({_TRUE})"
        f" ELSE {read} END",
        Kind.REAL: f"CASE typeof({read}) WHEN 'text' THEN {call} ELSE CAST({read} AS REAL) END",
    }
    return by_kind.get(kind, call)


def create_functions(connection: sqlite3.Connection) -> None:
    """Give the connection the function that :func:`same` calls."""
    encoding = Encoding(connection).name
    connection.create_function(_FUNCTION, 2, partial(_same, encoding), deterministic=True)


def _same(encoding: str, kind: str, value: Any) -> Any:
    text = value.decode(encoding, "replace") if isinstance(value, bytes) else repr(value)
    try:
        match Kind(kind):
            case Kind.TIMESTAMP:
                return _instant(text)
            case Kind.REAL:
                number = float(text)
                return number if number == number else "nan"  # noqa: PLR0124 (SQLite has no NaN)
        return _number(text)
    except (ValueError, OverflowError, InvalidOperation):
        return text


def _instant(text: str) -> str:
    instant = datetime.fromisoformat(text)
    zoned = instant if instant.tzinfo else instant.replace(tzinfo=UTC)
    return zoned.astimezone(UTC).isoformat()


def _number(text: str) -> str:
    """Return a number's digits without the zeros that mean nothing."""
    number = Decimal(text)
    if not number.is_finite():
        return str(number)
    sign, digits, exponent = number.as_tuple()
    written = "".join(map(str, digits)).lstrip("0")
    significant = written.rstrip("0")
    if not significant:
        return "0"
    return f"{'-' * sign}{significant}e{int(exponent) + len(written) - len(significant)}"
