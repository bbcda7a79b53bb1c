"""``kg rejects``: the rows that the target can't hold, listed, and tried again."""

import csv
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, Any

import typer

from kgcore.errors import SettingsError
from kgcore.migration import ledger
from kgcore.migration.ledger import Reject
from kgcore.migration.mended import Mended, read_mended
from kgcore.migration.model import Run, RunState
from kgcore.migration.repairs import choose
from kgcore.migration.retry import Retried
from kgcore.migration.retry import retry as try_again
from workers.cli.arguments import Json, Repair, RunId
from workers.cli.context import target
from workers.cli.output import STATE, notice, out, print_json, show_table

# More than that nobody reads on a screen.
_SHOWN = 50
_TITLES = ("table", "id", "column", "reason", "sqlstate", "repair")
_STILL_REFUSED = 3
# The type of a text that is not UTF-8.
_TEXT_IN_HEX = "text in hex"


def register(app: typer.Typer) -> None:
    """Add the command."""
    app.command()(rejects)


def rejects(
    run: RunId,
    table: Annotated[str | None, typer.Option(help="Only this table's.")] = None,
    limit: Annotated[
        int | None,
        typer.Option(min=1, help=f"At most N: {_SHOWN} by default, with --json and --csv all."),
    ] = None,
    as_csv: Annotated[
        bool, typer.Option("--csv", help="Print CSV, with a column for each of the rows' own.")
    ] = False,
    retry: Annotated[
        bool, typer.Option("--retry", help="Put those that fit now into their tables.")
    ] = False,
    mended: Annotated[
        Path | None,
        typer.Option(
            "--from",
            metavar="FILE",
            help="With --retry: lines as --json prints them, with the values mended.",
        ),
    ] = None,
    repair: Repair = None,
    json: Json = False,
) -> int:
    """List the rows that the target can't hold, with the reason and the row as it was.

    With --json, one object a line. With --retry, of a run that is rejected or done: try them again,
    after choosing a repair or mending values, in one transaction. What fits is stored and verified.

    Examples: `kg rejects RUN`, `kg rejects RUN --retry --repair nan-as-null`,
    `kg rejects RUN --json > mended.jsonl`, then, values changed there,
    `kg rejects RUN --retry --from mended.jsonl`.
    """
    STATE.json = json
    if retry:
        return _retry(run, table, repair or [], mended, json=json)
    if mended or repair:
        raise SettingsError(
            "--from and --repair are for --retry", f"kg rejects {run} --retry tries rejects again"
        )
    with target() as backend, ledger.transaction(backend.pool) as cursor:
        known = ledger.read_run(cursor, run)
        most = limit or (None if json or as_csv else _SHOWN)
        found = ledger.list_rejects(cursor, run, table, most)
        if json:
            for reject in found:
                print_json(reject.to_json())
        elif as_csv:
            _print_csv(known, table, found)
        else:
            _show(list(found), most, ledger.count_rejects(cursor, run, table, known_too=True))
    return 0


def _retry(
    run: str, table: str | None, repair: list[str], mended: Path | None, *, json: bool
) -> int:
    given = None if mended is None else _read(mended)
    with target() as backend:
        done = try_again(backend.pool, run, table=table, repairs=choose(repair).names, mended=given)
    refused = sum(done.refused.values())
    if json:
        print_json(
            {
                "run_id": run,
                "state": str(done.run.state),
                "loaded": dict(done.loaded),
                "refused": dict(done.refused),
                "left": done.left,
            }
        )
    else:
        _show_retried(done)
    return _STILL_REFUSED if refused else 0


def _read(path: Path) -> dict[tuple[str, int], Mended]:
    try:
        with path.open(encoding="utf-8") as lines:
            return read_mended(lines)
    except (OSError, UnicodeDecodeError) as error:
        raise SettingsError(f"--from {path}: {error}", "name a file of JSON lines") from None


def _show_retried(done: Retried) -> None:
    for name, loaded in done.loaded.items():
        out.print(f"{name}: {loaded:,} rows loaded, {done.refused[name]:,} refused again")
    if not done.loaded:
        out.print("there was nothing to try again")
    run = done.run
    if run.state is RunState.DONE:
        out.print("the rows are in the live tables")
    elif done.left > run.options.max_rejects:
        out.print(f"{done.left:,} rejects are left: kg rejects {run.run_id}", markup=False)
    else:
        out.print(f"the run can go on: kg resume {run.run_id}", markup=False)


def _show(found: list[Reject], most: int | None, there_are: int) -> None:
    if not found:
        out.print("no rejects")
        return
    show_table({name: name for name in _TITLES}, [_fields(reject) for reject in found])
    if most is not None and there_are > len(found):
        notice(f"{len(found):,} of {there_are:,}; --limit N shows more, --json and --csv all")


def _fields(reject: Reject) -> dict[str, Any]:
    return {
        "table": reject.table,
        "id": reject.row_id,
        "column": reject.column,
        "reason": reject.reason,
        "sqlstate": reject.sqlstate,
        "repair": reject.repair,
    }


def _print_csv(run: Run, table: str | None, found: Iterator[Reject]) -> None:
    names = dict.fromkeys(
        f"{of}.{name}"
        for item in run.tables.values()
        if table in {None, item.table.name}
        for name in item.table.column_names
        for of in ("row", "type")
    )
    writer = csv.DictWriter(sys.stdout, [*_TITLES, *names], lineterminator="\n")
    writer.writeheader()
    for reject in found:
        writer.writerow(_fields(reject) | _values(reject))


def _values(reject: Reject) -> dict[str, Any]:
    """Return each value with its type, which tells NULL from an empty text and hex from text."""
    values: dict[str, Any] = {}
    for name, value in reject.to_json()["row"].items():
        in_hex = "hex" in value
        values[f"row.{name}"] = f"\\x{value['hex']}" if in_hex else value["value"]
        is_text = in_hex and value["type"] == "text"
        values[f"type.{name}"] = _TEXT_IN_HEX if is_text else value["type"]
    return values
