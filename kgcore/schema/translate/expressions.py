"""Expressions of a SQLite schema, rendered anew in PostgreSQL's SQL from a short list of parts.

An expression is parsed into a tree, and only what is known here is rendered, with every name
quoted: columns of the table, literals, comparisons, AND/OR/NOT, arithmetic, ``||`` and a few
functions. Each part has a kind, and both sides of an operator must be of kinds for which SQLite and
PostgreSQL agree on the result; SQLite would compare and add anything. All else raises
:class:`UntranslatableError`, so no text of the file reaches the server as SQL.
"""

import re
from collections.abc import Callable
from dataclasses import replace

from sqlglot import exp

from kgcore.model import Kind
from kgcore.schema.translate import sql
from kgcore.schema.translate.arithmetic import absolute, calculated, negated
from kgcore.schema.translate.magnitudes import Magnitudes
from kgcore.schema.translate.parse import parsed
from kgcore.schema.translate.parts import (
    Rendered,
    Scope,
    UntranslatableError,
    group,
    of_parts,
    one_of,
    to_one_kind,
)

_NUMBER = re.compile(r"\d+|(\d+\.\d*|\.?\d+)([eE][+-]?\d+)?", re.ASCII)

# No text is longer, in either database.
_LENGTHS = Magnitudes(1.0, 2.0**31)


def translate(expression: str, scope: Scope) -> Rendered:
    """Render an expression. Raises :class:`UntranslatableError`."""
    try:
        return _render(parsed(expression), scope)
    except RecursionError:
        raise UntranslatableError("it is nested too deeply") from None


def condition(expression: str, scope: Scope) -> Rendered:
    """Render an expression that is used for its truth. Raises :class:`UntranslatableError`."""
    return _truth(translate(expression, scope))


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
    part = Rendered(
        sql.name(column.name),
        column.kind,
        columns=(column.name,),
        folds=column.name in scope.folded,
    )
    known = scope.operands.get(sql.fold_ascii(node.name))
    if known is None:
        return part
    is_mixed = column.kind is Kind.REAL and "integer" in known.classes
    return replace(part, magnitudes=known.magnitudes, mixed=is_mixed)


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
        return _number(sql.real(real), Kind.REAL, real)
    number = int(node.name) if len(node.name) < 40 else 2**63
    if number >= 2**63:
        raise UntranslatableError(f"{node.name} is no 64-bit integer")
    return _number(f"{number}::bigint", Kind.INTEGER, number)


def _number(text: str, kind: Kind, value: float) -> Rendered:
    return Rendered(text, kind, literal=value, magnitudes=Magnitudes.of(value))


def _null(_node: exp.Expression, _scope: Scope) -> Rendered:
    return Rendered("NULL", None)


def _boolean(node: exp.Expression, scope: Scope) -> Rendered:
    if str(bool(node.this)).lower() in scope.columns:
        raise UntranslatableError("a column is called true or false")
    value = int(bool(node.this))
    return _number(f"{value}::bigint", Kind.INTEGER, value)


def _negated(node: exp.Expression, scope: Scope) -> Rendered:
    return negated(_render(node.this, scope))


def _paren(node: exp.Expression, scope: Scope) -> Rendered:
    return _render(node.this, scope)


# Truth.


def _truth(part: Rendered) -> Rendered:
    match group(part.kind):
        case Kind.BOOLEAN | None:
            return part
        case Kind.INTEGER:
            return Rendered(f"({part.sql} <> 0)", Kind.BOOLEAN, columns=part.columns)
    raise UntranslatableError(f"it takes a {part.kind} for true or false")


def _connected(operator: str) -> Callable[[exp.Expression, Scope], Rendered]:
    def render(node: exp.Expression, scope: Scope) -> Rendered:
        left, right = (_truth(_render(side, scope)) for side in (node.this, node.expression))
        return of_parts(f"({left.sql} {operator} {right.sql})", Kind.BOOLEAN, left, right)

    return render


def _not(node: exp.Expression, scope: Scope) -> Rendered:
    part = _truth(_render(node.this, scope))
    return of_parts(f"(NOT {part.sql})", Kind.BOOLEAN, part)


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


def _compared(
    operator: str, *, ordered: bool = False
) -> Callable[[exp.Expression, Scope], Rendered]:
    def render(node: exp.Expression, scope: Scope) -> Rendered:
        left, right = to_one_kind(_operand(node.this, scope), _operand(node.expression, scope))
        is_text = Kind.TEXT in {left.kind, right.kind}
        by_bytes = _by_bytes(scope) if ordered and is_text else ""
        return of_parts(f"({left.sql} {operator} {right.sql}{by_bytes})", Kind.BOOLEAN, left, right)

    return render


def _by_bytes(scope: Scope) -> str:
    if scope.utf16:
        raise UntranslatableError("the file's texts are in UTF-16, and SQLite orders those bytes")
    return sql.C


def _between(node: exp.Expression, scope: Scope) -> Rendered:
    sides = (node.this, node.args["low"], node.args["high"])
    value, low, high = to_one_kind(*(_operand(side, scope) for side in sides))
    by_bytes = _by_bytes(scope) if value.kind is Kind.TEXT else ""
    return of_parts(
        f"({value.sql} >= {low.sql}{by_bytes} AND {value.sql} <= {high.sql}{by_bytes})",
        Kind.BOOLEAN,
        *(value, low, high),
    )


def _in(node: exp.Expression, scope: Scope) -> Rendered:
    if {name for name, value in node.args.items() if value} != {"this", "expressions"}:
        raise UntranslatableError("it asks another table")
    value, *choices = to_one_kind(
        *(_operand(side, scope) for side in (node.this, *node.expressions))
    )
    listed = ", ".join(choice.sql for choice in choices)
    return of_parts(f"({value.sql} IN ({listed}))", Kind.BOOLEAN, value, *choices)


def _same(*, negate: bool = False) -> Callable[[exp.Expression, Scope], Rendered]:
    """IS and IS NOT. With TRUE and FALSE they ask for the truth, with all else for equality."""
    word = "IS NOT" if negate else "IS"

    def render(node: exp.Expression, scope: Scope) -> Rendered:
        asked = node.expression.unnest()
        if not isinstance(asked, exp.Null | exp.Boolean):
            operator = "IS DISTINCT FROM" if negate else "IS NOT DISTINCT FROM"
            return _compared(operator)(node, scope)
        if isinstance(node.this, _PREDICATES):
            raise UntranslatableError("comparisons follow each other without parentheses")
        part = _render(node.this, scope)
        if isinstance(asked, exp.Null):
            return of_parts(f"({part.sql} {word} NULL)", Kind.BOOLEAN, part)
        _boolean(asked, scope)  # A column may have the name.
        part = _truth(part)
        value = str(bool(asked.this)).upper()
        return of_parts(f"({part.sql} {word} {value})", Kind.BOOLEAN, part)

    return render


def _like(node: exp.Expression, scope: Scope) -> Rendered:
    value, pattern = _render(node.this, scope), _render(node.expression, scope)
    if value.kind is not Kind.TEXT or not isinstance(pattern.literal, str):
        raise UntranslatableError("LIKE is translated for a text and a literal pattern")
    folded = sql.text(sql.fold_ascii(pattern.literal))
    negation = "NOT " if node.args.get("negate") else ""
    # PostgreSQL has a default escape character, SQLite has none.
    return of_parts(
        f"({sql.nocase(value.sql)} {negation}LIKE {folded} ESCAPE '')", Kind.BOOLEAN, value
    )


# Arithmetic.


def _calculated(operator: str) -> Callable[[exp.Expression, Scope], Rendered]:
    def render(node: exp.Expression, scope: Scope) -> Rendered:
        return calculated(operator, _render(node.this, scope), _render(node.expression, scope))

    return render


def _joined(node: exp.Expression, scope: Scope) -> Rendered:
    parts = []
    for side in (node.this, node.expression):
        # || binds tighter than arithmetic in SQLite, and not everywhere.
        if isinstance(side, exp.Binary | exp.Unary) and not isinstance(side, exp.DPipe | exp.Paren):
            raise UntranslatableError("|| beside another operator without parentheses")
        part = _render(side, scope)
        if group(part.kind) is Kind.INTEGER:
            part = replace(part, sql=f"({part.sql})::text", kind=Kind.TEXT)
        parts.append(_text_of(part))
    return of_parts(f"({parts[0].sql} || {parts[1].sql})", Kind.TEXT, *parts)


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
        return of_parts(template.format(part.sql), kind, part)

    return render


def _length(node: exp.Expression, scope: Scope) -> Rendered:
    part = _function("length({})::bigint", Kind.INTEGER)(node, scope)
    return replace(part, magnitudes=_LENGTHS)


def _trim(node: exp.Expression, scope: Scope) -> Rendered:
    called = {"LEADING": "ltrim", "TRAILING": "rtrim"}.get(node.args.get("position") or "", "btrim")
    return _function(called + "({})", Kind.TEXT)(node, scope)


def _abs(node: exp.Expression, scope: Scope) -> Rendered:
    return absolute(_render(node.this, scope))


def _coalesce(node: exp.Expression, scope: Scope) -> Rendered:
    parts = tuple(_render(side, scope) for side in (node.this, *node.expressions))
    return one_of(f"COALESCE({', '.join('{}' for _ in parts)})", parts)


def _substring(node: exp.Expression, scope: Scope) -> Rendered:
    value = _text_of(_render(node.this, scope))
    start = _render(node.args["start"], scope).literal
    length = node.args.get("length")
    count = None if length is None else _render(length, scope).literal
    is_place = _is_size(start) and start != 0
    if not is_place or (length is not None and not _is_size(count)):
        raise UntranslatableError("substr() is translated from a literal place, counted from 1")
    rest = "" if length is None else f", {count}"
    return of_parts(f"substr({value.sql}, {start}{rest})", Kind.TEXT, value)


def _is_size(count: object) -> bool:
    return isinstance(count, int) and 0 <= count < 2**31


def _anonymous(node: exp.Expression, scope: Scope) -> Rendered:
    if node.name.lower() == "json_valid" and len(node.expressions) == 1:
        part = _render(node.expressions[0], scope)
        if part.kind is Kind.JSON:  # The type says it. Of NULL it is NULL in SQLite.
            return of_parts(f"({part.sql} IS NOT NULL OR NULL)", Kind.BOOLEAN, part)
    raise UntranslatableError(f"{_shown(node)} is not known to mean the same in PostgreSQL")


def _case(node: exp.Expression, scope: Scope) -> Rendered:
    if node.this is not None:
        raise UntranslatableError("CASE is translated in the form CASE WHEN")
    choices = node.args["ifs"]
    tests = [_truth(_render(choice.this, scope)) for choice in choices]
    default = node.args.get("default")
    otherwise = Rendered("NULL", None) if default is None else _render(default, scope)
    results = (*(_render(choice.args["true"], scope) for choice in choices), otherwise)
    when = " ".join(f"WHEN {_braced(test.sql)} THEN {{}}" for test in tests)
    return one_of(f"CASE {when} ELSE {{}} END", results, *tests)


def _braced(text: str) -> str:
    """Return a text as a template that gives it."""
    return text.replace("{", "{{").replace("}", "}}")


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
    exp.NullSafeEQ: _same(),
    exp.NullSafeNEQ: _same(negate=True),
    exp.LT: _compared("<", ordered=True),
    exp.LTE: _compared("<=", ordered=True),
    exp.GT: _compared(">", ordered=True),
    exp.GTE: _compared(">=", ordered=True),
    exp.Between: _between,
    exp.In: _in,
    exp.Is: _same(),
    exp.Like: _like,
    exp.Add: _calculated("+"),
    exp.Sub: _calculated("-"),
    exp.Mul: _calculated("*"),
    exp.Div: _calculated("/"),
    exp.Mod: _calculated("%"),
    exp.DPipe: _joined,
    exp.Lower: _function(f"lower({{}}{sql.C})", Kind.TEXT),
    exp.Upper: _function(f"upper({{}}{sql.C})", Kind.TEXT),
    exp.Length: _length,
    exp.Trim: _trim,
    exp.Abs: _abs,
    exp.Coalesce: _coalesce,
    exp.Substring: _substring,
    exp.Anonymous: _anonymous,
    exp.Case: _case,
}
