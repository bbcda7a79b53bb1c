"""Read what ``git log`` prints as a stream of commits.

With ``-z`` no byte of a name or a message can be mistaken for structure: a commit is its header
fields, then ``--raw`` entries, then ``--numstat`` entries, all of them ended by NUL. Bytes that are
not UTF-8 become U+FFFD.
"""

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import islice
from typing import IO

_FIELDS = ("%H", "%P", "%aN", "%aE", "%ct", "%s", "%b")
#: The user's configuration must not change what is printed.
LOG_ARGUMENTS = (
    *("-c", "log.showRoot=true", "log", "--reverse", "--topo-order", "-z", "--raw", "--numstat"),
    *("--no-abbrev", "--find-renames", "-l1000", "--diff-algorithm=myers", "--no-relative"),
    *("--no-color", "--no-ext-diff", "--no-textconv", "--no-show-signature", "--encoding=UTF-8"),
    "--format=" + "%x00".join(_FIELDS),
    *("HEAD", "--"),
)
_NUMSTAT = re.compile(rb"(\d+|-)\t(\d+|-)\t(.*)", re.DOTALL)
_SUBMODULE = b"160000"
_READ_BYTES = 1 << 16


@dataclass(frozen=True, slots=True)
class Change:
    """A file as a commit changed it; ``blob`` is None where there is no content to speak of.

    ``status`` is git's letter: A, M, D, R, C or T. ``added`` and ``removed`` are lines, None for a
    binary file. ``old_path`` is another than ``path`` for renames and copies only.
    """

    status: str
    path: str
    old_path: str
    old_blob: str | None
    blob: str | None
    added: int | None
    removed: int | None


@dataclass(frozen=True, slots=True)
class Commit:
    """A commit; merges have no changes of their own. ``committed`` is in seconds since 1970."""

    sha: str
    parents: int
    author: str
    committed: int
    subject: str
    body: str
    changes: tuple[Change, ...]


def read_commits(stream: IO[bytes]) -> Iterator[Commit]:
    """Yield the commits that ``git log`` with :data:`LOG_ARGUMENTS` writes to ``stream``."""
    return _commits(_tokens(stream))


def text(raw: bytes) -> str:
    """Decode what git prints."""
    return raw.decode(errors="replace")


def _tokens(stream: IO[bytes]) -> Iterator[bytes]:
    """Yield what NUL ends; an unended rest means that git died, and is left out."""
    rest = b""
    while block := stream.read(_READ_BYTES):
        *whole, rest = (rest + block).split(b"\0")
        yield from whole


def _commits(tokens: Iterator[bytes]) -> Iterator[Commit]:
    first = next(tokens, None)
    while first is not None:
        header = [first, *islice(tokens, len(_FIELDS) - 1)]
        raw: list[tuple[list[bytes], bytes, bytes]] = []
        lines: dict[bytes, tuple[int | None, int | None]] = {}
        first = None
        for token in tokens:
            entry = token.lstrip(b"\n")
            if entry.startswith(b":"):
                fields = entry[1:].split(b" ")
                old = next(tokens, b"")
                raw.append((fields, old, next(tokens, b"") if fields[4][:1] in b"RC" else old))
            elif found := _NUMSTAT.fullmatch(entry):
                path = found[3] or (next(tokens, b""), next(tokens, b""))[1]
                lines[path] = (_lines(found[1]), _lines(found[2]))
            elif entry:
                first = token
                break
        if len(header) == len(_FIELDS):
            yield _commit(header, tuple(_change(*entry, lines) for entry in raw))


def _commit(header: Sequence[bytes], changes: tuple[Change, ...]) -> Commit:
    sha, parents, author, email, committed, subject, body = map(text, header)
    seconds = int(committed) if committed.isdigit() else 0
    return Commit(
        sha, len(parents.split()), author or email or "unknown", seconds, subject, body, changes
    )


def _change(
    fields: Sequence[bytes],
    old_path: bytes,
    path: bytes,
    lines: dict[bytes, tuple[int | None, int | None]],
) -> Change:
    old_mode, mode, old_blob, blob, status = fields
    added, removed = lines.get(path, (None, None))
    return Change(
        status[:1].decode(),
        text(path),
        text(old_path),
        None if old_mode == _SUBMODULE else _blob(old_blob),
        None if mode == _SUBMODULE else _blob(blob),
        added,
        removed,
    )


def _blob(name: bytes) -> str | None:
    return name.decode() if name.strip(b"0") else None


def _lines(count: bytes) -> int | None:
    return None if count == b"-" else int(count)
