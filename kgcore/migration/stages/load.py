"""Load: COPY into a bare table, inside the caller's transaction."""

import io
import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias

import psycopg2
from psycopg2.extensions import cursor as Cursor  # noqa: N812 (a class, whatever its name)
from psycopg2.sql import SQL, Composed, Identifier

from kgcore.migration.model import Refusal
from kgcore.model import Table

# SQLSTATE classes by which the server refuses a value: data, integrity, program limits.
_REFUSALS = ("22", "23", "54")
# Bytes, or whatever shows its own as such.
Buffer: TypeAlias = Any
_OF_COPY = re.compile(r"^COPY .*?, line \d+, column (.*)", re.MULTILINE | re.DOTALL)
# What libpq is handed at a time. psycopg2's default of 8 KiB costs a call for each.
_BUFFER_BYTES = 1 << 20


@dataclass(frozen=True, slots=True)
class Copied:
    """How many rows a COPY stored, and which the server refused."""

    rows: int
    refusals: tuple[Refusal, ...] = ()


class CopyRefusedError(Exception):
    """The server refused a value in the stream; the transaction is as it was before the COPY."""


def copy_binary(
    cursor: Cursor, relation: Identifier, table: Table, pieces: Iterator[Buffer]
) -> int:
    """Send one binary COPY stream in pieces of any size; return the rows stored.

    Raises :class:`CopyRefusedError`.
    """
    return _copy(cursor, relation, table, pieces, "binary")


def copy_text(cursor: Cursor, relation: Identifier, table: Table, batches: Iterator[bytes]) -> int:
    """Send batches of whole lines as one text COPY; return the rows stored.

    Raises :class:`CopyRefusedError`.
    """
    return _copy(cursor, relation, table, batches, "text")


def copy_each(
    cursor: Cursor,
    relation: Identifier,
    table: Table,
    ids: Sequence[int],
    lines: Sequence[str],
) -> Copied:
    """Send lines by text COPY and find the rows the server alone refuses.

    The values were checked before, so refusals are rare here (JSON too deep, a number too long):
    halving finds them in a few COPYs each.
    """
    if not lines:
        return Copied(0)
    try:
        stream = ("\n".join(lines) + "\n").encode()
        return Copied(copy_text(cursor, relation, table, iter((stream,))))
    except CopyRefusedError as refusing:
        if len(lines) == 1:
            return Copied(0, (_refusal(table, ids[0], refusing),))
    middle = len(lines) // 2
    first = copy_each(cursor, relation, table, ids[:middle], lines[:middle])
    second = copy_each(cursor, relation, table, ids[middle:], lines[middle:])
    return Copied(first.rows + second.rows, first.refusals + second.refusals)


def _copy(
    cursor: Cursor, relation: Identifier, table: Table, pieces: Iterator[Buffer], how: str
) -> int:
    file = _Pieces(pieces)
    readable: Any = file  # It has no readline, which COPY FROM never asks for.
    cursor.execute("SAVEPOINT kg_copy")
    try:
        cursor.copy_expert(_statement(relation, table, how), readable, _BUFFER_BYTES)
    except psycopg2.Error as error:
        if file.fault is not None:
            cursor.execute("ROLLBACK TO SAVEPOINT kg_copy")
            raise file.fault from None
        if not (error.pgcode or "").startswith(_REFUSALS):
            raise
        cursor.execute("ROLLBACK TO SAVEPOINT kg_copy")
        raise CopyRefusedError(error) from error
    rows = cursor.rowcount
    cursor.execute("RELEASE SAVEPOINT kg_copy")
    return rows


def _statement(relation: Identifier, table: Table, how: str) -> Composed:
    # The encoding is said here: a connection's own could be anything.
    return SQL("COPY {} ({}) FROM STDIN WITH (FORMAT {}, ENCODING 'UTF8')").format(
        relation, SQL(", ").join(map(Identifier, table.column_names)), SQL(how)
    )


def _refusal(table: Table, row_id: int, refusing: CopyRefusedError) -> Refusal:
    diag = refusing.args[0].diag
    reason = diag.message_primary or str(refusing)
    column = diag.column_name or _column_in(table, diag.context or "")
    return Refusal(row_id, column, reason, diag.sqlstate)


def _column_in(table: Table, context: str) -> str | None:
    """Return the column that COPY was about to fill, which is in the error's context alone.

    None where the server speaks another language.
    """
    found = _OF_COPY.search(context)
    named = (name for name in table.column_names if found and found[1].startswith(f"{name}: "))
    return max(named, key=len, default=None)


class _Pieces:
    """A file of pieces for psycopg2, which reads it in others; memory is one piece.

    What making a piece raises ends the COPY as an error of the server's; ``fault`` keeps it.
    """

    fault: Exception | None = None

    def __init__(self, pieces: Iterator[Buffer]) -> None:
        self._pieces = pieces
        self._read: Callable[[int], bytes] = io.BytesIO().read

    def read(self, size: int = -1, /) -> bytes:
        """Return up to ``size`` bytes; nothing at the end."""
        while not (part := self._read(size)):
            try:
                piece = next(self._pieces, None)
            except Exception as error:
                self.fault = error
                raise
            if piece is None:
                return b""
            self._read = io.BytesIO(piece).read
        return part
