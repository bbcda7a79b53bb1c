"""``kg sample``: a graph to try things with."""

from pathlib import Path
from typing import Annotated

import typer

from kgcore.errors import SettingsError
from kgcore.sample import make_from_git, make_synthetic
from workers.cli.bars import Bars
from workers.cli.output import out


def register(app: typer.Typer) -> None:
    """Add the command."""
    app.command()(sample)


def sample(
    output: Annotated[Path, typer.Argument(metavar="OUT.db", help="The SQLite file to write.")],
    from_git: Annotated[
        Path | None,
        typer.Option(
            metavar="DIR", help="Take a git repository's history: commits are missions, and so on."
        ),
    ] = None,
    max_commits: Annotated[
        int | None, typer.Option(min=1, help="With --from-git: only the first N commits.")
    ] = None,
    entities: Annotated[
        int, typer.Option(min=0, help="Entities of a synthetic graph: files, agents, bugs, …")
    ] = 10_000,
    relationships: Annotated[int, typer.Option(min=0, help="Relationships between them.")] = 25_000,
    missions: Annotated[int, typer.Option(min=0, help="Rows of its mission_history.")] = 1_000,
    snapshots: Annotated[int, typer.Option(min=0, help="Rows of its file_snapshots.")] = 5_000,
    seed: Annotated[int, typer.Option(help="The same seed gives the same graph.")] = 0,
    force: Annotated[bool, typer.Option("--force", help="Replace an existing file.")] = False,
) -> None:
    """Write a sample graph: a git repository's history, or a synthetic one of any size.

    Synthetic graphs have gaps in their ids and text of every kind.

    Examples: `kg sample graph.db --from-git .`,
    `kg sample big.db --entities 400000 --relationships 1000000`.
    """
    if max_commits is not None and from_git is None:
        raise SettingsError("--max-commits goes with --from-git", "name the repository too")
    with Bars() as bars:
        if from_git is not None:
            counts = make_from_git(
                output, from_git, max_commits=max_commits, overwrite=force, progress=bars.stage
            )
        else:
            counts = make_synthetic(
                output,
                entities=entities,
                relationships=relationships,
                missions=missions,
                snapshots=snapshots,
                seed=seed,
                overwrite=force,
                progress=bars.stage,
            )
    out.print(
        f"{output}: {counts.entities:,} entities, {counts.relationships:,} relationships,"
        f" {counts.missions:,} missions, {counts.snapshots:,} snapshots"
    )
