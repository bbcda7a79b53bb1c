"""Rejects: the rows the target can't hold, whole."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from psycopg2 import Binary
from psycopg2.extensions import cursor as Cursor  # noqa: N812
from psycopg2.extras import execute_values

from kgcore.migration.model import RawRow, Refusal, Step

# Read at a time: a row may have megabytes.
_PAGE_ROWS = 500


@dataclass(frozen=True, slots=True)
class Reject:
    """A refused row as ``kg rejects`` shows it. ``row`` has the original bytes.

    ``repair`` is the one by which it is left out knowingly, ``mended`` the row as a user gave it
    for a retry.
    """

    reject_id: int
    step_id: int
    table: str
    column: str | None
    reason: str
    sqlstate: str
    repair: str | None
    row: RawRow
    mended: RawRow | None

    @property
    def row_id(self) -> int:
        """The id of the row in the source."""
        return self.row.row_id

    def to_json(self) -> dict[str, Any]:
        """Return a plain dict; bytes that are not UTF-8 text, and BLOBs, are shown as hex."""
        return {
            "table": self.table,
            "id": self.row_id,
            "column": self.column,
            "reason": self.reason,
            "sqlstate": self.sqlstate,
            "repair": self.repair,
            "row": {
                name: {"type": storage, **_shown(storage, value)}
                for name, storage, value in zip(
                    self.row.columns, self.row.storage, self.row.values, strict=True
                )
            },
        }


def record_rejects(
    cursor: Cursor,
    step_id: int,
    table: str,
    refusals: Sequence[Refusal],
    rows: Iterable[RawRow],
    accepted: Mapping[int, str],
) -> None:
    """Write the refused rows whole. A row that is there already stays as it is.

    ``accepted`` names, by id, the repair by which a row is left out knowingly.
    """
    why = {refusal.row_id: refusal for refusal in refusals}
    cursor.execute(
        "SELECT run_id, source_id FROM kg_migration.steps WHERE step_id = %s", (step_id,)
    )
    owner = cursor.fetchone() or ()
    execute_values(
        cursor,
        "INSERT INTO kg_migration.rejects (run_id, source_id, step_id, table_name, row_id,"
        " column_name, reason, sqlstate, repair, merged_into, columns, storage, bytes) VALUES %s"
        " ON CONFLICT (source_id, table_name, row_id) DO NOTHING",
        (
            (
                *owner,
                step_id,
                table,
                row.row_id,
                why[row.row_id].column,
                why[row.row_id].reason,
                why[row.row_id].sqlstate,
                accepted.get(row.row_id),
                why[row.row_id].same_as if row.row_id in accepted else None,
                list(row.columns),
                list(row.storage),
                _binaries(row),
            )
            for row in rows
        ),
        template="(%s, %s, %s, %s, %s, %s, %s, %s, %s, %s::bigint, %s, %s, %s::bytea[])",
        page_size=200,
    )


def count_rejects(
    cursor: Cursor, run_id: str, table: str | None = None, *, known_too: bool = False
) -> int:
    """Return the number of rejects of a run; with ``known_too`` those left out knowingly, too."""
    cursor.execute(
        "SELECT count(*) FROM kg_migration.rejects WHERE run_id = %(run)s AND loaded_at IS NULL"
        " AND (%(all)s OR repair IS NULL) AND (%(table)s::text IS NULL OR table_name = %(table)s)",
        {"run": run_id, "table": table, "all": known_too},
    )
    (rows,) = cursor.fetchone() or (0,)
    return int(rows)


def rejected_ids(cursor: Cursor, run_id: str, step: Step, limit: int) -> list[int]:
    """Return the ids of the rejects of a step's chunk, no more than one above the limit.

    Those that a retry loaded are among them: a worker may not read which they are.
    """
    cursor.execute(
        "SELECT row_id FROM kg_migration.rejects WHERE run_id = %(run)s"
        " AND table_name = %(table)s AND row_id >= %(lower)s"
        " AND (%(upper)s::bigint IS NULL OR row_id < %(upper)s) LIMIT %(limit)s",
        {
            "run": run_id,
            "table": step.table,
            "lower": step.chunk.lower,
            "upper": step.chunk.upper,
            "limit": limit + 1,
        },
    )
    return [row_id for (row_id,) in cursor.fetchall()]


def list_rejects(
    cursor: Cursor,
    run_id: str,
    table: str | None = None,
    limit: int | None = None,
    *,
    open_only: bool = False,
) -> Iterator[Reject]:
    """Yield a run's rejects by table and id, those left out knowingly among them.

    With ``open_only`` without those. Rows that a retry loaded are no rejects any more.
    """
    after: tuple[str, int] | None = None
    left = limit
    while left is None or left > 0:
        page = _PAGE_ROWS if left is None else min(left, _PAGE_ROWS)
        cursor.execute(
            "SELECT reject_id, step_id, table_name, column_name, reason, sqlstate, repair, row_id,"
            " columns, storage, bytes, mended_storage, mended_bytes FROM kg_migration.rejects"
            " WHERE run_id = %(run)s AND loaded_at IS NULL"
            " AND (%(table)s::text IS NULL OR table_name = %(table)s)"
            " AND (NOT %(open)s OR repair IS NULL)"
            " AND (%(after_table)s::text IS NULL"
            "      OR (table_name, row_id) > (%(after_table)s, %(after_id)s))"
            " ORDER BY table_name, row_id LIMIT %(page)s",
            {
                "run": run_id,
                "table": table,
                "open": open_only,
                "after_table": after and after[0],
                "after_id": after and after[1],
                "page": page,
            },
        )
        rows = cursor.fetchall()
        for row in rows:
            yield _reject(row)
        if len(rows) < page:
            return
        after = rows[-1][2], rows[-1][7]
        left = None if left is None else left - len(rows)


def record_mended(
    cursor: Cursor, run_id: str, table: str, rows: Sequence[RawRow]
) -> frozenset[int]:
    """Keep rows beside the rejects they are to take the place of; return the ids that were found.

    A row that was left out knowingly counts as a reject again.
    """
    found = execute_values(
        cursor,
        "UPDATE kg_migration.rejects AS reject SET repair = NULL, merged_into = NULL,"
        " mended_storage = given.storage, mended_bytes = given.bytes"
        " FROM (VALUES %s) AS given (run_id, table_name, row_id, storage, bytes)"
        " WHERE reject.run_id = given.run_id AND reject.table_name = given.table_name"
        " AND reject.row_id = given.row_id AND reject.loaded_at IS NULL RETURNING reject.row_id",
        [(run_id, table, row.row_id, list(row.storage), _binaries(row)) for row in rows],
        template="(%s, %s, %s::bigint, %s::text[], %s::bytea[])",
        page_size=200,
        fetch=True,
    )
    return frozenset(row_id for (row_id,) in found)


def still_refused(
    cursor: Cursor,
    run_id: str,
    table: str,
    refusals: Sequence[Refusal],
    accepted: Mapping[int, str],
) -> None:
    """Note why rows were refused when they were tried again."""
    execute_values(
        cursor,
        "UPDATE kg_migration.rejects AS reject SET column_name = given.column_name,"
        " reason = given.reason, sqlstate = given.sqlstate, repair = given.repair,"
        " merged_into = given.merged_into FROM (VALUES %s)"
        " AS given (run_id, table_name, row_id, column_name, reason, sqlstate, repair, merged_into)"
        " WHERE reject.run_id = given.run_id AND reject.table_name = given.table_name"
        " AND reject.row_id = given.row_id",
        [
            (
                *(run_id, table, refusal.row_id, refusal.column, refusal.reason, refusal.sqlstate),
                accepted.get(refusal.row_id),
                refusal.same_as if refusal.row_id in accepted else None,
            )
            for refusal in refusals
        ],
        template="(%s, %s, %s::bigint, %s::text, %s, %s, %s::text, %s::bigint)",
        page_size=200,
    )


def take_in(cursor: Cursor, run_id: str, table: str, row_ids: Sequence[int]) -> None:
    """Count rejects that were loaded and verified after all in the steps they belong to."""
    cursor.execute(
        "WITH taken AS (UPDATE kg_migration.rejects SET loaded_at = clock_timestamp()"
        " WHERE run_id = %(run)s AND table_name = %(table)s AND row_id = ANY(%(ids)s)"
        " RETURNING step_id), summed AS (SELECT step_id, count(*) AS rows FROM taken GROUP BY 1)"
        " UPDATE kg_migration.steps AS step SET loaded_rows = loaded_rows + summed.rows,"
        " rejected_rows = rejected_rows - summed.rows FROM summed"
        " WHERE step.step_id = summed.step_id",
        {"run": run_id, "table": table, "ids": list(row_ids)},
    )
    cursor.execute(
        "UPDATE kg_migration.steps AS step SET verified_rows = verified_rows + found.rows FROM ("
        "  SELECT v.step_id, count(*) AS rows FROM kg_migration.steps AS v"
        "  JOIN unnest(%(ids)s::bigint[]) AS id"
        "  ON id >= v.lower_id AND (v.upper_id IS NULL OR id < v.upper_id)"
        "  WHERE v.run_id = %(run)s AND v.table_name = %(table)s AND v.stage = 'verify' GROUP BY 1"
        ") AS found WHERE step.step_id = found.step_id",
        {"run": run_id, "table": table, "ids": list(row_ids)},
    )


def _reject(row: tuple[Any, ...]) -> Reject:
    reject_id, step_id, table, column, reason, sqlstate, repair, row_id, names, *rest = row
    storage, values, mended_storage, mended_values = rest
    columns = tuple(names)
    return Reject(
        reject_id,
        step_id,
        table,
        column,
        reason,
        sqlstate,
        repair,
        RawRow(row_id, columns, tuple(storage), _bytes(values)),
        mended_storage and RawRow(row_id, columns, tuple(mended_storage), _bytes(mended_values)),
    )


def _bytes(values: Sequence[memoryview | None]) -> tuple[bytes | None, ...]:
    return tuple(None if value is None else bytes(value) for value in values)


def _binaries(row: RawRow) -> list[Any]:
    return [None if value is None else Binary(value) for value in row.values]


def _shown(storage: str, value: bytes | None) -> dict[str, str | None]:
    if value is None:
        return {"value": None}
    if storage != "blob":
        try:
            return {"value": value.decode()}
        except UnicodeDecodeError:
            pass
    return {"hex": value.hex()}
