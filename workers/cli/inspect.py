"""``kg progress``, ``runs``, ``report``: what only looks."""

import time
from typing import Annotated

import typer

from kgcore.config import load_settings
from kgcore.errors import SettingsError
from kgcore.migration import ledger
from kgcore.migration.model import RunState
from kgcore.migration.reports import read_report
from workers.cli.arguments import Json, RunId
from workers.cli.bars import Bars
from workers.cli.context import target
from workers.cli.output import STATE, notice, out, print_json, show_report, show_table
from workers.cli.prune import prune_runs
from workers.progress import Channel, Progress

_FOLLOW_SECONDS = 0.5


def register(app: typer.Typer) -> None:
    """Add the commands."""
    app.command()(progress)
    app.command(name="runs")(list_runs)
    app.command()(report)


def progress(
    run: Annotated[
        str | None, typer.Argument(metavar="[RUN]", help="The run; the latest by default.")
    ] = None,
    follow: Annotated[
        bool, typer.Option("--follow", help="Go on until the run has ended.")
    ] = False,
    json: Json = False,
) -> None:
    """Show how far a run is. Asks Redis alone, so it costs the target nothing.

    With --follow --json, one object a line, a line each time something changed.
    """
    STATE.json = json
    channel = Channel(load_settings().redis_url())
    try:
        if not follow:
            now = channel.read(run)
            print_json(now.to_json()) if json else _show(now)
            return
        _follow(channel, channel.read(run), json=json)
    finally:
        channel.close()


def list_runs(
    limit: Annotated[int, typer.Option(min=1, help="At most so many.")] = 20,
    prune: Annotated[
        bool, typer.Option("--prune", help="Take away what old runs left, instead of listing them.")
    ] = False,
    older_than: Annotated[
        str,
        typer.Option(metavar="AGE", help="With --prune: runs that ended so long ago: 30d, 12h."),
    ] = "30d",
    run: Annotated[
        list[str] | None,
        typer.Option(metavar="RUN", help="With --prune: only this run, however old. Repeatable."),
    ] = None,
    archives: Annotated[
        bool,
        typer.Option(
            "--archives", help="With --prune: also the tables that kg revert brings back."
        ),
    ] = False,
    unknown_copies: Annotated[
        bool,
        typer.Option(
            "--unknown-copies",
            help="With --prune: also source snapshots of no run of this database. Another"
            " database's run, or one that is just being started, may need them.",
        ),
    ] = False,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="With --prune: only say what would go.")
    ] = False,
    json: Json = False,
) -> None:
    """List the runs of this target, newest first; or prune them.

    Pruning takes ended runs out of the ledger, drops their staging, and deletes their source
    snapshots. What is in progress, and what kg revert may need, stays.

    Examples: `kg runs`, `kg runs --prune --dry-run`, `kg runs --prune --older-than 7d`.
    """
    STATE.json = json
    if prune:
        prune_runs(
            older_than,
            run or (),
            archives=archives,
            unknown_copies=unknown_copies,
            dry_run=dry_run,
            json=json,
        )
        return
    if run or archives or unknown_copies or dry_run:
        raise SettingsError(
            "--run, --archives, --unknown-copies and --dry-run go with --prune", "add --prune"
        )
    with target() as backend, ledger.transaction(backend.pool) as cursor:
        found = ledger.list_runs(cursor, limit) if ledger.is_installed(cursor) else ()
    rows = [
        {
            "run_id": item.run_id,
            "state": str(item.state),
            "source": item.source,
            "rows": item.rows,
            "began_at": item.began_at.isoformat(timespec="seconds"),
            "finished_at": item.finished_at and item.finished_at.isoformat(timespec="seconds"),
            "reverted_at": item.reverted_at and item.reverted_at.isoformat(timespec="seconds"),
            "error": item.error,
        }
        for item in found
    ]
    if json:
        print_json(rows)
    elif rows:
        titles = {"run_id": "run", "shown": "state", "rows": "rows", "began_at": "began"}
        shown = [
            row | {"shown": "reverted" if row["reverted_at"] else row["state"]} for row in rows
        ]
        show_table(titles | {"source": "source", "error": "error"}, shown)
    else:
        out.print("no runs yet: kg migrate SOURCE")


def report(run: RunId, json: Json = False) -> None:
    """Show what a run did, table by table, and where its time went."""
    STATE.json = json
    with target() as backend:
        found = read_report(backend.pool, run)
    print_json(found.to_json()) if json else show_report(found)


def _follow(channel: Channel, now: Progress, *, json: bool) -> None:
    run_id, shown = now.run_id, -1.0
    with Bars(quiet=json) as bars:
        while True:
            if not json:
                bars.progress(now)
            elif now.updated_at != shown:
                shown = now.updated_at
                print_json(now.to_json())
            if now.has_ended:
                break
            time.sleep(_FOLLOW_SECONDS)
            now = channel.read(run_id)
    if not json:
        _show(now)


def _show(now: Progress) -> None:
    out.print(f"run {now.run_id}: {now.state}, {now.percent:.0f} % ({now.stage})")
    for name, (done, total) in now.tables.items():
        out.print(f"  {name}: {done:,} of {total:,} rows")
    if now.state == RunState.PAUSED:
        out.print(f"  paused; to let it go on: kg unpause {now.run_id}")
    elif not now.has_ended:
        left = "?" if now.eta_seconds is None else f"{now.eta_seconds:.0f}"
        out.print(f"  {now.rows_per_second:,.0f} rows/s, about {left} s left")
    for name, (rows, steps, seen) in now.workers.items():
        ago = max(now.asked_at - seen, 0)
        out.print(f"  worker {name}: {rows:,} rows, {steps} steps, last seen {ago:.0f} s ago")
    for error in now.errors:
        notice(f"error: {error}")
