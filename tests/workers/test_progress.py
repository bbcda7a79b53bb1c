"""The progress channel: counts once, never goes back, and is rebuilt from the ledger."""

from collections.abc import Iterator, Mapping
from itertools import islice
from pathlib import Path

import pytest
import redis

from kgcore.backends import PostgreSQLBackend
from kgcore.errors import BrokerError, KGError, RunNotFoundError
from kgcore.migration import ledger, new_run, runs
from kgcore.migration.model import Options, Run, RunState, StepResult
from kgcore.migration.run_step import run_step
from kgcore.migration.workplace import Workplace
from tests.migration.graphs import small_graph
from tests.servers import Database
from workers.embedded import RedisServer
from workers.progress import Channel
from workers.progress.view import from_ledger


@pytest.fixture
def place(postgres: Database, tmp_path: Path) -> Iterator[Workplace]:
    with PostgreSQLBackend(**postgres.parameters, pool_size=1, max_overflow=3) as backend:
        yield Workplace(backend.pool, tmp_path / "data", "here:1/0")


@pytest.fixture
def run(place: Workplace, tmp_path: Path) -> Run:
    options = Options(chunk_rows=40)
    prepared = new_run.prepare(small_graph(tmp_path / "graph.db"), place.data_dir, options)
    return new_run.start(place.pool, prepared, options)


@pytest.fixture
def channel(redis_url: str) -> Iterator[Channel]:
    channel = Channel(redis_url)
    yield channel
    channel.close()


def steps(place: Workplace, run: Run) -> Iterator[StepResult]:
    waiting = list(runs.ready(place.pool, run))
    while waiting:
        result = run_step(place, waiting.pop(0))
        waiting += result.dispatch
        yield result


def test_a_step_counts_once_and_numbers_only_grow(
    channel: Channel, place: Workplace, run: Run
) -> None:
    channel.keep(place.pool, run.run_id)
    before = channel.read(run.run_id)
    assert (before.state, before.stage, before.percent) == ("running", "load", 0.0)
    for result in steps(place, run):
        for _ in range(3):
            channel.publish(place.pool, result)
        now = channel.read()
        assert now.percent >= before.percent
        for name, (done, total) in now.tables.items():
            assert before.tables[name][0] <= done <= total
        before = now
    assert before.state == "done"
    assert before.percent == 100.0
    assert all(done == total for done, total in before.tables.values())
    ((rows, _, _),) = before.workers.values()
    assert rows == sum(total for _, total in before.tables.values())


def test_events_are_replayed_for_a_late_follower(
    channel: Channel, place: Workplace, run: Run
) -> None:
    channel.keep(place.pool, run.run_id)
    number = 0
    for result in steps(place, run):
        channel.publish(place.pool, result)
        number += 1
    seen = []
    for event in channel.events(run.run_id, 0.05):
        if event is None:
            break
        seen.append(event)
    assert [event["event"] for event in seen].count("step") == number
    assert [e["state"] for e in seen if e["event"] == "state"] == ["running", "done"]


@pytest.mark.parametrize("lost_after", [0, 1, 5, 20])
def test_a_lost_hash_is_built_anew_from_the_ledger(
    channel: Channel, place: Workplace, run: Run, redis_url: str, lost_after: int
) -> None:
    channel.keep(place.pool, run.run_id)
    counted = dict.fromkeys(run.tables, 0)
    for number, result in enumerate(steps(place, run)):
        if number == lost_after:
            with redis.Redis.from_url(redis_url) as client:
                client.flushall()
        channel.publish(place.pool, result)
        if number > lost_after:
            continue
        counted = {name: done for name, (done, _) in channel.read(run.run_id).tables.items()}
    after = channel.read(run.run_id)
    assert all(done == total for done, total in after.tables.values())
    assert all(after.tables[name][0] >= done for name, done in counted.items())
    assert after.percent == 100.0


def test_a_late_replacement_takes_nothing_back(
    channel: Channel, place: Workplace, run: Run
) -> None:
    """Who reads the ledger and is slow to write must not undo what was counted meanwhile."""
    channel.keep(place.pool, run.run_id)
    results = steps(place, run)
    late = from_ledger(place.pool, run.run_id)
    channel.publish(place.pool, next(results))
    one = channel.read()
    assert one.steps == 1
    channel.write(late, replace=True)
    assert counted(channel) == (one.steps, one.percent, one.tables)

    next(results)  # Redis was away: the ledger alone has this step.
    late = from_ledger(place.pool, run.run_id)
    channel.publish(place.pool, next(results))
    two = channel.read()
    channel.write(late, replace=True)
    assert counted(channel) == (2, two.percent, two.tables)
    channel.keep(place.pool, run.run_id, replace=True)
    assert channel.read().steps == 3

    total = 3
    for result in results:
        for _ in range(2):
            channel.publish(place.pool, result)
        total += 1
    channel.write(late, replace=True)
    assert counted(channel)[:2] == (total, 100.0)


def test_a_resumed_run_goes_on_from_the_same_numbers(
    channel: Channel, place: Workplace, run: Run
) -> None:
    channel.keep(place.pool, run.run_id)
    results = steps(place, run)
    for _ in range(5):
        channel.publish(place.pool, next(results))
    before = channel.read()
    with ledger.transaction(place.pool) as cursor:
        ledger.end_run(cursor, run.run_id, RunState.FAILED, "the disk is full", "make space")
    channel.keep(place.pool, run.run_id, replace=True)
    assert channel.read().errors == ("the disk is full",)
    resumed = runs.resume(place.pool, run.run_id)
    channel.keep(place.pool, run.run_id, replace=True)
    now = channel.read()
    assert (now.state, now.errors, now.eta_seconds is None) == ("running", (), False)
    assert counted(channel) == (before.steps, before.percent, before.tables)
    for result in steps(place, resumed):
        channel.publish(place.pool, result)
    assert counted(channel)[1] == 100.0


@pytest.mark.parametrize("ended", [False, True])
def test_the_rate_is_right_after_redis_lost_its_hash(
    channel: Channel, place: Workplace, run: Run, redis_url: str, ended: bool
) -> None:
    """A run that began 100 s ago, however little of that time Redis has known of it."""
    for _ in islice(steps(place, run), None if ended else 3):
        pass
    with ledger.transaction(place.pool) as cursor:
        cursor.execute("UPDATE kg_migration.runs SET planned_at = planned_at - interval '100 s'")
    for _ in range(2):
        with redis.Redis.from_url(redis_url) as client:
            client.flushall()
        channel.keep(place.pool, run.run_id)
        now = channel.read(run.run_id)
        rows = sum(done for done, _ in now.tables.values())
        assert now.has_ended == ended
        assert rows / 110 < now.rows_per_second <= rows / 100
        assert (
            now.eta_seconds is None
            or 100 < now.eta_seconds * now.percent / (100 - now.percent) < 110
        )
        if ended:  # What it took doesn't grow with the time since.
            with ledger.transaction(place.pool) as cursor:
                cursor.execute(
                    "UPDATE kg_migration.runs SET planned_at = planned_at - interval '1 day',"
                    " finished_at = finished_at - interval '1 day'"
                )


def test_the_ledger_is_read_only_where_the_hash_is_missing(
    channel: Channel, place: Workplace, run: Run, redis_url: str
) -> None:
    channel.keep(place.pool, run.run_id)
    place.pool.close()
    for _ in range(3):
        channel.rebuild(place.pool, run.run_id)
    with redis.Redis.from_url(redis_url) as client:
        client.flushall()
    with pytest.raises(KGError, match="closed"):
        channel.rebuild(place.pool, run.run_id)


def counted(channel: Channel) -> tuple[int, float, Mapping[str, tuple[int, int]]]:
    now = channel.read()
    return now.steps, now.percent, now.tables


def test_without_redis_steps_go_on(
    own_redis_server: RedisServer, place: Workplace, run: Run
) -> None:
    channel = Channel(own_redis_server.url)
    channel.keep(place.pool, run.run_id)
    own_redis_server.kill()
    for result in steps(place, run):
        channel.publish(place.pool, result)
    assert runs.has_ended(place.pool, run.run_id)
    with pytest.raises(BrokerError, match="can't be reached") as caught:
        channel.read(run.run_id)
    assert own_redis_server.password not in str(caught.value) + caught.value.hint
    own_redis_server.start()
    with pytest.raises(RunNotFoundError, match="knows of no run"):
        channel.read(run.run_id)
    channel.keep(place.pool, run.run_id)
    assert channel.read(run.run_id).state == "done"
    channel.close()


def test_a_wrong_password_is_named(redis_url: str) -> None:
    channel = Channel(redis_url.replace("redis://:", "redis://:x"))
    with pytest.raises(BrokerError, match="refused the login") as caught:
        channel.ping()
    assert "KG_REDIS_URL" in caught.value.hint
    channel.close()


def test_keys_expire(channel: Channel, place: Workplace, run: Run, redis_url: str) -> None:
    channel.keep(place.pool, run.run_id)
    for result in steps(place, run):
        channel.publish(place.pool, result)
    with redis.Redis.from_url(redis_url, decode_responses=True) as client:
        keys = set(client.scan_iter())
        assert keys == {
            "kg:latest",
            f"kg:run:{run.run_id}",
            f"kg:run:{run.run_id}:steps",
            f"kg:run:{run.run_id}:events",
        }
        assert all(0 < client.ttl(key) <= 7 * 24 * 3600 for key in keys)
