"""How times and JSON of a short read come from psycopg2.

By itself it makes a ``datetime`` of each time, of which the graph would make text again, and has
JSON parsed by ``json.loads``, which asks more about its text than JSONB leaves open. So ten rows
with metadata and two times took 280 µs, and take 190.
"""

from collections.abc import Iterable
from datetime import UTC, datetime
from json import JSONDecoder
from typing import Any

from psycopg2.extensions import PYDATETIMETZ, new_type, register_type
from psycopg2.extensions import cursor as Cursor  # noqa: N812

from kgcore.backends.base import Row

_TIMESTAMPTZ, _JSONB = 1184, 3802  # Types' numbers; they are the same in all versions.
# "2026-01-31 23:59:59+00", and the same with all six digits of a fraction.
_PLAIN_LENGTHS = frozenset({22, 29})
_parsed = JSONDecoder().raw_decode


def read_quickly(cursor: Cursor) -> None:
    """Have a cursor return timestamps as :func:`instant_text` shows them, and JSONB parsed."""
    register_type(_INSTANTS, cursor)
    register_type(_DOCUMENTS, cursor)


def with_instants(rows: Iterable[Row]) -> list[Row]:
    """Return the rows of another cursor as those of such a one."""
    return [{name: _with_instant(value) for name, value in row.items()} for row in rows]


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
        try:
            shown = str(stored.astimezone(UTC).isoformat())
        except OverflowError:  # UTC has it before the year 1 or after 9999.
            return shown
    return shown.removesuffix("+00:00") + "Z"


def _instant(stored: Any, cursor: Cursor) -> str | None:
    if stored is None:
        return None
    if len(stored) in _PLAIN_LENGTHS and stored[10] == " " and stored[-3:] == "+00":
        return f"{stored[:10]}T{stored[11:-3]}Z"
    return instant_text(PYDATETIMETZ(stored, cursor))


def _document(stored: Any, cursor: Cursor) -> Any:  # noqa: ARG001  # psycopg2's form.
    return None if stored is None else _parsed(stored)[0]


def _with_instant(value: Any) -> Any:
    is_instant = isinstance(value, datetime) and value.tzinfo is not None
    return instant_text(value) if is_instant else value


_INSTANTS = new_type((_TIMESTAMPTZ,), "INSTANTS", _instant)
_DOCUMENTS = new_type((_JSONB,), "DOCUMENTS", _document)
