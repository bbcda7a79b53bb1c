"""Redis loses everything in the middle of a run."""

from collections.abc import Callable

import pytest
import redis

from tests.faults.holds import INDEX, LOAD, VERIFY
from tests.faults.scene import TABLES, Scene
from tests.workers.kg import Kg
from workers.embedded import RedisServer


def _restart(server: RedisServer) -> None:
    server.restart()


def _flush(server: RedisServer) -> None:
    with redis.Redis.from_url(server.url) as client:
        assert client.dbsize()
        client.flushall()


@pytest.mark.parametrize("lose", [_restart, _flush])
def test_redis_loses_all_its_data_three_times(
    lose: Callable[[RedisServer], None], redis_scene: Scene, own_redis_server: RedisServer
) -> None:
    scene = redis_scene
    scene.begin()
    with (
        scene.held(LOAD) as load,
        scene.held(INDEX) as index,
        scene.held(VERIFY) as verify,
        scene.kg.workers(2),
        scene.follow() as coordinator,
    ):
        for hold in (load, index, verify):
            hold.reached()
            with scene.strike():
                lose(own_redis_server)
            hold.release()
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
