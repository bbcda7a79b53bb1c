"""``migrate_to_postgresql``: the call, its output, and the same tables as ``kg migrate``."""

from pathlib import Path
from typing import Any

import pytest

from kgcore.errors import RunError
from kgcore.migration import MigrationProgress, guide, migrate_to_postgresql
from tests.migration.comparer import differences
from tests.migration.graphs import entity, relationship, small_graph, write_graph
from tests.servers import Database
from tests.workers.kg import Kg


def call(database: Database, source: Path, **options: Any) -> MigrationProgress:
    return migrate_to_postgresql(
        sqlite_path=source,
        pg_host=database.host,
        pg_port=database.port,
        pg_database=database.database,
        pg_user=database.user,
        pg_password=database.password,
        **options,
    )


@pytest.fixture(autouse=True)
def _data_dir(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("KG_DATA_DIR", str(tmp_path / "data"))


def test_the_call_and_its_output(
    postgres: Database, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    source = small_graph(tmp_path / "graph.db", rows=3_000)
    progress = call(postgres, source, verbose=True)
    assert progress.errors == []
    assert differences(source, postgres.connect()) == []
    assert progress.total_entities == progress.migrated_entities == 2_572
    assert progress.total_relationships == progress.migrated_relationships == 2_572
    assert progress.total_missions == progress.migrated_missions == 35
    assert progress.total_snapshots == progress.migrated_snapshots == 30
    assert progress.total_records == progress.migrated_records == 5_209
    assert progress.progress_percentage == 100.0
    assert 0 < progress.elapsed_seconds < 60
    lines = capsys.readouterr().out.splitlines()
    expected = [
        "PostgreSQL Migration",
        f"Source (SQLite): {source}",
        f"Target (PostgreSQL): {postgres.host}:{postgres.port}/{postgres.database}",
        "Batch size: 1000",
        "[1/6] Connecting to databases...",
        "✓ Connected",
        "[2/6] Counting records...",
        "  Entities: 2,572",
        "  Relationships: 2,572",
        "  Missions: 35",
        "  File Snapshots: 30",
        "  Total: 5,209",
        "[3/6] Migrating entities...",
        "✓ Migrated 2,572 entities",
        "[4/6] Migrating relationships...",
        "✓ Migrated 2,572 relationships",
        "[5/6] Migrating mission history...",
        "✓ Migrated 35 missions",
        "[6/6] Migrating file snapshots...",
        "✓ Migrated 30 file snapshots",
        "[Verification] Checking data integrity...",
        "  Entities: 2572/2572",
        "  Relationships: 2572/2572",
        "  Missions: 35/35",
        "  Snapshots: 30/30",
        "✓ Data integrity verified",
        "Migration Complete!",
        "Total records migrated: 5,209",
    ]
    assert [line for line in lines if line in expected] == expected
    assert any(line.startswith("  Migrated ") for line in lines)
    assert lines[-1].startswith("Records/second: ")


def test_a_dry_run_changes_nothing(postgres: Database, tmp_path: Path) -> None:
    source = small_graph(tmp_path / "graph.db")
    progress = call(postgres, source, dry_run=True)
    assert progress.errors == []
    assert progress.total_records > 500
    assert progress.migrated_records == 0
    assert postgres.rows("SELECT 1 FROM pg_namespace WHERE nspname LIKE 'kg%'") == []
    assert list((tmp_path / "data" / "sources").iterdir()) == []


def test_the_same_tables_as_the_command_with_its_workers(
    kg_environment: dict[str, str], postgres: Database, tmp_path: Path
) -> None:
    source = small_graph(tmp_path / "graph.db")
    done = Kg(kg_environment, tmp_path)("migrate", source, "--local-workers", "2", "--json")
    assert done.code == 0, done.err
    of_the_command = described(postgres)
    progress = call(postgres, source, if_exists="replace")
    assert progress.errors == []
    assert progress.run_id not in {None, done.json["run_id"]}
    assert described(postgres) == of_the_command
    assert len(of_the_command) > 600


def described(database: Database) -> list[tuple[Any, ...]]:
    """Rows, columns, indexes, constraints and next ids of the live tables."""
    found = database.rows(_SHAPE)
    for name in ("entities", "relationships", "mission_history", "file_snapshots"):
        found += database.rows(f"SELECT t::text FROM {name} AS t ORDER BY id")
        found += database.rows(
            f"SELECT pg_get_serial_sequence('{name}', 'id'),"
            f" pg_sequence_last_value(pg_get_serial_sequence('{name}', 'id')::regclass)"
        )
    return found


_SHAPE = """
SELECT attrelid::regclass::text, attname, format_type(atttypid, atttypmod), attnotnull,
       attidentity::text, pg_get_expr(adbin, adrelid)
FROM pg_attribute LEFT JOIN pg_attrdef ON adrelid = attrelid AND adnum = attnum
JOIN pg_class AS c ON c.oid = attrelid
WHERE relnamespace = 'public'::regnamespace AND relkind = 'r' AND attnum > 0
UNION ALL
SELECT tablename, indexname, indexdef, NULL, NULL, NULL FROM pg_indexes WHERE schemaname = 'public'
UNION ALL
SELECT conrelid::regclass::text, conname, pg_get_constraintdef(oid), convalidated, contype::text,
       NULL
FROM pg_constraint WHERE connamespace = 'public'::regnamespace
ORDER BY 1, 2, 3
"""


@pytest.mark.parametrize("verbose", [True, False])
def test_what_goes_wrong_is_in_errors(
    postgres: Database, tmp_path: Path, capsys: pytest.CaptureFixture[str], verbose: bool
) -> None:
    wrong = migrate_to_postgresql(
        tmp_path / "graph.db",
        postgres.host,
        postgres.port,
        postgres.database,
        postgres.user,
        "wrong-secret",
        verbose=verbose,
    )
    assert len(wrong.errors) == 1
    assert "password authentication failed" in wrong.errors[0]
    missing = call(postgres, tmp_path / "nowhere.db", verbose=verbose)
    assert "does not exist" in missing.errors[0]
    source = write_graph(tmp_path / "graph.db", entities=[entity(1), entity(2, metadata="{")])
    for dry_run in (True, False):
        rejected = call(postgres, source, dry_run=dry_run, verbose=verbose)
        assert "refused" in rejected.errors[0]
        assert rejected.migrated_records == 0
    out = capsys.readouterr().out
    assert "wrong-secret" not in out
    assert ("✗" in out) is verbose
    assert (out == "") is not verbose
    assert postgres.rows("SELECT to_regclass('entities')") == [(None,)]


def test_sections_close_although_rows_are_refused(
    postgres: Database, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    source = write_graph(
        tmp_path / "graph.db",
        entities=[entity(1), entity(2, metadata="{"), entity(3)],
        relationships=[relationship(1, 1, 3)],
    )
    progress = call(postgres, source, verbose=True, max_rejects=1)
    assert progress.errors == []
    assert (progress.total_entities, progress.migrated_entities) == (3, 2)
    lines = capsys.readouterr().out.splitlines()
    sections = [line for line in lines if line.startswith(("[", "✓ Migrated"))]
    assert sections == [
        "[1/6] Connecting to databases...",
        "[2/6] Counting records...",
        "[3/6] Migrating entities...",
        "✓ Migrated 2 entities, 1 refused",
        "[4/6] Migrating relationships...",
        "✓ Migrated 1 relationships",
        "[5/6] Migrating mission history...",
        "✓ Migrated 0 missions",
        "[6/6] Migrating file snapshots...",
        "✓ Migrated 0 file snapshots",
        "[Verification] Checking data integrity...",
    ]


def test_a_data_directory_that_is_none_and_a_run_that_breaks_off(
    postgres: Database, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    source = small_graph(tmp_path / "graph.db")
    (tmp_path / "file").write_text("in the way")
    with monkeypatch.context() as changed:
        changed.setenv("KG_DATA_DIR", str(tmp_path / "file" / "data"))
        progress = call(postgres, source)
    assert "KG_DATA_DIR" in progress.errors[0]
    assert progress.run_id is None
    monkeypatch.setattr(guide, "run_here", _broken_off)
    progress = call(postgres, source)
    assert progress.errors == ["someone ended it (go on)"]
    assert postgres.rows("SELECT run_id FROM kg_migration.runs") == [(progress.run_id,)]


def _broken_off(*_: Any) -> None:
    raise RunError("someone ended it", "go on")


def test_an_empty_graph(postgres: Database, tmp_path: Path) -> None:
    progress = call(postgres, write_graph(tmp_path / "graph.db"))
    assert progress.errors == []
    assert progress.progress_percentage == 100.0
    assert postgres.rows("INSERT INTO entities (type, name) VALUES ('a', 'b') RETURNING id") == [
        (1,)
    ]
