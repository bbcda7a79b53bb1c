"""Connections that fail in other ways than by their end's death."""

import sys
import time
from collections.abc import Iterator
from dataclasses import replace

import pytest
import redis

from tests.faults.holds import CUTOVER, Hold
from tests.faults.proxy import Proxy
from tests.faults.scene import Scene, children, kill_process
from tests.workers.kg import wait_for
from workers.embedded import RedisServer


def _lose_the_commit(scene: Scene, proxy: Proxy, hold: Hold) -> None:
    """The step's transaction is committed, and its worker gets no word of it."""
    backend = hold.reached()
    ((port,),) = scene.database.rows(
        "SELECT client_port FROM pg_stat_activity WHERE pid = %s", (backend,)
    )
    link = proxy.lose_answer(port, b"COMMIT\0")
    hold.release()
    wait_for(link.lost.is_set)


@pytest.fixture
def proxy(scene: Scene) -> Iterator[Proxy]:
    """A proxy before the target."""
    with Proxy(scene.database.host, scene.database.port) as proxy:
        yield proxy


def test_a_commit_whose_answer_is_lost_counts(scene: Scene, proxy: Proxy) -> None:
    """The only attempt there is, the last step of its stage, and nobody but the worker watches."""
    scene.begin(chunk_rows=1000, max_attempts=1, lease_seconds=30.0)
    with scene.held() as hold, scene.kg.workers(1, PG_PORT=str(proxy.port)):
        scene.send(*((scene.run, step, 1) for step in scene.ids("stage = 'load'")))
        with scene.strike():
            _lose_the_commit(scene, proxy, hold)
            wait_for(lambda: scene.ids("done AND step_id = %s", scene.held_step))
        wait_for(lambda: scene.fact("state") != "running")
    assert set(scene.attempts().values()) == {1}
    scene.assert_whole()


def test_a_cutover_whose_answer_is_lost_counts(scene: Scene, proxy: Proxy) -> None:
    scene.old_tables()
    scene.begin(if_exists="replace", max_attempts=1)
    scene.steps_here("load", "index", "key", "verify")
    with (
        scene.watched(),
        scene.held(CUTOVER) as hold,
        scene.kg.workers(1, PG_PORT=str(proxy.port)),
        scene.follow() as coordinator,
    ):
        hold.reached()
        scene.assert_in_the_middle()
        _lose_the_commit(scene, proxy, hold)
        scene.complete(coordinator)
    assert set(scene.attempts().values()) == {1}


def test_redis_goes_silent_without_a_word(
    redis_scene: Scene, own_redis_server: RedisServer
) -> None:
    """The connections that there are lead nowhere any more, and no end is told."""
    scene = redis_scene
    scene.begin()
    with Proxy(own_redis_server.host, own_redis_server.port) as proxy:
        url = own_redis_server.url.replace(f":{own_redis_server.port}/", f":{proxy.port}/")
        behind = replace(scene.kg, environment=scene.kg.environment | {"KG_REDIS_URL": url})
        with (
            scene.held() as hold,
            behind.workers(2),
            behind.start("resume", scene.run, "--json") as coordinator,
        ):
            hold.reached()
            with scene.strike():
                began = time.monotonic()
                assert proxy.forget() >= 3  # Of two workers and the coordinator.
            hold.release()
            scene.complete(coordinator, 90)
            assert time.monotonic() - began < 60


def test_redis_is_out_of_memory(redis_scene: Scene, own_redis_server: RedisServer) -> None:
    scene = redis_scene
    scene.begin()
    with (
        redis.Redis.from_url(own_redis_server.url) as client,
        scene.held() as hold,
        scene.kg.workers(2) as workers,
        scene.follow() as coordinator,
    ):
        hold.reached()
        with scene.strike():
            client.config_set("maxmemory", 1)
            # What the dead had been given is lost, and to be sent again, which can't be.
            kill_process(*children(workers[0]))
            kill_process(*children(workers[1]))
            hold.release()
            assert coordinator.stderr is not None
            lines = iter(coordinator.stderr.readline, "")
            assert any("Redis is out of memory (maxmemory, noeviction)" in line for line in lines)
            client.config_set("maxmemory", 0)
        scene.complete(coordinator)


def test_the_visibility_timeout_is_shorter_than_a_step(scene: Scene) -> None:
    """The broker hands the step out again while it is being done."""
    program = (sys.executable, "-m", "tests.faults.hasty_worker")
    scene.begin()
    with scene.held() as hold, scene.kg.workers(2, program=program), scene.follow() as coordinator:
        hold.reached()
        with scene.strike():
            # More than were sent: one for each step that is done, and one for the one at hand.
            wait_for(lambda: scene.received() > len(scene.ids("done")) + 1)
        hold.release()
        scene.complete(coordinator)
        wait_for(lambda: scene.in_the_broker() == 0)
    assert set(scene.attempts().values()) == {1}
