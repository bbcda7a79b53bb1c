"""Who works on a step: the holder of its advisory lock, for as long as its transaction lasts.

The lock belongs to the server's backend, so it is given back the moment a worker's connection ends,
it can't be forged by a message, and it is right behind a connection pooler too. A holder that
stalls (stopped, or cut off without a word) keeps it; its lease runs out, and its backend is
terminated: neither statement_timeout nor pg_cancel_backend frees a backend that waits inside COPY.
"""

import logging
from collections.abc import Iterator
from contextlib import contextmanager
from threading import Event, Thread

import psycopg2
from psycopg2.extensions import cursor as Cursor  # noqa: N812

from kgcore.backends import ConnectionPool
from kgcore.errors import KGError
from kgcore.migration.ledger.transaction import transaction
from kgcore.migration.model import Step

_log = logging.getLogger(__name__)

# The upper 16 bits of the key tell our locks from others' in the same database.
_NAMESPACE = 0x6B67 << 48


def step_lock_key(step_id: int) -> int:
    """Return the advisory lock's key for a step."""
    return _NAMESPACE | step_id


def terminate_holders(cursor: Cursor, run_id: str, *, expired_only: bool) -> int:
    """End the backends that work on the run's steps; return how many.

    With ``expired_only`` just those whose lease ran out by PostgreSQL's clock. A transaction itself
    has as much time as a lease: who stops while it claims a step has none yet, and who claims it
    after another must not be taken for that one.
    """
    cursor.execute(
        """
        SELECT count(pg_terminate_backend(held.pid))
        FROM kg_migration.steps AS step JOIN kg_migration.runs AS run USING (run_id)
        JOIN pg_locks AS held ON held.locktype = 'advisory' AND held.granted AND held.objsubid = 1
            AND held.database = (SELECT oid FROM pg_database WHERE datname = current_database())
            AND (held.classid::bigint << 32 | held.objid::bigint) = (%(namespace)s | step.step_id)
        LEFT JOIN pg_stat_activity AS backend ON backend.pid = held.pid
        WHERE step.run_id = %(run)s AND NOT step.done AND held.pid <> pg_backend_pid()
        AND (NOT %(expired)s OR clock_timestamp() > greatest(step.lease_until, backend.xact_start
            + make_interval(secs => (run.options->>'lease_seconds')::double precision)))
        """,
        {"namespace": _NAMESPACE, "run": run_id, "expired": expired_only},
    )
    (ended,) = cursor.fetchone() or (0,)
    return int(ended)


def count_holders(cursor: Cursor, run_id: str) -> int:
    """Return how many of the run's steps are being worked on at this moment."""
    cursor.execute(
        """
        SELECT count(*) FROM kg_migration.steps AS step
        JOIN pg_locks AS held ON held.locktype = 'advisory' AND held.granted AND held.objsubid = 1
            AND held.database = (SELECT oid FROM pg_database WHERE datname = current_database())
            AND (held.classid::bigint << 32 | held.objid::bigint) = (%(namespace)s | step.step_id)
        WHERE step.run_id = %(run)s AND NOT step.done
        """,
        {"namespace": _NAMESPACE, "run": run_id},
    )
    (holders,) = cursor.fetchone() or (0,)
    return int(holders)


def renew_lease(cursor: Cursor, step_id: int, seconds: float) -> None:
    """Say that the step's worker lives."""
    cursor.execute(
        "UPDATE kg_migration.steps SET lease_until = clock_timestamp()"
        " + make_interval(secs => %s) WHERE step_id = %s AND NOT done",
        (seconds, step_id),
    )


@contextmanager
def lease_kept(pool: ConnectionPool, step: Step, seconds: float) -> Iterator[None]:
    """Renew the lease while the block runs, from a thread: a stopped process renews nothing."""
    ended = Event()

    def renew() -> None:
        while not ended.wait(seconds / 3):
            try:
                with transaction(pool) as cursor:
                    renew_lease(cursor, step.step_id, seconds)
            except (psycopg2.Error, KGError) as error:
                # The step itself meets the same trouble, and reports it.
                _log.warning("the lease of %s was not renewed: %s", step, error)

    thread = Thread(target=renew, name=f"lease-{step.step_id}", daemon=True)
    thread.start()
    try:
        yield
    finally:
        ended.set()
        thread.join()
