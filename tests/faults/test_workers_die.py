"""Processes of workers are killed or stopped in the middle of a step."""

import json

import psutil

from tests.faults.scene import Scene, children, kill, kill_process
from tests.workers.kg import wait_for
from workers.embedded import RedisServer


def test_killed_in_copy_the_chunk_is_done_again_once(scene: Scene) -> None:
    scene.begin()
    with scene.held() as hold, scene.kg.workers(1) as workers, scene.follow() as coordinator:
        backend = hold.reached()
        with scene.strike():
            kill_process(scene.working_process(backend, workers))
            hold.release()
        scene.complete(coordinator)
    attempts = scene.attempts()
    assert attempts.pop(scene.held_step) == 2
    assert set(attempts.values()) == {1}


def test_killed_after_commit_before_the_acknowledgement(
    redis_scene: Scene, own_redis_server: RedisServer
) -> None:
    """A stopped Redis holds the process between its commit and all it has to say.

    The step is its stage's last, so what it would have sent is lost with it.
    """
    scene = redis_scene
    scene.begin(chunk_rows=1000)
    with scene.held() as hold, scene.kg.workers(1) as workers, scene.follow() as coordinator:
        child = scene.working_process(hold.reached(), workers)
        server = psutil.Process(own_redis_server.pid)
        server.suspend()
        try:
            with scene.strike():
                hold.release()
                wait_for(lambda: scene.ids("done AND step_id = %s", scene.held_step), 10)
                kill_process(child)
                assert (
                    scene.ids("stage = 'index' AND table_name = 'entities' AND attempts > 0") == []
                )
        finally:
            server.resume()
        scene.complete(coordinator)
    assert scene.attempts()[scene.held_step] == 1


def test_redelivered_steps_are_no_ops(scene: Scene) -> None:
    scene.begin()
    with scene.held() as hold, scene.kg.workers(2), scene.follow() as coordinator:
        hold.reached()
        with scene.strike():
            wait_for(lambda: scene.in_the_broker() == 1)
            before, received = scene.attempts(), scene.received()
            done = scene.ids("done")
            assert done
            scene.send(*((scene.run, step, 1) for step in done))
            wait_for(lambda: scene.in_the_broker() == 1)
            assert scene.received() == received + len(done)
            assert scene.attempts() == before
        hold.release()
        scene.complete(coordinator)
        after = scene.attempts()
        scene.send(*((scene.run, step, 1) for step in after))
        wait_for(lambda: scene.in_the_broker() == 0)
    assert scene.attempts() == after
    scene.assert_whole()


def test_the_same_step_at_two_workers_the_second_leaves_at_once(scene: Scene) -> None:
    scene.begin()
    message = (scene.run, scene.held_step, 1)
    with scene.held() as hold, scene.kg.workers(2):
        scene.send(message)
        hold.reached()
        with scene.strike():
            scene.send(message)
            wait_for(lambda: scene.received() == 2)
            wait_for(lambda: scene.in_the_broker() == 1)
            assert len(hold.waiting()) == 1
        with scene.follow() as coordinator:
            scene.wait_for_coordinators()
            hold.release()
            scene.complete(coordinator)
    assert scene.attempts()[scene.held_step] == 1


def test_a_whole_worker_is_killed_the_other_goes_on(scene: Scene) -> None:
    scene.begin()
    with scene.held() as hold, scene.kg.workers(2) as workers, scene.follow() as coordinator:
        child = scene.working_process(hold.reached(), workers)
        (dead,) = (worker for worker in workers if child in children(worker))
        with scene.strike():
            kill(dead)
        hold.release()
        scene.complete(coordinator)
    assert scene.attempts()[scene.held_step] == 2


def test_a_main_process_is_killed_its_child_goes_with_it(scene: Scene) -> None:
    scene.begin()
    with scene.held() as hold, scene.kg.workers(2) as workers, scene.follow() as coordinator:
        child = scene.working_process(hold.reached(), workers)
        with scene.strike():
            kill_process(psutil.Process(child.ppid()))
            wait_for(lambda: not child.is_running())
        hold.release()
        scene.complete(coordinator)
    assert scene.attempts()[scene.held_step] == 2


def test_with_every_worker_killed_it_says_so_and_waits_for_one(scene: Scene) -> None:
    scene.begin()
    with scene.held() as hold, scene.kg.workers(2) as workers, scene.follow() as coordinator:
        hold.reached()
        with scene.strike():
            kill(*workers)
            hold.release()
            assert coordinator.stderr is not None
            lines = iter(coordinator.stderr.readline, "")
            assert any("no worker answers" in line and "kg worker" in line for line in lines)
        with scene.kg.workers(1):
            scene.complete(coordinator)


def test_stopped_in_copy_past_its_lease_the_late_writer_fails(scene: Scene) -> None:
    """The chunk is larger than what sockets buffer: not all of it was sent when the stop came."""
    scene.heavy_source()
    scene.begin(chunk_rows=1000)
    inside = "SELECT query LIKE 'COPY%%' FROM pg_stat_activity WHERE pid = %s"
    with scene.held() as hold, scene.kg.workers(2) as workers, scene.follow() as coordinator:
        backend = hold.reached()
        child = scene.working_process(backend, workers)
        with scene.strike():
            child.suspend()
            hold.release()
            assert scene.database.rows(inside, (backend,)) == [(True,)]
            wait_for(lambda: scene.database.rows(inside, (backend,)) == [])
        wait_for(lambda: scene.ids("done AND step_id = %s", scene.held_step))
        child.resume()
        scene.complete(coordinator)
        wait_for(lambda: scene.in_the_broker() == 0)
        scene.assert_whole()
    assert scene.attempts()[scene.held_step] == 2


def test_a_chunk_that_kills_its_worker_each_time_fails_the_run(scene: Scene) -> None:
    scene.old_tables()
    scene.begin(max_attempts=2, if_exists="replace", lease_seconds=1.0)
    with scene.held() as hold, scene.kg.workers(1) as workers, scene.follow() as coordinator:
        for _ in range(2):
            backend = hold.reached()
            with scene.strike():
                kill_process(scene.working_process(backend, workers))
                wait_for(lambda: not hold.waiting())
        out, _ = coordinator.communicate(timeout=30)
        assert coordinator.returncode == 1
    (error,) = json.loads(out)["errors"]
    assert f"step {scene.held_step} (load entities [" in error
    assert "its worker died each time" in error
    assert scene.fact("state") == "failed"
    scene.assert_untouched()
