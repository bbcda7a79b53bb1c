"""Freeze: make a private, checkpointed copy of the source, check it, and name it by its SHA-256.

SQLite's backup API copies what is committed, whether the file has an un-checkpointed WAL or is
being written at this moment. The user's own file is only read; ``immutable=1`` is never used on it,
because that hides the committed rows of a WAL.
"""

import fcntl
import os
import re
import secrets
import shutil
import sqlite3
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing, suppress
from pathlib import Path
from threading import Event
from typing import TypeVar
from urllib.parse import quote

from kgcore.errors import SettingsError, SourceError
from kgcore.migration import digests
from kgcore.migration.model import SourceSnapshot
from kgcore.schema import quoted

#: Where in the data directory the copies are.
FOLDER = "sources"

_MAGIC = b"SQLite format 3\x00"
# https://www.sqlite.org/fileformat.html, 1.3.
_HEADER_BYTES = 100
# How long a writer may take to write what it has begun.
_LOOKS, _LOOK_SECONDS = 10, 0.05
_COPY_NAME = re.compile(r"[0-9a-f]{64}-[0-9a-f]{8}\.db")
# What a journal ends with that names a journal above it.
_SUPER_JOURNAL = bytes.fromhex("d9d505f920a163d7")
# Pages a step of the backup: about 16 MiB at the usual page size, for a bar that moves.
_STEP_PAGES = 4096
# How long a lock of another program is waited for.
_LOCK_SECONDS = 30.0
# An extended result code of SQLite has the primary one in its lowest byte.
_PRIMARY = 0xFF
_FOREIGN_LOCK = {sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED, sqlite3.SQLITE_PROTOCOL}
_CAN_NOT_WRITE = {sqlite3.SQLITE_FULL, sqlite3.SQLITE_IOERR_WRITE}
# What SQLite says where it must write to recover the file, and may not.
_NEEDS_RECOVERY = {sqlite3.SQLITE_CANTOPEN, sqlite3.SQLITE_READONLY}
# How often files are copied for it that change meanwhile.
_RECOVERY_TRIES = 3

_OF_THE_APPLICATION = (
    "unknown function",
    "no such function",
    "no such collation",
    "no such module",
)
_SCRATCH, _LOCK, _COPY = "freeze-", "lock", "copy.db"

Progress = Callable[[int, int], None]
T = TypeVar("T")
Read = Callable[[Path, Callable[[], bool]], T]


def freeze(source: Path, directory: Path, progress: Progress | None = None) -> SourceSnapshot:
    """Copy ``source`` into ``directory`` and return the copy; ``progress`` gets (done, pages).

    Raises as :func:`freeze_and`.
    """
    snapshot, _ = freeze_and(source, directory, lambda _copy, _damaged: None, progress)
    return snapshot


def freeze_and(
    source: Path, directory: Path, read: Read[T], progress: Progress | None = None
) -> tuple[SourceSnapshot, T]:
    """Copy ``source`` into ``directory``; return the copy, and what ``read`` made of it.

    The copy is read while it is still being checked, which takes as long. ``read`` is also given
    what says that the copy was found damaged: there may be no end of reading it then. That it is
    damaged is said before anything that reading it raises.

    Nothing is left behind when it raises: :class:`SourceError` if the source is missing, is not a
    SQLite database, is damaged, stays locked, or finds no room in ``directory``, and
    :class:`SettingsError` if that can't be made.
    """
    _examine(source)
    _make(directory)
    try:
        return _freeze(source, directory, read, progress)
    except OSError as error:
        raise _no_room(source, directory, error.strerror or str(error)) from None


def _freeze(
    source: Path, directory: Path, read: Read[T], progress: Progress | None
) -> tuple[SourceSnapshot, T]:
    with (
        tempfile.TemporaryDirectory(prefix=_SCRATCH, dir=directory) as scratch,
        (Path(scratch) / _LOCK).open("w") as lock,
    ):
        fcntl.flock(lock, fcntl.LOCK_EX)  # Says that we live, and is given up when we don't.
        copy = Path(scratch) / _COPY
        _back_up(source, copy, Path(scratch), progress)
        damaged = Event()

        def check() -> None:
            try:
                _quick_check(copy, source)
            except BaseException:
                damaged.set()
                raise

        # All three only read the copy, and leave the interpreter lock while they do.
        with ThreadPoolExecutor(2) as threads:
            checking, hashing = threads.submit(check), threads.submit(digests.sha256_of, copy)
            try:
                made = read(copy, damaged.is_set)
            except Exception:
                checking.result()
                raise
            checking.result()
            sha256 = hashing.result()
        # Two runs of the same content keep a copy each: each is deleted with its run.
        final = directory / f"{sha256}-{secrets.token_hex(4)}.db"
        copy.chmod(0o400)
        copy.replace(final)
        digests.note(final, sha256)
    return SourceSnapshot(source.absolute(), final, sha256, final.stat().st_size), made


def discard(path: Path) -> None:
    """Delete the copy and its note; that they are gone already is fine.

    A path may come from the ledger: what isn't named as :func:`freeze` names its copies is left.
    """
    if _COPY_NAME.fullmatch(path.name) is None:
        return
    path.unlink(missing_ok=True)
    digests.note_of(path).unlink(missing_ok=True)


def abandoned(directory: Path) -> Iterator[Path]:
    """Yield the folders of those who were killed while they froze; known by their free locks."""
    for scratch in sorted(directory.glob(f"{_SCRATCH}*")):
        try:
            with (scratch / _LOCK).open("w" if (scratch / _COPY).exists() else "r+") as lock:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:  # Someone has it, or is about to make it.
            continue
        yield scratch


def _make(directory: Path) -> None:
    try:
        directory.mkdir(parents=True, exist_ok=True, mode=0o700)
    except OSError as error:
        raise SettingsError(
            f"KG_DATA_DIR: the folder {directory} can't be made: {error.strerror}",
            "set KG_DATA_DIR to a folder that you may write to",
        ) from None


def _examine(source: Path) -> None:
    """Tell the ordinary ways of not being a SQLite database apart, by name."""
    shown = os.fspath(source)
    try:
        with source.open("rb") as file:
            head = file.read(_HEADER_BYTES)
    except FileNotFoundError:
        raise SourceError(f"{shown} does not exist", "check the path") from None
    except IsADirectoryError:
        raise SourceError(f"{shown} is a directory", "name the SQLite file itself") from None
    except OSError as error:
        raise SourceError(
            f"{shown} can't be read: {error.strerror}", "check its permissions"
        ) from None
    if not head:
        raise SourceError(f"{shown} is empty", "a new graph needs no migration: use init_schema()")
    if not head.startswith(_MAGIC):
        raise SourceError(
            f"{shown} is not a SQLite database (or it is encrypted)",
            "decrypt it first, or name the right file",
        )
    _require_whole(source)


def _require_whole(source: Path) -> None:
    """Refuse a file that ends in the middle of a page: SQLite takes what is missing for zeros.

    A writer at work may be about to write the rest, and with a journal or a WAL beside the file
    SQLite writes it again.
    """
    for _ in range(_LOOKS):
        with source.open("rb") as file:
            head = file.read(_HEADER_BYTES)
            size = os.fstat(file.fileno()).st_size
        pages = int.from_bytes(head[28:32]) if head[24:28] == head[92:96] else 0
        page = int.from_bytes(head[16:18])
        page = 65_536 if page == 1 else page
        whole = size >= pages * page if pages else size % max(page, 1) == 0
        if whole or any(_is_in_use(source, suffix) for suffix in ("-journal", "-wal")):
            return
        time.sleep(_LOOK_SECONDS)
    missing = pages * page - size if pages else page - size % page
    raise _damaged(source, f"it is cut off, {missing:,} bytes are missing at its end")


def _is_in_use(source: Path, suffix: str) -> bool:
    try:
        with source.with_name(source.name + suffix).open("rb") as log:
            return bool(log.read(8).strip(b"\0"))  # A journal that is kept has zeros at its start.
    except OSError:
        return False


def _back_up(source: Path, copy: Path, scratch: Path, progress: Progress | None) -> None:
    try:
        try:
            _copy_pages(source, copy, progress)
        except sqlite3.OperationalError as error:
            if _code(error) & _PRIMARY not in _NEEDS_RECOVERY:
                raise
            copy.unlink(missing_ok=True)
            _copy_pages(_recovered(source, scratch), copy, progress)
    except sqlite3.DatabaseError as error:
        raise _refusal(source, scratch.parent, error) from None


def _recovered(source: Path, scratch: Path) -> Path:
    """Let SQLite recover a second copy, and return it; the user's files stay as they are.

    A journal of a crashed writer, or a WAL in a directory that can't be written, asks for that.
    """
    aside = scratch / source.name
    _copy_files(source, aside)
    _require_own_journal(aside.with_name(f"{aside.name}-journal"), source)
    with closing(sqlite3.connect(aside)) as recovered:
        recovered.execute("PRAGMA trusted_schema=OFF")
        recovered.execute("SELECT count(*) FROM sqlite_master").fetchone()
    return aside


def _copy_files(source: Path, aside: Path) -> None:
    """Copy a database with its journals as they are at one moment: when nobody writes to them."""
    suffixes = ("", "-journal", "-wal")
    parts = [source.with_name(source.name + suffix) for suffix in suffixes]
    copies = [aside.with_name(aside.name + suffix) for suffix in suffixes]
    for _ in range(_RECOVERY_TRIES):
        before = _states(parts)
        for part, copy in zip(parts, copies, strict=True):
            copy.unlink(missing_ok=True)
            with suppress(FileNotFoundError):
                shutil.copyfile(part, copy)
        if _states(parts) == before:
            return
    raise _locked(source)


def _states(paths: Sequence[Path]) -> dict[Path, str]:
    states = {}
    for path in paths:
        with suppress(FileNotFoundError):
            states[path] = digests.identity(path)
    return states


def _require_own_journal(journal: Path, source: Path) -> None:
    """Refuse a journal that names another file: recovering from it, SQLite deletes that file.

    It is the end of a transaction over several databases; see
    https://www.sqlite.org/fileformat.html, 3.1. Anyone can write any name there.
    """
    if journal.is_file() and journal.read_bytes()[-len(_SUPER_JOURNAL) :] == _SUPER_JOURNAL:
        raise SourceError(
            f"{source} has the journal of an unfinished transaction over several databases",
            "if the file is your own, open it once with sqlite3, which ends the transaction",
        )


def _copy_pages(source: Path, copy: Path, progress: Progress | None) -> None:
    uri = f"file:{quote(os.fspath(source.absolute()))}?mode=ro"
    with (
        closing(
            sqlite3.connect(uri, uri=True, timeout=_LOCK_SECONDS, isolation_level=None)
        ) as reader,
        closing(sqlite3.connect(copy, isolation_level=None)) as writer,
    ):
        reader.execute("PRAGMA trusted_schema=OFF")
        writer.execute("PRAGMA synchronous=OFF")
        # An open read transaction keeps the backup from starting over at each foreign commit.
        reader.execute("BEGIN")
        reader.execute("SELECT count(*) FROM sqlite_master").fetchone()

        def report(_status: int, remaining: int, total: int) -> None:
            if progress is not None:
                progress(total - remaining, total)

        reader.backup(writer, pages=_STEP_PAGES, progress=report, sleep=0.01)
        # The header still says WAL where the source was in that mode.
        writer.execute("PRAGMA journal_mode=DELETE")


def _quick_check(copy: Path, source: Path) -> None:
    uri = f"file:{quote(os.fspath(copy))}?mode=ro&immutable=1"
    try:
        with closing(sqlite3.connect(uri, uri=True, check_same_thread=False)) as connection:
            connection.execute("PRAGMA trusted_schema=OFF")
            verdict = _verdict(connection)
    except sqlite3.DatabaseError as error:
        verdict = str(error)
    if verdict != "ok":
        raise _damaged(source, verdict)


def _verdict(connection: sqlite3.Connection) -> str:
    try:
        return str(connection.execute("PRAGMA quick_check(1)").fetchone()[0])
    except sqlite3.OperationalError as error:
        # The check computes what the schema says, maybe by what only the application has.
        if not str(error).startswith(_OF_THE_APPLICATION):
            raise
    tables = "SELECT name FROM sqlite_master WHERE type = 'table' ORDER BY rowid"
    for (name,) in connection.execute(tables).fetchall():
        try:
            (verdict,) = connection.execute(f"PRAGMA quick_check({quoted(name)})").fetchone()
        except sqlite3.OperationalError as error:
            if not str(error).startswith(_OF_THE_APPLICATION):
                raise
        else:
            if verdict != "ok":
                return str(verdict)
    return "ok"


def _code(error: sqlite3.Error) -> int:
    return getattr(error, "sqlite_errorcode", 0)  # Python's own errors have none.


def _refusal(source: Path, directory: Path, error: sqlite3.DatabaseError) -> SourceError:
    code = _code(error)
    if code & _PRIMARY in _FOREIGN_LOCK:
        return _locked(source)
    if code in _CAN_NOT_WRITE:  # The source is only read.
        return _no_room(source, directory, str(error))
    return _damaged(source, str(error))


def _locked(source: Path) -> SourceError:
    return SourceError(
        f"another program keeps {source} locked: it writes, or left a transaction open",
        "end that transaction, or the program, and start again",
    )


def _no_room(source: Path, directory: Path, why: str) -> SourceError:
    return SourceError(
        f"{source} can't be copied into {directory}: {why}",
        "make room there, or set KG_DATA_DIR to another folder",
    )


def _damaged(source: Path, verdict: str) -> SourceError:
    what = " ".join(verdict.split())
    return SourceError(
        f"{source} is damaged: {what}",
        "restore a backup, or rescue what can be read with sqlite3's .recover, and migrate that",
    )
