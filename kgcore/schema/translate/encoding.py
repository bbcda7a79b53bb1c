"""Encoding: a file's texts as the bytes of UTF-8, which is what PostgreSQL will hold.

As a BLOB SQLite gives a text in the encoding of the file, and orders it by these bytes.
"""

import sqlite3

_UTF8, _IS_ODD = "kg_utf8", "kg_is_odd"


class Encoding:
    """The encoding of a connection's main database, and SQL for it; gives functions to it."""

    def __init__(self, connection: sqlite3.Connection) -> None:
        (name,) = connection.execute("PRAGMA encoding").fetchone()
        self.name = str(name)
        connection.create_function(_IS_ODD, 1, self._is_odd, deterministic=True)
        if self.is_utf16:
            connection.create_function(_UTF8, 1, self._utf8, deterministic=True)

    @property
    def is_utf16(self) -> bool:
        """Whether texts are kept in UTF-16, of either byte order."""
        return self.name != "UTF-8"

    def as_utf8(self, value: str) -> str:
        """Return SQL for a value as a BLOB: of a text, its bytes in UTF-8."""
        blob = f"CAST({value} AS BLOB)"
        return f"iif(typeof({value}) = 'blob', {value}, {_UTF8}({blob}))" if self.is_utf16 else blob

    def is_odd(self, text: str) -> str:
        """Return SQL that is true of a text with a NUL character, or that is not in Unicode."""
        return f"{_IS_ODD}(CAST({text} AS BLOB))"

    def _utf8(self, raw: bytes | None) -> bytes | None:
        if raw is None:
            return None
        return raw.decode(self.name, "replace").encode(errors="replace")

    def _is_odd(self, raw: bytes | None) -> bool:
        try:
            return raw is not None and "\0" in raw.decode(self.name)
        except UnicodeDecodeError:
            return True
