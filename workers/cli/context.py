"""What commands share: the target, a worker's command."""

import sys
from collections.abc import Iterator
from contextlib import contextmanager

from kgcore.backends import PostgreSQLBackend, backend_from_settings
from kgcore.backends.connections import KEEPALIVES
from kgcore.config import Settings, load_settings
from kgcore.errors import SettingsError


@contextmanager
def target(settings: Settings | None = None) -> Iterator[PostgreSQLBackend]:
    """Give the PostgreSQL backend of the settings, connected."""
    chosen = (settings or load_settings()).model_copy(
        update={
            "kg_backend": "postgres",
            "pg_pool_size": 1,
            "pg_max_overflow": 3,
            "pg_replica_hosts": (),  # A migration reads what it has just written.
        }
    )
    backend = backend_from_settings(chosen, application_name="jarvis-kg", **KEEPALIVES)
    if not isinstance(backend, PostgreSQLBackend):
        raise SettingsError("the target of a migration is PostgreSQL", "unset KG_BACKEND")
    with backend:
        yield backend


def worker_command(concurrency: int, name: str) -> list[str]:
    """Return the command of a Celery worker with the options that are right here."""
    # Gossip and mingle are chatter between workers that nobody here listens to; at start mingle
    # waits a second for answers.
    return [
        *(sys.executable, "-m", "celery", "--quiet", "-A", "workers.app", "worker"),
        *("--pool", "prefork", "--concurrency", str(concurrency), "--hostname", name),
        *("--without-gossip", "--without-mingle"),
    ]
