"""Types: from what a column was declared as, SQLite's affinity, and what its values really are.

SQLite stores what it is given, so a declared type is a promise and not a fact. It becomes the
column's kind if every value keeps the promise; where one doesn't, the kind that most values fit.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field

from kgcore.model import INTEGERS, Kind
from kgcore.schema.translate.magnitudes import Magnitudes

#: Texts that stand for true and false, in any case, beside 0 and 1.
TRUE = ("t", "true", "y", "yes", "on", "1")
FALSE = ("f", "false", "n", "no", "off", "0")

# Names that say more than SQLite's affinity; the first part that occurs decides. The affinity's
# own rules follow: https://www.sqlite.org/datatype3.html, 3.1.
_NAMED = (
    ("BOOL", Kind.BOOLEAN),
    ("JSON", Kind.JSON),
    ("DATETIME", Kind.TIMESTAMP),
    ("TIMESTAMP", Kind.TIMESTAMP),
)
_AFFINITIES = (
    ("INT", Kind.INTEGER),
    ("CHAR", Kind.TEXT),
    ("CLOB", Kind.TEXT),
    ("TEXT", Kind.TEXT),
    ("BLOB", Kind.BLOB),
    ("BINARY", Kind.BLOB),
    ("BYTEA", Kind.BLOB),
    ("REAL", Kind.REAL),
    ("FLOA", Kind.REAL),
    ("DOUB", Kind.REAL),
    ("NUMERIC", Kind.NUMERIC),
    ("DECIMAL", Kind.NUMERIC),
    ("NUMBER", Kind.NUMERIC),
    ("MONEY", Kind.NUMERIC),
)

_RULES = (
    (Kind.INTEGER, ("INT",)),
    (Kind.TEXT, ("CHAR", "CLOB", "TEXT")),
    (Kind.BLOB, ("BLOB",)),
    (Kind.REAL, ("REAL", "FLOA", "DOUB")),
)

# What each kind takes exactly as it is, the first that takes most decides.
_TAKEN = (
    (Kind.INTEGER, ("integer",)),
    (Kind.REAL, ("real",)),
    (Kind.NUMERIC, ("integer", "real")),
    (Kind.BLOB, ("blob",)),
    (Kind.TEXT, ("text", "integer")),
)


#: The storage classes whose values mean the same to SQLite as a kind's do to PostgreSQL.
NATIVE: Mapping[Kind, tuple[str, ...]] = {
    Kind.REAL: ("real",),
    Kind.NUMERIC: ("integer", "real"),
    Kind.BLOB: ("blob",),
    **dict.fromkeys((Kind.TEXT, Kind.JSON, Kind.TIMESTAMP, Kind.DATE), ("text",)),
    **dict.fromkeys((*sorted(INTEGERS), Kind.BOOLEAN), ("integer",)),
}
#: The class of texts that PostgreSQL has not: with a NUL character, or not in Unicode.
ODD_TEXT = "odd text"

# What an affinity leaves as it is, of what it might change.
_KEPT = {
    Kind.INTEGER: (Kind.INTEGER, Kind.NUMERIC, Kind.BLOB),
    Kind.REAL: (Kind.REAL, Kind.BLOB),
    Kind.TEXT: (Kind.TEXT, Kind.BLOB),
    Kind.JSON: (Kind.TEXT, Kind.BLOB),
}


@dataclass(frozen=True, slots=True)
class Operand:
    """What expressions meet in a column: storage classes (or :data:`ODD_TEXT`), and how large."""

    classes: frozenset[str] = frozenset()
    magnitudes: Magnitudes = field(default_factory=Magnitudes)


@dataclass(frozen=True, slots=True)
class Evidence:
    """What a column holds: rows that break the declared promise, and one of them.

    ``storage`` counts its values by storage class, told only where there is no promise or it is
    broken. ``integers_fit`` says that all its integers are doubles, too. ``longest`` counts bytes,
    ``nulls`` rows.
    """

    misfits: int = 0
    example: int | None = None
    storage: Mapping[str, int] = field(default_factory=dict)
    integers_fit: bool = True
    longest: int = 0
    nulls: int = 0


def promised(declared: str) -> Kind | None:
    """Return the kind that a declared type promises, or None where it says nothing."""
    upper = declared.upper()
    if upper.split("(")[0].strip() == "DATE":
        return Kind.DATE
    return next((kind for part, kind in (*_NAMED, *_AFFINITIES) if part in upper), None)


def affinity(declared: str) -> Kind:
    """Return what SQLite makes of values, where it can: NUMERIC of either number, BLOB nothing.

    See https://www.sqlite.org/datatype3.html, 3.1.
    """
    upper = declared.upper()
    for kind, parts in _RULES:
        if any(part in upper for part in parts):
            return kind
    return Kind.NUMERIC if upper else Kind.BLOB


def keeps(declared: str, kind: Kind) -> bool:
    """Whether a column that is declared so surely stores a value of this kind as it is."""
    return affinity(declared) in _KEPT.get(kind, (affinity(declared),))


def decide(promise: Kind | None, evidence: Evidence) -> tuple[Kind, str | None]:
    """Return a column's kind, and why it is not the one that was promised, if it isn't."""
    if promise is not None and evidence.misfits == 0:
        return promise, None
    kind, fitting = _of_values(evidence)
    if promise is None:
        return kind, None
    if kind is promise or sum(evidence.storage.values()) - evidence.misfits >= fitting:
        return promise, None  # Rows whose values break it are refused when they are loaded.
    where = "" if evidence.example is None else f" (one has the row id {evidence.example})"
    rows = "1 value is" if evidence.misfits == 1 else f"{evidence.misfits:,} values are"
    return kind, f"{rows} no {promise}{where}: the column arrives as {kind}"


def _of_values(evidence: Evidence) -> tuple[Kind, int]:
    """Return the kind that most values fit, TEXT where there are none, and how many do."""
    fitting = {
        kind: sum(evidence.storage.get(storage, 0) for storage in taken) for kind, taken in _TAKEN
    }
    most = max(fitting.values())
    kind = next(kind for kind in fitting if fitting[kind] == most) if most else Kind.TEXT
    return Kind.REAL if kind is Kind.NUMERIC and evidence.integers_fit else kind, most


def misfit(promise: Kind, column: str) -> str:
    """Return a SQLite condition that is true of values which break the promise. NULL never does.

    ``column`` is quoted. What is no misfit here is refused by no lane, but for JSON that SQLite
    reads and JSONB can't hold.
    """
    storage = f"typeof({column})"
    fits = _FITS[promise].format(c=column, storage=storage)
    return f"{column} IS NOT NULL AND ({fits}) IS NOT TRUE"


def _words() -> str:
    return ", ".join(f"'{word}'" for word in (*TRUE, *FALSE))


# Chains of WHEN, because SQLite computes both sides of an OR: 19 µs a timestamp became 4.
_DIGIT = "[0-9]"
# date() gives back no other text than one of this form. With something to add it gives another day
# for the 31st of a month that has none.
_NO_DAY = (
    "WHEN {storage} <> 'text' OR substr({c}, 1, 4) = '0000' THEN false"
    " WHEN date(substr({c}, 1, 10), '+0 days') IS NOT substr({c}, 1, 10) THEN false"
)
_MINUTES = f"[T ][0-2]{_DIGIT}:[0-5]{_DIGIT}"
_FRACTIONS = ("", *("." + _DIGIT * number for number in (6, 3, 1, 2, 4, 5)))
_ZONES = ("", "Z", f"[+-][01]{_DIGIT}:[0-5]{_DIGIT}")
_ENDS = " ".join(
    f"WHEN substr({{c}}, 20) GLOB '{fraction}{zone}' THEN true"
    for zone in _ZONES
    for fraction in _FRACTIONS
)

_FITS: Mapping[Kind, str] = {
    Kind.INTEGER: "{storage} = 'integer'",
    Kind.REAL: "{storage} = 'real' OR ({storage} = 'integer'"
    " AND {c} BETWEEN -(1 << 53) AND 1 << 53)",
    Kind.NUMERIC: "{storage} IN ('integer', 'real')",
    Kind.TEXT: "{storage} = 'text'",
    Kind.BLOB: "{storage} = 'blob'",
    Kind.JSON: "{storage} = 'text' AND json_valid({c})",
    Kind.BOOLEAN: "CASE {storage} WHEN 'integer' THEN {c} IN (0, 1)"
    f" WHEN 'text' THEN lower({{c}}) IN ({_words()}) END",
    Kind.DATE: f"CASE {_NO_DAY} ELSE length({{c}}) = 10 END",
    Kind.TIMESTAMP: f"CASE {_NO_DAY} WHEN length({{c}}) = 10 THEN true"
    f" WHEN substr({{c}}, 12, 2) >= '24' THEN false"
    f" WHEN length({{c}}) = 16 THEN substr({{c}}, 11) GLOB '{_MINUTES}'"
    f" WHEN substr({{c}}, 11, 9) NOT GLOB '{_MINUTES}:[0-5]{_DIGIT}' THEN false {_ENDS} END",
}
