"""Find the clauses of CREATE TABLE and CREATE INDEX that no PRAGMA tells: CHECK, COLLATE and so on.

The statement is cut into tokens by a SQL tokenizer and its clauses are found between them, each
with its own text. What is in a clause is for others to understand; here nothing is interpreted.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field

from sqlglot.dialects import SQLite
from sqlglot.errors import SqlglotError
from sqlglot.tokenizer_core import TokenType

from kgcore.schema.translate.sql import fold_ascii

_QUOTED = frozenset({TokenType.IDENTIFIER, TokenType.STRING})


@dataclass(frozen=True, slots=True)
class Word:
    """A token: its value, and where it stands in the statement. ``word`` is '' if it is quoted."""

    word: str
    value: str
    start: int
    end: int


@dataclass(frozen=True, slots=True)
class CheckClause:
    """A CHECK: its name, the condition's text, and the clause as it stands."""

    name: str | None
    condition: str
    text: str


@dataclass(slots=True)
class TableClauses:
    """What CREATE TABLE says beyond the PRAGMAs. Columns are folded, as SQLite compares names."""

    checks: list[CheckClause] = field(default_factory=list)
    collations: dict[str, str] = field(default_factory=dict)
    generated: dict[str, str] = field(default_factory=dict)
    deferred: set[tuple[str, ...]] = field(default_factory=set)
    conflicts: list[str] = field(default_factory=list)


@dataclass(frozen=True, slots=True)
class IndexClauses:
    """The terms of CREATE INDEX as they stand, and the condition of a partial one."""

    terms: tuple[str, ...]
    where: str | None


def table_clauses(sql: str) -> TableClauses | None:
    """Return the clauses of a CREATE TABLE, or None where it can't be cut into tokens."""
    words = _words(sql)
    if words is None:
        return None
    opening = _first(words, "(", 0)
    body = words[opening + 1 : _closing(words, opening)]
    found = TableClauses()
    for item in _split(body):
        _read_item(sql, item, found)
    return found


def index_clauses(sql: str) -> IndexClauses | None:
    """Return the clauses of a CREATE INDEX, or None where it can't be cut into tokens."""
    words = _words(sql)
    if words is None:
        return None
    opening = _first(words, "(", _first(words, "ON", 0))
    closing = _closing(words, opening)
    terms = tuple(_text(sql, item) for item in _split(words[opening + 1 : closing]))
    rest = words[closing + 1 :]
    where = _text(sql, rest[1:]) if rest and rest[0].word == "WHERE" else None
    return IndexClauses(terms, where)


def without_direction(term: str) -> str:
    """Return an index term without COLLATE, ASC and DESC, which PRAGMAs tell."""
    words = list(_words(term) or ())
    if words and words[-1].word in {"ASC", "DESC"}:
        words.pop()
    if len(words) > 2 and words[-2].word == "COLLATE":
        words = words[:-2]
    return _text(term, words) if words else term


def _words(sql: str) -> list[Word] | None:
    try:
        tokens = SQLite().tokenize(sql)
    except SqlglotError:
        return None
    words = []
    for token in tokens:
        raw = sql[token.start : token.end + 1]
        if token.token_type in _QUOTED:
            words.append(Word("", token.text, token.start, token.end + 1))
            continue
        # Some tokens are two words: PRIMARY KEY, NOT NULL.
        offset = token.start
        for part in raw.split():
            start = sql.index(part, offset)
            offset = start + len(part)
            words.append(Word(part.upper(), part, start, offset))
    return words


def _read_item(sql: str, item: Sequence[Word], found: TableClauses) -> None:
    """Read a column's definition or a constraint of the table."""
    name: str | None = None
    columns: tuple[str, ...] = (fold_ascii(item[0].value),)
    position = 0
    while position < len(item):
        word = item[position]
        following = item[position + 1].word if position + 1 < len(item) else ""
        group = _closing(item, position + 1) if following == "(" else position
        match word.word:
            case "CONSTRAINT" if position + 1 < len(item):
                name = item[position + 1].value
                position += 1
            case "CHECK" if following == "(":
                inside = _text(sql, item[position + 2 : group])
                found.checks.append(
                    CheckClause(name, inside, _text(sql, item[position : group + 1]))
                )
                name = None
            case "AS" if following == "(":
                found.generated[columns[0]] = _text(sql, item[position + 2 : group])
            case "COLLATE" if position + 1 < len(item):
                found.collations[columns[0]] = item[position + 1].value.upper()
                position += 1
            case "KEY" if following == "(" and item[position - 1].word == "FOREIGN":
                inner = item[position + 2 : group]
                columns = tuple(fold_ascii(part.value) for part in inner if part.word != ",")
            case "DEFERRED" if item[position - 1].word == "INITIALLY":
                if [part.word for part in item[position - 3 : position - 1]] != [
                    "NOT",
                    "DEFERRABLE",
                ]:
                    found.deferred.add(columns)
            case "CONFLICT":
                found.conflicts.append(_text(sql, item))
        position = max(group, position) + 1


def _split(words: Sequence[Word]) -> list[list[Word]]:
    """Split at the commas that stand in no parentheses."""
    items: list[list[Word]] = [[]]
    depth = 0
    for word in words:
        depth += (word.word == "(") - (word.word == ")")
        if word.word == "," and depth == 0:
            items.append([])
        else:
            items[-1].append(word)
    return [item for item in items if item]


def _first(words: Sequence[Word], wanted: str, start: int) -> int:
    return next(
        (place for place in range(start, len(words)) if words[place].word == wanted), len(words)
    )


def _closing(words: Sequence[Word], opening: int) -> int:
    """Return the place of the parenthesis that closes the one at ``opening``."""
    depth = 0
    for place in range(opening, len(words)):
        depth += (words[place].word == "(") - (words[place].word == ")")
        if depth == 0:
            return place
    return len(words)


def _text(sql: str, words: Sequence[Word]) -> str:
    return sql[words[0].start : words[-1].end] if words else ""
