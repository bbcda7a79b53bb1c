"""Where a machine has a run's source snapshot: on the disk it shares, or fetched into its cache.

A path in the ledger is believed only as far as this machine's own folders: what is outside of
``KG_DATA_DIR`` and the cache is never opened, whoever wrote it there.
"""

import logging
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import lru_cache, partial
from pathlib import Path

from kgcore.errors import KGError, SourceError
from kgcore.migration import digests
from kgcore.migration.model import SourceSnapshot
from kgcore.migration.sources import published
from kgcore.migration.sources.cache import Cache
from kgcore.migration.sources.fetching import fetch
from kgcore.migration.stages import freeze

_log = logging.getLogger(__name__)

#: Called now and then while a source is fetched: bytes that are here, bytes in all.
Progress = Callable[[int, int], None]


@dataclass(frozen=True, slots=True)
class Sources:
    """The source snapshots that this machine has or can get.

    ``source_root`` is one more folder from which a snapshot published as ``file://`` may be read.
    """

    data_dir: Path
    cache: Cache
    source_root: Path | None = None

    def has(self, source: SourceSnapshot) -> bool:
        """Whether the snapshot is here, without looking at its content."""
        return self._shared(source) is not None or self.cache.path(source.sha256).is_file()

    @contextmanager
    def held(self, source: SourceSnapshot, progress: Progress | None = None) -> Iterator[Path]:
        """Give the snapshot's path, fetched if need be; it stays there while the block lasts.

        Its digest was checked. Raises :class:`SourceError` if this machine can't have it, and
        :class:`FetchError` if it can't at this moment.
        """
        path = self._shared(source)
        if path is not None:
            try:
                _check_digest(source, path)
            except SourceError as error:
                if source.address is None:
                    raise
                _log.warning("%s; it is fetched instead", error.message)
            else:
                yield path
                return
        elif source.address is None and not self.has(source):
            raise SourceError(f"this machine has no {source.path}", HOW_TO_SHARE)
        read = partial(published.read, roots=self._roots())
        fill = partial(fetch, source, read=read, progress=progress)
        with self.cache.held(source, fill) as cached:
            yield cached

    def discard(self, source: SourceSnapshot) -> None:
        """Delete the snapshot on the disk that is shared, and what was published of it.

        Raises :class:`OSError` or :class:`SourceError` if that fails; missing ones are fine.
        """
        path = self._shared(source)
        if path is not None:
            freeze.discard(path)
        if source.address is not None:
            published.remove(source.address, roots=self._roots())

    def _roots(self) -> tuple[Path, ...]:
        """The folders of this machine that an address in the ledger may lead to."""
        return (self.data_dir,) if self.source_root is None else (self.data_dir, self.source_root)

    def _shared(self, source: SourceSnapshot) -> Path | None:
        """Find the file under the root: at its path, or at its name where the disk is mounted
        elsewhere."""
        root = self.data_dir.resolve()
        for path in (source.path, root / freeze.FOLDER / source.path.name):
            found = path.resolve()
            if found.is_relative_to(root) and found.is_file():
                return found
        return None


#: The mend of a machine that can't see the coordinator's file.
HOW_TO_SHARE = (
    "put KG_DATA_DIR on a disk that all machines share, or let them fetch the file:"
    " --serve HOST:PORT, or --publish URL (kg migrate and kg resume take both)"
)


def _check_digest(source: SourceSnapshot, path: Path) -> None:
    stat = path.stat()
    # Not the time of modification: whoever changes the file can set that back.
    _digest_checked(source.sha256, path, stat.st_ino, stat.st_size, stat.st_ctime_ns)


@lru_cache(maxsize=16)
def _digest_checked(sha256: str, path: Path, *_identity: int) -> None:
    """Once a process for each file: the digest costs as much as reading it."""
    digests.verify(path, sha256)


def release(source: SourceSnapshot, data_dir: Path | None = None) -> None:
    """Delete the source snapshot, which only its run's steps read, and what was published of it.

    It is looked for where it was made, and in ``data_dir``. That it is gone already is fine; what
    was published and can't be deleted is only logged.
    """
    freeze.discard(source.path)
    if data_dir is not None:
        freeze.discard(data_dir / freeze.FOLDER / source.path.name)
    if source.address is None:
        return
    try:
        published.remove(source.address)
    except (OSError, KGError) as error:
        _log.warning("the published source is left: %s", error)
