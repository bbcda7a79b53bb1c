"""What a run's source was described as when it was planned.

That never changes, and each process reads it once: a table whose rows have no id is described with
a place for each of its chunks, and of 20,000 of them the description takes 30 ms to read.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from threading import Lock

from psycopg2.extensions import cursor as Cursor  # noqa: N812

from kgcore.migration.model import PlannedTable
from kgcore.model import NotCarriedOver

# Of so many runs at once, a process knows them by heart.
_MOST = 4


@dataclass(frozen=True, slots=True)
class Described:
    """The tables by name, and what of the file's schema the target lacks."""

    tables: Mapping[str, PlannedTable]
    not_carried_over: tuple[NotCarriedOver, ...]


def described(cursor: Cursor, source_id: int, sha256: str, run_id: str) -> Described:
    """Return the description of a source that the ledger holds for the run."""
    key = (run_id, source_id, sha256)
    with _lock:
        known = _known.get(key)
    if known is None:
        known = _read(cursor, source_id)
        with _lock:
            _known[key] = known
            while len(_known) > _MOST:
                del _known[next(iter(_known))]
    return known


def _read(cursor: Cursor, source_id: int) -> Described:
    cursor.execute(
        # An older ledger has no such column, and is still to be read.
        "SELECT tables, coalesce(to_jsonb(s)->'not_carried_over', '[]')"
        " FROM kg_migration.sources s WHERE source_id = %s",
        (source_id,),
    )
    tables, notes = cursor.fetchone() or ((), ())
    planned = [PlannedTable.from_json(stored) for stored in tables]
    return Described(
        {item.table.name: item for item in planned},
        tuple(NotCarriedOver(**note) for note in notes),
    )


_known: dict[tuple[str, int, str], Described] = {}
_lock = Lock()
