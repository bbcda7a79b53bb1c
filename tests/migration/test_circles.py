"""Tables that refer to each other in a circle: what hangs on a refused row is refused with it."""

import sqlite3
from contextlib import closing
from pathlib import Path

import pytest

from kgcore.migration import new_run
from kgcore.migration.dry_run import dry_run
from kgcore.migration.model import Options
from tests.migration.conftest import Migrate
from tests.servers import Database


@pytest.mark.parametrize("action", ["NO ACTION", "CASCADE"])
def test_of_a_circle_all_that_hangs_on_a_refused_row_is_set_aside(
    action: str, migrate: Migrate, postgres: Database, tmp_path: Path
) -> None:
    source = tmp_path / "circle.db"
    with closing(sqlite3.connect(source)) as connection:
        # Four tables, of which two pairs have nothing to do with each other.
        for table, parent in ("ab", "bc", "cd", "da"):
            connection.execute(
                f"CREATE TABLE {table} (id INTEGER PRIMARY KEY,"
                f" ref INTEGER REFERENCES {parent} ON DELETE {action})"
            )
        connection.executescript(
            """
            INSERT INTO a VALUES (1, 1), (2, 2), (3, 9);
            INSERT INTO b VALUES (1, 1), (2, 2);
            INSERT INTO c VALUES (1, 1), (2, 2), (3, 3);
            INSERT INTO d VALUES (1, 1), (2, 3), (3, NULL);
            """
        )
    # a3 → nothing; d2 → a3; c2 → d2; b2 → c2; a2 → b2
    lost = [("a", 2), ("a", 3), ("b", 2), ("c", 2), ("d", 2)]
    options = Options(only=("*",), max_rejects=5)
    foretold = dry_run(new_run.prepare(source, tmp_path / "data", options))
    assert {name: table.rejected_rows for name, table in foretold.tables.items()} == {
        "a": 2,
        "b": 1,
        "c": 1,
        "d": 1,
    }
    report = migrate(source, only=("*",), max_rejects=5)
    assert report.is_done, report.errors
    assert (
        postgres.rows("SELECT table_name, row_id FROM kg_migration.rejects ORDER BY 1, 2") == lost
    )
    for name, totals in report.to_json()["tables"].items():
        gone = sum(table == name for table, _ in lost)
        assert totals["rejected_rows"] == gone
        assert totals["loaded_rows"] == totals["verified_rows"] == totals["source_rows"] - gone


def test_keys_of_one_table_and_circles_in_a_circle(
    migrate: Migrate, postgres: Database, tmp_path: Path
) -> None:
    source = tmp_path / "knots.db"
    with closing(sqlite3.connect(source)) as connection:
        connection.executescript(
            """
            CREATE TABLE kind (id INTEGER PRIMARY KEY);
            CREATE TABLE node (id INTEGER PRIMARY KEY,
                               parent INTEGER REFERENCES node ON DELETE CASCADE,
                               kind INTEGER REFERENCES kind);
            CREATE TABLE a (id INTEGER PRIMARY KEY, b INTEGER REFERENCES b, z INTEGER REFERENCES z,
                            self INTEGER REFERENCES a ON DELETE SET NULL);
            CREATE TABLE b (id INTEGER PRIMARY KEY, a INTEGER REFERENCES a);
            CREATE TABLE z (id INTEGER PRIMARY KEY, a INTEGER REFERENCES a,
                            kind INTEGER REFERENCES kind);
            INSERT INTO kind VALUES (1);
            INSERT INTO node VALUES (1, NULL, 99), (2, 1, 1), (3, 2, 1), (4, NULL, 1);
            INSERT INTO a VALUES (1, 1, 1, NULL), (2, NULL, NULL, 1), (3, 3, 3, 3);
            INSERT INTO b VALUES (1, 1), (2, 2), (3, 3);
            INSERT INTO z VALUES (1, 1, 99), (3, 3, 1);
            """
        )
    report = migrate(source, only=("*",), max_rejects=20)
    assert report.is_done, report.errors
    assert postgres.rows("SELECT table_name, row_id FROM kg_migration.rejects ORDER BY 1, 2") == [
        *(("a", 1), ("a", 2), ("b", 1), ("b", 2)),
        *(("node", 1), ("node", 2), ("node", 3), ("z", 1)),
    ]
    assert postgres.rows("SELECT * FROM a") == [(3, 3, 3, 3)]
