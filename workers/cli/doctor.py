"""``kg doctor``: every requirement checked, each failure with the command that mends it."""

import sqlite3
from collections.abc import Callable, Iterator
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import typer

from kgcore.config import Settings, load_settings
from kgcore.errors import BrokerError, KGError, SettingsError
from kgcore.migration import runs
from kgcore.migration.model import Options
from workers.cli.context import target
from workers.cli.migrate import Json
from workers.cli.output import STATE, out, print_json
from workers.cli.share import require_sight
from workers.coordinator import answering_workers
from workers.progress import Channel
from workers.sharing import Sharing


@dataclass(frozen=True, slots=True)
class Finding:
    """One requirement: whether it holds, what was found, and the mend where it doesn't."""

    name: str
    ok: bool
    found: str
    mend: str = ""


def register(app: typer.Typer) -> None:
    """Add the command."""
    app.command()(doctor)


def doctor(
    source: Annotated[
        Path | None, typer.Argument(help="Also check this SQLite file (by freezing a copy).")
    ] = None,
    json: Json = False,
) -> int:
    """Check settings, target, rights, broker, workers and source; name the mend of each fault.

    Exit code 0 if a migration could start now, 1 if not.
    """
    STATE.json = json
    findings = list(_examine(source))
    if json:
        print_json(
            [{"name": f.name, "ok": f.ok, "found": f.found, "mend": f.mend} for f in findings]
        )
    else:
        for finding in findings:
            mark, style = ("✓", "green") if finding.ok else ("✗", "red")
            out.print(f"{mark} {finding.name}: {finding.found}", style=style, markup=False)
            if finding.mend:
                out.print(f"    {finding.mend}", markup=False)
    return 0 if all(finding.ok for finding in findings) else 1


def _examine(source: Path | None) -> Iterator[Finding]:
    try:
        settings = load_settings()
    except SettingsError as error:
        yield Finding("settings", ok=False, found=error.message, mend=error.hint)
        return
    yield Finding("settings", ok=True, found=f"data directory {settings.kg_data_dir}")
    yield _finding("target", lambda: _target(settings))
    broker = _finding("broker", lambda: _broker(settings))
    yield broker
    if broker.ok:
        workers = _finding("workers", _workers)
        yield workers
        if workers.ok:
            yield _finding("source access", lambda: _source_access(settings))
    if source is not None:
        yield _finding("source", lambda: _source(source, settings))


def _finding(name: str, examine: Callable[[], str]) -> Finding:
    try:
        return Finding(name, ok=True, found=examine())
    except KGError as error:
        return Finding(name, ok=False, found=error.message, mend=error.hint)


def _target(settings: Settings) -> str:
    with target(settings) as backend:
        schema = runs.check_target(backend.pool, Options(if_exists="replace"))
        row = backend.fetchone(
            "SELECT current_setting('server_version') AS version, current_database() AS name,"
            " current_user AS role, current_setting('max_connections') AS connections"
        )
    found = dict(row or {})
    return (
        f"PostgreSQL {found['version']}, database {found['name']}, schema {schema}, role"
        f" {found['role']}, max_connections {found['connections']}"
    )


def _broker(settings: Settings) -> str:
    with closing(Channel(settings.redis_url())) as channel:
        return f"Redis {channel.server_version()}"


def _workers() -> str:
    names = answering_workers(2.0)
    if not names:
        raise BrokerError("none answers", "start one on any machine: kg worker")
    return ", ".join(names)


def _source_access(settings: Settings) -> str:
    require_sight(Sharing(), answering_workers())
    return f"all workers see {settings.kg_data_dir}"


def _source(source: Path, settings: Settings) -> str:
    prepared = runs.prepare(source, settings.kg_data_dir, Options())
    runs.release_source(prepared)
    rows = ", ".join(f"{item.table.name} {item.rows:,}" for item in prepared.tables)
    return f"SQLite {sqlite3.sqlite_version} reads it: {rows}"
