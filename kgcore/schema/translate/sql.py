"""Literals and names in PostgreSQL's SQL. Everything that is re-rendered is spelled here."""

import string

#: Folds ASCII letters alone, as SQLite's NOCASE, lower() and LIKE do.
C = ' COLLATE "C"'

_ASCII_LOWER = {ord(letter): letter.lower() for letter in string.ascii_uppercase}


def name(identifier: str) -> str:
    """Quote an identifier."""
    return '"' + identifier.replace('"', '""') + '"'


def text(value: str) -> str:
    """Quote a text, whatever ``standard_conforming_strings`` says on the server.

    Raises :class:`ValueError` for one with a NUL character, or one that is no Unicode.
    """
    value.encode()
    if "\0" in value:
        raise ValueError("a text with a NUL character")
    quoted = value.replace("'", "''")
    return "E'" + quoted.replace("\\", "\\\\") + "'" if "\\" in value else f"'{quoted}'"


def real(value: float) -> str:
    """Return a double, exactly."""
    return f"'{value!r}'::double precision"


def nocase(value: str) -> str:
    """Return what compares as ``value`` does under SQLite's NOCASE."""
    return f"lower({value}{C})"


def fold_ascii(value: str) -> str:
    """Lower the ASCII letters, and no others: names that are equal then are equal to SQLite."""
    return value.translate(_ASCII_LOWER)


def is_unicode(value: str) -> bool:
    """Whether a text of a file's schema is what it seems: Unicode, without lone surrogates."""
    try:
        value.encode()
    except UnicodeEncodeError:
        return False
    return True


def shown(value: str) -> str:
    r"""Return a text of a file's schema for people: bytes that are no UTF-8 as ``\xe9``."""
    return value.encode(errors="surrogateescape").decode(errors="backslashreplace")
