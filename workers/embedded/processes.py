"""Server processes: started in a session of their own, found again later, never mistaken."""

import contextlib
import os
import signal
import subprocess
import time
from collections.abc import Callable, Sequence
from pathlib import Path

import psutil

from workers.embedded.account import Account, run_as

# Children of this process that may outlive the object which started them. They are kept so that
# they can be reaped, and so that dropping such an object isn't reported as a forgotten process.
_children: dict[int, subprocess.Popen[bytes]] = {}


def born(pid: int) -> str | None:
    """Return what tells this process from others that have or had its pid; None if it has ended.

    On Linux that is boot and clock tick of its start: a wall-clock time would move with the clock.
    """
    child = _children.get(pid)
    if child is not None and child.poll() is not None:
        del _children[pid]
    try:
        process = psutil.Process(pid)
        if process.status() == psutil.STATUS_ZOMBIE:
            return None
        stat = Path(f"/proc/{pid}/stat").read_text(encoding="utf-8", errors="replace")
        boot = Path("/proc/sys/kernel/random/boot_id").read_text(encoding="utf-8").strip()
        return f"{boot} {stat.rpartition(')')[2].split()[19]}"
    except (psutil.NoSuchProcess, ProcessLookupError):
        return None
    except FileNotFoundError:  # Either it ended just now, or the system has no /proc.
        return None if Path("/proc/self").exists() else _born_by_clock(pid)


def launch(command: Sequence[str], log: Path, account: Account | None, stdin: bytes) -> int:
    """Start a server that the terminal's signals don't reach; return its pid.

    It runs in ``/`` with an environment that holds nothing of the caller's but ``PATH``, is given
    ``stdin``, and writes to ``log``, which is opened here: it needs no right to that file.
    """
    with log.open("wb") as output:
        child = subprocess.Popen(
            command,
            stdin=subprocess.PIPE,
            stdout=output,
            stderr=subprocess.STDOUT,
            start_new_session=True,
            **run_as(account),
        )
    _children[child.pid] = child
    if child.stdin is not None:
        # A server that refused its options has ended by now; its log and its end say so.
        with contextlib.suppress(BrokenPipeError), child.stdin as pipe:
            pipe.write(stdin)
    return child.pid


def send(pid: int, mark: str, number: signal.Signals) -> None:
    """Send a signal to the process, unless it has ended or its pid belongs to another by now."""
    if born(pid) == mark:
        os.kill(pid, number)


def kill_tree(pid: int, mark: str) -> None:
    """Kill the process and its children at once, as a power cut would; return when all are gone."""
    if born(pid) != mark:
        return
    family: list[psutil.Process] = []
    with contextlib.suppress(psutil.NoSuchProcess):  # It ended by itself just now.
        process = psutil.Process(pid)
        process.suspend()  # So that it starts no further child.
        family = [*process.children(recursive=True), process]
    for member in family:
        with contextlib.suppress(psutil.NoSuchProcess):
            member.kill()
    wait_until(lambda: all(born(member.pid) is None for member in family), 10)


def wait_until(condition: Callable[[], bool], seconds: float) -> bool:
    """Wait for ``condition``, asked every 20 ms; return whether it came true in time."""
    deadline = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > deadline:
            return False
        time.sleep(0.02)
    return True


def _born_by_clock(pid: int) -> str | None:
    try:
        return str(psutil.Process(pid).create_time())
    except psutil.NoSuchProcess:
        return None
