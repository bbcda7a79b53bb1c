"""What a step needs of the process it runs in."""

import logging
from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from kgcore.backends import ConnectionPool
from kgcore.errors import KGError
from kgcore.migration.model import Run
from kgcore.migration.sources import Sources
from kgcore.migration.sources.cache import Cache

_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Workplace:
    """A pool, the source snapshots' root, a name.

    ``own_sources`` are the sources that this machine has or can get, by default those in
    ``data_dir``. ``fetching`` is told how many bytes of a run's source are here, of how many.
    """

    pool: ConnectionPool
    data_dir: Path
    worker: str
    own_sources: Sources | None = None
    fetching: Callable[[str, int, int], None] | None = None

    @property
    def sources(self) -> Sources:
        """The sources of this machine."""
        return self.own_sources or Sources(self.data_dir, Cache(self.data_dir / "cache"))

    def held(self, run: Run) -> AbstractContextManager[Path]:
        """Give the run's source, fetched if need be; it stays here while the block lasts.

        Raises as :meth:`Sources.held`.
        """
        tell = None if self.fetching is None else partial(self.fetching, run.run_id)
        return self.sources.held(run.source, tell)

    def fetch(self, run: Run) -> KGError | None:
        """Bring the run's source to this machine; return why it can't be had."""
        try:
            with self.held(run):
                return None
        except KGError as error:
            return error

    def discard(self, run: Run) -> None:
        """Delete the source snapshot where this machine has it; what is left is only logged."""
        try:
            self.sources.discard(run.source)
        except (OSError, KGError) as error:
            _log.warning("the source snapshot %s is left: %s", run.source.path, error)
