"""Worker processes of a benchmark's own."""

import subprocess
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress

import psutil
from redis import Redis

from workers.cli.context import worker_command

_START_SECONDS = 120


@contextmanager
def running(number: int, environment: Mapping[str, str]) -> Iterator[list[psutil.Process]]:
    """Run so many workers of one process each; all of them answer when the block begins."""
    processes = [
        subprocess.Popen(
            [*worker_command(1, f"bench{position}@%h"), "--loglevel", "ERROR"], env=environment
        )
        for position in range(number)
    ]
    try:
        _wait_for(number, environment["KG_REDIS_URL"])
        yield [psutil.Process(process.pid) for process in processes]
    finally:
        for process in processes:
            process.terminate()
        for process in processes:
            process.wait()


def family(process: psutil.Process) -> list[psutil.Process]:
    """Return a process with all that descend from it."""
    with suppress(psutil.NoSuchProcess):
        return [process, *process.children(recursive=True)]
    return []


def _wait_for(number: int, broker: str) -> None:
    """Wait until so many listen for the commands that are sent to all workers."""
    deadline = time.monotonic() + _START_SECONDS
    with Redis.from_url(broker, decode_responses=True) as client:
        while sum(one["psub"] == "1" for one in client.client_list()) < number:
            if time.monotonic() > deadline:
                raise RuntimeError(f"{number} workers did not start")
            time.sleep(0.2)
