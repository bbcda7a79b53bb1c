"""The dry run: it says which rows a run will refuse, and why; no others, and none is missing."""

import os
import sqlite3
from contextlib import closing
from pathlib import Path
from typing import Any, Literal

import pytest
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st

from kgcore.backends import PostgreSQLBackend
from kgcore.errors import TargetError
from kgcore.migration import new_run, sources
from kgcore.migration.dry_run import DryRun, dry_run
from kgcore.migration.model import Options
from kgcore.migration.repairs import choose
from kgcore.migration.workplace import Workplace
from tests.migration.conftest import Migrate
from tests.migration.graphs import entity, file_of, relationship, write_graph
from tests.servers import Database

Reject = tuple[str, int, str | None, str]

# Keys that break in every way at once, each in tables of their own.
BROKEN_KEYS = r"""
PRAGMA ignore_check_constraints = ON;
CREATE TABLE emp (id INTEGER PRIMARY KEY, boss INTEGER REFERENCES emp ON DELETE CASCADE,
                  age INTEGER CHECK (age >= 0));
CREATE TABLE desk (code TEXT PRIMARY KEY, emp INTEGER REFERENCES emp (id)) WITHOUT ROWID;
CREATE TABLE lamp (desk TEXT REFERENCES desk);
INSERT INTO emp VALUES (1, NULL, 30), (2, 1, 30), (3, 99, 30), (4, 3, 30), (5, 2, -1),
                       (6, 5, 30), (7, 6, 30), (8, 1, NULL);
INSERT INTO desk VALUES ('d1', 1), ('d4', 4), ('d7', 77), ('d0', NULL);
INSERT INTO lamp VALUES ('d1'), ('d4'), (NULL), ('d9'), ('d0'), ('d8');

CREATE TABLE a (id INTEGER PRIMARY KEY, b INTEGER REFERENCES b);
CREATE TABLE b (id INTEGER PRIMARY KEY, a INTEGER REFERENCES a);
INSERT INTO a VALUES (1, 1), (2, 9); INSERT INTO b VALUES (1, 1), (2, 2);

CREATE TABLE loose (x UNIQUE, y);
INSERT INTO loose VALUES (7, 1), ('7', 2), ('07', 3), ('a', 4), (NULL, 5), (NULL, 6);
CREATE TABLE flag (ok BOOLEAN UNIQUE);
INSERT INTO flag VALUES (1), ('t'), (NULL), (0), ('No'), (NULL);
CREATE TABLE moment (at DATETIME UNIQUE);
INSERT INTO moment VALUES ('2026-01-02T03:04:05Z'), ('2026-01-02 03:04:05'), ('2026-01-02'),
  ('2026-01-02T04:04:05+01:00'), (NULL);
CREATE TABLE price (n NUMERIC UNIQUE);
INSERT INTO price VALUES (1), (0.1), (2.5), (3);
CREATE TABLE fold (name TEXT COLLATE NOCASE, code TEXT COLLATE NOCASE UNIQUE);
INSERT INTO fold VALUES ('A', 'a'), ('a', 'b');
CREATE UNIQUE INDEX fold_name ON fold (name COLLATE BINARY);
CREATE TABLE leaf (fold TEXT COLLATE NOCASE REFERENCES fold (code));
INSERT INTO leaf VALUES ('a'), ('A'), ('c');
CREATE TABLE part (a TEXT, b INTEGER, c TEXT CHECK (length(c) < 3 AND c <> 'x\y'),
  d REAL CHECK (d * 2 > 1.0 OR d IS NULL), PRIMARY KEY (a, b));
INSERT INTO part VALUES ('k', 1, 'ab', 1), ('k', 2, 'abc', 1), ('k', 3, 'x\y', NULL),
  ('k', NULL, 'ab', 0.25), ('l', 1, NULL, 0.5);
CREATE TABLE piece (id INTEGER PRIMARY KEY, a TEXT, b INTEGER,
  FOREIGN KEY (a, b) REFERENCES part ON DELETE CASCADE);
INSERT INTO piece VALUES (1, 'k', 1), (2, 'k', 2), (3, 'k', NULL), (4, 'm', 1), (5, 'l', 1);
"""


def foretold(place: Workplace, source: Path, **options: Any) -> tuple[DryRun, list[Reject]]:
    """What a dry run says, and each row that it would refuse."""
    chosen = Options(**options)
    prepared = new_run.prepare(source, place.data_dir, chosen)
    found = dry_run(prepared, choose(chosen.repairs), place.pool)
    sources.release(prepared.source)
    rejects = [
        (name, row_id, reject.column, reject.sqlstate)
        for name, table in found.tables.items()
        for reject in table.rejects
        for row_id in reject.example_ids
    ]
    assert len(rejects) == found.rejected_rows, "more rows than are named"
    return found, sorted(rejects, key=str)


def refused(postgres: Database, run: str) -> list[Reject]:
    """What a run refused."""
    rows = postgres.rows(
        "SELECT table_name, row_id, column_name, sqlstate FROM kg_migration.rejects"
        f" WHERE run_id = '{run}'"
    )
    return sorted(rows, key=str)


def test_what_breaks_keys_is_foretold(
    migrate: Migrate, postgres: Database, place: Workplace, tmp_path: Path
) -> None:
    source = file_of(tmp_path / "keys.db", BROKEN_KEYS)
    found, rejects = foretold(place, source, only=("*",))
    report = migrate(source, only=("*",), max_rejects=1000)
    assert report.is_done, report.errors
    assert rejects == refused(postgres, report.run.run_id)
    assert found.unforetold == ()
    found_in = {reject[0] for reject in rejects}
    assert found_in >= {"emp", "desk", "lamp", "a", "b", "loose", "flag"}
    assert {"moment", "part", "piece"} <= found_in


ids = st.one_of(st.none(), st.integers(1, 6), st.just("x"))
people = st.lists(st.tuples(ids, ids, st.sampled_from(["a", "A", "b", 1, "1"])), max_size=6)


@settings(
    max_examples=8,
    deadline=None,
    phases=[Phase.explicit, Phase.generate],  # To shrink takes minutes of whole runs.
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)
@given(people, people, st.lists(st.tuples(ids, ids), max_size=6))
def test_whatever_breaks_keys_is_foretold(
    migrate: Migrate,
    postgres: Database,
    place: Workplace,
    tmp_path: Path,
    bosses: list[Any],
    plain: list[Any],
    pairs: list[Any],
) -> None:
    source = tmp_path / "keys.db"
    source.unlink(missing_ok=True)
    with closing(sqlite3.connect(source)) as connection:
        connection.executescript(
            "CREATE TABLE boss (id INTEGER PRIMARY KEY, boss INTEGER REFERENCES boss,"
            " pair INTEGER, name UNIQUE);"
            "CREATE TABLE plain (id INTEGER PRIMARY KEY, boss INTEGER REFERENCES boss,"
            " two INTEGER REFERENCES boss, name TEXT);"
            "CREATE TABLE pair (a INTEGER, b INTEGER REFERENCES plain, PRIMARY KEY (a, b))"
            " WITHOUT ROWID;"
            "CREATE TABLE last (a INTEGER, b INTEGER, FOREIGN KEY (a, b) REFERENCES pair)"
        )
        for table, rows in (("boss", bosses), ("plain", plain), ("pair", pairs), ("last", pairs)):
            marks = ", ".join("?" * (4 if table in {"boss", "plain"} else 2))
            for number, row in enumerate(rows, 1):
                values = (number, *row) if len(row) == 3 else row
                connection.execute(f"INSERT OR IGNORE INTO {table} VALUES ({marks})", values)
        connection.commit()
    _, rejects = foretold(place, source, only=("*",))
    report = migrate(source, only=("*",), max_rejects=1000, if_exists="replace")
    assert report.is_done, report.errors
    run = report.run.run_id
    assert rejects == refused(postgres, run)


def test_rows_of_the_graph_are_foretold_with_repairs_too(
    migrate: Migrate, postgres: Database, place: Workplace, tmp_path: Path
) -> None:
    source = write_graph(
        tmp_path / "graph.db",
        entities=[
            entity(1),
            entity(2, name="file 1"),
            entity(3, metadata="nope"),
            entity(4, at="2026-02-30T00:00:00Z"),
            entity(5, name="file\0 6"),
            entity(6),
            entity(7, at=1767323045),
            entity(8, name="x" * 3000),
        ],
        relationships=[relationship(n, 1, n) for n in range(1, 10)],
        unique=False,
    )
    for repairs in ((), ("remove-nul",), ("merge-duplicates", "drop-dangling"), ("all",)):
        found, rejects = foretold(place, source, repairs=repairs)
        report = migrate(source, repairs=repairs, max_rejects=99, if_exists="replace")
        assert report.is_done, report.errors
        assert rejects == refused(postgres, report.run.run_id), repairs
        assert found.counted_rows == len(
            postgres.rows(
                "SELECT 1 FROM kg_migration.rejects WHERE repair IS NULL"
                f" AND run_id = '{report.run.run_id}'"
            )
        )


def test_a_table_in_the_way_is_said_at_once(
    postgres: Database, place: Workplace, tmp_path: Path
) -> None:
    source = file_of(tmp_path / "t.db", "CREATE TABLE t (id INTEGER PRIMARY KEY)")
    postgres.rows("CREATE TABLE t (id bigint); INSERT INTO t VALUES (1) RETURNING id")
    options = Options(only=("*",))
    prepared = new_run.prepare(source, place.data_dir, options)
    with pytest.raises(TargetError, match=r"rows in public\.t"):
        new_run.check_tables(place.pool, prepared, options)


def test_it_says_what_is_in_the_file_and_what_a_run_takes(
    migrate: Migrate, postgres: Database, place: Workplace, tmp_path: Path
) -> None:
    source = write_graph(
        tmp_path / "graph.db",
        entities=[
            entity(number, at=at, metadata=metadata)
            for number, (at, metadata) in enumerate(
                [
                    ("2026-01-02T03:04:05Z", "{}"),
                    ("2026-01-02T03:04:05+01:00", None),
                    ("2026-01-02 03:04:05", 7),
                    ("2026-01-02", "{'a': 1}"),
                    ("2026-01-02T03:04:05Z", b"\x00"),
                ],
                1,
            )
        ],
        relationships=[relationship(number, 1, number) for number in range(-2_400, 6)],
        more="CREATE TABLE notes (word, mark REAL, n INTEGER, wild INTEGER);"
        "INSERT INTO notes VALUES (7, 2, 5, 1), ('7', '1.5', -3, 'x'), ('a', NULL, NULL, 2);",
    )
    options = Options(chunk_rows=1_300)
    prepared = new_run.prepare(source, place.data_dir, options)
    seen: list[tuple[str, int, int]] = []
    found = dry_run(prepared, pool=place.pool, watch=lambda *so_far: seen.append(so_far))
    sources.release(prepared.source)
    assert [done for _, done, _ in seen] == sorted(done for _, done, _ in seen)
    assert seen[-1] == ("check", found.rows, found.rows)
    tables = found.to_json()["tables"]
    entities = tables["entities"]
    assert entities["findings"] == {"json": 1, "mixed types": 1}
    assert entities["evidence"]["created_at"]["zones"] == {"Z": 2, "none": 2, "offset": 1}
    assert entities["evidence"]["metadata"]["storage"] == {"text": 3, "null": 1, "blob": 1}
    assert {e["id"]: e["value"] for r in entities["rejects"] for e in r["examples"]} == {
        4: "{'a': 1}",
        5: "x'00'",
    }
    related = tables["relationships"]
    assert (
        related["plan"][0]["rows"] + related["plan"][1]["rows"] == related["source_rows"] == 2_406
    )
    assert related["plan"][1]["upper"] is None
    assert (related["evidence"]["id"]["min"], related["evidence"]["id"]["max"]) == (-2_400, 5)
    (orphans,) = [reject for reject in related["rejects"] if reject["finding"] == "orphans"]
    assert orphans["rows"] == 2_403
    assert orphans["examples"][0] == {"id": -2_400, "value": "-2400"}
    notes = tables["notes"]["evidence"]
    assert notes["word"]["storage"] == {"text": 2, "integer": 1}
    assert notes["mark"]["storage"] == {"real": 2, "null": 1}
    assert notes["wild"]["declared"] == "INTEGER"
    assert notes["wild"]["type"] == "text"
    assert "1 value is no integer" in notes["wild"]["why"]
    assert related["bytes"] > 2_406 * 20
    estimate = found.estimate
    assert "rows, loaded into temporary tables of the target" in estimate.basis
    report = migrate(source, max_rejects=10_000, chunk_rows=1_300)
    assert report.is_done, report.errors
    names = ", ".join(f"'public.{name}'" for name in tables)
    ((stored,),) = postgres.rows(
        f"SELECT sum(pg_total_relation_size(name))::bigint FROM unnest(ARRAY[{names}]::regclass[])"
        " AS name"
    )
    assert 0.5 < estimate.target_bytes / stored < 2
    assert dry_run_without_target(place, source).estimate.basis.startswith("rates of a benchmark")


def dry_run_without_target(place: Workplace, source: Path) -> DryRun:
    prepared = new_run.prepare(source, place.data_dir, Options())
    try:
        return dry_run(prepared)
    finally:
        sources.release(prepared.source)


STRANGE_NAMES = """
    CREATE TABLE "T x" (note INTEGER, Id INTEGER PRIMARY KEY, "My Col" INTEGER, Wild REAL);
    INSERT INTO "T x" VALUES (100, 5, 'x', 9e999), (200, 8, 2, -9e999);
"""


@pytest.mark.parametrize("names", ["keep", "snake"])
def test_what_a_type_rests_on_is_told_whatever_the_names(
    monkeypatch: pytest.MonkeyPatch,
    place: Workplace,
    tmp_path: Path,
    names: Literal["keep", "snake"],
) -> None:
    monkeypatch.delattr(os, "sched_getaffinity", raising=False)  # As on macOS.
    source = file_of(tmp_path / "t.db", STRANGE_NAMES)
    prepared = new_run.prepare(source, place.data_dir, Options(only=("*",), names=names))
    (table,) = dry_run(prepared).tables.values()
    sources.release(prepared.source)
    assert table.ids == (5, 8)
    key, note, mixed, real = table.to_json()["evidence"].values()
    assert (key["declared"], key["min"], key["max"]) == ("INTEGER", 5, 8)
    assert (note["min"], note["why"]) == (100, None)
    assert mixed["storage"] == {"integer": 1, "text": 1}
    assert "1 value is no integer" in mixed["why"]
    assert (real["declared"], real["min"], real["max"]) == ("REAL", "-inf", "inf")


def test_a_target_that_gives_no_connection_gives_no_sample(
    postgres: Database, place: Workplace, tmp_path: Path
) -> None:
    source = file_of(tmp_path / "t.db", STRANGE_NAMES)
    prepared = new_run.prepare(source, place.data_dir, Options(only=("*",)))
    with PostgreSQLBackend(**postgres.parameters, pool_size=1, max_overflow=0) as backend:
        pool = backend.pool
    found = dry_run(prepared, pool=pool)
    sources.release(prepared.source)
    assert found.estimate.basis.startswith("rates of a benchmark, not of this target: ")
