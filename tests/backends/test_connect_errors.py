"""Each failed connect says what mends it, and never the password."""

import socket

import psycopg2
import pytest

from kgcore.backends import PostgreSQLBackend
from kgcore.backends.connect_errors import connect_error, too_old
from kgcore.errors import TargetError
from tests.servers import Database

_REFUSED = 'connection to server at "localhost" (::1), port 5432 failed: Connection refused'


def error_of(postgres: Database, **overrides: object) -> TargetError:
    parameters = postgres.parameters | overrides
    with pytest.raises(TargetError) as caught:
        PostgreSQLBackend(**parameters).connect()
    shown = f"{caught.value.message} {caught.value.hint} {caught.value.__cause__}"
    assert str(parameters["password"]) not in shown
    return caught.value


def test_wrong_password(postgres: Database) -> None:
    error = error_of(postgres, password="guessed-wrong")
    assert "password authentication failed" in error.message
    assert "PG_PASSWORD" in error.hint
    assert f"host {postgres.database} {postgres.user}" in error.hint


def test_no_such_database(postgres: Database) -> None:
    error = error_of(postgres, database="no such")
    assert "does not exist" in error.message
    assert f"createdb -O {postgres.user} 'no such'" in error.hint


def test_nobody_listens(postgres: Database) -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        error = error_of(postgres, port=free.getsockname()[1])
    assert "Connection refused" in error.message
    assert "systemctl start postgresql" in error.hint
    assert "listen_addresses" in error.hint


def test_no_socket(postgres: Database) -> None:
    assert "systemctl start postgresql" in error_of(postgres, host="/nowhere").hint


def test_unknown_host(postgres: Database) -> None:
    assert "PG_HOST" in error_of(postgres, host="host.invalid").hint


def test_no_ssl(postgres: Database) -> None:
    assert "PG_SSLMODE" in error_of(postgres, sslmode="require").hint


@pytest.mark.parametrize(
    ("said", "setting"),
    [
        ('root certificate file "/nowhere" does not exist\nEither provide', "PG_SSLROOTCERT"),
        ("SSL error: certificate verify failed", "PG_SSLROOTCERT"),
        ('server certificate for "db" does not match host name "pg"', "PG_HOST"),
        ('FATAL:  no pg_hba.conf entry for host "::1", user "j", no encryption', "PG_SSLMODE"),
        ("FATAL:  sorry, too many clients already", "max_connections"),
        ("FATAL:  the database system is starting up", "in a moment"),
        ("timeout expired", "firewall"),
        (f"{_REFUSED}; server does not support SSL, but SSL was required", "PG_SSLMODE"),
        (f"{_REFUSED}; SSL error: certificate verify failed", "PG_SSLROOTCERT"),
        ('connection to server at "certificate.tls", port 1 failed: Connection refused', "listen"),
        ('FATAL:  too many connections for database "tls"', "max_connections"),
        ("tls-proxy: TLS handshake refused", "PG_SSLROOTCERT"),
        ("FATAL:  query_wait_timeout", "PgBouncer"),
    ],
)
def test_what_libpq_says_otherwise(said: str, setting: str) -> None:
    assert setting in connect_error(psycopg2.OperationalError(said), {"user": "jarvis"}).hint


@pytest.mark.parametrize(
    ("said", "passing"),
    [
        ("Connection refused", True),
        ('connection to server on socket "/s" failed: No such file or directory', True),
        ("timeout expired", True),
        ("FATAL:  the database system is starting up", True),
        ("FATAL:  the database system is not yet accepting connections", True),
        ("FATAL:  terminating connection due to administrator command", True),
        ("FATAL:  sorry, too many clients already", True),
        ("server closed the connection unexpectedly", True),
        ("FATAL:  server login has been failing, cached error: x (server_login_retry)", True),
        ("FATAL:  query_wait_timeout", True),
        ("FATAL:  pgbouncer cannot connect to server", True),
        ('could not translate host name "a": Temporary failure in name resolution', True),
        (f"{_REFUSED}\nserver does not support SSL, but SSL was required", False),
        (f"{_REFUSED}\nSSL error: certificate verify failed", False),
        ('connection to server at "ssl error", port 1 failed: Connection refused', True),
        ('FATAL:  password authentication failed for user "j"', False),
        ('Connection refused\nFATAL:  password authentication failed for user "j"', False),
        ('FATAL:  database "x" does not exist', False),
        ("could not translate host name", False),
        ("SSL error: certificate verify failed", False),
        ("something new", False),
    ],
)
def test_what_may_be_over_in_a_moment(said: str, passing: bool) -> None:
    assert connect_error(psycopg2.OperationalError(said), {}).passing is passing


def test_too_many_connections(postgres: Database) -> None:
    postgres.rows(f'ALTER DATABASE "{postgres.database}" CONNECTION LIMIT 0')
    role = f"ordinary_{postgres.database}"  # The limit is not for superusers.
    postgres.rows(f"CREATE ROLE {role} LOGIN PASSWORD 'of-the-role'")
    try:
        assert "PG_POOL_SIZE" in error_of(postgres, user=role, password="of-the-role").hint
    finally:
        postgres.rows(f"DROP ROLE {role}")


def test_a_password_in_what_libpq_says_is_hidden() -> None:
    said = psycopg2.OperationalError('invalid port "s3cret"\n')
    error = connect_error(said, {"password": "s3cret", "user": "jarvis"})
    assert error.message == 'can\'t connect to PostgreSQL: invalid port "***"'
    assert "log" in error.hint


def test_an_old_server() -> None:
    assert "PostgreSQL 13;" in too_old(130004).message
    assert "PostgreSQL 9.6;" in too_old(90624).message
