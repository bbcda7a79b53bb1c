"""Rows that are told apart by something else than an integer key, and ids with gaps."""

import sqlite3
from contextlib import closing
from pathlib import Path
from typing import Any

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from kgcore.migration import new_run
from kgcore.migration.model import Options
from kgcore.migration.stages import extract
from kgcore.migration.stages.plan import plan
from kgcore.migration.workplace import Workplace
from tests.migration.graphs import file_of

keys = st.tuples(
    st.one_of(
        st.integers(-(2**63), 2**63 - 1),
        st.text(st.characters(exclude_categories=["Cs"]), max_size=4),
        st.binary(max_size=4),
        st.floats(allow_nan=False),
        st.sampled_from(["12", 12, 12.0, "a'b", b"12"]),
    ),
    st.integers(-3, 3),
)


@settings(
    max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(st.lists(keys, max_size=25), st.integers(1, 6), st.sampled_from(["", "TEXT", "INTEGER"]))
def test_tables_without_row_ids_are_read_whole_whatever_their_keys_are(
    tmp_path: Path, found: list[Any], chunk_rows: int, declared: str
) -> None:
    path = file_of(
        tmp_path / "keys.db", f"CREATE TABLE t (a {declared}, b, PRIMARY KEY (a, b)) WITHOUT ROWID"
    )
    with closing(sqlite3.connect(path)) as connection:
        connection.executemany("INSERT OR IGNORE INTO t VALUES (?, ?)", found)
        connection.commit()
        rows = connection.execute("SELECT * FROM t ORDER BY a, b").fetchall()
    with closing(extract.open_snapshot(path)) as connection:
        (planned,) = plan(connection, Options(only=("*",), chunk_rows=chunk_rows)).tables
    assert sum(chunk.rows for chunk in planned.chunks) == len(rows)
    read = []
    for chunk in planned.chunks:
        batches = list(extract.read_rows(path, planned, chunk))
        assert sum(map(len, batches)) == chunk.rows
        read += [row for batch in batches for row in batch]
    order = planned.table.column_names
    assert [row[0] for row in read] == list(range(len(rows)))
    assert [tuple(row[order.index(name)] for name in ("a", "b")) for row in read] == rows
    one_by_one = extract.read_raw(path, planned, range(len(rows)))
    assert [raw.row_id for raw in one_by_one] == list(range(len(rows)))


def test_row_ids_with_gaps_survive_the_freeze(place: Workplace, tmp_path: Path) -> None:
    """Chunks are cut by the row ids of the frozen copy; a VACUUM would have renumbered them."""
    source = file_of(
        tmp_path / "gaps.db",
        "CREATE TABLE t (x TEXT); INSERT INTO t (rowid, x) VALUES (-5, 'a'), (7, 'b'), (1000, 'c')",
    )
    prepared = new_run.prepare(source, place.data_dir, Options(only=("*",)))
    (planned,) = prepared.tables
    (rows,) = extract.read_rows(prepared.source.path, planned, planned.chunks[0])
    assert rows == [(-5, "a"), (7, "b"), (1000, "c")]
