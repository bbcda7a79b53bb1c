"""The dry run judges each value as the careful lane does."""

import sqlite3
from contextlib import closing
from itertools import pairwise
from pathlib import Path
from typing import Any

from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from kgcore.migration.dry_run.scan import scan
from kgcore.migration.model import Chunk, Origin, PlannedTable
from kgcore.migration.repairs import Repairs, choose
from kgcore.migration.stages import check, extract
from kgcore.model import Column, Index, Kind, Table

#: A column of each kind, in a table whose columns SQLite gives no affinity, and one that may not be
#: NULL. Two have an index, which holds only so much text.
_KINDS = [kind for kind in Kind if kind not in {Kind.KEY, Kind.ROW}]
ANY = Table(
    "t",
    (
        Column("id", Kind.KEY, nullable=False),
        *(Column(f"c_{kind}", kind) for kind in _KINDS),
        Column("needed", Kind.TEXT, nullable=False),
    ),
    (Index("i", ("c_text", "needed")),),
)

_WORDS = (
    *(
        "",
        "7",
        "07",
        "1.5",
        "1e400",
        "nan",
        "inf",
        "t",
        "No",
        "now",
        "a\0b",
        "\\N",
        "é",
        "\U0001f600",
    ),
    *(
        "{}",
        "{",
        '{"a": [1, {"b": null}]}',
        '{"a": NaN}',
        '"\\u0000"',
        '"\\ud800"',
        '"\\ud83d\\ude00"',
    ),
    *(
        '"\\n\\/"',
        "[1,2",
        "1,2",
        "-",
        "01",
        "-0.5e+7",
        "[[[[1]]]]",
        '{"a":1,}',
        " [ ] ",
        '"\x01"',
        '"\t"',
    ),
    *("2026-01-02", "2026-02-30", "2024-02-29", "0000-01-01", "2026-01-02T03:04:05Z"),
    *("2026-01-02 03:04:05", "2026-01-02T03:04:05.1234567Z", "2026-01-02T24:00:00Z"),
    *("2026-01-02T03:04:05+05:30", "2026-01-02T03:04:05-0330", "2026-01-02T03:04:05+25:00"),
    *("0001-01-01T00:00:00+01", "9999-12-31T23:59:59-01:00", "2026-01-02T03:04:60Z", "2026-1-2"),
    *("2026-01-02\n", "2026-01-02T03:04:05Z\n", "x" * 2_000, "é" * 2_000, "١", "２026-01-02"),
)
_NUMBERS = (
    0,
    1,
    2,
    -1,
    2**53 + 1,
    2**63 - 1,
    -(2**63),
    0.5,
    2.0,
    -0.0,
    1e300,
    2.0**63,
    float("inf"),
)
_BLOBS = (b"", b"\xff", b"text")
#: Text that is not UTF-8, by the bytes.
_BROKEN = (b"\xff", b"a\xc3", b'"\xed\xa0\x80"', b"2026-01-02\xff")

values = st.one_of(
    st.none(),
    st.sampled_from((*_WORDS, *_NUMBERS, *_BLOBS)),
    st.sampled_from(_BROKEN).map(lambda raw: (raw,)),
    st.text(max_size=5).filter(lambda text: text.isprintable()),
    st.integers(-(2**63), 2**63 - 1),
    st.binary(max_size=3),
)
rows_of_any = st.lists(st.lists(values, min_size=10, max_size=10), min_size=1, max_size=6)


def table_of(path: Path, rows: list[list[Any]]) -> PlannedTable:
    """A file with a table of columns without affinity, and these rows."""
    path.unlink(missing_ok=True)
    names = ANY.column_names[1:]
    with closing(sqlite3.connect(path)) as connection:
        connection.execute(f"CREATE TABLE t (id INTEGER PRIMARY KEY, {', '.join(names)})")
        for row in rows:
            marks = ", ".join("CAST(? AS TEXT)" if isinstance(v, tuple) else "?" for v in row)
            plain = [value[0] if isinstance(value, tuple) else value for value in row]
            connection.execute(f"INSERT INTO t VALUES (NULL, {marks})", plain)
        connection.commit()
    reads = tuple(f'"{name}"' for name in ANY.column_names)
    return PlannedTable(ANY, len(rows), len(rows), origin=Origin("t", reads))


@settings(
    max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(rows_of_any, st.booleans())
@example([["2026-01-02T03:04:05Z"] * 10, [b"x"] * 10, ["a\0b"] * 10], False)
def test_what_is_refused_is_what_the_careful_lane_refuses(
    tmp_path: Path, rows: list[list[Any]], repaired: bool
) -> None:
    path = tmp_path / "any.db"
    planned = table_of(path, rows)
    extract.kept_kinds.cache_clear()
    chunk = Chunk("t", -(2**63), None, len(rows))
    repairs = choose(["all"]) if repaired else Repairs()
    found = scan(path, planned, chunk, repairs, frozenset())
    (read,) = extract.read_rows(path, planned, chunk)
    expected = check.check(ANY, read, repairs).refusals
    assert sorted(found.refused) == sorted(refusal.row_id for refusal in expected)
    assert sorted(
        (item.row_id, reason.column, reason.sqlstate)
        for reason in found.tally.reasons.values()
        for item in reason.examples
    ) == sorted((refusal.row_id, refusal.column, refusal.sqlstate) for refusal in expected)
    for place, column in enumerate(ANY.columns):
        storage = found.columns[column.name].storage
        nothing = sum(row[place] is None for row in read)
        assert storage.get("null", 0) == nothing
        assert storage.total() == len(rows)


def test_values_of_one_class_are_judged_as_the_careful_lane_does(tmp_path: Path) -> None:
    """By themselves in a chunk, so that Arrow reads a column of nothing but their like."""
    path = tmp_path / "any.db"
    integers = [value for value in _NUMBERS if isinstance(value, int)]
    reals = [value for value in _NUMBERS if isinstance(value, float)]
    rows: list[list[Any]] = []
    bounds = [1]
    for place in range(len(_KINDS)):
        for alike in (_WORDS, integers, reals, _BLOBS, [(raw,) for raw in _BROKEN]):
            for value in alike:
                rows.append([None] * len(_KINDS) + ["x"])
                rows[-1][place] = value
            bounds.append(len(rows) + 1)
    planned = table_of(path, rows)
    whole = Chunk("t", 1, None, len(rows))
    read = [row for batch in extract.read_rows(path, planned, whole) for row in batch]
    refused = set[int]()
    for lower, upper in pairwise(bounds):
        chunk = Chunk("t", lower, upper, upper - lower)
        refused.update(scan(path, planned, chunk, Repairs(), frozenset()).refused)
    assert refused == {refusal.row_id for refusal in check.check(ANY, read).refusals}
