"""Source snapshots of any content: what is fetched is not looked into here."""

import hashlib
import random
from pathlib import Path

import pytest

from kgcore.migration.model import SourceSnapshot
from tests.sources.places import Offer


@pytest.fixture
def offer(tmp_path: Path) -> Offer:
    """A function that makes a snapshot of so many bytes, each time another one."""
    folder = tmp_path / "offered"
    folder.mkdir()
    numbers = random.Random(4711)

    def offer(size: int = 3_000_000, address: str | None = None) -> SourceSnapshot:
        content = numbers.randbytes(size)
        sha256 = hashlib.sha256(content).hexdigest()
        path = folder / f"{sha256}-0123abcd.db"
        path.write_bytes(content)
        return SourceSnapshot(Path("graph.db"), path, sha256, size, address)

    return offer
