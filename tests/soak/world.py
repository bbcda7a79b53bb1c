"""Servers of the soak's own, workers that are started again when they die, and looks at the run."""

import os
import signal
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import psutil
import psycopg2

from tests.conftest import ROOT
from tests.migration.comparer import COLUMNS
from tests.servers import FAST, Database, PostgresConnection, launcher, server_directory
from tests.workers.kg import KG
from workers.embedded import PostgresServer, RedisServer

_WORKERS = 2
_CONCURRENCY = 2


@dataclass(frozen=True)
class Look:
    """The run at one moment: its state, and who holds a step of which stage."""

    run: str
    state: str
    live: frozenset[int]
    at_work: tuple[tuple[str, int, int], ...]  # stage, step, backend

    def of(self, stage: str) -> tuple[tuple[int, int], ...]:
        """The steps of this stage that are being done, and the backends that do them."""
        return tuple((step, backend) for where, step, backend in self.at_work if where == stage)


@dataclass
class World:
    """What a user has: a target, a broker, and workers under a supervisor."""

    directory: Path
    postgres: PostgresServer
    redis: RedisServer
    workers: list[subprocess.Popen[bytes]] = field(default_factory=list)
    started: int = 0
    left_behind: frozenset[Path] = frozenset()
    _eye: PostgresConnection | None = None

    @property
    def database(self) -> Database:
        return Database(self.postgres, self.postgres.database)

    @property
    def copies(self) -> frozenset[Path]:
        """Copies of sources in ``KG_DATA_DIR``, whole or half made, but not what the dead left."""
        directory = self.directory / "data" / "sources"
        found = {*directory.glob("freeze-*/copy.db"), *directory.glob("*.db")}
        return frozenset(found) - self.left_behind

    @property
    def environment(self) -> dict[str, str]:
        return {
            "PATH": os.environ.get("PATH", os.defpath),
            "HOME": str(self.directory),
            "LANG": "C.UTF-8",
            **self.postgres.environment(),
            **self.redis.environment(),
            "KG_DATA_DIR": str(self.directory / "data"),
        }

    def tend(self) -> None:
        """Start workers that are not there: at first, and when they have died."""
        self.workers = [worker for worker in self.workers if worker.poll() is None]
        while len(self.workers) < _WORKERS:
            self.started += 1
            name = f"soak{self.started}"
            with (self.directory / f"worker-{self.started:03}.log").open("wb") as log:
                worker = subprocess.Popen(
                    [
                        *(*launcher(), *KG, "worker", "--concurrency", str(_CONCURRENCY)),
                        *("--name", f"{name}@%h"),
                    ],
                    env=self.environment | {"PYTHONPATH": str(ROOT)},
                    cwd=self.directory,
                    stdin=subprocess.DEVNULL,
                    stdout=log,
                    stderr=subprocess.STDOUT,
                    start_new_session=True,
                )
            self.workers.append(worker)

    def process_of(self, backend: int) -> psutil.Process | None:
        """The worker's process whose connection this backend serves, if it can be found."""
        rows = self.rows("SELECT client_port FROM pg_stat_activity WHERE pid = %s", (backend,))
        ports = {port for (port,) in rows}
        with suppress(psutil.Error):
            for worker in self.workers:
                for child in psutil.Process(worker.pid).children():
                    if ports & {item.laddr.port for item in child.net_connections() if item.laddr}:
                        return child
        return None

    def look(self) -> Look | None:
        """Look at the latest run; None while the target does not answer."""
        with suppress(psycopg2.Error):
            for run, state, live, at_work in self.rows(_LOOK, {"tables": list(COLUMNS)}):
                held = tuple((one["stage"], one["step"], one["backend"]) for one in at_work or ())
                return Look(run, state, frozenset(live or ()), held)
        return None

    def rows(self, sql: str, params: Any = ()) -> list[tuple[Any, ...]]:
        """Ask the target over a connection that is kept. Raises :class:`psycopg2.Error`."""
        try:
            if self._eye is None:
                self._eye = psycopg2.connect(**self.database.parameters)
                self._eye.autocommit = True
            with self._eye.cursor() as cursor:
                cursor.execute(sql, params or None)
                return [] if cursor.description is None else list(cursor.fetchall())
        except psycopg2.Error:
            if self._eye is not None and self._eye.closed:
                self._eye = None
            raise

    def close(self) -> None:
        """End workers and the connection."""
        for worker in self.workers:
            with suppress(ProcessLookupError):
                os.killpg(worker.pid, signal.SIGKILL)
            worker.wait()
        if self._eye is not None:
            self._eye.close()


class Reader:
    """Somebody who has read a live table and left the transaction open."""

    def __init__(self, world: World) -> None:
        self._world = world
        self._connection: PostgresConnection | None = None

    def hold(self) -> None:
        """Be there, again if the server was away."""
        try:
            if self._connection is None:
                self._connection = psycopg2.connect(**self._world.database.parameters)
            with self._connection.cursor() as cursor:
                cursor.execute("SELECT FROM entities LIMIT 1")
        except psycopg2.Error:
            self.leave()

    def leave(self) -> None:
        """End the transaction."""
        if self._connection is not None:
            self._connection.close()
        self._connection = None


@contextmanager
def world(directory: Path) -> Iterator[World]:
    """Start servers and workers; end all of them with the block."""
    with (
        server_directory() as place,
        PostgresServer(place / "postgres", None, FAST, launcher()) as postgres,
        RedisServer(place / "redis", launcher=launcher()) as redis,
    ):
        it = World(directory, postgres, redis)
        try:
            it.tend()
            yield it
        finally:
            it.close()
            for server in (postgres, redis):
                if server.log.exists():
                    (directory / f"{server.kind}.log").write_bytes(server.log.read_bytes())


# One statement: one moment. Locks are no part of that moment, so who holds one is asked for only
# where the step is not done.
_LOOK = """
SELECT run.run_id, run.state,
    (SELECT array_agg(c.oid::bigint) FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
     WHERE nspname = 'public' AND relname = ANY(%(tables)s)),
    (SELECT jsonb_agg(jsonb_build_object(
        'stage', step.stage, 'step', step.step_id, 'backend', held.pid))
     FROM kg_migration.steps AS step
     JOIN pg_locks AS held ON held.locktype = 'advisory' AND held.granted AND held.objsubid = 1
        AND (held.classid::bigint << 32 | held.objid::bigint)
            = (x'6b67'::bigint << 48 | step.step_id)
     WHERE step.run_id = run.run_id AND NOT step.done)
FROM (SELECT run_id, state FROM kg_migration.runs ORDER BY planned_at DESC LIMIT 1) AS run
"""
