"""``kg doctor``: every requirement checked, each failure with the command that mends it."""

import sqlite3
from collections.abc import Callable, Iterator
from contextlib import closing
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Annotated

import typer

from kgcore.backends import PostgreSQLBackend
from kgcore.config import Settings, load_settings
from kgcore.errors import KGError, SettingsError, TargetError
from kgcore.migration import new_run, runs, sources
from kgcore.migration.model import PROTOCOL, Options
from kgcore.schema import OLDEST_SQLITE
from workers.announce import Announcement, announcements, fitting, unserved
from workers.cli.arguments import Json
from workers.cli.context import target
from workers.cli.grants import show_grants
from workers.cli.output import STATE, out, print_json
from workers.cli.share import require_sight
from workers.progress import Channel
from workers.queues import KINDS
from workers.sharing import Sharing

_START_ONE = (
    "start one on any machine: kg worker; or let the migration bring its own: kg migrate SOURCE"
    " --local-workers 2"
)


@dataclass(frozen=True, slots=True)
class Finding:
    """One requirement: whether it holds, what was found, and the mend where it doesn't.

    With a mend although it holds: something else is not as it should be, and no obstacle.
    """

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
    grants: Annotated[
        bool,
        typer.Option(
            "--grants", help="Instead print the GRANT statements of the two roles, for psql."
        ),
    ] = False,
    owner: Annotated[
        str | None,
        typer.Option(
            metavar="ROLE",
            help="With --grants: who plans, builds and cuts over; kg_owner by default.",
        ),
    ] = None,
    worker: Annotated[
        str | None,
        typer.Option(
            metavar="ROLE",
            help="With --grants: who only loads and verifies; KG_WORKER_ROLE, or kg_worker.",
        ),
    ] = None,
    schema: Annotated[
        str, typer.Option(metavar="NAME", help="With --grants: where the live tables are.")
    ] = "public",
    json: Json = False,
) -> int:
    """Check settings, target, rights, broker, workers and source; name the mend of each fault.

    Exit code 0 if a migration could start now (where tables are marked `!`, one that replaces
    them), 1 if not.
    """
    STATE.json = json
    if grants:
        show_grants(owner, worker, schema, json=json)
        return 0
    findings = list(_examine(source))
    if json:
        print_json(
            [{"name": f.name, "ok": f.ok, "found": f.found, "mend": f.mend} for f in findings]
        )
    else:
        for finding in findings:
            mark, style = ("✓", "green") if finding.ok else ("✗", "red")
            if finding.ok and finding.mend:
                mark, style = "!", "yellow"
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
    yield sqlite_finding(sqlite3.sqlite_version)
    yield from _target(settings)
    broker = _finding("broker", lambda: _broker(settings))
    yield broker
    if broker.ok:
        yield from _workers(settings)
    if source is not None:
        yield _finding("source", lambda: _source(source, settings))


def sqlite_finding(version: str) -> Finding:
    """Return whether Python's own SQLite, of this version, is new enough."""
    ok = _parts(version) >= _parts(OLDEST_SQLITE)
    mend = f"{OLDEST_SQLITE} or newer is needed: take a Python that was built with one"
    return Finding("sqlite", ok=ok, found=f"SQLite {version}", mend="" if ok else mend)


def _parts(version: str) -> tuple[int, ...]:
    return tuple(map(int, version.split(".")))


def _finding(name: str, examine: Callable[[], str]) -> Finding:
    try:
        return Finding(name, ok=True, found=examine())
    except KGError as error:
        return Finding(name, ok=False, found=error.message, mend=error.hint)


def _target(settings: Settings) -> Iterator[Finding]:
    """Whether tables could be put there; and whether some are in the way unless replaced."""
    replacing = Options(if_exists="replace", worker_role=settings.kg_worker_role)
    in_the_way = None
    try:
        with target(settings) as backend:
            schema = new_run.check_target(backend.pool, replacing)
            server = _server(backend)
            try:
                new_run.check_target(backend.pool, replace(replacing, if_exists="fail"))
            except TargetError as error:
                in_the_way = error
    except KGError as error:
        yield Finding("target", ok=False, found=error.message, mend=error.hint)
        return
    yield Finding("target", ok=True, found=f"{server}, schema {schema}")
    if in_the_way is not None:
        yield Finding("tables", ok=True, found=in_the_way.message, mend=in_the_way.hint)


def _server(backend: PostgreSQLBackend) -> str:
    row = backend.fetchone(
        "SELECT current_setting('server_version') AS version, current_database() AS name,"
        " current_user AS role, current_setting('max_connections') AS connections"
    )
    found = dict(row or {})
    return (
        f"PostgreSQL {found['version']}, database {found['name']}, role {found['role']},"
        f" max_connections {found['connections']}"
    )


def _broker(settings: Settings) -> str:
    with closing(Channel(settings.redis_url())) as channel:
        return f"Redis {channel.server_version()}"


def _workers(settings: Settings) -> Iterator[Finding]:
    """Who does the work; and who answers, but is given none, with what it lacks."""
    try:
        with target(settings) as backend:
            identity = runs.target_identity(backend.pool)
        found = announcements(2.0)
    except KGError as error:
        yield Finding("workers", ok=False, found=error.message, mend=error.hint)
        return
    useful = fitting(found, identity)
    missing = unserved(found, identity)
    if not useful:
        none = "none answers that has this database and version" if found else "none answers"
        yield Finding("workers", ok=False, found=none, mend=_START_ONE)
    else:
        named = "; ".join(
            f"{worker.name} (version {worker.version}, {worker.processes} at a time,"
            f" {' '.join(kind for kind in KINDS if kind in worker.kinds(identity))})"
            for worker in useful
        )
        yield Finding(
            "workers",
            ok=not missing,
            found=named + (f"; nobody takes {' and '.join(missing)} steps" if missing else ""),
            mend=f"start one: kg worker --queues {','.join(missing)}" if missing else "",
        )
        readers = tuple(w.name for w in useful if w.kinds(identity) - {"index"})
        if readers:
            yield _finding("source access", lambda: _source_access(settings, readers))
    for worker in found:
        if worker.protocol != PROTOCOL:
            version = f"{worker.version}, protocol {worker.protocol or 'unknown'}"
            yield Finding(
                f"worker {worker.name}",
                ok=True,
                found=f"it is given no work: its version is {version}; here it is {PROTOCOL}",
                mend=f"install the same version on its machine{_at(worker)}, and start it again",
            )
        elif worker not in useful:
            yield Finding(
                f"worker {worker.name}",
                ok=True,
                found="it is given no work of this run: its settings mean another database",
                mend="if it should help, set PG_HOST, PG_PORT and PG_DATABASE as here on its"
                f" machine{_at(worker)}, and start it again",
            )


def _at(worker: Announcement) -> str:
    return f" ({worker.host})" if worker.host else ""


def _source_access(settings: Settings, workers: tuple[str, ...]) -> str:
    require_sight(Sharing(), workers)
    return f"all workers see {settings.kg_data_dir}"


def _source(source: Path, settings: Settings) -> str:
    prepared = new_run.prepare(source, settings.kg_data_dir, Options())
    sources.release(prepared.source)
    rows = ", ".join(f"{item.table.name} {item.rows:,}" for item in prepared.tables)
    return f"SQLite {sqlite3.sqlite_version} reads it: {rows}"
