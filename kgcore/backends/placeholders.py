"""From ``?`` to psycopg2's ``%s``.

One text serves both databases: ``?`` is a parameter, ``??`` a question mark (JDBC's convention: the
JSONB operators ``?``, ``?|`` and ``?&`` are written ``??``, ``??|``, ``??&``), and ``%`` needs no
doubling. SQLite takes the text as it is; it has no operator with a question mark.
"""

import re
from functools import lru_cache

# What PostgreSQL's lexer takes as one piece. One without its end goes on to the end of the text,
# and the server says what is wrong with it.
_TOKEN = re.compile(
    r"""
      (?P<literal>
          (?<![\w$]) [eE] ' (?: [^'\\] | \\. | '' )* (?: ' | \Z )      # E'it\'s'
        | ' [^']* (?: ' | \Z )                      # '' in it makes two tokens of it: no harm
        | " [^"]* (?: " | \Z )
        | (?<![\w$]) \$ (?P<tag> (?: [^\W\d] \w* )? ) \$ .*? (?: \$ (?P=tag) \$ | \Z )
        | -- [^\r\n]*
      )
    | (?P<comment> /\* )
    | (?P<mark> \?\? | \? (?P<number> \d? ) )
    | (?P<percent> % )
    """,
    re.VERBOSE | re.DOTALL,
)
_COMMENT_EDGE = re.compile(r"/\*|\*/")


@lru_cache(maxsize=1024)
def to_psycopg2(sql: str) -> str:
    """Return the statement in psycopg2's form, for ``cursor.execute(…, params)``.

    String literals, quoted names and comments stay what they are. Parameters must always be passed,
    if only ``()``: psycopg2 leaves ``%%`` doubled without. Raises ValueError for SQLite's numbered
    ``?1``: as ``%s1`` it would append a digit to the value.
    """
    pieces: list[str] = []
    position = 0
    while (token := _TOKEN.search(sql, position)) is not None:
        pieces.append(sql[position : token.start()])
        position = token.end() if token["comment"] is None else _comment_end(sql, token.start())
        if token["number"]:
            raise ValueError(f"numbered placeholders are not supported: {token['mark']} in {sql!r}")
        if token["mark"] is not None:
            pieces.append("?" if token["mark"] == "??" else "%s")
        else:
            pieces.append(sql[token.start() : position].replace("%", "%%"))
    pieces.append(sql[position:])
    return "".join(pieces)


def without_literals(sql: str) -> str:
    """Return the statement with a space for each literal, quoted name and comment."""
    pieces: list[str] = []
    position = 0
    while (token := _TOKEN.search(sql, position)) is not None:
        pieces.append(sql[position : token.start()])
        position = token.end() if token["comment"] is None else _comment_end(sql, token.start())
        is_code = token["literal"] is None and token["comment"] is None
        pieces.append(sql[token.start() : position] if is_code else " ")
    pieces.append(sql[position:])
    return "".join(pieces)


def _comment_end(sql: str, start: int) -> int:
    """Return where the block comment at ``start`` ends; they nest."""
    depth = 0
    for edge in _COMMENT_EDGE.finditer(sql, start):
        depth += 1 if edge[0] == "/*" else -1
        if depth == 0:
            return edge.end()
    return len(sql)
