"""Archives of a graph in PostgreSQL: what is in them, what comes back, what is refused."""

import stat
import subprocess
import threading
from pathlib import Path
from typing import Any

import pytest

from kgcore.backends import PostgreSQLBackend
from kgcore.backup import backup, restore
from kgcore.backup.programs import environment, fitting, run
from kgcore.errors import BackupError, SettingsError
from kgcore.graph import KnowledgeGraph
from tests.backup.conftest import COUNTS, fill
from tests.graph.conftest import postgres_graph_of
from tests.servers import Database, fresh_database

Filled = tuple[Database, KnowledgeGraph]


def contents(database: Database) -> list[list[tuple[Any, ...]]]:
    return [database.rows(f"SELECT * FROM {name} ORDER BY id") for name in COUNTS]


def shape(database: Database) -> list[tuple[object, ...]]:
    return database.rows(
        "SELECT indexdef FROM pg_indexes WHERE schemaname = 'public' UNION ALL"
        " SELECT conname || pg_get_constraintdef(oid) FROM pg_constraint"
        " WHERE connamespace = 'public'::regnamespace AND contype <> 'n' ORDER BY 1"
    )


def test_a_copy_comes_back_whole_in_another_database(filled_each: Filled, tmp_path: Path) -> None:
    database, graph = filled_each
    made = backup(graph.backend, tmp_path / "graph.dump")
    assert made.tables == COUNTS
    assert made.bytes == made.path.stat().st_size
    assert stat.S_IMODE(made.path.stat().st_mode) == 0o600
    assert list(tmp_path.iterdir()) == [made.path]
    with fresh_database(database.server) as elsewhere, postgres_graph_of(elsewhere) as other:
        # The tables are there, and empty.
        done = restore(other.backend, made.path)
        assert (done.tables, done.replaced) == (COUNTS, ())
        assert contents(elsewhere) == contents(database)
        assert shape(elsewhere) == shape(database)
        next_id = other.add_entity("file", "new")
    assert next_id > max(row[0] for row in contents(database)[0])


def test_rows_are_overwritten_only_when_asked(filled_each: Filled, tmp_path: Path) -> None:
    database, graph = filled_each
    made = backup(graph.backend, tmp_path / "graph.dump")
    before = contents(database)
    graph.add_entity("file", "later")
    later = contents(database)
    with pytest.raises(BackupError, match="has rows in entities") as refused:
        restore(graph.backend, made.path)
    assert "--if-exists replace" in refused.value.hint
    assert contents(database) == later
    done = restore(graph.backend, made.path, if_exists="replace")
    assert set(done.replaced) == set(COUNTS)
    assert contents(database) == before


def test_a_restore_that_fails_leaves_all_as_it_was(filled: Filled, tmp_path: Path) -> None:
    database, graph = filled
    made = backup(graph.backend, tmp_path / "graph.dump")
    graph.add_entity("file", "later")
    database.rows("CREATE VIEW names AS SELECT name FROM entities")  # DROP TABLE stumbles over it.
    before = contents(database)
    with pytest.raises(BackupError, match="names"):
        restore(graph.backend, made.path, if_exists="replace")
    assert contents(database) == before


def test_a_copy_is_as_of_one_moment_while_others_write(filled: Filled, tmp_path: Path) -> None:
    database, graph = filled
    ended = threading.Event()
    written: list[int] = []

    def write() -> None:
        with postgres_graph_of(database) as mine:
            while not ended.is_set():
                with mine.transaction():  # Each adds to two tables: a copy has both or neither.
                    mine.log_mission(f"busy {len(written)}", "success")
                    mine.log_file_snapshot("busy")
                written.append(1)

    writer = threading.Thread(target=write)
    writer.start()
    try:
        made = [backup(graph.backend, tmp_path / f"{number}.dump") for number in range(3)]
    finally:
        ended.set()
        writer.join()
    assert written
    assert len({copy.tables["mission_history"] for copy in made}) > 1
    for copy in made:
        added = copy.tables["mission_history"] - COUNTS["mission_history"]
        assert copy.tables["file_snapshots"] - COUNTS["file_snapshots"] == added


def test_a_dump_of_the_whole_database_can_be_restored(filled_each: Filled, tmp_path: Path) -> None:
    database, _graph = filled_each
    database.rows("CREATE SCHEMA aside; CREATE TABLE aside.notes (id int)")
    dump = tmp_path / "whole.dump"
    with (
        PostgreSQLBackend(**database.parameters) as backend,
        backend.pool.connection() as connection,
    ):
        program = fitting("pg_dump", connection.server_version)[0]
        env = environment(connection.info)
    subprocess.run([program.path, "-Fc", "--file", dump], env=env, check=True)
    with fresh_database(database.server) as elsewhere, postgres_graph_of(elsewhere) as other:
        assert restore(other.backend, dump).tables == COUNTS
        assert contents(elsewhere) == contents(database)
        assert elsewhere.rows("SELECT to_regclass('aside.notes')") == [(None,)]


def test_grants_come_back_or_are_left_out(filled: Filled, tmp_path: Path) -> None:
    database, graph = filled
    database.rows("CREATE ROLE backup_reader")
    try:
        database.rows("GRANT SELECT ON entities TO backup_reader")
        made = backup(graph.backend, tmp_path / "graph.dump")
        asked = "SELECT has_table_privilege('backup_reader', 'entities', 'SELECT')"
        for privileges in (True, False):
            with fresh_database(database.server) as elsewhere:
                with postgres_graph_of(elsewhere) as other:
                    restore(other.backend, made.path, privileges=privileges)
                assert elsewhere.rows(asked) == [(privileges,)]
                elsewhere.rows("DROP OWNED BY backup_reader")
    finally:
        database.rows("DROP OWNED BY backup_reader; DROP ROLE backup_reader")


def test_other_schemas_need_the_search_path(filled: Filled, tmp_path: Path) -> None:
    database, graph = filled
    made = backup(graph.backend, tmp_path / "graph.dump")
    with (
        fresh_database(database.server) as elsewhere,
        PostgreSQLBackend(**elsewhere.parameters, options="-c search_path=graph") as backend,
    ):
        elsewhere.rows("CREATE SCHEMA graph")
        with pytest.raises(BackupError, match="no tables of schema graph, only of: public"):
            restore(backend, made.path)


def test_quoted_names_and_tables_of_the_users_own_are_in_the_copy(
    filled: Filled, tmp_path: Path
) -> None:
    database, graph = filled
    database.rows('CREATE TABLE "My ""own"" table" ("from stdin;" text)')
    database.rows('INSERT INTO "My ""own"" table" VALUES (E\'a\\nb\'), (NULL)')
    database.rows("CREATE TABLE bare ()")
    database.rows("INSERT INTO bare DEFAULT VALUES")
    made = backup(graph.backend, tmp_path / "graph.dump")
    assert made.tables == COUNTS | {'My "own" table': 2, "bare": 1}
    with fresh_database(database.server) as elsewhere, postgres_graph_of(elsewhere) as other:
        assert restore(other.backend, made.path).tables == made.tables
        assert elsewhere.rows('SELECT count(*) FROM "My ""own"" table"') == [(2,)]


@pytest.mark.parametrize("keep", [0.5, 0.97])
def test_a_copy_that_was_cut_off_is_refused(filled: Filled, tmp_path: Path, keep: float) -> None:
    database, graph = filled
    graph.add_entities([("bulk", str(number), None) for number in range(2000)])
    path = backup(graph.backend, tmp_path / "graph.dump").path
    before = contents(database)
    path.write_bytes(path.read_bytes()[: int(path.stat().st_size * keep)])
    with pytest.raises(BackupError):
        restore(graph.backend, path, if_exists="replace")
    assert contents(database) == before


def test_what_is_no_archive_is_named(filled: Filled, sqlite_file: Path, tmp_path: Path) -> None:
    _, graph = filled
    plain = tmp_path / "plain.sql"
    plain.write_text("--\n-- PostgreSQL database dump\n--\n")
    empty = tmp_path / "empty"
    empty.touch()
    for path, message, hint in (
        (plain, "a plain SQL dump", "psql"),
        (sqlite_file, "a SQLite database", "kg migrate"),
        (empty, "is empty", ""),
        (tmp_path / "missing", "can't be read", ""),
    ):
        with pytest.raises(BackupError, match=message) as refused:
            restore(graph.backend, path)
        assert hint in refused.value.hint


def test_an_existing_file_stays_unless_asked(filled: Filled, tmp_path: Path) -> None:
    _, graph = filled
    path = tmp_path / "graph.dump"
    path.write_text("precious")
    with pytest.raises(SettingsError, match="exists"):
        backup(graph.backend, path)
    assert path.read_text() == "precious"
    with pytest.raises(BackupError, match="none was found"):
        backup(graph.backend, path, overwrite=True, bin_dir=tmp_path)
    assert path.read_text() == "precious"
    assert list(tmp_path.iterdir()) == [path]
    assert backup(graph.backend, path, overwrite=True).tables == COUNTS


def test_older_programs_are_refused_before_anything_is_done(
    postgres: Database, tmp_path: Path
) -> None:
    old = Path("/usr/lib/postgresql/15/bin")
    if not old.exists():
        pytest.skip(f"there is no PostgreSQL 15 in {old}")
    with (
        postgres_graph_of(postgres) as graph,
        pytest.raises(BackupError, match="the server is PostgreSQL 18") as refused,
    ):
        backup(graph.backend, tmp_path / "graph.dump", bin_dir=old)
    assert f"{old}/pg_dump is 15" in refused.value.message
    assert "--pg-bin" in refused.value.hint


def test_the_password_is_in_no_command_line(
    postgres: Database, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A program that writes down how it was called takes pg_dump's place, then calls it."""
    with postgres_graph_of(postgres) as graph:
        fill(graph)
        assert isinstance(graph.backend, PostgreSQLBackend)
        with graph.backend.pool.connection() as connection:
            real = {
                name: fitting(name, connection.server_version)[0].path
                for name in ("pg_dump", "pg_restore")
            }
        calls = tmp_path / "calls"
        bin_dir = tmp_path / "bin"
        bin_dir.mkdir()
        for name, path in real.items():
            program = bin_dir / name
            program.write_text(
                f'#!/bin/sh\necho "{name} $*" "password=${{PGPASSWORD:+set}}" >>{calls}\n'
                f'exec {path} "$@"\n'
            )
            program.chmod(0o755)
        monkeypatch.setenv("PGPASSWORD", "someone else's")
        made = backup(graph.backend, tmp_path / "graph.dump", bin_dir=bin_dir)
        restore(graph.backend, made.path, if_exists="replace", bin_dir=bin_dir)
    called = calls.read_text()
    assert "pg_dump --format=custom" in called
    assert "pg_restore --single-transaction --exit-on-error" in called
    assert postgres.password not in called
    assert "password=set" in called


def test_a_wrong_password_shows_nowhere(postgres: Database, tmp_path: Path) -> None:
    with (
        PostgreSQLBackend(**postgres.parameters) as backend,
        backend.pool.connection() as connection,
    ):
        env = environment(connection.info) | {"PGPASSWORD": "hunter2", "PGOPTIONS": "hunter2"}
        program = fitting("pg_dump", connection.server_version)[0]
        with pytest.raises(BackupError) as failed:
            run(program, ["--no-password", "--schema=hunter2"], env)
    assert "hunter2" not in failed.value.message


def test_a_dump_that_fails_leaves_nothing(filled: Filled, tmp_path: Path) -> None:
    """The role may read the tables, which are counted, but not a sequence, which is dumped."""
    database, _ = filled
    database.rows("CREATE ROLE backup_half LOGIN PASSWORD 'half'")
    half = PostgreSQLBackend(**(database.parameters | {"user": "backup_half", "password": "half"}))
    try:
        with half, pytest.raises(BackupError, match="permission denied for table entities"):
            backup(half, tmp_path / "graph.dump")
        database.rows("GRANT SELECT ON ALL TABLES IN SCHEMA public TO backup_half")
        with half, pytest.raises(BackupError, match="sequence"):
            backup(half, tmp_path / "graph.dump")
    finally:
        database.rows("DROP OWNED BY backup_half; DROP ROLE backup_half")
    assert list(tmp_path.iterdir()) == []
