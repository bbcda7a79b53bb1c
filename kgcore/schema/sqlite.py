"""SQLite DDL, derived from the description of the tables."""

from collections.abc import Iterator, Sequence

from kgcore.model import Column, Kind, Table
from kgcore.schema.graph import TABLES

#: The first that has PRAGMA table_list; RETURNING came before it.
OLDEST_SQLITE = "3.37"

_TYPES = {
    Kind.KEY: "INTEGER PRIMARY KEY AUTOINCREMENT",
    Kind.INTEGER: "INTEGER",
    Kind.REAL: "REAL",
    Kind.TEXT: "TEXT",
    Kind.BLOB: "BLOB",
    Kind.JSON: "TEXT",
    Kind.TIMESTAMP: "TEXT",
    Kind.DATE: "TEXT",
    Kind.BOOLEAN: "INTEGER",
    Kind.NUMERIC: "NUMERIC",
}
_NOW = "DEFAULT (strftime('%Y-%m-%dT%H:%M:%fZ', 'now'))"


def quoted(name: str) -> str:
    """Quote an identifier for SQLite, or for PostgreSQL in SQL that a person is shown."""
    return '"' + name.replace('"', '""') + '"'


def sqlite_ddl(tables: Sequence[Table] = TABLES) -> tuple[str, ...]:
    """Return the statements that create what is missing; they may be run again and again."""
    return tuple(statement for table in tables for statement in _statements(table))


def _statements(table: Table) -> Iterator[str]:
    lines = [_column(column) for column in table.columns]
    lines += [
        f"UNIQUE ({', '.join(map(quoted, index.columns))})"
        for index in table.indexes
        if index.unique
    ]
    lines += [
        f"FOREIGN KEY ({', '.join(map(quoted, key.columns))}) REFERENCES {quoted(key.table)}"
        f"({', '.join(map(quoted, key.parents))}) ON DELETE {key.on_delete}"
        for key in table.foreign_keys
    ]
    yield f"CREATE TABLE IF NOT EXISTS {quoted(table.name)} (\n  " + ",\n  ".join(lines) + "\n)"
    for index in table.indexes:
        if not index.unique and not index.gin:
            columns = ", ".join(map(quoted, index.columns))
            yield (
                f"CREATE INDEX IF NOT EXISTS {quoted(index.name)}"
                f" ON {quoted(table.name)}({columns})"
            )


def _column(column: Column) -> str:
    parts = [quoted(column.name), _TYPES[column.kind]]
    if column.kind is not Kind.KEY and not column.nullable:
        parts.append("NOT NULL")
        if column.kind is Kind.TIMESTAMP:
            parts.append(_NOW)
    return " ".join(parts)
