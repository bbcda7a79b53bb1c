"""Writing and reading the channel."""

import logging
from collections.abc import Iterator, Mapping
from typing import Any, cast

import redis

from kgcore.backends import ConnectionPool
from kgcore.errors import RunNotFoundError
from kgcore.migration.model import Stage, StepResult
from workers.progress import scripts
from workers.progress.broker import impatient_client, unreachable
from workers.progress.shown import Progress, read_fields
from workers.progress.view import View, from_ledger

_log = logging.getLogger(__name__)

EXPIRES_SECONDS = 7 * 24 * 3600
_EVENTS = 10_000


class Channel:
    """The progress channel of all runs on one Redis."""

    def __init__(self, url: str) -> None:
        self._redis = impatient_client(url)
        self._count = self._redis.register_script(scripts.COUNT)
        self._build = self._redis.register_script(scripts.BUILD)
        self._fetch = self._redis.register_script(scripts.FETCH)

    def close(self) -> None:
        """Close the connections."""
        self._redis.close()

    def ping(self) -> None:
        """Raise :class:`BrokerError` unless Redis answers."""
        try:
            self._redis.ping()
        except redis.RedisError as error:
            raise unreachable(error) from None

    def server_version(self) -> str:
        """Return the server's version. Raises :class:`BrokerError`."""
        try:
            info = self._redis.info("server")
        except redis.RedisError as error:
            raise unreachable(error) from None
        return str(info.get("valkey_version", info["redis_version"]))

    def queue_length(self, queue: str) -> int:
        """Return how many messages wait in a Celery queue. Raises :class:`redis.RedisError`."""
        return self._redis.llen(queue)

    def publish(self, pool: ConnectionPool, result: StepResult) -> None:
        """Count a step that was done, or the end it brought. Never raises for Redis's sake."""
        step = result.step
        if step is None:
            return
        try:
            if result.outcome is not None and not self._counted(result):
                self.rebuild(pool, step.run_id)
                self._counted(result)
            if result.state is not None:
                self.rebuild(pool, step.run_id, replace=True)
        except redis.RedisError as error:
            _log.warning("progress was not published: %s", error)

    def fetching(self, run_id: str, worker: str, done: int, total: int) -> None:
        """Show how far a worker is with fetching the source. Never raises for Redis's sake."""
        try:
            self._fetch(keys=_keys(run_id)[:1], args=[worker, done, total])
        except redis.RedisError as error:
            _log.debug("the fetch was not shown: %s", error)

    def rebuild(self, pool: ConnectionPool, run_id: str, *, replace: bool = False) -> None:
        """Build the run's hash from the ledger where it is missing; ``replace`` it in any case.

        What was counted never goes back. Where the hash is there, and is not to be replaced, the
        ledger isn't read. Raises :class:`redis.RedisError`.
        """
        if replace or not self._redis.exists(_keys(run_id)[0]):
            self.write(from_ledger(pool, run_id), replace=replace)

    def write(self, view: View, *, replace: bool) -> None:
        """Do :meth:`rebuild` from what was read of the ledger, however long ago that was."""
        facts, counts = (
            [part for pair in fields.items() for part in pair]
            for fields in (view.facts, view.counts)
        )
        self._build(
            keys=[*_keys(view.run_id), "kg:latest"],
            args=[
                *(view.run_id, EXPIRES_SECONDS, int(replace)),
                *(view.age_seconds, "" if view.took_seconds is None else view.took_seconds),
                *(view.bitmap, len(view.facts), *facts, *counts),
            ],
        )

    def keep(self, pool: ConnectionPool, run_id: str, *, replace: bool = False) -> None:
        """Do :meth:`rebuild`, and only log where Redis can't be reached."""
        try:
            self.rebuild(pool, run_id, replace=replace)
        except redis.RedisError as error:
            _log.warning("progress was not published: %s", error)

    def read(self, run_id: str | None = None) -> Progress:
        """Return a run's progress, the latest one's by default, in one round trip (two for that).

        Raises :class:`BrokerError` where Redis can't be asked, :class:`RunNotFoundError` where it
        knows no such run.
        """
        try:
            wanted = run_id or cast("str | None", self._redis.get("kg:latest"))
            if wanted is None:
                raise RunNotFoundError("Redis knows of no run", "start one: kg migrate SOURCE")
            pipe = self._redis.pipeline(transaction=False)
            pipe.hgetall(_keys(wanted)[0])
            pipe.time()
            fields, (seconds, micros) = pipe.execute()
        except redis.RedisError as error:
            raise unreachable(error) from None
        if not fields:
            raise RunNotFoundError(
                f"Redis knows of no run {wanted!r}",
                "kg runs lists the runs in the ledger; kg resume publishes one again",
            )
        return read_fields(wanted, fields, seconds + micros / 1e6)

    def events(self, run_id: str, wait_seconds: float = 1.0) -> Iterator[Mapping[str, str] | None]:
        """Yield the run's events from the first that is kept on; None where none came in time.

        Raises :class:`BrokerError`.
        """
        last = "0"
        key = _keys(run_id)[2]
        while True:
            try:
                answer = cast("Any", self._redis.xread({key: last}, 500, int(wait_seconds * 1000)))
            except redis.RedisError as error:
                raise unreachable(error) from None
            if not answer:
                yield None
                continue
            for name, event in answer[0][1]:
                last = name
                yield event

    def _counted(self, result: StepResult) -> bool:
        """Count a step once; False where the hash is missing."""
        step = result.step
        if step is None:
            return True
        rows = step.rows if step.stage is Stage.LOAD else 0
        arguments: list[str | int | float] = [
            *(step.position, step.table, rows, step.weight, result.worker, step.stage),
            *(EXPIRES_SECONDS, _EVENTS),
        ]
        return bool(self._count(keys=_keys(step.run_id), args=arguments))


def _keys(run_id: str) -> list[str]:
    key = f"kg:run:{run_id}"
    return [key, f"{key}:steps", f"{key}:events"]
