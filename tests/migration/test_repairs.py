"""Repairs: off unless asked for, counted, and verified row by row against the source."""

from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from kgcore.errors import SettingsError
from kgcore.migration import new_run, sources
from kgcore.migration.dry_run import dry_run
from kgcore.migration.local import run_here
from kgcore.migration.model import InvalidText, Options, RunState
from kgcore.migration.repairs import REPAIRS, Repairs, choose
from kgcore.migration.reports import read_report
from kgcore.migration.stages import check
from kgcore.migration.stages.report import Report
from kgcore.migration.workplace import Workplace
from kgcore.model import Column, Kind, Table
from tests.migration.conftest import Migrate
from tests.migration.graphs import entity, mission, relationship, write_graph
from tests.servers import Database

VALUE_REPAIRS = [repair for repair in REPAIRS.values() if repair.mend is not None]


def stored(kind: Kind, value: Any, *names: str) -> str | None:
    """The text that is stored for a value, or None where it is refused."""
    table = Table("t", (Column("id", Kind.KEY, nullable=False), Column("value", kind)))
    checked = check.check(table, [(1, value)], choose(names))
    if not checked.lines:
        return None
    return checked.lines[0].split("\t")[1].replace("\\\\", "\\")


@pytest.mark.parametrize("repair", VALUE_REPAIRS, ids=lambda repair: repair.name)
def test_the_example_of_each_repair_is_what_it_does(repair: Any) -> None:
    before, after = repair.example
    assert stored(repair.kind, before) is None
    assert stored(repair.kind, before, repair.name) == after
    assert stored(repair.kind, before, "all") is not None


@pytest.mark.parametrize(
    ("name", "kind", "value", "expected"),
    [
        ("nan-as-null", Kind.JSON, "[-Infinity, 1.00, 1e400]", "[null, 1.00, 1e400]"),
        ("nan-as-null", Kind.JSON, '{"NaN": "NaN", "a\\"NaN": NaN}', None),
        ("nan-as-null", Kind.JSON, "{NaN}", None),
        ("nan-as-string", Kind.JSON, "-Infinity", '"-Infinity"'),
        ("json-as-string", Kind.JSON, "", '""'),
        ("json-as-string", Kind.JSON, "NaN", '"NaN"'),
        ("json-as-string", Kind.JSON, b"{", None),
        ("remove-nul", Kind.TEXT, "a\0b\0", "ab"),
        ("remove-nul", Kind.TIMESTAMP, "2026-01-02T03:04:05Z\0", "2026-01-02T03:04:05Z"),
        ("remove-nul", Kind.JSON, '{"a\0b": 1}', '{"ab": 1}'),
        ("remove-nul", Kind.JSON, '"\\\\u0000 \\u0000"', '"\\\\u0000 "'),
        ("remove-nul", Kind.BLOB, "text\0", None),
        ("replace-invalid-utf8", Kind.TEXT, InvalidText(b"a\xffb"), "a\ufffdb"),
        ("replace-invalid-utf8", Kind.TEXT, b"a\xffb", None),
        ("replace-invalid-utf8", Kind.JSON, InvalidText(b'"\xc3"'), '"\ufffd"'),
        ("replace-invalid-utf8", Kind.JSON, '"\\ud83d\\ude00 \\uDC00 \\\\ud800"', None),
        ("epoch-timestamps", Kind.TIMESTAMP, 1767323045, "2026-01-02T03:04:05Z"),
        ("epoch-timestamps", Kind.TIMESTAMP, 1767323045.25, "2026-01-02T03:04:05.250000Z"),
        ("epoch-timestamps", Kind.TIMESTAMP, "1767323045.123456", "2026-01-02T03:04:05.123456Z"),
        ("epoch-timestamps", Kind.TIMESTAMP, 1767323045123, "2026-01-02T03:04:05.123000Z"),
        ("epoch-timestamps", Kind.TIMESTAMP, 1767323045123456, "2026-01-02T03:04:05.123456Z"),
        ("epoch-timestamps", Kind.TIMESTAMP, 2461042.5, None),  # A julian day.
        ("epoch-timestamps", Kind.TIMESTAMP, 20260102, None),
        ("epoch-timestamps", Kind.TIMESTAMP, "20260102030405", None),
        ("epoch-timestamps", Kind.TIMESTAMP, "2026", None),
        ("epoch-timestamps", Kind.TIMESTAMP, float("inf"), None),
        ("epoch-timestamps", Kind.TIMESTAMP, -5, None),
        ("infinite-timestamps", Kind.TIMESTAMP, "10000-01-01", "infinity"),
        ("infinite-timestamps", Kind.TIMESTAMP, "0000-12-31T23:00:00Z", "-infinity"),
        ("infinite-timestamps", Kind.TIMESTAMP, "-0044-03-15", "-infinity"),
        ("infinite-timestamps", Kind.TIMESTAMP, "0001-01-01T00:00:00+01:00", "-infinity"),
        ("infinite-timestamps", Kind.TIMESTAMP, "9999-12-31T23:59:59-01:00", "infinity"),
        ("infinite-timestamps", Kind.TIMESTAMP, "2026-02-30T00:00:00Z", None),
        ("infinite-timestamps", Kind.TIMESTAMP, "infinity", None),
        ("infinite-timestamps", Kind.TEXT, "10000-01-01\0", None),
    ],
)
def test_each_repair_knows_its_fault_alone(
    name: str, kind: Kind, value: Any, expected: str | None
) -> None:
    assert stored(kind, value) is None
    if expected is not None:
        assert stored(kind, value, name) == expected


def test_inside_strings_nothing_is_changed() -> None:
    mixed = '{"NaN": "NaN", "a\\"NaN": NaN}'
    assert stored(Kind.JSON, mixed, "nan-as-null") == '{"NaN": "NaN", "a\\"NaN": null}'
    pairs = '"\\ud83d\\ude00 \\uDC00 \\\\ud800"'
    kept = '"\\ud83d\\ude00 \\ufffd \\\\ud800"'
    assert stored(Kind.JSON, pairs, "replace-invalid-utf8") == kept


def test_several_faults_take_several_repairs() -> None:
    value = InvalidText(b"{'a\xff': \0NaN")
    assert stored(Kind.JSON, value, "json-as-string") is None
    assert stored(Kind.JSON, value, "json-as-string", "replace-invalid-utf8") is None
    mended = stored(Kind.JSON, value, "json-as-string", "replace-invalid-utf8", "remove-nul")
    assert mended == "\"{'a\ufffd': NaN\""


anything = (
    st.none()
    | st.integers(-(2**63), 2**63 - 1)
    | st.floats(allow_nan=False)
    | st.binary(max_size=9)
    | st.binary(max_size=9).map(InvalidText)
    | st.text(st.characters(exclude_categories=["Cs"]), max_size=9)
    | st.text('{}[]",:\\u0d8NaInfity-1 \0', max_size=16)
    | st.from_regex(r"-?[0-9]{4,17}(-[0-9]{2}-[0-9]{2}(T[0-9]{2}:[0-9]{2}Z)?)?", fullmatch=True)
)
kinds = st.sampled_from(sorted(Kind))


@settings(max_examples=300, deadline=None)
@given(kinds, anything)
def test_repairs_touch_only_what_is_refused_and_end(kind: Kind, value: Any) -> None:
    plain, mended = stored(kind, value), stored(kind, value, "all")
    if plain is not None:
        assert mended == plain
    for repair in VALUE_REPAIRS:
        after = stored(kind, value, repair.name)
        assert plain is None or after == plain


def test_the_registry_refuses_what_it_does_not_know() -> None:
    with pytest.raises(SettingsError, match="no repair 'nonsense'") as caught:
        choose(["nan-as-null", "nonsense"])
    assert "json-as-string" in caught.value.hint
    with pytest.raises(SettingsError, match="exclude each other"):
        choose(["nan-as-null", "nan-as-string"])
    assert choose([]) == Repairs()
    chosen = choose(["all", "drop-dangling"])
    assert "drop-dangling" in chosen
    assert "placeholder-entities" not in chosen
    assert choose(chosen.names) == chosen


def broken(path: Path) -> Path:
    """A graph with one row for each repair, and rows that are right around them."""
    at = "2026-01-02T03:04:05Z"
    return write_graph(
        path,
        entities=[
            *(entity(row_id) for row_id in range(1, 61)),
            entity(61, metadata='{"a": NaN, "b": 1.00}'),
            entity(62, metadata="{'a': 1}"),
            entity(63, name="with\0nul"),
            entity(64, metadata='"\\ud800"'),
            (65, "file", "file 65", None, 1767323045, at),
            (66, "file", "file 66", None, at, "12026-01-02"),
            entity(67, name="file 7"),
            entity(68, name="file 7"),
        ],
        relationships=[
            relationship(1, 1, 2),
            relationship(2, 67, 68),
            relationship(3, 999, 999),
            relationship(4, 5, -3),
        ],
        missions=[mission(1), mission(2, cost="dear")],
        unique=False,
        more="INSERT INTO entities VALUES (69, 'file', CAST(x'61ff' AS TEXT), NULL, '2026', '2026')"
        ";UPDATE entities SET created_at = '2026-01-01', updated_at = '2026-01-01' WHERE id = 69",
    )


def repairs_of(report: Report) -> dict[tuple[str, str], tuple[int, ...]]:
    return {(item.table, item.repair): item.example_ids for item in report.repairs}


def test_all_repairs_in_one_run(migrate: Migrate, postgres: Database, tmp_path: Path) -> None:
    report = migrate(broken(tmp_path / "graph.db"), repairs=("all",), max_rejects=1, chunk_rows=20)
    assert report.is_done, report.errors
    assert repairs_of(report) == {
        ("entities", "epoch-timestamps"): (65,),
        ("entities", "infinite-timestamps"): (66,),
        ("entities", "json-as-string"): (62,),
        ("entities", "merge-duplicates"): (67, 68),
        ("entities", "nan-as-null"): (61,),
        ("entities", "placeholder-entities"): (-3, 999),
        ("entities", "remove-nul"): (63,),
        ("entities", "replace-invalid-utf8"): (64, 69),
        ("relationships", "merge-duplicates"): (2, 2),
        ("relationships", "placeholder-entities"): (3, 4),
    }
    assert report.to_json()["repairs"][0] == {
        "table": "entities",
        "repair": "epoch-timestamps",
        "rows": 1,
        "example_ids": (65,),
    }
    for counts in report.tables.values():
        assert counts.source_rows == counts.loaded_rows + counts.rejected_rows
        assert counts.verified_rows == counts.loaded_rows
    found = dict(postgres.rows("SELECT id, metadata::text FROM entities WHERE id IN (61, 62, 64)"))
    assert found == {61: '{"a": null, "b": 1.00}', 62: "\"{'a': 1}\"", 64: '"\ufffd"'}
    assert postgres.rows(
        "SELECT name, created_at = '2026-01-02T03:04:05Z', updated_at = 'infinity' FROM entities"
        " WHERE id IN (63, 65, 66, 69) ORDER BY id"
    ) == [
        ("withnul", True, False),
        ("file 65", True, False),
        ("file 66", True, True),
        ("a\ufffd", False, False),
    ]
    assert postgres.rows("SELECT id, from_id, to_id FROM relationships ORDER BY id") == [
        (1, 1, 2),
        (2, 7, 7),
        (3, 999, 999),
        (4, 5, -3),
    ]
    assert postgres.rows("SELECT id, name FROM entities WHERE type = 'placeholder' ORDER BY 1") == [
        (-3, "missing entity -3"),
        (999, "missing entity 999"),
    ]
    ((fresh,),) = postgres.rows("INSERT INTO entities (type, name) VALUES ('t', 'n') RETURNING id")
    assert fresh == 1000


def test_without_repairs_each_is_a_reject_and_the_dry_run_proposes_them(
    migrate: Migrate, place: Workplace, tmp_path: Path
) -> None:
    source = broken(tmp_path / "graph.db")
    report = migrate(source)
    assert report.run.state is RunState.REJECTED
    assert report.totals["rejected_rows"] == 9 + 3 + 1
    assert report.repairs == ()
    prepared = new_run.prepare(source, place.data_dir, Options())
    found = dry_run(prepared)
    assert found.rejected_rows == report.totals["rejected_rows"]
    assert {(item.table, item.repair): item.rows for item in found.proposals} == {
        ("entities", "replace-invalid-utf8"): 2,
        ("entities", "nan-as-null"): 1,
        ("entities", "nan-as-string"): 1,
        ("entities", "json-as-string"): 2,  # NaN, too, is no JSON.
        ("entities", "remove-nul"): 1,
        ("entities", "epoch-timestamps"): 1,
        ("entities", "infinite-timestamps"): 1,
        ("entities", "merge-duplicates"): 2,
        ("relationships", "placeholder-entities"): 3,
        ("relationships", "drop-dangling"): 3,
    }
    chosen = dry_run(prepared, choose(["all"]))
    sources.release(prepared.source)
    assert chosen.counted_rows == 1
    assert chosen.tables["entities"].rejected_rows == 2
    assert chosen.to_json()["repairs"] == []


def test_placeholders_are_proposed_where_entities_are_missing_alone(tmp_path: Path) -> None:
    path = write_graph(
        tmp_path / "graph.db",
        entities=[entity(1)],
        relationships=[relationship(1, 1, 77)],
        more="""
            CREATE TABLE shelves (id INTEGER PRIMARY KEY);
            CREATE TABLE books (shelf INTEGER REFERENCES shelves,
                                entity INTEGER REFERENCES entities);
            INSERT INTO books VALUES (5, NULL), (NULL, 78), (NULL, 1);
        """,
    )
    found = dry_run(new_run.prepare(path, tmp_path / "data", Options()))
    assert {(item.table, item.repair, item.rows) for item in found.proposals} == {
        ("relationships", "placeholder-entities", 1),
        ("relationships", "drop-dangling", 1),
        ("books", "placeholder-entities", 1),
        ("books", "drop-dangling", 2),
    }


def test_dangling_relationships_dropped_don_t_count(
    migrate: Migrate, postgres: Database, tmp_path: Path
) -> None:
    source = write_graph(
        tmp_path / "graph.db",
        entities=[entity(1), entity(2)],
        relationships=[relationship(1, 1, 2), relationship(2, 1, 9), relationship(3, 8, 9)],
    )
    report = migrate(source, repairs=("drop-dangling",))
    assert report.is_done, report.errors
    assert report.tables["relationships"].rejected_rows == 2
    assert repairs_of(report) == {("relationships", "drop-dangling"): (2, 3)}
    kept = postgres.rows("SELECT row_id, repair FROM kg_migration.rejects ORDER BY 1")
    assert kept == [(2, "drop-dangling"), (3, "drop-dangling")]


def test_a_repaired_row_that_was_spoiled_is_a_mismatch(
    place: Workplace, postgres: Database, tmp_path: Path
) -> None:
    """Behind the pipeline's back a repaired value is changed: verification makes it anew."""
    options = Options(chunk_rows=20, repairs=("all",), max_rejects=1)
    prepared = new_run.prepare(broken(tmp_path / "graph.db"), place.data_dir, options)
    run = new_run.start(place.pool, prepared, options)
    postgres.rows(
        f"CREATE FUNCTION spoil() RETURNS trigger LANGUAGE plpgsql AS $$BEGIN"
        f" NEW.metadata := '{{}}'; RETURN NEW; END$$;"
        f"CREATE TRIGGER spoil BEFORE INSERT ON {run.staging}.entities"
        f" FOR EACH ROW WHEN (NEW.id IN (61, 999)) EXECUTE FUNCTION spoil();"
        f"CREATE FUNCTION move() RETURNS trigger LANGUAGE plpgsql AS $$BEGIN"
        f" NEW.to_id := 3; RETURN NEW; END$$;"
        f"CREATE TRIGGER move BEFORE UPDATE ON {run.staging}.relationships"
        f" FOR EACH ROW EXECUTE FUNCTION move()"
    )
    run_here(place, run, 2)
    report = read_report(place.pool, run.run_id)
    assert report.run.state is RunState.MISMATCH
    assert report.mismatched_ids == {"entities": (61, 999), "relationships": (2,)}


def test_a_merge_into_the_wrong_row_is_a_mismatch(
    place: Workplace, postgres: Database, tmp_path: Path
) -> None:
    options = Options(chunk_rows=20, repairs=("all",), max_rejects=1)
    prepared = new_run.prepare(broken(tmp_path / "graph.db"), place.data_dir, options)
    run = new_run.start(place.pool, prepared, options)
    postgres.rows(
        "CREATE FUNCTION mislead() RETURNS trigger LANGUAGE plpgsql AS $$BEGIN"
        " NEW.merged_into := 8; RETURN NEW; END$$;"
        "CREATE TRIGGER mislead BEFORE INSERT ON kg_migration.rejects"
        " FOR EACH ROW WHEN (NEW.row_id = 67) EXECUTE FUNCTION mislead()"
    )
    run_here(place, run, 2)
    report = read_report(place.pool, run.run_id)
    assert report.run.state is RunState.MISMATCH
    assert 67 in report.mismatched_ids["entities"]
