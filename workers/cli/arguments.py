"""Arguments and options that several commands have."""

from typing import Annotated

import typer

from kgcore.migration.repairs import ALL, REPAIRS

Json = Annotated[bool, typer.Option("--json", help="Print one JSON object on stdout.")]
RunId = Annotated[str, typer.Argument(metavar="RUN", help="The run's id (kg runs lists them).")]
Repair = Annotated[
    list[str] | None,
    typer.Option(
        metavar="NAME",
        help="Make rows fit that would be refused; may be given again and again. "
        + "; ".join(f"`{item.name}`: {item.summary}" for item in REPAIRS.values())
        + f"; `{ALL}`: each of them, of two that exclude each other the first.",
    ),
]
