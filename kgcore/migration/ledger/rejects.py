"""Rejects: the rows the target can't hold, whole."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from psycopg2 import Binary
from psycopg2.extensions import cursor as Cursor  # noqa: N812
from psycopg2.extras import execute_values

from kgcore.migration.model import RawRow, Refusal


@dataclass(frozen=True, slots=True)
class Reject:
    """A refused row as ``kg rejects`` shows it. ``values`` are the original bytes by column."""

    table: str
    row_id: int
    column: str | None
    reason: str
    sqlstate: str
    storage: dict[str, str]
    values: dict[str, bytes | None]

    def to_json(self) -> dict[str, Any]:
        """Return a plain dict; bytes that are not UTF-8 text, and BLOBs, are shown as hex."""
        return {
            "table": self.table,
            "id": self.row_id,
            "column": self.column,
            "reason": self.reason,
            "sqlstate": self.sqlstate,
            "row": {
                name: {"type": self.storage[name], **_shown(self.storage[name], value)}
                for name, value in self.values.items()
            },
        }


def record_rejects(
    cursor: Cursor, step_id: int, table: str, refusals: Sequence[Refusal], rows: Iterable[RawRow]
) -> None:
    """Write the refused rows whole. A row that is there already stays as it is."""
    why = {refusal.row_id: refusal for refusal in refusals}
    cursor.execute(
        "SELECT run_id, source_id FROM kg_migration.steps WHERE step_id = %s", (step_id,)
    )
    owner = cursor.fetchone() or ()
    execute_values(
        cursor,
        "INSERT INTO kg_migration.rejects (run_id, source_id, step_id, table_name, row_id,"
        " column_name, reason, sqlstate, columns, storage, bytes) VALUES %s"
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
                list(row.columns),
                list(row.storage),
                [None if value is None else Binary(value) for value in row.values],
            )
            for row in rows
        ),
        template="(%s, %s, %s, %s, %s, %s, %s, %s, %s, %s, %s::bytea[])",
        page_size=200,
    )


def count_rejects(cursor: Cursor, run_id: str) -> int:
    """Return the number of rejects of a run."""
    cursor.execute("SELECT count(*) FROM kg_migration.rejects WHERE run_id = %s", (run_id,))
    (rows,) = cursor.fetchone() or (0,)
    return int(rows)


def list_rejects(
    cursor: Cursor, run_id: str, table: str | None = None, limit: int | None = None
) -> tuple[Reject, ...]:
    """Return a run's rejects by table and id."""
    cursor.execute(
        "SELECT table_name, row_id, column_name, reason, sqlstate, columns, storage, bytes"
        " FROM kg_migration.rejects WHERE run_id = %(run)s"
        " AND (%(table)s::text IS NULL OR table_name = %(table)s)"
        " ORDER BY table_name, row_id LIMIT %(limit)s",
        {"run": run_id, "table": table, "limit": limit},
    )
    return tuple(
        Reject(
            table=row[0],
            row_id=row[1],
            column=row[2],
            reason=row[3],
            sqlstate=row[4],
            storage=dict(zip(row[5], row[6], strict=True)),
            values={
                name: None if value is None else bytes(value)
                for name, value in zip(row[5], row[7], strict=True)
            },
        )
        for row in cursor.fetchall()
    )


def _shown(storage: str, value: bytes | None) -> dict[str, str | None]:
    if value is None:
        return {"value": None}
    if storage != "blob":
        try:
            return {"value": value.decode()}
        except UnicodeDecodeError:
            pass
    return {"hex": value.hex()}
