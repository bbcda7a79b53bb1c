"""Encode, fast lane: an Arrow batch becomes PostgreSQL's binary COPY.

A batch is encoded only if each column was read as exactly the type its description expects.
Anything else (a REAL among integers, a BLOB among text, a timestamp Arrow can't read to the
microsecond) is :class:`UnsuitedError`, and the careful lane looks at it value by value.
"""

from collections.abc import Iterator

import pgpq
import pyarrow as pa
import pyarrow.compute as pc
from pgpq import encoders, schema

from kgcore.model import Column, Kind, Table
from kgcore.schema.arrow import CAREFUL_ONLY, arrow_field, arrow_schema, read_type
from kgcore.schema.postgres import LONGEST_KEY

# Memory of so small a piece is used again: encoding 50,000 rows at once took 1.5 times as long,
# for pages that are new each time.
_PIECE_ROWS = 5_000

_UTC = pa.timestamp("us", "UTC")
_NAIVE = pa.timestamp("us")
_ZONE = r"[T ].*(Z|[+-]\d\d(:?\d\d)?)$"
# Years 0001 to 9999. Arrow reads "0000-01-01" as well; what that means is for the careful lane.
_BITS = pa.array([0, 1], pa.int64())
_ISO_DAY = r"^\d{4}-\d\d-\d\d$"
_FIRST = pa.scalar(-62_135_596_800_000_000, pa.int64())
_LAST = pa.scalar(253_402_300_799_999_999, pa.int64())


class UnsuitedError(Exception):
    """The batch is not what the fast lane was made for. Not an error: a reason to look closer."""


def require_suited(table: Table) -> None:
    """Raise :class:`UnsuitedError` for a table of which no batch can be encoded."""
    for column in table.columns:
        if column.kind in CAREFUL_ONLY:
            raise UnsuitedError(f"{column.name} is {column.kind}")


def encode(table: Table, batch: pa.RecordBatch) -> Iterator[bytes]:
    """Return the batch as one complete binary COPY stream in pieces that suit the processor.

    Raises :class:`UnsuitedError` before the first piece.
    """
    columns = [
        _cast(column, batch.column(position)) for position, column in enumerate(table.columns)
    ]
    for names in table.text_keys:
        positions = (table.column_names.index(name) for name in names)
        if sum(_longest(columns[position]) for position in positions) > LONGEST_KEY:
            raise UnsuitedError(f"text too long for the index on ({', '.join(names)})")
    return _pieces(table, pa.RecordBatch.from_arrays(columns, schema=arrow_schema(table)))


def _pieces(table: Table, cast: pa.RecordBatch) -> Iterator[bytes]:
    encoder = pgpq.ArrowToPostgresBinaryEncoder.new_with_encoders(
        cast.schema, {column.name: _encoder(column) for column in table.columns}
    )
    yield encoder.write_header()
    for start in range(0, len(cast), _PIECE_ROWS):
        yield encoder.write_batch(cast.slice(start, _PIECE_ROWS))
    yield encoder.finish()


def _longest(values: pa.Array) -> int:
    return pc.max(pc.binary_length(values)).as_py() or 0


def _encoder(column: Column) -> object:
    field = arrow_field(column)
    if column.kind is Kind.JSON:
        return encoders.StringEncoderBuilder.new_with_output(field, schema.Jsonb())
    return pgpq.ArrowToPostgresBinaryEncoder.infer_encoder(field)


def _cast(column: Column, values: pa.Array) -> pa.Array:
    expected = read_type(column)
    if values.null_count == len(values):
        # ADBC types a column without values as int64.
        return pa.nulls(len(values), arrow_field(column).type)
    if values.type != expected:
        raise UnsuitedError(f"{column.name} holds {values.type} where {expected} belongs")
    if column.kind is Kind.BOOLEAN:
        return _booleans(column, values)
    if column.kind is Kind.DATE:
        return _days(column, values)
    if column.kind is not Kind.TIMESTAMP:
        return values
    instants = _instants(column, values)
    micros = instants.cast(pa.int64())
    if pc.min(micros).as_py() < _FIRST.as_py() or pc.max(micros).as_py() > _LAST.as_py():
        raise UnsuitedError(f"{column.name} holds a year outside 0001 to 9999")
    return instants


def _booleans(column: Column, values: pa.Array) -> pa.Array:
    if not pc.all(pc.is_in(values.drop_null(), _BITS)).as_py():
        raise UnsuitedError(f"{column.name} holds more than 0 and 1")
    return pc.cast(values, pa.bool_())


def _days(column: Column, values: pa.Array) -> pa.Array:
    if not pc.all(pc.match_substring_regex(values, _ISO_DAY)).as_py():
        raise UnsuitedError(f"{column.name} holds what is no ISO 8601 date")
    if pc.any(pc.starts_with(values, "0000")).as_py():
        raise UnsuitedError(f"{column.name} holds a year 0")
    try:
        return pc.cast(values, pa.date32())
    except pa.ArrowInvalid as error:
        raise UnsuitedError(f"{column.name}: {error}") from None


def _instants(column: Column, values: pa.Array) -> pa.Array:
    """Cast text to instants. Those without a zone mean UTC; Arrow casts them as another type."""
    try:
        return pc.cast(values, _UTC)
    except pa.ArrowInvalid:
        zoned = pc.match_substring_regex(values, _ZONE)
    try:
        return pc.if_else(
            zoned,
            pc.cast(pc.if_else(zoned, values, None), _UTC),
            pc.assume_timezone(pc.cast(pc.if_else(zoned, None, values), _NAIVE), "UTC"),
        )
    except pa.ArrowInvalid as error:
        raise UnsuitedError(f"{column.name}: {error}") from None
