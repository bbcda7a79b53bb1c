"""What commands that follow a run share: the coordinator, local workers."""

import os
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager

from kgcore.config import load_settings
from workers import tether
from workers.cli.bars import Bars
from workers.cli.context import target, worker_command
from workers.coordinator import Coordinator, Watcher
from workers.progress import Channel
from workers.troubles import Troubles

# A local worker needs the target, a lease, and nothing for long.
_STOP_SECONDS = 20


@contextmanager
def coordinator(bars: Bars, watcher: Watcher | None = None) -> Iterator[Coordinator]:
    """Give a coordinator on the target and Redis of the settings."""
    settings = load_settings()
    channel, troubles = Channel(settings.redis_url()), Troubles(settings.redis_url())
    watcher = watcher or Watcher(bars.stage, lambda _: None, bars.progress, bars.notice)
    try:
        with target(settings) as backend:
            yield Coordinator(
                backend,
                channel,
                troubles,
                settings.kg_data_dir,
                watcher,
                patience_seconds=settings.kg_target_patience_seconds,
            )
    finally:
        channel.close()
        troubles.close()


@contextmanager
def local_workers(number: int) -> Iterator[None]:
    """Run worker processes on this machine while the block lasts; they end with it."""
    processes: list[subprocess.Popen[bytes]] = []
    try:
        for position in range(number):
            command = worker_command(1, f"local{position + 1}-{os.getpid()}@%h")
            processes.append(
                subprocess.Popen(
                    [*command, "--loglevel", "ERROR"],
                    env={**os.environ, tether.VARIABLE: "1"},
                    stdin=subprocess.PIPE,
                    # stdout is for the answer of --json alone; what goes wrong is on stderr.
                    stdout=subprocess.DEVNULL,
                    # Ctrl-C is for the command; it then ends its workers in good order.
                    start_new_session=True,
                )
            )
        yield
    finally:
        for process in processes:
            process.terminate()
        for process in processes:
            try:
                process.wait(_STOP_SECONDS)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()
            if process.stdin is not None:
                process.stdin.close()
