"""The floor: the least PostgreSQL itself takes for the same tables, without any of this project.

Two psql processes ``\\copy`` ready-made binary files into bare tables; then two connections build
the same indexes, keys and foreign keys, and gather statistics.
"""

import os
import subprocess
import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import psycopg2
from psycopg2.sql import SQL, Composable, Identifier

from kgcore.migration.model import PlannedTable
from kgcore.migration.stages import encode, extract
from kgcore.migration.stages.check import check
from kgcore.schema import postgres as ddl

SCHEMA = "kg_floor"


def write_files(source: Path, tables: Sequence[PlannedTable], directory: Path) -> list[list[Path]]:
    """Write each chunk as a binary COPY file; return them dealt out to two streams."""
    streams: list[list[Path]] = [[], []]
    for planned in sorted(tables, key=lambda item: item.rows, reverse=True):
        for number, chunk in enumerate(planned.chunks):
            path = directory / f"{planned.table.name}.{number}"
            try:
                batch = extract.read_arrow(source, planned, chunk)
                path = path.with_suffix(f"{path.suffix}.binary")
                path.write_bytes(b"".join(encode.encode(planned.table, batch)))
            except encode.UnsuitedError:  # Timestamps of several forms: the careful lane's.
                path = path.with_suffix(".text")
                with path.open("w", encoding="utf-8") as file:
                    for rows in extract.read_rows(source, planned, chunk):
                        file.writelines(f"{line}\n" for line in check(planned.table, rows).lines)
            streams[number % 2].append(path)
    return streams


def measure(
    parameters: Mapping[str, Any],
    tables: Sequence[PlannedTable],
    streams: list[list[Path]],
    psql: Path,
) -> dict[str, float]:
    """Return the seconds of ``load``, ``index`` (with keys and ANALYZE) and ``total``."""
    with psycopg2.connect(**parameters) as connection, connection.cursor() as cursor:
        cursor.execute(f"CREATE SCHEMA {SCHEMA}")
        for planned in tables:
            cursor.execute(ddl.create_table(SCHEMA, planned.table))
    connection.close()
    began = time.perf_counter()
    _load(parameters, streams, psql)
    loaded = time.perf_counter()
    _finish(parameters, tables)
    ended = time.perf_counter()
    return {"load": loaded - began, "index": ended - loaded, "total": ended - began}


def _load(parameters: Mapping[str, Any], streams: list[list[Path]], psql: Path) -> None:
    environment = {
        **os.environ,
        "PGHOST": parameters["host"],
        "PGPORT": str(parameters["port"]),
        "PGUSER": parameters["user"],
        "PGPASSWORD": parameters["password"],
        "PGDATABASE": parameters["dbname"],
    }
    running = []
    for files in streams:
        script = "".join(
            f"\\copy {SCHEMA}.{table} FROM '{path}' WITH (FORMAT {form})\n"
            for path in files
            for table, _, form in [path.name.split(".")]
        )
        process = subprocess.Popen(
            [psql, "-q", "-v", "ON_ERROR_STOP=1"], stdin=subprocess.PIPE, env=environment
        )
        assert process.stdin is not None
        process.stdin.write(script.encode())
        process.stdin.close()
        running.append(process)
    for process in running:
        if process.wait() != 0:
            raise RuntimeError("psql failed")


def _finish(parameters: Mapping[str, Any], tables: Sequence[PlannedTable]) -> None:
    """Large tables first, and keys when all indexes are there: the best order we found."""
    ordered = sorted(tables, key=lambda item: item.rows, reverse=True)
    indexes: list[list[Composable]] = [
        [ddl.create_index(SCHEMA, planned.table, index)]
        for planned in ordered
        for index in ddl.all_indexes(planned.table)
    ]
    keys: list[list[Composable]] = []
    for planned in ordered:
        table = planned.table
        unique = [index for index in ddl.all_indexes(table) if index.is_constraint]
        statements: list[Composable] = [
            ddl.attach_constraint(SCHEMA, table, index) for index in unique
        ]
        for key in table.foreign_keys:
            statements.append(ddl.add_foreign_key(SCHEMA, table, key))
            statements.append(ddl.validate(SCHEMA, table, key))
        statements.append(SQL("ANALYZE {}").format(Identifier(SCHEMA, table.name)))
        keys.append(statements)

    def run(statements: list[Composable]) -> None:
        connection = psycopg2.connect(**parameters)
        connection.autocommit = True
        try:
            with connection.cursor() as cursor:
                for statement in statements:
                    cursor.execute(statement)
        finally:
            connection.close()

    for phase in (indexes, keys):
        _by_two(run, phase)


def _by_two(run: Callable[[list[Composable]], None], work: list[list[Composable]]) -> None:
    with ThreadPoolExecutor(2) as threads:
        list(threads.map(run, work))
