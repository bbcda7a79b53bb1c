"""What to do when PostgreSQL can't be connected to: from libpq's words to a mend."""

import re
import shlex
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import psycopg2

from kgcore.errors import TargetError, TargetUnreachableError

OLDEST = 14

_ALLOW = (
    "pg_hba.conf must have a line like: host {database} {user} <address of this machine>"
    " scram-sha-256; then: sudo systemctl reload postgresql"
)

_POOLER = (
    "see the server's log; if PgBouncer stands between, see its log, too, and have"
    " pool_mode = transaction or session in pgbouncer.ini"
)


@dataclass(frozen=True, slots=True)
class _Cause:
    pattern: str
    hint: str
    #: Whether it may be over in a moment, without anybody's doing.
    passing: bool = False


# libpq gives no code for a failed connect, only text. It tells of each address in turn: the first
# pattern counts that fits and is not passing, as that one stays; else the first that fits.
_CAUSES = (
    _Cause(
        r"password authentication failed",
        "check PG_USER and PG_PASSWORD; if they are right, " + _ALLOW,
    ),
    _Cause(r"no password supplied", "set PG_PASSWORD or PG_PASSWORD_FILE"),
    _Cause(r"no pg_hba\.conf entry .* no encryption", "set PG_SSLMODE=require; or else " + _ALLOW),
    _Cause(r"no pg_hba\.conf entry|(peer|ident) authentication failed", _ALLOW),
    _Cause(
        r'database "(?P<name>[^"]*)" does not exist',
        "create it: sudo -u postgres createdb -O {user_word} {name_word}; or correct PG_DATABASE",
    ),
    _Cause(
        r'role "(?P<name>[^"]*)" does not exist',
        "create it: sudo -u postgres createuser --pwprompt {name_word}; or correct PG_USER",
    ),
    _Cause(
        r"connection refused|socket .* no such file or directory",
        "check that the server runs (sudo systemctl start postgresql) and listens there"
        ' (sudo -u postgres psql -c "SHOW listen_addresses"), and PG_HOST and PG_PORT;'
        " for private servers to try things: kg embedded up",
        passing=True,
    ),
    _Cause(
        r"temporary failure in name resolution",
        "check that this machine reaches its name server, and PG_HOST",
        passing=True,
    ),
    _Cause(
        r"could not translate host name(?![^;]*temporary failure in name resolution)",
        "correct PG_HOST",
    ),
    _Cause(
        r"timeout expired|timed out|no route to host|network is unreachable",
        "check PG_HOST and PG_PORT, and that no firewall is between",
        passing=True,
    ),
    _Cause(
        r"too many (clients|connections)|connection slots are reserved|no more connections allowed",
        "lower PG_POOL_SIZE and PG_MAX_OVERFLOW, raise the server's max_connections,"
        " or put PgBouncer before it",
        passing=True,
    ),
    _Cause(
        r"server does not support ssl",
        "turn ssl on in postgresql.conf, or set PG_SSLMODE=prefer if the network is trusted",
    ),
    _Cause(
        r'certificate for "(?P<name>[^"]*)" .*does not match host name',
        "set PG_HOST to the name that the server's certificate is for ({name}), or give the server"
        " a certificate for the name that you use; PG_SSLMODE=verify-ca would take any name",
    ),
    _Cause(
        r"certificate|ssl error|\btls\b",
        "set PG_SSLROOTCERT (now {authorities}) to the file with the certificate of the authority"
        " that signed the server's; if it is that, the server's may have run out: renew it",
    ),
    _Cause(
        r"unsupported startup parameter: (?P<name>\w+)",
        "PgBouncer stands between: name {name} in ignore_startup_parameters of pgbouncer.ini, and"
        " set what it should do by ALTER ROLE {user} SET …; or connect to the server itself"
        " (PG_HOST, PG_PORT)",
    ),
    _Cause(
        r"starting up|shutting down|in recovery|not (yet )?accepting|terminating connection",
        "try again in a moment",
        passing=True,
    ),
    _Cause(
        r"server_login_retry|query_wait_timeout|cannot connect to server",
        "PgBouncer stands between and does not reach the server: check that the server runs, and"
        " what pgbouncer.ini says of it; PgBouncer's log tells why",
        passing=True,
    ),
    # What PgBouncer 1.18 says of BEGIN under pool_mode = statement goes to its log alone.
    _Cause(r"statement pooling mode", _POOLER),
    # A server that is killed just then says the same.
    _Cause(
        r"server closed the connection unexpectedly|connection reset|eof detected",
        _POOLER,
        passing=True,
    ),
)
_OTHERWISE = _Cause("", "check PG_HOST, PG_PORT, PG_DATABASE, PG_USER, and the server's log")


def connect_error(error: psycopg2.Error, parameters: Mapping[str, Any]) -> TargetUnreachableError:
    """Return the error to raise for a failed ``psycopg2.connect(**parameters)``.

    The password is in neither its message nor its hint.
    """
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    said = re.sub(r"\b(FATAL|ERROR): +", "", "; ".join(lines))
    cause, hint = _cause(said, parameters)
    return TargetUnreachableError(
        f"can't connect to PostgreSQL: {_without_password(said, parameters)}",
        _without_password(hint, parameters),
        passing=cause.passing,
    )


def too_old(version: int) -> TargetError:
    """Return the error for a server whose ``server_version`` is below the oldest supported."""
    number = (
        f"{version // 10000}" if version >= 100000 else f"{version // 10000}.{version // 100 % 100}"
    )
    return TargetError(
        f"the server is PostgreSQL {number}; {OLDEST} or newer is needed",
        "upgrade the server, or set PG_HOST and PG_PORT to another one",
    )


def _cause(said: str, parameters: Mapping[str, Any]) -> tuple[_Cause, str]:
    """Return the cause, and its hint filled in."""
    for cause in sorted(_CAUSES, key=lambda cause: cause.passing):  # It keeps the order otherwise.
        found = _found(cause, said)
        if found is not None:
            user = str(parameters.get("user", "<user>"))
            name = found.groupdict().get("name", "")
            return cause, cause.hint.format(
                user=user,
                user_word=shlex.quote(user),
                database=parameters.get("dbname", user),  # As libpq itself does it.
                name=name,
                name_word=shlex.quote(name),
                authorities=parameters.get("sslrootcert", "unset"),
            )
    return _OTHERWISE, _OTHERWISE.hint


def _found(cause: _Cause, said: str) -> re.Match[str] | None:
    # A host or a database may be called anything: names count only where the pattern asks for one.
    if "(?P<name>" not in cause.pattern:
        said = re.sub(r'"[^"]*"', '""', said)
    return re.search(cause.pattern, said, re.IGNORECASE)


def _without_password(text: str, parameters: Mapping[str, Any]) -> str:
    # libpq repeats a parameter it can't read, and a whole URL can be given as database name.
    password = str(parameters.get("password") or "")
    others = {str(value) for name, value in parameters.items() if name != "password"}
    return text.replace(password, "***") if password and password not in others else text
