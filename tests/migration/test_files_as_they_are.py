"""Whole runs from files that others have in use, or that hold text in another encoding."""

import signal
import sqlite3
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from pathlib import Path

import pytest

from kgcore.errors import SourceError
from tests.migration.comparer import differences
from tests.migration.conftest import Migrate
from tests.migration.graphs import entity, small_graph, write_graph
from tests.servers import Database

INSERT = (
    "INSERT INTO mission_history (mission_id, status, created_at) VALUES (?, 's', '2026-01-01')"
)


@contextmanager
def wal(path: Path) -> Iterator[None]:
    """Committed rows that stand in the WAL alone, and a row that is not committed."""
    with closing(sqlite3.connect(path)) as writer:
        writer.execute("PRAGMA journal_mode = WAL")
        writer.execute("PRAGMA wal_autocheckpoint = 0")
        writer.executemany(INSERT, [(f"wal {number}",) for number in range(90)])
        writer.commit()
        writer.execute(INSERT, ("not committed",))
        yield


@contextmanager
def hot_journal(path: Path) -> Iterator[None]:
    """What a writer leaves that was killed in the middle of a transaction."""
    script = (
        "import os, signal, sqlite3, sys\n"
        "c = sqlite3.connect(sys.argv[1], isolation_level=None)\n"
        "c.execute('PRAGMA cache_size=5'); c.execute('BEGIN')\n"
        "c.execute(\"UPDATE entities SET name = name || 'spoiled'\")\n"
        "os.kill(os.getpid(), signal.SIGKILL)\n"
    )
    killed = subprocess.run([sys.executable, "-c", script, path], check=False)
    assert killed.returncode == -signal.SIGKILL
    assert path.with_name(f"{path.name}-journal").stat().st_size
    yield


@contextmanager
def writer_at_work(path: Path) -> Iterator[None]:
    """A process that commits pairs of rows without a pause, and makes the file grow."""
    script = (
        "import sqlite3, sys\n"
        "c = sqlite3.connect(sys.argv[1], timeout=30)\n"
        "for n in range(10**9):\n"
        "    with c:\n"
        f"        c.executemany(\"{INSERT}\", [(f'a{{n}}',), (f'b{{n}}',)])\n"
        "    print(n, flush=True) if n == 20 else None\n"
    )
    with subprocess.Popen(
        [sys.executable, "-c", script, path], stdout=subprocess.PIPE, text=True
    ) as writer:
        try:
            assert writer.stdout is not None
            assert writer.stdout.readline() == "20\n"
            yield
        finally:
            writer.kill()


@pytest.mark.parametrize("in_use", [wal, hot_journal, writer_at_work])
def test_every_committed_row_arrives(
    migrate: Migrate, postgres: Database, tmp_path: Path, in_use: Callable[[Path], object]
) -> None:
    path = small_graph(tmp_path / "graph.db", rows=900)
    with in_use(path):  # type: ignore[attr-defined]
        report = migrate(path, chunk_rows=1_000)
    assert report.is_done, report.errors
    assert postgres.rows("SELECT count(*) FROM entities WHERE name LIKE '%spoiled'") == [(0,)]
    if in_use is writer_at_work:
        ((of_a, of_b),) = postgres.rows(
            "SELECT count(*) FILTER (WHERE mission_id LIKE 'a%'),"
            " count(*) FILTER (WHERE mission_id LIKE 'b%') FROM mission_history"
        )
        assert of_a == of_b > 20
    else:
        assert differences(path, postgres.connect()) == []
        ids = postgres.rows("SELECT count(*) FROM mission_history WHERE mission_id LIKE 'wal%'")
        assert ids == [(90 if in_use is wal else 0,)]


@pytest.mark.parametrize(
    "spoil",
    [
        lambda path: path.write_bytes(path.read_bytes()[:-7]),
        lambda path: path.write_bytes(b"not a database"),
        lambda path: path.write_bytes(b""),
        lambda path: path.unlink(),
        lambda path: (path.unlink(), path.mkdir()),
    ],
    ids=["cut off", "foreign", "empty", "missing", "a directory"],
)
def test_what_is_no_whole_database_changes_nothing_in_the_target(
    migrate: Migrate, postgres: Database, tmp_path: Path, spoil: Callable[[Path], object]
) -> None:
    path = small_graph(tmp_path / "graph.db")
    spoil(path)
    before = postgres.rows("SELECT oid, relname FROM pg_class ORDER BY 1")
    with pytest.raises(SourceError, match=path.name):
        migrate(path)
    assert postgres.rows("SELECT oid, relname FROM pg_class ORDER BY 1") == before


@pytest.mark.parametrize("encoding", ["UTF-16le", "UTF-16be"])
def test_text_in_utf_16(
    migrate: Migrate, postgres: Database, tmp_path: Path, encoding: str
) -> None:
    names = ["äöü", "日本語", "👩‍👩‍👧‍👦", "\ufeffBOM", "tab\tline\n\\N", "plain"]
    path = tmp_path / "graph.db"
    with closing(sqlite3.connect(path)) as connection:
        connection.executescript(  # It is settled by the first table.
            f"PRAGMA encoding = '{encoding}'; CREATE TABLE first (x); DROP TABLE first"
        )
    write_graph(
        path,
        entities=[
            entity(number, name, f'{{"name": "{number} ü"}}') for number, name in enumerate(names)
        ],
        more="""
            CREATE TABLE words (word TEXT PRIMARY KEY, n) WITHOUT ROWID;
            INSERT INTO words SELECT name, id FROM entities;
            INSERT INTO entities SELECT 100, type, CAST(x'00d8' AS TEXT), NULL, created_at,
              updated_at FROM entities WHERE id = 0;
        """,
    )
    with closing(sqlite3.connect(path)) as connection:
        assert connection.execute("PRAGMA encoding").fetchone() == (encoding,)
    report = migrate(path, only=("entities", "words"), chunk_rows=3, max_rejects=1)
    assert report.is_done, report.errors
    rows = postgres.rows("SELECT name, metadata->>'name' FROM entities WHERE id < 100 ORDER BY id")
    assert rows == [(name, f"{number} ü") for number, name in enumerate(names)]
    assert dict(postgres.rows("SELECT word, n FROM words")) == {
        name: number for number, name in enumerate(names)
    }
