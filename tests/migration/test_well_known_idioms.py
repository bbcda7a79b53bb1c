"""Small files in the manner of well-known sample databases: a music shop, a trader, a film rental.

They are our own; what they share with Chinook, Northwind and Sakila is how those declare things.
"""

import sqlite3
from contextlib import closing
from pathlib import Path
from typing import Any

from kgcore.schema.translate.names import snake
from tests.migration.any_comparer import differences
from tests.migration.conftest import Migrate
from tests.migration.graphs import file_of
from tests.servers import Database

MUSIC = """
CREATE TABLE [Band] ([BandId] INTEGER NOT NULL, [Name] NVARCHAR(120),
  CONSTRAINT [PK_Band] PRIMARY KEY ([BandId]));
CREATE TABLE [Song] ([SongId] INTEGER NOT NULL, [BandId] INTEGER NOT NULL,
  [UnitPrice] NUMERIC(10,2) NOT NULL, [Title] NVARCHAR(200) NOT NULL, [Released] DATETIME,
  CONSTRAINT [PK_Song] PRIMARY KEY ([SongId]),
  FOREIGN KEY ([BandId]) REFERENCES [Band] ([BandId]) ON DELETE NO ACTION ON UPDATE NO ACTION);
CREATE TABLE [PlaylistSong] ([PlaylistId] INTEGER NOT NULL, [SongId] INTEGER NOT NULL,
  CONSTRAINT [PK_PlaylistSong] PRIMARY KEY ([PlaylistId], [SongId]),
  FOREIGN KEY ([SongId]) REFERENCES [Song] ([SongId]) ON DELETE NO ACTION ON UPDATE NO ACTION);
CREATE UNIQUE INDEX [IPK_Song] ON [Song] ([SongId]);
CREATE INDEX [IFK_SongBandId] ON [Song] ([BandId]);
INSERT INTO [Band] VALUES (1, 'Die Ärzte'), (2, NULL);
INSERT INTO [Song] VALUES (1, 1, 0.99, 'Junge', '2007-10-05 00:00:00'),
  (2, 1, 1, 'Westerland', NULL), (3, 2, 1.99, 'It''s', '2009-01-01 00:00:00');
INSERT INTO [PlaylistSong] VALUES (7, 1), (7, 3), (8, 1);
"""

TRADE = """
CREATE TABLE [Staff] ([StaffID] INTEGER PRIMARY KEY AUTOINCREMENT, [LastName] TEXT, [Photo] BLOB,
  [HireDate] DATE, [ReportsTo] INTEGER,
  FOREIGN KEY ([ReportsTo]) REFERENCES [Staff] ([StaffID]) ON DELETE NO ACTION);
CREATE TABLE [Orders] ([OrderID] INTEGER NOT NULL PRIMARY KEY AUTOINCREMENT,
  [OrderDate] DATETIME NOT NULL DEFAULT (DATETIME('now')), [Freight] NUMERIC DEFAULT 0,
  [ShipVia] TEXT NULL, CHECK ([Freight] >= (0)));
CREATE TABLE [Order Details] ([OrderID] INTEGER NOT NULL, [ProductID] INTEGER NOT NULL,
  [Quantity] INTEGER NOT NULL DEFAULT 1, [Discount] REAL NOT NULL DEFAULT 0,
  PRIMARY KEY ([OrderID], [ProductID]), CHECK ([Discount] >= (0) AND [Discount] <= (1)),
  CHECK ([Quantity] > (0)), FOREIGN KEY ([OrderID]) REFERENCES [Orders] ([OrderID]));
CREATE VIEW [Order Subtotals] AS
  SELECT [OrderID], sum([Quantity]) AS [Pieces] FROM [Order Details] GROUP BY 1;
INSERT INTO [Staff] VALUES (1, 'Fuller', x'ffd8ffe000', '1992-08-14', NULL),
  (2, 'Davolio', NULL, '1992-05-01', 1);
INSERT INTO [Orders] VALUES (10248, '2016-07-04 12:00:00', 32.38, NULL),
  (10249, '2016-07-05', 11, 'x');
INSERT INTO [Order Details] VALUES (10248, 11, 12, 0), (10248, 42, 10, 0.15), (10249, 14, 9, 1);
"""

FILMS = """
CREATE TABLE film (film_id int NOT NULL, title VARCHAR(255) NOT NULL,
  description BLOB SUB_TYPE TEXT DEFAULT NULL, release_year VARCHAR(4) DEFAULT NULL,
  rental_duration SMALLINT DEFAULT 3 NOT NULL, rental_rate DECIMAL(4,2) DEFAULT 4.99 NOT NULL,
  rating VARCHAR(10) DEFAULT 'G', last_update TIMESTAMP NOT NULL, PRIMARY KEY (film_id),
  CONSTRAINT CHECK_rating CHECK (rating IN ('G', 'PG', 'R')));
CREATE TABLE film_actor (actor_id INT NOT NULL, film_id INT NOT NULL,
  last_update TIMESTAMP NOT NULL, PRIMARY KEY (actor_id, film_id),
  CONSTRAINT fk_film_actor_film FOREIGN KEY (film_id) REFERENCES film (film_id)
    ON DELETE NO ACTION ON UPDATE CASCADE);
CREATE INDEX idx_fk_film_actor_film ON film_actor (film_id);
CREATE TRIGGER film_trigger_ai AFTER INSERT ON film BEGIN
  UPDATE film SET last_update = DATETIME('NOW') WHERE rowid = new.rowid; END;
CREATE VIEW film_list AS SELECT title, rating FROM film;
INSERT INTO film VALUES (1, 'ACADEMY', 'A dull tale', '2006', 6, 0.99, 'PG', '2006-02-15'),
  (3, 'ADAPTATION', NULL, '2006', 7, 2.99, 'G', '2006-02-15 05:03:42');
INSERT INTO film_actor VALUES (1, 1, '2006-02-15'), (1, 3, '2006-02-15'), (10, 1, '2006-02-15');
"""


def write(path: Path) -> Path:
    """All three in one file, so that they cost one run."""
    return file_of(path, MUSIC + TRADE + FILMS)


def test_the_manners_of_well_known_files(
    migrate: Migrate, postgres: Database, tmp_path: Path
) -> None:
    source = write(tmp_path / "known.db")
    report = migrate(source, only=("*",), names="snake", chunk_rows=2)
    assert report.is_done, report.errors
    assert differences(source, postgres.connect(), snake) == []
    assert {(note.table, note.object) for note in report.run.not_carried_over} == {
        ("film", "trigger film_trigger_ai"),
        (None, "view Order Subtotals"),
        (None, "view film_list"),
    }
    kinds = types(postgres)
    assert kinds["song", "unit_price"] == ("numeric", None)
    assert kinds["song", "released"] == kinds["film", "last_update"]
    assert kinds["orders", "order_date"] == ("timestamp with time zone", "now()")
    assert kinds["staff", "photo"] == ("bytea", None)
    assert kinds["staff", "hire_date"] == ("date", None)
    assert kinds["film", "description"] == ("text", None)  # BLOB SUB_TYPE TEXT is text to SQLite.
    assert kinds["film", "film_id"] == ("bigint", None)
    assert kinds["film", "rental_rate"] == ("numeric", "4.99")
    keys = postgres.rows(
        "SELECT conrelid::regclass::text, pg_get_constraintdef(oid) FROM pg_constraint"
        " WHERE contype IN ('p', 'f') AND connamespace = 'public'::regnamespace"
    )
    assert {definition for table, definition in keys if table == "film"} == {
        "PRIMARY KEY (film_id)"
    }
    assert ("order_details", "PRIMARY KEY (order_id, product_id)") in keys
    assert sum(definition.startswith("FOREIGN") for _, definition in keys) == 5


def test_names_in_lower_case(migrate: Migrate, postgres: Database, tmp_path: Path) -> None:
    source = write(tmp_path / "known.db")
    report = migrate(source, only=("[A-S]*",), exclude=("film*",), names="lower")
    assert report.is_done, report.errors
    with closing(sqlite3.connect(source)) as connection:
        names = connection.execute("SELECT name FROM sqlite_master WHERE type = 'table'").fetchall()
        for (name,) in names:
            if name.lower() not in report.tables and not name.startswith("sqlite_"):
                connection.execute(f'DROP TABLE "{name}"')
        connection.commit()
    assert differences(source, postgres.connect(), str.lower) == []
    assert ("orderdate", "now()") in postgres.rows(
        "SELECT column_name, column_default FROM information_schema.columns"
        " WHERE table_name = 'orders'"
    )


def types(postgres: Database) -> dict[tuple[str, str], tuple[Any, ...]]:
    """By table and column the type and the default."""
    return {
        (table, column): (kind, default)
        for table, column, kind, default in postgres.rows(
            "SELECT table_name, column_name, data_type, column_default"
            " FROM information_schema.columns WHERE table_schema = 'public'"
        )
    }
