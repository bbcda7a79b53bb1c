"""Values on their way in and out: the same on both databases."""

import json
import math
import operator
import re
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from numbers import Real
from typing import Any, Literal

from kgcore.errors import SourceError

Metadata = dict[str, Any]
Direction = Literal["outgoing", "incoming", "both"]

# Not as ASCII: so the text that SQLite keeps is as short as PostgreSQL's.
_encoded = json.JSONEncoder(ensure_ascii=False, allow_nan=False).encode
_NUL = re.compile(r"(?<!\\)(?:\\\\)*\\u0000")
#: A limit beyond this is this one: no table has as many rows, and something may still be added.
_MOST_ROWS = 2**62
# A text, or a number so large that Python writes it with an exponent.
_LARGE = re.compile(r""""(?:[^"\\]|\\.)*"|(?P<number>-?\d+(?:\.\d+)?e\+\d+)""")


def text(value: str) -> str:
    """Return the text if both databases can hold it.

    Raises ValueError for NUL and for half of a surrogate pair, which PostgreSQL refuses.
    """
    if not isinstance(value, str):
        raise TypeError(f"a str is needed, not {type(value).__name__}: {value!r}")
    if "\0" in value:
        raise ValueError(f"text can't hold NUL: {value!r}")
    value.encode()  # UnicodeEncodeError is a ValueError, and says which character.
    return value


def optional_text(value: str | None) -> str | None:
    """Return the text as :func:`text` does, or None."""
    return None if value is None else text(value)


def integer(value: int, name: str) -> int:
    """Return the number if both databases can hold it as an integer.

    A float without a fraction is one. Raises TypeError for what is none (a bool, 1.5, a text),
    ValueError beyond 64 bits.
    """
    known: Any = value
    if isinstance(known, float) and known.is_integer():
        known = int(known)
    try:
        number = operator.index(known)
    except TypeError:
        number = None
    if number is None or isinstance(value, bool):
        raise TypeError(f"{name} must be an int, not {type(value).__name__}: {value!r}")
    if not -(2**63) <= number < 2**63:
        raise ValueError(f"{name} must fit into 64 bits, not {number}")
    return number


def real(value: float, name: str) -> float:
    """Return the number, which may be a ``Decimal``, as a float.

    Raises TypeError for what is none, ValueError for NaN and infinities: SQLite keeps NaN as NULL.
    """
    known: object = value
    if isinstance(known, bool) or not isinstance(known, Real | Decimal):
        raise TypeError(f"{name} must be a number, not {type(value).__name__}: {value!r}")
    try:
        number = float(value)
    except OverflowError:
        number = math.inf
    if not math.isfinite(number):
        raise ValueError(f"{name} must be a finite number, not {value}")
    return number


def optional_integer(value: int | None, name: str) -> int | None:
    """Return the number as :func:`integer` does, or None."""
    return None if value is None else integer(value, name)


def optional_real(value: float | None, name: str) -> float | None:
    """Return the number as :func:`real` does, or None."""
    return None if value is None else real(value, name)


def count(value: int, name: str, least: int = 0) -> int:
    """Return the number if it can be a limit, at most 2**62.

    Raises ValueError for one below ``least`` or beyond 64 bits.
    """
    number = integer(value, name)
    if number < least:
        raise ValueError(f"{name} must be {least} or more, not {number}")
    return min(number, _MOST_ROWS)


def aware(time: datetime | str) -> datetime:
    """Return a time, or the one of an ISO 8601 text, in UTC; without a zone it is UTC already.

    Raises TypeError for what is neither (a ``date``), ValueError for text that is no time, and for
    a time that UTC has before the year 1 or after 9999.
    """
    known: object = datetime.fromisoformat(time) if isinstance(time, str) else time
    if not isinstance(known, datetime):
        raise TypeError(f"a datetime or its text is needed, not {type(time).__name__}: {time!r}")
    if known.tzinfo is None:
        return known.replace(tzinfo=UTC)
    try:
        return known.astimezone(UTC)
    except OverflowError:
        raise ValueError(f"in UTC it is not in the years 1 to 9999: {time}") from None


def days_before(now: datetime, days: float) -> datetime:
    """Return the time so many times 24 hours ago, or the first or last day that there is."""
    try:
        return now - timedelta(days=days)
    except OverflowError:
        return datetime(1, 1, 1, tzinfo=UTC) if days > 0 else datetime(9999, 12, 31, tzinfo=UTC)


def metadata_text(metadata: Metadata | None) -> str:
    """Return JSON that both databases can hold; none is ``{}``.

    Raises TypeError for what is no ``dict`` or no JSON, ValueError for NaN, infinities, NUL and
    half of a surrogate pair: JSONB refuses them.
    """
    if metadata is None:
        return "{}"
    if not isinstance(metadata, dict):
        raise TypeError(f"metadata must be a dict, not {type(metadata).__name__}")
    found = _encoded(metadata)
    found.encode()
    if "\\u0000" in found and _NUL.search(found):
        raise ValueError("metadata can't hold NUL")
    # JSONB would give 1e16 back as an integer, and its digits as a double's are others.
    return _LARGE.sub(_without_exponent, found) if "e+" in found else found


def _without_exponent(token: re.Match[str]) -> str:
    return f"{Decimal(token[0]):f}.0" if token["number"] else token[0]


def parsed_metadata(stored: Any) -> Any:
    """Return metadata from the text that SQLite has.

    Raises :class:`SourceError` for text that is not JSON; the file may hold such, if others wrote
    it.
    """
    if stored is None or stored == "":
        return None
    try:
        return json.loads(stored)
    except ValueError as error:
        raise SourceError(
            f"metadata is not JSON ({error}): {stored[:80]!r}",
            "find it in the SQLite file: SELECT id FROM entities WHERE NOT json_valid(metadata)",
        ) from None
