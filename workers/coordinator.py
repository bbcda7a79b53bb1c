"""The coordinator: start a run, send its steps, watch over it, and report.

It holds no state of its own. Killed at any moment, it is replaced by ``kg resume``, which does the
same from the ledger.
"""

import logging
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import cached_property
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
from kgcore.migration import new_run, pause, runs, sources
from kgcore.migration.model import Options, Run, RunState, Stage, StepRef
from kgcore.migration.new_run import Prepared
from kgcore.migration.reports import read_report
from kgcore.migration.stages.report import Report
from workers.announce import announcements, unserved
from workers.progress import BROKER_ERRORS, Channel, Progress, unreachable
from workers.queues import KINDS, queue_of
from workers.sharing import Sharing, find_source
from workers.tasks import send
from workers.troubles import Troubles

T = TypeVar("T")

_log = logging.getLogger(__name__)

_LOOK_SECONDS = 0.2
_SWEEP_SECONDS = 2.0
# Without any step done for so long, the coordinator asks whether there are workers at all.
_QUIET_SECONDS = 10.0
# How long a paused run is taken for paused without a look at the ledger.
_PAUSED_SECONDS = 30.0
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
        troubles: Troubles,
        data_dir: Path,
        watcher: Watcher,
        *,
        patience_seconds: float,
    ) -> None:
        self._pool = backend.pool
        self._patience_seconds = patience_seconds
        self._channel = channel
        self._troubles = troubles
        self._data_dir = data_dir
        self._watcher = watcher

    @cached_property
    def target(self) -> str:
        """What its queues are named by."""
        return runs.target_identity(self._pool)

    def check(self, options: Options) -> None:
        """Raise the error that would keep a run from starting: target, then broker."""
        new_run.check_target(self._pool, options)
        self._channel.ping()

    def start(self, source: Path, options: Options, share: Sharing | None = None) -> Run:
        """Freeze, plan, write the run into the ledger, and send its first steps.

        With ``share`` machines that don't see the source's copy can fetch it.

        Raises :class:`SourceError`, :class:`TargetError` or :class:`BrokerError`; then nothing in
        the target was changed.
        """
        self.check(options)
        prepared = new_run.prepare(source, self._data_dir, options, self._watcher.stage)
        if share is not None and share.is_wanted:
            prepared = self._shared(prepared, share)
        run = new_run.start(self._pool, prepared, options)
        self._watcher.started(run)
        self._patiently(lambda: self._channel.keep(self._pool, run.run_id, replace=True))
        self._send(self._patiently(lambda: runs.ready(self._pool, run)))
        return run

    def resume(
        self,
        run_id: str,
        max_rejects: int | None = None,
        if_exists: Literal["fail", "replace"] | None = None,
        share: Sharing | None = None,
    ) -> Run:
        """Let a run go on, and send what can be done now. Raises as :func:`runs.resume`.

        With ``share`` machines that don't see the source's copy fetch it from here on.
        """
        address = None
        if share is not None and share.is_wanted:
            source = read_report(self._pool, run_id).run.source
            address = share.offer(find_source(self._data_dir, source), self._watcher.stage)
        run = runs.resume(
            self._pool, run_id, max_rejects=max_rejects, if_exists=if_exists, address=address
        )
        self._watcher.started(run)
        self._patiently(lambda: self._channel.keep(self._pool, run.run_id, replace=True))
        swept = self._patiently(lambda: runs.sweep(self._pool, run_id, grace_seconds=0.0))
        self._send(swept.lost + swept.fresh)
        return run

    def follow(self, run_id: str) -> Report:
        """Watch over a run until it has ended: show its progress, send again what was lost.

        Raises :class:`TargetUnreachableError` if the target stays away for the patience time.
        """
        sweep_at = quiet_since = time.monotonic()
        last_steps = -1
        while True:
            now = time.monotonic()
            shown = self._show(run_id)
            steps = -1 if shown is None else shown.steps
            if steps != last_steps:
                last_steps, quiet_since = steps, now
            state = self._patiently(lambda: runs.state_of(self._pool, run_id))
            if state is RunState.PAUSED:
                self._wait_while_paused(run_id)
                continue
            if state is not RunState.RUNNING:
                break
            if now >= sweep_at:
                self._sweep(run_id)
                sweep_at = now + _SWEEP_SECONDS
            if now - quiet_since > _QUIET_SECONDS:
                quiet_since = now
                self._say_if_alone()
                self._say_troubles(run_id)
            time.sleep(_LOOK_SECONDS)
        return self.conclude(run_id)

    def conclude(self, run_id: str) -> Report:
        """Return an ended run's report, with the channel brought to the same numbers."""
        self._patiently(lambda: self._channel.keep(self._pool, run_id, replace=True))
        self._show(run_id)
        report = self._patiently(lambda: read_report(self._pool, run_id))
        if report.run.state in {RunState.DONE, RunState.CANCELLED}:
            sources.release(report.run.source, self._data_dir)
        return report

    def pause(self, run_id: str, *, at_once: bool) -> None:
        """Pause a run; return when nothing of it is being done. Raises as :func:`pause.pause`."""
        said = 0

        def waiting(steps: int) -> None:
            nonlocal said
            if steps != said:
                said = steps
                self._channel.keep(self._pool, run_id, replace=True)
                self._watcher.notice(f"steps at hand that are being finished: {steps}")

        pause.pause(self._pool, run_id, at_once=at_once, waiting=waiting)
        self._channel.keep(self._pool, run_id, replace=True)

    def unpause(
        self, run_id: str, *, max_workers: int | None, max_rows_per_second: int | None
    ) -> None:
        """Let a paused run go on, and send its next steps. Raises as :func:`pause.unpause`."""
        refs = pause.unpause(
            self._pool, run_id, max_workers=max_workers, max_rows_per_second=max_rows_per_second
        )
        self._channel.keep(self._pool, run_id, replace=True)
        self._send(refs)

    def cancel(self, run_id: str) -> RunState:
        """Give a run up. Raises as :func:`runs.cancel`."""
        try:
            return runs.cancel(self._pool, run_id)
        finally:
            self._channel.keep(self._pool, run_id, replace=True)

    def _shared(self, prepared: Prepared, share: Sharing) -> Prepared:
        try:
            address = share.offer(prepared.source, self._watcher.stage)
        except BaseException:
            sources.release(prepared.source)
            raise
        return replace(prepared, source=replace(prepared.source, address=address))

    def _wait_while_paused(self, run_id: str) -> None:
        """Hold no connection, and ask Redis alone, until the run goes on or has ended."""
        self._watcher.notice(f"the run is paused; to let it go on: kg unpause {run_id}")
        while self._patiently(lambda: runs.state_of(self._pool, run_id)) is RunState.PAUSED:
            # Redis may lose the state: now and then the ledger is looked at all the same.
            self._channel.keep(self._pool, run_id, replace=True)
            self._pool.close_idle()
            look_at = time.monotonic() + _PAUSED_SECONDS
            while time.monotonic() < look_at:
                progress = self._show(run_id)
                if progress is not None and progress.state != RunState.PAUSED:
                    break
                time.sleep(_LOOK_SECONDS)

    def _show(self, run_id: str) -> Progress | None:
        """Show the progress, and return it; None where Redis can't say."""
        try:
            progress = self._channel.read(run_id)
        except KGError as error:
            _log.debug("no progress to show: %s", error.message)
            return None
        self._watcher.progress(progress)
        return progress

    def _sweep(self, run_id: str) -> None:
        try:
            empty = [
                stage
                for stage in Stage
                if not self._channel.queue_length(queue_of(self.target, stage))
            ]
            self._patiently(lambda: self._channel.rebuild(self._pool, run_id))
        except (redis.RedisError, BrokerError) as error:
            _log.warning("Redis can't be asked, the sweep waits: %s", error)
            return
        swept = self._patiently(lambda: runs.sweep(self._pool, run_id, empty=empty))
        if swept.lost:
            lost = len(swept.lost)
            self._watcher.notice(f"{lost} steps were lost with their worker and sent again")
        self._send(swept.lost + swept.fresh)

    def _send(self, refs: tuple[StepRef, ...]) -> None:
        try:
            send(refs, self.target)
        except BROKER_ERRORS as error:
            # The steps are in the ledger: the next sweep sends them again.
            self._watcher.notice(f"{unreachable(error).message}; the run waits for it")

    def _say_if_alone(self) -> None:
        try:
            missing = unserved(announcements(), self.target)
        except BrokerError as error:
            self._watcher.notice(error.message)
            return
        if len(missing) == len(KINDS):
            self._watcher.notice("no worker answers; the run goes on when one starts: kg worker")
        elif missing:
            self._watcher.notice(
                f"no worker takes {' or '.join(missing)} steps; the run goes on when one does:"
                f" kg worker --queues {','.join(missing)}"
            )

    def _say_troubles(self, run_id: str) -> None:
        by_text: dict[str, list[str]] = {}
        for worker, text in sorted(self._troubles.told(run_id).items()):
            by_text.setdefault(text, []).append(worker)
        for text, workers in by_text.items():
            self._watcher.notice(f"{', '.join(workers)} can't use the target: {text}")

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
