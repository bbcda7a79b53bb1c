"""Why a statement of the user's can't be explained, in two lines and not as the driver's error."""

import sqlite3
from collections.abc import Iterator
from contextlib import contextmanager

import psycopg2
from psycopg2.errors import ReadOnlySqlTransaction

from kgcore.errors import SettingsError


def writes(what: str = "") -> SettingsError:
    """Return the error for a statement that does more than reading; ``what`` says how it did."""
    return SettingsError(
        "only one statement that reads can be explained, and this one writes" + what,
        "explain the SELECT that finds the rows it would change",
    )


@contextmanager
def refusing() -> Iterator[None]:
    """Turn what the database says about a statement into :class:`SettingsError`.

    What it says about itself (it is gone, busy, out of memory) goes through as it is.
    """
    try:
        yield
    except ReadOnlySqlTransaction as error:
        raise writes(f": {_words(error)}") from None
    except (psycopg2.OperationalError, psycopg2.InterfaceError):
        raise
    except psycopg2.Error as error:
        raise _refused(_words(error), error.diag.message_hint) from None
    except sqlite3.Error as error:
        # Only the driver's own errors, about parameters, have no code.
        if getattr(error, "sqlite_errorcode", sqlite3.SQLITE_ERROR) != sqlite3.SQLITE_ERROR:
            raise
        raise _refused(_words(error)) from None
    except IndexError:  # psycopg2 fills in the parameters itself.
        raise _refused("it has more parameters than there are values") from None


def _refused(why: str, hint: str | None = None) -> SettingsError:
    mend = "write values in place of ?; a question mark that is no parameter is written ??"
    if "parameter" not in why and "bindings" not in why:
        mend = "mend the statement: names, and what this database can do, are its own"
    return SettingsError(f"the statement can't be explained: {why}", hint or mend)


def _words(error: Exception) -> str:
    primary = error.diag.message_primary if isinstance(error, psycopg2.Error) else None
    return " ".join((primary or str(error)).split())
