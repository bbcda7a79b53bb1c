"""Processes of workers are stopped in the middle of a step, and stay so: nobody is told."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager

import psutil
import pytest

from kgcore.migration import ledger
from kgcore.migration.model import RunState
from tests.faults.holds import CUTOVER
from tests.faults.scene import Scene, children
from tests.workers.kg import wait_for


@contextmanager
def _stopped(process: psutil.Process) -> Iterator[None]:
    process.suspend()
    try:
        yield
    finally:
        process.resume()


def _fail_and_resume(scene: Scene) -> None:
    with ledger.transaction(scene.backend.pool) as cursor:
        ledger.lock_run(cursor, scene.run)
        ledger.end_run(cursor, scene.run, RunState.FAILED, "another step failed")


def _pause_and_unpause(scene: Scene) -> None:
    """The pause does not wait for the step at hand, as after Ctrl-C."""
    with ledger.transaction(scene.backend.pool) as cursor:
        ledger.lock_run(cursor, scene.run)
        ledger.pause(cursor, scene.run)
    gone_on = scene.kg("unpause", scene.run)
    assert gone_on.code == 0, gone_on.err


@pytest.mark.parametrize("interrupt", [_fail_and_resume, _pause_and_unpause])
def test_stopped_in_a_step_while_its_run_is_interrupted_and_goes_on(
    interrupt: Callable[[Scene], None], scene: Scene
) -> None:
    scene.begin()
    with scene.held() as hold, scene.kg.workers(2) as workers:
        scene.send((scene.run, scene.held_step, 1))
        child = scene.working_process(hold.reached(), workers)
        with _stopped(child):
            scene.assert_in_the_middle()
            hold.release()
            interrupt(scene)
            with scene.follow() as coordinator:
                scene.complete(coordinator)
        wait_for(lambda: scene.in_the_broker() == 0)
    scene.assert_whole()


def test_stopped_in_a_claim(scene: Scene) -> None:
    """It has the step's lock, and a lease that nobody else sees: it is not committed."""
    scene.begin()
    holder = scene.database.connect()
    holder.autocommit = False
    with scene.kg.workers(2) as workers, holder.cursor() as cursor:
        cursor.execute(
            "SELECT FROM kg_migration.steps WHERE step_id = %s FOR UPDATE", (scene.held_step,)
        )
        scene.send((scene.run, scene.held_step, 1))
        ((backend,),) = wait_for(lambda: scene.database.rows(_CLAIMING))
        with _stopped(scene.working_process(backend, workers)):
            holder.commit()
            scene.assert_in_the_middle()
            with scene.follow() as coordinator:
                scene.complete(coordinator)
    assert scene.attempts()[scene.held_step] == 1


_CLAIMING = (
    "SELECT pid FROM pg_stat_activity WHERE query LIKE '%%SET attempts%%'"
    " AND wait_event_type = 'Lock' AND datname = current_database()"
)


def test_stopped_in_the_cutover_it_gives_the_live_tables_back(scene: Scene) -> None:
    """Nobody watches over the run: the server itself ends it."""
    scene.old_tables()
    scene.begin(if_exists="replace")
    scene.steps_here("load", "index", "key", "verify")
    with scene.held(CUTOVER) as hold, scene.kg.workers(1) as workers, scene.watched():
        scene.send((scene.run, scene.step_of("NOT done"), 1))
        backend = hold.reached()
        (child,) = children(*workers)
        assert child == scene.working_process(backend, workers)
        with _stopped(child):
            hold.release()
            wait_for(lambda: scene.database.rows(_LOCKED) == [(False,)], 20)
            scene.assert_untouched()
        wait_for(lambda: scene.fact("state") == "done")
    scene.assert_whole()


_LOCKED = (
    "SELECT EXISTS (SELECT FROM pg_locks WHERE relation = 'public.entities'::regclass"
    " AND mode = 'AccessExclusiveLock' AND granted)"
)
