"""A run to which something is done in its middle, and what must be true at the end."""

import json
import os
import signal
import sqlite3
import subprocess
import threading
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

import psutil
import redis
from celery import Celery

from kgcore.backends import PostgreSQLBackend
from kgcore.migration import ledger, new_run, runs
from kgcore.migration.model import Options, Run, StepRef, StepResult
from kgcore.migration.run_step import run_step
from kgcore.migration.workplace import Workplace
from tests.faults import holds
from tests.migration.comparer import COLUMNS, differences
from tests.migration.graphs import entity, write_graph
from tests.servers import Database
from tests.workers.kg import Kg, wait_for
from workers.queues import KINDS, queue_name

TABLES = tuple(COLUMNS)

_LOOKS = 8


@dataclass
class Scene:
    """One source, one target, and at most one run."""

    kg: Kg
    database: Database
    source: Path
    backend: PostgreSQLBackend
    run: str = ""
    old: dict[str, int] = field(default_factory=dict)

    # What there is before the run.

    def old_tables(self) -> None:
        """Make live tables that the run is to replace."""
        for name in TABLES:
            self.database.rows(
                f"CREATE TABLE {name} (id bigint PRIMARY KEY, old text);"
                f" INSERT INTO {name} VALUES (1, 'the old row')"
            )
        self.old = self.live()

    def heavy_source(self) -> None:
        """Take a source of one chunk that is far larger than what sockets buffer."""
        self.source = write_graph(
            self.source.with_name("heavy.db"),
            entities=[
                entity(row_id, metadata=json.dumps({"text": "x" * 100_000}))
                for row_id in range(1, 301)
            ],
        )

    # The run.

    def begin(self, **options: Any) -> None:
        """Write a run into the ledger and send nothing: `resume` or a message starts it."""
        chosen = Options(**{"chunk_rows": 50, "lease_seconds": 2.0} | options)
        prepared = new_run.prepare(self.source, self.data_dir, chosen)
        self.run = new_run.start(self.backend.pool, prepared, chosen).run_id

    @property
    def data_dir(self) -> Path:
        """Where source snapshots are."""
        return Path(self.kg.environment["KG_DATA_DIR"])

    def read_run(self) -> Run:
        """The run as the ledger has it."""
        with ledger.transaction(self.backend.pool) as cursor:
            return ledger.read_run(cursor, self.run)

    @contextmanager
    def follow(self) -> Iterator[subprocess.Popen[str]]:
        """Run `kg resume` of the run in the background: its coordinator."""
        with self.kg.start("resume", self.run, "--json") as coordinator:
            yield coordinator

    def wait_for_coordinators(self, number: int = 1) -> None:
        """Wait until so many coordinators watch over the run: they ask for it again and again."""
        asked: dict[int, set[Any]] = {}

        def watching() -> bool:
            for backend, when in self.database.rows(_COORDINATORS):
                asked.setdefault(backend, set()).add(when)
            return sum(len(times) >= 5 for times in asked.values()) >= number

        wait_for(watching)

    def complete(self, coordinator: subprocess.Popen[str], seconds: float = 60) -> str:
        """Wait for the coordinator's good end, and check the invariant; return its stderr."""
        out, err = coordinator.communicate(timeout=seconds)
        assert coordinator.returncode == 0, (out, err)
        assert json.loads(out)["state"] == "done"
        self.assert_whole()
        return err

    def step_here(self, ref: StepRef) -> StepResult:
        """Do a step in this process, as a worker would, but send nothing of what comes next."""
        return run_step(Workplace(self.backend.pool, self.data_dir, "here"), ref)

    def steps_here(self, *stages: str) -> None:
        """Do all steps of these stages in this process; what they make ready is not sent."""
        for stage in stages:
            while ids := self.ids(f"stage = %s AND NOT done AND {_READY}", stage):
                for step_id in ids:
                    assert self.step_here(StepRef(self.run, step_id, 1)).outcome is not None

    # Where the fault strikes.

    @contextmanager
    def held(self, point: holds.Point = holds.LOAD) -> Iterator[holds.Hold]:
        """Let the run's steps wait at a point of theirs."""
        if point is holds.LOAD:
            self.trigger(holds.ROW, f"wait_at_row({point.key})")
        with holds.closed(self.database, point) as hold:
            yield hold

    def trigger(self, row_id: int, function: str) -> None:
        """Let this happen in the middle of the COPY that loads this entity."""
        self.database.rows(
            f'CREATE TRIGGER stop BEFORE INSERT ON "{self.fact("staging_schema")}".entities'
            f" FOR EACH ROW WHEN (NEW.id = {int(row_id)}) EXECUTE FUNCTION faults.{function}"
        )

    def untrigger(self) -> None:
        """Undo `trigger`."""
        self.database.rows(f'DROP TRIGGER stop ON "{self.fact("staging_schema")}".entities')

    @contextmanager
    def strike(self) -> Iterator[None]:
        """The block is the fault: it must find the run in its middle, and leave it there."""
        self.assert_in_the_middle()
        yield
        self.assert_in_the_middle()

    def working_process(self, backend: int, workers: list[subprocess.Popen[str]]) -> psutil.Process:
        """Return the worker's process whose connection this backend serves."""
        ((port,),) = self.database.rows(
            "SELECT client_port FROM pg_stat_activity WHERE pid = %s", (backend,)
        )
        for child in children(*workers):
            if port in {item.laddr.port for item in child.net_connections() if item.laddr}:
                return child
        raise AssertionError(f"no process of the workers is connected from port {port}")

    # The broker.

    @property
    def redis_url(self) -> str:
        return self.kg.environment["KG_REDIS_URL"]

    @contextmanager
    def broker(self) -> Iterator[Celery]:
        """A Celery application on the run's broker."""
        with Celery("test", broker=self.redis_url, set_as_current=False) as app:
            yield app

    @cached_property
    def target(self) -> str:
        """By which the queues of the run's database are named."""
        return runs.target_identity(self.backend.pool)

    @property
    def queue(self) -> str:
        """One of the queues that the workers listen to."""
        return queue_name(self.target, "load")

    def send(self, *messages: tuple[Any, ...], task: str = "kg.step") -> None:
        """Send messages to the workers, whatever they say."""
        with self.broker() as app:
            queue = self.queue
            for arguments in messages:
                app.send_task(task, arguments, queue=queue)

    def received(self) -> int:
        """How many messages the workers have begun with since they were started."""
        with self.broker() as app:
            inspect = app.control.inspect(timeout=5, limit=self.kg.answering())
            answers = inspect.stats() or {}
        return sum(sum(answer["total"].values()) for answer in answers.values())

    def in_the_broker(self) -> int:
        """How many messages are waiting or not acknowledged.

        One that was taken just now is for a moment in neither place: the highest of some looks.
        """
        with redis.Redis.from_url(self.redis_url) as client:

            def look() -> int:
                waiting = sum(int(client.llen(queue_name(self.target, kind))) for kind in KINDS)
                return waiting + int(client.hlen("unacked"))

            looks = [look()]
            for _ in range(_LOOKS):
                time.sleep(0.05)
                looks.append(look())
            return max(looks)

    # The ledger.

    def fact(self, column: str) -> Any:
        """A column of the run's row."""
        ((value,),) = self.database.rows(
            f"SELECT {column} FROM kg_migration.runs WHERE run_id = %s", (self.run,)
        )
        return value

    def ids(self, where: str, *params: Any) -> list[int]:
        """The run's steps for which this holds."""
        rows = self.database.rows(
            f"SELECT step_id FROM kg_migration.steps AS step WHERE run_id = %s AND {where}"
            " ORDER BY step_id",
            (self.run, *params),
        )
        return [step_id for (step_id,) in rows]

    @property
    def held_step(self) -> int:
        """The step that is held at `LOAD`."""
        (step,) = self.ids(
            "stage = 'load' AND table_name = 'entities' AND lower_id <= %s"
            " AND (upper_id > %s OR upper_id IS NULL)",
            holds.ROW,
            holds.ROW,
        )
        return step

    def attempts(self) -> dict[int, int]:
        """How often each step was claimed."""
        return dict(
            self.database.rows(
                "SELECT step_id, attempts FROM kg_migration.steps WHERE run_id = %s", (self.run,)
            )
        )

    def step_of(self, where: str, *params: Any) -> int:
        """The one step for which this holds."""
        (step,) = self.ids(where, *params)
        return step

    # What must be true.

    def live(self) -> dict[str, int]:
        """The graph's live tables and what PostgreSQL knows them by."""
        return dict(self.database.rows(_LIVE, (list(TABLES),)))

    def assert_in_the_middle(self) -> None:
        """The run goes on, has work left, and nobody sees anything of it."""
        assert self.fact("state") == "running"
        assert self.ids("NOT done")
        self.assert_not_cut_over()

    def assert_not_cut_over(self) -> None:
        """Everyone sees the old tables. (Their rows can't be read while a cutover has a lock.)"""
        assert self.live() == self.old
        assert self.cutovers() == 0

    def assert_untouched(self) -> None:
        """Live tables are the old ones, with their rows; where there were none, none are there."""
        self.assert_not_cut_over()
        for name in self.old:
            assert self.database.rows(f"SELECT id, old FROM {name}") == [(1, "the old row")]

    def cutovers(self) -> int:
        """How many transactions made tables of the graph live."""
        ((number,),) = self.database.rows("SELECT count(DISTINCT transaction) FROM faults.moves")
        return int(number)

    def assert_whole(self) -> None:
        """No row missing, none doubled, all equal; one cutover, all new; the ledger agrees."""
        assert differences(self.source, self.database.connect()) == []
        with closing(sqlite3.connect(self.source)) as sqlite:
            for name in TABLES:
                (rows,) = sqlite.execute(f"SELECT count(*) FROM {name}").fetchone()
                assert self.database.rows(f"SELECT count(*) FROM {name}") == [(rows,)], name
                assert self.database.rows(_SUMS, (self.run, name)) == [(rows, 0, rows, 0)], name
        assert self.fact("state") == "done"
        assert self.ids("NOT done") == []
        assert self.database.rows(
            "SELECT sum(open_steps) FROM kg_migration.stages WHERE run_id = %s", (self.run,)
        ) == [(0,)]
        assert self.cutovers() == 1
        assert self.live().keys() == set(TABLES)
        assert not set(self.live().values()) & set(self.old.values())
        assert self.database.rows(_SCHEMA, (self.fact("staging_schema"),)) == []
        archived = self.database.rows(_SCHEMA, (self.fact("archive_schema"),))
        assert archived  # Empty where there was nothing to keep.

    def assert_nothing_runs(self) -> None:
        """No staging is left, and no backend that works on the run."""
        assert self.database.rows(_SCHEMA, (self.fact("staging_schema"),)) == []
        assert self.database.rows(_BUSY) == []

    @contextmanager
    def watched(self) -> Iterator[None]:
        """Look at the live tables all the time; they must be all old or all new at each look."""
        seen: set[frozenset[int]] = set()
        ended = threading.Event()
        connection = self.database.connect()

        def look() -> None:
            with connection.cursor() as cursor:
                while not ended.wait(0.005):
                    cursor.execute(_LIVE, (list(TABLES),))
                    seen.add(frozenset(oid for _, oid in cursor.fetchall()))

        thread = threading.Thread(target=look)
        thread.start()
        try:
            yield
        finally:
            ended.set()
            thread.join()
        assert seen == {frozenset(self.old.values()), frozenset(self.live().values())}


_READY = (
    "EXISTS (SELECT FROM kg_migration.stages AS s WHERE s.ready AND s.run_id = step.run_id"
    " AND s.stage = step.stage AND s.table_name = step.table_name)"
)
_LIVE = (
    "SELECT relname, c.oid::bigint FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace"
    " WHERE nspname = 'public' AND relname = ANY(%s)"
)
_SUMS = (
    "SELECT sum(loaded_rows), sum(rejected_rows), sum(verified_rows), sum(mismatched_rows)"
    " FROM kg_migration.steps WHERE run_id = %s AND table_name = %s"
)
_SCHEMA = "SELECT nspname FROM pg_namespace WHERE nspname = %s"
_COORDINATORS = (
    "SELECT pid, query_start FROM pg_stat_activity WHERE application_name = 'jarvis-kg'"
    " AND datname = current_database()"
)
_BUSY = (
    "SELECT pid, state, query FROM pg_stat_activity WHERE application_name = 'jarvis-kg worker'"
    " AND datname = current_database() AND state <> 'idle'"
)


class QuickKg(Kg):
    """Asks Redis who listens, instead of the slower `kg doctor`."""

    def answering(self) -> int:
        with redis.Redis.from_url(self.environment["KG_REDIS_URL"]) as client:
            return sum(one["psub"] == "1" for one in client.client_list())


def children(*workers: subprocess.Popen[str]) -> list[psutil.Process]:
    """The processes in which the workers' steps are done."""
    return [child for worker in workers for child in psutil.Process(worker.pid).children()]


def kill(*workers: subprocess.Popen[str]) -> None:
    """Kill whole workers, as a power cut would: main process and children at once."""
    for worker in workers:
        os.killpg(worker.pid, signal.SIGKILL)
        worker.wait()


def kill_process(process: psutil.Process) -> None:
    """Kill a process, and wait until it is dead."""
    process.kill()
    wait_for(lambda: _is_gone(process))


def _is_gone(process: psutil.Process) -> bool:
    try:
        return not process.is_running() or process.status() == psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:  # It went between the two.
        return True
