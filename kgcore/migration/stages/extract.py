"""Extract: read a chunk of the source snapshot, by either lane.

The fast lane reads Arrow through ADBC's SQLite driver. The careful lane reads rows through
``sqlite3`` and knows nothing of Arrow, so that a fault of one can't hide in both.

Only the private copy is ever opened here, which nobody writes: ``immutable=1`` is right on it.
"""

import itertools
import logging
import os
import sqlite3
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from functools import lru_cache
from pathlib import Path
from typing import Any
from urllib.parse import quote

import pyarrow as pa
from adbc_driver_sqlite import dbapi

from kgcore.migration.model import Chunk, InvalidText, PlannedTable, RawRow
from kgcore.migration.words import (
    NULL,
    READ_AS_VALUES,
    SEPARATOR,
    Said,
    Words,
    is_clear,
    of_values,
)
from kgcore.model import INTEGERS, Column, Kind
from kgcore.schema import quoted
from kgcore.schema.translate.inspect import declared_types
from kgcore.schema.translate.sql import fold_ascii
from kgcore.schema.translate.types import affinity

_log = logging.getLogger(__name__)

#: A row of the careful lane. Text that is not UTF-8 comes as :class:`InvalidText`.
Row = tuple[Any, ...]

#: Rows read at a time by the careful lane: fewer and the price of a batch shows, more and they
#: no longer fit the processor's cache (5,000 took 1.1 times as long).
BATCH_ROWS = 2_000

# The copy can't be cut while it is mapped: it is private. Without, reading took 1.07 times as long.
_MAPPED = "PRAGMA mmap_size=1073741824"

# What ADBC makes other values of, because of others in the column: a REAL becomes text in a form of
# its own, an integer a double, and all that stands among BLOBs a BLOB.
_PROMOTED = {
    Kind.TEXT: "typeof({c}) = 'real'",
    Kind.JSON: "typeof({c}) = 'real'",
    Kind.REAL: "typeof({c}) = 'integer' AND {c} NOT BETWEEN -(1 << 53) AND 1 << 53",
    Kind.BLOB: "typeof({c}) NOT IN ('blob', 'null')",
}
_STORED = {Kind.TEXT: Kind.TEXT, Kind.JSON: Kind.TEXT, Kind.REAL: Kind.REAL, Kind.BLOB: Kind.BLOB}
# The storage classes of a kind's values, besides NULL, which SQLite's words can tell apart.
_STORAGE = {
    **dict.fromkeys(INTEGERS, ("integer",)),
    **dict.fromkeys((Kind.TIMESTAMP, Kind.DATE), ("text",)),
    Kind.BLOB: ("blob",),
    Kind.NUMERIC: ("integer", "real", "text"),
}
_TEXTUAL = ("text", "integer")
# An integer overflow, by which SQLite ends the query; it is computed only where it is met.
_FAILING = "abs(-9223372036854775807 - 1)"


class UnreadableError(Exception):
    """ADBC can't read the chunk as one batch; the careful lane reads it."""


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
    connection.execute(_MAPPED)
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
            cursor.execute(_MAPPED)
            cursor.adbc_statement.set_options(**{"adbc.sqlite.query.batch_rows": chunk.rows + 1})
            cursor.execute(_select(_guarded(path, planned), chunk))
            batches = cursor.fetch_arrow_table().to_batches()
    except (dbapi.Error, pa.ArrowException) as error:
        raise UnreadableError(str(error)) from None
    if len(batches) != 1:
        raise UnreadableError(f"{len(batches)} batches where one was expected")
    return batches[0]


def _guarded(path: Path, planned: PlannedTable) -> PlannedTable:
    """Let the query fail at values that ADBC would make other values of, in silence.

    Where the column's declared type lets SQLite store no such value, nothing needs to be asked.
    """
    kept = kept_kinds(path, planned.source.table)
    reads = tuple(
        f"iif({_PROMOTED[column.kind].format(c=read)}, {_FAILING}, {read})"
        if column.kind in _PROMOTED and read in kept and kept[read] is not _STORED[column.kind]
        else read
        for column, read in zip(planned.table.columns, planned.source.reads, strict=True)
    )
    return replace(planned, origin=replace(planned.source, reads=reads))


@lru_cache(maxsize=256)
def kept_kinds(path: Path, table: str) -> Mapping[str, Kind | None]:
    """Return the kind that SQLite makes of a column's numbers, if it is but one.

    They come by what SQLite is asked for: the name with small letters, quoted.

    A declared type of text makes text of them, one of REAL makes reals of integers. See
    https://www.sqlite.org/datatype3.html, 3.1.
    """
    connection = open_snapshot(path)
    try:
        declared = declared_types(connection, table)
    finally:
        connection.close()
    return {quoted(fold_ascii(name)): _kept_kind(kind) for name, kind in declared.items()}


def _kept_kind(declared: str) -> Kind | None:
    kind = affinity(declared)
    return kind if kind in {Kind.TEXT, Kind.REAL} else None


def read_rows(path: Path, planned: PlannedTable, chunk: Chunk) -> Iterator[list[Row]]:
    """Yield the chunk's rows in order of id, at most :data:`BATCH_ROWS` at a time."""
    lower = chunk.lower
    connection = open_snapshot(path)
    try:
        while True:
            rows = connection.execute(_select(planned, replace(chunk, lower=lower)))
            try:
                while batch := rows.fetchmany(BATCH_ROWS):
                    yield batch
                    lower = batch[-1][0] + 1
            except sqlite3.OperationalError as error:
                if "UTF-8" not in str(error):
                    raise
                # Only what is left, because decoding by Python itself takes longer.
                connection.text_factory = _decoded
            else:
                return
    finally:
        connection.close()


def read_words(
    path: Path, planned: PlannedTable, chunk: Chunk, without: Sequence[int] = ()
) -> Words | None:
    """Return the chunk's rows in order of id as SQLite writes them, without some of them.

    None where words would not say it all: a value is not of its column's kind, text holds what
    stands between words, or there is too much of it.
    """
    reads, rows_of = _rows_of(planned, chunk, without)
    columns = tuple(zip(planned.table.columns, reads, strict=True))
    written = [pair for pair in columns if pair[0].kind not in READ_AS_VALUES]
    valued = [pair for pair in columns if pair[0].kind in READ_AS_VALUES]
    # Of a REAL its values tell it; text is read as bytes, as a BLOB is.
    told = (pair for pair in columns if pair[0].kind is not Kind.REAL)
    of_their_kinds = " AND ".join(itertools.starmap(_is_of_its_kind, told))
    connection = open_snapshot(path)
    connection.text_factory = bytes
    try:
        rows, of_kind, *found = connection.execute(
            f"SELECT count(*), count(CASE WHEN {of_their_kinds} THEN 1 END),"
            f" {', '.join(_joined(read) for _, read in written)} {rows_of}"
        ).fetchone()
        if rows != of_kind:
            return None
        if rows == 0:
            return Words(0, dict.fromkeys(planned.table.column_names, Said(b"", 0)))
        said = {
            column.name: Said(words, rows - filled)
            for (column, _), filled, words in zip(written, found[::2], found[1::2], strict=True)
        }
        for name, of_column in _said_by_values(
            connection, valued, f"{rows_of} ORDER BY {reads[0]}"
        ):
            if of_column is None:
                return None
            said[name] = of_column
    except (sqlite3.OperationalError, sqlite3.DataError) as error:
        _log.info("%s is not compared by words: %s", chunk, error)
        return None
    finally:
        connection.close()
    return Words(rows, said) if all(is_clear(one, rows) for one in said.values()) else None


def _said_by_values(
    connection: sqlite3.Connection, valued: Sequence[tuple[Column, str]], rows_of: str
) -> Iterator[tuple[str, Said | None]]:
    if not valued:
        return
    asked = ", ".join(read for _, read in valued)
    rows = connection.execute(f"SELECT {asked} {rows_of}").fetchall()
    for place, (column, _) in enumerate(valued):
        yield column.name, of_values(column.kind, [row[place] for row in rows])


def read_raw(path: Path, planned: PlannedTable, ids: Sequence[int]) -> Iterator[RawRow]:
    """Yield the rows of these ids whole: storage classes and original bytes."""
    connection = open_snapshot(path)
    try:
        connection.text_factory = _RawText
        names = planned.table.column_names
        for query in _queries_of(planned, ids):
            for row in connection.execute(query):
                storage, values = zip(*map(_raw, row), strict=True)
                yield RawRow(row[0], names, storage, values)
    finally:
        connection.close()


def typed(raw: RawRow) -> Row:
    """Return a row whole as the careful lane reads it."""
    return tuple(map(_typed, raw.storage, raw.values))


def _queries_of(planned: PlannedTable, ids: Sequence[int]) -> Iterator[str]:
    if planned.source.order:
        for row_id in ids:
            yield _select(planned, Chunk(planned.table.name, row_id, row_id + 1, 1))
        return
    key = planned.source.reads[0]
    for start in range(0, len(ids), 500):
        # In the text, as the bounds of a chunk: they are integers of SQLite itself.
        listed = ", ".join(_integer(row_id) for row_id in ids[start : start + 500])
        yield f"{_selection(planned)} WHERE {key} IN ({listed}) ORDER BY 1"


def _rows_of(
    planned: PlannedTable, chunk: Chunk, without: Sequence[int]
) -> tuple[Sequence[str], str]:
    """Return what to ask for each column, and where: FROM and WHERE.

    SQLite walks over the ids then, so rows come in their order also where none is asked for; but
    for ids of a table's own without an index, of which words then say nothing.
    """
    if planned.source.order:
        reads: Sequence[str] = tuple(map(quoted, planned.table.column_names))
        rows = f"FROM ({_select_by_place(planned, chunk)}) WHERE true"
    else:
        reads = planned.source.reads
        rows = f"FROM {quoted(planned.source.table)} WHERE {_within(reads[0], chunk)}"
    if without:
        rows += f" AND {reads[0]} NOT IN ({', '.join(map(_integer, without))})"
    return reads, rows


def _is_of_its_kind(column: Column, read: str) -> str:
    # Of these forms the quickest: IN takes twice as long.
    classes = (f"typeof({read}) = '{name}'" for name in _STORAGE.get(column.kind, _TEXTUAL))
    return f"({' OR '.join(classes)} OR {read} IS NULL)"


def _joined(read: str) -> str:
    """Return what gives the number of values that are not NULL, and the words of all."""
    return f"count({read}), group_concat(ifnull({read}, '{NULL}'), '{SEPARATOR}')"


def _select(planned: PlannedTable, chunk: Chunk) -> str:
    """The bounds stand in the text: they are integers, and ADBC binds through Arrow."""
    if planned.source.order:
        return _select_by_place(planned, chunk)
    within = _within(planned.source.reads[0], chunk)
    return f"{_selection(planned)} WHERE {within} ORDER BY 1"


def _within(key: str, chunk: Chunk) -> str:
    end = "" if chunk.upper is None else f" AND {key} < {_integer(chunk.upper)}"
    return f"{key} >= {_integer(chunk.lower)}{end}"


def _select_by_place(planned: PlannedTable, chunk: Chunk) -> str:
    """Rows without an id: count from the nearest place before them whose key is known."""
    origin = planned.source
    place, key = max((seek for seek in origin.seeks if seek[0] <= chunk.lower), default=(0, ""))
    keys = ", ".join(origin.order)
    where = f" WHERE ({keys}) >= ({key})" if key else ""
    rows = -1 if chunk.upper is None else chunk.upper - chunk.lower
    columns = ", ".join(_named_reads(planned)[1:])
    return (
        f"SELECT {chunk.lower - 1:d} + row_number() OVER (ORDER BY {keys}) AS"
        f" {quoted(planned.table.key.name)}, {columns} FROM (SELECT * FROM"
        f" {quoted(origin.table)}{where} ORDER BY {keys} LIMIT {rows:d}"
        f" OFFSET {chunk.lower - place:d}) ORDER BY 1"
    )


def _integer(value: int) -> str:
    # -9223372036854775808 as a literal would be the negation of an out-of-range number: a double.
    return f"{value:d}" if value > -(2**63) else "(-9223372036854775807 - 1)"


def _selection(planned: PlannedTable) -> str:
    return f"SELECT {', '.join(_named_reads(planned))} FROM {quoted(planned.source.table)}"


def _named_reads(planned: PlannedTable) -> list[str]:
    return [
        f"{read} AS {quoted(name)}"
        for read, name in zip(planned.source.reads, planned.table.column_names, strict=True)
    ]


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


def _typed(storage: str, raw: bytes | None) -> object:
    match storage:
        case "integer":
            return int(raw or b"")
        case "real":
            return float(raw or b"")
        case "text":
            return _decoded(raw or b"")
    return raw  # A BLOB, or NULL.
