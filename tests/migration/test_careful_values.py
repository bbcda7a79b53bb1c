"""What the careful lane makes of a value: its exact text, or why it is refused."""

from datetime import UTC, datetime
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import pytest
from hypothesis import example, given, settings

from kgcore.migration.model import InvalidText
from kgcore.migration.stages import check, encode
from kgcore.model import Column, Kind, Table
from tests.migration.test_lanes import stamps

MOMENT = Table("t", (Column("id", Kind.KEY, nullable=False), Column("at", Kind.TIMESTAMP)))


def careful(table: Table, *values: Any) -> list[Any]:
    """Each value's text, or the SQLSTATE by which it is refused."""
    rows = [(number, value) for number, value in enumerate(values)]
    checked = check.check(table, rows)
    texts = {row: line.split("\t")[1] for row, line in zip(checked.ids, checked.lines, strict=True)}
    refused = {refusal.row_id: refusal.sqlstate for refusal in checked.refusals}
    return [texts.get(number, refused.get(number)) for number in range(len(values))]


def of_kind(kind: Kind) -> Table:
    return Table("t", (Column("id", Kind.KEY, nullable=False), Column("value", kind)))


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        ("2009-04-24T11:30:00Z", "2009-04-24T11:30:00Z"),
        ("2008-02-29T11:30:00Z", "2008-02-29T11:30:00+00:00"),
        ("2009-04-31T00:00:00Z", "22008"),
        ("2009-04-24T11:30:00", "2009-04-24T11:30:00+00:00"),
        ("2009-04-24 11:30:00.5+02:00", "2009-04-24T09:30:00.500000+00:00"),
        ("2009-04-24T11:30:00-0330", "2009-04-24T15:00:00+00:00"),
        ("2009-04-24", "2009-04-24T00:00:00+00:00"),
        ("2009-04-24T11:30:00.123456000Z", "2009-04-24T11:30:00.123456+00:00"),
        ("2009-04-24T11:30:00.123456789Z", "22008"),
        ("2009-04-24T24:00:00Z", "22008"),
        ("2016-12-31T23:59:60Z", "22008"),
        ("2009-02-29T00:00:00Z", "22008"),
        ("0000-01-01T00:00:00Z", "22008"),
        ("10000-01-01T00:00:00Z", "22007"),
        ("0001-01-01T00:00:00+01:00", "22008"),
        ("now", "22007"),
        ("", "22007"),
        ("1240572600", "22007"),
        (1240572600, "42804"),
        (2454946.97917, "42804"),
        (None, "\\N"),
    ],
)
def test_timestamps_are_exact_or_refused(value: Any, expected: str) -> None:
    # Behind a plain value too: then the column isn't cleared as a whole.
    assert careful(MOMENT, value) == [expected]
    assert careful(MOMENT, "2009-04-24T11:30:00Z", value)[1] == expected


@pytest.mark.parametrize(
    ("kind", "value", "expected"),
    [
        (Kind.INTEGER, 2**63 - 1, "9223372036854775807"),
        (Kind.INTEGER, 2.0, "2"),
        (Kind.INTEGER, 2.5, "22003"),
        (Kind.INTEGER, 2.0**63, "22003"),
        (Kind.INTEGER, "7", "7"),
        (Kind.INTEGER, "07", "42804"),
        (Kind.INTEGER, b"7", "42804"),
        (Kind.REAL, -0.0, "-0.0"),
        (Kind.REAL, 5e-324, "5e-324"),
        (Kind.REAL, float("inf"), "inf"),
        (Kind.REAL, 2**53, "9007199254740992.0"),
        (Kind.REAL, 2**53 + 1, "22003"),
        (Kind.REAL, "1.5", "1.5"),
        (Kind.REAL, "1.50", "42804"),
        (Kind.REAL, "nan", "nan"),
        (Kind.TEXT, "", ""),
        (Kind.TEXT, "\\N", "\\\\N"),
        (Kind.TEXT, "\\.\n\t\r", "\\\\.\\n\\t\\r"),
        (Kind.TEXT, "a\0b", "22021"),
        (Kind.TEXT, b"blob", "42804"),
        (Kind.TEXT, InvalidText(b"\xff"), "22021"),
        (Kind.BLOB, b"\x00\xff", "\\\\x00ff"),
        (Kind.BLOB, "text", "42804"),
        (Kind.JSON, "{}", "{}"),
        (Kind.JSON, "", "22P02"),
        (Kind.JSON, "{'a': 1}", "22P02"),
        (Kind.JSON, '{"a": NaN}', "22P02"),
        (Kind.JSON, "-Infinity", "22P02"),
        (Kind.JSON, '"\\u0000"', "22P05"),
        (Kind.JSON, '{"\\u0000": 1}', "22P05"),
        (Kind.JSON, '"\\\\u0000"', '"\\\\\\\\u0000"'),
        (Kind.JSON, '["\\ud800"]', "22P02"),
        (Kind.JSON, '"\\ud83d\\ude00"', '"\\\\ud83d\\\\ude00"'),
        (Kind.JSON, "1e400", "1e400"),
        (Kind.JSON, "9" * 5000, "9" * 5000),
        (Kind.JSON, '{"a": 1, "a": 2}', '{"a": 1, "a": 2}'),
    ],
)
def test_values_are_exact_or_refused(kind: Kind, value: Any, expected: str) -> None:
    assert careful(of_kind(kind), value) == [expected]
    assert careful(of_kind(kind), None, value) == ["\\N", expected]


@settings(max_examples=2000, deadline=None)
@given(stamps)
@example("2009-04-24T11")
@example("2009-04-24 1130")
def test_what_arrow_reads_as_a_timestamp_the_careful_lane_reads_alike(text: str) -> None:
    table = Table("t", (Column("at", Kind.TIMESTAMP),))
    values = pa.array([text])
    try:
        fast = encode._cast(table.columns[0], values)
    except encode.UnsuitedError:
        return
    micros = pc.cast(fast, pa.int64())[0].as_py()
    (slow,) = careful(MOMENT, text)
    moment = datetime.fromisoformat(slow)  # A refusal would be a SQLSTATE and fail here.
    epoch = datetime(1970, 1, 1, tzinfo=UTC)
    difference = moment - epoch
    assert (
        difference.days * 86400 + difference.seconds
    ) * 10**6 + difference.microseconds == micros
