"""Compares a graph with its PostgreSQL tables, row by row. Shares no code with the pipeline."""

import json
import sqlite3
from contextlib import closing
from datetime import UTC, datetime
from decimal import Decimal
from pathlib import Path
from typing import Any

COLUMNS = {
    "entities": "id type name metadata created_at updated_at",
    "relationships": "id from_id to_id type metadata created_at",
    "mission_history": "id mission_id status domain cost_usd iterations duration_seconds"
    " files_modified metadata created_at",
    "file_snapshots": "id file_path mission_id size_bytes lines_of_code hash created_at metadata",
}


def differences(source: Path, connection: Any, schema: str = "public") -> list[str]:
    """Return a line for each row that is missing, surplus or different; none if all is equal."""
    found = []
    with closing(sqlite3.connect(source)) as sqlite, connection.cursor() as cursor:
        cursor.execute("SET TimeZone = 'UTC'")
        for table, names in COLUMNS.items():
            columns = names.split()
            listed = ", ".join(f'"{name}"' for name in columns)
            casted = ", ".join(
                f'"{name}"::text' if name == "metadata" else f'"{name}"' for name in columns
            )
            left = {row[0]: row for row in sqlite.execute(f"SELECT {listed} FROM {table}")}
            cursor.execute(f'SELECT {casted} FROM "{schema}".{table}')
            right = {row[0]: row for row in cursor.fetchall()}
            found += [f"{table} {key} is missing" for key in left.keys() - right.keys()]
            found += [f"{table} {key} is surplus" for key in right.keys() - left.keys()]
            for key in left.keys() & right.keys():
                for name, mine, theirs in zip(columns, left[key], right[key], strict=True):
                    if not _equal(name, mine, theirs):
                        found.append(f"{table} {key}.{name}: {mine!r} became {theirs!r}")
    return found


def _equal(name: str, mine: Any, theirs: Any) -> bool:
    if mine is None or theirs is None:
        return mine is theirs
    if name == "metadata":
        return bool(_json(mine) == _json(theirs))
    if name.endswith("_at"):
        moment = datetime.fromisoformat(mine)
        return bool((moment if moment.tzinfo else moment.replace(tzinfo=UTC)) == theirs)
    if isinstance(mine, float):
        return isinstance(theirs, float) and mine.hex() == theirs.hex()
    return type(mine) is type(theirs) and bool(mine == theirs)


def _json(text: str) -> Any:
    return json.loads(text, parse_float=Decimal)
