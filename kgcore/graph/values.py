"""Values on their way in and out: the same on both databases."""

import json
import re
from collections.abc import Callable
from datetime import UTC, datetime
from decimal import Decimal
from typing import Any, Literal

from kgcore.backends import Row
from kgcore.errors import SourceError

Metadata = dict[str, Any]
Direction = Literal["outgoing", "incoming", "both"]

_NUL = re.compile(r"(?<!\\)(?:\\\\)*\\u0000")
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


def count(value: int, name: str) -> int:
    """Return the number if it can be a limit. Raises ValueError for a negative one."""
    if value < 0:
        raise ValueError(f"{name} must be 0 or more, not {value}")
    return value


def metadata_text(metadata: Metadata | None) -> str:
    """Return JSON that both databases can hold; none is ``{}``.

    Raises TypeError for what is no ``dict`` or no JSON, ValueError for NaN, infinities, NUL and
    half of a surrogate pair: JSONB refuses them.
    """
    if metadata is None:
        return "{}"
    if not isinstance(metadata, dict):
        raise TypeError(f"metadata must be a dict, not {type(metadata).__name__}")
    # Not as ASCII: so the text that SQLite keeps is as short as PostgreSQL's.
    found = json.dumps(metadata, ensure_ascii=False, allow_nan=False)
    found.encode()
    if _NUL.search(found):
        raise ValueError("metadata can't hold NUL")
    # JSONB would give 1e16 back as an integer, and its digits as a double's are others.
    return _LARGE.sub(_without_exponent, found) if "e+" in found else found


def _without_exponent(token: re.Match[str]) -> str:
    return f"{Decimal(token[0]):f}.0" if token["number"] else token[0]


def metadata_value(stored: Any) -> Any:
    """Return metadata as it came from either database: ``{}`` where it is missing.

    Raises :class:`SourceError` for text that is not JSON; SQLite may hold such, if others wrote it.
    """
    if stored is None or stored == "":
        return {}
    if not isinstance(stored, str):
        return stored
    try:
        return json.loads(stored)
    except ValueError as error:
        raise SourceError(
            f"metadata is not JSON ({error}): {stored[:80]!r}",
            "find it in the SQLite file: SELECT id FROM entities WHERE NOT json_valid(metadata)",
        ) from None


def instant_text(stored: Any) -> str:
    """Return a time as ISO 8601 UTC text that ends in Z, with microseconds only where it has any.

    Text that is no time, which SQLite may hold, stays what it is.
    """
    if isinstance(stored, str):
        try:
            stored = datetime.fromisoformat(stored)
        except ValueError:
            return str(stored)
    if not isinstance(stored, datetime):
        return str(stored)
    if stored.tzinfo is None:
        stored = stored.replace(tzinfo=UTC)
    shown = str(stored.isoformat())
    if not shown.endswith("+00:00"):  # Most are UTC already, and a call has many of them.
        shown = str(stored.astimezone(UTC).isoformat())
    return shown.removesuffix("+00:00") + "Z"


_READERS: dict[str, Callable[[Any], Any]] = {
    "metadata": metadata_value,
    "created_at": instant_text,
    "updated_at": instant_text,
}


def record(row: Row) -> Row:
    """Return a row as the graph's callers get it; changes the row itself."""
    for name, read in _READERS.items():
        if name in row:
            row[name] = read(row[name])
    return row
