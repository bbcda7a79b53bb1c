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
}


def arrow_field(column: Column) -> pa.Field:
    """Return the field a column has on its way to PostgreSQL's binary COPY."""
    return pa.field(column.name, _TYPES[column.kind], nullable=True)


def arrow_schema(table: Table) -> pa.Schema:
    """Return the Arrow schema of a table: what the fast lane encodes."""
    return pa.schema([arrow_field(column) for column in table.columns])


def read_type(column: Column) -> pa.DataType:
    """Return the type SQLite's values of this column must have been read as.

    Timestamps are text in SQLite; every other kind is read as what it becomes.
    """
    return pa.string() if column.kind is Kind.TIMESTAMP else _TYPES[column.kind]
