"""Two at one run's ledger at the same moment, made to meet by the locks of the test."""

import time
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path

import psycopg2
import pytest

from kgcore.backends import ConnectionPool, PostgreSQLBackend
from kgcore.errors import TargetBusyError, TargetUnreachableError
from kgcore.migration import ledger, new_run, runs
from kgcore.migration.model import Options, RunState, StepRef, StepResult
from tests.faults.proxy import Proxy
from tests.faults.scene import Scene
from tests.workers.kg import wait_for

_WAITING = (
    "SELECT pid FROM pg_stat_activity WHERE datname = current_database()"
    " AND wait_event_type = 'Lock' AND wait_event IN ('transactionid', 'tuple')"
)


@contextmanager
def _aside() -> Iterator[Callable[..., Future[StepResult]]]:
    """Do steps in other threads of this process."""
    with ThreadPoolExecutor(4) as pool:
        yield pool.submit


def _end(scene: Scene) -> None:
    """Let the run fail, as by another step."""
    with ledger.transaction(scene.backend.pool) as cursor:
        ledger.lock_run(cursor, scene.run)
        ledger.end_run(cursor, scene.run, RunState.FAILED, "another step failed")


def _loaded(scene: Scene) -> int:
    ((rows,),) = scene.database.rows(
        f'SELECT count(*) FROM "{scene.fact("staging_schema")}".entities'
    )
    return int(rows)


def test_two_last_finishers_make_the_cutover_ready_once(scene: Scene) -> None:
    scene.begin(chunk_rows=1000)
    scene.steps_here("load", "index", "key")
    first, second, *others = scene.ids("stage = 'verify'")
    for step in others:
        scene.step_here(StepRef(scene.run, step, 1))
    with ledger.transaction(scene.backend.pool) as cursor, _aside() as do:
        ledger.lock_run(cursor, scene.run)
        both = [do(scene.step_here, StepRef(scene.run, step, 1)) for step in (first, second)]
        wait_for(lambda: len(scene.database.rows(_WAITING)) == 2)
        cursor.connection.commit()
        results = [one.result(30) for one in both]
    assert all(result.outcome for result in results)
    sent = [ref.step_id for result in results for ref in result.dispatch]
    assert sent == scene.ids("stage = 'cutover'")
    scene.steps_here("cutover")
    scene.assert_whole()


def test_one_ends_its_step_while_the_run_is_unpaused(scene: Scene) -> None:
    """Both want the run's row and the step's; neither is the victim of a deadlock."""
    scene.begin(lease_seconds=30.0)
    step = StepRef(scene.run, scene.held_step, 1)
    with _aside() as do, scene.held() as hold:
        ended = do(scene.step_here, step)
        hold.reached()
        with ledger.transaction(scene.backend.pool) as cursor:
            ledger.lock_run(cursor, scene.run)
            hold.release()
            wait_for(lambda: scene.database.rows(_WAITING))
            ledger.pause(cursor, scene.run)
            ledger.unpause(cursor, scene.run, scene.read_run().options)
        assert ended.result(30).outcome is not None
    assert scene.ids("done") == [step.step_id]


def test_a_writer_of_an_earlier_epoch_is_rolled_back_at_the_fence(scene: Scene) -> None:
    scene.begin(lease_seconds=30.0)
    step = StepRef(scene.run, scene.held_step, 1)
    with _aside() as do, scene.held() as hold:
        late = do(scene.step_here, step)
        hold.reached()
        # As by a resume that may not end the writer's connection.
        scene.database.rows("UPDATE kg_migration.runs SET epoch = 2")
        hold.release()
        result = late.result(30)
    assert (result.outcome, result.state, result.dispatch) == (None, None, ())
    assert scene.ids("done") == []
    assert _loaded(scene) == 0
    assert scene.fact("state") == "running"


def test_who_works_for_an_earlier_epoch_is_stopped_and_can_not_fail_the_next(scene: Scene) -> None:
    scene.begin(lease_seconds=30.0, max_attempts=1)
    step = StepRef(scene.run, scene.held_step, 1)
    with _aside() as do, scene.held() as hold:
        late = do(scene.step_here, step)
        hold.reached()
        _end(scene)
        runs.resume(scene.backend.pool, scene.run)
        result = late.result(30)  # Though nothing is released.
        assert (result.outcome, result.state, result.dispatch) == (None, None, ())
    assert scene.read_run().state is RunState.RUNNING
    assert scene.fact("epoch") == 2


def test_a_step_is_ended_that_hangs_in_its_claim_and_no_other(scene: Scene) -> None:
    """The first has no lease yet, the second one that ran out long ago."""
    scene.begin(lease_seconds=0.5)
    first, second = scene.ids("stage = 'load'")[:2]
    pool, run = scene.backend.pool, scene.read_run()
    hanging, busy = scene.database.connect(), scene.database.connect()
    hanging.autocommit = busy.autocommit = False
    with hanging.cursor() as stopped, busy.cursor() as claims:
        assert ledger.acquire(stopped, first)
        with ledger.transaction(pool) as cursor:
            assert ledger.claim(cursor, run, second, "died") is not None
        wait_for(
            lambda: scene.ids("lease_until < clock_timestamp() - interval '0.2 s'") == [second]
        )
        assert ledger.acquire(claims, second)
        runs.sweep(pool, scene.run)
        claims.execute("SELECT 1")  # Its lease is another's: it goes on.
        ((ended,),) = scene.database.rows(
            "SELECT count(*) = 0 FROM pg_stat_activity WHERE pid = %s", (hanging.info.backend_pid,)
        )
        assert ended


def test_who_stops_with_the_lock_of_the_run_loses_it(scene: Scene) -> None:
    """Otherwise even cancel would wait for it."""
    scene.begin(lease_seconds=0.5)
    stopped = scene.database.connect()
    stopped.autocommit = False
    with stopped.cursor() as cursor:
        ledger.lock_run(cursor, scene.run)
        assert runs.cancel(scene.backend.pool, scene.run) is RunState.RUNNING


def test_used_up_attempts_are_told(scene: Scene) -> None:
    """Its worker died each time, so nobody told it before."""
    scene.begin(max_attempts=2)
    step = scene.held_step
    for _ in range(2):
        with ledger.transaction(scene.backend.pool) as cursor:
            assert ledger.claim(cursor, scene.read_run(), step, "died") is not None
    result = scene.step_here(StepRef(scene.run, step, 1))
    assert result.state is RunState.FAILED
    assert result.step is not None
    assert result.step.step_id == step
    assert "failed 2 times: its worker died each time" in scene.fact("error")


def test_a_message_that_comes_twice_leaves_the_last_attempt_alone(
    scene: Scene, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The first to claim it has no lock on it yet."""
    monkeypatch.setattr("kgcore.migration.ledger.steps._CLAIM_SECONDS", 3.0)
    scene.begin(max_attempts=1)
    step = scene.held_step
    with ledger.transaction(scene.backend.pool) as cursor:
        assert ledger.claim(cursor, scene.read_run(), step, "first") is not None
    with _aside() as do, scene.backend.pool.connection() as first, first.cursor() as cursor:
        second = do(scene.step_here, StepRef(scene.run, step, 1))
        time.sleep(0.5)
        assert not second.done()
        assert ledger.acquire(cursor, step)
        result = second.result(10)
    assert (result.step, result.state) == (None, None)
    assert scene.fact("state") == "running"


def test_who_only_asks_for_a_step_does_not_take_it_from_its_worker(scene: Scene) -> None:
    """A message that comes twice asks while the first has claimed the step and not begun it."""
    scene.begin(max_attempts=2)
    pool, number = scene.backend.pool, scene.held_step
    with ledger.transaction(pool) as cursor:
        step = ledger.claim(cursor, scene.read_run(), number, "first")
    assert step is not None

    def hold() -> bool:
        with ledger.transaction(pool) as cursor:
            return ledger.hold(cursor, step)

    with _aside() as do, pool.connection() as asks, asks.cursor() as cursor:
        assert ledger.acquire(cursor, number)
        held = do(hold)
        time.sleep(0.2)
        assert not held.done()
        asks.rollback()
        assert held.result(5)
        assert ledger.claim(cursor, scene.read_run(), number, "second") is not None
        asks.commit()
        assert not do(hold).result(5)


def test_a_step_that_failed_was_sent_again_then(scene: Scene) -> None:
    scene.begin()
    scene.trigger(150, "refuse_row()")
    runs.ready(scene.backend.pool, scene.read_run())
    (again,) = scene.step_here(StepRef(scene.run, scene.held_step, 1)).dispatch
    assert again.step_id in scene.ids("dispatched_at > started_at")


def test_options_of_a_running_run_are_changed(scene: Scene) -> None:
    scene.begin()
    resumed = runs.resume(scene.backend.pool, scene.run, max_rejects=7, if_exists="replace")
    assert (resumed.options.max_rejects, resumed.options.if_exists) == (7, "replace")
    assert (resumed.epoch, resumed.options.chunk_rows) == (1, 50)
    assert scene.read_run().options == resumed.options


@contextmanager
def _without_answer_to_commit(scene: Scene) -> Iterator[tuple[PostgreSQLBackend, Proxy]]:
    """Give a backend of one open connection, which the answer to its COMMIT does not reach."""
    with Proxy(scene.database.host, scene.database.port) as proxy:
        behind = scene.database.parameters | {"port": proxy.port}
        with PostgreSQLBackend(**behind, pool_size=1) as backend:
            with ledger.transaction(backend.pool) as cursor:
                cursor.execute("SELECT inet_client_port()")
                (port,) = cursor.fetchone() or (0,)
            link = proxy.lose_answer(port, b"COMMIT\0")
            yield backend, proxy
            assert link.lost.is_set()


def test_a_run_whose_first_commit_has_no_answer_has_begun(scene: Scene) -> None:
    options = Options(chunk_rows=50)
    prepared = new_run.prepare(scene.source, scene.data_dir, options)
    with _without_answer_to_commit(scene) as (backend, _):
        scene.run = new_run.start(backend.pool, prepared, options).run_id
    assert prepared.source.path.exists()
    scene.steps_here("load", "index", "key", "verify", "cutover")
    scene.assert_whole()


def test_a_source_is_deleted_only_if_its_run_certainly_did_not_begin(scene: Scene) -> None:
    options = Options(chunk_rows=50)

    def source_after(pool: ConnectionPool, error: type[Exception]) -> Path:
        prepared = new_run.prepare(scene.source, scene.data_dir, options)
        with pytest.raises(error):
            new_run.start(pool, prepared, options)
        return prepared.source.path

    nowhere = PostgreSQLBackend(**scene.database.parameters | {"database": "nowhere"})
    assert not source_after(nowhere.pool, TargetUnreachableError).exists()
    with _without_answer_to_commit(scene) as (backend, proxy):
        proxy.refuse()
        assert source_after(backend.pool, psycopg2.OperationalError).exists()
    assert not source_after(scene.backend.pool, TargetBusyError).exists()


def test_the_cutover_lasts_though_commits_of_its_role_may_be_lost(scene: Scene) -> None:
    database = scene.database
    database.rows(f'ALTER DATABASE "{database.database}" SET synchronous_commit = off')
    database.rows(
        "CREATE TABLE faults.commits (setting text);"
        " CREATE FUNCTION faults.note_commit() RETURNS event_trigger LANGUAGE plpgsql AS $$ BEGIN"
        " INSERT INTO faults.commits VALUES (current_setting('synchronous_commit')); END $$;"
        " CREATE EVENT TRIGGER note_commit ON ddl_command_end WHEN TAG IN ('ALTER TABLE')"
        " EXECUTE FUNCTION faults.note_commit()"
    )
    with PostgreSQLBackend(**database.parameters) as scene.backend:
        scene.begin()
        scene.steps_here("load", "index", "key", "verify")
        database.rows("TRUNCATE faults.commits")
        scene.steps_here("cutover")
    assert database.rows("SELECT DISTINCT setting FROM faults.commits") == [("on",)]
