"""Indexes that another one makes needless: the same again, or the beginning of a longer one."""

from collections.abc import Sequence
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Shape:
    """What an index can do. ``keys`` are its columns, each with all that makes its order.

    ``kind`` is the access method with whatever else must be equal; only a ``btree`` serves the
    beginning of its columns. ``enforces`` says that it is UNIQUE, ``constraint`` that a constraint
    stands on it, so that it can't just be dropped.
    """

    table: str
    name: str
    kind: str
    keys: tuple[str, ...]
    included: frozenset[str] = frozenset()
    predicate: str = ""
    enforces: bool = False
    constraint: bool = False
    valid: bool = True


def redundant(shapes: Sequence[Shape]) -> dict[str, str]:
    """Return for each needless index the one that serves its queries, which isn't needless itself.

    Of two that are alike the one stays that a constraint needs, else the first by name.
    """
    needless = {a.name for a in shapes if any(_beats(b, a) for b in shapes)}
    found = {}
    for shape in shapes:
        if shape.name in needless:
            able = [b for b in shapes if b.name not in needless and _beats(b, shape)]
            found[shape.name] = max(able, key=lambda b: (len(b.keys), b.name)).name
    return found


def _beats(b: Shape, a: Shape) -> bool:
    if a.name == b.name or not _serves(b, a):
        return False
    return not _serves(a, b) or _rank(b) < _rank(a)


def _rank(shape: Shape) -> tuple[bool, str]:
    return not shape.constraint, shape.name


def _serves(b: Shape, a: Shape) -> bool:
    """Whether ``b`` does all that ``a`` does."""
    if (a.table, a.kind, a.predicate) != (b.table, b.kind, b.predicate) or not b.valid:
        return False
    if a.enforces and not (b.enforces and a.keys == b.keys):
        return False
    if a.constraint and not b.constraint:
        return False
    if not a.included <= b.included | {key.partition(" ")[0] for key in b.keys}:
        return False
    begins = a.kind == "btree" and a.keys == b.keys[: len(a.keys)]
    return begins or a.keys == b.keys
