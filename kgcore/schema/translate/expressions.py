"""Expressions of a SQLite schema, rendered anew in PostgreSQL's SQL from a short list of parts.

An expression is parsed into a tree, and only what is known here is rendered, with every name
quoted: columns of the table, literals, comparisons, AND/OR/NOT, arithmetic, ``||`` and a few
functions. Each part has a kind, and both sides of an operator must be of kinds for which SQLite and
PostgreSQL agree on the result; SQLite would compare and add anything. All else raises
:class:`UntranslatableError`, so no text of the file reaches the server as SQL.
"""

import math
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace

import sqlglot
from sqlglot import exp
from sqlglot.errors import SqlglotError

from kgcore.model import INTEGERS, Column, Kind
from kgcore.schema.translate import sql

#: Deeper ones are of no schema that people wrote.
_MOST_NODES = 500

_NUMBER = re.compile(r"\d+|(\d+\.\d*|\.?\d+)([eE][+-]?\d+)?", re.ASCII)

_EXACT_IN_DOUBLE = 2**53


class UntranslatableError(Exception):
    """Why an expression, or a part of it, has no equal in PostgreSQL."""


@dataclass(frozen=True, slots=True)
class Rendered:
    """A part in PostgreSQL's SQL: its kind (None of NULL), its value if it is a literal.

    ``columns`` are those it reads; ``folds`` says that it compares by another collation than
    BINARY, so that it can't be compared here.
    """

    sql: str
    kind: Kind | None
    literal: int | float | str | None = None
    columns: tuple[str, ...] = ()
    folds: bool = False


@dataclass(frozen=True, slots=True)
class Scope:
    """What the names of an expression mean: columns by their names in lower case.

    ``folded`` are the columns, by name in the target, with a collation of their own.
    """

    columns: Mapping[str, Column]
    folded: frozenset[str] = frozenset()


def translate(expression: str, scope: Scope) -> Rendered:
    """Render an expression. Raises :class:`UntranslatableError`."""
    try:
        return _render(_parsed(expression), scope)
    except RecursionError:
        raise UntranslatableError("it is nested too deeply") from None


def condition(expression: str, scope: Scope) -> Rendered:
    """Render an expression that is used for its truth. Raises :class:`UntranslatableError`."""
    return _truth(translate(expression, scope))


def called_with(function: str, expression: str) -> frozenset[str]:
    """Return the columns, in lower case, that a function is called with alone in an expression."""
    try:
        calls = list(_parsed(expression).find_all(exp.Anonymous))
    except UntranslatableError:
        return frozenset()
    return frozenset(
        sql.fold_ascii(call.expressions[0].name)
        for call in calls
        if call.name.lower() == function
        and len(call.expressions) == 1
        and isinstance(call.expressions[0], exp.Column)
    )


def coerced(part: Rendered, kind: Kind) -> Rendered:
    """Return the part as a value of another kind. Raises where it might become another value."""
    own = _group(part.kind)
    wanted = _group(kind)
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


def _parsed(expression: str) -> exp.Expression:
    try:
        statement = sqlglot.parse_one(f"SELECT {expression}", read="sqlite")
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


def _render(node: exp.Expression, scope: Scope) -> Rendered:
    render = _RENDERERS.get(type(node))
    if render is None:
        raise UntranslatableError(f"{_shown(node)} is not known to mean the same in PostgreSQL")
    return render(node, scope)


def _shown(node: exp.Expression) -> str:
    text = node.sql("sqlite")
    return text if len(text) <= 60 else text[:59] + "…"


# Leaves.


def _column(node: exp.Expression, scope: Scope) -> Rendered:
    column = scope.columns.get(sql.fold_ascii(node.name))
    if column is None:
        raise UntranslatableError(f"there is no column {node.name!r}")
    if column.generated is not None:
        raise UntranslatableError(f"it reads the generated column {column.name}")
    return Rendered(
        sql.name(column.name),
        column.kind,
        columns=(column.name,),
        folds=column.name in scope.folded,
    )


def _literal(node: exp.Expression, _scope: Scope) -> Rendered:
    if node.is_string:
        try:
            return Rendered(sql.text(node.name), Kind.TEXT, literal=node.name)
        except ValueError:
            raise UntranslatableError("a literal holds what PostgreSQL's text can't") from None
    if not _NUMBER.fullmatch(node.name):
        raise UntranslatableError(f"{node.name} is no number")
    if not node.name.isdigit():
        real = float(node.name)
        return Rendered(sql.real(real), Kind.REAL, literal=real)
    number = int(node.name) if len(node.name) < 40 else 2**63
    if number >= 2**63:
        raise UntranslatableError(f"{node.name} is no 64-bit integer")
    return Rendered(f"{number}::bigint", Kind.INTEGER, literal=number)


def _null(_node: exp.Expression, _scope: Scope) -> Rendered:
    return Rendered("NULL", None)


def _boolean(node: exp.Expression, _scope: Scope) -> Rendered:
    value = int(bool(node.this))
    return Rendered(f"{value}::bigint", Kind.INTEGER, literal=value)


def _negated(node: exp.Expression, scope: Scope) -> Rendered:
    part = _arithmetic_operand(_render(node.this, scope))
    literal = -part.literal if isinstance(part.literal, int | float) else None
    return replace(part, sql=f"(-{part.sql})", literal=literal)


def _paren(node: exp.Expression, scope: Scope) -> Rendered:
    return _render(node.this, scope)


# Truth.


def _truth(part: Rendered) -> Rendered:
    match _group(part.kind):
        case Kind.BOOLEAN | None:
            return part
        case Kind.INTEGER:
            return Rendered(f"({part.sql} <> 0)", Kind.BOOLEAN, columns=part.columns)
    raise UntranslatableError(f"it takes a {part.kind} for true or false")


def _connected(operator: str) -> Callable[[exp.Expression, Scope], Rendered]:
    def render(node: exp.Expression, scope: Scope) -> Rendered:
        left, right = (_truth(_render(side, scope)) for side in (node.this, node.expression))
        return _of(f"({left.sql} {operator} {right.sql})", Kind.BOOLEAN, left, right)

    return render


def _not(node: exp.Expression, scope: Scope) -> Rendered:
    part = _truth(_render(node.this, scope))
    return _of(f"(NOT {part.sql})", Kind.BOOLEAN, part)


# Comparisons. SQLite's BINARY compares bytes: that is PostgreSQL's "C".

_PREDICATES = (exp.Predicate, exp.Is, exp.Not, exp.And, exp.Or)


def _operand(node: exp.Expression, scope: Scope) -> Rendered:
    # How ``a = b IS NULL`` is grouped differs between dialects: parentheses have to say it.
    if isinstance(node, _PREDICATES):
        raise UntranslatableError("comparisons follow each other without parentheses")
    part = _render(node, scope)
    if part.folds:
        raise UntranslatableError("it compares a column that has a collation of its own")
    if part.kind in {Kind.JSON, Kind.TIMESTAMP, Kind.DATE}:
        raise UntranslatableError(f"it compares a {part.kind} as SQLite's text")
    return part


def _alike(*parts: Rendered) -> tuple[Rendered, ...]:
    """Return parts of one kind: literals are taken as what the columns beside them are."""
    kinds = [part.kind for part in parts if part.kind is not None and part.literal is None]
    kinds = kinds or [part.kind for part in parts if part.kind is not None]
    return tuple(coerced(part, kinds[0]) for part in parts) if kinds else parts


def _compared(
    operator: str, *, ordered: bool = False
) -> Callable[[exp.Expression, Scope], Rendered]:
    def render(node: exp.Expression, scope: Scope) -> Rendered:
        left, right = _alike(_operand(node.this, scope), _operand(node.expression, scope))
        by_bytes = sql.C if ordered and Kind.TEXT in {left.kind, right.kind} else ""
        return _of(f"({left.sql} {operator} {right.sql}{by_bytes})", Kind.BOOLEAN, left, right)

    return render


def _between(node: exp.Expression, scope: Scope) -> Rendered:
    sides = (node.this, node.args["low"], node.args["high"])
    value, low, high = _alike(*(_operand(side, scope) for side in sides))
    by_bytes = sql.C if value.kind is Kind.TEXT else ""
    return _of(
        f"({value.sql} >= {low.sql}{by_bytes} AND {value.sql} <= {high.sql}{by_bytes})",
        Kind.BOOLEAN,
        *(value, low, high),
    )


def _in(node: exp.Expression, scope: Scope) -> Rendered:
    if {name for name, value in node.args.items() if value} != {"this", "expressions"}:
        raise UntranslatableError("it asks another table")
    value, *choices = _alike(*(_operand(side, scope) for side in (node.this, *node.expressions)))
    listed = ", ".join(choice.sql for choice in choices)
    return _of(f"({value.sql} IN ({listed}))", Kind.BOOLEAN, value, *choices)


def _is(node: exp.Expression, scope: Scope) -> Rendered:
    if not isinstance(node.expression, exp.Null):
        return _compared("IS NOT DISTINCT FROM")(node, scope)
    if isinstance(node.this, _PREDICATES):
        raise UntranslatableError("comparisons follow each other without parentheses")
    part = _render(node.this, scope)
    return _of(f"({part.sql} IS NULL)", Kind.BOOLEAN, part)


def _like(node: exp.Expression, scope: Scope) -> Rendered:
    value, pattern = _render(node.this, scope), _render(node.expression, scope)
    if value.kind is not Kind.TEXT or not isinstance(pattern.literal, str):
        raise UntranslatableError("LIKE is translated for a text and a literal pattern")
    folded = sql.text(sql.fold_ascii(pattern.literal))
    negation = "NOT " if node.args.get("negate") else ""
    # PostgreSQL has a default escape character, SQLite has none.
    return _of(f"({sql.nocase(value.sql)} {negation}LIKE {folded} ESCAPE '')", Kind.BOOLEAN, value)


# Arithmetic.


def _arithmetic_operand(part: Rendered) -> Rendered:
    if _group(part.kind) not in {Kind.INTEGER, Kind.REAL}:
        raise UntranslatableError(f"it calculates with a {part.kind or 'NULL'}")
    return part


def _calculated(operator: str) -> Callable[[exp.Expression, Scope], Rendered]:
    def render(node: exp.Expression, scope: Scope) -> Rendered:
        sides = (_render(side, scope) for side in (node.this, node.expression))
        left, right = map(_arithmetic_operand, sides)
        kinds = {_group(left.kind), _group(right.kind)}
        if kinds == {Kind.INTEGER}:
            kind = Kind.INTEGER
        else:
            kind = Kind.REAL
            left, right = (
                replace(side, sql=f"({side.sql})::double precision") for side in (left, right)
            )
        if operator == "%" and kind is not Kind.INTEGER:
            raise UntranslatableError("% makes integers of its operands")
        # SQLite divides by zero with NULL for a result.
        divisor = f"NULLIF({right.sql}, 0)" if operator in {"/", "%"} else right.sql
        return _of(f"({left.sql} {operator} {divisor})", kind, left, right)

    return render


def _joined(node: exp.Expression, scope: Scope) -> Rendered:
    parts = []
    for side in (node.this, node.expression):
        # || binds tighter than arithmetic in SQLite, and not everywhere.
        if isinstance(side, exp.Binary | exp.Unary) and not isinstance(side, exp.DPipe | exp.Paren):
            raise UntranslatableError("|| beside another operator without parentheses")
        part = _render(side, scope)
        if _group(part.kind) is Kind.INTEGER:
            part = replace(part, sql=f"({part.sql})::text", kind=Kind.TEXT)
        parts.append(_text_of(part))
    return _of(f"({parts[0].sql} || {parts[1].sql})", Kind.TEXT, *parts)


# Functions.


def _text_of(part: Rendered) -> Rendered:
    if part.kind is not Kind.TEXT:
        raise UntranslatableError(f"it takes a {part.kind or 'NULL'} for a text")
    return part


def _function(template: str, kind: Kind) -> Callable[[exp.Expression, Scope], Rendered]:
    """A function of one text."""

    def render(node: exp.Expression, scope: Scope) -> Rendered:
        if {name for name, value in node.args.items() if value} - {"this", "position"}:
            raise UntranslatableError(f"{_shown(node)} with more than one argument")
        part = _text_of(_render(node.this, scope))
        return _of(template.format(part.sql), kind, part)

    return render


def _trim(node: exp.Expression, scope: Scope) -> Rendered:
    called = {"LEADING": "ltrim", "TRAILING": "rtrim"}.get(node.args.get("position") or "", "btrim")
    return _function(called + "({})", Kind.TEXT)(node, scope)


def _abs(node: exp.Expression, scope: Scope) -> Rendered:
    part = _arithmetic_operand(_render(node.this, scope))
    return _of(f"abs({part.sql})", part.kind, part)


def _coalesce(node: exp.Expression, scope: Scope) -> Rendered:
    parts = _alike(*(_render(side, scope) for side in (node.this, *node.expressions)))
    kind = next((part.kind for part in parts if part.kind is not None), None)
    return _of(f"COALESCE({', '.join(part.sql for part in parts)})", kind, *parts)


def _substring(node: exp.Expression, scope: Scope) -> Rendered:
    value = _text_of(_render(node.this, scope))
    start = _render(node.args["start"], scope).literal
    length = node.args.get("length")
    count = None if length is None else _render(length, scope).literal
    if not isinstance(start, int) or start < 1 or (length is not None and not _is_size(count)):
        raise UntranslatableError("substr() is translated from a literal place, counted from 1")
    rest = "" if length is None else f", {count}"
    return _of(f"substr({value.sql}, {start}{rest})", Kind.TEXT, value)


def _is_size(count: object) -> bool:
    return isinstance(count, int) and 0 <= count < 2**31


def _anonymous(node: exp.Expression, scope: Scope) -> Rendered:
    if node.name.lower() == "json_valid" and len(node.expressions) == 1:
        part = _render(node.expressions[0], scope)
        if part.kind is Kind.JSON:  # The type says it. Of NULL it is NULL in SQLite.
            return _of(f"({part.sql} IS NOT NULL OR NULL)", Kind.BOOLEAN, part)
    raise UntranslatableError(f"{_shown(node)} is not known to mean the same in PostgreSQL")


def _case(node: exp.Expression, scope: Scope) -> Rendered:
    if node.this is not None:
        raise UntranslatableError("CASE is translated in the form CASE WHEN")
    tests = [_truth(_render(choice.this, scope)) for choice in node.args["ifs"]]
    default = node.args.get("default")
    results = [_render(choice.args["true"], scope) for choice in node.args["ifs"]]
    results.append(Rendered("NULL", None) if default is None else _render(default, scope))
    *results, otherwise = _alike(*results)
    pairs = " ".join(
        f"WHEN {test.sql} THEN {result.sql}" for test, result in zip(tests, results, strict=True)
    )
    kind = next((part.kind for part in (*results, otherwise) if part.kind is not None), None)
    return _of(f"CASE {pairs} ELSE {otherwise.sql} END", kind, *tests, *results, otherwise)


def _of(text: str, kind: Kind | None, *parts: Rendered) -> Rendered:
    columns = dict.fromkeys(name for part in parts for name in part.columns)
    return Rendered(text, kind, columns=tuple(columns))


def _group(kind: Kind | None) -> Kind | None:
    return Kind.INTEGER if kind in INTEGERS else kind


_RENDERERS: dict[type[exp.Expression], Callable[[exp.Expression, Scope], Rendered]] = {
    exp.Column: _column,
    exp.Literal: _literal,
    exp.Null: _null,
    exp.Boolean: _boolean,
    exp.Neg: _negated,
    exp.Paren: _paren,
    exp.And: _connected("AND"),
    exp.Or: _connected("OR"),
    exp.Not: _not,
    exp.EQ: _compared("="),
    exp.NEQ: _compared("<>"),
    exp.NullSafeEQ: _compared("IS NOT DISTINCT FROM"),
    exp.NullSafeNEQ: _compared("IS DISTINCT FROM"),
    exp.LT: _compared("<", ordered=True),
    exp.LTE: _compared("<=", ordered=True),
    exp.GT: _compared(">", ordered=True),
    exp.GTE: _compared(">=", ordered=True),
    exp.Between: _between,
    exp.In: _in,
    exp.Is: _is,
    exp.Like: _like,
    exp.Add: _calculated("+"),
    exp.Sub: _calculated("-"),
    exp.Mul: _calculated("*"),
    exp.Div: _calculated("/"),
    exp.Mod: _calculated("%"),
    exp.DPipe: _joined,
    exp.Lower: _function(f"lower({{}}{sql.C})", Kind.TEXT),
    exp.Upper: _function(f"upper({{}}{sql.C})", Kind.TEXT),
    exp.Length: _function("length({})::bigint", Kind.INTEGER),
    exp.Trim: _trim,
    exp.Abs: _abs,
    exp.Coalesce: _coalesce,
    exp.Substring: _substring,
    exp.Anonymous: _anonymous,
    exp.Case: _case,
}
