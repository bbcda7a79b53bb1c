"""Settings that fit the server's memory, its connections and the size of the tables.

The rules are those of PostgreSQL's manual ("Resource Consumption", "Planner Cost Constants"); where
it gives none, the reason beside the setting says what was reckoned with.
"""

import re
from collections.abc import Iterator
from dataclasses import dataclass

import psycopg2

from kgcore.backends import PostgreSQLBackend
from kgcore.optimizer.model import Suggestion

KIB, MIB, GIB = 1024, 1024**2, 1024**3
_UNITS = {"B": 1, "kB": KIB, "MB": MIB, "GB": GIB, "TB": 1024**4}


@dataclass(frozen=True, slots=True)
class Server:
    """What the suggestions are reckoned from; ``memory`` is None where nobody knows it."""

    memory: int | None
    connections: int
    graph_bytes: int
    checkpoints_by_time: int
    checkpoints_by_wal: int
    version: int


def suggestions(backend: PostgreSQLBackend, memory: int | None = None) -> tuple[Suggestion, ...]:
    """Return the settings that matter most; ``memory`` is the server's, in bytes."""
    rows = backend.fetchall("SELECT name, setting, unit, context FROM pg_settings")
    current = {row["name"]: _bytes(row["setting"], row["unit"]) for row in rows}
    at_restart = {row["name"] for row in rows if row["context"] == "postmaster"}
    server = _server(backend, memory, int(current["max_connections"]))
    return tuple(_suggestions(server, current, at_restart))


def server_memory(backend: PostgreSQLBackend) -> int | None:
    """Return the memory of the server's machine or container, as far as it may be asked."""
    found = []
    # On the server, not here. Only superusers and members of pg_read_server_files may.
    for path, pattern, unit in (
        ("/proc/meminfo", r"MemTotal:\s+(\d+) kB", KIB),
        ("/sys/fs/cgroup/memory.max", r"^(\d+)\s*$", 1),
    ):
        try:
            row = backend.fetchone("SELECT pg_read_file(?, 0, 4096, true) AS text", (path,))
        except psycopg2.Error:
            return None
        if row is not None and (number := re.search(pattern, row["text"] or "")):
            found.append(int(number[1]) * unit)
    return min(found, default=None)


def parsed_size(text: str) -> int:
    """Return the bytes of ``16GB``, ``512 MB``. Raises ValueError for anything else."""
    found = re.fullmatch(r"\s*(\d+(?:\.\d+)?)\s*([kMGT]?)i?B\s*", text)
    if found is None or float(found[1]) <= 0:
        raise ValueError(f"{text!r} is no size: write it like 16GB")
    return int(float(found[1]) * _UNITS[found[2] + "B"])


def _server(backend: PostgreSQLBackend, memory: int | None, connections: int) -> Server:
    with backend.pool.connection() as connection:
        version = connection.server_version
    # Checkpoints moved to a view of their own.
    view, by_time, by_wal = (
        ("pg_stat_checkpointer", "num_timed", "num_requested")
        if version >= 170000
        else ("pg_stat_bgwriter", "checkpoints_timed", "checkpoints_req")
    )
    row = backend.fetchone(
        f"SELECT {by_time} AS by_time, {by_wal} AS by_wal, (SELECT coalesce(sum("
        "pg_total_relation_size(c.oid)), 0)::bigint FROM pg_class c JOIN pg_namespace n"
        " ON n.oid = c.relnamespace WHERE n.nspname = current_schema() AND c.relkind = 'r')"
        f" AS graph_bytes FROM {view}"
    )
    found = row or {"by_time": 0, "by_wal": 0, "graph_bytes": 0}
    return Server(
        server_memory(backend) if memory is None else memory,
        connections,
        found["graph_bytes"],
        found["by_time"],
        found["by_wal"],
        version,
    )


def _suggestions(
    server: Server, current: dict[str, float | str], at_restart: set[str]
) -> Iterator[Suggestion]:
    def about(name: str, wanted: float, why: str, *, change: bool) -> Suggestion:
        value = current[name]
        in_bytes = name in _IN_BYTES
        shown, new = (_shown(float(number), in_bytes) for number in (value, wanted))
        restart = " -- takes effect at a restart" if name in at_restart else ""
        command = f"ALTER SYSTEM SET {name} = '{new}';{restart}" if change else ""
        return Suggestion(name, shown, new if change else shown, change, why, command)

    def least(name: str, wanted: float, why: str) -> Suggestion:
        # What is near enough isn't worth a restart.
        return about(name, wanted, why, change=float(current[name]) < wanted * 0.75)

    memory = server.memory
    if memory is not None:
        graph = f"{server.graph_bytes / MIB:,.0f} MiB"
        shared = _rounded(min(memory / 4, max(128 * MIB, server.graph_bytes * 2)))
        yield least(
            "shared_buffers", shared, f"a quarter of the memory, or twice the graph ({graph})"
        )
        yield least(
            "effective_cache_size",
            _rounded(memory * 0.75),
            "what system and shared_buffers cache together; the planner's guess, takes no memory",
        )
        work = _rounded(min(max(memory / 4 / server.connections, 4 * MIB), 64 * MIB))
        yield least(
            "work_mem",
            work,
            "for each sort and hash: a quarter of the memory over max_connections",
        )
        yield least(
            "maintenance_work_mem",
            _rounded(min(max(memory / 16, 64 * MIB), GIB)),
            "VACUUM and index builds, few at a time: a sixteenth of the memory",
        )
    fits = memory is not None and server.graph_bytes < memory / 2
    yield about(
        "random_page_cost",
        1.1,
        "the graph fits into memory, where any page is as near as the next"
        if fits
        else "on SSDs; leave it where the disk is a rotating one",
        change=float(current["random_page_cost"]) > 2,
    )
    if server.version < 180000:
        yield least("effective_io_concurrency", 16, "on SSDs; the default since PostgreSQL 18")
    forced = server.checkpoints_by_wal > max(server.checkpoints_by_time, 10)
    yield about(
        "max_wal_size",
        float(current["max_wal_size"]) * 2,
        f"{server.checkpoints_by_wal} checkpoints because WAL ran full,"
        f" {server.checkpoints_by_time} by time",
        change=forced,
    )
    yield Suggestion(
        "autovacuum",
        str(current["autovacuum"]),
        "on",
        current["autovacuum"] != "on",
        "without it dead rows and old statistics pile up",
        "ALTER SYSTEM SET autovacuum = on;" if current["autovacuum"] != "on" else "",
    )


_IN_BYTES = {
    "shared_buffers",
    "effective_cache_size",
    "work_mem",
    "maintenance_work_mem",
    "max_wal_size",
}


def _bytes(setting: str, unit: str | None) -> float | str:
    """Return a number, in bytes where it is a size; text as it is."""
    try:
        number = float(setting)
    except ValueError:
        return setting
    found = re.fullmatch(r"(\d*)([kMGT]?B)", unit or "")
    return number if found is None else number * int(found[1] or 1) * _UNITS[found[2]]


def _rounded(size: float) -> int:
    unit = GIB if size >= 8 * GIB else MIB
    return int(size // unit * unit)


def _shown(value: float, in_bytes: bool) -> str:
    if not in_bytes:
        return f"{value:g}"
    for unit in ("GB", "MB", "kB"):
        if value >= _UNITS[unit] and value % _UNITS[unit] == 0:
            return f"{value / _UNITS[unit]:.0f}{unit}"
    return f"{value / MIB:.0f}MB" if value >= MIB else f"{value / KIB:.0f}kB"
