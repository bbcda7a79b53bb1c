"""A run steps aside, holds nothing, and goes on where it was."""

import json
import os
import signal
import time

import pytest
import redis

from kgcore.errors import RunError, TargetBusyError
from kgcore.migration import new_run, pause, runs
from kgcore.migration.model import Options, RunState
from tests.faults.holds import INDEX, LOAD
from tests.faults.scene import Scene, kill
from tests.workers.kg import wait_for

_CONNECTIONS = (
    "SELECT application_name, state, query FROM pg_stat_activity"
    " WHERE application_name LIKE 'jarvis-kg%' AND datname = current_database()"
)
_LOCKS = (
    "SELECT 1 FROM pg_locks JOIN pg_stat_activity USING (pid)"
    " WHERE application_name LIKE 'jarvis-kg%' AND datname = current_database()"
)


def _connections(scene: Scene) -> list[tuple[str, ...]]:
    return scene.database.rows(_CONNECTIONS)


def test_a_paused_run_holds_nothing_and_goes_on(scene: Scene) -> None:
    scene.old_tables()
    scene.begin(if_exists="replace")
    with scene.held(LOAD) as hold, scene.kg.workers(2), scene.follow() as coordinator:
        hold.reached()
        scene.assert_in_the_middle()
        with scene.kg.start("pause", scene.run, "--json") as command:
            wait_for(lambda: scene.fact("state") == "paused")
            wait_for(lambda: _busy(scene) == 1)
            assert command.poll() is None  # It waits for the step at hand.
            hold.release()
            out, err = command.communicate(timeout=30)
        assert command.returncode == 0, err
        assert json.loads(out) == {"run_id": scene.run, "state": "paused"}
        # What was at hand counts, and nothing new was begun.
        assert scene.ids("done AND step_id = %s", scene.held_step)
        assert scene.ids("NOT done")
        wait_for(lambda: _connections(scene) == [])
        assert scene.database.rows(_LOCKS) == []
        before = scene.attempts()
        progress = scene.kg("progress", "--json").json
        assert (progress["state"], progress["eta_seconds"]) == ("paused", None)
        shown = scene.kg("progress").out
        assert f"kg unpause {scene.run}" in shown
        refused = scene.kg("migrate", scene.source, "--if-exists", "replace")
        assert refused.code == 1
        assert f"run {scene.run} into schema public is in progress" in refused.err
        time.sleep(3)  # Longer than a sweep takes to come.
        assert coordinator.poll() is None
        assert scene.attempts() == before
        assert _connections(scene) == []
        scene.assert_untouched()
        gone_on = scene.kg("unpause", scene.run)
        assert gone_on.code == 0, gone_on.err
        said = scene.complete(coordinator)
    assert "is paused" in said
    assert scene.fact("epoch") == 1


def _busy(scene: Scene) -> int:
    """How many steps are being worked on."""
    ((number,),) = scene.database.rows(
        "SELECT count(DISTINCT pid) FROM pg_locks"
        " WHERE locktype = 'advisory' AND granted AND classid::bigint >> 16 = x'6b67'::bigint"
    )
    return int(number)


def test_a_pause_survives_the_death_of_everyone(scene: Scene) -> None:
    scene.begin()
    with scene.held(INDEX) as hold, scene.kg.workers(2) as workers:
        with scene.follow() as coordinator:
            hold.reached()
            paused = scene.kg("pause", scene.run, "--now")
            assert paused.code == 0, paused.err
            assert hold.waiting() == []
            assert _busy(scene) == 0
            assert scene.ids("stage = 'index' AND NOT done")
            os.killpg(coordinator.pid, signal.SIGKILL)
            coordinator.wait()
        kill(*workers)
        with redis.Redis.from_url(scene.redis_url) as client:
            client.flushall()
    with scene.kg.workers(1):
        refused = scene.kg("resume", scene.run)
        assert refused.code == 1
        assert f"kg unpause {scene.run}" in refused.err
        assert scene.fact("state") == "paused"
        assert scene.kg("unpause", scene.run).code == 0
        # Nobody watches: the workers finish it alone.
        wait_for(lambda: scene.fact("state") == "done")
    scene.assert_whole()


def test_only_what_is_in_progress_is_paused_and_only_what_is_paused_goes_on(scene: Scene) -> None:
    pool = scene.backend.pool
    scene.begin()
    with pytest.raises(RunError, match="is running"):
        pause.unpause(pool, scene.run)
    pause.pause(pool, scene.run, at_once=False, waiting=lambda _: None)
    with pytest.raises(TargetBusyError, match="in progress"):
        new_run.check_target(pool, Options())
    assert runs.ready(pool, scene.read_run()) == ()
    assert runs.sweep(pool, scene.run, grace_seconds=0.0) == runs.Swept()
    assert pause.unpause(pool, scene.run, max_workers=3)
    assert scene.read_run().options.max_workers == 3
    assert len(scene.ids("dispatched_at IS NOT NULL")) == 3
    pause.pause(pool, scene.run, at_once=False, waiting=lambda _: None)
    assert len(pause.unpause(pool, scene.run, max_workers=0)) > 3
    pause.pause(pool, scene.run, at_once=False, waiting=lambda _: None)  # Once more is no fault.
    pause.pause(pool, scene.run, at_once=False, waiting=lambda _: None)
    assert runs.cancel(pool, scene.run) is RunState.PAUSED
    scene.assert_nothing_runs()
    with pytest.raises(RunError, match="is cancelled"):
        pause.pause(pool, scene.run, at_once=False, waiting=lambda _: None)
