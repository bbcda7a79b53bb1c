"""Verify: a chunk, read again from the source, is held against what is stored.

First the quick way: the words of both databases are held against each other, column by column.
Only "all of them are the same" is believed. Otherwise the chunk's rows, each value checked, go to a
TEMP table of staging's own types, which is joined with staging on the key, and the rows that are
distinct are counted and named. In both, -0.0 is not 0.0, and 1.0 in JSON is not 1.00.
"""

import io
import struct
from collections.abc import Sequence
from dataclasses import dataclass

import psycopg2
from psycopg2.extensions import QuotedString
from psycopg2.extensions import cursor as Cursor  # noqa: N812
from psycopg2.sql import SQL, Composable, Composed, Identifier, Literal

from kgcore.migration.copy_text import ONE, Refused
from kgcore.migration.model import Chunk
from kgcore.migration.words import NULL, SEPARATOR, Said, Words, differing, joined
from kgcore.model import Kind, Table
from kgcore.schema.postgres import TYPES

#: The TEMP table of the chunk under comparison, of the types of its table.
SOURCE_ROWS = Identifier("kg_source_rows")

# How many ids of rows that differ are kept: enough to see what is wrong.
_EXAMPLES = 20
# Bytes of words that the server is asked about at a time, on average: 7 MB at once took longer, and
# each is held several times.
_BYTES_AT_ONCE = 300_000
# SQLSTATEs with which the server says nothing of the values: it can't read one, or there are more
# columns, or longer words, than one query takes. Some limits it calls a lack of memory (53200), or
# an internal error (XX).
_UNSAID = ("22", "54", "53200", "XX")
# Bytes before the first row of a binary COPY.
_COPY_HEADER = 19


@dataclass(frozen=True, slots=True)
class Verified:
    """Rows equal in source and staging; rows that are not, and the first of their ids."""

    equal: int
    mismatched: int
    examples: tuple[int, ...]


def settle(cursor: Cursor) -> None:
    """Set what both comparisons need, until the transaction ends."""
    # A chunk is compared once: planning it for parallel workers or compiling it costs more.
    # Both sides come in the key's order, so a merge join takes 0.8 of a hash join's time.
    # Timestamps without a zone mean UTC. Words shall be those that words.py knows, all digits of a
    # double among them, whatever the role's own settings are.
    cursor.execute(
        "SET LOCAL jit = off; SET LOCAL max_parallel_workers_per_gather = 0;"
        "SET LOCAL enable_nestloop = off; SET LOCAL enable_hashjoin = off;"
        "SET LOCAL work_mem = '64MB'; SET LOCAL TimeZone = 'UTC';"
        "SET LOCAL DateStyle = 'ISO, YMD'; SET LOCAL extra_float_digits = 1"
    )


def says_the_same(cursor: Cursor, staging: str, table: Table, chunk: Chunk, source: Words) -> bool:
    """Whether the chunk's rows in staging have the words of the source, or the values they mean.

    False also where the server can't read a word as its column's type: then the transaction must go
    back to before.
    """
    try:
        staged = staged_words(cursor, staging, table, chunk)
        return staged.rows == source.rows and all(
            _same(cursor, column.kind, source.columns[column.name], staged.columns[column.name])
            for column in table.columns
        )
    except psycopg2.Error as error:
        if not (error.pgcode or "").startswith(_UNSAID):
            raise
        return False


def staged_words(cursor: Cursor, staging: str, table: Table, chunk: Chunk) -> Words:
    """Return the chunk's rows in staging, in order of their ids, as PostgreSQL writes them."""
    words = SQL(", ").join(
        _WORDS.format(
            value=Identifier("staged", column.name),
            word=_word(Identifier("staged", column.name), column.kind),
            null=Literal(NULL),
            separator=Literal(SEPARATOR),
        )
        for column in table.columns
    )
    blobs = [column.name for column in table.columns if column.kind is Kind.BLOB]
    contents = (SQL(", string_agg({}, '')").format(Identifier("staged", name)) for name in blobs)
    staged = _staged(staging, table, chunk)
    number, *found = _texts(
        cursor,
        _STAGED_WORDS.format(
            words=words,
            contents=Composed(contents),
            staged=staged,
            key=Identifier(table.key.name),
        ),
    )
    rows, both = int(number), 2 * len(table.columns)
    columns = zip(table.column_names, found[:both:2], found[1:both:2], strict=True)
    content = dict(zip(blobs, found[both:], strict=True))
    return Words(
        rows,
        {
            name: Said(text, rows - int(filled), content.get(name, b""))
            for name, filled, text in columns
        },
    )


def _texts(cursor: Cursor, query: Composed, *words: bytes) -> list[bytes]:
    """Return the one row of a query: text as UTF-8, and nothing for NULL."""
    # psycopg2 decodes what it fetches; what COPY gives stays as it is. Each value comes behind its
    # length: https://www.postgresql.org/docs/current/sql-copy.html, Binary Format.
    received = io.BytesIO()
    copy = SQL("COPY ({}) TO STDOUT (FORMAT binary, ENCODING 'UTF8')").format(query)
    cursor.copy_expert(cursor.mogrify(copy, [*map(QuotedString, words)] or None), received)
    received.seek(_COPY_HEADER)
    (columns,) = struct.unpack(">h", received.read(2))
    return [received.read(max(0, *struct.unpack(">i", received.read(4)))) for _ in range(columns)]


def _same(cursor: Cursor, kind: Kind, source: Said, staged: Said) -> bool:
    found = differing(kind, source, staged)
    if found is None:
        return False
    words = [*found]
    # Of other kinds the server reads more than may be stored, and rounds. JSON it reads as ever.
    if kind is not Kind.JSON and any(
        isinstance(ONE[kind](word.decode(errors="replace")), Refused) for word in words
    ):
        return False
    number = max(1, len(words) * _BYTES_AT_ONCE // max(1, sum(map(len, words))))
    parts = (words[at : at + number] for at in range(0, len(words), number))
    return all(
        _rewritten(cursor, kind, part) == joined(found[word] for word in part) for part in parts
    )


def _rewritten(cursor: Cursor, kind: Kind, words: Sequence[bytes]) -> bytes:
    query = _REWRITTEN.format(
        word=_word(Identifier("read"), kind),
        type=SQL(TYPES[kind]),
        separator=Literal(SEPARATOR),
    )
    (rewritten,) = _texts(cursor, query, joined(words))
    return rewritten


def create_source_rows(cursor: Cursor, staging: str, table: Table) -> None:
    """Create the TEMP table of whole rows; it goes with the transaction."""
    cursor.execute(
        SQL("CREATE TEMP TABLE {} (LIKE {}) ON COMMIT DROP").format(
            SOURCE_ROWS, Identifier(staging, table.name)
        )
    )


def compare(
    cursor: Cursor, staging: str, table: Table, chunk: Chunk, rejected_in: tuple[str, list[int]]
) -> Verified:
    """Compare the TEMP table with the chunk's rows in staging.

    ``rejected_in`` is the run and the ids the careful lane refused just now: a row that is in
    neither table is in order only if the ledger has it as a reject, and a refused one must be
    there too.
    """
    run_id, refused = rejected_in
    # No parameters: a name may hold what psycopg2 would take for a placeholder. Whole rows are made
    # of columns: a name of a table alone may be that of a column.
    source, staged = (
        SQL(", ").join(Identifier(side, name) for name in table.column_names)
        for side in ("source", "staged")
    )
    pairs = _PAIRS.format(
        source=SOURCE_ROWS,
        staged=_staged(staging, table, chunk),
        key=Identifier(table.key.name),
        source_row=source,
        staged_row=staged,
    )
    cursor.execute(SQL("SELECT count(*) FILTER (WHERE same), count(*) {}").format(pairs))
    equal, number = cursor.fetchone() or (0, 0)
    if equal == number and not refused:
        return Verified(equal, 0, ())
    cursor.execute(
        _FAULTS.format(
            pairs=pairs,
            run=Literal(run_id),
            table=Literal(table.name),
            refused=Literal(refused),
            examples=Literal(_EXAMPLES),
        )
    )
    mismatched, examples = cursor.fetchone() or (0, [])
    return Verified(equal, mismatched, tuple(examples or ()))


def _staged(staging: str, table: Table, chunk: Chunk) -> Composed:
    return _STAGED.format(
        staging=Identifier(staging, table.name),
        key=Identifier(table.key.name),
        lower=Literal(chunk.lower),
        upper=Literal(chunk.upper),
    )


def _word(value: Composable, kind: Kind) -> Composed:
    return SQL(_FORMS.get(kind, "{}::text")).format(value)


# How a value is written where that is not what PostgreSQL shows, or needs no cast.
_FORMS = {
    Kind.TEXT: "{}",
    Kind.REAL: "encode(float8send({}), 'hex')",
    Kind.BLOB: "octet_length({})::text",
    Kind.BOOLEAN: "{}::int::text",
}

_STAGED = SQL("""(
    SELECT * FROM {staging}
    WHERE {key} >= {lower} AND ({upper}::bigint IS NULL OR {key} < {upper}::bigint)
)""")

_STAGED_WORDS = SQL("""
SELECT count(*)::text, {words} {contents}
FROM (SELECT * FROM {staged} AS chunk ORDER BY {key}) AS staged
""")
_WORDS = SQL("count({value})::text, string_agg(coalesce({word}, {null}), {separator})")

# The server's own words for the values that it reads from others.
_REWRITTEN = SQL("""
SELECT string_agg({word}, {separator})
FROM (SELECT said::{type} AS read FROM unnest(string_to_array(%s, {separator})) AS said) AS of
""")

# Each row of the chunk that is in either table, or in both.
_PAIRS = SQL("""
FROM (
    SELECT coalesce(source.{key}, staged.{key}) AS id,
           staged.{key} IS NOT NULL AS is_staged,
           source.{key} IS NOT NULL AND staged.{key} IS NOT NULL
               AND record_image_eq(ROW({source_row}), ROW({staged_row})) AS same
    FROM {source} AS source
    FULL JOIN {staged} AS staged ON staged.{key} = source.{key}
) AS pairs
""")

_FAULTS = SQL("""
WITH refused AS (
    SELECT unnest({refused}::bigint[]) AS id
), suspects AS (
    SELECT id, is_staged {pairs} WHERE NOT same
    UNION ALL
    SELECT id, false FROM refused
), faults AS (
    SELECT DISTINCT id FROM suspects
    WHERE is_staged OR NOT EXISTS (
        SELECT 1 FROM kg_migration.rejects
        WHERE run_id = {run} AND table_name = {table} AND row_id = suspects.id
    )
)
SELECT (SELECT count(*) FROM faults),
       (SELECT array_agg(id) FROM (SELECT id FROM faults ORDER BY id LIMIT {examples}) AS first)
""")
