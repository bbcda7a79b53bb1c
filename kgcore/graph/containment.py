"""JSONB's containment (``@>``) for documents that are in no JSONB column."""

import json
from decimal import Decimal
from itertools import islice
from typing import Any

from kgcore.backends import Row
from kgcore.graph.values import Metadata

# SQLite refuses a thousand of them.
_MOST_CONDITIONS = 100


def parsed(document: str) -> Any:
    """Return the document with exact numbers, as JSONB has them."""
    return json.loads(document, parse_float=Decimal)


def contains(document: Any, part: Any) -> bool:
    """Whether ``document @> part``, both :func:`parsed` and ``part`` an object or inside one.

    An object contains another if it has all of its keys, with values that contain the other's. An
    array contains another if each of the other's elements is contained in any of its own, whatever
    their order and number. Anything else contains what is equal to it; 1 is 1.0, and true is not 1.
    """
    pending = [(document, part)]  # Objects may be nested deeper than Python's stack.
    while pending:
        document, part = pending.pop()
        if isinstance(part, dict):
            if not isinstance(document, dict) or not document.keys() >= part.keys():
                return False
            pending += [(document[key], value) for key, value in part.items()]
        elif isinstance(part, list):
            if not isinstance(document, list):
                return False
            for wanted in part:
                if not any(contains(element, wanted) for element in document):
                    return False
        elif isinstance(document, bool) or isinstance(part, bool):
            if document is not part:
                return False
        elif document != part:
            return False
    return True


def sqlite_candidates(criteria: Metadata) -> tuple[str, list[Any]]:
    """Return a condition that holds for all rows whose metadata contains ``criteria``, and others.

    It saves parsing most rows in Python: the first outermost keys must be there, with their texts.
    """
    conditions = ["json_type(metadata) = 'object'"]
    params: list[Any] = []
    for key, value in islice(criteria.items(), _MOST_CONDITIONS):
        text = " AND j.type = 'text' AND j.value = ?" if isinstance(value, str) else ""
        conditions.append(f"EXISTS (SELECT 1 FROM json_each(metadata) j WHERE j.key = ?{text})")
        params += [key, value] if text else [key]
    # Only CASE keeps SQLite from taking apart what is not JSON.
    return f"CASE WHEN json_valid(metadata) THEN {' AND '.join(conditions)} END", params


def matching(rows: list[Row], criteria: str) -> list[Row]:
    """Return the rows whose metadata, still text, contains the criteria."""
    part = parsed(criteria)
    return [row for row in rows if contains(parsed(row["metadata"]), part)]
