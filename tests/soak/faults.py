"""The faults: each strikes a run that was seen in a stage, and says whether it really struck."""

import os
import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

import psutil
import psycopg2
import redis

from tests.soak.user import User
from tests.soak.world import World
from tests.workers.kg import wait_for


@dataclass(frozen=True)
class Target:
    """What is to be struck: a step that a backend works on, or the command itself."""

    world: World
    user: User
    stage: str
    step: int | None = None
    backend: int | None = None

    def is_there(self) -> bool:
        """Whether the stage is still going on, with the same backend at the same step."""
        if self.step is None:
            return self.user.is_waiting and own_stage(self.world) == self.stage
        look = self.world.look()
        return look is not None and (self.step, self.backend) in look.of(self.stage)

    def is_open(self) -> bool:
        """Whether the step has not been done in spite of the fault."""
        if self.step is None:
            return True
        with suppress(psycopg2.Error):
            return self.world.rows(
                "SELECT NOT done FROM kg_migration.steps WHERE step_id = %s", (self.step,)
            ) == [(True,)]
        return False


Fault = Callable[[Target], bool]


def own_stage(world: World) -> str | None:
    """The stage that the command itself is in, told from the files that it makes.

    Of a copy that the ledger knows the planning is over.
    """
    copies = world.copies
    if any(copy.name == "copy.db" for copy in copies):
        return "freeze"
    if copies:
        with suppress(psycopg2.Error):
            known = world.rows("SELECT snapshot_path FROM kg_migration.sources")
            return "plan" if copies - {Path(path) for (path,) in known} else None
    return None


@contextmanager
def _halted(process: psutil.Process) -> Iterator[None]:
    """Nothing happens between look and fault."""
    process.suspend()
    try:
        yield
    finally:
        with suppress(psutil.NoSuchProcess):
            process.resume()


def _kill_child(target: Target) -> bool:
    child = target.world.process_of(target.backend or 0)
    if child is None:
        return False
    with _halted(child):
        if not target.is_there():
            return False
        child.kill()
    return True


def _kill_worker(target: Target) -> bool:
    child = target.world.process_of(target.backend or 0)
    if child is None:
        return False
    with _halted(child):
        if not target.is_there():
            return False
        os.killpg(child.ppid(), signal.SIGKILL)
    return True


def _kill_all_workers(target: Target) -> bool:
    child = target.world.process_of(target.backend or 0)
    if child is None:
        return False
    with _halted(child):
        if not target.is_there():
            return False
        for worker in target.world.workers:
            with suppress(ProcessLookupError):
                os.killpg(worker.pid, signal.SIGKILL)
    return True


def _kill_command(target: Target) -> bool:
    return _signal_command(target, signal.SIGKILL)


def _interrupt_command(target: Target) -> bool:
    return _signal_command(target, signal.SIGINT)


def _signal_command(target: Target, number: signal.Signals) -> bool:
    process = target.user.process
    if process is None or process.poll() is not None:
        return False
    with _halted(psutil.Process(process.pid)):
        if not target.is_there():
            return False
        target.user.send(number)
    process.wait(60)
    if target.step is None:
        target.world.left_behind |= target.world.copies
    return True


def _end_backend(target: Target) -> bool:
    if target.backend is None or not target.is_there():
        return False
    target.world.rows("SELECT pg_terminate_backend(%s)", (target.backend,))
    return target.is_open()


def _kill_backend(target: Target) -> bool:
    """The server ends all the others then, and recovers."""
    if target.backend is None or not target.is_there():
        return False
    with suppress(ProcessLookupError):
        os.kill(target.backend, signal.SIGKILL)
    wait_for(lambda: target.world.look() is not None)
    return target.is_open()


def _kill_postmaster(target: Target) -> bool:
    """Its processes find that out and end by themselves."""
    server = target.world.postgres

    def strike() -> None:
        family = psutil.Process(server.pid).children(recursive=True)
        os.kill(server.pid, signal.SIGKILL)
        psutil.wait_procs(family, 60)

    return _without_postgres(target, strike)


def _crash_postgres(target: Target) -> bool:
    return _without_postgres(target, target.world.postgres.kill)


def _stop_postgres(target: Target) -> bool:
    return _without_postgres(target, lambda: target.world.postgres.stop("immediate"))


def _without_postgres(target: Target, stop: Callable[[], object]) -> bool:
    if not target.is_there():
        return False
    stop()
    target.world.postgres.start()
    wait_for(lambda: target.world.look() is not None)
    return target.is_open()


def _restart_redis(target: Target) -> bool:
    """It keeps nothing."""
    if not target.is_there():
        return False
    target.world.redis.kill()
    struck = target.is_there()
    target.world.redis.start()
    return struck


def _flush_redis(target: Target) -> bool:
    if not target.is_there():
        return False
    with redis.Redis.from_url(target.world.redis.url) as client:
        client.flushall()
    return target.is_there()


# A lease of 30 s runs out in the first, and not in the others.
_PAST_ITS_LEASE = 35
_FOR_A_WHILE = 5


def _stop_child(target: Target) -> bool:
    """It goes on when others have done its step."""
    child = target.world.process_of(target.backend or 0)
    return child is not None and _stopped(target, child.pid, _PAST_ITS_LEASE)


def _stop_worker(target: Target) -> bool:
    child = target.world.process_of(target.backend or 0)
    return child is not None and _stopped(target, -child.ppid(), _FOR_A_WHILE)


def _stop_command(target: Target) -> bool:
    process = target.user.process
    if process is None or process.poll() is not None:
        return False
    return _stopped(target, -process.pid, _FOR_A_WHILE)


def _stop_backend(target: Target) -> bool:
    return target.backend is not None and _stopped(target, target.backend, _FOR_A_WHILE)


def _stop_redis(target: Target) -> bool:
    return _stopped(target, target.world.redis.pid, _FOR_A_WHILE)


def _stopped(target: Target, process: int, seconds: float) -> bool:
    """Let a process, or with a minus a group, do nothing for so long; it is not waited for."""

    def go_on() -> None:
        with suppress(ProcessLookupError):
            os.kill(process, signal.SIGCONT)

    os.kill(process, signal.SIGSTOP)
    struck = target.is_there()
    timer = threading.Timer(seconds if struck else 0, go_on)
    timer.daemon = True  # Who is still stopped at the end is killed.
    timer.start()
    return struck


_OF_COMMANDS: dict[str, Fault] = {
    "kill -9 of the command": _kill_command,
    "Ctrl-C": _interrupt_command,
    "SIGSTOP of the command for 5 s": _stop_command,
    "kill -9 of the postmaster": _kill_postmaster,
    "kill -9 of Redis, empty after it": _restart_redis,
}
_OF_STEPS: dict[str, Fault] = {
    **_OF_COMMANDS,
    "kill -9 of a worker's process": _kill_child,
    "kill -9 of a worker": _kill_worker,
    "kill -9 of all workers": _kill_all_workers,
    "pg_terminate_backend": _end_backend,
    "kill -9 of a backend": _kill_backend,
    "kill -9 of all of PostgreSQL": _crash_postgres,
    "PostgreSQL stopped at once (immediate)": _stop_postgres,
    "FLUSHALL": _flush_redis,
    "SIGSTOP of a worker's process for 35 s": _stop_child,
    "SIGSTOP of a worker for 5 s": _stop_worker,
    "SIGSTOP of a backend for 5 s": _stop_backend,
    "SIGSTOP of Redis for 5 s": _stop_redis,
}


def faults_of(stage: str) -> dict[str, Fault]:
    """What can strike in a stage. Freeze and plan are done by the command, the rest by workers."""
    return _OF_COMMANDS if stage in {"freeze", "plan"} else _OF_STEPS
