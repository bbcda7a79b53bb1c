"""Whole migrations in this process, on real files and a real server."""

import json
import sqlite3
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from kgcore.backends import PostgreSQLBackend
from kgcore.errors import RunError, SourceError, TargetError
from kgcore.migration import ledger, new_run, runs
from kgcore.migration.local import run_here
from kgcore.migration.model import RESUMABLE, Options, RunState
from kgcore.migration.reports import read_report
from kgcore.migration.workplace import Workplace
from tests.migration.comparer import COLUMNS, differences
from tests.migration.conftest import Migrate
from tests.migration.graphs import entity, mission, relationship, small_graph, write_graph
from tests.servers import Database, fresh_database


def test_every_row_arrives_with_its_id_and_ends(
    migrate: Migrate, postgres: Database, tmp_path: Path
) -> None:
    source = small_graph(tmp_path / "graph.db")
    report = migrate(source)
    assert report.run.state is RunState.DONE
    assert report.errors == ()
    totals = report.totals
    assert totals["source_rows"] == totals["loaded_rows"] == totals["verified_rows"] > 500
    assert totals["rejected_rows"] == totals["mismatched_rows"] == 0
    assert report.chunks > 8
    assert differences(source, postgres.connect()) == []


def test_the_comparer_sees_a_changed_value(
    migrate: Migrate, postgres: Database, tmp_path: Path
) -> None:
    source = small_graph(tmp_path / "graph.db")
    migrate(source)
    postgres.rows("UPDATE relationships SET to_id = from_id WHERE id = 1")
    postgres.rows("DELETE FROM file_snapshots WHERE id = 100")
    found = differences(source, postgres.connect())
    assert len(found) == 2


@pytest.mark.parametrize("version", ["18", "15"])
def test_each_server_version(version: str, postgres_servers: Any, tmp_path: Path) -> None:
    source = small_graph(tmp_path / "graph.db")
    with (
        fresh_database(postgres_servers(version)) as database,
        PostgreSQLBackend(**database.parameters, pool_size=1, max_overflow=9) as backend,
    ):
        place = Workplace(backend.pool, tmp_path / "data", "test")
        options = Options(chunk_rows=50)
        run = new_run.start(backend.pool, new_run.prepare(source, place.data_dir, options), options)
        run_here(place, run, 2)
        assert read_report(backend.pool, run.run_id).is_done
        assert differences(source, database.connect()) == []


def test_the_next_insert_gets_a_fresh_id_on_each_table(
    migrate: Migrate, postgres: Database, tmp_path: Path
) -> None:
    source = small_graph(tmp_path / "graph.db")
    migrate(source)
    with closing(sqlite3.connect(source)) as sqlite:
        given_out = dict(sqlite.execute("SELECT name, seq FROM sqlite_sequence"))
    values = {
        "entities": "(type, name) VALUES ('t', 'new')",
        "relationships": "(from_id, to_id, type) VALUES (1, 2, 't')",
        "mission_history": "(mission_id, status) VALUES ('new', 'success')",
        "file_snapshots": "(file_path) VALUES ('new')",
    }
    for table, insert in values.items():
        ((fresh,),) = postgres.rows(f"INSERT INTO {table} {insert} RETURNING id")
        assert fresh == given_out[table] + 1, table


def test_the_schema_is_that_of_init_schema(
    migrate: Migrate, postgres: Database, backend: PostgreSQLBackend, tmp_path: Path
) -> None:
    shape = (
        "SELECT table_name, column_name, data_type, is_nullable, column_default, is_identity"
        " FROM information_schema.columns WHERE table_schema = 'public' ORDER BY 1, 2"
    )
    indexes = "SELECT indexdef FROM pg_indexes WHERE schemaname = 'public' ORDER BY 1"
    constraints = (
        "SELECT conrelid::regclass::text, conname, pg_get_constraintdef(oid) FROM pg_constraint"
        " WHERE connamespace = 'public'::regnamespace AND contype <> 'n' ORDER BY 1, 2"
    )
    backend.init_schema()
    before = [postgres.rows(query) for query in (shape, indexes, constraints)]
    assert migrate(small_graph(tmp_path / "graph.db")).is_done  # Empty tables are no obstacle.
    after = [postgres.rows(query) for query in (shape, indexes, constraints)]
    assert after == before
    assert len(before[2]) == 4 + 2 + 2


def test_fail_refuses_tables_with_rows_and_changes_nothing(
    migrate: Migrate, postgres: Database, backend: PostgreSQLBackend, tmp_path: Path
) -> None:
    backend.init_schema()
    backend.execute("INSERT INTO entities (type, name) VALUES ('file', 'mine')")
    backend.commit()
    before = postgres.rows("SELECT oid, relname FROM pg_class ORDER BY 1")
    with pytest.raises(TargetError, match=r"has rows in public\.entities") as caught:
        migrate(small_graph(tmp_path / "graph.db"))
    assert "--if-exists replace" in caught.value.hint
    assert "TRUNCATE entities, file_snapshots, mission_history, relationships" in caught.value.hint
    assert postgres.rows("SELECT oid, relname FROM pg_class ORDER BY 1") == before
    assert list((tmp_path / "data" / "sources").iterdir()) == []


def test_replace_keeps_the_old_tables_and_revert_brings_them_back(
    migrate: Migrate, postgres: Database, backend: PostgreSQLBackend, tmp_path: Path
) -> None:
    backend.init_schema()
    backend.execute("INSERT INTO entities (type, name) VALUES ('file', 'mine')")
    backend.commit()
    report = migrate(small_graph(tmp_path / "graph.db"), if_exists="replace")
    assert report.is_done
    assert postgres.rows("SELECT 1 FROM entities WHERE name = 'mine'") == []
    back, kept = runs.revert(backend.pool, report.run.run_id)
    assert set(back) == set(COLUMNS)
    assert postgres.rows("SELECT name FROM entities") == [("mine",)]
    ((rows,),) = postgres.rows(f"SELECT count(*) FROM {kept}.entities")
    assert rows == report.tables["entities"].loaded_rows
    with pytest.raises(RunError, match="not the live ones"):
        runs.revert(backend.pool, report.run.run_id)
    backend.execute("INSERT INTO entities (type, name) VALUES ('file', 'after')")
    backend.commit()


def test_revert_of_a_first_migration_leaves_no_tables(
    migrate: Migrate, postgres: Database, backend: PostgreSQLBackend, tmp_path: Path
) -> None:
    report = migrate(small_graph(tmp_path / "graph.db"))
    back, _ = runs.revert(backend.pool, report.run.run_id)
    assert back == ()
    assert postgres.rows("SELECT 1 FROM pg_tables WHERE schemaname = 'public'") == []
    assert migrate(small_graph(tmp_path / "again.db")).is_done


def test_revert_refuses_when_the_old_tables_were_dropped(
    migrate: Migrate, postgres: Database, backend: PostgreSQLBackend, tmp_path: Path
) -> None:
    report = migrate(small_graph(tmp_path / "graph.db"))
    postgres.rows(f"DROP SCHEMA {report.run.archive} CASCADE")
    with pytest.raises(RunError, match="the old tables are gone"):
        runs.revert(backend.pool, report.run.run_id)
    assert postgres.rows("SELECT count(*) > 0 FROM entities") == [(True,)]


def test_owner_and_grants_follow(
    migrate: Migrate, postgres: Database, backend: PostgreSQLBackend, tmp_path: Path
) -> None:
    role = f"reader_{postgres.database}"
    try:
        backend.init_schema()
        postgres.rows(f'CREATE ROLE "{role}"')
        postgres.rows(f'GRANT SELECT ON entities TO "{role}" WITH GRANT OPTION')
        postgres.rows(f'GRANT UPDATE (metadata) ON entities TO "{role}"')
        postgres.rows(f'GRANT USAGE ON SEQUENCE entities_id_seq TO "{role}"')
        postgres.rows("GRANT SELECT ON relationships TO PUBLIC")
        postgres.rows(f'ALTER TABLE mission_history OWNER TO "{role}"')
        rights = (
            "SELECT c.relname, pg_get_userbyid(c.relowner), c.relacl::text,"
            " array_agg(a.attacl::text) FROM pg_class c"
            " LEFT JOIN pg_attribute a ON a.attrelid = c.oid AND a.attacl IS NOT NULL"
            " WHERE c.relnamespace = 'public'::regnamespace AND c.relkind IN ('r', 'S')"
            " GROUP BY c.oid ORDER BY 1"
        )
        before = postgres.rows(rights)
        assert migrate(small_graph(tmp_path / "graph.db")).is_done
        assert postgres.rows(rights) == before
    finally:
        postgres.rows(f'DROP OWNED BY "{role}" CASCADE')
        postgres.rows(f'DROP ROLE "{role}"')


def test_a_view_on_a_live_table_is_refused(
    migrate: Migrate, postgres: Database, backend: PostgreSQLBackend, tmp_path: Path
) -> None:
    backend.init_schema()
    postgres.rows("CREATE VIEW names AS SELECT name FROM entities")
    with pytest.raises(TargetError, match="view names uses entities"):
        migrate(small_graph(tmp_path / "graph.db"), if_exists="replace")


def test_rejects_stop_the_run_until_they_are_allowed(
    migrate: Migrate, postgres: Database, place: Workplace, tmp_path: Path
) -> None:
    source = write_graph(
        tmp_path / "graph.db",
        entities=[
            *(entity(row_id) for row_id in range(1, 200)),
            entity(200, metadata='{"a": NaN}'),
            entity(201, name="with\0nul"),
            entity(202, at="yesterday"),
            entity(203, name="file 7"),  # The same as 7.
        ],
        relationships=[relationship(1, 1, 2), relationship(2, 1, 999), relationship(3, 203, 1)],
        missions=[mission(1), mission(2, mission_id="m1"), mission(3, cost="dear")],
        unique=False,
    )
    report = migrate(source)
    assert report.run.state is RunState.REJECTED
    assert report.run.hint is not None
    assert "--max-rejects 8" in report.run.hint
    assert report.totals["rejected_rows"] == 8
    totals = report.totals
    assert totals["source_rows"] == totals["loaded_rows"] + totals["rejected_rows"]
    assert postgres.rows("SELECT to_regclass('public.entities')") == [(None,)]
    with ledger.transaction(place.pool) as cursor:
        found = list(ledger.list_rejects(cursor, report.run.run_id))
    why = {(reject.table, reject.row_id): (reject.column, reject.sqlstate) for reject in found}
    assert why == {
        ("entities", 200): ("metadata", "22P02"),
        ("entities", 201): ("name", "22021"),
        ("entities", 202): ("created_at", "22007"),
        ("entities", 203): (None, "23505"),
        ("relationships", 2): ("to_id", "23503"),
        ("relationships", 3): ("from_id", "23503"),
        ("mission_history", 2): ("mission_id", "23505"),
        ("mission_history", 3): ("cost_usd", "42804"),
    }
    nul = next(reject for reject in found if reject.row_id == 201)
    assert nul.row.values[nul.row.columns.index("name")] == b"with\0nul"
    assert nul.row.storage[0] == "integer"
    assert json.dumps(nul.to_json())
    resumed = runs.resume(place.pool, report.run.run_id, max_rejects=8)
    run_here(place, resumed, 2)
    after = read_report(place.pool, report.run.run_id)
    assert after.is_done
    assert after.totals == totals
    ((rows,),) = postgres.rows("SELECT count(*) FROM entities")
    assert rows == 199


def test_a_difference_stops_the_run(
    place: Workplace, postgres: Database, backend: PostgreSQLBackend, tmp_path: Path
) -> None:
    """A row is changed in staging behind the pipeline's back, between load and verify."""
    source = small_graph(tmp_path / "graph.db")
    options = Options(chunk_rows=50)
    prepared = new_run.prepare(source, place.data_dir, options)
    run = new_run.start(place.pool, prepared, options)
    postgres.rows(
        f"CREATE FUNCTION spoil() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN"
        f" NEW.hash := upper(NEW.hash); RETURN NEW; END';"
        f"CREATE TRIGGER spoil BEFORE INSERT ON {run.staging}.file_snapshots"
        f" FOR EACH ROW WHEN (NEW.id = 110) EXECUTE FUNCTION spoil()"
    )
    run_here(place, run, 2)
    report = read_report(place.pool, run.run_id)
    assert report.run.state is RunState.MISMATCH
    assert report.totals["mismatched_rows"] == 1
    assert report.mismatched_ids == {"file_snapshots": (110,)}
    assert postgres.rows("SELECT to_regclass('public.entities')") == [(None,)]
    with pytest.raises(RunError, match="differ from their source"):
        runs.resume(place.pool, run.run_id)
    assert runs.cancel(place.pool, run.run_id) is RunState.MISMATCH
    assert postgres.rows("SELECT 1 FROM pg_namespace WHERE nspname LIKE 'kg_staging%'") == []


def test_cancel_leaves_nothing_but_the_ledger(
    place: Workplace, postgres: Database, tmp_path: Path
) -> None:
    options = Options(chunk_rows=50)
    prepared = new_run.prepare(small_graph(tmp_path / "graph.db"), place.data_dir, options)
    run = new_run.start(place.pool, prepared, options)
    assert runs.cancel(place.pool, run.run_id) is RunState.RUNNING
    run_here(place, run, 1)  # Messages that are still under way do nothing.
    assert RunState.CANCELLED not in RESUMABLE
    with pytest.raises(RunError, match="is cancelled"):
        runs.resume(place.pool, run.run_id)
    assert list((place.data_dir / "sources").iterdir()) == []
    assert postgres.rows("SELECT 1 FROM pg_namespace WHERE nspname LIKE 'kg_staging%'") == []


def test_a_second_run_into_the_same_tables_is_refused(place: Workplace, tmp_path: Path) -> None:
    source = small_graph(tmp_path / "graph.db")
    options = Options()
    first = new_run.start(place.pool, new_run.prepare(source, place.data_dir, options), options)
    with pytest.raises(TargetError, match=f"run {first.run_id} into schema public is in progress"):
        new_run.check_target(place.pool, options)
    runs.cancel(place.pool, first.run_id)
    assert new_run.check_target(place.pool, options) == "public"


def test_extra_columns_and_tables_are_carried_over(
    migrate: Migrate, postgres: Database, tmp_path: Path
) -> None:
    source = write_graph(
        tmp_path / "graph.db",
        entities=[entity(1), entity(2)],
        more="""
            ALTER TABLE entities ADD COLUMN weight REAL;
            ALTER TABLE entities ADD COLUMN "Odd ""name" BLOB;
            UPDATE entities SET weight = 0.1, "Odd ""name" = x'00ff' WHERE id = 2;
            CREATE TABLE tags (tag_id INTEGER PRIMARY KEY, label VARCHAR(10), anything);
            INSERT INTO tags VALUES (-5, 'a', 1), (7, NULL, 2.5);
        """,
    )
    assert migrate(source).is_done
    rows = postgres.rows('SELECT weight, "Odd ""name" FROM entities ORDER BY id')
    assert [(weight, blob and bytes(blob)) for weight, blob in rows] == [
        (None, None),
        (0.1, b"\x00\xff"),
    ]
    assert postgres.rows("SELECT * FROM tags ORDER BY 1") == [(-5, "a", 1.0), (7, None, 2.5)]


def test_a_missing_table_is_empty_only_if_asked(
    migrate: Migrate, postgres: Database, tmp_path: Path
) -> None:
    source = write_graph(
        tmp_path / "graph.db", entities=[entity(1)], more="DROP TABLE file_snapshots"
    )
    with pytest.raises(SourceError, match="no table file_snapshots"):
        migrate(source)
    assert migrate(source, allow_missing=True).is_done
    assert postgres.rows("SELECT count(*) FROM file_snapshots") == [(0,)]


def test_ids_at_the_ends_of_the_range(migrate: Migrate, postgres: Database, tmp_path: Path) -> None:
    ids = [-(2**63), -1, 0, 1, 2**63 - 1]
    source = write_graph(tmp_path / "graph.db", entities=[entity(row_id) for row_id in ids])
    report = migrate(source, chunk_rows=1)
    assert report.is_done, report.errors
    assert [row for (row,) in postgres.rows("SELECT id FROM entities ORDER BY 1")] == ids


def test_text_too_long_for_an_index_is_a_reject(
    migrate: Migrate, postgres: Database, tmp_path: Path
) -> None:
    incompressible = "".join(chr(0x4E00 + (number * 7919) % 20_000) for number in range(2_000))
    source = write_graph(
        tmp_path / "graph.db",
        entities=[
            *(entity(row_id) for row_id in range(1, 60)),
            entity(60, name=incompressible),
            entity(61, name="x" * 2_500),
            entity(62, metadata=json.dumps(incompressible * 50)),
        ],
    )
    report = migrate(source, max_rejects=1)
    assert report.is_done, report.errors
    assert postgres.rows("SELECT row_id, column_name, sqlstate FROM kg_migration.rejects") == [
        (60, "name", "54000")
    ]
    assert postgres.rows("SELECT length(name) FROM entities WHERE id = 61") == [(2_500,)]


def test_the_real_graph(migrate: Migrate, postgres: Database, real_graph: Path) -> None:
    report = migrate(real_graph, chunk_rows=10_000)
    assert report.is_done
    assert report.totals["verified_rows"] == 120_458
    assert differences(real_graph, postgres.connect()) == []
