"""Tally: refused rows counted by reason, with a few of them; its size does not grow with rows."""

import re
from bisect import insort
from collections import Counter
from collections.abc import Collection, Iterable
from dataclasses import dataclass, field
from functools import lru_cache
from heapq import nsmallest

from kgcore.migration.model import InvalidText, Refusal

#: Rows of a reason that are named.
EXAMPLES = 10

_SHOWN = 60
_DIGITS = re.compile(r"\d[\d,]*")


@dataclass(frozen=True, slots=True, order=True)
class Example:
    """A refused row: its id, and the value at fault, shortened (of a key of several, all)."""

    row_id: int
    value: str


@dataclass(slots=True)
class Reason:
    """Rows that are refused for one reason. ``repair`` leaves them out knowingly."""

    column: str | None
    reason: str
    sqlstate: str
    repair: str | None
    rows: int = 0
    examples: list[Example] = field(default_factory=list)


@dataclass(slots=True)
class Tally:
    """Refused rows by reason, and how many each repair would save."""

    reasons: dict[tuple[str | None, ...], Reason] = field(default_factory=dict)
    saving: Counter[str] = field(default_factory=Counter)

    def count(self, refusal: Refusal, repair: str | None, *values: object) -> None:
        """Count one refused row, with the values at fault."""
        key = (refusal.column, refusal.sqlstate, _alike(refusal.reason), repair)
        reason = self.reasons.get(key)
        if reason is None:
            reason = Reason(refusal.column, refusal.reason, refusal.sqlstate, repair)
            self.reasons[key] = reason
        reason.rows += 1
        examples = reason.examples
        if len(examples) < EXAMPLES or refusal.row_id < examples[-1].row_id:
            insort(examples, Example(refusal.row_id, shown(*values)))
            del examples[EXAMPLES:]

    def save(self, saving: Iterable[Collection[str]]) -> None:
        """Count the repairs that would save a row, for each of them."""
        for names in saving:
            self.saving.update(names)

    def add(self, more: "Tally") -> None:
        """Take in what was counted elsewhere."""
        self.saving += more.saving
        for key, other in more.reasons.items():
            mine = self.reasons.get(key)
            if mine is None:
                self.reasons[key] = other
                continue
            mine.rows += other.rows
            mine.examples = nsmallest(EXAMPLES, mine.examples + other.examples)


def shown(*values: object) -> str:
    """Return values for people, shortened."""
    text = ", ".join(map(_shown, values))
    return text if len(text) <= _SHOWN else text[: _SHOWN - 1] + "…"


def _shown(value: object) -> str:
    match value:
        case None:
            return "NULL"
        case InvalidText():
            return value[:_SHOWN].decode(errors="backslashreplace")
        case bytes():
            return f"x'{value[: _SHOWN // 2].hex()}'"
        case str():
            return ascii(value[:_SHOWN])[1:-1] if not value[:_SHOWN].isprintable() else value
    return str(value)


@lru_cache(maxsize=1_000)
def _alike(reason: str) -> str:
    """Return what reasons have in common that differ in a place or a size alone."""
    return _DIGITS.sub("", reason.partition(": ")[0])
