"""Fetch: bring a source snapshot here, from where it is offered, going on after interruptions."""

import errno
import logging
import time
from collections.abc import Callable
from contextlib import AbstractContextManager
from http.client import HTTPException
from pathlib import Path
from typing import BinaryIO, Protocol

from kgcore.errors import FetchError, SourceError
from kgcore.migration.model import SourceSnapshot

_log = logging.getLogger(__name__)

_CHUNK_BYTES = 1 << 20
_PROGRESS_SECONDS = 1.0
# So often nothing came before the fetch is given up; about ten seconds where nobody answers.
_TRIES = 6


class Stream(Protocol):
    """What bytes are read from."""

    def read(self, size: int, /) -> bytes:
        """Return up to ``size`` bytes; none at the end, or where the connection was cut."""
        ...


#: Opens an address at a position, for a snapshot of this digest: gives the position at which the
#: bytes really begin (0 where the server knows no ranges), and the bytes.
Read = Callable[[str, int, str], AbstractContextManager[tuple[int, Stream]]]


def fetch(
    source: SourceSnapshot,
    part: Path,
    read: Read,
    progress: Callable[[int, int], None] | None = None,
) -> None:
    """Bring the file ``part`` to the snapshot's full length; what is in it already is kept.

    Its content is not judged here. Raises :class:`FetchError` when nothing came for several tries,
    or the disk is full; what came until then stays for the next time.
    """
    if source.address is None:
        raise SourceError(f"nobody offers {source.path}", "kg resume RUN --serve HOST:PORT")
    _log.info("fetching %s bytes of source %s", source.bytes, source.sha256)
    tries = 0
    part.touch(mode=0o600)
    while (before := part.stat().st_size) < source.bytes:
        try:
            with (
                read(source.address, before, source.sha256) as (start, stream),
                part.open("r+b") as file,
            ):
                file.seek(start)
                file.truncate()
                _copy(stream, file, source.bytes, progress)
            trouble = "the connection ended early"
        except (OSError, HTTPException, EOFError) as error:
            if isinstance(error, OSError) and error.errno in {errno.ENOSPC, errno.EDQUOT}:
                raise FetchError(
                    f"no space is left for the source in {part.parent} (KG_CACHE_DIR)",
                    f"it needs {source.bytes:,} bytes there",
                ) from None
            trouble = f"{type(error).__name__}: {error}"
        here = part.stat().st_size
        if here >= source.bytes:
            break
        tries = 0 if here > before else tries + 1
        _log.warning("fetching was interrupted at %s bytes: %s", here, trouble)
        if tries >= _TRIES:
            raise FetchError(
                f"the source can't be fetched from {shown(source.address)}: {trouble}",
                "can this machine reach it, and does the command that serves it still run?"
                " kg resume RUN --serve HOST:PORT serves it again",
            )
        time.sleep(_pause(tries))
    if part.stat().st_size > source.bytes:
        with part.open("r+b") as file:
            file.truncate(source.bytes)
    if progress is not None:
        progress(source.bytes, source.bytes)


def shown(address: str) -> str:
    """Return an address without its last part, which is a secret where it is served."""
    return address.rpartition("/")[0] + "/…"


def _copy(
    stream: Stream,
    file: BinaryIO,
    total: int,
    progress: Callable[[int, int], None] | None,
) -> None:
    said = 0.0
    while file.tell() < total and (chunk := stream.read(_CHUNK_BYTES)):
        file.write(chunk)
        if progress is not None and time.monotonic() - said > _PROGRESS_SECONDS:
            said = time.monotonic()
            progress(file.tell(), total)


def _pause(tries: int) -> float:
    """Seconds to wait after so many vain tries."""
    return float(min(0.25 * 2**tries, 4.0))
