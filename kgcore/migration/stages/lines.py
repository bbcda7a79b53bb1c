"""Lines: rows as text COPY, unjudged, for comparing with what is stored and never for storing.

Verification reads every row once more, so this is the careful lane's fast path: text stays the
bytes that SQLite holds, and the server alone judges it. The server takes more than may be stored
('now', a second 60, a BLOB as text); such a row was refused when it was loaded, and verification
finds it among the rejects. What the server refuses, :mod:`check` then looks at value by value.
"""

from collections.abc import Callable, Sequence
from typing import Any

from kgcore.model import Kind, Table

_NULL = b"\\N"
_ESCAPES = ((b"\\", b"\\\\"), (b"\t", b"\\t"), (b"\n", b"\\n"), (b"\r", b"\\r"))
# Stand between values, and for NULL, while a column is one string: escaping it as a whole is three
# times as fast as value by value. Where the text has them itself, it goes value by value.
_BETWEEN, _NOTHING = b"\x1f", b"\x1e"


def unjudged(table: Table, rows: Sequence[tuple[Any, ...]]) -> bytes:
    """Return the rows (text as bytes, columns in the table's order) as lines of text COPY."""
    cells = zip(*rows, strict=True)
    columns = [
        _COLUMNS.get(column.kind, _texts)(values)
        for column, values in zip(table.columns, cells, strict=True)
    ]
    return b"\n".join(map(b"\t".join, zip(*columns, strict=True))) + b"\n"


def _numbers(cells: Sequence[Any]) -> list[bytes]:
    types = set(map(type, cells))
    if types == {int}:
        return "\n".join(map(str, cells)).encode().split(b"\n")
    if types == {float}:
        return "\n".join(map(repr, cells)).encode().split(b"\n")
    return list(map(_one, cells))


def _texts(cells: Sequence[Any]) -> list[bytes]:
    types = set(map(type, cells))
    if types == {bytes}:
        whole = _BETWEEN.join(cells)
    elif types == {bytes, type(None)}:
        whole = _BETWEEN.join([_NOTHING if cell is None else cell for cell in cells])
    else:
        return list(map(_one, cells))
    nothings = cells.count(None)
    if whole.count(_BETWEEN) != len(cells) - 1 or whole.count(_NOTHING) != nothings:
        return list(map(_one, cells))
    for raw, escaped in _ESCAPES:
        whole = whole.replace(raw, escaped)
    texts = whole.split(_BETWEEN)
    return [_NULL if text == _NOTHING else text for text in texts] if nothings else texts


def _blobs(cells: Sequence[Any]) -> list[bytes]:
    return [
        b"\\\\x" + cell.hex().encode() if isinstance(cell, bytes) else _one(cell) for cell in cells
    ]


def _one(cell: Any) -> bytes:
    if cell is None:
        return _NULL
    if not isinstance(cell, bytes):
        return repr(cell).encode()
    text = bytes(cell)
    for raw, escaped in _ESCAPES:
        text = text.replace(raw, escaped)
    return text


_COLUMNS: dict[Kind, Callable[[Sequence[Any]], list[bytes]]] = {
    Kind.KEY: _numbers,
    Kind.ROW: _numbers,
    Kind.NUMERIC: _numbers,
    Kind.INTEGER: _numbers,
    Kind.REAL: _numbers,
    Kind.BLOB: _blobs,
}
