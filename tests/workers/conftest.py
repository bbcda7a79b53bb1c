"""The command ``kg`` on private servers."""

from pathlib import Path

import pytest

from tests.workers.kg import Kg


@pytest.fixture
def kg(kg_environment: dict[str, str], tmp_path: Path) -> Kg:
    """The command, in an empty directory and with servers of its own."""
    return Kg(kg_environment, tmp_path)
