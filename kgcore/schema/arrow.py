"""Arrow types, derived from the description of the tables."""

import pyarrow as pa

from kgcore.model import Column, Kind, Table

_TYPES = {
    Kind.KEY: pa.int64(),
    Kind.INTEGER: pa.int64(),
    Kind.REAL: pa.float64(),
    Kind.TEXT: pa.string(),
    Kind.BLOB: pa.binary(),
    Kind.JSON: pa.string(),
    Kind.TIMESTAMP: pa.timestamp("us", "UTC"),
    Kind.DATE: pa.date32(),
    Kind.BOOLEAN: pa.bool_(),
    Kind.ROW: pa.int64(),
}
# What SQLite has no type of its own for, and how its values are read.
_READ = {Kind.TIMESTAMP: pa.string(), Kind.DATE: pa.string(), Kind.BOOLEAN: pa.int64()}

#: Kinds the fast lane has no encoding for: SQLite's values have no common Arrow type.
CAREFUL_ONLY = frozenset({Kind.NUMERIC})


def arrow_field(column: Column) -> pa.Field:
    """Return the field a column has on its way to PostgreSQL's binary COPY."""
    return pa.field(column.name, _TYPES[column.kind], nullable=True)


def arrow_schema(table: Table) -> pa.Schema:
    """Return the Arrow schema of a table: what the fast lane encodes."""
    return pa.schema([arrow_field(column) for column in table.columns])


def read_type(column: Column) -> pa.DataType:
    """Return the type SQLite's values of this column must have been read as.

    Timestamps and dates are text in SQLite, booleans are integers; every other kind is read as what
    it becomes.
    """
    return _READ.get(column.kind) or _TYPES[column.kind]
