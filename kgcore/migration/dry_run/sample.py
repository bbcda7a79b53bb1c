"""Sample: a few rows of each table loaded for a try, to foretell time and room. Changes nothing.

They go the way of all rows, into TEMP tables with the same columns and indexes, which are gone with
the transaction.
"""

import sqlite3
import time
from collections.abc import Iterator
from contextlib import closing
from dataclasses import dataclass, replace

import psycopg2
from psycopg2 import errors
from psycopg2.extensions import cursor as Cursor  # noqa: N812
from psycopg2.sql import SQL, Identifier, Literal

from kgcore.backends import ConnectionPool
from kgcore.errors import KGError
from kgcore.migration import lanes
from kgcore.migration.ledger import transaction
from kgcore.migration.model import Chunk, PlannedTable
from kgcore.migration.new_run import Prepared
from kgcore.migration.repairs import Repairs
from kgcore.migration.stages import extract, verify
from kgcore.model import Index, Table
from kgcore.schema import postgres as ddl
from kgcore.schema import quoted

# Of each table, from as many places. Of 1.65 million rows these are 1 %, and take half a second.
_ROWS = 2_000
_PLACES = 2

# Of the benchmark's 1.65 million rows: what a row costs two worker processes from freeze to
# cutover, and how many bytes tables and indexes take for each byte of the SQLite file.
_SECONDS_PER_ROW = 1.1e-5
_TARGET_BYTES_PER_SOURCE_BYTE = 1.9

# The two workers that the estimate is for.
_WORKERS = 2

_TEMP = "pg_temp"


@dataclass(frozen=True, slots=True)
class Estimate:
    """Time from freeze to cutover with two workers, room in the target, and what both rest on."""

    seconds: float
    target_bytes: int
    basis: str


def estimate(pool: ConnectionPool | None, prepared: Prepared, repairs: Repairs) -> Estimate:
    """Return what a run will take, by a sample where the target can be asked."""
    if pool is None:
        return _by_constants(prepared, "no target was given")
    try:
        with transaction(pool) as cursor:
            cursor.execute("SAVEPOINT kg_sample")
            tried = [
                _try(cursor, prepared, planned, repairs)
                for planned in prepared.tables
                if planned.rows
            ]
            cursor.execute("ROLLBACK TO SAVEPOINT kg_sample")
    except (psycopg2.Error, KGError) as error:
        return _by_constants(prepared, " ".join(str(error).split()) or type(error).__name__)
    rows = sum(item.rows for item in tried)
    began = sum(prepared.seconds.values())
    return Estimate(
        began + sum(item.all_seconds for item in tried) / _WORKERS,
        int(sum(item.all_bytes for item in tried)),
        f"a sample of {rows:,} rows, loaded into temporary tables of the target and compared there",
    )


def _by_constants(prepared: Prepared, why: str) -> Estimate:
    rows = sum(item.rows for item in prepared.tables)
    return Estimate(
        sum(prepared.seconds.values()) + rows * _SECONDS_PER_ROW,
        int(prepared.source.bytes * _TARGET_BYTES_PER_SOURCE_BYTE),
        f"rates of a benchmark, not of this target: {why}",
    )


@dataclass(frozen=True, slots=True)
class _Tried:
    """What a table's sample took, and how many times as many rows there are."""

    rows: int
    seconds: float
    bytes: int
    scale: float

    @property
    def all_seconds(self) -> float:
        return self.seconds * self.scale

    @property
    def all_bytes(self) -> float:
        return self.bytes * self.scale


def _try(cursor: Cursor, prepared: Prepared, planned: PlannedTable, repairs: Repairs) -> _Tried:
    """Load, index and compare some rows of a table, as load, index and verify steps do."""
    path, table = prepared.source.path, planned.table
    there = Identifier(_TEMP, table.name)
    with closing(extract.open_snapshot(path)) as connection:
        pieces = tuple(_pieces(connection, planned))
    cursor.execute(ddl.create_table(_TEMP, table))
    began = time.monotonic()
    for piece in pieces:
        lanes.load_chunk(cursor, there, path, planned.written, piece, repairs)
    for index in ddl.all_indexes(table):
        _build(cursor, table, index)
    verify.settle(cursor)
    for piece in pieces:
        lanes.equal_rows(cursor, _TEMP, path, planned.written, piece)
    seconds = time.monotonic() - began
    named = Literal(there.as_string(cursor))
    cursor.execute(SQL("SELECT pg_total_relation_size({}::regclass)").format(named))
    (size,) = cursor.fetchone() or (0,)
    rows = sum(piece.rows for piece in pieces)
    return _Tried(rows, seconds, size, planned.rows / rows)


def _build(cursor: Cursor, table: Table, index: Index) -> None:
    """Build an index; where rows repeat each other, one that lets them."""
    cursor.execute("SAVEPOINT kg_index")
    try:
        cursor.execute(ddl.create_index(_TEMP, table, index))
    except errors.UniqueViolation:
        cursor.execute("ROLLBACK TO SAVEPOINT kg_index")
        cursor.execute(ddl.create_index(_TEMP, table, replace(index, unique=False)))


def _pieces(connection: sqlite3.Connection, planned: PlannedTable) -> Iterator[Chunk]:
    """Yield the beginnings of some chunks."""
    chunks = planned.chunks[:: max(1, len(planned.chunks) // _PLACES)][:_PLACES]
    for chunk in chunks:
        if chunk.rows <= _ROWS // _PLACES:
            yield chunk
            continue
        rows = _ROWS // _PLACES
        upper = chunk.lower + rows
        if not planned.source.order:
            key, name = planned.source.reads[0], quoted(planned.source.table)
            (upper,) = connection.execute(
                f"SELECT {key} FROM {name} WHERE {key} >= ? ORDER BY {key} LIMIT 1 OFFSET ?",
                (chunk.lower, rows),
            ).fetchone()
        yield Chunk(chunk.table, chunk.lower, upper, rows)
