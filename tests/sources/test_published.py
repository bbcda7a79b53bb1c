"""Publishing to a folder, a real FTP server and memory, and reading from there."""

import subprocess
import sys
from collections.abc import Iterator
from functools import partial
from pathlib import Path

import fsspec.config
import pytest
from fsspec.implementations.memory import MemoryFileSystem

from kgcore.errors import FetchError, SettingsError, SourceError
from kgcore.migration.model import SourceSnapshot
from kgcore.migration.sources.fetching import fetch
from kgcore.migration.sources.published import publish, read, remove, require_publishable
from tests.sources.places import Offer
from tests.workers.kg import wait_for
from workers.embedded.ports import candidates


@pytest.fixture
def ftp(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[tuple[str, Path]]:
    """A real FTP server: its URL without the password, and its folder."""
    folder = tmp_path / "ftp"
    folder.mkdir()
    monkeypatch.setitem(fsspec.config.conf, "ftp", {"username": "kg", "password": "secret"})
    port = next(iter(candidates(None)))
    command = [sys.executable, "-W", "ignore", "-m", "pyftpdlib", "-i", "127.0.0.1"]
    command += ["-p", str(port), "-w", "-d", str(folder), "-u", "kg", "-P", "secret"]
    log = tmp_path / "ftp.log"
    with log.open("w") as stderr:
        server = subprocess.Popen(command, stderr=stderr)
    try:
        wait_for(lambda: "starting FTP server" in log.read_text())
        yield f"ftp://127.0.0.1:{port}", folder
    finally:
        server.kill()
        server.wait()


@pytest.fixture
def memory() -> Iterator[str]:
    """A folder in fsspec's memory, which is this process's."""
    yield "memory://published"
    MemoryFileSystem.store.clear()


def fetched(
    source: SourceSnapshot, address: str, tmp_path: Path, roots: tuple[Path, ...] = ()
) -> bytes:
    part = tmp_path / "part"
    offered = SourceSnapshot(source.original, source.path, source.sha256, source.bytes, address)
    fetch(offered, part, partial(read, roots=roots))
    return part.read_bytes()


def test_memory(offer: Offer, memory: str, tmp_path: Path) -> None:
    source = offer()
    seen: list[tuple[int, int]] = []
    address = publish(source.path, memory, lambda done, total: seen.append((done, total)))
    assert address == f"memory://published/{source.path.name}"
    assert seen[-1] == (source.bytes, source.bytes)
    assert fetched(source, address, tmp_path) == source.path.read_bytes()
    remove(address)
    assert not MemoryFileSystem.store
    remove(address)


def test_a_folder(offer: Offer, tmp_path: Path) -> None:
    source = offer()
    folder = tmp_path / "mounted" / "new"
    address = publish(source.path, folder.as_uri())
    part = tmp_path / "part"
    part.write_bytes(source.path.read_bytes()[:1000])
    assert fetched(source, address, tmp_path, (tmp_path / "mounted",)) == source.path.read_bytes()
    remove(address)
    assert list(folder.iterdir()) == []


def test_ftp(offer: Offer, ftp: tuple[str, Path], tmp_path: Path) -> None:
    url, folder = ftp
    source = offer(20_000_000)
    address = publish(source.path, f"{url}/sources/new")
    assert "secret" not in address
    part = tmp_path / "part"
    part.write_bytes(source.path.read_bytes()[:7_000_001])
    assert fetched(source, address, tmp_path) == source.path.read_bytes()
    remove(address)
    assert list((folder / "sources" / "new").iterdir()) == []


def test_a_wrong_password_is_said(
    offer: Offer, ftp: tuple[str, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(fsspec.config.conf, "ftp", {"username": "kg", "password": "wrong"})
    with pytest.raises(SourceError, match="530 Authentication failed"):
        publish(offer().path, ftp[0])


def test_a_file_outside_the_roots_is_never_read(offer: Offer, tmp_path: Path) -> None:
    source = offer()
    root = tmp_path / "root"
    root.mkdir()
    (root / "link.db").symlink_to(source.path)
    for path in (source.path, root / "link.db", root / ".." / "offered" / source.path.name):
        with pytest.raises(SourceError, match="outside") as caught:
            fetched(source, f"file://{path}", tmp_path, (root,))
        assert "KG_SOURCE_ROOT" in caught.value.hint
    for indirect in (
        f"simplecache::file://{source.path}",
        f"filecache::file://{source.path}",
        f"dir://x::file://{source.path}",
        f"zip://a::file://{source.path}",
        f"git://{source.path}",
    ):
        with pytest.raises(SourceError, match="through others"):
            fetched(source, indirect, tmp_path, (root,))


def test_nothing_but_a_snapshot_is_deleted(offer: Offer, tmp_path: Path) -> None:
    """Whoever can write the ledger can't make workers delete other files."""
    source = offer()
    other = tmp_path / "graph.db"
    other.write_bytes(b"dear")
    with pytest.raises(SourceError, match="not named"):
        remove(other.as_uri())
    with pytest.raises(SourceError, match="outside"):
        remove(source.path.as_uri(), roots=(tmp_path / "elsewhere",))
    with pytest.raises(SourceError, match="through others"):
        remove(f"simplecache::{source.path.as_uri()}")
    assert other.exists()
    assert source.path.exists()


def test_what_is_not_there_any_more(
    offer: Offer, memory: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("kgcore.migration.sources.fetching._TRIES", 1)
    with pytest.raises(FetchError, match="can't be fetched"):
        fetched(offer(), f"{memory}/gone.db", tmp_path)


@pytest.mark.parametrize(
    "url", ["", "folder", "/folder", "http://h/x", "https://h/x", "simplecache::s3://b", "zip://x"]
)
def test_urls_that_can_not_be_written(url: str) -> None:
    with pytest.raises(SettingsError, match="can be written"):
        require_publishable(url)


@pytest.mark.parametrize("url", ["ftp://kg:secret@h/x", "s3://bucket/x?X-Amz-Signature=secret"])
def test_no_secret_goes_into_the_ledger(url: str) -> None:
    with pytest.raises(SettingsError, match="would stay in the ledger") as caught:
        require_publishable(url)
    assert "secret" not in f"{caught.value.message}{caught.value.hint}"


def test_an_unknown_file_system() -> None:
    with pytest.raises(SettingsError, match="nothing that fsspec knows"):
        require_publishable("nowhere://x")
