"""Hold processes to a fixed share of one core, as if they stood on slow machines of their own.

With cgroups where this user may make one: the kernel gives the group its quota of each period. Else
with signals: SIGCONT for the share of each period, SIGSTOP for the rest of it.
"""

import os
import signal
import threading
import time
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Literal

import psutil

Way = Literal["cgroup2", "cgroup1", "signals"]

_ROOT = Path("/sys/fs/cgroup")
_PERIOD_MICROSECONDS = 100_000
# A process that was let go may still wait for a core: a longer period makes that a smaller part.
_SIGNAL_PERIOD_SECONDS = 0.2


def best_way() -> Way:
    """Return the best way that is open to this user on this machine."""
    ways: tuple[Way, ...] = ("cgroup2", "cgroup1")
    return next((way for way in ways if _is_open(way)), "signals")


@contextmanager
def held(families: Sequence[Sequence[psutil.Process]], share: float, way: Way) -> Iterator[None]:
    """Hold each family of processes to ``share`` of a core while the block lasts."""
    holder = _by_signals if way == "signals" else _in_groups
    with holder(families, share, way):
        yield


@contextmanager
def _in_groups(
    families: Sequence[Sequence[psutil.Process]], share: float, way: Way
) -> Iterator[None]:
    groups = [
        _parent(way) / f"jarvis-kg-{os.getpid()}-{number}" for number, _ in enumerate(families)
    ]
    try:
        for group, family in zip(groups, families, strict=True):
            group.mkdir()
            _limit(group, way, share)
            for process in family:
                (group / "cgroup.procs").write_text(str(process.pid))
        yield
    finally:
        for group in groups:
            _dissolve(group)


def _is_open(way: Way) -> bool:
    """Whether a group of one's own can be made and limited."""
    parent = _parent(way)
    if not (parent / "cgroup.procs").exists():  # What is mounted there is something else.
        return False
    group = parent / f"jarvis-kg-{os.getpid()}-probe"
    try:
        group.mkdir()
    except OSError:
        return False
    try:
        _limit(group, way, 0.5)
    except OSError:
        return False
    else:
        return True
    finally:
        group.rmdir()


def _parent(way: Way) -> Path:
    return _ROOT / "cpu" if way == "cgroup1" else _ROOT


def _limit(group: Path, way: Way, share: float) -> None:
    quota = round(share * _PERIOD_MICROSECONDS)
    if way == "cgroup2":
        (group / "cpu.max").write_text(f"{quota} {_PERIOD_MICROSECONDS}")
        return
    (group / "cpu.cfs_period_us").write_text(str(_PERIOD_MICROSECONDS))
    (group / "cpu.cfs_quota_us").write_text(str(quota))


def _dissolve(group: Path) -> None:
    """Let the processes go, and remove the group."""
    if not group.exists():
        return
    for pid in (group / "cgroup.procs").read_text().split():
        with suppress(OSError):
            (group.parent / "cgroup.procs").write_text(pid)
    group.rmdir()


@contextmanager
def _by_signals(
    families: Sequence[Sequence[psutil.Process]], share: float, _way: Way
) -> Iterator[None]:
    ended = threading.Event()

    def pace(family: Sequence[psutil.Process], delay: float) -> None:
        time.sleep(delay)  # Not all at the same moment.
        while not ended.is_set():
            _send(family, signal.SIGCONT)
            time.sleep(share * _SIGNAL_PERIOD_SECONDS)
            _send(family, signal.SIGSTOP)
            ended.wait((1 - share) * _SIGNAL_PERIOD_SECONDS)
        _send(family, signal.SIGCONT)

    threads = [
        threading.Thread(
            target=pace, args=(family, _SIGNAL_PERIOD_SECONDS * number / len(families))
        )
        for number, family in enumerate(families)
    ]
    for thread in threads:
        thread.start()
    try:
        yield
    finally:
        ended.set()
        for thread in threads:
            thread.join()


def _send(family: Iterable[psutil.Process], number: signal.Signals) -> None:
    for process in family:
        with suppress(psutil.NoSuchProcess):
            process.send_signal(number)
