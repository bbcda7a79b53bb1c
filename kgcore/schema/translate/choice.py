"""Which tables of a file are migrated: ``--only`` and ``--exclude``, names or patterns."""

from collections.abc import Sequence
from fnmatch import fnmatchcase

from kgcore.errors import SettingsError
from kgcore.schema.translate.source import SourceTable
from kgcore.schema.translate.sql import fold_ascii, shown


def choose(
    tables: Sequence[SourceTable], only: Sequence[str], exclude: Sequence[str]
) -> tuple[SourceTable, ...]:
    """Return the tables that are meant; ``*`` and ``?`` stand for anything.

    Case counts as in SQLite: not in ASCII letters. Raises :class:`SettingsError` for a name that no
    table of the file has.
    """
    for option, patterns in (("--only", only), ("--exclude", exclude)):
        for pattern in patterns:
            if not any(_matches(table, pattern) for table in tables):
                raise SettingsError(
                    f"{option} {pattern}: the file has no such table",
                    "it has " + (", ".join(shown(table.name) for table in tables) or "none at all"),
                )
    return tuple(
        table
        for table in tables
        if (not only or any(_matches(table, pattern) for pattern in only))
        and not any(_matches(table, pattern) for pattern in exclude)
    )


def is_left_out(name: str, only: Sequence[str], exclude: Sequence[str]) -> bool:
    """Whether a table that the file lacks would not be wanted either."""
    return bool(only) or any(fnmatchcase(name, fold_ascii(pattern)) for pattern in exclude)


def _matches(table: SourceTable, pattern: str) -> bool:
    return fnmatchcase(fold_ascii(table.name), fold_ascii(pattern))
