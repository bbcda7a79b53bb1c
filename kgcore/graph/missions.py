"""Missions: what was tried, how it ended, and what it cost."""

from datetime import UTC, datetime, timedelta

from kgcore.backends import Row
from kgcore.graph.dialect import NOW, Dialect
from kgcore.graph.session import Part
from kgcore.graph.values import Metadata, count, metadata_text, optional_text, record, text
from kgcore.schema import MISSION_HISTORY

SUCCESS = "success"
FAILED = "failed"

_NAMES = MISSION_HISTORY.column_names
_COLUMNS = ", ".join(_NAMES)
#: Digits after the point of sums and averages: the databases add in different orders, and the last
#: digits of a double depend on it.
DIGITS = 6


class Missions(Part):
    """Logs missions and answers questions about them.

    A mission comes out as ``dict(id, mission_id, status, domain, cost_usd, iterations,
    duration_seconds, files_modified, metadata, created_at)``; lists begin with the newest.
    """

    def log_mission(
        self,
        mission_id: str,
        status: str,
        domain: str | None = None,
        cost_usd: float = 0.0,
        iterations: int = 0,
        duration_seconds: float = 0.0,
        files_modified: int = 0,
        metadata: Metadata | None = None,
    ) -> int:
        """Log a mission, or replace what is logged of it except its time; return the row's id.

        ``success`` and ``failed`` are the statuses that are counted as such.
        """
        params = (
            text(mission_id),
            text(status),
            optional_text(domain),
            cost_usd,
            iterations,
            duration_seconds,
            files_modified,
            metadata_text(metadata),
            NOW,
        )
        return int(self._session.write(_upsert(self._session.dialect), params)[0]["id"])

    def get_mission_history(
        self, status: str | None = None, domain: str | None = None, limit: int = 50
    ) -> list[Row]:
        """Return missions, all or those with this status and domain."""
        return self._missions({"status": status, "domain": domain}, limit)

    def missions_by_domain(self, domain: str, limit: int = 50) -> list[Row]:
        """Return the missions of a domain."""
        return self._missions({"domain": domain}, limit)

    def successful_missions(self, limit: int = 50) -> list[Row]:
        """Return the missions with the status ``success``."""
        return self._missions({"status": SUCCESS}, limit)

    def failed_missions(self, limit: int = 50) -> list[Row]:
        """Return the missions with the status ``failed``."""
        return self._missions({"status": FAILED}, limit)

    def recent_missions(self, days: float = 7, limit: int = 50) -> list[Row]:
        """Return the missions of the last ``days`` times 24 hours."""
        return self._missions({}, limit, since=datetime.now(UTC) - timedelta(days=days))

    def similar_missions(self, mission_id: str, limit: int = 10) -> list[Row]:
        """Return the missions most like this one, each with ``shared_files``.

        Those that worked on most of the same files come first; of equals, those of the same domain;
        then the newest. Missions that share neither files nor domain are left out. An unknown
        mission has none.
        """
        dialect = self._session.dialect
        params = (text(mission_id), count(limit, "limit"))
        return [record(row) for row in self._session.rows(_similar(dialect), params, heavy=True)]

    def success_rate(self, domain: str | None = None) -> float:
        """Return which part of the missions succeeded, 0 to 1; 0 where there is none.

        Those that neither succeeded nor failed are not counted: they may be at work.
        """
        where, params = _where({"domain": domain})
        row = self._session.row(
            "SELECT count(CASE WHEN status = 'success' THEN 1 END) AS successful,"
            " count(CASE WHEN status IN ('success', 'failed') THEN 1 END) AS ended"
            f" FROM mission_history {where}",
            params,
        )
        return row["successful"] / row["ended"] if row is not None and row["ended"] else 0.0

    def cost_by_domain(self) -> list[Row]:
        """Return ``dict(domain, missions, total_cost_usd, avg_cost_usd)``, the dearest first."""
        rows = self._session.rows(
            "SELECT domain, count(*) AS missions, sum(cost_usd) AS total_cost_usd,"
            " avg(cost_usd) AS avg_cost_usd FROM mission_history GROUP BY domain"
        )
        found = [
            row
            | {
                "total_cost_usd": round(row["total_cost_usd"] or 0.0, DIGITS),
                "avg_cost_usd": round(row["avg_cost_usd"] or 0.0, DIGITS),
            }
            for row in rows
        ]
        return sorted(found, key=lambda row: (-row["total_cost_usd"], row["domain"] or ""))

    def _missions(
        self, equal: dict[str, str | None], limit: int, since: datetime | None = None
    ) -> list[Row]:
        dialect = self._session.dialect
        instant = dialect.instant("created_at")
        where, params = _where(equal)
        if since is not None:
            where += f" {'AND' if where else 'WHERE'} {instant} >= ?"
            params.append(dialect.instant_parameter(since))
        rows = self._session.rows(
            f"SELECT {_COLUMNS} FROM mission_history {where}"
            f" ORDER BY {instant} DESC, id DESC LIMIT ?",
            (*params, count(limit, "limit")),
        )
        return [record(row) for row in rows]


def _where(equal: dict[str, str | None]) -> tuple[str, list[object]]:
    given = {name: text(value) for name, value in equal.items() if value is not None}
    conditions = " AND ".join(f"{name} = ?" for name in given)
    return (f"WHERE {conditions}" if given else "", list(given.values()))


def _upsert(dialect: Dialect) -> str:
    given = [name for name in _NAMES if name not in {"id", "created_at", "metadata"}]
    replaced = [name for name in _NAMES if name not in {"id", "created_at", "mission_id"}]
    return (
        f"INSERT INTO mission_history ({', '.join(given)}, metadata, created_at)"
        f" VALUES ({', '.join('?' * len(given))}, {dialect.json}, {dialect.now})"
        " ON CONFLICT (mission_id) DO UPDATE SET "
        + ", ".join(f"{name} = excluded.{name}" for name in replaced)
        + " RETURNING id"
    )


def _similar(dialect: Dialect) -> str:
    columns = ", ".join(f"h.{name}" for name in _NAMES)
    return f"""
WITH self AS (
    SELECT h.mission_id, h.domain, e.id AS entity_id FROM mission_history h
    LEFT JOIN entities e ON e.type = 'mission' AND e.name = h.mission_id
    WHERE h.mission_id = ?
), shared AS MATERIALIZED (
    SELECT b.from_id, count(DISTINCT b.to_id) AS files
    FROM self CROSS JOIN relationships a CROSS JOIN relationships b  -- In this order on SQLite.
    WHERE a.from_id = self.entity_id AND a.type = 'worked_on'
        AND b.to_id = a.to_id AND b.type = 'worked_on'
    GROUP BY b.from_id
), named AS MATERIALIZED (
    SELECT m.name, shared.files FROM shared
    JOIN entities m ON m.id = shared.from_id AND m.type = 'mission'
)
SELECT {columns}, coalesce(named.files, 0) AS shared_files
FROM mission_history h CROSS JOIN self LEFT JOIN named ON named.name = h.mission_id
WHERE h.mission_id <> self.mission_id AND (named.files > 0 OR h.domain = self.domain)
ORDER BY shared_files DESC, CASE WHEN h.domain = self.domain THEN 0 ELSE 1 END,
    {dialect.instant("h.created_at")} DESC, h.id DESC
LIMIT ?
"""
