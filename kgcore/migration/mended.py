"""Mended: rows as a user gives them back, in the lines that ``kg rejects --json`` prints."""

import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from typing import Any

from kgcore.errors import SettingsError
from kgcore.migration.model import RawRow

# What SQLite would say of a value that is written without its type.
_STORAGE = {type(None): "null", int: "integer", float: "real", str: "text"}


@dataclass(frozen=True, slots=True)
class Mended:
    """The values of a row that were mended: by column the storage class and the bytes."""

    line: int
    values: Mapping[str, tuple[str, bytes | None]]

    def applied_to(self, row: RawRow) -> RawRow:
        """Return the reject's row with these values in place of its own.

        Raises :class:`SettingsError` for columns that it does not have, and for another id.
        """
        unknown = self.values.keys() - set(row.columns)
        if unknown:
            raise _wrong(self.line, f"the table has no column {min(unknown)!r}")
        pairs = [
            self.values.get(name, (storage, value))
            for name, storage, value in zip(row.columns, row.storage, row.values, strict=True)
        ]
        if pairs[0] != (row.storage[0], row.values[0]):
            raise _wrong(self.line, f"the row's {row.columns[0]} can't be changed")
        storage, values = zip(*pairs, strict=True)
        return replace(row, storage=storage, values=values)


def read_mended(lines: Iterable[str]) -> dict[tuple[str, int], Mended]:
    """Read lines of JSON with ``table``, ``id`` and ``row``; columns left out stay as they were.

    A value is ``{"type": …, "value": …}``, ``{"type": …, "hex": …}``, or plain JSON. Raises
    :class:`SettingsError` naming the line.
    """
    found: dict[tuple[str, int], Mended] = {}
    for number, line in enumerate(lines, 1):
        if not line.strip():
            continue
        try:
            item = json.loads(line)
        except ValueError as error:
            raise _wrong(number, f"not JSON: {error}") from None
        match item:
            case {"table": str(table), "id": int(row_id), "row": dict(row)}:
                values = {name: _value(number, name, value) for name, value in row.items()}
                found[table, row_id] = Mended(number, values)
            case _:
                raise _wrong(number, 'an object with "table", "id" and "row" was expected')
    return found


def _value(line: int, column: str, given: Any) -> tuple[str, bytes | None]:
    try:
        match given:
            case {"type": str(storage), "hex": str(text)}:
                return _stored(storage, bytes.fromhex(text))
            case {"type": str(storage), "value": value}:
                return _stored(storage, None if value is None else _written(value))
            case dict() | list():
                return "text", json.dumps(given, ensure_ascii=False).encode()
            case _:
                storage = _STORAGE.get(type(given), "boolean")
                return _stored(storage, None if given is None else _written(given))
    except ValueError as error:
        raise _wrong(line, f"{column}: {error}") from None


def _written(value: Any) -> bytes:
    return value.encode() if isinstance(value, str) else repr(value).encode()


def _stored(storage: str, raw: bytes | None) -> tuple[str, bytes | None]:
    """Hold the bytes against their storage class. Raises :class:`ValueError`."""
    match storage:
        case "null" | "blob" | "text" if (raw is None) == (storage == "null"):
            return storage, raw
        case "integer" if raw is not None and -(2**63) <= int(raw) < 2**63:
            return storage, str(int(raw)).encode()
        case "real" if raw is not None:
            return storage, repr(float(raw)).encode()
    raise ValueError(f"that is no value of the type {storage!r}")


def _wrong(line: int, why: str) -> SettingsError:
    return SettingsError(
        f"line {line} of the mended rows: {why}",
        "change the values in the lines that kg rejects RUN --json prints, and nothing else",
    )
