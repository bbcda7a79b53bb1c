"""``kg migrate``, ``resume``, ``cancel``, ``revert``: what changes a run."""

import time
from contextlib import ExitStack
from pathlib import Path
from typing import Annotated, Literal

import typer

from kgcore.config import load_settings
from kgcore.errors import BrokerError
from kgcore.migration import new_run, runs, sources
from kgcore.migration.dry_run import dry_run as predict
from kgcore.migration.model import Options, Run, RunState
from kgcore.migration.repairs import choose
from kgcore.schema.translate.names import Names
from workers.announce import announcements, fitting
from workers.cli.arguments import Json, Repair, RunId
from workers.cli.bars import Bars
from workers.cli.context import target
from workers.cli.coordination import coordinator, local_workers
from workers.cli.output import (
    STATE,
    exit_code,
    out,
    print_json,
    show_report,
)
from workers.cli.prediction import show_prediction
from workers.cli.share import Publish, Serve, require_sight, sharing, sight_warning
from workers.coordinator import Coordinator, Watcher
from workers.progress import Progress

# Celery and pyarrow take a second or two to import.
# A worker on a busy machine may need more than one question.
_ANSWER_SECONDS = 3.0
_WORKER_START_SECONDS = 30.0

LocalWorkers = Annotated[
    int,
    typer.Option(
        min=0,
        max=256,
        help="Start N worker processes on this machine, for as long as the command runs.",
    ),
]
Detach = Annotated[
    bool, typer.Option("--detach", help="Return once the steps are sent; kg progress follows.")
]


def register(app: typer.Typer) -> None:
    """Add the commands."""
    app.command()(migrate)
    app.command()(resume)
    app.command()(cancel)
    app.command()(revert)


def migrate(
    source: Annotated[Path, typer.Argument(help="The SQLite file. It is only read.")],
    local_workers: LocalWorkers = 0,
    dry_run: Annotated[
        bool,
        typer.Option(
            "--dry-run",
            help="Do all but change the target: counts, plan, types, every row checked, estimates.",
        ),
    ] = False,
    chunk_rows: Annotated[
        int, typer.Option(min=1, help="Rows of a chunk, the unit of work.")
    ] = 75_000,
    if_exists: Annotated[
        str,
        typer.Option(
            metavar="fail|replace",
            help="Tables with rows in the target: refuse, or move them aside for kg revert."
            " Empty ones are no obstacle.",
        ),
    ] = "fail",
    max_rejects: Annotated[
        int, typer.Option(min=0, help="Cut over with up to N rows that the target can't hold.")
    ] = 0,
    allow_missing: Annotated[
        bool,
        typer.Option(
            "--allow-missing",
            help="Treat tables that the file lacks as empty, and columns as NULL.",
        ),
    ] = False,
    only: Annotated[
        list[str] | None,
        typer.Option(
            metavar="TABLE",
            help="Migrate this table and no other; may be given again and again. `*` stands for"
            " anything: `--only '*'` takes all that the file has, graph or not.",
        ),
    ] = None,
    exclude: Annotated[
        list[str] | None,
        typer.Option(metavar="TABLE", help="Leave a table behind; may be given again and again."),
    ] = None,
    repair: Repair = None,
    names: Annotated[
        str,
        typer.Option(
            metavar="keep|lower|snake",
            help="Names of tables and columns the graph doesn't know: as they are, in lower case,"
            " or InvoiceLine as invoice_line.",
        ),
    ] = "keep",
    serve: Serve = None,
    publish: Publish = None,
    max_workers: Annotated[
        int | None,
        typer.Option(min=1, help="Occupy at most N worker processes at a time, on all machines."),
    ] = None,
    max_rows_per_second: Annotated[
        int | None,
        typer.Option(min=1, help="Send the target at most N rows a second, to spare a live one."),
    ] = None,
    detach: Detach = False,
    json: Json = False,
) -> int:
    """Migrate a SQLite knowledge graph to PostgreSQL.

    Freezes the file, sends its chunks to the workers, verifies every row, and makes the new tables
    live in one transaction. Until then the target's tables stay as they are.

    Examples: `kg migrate graph.db --dry-run`, `kg migrate graph.db --local-workers 2`,
    `kg migrate graph.db --if-exists replace --json`, `kg migrate shop.db --only '*' --names snake`.
    """
    STATE.json = json
    options = Options(
        chunk_rows=chunk_rows,
        if_exists=_if_exists(if_exists),
        max_rejects=max_rejects,
        allow_missing=allow_missing,
        only=tuple(only or ()),
        exclude=tuple(exclude or ()),
        names=_names(names),
        max_workers=max_workers,
        max_rows_per_second=max_rows_per_second,
        worker_role=load_settings().kg_worker_role,
        repairs=choose(repair or ()).names,
    )
    if dry_run:
        return _dry_run(source, options, json=json)
    with ExitStack() as stack:
        bars = stack.enter_context(Bars(quiet=json))
        kg = stack.enter_context(coordinator(bars, _watcher(bars)))
        share = sharing(stack, serve, publish, detach=detach)
        kg.check(options)
        require_sight(share, _workers(stack, local_workers, kg.target))
        run = kg.start(source, options, share)
        return _follow(kg, run.run_id, detach=detach, json=json)


def resume(
    run: RunId,
    local_workers: LocalWorkers = 0,
    max_rejects: Annotated[
        int | None, typer.Option(min=0, help="Allow N rejects from now on.")
    ] = None,
    if_exists: Annotated[
        str | None,
        typer.Option(metavar="fail|replace", help="As for kg migrate, from now on."),
    ] = None,
    serve: Serve = None,
    publish: Publish = None,
    detach: Detach = False,
    json: Json = False,
) -> int:
    """Go on with a run that failed, was interrupted, or has more rejects than were allowed.

    What is done is not done again. For a run in progress this is the way to watch over it.
    """
    STATE.json = json
    with ExitStack() as stack:
        bars = stack.enter_context(Bars(quiet=json))
        kg = stack.enter_context(coordinator(bars, _watcher(bars)))
        share = sharing(stack, serve, publish, detach=detach)
        workers = _workers(stack, local_workers, kg.target)
        resumed = kg.resume(run, max_rejects, _if_exists(if_exists) if if_exists else None, share)
        if resumed.state is RunState.RUNNING and (
            warning := sight_warning(resumed, share, workers)
        ):
            bars.notice(warning)
        return _follow(kg, run, detach=detach, json=json)


def cancel(run: RunId, json: Json = False) -> None:
    """Give a run up: its writers are stopped, staging is dropped, live tables stay."""
    STATE.json = json
    with Bars(quiet=True) as bars, coordinator(bars) as kg:
        before = kg.cancel(run)
    if json:
        print_json({"run_id": run, "state": "cancelled", "was": str(before)})
    else:
        out.print(f"run {run} (it was {before}) is cancelled; the live tables were not touched")


def revert(run: RunId, json: Json = False) -> None:
    """Undo a run's cutover: the old tables are live again, in one transaction.

    The migrated tables are kept, with what was written to them since, in a schema of their own.
    """
    STATE.json = json
    with target() as backend:
        back, kept = runs.revert(backend.pool, run)
    if json:
        print_json({"run_id": run, "restored": list(back), "kept_in": kept})
        return
    named = ", ".join(back) if back else "there were no tables before"
    out.print(f"run {run} is reverted: {named}")
    out.print(f"the migrated tables are kept in schema {kept}; drop it when they are not needed")


def _if_exists(chosen: str) -> Literal["fail", "replace"]:
    match chosen:
        case "fail" | "replace" as known:
            return known
    raise typer.BadParameter(f"--if-exists {chosen!r} is neither 'fail' nor 'replace'")


def _names(chosen: str) -> Names:
    match chosen:
        case "keep" | "lower" | "snake" as known:
            return known
    raise typer.BadParameter(f"--names {chosen!r} is none of 'keep', 'lower' and 'snake'")


def _dry_run(source: Path, options: Options, *, json: bool) -> int:
    def watch(stage: str, done: int, total: int) -> None:
        STATE.heed()
        bars.stage(stage, done, total)

    with Bars(quiet=json) as bars, target() as backend:
        new_run.check_target(backend.pool, options)
        prepared = new_run.prepare(source, load_settings().kg_data_dir, options, watch)
        try:
            new_run.check_tables(backend.pool, prepared, options)
            prediction = predict(prepared, choose(options.repairs), backend.pool, watch)
        finally:
            sources.release(prepared.source)
    if json:
        print_json(prediction.to_json())
    else:
        show_prediction(prediction)
    return 3 if prediction.counted_rows > options.max_rejects else 0


def _follow(kg: Coordinator, run_id: str, *, detach: bool, json: bool) -> int:
    if detach:
        if json:
            print_json({"run_id": run_id, "state": "running"})
        else:
            out.print(f"run {run_id} is under way: kg progress {run_id} --follow")
        return 0
    report = kg.follow(run_id)
    if json:
        print_json(report.to_json())
    else:
        show_report(report)
    return exit_code(report)


def _watcher(bars: Bars) -> Watcher:
    def started(run: Run) -> None:
        STATE.run_id = run.run_id
        STATE.after_interrupt = f"workers finish what they have; {STATE.to_go_on}"
        if not STATE.json:
            bars.notice(f"run {run.run_id}")

    def progress(now: Progress) -> None:
        STATE.heed()
        bars.progress(now)

    return Watcher(bars.stage, started, progress, bars.notice)


def _workers(stack: ExitStack, number: int, target: str) -> tuple[str, ...]:
    """Start local workers; return who will read the source, before anything is touched."""
    if number:
        stack.enter_context(local_workers(number))
    deadline = time.monotonic() + (_WORKER_START_SECONDS if number else _ANSWER_SECONDS)
    while len(useful := fitting(found := announcements(), target)) < max(number, 1):
        if time.monotonic() >= deadline:
            if found:
                raise BrokerError(
                    "workers answer, but none of this database and version"
                    f" ({', '.join(worker.name for worker in found)})",
                    "kg doctor says of each what it lacks; or let this command bring its own:"
                    " --local-workers 2",
                )
            raise BrokerError(
                "no worker answers",
                "start one on any machine: kg worker; or let this command bring its own:"
                " --local-workers 2",
            )
    return tuple(worker.name for worker in useful if worker.kinds(target) - {"index"})
