"""Parts of expressions in PostgreSQL's SQL, and what is known of them."""

import math
from collections.abc import Mapping
from dataclasses import dataclass, field, replace

from kgcore.model import INTEGERS, Column, Kind
from kgcore.schema.translate import sql
from kgcore.schema.translate.magnitudes import UNKNOWN, Magnitudes
from kgcore.schema.translate.types import Operand

_EXACT_IN_DOUBLE = 2**53


class UntranslatableError(Exception):
    """Why an expression, or a part of it, has no equal in PostgreSQL."""


@dataclass(frozen=True, slots=True)
class Rendered:
    """A part in PostgreSQL's SQL: its kind (None of NULL), its value if it is a literal.

    ``columns`` are those it reads, each as often as it does; ``folds`` says that it compares by
    another collation than BINARY, so that it can't be compared here. Of numbers there are the
    ``magnitudes``, and whether SQLite has ``mixed`` integers among what are reals here.
    """

    sql: str
    kind: Kind | None
    literal: int | float | str | None = None
    columns: tuple[str, ...] = ()
    folds: bool = False
    magnitudes: Magnitudes = UNKNOWN
    mixed: bool = False


@dataclass(frozen=True, slots=True)
class Scope:
    """What the names of an expression mean: columns by their names in lower case.

    ``folded`` are the columns, by name in the target, with a collation of their own; ``operands``
    what is known of the values of some; with ``utf16`` SQLite orders texts by those bytes.
    """

    columns: Mapping[str, Column]
    folded: frozenset[str] = frozenset()
    operands: Mapping[str, Operand] = field(default_factory=dict)
    utf16: bool = False


def of_parts(
    text: str, kind: Kind | None, *parts: Rendered, magnitudes: Magnitudes = UNKNOWN
) -> Rendered:
    """Return what is made of parts: it reads what they read."""
    columns = tuple(name for part in parts for name in part.columns)
    return Rendered(text, kind, columns=columns, magnitudes=magnitudes)


def one_of(text: str, results: "tuple[Rendered, ...]", *others: Rendered) -> Rendered:
    """Return what is one of some results, which are brought to one kind; it reads others, too.

    ``text`` has a ``{}`` for each of the results.
    """
    alike = to_one_kind(*results)
    there = [part for part in alike if part.kind is not None]
    made = of_parts(
        text.format(*(part.sql for part in alike)),
        there[0].kind if there else None,
        *alike,
        *others,
    )
    for part in there:
        bounds = part.magnitudes if part is there[0] else made.magnitudes.either(part.magnitudes)
        made = replace(made, magnitudes=bounds)
    kinds = {group(part.kind) for part in results if part.kind is not None}
    return replace(made, mixed=len(kinds) > 1 or any(part.mixed for part in results))


def to_one_kind(*parts: Rendered) -> tuple[Rendered, ...]:
    """Return parts of one kind: literals are taken as what the columns beside them are."""
    kinds = [part.kind for part in parts if part.kind is not None and part.literal is None]
    kinds = kinds or [part.kind for part in parts if part.kind is not None]
    return tuple(coerced(part, kinds[0]) for part in parts) if kinds else parts


def coerced(part: Rendered, kind: Kind) -> Rendered:
    """Return the part as a value of another kind. Raises where it might become another value."""
    own = group(part.kind)
    wanted = group(kind)
    if own is None or own == wanted:
        return part
    match wanted, part.literal:
        case Kind.BOOLEAN, (0 | 1) as bit if own is Kind.INTEGER:
            return replace(part, sql="true" if bit else "false", kind=kind)
        case Kind.REAL, int(number) if abs(number) <= _EXACT_IN_DOUBLE:
            return replace(part, sql=sql.real(float(number)), kind=kind)
        case Kind.NUMERIC, int(number):
            return replace(part, sql=str(number), kind=kind)
        case Kind.NUMERIC, float(number) if math.isfinite(number):
            return replace(part, sql=f"'{number!r}'::numeric", kind=kind)
    raise UntranslatableError(f"SQLite takes {own} for {wanted} here, by rules of its own")


def group(kind: Kind | None) -> Kind | None:
    """Return the kind, INTEGER for all whose values are integers."""
    return Kind.INTEGER if kind in INTEGERS else kind
