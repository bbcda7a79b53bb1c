"""Which queues a worker listens to: those of its own target, of all kinds or of some.

Decided when the worker starts, because the queues are named by the database that its settings mean.
"""

import os
import sys
from typing import Any

import psycopg2
from celery.signals import celeryd_init
from kombu import Queue

from kgcore.backends import PostgreSQLBackend, backend_from_settings
from kgcore.config import load_settings
from kgcore.errors import KGError
from kgcore.migration.runs import target_identity
from workers.queues import KINDS, queue_name

#: Set in the environment of a worker that takes some kinds of steps only: ``load,verify``.
VARIABLE = "KG_WORKER_QUEUES"


@celeryd_init.connect
def _choose_queues(conf: Any, **_unused: object) -> None:
    kinds = os.environ.get(VARIABLE, "").split(",") if os.environ.get(VARIABLE) else list(KINDS)
    try:
        target = _target()
    except (KGError, psycopg2.Error) as error:
        # Celery swallows what a signal's receiver raises; without its queues it must not start.
        hint = f"\nhint: {error.hint}" if isinstance(error, KGError) else ""
        sys.stderr.write(f"error: {error}{hint}\n")
        raise SystemExit(1) from None
    conf.task_queues = [Queue(queue_name(target, kind)) for kind in kinds]


def _target() -> str:
    settings = load_settings().model_copy(update={"kg_backend": "postgres"})
    backend = backend_from_settings(settings, application_name="jarvis-kg worker")
    if not isinstance(backend, PostgreSQLBackend):
        raise TypeError("the target of a migration is PostgreSQL")
    with backend:
        return target_identity(backend.pool)
