"""The source is copied whole, or refused by name, and never changed."""

import hashlib
import os
import shutil
import sqlite3
import subprocess
import sys
import time
from collections.abc import Callable
from contextlib import closing
from pathlib import Path

import pytest

from kgcore.errors import SettingsError, SourceError
from kgcore.migration import digests
from kgcore.migration.stages import freeze as stage
from kgcore.migration.stages.freeze import discard, freeze, freeze_and
from tests.conftest import ROOT
from tests.migration.graphs import small_graph


def rows_of(path: Path) -> int:
    with closing(sqlite3.connect(f"file:{path}?mode=ro&immutable=1", uri=True)) as connection:
        return int(connection.execute("SELECT count(*) FROM entities").fetchone()[0])


def contents(directory: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in directory.iterdir() if path.is_file()}


def test_the_copy_is_named_by_its_digest(tmp_path: Path) -> None:
    source = small_graph(tmp_path / "graph.db")
    before = contents(tmp_path)
    seen: list[tuple[int, int]] = []
    frozen = freeze(source, tmp_path / "data", lambda done, total: seen.append((done, total)))
    assert frozen.path.name.startswith(frozen.sha256)
    assert hashlib.sha256(frozen.path.read_bytes()).hexdigest() == frozen.sha256
    assert frozen.bytes == frozen.path.stat().st_size
    assert frozen.original == source
    assert seen
    assert seen[-1][0] == seen[-1][1]
    assert rows_of(frozen.path) == rows_of(source)
    assert contents(tmp_path) == before
    discard(frozen.path)
    assert list((tmp_path / "data").iterdir()) == []


def test_an_open_wal_arrives_whole(tmp_path: Path) -> None:
    source = small_graph(tmp_path / "graph.db")
    with closing(sqlite3.connect(source)) as writer:
        writer.execute("PRAGMA journal_mode=WAL")
        writer.execute("PRAGMA wal_autocheckpoint=0")
        before = rows_of(source)
        writer.execute(
            "INSERT INTO entities (type, name, created_at, updated_at)"
            " VALUES ('t', 'in the wal', 'x', 'x')"
        )
        writer.commit()
        writer.execute(
            "INSERT INTO entities (type, name, created_at, updated_at)"
            " VALUES ('t', 'not committed', 'x', 'x')"
        )
        frozen = freeze(source, tmp_path / "data")
    assert rows_of(frozen.path) == before + 1


def test_a_writer_at_work_costs_no_row(tmp_path: Path) -> None:
    source = small_graph(tmp_path / "graph.db", rows=20_000)
    script = (
        "import sqlite3, sys\n"
        "c = sqlite3.connect(sys.argv[1], timeout=30)\n"
        "c.execute('PRAGMA journal_mode=WAL')\n"
        "n = 0\n"
        "while True:\n"
        "    n += 1\n"
        "    with c:\n"
        "        for part in 'ab':\n"
        "            c.execute('INSERT INTO mission_history (mission_id, status, created_at)'\n"
        "                      ' VALUES (?, ?, ?)', (f'{part}{n}', 's', 'x'))\n"
        "    print(n, flush=True)\n"
    )
    with subprocess.Popen(
        [sys.executable, "-c", script, source], stdout=subprocess.PIPE, text=True
    ) as writer:
        try:
            assert writer.stdout is not None
            committed = int(writer.stdout.readline())
            copies = [freeze(source, tmp_path / "data") for _ in range(5)]
        finally:
            writer.kill()
    for copy in copies:
        with closing(sqlite3.connect(f"file:{copy.path}?mode=ro", uri=True)) as connection:
            halves = connection.execute(
                "SELECT count(*) FILTER (WHERE mission_id LIKE 'a%'),"
                " count(*) FILTER (WHERE mission_id LIKE 'b%') FROM mission_history"
            ).fetchone()
        assert halves[0] == halves[1] >= committed


def test_a_hot_journal_is_rolled_back_in_the_copy_alone(tmp_path: Path) -> None:
    """What a writer leaves that was killed in the middle of a transaction."""
    source = small_graph(tmp_path / "graph.db", rows=5_000)
    good = source.read_bytes()
    killed_writer(source)
    assert source.read_bytes() != good
    before = contents(tmp_path)
    frozen = freeze(source, tmp_path / "data")
    with closing(sqlite3.connect(f"file:{frozen.path}?mode=ro", uri=True)) as connection:
        spoiled = connection.execute(
            "SELECT count(*) FROM entities WHERE name LIKE '%spoiled'"
        ).fetchone()
    assert spoiled == (0,)
    assert contents(tmp_path) == before


def killed_writer(source: Path) -> None:
    """Leave the journal of a writer that was killed in the middle of a transaction."""
    script = (
        "import os, signal, sqlite3, sys\n"
        "c = sqlite3.connect(sys.argv[1], isolation_level=None)\n"
        "c.execute('PRAGMA cache_size=5'); c.execute('BEGIN')\n"
        "c.execute(\"UPDATE entities SET name = name || 'spoiled'\")\n"
        "os.kill(os.getpid(), signal.SIGKILL)\n"
    )
    subprocess.run([sys.executable, "-c", script, source], check=False)
    assert source.with_name(f"{source.name}-journal").stat().st_size > 0


def test_a_file_that_stays_locked_is_not_copied_around_its_lock(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A copy of the bare files, made while someone writes, may be half old and half new."""
    monkeypatch.setattr(stage, "_LOCK_SECONDS", 0.2)
    source = small_graph(tmp_path / "graph.db")
    with closing(sqlite3.connect(source, isolation_level=None)) as writer:
        writer.execute("BEGIN EXCLUSIVE")
        with pytest.raises(SourceError, match=r"keeps .*graph\.db locked") as caught:
            freeze(source, tmp_path / "data")
        assert "end that transaction" in caught.value.hint
        assert list((tmp_path / "data").iterdir()) == []
        writer.execute("ROLLBACK")
        assert rows_of(freeze(source, tmp_path / "data").path) == rows_of(source)


def test_files_that_change_while_they_are_copied_for_recovery_are_copied_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    source = small_graph(tmp_path / "graph.db", rows=2_000)
    killed_writer(source)
    changes = iter([True, False, True, True, True])
    copied = []
    real = shutil.copyfile

    def copyfile(part: Path, to: Path) -> None:
        real(part, to)
        copied.append(part)
        if part == source and next(changes):
            os.utime(source)  # As a commit does, it moves the time of change.

    monkeypatch.setattr(shutil, "copyfile", copyfile)
    frozen = freeze(source, tmp_path / "data")
    assert copied.count(source) == 2
    with closing(sqlite3.connect(frozen.path)) as connection:
        spoiled = "SELECT count(*) FROM entities WHERE name LIKE '%spoiled'"
        assert connection.execute(spoiled).fetchone() == (0,)
    with pytest.raises(SourceError, match="another program keeps"):
        freeze(source, tmp_path / "data")


def test_a_data_directory_that_can_not_be_made_is_named(tmp_path: Path) -> None:
    source = small_graph(tmp_path / "graph.db")
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(SettingsError, match=r"KG_DATA_DIR: .*Not a directory") as caught:
        freeze(source, tmp_path / "file" / "data")
    assert "KG_DATA_DIR" in caught.value.hint


@pytest.mark.parametrize("recovered", [False, True])
def test_a_full_disk_is_named(tmp_path: Path, recovered: bool) -> None:
    """The limit of a process on the size of files stands for the disk's end."""
    source = small_graph(tmp_path / "graph.db", rows=2_000)
    if recovered:
        killed_writer(source)
    script = (
        "import pathlib, resource, signal, sys\n"
        "from kgcore.errors import SourceError\n"
        "from kgcore.migration.stages.freeze import freeze\n"
        "signal.signal(signal.SIGXFSZ, signal.SIG_IGN)\n"
        "resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, 100_000))\n"
        "try:\n"
        "    freeze(pathlib.Path(sys.argv[1]), pathlib.Path(sys.argv[2]))\n"
        "except SourceError as error:\n"
        "    print(error.message, error.hint, sep='\\n')\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", script, source, tmp_path / "data"],
        capture_output=True,
        text=True,
        check=False,
        env={"PYTHONPATH": str(ROOT)},
    )
    message, hint = done.stdout.splitlines()
    assert message.startswith(f"{source} can't be copied into {tmp_path / 'data'}: ")
    assert "KG_DATA_DIR" in hint
    assert list((tmp_path / "data").iterdir()) == []


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (None, "does not exist"),
        (b"", "is empty"),
        (b"not a database, but some text", "is not a SQLite database"),
        (os.urandom(8192), "or it is encrypted"),
        (b"SQLite format 3\0" + b"\0" * 84, "is damaged"),
    ],
)
def test_what_is_no_database_is_refused_by_name(
    tmp_path: Path, content: bytes | None, message: str
) -> None:
    source = tmp_path / "graph.db"
    if content is not None:
        source.write_bytes(content)
    with pytest.raises(SourceError, match=message) as caught:
        freeze(source, tmp_path / "data")
    assert caught.value.hint
    assert not (tmp_path / "data").exists() or list((tmp_path / "data").iterdir()) == []


def test_a_directory_is_refused(tmp_path: Path) -> None:
    with pytest.raises(SourceError, match="is a directory"):
        freeze(tmp_path, tmp_path / "data")


@pytest.mark.parametrize("damage", ["truncated", "page"])
def test_a_damaged_file_is_refused(tmp_path: Path, damage: str) -> None:
    source = small_graph(tmp_path / "graph.db", rows=5_000)
    content = bytearray(source.read_bytes())
    if damage == "truncated":
        del content[len(content) // 2 :]
    else:
        content[4096 * 5 : 4096 * 6] = b"\xaa" * 4096
    source.write_bytes(content)
    with pytest.raises(SourceError, match="is damaged"):
        freeze(source, tmp_path / "data")
    assert not list(tmp_path.glob("data/*"))


def test_who_reads_a_damaged_copy_is_told_and_waited_for_no_longer(tmp_path: Path) -> None:
    source = small_graph(tmp_path / "graph.db", rows=5_000)
    content = bytearray(source.read_bytes())
    content[4096 * 5 : 4096 * 6] = b"\xaa" * 4096
    source.write_bytes(content)

    def read(copy: Path, is_damaged: Callable[[], bool]) -> None:
        with closing(sqlite3.connect(copy)) as connection:
            connection.set_progress_handler(is_damaged, 10_000)
            # It would end after the tests' limit of time.
            connection.execute(
                "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 1e12)"
                " SELECT count(*) FROM n"
            ).fetchone()

    with pytest.raises(SourceError, match="is damaged"):
        freeze_and(source, tmp_path / "data", read)
    assert not list(tmp_path.glob("data/*"))


def test_another_file_under_the_same_name_is_noticed(tmp_path: Path) -> None:
    frozen = freeze(small_graph(tmp_path / "graph.db"), tmp_path / "data")
    digests.verify(frozen.path, frozen.sha256)
    time.sleep(0.01)
    other = small_graph(tmp_path / "other.db", rows=301)
    frozen.path.chmod(0o600)
    shutil.copyfile(other, frozen.path)
    with pytest.raises(SourceError, match="is not the file that was planned"):
        digests.verify(frozen.path, frozen.sha256)
    frozen.path.unlink()
    with pytest.raises(SourceError, match="is missing"):
        digests.verify(frozen.path, frozen.sha256)
