"""Parse expressions of SQLite, and find the columns that stand in them."""

import sqlglot
from sqlglot import exp
from sqlglot.errors import SqlglotError

from kgcore.schema.translate.parts import UntranslatableError
from kgcore.schema.translate.sql import fold_ascii

#: Deeper ones are of no schema that people wrote.
_MOST_NODES = 500

_ARITHMETIC = (exp.Add, exp.Sub, exp.Mul, exp.Div, exp.Mod, exp.Neg, exp.Abs)


def parsed(expression: str) -> exp.Expression:
    """Return an expression as a tree. Raises :class:`UntranslatableError`."""
    try:
        statement = sqlglot.parse_one(f"SELECT {expression}", read="sqlite")
    except RecursionError:
        raise UntranslatableError("it is nested too deeply") from None
    except SqlglotError as error:
        reason = (str(error).splitlines() or ["no reason given"])[0]
        raise UntranslatableError(f"it can't be parsed: {reason}") from None
    parts = {name for name, value in statement.args.items() if value}
    if not isinstance(statement, exp.Select) or parts != {"expressions"}:
        raise UntranslatableError("it is more than an expression")
    first: exp.Expression
    first, *others = statement.expressions
    if others or sum(1 for _ in first.walk()) > _MOST_NODES:
        raise UntranslatableError("it is more than one expression, or a very long one")
    return first


def called_with(function: str, expression: str) -> frozenset[str]:
    """Return the columns, in lower case, that a function is called with alone in an expression."""
    try:
        calls = list(parsed(expression).find_all(exp.Anonymous))
    except UntranslatableError:
        return frozenset()
    return frozenset(
        fold_ascii(call.expressions[0].name)
        for call in calls
        if call.name.lower() == function
        and len(call.expressions) == 1
        and isinstance(call.expressions[0], exp.Column)
    )


def names_in(expression: str) -> frozenset[str]:
    """Return what may be names of columns in an expression, in lower case."""
    return _names(expression, exp.Column)


def calculated_with(expression: str) -> frozenset[str]:
    """Return what may be names of columns that an expression calculates with, in lower case."""
    return _names(expression, *_ARITHMETIC)


def _names(expression: str, *inside: type[exp.Expression]) -> frozenset[str]:
    try:
        found = list(parsed(expression).find_all(*inside))
    except UntranslatableError:
        return frozenset()
    return frozenset(
        fold_ascii(column.name) for node in found for column in node.find_all(exp.Column)
    )
