"""Missions: what was tried, how it ended, and what it cost."""

from datetime import UTC, datetime
from functools import cache

from kgcore.backends import Row
from kgcore.graph.dialect import NOW, Dialect
from kgcore.graph.filters import Filter, Place
from kgcore.graph.session import Part
from kgcore.graph.values import (
    Metadata,
    count,
    days_before,
    metadata_text,
    optional_integer,
    optional_real,
    optional_text,
    text,
)
from kgcore.schema import MISSION_HISTORY

SUCCESS = "success"
FAILED = "failed"

_NAMES = MISSION_HISTORY.column_names
_COLUMNS = ", ".join(_NAMES)
#: Digits after the point of sums and averages: the databases add in different orders, and the last
#: digits of a double depend on it.
DIGITS = 6
_OUTCOMES = (
    f"count(CASE WHEN status = '{SUCCESS}' THEN 1 END) AS successful,"
    f" count(CASE WHEN status = '{FAILED}' THEN 1 END) AS failed"
)


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
            optional_real(cost_usd, "cost_usd"),
            optional_integer(iterations, "iterations"),
            optional_real(duration_seconds, "duration_seconds"),
            optional_integer(files_modified, "files_modified"),
            metadata_text(metadata),
            NOW,
        )
        return int(self._session.write(_upsert(self._session.dialect), params)[0]["id"])

    def get_mission_history(
        self,
        status: str | None = None,
        domain: str | None = None,
        limit: int = 50,
        *,
        after: Place | None = None,
    ) -> list[Row]:
        """Return missions, all or those with this status and domain.

        ``after`` goes on behind a mission: ``(mission["created_at"], mission["id"])``.
        """
        return self._missions({"status": status, "domain": domain}, limit, after=after)

    def delete_mission(self, mission_id: str) -> bool:
        """Delete what is logged of a mission; return False if nothing is.

        An entity of that name, its relationships and file snapshots stay. False comes, too, where
        the connection was lost in a first try that had deleted it.
        """
        sql = "DELETE FROM mission_history WHERE mission_id = ? RETURNING id"
        return bool(self._session.write(sql, (text(mission_id),)))

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
        return self._missions({}, limit, since=days_before(datetime.now(UTC), days))

    def similar_missions(self, mission_id: str, limit: int = 10) -> list[Row]:
        """Return the missions most like this one, each with ``shared_files``.

        Those that worked on most of the same files come first; of equals, those of the same domain;
        then the newest. Missions that share neither files nor domain are left out. An unknown
        mission has none.
        """
        dialect = self._session.dialect
        params = (text(mission_id), count(limit, "limit"))
        return self._session.records(_similar(dialect), params, heavy=True)

    def success_rate(self, domain: str | None = None) -> float:
        """Return which part of the missions succeeded, 0 to 1; 0 where there is none.

        Those that neither succeeded nor failed are not counted: they may be at work.
        """
        chosen = Filter(self._session.dialect)
        chosen.equal_text("domain", domain)
        row = self._session.row(
            f"SELECT {_OUTCOMES} FROM mission_history {chosen.where}", chosen.params
        )
        return 0.0 if row is None else _rate(row)

    def cost_by_domain(self) -> list[Row]:
        """Return what the missions of each domain cost and how they ended, the dearest first.

        Each is ``dict(domain, missions, total_cost_usd, avg_cost_usd, successful, failed,
        success_rate)``; the rate is that of :meth:`success_rate`.
        """
        rows = self._session.rows(
            f"SELECT domain, count(*) AS missions, sum(cost_usd) AS total_cost_usd,"
            f" avg(cost_usd) AS avg_cost_usd, {_OUTCOMES} FROM mission_history GROUP BY domain"
        )
        for row in rows:
            for name in ("total_cost_usd", "avg_cost_usd"):
                row[name] = round(row[name] or 0.0, DIGITS)
            row["success_rate"] = _rate(row)
        return sorted(rows, key=lambda row: (-row["total_cost_usd"], *domain_order(row["domain"])))

    def _missions(
        self,
        equal: dict[str, str | None],
        limit: int,
        *,
        since: datetime | None = None,
        after: Place | None = None,
    ) -> list[Row]:
        chosen = Filter(self._session.dialect)
        for column, value in equal.items():
            chosen.equal_text(column, value)
        if since is not None:
            chosen.since("created_at", since)
        chosen.behind("mission_history", "created_at", after)
        return self._session.records(
            f"SELECT {_COLUMNS} FROM mission_history {chosen.where}"
            f" {chosen.newest('created_at')} LIMIT ?",
            (*chosen.params, count(limit, "limit")),
        )


def domain_order(domain: str | None) -> tuple[str, bool]:
    """Return what domains are sorted by: their names; none comes before the empty one."""
    return domain or "", domain is not None


def _rate(row: Row) -> float:
    ended = row["successful"] + row["failed"]
    return float(row["successful"] / ended) if ended else 0.0


@cache
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
