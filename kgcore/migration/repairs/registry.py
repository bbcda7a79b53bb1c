"""The repairs by name. Off unless asked for; in this order they are tried on a value."""

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from kgcore.errors import SettingsError
from kgcore.migration.model import Refusal
from kgcore.migration.repairs import values
from kgcore.model import ForeignKey, Index, Kind, Table
from kgcore.schema import ENTITIES

#: Takes every repair, of two that exclude each other the first.
ALL = "all"

NAN_AS_NULL = "nan-as-null"
DROP_DANGLING = "drop-dangling"
PLACEHOLDER_ENTITIES = "placeholder-entities"
MERGE_DUPLICATES = "merge-duplicates"

PLACEHOLDER_TYPE = "placeholder"
_MERGED_COLUMNS = ("type", "name")

_UNIQUE_VIOLATION = "23505"
_FOREIGN_KEY_VIOLATION = "23503"

Mend = Callable[[Kind, Any], Any]


@dataclass(frozen=True, slots=True)
class Repair:
    """A way to make a row fit. ``mend`` is None for those that need other rows to do it.

    ``example`` is a value before and after, as the documentation shows it.
    """

    name: str
    summary: str
    example: tuple[str, str]
    kind: Kind | None = None  # of the example's column
    mend: Mend | None = None
    excludes: str | None = None


_IN_ORDER = (
    Repair(
        "replace-invalid-utf8",
        "bytes that are not UTF-8, and lone surrogates in JSON, become U+FFFD",
        ('{"name": "a\\ud800"}', '{"name": "a\\ufffd"}'),
        Kind.JSON,
        values.replace_invalid_utf8,
    ),
    Repair(
        "remove-nul",
        "NUL characters are taken out of text, and \\u0000 out of JSON",
        ('{"name": "a\\u0000b"}', '{"name": "ab"}'),
        Kind.JSON,
        values.remove_nul,
    ),
    Repair(
        NAN_AS_NULL,
        "NaN, Infinity and -Infinity in JSON become null",
        ('{"cost": NaN}', '{"cost": null}'),
        Kind.JSON,
        values.nan_as_null,
        excludes="nan-as-string",
    ),
    Repair(
        "nan-as-string",
        "NaN, Infinity and -Infinity in JSON become strings",
        ('{"cost": NaN}', '{"cost": "NaN"}'),
        Kind.JSON,
        values.nan_as_string,
        excludes=NAN_AS_NULL,
    ),
    Repair(
        "json-as-string",
        "text that is no JSON becomes a JSON string of that text",
        ("{'cost': 1}", "\"{'cost': 1}\""),
        Kind.JSON,
        values.json_as_string,
    ),
    Repair(
        "epoch-timestamps",
        "seconds, milliseconds or microseconds since 1970 become timestamps",
        ("1767323045", "2026-01-02T03:04:05Z"),
        Kind.TIMESTAMP,
        values.epoch_timestamp,
    ),
    Repair(
        "infinite-timestamps",
        "dates after the year 9999 become infinity, those before the year 1 -infinity",
        ("12026-01-02T03:04:05Z", "infinity"),
        Kind.TIMESTAMP,
        values.infinite_timestamp,
    ),
    Repair(
        MERGE_DUPLICATES,
        "of entities with the same type and name the first stays; relationships of the others"
        " become its own",
        ("from_id 7, the same (type, name) as 3", "from_id 3"),
    ),
    Repair(
        PLACEHOLDER_ENTITIES,
        "an entity that relationships refer to and that is missing is made up, of the type"
        f" {PLACEHOLDER_TYPE}",
        ("to_id 99, of which there is no entity", "entity 99, missing entity 99"),
        excludes=DROP_DANGLING,
    ),
    Repair(
        DROP_DANGLING,
        "relationships whose entity is missing are left out, and don't count as rejects",
        ("to_id 99, of which there is no entity", "left out, kept in kg_migration.rejects"),
        excludes=PLACEHOLDER_ENTITIES,
    ),
)

REPAIRS: Mapping[str, Repair] = {repair.name: repair for repair in _IN_ORDER}


@dataclass(frozen=True, slots=True)
class Repairs:
    """The repairs a run has chosen."""

    names: tuple[str, ...] = ()

    def __bool__(self) -> bool:
        """Whether any was chosen."""
        return bool(self.names)

    def __contains__(self, name: str) -> bool:
        """Whether the repair was chosen."""
        return name in self.names

    def mend(self, kind: Kind, value: Any) -> tuple[Any, str] | None:
        """Return a refused value as the first repair that knows its fault leaves it, and its name.

        None where no chosen repair helps.
        """
        for name in self.names:
            repair = REPAIRS[name].mend
            mended = None if repair is None else repair(kind, value)
            if mended is not None:
                return mended, name
        return None

    def accepting(self, table: str, refusals: Iterable[Refusal]) -> dict[int, str]:
        """Return by id the repair by which refused rows are left out knowingly.

        Such rows are kept as rejects, and don't count against the limit.
        """
        by = ((refusal.row_id, self._accepting(table, refusal)) for refusal in refusals)
        return {row_id: name for row_id, name in by if name is not None}

    def _accepting(self, table: str, refusal: Refusal) -> str | None:
        if (
            MERGE_DUPLICATES in self
            and table == ENTITIES.name
            and refusal.sqlstate == _UNIQUE_VIOLATION
            and refusal.same_as is not None
        ):
            return MERGE_DUPLICATES
        if DROP_DANGLING in self and refusal.sqlstate == _FOREIGN_KEY_VIOLATION:
            return DROP_DANGLING
        return None


def choose(names: Iterable[str]) -> Repairs:
    """Return the repairs of these names. Raises :class:`SettingsError` naming one that isn't."""
    asked = set(names)
    unknown = asked - REPAIRS.keys() - {ALL}
    if unknown:
        raise SettingsError(
            f"there is no repair {min(unknown)!r}", f"there are: {', '.join(REPAIRS)}, {ALL}"
        )
    for name in asked - {ALL}:
        if REPAIRS[name].excludes in asked:
            raise SettingsError(
                f"the repairs {name} and {REPAIRS[name].excludes} exclude each other",
                "choose one of the two",
            )
    chosen: list[str] = []
    for name, repair in REPAIRS.items():
        excluded = repair.excludes in chosen or repair.excludes in asked
        if name in asked or (ALL in asked and not excluded):
            chosen.append(name)
    return Repairs(tuple(chosen))


def is_merging(table: Table, index: Index) -> bool:
    """Whether rows that repeat each other in this index may be merged: entities of the graph."""
    return is_of_entities(table) and index.columns == _MERGED_COLUMNS and index.is_constraint


def refers_to_entities(key: ForeignKey) -> bool:
    """Whether the foreign key refers to the id of an entity."""
    return key.table == ENTITIES.name and len(key.columns) == 1 and key.parents == ("id",)


def is_of_entities(table: Table) -> bool:
    """Whether this is the graph's own table of entities, and not some other of that name.

    Its further columns, if it has any, may be left out of an INSERT.
    """
    known = {column.name: column.kind for column in table.columns}
    further = (column for column in table.columns if column.name not in ENTITIES.column_names)
    return (
        table.name == ENTITIES.name
        and all(known.get(column.name) is column.kind for column in ENTITIES.columns)
        and all(c.nullable or c.default is not None or c.generated is not None for c in further)
    )


def takes_placeholders(table: Table) -> bool:
    """Whether entities may be made up there: only the graph's own constraints judge them."""
    return (
        is_of_entities(table)
        and not table.checks
        and not table.foreign_keys
        and all(is_merging(table, index) for index in table.indexes if index.unique)
    )


def for_key(table: Table, refusal: Refusal, *, placeable: bool) -> frozenset[str]:
    """Return the repairs that would save a row which a key or constraint refuses.

    ``placeable`` says that missing entities may be made up (:func:`takes_placeholders`).
    """
    found = {
        name
        for name in (MERGE_DUPLICATES, DROP_DANGLING)
        if Repairs((name,)).accepting(table.name, [refusal])
    }
    keys = [key for key in table.foreign_keys if key.columns == (refusal.column,)]
    is_missing = refusal.sqlstate == _FOREIGN_KEY_VIOLATION and any(map(refers_to_entities, keys))
    if placeable and is_missing:
        found.add(PLACEHOLDER_ENTITIES)
    return frozenset(found)
