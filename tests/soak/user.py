"""Somebody who migrates a file, and who does what the command says when it fails."""

import os
import re
import signal
import subprocess
from dataclasses import dataclass, field
from pathlib import Path

from tests.conftest import ROOT
from tests.servers import launcher
from tests.workers.kg import KG

_PATIENCE = 25  # Commands of one run.


class GaveUpError(Exception):
    """The commands did not lead to a migrated graph."""


def next_command(before: tuple[str, ...], said: str) -> tuple[str, ...]:
    """Return what to type after a command that did not end well.

    That is what it said last; where it had no time to say it, the same again.
    """
    if named := re.findall(r"kg resume (\d{8}-\d{6}-\w+)", said):
        return ("resume", named[-1])
    if begun := re.findall(r"^run (\d{8}-\d{6}-\w+)$", said, re.MULTILINE):
        return ("resume", begun[-1])
    return before


@dataclass
class User:
    """Runs one command after the other until the graph is migrated."""

    environment: dict[str, str]
    logs: Path
    command: tuple[str, ...]
    commands: list[tuple[str, ...]] = field(default_factory=list)
    process: subprocess.Popen[bytes] | None = None

    def begin(self) -> None:
        """Type the command."""
        self.commands.append(self.command)
        if len(self.commands) > _PATIENCE:
            raise GaveUpError(f"{_PATIENCE} commands, and it is not migrated: see {self.logs}")
        with self._log.open("wb") as log:
            self.process = subprocess.Popen(
                [*launcher(), *KG, *self.command],
                env=self.environment | {"PYTHONPATH": str(ROOT)},
                cwd=self.logs,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )

    def has_succeeded(self) -> bool:
        """Look at the command; where it has failed, type what it said. Never waits.

        Raises :class:`GaveUpError` for an end after which nobody should go on.
        """
        if self.process is None or (code := self.process.poll()) is None:
            return False
        if code == 0:
            return True
        said = self._log.read_text(encoding="utf-8", errors="replace")
        if code in {2, 3, 4}:
            raise GaveUpError(f"kg {' '.join(self.command)} ended with {code}: {said}")
        self.command = next_command(self.command, said)
        self.begin()
        return False

    @property
    def is_waiting(self) -> bool:
        """Whether the command still runs."""
        return self.process is not None and self.process.poll() is None

    def send(self, number: signal.Signals) -> None:
        """Send the command a signal."""
        if self.process is not None and self.process.poll() is None:
            os.killpg(self.process.pid, number)

    def close(self) -> None:
        """End the command if it still runs."""
        if self.process is not None and self.process.poll() is None:
            os.killpg(self.process.pid, signal.SIGKILL)
            self.process.wait()

    @property
    def _log(self) -> Path:
        return self.logs / f"{len(self.commands):02}-{self.command[0]}.log"
