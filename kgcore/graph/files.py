"""Files over time: snapshots of their size and content."""

from kgcore.backends import Row
from kgcore.graph.dialect import NOW
from kgcore.graph.session import Part
from kgcore.graph.values import Metadata, count, metadata_text, optional_text, record, text
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
                size_bytes,
                lines_of_code,
                optional_text(content_hash),
                metadata_text(metadata),
                NOW,
            ),
            repeatable=False,
        )
        return int(rows[0]["id"])

    def get_file_history(self, file_path: str, limit: int = 10) -> list[Row]:
        """Return a file's snapshots, newest first.

        Each is ``dict(id, file_path, mission_id, size_bytes, lines_of_code, hash, created_at,
        metadata)``.
        """
        rows = self._session.rows(
            f"SELECT {_COLUMNS} FROM file_snapshots WHERE file_path = ?"
            f" ORDER BY {self._session.dialect.instant('created_at')} DESC, id DESC LIMIT ?",
            (text(file_path), count(limit, "limit")),
        )
        return [record(row) for row in rows]
