"""Tie a worker to the command that started it: when that is gone, however it went, it ends.

The command holds the other end of the worker's standard input. Its death closes it, also kill -9.
"""

import os
import signal
import sys
from threading import Thread

from celery.signals import worker_ready

#: Set in the environment of a worker that is tied to its command.
VARIABLE = "KG_WORKER_TETHER"


@worker_ready.connect
def _watch(**_unused: object) -> None:
    if os.environ.get(VARIABLE):
        Thread(target=_end_at_eof, name="tether", daemon=True).start()


def _end_at_eof() -> None:
    sys.stdin.buffer.read()
    # A warm shutdown: the step at hand is finished.
    os.kill(os.getpid(), signal.SIGTERM)
