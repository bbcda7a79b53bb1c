"""Scan: a chunk's values against their columns. In C for all of them, by the careful check for few.

Arrow arrays tell the suspects; the careful check judges these, and no others. So what is refused
here is what the careful lane refuses, with its words.
"""

from collections import Counter
from collections.abc import Collection, Iterable, Sequence, Set
from dataclasses import replace
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from kgcore.migration.dry_run.found import ColumnSeen, Scanned
from kgcore.migration.dry_run.judge import judge
from kgcore.migration.dry_run.suspects import suspects, too_long
from kgcore.migration.model import Chunk, PlannedTable
from kgcore.migration.repairs import Repairs
from kgcore.migration.stages import extract
from kgcore.model import Column, Kind, Table
from kgcore.schema.arrow import CAREFUL_ONLY, read_type
from kgcore.schema.translate.types import NATIVE

Row = tuple[Any, ...]

_STORAGE = {int: "integer", float: "real", str: "text", bytes: "blob"}
_TEXTS = frozenset({Kind.TEXT, Kind.JSON, Kind.TIMESTAMP, Kind.DATE})
_OFFSET = r"[T ].*[+-][0-9]{2}(?::?[0-9]{2})?\z"
# With more suspects than this it is quicker to read all rows than to look for each.
_FEW = 0.05


def scan(
    path: Path,
    planned: PlannedTable,
    chunk: Chunk,
    repairs: Repairs,
    keyed: Set[str],
    mixed: Set[str] = frozenset(),
) -> Scanned:
    """Look at every value of a chunk. ``keyed`` are the columns whose mended values are wanted.

    ``mixed`` are those of which other chunks were read twice: they are read right at once.
    """
    table = planned.table
    found = Scanned(chunk.rows, mixed=set(mixed))
    try:
        arrays, odd = _read(path, planned, chunk, found)
    except extract.UnreadableError:
        for rows in extract.read_rows(path, planned, chunk):
            _note_rows(found, table, rows)
            judge(found, table, rows, repairs, keyed)
        return found
    long = too_long(table, arrays)
    suspicious: dict[str, pa.BooleanArray] = {}
    for column in table.columns:
        values = arrays[column.name]
        doubtful = suspects(column, values)
        found.columns[column.name] = _seen(column, values, odd.get(column.name), doubtful)
        masks = (doubtful, odd.get(column.name), long.get(column.name))
        there = [mask for mask in masks if mask is not None]
        if there:
            suspicious[column.name] = there[0] if len(there) == 1 else _any(there)
    if suspicious:
        ids = pc.filter(arrays[table.key.name], _any(suspicious.values())).to_pylist()
        doubtful_table = _only(planned, suspicious.keys() | {table.key.name})
        for rows in _rows(path, doubtful_table, chunk, ids):
            _note_odd(found, doubtful_table.table, rows)
            judge(found, doubtful_table.table, rows, repairs, keyed)
    return found


def _read(
    path: Path, planned: PlannedTable, chunk: Chunk, found: Scanned
) -> tuple[dict[str, pa.Array], dict[str, pa.BooleanArray]]:
    """Return each column as an array of the type that is right, and which of its values are not.

    Those are NULL in the array. ADBC makes one type of what a column holds; where it is another
    than expected, the column is read again without what does not belong there.
    """
    columns = {column.name: column for column in planned.table.columns}
    kept = extract.kept_kinds(path, planned.source.table) if planned.source.table else {}
    # ADBC takes an INTEGER among text for text, one among reals for a real, and text among BLOBs
    # for a BLOB. Where SQLite itself made one kind of all, there is none.
    own = dict.fromkeys(_TEXTS, Kind.TEXT) | {Kind.REAL: Kind.REAL}
    strict = found.mixed | {
        column.name
        for column, read in zip(planned.table.columns, planned.source.reads, strict=True)
        if column is not planned.table.key
        and (
            column.kind in {*CAREFUL_ONLY, Kind.BLOB}
            or (column.kind in own and read in kept and kept[read] is not own[column.kind])
        )
    }
    arrays, odd = _read_guarded(path, planned, chunk, strict)
    again = {
        name
        for name, values in arrays.items()
        if name not in strict
        and values.null_count < len(values)
        and values.type != read_type(columns[name])
    }
    if planned.table.key.name in again:
        raise extract.UnreadableError(f"{planned.table.key.name} holds more than integers")
    found.bytes = sum(array.nbytes for array in arrays.values())
    found.mixed |= again
    if again:
        some, more = _read_guarded(
            path, _only(planned, again | {planned.table.key.name}), chunk, again
        )
        arrays |= some
        odd |= more
    return arrays, odd


def _read_guarded(
    path: Path, planned: PlannedTable, chunk: Chunk, strict: Set[str]
) -> tuple[dict[str, pa.Array], dict[str, pa.BooleanArray]]:
    """Read a chunk; of columns in ``strict`` only the values of the storage class that is right."""
    table = planned.table
    columns, reads = list(table.columns), []
    flags: dict[str, str] = {}
    for column, read in zip(table.columns, planned.source.reads, strict=True):
        if column.name not in strict:
            reads.append(read)
            continue
        native = ", ".join(f"'{name}'" for name in NATIVE[column.kind])
        careful = column.kind in CAREFUL_ONLY
        reads.append("NULL" if careful else f"iif(typeof({read}) IN ({native}), {read}, NULL)")
        flags[column.name] = f"typeof({read}) NOT IN ({native}, 'null')"
        if careful:  # Its numbers have no common type; that they are there is all to be known.
            flags[f"{column.name}\0there"] = f"typeof({read}) IN ({native})"
    extra = [Column(f"kg_{number}", Kind.INTEGER) for number in range(len(flags))]
    asked = replace(
        planned,
        table=Table(table.name, (*columns, *extra)),
        origin=replace(planned.source, reads=(*reads, *flags.values())),
    )
    batch = extract.read_arrow(path, asked, chunk)
    arrays = {column.name: batch.column(place) for place, column in enumerate(columns)}
    odd: dict[str, pa.BooleanArray] = {}
    for place, name in enumerate(flags, len(columns)):
        mask = pc.cast(batch.column(place), pa.bool_())
        if name.endswith("\0there"):
            arrays[name.removesuffix("\0there")] = pc.if_else(mask, True, None)
        elif pc.any(mask).as_py():
            odd[name] = mask
    return arrays, odd


def _only(planned: PlannedTable, names: Collection[str]) -> PlannedTable:
    """Return the table with only these columns; its key is among them."""
    table = planned.table
    kept = [place for place, name in enumerate(table.column_names) if name in names]
    return replace(
        planned,
        table=Table(table.name, tuple(table.columns[place] for place in kept), table.indexes),
        origin=replace(planned.source, reads=tuple(planned.source.reads[place] for place in kept)),
    )


def _any(masks: Iterable[pa.BooleanArray]) -> pa.BooleanArray:
    first, *others = masks
    for other in others:
        first = pc.or_(first, other)
    return first


def _seen(
    column: Column,
    values: pa.Array,
    odd: pa.BooleanArray | None,
    doubtful: pa.BooleanArray | None,
) -> ColumnSeen:
    there = len(values) - values.null_count
    nothing = values.null_count - (0 if odd is None else pc.sum(odd).as_py())
    native = NATIVE[column.kind]
    seen = ColumnSeen(Counter({"null": nothing, "number" if len(native) > 1 else native[0]: there}))
    seen.storage = +seen.storage
    if not there:
        return seen
    if pa.types.is_integer(values.type) or pa.types.is_floating(values.type):
        extremes = pc.min_max(values).as_py()
        seen.low, seen.high = extremes["min"], extremes["max"]
    if column.kind is Kind.TIMESTAMP:
        good = values if doubtful is None else pc.filter(values, pc.invert(doubtful))
        seen.zones = _zones(good)
    return seen


def _zones(instants: pa.Array) -> Counter[str]:
    instants = instants.drop_null()
    in_utc = pc.ends_with(instants, "Z")
    zones = Counter({"Z": pc.sum(in_utc).as_py() or 0})
    if zones["Z"] < len(instants):
        rest = pc.filter(instants, pc.invert(in_utc))
        zones["offset"] = pc.sum(pc.match_substring_regex(rest, _OFFSET)).as_py() or 0
        zones["none"] = len(rest) - zones["offset"]
    return +zones


def _rows(
    path: Path, planned: PlannedTable, chunk: Chunk, ids: Sequence[int]
) -> Iterable[list[Row]]:
    """Yield the rows of these ids as the careful lane reads them."""
    if len(ids) <= _FEW * chunk.rows and not planned.source.order:
        yield [extract.typed(raw) for raw in extract.read_raw(path, planned, ids)]
        return
    wanted = set(ids)
    for rows in extract.read_rows(path, planned, chunk):
        chosen = [row for row in rows if row[0] in wanted]
        if chosen:
            yield chosen


def _note_odd(found: Scanned, table: Table, rows: Sequence[Row]) -> None:
    """Count the values of storage classes that don't belong there: each is in a suspect row."""
    for column, values in zip(table.columns, zip(*rows, strict=True), strict=True):
        native = NATIVE[column.kind]
        classes = Counter(map(_storage, values))
        found.columns[column.name].storage.update(
            {name: count for name, count in classes.items() if name not in (*native, "null")}
        )


def _note_rows(found: Scanned, table: Table, rows: Sequence[Row]) -> None:
    for column, values in zip(table.columns, zip(*rows, strict=True), strict=True):
        seen = found.columns.setdefault(column.name, ColumnSeen())
        numbers = [value for value in values if isinstance(value, int | float)]
        more = ColumnSeen(Counter(map(_storage, values)))
        if numbers and column.kind not in _TEXTS:
            more.low, more.high = min(numbers), max(numbers)
        seen.add(more)
    found.bytes += sum(
        len(value) for row in rows for value in row if isinstance(value, str | bytes)
    )


def _storage(value: object) -> str:
    if value is None:
        return "null"
    return _STORAGE.get(type(value), "text")  # The rest is text that is not UTF-8.
