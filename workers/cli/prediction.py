"""What ``kg migrate --dry-run`` prints for people."""

from rich.table import Table

from kgcore.migration.dry_run import DryRun, PredictedColumn, PredictedReject, PredictedTable
from workers.cli.output import out, show_not_carried_over, size

# Of the findings, how many of the named rows are shown with the value at fault.
_SHOWN_VALUES = 3


def show_prediction(prediction: DryRun) -> None:
    """Print a dry run."""
    out.print("dry run: every row was checked, nothing was changed", style="bold")
    out.print(_overview(prediction))
    for name, table in prediction.tables.items():
        _show_columns(name, table)
    for name, table in prediction.tables.items():
        for reject in table.rejects:
            _show_reject(name, reject)
    for proposal in prediction.proposals:
        saved = f"--repair {proposal.repair} would save {proposal.rows:,} rows"
        out.print(f"{proposal.table}: {saved}", markup=False)
    show_not_carried_over(prediction.prepared.not_carried_over)
    for item in prediction.unforetold:
        out.print(f"only the server can judge {item}", markup=False)
    estimate = prediction.estimate
    out.print(
        f"estimate: {size(estimate.target_bytes)} in the target,"
        f" {max(estimate.seconds, 1):,.0f} s with two workers"
    )
    out.print(f"  it rests on {estimate.basis}", markup=False)


def _overview(prediction: DryRun) -> Table:
    shown = Table(box=None, pad_edge=False, padding=(0, 2))
    shown.add_column("table")
    for title in ("rows", "bytes", "chunks", "rows each"):
        shown.add_column(title, justify="right")
    shown.add_column("ids")
    shown.add_column("rejects", justify="right")
    for name, item in prediction.tables.items():
        each = max((chunk.rows for chunk in item.plan), default=0)
        shown.add_row(
            name,
            f"{item.rows:,}",
            size(item.bytes),
            str(len(item.plan)),
            f"{each:,}",
            "" if item.ids is None else "{} … {}".format(*item.ids),
            f"{item.rejected_rows:,}",
        )
    return shown


def _show_columns(name: str, table: PredictedTable) -> None:
    out.print(f"{name}:", style="bold", markup=False)
    for column_name, column in table.columns.items():
        found = ", ".join(_evidence(column))
        declared = f" (declared {column.declared})" if column.declared else ""
        out.print(f"  {column_name} {column.type}{declared}: {found}", markup=False, soft_wrap=True)


def _evidence(column: PredictedColumn) -> list[str]:
    found = [f"{count:,} {name}" for name, count in column.storage.items()] or ["no values"]
    if column.low is not None:
        found.append(f"from {column.low} to {column.high}")
    zones = dict(column.zones or {})
    if zones.keys() - {"Z"}:
        said = {"Z": "in UTC", "offset": "with another offset", "none": "without a zone (UTC)"}
        found += [f"{count:,} {said[zone]}" for zone, count in zones.items()]
    if column.why:
        found.append(column.why)
    return found


def _show_reject(name: str, reject: PredictedReject) -> None:
    what = "refused" if reject.repair is None else f"left out ({reject.repair})"
    ids = ", ".join(map(str, reject.example_ids))
    more = ", …" if reject.rows > len(reject.example_ids) else ""
    out.print(
        f"{name}: {reject.rows:,} rows would be {what}: {reject.column or 'row'}: {reject.reason}"
        f" ({reject.finding}, SQLSTATE {reject.sqlstate}; ids {ids}{more})",
        style="red" if reject.repair is None else "",
        markup=False,
    )
    values = [f"{e.row_id} has {e.value}" for e in reject.examples[:_SHOWN_VALUES] if e.value]
    if values:
        out.print(f"  {'; '.join(values)}", markup=False, style="dim", soft_wrap=True)
