"""``kg demo``: the main job on private servers, from nothing to a verified graph."""

import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Annotated

import typer

from kgcore.config import Settings
from kgcore.migration import ledger, runs
from kgcore.migration.model import IN_PROGRESS
from kgcore.sample import make_from_git, make_synthetic
from workers import embedded as servers
from workers.cli.bars import Bars
from workers.cli.context import target
from workers.cli.embedded import DEFAULT, called, dir_option
from workers.cli.output import out
from workers.embedded.postgres import wheel_programs

_SCRATCH = "kg-demo-"


def register(app: typer.Typer) -> None:
    """Add the command."""
    app.command()(demo)


def demo(
    directory: Annotated[
        Path, typer.Option("--dir", help="Where the private servers keep their data.")
    ] = DEFAULT,
    repository: Annotated[
        Path | None,
        typer.Option(metavar="DIR", help="The git repository to migrate; this one by default."),
    ] = None,
    rows: Annotated[
        int, typer.Option(min=200, help="How many rows the synthetic graph has.")
    ] = 200_000,
    keep: Annotated[
        bool, typer.Option("--keep", help="Leave the servers running, to look around.")
    ] = False,
) -> int:
    """Start private servers and two workers, and migrate two sample graphs with them.

    The first graph is a git repository's history, the second a synthetic one.
    """
    place = directory.absolute()
    out.rule("private servers")
    private = servers.up(place)
    _say(f"PostgreSQL and Redis are up on loopback, in {place}")
    try:
        _enter(private, place)
        _give_up_interrupted()
        with tempfile.TemporaryDirectory(prefix=_SCRATCH) as scratch:
            graphs = _sample(Path(scratch), repository or Path.cwd(), rows)
            code = _migrate(graphs)
    finally:
        if not keep:
            servers.down(place)
    out.rule("your turn")
    kg = called()
    psql = "psql" if shutil.which("psql") else os.path.relpath(wheel_programs() / "psql")
    shown = dir_option(directory)
    _say(
        "To look at the graph:\n"
        f"  {kg} embedded up{shown}\n"
        f'  eval "$({kg} embedded env{shown})"\n'
        f"  PGPASSWORD=$PG_PASSWORD {psql} -h $PG_HOST -p $PG_PORT -U $PG_USER $PG_DATABASE\n"
        "To migrate a file of your own:\n"
        f"  {kg} migrate your.db --local-workers 2 --if-exists replace\n"
        "To a server of your own: set PG_HOST, PG_DATABASE, PG_USER, PG_PASSWORD and KG_REDIS_URL;"
        f" {kg} doctor checks them."
    )
    return code


def _enter(private: dict[str, str], place: Path) -> None:
    """Let this process, and those it starts, know of the private servers and of no other."""
    for name in [name for name in os.environ if name.startswith(("PG", "CELERY_"))]:
        del os.environ[name]
    # As empty they count as unset, even where .env has them.
    os.environ.update({name.upper(): "" for name in Settings.model_fields})
    os.environ.update(private, KG_DATA_DIR=str(place / "data"))


def _give_up_interrupted() -> None:
    """Cancel what an interrupted demo left in progress: it would be in the way.

    A run of the user's own, to whom the same servers are shown, is left alone.
    """
    with target() as backend:
        with ledger.transaction(backend.pool) as cursor:
            known = ledger.list_runs(cursor) if ledger.is_installed(cursor) else ()
        for run in known:
            if run.state in IN_PROGRESS and Path(run.source).parent.name.startswith(_SCRATCH):
                runs.cancel(backend.pool, run.run_id)
                out.print(f"cancelled run {run.run_id} of a demo that was interrupted")


def _sample(scratch: Path, repository: Path, rows: int) -> list[Path]:
    history, synthetic = scratch / "history.db", scratch / "synthetic.db"
    graphs = [synthetic]
    out.rule("sample graphs")
    with Bars() as bars:
        if (repository / ".git").exists():
            counts = make_from_git(history, repository, progress=bars.stage)
            text = f"{counts.missions:,} commits, {counts.snapshots:,} file versions"
            _say(f"{repository}: {text}")
            graphs.insert(0, history)
        else:
            text = "is no git repository: only the synthetic graph"
            _say(f"{repository} {text}")
        make_synthetic(
            synthetic,
            entities=rows * 25 // 100,
            relationships=rows * 60 // 100,
            missions=rows * 3 // 100,
            snapshots=rows * 12 // 100,
            progress=bars.stage,
        )
    return graphs


def _migrate(graphs: list[Path]) -> int:
    code = 0
    for graph in graphs:
        out.rule(f"kg migrate {graph.name} --local-workers 2 --if-exists replace")
        command = [sys.executable, "-m", "workers.cli", "migrate", str(graph)]
        done = subprocess.run(
            [*command, "--local-workers", "2", "--if-exists", "replace"], check=False
        )
        code = code or done.returncode
    return code


def _say(text: str) -> None:
    """Print as it is, whatever the width: there are paths in it, and lines to be copied."""
    out.print(text, markup=False, soft_wrap=True)
