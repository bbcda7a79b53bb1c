"""Pack: the source's own values as binary COPY, for comparing with what is stored, never to store.

Verification reads every row once more, so this is the careful lane's quick way. It has neither the
reader nor the encoder of the fast lane: rows come from ``sqlite3``, their bytes are put together
here. Nothing is judged: what has another form in SQLite (timestamps, dates, booleans, decimals)
goes as its own words, which the server reads when it compares.

The layout is that of https://www.postgresql.org/docs/current/sql-copy.html, Binary Format.
"""

import sys
from array import array
from collections.abc import Callable, Iterable, Iterator, Sequence
from functools import lru_cache
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from kgcore.model import INTEGERS, Column, Kind, Table

_HEADER = b"PGCOPY\n\xff\r\n\x00" + bytes(8)
_TRAILER = b"\xff\xff"
_NULL = b"\xff\xff\xff\xff"
# Integers up to this are doubles, each its own.
_EXACT = 2**53


def _constant(value: bytes) -> pa.Scalar:
    return pa.scalar(value, pa.binary())


_NOTHING = _constant(b"")
_EIGHT_BYTES = _constant(b"\x00\x00\x00\x08")
_JSONB_VERSION = _constant(b"\x01")


class UnpackableError(Exception):
    """A value is not of its column's kind. Not an error: a reason to look value by value."""


def packed_kind(column: Column) -> Kind:
    """Return the kind as which a column's values are sent; text is for the server to read."""
    if column.kind in INTEGERS:
        return Kind.INTEGER
    return column.kind if column.kind in _FIELDS else Kind.TEXT


def pack(table: Table, batches: Iterable[Sequence[tuple[Any, ...]]]) -> Iterator[bytes | pa.Buffer]:
    """Yield a binary COPY stream of rows: columns in the table's order, text as its bytes.

    Raises :class:`UnpackableError`.
    """
    yield _HEADER
    for rows in batches:
        try:
            yield _tuples(table, rows)
        except (pa.ArrowException, TypeError, OverflowError) as error:
            raise UnpackableError(str(error)) from None
    yield _TRAILER


def _tuples(table: Table, rows: Sequence[tuple[Any, ...]]) -> pa.Buffer:
    parts = [_constant(len(table.columns).to_bytes(2, "big"))]
    for column, cells in zip(table.columns, zip(*rows, strict=True), strict=True):
        parts += _FIELDS[packed_kind(column)](cells)
    tuples = pc.binary_join_element_wise(
        *parts, _NOTHING, null_handling="replace", null_replacement=_NULL
    )
    return tuples.buffers()[2][: tuples.total_values_length]


# Each of these returns what is joined to a column's fields. Where there are NULLs it is one array
# that is null there, too.
_Parts = list[pa.Scalar | pa.Array]


def _integers(cells: Sequence[Any]) -> _Parts:
    return _eight_bytes("q", cells, {int})


def _reals(cells: Sequence[Any]) -> _Parts:
    # SQLite keeps an integer among reals as it is; the server would round it in silence.
    if any(isinstance(cell, int) and not -_EXACT <= cell <= _EXACT for cell in cells):
        raise UnpackableError("an integer that no double equals")
    return _eight_bytes("d", cells, {int, float})


def _eight_bytes(code: str, cells: Sequence[Any], types: set[type]) -> _Parts:
    found = set(map(type, cells))
    if not found <= types | {type(None)}:
        raise UnpackableError(f"{found} where numbers belong")
    if type(None) not in found:
        return [_EIGHT_BYTES, _big_endian(array(code, cells))]
    present = pa.array([cell is not None for cell in cells])
    numbers = _big_endian(array(code, [0 if cell is None else cell for cell in cells]))
    fields = pc.binary_join_element_wise(_EIGHT_BYTES, numbers, _NOTHING)
    return [pc.if_else(present, fields, None)]


def _texts(cells: Sequence[Any]) -> _Parts:
    return _sized(cells)


def _documents(cells: Sequence[Any]) -> _Parts:
    return _sized(cells, _JSONB_VERSION)


def _blobs(cells: Sequence[Any]) -> _Parts:
    if not set(map(type, cells)) <= {bytes, type(None)}:
        raise UnpackableError("a number where bytes belong")
    return _sized(cells)


def _sized(cells: Sequence[Any], *before: pa.Scalar) -> _Parts:
    """Return each cell with its length in front, which counts what stands ``before`` it, too."""
    if not set(map(type, cells)) <= {bytes, type(None)}:
        cells = [_word(cell) for cell in cells]
    values = pa.array(cells, pa.binary())
    if isinstance(values, pa.ChunkedArray):
        raise UnpackableError("more than 2 GiB in one column of a batch")
    lengths = pc.binary_length(values).fill_null(0)
    if before:
        more = sum(len(scalar.as_py()) for scalar in before)
        lengths = pc.add(lengths, pa.scalar(more, lengths.type))
    sizes = array("i")
    sizes.frombytes(lengths.buffers()[1][: 4 * len(lengths)])
    parts = [_big_endian(sizes), *before, values]
    return [pc.binary_join_element_wise(*parts, _NOTHING)] if values.null_count else parts


def _word(cell: Any) -> bytes | None:
    return cell if cell is None or isinstance(cell, bytes) else repr(cell).encode()


def _big_endian(numbers: "array[Any]") -> pa.BinaryArray:
    if sys.byteorder == "little":
        numbers.byteswap()
    offsets = _offsets(len(numbers), numbers.itemsize)
    return pa.BinaryArray.from_buffers(
        pa.binary(), len(numbers), [None, offsets, pa.py_buffer(numbers)]
    )


@lru_cache(maxsize=8)
def _offsets(number: int, width: int) -> pa.Buffer:
    return pa.py_buffer(array("i", range(0, width * (number + 1), width)))


_FIELDS: dict[Kind, Callable[[Sequence[Any]], _Parts]] = {
    Kind.INTEGER: _integers,
    Kind.REAL: _reals,
    Kind.TEXT: _texts,
    Kind.JSON: _documents,
    Kind.BLOB: _blobs,
}
