"""PostgreSQL goes away in the middle of a run and comes back."""

import time

import pytest

from tests.faults.holds import CUTOVER, INDEX, LOAD, VERIFY, Point
from tests.faults.scene import Scene
from tests.workers.kg import wait_for
from workers.embedded import PostgresServer


@pytest.mark.parametrize(
    "point", [LOAD, INDEX, VERIFY, CUTOVER], ids=["load", "index", "verify", "cutover"]
)
def test_postgres_crashes_and_is_back_after_three_seconds(
    point: Point, postgres_scene: Scene, own_postgres_server: PostgresServer
) -> None:
    scene = postgres_scene
    scene.old_tables()
    scene.begin(if_exists="replace")
    with scene.held(point) as hold, scene.kg.workers(2), scene.follow() as coordinator:
        hold.reached()
        with scene.strike():
            own_postgres_server.stop("immediate")
            time.sleep(3)
            own_postgres_server.start()
        said = scene.complete(coordinator)
    assert "the target does not answer; waiting" in said


def test_without_a_coordinator_a_message_waits_for_the_target(
    postgres_scene: Scene, own_postgres_server: PostgresServer
) -> None:
    """Nobody sends it again: the worker gives it back."""
    scene = postgres_scene
    scene.begin()
    step, queue = scene.held_step, scene.queue
    with scene.kg.workers(1), scene.broker() as app:
        own_postgres_server.stop("fast")
        app.send_task("kg.step", (scene.run, step, 1), queue=queue)
        wait_for(lambda: scene.received() >= 2)  # It was given back at least once.
        own_postgres_server.start()
        wait_for(lambda: scene.fact("state") == "done")
    scene.assert_whole()
