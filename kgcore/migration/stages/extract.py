"""Extract: read a chunk of the source snapshot, by either lane.

The fast lane reads Arrow through ADBC's SQLite driver. The careful lane reads rows through
``sqlite3`` and knows nothing of Arrow, so that a fault of one can't hide in both.

Only the private copy is ever opened here, which nobody writes: ``immutable=1`` is right on it.
"""

import os
import sqlite3
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any
from urllib.parse import quote

import pyarrow as pa
from adbc_driver_sqlite import dbapi

from kgcore.migration.model import Chunk, PlannedTable, RawRow
from kgcore.schema import quoted

#: A row of the careful lane. Text that is not UTF-8 comes as :class:`InvalidText`.
Row = tuple[Any, ...]

#: Rows read at a time by the careful lane: fewer and the price of a batch shows, more and they
#: no longer fit the processor's cache (5,000 took 1.1 times as long).
BATCH_ROWS = 2_000


class UnreadableError(Exception):
    """ADBC can't read the chunk as one batch; the careful lane reads it."""


class InvalidText(bytes):
    """A TEXT value whose bytes are not UTF-8."""


class _RawText(bytes):
    """A TEXT value as its bytes, told apart from a BLOB by its class."""


def snapshot_uri(path: Path) -> str:
    """Return the SQLite URI by which the private copy is opened: read-only, without locks."""
    return f"file:{quote(os.fspath(path))}?mode=ro&immutable=1"


def open_snapshot(path: Path) -> sqlite3.Connection:
    """Open the private copy for reading; nothing the file itself defines may run."""
    connection = sqlite3.connect(
        snapshot_uri(path), uri=True, isolation_level=None, check_same_thread=False
    )
    connection.execute("PRAGMA trusted_schema=OFF")
    connection.execute("PRAGMA query_only=ON")
    connection.execute("PRAGMA mmap_size=1073741824")
    return connection


def read_arrow(path: Path, planned: PlannedTable, chunk: Chunk) -> pa.RecordBatch:
    """Read a chunk as one record batch, with the types ADBC inferred from all of its rows.

    ADBC infers a column's type from the first batch and promotes later surprises in silence; with
    one batch for the whole chunk the type that comes out is the type of every row. Raises
    :class:`UnreadableError`.
    """
    try:
        with dbapi.connect(snapshot_uri(path)) as connection, connection.cursor() as cursor:
            cursor.execute("PRAGMA trusted_schema=OFF")
            cursor.adbc_statement.set_options(**{"adbc.sqlite.query.batch_rows": chunk.rows + 1})
            cursor.execute(_select(planned, chunk))
            batches = cursor.fetch_arrow_table().to_batches()
    except (dbapi.Error, pa.ArrowException) as error:
        raise UnreadableError(str(error)) from None
    if len(batches) != 1:
        raise UnreadableError(f"{len(batches)} batches where one was expected")
    return batches[0]


def read_rows(
    path: Path, planned: PlannedTable, chunk: Chunk, *, raw: bool = False
) -> Iterator[list[Row]]:
    """Yield the chunk's rows in order of id, at most :data:`BATCH_ROWS` at a time.

    With ``raw`` text comes as its bytes, as a BLOB does.
    """
    lower = chunk.lower
    connection = open_snapshot(path)
    if raw:
        connection.text_factory = bytes
    try:
        while True:
            part = Chunk(chunk.table, lower, chunk.upper, BATCH_ROWS)
            batch = _fetch(connection, f"{_select(planned, part)} LIMIT {BATCH_ROWS}")
            if batch:
                yield batch
            if len(batch) < BATCH_ROWS:
                return
            lower = batch[-1][0] + 1
            if lower == chunk.upper or lower > 2**63 - 1:
                return
    finally:
        connection.close()


def read_raw(path: Path, planned: PlannedTable, ids: Sequence[int]) -> Iterator[RawRow]:
    """Yield the rows of these ids whole: storage classes and original bytes."""
    connection = open_snapshot(path)
    try:
        connection.text_factory = _RawText
        names = planned.table.column_names
        source = _columns(planned)
        key = quoted(planned.table.key.name)
        for start in range(0, len(ids), 500):
            some = ids[start : start + 500]
            marks = ", ".join("?" * len(some))
            rows = connection.execute(
                f"SELECT {source} FROM {quoted(planned.table.name)} WHERE {key} IN ({marks})"
                f" ORDER BY {key}",
                some,
            )
            for row in rows:
                storage, values = zip(*map(_raw, row), strict=True)
                yield RawRow(row[0], names, storage, values)
    finally:
        connection.close()


def _select(planned: PlannedTable, chunk: Chunk) -> str:
    """The bounds stand in the text: they are integers, and ADBC binds through Arrow."""
    key = quoted(planned.table.key.name)
    end = "" if chunk.upper is None else f" AND {key} < {chunk.upper:d}"
    # -9223372036854775808 as a literal would be the negation of an out-of-range number: a double.
    start = f"{key} >= {chunk.lower:d}" if chunk.lower > -(2**63) else f"{key} IS NOT NULL"
    return (
        f"SELECT {_columns(planned)} FROM {quoted(planned.table.name)}"
        f" WHERE {start}{end} ORDER BY {key}"
    )


def _columns(planned: PlannedTable) -> str:
    return ", ".join(
        f"NULL AS {quoted(name)}" if name in planned.absent else quoted(name)
        for name in planned.table.column_names
    )


def _fetch(connection: sqlite3.Connection, query: str) -> list[Row]:
    try:
        return connection.execute(query).fetchall()
    except sqlite3.OperationalError as error:
        if "UTF-8" not in str(error):
            raise
    connection.text_factory = _decoded
    try:
        return connection.execute(query).fetchall()
    finally:
        connection.text_factory = str


def _decoded(raw: bytes) -> str | InvalidText:
    try:
        return raw.decode()
    except UnicodeDecodeError:
        return InvalidText(raw)


def _raw(value: object) -> tuple[str, bytes | None]:
    match value:
        case None:
            return "null", None
        case int():
            return "integer", str(value).encode()
        case float():
            return "real", repr(value).encode()
        case _RawText():
            return "text", bytes(value)
        case bytes():
            return "blob", value
    raise TypeError(f"SQLite gave a {type(value).__name__}")
