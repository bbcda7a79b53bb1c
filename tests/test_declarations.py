"""Types, names, defaults and clauses of a SQLite schema."""

import sqlite3
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from kgcore.errors import SourceError
from kgcore.migration.stages import check
from kgcore.model import Column, Kind, Table
from kgcore.schema import quoted
from kgcore.schema.translate import ddl, names
from kgcore.schema.translate.defaults import default
from kgcore.schema.translate.parts import UntranslatableError
from kgcore.schema.translate.types import Evidence, decide, misfit, promised
from tests.servers import Database

# Types.

texts_of_all_sorts = st.one_of(
    st.text(max_size=12),
    st.datetimes().map(str),
    st.datetimes().map(lambda at: at.isoformat()),
    st.dates().map(str),
    st.from_regex(
        r"[0-9]{4}-[0-9]{2}-[0-9]{2}([T ][0-9]{2}:[0-9]{2}(:[0-9]{2}(\.[0-9]{1,7})?)?)?"
        r"(Z|[+-][0-9]{2}:[0-9]{2})?",
        fullmatch=True,
    ),
    st.sampled_from(["t", "TRUE", "yes", "No", "off", "2", "0000-01-01", "9999-12-31"]),
)
values = st.one_of(
    st.none(),
    st.integers(-(2**63), 2**63 - 1),
    st.integers(-1, 2),
    st.floats(allow_nan=False),
    st.binary(max_size=5),
    texts_of_all_sorts.filter(lambda text: "\0" not in text),
)


@settings(max_examples=400, deadline=None)
@given(values, st.sampled_from(sorted(set(Kind) - {Kind.KEY, Kind.ROW, Kind.JSON})))
def test_a_value_that_keeps_the_promise_is_never_refused(value: Any, kind: Kind) -> None:
    sqlite = sqlite3.connect(":memory:")
    sqlite.execute("CREATE TABLE x (v)")
    try:
        sqlite.execute("INSERT INTO x VALUES (?)", (value,))
    except UnicodeEncodeError:
        return
    (broken,) = sqlite.execute(f"SELECT {misfit(kind, quoted('v'))} FROM x").fetchone()
    sqlite.close()
    table = Table("t", (Column("id", Kind.KEY), Column("v", kind)))
    if not broken:
        assert check.check(table, [(1, value)]).refusals == ()


@pytest.mark.parametrize(
    ("declared", "kind"),
    [
        ("INTEGER", Kind.INTEGER),
        ("smallint unsigned", Kind.INTEGER),
        ("BIGINT", Kind.INTEGER),
        ("bool", Kind.BOOLEAN),
        ("BOOLEAN NOT NULL", Kind.BOOLEAN),
        ("NVARCHAR(160)", Kind.TEXT),
        ("varchar(30)", Kind.TEXT),
        ("NUMERIC(10,2)", Kind.NUMERIC),
        ("decimal", Kind.NUMERIC),
        ("DOUBLE PRECISION", Kind.REAL),
        ("FLOAT", Kind.REAL),
        ("BLOB", Kind.BLOB),
        ("VARBINARY(8)", Kind.BLOB),
        ("JSON", Kind.JSON),
        ("datetime", Kind.TIMESTAMP),
        ("TIMESTAMP WITH TIME ZONE", Kind.TIMESTAMP),
        ("DATE", Kind.DATE),
        ("TIME", None),
        ("STRING", None),
        ("", None),
    ],
)
def test_declared_types(declared: str, kind: Kind | None) -> None:
    assert promised(declared) is kind


def test_where_a_promise_is_broken_the_kind_that_most_values_fit_decides() -> None:
    def kind(
        misfits: int, promise: Kind | None = Kind.INTEGER, fit: bool = True, **storage: int
    ) -> Kind:
        return decide(promise, Evidence(misfits, 7, storage, fit))[0]

    assert kind(1, text=1, integer=5) is Kind.TEXT
    assert kind(5, real=5) is Kind.REAL
    assert kind(1, integer=5, real=1) is Kind.REAL
    assert kind(1, integer=5, real=1, fit=False) is Kind.NUMERIC
    assert kind(5, blob=5) is Kind.BLOB
    # Text takes no REAL and no BLOB: one odd value is refused rather than all the others.
    assert kind(1, Kind.NUMERIC, real=999, text=1) is Kind.NUMERIC
    assert kind(1, Kind.REAL, real=2, integer=2, text=1) is Kind.REAL
    assert kind(1, Kind.BLOB, blob=5, text=1) is Kind.BLOB
    assert kind(3, Kind.TEXT, blob=3, text=2) is Kind.BLOB
    assert kind(6, None, real=5, text=1) is Kind.REAL
    assert kind(6, None, integer=3, text=3) is Kind.TEXT
    assert kind(0, None) is Kind.TEXT
    assert kind(2, Kind.DATE, real=1, blob=1) is Kind.REAL
    _, why = decide(Kind.DATE, Evidence(3, 7, {"text": 3}))
    assert why == "3 values are no date (one has the row id 7): the column arrives as text"
    assert decide(Kind.DATE, Evidence()) == (Kind.DATE, None)


# Names.


@settings(max_examples=150, deadline=None)
@given(
    st.lists(st.text(min_size=1, max_size=70), unique=True, max_size=6),
    st.sampled_from(["keep", "lower", "snake"]),
)
def test_names_stay_apart_and_fit_or_are_refused(found: list[str], how: names.Names) -> None:
    try:
        targets = names.folded(found, how, "tables")
    except SourceError:
        return
    assert list(targets) == found
    assert len(set(targets.values())) == len(found)
    assert all(0 < len(target.encode()) <= 63 for target in targets.values())


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("InvoiceLine", "invoice_line"),
        ("HTTPStatus", "http_status"),
        ("Order Details", "order_details"),
        ("already_snake", "already_snake"),
        ("Größe2X", "größe2_x"),
        ("x-y.z", "x_y_z"),
        ("__x", "x"),
        ("%", "%"),
    ],
)
def test_snake(name: str, expected: str) -> None:
    assert names.snake(name) == expected
    assert names.snake(expected) == expected


@settings(max_examples=200)
@given(st.lists(st.text(max_size=80), max_size=8))
def test_generated_names_are_all_different(wanted: list[str]) -> None:
    relations = names.Relations(["t"])
    taken = [relations.free(name) for name in wanted]
    assert len({*taken, "t"}) == len(taken) + 1
    assert all(len(name.encode()) <= 63 for name in taken)


# Defaults.


@pytest.mark.parametrize(
    ("written", "kind", "expected"),
    [
        ("'it''s'", Kind.TEXT, "it's"),
        ("'back\\slash'", Kind.TEXT, "back\\slash"),
        ('"double"', Kind.TEXT, "double"),
        ("word", Kind.TEXT, "word"),
        ("7", Kind.TEXT, "7"),
        ("-7", Kind.INTEGER, "-7"),
        ("'7'", Kind.INTEGER, "7"),
        ("1.5", Kind.REAL, "1.5"),
        ("9e999", Kind.REAL, "Infinity"),
        ("0.99", Kind.NUMERIC, "0.99"),
        ("TRUE", Kind.BOOLEAN, "true"),
        ("'f'", Kind.BOOLEAN, "false"),
        ("x'00FF'", Kind.BLOB, "\\x00ff"),
        ("'{\"a\": 1}'", Kind.JSON, '{"a": 1}'),
        ("'2020-02-29'", Kind.DATE, "2020-02-29"),
        ("'2020-02-29 10:00:00'", Kind.TIMESTAMP, "2020-02-29 10:00:00+00"),
        ("NULL", Kind.TEXT, None),
        ("date('now') = date('now')", Kind.BOOLEAN, UntranslatableError),
        ("'x'", Kind.INTEGER, UntranslatableError),
        ("2", Kind.BOOLEAN, UntranslatableError),
        ("(random())", Kind.INTEGER, UntranslatableError),
        ("nextval('x')", Kind.INTEGER, UntranslatableError),
        ("'2020-02-30'", Kind.DATE, UntranslatableError),
        ("'{'", Kind.JSON, UntranslatableError),
        ("CURRENT_TIMESTAMP", Kind.INTEGER, UntranslatableError),
        ("strftime('%s', 'now')", Kind.TIMESTAMP, UntranslatableError),
    ],
)
def test_defaults(
    postgres: Database, written: str, kind: Kind, expected: str | type[Exception] | None
) -> None:
    if isinstance(expected, type):
        with pytest.raises(expected):
            default(written, kind)
        return
    with postgres.connect() as connection, connection.cursor() as cursor:
        cursor.execute("SET TimeZone = 'UTC'")
        cursor.execute(f"SELECT ({default(written, kind)})::text")
        assert cursor.fetchone() == (expected,)


@pytest.mark.parametrize(
    "written",
    [
        "CURRENT_TIMESTAMP",
        "datetime('now')",
        "( datetime ( 'now' ) )",
        "strftime('%Y-%m-%dT%H:%M:%SZ', 'now')",
        "CURRENT_DATE",
        "CURRENT_TIME",
    ],
)
def test_now_has_the_form_that_sqlite_gives_it(postgres: Database, written: str) -> None:
    sqlite = sqlite3.connect(":memory:")
    (mine,) = sqlite.execute(f"SELECT {written}").fetchone()
    sqlite.close()
    ((theirs,),) = postgres.rows(f"SELECT {default(written, Kind.TEXT)}")
    shape = str.maketrans("123456789", "0" * 9)
    assert mine.translate(shape) == theirs.translate(shape)
    assert default("CURRENT_TIMESTAMP", Kind.TIMESTAMP) == "now()"


# Clauses.


def test_clauses_are_found_between_words_and_quotes() -> None:
    found = ddl.table_clauses(
        """CREATE TABLE "a(b" ([x y] varchar(10) NOT NULL DEFAULT ', CHECK (' COLLATE NOCASE
           CHECK ("x y" > 'it''s'), -- COLLATE nothing
           d int GENERATED ALWAYS AS (e + 1) STORED,
           e text REFERENCES y(z) DEFERRABLE INITIALLY DEFERRED,
           f int REFERENCES y NOT DEFERRABLE INITIALLY DEFERRED,
           g text UNIQUE ON CONFLICT REPLACE,
           CONSTRAINT "ck" CHECK (d > 0) FOREIGN KEY (d, "E") REFERENCES y
           DEFERRABLE INITIALLY DEFERRED) WITHOUT ROWID"""
    )
    assert found is not None
    assert [(item.name, item.condition) for item in found.checks] == [
        (None, "\"x y\" > 'it''s'"),
        ("ck", "d > 0"),
    ]
    assert found.collations == {"x y": "NOCASE"}
    assert found.generated == {"d": "e + 1"}
    assert found.deferred == {("e",), ("d", "e")}
    assert found.conflicts == ["g text UNIQUE ON CONFLICT REPLACE"]
    index = ddl.index_clauses("CREATE INDEX i ON t (lower(a) COLLATE NOCASE DESC, b) WHERE a > '('")
    assert index == ddl.IndexClauses(("lower(a) COLLATE NOCASE DESC", "b"), "a > '('")
    assert ddl.without_direction(index.terms[0]) == "lower(a)"


@settings(max_examples=100, deadline=None)
@given(st.text(max_size=60))
def test_no_statement_makes_the_search_fail(text: str) -> None:
    ddl.table_clauses(f"CREATE TABLE t ({text})")
    ddl.index_clauses(f"CREATE INDEX i ON t ({text})")
    ddl.table_clauses(text)
