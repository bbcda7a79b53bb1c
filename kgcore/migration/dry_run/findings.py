"""Findings: what is wrong with refused rows, in the words by which people look for it."""

from kgcore.model import Kind

_BY_SQLSTATE = {
    "22003": "range",
    "22007": "time",
    "22008": "time",
    "22021": "encoding",
    "22P05": "nul",
    "23502": "null",
    "23503": "orphans",
    "23505": "duplicates",
    "23514": "checks",
    "42804": "mixed types",
    "54000": "too long",
}


def finding(kind: Kind | None, sqlstate: str, reason: str) -> str:
    """Return the group of a reject: its column's kind, SQLSTATE and reason tell."""
    if "NUL" in reason and sqlstate == "22021":
        return "nul"
    if "surrogate" in reason:
        return "encoding"
    if sqlstate == "22P02":
        return "json" if kind is Kind.JSON else "mixed types"
    return _BY_SQLSTATE.get(sqlstate, "other")
