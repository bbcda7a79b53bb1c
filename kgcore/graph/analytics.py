"""Questions about the whole graph."""

from typing import Any

from kgcore.backends import Row
from kgcore.graph.missions import DIGITS
from kgcore.graph.risk import FEW, FLAGS, flagged_files, risky_files
from kgcore.graph.session import Part
from kgcore.graph.values import count

# The types are found by going from one to the next in an index, and then each is counted in it: so
# no row has its type compared with others, which takes as long again as counting.
_TYPES = """
    SELECT min(type) AS type FROM {table}
    UNION ALL
    SELECT (SELECT min(r.type) FROM {table} r WHERE r.type > t.type)
    FROM {table}_types t WHERE t.type IS NOT NULL
"""
_BY_TYPE = f"""
WITH RECURSIVE entities_types(type) AS ({_TYPES.format(table="entities")}),
relationships_types(type) AS ({_TYPES.format(table="relationships")})
SELECT 'entities' AS part, t.type,
    (SELECT count(*) FROM entities e WHERE e.type = t.type) AS rows
FROM entities_types t WHERE t.type IS NOT NULL
UNION ALL
SELECT 'relationships', t.type,
    (SELECT count(*) FROM relationships r WHERE r.type = t.type)
FROM relationships_types t WHERE t.type IS NOT NULL
ORDER BY 1, 2
"""

# On SQLite a sum beyond 64 bits is an error: files are summed in two halves.
_MISSIONS = """
SELECT count(*) AS total,
    count(CASE WHEN status = 'success' THEN 1 END) AS successful,
    count(CASE WHEN status = 'failed' THEN 1 END) AS failed,
    sum(cost_usd) AS total_cost_usd,
    avg(cost_usd) AS avg_cost_usd,
    avg(duration_seconds) AS avg_duration_seconds,
    sum(files_modified >> 32) AS files_high, sum(files_modified & 4294967295) AS files_low
FROM mission_history
"""


class Analytics(Part):
    """Risk and statistics."""

    def get_risky_files(self, limit: int = 10) -> list[Row]:
        """Return the files that missions worked on, those with most bugs first.

        Each is ``dict(file_path, bug_count, mission_count, failed_mission_count, risk_score)``: how
        many ``caused_bug`` relationships the missions have that worked on it, how many
        ``worked_on`` relationships it has, how many of its missions failed; the score is 10 for
        each bug and 5 for each failed mission. Of equals the file added first comes first.
        """
        most = count(limit, "limit")
        if most == 0:
            return []
        session = self._session
        rows: list[Row] = []
        if session.rows(FLAGS)[0]["flags"] <= FEW:
            rows = session.rows(*flagged_files(most), heavy=True)
        if not rows:
            rows = session.rows(*risky_files(session.dialect, most), heavy=True)
        found: list[Row] = []
        for row in rows:
            counts = {name: row[name] if name == "file_path" else int(row[name]) for name in row}
            score = 10 * counts["bug_count"] + 5 * counts["failed_mission_count"]
            found.append(counts | {"risk_score": score})
        return found

    def get_stats(self) -> dict[str, dict[str, Any]]:
        """Return how many entities, relationships and missions there are, and of which kinds.

        ``{"entities": {"total", "by_type"}, "relationships": {"total", "by_type"}, "missions":
        {"total", "successful", "failed", "total_cost_usd", "avg_cost_usd", "avg_duration_seconds",
        "total_files_modified"}}``; sums and averages are 0 where there are no missions.
        """
        stats: dict[str, dict[str, Any]] = {
            part: {"total": 0, "by_type": {}} for part in ("entities", "relationships")
        }
        for row in self._session.rows(_BY_TYPE, heavy=True):
            stats[row["part"]]["by_type"][row["type"]] = row["rows"]
            stats[row["part"]]["total"] += row["rows"]
        missions = self._session.rows(_MISSIONS, heavy=True)[0]
        for name in ("total_cost_usd", "avg_cost_usd", "avg_duration_seconds"):
            missions[name] = round(missions[name] or 0.0, DIGITS)
        high, low = (int(missions.pop(name) or 0) for name in ("files_high", "files_low"))
        missions["total_files_modified"] = (high << 32) + low
        stats["missions"] = missions
        return stats
