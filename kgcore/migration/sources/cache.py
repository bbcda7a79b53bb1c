"""The cache of fetched source snapshots: one folder a machine, shared by its worker processes.

::

    SHA256.db         a whole snapshot, whose digest was checked
    SHA256.verified   the note beside it, by which the next process need not hash it again
    SHA256.part       what an interrupted fetch has left; the next one goes on there
    SHA256.lock       held shared by who reads the snapshot, alone by who fetches or deletes it;
                      it says how many bytes the snapshot has, its time when it was last used
    room.lock         held by who makes room

The locks are the kernel's (flock): they end with their process, however that ends.
"""

import fcntl
import hashlib
import logging
import os
import shutil
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TextIO

from kgcore.errors import FetchError, SourceError
from kgcore.migration import digests
from kgcore.migration.model import SourceSnapshot

_log = logging.getLogger(__name__)

DEFAULT_BYTES = 50 << 30
# A source that arrives wrong once may have met a fault on its way; three times, a forger.
_WRONG_TIMES = 3

#: Brings a file to its full length, from the length it has.
Fill = Callable[[Path], None]


@dataclass(frozen=True, slots=True)
class Cache:
    """Snapshots in ``directory``, together at most ``limit`` bytes. The least recently used goes
    first; one that a step is reading stays.
    """

    directory: Path
    limit: int = DEFAULT_BYTES

    def path(self, sha256: str) -> Path:
        """Where the snapshot of this digest is, once it is here."""
        return self.directory / f"{sha256}.db"

    @contextmanager
    def held(self, source: SourceSnapshot, fill: Fill) -> Iterator[Path]:
        """Give the snapshot's path, filled by one process while the others wait.

        It stays there while the block lasts. Raises :class:`FetchError` where there is no room, and
        what ``fill`` raises; :class:`SourceError` for content that is wrong again and again.
        """
        self.directory.mkdir(parents=True, exist_ok=True, mode=0o700)
        path = self.path(source.sha256)
        while True:
            with self._locked(source.sha256, fcntl.LOCK_SH) as lock:
                if _is_whole(path, source.sha256):
                    # Finer than the kernel's own time of the moment, which moves in ticks.
                    os.utime(lock.name, ns=(time.time_ns(), time.time_ns()))
                    yield path
                    return
            with self._locked(source.sha256, fcntl.LOCK_EX) as lock:
                if not _is_whole(path, source.sha256):
                    self._reserve(source, lock)
                    self._fetch(source, fill)

    def _fetch(self, source: SourceSnapshot, fill: Fill) -> None:
        part = self.directory / f"{source.sha256}.part"
        for _ in range(_WRONG_TIMES):
            fill(part)
            with part.open("rb") as file:
                found = hashlib.file_digest(file, "sha256").hexdigest()
            if found == source.sha256:
                part.chmod(0o400)
                part.replace(self.path(source.sha256))
                digests.note(self.path(source.sha256), source.sha256)
                return
            part.unlink()
            _log.warning(
                "what was fetched has the digest %s, not %s: dropped", found, source.sha256
            )
        raise SourceError(
            f"the source was fetched {_WRONG_TIMES} times, and its SHA-256 was wrong each time",
            "someone or something changes it on its way: look at who stands between the machines",
        )

    def _reserve(self, source: SourceSnapshot, own: TextIO) -> None:
        """Delete what was not used for longest until the snapshot has room; note its size."""
        if source.bytes > self.limit:
            raise SourceError(
                f"the source has {source.bytes:,} bytes, the cache may have {self.limit:,}",
                "raise KG_CACHE_BYTES on the workers' machines",
            )
        with self._locked("room", fcntl.LOCK_EX):
            own.seek(0)
            own.truncate()
            own.write(str(source.bytes))
            own.flush()
            others = [path for path in self._entries() if path.name != Path(own.name).name]
            while self._is_short(source):
                if not any(self._evict(path) for path in others):
                    own.truncate(0)
                    raise FetchError(
                        f"there is no room for the source ({source.bytes:,} bytes) in the cache"
                        f" {self.directory}: disk full, or KG_CACHE_BYTES taken by sources in use",
                        "free space there, raise KG_CACHE_BYTES, or move KG_CACHE_DIR",
                    )

    def _is_short(self, source: SourceSnapshot) -> bool:
        part = self.directory / f"{source.sha256}.part"
        here = part.stat().st_size if part.exists() else 0
        free = shutil.disk_usage(self.directory).free
        return free < source.bytes - here or sum(map(_reserved, self._entries())) > self.limit

    def _entries(self) -> list[Path]:
        """The lock files of all snapshots, the one not used for longest first."""
        found = [path for path in self.directory.glob("*.lock") if path.stem != "room"]
        return sorted(found, key=lambda path: path.stat().st_mtime_ns)

    def _evict(self, entry: Path) -> bool:
        """Delete a snapshot unless someone has it; return whether it was deleted."""
        if not entry.exists():
            return False
        try:
            with self._locked(entry.stem, fcntl.LOCK_EX | fcntl.LOCK_NB):
                for suffix in (".db", ".verified", ".part", ".lock"):
                    entry.with_suffix(suffix).unlink(missing_ok=True)
        except BlockingIOError:
            return False
        _log.info("the cached source %s made room for another", entry.stem)
        return True

    @contextmanager
    def _locked(self, name: str, how: int) -> Iterator[TextIO]:
        """Hold a lock file, which was not deleted before it could be locked."""
        path = self.directory / f"{name}.lock"
        while True:
            with path.open("a+", encoding="ascii") as file:
                fcntl.flock(file, how)
                if path.exists() and os.path.samestat(os.fstat(file.fileno()), path.stat()):
                    yield file
                    return


def _reserved(entry: Path) -> int:
    try:
        return int(entry.read_text(encoding="ascii") or 0)
    except (FileNotFoundError, ValueError):
        return 0


def _is_whole(path: Path, sha256: str) -> bool:
    """Whether the snapshot is here with its right content; it is deleted if it is not right."""
    if not path.exists():
        return False
    try:
        digests.verify(path, sha256)
    except SourceError:
        # Whoever reads it keeps what was opened; the next comes here and fetches it again.
        _log.warning("the cached source %s was changed: dropped", path)
        path.unlink(missing_ok=True)
        return False
    return True
