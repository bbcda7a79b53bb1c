"""The coordinator dies, is there twice, or gives the run up."""

import os
import signal
from contextlib import suppress

import psutil
import pytest

from kgcore.migration.model import RunState, StepRef
from tests.faults.holds import INDEX, KEY, LOAD, ROW, VERIFY, Point
from tests.faults.scene import Scene
from tests.workers.kg import wait_for


@pytest.mark.parametrize("stages", [("load",), ("load", "index", "key", "verify")])
def test_the_last_of_a_stage_is_killed_before_it_sends_the_next(
    stages: tuple[str, ...], scene: Scene
) -> None:
    """What it does is done here, and what it would send is left unsent."""
    scene.begin()
    scene.steps_here(*stages)
    with scene.strike():
        assert scene.in_the_broker() == 0
        before = scene.attempts()
    with scene.kg.workers(1), scene.follow() as coordinator:
        scene.complete(coordinator)
    assert all(scene.attempts()[step] == 1 for step in before)


@pytest.mark.parametrize("state", ["running", "failed"])
def test_two_resume_at_once(state: str, scene: Scene) -> None:
    scene.begin(max_attempts=1)
    if state == "failed":
        _fail(scene)
    with (
        scene.held() as hold,
        scene.kg.workers(2),
        scene.follow() as first,
        scene.follow() as second,
    ):
        hold.reached()
        with scene.strike():
            scene.wait_for_coordinators(2)
        hold.release()
        scene.complete(first)
        scene.complete(second)
    assert scene.fact("epoch") == (2 if state == "failed" else 1)


def _fail(scene: Scene) -> None:
    """Let a step fail for the last time."""
    scene.trigger(ROW, "refuse_row()")
    result = scene.step_here(StepRef(scene.run, scene.held_step, 1))
    assert result.state is RunState.FAILED
    scene.untrigger()


def test_the_coordinator_is_killed(scene: Scene) -> None:
    with scene.held(INDEX) as hold, scene.kg.workers(1):
        with scene.kg.start("migrate", scene.source, "--chunk-rows", "50") as coordinator:
            hold.reached()
            ((scene.run,),) = scene.database.rows("SELECT run_id FROM kg_migration.runs")
            with scene.strike():
                os.killpg(coordinator.pid, signal.SIGKILL)
                coordinator.wait()
        with scene.follow() as coordinator:
            scene.wait_for_coordinators()
            hold.release()
            scene.complete(coordinator)


def test_without_a_coordinator_workers_finish_what_they_can(scene: Scene) -> None:
    with scene.held(INDEX) as hold, scene.kg.workers(1):
        with scene.kg.start("migrate", scene.source, "--chunk-rows", "50") as coordinator:
            hold.reached()
            ((scene.run,),) = scene.database.rows("SELECT run_id FROM kg_migration.runs")
            with scene.strike():
                os.killpg(coordinator.pid, signal.SIGKILL)
                coordinator.wait()
        hold.release()
        wait_for(lambda: scene.fact("state") == "done")
    scene.assert_whole()


def test_local_workers_end_with_their_killed_command(scene: Scene) -> None:
    migrate = ("migrate", scene.source, "--chunk-rows", "50", "--local-workers", "1")
    with scene.held(INDEX) as hold, scene.kg.start(*migrate) as coordinator:
        hold.reached()
        workers = psutil.Process(coordinator.pid).children(recursive=True)
        try:
            ((scene.run,),) = scene.database.rows("SELECT run_id FROM kg_migration.runs")
            with scene.strike():
                os.killpg(coordinator.pid, signal.SIGKILL)
                coordinator.wait()
            hold.release()
            _, alive = psutil.wait_procs(workers, 40)
            assert alive == []
        finally:
            for worker in workers:
                with suppress(psutil.NoSuchProcess):
                    worker.kill()


@pytest.mark.parametrize(
    "point", [LOAD, INDEX, KEY, VERIFY], ids=["load", "index", "key", "verify"]
)
def test_cancel(point: Point, scene: Scene) -> None:
    scene.old_tables()
    scene.begin(if_exists="replace", lease_seconds=30.0)
    with scene.held(point) as hold, scene.kg.workers(2), scene.follow() as coordinator:
        hold.reached()
        scene.assert_in_the_middle()
        cancelled = scene.kg("cancel", scene.run, "--json")
        assert cancelled.code == 0, cancelled.err
        scene.assert_nothing_runs()
        assert coordinator.wait(20) == 1
        hold.release()
        wait_for(lambda: scene.in_the_broker() == 0)
        scene.assert_nothing_runs()
    assert scene.fact("state") == "cancelled"
    assert scene.ids("NOT done")
    scene.assert_untouched()
    assert not list((scene.kg.directory / "data").rglob("*.db"))
