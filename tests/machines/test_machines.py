"""Three machines without a shared disk, a fourth with the servers."""

import json
import shutil
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path

import redis

from tests.faults.scene import Scene
from tests.machines.network import Host, Network, host
from tests.migration.graphs import entity, mission, relationship, snapshot, write_graph
from tests.workers.kg import wait_for


def cached(on: Host) -> list[Path]:
    """The sources that this host has fetched."""
    return list((on.tree / "data" / "cache").glob("*.db"))


def large_graph(path: Path) -> Path:
    """A graph of more bytes than sockets buffer."""
    rows = range(1, 301)
    return write_graph(
        path,
        entities=[entity(row, metadata=json.dumps({"text": "x" * 6000})) for row in rows],
        relationships=[relationship(row, row, 301 - row) for row in rows],
        missions=[mission(row) for row in rows],
        snapshots=[snapshot(row) for row in rows],
    )


def test_a_run_over_three_hosts_one_of_which_is_cut_off(lan: Network, lan_scene: Scene) -> None:
    """Only the first host has the source. The second is cut off in the middle of a COPY, so that
    nobody hears of it, and comes back when its step was done by others; the third is far away.
    """
    scene = lan_scene
    environment = scene.kg.environment
    with ExitStack() as stack:
        first, second = (stack.enter_context(host(lan, number)) for number in (1, 2))
        third = stack.enter_context(host(lan, 3, slow=True))
        # Its coordinator is started on the first host, whose disk nobody else sees.
        on_first = first.kg(environment)
        on_fourth = scene.kg
        scene.kg = replace(
            on_fourth, environment=environment | {"KG_DATA_DIR": str(first.tree / "data")}
        )
        scene.source = large_graph(scene.source.with_name("large.db"))
        scene.begin(chunk_rows=150)
        shutil.rmtree(lan.directory / "data", ignore_errors=True)

        hold = stack.enter_context(scene.held())
        stack.enter_context(second.kg(environment).workers(1, waiting=False))
        wait_for(lambda: on_fourth.answering() == 1)
        serving = ("resume", scene.run, "--json", "--serve", f"{first.address}:0")
        coordinator = stack.enter_context(on_first.start(*serving))
        hold.reached()
        assert cached(second)
        ((peer,),) = scene.database.rows(
            "SELECT host(client_addr) FROM pg_stat_activity WHERE pid = %s", (hold.reached(),)
        )
        assert peer == second.address

        stack.enter_context(third.kg(environment).workers(1, waiting=False))
        wait_for(lambda: on_fourth.answering() == 2)
        wait_for(lambda: cached(third))
        with scene.strike():
            second.cut()
            wait_for(lambda: not hold.waiting(), seconds=90)  # Its backend was ended.
            hold.release()
            wait_for(lambda: scene.ids("done AND step_id = %s", scene.held_step), seconds=90)
            second.plug_in()
        scene.complete(coordinator, seconds=150)
        assert cached(third)
        assert not cached(first)
        wait_for(lambda: scene.in_the_broker() == 0, seconds=90)
        scene.assert_whole()
        assert not list((first.tree / "data" / "sources").glob("*.db"))
    assert_no_secret_in_redis(scene)


def assert_no_secret_in_redis(scene: Scene) -> None:
    """Where the source was served is in the ledger, and nowhere in Redis."""
    ((address,),) = scene.database.rows(
        "SELECT address FROM kg_migration.sources WHERE run_id = %s", (scene.run,)
    )
    secret = address.rpartition("/")[2]
    assert len(secret) >= 43
    with redis.Redis.from_url(scene.redis_url) as client:
        values = [client.dump(key) or b"" for key in client.keys("*")]
    assert values
    assert not any(secret.encode() in value for value in values)
