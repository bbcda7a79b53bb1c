"""``kg optimize``: how the graph's database does, and what would make it faster."""

import time
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Annotated, Any

import typer

from kgcore.errors import SettingsError
from kgcore.optimizer import GraphQuery, IndexState, Optimizer, Plan, Report, TableState
from kgcore.optimizer.server_settings import parsed_size
from workers.cli.arguments import Json
from workers.cli.database import Backend, DbPath, graph_backend
from workers.cli.output import STATE, out, print_json, show_table, size


def register(app: typer.Typer) -> None:
    """Add the command."""
    app.command()(optimize)


def optimize(
    explain: Annotated[
        GraphQuery | None, typer.Option(help="Explain a query of the library instead.")
    ] = None,
    entity: Annotated[
        int | None,
        typer.Option(metavar="ID", help="With --explain: for this entity. Else one is chosen."),
    ] = None,
    sql: Annotated[
        str | None,
        typer.Option(help="Explain this SELECT instead. A question mark in it is written ??."),
    ] = None,
    plan_only: Annotated[
        bool, typer.Option("--plan-only", help="With --sql: don't run it, only plan it.")
    ] = False,
    analyze: Annotated[
        bool, typer.Option("--analyze", help="First bring the planner's statistics up to date.")
    ] = False,
    vacuum: Annotated[
        bool, typer.Option("--vacuum", help="First free the room of dead rows.")
    ] = False,
    memory: Annotated[
        str | None,
        typer.Option(metavar="SIZE", help="The server's memory, like 16GB, for its settings."),
    ] = None,
    slow_ms: Annotated[
        float, typer.Option(min=0, metavar="MS", help="Slow queries: only from this mean time on.")
    ] = 0.0,
    backend: Backend = None,
    db_path: DbPath = None,
    json: Json = False,
) -> None:
    """Show tables, indexes, slow queries and settings, with what would make them better.

    Nothing is changed without --analyze or --vacuum. Queries are explained in a read-only
    transaction, and run there for at most 30 seconds.

    Examples: `kg optimize --backend postgres --memory 16GB`,
    `kg optimize --explain find-related --entity 17`, `kg optimize --vacuum --analyze`,
    `kg optimize --sql "SELECT * FROM entities WHERE name LIKE 'src/%'"`.
    """
    STATE.json = json
    _refuse_contradictions(explain, sql, entity=entity, plan_only=plan_only)
    size_of_memory = None if memory is None else _parsed(memory)
    with graph_backend(backend, db_path) as database:
        optimizer = Optimizer(database, size_of_memory)
        done = [
            _timed(name, care)
            for name, care, wanted in (
                ("vacuum", optimizer.vacuum, vacuum),
                ("analyze", optimizer.analyze, analyze),
            )
            if wanted
        ]
        plans = None
        if explain is not None:
            plans = optimizer.explain_query(explain, entity)
        elif sql is not None:
            plans = (optimizer.explain(sql, run=not plan_only),)
        report = optimizer.report(min_mean_ms=slow_ms) if plans is None else None
    if json:
        found: dict[str, Any] = {"done": done}
        found |= {"plans": [plan.to_json() for plan in plans]} if plans is not None else {}
        found |= report.to_json() if report is not None else {}
        print_json(found)
        return
    for item in done:
        tables = ", ".join(item["tables"])
        out.print(f"{item['did']}: {tables}, {item['seconds']:.1f} s", markup=False)
    if plans is not None:
        _show_plans(plans)
    if report is not None:
        _show_report(report)


def _refuse_contradictions(
    explain: GraphQuery | None, sql: str | None, *, entity: int | None, plan_only: bool
) -> None:
    if explain is not None and sql is not None:
        raise SettingsError("--explain and --sql are both given", "leave one of them out")
    if entity is not None and explain is None:
        raise SettingsError("--entity goes with --explain", "name the query, too")
    if plan_only and sql is None:
        raise SettingsError("--plan-only goes with --sql", "name the statement, too")


def _parsed(memory: str) -> int:
    try:
        return parsed_size(memory)
    except ValueError as error:
        raise SettingsError(f"--memory: {error}", "for example --memory 16GB") from None


def _timed(name: str, care: Callable[[], tuple[str, ...]]) -> dict[str, Any]:
    began = time.monotonic()
    tables = care()
    return {"did": name, "tables": list(tables), "seconds": round(time.monotonic() - began, 3)}


def _show_plans(plans: tuple[Plan, ...]) -> None:
    for plan in plans:
        out.print(plan.statement, style="dim", markup=False, soft_wrap=True)
        if plan.ms is not None:
            out.print(f"{plan.ms:,.1f} ms", style="bold")
        out.print(str(plan), markup=False, soft_wrap=True)
        out.print()


def _show_report(report: Report) -> None:
    out.print("tables", style="bold")
    titles = {"name": "table", "rows": "rows", "size": "size", "indexes": "indexes"}
    titles |= {"dead": "dead", "vacuum": "vacuumed", "analyze": "analyzed"}
    show_table(
        titles,
        [
            {
                "name": table.name,
                "rows": _number(table.rows),
                "size": size(table.bytes),
                "indexes": size(table.index_bytes),
                "dead": _number(table.dead_rows),
                "vacuum": _ago(table.last_vacuum),
                "analyze": _ago(table.last_analyze),
            }
            for table in report.tables
        ],
    )
    out.print("indexes", style="bold")
    titles = {"name": "index", "size": "size", "scans": "scans", "bloat": "bloat"}
    show_table(
        titles,
        [
            {
                "name": index.name,
                "size": size(index.bytes),
                "scans": _number(index.scans),
                "bloat": None if index.bloat_bytes is None else size(index.bloat_bytes),
            }
            for index in report.indexes
        ],
    )
    slow = report.slow_queries
    out.print("slow queries", style="bold")
    for query in slow.queries:
        out.print(
            f"{query.mean_ms:,.1f} ms × {query.calls:,} ({query.share:.0%}): {query.query}",
            markup=False,
            soft_wrap=True,
        )
    out.print(f"({slow.note})", markup=False, soft_wrap=True)
    if report.settings:
        out.print("settings", style="bold")
        titles = {"name": "setting", "current": "is", "suggested": "would fit", "why": "why"}
        show_table(
            titles,
            [
                {
                    "name": setting.name,
                    "current": setting.current,
                    "suggested": setting.suggested if setting.change else "fine",
                    "why": setting.why,
                }
                for setting in report.settings
            ],
        )
    _show_advice(report)


def _show_advice(report: Report) -> None:
    named: dict[str, list[str]] = {}
    items: list[TableState | IndexState] = [*report.tables, *report.indexes]
    for item in items:
        if item.advice:
            named.setdefault(item.advice, []).append(item.name)
    advice = [f"{', '.join(names)}: {text}" for text, names in named.items()]
    advice += [setting.command for setting in report.settings if setting.change]
    out.print("advice", style="bold")
    for line in advice or ["nothing stands out"]:
        out.print(line, markup=False, soft_wrap=True)
    for note in report.notes:
        out.print(f"({note})", markup=False, soft_wrap=True)


def _number(value: int | None) -> str | None:
    return None if value is None else f"{value:,}"


def _ago(time_text: str | None) -> str | None:
    if time_text is None:
        return None
    seconds = (datetime.now(UTC) - datetime.fromisoformat(time_text)).total_seconds()
    for unit, length in (("d", 86_400), ("h", 3_600), ("min", 60)):
        if seconds >= length:
            return f"{seconds / length:.0f} {unit} ago"
    return "just now"
