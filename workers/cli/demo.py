"""``kg demo``: the main job on private servers, from nothing to a verified graph."""

import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Annotated

import typer

from kgcore.sample import make_from_git, make_synthetic
from workers import embedded as servers
from workers.cli.bars import Bars
from workers.cli.embedded import DEFAULT
from workers.cli.output import out


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
    keep: Annotated[
        bool, typer.Option("--keep", help="Leave the servers running, to look around.")
    ] = False,
) -> int:
    """Start private servers and two workers, and migrate two sample graphs with them.

    The first graph is a git repository's history, the second a synthetic one of 200,000 rows.
    """
    place = directory.absolute()
    out.rule("private servers")
    environment = servers.up(place)
    out.print(f"PostgreSQL and Redis are up on loopback, in {place}")
    try:
        with tempfile.TemporaryDirectory(prefix="kg-demo-") as scratch:
            code = _migrate(Path(scratch), repository, place, environment)
    finally:
        if not keep:
            servers.down(place)
    out.rule("your turn")
    # Most likely make called it, and .venv/bin is on nobody's PATH.
    kg = "kg" if shutil.which("kg") else os.path.relpath(sys.argv[0])
    shown = "" if directory == DEFAULT else f" --dir {directory}"
    out.print(
        "To look at the graph:\n"
        f"  {kg} embedded up{shown}\n"
        f'  eval "$({kg} embedded env{shown})"\n'
        "  PGPASSWORD=$PG_PASSWORD psql -h $PG_HOST -p $PG_PORT -U $PG_USER $PG_DATABASE\n"
        "To migrate a file of your own:\n"
        f"  {kg} migrate your.db --local-workers 2 --if-exists replace\n"
        "To a server of your own: set PG_HOST, PG_DATABASE, PG_USER, PG_PASSWORD and KG_REDIS_URL;"
        f" {kg} doctor checks them.",
        markup=False,
    )
    return code


def _migrate(
    scratch: Path, repository: Path | None, place: Path, environment: dict[str, str]
) -> int:
    graphs = [scratch / "history.db", scratch / "synthetic.db"]
    out.rule("sample graphs")
    with Bars() as bars:
        source = repository or Path.cwd()
        if (source / ".git").exists():
            counts = make_from_git(graphs[0], source, progress=bars.stage)
            out.print(f"{source}: {counts.missions:,} commits, {counts.snapshots:,} file versions")
        else:
            out.print(f"{source} is no git repository: only the synthetic graph", markup=False)
            del graphs[0]
        make_synthetic(
            graphs[-1],
            entities=50_000,
            relationships=120_000,
            missions=6_000,
            snapshots=24_000,
            progress=bars.stage,
        )
    code = 0
    for graph in graphs:
        out.rule(f"kg migrate {graph.name} --local-workers 2 --if-exists replace")
        command = [sys.executable, "-m", "workers.cli", "migrate", str(graph)]
        done = subprocess.run(
            [*command, "--local-workers", "2", "--if-exists", "replace"],
            env={**os.environ, **environment, "KG_DATA_DIR": str(place / "data")},
            check=False,
        )
        code = code or done.returncode
    return code
