"""The cache, shared by real processes of one machine."""

import os
import shutil
import subprocess
from collections.abc import Iterator
from contextlib import ExitStack
from functools import partial
from pathlib import Path

import pytest

from kgcore.errors import FetchError, SourceError
from kgcore.migration.model import SourceSnapshot
from kgcore.migration.sources.cache import Cache
from kgcore.migration.sources.fetching import fetch
from kgcore.migration.sources.published import read
from tests.sources.places import Offer, process


def copy(source: SourceSnapshot, part: Path) -> None:
    shutil.copyfile(source.path, part)


def never(part: Path) -> None:
    raise AssertionError(f"{part} was fetched though it was there")


def use(cache: Cache, source: SourceSnapshot) -> None:
    with cache.held(source, partial(copy, source)) as path:
        assert path.read_bytes() == source.path.read_bytes()


def names(cache: Cache) -> set[str]:
    """What the cache has whole."""
    return {path.stem for path in cache.directory.glob("*.db")}


@pytest.fixture
def cache(tmp_path: Path) -> Cache:
    return Cache(tmp_path / "cache", 10_000)


def test_a_source_is_fetched_once(cache: Cache, offer: Offer) -> None:
    source = offer(1000)
    use(cache, source)
    with cache.held(source, never) as path:
        assert path.stat().st_mode & 0o222 == 0
    assert cache.directory.stat().st_mode & 0o077 == 0


def test_one_process_fetches_and_the_others_wait(cache: Cache, offer: Offer) -> None:
    source = offer(1000)
    code = """
def fill(part):
    say("fetched")
    time.sleep(0.5)
    part.write_bytes(source.path.read_bytes())

source = snapshot(sys.argv[1])
with Cache(Path(sys.argv[2])).held(source, fill) as path:
    assert path.read_bytes() == source.path.read_bytes()
say("used")
"""
    running = [process(code, source.path, cache.directory) for _ in range(4)]
    said = [one.communicate(timeout=60)[0].split() for one in running]
    assert [one.returncode for one in running] == [0] * 4
    assert sorted(word for words in said for word in words) == ["fetched", *["used"] * 4]


def test_a_fetch_whose_process_was_killed_goes_on(cache: Cache, offer: Offer) -> None:
    source = offer(1000)
    code = """
def fill(part):
    part.write_bytes(source.path.read_bytes()[:600])
    say("half")
    time.sleep(600)

source = snapshot(sys.argv[1])
with Cache(Path(sys.argv[2])).held(source, fill):
    pass
"""
    first = process(code, source.path, cache.directory)
    assert first.stdout
    assert first.stdout.readline() == "half\n"
    first.kill()
    first.communicate()

    def go_on(part: Path) -> None:
        assert part.stat().st_size == 600
        with part.open("ab") as file:
            file.write(source.path.read_bytes()[600:])

    with cache.held(source, go_on) as path:
        assert path.read_bytes() == source.path.read_bytes()


def test_the_least_recently_used_makes_room(cache: Cache, offer: Offer) -> None:
    first, second, third = (offer(4000) for _ in range(3))
    for source in (first, second, first, third):
        use(cache, source)
    assert names(cache) == {first.sha256, third.sha256}
    left = {path.stem for path in cache.directory.iterdir()}
    assert second.sha256 not in left
    use(cache, second)
    assert names(cache) == {third.sha256, second.sha256}


def test_what_a_process_reads_is_never_evicted(cache: Cache, offer: Offer) -> None:
    old, young, wanted = (offer(4000) for _ in range(3))
    use(cache, old)
    use(cache, young)
    code = """
source = snapshot(sys.argv[1])
with Cache(Path(sys.argv[2])).held(source, None) as path:
    say("reading")
    sys.stdin.readline()
"""
    reader = process(code, old.path, cache.directory)
    assert reader.stdout
    assert reader.stdout.readline() == "reading\n"
    use(cache, wanted)
    assert names(cache) == {old.sha256, wanted.sha256}
    with (
        cache.held(wanted, never),
        pytest.raises(FetchError, match="no room"),
        cache.held(young, never),
    ):
        pass
    assert names(cache) == {old.sha256, wanted.sha256}
    reader.communicate("\n", timeout=30)
    with cache.held(wanted, never):
        use(cache, young)
    assert names(cache) == {young.sha256, wanted.sha256}


def test_an_unfinished_fetch_counts_whole_and_can_be_evicted(cache: Cache, offer: Offer) -> None:
    unfinished, other = offer(6000), offer(6000)

    def cut(part: Path) -> None:
        part.write_bytes(b"x")
        raise FetchError("cut")

    with pytest.raises(FetchError, match="cut"), cache.held(unfinished, cut):
        pass
    assert (cache.directory / f"{unfinished.sha256}.part").exists()
    use(cache, other)
    assert {path.stem for path in cache.directory.iterdir()} == {other.sha256, "room"}


def test_a_source_larger_than_the_cache(cache: Cache, offer: Offer) -> None:
    with (
        pytest.raises(SourceError, match="10,001 bytes, the cache may have 10,000") as caught,
        cache.held(offer(10_001), never),
    ):
        pass
    assert "KG_CACHE_BYTES" in caught.value.hint
    use(cache, offer(10_000))


def test_wrong_content_is_dropped_and_fetched_again(cache: Cache, offer: Offer) -> None:
    source, other = offer(1000), offer(1000)
    offered = [other, source]
    with cache.held(source, lambda part: copy(offered.pop(0), part)) as path:
        assert path.read_bytes() == source.path.read_bytes()
    assert offered == []


def test_content_that_is_always_wrong_is_refused(cache: Cache, offer: Offer) -> None:
    source, other = offer(1000), offer(1000)
    tries: list[Path] = []

    def forge(part: Path) -> None:
        tries.append(part)
        copy(other, part)

    with pytest.raises(SourceError, match="SHA-256 was wrong"), cache.held(source, forge):
        pass
    assert len(tries) == 3
    assert not any(cache.directory.glob("*.db"))
    assert not any(cache.directory.glob("*.part"))


def test_a_cached_file_that_was_changed_is_fetched_again(cache: Cache, offer: Offer) -> None:
    source = offer(1000)
    use(cache, source)
    path = cache.path(source.sha256)
    path.chmod(0o600)
    path.write_bytes(b"forged")
    use(cache, source)


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A disk of 64 KiB."""
    folder = tmp_path / "disk"
    folder.mkdir()
    command = ["mount", "-t", "tmpfs", "-o", "size=64k", "tmpfs", str(folder)]
    if os.geteuid() != 0 or subprocess.run(command, capture_output=True, check=False).returncode:
        pytest.skip("a small disk can't be mounted: that needs root and the right to mount")
    yield folder
    subprocess.run(["umount", str(folder)], check=True)


def test_a_full_disk(small_disk: Path, offer: Offer) -> None:
    with (
        pytest.raises(FetchError, match="disk full") as caught,
        Cache(small_disk).held(offer(200_000), never),
    ):
        pass
    assert "KG_CACHE_DIR" in caught.value.hint


def test_a_disk_that_fills_in_the_middle(small_disk: Path, offer: Offer) -> None:
    """Something else takes the space that was free when the fetch began."""
    source = offer(200_000)
    there = SourceSnapshot(
        source.original, source.path, source.sha256, source.bytes, source.path.as_uri()
    )
    with pytest.raises(FetchError, match="no space is left") as caught:
        fetch(there, small_disk / "part", partial(read, roots=[source.path.parent]))
    assert "KG_CACHE_DIR" in caught.value.message
    assert 0 < (small_disk / "part").stat().st_size < 200_000


def test_on_a_full_disk_old_sources_make_room(small_disk: Path, offer: Offer) -> None:
    cache = Cache(small_disk)
    with ExitStack() as stack:
        stack.enter_context(cache.held(old := offer(30_000), partial(copy, old)))
    use(cache, new := offer(40_000))
    assert names(cache) == {new.sha256}
