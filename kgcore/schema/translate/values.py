"""Look at the values of a table, in one pass: which break what their column's type promises."""

import sqlite3

from kgcore.model import Kind
from kgcore.schema.sqlite import quoted
from kgcore.schema.translate.source import SourceTable
from kgcore.schema.translate.types import Evidence, misfit

# SQLite takes 2,000 columns in a SELECT.
_ASKED_OF_A_COLUMN = 4
_COLUMNS_AT_A_TIME = 300


def look(
    connection: sqlite3.Connection, table: SourceTable, promises: dict[str, Kind | None]
) -> dict[str, Evidence]:
    """Return for each of the columns what its values say of its promised kind."""
    names = list(promises)
    found: dict[str, Evidence] = {}
    for start in range(0, len(names), _COLUMNS_AT_A_TIME):
        some = {name: promises[name] for name in names[start : start + _COLUMNS_AT_A_TIME]}
        found |= _look(connection, table, some)
    return found


def _look(
    connection: sqlite3.Connection, table: SourceTable, promises: dict[str, Kind | None]
) -> dict[str, Evidence]:
    row_id = table.row_id or "NULL"
    asked = []
    for name, promise in promises.items():
        column = quoted(name)
        broken = misfit(promise, column) if promise else f"{column} IS NOT NULL"
        asked += [
            f"count(*) FILTER (WHERE {broken})",
            f"min({row_id}) FILTER (WHERE {broken})",
            # Of numbers the length doesn't matter, and is small.
            f"max(length(CAST({column} AS BLOB)))"
            if promise not in {Kind.INTEGER, Kind.REAL, Kind.BOOLEAN}
            else "0",
            f"count(*) - count({column})",
        ]
    row = connection.execute(f"SELECT {', '.join(asked)} FROM {quoted(table.name)}").fetchone()
    return {
        name: _evidence(connection, table, name, *row[place : place + _ASKED_OF_A_COLUMN])
        for place, name in zip(range(0, len(row), _ASKED_OF_A_COLUMN), promises, strict=True)
    }


def _evidence(
    connection: sqlite3.Connection,
    table: SourceTable,
    name: str,
    misfits: int,
    example: int | None,
    longest: int | None,
    nulls: int,
) -> Evidence:
    if not misfits:
        return Evidence(longest=longest or 0, nulls=nulls)
    column, of = quoted(name), quoted(table.name)
    storage = frozenset(
        kind
        for (kind,) in connection.execute(f"SELECT DISTINCT typeof({column}) FROM {of}")
        if kind != "null"
    )
    (large,) = connection.execute(
        f"SELECT EXISTS (SELECT 1 FROM {of} WHERE typeof({column}) = 'integer'"
        f" AND {column} NOT BETWEEN -(1 << 53) AND 1 << 53)"
    ).fetchone()
    return Evidence(misfits, example, storage, not large, longest or 0, nulls)


def unreadable(connection: sqlite3.Connection, table: SourceTable) -> dict[str, str]:
    """Return the generated columns that can't be computed here, and why.

    Their expressions may call functions that only the application has, or that are not to be
    called by what stands in a file.
    """
    found = {}
    for column in table.columns:
        if column.generated:
            try:
                connection.execute(f"SELECT count({quoted(column.name)}) FROM {quoted(table.name)}")
            except sqlite3.OperationalError as error:
                found[column.name] = str(error)
    return found
