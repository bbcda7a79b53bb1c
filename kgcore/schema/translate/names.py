"""Names: kept as they are, or folded; never two that become one, never one that gets cut off."""

import re
import unicodedata
from collections.abc import Callable, Iterable, Mapping
from hashlib import sha256
from typing import Literal

from kgcore.errors import SourceError
from kgcore.schema.translate.source import SourceTable
from kgcore.schema.translate.sql import is_unicode, shown

Names = Literal["keep", "lower", "snake"]

#: PostgreSQL cuts longer names off, in silence.
NAME_BYTES = 63

# Every table of PostgreSQL has columns of these names already.
_SYSTEM_COLUMNS = frozenset({"tableoid", "xmin", "cmin", "xmax", "cmax", "ctid"})

_HUMP = re.compile(r"(?<=[^\W_A-Z])(?=[A-Z])|(?<=[A-Z])(?=[A-Z][^\W\d_A-Z])")
_GAP = re.compile(r"[^\w]+|_{2,}")


def snake(name: str) -> str:
    """Return ``InvoiceLine`` as ``invoice_line``, ``HTTP Status`` as ``http_status``."""
    gapless = _GAP.sub("_", _HUMP.sub("_", unicodedata.normalize("NFC", name)))
    return gapless.strip("_").lower() or name


_FOLDS: dict[str, Callable[[str], str]] = {"keep": str, "lower": str.lower, "snake": snake}


def folded(names: Iterable[str], how: Names, what: str) -> dict[str, str]:
    """Return each name's name in the target.

    ``what`` are they, for messages: "tables", "columns of x". Raises :class:`SourceError` for a
    name that PostgreSQL can't have, and for two that would become one.
    """
    found: dict[str, str] = {}
    taken: dict[str, str] = {}
    for name in names:
        target = checked(_FOLDS[how](name))
        if target in taken:
            raise SourceError(
                f"the {what} {taken[target]!r} and {name!r} would both become {target!r}",
                "take --names keep, or rename one in a copy of the file: ALTER TABLE … RENAME",
            )
        found[name] = target
        taken[target] = name
    return found


def checked(name: str) -> str:
    """Return a name that PostgreSQL can have as it is. Raises :class:`SourceError`."""
    try:
        size = len(name.encode())
    except UnicodeEncodeError:
        size = 0
    if not 0 < size <= NAME_BYTES or "\0" in name:
        raise SourceError(
            f"the name {name!r} doesn't fit PostgreSQL's {NAME_BYTES} bytes",
            "rename it in a copy of the file first, with ALTER TABLE … RENAME",
        )
    return name


def require_unicode(table: SourceTable) -> None:
    """Raise :class:`SourceError` where the table or a column has a name that is no Unicode.

    Nothing can be asked of it then: SQLite's own functions take no other names.
    """
    pattern = "".join(letter if is_unicode(letter) else "?" for letter in table.name)
    hint = (
        "rename it in a copy of the file, with a program that took such a name; or leave the table"
        f" behind knowingly with --exclude '{pattern}'"
    )
    if not is_unicode(table.name):
        raise SourceError(f"the name of table {shown(table.name)} is not valid UTF-8", hint)
    for column in table.columns:
        if not is_unicode(column.name):
            raise SourceError(
                f"the name of column {shown(column.name)} of table {table.name} is not valid UTF-8",
                hint,
            )


def checked_columns(columns: Mapping[str, str], table: str) -> None:
    """Raise :class:`SourceError` where a column has a name that PostgreSQL keeps for itself."""
    for name, target in columns.items():
        if target in _SYSTEM_COLUMNS:
            raise SourceError(
                f"PostgreSQL has a column {target} of its own in every table, {table} has one, too",
                f'rename it in a copy of the file: ALTER TABLE "{table}" RENAME COLUMN "{name}"',
            )


class Relations:
    """Names in one space: tables and indexes of a schema, or the constraints of a table."""

    def __init__(self, taken: Iterable[str]) -> None:
        self._taken = set(taken)

    def free(self, wanted: str, *others: "Relations") -> str:
        """Take a name: the one that is wanted if it is free and fits, else one with a digest.

        It is taken in the ``others``, too.
        """
        spaces = [space._taken for space in (self, *others)]
        name = fitting(wanted)
        number = 1
        while any(name in space for space in spaces):
            number += 1
            name = fitting(f"{wanted}_{number}")
        for space in spaces:
            space.add(name)
        return name


def fitting(name: str) -> str:
    """Return a generated name as it is, or shortened, with a digest of the whole at its end."""
    clean = name.replace("\0", "")
    raw = clean.encode(errors="replace")
    if len(raw) <= NAME_BYTES:
        return raw.decode()
    digest = sha256(raw).hexdigest()[:8]
    return raw[: NAME_BYTES - 9].decode(errors="ignore") + "_" + digest
