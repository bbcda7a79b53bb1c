"""Files over time: snapshots of their size and content."""

from datetime import datetime

from kgcore.backends import Row
from kgcore.graph.dialect import NOW
from kgcore.graph.filters import Filter, Place
from kgcore.graph.session import Part
from kgcore.graph.values import (
    Metadata,
    aware,
    count,
    metadata_text,
    optional_integer,
    optional_text,
    text,
)
from kgcore.schema import FILE_SNAPSHOTS

_COLUMNS = ", ".join(FILE_SNAPSHOTS.column_names)


class Files(Part):
    """Logs and lists file snapshots."""

    def log_file_snapshot(
        self,
        file_path: str,
        mission_id: str | None = None,
        size_bytes: int | None = None,
        lines_of_code: int | None = None,
        content_hash: str | None = None,
        metadata: Metadata | None = None,
    ) -> int:
        """Log a file as it is now and return the snapshot's id."""
        dialect = self._session.dialect
        rows = self._session.write(
            "INSERT INTO file_snapshots"
            " (file_path, mission_id, size_bytes, lines_of_code, hash, metadata, created_at)"
            f" VALUES (?, ?, ?, ?, ?, {dialect.json}, {dialect.now}) RETURNING id",
            (
                text(file_path),
                optional_text(mission_id),
                optional_integer(size_bytes, "size_bytes"),
                optional_integer(lines_of_code, "lines_of_code"),
                optional_text(content_hash),
                metadata_text(metadata),
                NOW,
            ),
            repeatable=False,
        )
        return int(rows[0]["id"])

    def get_file_history(
        self, file_path: str, limit: int = 10, *, after: Place | None = None
    ) -> list[Row]:
        """Return a file's snapshots, newest first.

        Each is ``dict(id, file_path, mission_id, size_bytes, lines_of_code, hash, created_at,
        metadata)``. ``after`` goes on behind one: ``(row["created_at"], row["id"])``.
        """
        chosen = Filter(self._session.dialect)
        chosen.equal_text("file_path", file_path)
        chosen.behind("file_snapshots", "created_at", after)
        return self._session.records(
            f"SELECT {_COLUMNS} FROM file_snapshots {chosen.where}"
            f" {chosen.newest('created_at')} LIMIT ?",
            (*chosen.params, count(limit, "limit")),
        )

    def delete_file_snapshots(
        self, file_path: str | None = None, *, before: datetime | str | None = None
    ) -> int:
        """Delete the snapshots of a file, those older than a time, or both; return how many.

        ``before`` is aware, or UTC; as text it is like ``created_at``. Raises ValueError without
        either: that would delete all; TypeError for a ``date``, which has no zone. Those that were
        deleted in a try whose connection was lost are not counted.
        """
        if file_path is None and before is None:
            raise ValueError("delete_file_snapshots needs file_path, before, or both")
        chosen = Filter(self._session.dialect)
        chosen.equal_text("file_path", file_path)
        if before is not None:
            chosen.until("created_at", aware(before))
        sql = f"DELETE FROM file_snapshots {chosen.where} RETURNING id"
        return len(self._session.write(sql, chosen.params))
