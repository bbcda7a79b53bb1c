"""What is SQLite's own."""

import os
import sqlite3
import subprocess
import sys
import tempfile
import threading
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from pathlib import Path

import pytest

from kgcore.backends import SQLiteBackend, sqlite
from kgcore.errors import SourceError

START = """
import sys
from pathlib import Path
from kgcore.backends import get_backend
with get_backend("sqlite", db_path=Path(sys.argv[1])) as backend:
    backend.init_schema()
    backend.execute("INSERT INTO entities (type, name) VALUES ('process', ?)", (sys.argv[2],))
    backend.commit()
"""


def test_twenty_processes_start_at_once(tmp_path: Path) -> None:
    path = tmp_path / "deep" / "kg.db"
    processes = [
        subprocess.Popen([sys.executable, "-c", START, str(path), str(i)], stderr=subprocess.PIPE)
        for i in range(20)
    ]
    assert [process.communicate()[1] for process in processes] == [b""] * 20
    with SQLiteBackend(path) as backend:
        assert backend.fetchone("SELECT count(*) AS rows FROM entities") == {"rows": 20}


def test_the_file_is_in_wal_mode_and_checks_foreign_keys(tmp_path: Path) -> None:
    with SQLiteBackend(tmp_path / "kg.db") as backend:
        backend.init_schema()
        assert backend.fetchone("PRAGMA journal_mode") == {"journal_mode": "wal"}
        with pytest.raises(sqlite3.IntegrityError):
            backend.execute("INSERT INTO relationships (from_id, to_id, type) VALUES (1, 2, 'x')")


def test_a_lock_that_is_kept_ends_the_wait(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sqlite, "BUSY_SECONDS", 0.2)
    with SQLiteBackend(tmp_path / "kg.db") as backend:
        backend.init_schema()
        with closing(sqlite3.connect(tmp_path / "kg.db", isolation_level=None)) as other:
            other.execute("BEGIN IMMEDIATE")
            with pytest.raises(SourceError, match="another writer"):
                backend.execute("DELETE FROM entities")
            assert backend.fetchall("SELECT * FROM entities") == []
        assert not backend.in_transaction


def test_what_is_no_database_is_refused(tmp_path: Path) -> None:
    (tmp_path / "letter.txt").write_text("Dear database, " * 100)
    with pytest.raises(SourceError, match=r"letter\.txt") as caught:
        SQLiteBackend(tmp_path / "letter.txt").connect()
    assert "SQLITE_DB_PATH" in caught.value.hint
    with pytest.raises(SourceError):
        SQLiteBackend(tmp_path / "letter.txt" / "kg.db").connect()


def test_close_closes_idle_connections_of_other_threads(tmp_path: Path) -> None:
    backend = SQLiteBackend(tmp_path / "kg.db")
    backend.init_schema()
    with other_thread(lambda: backend.fetchall("SELECT * FROM entities")) as go_on:
        backend.close()
        assert not (tmp_path / "kg.db-wal").exists()  # It goes with the last connection.
        go_on.set()


@pytest.mark.parametrize("opened_again", [False, True])
def test_close_leaves_another_threads_transaction_to_its_end(
    tmp_path: Path, opened_again: bool
) -> None:
    backend = SQLiteBackend(tmp_path / "kg.db")
    backend.init_schema()
    insert = "INSERT INTO entities (type, name) VALUES ('file', ?)"
    seen: list[str] = []

    def finish() -> None:
        backend.execute(insert, ("b",))
        backend.commit()
        seen.append("gone" if not (tmp_path / "kg.db-wal").exists() else "there")
        try:
            backend.execute(insert, ("c",))
        except SourceError as error:
            seen.append(error.message)

    with other_thread(lambda: backend.execute(insert, ("a",)), finish) as go_on:
        backend.close()
        if opened_again:
            backend.connect()
        go_on.set()
    with SQLiteBackend(tmp_path / "kg.db") as reader:
        names = [row["name"] for row in reader.fetchall("SELECT name FROM entities ORDER BY name")]
    assert names == ["a", "b"]  # The whole transaction, and not the one that never ended.
    assert seen == (
        ["there"] if opened_again else ["gone", f"{tmp_path}/kg.db: the backend is closed"]
    )


@contextmanager
def other_thread(
    first: Callable[[], object], then: Callable[[], object] = lambda: None
) -> Iterator[threading.Event]:
    """Run the block after ``first`` was done in another thread, which does ``then`` when set."""
    ready, go_on = threading.Event(), threading.Event()

    def work() -> None:
        first()
        ready.set()
        assert go_on.wait(10)
        then()

    thread = threading.Thread(target=work)
    thread.start()
    assert ready.wait(10)
    yield go_on
    thread.join()


CLOSE_AMID_CALLS = """
import sys, threading, time
from kgcore import KGError, KnowledgeGraph

def work(call):
    try:
        while True:
            call()
    except KGError as error:
        print(error.message + "\\n", end="")

for _ in range(3):
    kg = KnowledgeGraph(db_path=sys.argv[1])
    kg.add_entities([("file", str(i), {"x": list(range(20))}) for i in range(300)])
    calls = [lambda: kg.search("zz9"), lambda: kg.list_entities(limit=300)] * 2
    calls.append(lambda: kg.add_entity("file", "one"))
    threads = [threading.Thread(target=work, args=(call,)) for call in calls]
    for thread in threads:
        thread.start()
    time.sleep(0.1)
    kg.close()
    for thread in threads:
        thread.join()
"""


@pytest.mark.parametrize("name", ["kg.db", ":memory:"])
def test_close_ends_the_calls_of_other_threads_in_an_error(tmp_path: Path, name: str) -> None:
    path = name if name == ":memory:" else str(tmp_path / name)
    done = subprocess.run(
        [sys.executable, "-c", CLOSE_AMID_CALLS, path],
        check=False,
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.splitlines() == [f"{path}: the backend is closed"] * 15
    assert list(tmp_path.iterdir()) == ([] if name == ":memory:" else [tmp_path / name])


def test_databases_in_memory_are_apart_and_leave_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    with SQLiteBackend(":memory:") as one, SQLiteBackend(":memory:") as other:
        one.init_schema()
        assert other.fetchall("SELECT name FROM sqlite_schema") == []
    never_closed = SQLiteBackend(":memory:")
    never_closed.connect()
    del never_closed
    assert list(tmp_path.iterdir()) == []


@pytest.mark.filterwarnings("ignore:This process .* is multi-threaded:DeprecationWarning")
@pytest.mark.parametrize("closed_before", [False, True])
def test_only_a_closed_backend_is_taken_through_a_fork(tmp_path: Path, closed_before: bool) -> None:
    with SQLiteBackend(tmp_path / "kg.db") as backend:
        if closed_before:
            backend.close()
        child = os.fork()
        if child == 0:
            os._exit(_as_child(backend))
        status = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
        assert status == (0 if closed_before else 2)


def _as_child(backend: SQLiteBackend) -> int:
    try:
        backend.connect()
        backend.init_schema()
        backend.close()
    except SourceError as error:
        return 2 if "before the fork" in error.hint else 3
    except BaseException:  # noqa: BLE001  # The child must not go on as a second pytest.
        return 4
    return 0
