"""Compares any SQLite file with its PostgreSQL tables. Shares no code with the pipeline."""

import json
import sqlite3
from collections import Counter
from collections.abc import Callable
from contextlib import closing
from datetime import UTC, date, datetime
from decimal import Decimal
from pathlib import Path
from typing import Any

_TRUE = {"1", "t", "true", "y", "yes", "on"}


def differences(
    source: Path, connection: Any, rename: Callable[[str], str] = str, schema: str = "public"
) -> list[str]:
    """Return a line for each row that only one side has. Rows are told apart by all they hold."""
    found = []
    with closing(sqlite3.connect(source)) as sqlite, connection.cursor() as cursor:
        cursor.execute("SET TimeZone = 'UTC'")
        tables = sqlite.execute(
            "SELECT name FROM pragma_table_list WHERE type = 'table' AND schema = 'main'"
            " AND name NOT LIKE 'sqlite~_%' ESCAPE '~'"
        ).fetchall()
        for (table,) in tables:
            names = [
                row[1] for row in sqlite.execute(f'PRAGMA table_xinfo("{table}")') if row[6] != 1
            ]
            cursor.execute(
                "SELECT column_name, data_type FROM information_schema.columns"
                " WHERE table_schema = %s AND table_name = %s ORDER BY ordinal_position",
                (schema, rename(table)),
            )
            types = dict(cursor.fetchall())
            if [rename(name) for name in names] != list(types):
                found.append(f"{table}: columns {names} became {list(types)}")
                continue
            listed = ", ".join(f'"{name}"' for name in names)
            kinds = list(types.values())
            mine = Counter(
                tuple(map(_expected, row, kinds))
                for row in sqlite.execute(f'SELECT {listed} FROM "{table}"')
            )
            casted = ", ".join(
                f'"{name}"::text' if kind == "jsonb" else f'"{name}"'
                for name, kind in types.items()
            )
            cursor.execute(f'SELECT {casted} FROM "{schema}"."{rename(table)}"')
            theirs = Counter(tuple(map(_found, row, kinds)) for row in cursor.fetchall())
            found += [f"{table}: {row} is missing" for row in (mine - theirs).elements()]
            found += [f"{table}: {row} is surplus" for row in (theirs - mine).elements()]
    return found


def _expected(value: Any, kind: str) -> Any:  # noqa: PLR0911 (a table of types)
    """What SQLite's value must have become."""
    if value is None:
        return None
    match kind:
        case "boolean":
            return str(value).lower() in _TRUE
        case "timestamp with time zone":
            moment = datetime.fromisoformat(value)
            return moment if moment.tzinfo else moment.replace(tzinfo=UTC)
        case "date":
            return date.fromisoformat(value)
        case "numeric":
            return Decimal(repr(value))
        case "jsonb":
            return _json(value)
        case "double precision":
            return float(value).hex()
        case "text":
            return str(value)
    return value


def _found(value: Any, kind: str) -> Any:
    if value is None:
        return None
    match kind:
        case "jsonb":
            return _json(value)
        case "double precision":
            return value.hex()
        case "bytea":
            return bytes(value)
    return value


def _json(text: str) -> str:
    return json.dumps(json.loads(text, parse_float=Decimal), sort_keys=True, default=str)
