"""Published source snapshots: put where all machines reach them, read there, removed at the end.

An address is kept in the ledger, so no password may be in it. What a file system needs to log in
comes from the machine's own environment: ``FSSPEC_FTP_PASSWORD``, ``AWS_…``, ``~/.ssh/config``.
"""

import re
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from kgcore.errors import FetchError, SettingsError, SourceError
from kgcore.migration.sources import served
from kgcore.migration.sources.fetching import Stream

if TYPE_CHECKING:
    from fsspec import AbstractFileSystem
else:
    AbstractFileSystem = Any

# Served by a command, or by anything else that speaks HTTP: read without fsspec.
_HTTP = ("http", "https")
# They read through another file system, or this machine's files: whom an address may lead to could
# no longer be told from its beginning.
_INDIRECT = frozenset(
    {"asynclocal", "blockcache", "cached", "data", "dask", "dir", "filecache", "generic", "git"}
    | {"libarchive", "reference", "simplecache", "tar", "zip"}
)
# As freeze names them.
_NAME = re.compile(r"[0-9a-f]{64}-[0-9a-f]{8}\.db")
# What is asked for at a time: large enough for object stores, small enough for a bar that moves.
_BLOCK_BYTES = 8 << 20


def require_publishable(url: str) -> None:
    """Raise :class:`SettingsError` unless a snapshot may be published there."""
    parts = urlsplit(url)
    if parts.scheme in {*_HTTP, ""} or "::" in url or parts.scheme in _INDIRECT:
        raise SettingsError(
            "--publish needs the URL of a folder that can be written",
            "for example s3://bucket/folder, sftp://host/folder or file:///mnt/folder",
        )
    if parts.password is not None or parts.query:
        raise SettingsError(
            "--publish: a URL with a password or a signature would stay in the ledger",
            f"leave it out, and set FSSPEC_{parts.scheme.upper()}_PASSWORD (or what the file"
            " system reads itself) where workers and this command run",
        )
    _require_package(parts.scheme)


def publish(path: Path, folder: str, progress: Callable[[int, int], None] | None = None) -> str:
    """Copy the file into the folder that a URL names; return its address.

    Raises :class:`SettingsError` for a URL that can't be used, :class:`SourceError` if it fails.
    """
    require_publishable(folder)
    address = f"{folder.rstrip('/')}/{path.name}"
    try:
        with _connected(address) as (files, there):
            files.makedirs(files._parent(there), exist_ok=True)
            files.put_file(str(path), there, callback=_callback(progress))
    except OSError as error:
        raise SourceError(
            f"the source can't be published to {folder}: {error}",
            "can this machine write there? Credentials come from the environment",
        ) from None
    return address


def remove(address: str, *, roots: Sequence[Path] | None = None) -> None:
    """Delete what was published; that it is gone is fine, and what is served is left alone.

    Only a file that is named as snapshots are is ever deleted, and with ``roots`` one of this
    machine only below them. Raises :class:`OSError` if it fails, :class:`SourceError` for what is
    refused.
    """
    if urlsplit(address).scheme in _HTTP:
        return
    _require_direct(address)
    if _NAME.fullmatch(address.rpartition("/")[2]) is None:
        raise SourceError(f"{address} is not named as a source snapshot is", "delete it by hand")
    with _connected(address) as (files, there):
        if roots is not None:
            _require_inside(files, there, roots)
        if files.exists(there):
            files.rm_file(there)


def read(
    address: str, offset: int, sha256: str, *, roots: Sequence[Path] = ()
) -> AbstractContextManager[tuple[int, Stream]]:
    """Open an address at a position: see :data:`kgcore.migration.sources.fetching.Read`.

    Files of this machine are opened below ``roots`` only. Raises :class:`OSError` for what may
    pass, :class:`SourceError` for what is refused.
    """
    if urlsplit(address).scheme in _HTTP:
        return served.read(address, offset, sha256)
    return _read_published(address, offset, roots)


@contextmanager
def _read_published(
    address: str, offset: int, roots: Sequence[Path]
) -> Iterator[tuple[int, Stream]]:
    _require_direct(address)
    with _connected(address) as (files, path):
        _require_inside(files, path, roots)
        with files.open(path, "rb", block_size=_BLOCK_BYTES) as stream:
            stream.seek(offset)
            yield offset, stream


@contextmanager
def _connected(url: str) -> Iterator[tuple[AbstractFileSystem, str]]:
    """Give a file system that was not used before, so that no dead connection is; and the path.

    Each kind has exceptions of its own: whatever it raises becomes an OSError.
    """
    try:
        yield _file_system(url)
    except (OSError, SourceError, SettingsError, FetchError):
        raise
    except Exception as error:
        raise ConnectionError(f"{type(error).__name__}: {error}") from error


def _require_package(scheme: str) -> None:
    try:
        from fsspec import get_filesystem_class  # noqa: PLC0415 (an optional extra)
    except ImportError:
        raise SettingsError(
            "published sources need the package fsspec", "pip install 'jarvis-kg[publish]'"
        ) from None
    try:
        get_filesystem_class(scheme)
    except ImportError as error:
        raise SettingsError(
            f"{scheme}:// needs one more package: {error}", "install it on this machine, too"
        ) from None
    except ValueError:
        raise SettingsError(
            f"{scheme}:// is nothing that fsspec knows",
            "use one of the file systems in its documentation",
        ) from None


def _file_system(url: str) -> tuple[AbstractFileSystem, str]:
    _require_package(urlsplit(url).scheme)
    from fsspec.core import url_to_fs  # noqa: PLC0415 (an optional extra)

    files, path = url_to_fs(url, skip_instance_cache=True)
    return files, path


def _require_direct(address: str) -> None:
    if "::" in address or urlsplit(address).scheme in _INDIRECT:
        raise SourceError("the source's address leads through others", "publish it again")


def _require_inside(files: AbstractFileSystem, path: str, roots: Sequence[Path]) -> None:
    """Refuse a file of this machine that is not below one of the roots."""
    from fsspec.implementations.local import LocalFileSystem  # noqa: PLC0415 (the same)

    found = Path(path).resolve()
    if isinstance(files, LocalFileSystem) and not any(
        found.is_relative_to(root.resolve()) for root in roots
    ):
        raise SourceError(
            f"the source was published at {path}, outside of this worker's folders",
            "set KG_SOURCE_ROOT to the folder on the workers' machines",
        )


def _callback(progress: Callable[[int, int], None] | None) -> Any:
    from fsspec.callbacks import Callback  # noqa: PLC0415 (the same)

    def tell(size: int | None, value: int, **_unused: object) -> None:
        if progress is not None and size:
            progress(value, size)

    return Callback(hooks={"progress": tell})
