"""How a command lets machines without a shared disk have the source: it serves or publishes it."""

from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path
from types import TracebackType
from typing import Self

from kgcore.errors import SettingsError, SourceError
from kgcore.migration.model import SourceSnapshot
from kgcore.migration.sources import Sources, published, served
from kgcore.migration.sources.cache import Cache

Stage = Callable[[str, int, int], None]


class Sharing:
    """What ``--serve`` and ``--publish`` ask for; a server lives as long as the ``with`` block.

    Raises :class:`SettingsError` for what can't be done, before anything was done.
    """

    def __init__(self, serve: str | None = None, publish: str | None = None) -> None:
        if serve is not None and publish is not None:
            raise SettingsError("--serve and --publish are two ways of one thing", "choose one")
        self._endpoint = None if serve is None else served.parse_endpoint(serve)
        self._folder = publish
        if publish is not None:
            published.require_publishable(publish)
        self._stack = ExitStack()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._stack.close()

    @property
    def is_wanted(self) -> bool:
        """Whether there is anything to do."""
        return self._endpoint is not None or self._folder is not None

    @property
    def ends_with_command(self) -> bool:
        """Whether workers can fetch only while the command runs."""
        return self._endpoint is not None

    def offer(self, source: SourceSnapshot, stage: Stage) -> str | None:
        """Let others fetch the source; return its address. Raises :class:`KGError`."""
        if self._endpoint is not None:
            return self._stack.enter_context(served.serve(source, *self._endpoint))
        if self._folder is not None:
            return published.publish(
                source.path, self._folder, lambda done, total: stage("publish", done, total)
            )
        return None


def find_source(data_dir: Path, source: SourceSnapshot) -> SourceSnapshot:
    """Return the source with its path on this machine. Raises :class:`SourceError`."""
    # The cache is never filled here: without an address there is nowhere to fetch from.
    sources = Sources(data_dir, Cache(data_dir / "cache"))
    try:
        with sources.held(replace(source, address=None)) as path:
            return replace(source, path=path)
    except SourceError as error:
        raise SourceError(
            error.message, "run this command on the machine that started the run"
        ) from None
