"""What a file's own names, keys and constraints do not stand in the way of."""

import sqlite3
from contextlib import closing
from pathlib import Path

import pytest

from kgcore.migration import new_run, sources
from kgcore.migration.dry_run import DryRun, dry_run
from kgcore.migration.model import Options, RunState
from kgcore.migration.repairs import choose
from tests.migration.any_comparer import differences
from tests.migration.conftest import Migrate
from tests.migration.graphs import NOW
from tests.servers import Database


def write(path: Path, script: str) -> Path:
    with closing(sqlite3.connect(path)) as connection:
        connection.executescript(script)
    return path


def foretold(source: Path, repairs: tuple[str, ...] = ()) -> DryRun:
    options = Options(only=("*",), repairs=repairs)
    prepared = new_run.prepare(source, source.parent / "foretold", options)
    try:
        return dry_run(prepared, choose(repairs))
    finally:
        sources.release(prepared.source)


@pytest.mark.parametrize("spoiled", ["x'00'", "7"])
def test_columns_have_the_names_of_what_compares_them(
    spoiled: str, migrate: Migrate, postgres: Database, tmp_path: Path
) -> None:
    source = write(
        tmp_path / "a.db",
        f"""
        CREATE TABLE t (id INTEGER PRIMARY KEY, source TEXT, staged TEXT, pairs TEXT, late TEXT,
                        child TEXT, merged TEXT, n INTEGER);
        INSERT INTO t VALUES (1, 'a', 'b', 'c', 'd', 'e', 'f', 1), (2, 's', 't', '', '', '', '', 2),
                             (3, '', '', '', '', '', '', {spoiled});
        """,
    )
    report = migrate(source, only=("*",), max_rejects=1)
    assert report.is_done, report.errors
    assert report.totals["verified_rows"] == 3 - (spoiled != "7")
    if spoiled == "7":
        assert differences(source, postgres.connect()) == []


def test_rows_repeat_each_other_in_two_unique_keys(
    migrate: Migrate, postgres: Database, tmp_path: Path
) -> None:
    """Which of them stay depends on the keys' order, whichever of two workers is quicker.

    To SQLite 7 and '7' are not the same; in a column of text they are.
    """
    rows = ",".join(
        f"({3 * i}, '7{i}', 'q{i}'), ({3 * i + 1}, 7{i}, '8{i}'), ({3 * i + 2}, 's{i}', 8{i})"
        for i in range(3000)
    )
    source = write(
        tmp_path / "a.db",
        "CREATE TABLE t (id INTEGER PRIMARY KEY, a, b, UNIQUE (a), UNIQUE (b));"
        f"INSERT INTO t VALUES {rows};",
    )
    predicted = foretold(source)
    assert predicted.rejected_rows == 3000
    for _ in range(2):
        report = migrate(
            source, only=("*",), max_rejects=9000, chunk_rows=9000, if_exists="replace"
        )
        assert report.is_done, report.errors
        assert report.totals["rejected_rows"] == predicted.rejected_rows
        assert postgres.rows("SELECT count(*) FROM t WHERE id % 3 <> 1") == [(6000,)]


def graph(path: Path, entities: str, more: str = "") -> Path:
    """A graph with a relationship to an entity that is missing; ``{NOW}`` is a time."""
    return write(
        path,
        f"""
        CREATE TABLE types (name TEXT PRIMARY KEY);
        INSERT INTO types VALUES ('file'), ('mission');
        CREATE TABLE entities (id INTEGER PRIMARY KEY, type TEXT NOT NULL, name TEXT NOT NULL,
                               metadata TEXT, created_at TEXT NOT NULL, updated_at TEXT NOT NULL
                               {entities});
        INSERT INTO entities (id, type, name, created_at, updated_at)
        VALUES (1, 'file', 'a', '{NOW}', '{NOW}'), (2, 'mission', 'b', '{NOW}', '{NOW}');
        CREATE TABLE relationships (id INTEGER PRIMARY KEY, from_id INTEGER NOT NULL,
                                    to_id INTEGER NOT NULL, type TEXT NOT NULL, metadata TEXT,
                                    created_at TEXT NOT NULL);
        INSERT INTO relationships VALUES (1, 1, 2, 'x', '{{}}', '{NOW}'),
                                         (2, 1, 99, 'x', '{{}}', '{NOW}');
        {more}
        """,
    )


@pytest.mark.parametrize(
    ("entities", "placed"),
    [
        (", stars INTEGER NOT NULL DEFAULT 3", True),
        (", named TEXT AS (upper(name)) STORED", True),
        (", added TEXT NOT NULL DEFAULT CURRENT_TIMESTAMP", True),
        (", CHECK (type IN ('file', 'mission'))", False),
        (", FOREIGN KEY (type) REFERENCES types (name)", False),
        (", UNIQUE (name)", False),
    ],
)
def test_entities_have_more_than_the_graph_s_own(
    entities: str, placed: bool, migrate: Migrate, postgres: Database, tmp_path: Path
) -> None:
    """Made up entities get what is the default there; where others judge, none is made up."""
    source = graph(tmp_path / "a.db", entities)
    repairs = ("placeholder-entities",)
    proposed = {proposal.repair for proposal in foretold(source).proposals}
    assert ("placeholder-entities" in proposed) == placed
    assert foretold(source, repairs).rejected_rows == (not placed)
    report = migrate(source, only=("*",), repairs=repairs, max_rejects=1)
    assert report.is_done, report.errors
    assert report.totals["rejected_rows"] == (not placed)
    assert postgres.rows("SELECT type FROM entities WHERE id = 99") == [("placeholder",)] * placed


def test_names_hold_percent_signs(migrate: Migrate, postgres: Database, tmp_path: Path) -> None:
    source = graph(
        tmp_path / "a.db",
        "",
        f"""
        INSERT INTO entities (id, type, name, created_at, updated_at)
        VALUES (3, 'mission', 'b', '{NOW}', '{NOW}');
        CREATE TABLE "100%s" (id INTEGER PRIMARY KEY, "50% e" INTEGER REFERENCES entities (id),
                              "%(x)s" TEXT DEFAULT '%', CHECK ("%(x)s" <> '%d'));
        INSERT INTO "100%s" ("50% e") VALUES (3), (2), (98);
        """,
    )
    repairs = ("merge-duplicates", "placeholder-entities")
    report = migrate(source, only=("*",), repairs=repairs)
    assert report.run.state is RunState.DONE, report.errors
    assert postgres.rows('SELECT "50% e", "%(x)s" FROM "100%s" ORDER BY id') == [
        (2, "%"),
        (2, "%"),
        (98, "%"),
    ]
