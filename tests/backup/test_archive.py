"""Counting the rows of a script of COPY commands."""

from hypothesis import given
from hypothesis import strategies as st

from kgcore.backup.archive import count_rows

# Rows as COPY writes them: a backslash is doubled, a line end is \n. No row is \. alone.
rows = st.text(st.characters(exclude_categories=["Cs"])).map(
    lambda text: text.replace("\\", "\\\\").replace("\n", "\\n").replace("\r", "\\r")
)
names = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0\n\r"), min_size=1)


def quoted(name: str) -> str:
    return '"' + name.replace('"', '""') + '"'


@given(st.dictionaries(st.tuples(names, names), st.lists(rows)))
def test_every_row_of_every_table_is_counted(tables: dict[tuple[str, str], list[str]]) -> None:
    script = "--\n-- PostgreSQL database dump\n--\n\nSET statement_timeout = 0;\n"
    for (schema, table), lines in tables.items():
        script += f"COPY {quoted(schema)}.{quoted(table)} (id, name) FROM stdin;\n"
        script += "".join(line + "\n" for line in lines) + "\\.\n\n\n"
    counted = count_rows(script.encode().splitlines(keepends=True))
    assert counted == {name: len(lines) for name, lines in tables.items()}


def test_bare_names_and_rows_that_look_like_commands() -> None:
    script = b"COPY public.t FROM stdin;\nCOPY public.u (id) FROM stdin;\n\\\\.\n\\.\n"
    assert count_rows(script.splitlines(keepends=True)) == {("public", "t"): 2}


def test_a_table_without_columns_has_rows_without_text() -> None:
    script = b"COPY public.t  FROM stdin;\n\n\n\\.\n"
    assert count_rows(script.splitlines(keepends=True)) == {("public", "t"): 2}
