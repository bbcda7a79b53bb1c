"""Faults around the one transaction that makes the new tables live."""

import json
import time
from collections.abc import Iterator
from contextlib import contextmanager

from tests.faults.holds import CUTOVER
from tests.faults.scene import Scene, children, kill_process
from tests.workers.kg import wait_for

_WAITS_FOR_LOCK = (
    "SELECT pid FROM pg_stat_activity WHERE query LIKE 'LOCK TABLE%%' AND wait_event_type = 'Lock'"
)


@contextmanager
def _reader(scene: Scene) -> Iterator[None]:
    """Someone has read a live table and left the transaction open."""
    connection = scene.database.connect()
    connection.autocommit = False
    with connection.cursor() as cursor:
        cursor.execute("SELECT old FROM entities")
        yield
    connection.close()


def _all_but_the_cutover(scene: Scene) -> int:
    scene.old_tables()
    scene.begin(if_exists="replace")
    scene.steps_here("load", "index", "key", "verify")
    return scene.step_of("NOT done")


def test_a_reader_delays_the_cutover(scene: Scene) -> None:
    step = _all_but_the_cutover(scene)
    with scene.watched(), scene.kg.workers(1), scene.follow() as coordinator:
        with _reader(scene):
            wait_for(lambda: scene.database.rows(_WAITS_FOR_LOCK))
            with scene.strike():
                time.sleep(3)
                wait_for(lambda: scene.database.rows(_WAITS_FOR_LOCK))
        scene.complete(coordinator)
    assert scene.attempts()[step] == 1


def test_a_reader_who_stays_fails_the_run_which_goes_on_later(scene: Scene) -> None:
    scene.old_tables()
    scene.begin(if_exists="replace", lock_seconds=3.0)
    scene.steps_here("load", "index", "key", "verify")
    with scene.kg.workers(1):
        with _reader(scene), scene.follow() as coordinator:
            out, _ = coordinator.communicate(timeout=60)
            assert coordinator.returncode == 1
            scene.assert_untouched()
        (error,) = json.loads(out)["errors"]
        assert "others held a table of public" in error
        assert "idle in transaction" in error
        assert f"kg resume {scene.run}" in scene.fact("hint")
        with scene.watched(), scene.follow() as coordinator:
            scene.complete(coordinator)


def test_cancelled_and_paused_while_it_waits_for_the_live_tables(scene: Scene) -> None:
    """Neither command waits for the reader."""
    _all_but_the_cutover(scene)
    with _reader(scene), scene.kg.workers(1), scene.follow() as coordinator:
        wait_for(lambda: scene.database.rows(_WAITS_FOR_LOCK))
        scene.assert_in_the_middle()
        paused = scene.kg("pause", scene.run, "--now", timeout=30)
        assert paused.code == 0, paused.err
        assert scene.kg("unpause", scene.run, timeout=30).code == 0
        wait_for(lambda: scene.database.rows(_WAITS_FOR_LOCK))
        cancelled = scene.kg("cancel", scene.run, timeout=30)
        assert cancelled.code == 0, cancelled.err
        scene.assert_nothing_runs()
        assert coordinator.wait(20) == 1
    scene.assert_untouched()


def test_killed_while_it_waits_for_the_live_tables(scene: Scene) -> None:
    step = _all_but_the_cutover(scene)
    with scene.watched(), scene.kg.workers(1) as workers, scene.follow() as coordinator:
        with _reader(scene):
            wait_for(lambda: scene.database.rows(_WAITS_FOR_LOCK))
            with scene.strike():
                kill_process(*children(*workers))
                scene.assert_untouched()
        scene.complete(coordinator)
    assert scene.attempts()[step] == 2


def test_killed_when_half_of_the_tables_are_moved(scene: Scene) -> None:
    step = _all_but_the_cutover(scene)
    with (
        scene.watched(),
        scene.held(CUTOVER) as hold,
        scene.kg.workers(1) as workers,
        scene.follow() as coordinator,
    ):
        backend = hold.reached()
        with scene.strike():
            kill_process(scene.working_process(backend, workers))
            wait_for(lambda: not hold.waiting())
            scene.assert_untouched()
        hold.release()
        scene.complete(coordinator)
    assert scene.attempts()[step] == 2


def test_two_finalizers_make_one_cutover(scene: Scene) -> None:
    step = _all_but_the_cutover(scene)
    with scene.watched(), scene.held(CUTOVER) as hold, scene.kg.workers(2):
        with scene.strike():
            scene.send(*[(scene.run, step, 1)] * 6)
            hold.reached()
            wait_for(lambda: scene.received() == 6)
            wait_for(lambda: scene.in_the_broker() == 1)
            assert len(hold.waiting()) == 1
        hold.release()
        wait_for(lambda: scene.in_the_broker() == 0)
        scene.assert_whole()
        scene.send((scene.run, step, 1))
        wait_for(lambda: scene.in_the_broker() == 0)
    scene.assert_whole()
