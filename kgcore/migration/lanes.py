"""The two lanes of a chunk: how it is loaded, and how it is read again to be verified.

A lane can be asked for by itself, which the tests do to hold the one against the other.
"""

import logging
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from psycopg2.extensions import cursor as Cursor  # noqa: N812
from psycopg2.sql import Identifier

from kgcore.migration.model import Chunk, PlannedTable, Refusal, Repaired
from kgcore.migration.repairs import Repairs
from kgcore.migration.stages import check, encode, extract, load, verify

_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Loaded:
    """What became of a chunk's rows, and by which lane."""

    rows: int
    lane: str
    refusals: tuple[Refusal, ...] = ()
    repaired: tuple[Repaired, ...] = ()


class RefusedByFastLaneError(Exception):
    """The chunk holds something the fast lane was not made for; nothing was stored."""


def load_chunk(
    cursor: Cursor,
    relation: Identifier,
    source: Path,
    planned: PlannedTable,
    chunk: Chunk,
    repairs: Repairs,
) -> Loaded:
    """Load by the fast lane, or, where that refuses, by the careful one."""
    try:
        return fast(cursor, relation, source, planned, chunk)
    except RefusedByFastLaneError as reason:
        _log.info("%s takes the careful lane: %s", chunk, reason)
    return careful(cursor, relation, source, planned, chunk, repairs)


def fast(
    cursor: Cursor, relation: Identifier, source: Path, planned: PlannedTable, chunk: Chunk
) -> Loaded:
    """Load all rows or none. Raises :class:`RefusedByFastLaneError`."""
    table = planned.table
    try:
        encode.require_suited(table)
        batch = extract.read_arrow(source, planned, chunk)
        rows = load.copy_binary(cursor, relation, table, encode.encode(table, batch))
    except (encode.UnsuitedError, load.CopyRefusedError, extract.UnreadableError) as reason:
        raise RefusedByFastLaneError(str(reason)) from None
    return Loaded(rows, "fast")


def careful(
    cursor: Cursor,
    relation: Identifier,
    source: Path,
    planned: PlannedTable,
    chunk: Chunk,
    repairs: Repairs,
) -> Loaded:
    """Load the rows that fit, or can be made to; say of each other one why it does not."""
    table = planned.table
    rows, refusals, batches = 0, list[Refusal](), list[check.CheckedRows]()
    for batch in extract.read_rows(source, planned, chunk):
        checked = check.check(table, batch, repairs)
        copied = load.copy_each(cursor, relation, table, checked.ids, checked.lines)
        rows += copied.rows
        refusals += checked.refusals + copied.refusals
        batches.append(checked)
    repaired = check.summed(batches, {refusal.row_id for refusal in refusals})
    return Loaded(rows, "careful", tuple(refusals), repaired)


def equal_rows(
    cursor: Cursor,
    staging: str,
    source: Path,
    planned: PlannedTable,
    chunk: Chunk,
    rejected: Sequence[int] = (),
) -> int | None:
    """Return how many of the chunk's rows are in staging, if they are all, each of equal values.

    ``rejected`` are the ids of those that must not be there. None where any differs, is missing or
    one too many; or where that can't be said so quickly. Then what :func:`read_again` reads has to
    be compared.
    """
    words = extract.read_words(source, planned, chunk, rejected)
    if words is None:
        return None
    cursor.execute("SAVEPOINT kg_words")
    if verify.says_the_same(cursor, staging, planned.table, chunk, words):
        return words.rows
    cursor.execute("ROLLBACK TO SAVEPOINT kg_words")
    return None


def read_again(
    cursor: Cursor,
    relation: Identifier,
    source: Path,
    planned: PlannedTable,
    chunk: Chunk,
    repairs: Repairs,
) -> tuple[int, ...]:
    """Put the source's rows as they must be stored into a relation for comparing.

    Returns the ids of rows that can't be stored.
    """
    found = careful(cursor, relation, source, planned, chunk, repairs)
    return tuple(refusal.row_id for refusal in found.refusals)
