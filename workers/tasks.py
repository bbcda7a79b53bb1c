"""The one Celery task: do a step, tell the progress channel, send what comes next."""

import gc
import logging
import os
import socket
import time
from functools import cache
from threading import Timer

import psycopg2
from billiard.process import current_process
from celery.exceptions import Reject
from celery.signals import worker_process_init, worker_process_shutdown
from tenacity import (
    Retrying,
    retry_if_exception_type,
    stop_after_delay,
    wait_random_exponential,
)

from kgcore.backends import ConnectionPool, PostgreSQLBackend, backend_from_settings
from kgcore.backends.connections import KEEPALIVES
from kgcore.config import Settings, load_settings
from kgcore.errors import KGError
from kgcore.migration.model import StepRef
from kgcore.migration.run_step import run_step
from kgcore.migration.runs import target_identity
from kgcore.migration.sources import Sources
from kgcore.migration.sources.cache import Cache
from kgcore.migration.workplace import Workplace
from workers.app import app
from workers.progress import BROKER_ERRORS, Channel
from workers.queues import queue_of
from workers.troubles import Troubles, described

_log = logging.getLogger(__name__)

_resting: Timer | None = None

# The numbers that a step can have: the rest of 64 bits tells its lock from others.
_STEP_IDS = range(1, 2**48)
_EPOCHS = range(1, 2**31)
# A step, its lease and the ledger: never more connections than this of one process.
_POOL_SIZE = 1
_POOL_OVERFLOW = 2
# After the server could not be reached: the message comes back, and must not spin.
_RETRY_SECONDS = 5
_BROKER_GONE_SECONDS = 120
_IDLE_SECONDS = 5.0


@app.task(name="kg.step", Strategy="workers.messages:careful")
def do_step(run_id: object, step_id: object, epoch: object) -> None:
    """Do a step of a run, if the ledger says that there is something to do."""
    # A message may come from anyone who reaches the broker.
    if not (
        isinstance(run_id, str)
        and isinstance(step_id, int)
        and isinstance(epoch, int)
        and step_id in _STEP_IDS
        and epoch in _EPOCHS
    ):
        _log.warning("a message that is no step was thrown away")
        return
    _stay_awake()
    place = _workplace()
    try:
        _target()  # What comes next is sent there.
        result = run_step(place, StepRef(run_id, step_id, epoch))
    except (psycopg2.Error, KGError) as error:
        # The ledger can't be used, so nothing was done or recorded. The sweeper would find the
        # step, but none runs beside a detached run.
        _log.warning("step %s waits for the target: %s", step_id, error)
        _troubles().tell(run_id, process_name(), described(error))
        # Not by a time in the message: another machine's clock would judge it.
        time.sleep(_RETRY_SECONDS)
        raise Reject(str(error), requeue=True) from None
    _send_on(result.dispatch)
    _channel().publish(place.pool, result)
    _rest(place.pool)


def send(refs: tuple[StepRef, ...], target: str) -> None:
    """Send messages for these steps of a target: a run, a step, an epoch, and nothing else."""
    if not refs:
        return
    # A connection of its own for each call took as long as a step's claim.
    with app.producer_or_acquire() as producer:
        for ref in refs:
            message = (ref.run_id, ref.step_id, ref.epoch)
            queue = queue_of(target, ref.stage)
            do_step.apply_async(message, producer=producer, queue=queue)


def _send_on(refs: tuple[StepRef, ...]) -> None:
    """Send what comes next, for a while if it has to be: beside a detached run no sweeper runs."""
    if not refs:
        return
    try:
        Retrying(
            retry=retry_if_exception_type(BROKER_ERRORS),
            stop=stop_after_delay(_BROKER_GONE_SECONDS),
            wait=wait_random_exponential(multiplier=0.2, max=5),
            reraise=True,
        )(send, refs, _target())
    except BROKER_ERRORS as error:
        _log.error("%s steps were not sent, kg resume sends them: %s", len(refs), error)


@cache
def _workplace() -> Workplace:
    """Open the pool of this process: after the fork, because sockets don't survive one."""
    settings = load_settings()
    cache = Cache(settings.cache_dir(), int(settings.kg_cache_bytes))
    return Workplace(
        _backend(settings).pool,
        settings.kg_data_dir,
        process_name(),
        Sources(settings.kg_data_dir, cache, settings.kg_source_root),
        _tell_fetching,
    )


def _tell_fetching(run_id: str, done: int, total: int) -> None:
    _channel().fetching(run_id, process_name(), done, total)


@cache
def _target() -> str:
    return target_identity(_workplace().pool)


@cache
def _channel() -> Channel:
    return Channel(load_settings().redis_url())


@cache
def _troubles() -> Troubles:
    return Troubles(load_settings().redis_url())


def _rest(pool: ConnectionPool) -> None:
    """Let go of the connections if no other step comes soon: idle workers hold none."""
    global _resting  # noqa: PLW0603 (a process does one step at a time)
    _resting = Timer(_IDLE_SECONDS, pool.close_idle)
    _resting.daemon = True
    _resting.start()


def _stay_awake() -> None:
    if _resting is not None:
        _resting.cancel()


def process_name() -> str:
    """Name this worker process: host, and position in the worker's pool."""
    return f"{socket.gethostname()}:{os.getppid()}/{getattr(current_process(), 'index', 0)}"


def _backend(settings: Settings) -> PostgreSQLBackend:
    small = {"pg_pool_size": _POOL_SIZE, "pg_max_overflow": _POOL_OVERFLOW}
    backend = backend_from_settings(
        settings.model_copy(update={**small, "kg_backend": "postgres", "pg_replica_hosts": ()}),
        application_name="jarvis-kg worker",
        **KEEPALIVES,
    )
    if not isinstance(backend, PostgreSQLBackend):
        raise TypeError("the target of a migration is PostgreSQL")
    return backend


@worker_process_init.connect
def _tune_collector(**_unused: object) -> None:
    """Let the garbage collector pass seldom over the many rows that a batch holds.

    Rows are tuples that refer to nothing: walking over them took a tenth of a verify step.
    """
    gc.freeze()
    gc.set_threshold(50_000, 20, 20)


@worker_process_shutdown.connect
def _close(**_unused: object) -> None:
    if _workplace.cache_info().currsize:
        _workplace().pool.close()
        _channel().close()
        _troubles().close()
