"""The files most at risk, without weighing every file.

A plain join has a row for every pair of a mission's bugs and files: at 100,000 entities and 250,000
relationships that takes 450 ms on PostgreSQL and 5.4 s on SQLite. Counted per mission before the
missions meet their files, it still takes 220 ms and 490 ms, most of it for files that are far from
the first ten. So these are left out, in one of two ways.

Where few missions are *flagged*, with bugs or failed, only their files can have a risk. These are
weighed by the flagged missions alone, and for the first of them all missions are counted. If there
are fewer such files than wanted, it is no way.

Where many are, how often a file was worked on can be read from an index alone, and times the most
bugs that any mission has it is a bound of the file's bugs. A few files that the newest
relationships lead to most often are weighed first, and then those whose bound reaches the last of
them: 50 ms and 80 ms.

On a graph of that size without bugs and with 74 failed missions the first takes 14 ms and 23 ms,
the second 400 ms and 900 ms; on one with bugs of most missions the first takes five times as long.
"""

from kgcore.graph.dialect import Dialect

#: How many bugs and failed missions are few.
FEW = 1_000

#: How many bugs and failed missions there are, counted no further than that many and one more.
FLAGS = f"""
SELECT (
    SELECT count(*) FROM (SELECT 1 FROM relationships WHERE type = 'caused_bug' LIMIT {FEW + 1}) b
) + (
    SELECT count(*) FROM (SELECT 1 FROM mission_history WHERE status = 'failed' LIMIT {FEW + 1}) h
) AS flags
"""

_FLAGGED_FILES = """
WITH flagged AS MATERIALIZED (
    SELECT id, sum(bugs) AS bugs, sum(failed) AS failed
    FROM (  -- Not from all missions: PostgreSQL would take most of them for flagged.
        SELECT m.id, 1 AS bugs, 0 AS failed
        FROM relationships b JOIN entities m ON m.id = b.from_id AND m.type = 'mission'
        WHERE b.type = 'caused_bug'
        UNION ALL
        SELECT m.id, 0, 1
        FROM mission_history h JOIN entities m ON m.type = 'mission' AND m.name = h.mission_id
        WHERE h.status = 'failed'
    ) f GROUP BY id
), weighed AS MATERIALIZED (
    SELECT w.to_id AS id, sum(w.bugs) AS bugs, sum(w.failed) AS failed
    FROM (
        SELECT DISTINCT r.to_id, m.id AS mission, m.bugs, m.failed
        FROM flagged m CROSS JOIN relationships r  -- In this order on SQLite.
        WHERE r.from_id = m.id AND r.type = 'worked_on'
    ) w CROSS JOIN entities f WHERE f.id = w.to_id AND f.type = 'file'
    GROUP BY w.to_id
), chosen AS (
    SELECT * FROM weighed WHERE (bugs, failed) >= (
        SELECT bugs, failed FROM weighed ORDER BY bugs DESC, failed DESC LIMIT 1 OFFSET ?
    )
)
SELECT f.name AS file_path, c.bugs AS bug_count, (
        SELECT count(*) FROM relationships r
        JOIN entities m ON m.id = r.from_id AND m.type = 'mission'
        WHERE r.to_id = c.id AND r.type = 'worked_on'
    ) AS mission_count, c.failed AS failed_mission_count
FROM chosen c JOIN entities f ON f.id = c.id
ORDER BY c.bugs DESC, c.failed DESC, mission_count DESC, c.id
LIMIT ?
"""

_RISKY_FILES = """
WITH bugs AS MATERIALIZED (
    SELECT from_id AS id, CAST(count(*) AS integer) AS bugs
    FROM relationships WHERE type = 'caused_bug' GROUP BY from_id
), missions AS MATERIALIZED (
    SELECT e.id, coalesce(b.bugs, 0) AS bugs,
        CASE WHEN h.mission_id IS NULL THEN 0 ELSE 1 END AS failed
    FROM entities e LEFT JOIN bugs b ON b.id = e.id
    LEFT JOIN mission_history h ON h.mission_id = e.name AND h.status = 'failed'
    WHERE e.type = 'mission'
), most AS (
    SELECT CAST(coalesce(max(bugs), 0) AS bigint) AS bugs, coalesce(max(failed), 0) AS failed
    FROM missions
), sample AS (
    SELECT s.id FROM (
        SELECT w.to_id AS id
        FROM (SELECT to_id, type FROM relationships ORDER BY id DESC LIMIT ?) w
        WHERE w.type = 'worked_on' GROUP BY w.to_id ORDER BY count(*) DESC, w.to_id LIMIT ?
    ) s JOIN entities f ON f.id = s.id AND f.type = 'file'
), least AS (
    {weighed_sample} ORDER BY bugs DESC, failed DESC, times DESC LIMIT 1 OFFSET ?
), bound AS MATERIALIZED (
    SELECT coalesce(CASE
        WHEN most.bugs > 0 THEN (least.bugs + most.bugs - 1) / most.bugs
        WHEN most.failed > 0 THEN least.failed
        ELSE least.times
    END, 0) AS times
    FROM most LEFT JOIN least ON true
), candidates AS (
    SELECT to_id AS id FROM relationships WHERE type = 'worked_on' GROUP BY to_id
    HAVING count(*) >= (SELECT times FROM bound)
)
SELECT f.name AS file_path, w.bugs AS bug_count, w.times AS mission_count,
    w.failed AS failed_mission_count
FROM ({weighed_candidates}) w JOIN entities f ON f.id = w.id AND f.type = 'file'
ORDER BY w.bugs DESC, w.failed DESC, w.times DESC, w.id
LIMIT ?
"""

# A mission may have worked on a file several times; its bugs count once.
_WEIGHED = """
    SELECT w.to_id AS id, sum(m.bugs) AS bugs, sum(m.failed) AS failed, sum(w.times) AS times
    FROM (
        SELECT r.to_id, r.from_id, CAST(count(*) AS integer) AS times
        FROM relationships r WHERE r.to_id {among} AND r.type = 'worked_on'
        GROUP BY r.to_id, r.from_id
    ) w JOIN missions m ON m.id = w.from_id
    GROUP BY w.to_id"""

#: The newest relationships that are looked at for files to weigh first, and how many files more
#: than are asked for: some of them may be none. If too few are left, all files are weighed.
_NEWEST = 10_000
_SPARE = 10


def flagged_files(limit: int) -> tuple[str, tuple[int, ...]]:
    """Return the statement for the first ``limit`` (1 or more) files of flagged missions.

    It has no rows at all where there are fewer such files.
    """
    return _FLAGGED_FILES, (limit - 1, limit)


def risky_files(dialect: Dialect, limit: int) -> tuple[str, tuple[int, ...]]:
    """Return the statement for the first ``limit`` (1 or more) files, and its parameters."""

    def weighed(files: str) -> str:
        # As an array PostgreSQL looks each file up; joined it would read all relationships.
        ids = f"SELECT id FROM {files}"
        among = f"= ANY (ARRAY({ids}))" if dialect.is_postgres else f"IN ({ids})"
        return _WEIGHED.format(among=among)

    sql = _RISKY_FILES.format(
        weighed_sample=weighed("sample"), weighed_candidates=weighed("candidates")
    )
    return sql, (_NEWEST, limit + _SPARE, limit - 1, limit)
