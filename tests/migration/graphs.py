"""Small graphs for tests, written with plain SQL."""

import sqlite3
from collections.abc import Iterable, Sequence
from contextlib import closing
from pathlib import Path
from typing import Any

DDL = """
CREATE TABLE entities (id INTEGER PRIMARY KEY AUTOINCREMENT, type TEXT NOT NULL, name TEXT NOT NULL,
  metadata TEXT, created_at TEXT NOT NULL, updated_at TEXT NOT NULL{unique});
CREATE TABLE relationships (id INTEGER PRIMARY KEY AUTOINCREMENT, from_id INTEGER NOT NULL,
  to_id INTEGER NOT NULL, type TEXT NOT NULL, metadata TEXT, created_at TEXT NOT NULL,
  FOREIGN KEY (from_id) REFERENCES entities(id), FOREIGN KEY (to_id) REFERENCES entities(id));
CREATE TABLE mission_history (id INTEGER PRIMARY KEY AUTOINCREMENT, mission_id TEXT NOT NULL,
  status TEXT NOT NULL, domain TEXT, cost_usd REAL, iterations INTEGER, duration_seconds REAL,
  files_modified INTEGER, metadata TEXT, created_at TEXT NOT NULL);
CREATE TABLE file_snapshots (id INTEGER PRIMARY KEY AUTOINCREMENT, file_path TEXT NOT NULL,
  mission_id TEXT, size_bytes INTEGER, lines_of_code INTEGER, hash TEXT, created_at TEXT NOT NULL,
  metadata TEXT);
"""
NOW = "2026-01-02T03:04:05Z"


def write_graph(
    path: Path,
    *,
    entities: Iterable[Sequence[Any]] = (),
    relationships: Iterable[Sequence[Any]] = (),
    missions: Iterable[Sequence[Any]] = (),
    snapshots: Iterable[Sequence[Any]] = (),
    unique: bool = True,
    more: str = "",
) -> Path:
    """Write a graph of exactly these rows; ``more`` is SQL to run at the end."""
    with closing(sqlite3.connect(path)) as connection:
        connection.executescript(DDL.format(unique=", UNIQUE(type, name)" if unique else ""))
        for table, width, rows in (
            ("entities", 6, entities),
            ("relationships", 6, relationships),
            ("mission_history", 10, missions),
            ("file_snapshots", 8, snapshots),
        ):
            marks = ", ".join("?" * width)
            connection.executemany(f"INSERT INTO {table} VALUES ({marks})", rows)
        connection.executescript(more)
        connection.commit()
    return path


def entity(
    row_id: int, name: str | None = None, metadata: Any = "{}", at: Any = NOW
) -> tuple[Any, ...]:
    """An entity's row."""
    return (row_id, "file", f"file {row_id}" if name is None else name, metadata, at, at)


def relationship(row_id: int, from_id: int, to_id: int) -> tuple[Any, ...]:
    """A relationship's row."""
    return (row_id, from_id, to_id, "worked_on", None, NOW)


def mission(row_id: int, cost: Any = 0.5, mission_id: str | None = None) -> tuple[Any, ...]:
    """A mission's row."""
    name = mission_id or f"m{row_id}"
    return (row_id, name, "success", "coding", cost, 1, 2.5, 3, None, NOW)


def snapshot(row_id: int) -> tuple[Any, ...]:
    """A file snapshot's row."""
    return (row_id, f"dir/{row_id}.py", "m1", 10, 2, "ab" * 32, NOW, '{"binary": false}')


def small_graph(path: Path, rows: int = 300) -> Path:
    """A graph with gaps in its ids and a few rows of each kind."""
    ids = [row_id for row_id in range(1, rows + 1) if row_id % 7]
    return write_graph(
        path,
        entities=[entity(row_id) for row_id in ids],
        relationships=[
            relationship(3 * number + 1, ids[number], ids[-number - 1])
            for number in range(len(ids))
        ],
        missions=[mission(row_id) for row_id in range(5, 40)],
        snapshots=[snapshot(row_id) for row_id in range(100, 160, 2)],
        more="UPDATE sqlite_sequence SET seq = seq + 1000 WHERE name = 'entities';",
    )


def file_of(path: Path, script: str) -> Path:
    """A file made by a script, with a function ``own`` that nobody else has."""
    path.unlink(missing_ok=True)
    with closing(sqlite3.connect(path)) as connection:
        connection.create_function("own", 1, str, deterministic=True)
        connection.executescript(script)
    return path
