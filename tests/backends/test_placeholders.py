"""``?`` becomes ``%s``, and nothing else changes."""

from collections.abc import Iterator
from typing import Any

import psycopg2
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from kgcore.backends.placeholders import to_psycopg2
from workers.embedded import PostgresServer

WILD = st.text("?%'\"\\$-/*e ä\n", max_size=8)
TAG = st.sampled_from(["", "a", "tag_1", "ä"])
STRINGS = st.one_of(
    WILD.map(lambda text: "'" + text.replace("'", "''") + "'"),
    WILD.map(lambda text: "E'" + text.replace("\\", "\\\\").replace("'", "\\'") + "'"),
    WILD.map(lambda text: "e'" + text.replace("\\", "\\\\").replace("'", "''") + "'"),
    st.tuples(TAG, WILD.map(lambda text: text.replace("$", ""))).map(
        lambda pair: f"${pair[0]}${pair[1]}${pair[0]}$"
    ),
)
COMMENTS = st.one_of(
    WILD.map(lambda text: "--" + text.replace("\n", "") + "\n"),
    st.recursive(
        st.text("?%'\"$ ä\n", max_size=5),
        lambda inner: st.lists(inner, max_size=3).map(lambda parts: f"/*{'?'.join(parts)}*/"),
    ).map(lambda text: f"/*{text}*/"),
)
NAMES = WILD.map(lambda text: '"' + text.replace('"', '""') + '"')
KEPT = st.one_of(STRINGS, COMMENTS, NAMES, st.sampled_from(["a", "5 % 3", "$1", "e", "x$y$", "<@"]))
MARK, ESCAPED = "?", "??"


@pytest.fixture(scope="module")
def cursor(postgres_server: PostgresServer) -> Iterator[Any]:
    connection = psycopg2.connect(
        host=postgres_server.host,
        port=postgres_server.port,
        dbname=postgres_server.database,
        user=postgres_server.user,
        password=postgres_server.password,
    )
    connection.autocommit = True
    with connection.cursor() as made:
        yield made
    connection.close()


@settings(max_examples=500, deadline=None)
@given(st.lists(st.one_of(KEPT, st.sampled_from([MARK, ESCAPED])), min_size=1))
def test_all_but_the_marks_stays(cursor: Any, tokens: list[str]) -> None:
    sql = " ".join(tokens)
    translated = to_psycopg2(sql)
    parameters = tuple(range(tokens.count(MARK)))
    assert translated.replace("%%", "").count("%s") == len(parameters)
    numbers = iter(parameters)
    expected = [
        str(next(numbers)) if token == MARK else "?" if token == ESCAPED else token
        for token in tokens
    ]
    assert cursor.mogrify(translated, parameters).decode() == " ".join(expected)


@settings(max_examples=300, deadline=None)
@given(st.lists(st.tuples(STRINGS, COMMENTS), min_size=1, max_size=4), WILD)
def test_the_server_sees_the_same_strings(
    cursor: Any, pieces: list[tuple[str, str]], value: str
) -> None:
    columns = ", ".join(f"{string} {comment}" for string, comment in pieces)
    cursor.execute(f"SELECT {columns}")
    expected = cursor.fetchone()
    cursor.execute(to_psycopg2(f"SELECT {columns}, ?"), (value,))
    assert cursor.fetchone() == (*expected, value)


@pytest.mark.parametrize(
    ("sql", "expected"),
    [
        ("metadata ?? ? AND a ??| ?", "metadata ? %s AND a ?| %s"),
        ("a = ???", "a = ?%s"),
        ("x LIKE '50%' || ?", "x LIKE '50%%' || %s"),
        ("'it''s ?' = ?", "'it''s ?' = %s"),
        (r"E'\'?' = ?", r"E'\'?' = %s"),
        (r"'\' = ?", r"'\' = %s"),
        (r"note'\' = ?", r"note'\' = %s"),
        ("a$b$ = ? AND c$b$ = ?", "a$b$ = %s AND c$b$ = %s"),
        ("'unfinished ? %", "'unfinished ? %%"),
        ("$$unfinished ?", "$$unfinished ?"),
        ("/* unfinished /* ? */ ?", "/* unfinished /* ? */ ?"),
    ],
)
def test_examples(sql: str, expected: str) -> None:
    assert to_psycopg2(sql) == expected


def test_numbered_placeholders_are_refused() -> None:
    with pytest.raises(ValueError, match=r"\?1"):
        to_psycopg2("SELECT ?1")
    assert to_psycopg2("SELECT '?1'") == "SELECT '?1'"
