"""``kg worker``: a Celery worker with the right options."""

import os
from typing import Annotated

import typer

from kgcore.config import load_settings
from kgcore.errors import SettingsError
from workers import listen
from workers.cli.context import target, worker_command
from workers.queues import KINDS


def register(app: typer.Typer) -> None:
    """Add the command."""
    app.command()(worker)


def worker(
    concurrency: Annotated[
        int, typer.Option(min=1, max=256, help="Steps at a time; about one a core is right.")
    ] = 2,
    name: Annotated[str, typer.Option(help="Its name; %h is the host's.")] = "kg-%i@%h",
    queues: Annotated[
        str,
        typer.Option(
            metavar="KIND,…",
            help="Take only these kinds of steps: load, index, verify. Index steps build and move"
            " tables; the others only send rows.",
        ),
    ] = ",".join(KINDS),
    loglevel: Annotated[str, typer.Option(help="DEBUG, INFO, WARNING or ERROR.")] = "INFO",
) -> None:
    """Join in: take steps of any run into this target from Redis and do them.

    The same as `celery -A workers.app worker` with options that fit. Needs the target's PG_*
    settings, KG_REDIS_URL and KG_DATA_DIR, the same on all machines. SIGTERM ends it after the
    steps at hand.
    """
    chosen = [kind.strip() for kind in queues.split(",")]
    if not set(chosen) <= set(KINDS):
        raise SettingsError(
            f"--queues is {queues!r}", f"name one or more of {', '.join(KINDS)}, with commas"
        )
    os.environ[listen.VARIABLE] = ",".join(dict.fromkeys(chosen))
    with target(load_settings()):
        pass  # Wrong settings are said here, in two lines, and not by each step.
    named = name.replace("%i", str(os.getpid()))
    command = [*worker_command(concurrency, named), "--loglevel", loglevel.upper()]
    os.execv(command[0], command)  # noqa: S606 (no shell is wanted)
