"""Live bars on a terminal; plain lines, now and then, where there is none."""

from types import TracebackType
from typing import Self

from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    TaskID,
    TextColumn,
    TimeElapsedColumn,
)
from rich.progress import (
    Progress as RichProgress,
)

from kgcore.migration.model import RunState
from workers.cli.output import err, notice
from workers.progress import Progress


class Bars:
    """Shows a run's progress on stderr while the ``with`` block lasts."""

    def __init__(self, *, quiet: bool = False) -> None:
        self._quiet = quiet
        self._live = err.is_terminal and not quiet
        self._rich = RichProgress(
            TextColumn("{task.description:<16}"),
            BarColumn(bar_width=36),
            MofNCompleteColumn(),
            TextColumn("{task.fields[note]}"),
            TimeElapsedColumn(),
            console=err,
        )
        self._tasks: dict[str, TaskID] = {}
        self._last_line = ""
        self._fetching = False

    def __enter__(self) -> Self:
        if self._live:
            self._rich.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if self._live:
            self._rich.stop()

    def stage(self, name: str, done: int, total: int) -> None:
        """Show how far a stage of the coordinator itself is (pages of the source)."""
        if self._live:
            self._bar(name, done, total, "")

    def progress(self, progress: Progress) -> None:
        """Show the state of a run."""
        if self._live:
            for name, (done, total) in progress.tables.items():
                self._bar(name, done, total, "rows")
            note = progress.stage if progress.state != RunState.PAUSED else "paused"
            if progress.eta_seconds is not None:
                note += f", about {progress.eta_seconds:.0f} s left"
            self._bar("all steps (%)", int(progress.percent), 100, note)
            for worker, (here, total) in progress.fetching.items():
                self._bar(f"fetch {worker}", here, total, "bytes of the source")
            return
        if progress.fetching and not self._fetching and not self._quiet:
            notice(f"fetching the source: {', '.join(progress.fetching)}")
        self._fetching = bool(progress.fetching)
        line = f"{progress.state}: {progress.stage}, {int(progress.percent) // 10 * 10} %"
        if line != self._last_line and not self._quiet:
            self._last_line = line
            notice(line)

    def notice(self, text: str) -> None:
        """Print a line above the bars."""
        notice(text)

    def _bar(self, name: str, done: int, total: int, note: str) -> None:
        if name not in self._tasks:
            self._tasks[name] = self._rich.add_task(name, total=total, note=note)
        self._rich.update(self._tasks[name], completed=done, total=total, note=note)
