"""Tie a worker to the command that started it: when that is gone, however it went, it ends.

The command holds the other end of the worker's standard input. Its death closes it, also kill -9.
"""

import os
import signal
from threading import Thread

from celery.signals import worker_ready

#: Set in the environment of a worker that is tied to its command.
VARIABLE = "KG_WORKER_TETHER"
_STDIN = 0


@worker_ready.connect
def _watch(**_unused: object) -> None:
    if os.environ.get(VARIABLE):
        Thread(target=_end_at_eof, name="tether", daemon=True).start()


def _end_at_eof() -> None:
    # Not through sys.stdin: its lock, held by this thread, would abort the interpreter's end.
    while os.read(_STDIN, 1024):
        pass
    # A warm shutdown: the step at hand is finished.
    os.kill(os.getpid(), signal.SIGTERM)
