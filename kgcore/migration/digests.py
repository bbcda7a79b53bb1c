"""Digests of source snapshots, noted beside them: hashing a large file anew takes long."""

import hashlib
from pathlib import Path

from kgcore.errors import SourceError


def note(path: Path, sha256: str) -> None:
    """Note beside the file that it was hashed, for :func:`verify`."""
    note_of(path).write_text(f"{sha256} {identity(path)}")


def verify(path: Path, sha256: str) -> None:
    """Raise :class:`SourceError` unless the file has this digest.

    Hashing 300 MB takes a worker as long as loading 100,000 rows. A note beside the file, made when
    it was hashed, says so for as long as the file is the very same: inode, size, time of change.
    """
    try:
        expected = f"{sha256} {identity(path)}"
        noted = note_of(path)
        if noted.is_file() and noted.read_text() == expected:
            return
        matches = sha256_of(path) == sha256
    except OSError:
        matches = False
    if not matches:
        raise SourceError(
            f"the source snapshot {path} is missing or is not the file that was planned",
            "someone changed it: cancel the run and start a new one",
        )


def sha256_of(path: Path) -> str:
    """Return the digest of a file, in hexadecimal digits."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def note_of(path: Path) -> Path:
    """Return where the note of a file is."""
    return path.with_suffix(".verified")


def identity(path: Path) -> str:
    """Return what stays the same for as long as the file is the very same, unwritten."""
    stat = path.stat()
    # The time of change can't be set back, unlike the time of modification.
    return f"{stat.st_dev} {stat.st_ino} {stat.st_size} {stat.st_ctime_ns}"
