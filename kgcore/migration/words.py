"""Words: a chunk column by column, as each database writes it itself; for comparing, never stored.

SQLite joins a column's values to one text, PostgreSQL joins what was stored, and where the texts
are equal all values are. No code of a lane lies between. Where they differ the values may still be
the same, said otherwise (a timestamp's zone, the order of JSON's keys): then the server is asked
how it would write the source's words.

All is UTF-8: decoding a text with one emoji in it takes several times as long as comparing it.
"""

import sys
from array import array
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from kgcore.model import INTEGERS, Kind

#: Stands between two words. Text that holds it is not compared in this way.
SEPARATOR = "\x1f"
#: Stands for NULL.
NULL = "\x1e"

#: Kinds of which SQLite's words may say less than the value (it writes 15 digits of a REAL), or
#: twice as much: hexadecimal digits of a BLOB.
READ_AS_VALUES = frozenset({Kind.REAL, Kind.NUMERIC, Kind.BLOB})

# Kinds of which different words are different values.
_OWN_WORDS = INTEGERS | {Kind.REAL, Kind.TEXT, Kind.BLOB}
# Integers up to this are doubles, each its own.
_EXACT = 2**53

_SEPARATOR, _NULL = SEPARATOR.encode(), NULL.encode()
_UTC = b"+00"
_ZONES = (b"Z", b"+00:00", b"")


@dataclass(frozen=True, slots=True)
class Said:
    """The words of a column, and how many of its values are NULL.

    A BLOB's word is its length; ``content`` is what all of them hold, one after the other.
    """

    words: bytes
    nulls: int
    content: bytes = b""


@dataclass(frozen=True, slots=True)
class Words:
    """So many rows in order of their ids: by column what is said of all of them."""

    rows: int
    columns: Mapping[str, Said]


def of_values(kind: Kind, cells: Sequence[Any]) -> Said | None:
    """Return the words of a column's values, text as bytes; None where one is not of its kind.

    A REAL's word is its eight bytes, the first first.
    """
    nulls = cells.count(None)
    if kind is Kind.BLOB:
        lengths = (_NULL if cell is None else b"%d" % len(cell) for cell in cells)
        return Said(joined(lengths), nulls, b"".join(filter(None, cells)))
    words = _of_reals(cells) if kind is Kind.REAL else joined(map(_word, cells))
    return None if words is None else Said(words, nulls)


def _word(cell: Any) -> bytes:
    if cell is None:
        return _NULL
    return cell if isinstance(cell, bytes) else repr(cell).encode()


def _of_reals(cells: Sequence[Any]) -> bytes | None:
    types = set(map(type, cells))
    if not types <= {float, int, type(None)}:
        return None
    # SQLite keeps an integer among reals as it is; the server would round it in silence.
    if int in types and any(type(cell) is int and abs(cell) > _EXACT for cell in cells):
        return None
    doubles = array(
        "d", (0 if cell is None else cell for cell in cells) if type(None) in types else cells
    )
    if sys.byteorder == "little":
        doubles.byteswap()
    words = doubles.tobytes().hex(SEPARATOR, doubles.itemsize)
    if type(None) in types:
        each = zip(words.split(SEPARATOR), cells, strict=True)
        words = SEPARATOR.join(NULL if cell is None else word for word, cell in each)
    return words.encode()


def is_clear(said: Said, rows: int) -> bool:
    """Whether the words of so many rows can be taken apart in one way only."""
    separators = max(rows - 1, 0)
    return said.words.count(_SEPARATOR) == separators and said.words.count(_NULL) == said.nulls


def differing(kind: Kind, of_source: Said, of_staging: Said) -> dict[bytes, bytes] | None:
    """Return the source's words, which must be clear, that staging has others for, and those.

    None where some are surely not the same value.
    """
    source, staged = of_source.words, of_staging.words
    if of_source.nulls != of_staging.nulls or of_source.content != of_staging.content:
        return None
    if source == staged:
        return {}
    if kind in _OWN_WORDS or b"\0" in source:
        return None
    return _differing(source, _as_postgres(kind, source), staged)


def _differing(source: bytes, rewritten: bytes, staged: bytes) -> dict[bytes, bytes] | None:
    if rewritten == staged:
        return {}
    # The server is asked about the source's own words: of an odd one ours may mean something else.
    ours, usual, theirs = (said.split(_SEPARATOR) for said in (source, rewritten, staged))
    if len(ours) != len(theirs):
        return None
    found: dict[bytes, bytes] = {}
    for one, as_usual, other in zip(ours, usual, theirs, strict=True):
        if as_usual != other and found.setdefault(one, other) != other:
            return None
    return None if _NULL in found or _NULL in found.values() else found


def joined(words: Iterable[bytes]) -> bytes:
    """Return a text of these words."""
    return _SEPARATOR.join(words)


def _as_postgres(kind: Kind, words: bytes) -> bytes:
    """Write the usual forms as PostgreSQL does: whatever then is a word of its own means that."""
    if kind is Kind.TIMESTAMP:
        first = next((word for word in words.split(_SEPARATOR, 100) if word != _NULL), b"")
        zone = next(zone for zone in _ZONES if first.endswith(zone))
        # Staging has one blank in a word, before the time: only a T in its place makes them equal.
        dated = _ending(words.replace(b"T", b" "), zone, _UTC)
        return dated.replace(_NULL + _UTC, _NULL)
    return words


def _ending(words: bytes, end: bytes, other: bytes) -> bytes:
    ended = (words + _SEPARATOR).replace(end + _SEPARATOR, other + _SEPARATOR)
    return ended[: -len(_SEPARATOR)]
