"""The file changes during its migration; so does the copy that workers read; clocks are wrong."""

import json
import os
import shutil
import sqlite3
import subprocess
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from pathlib import Path

import pytest

from kgcore.migration import ledger
from kgcore.migration.sources import published
from kgcore.migration.sources.served import serve
from tests.conftest import unavailable
from tests.faults.holds import INDEX, LOAD, VERIFY
from tests.faults.scene import Scene, kill
from tests.migration.graphs import entity, write_graph
from tests.sources.places import link


def _write(path: Path) -> None:
    with closing(sqlite3.connect(path)) as connection, connection:
        connection.execute("UPDATE entities SET name = name || ' changed'")
        connection.execute("DELETE FROM relationships")


def _replace(path: Path) -> None:
    other = path.with_name("other.db")
    with closing(sqlite3.connect(other)) as connection, connection:
        connection.execute("CREATE TABLE entities (id INTEGER PRIMARY KEY)")
    other.replace(path)


def test_the_file_changes_in_mid_run(scene: Scene) -> None:
    """Rows of one moment arrive: those of when the run began."""
    scene.begin()
    file, scene.source = scene.source, scene.source.with_name("as_it_was.db")
    shutil.copy(file, scene.source)
    with (
        scene.held(LOAD) as load,
        scene.held(INDEX) as index,
        scene.held(VERIFY) as verify,
        scene.kg.workers(2),
        scene.follow() as coordinator,
    ):
        for hold, change in ((load, _write), (index, _replace), (verify, Path.unlink)):
            hold.reached()
            with scene.strike():
                change(file)
            hold.release()
        scene.complete(coordinator)


def _change_a_byte(path: Path) -> None:
    """And set the time of modification back, as one who wants to hide it would."""
    path.chmod(0o600)
    before = path.stat()
    with path.open("r+b") as file:
        file.seek(before.st_size // 2)
        byte = file.read(1)
        file.seek(-1, 1)
        file.write(bytes([byte[0] ^ 1]))
    os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))


@pytest.mark.parametrize("change", [_change_a_byte, Path.unlink], ids=lambda one: one.__name__)
def test_the_copy_changes_in_mid_run(change: Callable[[Path], None], scene: Scene) -> None:
    """Nothing of it is loaded: the run fails, and live tables stay."""
    scene.old_tables()
    scene.begin(if_exists="replace")
    copy = Path(scene.fact("(SELECT snapshot_path FROM kg_migration.sources)"))
    with scene.held() as hold, scene.kg.workers(2), scene.follow() as coordinator:
        hold.reached()
        scene.assert_in_the_middle()
        change(copy)
        hold.release()
        out, _ = coordinator.communicate(timeout=60)
        assert coordinator.returncode == 1
    assert str(copy) in out
    assert scene.fact("state") == "failed"
    scene.assert_untouched()


def test_a_machine_with_an_old_file_of_that_name_fetches_the_right_one(
    scene: Scene, tmp_path: Path
) -> None:
    """What is published was tampered with: refused. Then it is served, over a link that is cut."""
    scene.old_tables()
    scene.begin(if_exists="replace", max_attempts=1)
    source, far = scene.read_run().source, tmp_path / "far"
    old = far / "sources" / source.path.name
    old.parent.mkdir(parents=True)
    write_graph(old, entities=[entity(1, name="an old row")])
    address = published.publish(source.path, f"file://{far}/published")
    _change_a_byte(far / "published" / source.path.name)
    with scene.kg.workers(1, KG_DATA_DIR=str(far)):
        _offer(scene, address)
        with scene.follow() as coordinator:
            out, err = coordinator.communicate(timeout=60)
            assert coordinator.returncode == 1, err
        (error,) = json.loads(out)["errors"]
        assert "SHA-256 was wrong" in error
        scene.assert_untouched()
        with (
            serve(source, "127.0.0.1", 0) as served,
            link(served, source.bytes // 3 + 1000) as cut,
        ):
            _offer(scene, cut.address)
            with scene.follow() as coordinator:
                scene.complete(coordinator)
    assert cut.connections > 2
    assert (far / "cache" / f"{source.sha256}.db").exists()


def _offer(scene: Scene, address: str) -> None:
    with ledger.transaction(scene.backend.pool) as cursor:
        ledger.set_address(cursor, scene.run, address)


@contextmanager
def _workers_at(
    scene: Scene, offset: str, beside: int = 0
) -> Iterator[list[subprocess.Popen[str]]]:
    """Run a worker whose clock is so far off."""
    library = next(Path("/usr/lib").glob("*/faketime/libfaketimeMT.so.1"), None)
    if library is None:
        unavailable("there is no libfaketime: apt install faketime")
    with scene.kg.workers(
        1,
        beside=beside,
        LD_PRELOAD=str(library),
        FAKETIME=offset,
        FAKETIME_DONT_FAKE_MONOTONIC="1",
    ) as workers:
        yield workers


def test_clocks_of_workers_are_hours_off(scene: Scene) -> None:
    """One is two hours ahead and dies in a step, which the other, two hours behind, does again."""
    (before,) = scene.database.rows("SELECT clock_timestamp()")
    scene.begin()
    with (
        scene.held() as hold,
        _workers_at(scene, "+2h") as ahead,
        scene.follow() as coordinator,
    ):
        hold.reached()
        with _workers_at(scene, "-2h", beside=1):
            with scene.strike():
                kill(*ahead)
                hold.release()
            scene.complete(coordinator)
    assert scene.attempts()[scene.held_step] == 2
    times = scene.database.rows(
        "SELECT min(started_at) > %s AND max(finished_at) < clock_timestamp()"
        " FROM kg_migration.steps",
        before,
    )
    assert times == [(True,)]
