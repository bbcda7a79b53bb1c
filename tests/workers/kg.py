"""Runs the real command in real processes."""

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tests.conftest import ROOT
from tests.servers import launcher

KG = [sys.executable, "-m", "workers.cli"]


@dataclass(frozen=True)
class Done:
    """What a command printed, and its exit code."""

    code: int
    out: str
    err: str

    @property
    def json(self) -> Any:
        """The one object on stdout."""
        return json.loads(self.out)


@dataclass(frozen=True)
class Kg:
    """The command ``kg`` in an environment and a directory of its own."""

    environment: dict[str, str]
    directory: Path

    @property
    def command(self) -> list[str]:
        """What the command line begins with."""
        return KG

    def __call__(self, *arguments: str | Path, timeout: float = 90) -> Done:
        done = subprocess.run(
            [*self.command, *map(str, arguments)],
            env=self._environment(),
            cwd=self.directory,
            capture_output=True,
            text=True,
            timeout=timeout,
            check=False,
        )
        return Done(done.returncode, done.stdout, done.stderr)

    @contextmanager
    def start(self, *arguments: str | Path) -> Iterator[subprocess.Popen[str]]:
        """Run the command in the background; it is killed at the end if it still runs."""
        process = subprocess.Popen(
            [*launcher(), *self.command, *map(str, arguments)],
            env=self._environment(),
            cwd=self.directory,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            start_new_session=True,
        )
        try:
            yield process
        finally:
            _end_group(process)

    @contextmanager
    def workers(
        self,
        number: int = 2,
        *,
        waiting: bool = True,
        beside: int = 0,
        program: Sequence[str] | None = None,
        **environment: str,
    ) -> Iterator[list[subprocess.Popen[str]]]:
        """Run workers of one process each until the end of the block.

        Unless ``waiting`` is false, so many answer when the block begins, ``beside`` those that
        are there already. ``environment`` is added to the command's.
        """
        program = (*self.command, "worker") if program is None else program
        names = [f"w{beside + position}@%h" for position in range(number)]
        running = []
        try:
            for name in names:
                with (self.directory / f"{name.removesuffix('@%h')}.log").open("ab") as log:
                    process = subprocess.Popen(
                        [*launcher(), *program, "--concurrency", "1", "--name", name],
                        env=self._environment() | environment,
                        cwd=self.directory,
                        stdin=subprocess.DEVNULL,
                        stdout=log,
                        stderr=log,
                        text=True,
                        start_new_session=True,
                    )
                running.append(process)
            wait_for(lambda: not waiting or self.answering() >= beside + number)
            yield running
        finally:
            for process in running:
                _end_group(process)

    def answering(self) -> int:
        """How many workers answer."""
        found = self("doctor", "--json")
        checks = {check["name"]: check for check in found.json}
        names = checks.get("workers", {"ok": False})
        return len(names["found"].split("; ")) if names["ok"] else 0

    def _environment(self) -> dict[str, str]:
        return self.environment | {"PYTHONPATH": str(ROOT)}


def wait_for(condition: Callable[[], Any], seconds: float = 40) -> Any:
    """Wait until the condition holds, and return what it gave."""
    deadline = time.monotonic() + seconds
    while not (value := condition()):
        if time.monotonic() > deadline:
            raise AssertionError("what was waited for did not happen")
        time.sleep(0.05)
    return value


def _end_group(process: subprocess.Popen[str]) -> None:
    with suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)
    process.wait()
    for stream in (process.stdout, process.stderr):
        if stream is not None:
            stream.close()
