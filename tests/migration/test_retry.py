"""Rejects tried again: of a run that waits in staging, and of one that is live."""

import json
import sqlite3
from contextlib import closing
from pathlib import Path
from typing import Any

import psycopg2
import pytest
from hypothesis import given
from hypothesis import strategies as st

from kgcore.errors import MismatchError, RunError, SettingsError, TargetBusyError
from kgcore.migration import ledger, runs
from kgcore.migration.local import run_here
from kgcore.migration.mended import read_mended
from kgcore.migration.model import RawRow, RunState
from kgcore.migration.reports import read_report
from kgcore.migration.retry import retry
from kgcore.migration.stages import extract, insert
from kgcore.migration.stages.report import Report
from kgcore.migration.workplace import Workplace
from tests.migration.conftest import Migrate
from tests.migration.graphs import entity, mission, relationship, write_graph
from tests.servers import Database


def spoiled(path: Path) -> Path:
    return write_graph(
        path,
        entities=[
            *(entity(row_id) for row_id in range(1, 41)),
            entity(41, metadata='{"a": NaN}'),
            entity(42, metadata="{"),
            entity(43, name="file 7"),
        ],
        relationships=[
            relationship(1, 1, 2),
            relationship(2, 41, 42),
            relationship(3, 1, 99),
            relationship(4, 43, 1),
        ],
        missions=[mission(1), mission(2, cost="dear")],
        unique=False,
    )


def lines(place: Workplace, run_id: str) -> dict[tuple[str, int], dict[str, Any]]:
    """What kg rejects --json prints."""
    with ledger.transaction(place.pool) as cursor:
        found = [reject.to_json() for reject in ledger.list_rejects(cursor, run_id)]
    return {(item["table"], item["id"]): item for item in found}


def require_balance(report: Report) -> None:
    for counts in report.tables.values():
        assert counts.source_rows == counts.loaded_rows + counts.rejected_rows
        assert counts.verified_rows == counts.loaded_rows


def test_a_rejected_run_goes_on_with_rows_that_were_mended(
    migrate: Migrate, place: Workplace, postgres: Database, tmp_path: Path
) -> None:
    report = migrate(spoiled(tmp_path / "graph.db"), chunk_rows=10)
    run_id = report.run.run_id
    assert report.run.state is RunState.REJECTED
    assert report.totals["rejected_rows"] == 3 + 3 + 1
    done = retry(place.pool, run_id, repairs=("nan-as-null",))
    assert done.loaded == {"entities": 1, "relationships": 0, "mission_history": 0}
    assert done.left == 6
    require_balance(read_report(place.pool, run_id))
    item = lines(place, run_id)["entities", 42]
    item["row"]["metadata"]["value"] = '{"mended": 1.50}'
    other = {"table": "relationships", "id": 3, "row": {"to_id": 3, "metadata": {"by": "hand"}}}
    mended = read_mended([json.dumps(item), "", json.dumps(other)])
    done = retry(place.pool, run_id, mended=mended, repairs=("merge-duplicates",))
    assert done.loaded == {"entities": 1, "relationships": 3, "mission_history": 0}
    assert done.refused["mission_history"] == 1
    assert done.left == 1
    run_here(place, runs.resume(place.pool, run_id, max_rejects=1), 2)
    after = read_report(place.pool, run_id)
    assert after.is_done, after.errors
    require_balance(after)
    assert postgres.rows("SELECT id, metadata::text FROM entities WHERE id > 40 ORDER BY 1") == [
        (41, '{"a": null}'),
        (42, '{"mended": 1.50}'),
    ]
    assert postgres.rows(
        "SELECT id, from_id, to_id, metadata::text FROM relationships ORDER BY 1"
    ) == [(1, 1, 2, None), (2, 41, 42, None), (3, 1, 3, '{"by": "hand"}'), (4, 7, 1, None)]
    kept = postgres.rows(
        "SELECT convert_from(bytes[4], 'UTF8'), convert_from(mended_bytes[4], 'UTF8'),"
        " loaded_at IS NOT NULL FROM kg_migration.rejects WHERE table_name = 'entities'"
        " AND row_id = 42"
    )
    assert kept == [("{", '{"mended": 1.50}', True)], "the original stays as it was"


def test_after_the_cutover_rows_go_into_the_live_tables(
    migrate: Migrate, place: Workplace, postgres: Database, tmp_path: Path
) -> None:
    report = migrate(spoiled(tmp_path / "graph.db"), max_rejects=7)
    assert report.is_done
    postgres.rows(
        "ALTER TABLE entities ADD COLUMN later text NOT NULL DEFAULT 'new';"
        "INSERT INTO entities (id, type, name) VALUES (42, 'file', 'taken since')"
    )
    repairs = ("nan-as-null", "json-as-string", "placeholder-entities")
    done = retry(place.pool, report.run.run_id, repairs=repairs)
    assert done.loaded == {"entities": 1, "relationships": 3, "mission_history": 0}
    assert done.refused == {"entities": 2, "relationships": 0, "mission_history": 1}
    after = read_report(place.pool, report.run.run_id)
    require_balance(after)
    found = lines(place, report.run.run_id)
    assert found["entities", 42]["reason"] == "the target has a row with this id already"
    assert postgres.rows("SELECT id, name, later FROM entities WHERE id > 40 ORDER BY 1") == [
        (41, "file 41", "new"),
        (42, "taken since", "new"),
        (43, "missing entity 43", "new"),
        (99, "missing entity 99", "new"),
    ]
    # The row that a placeholder stands for takes its place; its relationships stay.
    mended = read_mended(['{"table": "entities", "id": 43, "row": {"name": "file 43"}}'])
    done = retry(place.pool, report.run.run_id, mended=mended, table="entities")
    assert done.loaded["entities"] == 1
    assert postgres.rows("SELECT name FROM entities WHERE id = 43") == [("file 43",)]
    assert postgres.rows("SELECT count(*) FROM relationships") == [(4,)]
    assert postgres.rows("SELECT row_id FROM kg_migration.placeholders") == [(99,)]
    ((fresh,),) = postgres.rows("INSERT INTO entities (type, name) VALUES ('t', 'n') RETURNING id")
    assert fresh == 100


def test_what_can_t_be_verified_changes_nothing(
    migrate: Migrate, place: Workplace, postgres: Database, tmp_path: Path
) -> None:
    report = migrate(spoiled(tmp_path / "graph.db"), max_rejects=7)
    postgres.rows(
        "CREATE FUNCTION change() RETURNS trigger LANGUAGE plpgsql AS $$BEGIN"
        " NEW.name := upper(NEW.name); RETURN NEW; END$$;"
        "CREATE TRIGGER change BEFORE INSERT ON entities FOR EACH ROW EXECUTE FUNCTION change()"
    )
    with pytest.raises(MismatchError, match="rows of entities were stored as something else: 41"):
        retry(place.pool, report.run.run_id, repairs=("nan-as-null",))
    assert postgres.rows("SELECT 1 FROM entities WHERE id = 41") == []
    assert read_report(place.pool, report.run.run_id).totals == report.totals
    assert read_report(place.pool, report.run.run_id).run.options.repairs == ()


def test_a_live_table_in_use_is_waited_for_and_then_named(
    migrate: Migrate,
    place: Workplace,
    postgres: Database,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    report = migrate(spoiled(tmp_path / "graph.db"), max_rejects=7)
    monkeypatch.setattr(insert, "_LOCK_TIMEOUT_MS", 300)
    holder = psycopg2.connect(**postgres.parameters)
    try:
        holder.cursor().execute("INSERT INTO entities (type, name) VALUES ('t', 'n')")
        with pytest.raises(TargetBusyError, match="others hold a table of public: pid"):
            retry(place.pool, report.run.run_id, repairs=("nan-as-null",))
    finally:
        holder.close()


def test_only_rejects_of_a_run_at_rest_are_tried(
    migrate: Migrate, place: Workplace, tmp_path: Path
) -> None:
    report = migrate(spoiled(tmp_path / "graph.db"))
    for table, row_id in (("entities", 1), ("nonsense", 41)):
        mended = read_mended([json.dumps({"table": table, "id": row_id, "row": {}})])
        with pytest.raises(SettingsError, match=f"the mended row {row_id} of {table} is no reject"):
            retry(place.pool, report.run.run_id, mended=mended)
    runs.cancel(place.pool, report.run.run_id)
    with pytest.raises(RunError, match="is cancelled"):
        retry(place.pool, report.run.run_id)


def test_tables_beyond_the_graph_s(
    migrate: Migrate, place: Workplace, postgres: Database, tmp_path: Path
) -> None:
    """Keys that are text, unique indexes on expressions, checks, rows that refer to each other."""
    path = tmp_path / "shop.db"
    with closing(sqlite3.connect(path)) as connection:
        connection.executescript("""
            CREATE TABLE part (code TEXT PRIMARY KEY, inside TEXT REFERENCES part (code),
                weight REAL CHECK (weight > 0), label TEXT, twice REAL AS (weight * 2) STORED)
                WITHOUT ROWID;
            CREATE UNIQUE INDEX one_label ON part (lower(label));
            CREATE TABLE tag (id INTEGER PRIMARY KEY, name TEXT, weight INTEGER,
                CHECK (weight < 100));
            CREATE UNIQUE INDEX heavy ON tag (lower(name)) WHERE weight > 10;
            PRAGMA ignore_check_constraints = ON;
            INSERT INTO part (code, inside, weight, label) VALUES ('a', NULL, 1, 'A'),
                ('b', 'a', -5, 'B'), ('c', 'b', 2, 'C'), ('d', 'c', 3, 'D'),
                ('e', 'x', 4, 'E');
            INSERT INTO tag VALUES (1, 'One', 20), (2, 'two', 100), (3, 'three', 101);
        """)
    report = migrate(path, only=("*",))
    assert report.run.state is RunState.REJECTED, report.errors
    assert report.tables["part"].rejected_rows == 4
    assert report.tables["tag"].rejected_rows == 2
    done = retry(place.pool, report.run.run_id)
    assert sum(done.loaded.values()) == 0
    found = lines(place, report.run.run_id)
    ids = {item["row"]["code"]["value"]: key for key, item in found.items() if key[0] == "part"}
    mended = [
        {"table": "part", "id": ids["b"][1], "row": {"weight": 5.5}},
        {"table": "tag", "id": 2, "row": {"weight": 30, "name": "ONE"}},
        {"table": "tag", "id": 3, "row": {"weight": 100}},
    ]
    done = retry(place.pool, report.run.run_id, mended=read_mended(map(json.dumps, mended)))
    assert done.loaded == {"part": 3, "tag": 0}
    found = lines(place, report.run.run_id)
    assert {(key[0], item["sqlstate"]) for key, item in found.items()} == {
        ("part", "23503"),
        ("tag", "23505"),
        ("tag", "23514"),
    }
    run_here(place, runs.resume(place.pool, report.run.run_id, max_rejects=3), 2)
    after = read_report(place.pool, report.run.run_id)
    assert after.is_done, after.errors
    require_balance(after)
    assert postgres.rows("SELECT code, inside, weight, twice FROM part ORDER BY 1") == [
        ("a", None, 1.0, 2.0),
        ("b", "a", 5.5, 11.0),
        ("c", "b", 2.0, 4.0),
        ("d", "c", 3.0, 6.0),
    ]
    with pytest.raises(RunError, match="rows of part have no integer key"):
        retry(place.pool, report.run.run_id)
    mended = [{"table": "tag", "id": 3, "row": {"weight": 99}}]
    given = read_mended(map(json.dumps, mended))
    done = retry(place.pool, report.run.run_id, mended=given, table="tag")
    assert done.loaded == {"tag": 1}
    assert postgres.rows("SELECT id, weight FROM tag ORDER BY 1") == [(1, 20), (3, 99)]


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("{", "line 1 of the mended rows: not JSON"),
        ('{"id": 1, "row": {}}', 'an object with "table"'),
        ('{"table": "t", "id": 1, "row": {"a": true}}', "a: that is no value of the type"),
        ('{"table": "t", "id": 1, "row": {"a": {"type": "integer", "value": "x"}}}', "a: "),
        ('{"table": "t", "id": 1, "row": {"a": {"type": "integer", "value": "9e9"}}}', "a: "),
        ('{"table": "t", "id": 1, "row": {"a": {"type": "text", "value": null}}}', "a: that is no"),
        ('{"table": "t", "id": 1, "row": {"a": {"type": "blob", "hex": "0g"}}}', "a: "),
        ('{"table": "t", "id": 1, "row": {"a": {"type": "word", "value": "b"}}}', "'word'"),
    ],
)
def test_wrong_lines_are_named(line: str, message: str) -> None:
    with pytest.raises(SettingsError, match=message):
        read_mended([line])


def test_columns_and_ids_stay_what_they_are() -> None:
    row = RawRow(1, ("id", "a"), ("integer", "text"), (b"1", b"x"))
    for values, message in (({"b": 1}, "no column 'b'"), ({"id": 2}, "the row's id can't")):
        (mended,) = read_mended([json.dumps({"table": "t", "id": 1, "row": values})]).values()
        with pytest.raises(SettingsError, match=message):
            mended.applied_to(row)


values = (
    st.none()
    | st.integers(-(2**63), 2**63 - 1)
    | st.floats(allow_nan=False)
    | st.binary(max_size=9)
    | st.text(st.characters(exclude_categories=["Cs"]), max_size=9)
)


@given(st.lists(values, min_size=1, max_size=5), st.binary(max_size=5))
def test_a_reject_that_is_given_back_unchanged_is_the_same_row(
    given: list[Any], bad: bytes
) -> None:
    """Through the ledger's bytes, the JSON line and back, of every storage class."""
    raw = [extract._raw(extract._RawText(v.encode()) if isinstance(v, str) else v) for v in given]
    raw.append(("text", bad))
    names = ("id", *(f"c{number}" for number in range(len(raw))))
    storage, contents = zip(("integer", b"5"), *raw, strict=True)
    row = RawRow(5, names, storage, contents)
    reject = ledger.Reject(1, 1, "t", None, "", "", None, row, None)
    (mended,) = read_mended([json.dumps(reject.to_json())]).values()
    assert mended.applied_to(row) == row
    typed = extract.typed(row)[1:-1]
    assert [(type(v), repr(v)) for v in typed] == [(type(v), repr(v)) for v in given]
