"""What a read returns for times and JSON, next to what psycopg2 makes of them."""

import pytest

from kgcore.backends import PostgreSQLBackend
from kgcore.backends.casters import instant_text
from tests.servers import Database

TIMES = {
    "2026-01-31 23:59:59+00": "2026-01-31T23:59:59Z",
    "2026-01-31 23:59:59.123456+00": "2026-01-31T23:59:59.123456Z",
    "2026-01-31 23:59:59.12+00": "2026-01-31T23:59:59.120000Z",
    "2026-07-01 00:30:00.000001+05:30": "2026-06-30T19:00:00.000001Z",
    "1850-01-01 00:00:00+00": "1850-01-01T00:00:00Z",  # Zones had seconds then.
    "0001-01-03 00:00:00+00": "0001-01-03T00:00:00Z",
    "9999-12-29 23:59:59.999999+00": "9999-12-29T23:59:59.999999Z",
    "infinity": "9999-12-31T23:59:59.999999Z",
    "-infinity": "0001-01-01T00:00:00Z",
}
DOCUMENTS = (
    '{"a": [1, 2.50, -3e5, true, null, {"b": "\\u00fc \\"x\\""}], "": {}}',
    "[]",
    '" text "',
    "123456789012345678901234567890",
    "null",
)


@pytest.mark.parametrize("zone", ["UTC", "Asia/Kolkata", "Europe/London", "America/St_Johns"])
def test_times(postgres: Database, zone: str) -> None:
    sql = "SELECT CAST(t AS timestamptz) AS t, NULL::timestamptz AS n FROM unnest(?::text[]) t"
    literal = "{" + ",".join(f'"{time}"' for time in TIMES) + "}"
    options = f"-c TimeZone={zone}"
    with PostgreSQLBackend(**postgres.parameters, options=options) as backend:
        expected = [{"t": time, "n": None} for time in TIMES.values()]
        assert backend.read(sql, (literal,)) == expected
        with backend.transaction():
            assert backend.read(sql, (literal,)) == expected
        fetched = backend.fetchall(sql, (literal,))
    assert [instant_text(row["t"]) for row in fetched] == list(TIMES.values())


def test_a_time_that_python_has_not_is_an_error_either_way(postgres: Database) -> None:
    with PostgreSQLBackend(**postgres.parameters) as backend:
        for time in ("12026-01-01 00:00:00.12345+00", "0044-03-15 00:00:00+00 BC"):
            for fetch in (backend.read, backend.fetchall):
                with pytest.raises(ValueError, match=r"year|parse"):
                    fetch("SELECT CAST(? AS timestamptz) AS t", (time,))


def test_documents(postgres: Database) -> None:
    with PostgreSQLBackend(**postgres.parameters) as backend:
        for document in (*DOCUMENTS, None):
            row = ("SELECT CAST(? AS jsonb) AS d", (document,))
            read, fetched = backend.read(*row), backend.fetchall(*row)
            assert repr(read) == repr(fetched)


def test_other_types_are_psycopg2s(postgres: Database) -> None:
    sql = "SELECT TIMESTAMP '2026-01-31 23:59:59' AS t, DATE '2026-01-31' AS d, 1.50 AS n"
    with PostgreSQLBackend(**postgres.parameters) as backend:
        outside = backend.read(sql)
        with backend.transaction():
            assert repr(backend.read(sql)) == repr(outside) == repr(backend.fetchall(sql))
