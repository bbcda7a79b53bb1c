"""Expressions of a SQLite schema, on both databases."""

import re
import sqlite3
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from kgcore.model import Column, Kind
from kgcore.schema.translate.expressions import translate
from kgcore.schema.translate.magnitudes import Magnitudes
from kgcore.schema.translate.parts import Scope, UntranslatableError
from kgcore.schema.translate.types import Operand
from tests.servers import Database

COLUMNS = {
    "a": Column("a", Kind.INTEGER),
    "r": Column("r", Kind.REAL),
    "t": Column("T t", Kind.TEXT),
    "b": Column("b", Kind.BOOLEAN),
    "j": Column("j", Kind.JSON),
    "at": Column("at", Kind.TIMESTAMP),
    "n": Column("n", Kind.TEXT),
}
OPERANDS = {
    "a": Operand(frozenset({"integer"}), Magnitudes(5, 2**40)),
    "r": Operand(frozenset({"real"}), Magnitudes(0.1, 1e30)),
}
SCOPE = Scope(COLUMNS, frozenset({"n"}), OPERANDS)


# Expressions.

ROWS = [
    (5, 2.5, "Grün 'x' \\ %", 1),
    (-7, -0.0, "", 0),
    (0, 1e30, "abc", None),
    (None, None, None, 1),
    (2**40, 0.1, "ABC", 0),
]

numbers = st.one_of(
    st.sampled_from(["a", "r"]),
    st.integers(-9, 9).map(str),
    st.sampled_from(["0.5", "1e3", "-2.25"]),
)
texts = st.one_of(
    st.just("t"),
    st.sampled_from(["'abc'", "'it''s'", "'back\\slash'", "'%'", "''", "'{}'", "'é'"]),
)


def _grow(inner: Any) -> Any:
    """Expressions of each kind out of smaller ones: a number, a text, a condition."""
    number, text, truth = inner
    more_numbers = st.one_of(
        number,
        st.builds("({} {} {})".format, number, st.sampled_from(["+", "-", "*", "/"]), number),
        st.builds("abs({})".format, number),
        st.builds("length({})".format, text),
        st.builds("coalesce({}, {})".format, st.just("a"), st.integers(0, 5).map(str)),
        st.builds("(a % {})".format, st.integers(-5, 5)),
        st.builds("-({})".format, number),
    )
    more_texts = st.one_of(
        text,
        st.builds("{}({})".format, st.sampled_from(["lower", "upper", "trim", "ltrim"]), text),
        st.builds("({} || {})".format, text, text),
        st.builds("({} || {})".format, text, st.just("a")),
        st.builds("substr({}, {}, {})".format, text, st.integers(1, 4), st.integers(0, 4)),
        st.builds("CASE WHEN {} THEN {} ELSE {} END".format, truth, text, text),
    )
    more_truths = st.one_of(
        truth,
        st.builds(
            "({} {} {})".format, number, st.sampled_from(["<", "<=", "=", "<>", "IS"]), number
        ),
        st.builds(
            "({} {} {})".format,
            st.one_of(truth, st.just("a")),
            st.sampled_from(["IS", "IS NOT", "IS NOT DISTINCT FROM"]),
            st.sampled_from(["TRUE", "FALSE", "(TRUE)", "NULL"]),
        ),
        st.builds(
            "({} {} {})".format, text, st.sampled_from(["<", ">=", "==", "!=", "IS NOT"]), text
        ),
        st.builds("({} {} ({}))".format, truth, st.sampled_from(["AND", "OR"]), truth),
        st.builds("(NOT {})".format, truth),
        st.builds("({} IN ({}, {}))".format, text, text, text),
        st.builds("({} BETWEEN {} AND {})".format, number, number, number),
        st.builds("(t LIKE {})".format, st.sampled_from(["'a%'", "'_B_'", "'%\\%'", "'É'"])),
        st.builds("({} IS NULL)".format, st.one_of(number, text)),
        st.builds("(b IN ({}))".format, st.sampled_from(["0", "1", "0, 1"])),
    )
    return more_numbers, more_texts, more_truths


_LEVEL = (numbers, texts, st.sampled_from(["b", "(b = 1)", "(a > 0)", "a"]))
for _ in range(3):
    _LEVEL = _grow(_LEVEL)
expressions = st.one_of(*_LEVEL)


@settings(
    max_examples=100,
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)
@given(st.lists(expressions, min_size=1, max_size=5))
def test_what_is_translated_gives_the_same_on_both_databases(
    postgres: Database, found: list[str]
) -> None:
    sqlite = sqlite3.connect(":memory:")
    sqlite.execute("CREATE TABLE x (a INTEGER, r REAL, t TEXT, b BOOLEAN)")
    sqlite.executemany("INSERT INTO x VALUES (?, ?, ?, ?)", ROWS)
    values = (
        "(VALUES (%s::bigint, %s::double precision, %s::text, %s::bigint::int::boolean),"
        " (%s, %s, %s, %s::int::boolean), (%s, %s, %s, %s::int::boolean),"
        " (%s, %s, %s, %s::int::boolean), (%s, %s, %s, %s::int::boolean))"
    )
    cells = [cell for row in ROWS for cell in row]
    for expression in found:
        try:
            rendered = translate(expression, SCOPE)
        except UntranslatableError:
            continue
        mine = sqlite.execute(f"SELECT {expression} FROM x").fetchall()
        query = rendered.sql.replace("%", "%%")
        # Never out of range: SQLite would go over to a REAL, to infinity or to zero.
        theirs = postgres.rows(f'SELECT {query} FROM {values} AS x (a, r, "T t", b)', cells)
        for (left,), (right,) in zip(mine, theirs, strict=True):
            assert _same(left, right), f"{expression} -> {rendered.sql}: {left!r}, {right!r}"
    sqlite.close()


def _same(left: Any, right: Any) -> bool:
    if isinstance(right, bool):
        return bool(left) is right
    return bool(left == right) and isinstance(left, float) is isinstance(right, float)


@pytest.mark.parametrize(
    "expression",
    [
        "pg_sleep(10)",
        "a); DROP TABLE victim; --",
        "a; DROP TABLE victim",
        "(SELECT count(*) FROM victim)",
        "a IN (SELECT 1)",
        "EXISTS (SELECT 1)",
        "load_extension('x')",
        "lo_import('/etc/passwd')",
        "a FROM pg_authid",
        "a::regclass",
        "CAST(t AS regclass)",
        "nosuch > 1",
        '"nosuch" > 1',
        "t = 5",  # SQLite compares it as text, PostgreSQL not at all.
        "r > a",
        "a * 4194304",  # 2^40 is the largest.
        "a + 4611686018427387904",
        "a * a * a / a / a",
        "r * r * r * r * r * r * r * r * r * r",
        "1 / (r * 1e-250 * 1e-250)",
        "coalesce(r, 5) / 2",  # An integer to SQLite where r is NULL.
        "substr(t, 3000000000)",
        "substr(t, 0)",
        "n = 'x'",  # NOCASE
        "at > '2020-01-01'",
        "a = b = 1",
        "a & 1",
        "t GLOB 'a*'",
        "random()",
        "strftime('%Y', at)",
        "t COLLATE NOCASE = 'x'",
        "'a' || 1 + 2",
        "9223372036854775808",
        "t = 'a\0b'",
        "count(*)",
        "sum(a) OVER ()",
        "?1",
        ":name",
        "{{ a }}",
        "(" * 400 + "a" + ")" * 400,
        "",
    ],
)
def test_all_else_is_refused(expression: str) -> None:
    with pytest.raises(UntranslatableError):
        translate(expression, SCOPE)


def test_what_is_not_known_of_the_values_is_not_calculated_with() -> None:
    for expression in ("a + 1", "-a", "abs(a)", "-r", "a * r", "-coalesce(a, 1)"):
        translate(expression, SCOPE)
        with pytest.raises(UntranslatableError, match="with the values here"):
            translate(expression, Scope(COLUMNS))
    mixed = {"r": Operand(frozenset({"real", "integer"}), Magnitudes())}
    with pytest.raises(UntranslatableError, match="integers and reals"):
        translate("r / 2", Scope(COLUMNS, operands=mixed))
    called = Scope({"true": Column("true", Kind.INTEGER), "a": COLUMNS["a"]})
    for expression in ("a IS TRUE", "a = TRUE"):
        with pytest.raises(UntranslatableError, match="a column is called"):
            translate(expression, called)
    with pytest.raises(UntranslatableError, match="UTF-16"):
        translate("t < 'B'", Scope(COLUMNS, utf16=True))


@given(
    st.floats(allow_nan=False, allow_infinity=False).filter(bool),
    st.floats(allow_nan=False, allow_infinity=False).filter(bool),
    st.sampled_from("+-*/"),
)
@settings(max_examples=500)
def test_results_lie_within_the_bounds(left: float, right: float, operator: str) -> None:
    one, other = Magnitudes.of(left), Magnitudes.of(right)
    bounds = {"*": one.times(other), "/": one.over(other)}.get(operator, one.plus(other))
    if not bounds.fit_reals:
        return
    (result,) = (
        sqlite3.connect(":memory:").execute(f"SELECT ? {operator} ?", (left, right)).fetchone()
    )
    assert operator in "+-" or result
    assert not result or bounds.smallest * 0.999 <= abs(result) <= bounds.largest * 1.001


@settings(max_examples=150, deadline=None)
@given(
    st.text(max_size=30) | st.lists(st.sampled_from([*"abrtj'\"();-/*%=<>|,.0123 \n"])).map("".join)
)
def test_no_text_makes_it_fail_otherwise(text: str) -> None:
    try:
        rendered = translate(text, SCOPE)
    except UntranslatableError:
        return
    assert ";" not in re.sub(r"E?'(''|\\\\|[^'])*'", "", rendered.sql)
