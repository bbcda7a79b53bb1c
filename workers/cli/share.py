"""``--serve`` and ``--publish``, and what is said where a worker would need one of them."""

from contextlib import ExitStack
from typing import Annotated

import typer

from kgcore.config import load_settings
from kgcore.errors import KGError, SettingsError, SourceError
from kgcore.migration.model import Run
from kgcore.migration.sources import HOW_TO_SHARE
from workers.sharing import Sharing, find_source
from workers.sight import blind_workers

Serve = Annotated[
    str | None,
    typer.Option(
        metavar="HOST:PORT",
        help="Let machines without a shared disk fetch the source from here, by HTTP, while this"
        " command runs. HOST is the address by which they reach this machine; port 0: a free one.",
    ),
]
Publish = Annotated[
    str | None,
    typer.Option(
        metavar="URL",
        help="Copy the source into this folder (s3://…, sftp://…, file:///…), from where machines"
        " without a shared disk fetch it. It is deleted after the run.",
    ),
]


def sharing(stack: ExitStack, serve: str | None, publish: str | None, *, detach: bool) -> Sharing:
    """Return what the two options ask for. Raises :class:`SettingsError`."""
    wanted = stack.enter_context(Sharing(serve, publish))
    if wanted.ends_with_command and detach:
        raise SettingsError(
            "--serve ends with this command, and --detach ends it at once",
            "leave one of them out, or use --publish URL",
        )
    return wanted


def require_sight(share: Sharing, workers: tuple[str, ...]) -> None:
    """Raise :class:`SourceError` if one of the workers can neither see the source nor fetch it."""
    if not share.is_wanted and (blind := _blind(workers)):
        raise SourceError(_cant_see(blind), HOW_TO_SHARE)


def sight_warning(run: Run, share: Sharing, workers: tuple[str, ...]) -> str | None:
    """Return what to say of workers that will not get the source of a run that goes on."""
    if share.is_wanted:
        return None
    if (run.source.address or "").startswith("http"):
        return (
            "machines without a shared disk fetched the source from the command that began the"
            " run; if that has ended, give --serve HOST:PORT again"
        )
    try:
        find_source(load_settings().kg_data_dir, run.source)
    except KGError:
        return None  # This machine is not the one that has it, and can't tell.
    if run.source.address is None and (blind := _blind(workers)):
        return f"{_cant_see(blind)}; {HOW_TO_SHARE}"
    return None


def _blind(workers: tuple[str, ...]) -> list[str]:
    data_dir = load_settings().kg_data_dir
    try:
        return blind_workers(data_dir, workers)
    except OSError as error:
        raise SettingsError(
            f"KG_DATA_DIR {data_dir} can't be written: {error.strerror}",
            "name a directory that this user may write",
        ) from None


def _cant_see(names: list[str]) -> str:
    return f"workers don't see this machine's KG_DATA_DIR: {', '.join(names)}"
