"""The documentation's examples run, and its calls exist."""

import re

import pytest

from kgcore.graph import KnowledgeGraph
from tests.conftest import ROOT
from tests.servers import Database

PAGE = (ROOT / "docs" / "graph.md").read_text(encoding="utf-8")


@pytest.mark.parametrize("backend", ["sqlite", "postgres"])
def test_examples_run(
    backend: str, request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("KG_BACKEND", backend)
    if backend == "postgres":
        database: Database = request.getfixturevalue("postgres")
        for name, value in database.environment().items():
            monkeypatch.setenv(name, value)
    examples = re.findall(r"```python\n(.*?)```", PAGE, re.DOTALL)
    assert len(examples) > 5
    exec("\n".join(examples), {})


def test_every_call_is_described_and_exists() -> None:
    public = {name for name in dir(KnowledgeGraph) if not name.startswith("_")}
    mentioned = set(re.findall(r"\b([a-z_]+)\(", PAGE))
    assert public - mentioned == set()
    named = set(re.findall(r"\bkg\.([a-z_]+)", PAGE)) - {"db"}
    assert named - public == set()
