"""Look at the values of a table, in one pass: which break what their column's type promises."""

import sqlite3
from collections.abc import Collection
from dataclasses import replace

from kgcore.model import Kind
from kgcore.schema.sqlite import quoted
from kgcore.schema.translate.encoding import Encoding
from kgcore.schema.translate.magnitudes import Magnitudes
from kgcore.schema.translate.source import SourceTable
from kgcore.schema.translate.sql import fold_ascii
from kgcore.schema.translate.types import ODD_TEXT, Evidence, Operand, misfit

# SQLite takes 2,000 columns in a SELECT; of a column three are asked at most.
_COLUMNS_AT_A_TIME = 600


def look(
    connection: sqlite3.Connection, table: SourceTable, promises: dict[str, Kind | None]
) -> dict[str, Evidence]:
    """Return for each of the columns what its values say of its promised kind.

    How long its texts are, and how many NULLs it has, is looked up where a key or an index asks.
    """
    names = list(promises)
    found: dict[str, Evidence] = {}
    for start in range(0, len(names), _COLUMNS_AT_A_TIME):
        some = {name: promises[name] for name in names[start : start + _COLUMNS_AT_A_TIME]}
        found |= _look(connection, table, some)
    return found


def _look(
    connection: sqlite3.Connection, table: SourceTable, promises: dict[str, Kind | None]
) -> dict[str, Evidence]:
    indexed = _indexed(table)
    encoding = Encoding(connection)
    asked = []
    for name, promise in promises.items():
        column = quoted(name)
        in_index = fold_ascii(name) in indexed
        asked += [
            f"count(*) FILTER (WHERE {_broken(promise, column)})",
            f"max(length({encoding.as_utf8(column)}))" if in_index else "0",
            f"count(*) - count({column})" if in_index else "0",
        ]
    row = connection.execute(f"SELECT {', '.join(asked)} FROM {quoted(table.name)}").fetchone()
    found = {}
    for place, (name, promise) in zip(range(0, len(row), 3), promises.items(), strict=True):
        misfits, longest, nulls = row[place : place + 3]
        evidence = Evidence(longest=longest or 0, nulls=nulls)
        if misfits:
            evidence = _contradicted(connection, table, name, promise, evidence)
        found[name] = replace(evidence, misfits=misfits)
    return found


def _contradicted(
    connection: sqlite3.Connection,
    table: SourceTable,
    name: str,
    promise: Kind | None,
    evidence: Evidence,
) -> Evidence:
    """Add what the values are, where they are not what was promised, or nothing was."""
    column, of = quoted(name), quoted(table.name)
    storage = dict(
        connection.execute(
            f"SELECT typeof({column}), count(*) FROM {of} WHERE {column} IS NOT NULL GROUP BY 1"
        )
    )
    (large,) = connection.execute(
        f"SELECT EXISTS (SELECT 1 FROM {of} WHERE typeof({column}) = 'integer'"
        f" AND {column} NOT BETWEEN -(1 << 53) AND 1 << 53)"
    ).fetchone()
    example = None
    if promise is not None and table.row_id is not None:
        (example,) = connection.execute(
            f"SELECT {table.row_id} FROM {of} WHERE {_broken(promise, column)} LIMIT 1"
        ).fetchone()
    return replace(evidence, example=example, storage=storage, integers_fit=not large)


def _broken(promise: Kind | None, column: str) -> str:
    return f"{column} IS NOT NULL" if promise is None else misfit(promise, column)


def _indexed(table: SourceTable) -> frozenset[str]:
    """Return the columns of keys and indexes in lower case: all, where one is on an expression."""
    terms = [term for index in table.indexes for term in index.terms]
    if any(term.name is None for term in terms):
        return frozenset(fold_ascii(column.name) for column in table.columns)
    return frozenset(fold_ascii(term.name) for term in terms if term.name)


def look_at_operands(
    connection: sqlite3.Connection, table: SourceTable, names: Collection[str]
) -> dict[str, Operand]:
    """Return what expressions meet in some columns of the table, by names in lower case."""
    encoding = Encoding(connection)
    wanted, found = sorted(names), dict[str, Operand]()
    for start in range(0, len(wanted), _COLUMNS_AT_A_TIME):
        some = wanted[start : start + _COLUMNS_AT_A_TIME]
        asked = []
        for name in some:
            column = quoted(name)
            size = f"abs(CAST({column} AS REAL))"
            asked += [
                f"group_concat(DISTINCT CASE WHEN typeof({column}) = 'text'"
                f" AND {encoding.is_odd(column)} THEN '{ODD_TEXT}' ELSE typeof({column}) END)",
                f"min(nullif({size}, 0.0))",
                f"max({size})",
            ]
        row = connection.execute(f"SELECT {', '.join(asked)} FROM {quoted(table.name)}").fetchone()
        for place, name in zip(range(0, len(row), 3), some, strict=True):
            classes, smallest, largest = row[place : place + 3]
            bounds = Magnitudes(smallest or 1.0, max(largest or 0.0, smallest or 1.0))
            found[name] = Operand(frozenset((classes or "").split(",")) - {"", "null"}, bounds)
    return found


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
