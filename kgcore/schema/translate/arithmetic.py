"""Arithmetic on parts: translated where both databases agree, and no result can overflow."""

from dataclasses import replace

from kgcore.model import Kind
from kgcore.schema.translate import sql
from kgcore.schema.translate.magnitudes import Magnitudes
from kgcore.schema.translate.parts import Rendered, UntranslatableError, group, of_parts


def calculated(operator: str, left: Rendered, right: Rendered) -> Rendered:
    """Return ``left`` and ``right`` with one of + - * / % between them."""
    left, right = _operand(left), _operand(right)
    are_whole = {group(left.kind), group(right.kind)} == {Kind.INTEGER}
    if operator == "%" and not are_whole:
        raise UntranslatableError("% makes integers of its operands")
    if not are_whole:
        left, right = (
            replace(side, sql=f"({side.sql})::double precision") for side in (left, right)
        )
    bounds = _bounds(operator, left.magnitudes, right.magnitudes, are_whole=are_whole)
    # SQLite divides by zero with NULL for a result.
    divisor = f"NULLIF({right.sql}, 0)" if operator in {"/", "%"} else right.sql
    kind = Kind.INTEGER if are_whole else Kind.REAL
    text = f"({left.sql} {operator} {divisor})"
    return _fitting(of_parts(text, kind, left, right, magnitudes=bounds))


def negated(part: Rendered) -> Rendered:
    """Return the part with a minus before it."""
    part = _operand(part)
    if isinstance(part.literal, int | float):
        return replace(part, sql=f"(-{part.sql})", literal=-part.literal)
    # SQLite subtracts from 0: of 0.0 that makes no -0.0.
    zero = "0" if group(part.kind) is Kind.INTEGER else sql.real(0.0)
    return _fitting(replace(part, sql=f"({zero} - {part.sql})"))


def absolute(part: Rendered) -> Rendered:
    """Return the part's absolute value."""
    part = _operand(part)
    return _fitting(replace(part, sql=f"abs({part.sql})", literal=None))


def _operand(part: Rendered) -> Rendered:
    if group(part.kind) not in {Kind.INTEGER, Kind.REAL}:
        raise UntranslatableError(f"it calculates with a {part.kind or 'NULL'}")
    if part.mixed:
        raise UntranslatableError("it calculates with integers and reals, by what each value is")
    return part


def _bounds(operator: str, left: Magnitudes, right: Magnitudes, *, are_whole: bool) -> Magnitudes:
    match operator:
        case "*":
            bounds = left.times(right)
        case "/":
            bounds = left if are_whole else left.over(right)
        case "%":
            bounds = right
        case _:
            bounds = left.plus(right)
    return bounds.whole if are_whole else bounds


def _fitting(part: Rendered) -> Rendered:
    """Return the part if its type surely holds it; a literal does that by itself."""
    if part.literal is not None:
        return part
    if group(part.kind) is Kind.INTEGER and not part.magnitudes.fit_integers:
        raise UntranslatableError("with the values here, an integer of 64 bits may not hold it")
    if part.kind is Kind.REAL and not part.magnitudes.fit_reals:
        raise UntranslatableError("with the values here, a double may not hold it")
    return part
