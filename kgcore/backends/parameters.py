"""Parameters that mean the same on both databases."""

import json
from datetime import UTC, date, datetime
from typing import Any

from kgcore.backends.base import Params

# Most values are of these, and there are some in every call.
_PORTABLE = frozenset({str, int, float, bool, bytes, type(None)})


def portable(params: Params) -> tuple[Any, ...]:
    """Return the parameters with JSON text for ``dict`` and ``list``, and zones for all datetimes.

    Raises ValueError for NaN and infinities in JSON, which has no such numbers.
    """
    return tuple([value if type(value) in _PORTABLE else _portable(value) for value in params])


def sqlite_parameters(params: Params) -> tuple[Any, ...]:
    """Return portable parameters of SQLite's types: datetimes are UTC text, as in its defaults."""
    return tuple(map(_as_text, portable(params)))


def _portable(value: Any) -> Any:
    if isinstance(value, dict | list):
        return json.dumps(value, allow_nan=False)
    if isinstance(value, datetime) and value.tzinfo is None:
        return value.replace(tzinfo=UTC)
    return value


def _as_text(value: Any) -> Any:
    if isinstance(value, datetime):
        return value.astimezone(UTC).replace(tzinfo=None).isoformat(timespec="microseconds") + "Z"
    return value.isoformat() if isinstance(value, date) else value
