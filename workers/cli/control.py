"""``kg pause``, ``unpause``: a run steps aside for a while."""

from typing import Annotated

import typer

from workers.cli.arguments import Json, RunId
from workers.cli.bars import Bars
from workers.cli.coordination import coordinator
from workers.cli.output import STATE, out, print_json


def register(app: typer.Typer) -> None:
    """Add the commands."""
    app.command()(pause)
    app.command()(unpause)


def pause(
    run: RunId,
    now: Annotated[
        bool,
        typer.Option("--now", help="Stop the steps at hand, to be done anew; don't wait for them."),
    ] = False,
    json: Json = False,
) -> None:
    """Let a run rest: nothing new is begun, and it holds no lock and no connection.

    Returns when the steps at hand have ended; what they did counts. What is done is kept, through
    restarts of everything, until kg unpause. No other run may replace the same tables meanwhile.
    """
    STATE.json = json
    STATE.after_interrupt = f"the run is paused, and its steps at hand end: kg progress {run}"
    with Bars(quiet=json) as bars, coordinator(bars) as kg:
        kg.pause(run, at_once=now)
    if json:
        print_json({"run_id": run, "state": "paused"})
    else:
        out.print(f"run {run} is paused; to let it go on: kg unpause {run}")


def unpause(
    run: RunId,
    max_workers: Annotated[
        int | None,
        typer.Option(min=0, help="From now on as for kg migrate; 0 takes the limit away."),
    ] = None,
    max_rows_per_second: Annotated[
        int | None,
        typer.Option(min=0, help="From now on as for kg migrate; 0 takes the limit away."),
    ] = None,
    json: Json = False,
) -> None:
    """Let a paused run go on where it was. A command that watches over it goes on, too.

    Without one, kg resume watches over it.
    """
    STATE.json = json
    with Bars(quiet=json) as bars, coordinator(bars) as kg:
        kg.unpause(run, max_workers=max_workers, max_rows_per_second=max_rows_per_second)
    if json:
        print_json({"run_id": run, "state": "running"})
    else:
        out.print(f"run {run} goes on; to watch over it: kg resume {run}")
