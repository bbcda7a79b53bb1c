"""What old runs left is taken away, and nothing else."""

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from kgcore.errors import RunNotFoundError, SettingsError
from kgcore.migration import ledger, runs
from kgcore.migration.local import run_here
from kgcore.migration.model import Options
from kgcore.migration.prune import prune
from kgcore.migration.stages import freeze
from kgcore.migration.workplace import Workplace
from tests.faults.scene import Scene
from tests.servers import Database
from workers.cli.prune import parse_age

_KG_SCHEMAS = "SELECT nspname FROM pg_namespace WHERE nspname LIKE 'kg\\_%' ORDER BY 1"


def _prune(scene: Scene, **options: object) -> list[tuple[str, str, bool]]:
    chosen = {"older_than_seconds": 0.0} | options
    found = prune(scene.backend.pool, scene.data_dir, **chosen)  # type: ignore[arg-type]
    return sorted((item.what, item.name, not item.kept) for item in found)


def _whole_run(scene: Scene) -> str:
    scene.begin(if_exists="replace")
    place = Workplace(scene.backend.pool, scene.data_dir, "here")
    run_here(place, scene.read_run(), 2)
    return scene.run


def _files(scene: Scene) -> list[str]:
    return sorted(path.name for path in (scene.data_dir / "sources").iterdir())


def _schemas(scene: Scene) -> list[str]:
    return [name for (name,) in scene.database.rows(_KG_SCHEMAS)]


def _named(prefix: str, run: str) -> str:
    return f"{prefix}_{run.replace('-', '_')}"


def test_each_kind_of_run(scene: Scene) -> None:
    first = _whole_run(scene)
    second = _whole_run(scene)
    runs.revert(scene.backend.pool, second)
    scene.begin(if_exists="replace")
    cancelled = scene.run
    runs.cancel(scene.backend.pool, cancelled)
    scene.begin(if_exists="replace")
    failed, copy = scene.run, scene.read_run().source.path
    with ledger.transaction(scene.backend.pool) as cursor:
        ledger.end_run(cursor, failed, ledger.read_run(cursor, failed).state.FAILED, "for the test")
    scene.begin(if_exists="replace")
    running = scene.run
    live, schemas = scene.live(), _schemas(scene)

    expected = [
        ("copy", str(copy), True),
        ("run", first, False),
        ("run", second, False),
        ("run", cancelled, True),
        ("run", failed, True),
        ("schema", _named("kg_staging", failed), True),
    ]
    assert _prune(scene, dry_run=True) == sorted(expected)
    assert _schemas(scene) == schemas
    assert copy.exists()
    assert _prune(scene, older_than_seconds=3600.0) == []
    assert _prune(scene) == sorted(expected)
    assert _schemas(scene) == [
        _named("kg_before", first),
        "kg_migration",
        _named("kg_reverted", second),
        _named("kg_staging", running),
    ]
    assert not copy.exists()
    assert scene.live() == live
    # What could be reverted still can be, and the run in progress goes on.
    assert _prune(scene, only=[running]) == [("run", running, False)]
    place = Workplace(scene.backend.pool, scene.data_dir, "here")
    run_here(place, scene.read_run(), 2)
    assert scene.fact("state") == "done"
    live = scene.live()
    assert _prune(scene, only=[second], archives=True) == [
        ("run", second, True),
        ("schema", _named("kg_reverted", second), True),
    ]
    runs.revert(scene.backend.pool, running)
    assert _prune(scene, archives=True)
    assert _schemas(scene) == ["kg_migration"]
    assert scene.database.rows("SELECT count(*) FROM kg_migration.runs") == [(0,)]
    assert set(scene.live()) == set(live)
    with pytest.raises(RunNotFoundError):
        _prune(scene, only=["nonsense"])


def test_a_paused_run_stays(scene: Scene) -> None:
    scene.begin()
    with ledger.transaction(scene.backend.pool) as cursor:
        ledger.pause(cursor, scene.run)
    before = _files(scene)
    assert _prune(scene) == []
    assert _files(scene) == before
    assert _named("kg_staging", scene.run) in _schemas(scene)


def test_staging_and_copies_without_a_run(scene: Scene) -> None:
    scene.begin()
    mine = scene.read_run().source.path
    orphan = "kg_staging_20200101_000000_abcdef"
    for name in (orphan, "kg_staging_of_someone_else"):
        scene.database.rows(f'CREATE SCHEMA "{name}"')
    stray = mine.with_name("0" * 64 + "-0000.db")
    stray.write_bytes(b"")
    assert _prune(scene) == [("copy", str(stray), False), ("schema", orphan, True)]
    assert "kg_staging_of_someone_else" in _schemas(scene)
    assert _prune(scene, unknown_copies=True) == [("copy", str(stray), True)]
    assert mine.exists()


def test_no_file_outside_of_the_data_directory(scene: Scene, tmp_path: Path) -> None:
    scene.begin()
    runs.cancel(scene.backend.pool, scene.run)
    precious = tmp_path / "precious.db"
    precious.write_text("mine")
    scene.database.rows("UPDATE kg_migration.sources SET snapshot_path = %s", (str(precious),))
    assert _prune(scene) == [("run", scene.run, True)]
    assert precious.read_text() == "mine"


def test_a_folder_of_who_was_killed_while_freezing(scene: Scene) -> None:
    """The process is stopped in the middle of its copy: alive it keeps the folder, killed not."""
    sources = scene.data_dir / "sources"
    script = (
        "import os, signal, sys\n"
        "from pathlib import Path\n"
        "from kgcore.migration.stages import freeze\n"
        "stop = lambda done, pages: os.kill(os.getpid(), signal.SIGSTOP)\n"
        "freeze.freeze(Path(sys.argv[1]), Path(sys.argv[2]), stop)\n"
    )
    with subprocess.Popen(
        [sys.executable, "-c", script, str(scene.source), str(sources)]
    ) as process:
        try:
            os.waitid(os.P_PID, process.pid, os.WSTOPPED | os.WNOWAIT)
            (folder,) = sources.glob("freeze-*")
            assert (folder / "copy.db").exists()
            assert _prune(scene) == []
        finally:
            process.send_signal(signal.SIGKILL)
            process.wait()
    assert folder.exists()
    assert list(freeze.abandoned(sources)) == [folder]
    assert _prune(scene, dry_run=True) == [("copy", str(folder), True)]
    assert _prune(scene) == [("copy", str(folder), True)]
    assert not folder.exists()


def test_the_command(scene: Scene) -> None:
    scene.begin()
    runs.cancel(scene.backend.pool, scene.run)
    would = scene.kg("runs", "--prune", "--older-than", "0s", "--dry-run")
    assert f"would prune run {scene.run}" in would.out
    done = scene.kg("runs", "--prune", "--run", scene.run, "--json")
    assert done.json == [
        {"what": "run", "name": scene.run, "run_id": scene.run, "pruned": True, "kept": None}
    ]
    assert "older than 30d" in scene.kg("runs", "--prune").out
    assert scene.kg("runs", "--dry-run").code == 2


def test_without_a_ledger_there_is_nothing_to_prune(scene: Scene) -> None:
    assert _prune(scene) == []


@pytest.mark.parametrize(("text", "seconds"), [("45s", 45), ("12h", 43_200), ("4w", 2_419_200)])
def test_an_age(text: str, seconds: int) -> None:
    assert parse_age(text).total_seconds() == seconds


@pytest.mark.parametrize("text", ["", "d", "30", "-1d", "1.5h", "30 days", "9999999d"])
def test_an_age_that_is_none(text: str) -> None:
    with pytest.raises(SettingsError, match="--older-than"):
        parse_age(text)


def test_a_ledger_of_an_earlier_version_is_brought_up_to_date(
    scene: Scene, postgres: Database
) -> None:
    """As version 0.1.0 made it: without pauses, pace and the indexes of the dispatch."""
    scene.begin()
    postgres.rows(
        "ALTER TABLE kg_migration.runs DROP COLUMN paced_until;"
        " ALTER TABLE kg_migration.runs DROP CONSTRAINT runs_state_check;"
        " ALTER TABLE kg_migration.runs ADD CONSTRAINT runs_state_check CHECK (state IN"
        " ('running', 'done', 'failed', 'rejected', 'mismatch', 'cancelled'));"
        " DROP INDEX kg_migration.steps_waiting, kg_migration.steps_sent,"
        " kg_migration.one_running_run;"
        " CREATE UNIQUE INDEX one_running_run ON kg_migration.runs (target_schema)"
        " WHERE state = 'running';"
        " COMMENT ON SCHEMA kg_migration IS NULL"
    )
    runs.cancel(scene.backend.pool, scene.run)
    scene.begin(max_rows_per_second=1000)
    with ledger.transaction(scene.backend.pool) as cursor:
        ledger.pause(cursor, scene.run)
        ledger.unpause(cursor, scene.run, Options(max_rows_per_second=10_000))
    place = Workplace(scene.backend.pool, scene.data_dir, "here")
    run_here(place, scene.read_run(), 2)
    assert scene.fact("state") == "done"
