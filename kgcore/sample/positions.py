"""What follows from a row's position alone: its id, its name, its instant.

Because these are computed, no row has to be remembered for another to refer to it.
"""

from datetime import UTC, datetime, timedelta

#: The type of the n-th entity is the n-th of these, over and over.
TYPES = ("mission", "file", "concept", "file", "bug", "file", "agent", "decision")
_FILES_A_TURN = TYPES.count("file")
_START = datetime(2021, 1, 1, tzinfo=UTC)
#: From the oldest row of a table to its newest.
SPAN_SECONDS = 4 * 365 * 86_400
# What follows the seconds; the first is the form of all rows but the oldest.
_FORMS = ("Z", ".000001Z", "+02:00", "", ".987654", ".5-05:30", "+00:00", ".123Z")
# One id of 25 is missing, and 400 in a row after each 32,768: about 5 % together.
_BLOCK, _HOLE_SHIFT, _HOLE_IDS = 24, 15, 400
# An odd number permutes the 48-bit integers: ids that look like hashes and never meet.
_SCATTER = 0x9E3779B97F4B


def entity_name(kind: str, position: int) -> str:
    """Return the name of the entity at a position, unique within its type."""
    turn, place = divmod(position, len(TYPES))
    if kind == "mission":
        return mission_name(turn)
    if kind == "file":
        return file_name(turn * _FILES_A_TURN + TYPES[:place].count("file"))
    return f"{kind}-{turn:08d}"


def mission_name(number: int) -> str:
    """Return the name of the n-th mission: 12 hexadecimal digits, each name once."""
    return f"{(number + 1) * _SCATTER % 2**48:012x}"


def file_count(entities: int) -> int:
    """Return how many of the first entities are files, leaving the last turn of types out."""
    return entities // len(TYPES) * _FILES_A_TURN


def file_name(number: int) -> str:
    """Return the path of the n-th file."""
    return f"src/package{number // 400:05d}/module_{number:08d}.py"


def spaced(position: int, seed: int) -> int:
    """Return the id of the row at a position (from 0): rising, with gaps."""
    block, place = divmod(position, _BLOCK)
    hole = (block * block * 7 + block * 3 + seed) % (_BLOCK + 1)
    return position + block + 1 + (place >= hole) + (position >> _HOLE_SHIFT) * _HOLE_IDS


def odd_rows(rows: int) -> int:
    """Return how many of the first rows have timestamps of all forms: 1 of 200, but all forms."""
    return max(rows // 200, min(rows, len(_FORMS)))


def instant(seconds: int, position: int, odd: int) -> str:
    """Return a timestamp in ISO 8601; those of the first ``odd`` positions come in all forms."""
    form = _FORMS[position % len(_FORMS)] if position < odd else "Z"
    return (_START + timedelta(seconds=seconds)).isoformat()[:19] + form
