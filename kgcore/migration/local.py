"""Do a run's steps in this process, with threads: no broker, no workers, the same ledger.

Threads and not processes: most of a step is the server's work or C code that leaves the
interpreter lock, and a started process would import the caller's script again.
"""

import os
import socket
import time
from collections.abc import Callable
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait

from kgcore.migration import runs
from kgcore.migration.model import Run, StepRef, StepResult
from kgcore.migration.run_step import run_step
from kgcore.migration.workplace import Workplace

#: Called after each step that was done here.
OnStep = Callable[[StepResult], None]

_IDLE_SECONDS = 0.5


def run_here(place: Workplace, run: Run, threads: int, on_step: OnStep | None = None) -> None:
    """Do the run's ready steps and all that follow, until the run has ended.

    Others may work on the same run at the same time. Errors of steps are in the ledger; raises
    only where the ledger can't be reached.
    """
    with ThreadPoolExecutor(threads, thread_name_prefix="kg-step") as executor:
        waiting: set[Future[StepResult]] = set()

        def send(refs: tuple[StepRef, ...]) -> None:
            waiting.update(executor.submit(run_step, place, ref) for ref in refs)

        send(runs.ready(place.pool, run))
        while True:
            done, waiting = wait(waiting, return_when=FIRST_COMPLETED)
            for future in done:
                result = future.result()
                send(result.dispatch)
                if on_step is not None:
                    on_step(result)
            if not waiting:
                if runs.has_ended(place.pool, run.run_id):
                    return
                # The run is paused, or someone else holds its steps, or has just died with them.
                place.pool.close_idle()
                time.sleep(_IDLE_SECONDS)
                swept = runs.sweep(place.pool, run.run_id, grace_seconds=0.0)
                send(swept.lost + swept.fresh)


def worker_name() -> str:
    """Name this process as the ledger and the progress channel do."""
    return f"{socket.gethostname()}:{os.getpid()}"
