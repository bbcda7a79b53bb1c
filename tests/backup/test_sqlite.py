"""Copies of a SQLite graph: what is in them, what comes back, what is refused."""

import shutil
import sqlite3
import stat
import threading
from contextlib import closing
from pathlib import Path

import pytest

from kgcore.backends import SQLiteBackend
from kgcore.backup import backup, restore
from kgcore.errors import BackupError, SettingsError
from kgcore.graph import KnowledgeGraph
from tests.backup.conftest import COUNTS, fill


def contents(path: Path) -> list[list[tuple[object, ...]]]:
    with closing(sqlite3.connect(path)) as connection:
        return [
            connection.execute(f"SELECT * FROM {name} ORDER BY id").fetchall() for name in COUNTS
        ]


def test_a_copy_is_one_file_and_comes_back_whole(sqlite_file: Path, tmp_path: Path) -> None:
    with KnowledgeGraph(db_path=sqlite_file) as graph:
        graph.add_entity("file", "in the WAL")
        made = backup(graph.backend, tmp_path / "copy.db")
    assert made.tables == COUNTS | {"entities": COUNTS["entities"] + 1}
    assert stat.S_IMODE(made.path.stat().st_mode) == 0o600
    assert {path.name for path in tmp_path.iterdir()} == {"copy.db", "graph.db"}
    with SQLiteBackend(tmp_path / "new" / "graph.db") as backend:
        backend.close()
        shutil.rmtree(tmp_path / "new")
        done = restore(backend, made.path)
    assert done.tables == made.tables
    assert contents(tmp_path / "new" / "graph.db") == contents(sqlite_file)


def test_what_a_search_index_keeps_is_copied_and_not_listed(
    sqlite_file: Path, tmp_path: Path
) -> None:
    with KnowledgeGraph(db_path=sqlite_file) as graph:
        graph.create_search_index()
        graph.add_entity("file", "copied needle")
        made = backup(graph.backend, tmp_path / "copy.db")
        done = restore(graph.backend, made.path, if_exists="replace")
        assert [row["name"] for row in graph.search("needle")] == ["copied needle"]
    assert made.tables == done.tables == COUNTS | {"entities": COUNTS["entities"] + 1}
    assert set(done.replaced) == set(COUNTS)


def test_rows_are_overwritten_only_when_asked_and_under_open_readers(
    sqlite_file: Path, tmp_path: Path
) -> None:
    before = contents(sqlite_file)
    with KnowledgeGraph(db_path=sqlite_file) as graph:
        made = backup(graph.backend, tmp_path / "copy.db")
        new = graph.add_entity("file", "later")
        with pytest.raises(BackupError, match="has rows in entities"):
            restore(graph.backend, made.path)
        assert graph.get_entity(new) is not None
        done = restore(graph.backend, made.path, if_exists="replace")
        assert set(done.replaced) == set(COUNTS)
        assert graph.get_entity(new) is None
        assert graph.add_entity("file", "writable still") > 0
        graph.delete_entity(graph.find_entity("file", "writable still")["id"])  # type: ignore[index]
    assert contents(sqlite_file) == before


def test_pages_of_another_size_are_no_obstacle(sqlite_file: Path, tmp_path: Path) -> None:
    copy = tmp_path / "copy.db"
    with closing(sqlite3.connect(sqlite_file)) as connection:
        connection.execute("PRAGMA journal_mode = delete")
        connection.execute("PRAGMA page_size = 8192")
        connection.execute("VACUUM")
    before = contents(sqlite_file)
    with SQLiteBackend(sqlite_file) as source:
        backup(source, copy)
    target = tmp_path / "target.db"
    with KnowledgeGraph(db_path=target) as graph:
        graph.create_search_index()
        assert graph.backend.fetchone("PRAGMA page_size") == {"page_size": 4096}
        graph.add_entity("file", "old")
        done = restore(graph.backend, copy, if_exists="replace")
        assert done.tables == COUNTS
        assert done.replaced == ("entities",)
        assert contents(target) == before
        assert graph.find_entity("file", "old") is None
        assert graph.backend.fetchone("PRAGMA page_size") == {"page_size": 4096}
    assert not list(tmp_path.glob(".kg-restore-*"))


def test_empty_tables_are_no_obstacle(sqlite_file: Path, tmp_path: Path) -> None:
    with KnowledgeGraph(db_path=tmp_path / "empty.db") as graph:
        assert restore(graph.backend, sqlite_file).replaced == ()
        assert graph.get_stats()["entities"]["total"] == COUNTS["entities"]


def test_a_copy_is_as_of_one_moment_while_others_write(tmp_path: Path) -> None:
    ended = threading.Event()
    path = tmp_path / "graph.db"
    with KnowledgeGraph(db_path=path) as graph:
        fill(graph)

        def write() -> None:
            while not ended.is_set():
                with graph.transaction():
                    number = graph.log_file_snapshot("busy")
                    graph.log_mission(f"busy {number}", "success")

        writer = threading.Thread(target=write)
        writer.start()
        try:
            made = [backup(graph.backend, tmp_path / f"{number}.db") for number in range(5)]
        finally:
            ended.set()
            writer.join()
    assert len({copy.tables["mission_history"] for copy in made}) > 1
    for copy in made:
        added = copy.tables["mission_history"] - COUNTS["mission_history"]
        assert copy.tables["file_snapshots"] - COUNTS["file_snapshots"] == added


def test_a_damaged_copy_is_refused(sqlite_file: Path, tmp_path: Path) -> None:
    copy = backup(SQLiteBackend(sqlite_file), tmp_path / "copy.db").path
    before = contents(sqlite_file)
    whole = copy.read_bytes()
    for damaged in (whole[: len(whole) // 2], whole[:4096] + b"\xff" * 8192 + whole[12288:]):
        copy.write_bytes(damaged)
        with pytest.raises(BackupError):
            restore(SQLiteBackend(sqlite_file), copy, if_exists="replace")
        with pytest.raises(BackupError):
            restore(SQLiteBackend(tmp_path / "fresh.db"), copy)
    assert contents(sqlite_file) == before
    assert not (tmp_path / "fresh.db").exists()


def test_a_foreign_wal_beside_the_name_is_refused(sqlite_file: Path, tmp_path: Path) -> None:
    (tmp_path / "gone.db-wal").write_bytes(b"left over")
    with pytest.raises(BackupError, match=r"gone\.db-wal"):
        restore(SQLiteBackend(tmp_path / "gone.db"), sqlite_file)
    with pytest.raises(BackupError, match=r"gone\.db-wal"):
        backup(SQLiteBackend(sqlite_file), tmp_path / "gone.db")


def test_what_can_not_be_copied_is_named(sqlite_file: Path, tmp_path: Path) -> None:
    with pytest.raises(SettingsError, match="in memory"):
        backup(SQLiteBackend(":memory:"), tmp_path / "copy.db")
    with pytest.raises(BackupError, match="can't be read"):
        backup(SQLiteBackend(tmp_path / "missing.db"), tmp_path / "copy.db")
    archive = tmp_path / "graph.dump"
    archive.write_bytes(b"PGDMP\x01\x0f")
    with pytest.raises(BackupError, match="PostgreSQL archive") as refused:
        restore(SQLiteBackend(sqlite_file), archive)
    assert "--backend postgres" in refused.value.hint
    with pytest.raises(SettingsError, match="exists"):
        backup(SQLiteBackend(sqlite_file), archive)
