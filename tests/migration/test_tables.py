"""Tables that the graph doesn't know: whole files of other applications."""

import sqlite3
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from kgcore.errors import SettingsError, SourceError, TargetError
from kgcore.migration import new_run
from kgcore.migration.dry_run import dry_run
from kgcore.migration.model import Options
from kgcore.migration.workplace import Workplace
from kgcore.model import NotCarriedOver
from kgcore.schema.translate.names import snake
from tests.migration.any_comparer import differences
from tests.migration.conftest import Migrate
from tests.migration.graphs import entity, file_of, write_graph
from tests.servers import Database

SHOP = r"""
CREATE TABLE "Artist" (ArtistId INTEGER NOT NULL PRIMARY KEY, Name NVARCHAR(120), UNIQUE (Name));
CREATE TABLE Track (
  TrackId INTEGER PRIMARY KEY AUTOINCREMENT,
  "ArtistId" INTEGER NOT NULL REFERENCES Artist (ArtistId) ON DELETE CASCADE
    DEFERRABLE INITIALLY DEFERRED,
  Price NUMERIC(10,2) NOT NULL DEFAULT 0.99 CONSTRAINT cheap CHECK (Price BETWEEN 0 AND 99),
  Added DATETIME DEFAULT CURRENT_TIMESTAMP,
  Born DATE,
  ok BOOLEAN NOT NULL DEFAULT 1,
  meta JSON,
  cover BLOB,
  title TEXT COLLATE NOCASE,
  secs REAL,
  mins REAL AS (secs / 60),
  label TEXT GENERATED ALWAYS AS (title || ' #' || TrackId) STORED,
  year TEXT AS (strftime('%Y', Added)),
  wild INTEGER,
  CHECK (strftime('%Y', Added) > '1900')
);
CREATE INDEX track_title ON Track (title DESC);
CREATE UNIQUE INDEX track_low ON Track (lower(title), TrackId) WHERE ok AND Price > 0.5;
CREATE INDEX track_month ON Track (date(Added, 'start of month'));
CREATE TABLE codes (code TEXT PRIMARY KEY, n INT DEFAULT (abs(-1)));
CREATE TABLE "Order Details" (a TEXT, b INTEGER, v REAL, PRIMARY KEY (a, b)) WITHOUT ROWID;
CREATE TABLE details (id INTEGER PRIMARY KEY, a TEXT, b INTEGER,
  FOREIGN KEY (a, b) REFERENCES "Order Details" ON UPDATE CASCADE);
CREATE TABLE loose (x, rowid TEXT);
CREATE TABLE doc (id INTEGER PRIMARY KEY, data text NOT NULL CHECK (json_valid(data)));
CREATE VIEW cheap_tracks AS SELECT * FROM Track WHERE Price < 1;
CREATE TRIGGER added AFTER INSERT ON Artist BEGIN SELECT 1; END;
CREATE VIRTUAL TABLE words USING fts5(word);
"""


def shop(path: Path) -> Path:
    """A file with something of everything, and no table of the graph."""
    with closing(sqlite3.connect(path)) as connection:
        connection.executescript(SHOP)
        connection.executemany(
            "INSERT INTO Artist VALUES (?, ?)", [(i, f"a{i}") for i in range(1, 301)]
        )
        connection.executemany(
            "INSERT INTO Track (ArtistId, Price, Added, Born, ok, meta, cover, title, secs, wild)"
            " VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
            [
                (
                    i % 300 + 1,
                    round(0.5 + i / 100, 2),
                    "2020-01-02 03:04:05" if i % 2 else "2021-06-07T08:09:10.123456+02:00",
                    "2020-02-29",
                    "yes" if i == 3 else i % 2,
                    '{"a": 1}' if i % 5 else None,
                    b"\0x",
                    f"T{i}",
                    i * 1.5,
                    "zz" if i == 7 else i,
                )
                for i in range(400)
            ],
        )
        connection.executemany(
            "INSERT INTO codes (code) VALUES (?)", [(f"c{i}",) for i in range(90)]
        )
        connection.executemany(
            'INSERT INTO "Order Details" VALUES (?, ?, ?)',
            [(f"k{i % 13}'", i - 100, i / 7) for i in range(200)],
        )
        connection.executemany(
            "INSERT INTO details VALUES (?, ?, ?)",
            [(i, f"k{i % 13}'", i - 100) for i in range(150)],
        )
        connection.executemany(
            "INSERT INTO loose VALUES (?, ?)", [(i, None if i % 3 else "r") for i in range(120)]
        )
        connection.execute("DELETE FROM loose WHERE x BETWEEN 30 AND 60")
        connection.execute("""INSERT INTO doc VALUES (1, '{"b": [1.50]}')""")
        connection.commit()
    return path


def test_rows_keys_indexes_checks_and_defaults_arrive(
    migrate: Migrate, postgres: Database, tmp_path: Path
) -> None:
    source = shop(tmp_path / "shop.db")
    report = migrate(source, only=("*",), names="snake")
    assert report.is_done, report.errors
    assert report.totals["rejected_rows"] == 0
    assert differences(source, postgres.connect(), snake) == []
    columns = {
        (table, column): (kind, nullable == "YES", default, generated)
        for table, column, kind, nullable, default, generated in postgres.rows(
            "SELECT table_name, column_name, data_type, is_nullable, column_default,"
            " generation_expression FROM information_schema.columns WHERE table_schema = 'public'"
        )
    }
    assert columns["track", "price"] == ("numeric", False, "0.99", None)
    assert columns["track", "added"] == ("timestamp with time zone", True, "now()", None)
    assert columns["track", "born"] == ("date", True, None, None)
    assert columns["track", "ok"] == ("boolean", False, "true", None)
    assert columns["track", "meta"][0] == columns["doc", "data"][0] == "jsonb"
    assert columns["track", "cover"][0] == "bytea"
    assert columns["track", "wild"] == ("text", True, None, None)
    assert columns["track", "year"] == ("text", True, None, None)
    assert columns["track", "mins"][3].startswith("((secs / ")
    assert columns["track", "label"][3] is not None
    assert columns["loose", "x"] == ("bigint", True, None, None)
    assert {column for table, column in columns if table == "loose"} == {"x", "rowid"}
    constraints = set(
        postgres.rows(
            "SELECT conrelid::regclass::text, pg_get_constraintdef(oid) FROM pg_constraint"
            " WHERE connamespace = 'public'::regnamespace AND contype IN ('p', 'u', 'f')"
        )
    )
    assert constraints == {
        ("artist", "PRIMARY KEY (artist_id)"),
        ("artist", "UNIQUE (name)"),
        ("track", "PRIMARY KEY (track_id)"),
        (
            "track",
            "FOREIGN KEY (artist_id) REFERENCES artist(artist_id) ON DELETE CASCADE"
            " DEFERRABLE INITIALLY DEFERRED",
        ),
        ("codes", "PRIMARY KEY (code)"),
        ("order_details", "PRIMARY KEY (a, b)"),
        ("details", "PRIMARY KEY (id)"),
        ("details", "FOREIGN KEY (a, b) REFERENCES order_details(a, b) ON UPDATE CASCADE"),
        ("doc", "PRIMARY KEY (id)"),
    }
    assert postgres.rows("SELECT count(*) FROM pg_constraint WHERE conname = 'cheap'") == [(1,)]
    indexes = dict(postgres.rows("SELECT indexname, indexdef FROM pg_indexes"))
    assert indexes["track_title"].endswith('(lower((title COLLATE "C")) DESC)')
    assert indexes["track_low"].startswith("CREATE UNIQUE INDEX")
    assert indexes["track_low"].endswith("WHERE (ok AND (price > 0.5))")
    assert not [name for name in indexes if "kg_row" in name]
    # Ids go on where they were, and the server computes what SQLite did.
    assert postgres.rows(
        "INSERT INTO track (artist_id, title, secs) VALUES (1, 'x', 90)"
        " RETURNING track_id, mins, label"
    ) == [(401, 1.5, "x #401")]


def test_what_is_not_carried_over_is_listed_with_its_ddl(
    migrate: Migrate, postgres: Database, place: Workplace, tmp_path: Path
) -> None:
    source = shop(tmp_path / "shop.db")
    report = migrate(source, only=("*",))
    assert differences(source, postgres.connect()) == []
    notes = report.run.not_carried_over
    found = {(note.table, note.object): note for note in notes if "words" not in note.object}
    assert set(found) == {
        ("Track", "collation"),
        ("Track", "type"),
        ("Track", "generated column"),
        ("Track", "check"),
        ("Track", "index"),
        ("codes", "default"),
        ("Artist", "trigger added"),
        (None, "view cheap_tracks"),
    }
    assert found["Track", "index"].ddl.startswith("CREATE INDEX track_month")
    assert "date(added, 'start of month')" in found["Track", "index"].why.lower()
    assert found["Track", "check"].ddl == "CHECK (strftime('%Y', Added) > '1900')"
    assert found["Track", "type"].ddl == "wild INTEGER"
    assert "row id 8" in found["Track", "type"].why
    assert found["codes", "default"].ddl == "n INT DEFAULT abs(-1)"
    assert {note.object for note in notes} >= {"virtual table words", "shadow table words_data"}
    assert report.to_json()["not_carried_over"][0].keys() == {"table", "object", "ddl", "why"}
    # A dry run says the same before anything is done.
    options = Options(only=("*",))
    predicted = dry_run(new_run.prepare(source, place.data_dir, options)).to_json()
    assert predicted["not_carried_over"] == report.to_json()["not_carried_over"]
    assert predicted["tables"]["loose"]["columns"] == {"x": "bigint", "rowid": "text"}
    assert predicted["totals"]["rejected_rows"] == 0


def test_nothing_that_stands_in_a_schema_runs(
    migrate: Migrate, postgres: Database, tmp_path: Path
) -> None:
    source = file_of(
        tmp_path / "hostile.db",
        r"""
        CREATE TABLE "x""; DROP TABLE victim; --" (
          id INTEGER PRIMARY KEY,
          "a'); DROP TABLE victim; --" TEXT DEFAULT '\''); DROP TABLE victim; --',
          b TEXT CHECK (b <> '\''); DROP TABLE victim; --'),
          c INTEGER CHECK (c > 0),
          d TEXT AS (own(c)),
          e TEXT AS (c || '"; DROP TABLE victim; --') STORED,
          CONSTRAINT "k""; DROP TABLE victim; --" CHECK (c <> 7)
        );
        """,
    )
    with closing(sqlite3.connect(source)) as connection:
        connection.create_function("own", 1, str, deterministic=True)
        connection.execute(
            """CREATE INDEX "i""; DROP TABLE victim; --" ON "x""; DROP TABLE victim; --" (b)
               WHERE b > '"; DROP TABLE victim; --'"""
        )
        connection.execute(
            'INSERT INTO "x""; DROP TABLE victim; --" (id, "a\'); DROP TABLE victim; --", b, c)'
            " VALUES (1, 'one', 'two', 3)"
        )
        connection.commit()
    with postgres.connect() as connection, connection.cursor() as cursor:
        cursor.execute("CREATE TABLE victim ()")
    report = migrate(source, only=("*",))
    assert report.is_done, report.errors
    assert postgres.rows("SELECT count(*) FROM victim") == [(0,)]
    ((row,),) = postgres.rows('SELECT row_to_json(x) FROM "x""; DROP TABLE victim; --" AS x')
    assert row["e"] == '3"; DROP TABLE victim; --'
    unread = [note for note in report.run.not_carried_over if note.object == "generated column"]
    assert [note.ddl for note in unread] == ["d"]
    assert postgres.rows(
        """SELECT conname FROM pg_constraint WHERE conname LIKE 'k"%' AND contype = 'c'"""
    ) == [('k"; DROP TABLE victim; --',)]


def test_rows_that_break_keys_are_set_aside_with_all_that_hangs_on_them(
    migrate: Migrate, postgres: Database, place: Workplace, tmp_path: Path
) -> None:
    source = file_of(
        tmp_path / "broken.db",
        """
        PRAGMA ignore_check_constraints = ON;
        CREATE TABLE emp (id INTEGER PRIMARY KEY, boss INTEGER REFERENCES emp ON DELETE CASCADE,
                          age INTEGER CHECK (age >= 0));
        CREATE TABLE desk (code TEXT PRIMARY KEY, emp INTEGER REFERENCES emp (id)) WITHOUT ROWID;
        CREATE TABLE lamp (desk TEXT REFERENCES desk);
        CREATE TABLE a (id INTEGER PRIMARY KEY, b INTEGER REFERENCES b);
        CREATE TABLE b (id INTEGER PRIMARY KEY, a INTEGER REFERENCES a);
        INSERT INTO emp VALUES (1, NULL, 30), (2, 1, 30), (3, 99, 30), (4, 3, 30), (5, 2, -1),
                               (6, 5, 30);
        INSERT INTO desk VALUES ('d1', 1), ('d4', 4), ('d7', 77), ('d0', NULL);
        INSERT INTO lamp VALUES ('d1'), ('d4'), (NULL), ('d9'), ('d0');
        INSERT INTO a VALUES (1, 1); INSERT INTO b VALUES (1, 1);
        """,
    )
    report = migrate(source, only=("*",), max_rejects=20)
    assert report.is_done, report.errors
    rejects = postgres.rows(
        "SELECT table_name, row_id, sqlstate FROM kg_migration.rejects ORDER BY 1, 2"
    )
    assert rejects == [
        ("desk", 2, "23503"),  # d4: counted from 0 in the order of the key
        ("desk", 3, "23503"),
        ("emp", 3, "23503"),
        ("emp", 4, "23503"),
        ("emp", 5, "23514"),
        ("emp", 6, "23503"),
        ("lamp", 2, "23503"),
        ("lamp", 4, "23503"),
    ]
    ((columns,),) = postgres.rows(
        "SELECT columns FROM kg_migration.rejects WHERE table_name = 'desk' AND row_id = 2"
    )
    assert columns[1:] == ["code", "emp"]
    assert postgres.rows("SELECT code FROM desk ORDER BY 1") == [("d0",), ("d1",)]


@pytest.mark.parametrize(
    ("script", "names", "message"),
    [
        ("CREATE TABLE aB (x); CREATE TABLE a_b (x)", "snake", "'aB' and 'a_b'"),
        ('CREATE TABLE t ("Line No" INT, line_no INT)', "snake", "'Line No' and 'line_no'"),
        ("CREATE TABLE t (id INTEGER PRIMARY KEY, xmin INT)", "keep", "a column xmin of its own"),
        (f"CREATE TABLE t ({'é' * 32} INT)", "keep", "63 bytes"),
    ],
)
def test_names_that_can_not_be_are_refused(
    tmp_path: Path, place: Workplace, script: str, names: Any, message: str
) -> None:
    source = file_of(tmp_path / "names.db", script)
    with pytest.raises(SourceError, match=message):
        new_run.prepare(source, place.data_dir, Options(only=("*",), names=names))


def test_only_and_exclude(migrate: Migrate, postgres: Database, tmp_path: Path) -> None:
    source = write_graph(
        tmp_path / "graph.db",
        entities=[entity(1)],
        more="CREATE TABLE Notes (x); CREATE TABLE note_tags (y); INSERT INTO Notes VALUES (1)",
    )
    with pytest.raises(SettingsError, match="--exclude nots: the file has no such table"):
        migrate(source, exclude=("nots",))
    assert set(migrate(source, only=("notes",)).tables) == {"Notes"}
    report = migrate(source, exclude=("NOTE*", "mission_history"), if_exists="replace")
    assert set(report.tables) == {"entities", "relationships", "file_snapshots"}
    report = migrate(source, exclude=("entities",), if_exists="replace")
    assert report.is_done, report.errors
    assert set(report.tables) == {
        *("relationships", "mission_history", "file_snapshots", "Notes", "note_tags"),
    }


def test_a_file_that_is_no_graph_is_migrated_only_if_asked(
    place: Workplace, tmp_path: Path
) -> None:
    source = file_of(tmp_path / "other.db", "CREATE TABLE t (x)")
    with pytest.raises(SourceError, match="no table entities") as refused:
        new_run.prepare(source, place.data_dir, Options())
    assert "--only '*'" in refused.value.hint


def test_what_a_graph_has_beyond_the_description_comes_along(
    migrate: Migrate, postgres: Database, tmp_path: Path
) -> None:
    source = write_graph(
        tmp_path / "graph.db",
        entities=[entity(1), entity(2)],
        more="""
            ALTER TABLE entities ADD COLUMN score REAL NOT NULL DEFAULT 0.5 CHECK (score >= 0);
            CREATE INDEX by_type ON entities (type);
            CREATE INDEX by_score ON entities (score) WHERE score > 0.25;
            CREATE TABLE tags (entity INTEGER NOT NULL REFERENCES entities ON DELETE CASCADE,
                               tag TEXT NOT NULL, PRIMARY KEY (entity, tag)) WITHOUT ROWID;
            INSERT INTO tags VALUES (1, 'x'), (2, 'y');
        """,
    )
    report = migrate(source)
    assert report.is_done, report.errors
    assert report.run.not_carried_over == ()
    indexes = {name for (name,) in postgres.rows("SELECT indexname FROM pg_indexes")}
    assert "by_score" in indexes
    assert "by_type" not in indexes  # (type, name) serves it.
    postgres.rows("DELETE FROM entities WHERE id = 1 RETURNING id")
    assert postgres.rows("SELECT tag FROM tags") == [("y",)]


def test_an_index_name_that_is_taken_is_found_before_anything_moves(
    migrate: Migrate, postgres: Database, tmp_path: Path
) -> None:
    source = file_of(
        tmp_path / "other.db", "CREATE TABLE t (x INTEGER); CREATE INDEX by_x ON t (x)"
    )
    with postgres.connect() as connection, connection.cursor() as cursor:
        cursor.execute("CREATE TABLE by_x ()")
    with pytest.raises(TargetError, match="public has by_x already"):
        migrate(source, only=("*",))


def test_notes_survive_the_ledger(migrate: Migrate, place: Workplace, tmp_path: Path) -> None:
    source = file_of(tmp_path / "v.db", "CREATE TABLE t (x); CREATE VIEW v AS SELECT 'ö' FROM t")
    (note,) = migrate(source, only=("*",)).run.not_carried_over
    assert note == NotCarriedOver(None, "view v", "CREATE VIEW v AS SELECT 'ö' FROM t", note.why)
