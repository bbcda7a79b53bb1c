"""Redis loses everything in the middle of a run."""

from collections.abc import Callable
from contextlib import ExitStack

import pytest
import redis

from tests.faults.holds import INDEX, LOAD, VERIFY
from tests.faults.scene import TABLES, Scene
from tests.workers.kg import Kg, wait_for
from workers.embedded import RedisServer


def _restart(server: RedisServer) -> None:
    server.restart()


def _flush(server: RedisServer) -> None:
    with redis.Redis.from_url(server.url) as client:
        client.flushall()


def _lose_all(lose: Callable[[RedisServer], None], server: RedisServer, scene: Scene) -> None:
    """Lose the data while a step is held, and wait until `kg progress` is right again."""
    with redis.Redis.from_url(server.url) as client:
        assert client.keys("kg:run:*")
        client.set("before", 1)
    with scene.strike():
        lose(server)
        with redis.Redis.from_url(server.url) as client:
            assert not client.exists("before")
        wait_for(lambda: _is_right(scene))


def _is_right(scene: Scene) -> bool:
    """Whether `kg progress --json` says of the rows what the ledger says."""
    shown = scene.kg("progress", "--json")
    if shown.code != 0:
        return False
    progress = shown.json
    rows = scene.database.rows(
        "SELECT table_name, coalesce(sum(planned_rows) FILTER (WHERE done), 0), sum(planned_rows)"
        " FROM kg_migration.steps WHERE run_id = %s AND stage = 'load' GROUP BY 1",
        (scene.run,),
    )
    return (progress["run_id"], progress["state"]) == (scene.run, "running") and progress[
        "tables"
    ] == {name: {"done_rows": int(done), "total_rows": int(total)} for name, done, total in rows}


@pytest.mark.parametrize("lose", [_restart, _flush])
def test_redis_loses_all_its_data_three_times(
    lose: Callable[[RedisServer], None], redis_scene: Scene, own_redis_server: RedisServer
) -> None:
    scene = redis_scene
    scene.begin()
    with ExitStack() as holds, scene.kg.workers(2):
        load = holds.enter_context(scene.held(LOAD))
        with scene.follow() as coordinator:
            load.reached()
            _lose_all(lose, own_redis_server, scene)
            # Closed earlier, both workers might wait there, with other tables' steps.
            index = holds.enter_context(scene.held(INDEX))
            load.release()
            index.reached()
            _lose_all(lose, own_redis_server, scene)
            verify = holds.enter_context(scene.held(VERIFY))
            index.release()
            verify.reached()
            _lose_all(lose, own_redis_server, scene)
            verify.release()
            scene.complete(coordinator)
        progress = scene.kg("progress", "--json").json
        # And the workers can still be asked, so that a next command does not refuse to start.
        assert Kg(scene.kg.environment, scene.kg.directory).answering() == 2
    assert progress["state"] == "done"
    assert progress["percent"] == 100.0
    assert progress["tables"].keys() == set(TABLES)
    for name, table in progress["tables"].items():
        assert scene.database.rows(f"SELECT count(*) FROM {name}") == [(table["total_rows"],)]
        assert table["done_rows"] == table["total_rows"]
