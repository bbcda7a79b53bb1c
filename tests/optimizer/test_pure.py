"""What needs no database: needless indexes, the size of a fresh index, plans as text, sizes."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kgcore.backends.placeholders import without_literals
from kgcore.optimizer.bloat import Keys, fresh_bytes
from kgcore.optimizer.model import Step
from kgcore.optimizer.postgres_plans import single_statement
from kgcore.optimizer.redundant import Shape, redundant
from kgcore.optimizer.server_settings import GIB, parsed_size

shapes = st.builds(
    Shape,
    table=st.sampled_from(["t", "u"]),
    name=st.uuids().map(str),
    kind=st.sampled_from(["btree", "gin"]),
    keys=st.lists(st.sampled_from("abc"), min_size=1, max_size=3, unique=True).map(tuple),
    included=st.frozensets(st.sampled_from("xy")),
    predicate=st.sampled_from(["", "a > 0"]),
    enforces=st.booleans(),
    constraint=st.booleans(),
    valid=st.booleans(),
)


@given(st.lists(shapes, max_size=12, unique_by=lambda shape: shape.name))
def test_what_stays_serves_what_goes(found: list[Shape]) -> None:
    by_name = {shape.name: shape for shape in found}
    needless = redundant(found)
    for name, cover in needless.items():
        gone, stays = by_name[name], by_name[cover]
        assert cover not in needless
        assert (stays.table, stays.kind, stays.predicate) == (gone.table, gone.kind, gone.predicate)
        assert stays.valid
        assert stays.keys[: len(gone.keys)] == gone.keys
        assert stays.enforces or not gone.enforces
        assert stays.constraint or not gone.constraint
    left = [shape for shape in found if shape.name not in needless]
    assert redundant(left) == {}


def shape(name: str, *keys: str, **others: bool) -> Shape:
    return Shape("t", name, "btree", keys, **others)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("found", "needless"),
    [
        ([shape("a", "x"), shape("b", "x", "y")], {"a": "b"}),
        ([shape("a", "y"), shape("b", "x", "y")], {}),
        ([shape("a", "x"), shape("b", "x")], {"b": "a"}),
        ([shape("a", "x"), shape("b", "x", enforces=True, constraint=True)], {"a": "b"}),
        ([shape("a", "x", enforces=True), shape("b", "x", "y", enforces=True)], {}),
        ([shape("a", "x DESC"), shape("b", "x", "y")], {}),
        ([shape("a", "x"), shape("b", "x", "y"), shape("c", "x", "y", "z")], {"a": "c", "b": "c"}),
    ],
)
def test_needless_indexes(found: list[Shape], needless: dict[str, str]) -> None:
    assert redundant(found) == needless


def test_a_fresh_index_of_few_different_keys_is_smaller() -> None:
    unique = fresh_bytes(Keys(rows=100_000, width=8, distinct=100_000))
    few = fresh_bytes(Keys(rows=100_000, width=8, distinct=5))
    assert few < unique / 2
    assert fresh_bytes(Keys(rows=0, width=8, distinct=0)) == 8192


@pytest.mark.parametrize(
    ("sql", "reads"),
    [
        ("SELECT 1", True),
        ("select ';' ; ", True),
        (" -- a;b\n (VALUES (1))", True),
        ("/* ; */ WITH a AS (SELECT 1) TABLE a", True),
        ("SELECT 1; DROP TABLE entities", False),
        ("SELECT $$;$$; COMMIT", False),
        ("DELETE FROM entities", False),
        ("EXPLAIN SELECT 1", False),
        ("", False),
    ],
)
def test_one_statement_that_reads(sql: str, reads: bool) -> None:
    assert single_statement(without_literals(sql)) is reads


def test_a_plan_is_a_tree_of_lines() -> None:
    plan = Step(
        "join", 5, 4, 1.5, steps=(Step("read", 2, 2, details=("by x",)), Step("find", steps=()))
    )
    assert list(plan.lines()) == [
        "join  (4 rows, 5 expected, 1.5 ms)",
        "├─ read  (2 rows)",
        "│     by x",
        "└─ find",
    ]


@pytest.mark.parametrize(("text", "size"), [("16GB", 16 * GIB), ("512 MiB", GIB // 2)])
def test_sizes(text: str, size: int) -> None:
    assert parsed_size(text) == size


@pytest.mark.parametrize("text", ["", "16", "-1GB", "0GB", "much"])
def test_what_is_no_size(text: str) -> None:
    with pytest.raises(ValueError, match="no size"):
        parsed_size(text)
