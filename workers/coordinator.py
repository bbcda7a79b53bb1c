"""The coordinator: start a run, send its steps, watch over it, and report.

It holds no state of its own. Killed at any moment, it is replaced by ``kg resume``, which does the
same from the ledger.
"""

import logging
import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Literal, TypeVar

import psycopg2
import redis
from tenacity import (
    Retrying,
    retry_if_exception_type,
    stop_after_delay,
    wait_random_exponential,
)

from kgcore.backends import PostgreSQLBackend
from kgcore.errors import BrokerError, KGError, TargetUnreachableError
from kgcore.migration import runs
from kgcore.migration.model import Options, Run, RunState, StepRef
from kgcore.migration.reports import read_report
from kgcore.migration.stages.report import Report
from workers.app import app
from workers.progress import BROKER_ERRORS, Channel, Progress, unreachable
from workers.tasks import send

T = TypeVar("T")

_log = logging.getLogger(__name__)

_LOOK_SECONDS = 0.2
_SWEEP_SECONDS = 2.0
# Without any step done for so long, the coordinator asks whether there are workers at all.
_QUIET_SECONDS = 10.0
_PING_SECONDS = 1.0
_TARGET_GONE = (psycopg2.OperationalError, psycopg2.InterfaceError, TargetUnreachableError)


@dataclass(frozen=True, slots=True)
class Watcher:
    """What the command line wants to be told. Each is called from the coordinator's own thread."""

    stage: Callable[[str, int, int], None]  # freeze and plan: name, done, total
    started: Callable[[Run], None]
    progress: Callable[[Progress], None]
    notice: Callable[[str], None]


class Coordinator:
    """Runs on one target, sent over one Redis. Safe to be many at once, for the same run too."""

    def __init__(
        self,
        backend: PostgreSQLBackend,
        channel: Channel,
        data_dir: Path,
        watcher: Watcher,
        *,
        patience_seconds: float,
    ) -> None:
        self._pool = backend.pool
        self._patience_seconds = patience_seconds
        self._channel = channel
        self._data_dir = data_dir
        self._watcher = watcher

    def check(self, options: Options) -> None:
        """Raise the error that would keep a run from starting: target, then broker."""
        runs.check_target(self._pool, options)
        self._channel.ping()

    def start(self, source: Path, options: Options) -> Run:
        """Freeze, plan, write the run into the ledger, and send its first steps.

        Raises :class:`SourceError`, :class:`TargetError` or :class:`BrokerError`; then nothing in
        the target was changed.
        """
        self.check(options)
        prepared = runs.prepare(source, self._data_dir, options, self._watcher.stage)
        run = runs.start(self._pool, prepared, options)
        self._watcher.started(run)
        self._patiently(lambda: self._channel.keep(self._pool, run.run_id, replace=True))
        self._send(self._patiently(lambda: runs.ready(self._pool, run)))
        return run

    def resume(
        self,
        run_id: str,
        max_rejects: int | None = None,
        if_exists: Literal["fail", "replace"] | None = None,
    ) -> Run:
        """Let a run go on, and send what can be done now. Raises as :func:`runs.resume`."""
        run = runs.resume(self._pool, run_id, max_rejects=max_rejects, if_exists=if_exists)
        self._watcher.started(run)
        self._patiently(lambda: self._channel.keep(self._pool, run.run_id, replace=True))
        sweep = partial(runs.sweep, queue_is_empty=True, grace_seconds=0.0)
        self._send(self._patiently(lambda: sweep(self._pool, run_id)))
        return run

    def follow(self, run_id: str) -> Report:
        """Watch over a run until it has ended: show its progress, send again what was lost.

        Raises :class:`TargetUnreachableError` if the target stays away for the patience time.
        """
        sweep_at = quiet_since = time.monotonic()
        last_steps = -1
        while True:
            now = time.monotonic()
            steps = self._show(run_id)
            if steps != last_steps:
                last_steps, quiet_since = steps, now
            if self._patiently(lambda: runs.has_ended(self._pool, run_id)):
                break
            if now >= sweep_at:
                self._sweep(run_id)
                sweep_at = now + _SWEEP_SECONDS
            if now - quiet_since > _QUIET_SECONDS:
                quiet_since = now
                self._say_if_alone()
            time.sleep(_LOOK_SECONDS)
        return self.conclude(run_id)

    def conclude(self, run_id: str) -> Report:
        """Return an ended run's report, with the channel brought to the same numbers."""
        self._patiently(lambda: self._channel.keep(self._pool, run_id, replace=True))
        self._show(run_id)
        report = self._patiently(lambda: read_report(self._pool, run_id))
        if report.run.state in {RunState.DONE, RunState.CANCELLED}:
            runs.release_source(report.run)
        return report

    def cancel(self, run_id: str) -> RunState:
        """Give a run up. Raises as :func:`runs.cancel`."""
        state = runs.cancel(self._pool, run_id)
        self._channel.keep(self._pool, run_id, replace=True)
        return state

    def _show(self, run_id: str) -> int:
        """Show the progress; return how many steps are done, or -1 where Redis can't say."""
        try:
            progress = self._channel.read(run_id)
        except KGError as error:
            _log.debug("no progress to show: %s", error.message)
            return -1
        self._watcher.progress(progress)
        return sum(steps for _, steps, _ in progress.workers.values())

    def _sweep(self, run_id: str) -> None:
        try:
            empty = self._channel.queue_length(app.conf.task_default_queue) == 0
            self._patiently(lambda: self._channel.rebuild(self._pool, run_id))
        except (redis.RedisError, BrokerError) as error:
            _log.warning("Redis can't be asked, the sweep waits: %s", error)
            return
        again = self._patiently(lambda: runs.sweep(self._pool, run_id, queue_is_empty=empty))
        if again:
            self._watcher.notice(f"{len(again)} steps were lost with their worker and sent again")
            self._send(again)

    def _send(self, refs: tuple[StepRef, ...]) -> None:
        try:
            send(refs)
        except BROKER_ERRORS as error:
            # The steps are in the ledger: the next sweep sends them again.
            self._watcher.notice(f"{unreachable(error).message}; the run waits for it")

    def _say_if_alone(self) -> None:
        try:
            alone = not answering_workers()
        except BrokerError as error:
            self._watcher.notice(error.message)
            return
        if alone:
            self._watcher.notice("no worker answers; the run goes on when one starts: kg worker")

    def _patiently(self, ask: Callable[[], T]) -> T:
        """Ask the target, and for the patience time ask again: it may be restarting."""
        try:
            return Retrying(
                retry=retry_if_exception_type(_TARGET_GONE),
                stop=stop_after_delay(self._patience_seconds),
                wait=wait_random_exponential(multiplier=0.2, max=3),
                before_sleep=lambda _: self._watcher.notice("the target does not answer; waiting"),
                reraise=True,
            )(ask)
        except TargetUnreachableError as error:
            why, mend = error.message, error.hint
        except _TARGET_GONE as error:
            why, mend = " ".join(str(error).split()), "check that the server runs"
        raise TargetUnreachableError(
            f"the target did not answer for {self._patience_seconds:g} s: {why}", mend
        )


def answering_workers(seconds: float = _PING_SECONDS) -> tuple[str, ...]:
    """Return the names of the workers that answer through the broker within ``seconds``.

    Raises :class:`BrokerError`.
    """
    try:
        with app.connection_for_write() as connection:
            connection.ensure_connection(max_retries=1, timeout=seconds)
            answers = app.control.ping(timeout=seconds, connection=connection)
    except BROKER_ERRORS as error:
        raise unreachable(error) from None
    return tuple(sorted(name for answer in answers for name in answer))
