"""What commands print: people's words on the terminal, one JSON object on stdout."""

import json
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from rich.console import Console
from rich.table import Table

from kgcore.migration.model import RunState
from kgcore.migration.stages.report import Report
from kgcore.model import NotCarriedOver


@dataclass(slots=True)
class State:
    """What the error handler of ``main`` must know of the command that runs."""

    debug: bool = False
    json: bool = False
    run_id: str = ""
    after_interrupt: str = ""
    interrupted: bool = False

    @property
    def to_go_on(self) -> str:
        """The commands that make something of the run that was begun; empty where none was."""
        if not self.run_id:
            return ""
        return f"to go on: kg resume {self.run_id}; to give it up: kg cancel {self.run_id}"

    def heed(self) -> None:
        """Raise KeyboardInterrupt if Ctrl-C was pressed.

        The exception itself may have been raised where a library swallows it.
        """
        if self.interrupted:
            raise KeyboardInterrupt


STATE = State()

#: For people. On stderr, so that stdout holds the answer of ``--json`` alone.
err = Console(stderr=True, highlight=False)
out = Console(highlight=False)


def complain(message: str, hint: str = "") -> None:
    """Print an error's two lines: what and why, then the mend."""
    err.print(f"error: {message}", style="red", markup=False, soft_wrap=True)
    if hint:
        err.print(f"hint: {hint}", markup=False, soft_wrap=True)


def notice(text: str) -> None:
    """Print a line for people."""
    err.print(text, markup=False, soft_wrap=True)


def print_json(value: Any) -> None:
    """Print one JSON value on stdout."""
    sys.stdout.write(json.dumps(value, ensure_ascii=False, allow_nan=False) + "\n")
    sys.stdout.flush()


def exit_code(report: Report) -> int:
    """Return the documented exit code of a run's end."""
    return {RunState.DONE: 0, RunState.REJECTED: 3, RunState.MISMATCH: 4}.get(report.run.state, 1)


def show_report(report: Report) -> None:
    """Print a report for people."""
    run, source, target = report.run, report.run.source, report.target
    table = Table(box=None, pad_edge=False, padding=(0, 2))
    table.add_column("table")
    for title in ("source", "loaded", "rejected", "verified", "mismatched"):
        table.add_column(title, justify="right")
    for name, counts in report.tables.items():
        table.add_row(
            name,
            *(
                f"{number:,}"
                for number in (
                    counts.source_rows,
                    counts.loaded_rows,
                    counts.rejected_rows,
                    counts.verified_rows,
                    counts.mismatched_rows,
                )
            ),
        )
    table.add_row("total", *(f"{number:,}" for number in report.totals.values()), style="bold")
    out.print(
        f"run {run.run_id}: {run.state}", style="bold green" if report.is_done else "bold red"
    )
    out.print(f"source {source.original} ({size(source.bytes)}, sha256 {source.sha256[:16]}…)")
    out.print(f"target {target.host}:{target.port}/{target.database}, schema {run.schema}")
    out.print(table)
    seconds = ", ".join(f"{name} {value:.1f}" for name, value in report.seconds.items())
    out.print(f"seconds: {seconds} (stages of tables overlap)")
    out.print(
        f"{report.rows_per_second:,.0f} rows/s, freeze to cutover;"
        f" {report.chunks} chunks, {report.workers} workers"
    )
    for item in report.repairs:
        ids = _ids(item.example_ids, item.rows)
        what = f"{item.table}: {item.rows:,} rows by {item.repair}"
        out.print(f"repaired: {what} ({ids})", markup=False)
    show_not_carried_over(run.not_carried_over)
    for error in report.errors:
        out.print(f"error: {error}", style="red", markup=False)
    if run.hint:
        out.print(f"hint: {run.hint}", markup=False)
    if report.is_done:
        out.print(f"to undo it: kg revert {run.run_id}")


def show_not_carried_over(notes: Sequence[NotCarriedOver]) -> None:
    """Print what of the file's schema the target does not get, each with its own DDL."""
    if notes:
        out.print("not carried over:", style="bold")
    for note in notes:
        where = f"{note.table}: " if note.table else ""
        ddl = " ".join(note.ddl.split())
        out.print(f"  {where}{note.object}: {note.why}", markup=False)
        if ddl:
            out.print(f"    {ddl}", markup=False, soft_wrap=True, style="dim")


def show_table(titles: Mapping[str, str], rows: Sequence[Mapping[str, Any]]) -> None:
    """Print rows as a table; ``titles`` maps a row's names to headings."""
    table = Table(box=None, pad_edge=False, padding=(0, 2))
    for position, title in enumerate(titles.values()):
        table.add_column(title, overflow="fold", no_wrap=position == 0)  # An id is to be copied.
    for row in rows:
        table.add_row(*("" if row[name] is None else str(row[name]) for name in titles))
    out.print(table)


def _ids(ids: Sequence[int], rows: int) -> str:
    return f"ids {', '.join(map(str, ids))}" + (", …" if rows > len(ids) else "")


def size(number: float) -> str:
    """Return a number of bytes for people."""
    for unit in ("bytes", "KiB", "MiB", "GiB"):
        if number < 1024:
            return f"{number:,.0f} {unit}"
        number /= 1024
    return f"{number:,.1f} TiB"
