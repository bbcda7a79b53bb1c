"""How large a B-tree of PostgreSQL would be if it were built anew: an estimate.

Its source is the storage format as PostgreSQL's manual has it ("Database Page Layout", "B-Tree
Indexes: Deduplication"), filled in with the averages of ``pg_stats``. What an index is larger than
that is its bloat. Several columns are taken as independent, which makes the estimate of the size
larger and that of the bloat smaller: it is a lower bound. Exact, but reading the whole index, is
``pgstatindex`` of the extension pgstattuple.
"""

from dataclasses import dataclass
from math import ceil

METHOD = "estimated from pg_stats and the page layout (PostgreSQL manual); a lower bound"

_PAGE = 8192
_PAGE_HEADER, _SPECIAL, _LINE_POINTER = 24, 16, 4
_TUPLE_HEADER, _WITH_NULLS = 8, 16
_TID = 6
#: A build fills leaf pages to the fillfactor, and makes posting lists of a tenth of a page at most.
_FILLFACTOR = 90
_LONGEST_POSTING = 812

#: A B-tree that grows by inserts in random order settles at 69 % full (Yao 1978), a new one is 90 %
#: full: so a quarter of loss is ordinary, and half of it is not.
_LEAST_SHARE = 0.5
_LEAST_BYTES = 1024 * 1024


@dataclass(frozen=True, slots=True)
class Keys:
    """What an index holds: rows, mean bytes of a key, different keys."""

    rows: float
    width: float
    distinct: float
    nulls: bool = False
    deduplicates: bool = True
    fillfactor: int = _FILLFACTOR


def fresh_bytes(keys: Keys) -> int:
    """Return the size of the index if it were built now."""
    header = _WITH_NULLS if keys.nulls else _TUPLE_HEADER
    entry = ceil((header + keys.width) / 8) * 8
    needed = keys.rows * (entry + _LINE_POINTER)
    if keys.deduplicates and keys.distinct >= 1:
        duplicates = keys.rows / keys.distinct
        lists = ceil(duplicates * _TID / max(_LONGEST_POSTING - entry, _TID))
        posted = keys.distinct * (duplicates * _TID + lists * (entry + _LINE_POINTER))
        needed = min(needed, posted)
    room = (_PAGE - _PAGE_HEADER - _SPECIAL) * keys.fillfactor / 100
    leaves = ceil(needed / room)
    # Above the leaves: an entry for each, and so on up to the root. One page tells about the tree.
    inner, level = 0, leaves
    while level > 1:
        level = ceil(level * (entry + _LINE_POINTER) / room)
        inner += level
    return (leaves + inner + 1) * _PAGE


def is_bloated(size: int, bloat: int) -> bool:
    """Whether building the index anew is worth while."""
    return bloat >= _LEAST_BYTES and bloat >= size * _LEAST_SHARE
