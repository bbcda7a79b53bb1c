"""The evolution report: what the last days brought, as Markdown."""

from collections.abc import Iterable, Sequence
from datetime import UTC, datetime
from typing import Any

from kgcore.backends import Row
from kgcore.graph.analytics import Analytics
from kgcore.graph.dialect import Dialect
from kgcore.graph.missions import domain_order
from kgcore.graph.values import days_before

_ROWS = 10


class Reports(Analytics):
    """Writes reports."""

    def evolution_report(self, days: float = 30) -> str:
        """Return Markdown about the last ``days`` times 24 hours, next to as many before them.

        Missions, cost and success; domains; growth of the graph; the files changed most; the
        files most at risk. Raises ValueError if ``days`` is not above 0.
        """
        if days <= 0:
            raise ValueError(f"days must be above 0, not {days}")
        now = datetime.now(UTC)
        since, before = days_before(now, days), days_before(now, 2 * days)
        session, dialect = self._session, self._session.dialect
        start, earlier = dialect.instant_parameter(since), dialect.instant_parameter(before)
        domains = session.rows(_domains(dialect), (start, earlier))
        growth = session.rows(_growth(dialect), (start, start))
        changed = session.rows(_changed(dialect), (start, _ROWS))
        lines = [
            f"# Evolution report: the last {days:g} days",
            "",
            f"From {since.date()} to {now.date()}, compared with as many days before.",
            *_section("Missions", ("", "This period", "Before", "Change"), _summary(domains)),
            *_section(
                "Domains",
                ("Domain", "Missions", "Success rate", "Cost"),
                _by_domain([row for row in domains if row["period"] == "now"]),
            ),
            *_section(
                "Growth of the graph",
                ("Part", "Type", "Added"),
                ((row["part"], row["type"], f"{row['added']:,}") for row in growth),
            ),
            *_section(
                "Files changed most",
                ("File", "Snapshots", "Missions"),
                ((row["file_path"], row["snapshots"], row["missions"]) for row in changed),
            ),
            *_section(
                "Files most at risk (of all time)",
                ("File", "Risk", "Bugs", "Failed missions", "Missions"),
                (
                    (
                        row["file_path"],
                        row["risk_score"],
                        row["bug_count"],
                        row["failed_mission_count"],
                        row["mission_count"],
                    )
                    for row in self.get_risky_files(_ROWS)
                ),
            ),
        ]
        return "\n".join(lines) + "\n"


def _domains(dialect: Dialect) -> str:
    created = dialect.instant("created_at")
    return (
        "SELECT period, domain, count(*) AS total,"
        " count(CASE WHEN status = 'success' THEN 1 END) AS successful,"
        " count(CASE WHEN status = 'failed' THEN 1 END) AS failed,"
        " coalesce(sum(cost_usd), 0.0) AS cost, coalesce(sum(duration_seconds), 0.0) AS seconds"
        f" FROM (SELECT mission_history.*, CASE WHEN {created} >= ? THEN 'now' ELSE 'before' END"
        f" AS period FROM mission_history WHERE {created} >= ?) m GROUP BY period, domain"
    )


def _growth(dialect: Dialect) -> str:
    created = dialect.instant("created_at")
    return (
        "SELECT 'entities' AS part, type, count(*) AS added FROM entities"
        f" WHERE {created} >= ? GROUP BY type"
        " UNION ALL SELECT 'relationships', type, count(*) FROM relationships"
        f" WHERE {created} >= ? GROUP BY type ORDER BY part, added DESC, type"
    )


def _changed(dialect: Dialect) -> str:
    return (
        "SELECT file_path, count(*) AS snapshots, count(DISTINCT mission_id) AS missions"
        f" FROM file_snapshots WHERE {dialect.instant('created_at')} >= ?"
        " GROUP BY file_path ORDER BY snapshots DESC, missions DESC, min(id) LIMIT ?"
    )


def _summary(domains: Sequence[Row]) -> list[tuple[Any, ...]]:
    now, before = (
        {
            name: sum(row[name] for row in domains if row["period"] == period)
            for name in ("total", "successful", "failed", "cost", "seconds")
        }
        for period in ("now", "before")
    )
    if not now["total"] and not before["total"]:
        return []
    lines: list[tuple[str, ...]] = [
        (label, f"{now[name]:,}", f"{before[name]:,}", f"{now[name] - before[name]:+,}")
        for label, name in (
            ("Missions", "total"),
            ("Successful", "successful"),
            ("Failed", "failed"),
        )
    ]
    rates = [_rate(period) for period in (now, before)]
    lines.append(("Success rate", *rates, ""))
    lines.append(
        (
            "Cost",
            f"${now['cost']:,.2f}",
            f"${before['cost']:,.2f}",
            f"{now['cost'] - before['cost']:+,.2f}",
        )
    )
    means = [
        period["seconds"] / period["total"] if period["total"] else 0.0 for period in (now, before)
    ]
    lines.append(
        ("Mean duration", *(f"{mean:,.1f} s" for mean in means), f"{means[0] - means[1]:+,.1f} s")
    )
    return lines


def _by_domain(rows: Sequence[Row]) -> list[tuple[Any, ...]]:
    ordered = sorted(rows, key=lambda row: (-row["total"], *domain_order(row["domain"])))
    return [
        (row["domain"] or "none", f"{row['total']:,}", _rate(row), f"${row['cost']:,.2f}")
        for row in ordered
    ]


def _rate(counts: Row) -> str:
    ended = counts["successful"] + counts["failed"]
    return f"{counts['successful'] / ended:.0%}" if ended else "-"


def _section(title: str, header: Sequence[str], rows: Iterable[Sequence[Any]]) -> list[str]:
    body = [_line(row) for row in rows] or [_line(["Nothing", *[""] * (len(header) - 1)])]
    rule = _line(["---", *["---:"] * (len(header) - 1)])
    return ["", f"## {title}", "", _line(header), rule, *body]


def _line(cells: Iterable[Any]) -> str:
    shown = (" ".join(str(cell).split()).replace("|", "\\|") for cell in cells)
    return f"| {' | '.join(shown)} |"
