"""Synthetic graphs: exact, repeatable, full of unusual text, and all of it valid."""

import json
import math
import os
import re
import signal
import sqlite3
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import closing
from datetime import datetime
from pathlib import Path

import pytest

from kgcore.errors import SettingsError
from kgcore.sample import SampleCounts, make_synthetic
from kgcore.sample.texts import STRANGE_JSON, STRANGE_NAMES
from kgcore.schema import TABLES

ROWS = {"entities": 8_000, "relationships": 12_000, "missions": 1_500, "snapshots": 4_000}
NAMES = [table.name for table in TABLES]
# What SQLite leaves of an instant in the form nearly all rows have.
USUAL = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\dZ")


@pytest.fixture(scope="module")
def graph(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("synthetic") / "graph.db"
    make(path, ROWS, 7)
    return path


@pytest.fixture
def reader(graph: Path) -> Iterator[sqlite3.Connection]:
    with closing(sqlite3.connect(graph)) as connection:
        yield connection


def make(
    path: Path, rows: dict[str, int], seed: int = 0, *, overwrite: bool = False
) -> SampleCounts:
    return make_synthetic(
        path,
        entities=rows["entities"],
        relationships=rows["relationships"],
        missions=rows["missions"],
        snapshots=rows["snapshots"],
        seed=seed,
        overwrite=overwrite,
    )


def all_rows(path: Path) -> list[list[tuple[object, ...]]]:
    with closing(sqlite3.connect(path)) as connection:
        return [
            connection.execute(f"SELECT * FROM {name} ORDER BY 1").fetchall()
            for name in [*NAMES, "sqlite_sequence"]
        ]


def test_the_counts_are_exact_and_the_file_is_sound(
    tmp_path: Path, reader: sqlite3.Connection
) -> None:
    counts = make(tmp_path / "again.db", ROWS)
    assert counts == SampleCounts(
        8_000, 12_000, 1_500, 4_000, (tmp_path / "again.db").stat().st_size
    )
    for name, rows in zip(NAMES, ROWS.values(), strict=True):
        assert reader.execute(f"SELECT count(*) FROM {name}").fetchone() == (rows,)
    assert reader.execute("PRAGMA integrity_check").fetchall() == [("ok",)]
    assert reader.execute("PRAGMA foreign_key_check").fetchall() == []
    assert reader.execute("PRAGMA journal_mode").fetchone() == ("delete",)


def test_the_same_seed_gives_the_same_rows_and_another_one_others(
    graph: Path, tmp_path: Path
) -> None:
    make(tmp_path / "same.db", ROWS, 7)
    make(tmp_path / "other.db", ROWS, 8)
    assert all_rows(tmp_path / "same.db") == all_rows(graph)
    assert all_rows(tmp_path / "other.db") != all_rows(graph)


@pytest.mark.parametrize("name", NAMES)
def test_about_one_id_of_twenty_is_missing(reader: sqlite3.Connection, name: str) -> None:
    rows, least, most = reader.execute(f"SELECT count(*), min(id), max(id) FROM {name}").fetchone()
    assert 0.02 < 1 - rows / (most - least + 1) < 0.08


def test_the_newest_ids_were_given_and_are_gone(reader: sqlite3.Connection) -> None:
    (given,) = reader.execute("SELECT seq FROM sqlite_sequence WHERE name='entities'").fetchone()
    assert given > reader.execute("SELECT max(id) FROM entities").fetchone()[0]


def test_some_entities_are_hubs(reader: sqlite3.Connection) -> None:
    (most,) = reader.execute(
        "SELECT count(*) FROM relationships GROUP BY to_id ORDER BY 1 DESC LIMIT 1"
    ).fetchone()
    assert most > 100 * ROWS["relationships"] / ROWS["entities"]


def test_mission_entities_are_the_missions(reader: sqlite3.Connection) -> None:
    (missing,) = reader.execute(
        "SELECT count(*) FROM entities WHERE type = 'mission'"
        " AND name NOT IN (SELECT mission_id FROM mission_history)"
    ).fetchone()
    assert missing == 0


def test_names_of_every_kind_are_present_but_rare(reader: sqlite3.Connection) -> None:
    names = [name for (name,) in reader.execute("SELECT name FROM entities")]
    for before, after in STRANGE_NAMES:
        assert any(n.startswith(before) and n.endswith(after) for n in names), before[:20]
    assert "" in names
    strange = [n for n in names if n.startswith(tuple(before for before, _ in STRANGE_NAMES))]
    assert 0.01 < len(strange) / len(names) < 0.03
    # PostgreSQL's bound for what a B-tree index can hold.
    assert max(len(n.encode()) for n in names) < 2_600


def test_strange_names_never_meet() -> None:
    heads = [before for before, _ in STRANGE_NAMES]
    assert len(set(heads)) == len(heads)
    assert not any(re.search(r"\d", before) for before in heads if not before.startswith("\x01"))
    assert not any(after[:1].isdigit() for _, after in STRANGE_NAMES)


def refuse_constant(name: str) -> None:
    raise AssertionError(name)


@pytest.mark.parametrize("name", NAMES)
def test_all_metadata_is_what_jsonb_takes(reader: sqlite3.Connection, name: str) -> None:
    texts = {text for (text,) in reader.execute(f"SELECT metadata FROM {name}")}
    assert None in texts
    assert "{}" in texts
    assert len(texts & set(STRANGE_JSON)) > len(STRANGE_JSON) // 2
    for text in texts - {None}:
        value = json.loads(text, parse_constant=refuse_constant)
        assert isinstance(value, dict)
        # Encoding refuses lone surrogates.
        assert b"\0" not in json.dumps(value, ensure_ascii=False).encode()
        assert "\\u0000" not in text


@pytest.mark.parametrize("name", NAMES)
def test_timestamps_of_other_forms_are_the_oldest_only(
    reader: sqlite3.Connection, name: str
) -> None:
    texts = [text for (text,) in reader.execute(f"SELECT created_at FROM {name} ORDER BY id")]
    for text in texts:
        datetime.fromisoformat(text)
    odd = [position for position, text in enumerate(texts) if not USUAL.fullmatch(text)]
    assert 5 <= len(odd) <= max(8, len(texts) // 200)
    assert max(odd) < max(8, len(texts) // 200)


def test_numbers_need_all_their_digits(reader: sqlite3.Connection) -> None:
    costs = [cost for (cost,) in reader.execute("SELECT cost_usd FROM mission_history")]
    reals = [cost for cost in costs if cost is not None]
    assert len(reals) < len(costs)
    assert all(isinstance(cost, float) and math.isfinite(cost) for cost in reals)
    assert any(float(f"{cost:.15g}") != cost for cost in reals)
    (most,) = reader.execute("SELECT max(size_bytes) FROM file_snapshots").fetchone()
    assert most > 2**53


@pytest.mark.parametrize("rows", [(0, 0, 0, 0), (1, 3, 0, 2), (0, 0, 1, 1), (30, 0, 0, 0)])
def test_small_and_empty_tables(tmp_path: Path, rows: tuple[int, int, int, int]) -> None:
    asked = dict(zip(ROWS, rows, strict=True))
    counts = make(tmp_path / "small.db", asked)
    assert (counts.entities, counts.relationships, counts.missions, counts.snapshots) == rows
    with closing(sqlite3.connect(tmp_path / "small.db")) as connection:
        assert connection.execute("PRAGMA foreign_key_check").fetchall() == []


@pytest.mark.parametrize("wrong", [{"entities": 0}, {"missions": -1}])
def test_numbers_that_make_no_graph_are_refused(tmp_path: Path, wrong: dict[str, int]) -> None:
    with pytest.raises(SettingsError, match=next(iter(wrong))):
        make(tmp_path / "none.db", ROWS | wrong)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("suffix", ["", "-wal", "-journal"])
def test_an_existing_file_is_kept_unless_told(tmp_path: Path, suffix: str) -> None:
    existing = tmp_path / f"graph.db{suffix}"
    existing.write_bytes(b"mine")
    few = dict.fromkeys(ROWS, 5)
    with pytest.raises(SettingsError, match="exists") as refused:
        make(tmp_path / "graph.db", few)
    assert "--force" in refused.value.hint
    assert existing.read_bytes() == b"mine"
    make(tmp_path / "graph.db", few, overwrite=True)
    with closing(sqlite3.connect(tmp_path / "graph.db")) as connection:
        assert connection.execute("SELECT count(*) FROM entities").fetchone() == (5,)
    assert list(tmp_path.iterdir()) == [tmp_path / "graph.db"]


def test_a_directory_that_is_missing_is_named(tmp_path: Path) -> None:
    with pytest.raises(SettingsError, match="nowhere"):
        make(tmp_path / "nowhere" / "graph.db", ROWS)
    with pytest.raises(SettingsError, match="is a directory"):
        make(tmp_path, ROWS, overwrite=True)


def test_a_killed_run_leaves_nothing_under_the_final_name(tmp_path: Path) -> None:
    path = tmp_path / "graph.db"
    path.write_bytes(b"the old one")
    script = (
        "import sys, pathlib; from kgcore.sample import make_synthetic; "
        "make_synthetic(pathlib.Path(sys.argv[1]), entities=3_000_000, relationships=0,"
        " missions=0, snapshots=0, overwrite=True)"
    )
    root = Path(__file__).resolve().parents[2]
    process = subprocess.Popen([sys.executable, "-c", script, str(path)], cwd=root)
    deadline = time.monotonic() + 60
    while not any(p.stat().st_size > 100_000 for p in tmp_path.glob(".graph.db.*.partial")):
        assert process.poll() is None
        assert time.monotonic() < deadline
        time.sleep(0.02)
    os.kill(process.pid, signal.SIGKILL)
    process.wait()
    assert path.read_bytes() == b"the old one"


def test_a_stopped_run_cleans_up_and_progress_reaches_the_total(tmp_path: Path) -> None:
    seen: list[tuple[str, int, int]] = []

    def stop(stage: str, done: int, total: int) -> None:
        seen.append((stage, done, total))
        if stage == "indexes":
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        make_synthetic(
            tmp_path / "graph.db",
            entities=ROWS["entities"],
            relationships=ROWS["relationships"],
            missions=ROWS["missions"],
            snapshots=ROWS["snapshots"],
            progress=stop,
        )
    assert list(tmp_path.iterdir()) == []
    for name, rows in zip(NAMES, ROWS.values(), strict=True):
        assert (name, 0, rows) in seen
        assert (name, rows, rows) in seen
