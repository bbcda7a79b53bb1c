"""Generated columns: computed by the server only where it surely computes what SQLite did."""

from dataclasses import replace

from kgcore.model import Column, Kind
from kgcore.schema.translate import sql
from kgcore.schema.translate.expressions import translate
from kgcore.schema.translate.parse import names_in
from kgcore.schema.translate.parts import (
    Rendered,
    Scope,
    UntranslatableError,
    coerced,
    group,
    of_parts,
)
from kgcore.schema.translate.types import NATIVE, affinity, keeps


def computed(name: str, declared: str, expression: str, scope: Scope) -> Column:
    """Return the column of this name, in lower case, as one that the server computes.

    Raises :class:`UntranslatableError` where the expression has no equal in PostgreSQL, where a
    value it reads or gives means something else to SQLite than the column's kind does, and where
    the declared type may make SQLite store another value than the expression gives.
    """
    column = scope.columns[name]
    part = translate(expression, scope)
    for one in sorted({name, *names_in(expression)}):
        _require_native(one, scope)
    part = coerced(_stored(part, column.kind, declared), column.kind)
    if part.kind is Kind.REAL and affinity(declared) is Kind.REAL:
        # It stores -0.0 as 0.0.
        return replace(column, generated=f"({part.sql} + {sql.real(0.0)})")
    return replace(column, generated=part.sql)


def _require_native(name: str, scope: Scope) -> None:
    column, operand = scope.columns.get(name), scope.operands.get(name)
    if column is None or operand is None:
        return
    if column.kind is Kind.JSON:
        raise UntranslatableError(f"what SQLite takes {column.name} for may not be what JSONB does")
    others = operand.classes - {*NATIVE[column.kind]}
    if others:
        held = " and ".join(sorted(others))
        raise UntranslatableError(f"{column.name} arrives as {column.kind} and holds {held}, too")


def _stored(part: Rendered, kind: Kind, declared: str) -> Rendered:
    """Return what the declared type makes of the part's values, where that is certain."""
    own = group(part.kind)
    if own is Kind.INTEGER and kind is Kind.TEXT:
        return of_parts(f"({part.sql})::text", Kind.TEXT, part)
    if own is None or part.literal is not None:
        return part
    if own is Kind.INTEGER and kind is Kind.REAL:
        return of_parts(f"({part.sql})::double precision", Kind.REAL, part)
    if not keeps(declared, own):
        raise UntranslatableError(f"of its {own} values {declared} may make others")
    return part
