"""What is in an archive of ``pg_dump -Fc``: it is read whole, and its rows are counted."""

import re
import subprocess
from collections.abc import Iterable
from pathlib import Path

from kgcore.backup.programs import Program, failed
from kgcore.errors import BackupError

_NAME = r'(?:"(?:[^"]|"")*"|[^\s".(]+)'
_COPY = re.compile(rf"COPY ({_NAME})\.({_NAME}) ?(?:\(.*\))? FROM stdin;\n".encode())
_END = b"\\.\n"

#: Rows by schema and table.
Contents = dict[tuple[str, str], int]


def read(programs: Iterable[Program], path: Path, env: dict[str, str]) -> tuple[Program, Contents]:
    """Return the first program that can read the archive, and what is in it.

    Raises :class:`BackupError` if none can: the archive is cut off, damaged, or of a newer version.
    """
    refused: BackupError | None = None
    for program in programs:
        try:
            return program, _contents(program, path, env)
        except BackupError as error:
            if "unsupported version" not in error.message:
                raise
            refused = error
    words = refused.message if refused else "there is no pg_restore"
    raise BackupError(
        f"{path}: {words}",
        "it was made by a newer pg_dump; name a directory with its programs: --pg-bin",
    )


def _contents(program: Program, path: Path, env: dict[str, str]) -> Contents:
    # Every row is a line: COPY's text format writes a line end inside a value as \n.
    process = subprocess.Popen(
        [str(program.path), "--data-only", "--file=-", str(path)],
        env=env,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    )
    with process:
        counted = count_rows(process.stdout or ())
        said = process.stderr.read().decode(errors="replace") if process.stderr else ""
    if process.returncode != 0:
        raise failed(program, said, env)
    if not counted:
        raise BackupError(
            f"{path} holds no table with rows that can be counted",
            "make it with kg backup, or pg_dump -Fc without --inserts and --schema-only",
        )
    return counted


def count_rows(lines: Iterable[bytes]) -> Contents:
    """Count the rows of each table in a script of COPY commands.

    >>> count_rows([b'COPY public.t (id) FROM stdin;\\n', b'1\\n', b'\\\\.\\n'])
    {('public', 't'): 1}
    """
    counted: Contents = {}
    table: tuple[str, str] | None = None
    for line in lines:
        if table is not None:
            if line == _END:
                table = None
            else:
                counted[table] += 1
        elif found := _COPY.fullmatch(line):
            table = _unquoted(found[1]), _unquoted(found[2])
            counted[table] = 0
    return counted


def _unquoted(name: bytes) -> str:
    text = name.decode()
    return text[1:-1].replace('""', '"') if text.startswith('"') else text
