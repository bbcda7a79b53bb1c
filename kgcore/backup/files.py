"""The copy as a file: what kind it is, and how a new one gets its name."""

import os
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

from kgcore.errors import BackupError, SettingsError

ARCHIVE = "a PostgreSQL archive (pg_dump -Fc)"
SQLITE = "a SQLite database"
PLAIN = "a plain SQL dump"
GZIP = "a gzip file"
_BEGINNINGS = {
    b"PGDMP": ARCHIVE,
    b"SQLite format 3\x00": SQLITE,
    b"\x1f\x8b": GZIP,
    b"--\n-- PostgreSQL database": PLAIN,
}


def kind_of(path: Path) -> str:
    """Say what a file is by its first bytes. Raises :class:`BackupError` if it can't be read."""
    try:
        with path.open("rb") as file:
            beginning = file.read(64)
    except OSError as error:
        raise BackupError(f"{path} can't be read: {error.strerror}", "check the path") from None
    for magic, kind in _BEGINNINGS.items():
        if beginning.startswith(magic):
            return kind
    return "neither a PostgreSQL archive nor a SQLite database" if beginning else "empty"


def refuse_other_kind(path: Path, wanted: str) -> None:
    """Raise :class:`BackupError` with the right command unless the file is of the wanted kind."""
    kind = kind_of(path)
    if kind == wanted:
        return
    hints = {
        ARCHIVE: "it is restored to PostgreSQL: kg restore --backend postgres",
        SQLITE: f"it goes to PostgreSQL by: kg migrate {path}; to SQLite: --backend sqlite",
        PLAIN: f"psql --set ON_ERROR_STOP=1 --single-transaction --file {path}",
        GZIP: f"gunzip --stdout {path} | psql --set ON_ERROR_STOP=1 --single-transaction",
    }
    raise BackupError(f"{path} is {kind}, not {wanted}", hints.get(kind, "name the right file"))


@contextmanager
def new_file(path: Path, *, overwrite: bool) -> Iterator[Path]:
    """Give an empty file beside ``path`` that gets its name when the block ends without an error.

    Its owner alone may read it. Its content is on the disk before it has the name.
    """
    if path.is_dir():
        raise SettingsError(f"{path} is a directory", "name the file to write")
    if not path.parent.is_dir():
        raise SettingsError(f"the directory {path.parent} does not exist", "make it first")
    _refuse_existing(path, overwrite=overwrite)
    try:
        handle, name = tempfile.mkstemp(prefix=f".{path.name}.", suffix=".part", dir=path.parent)
    except OSError as error:
        raise BackupError(
            f"can't write into {path.parent}: {error.strerror}", "choose another directory"
        ) from None
    os.close(handle)
    part = Path(name)
    try:
        yield part
        _sync(part)
        _refuse_existing(path, overwrite=overwrite)
        part.replace(path)
        _sync(path.parent)
    finally:
        part.unlink(missing_ok=True)


def differences(expected: Mapping[str, int], found: Mapping[str, int]) -> str:
    """Name the tables whose rows differ, for a message; empty if all are equal."""
    names = sorted(name for name in {*expected, *found} if expected.get(name) != found.get(name))
    return ", ".join(
        f"{name} {_shown(found.get(name))} instead of {_shown(expected.get(name))}"
        for name in names
    )


def _shown(rows: int | None) -> str:
    return "missing" if rows is None else f"{rows:,} rows"


def _refuse_existing(path: Path, *, overwrite: bool) -> None:
    if not overwrite and (path.exists() or path.is_symlink()):
        raise SettingsError(f"{path} exists", "give --force to replace it, or another name")


def _sync(path: Path) -> None:
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
