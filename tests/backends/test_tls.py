"""PostgreSQL over TLS: only the server that its certificate says it is."""

import shutil
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from kgcore.backends import backend_from_settings
from kgcore.config import load_settings
from kgcore.errors import TargetUnreachableError
from tests.backends.certificates import Certificate, make_authority, sign
from tests.conftest import DEBIAN_15, unavailable
from tests.servers import FAST, launcher, server_directory
from workers.embedded import PostgresServer
from workers.embedded.account import own, server_account


@dataclass(frozen=True)
class Guarded:
    """A server that speaks TLS only, the authority behind it, and one that has no part in it."""

    server: PostgresServer
    authority: Path
    stranger: Path

    def connect(self, **settings: Any) -> dict[str, Any]:
        """Connect with verify-full by the server's name; return what the server says of it."""
        chosen = {
            "kg_backend": "postgres",
            "pg_host": "localhost",
            "pg_port": self.server.port,
            "pg_database": self.server.database,
            "pg_user": self.server.user,
            "pg_password": self.server.password,
            "pg_sslmode": "verify-full",
            "pg_sslrootcert": self.authority,
        }
        with backend_from_settings(load_settings(**chosen | settings)) as backend:
            sql = "SELECT ssl, version FROM pg_stat_ssl WHERE pid = pg_backend_pid()"
            return backend.fetchone(sql) or {}

    def refusal(self, **settings: Any) -> TargetUnreachableError:
        """Return the error of a connect that must not succeed."""
        with pytest.raises(TargetUnreachableError) as caught:
            self.connect(**settings)
        assert self.server.password not in f"{caught.value.message} {caught.value.hint}"
        return caught.value


@pytest.fixture(scope="module")
def folder() -> Iterator[Path]:
    with server_directory() as directory:
        yield directory


@pytest.fixture(scope="module")
def authority(folder: Path) -> Certificate:
    if shutil.which("openssl") is None:
        unavailable("there is no command openssl to make certificates with")
    return make_authority(folder, "authority")


@pytest.fixture(scope="module")
def guarded(folder: Path, authority: Certificate) -> Iterator[Guarded]:
    stranger = make_authority(folder, "stranger")
    with _server(folder / "server", sign(folder, authority, "localhost")) as server:
        yield Guarded(server, authority.certificate, stranger.certificate)


def _server(directory: Path, certificate: Certificate) -> PostgresServer:
    # The wheel's server is built without OpenSSL.
    if not (DEBIAN_15 / "postgres").exists():
        unavailable(f"PostgreSQL 15, which has TLS, is not installed in {DEBIAN_15}")
    certificate.key.chmod(0o600)
    own(certificate.key, server_account())
    settings = FAST | {
        "ssl": "on",
        "ssl_cert_file": str(certificate.certificate),
        "ssl_key_file": str(certificate.key),
    }
    return PostgresServer(directory, DEBIAN_15, settings, launcher())


def test_the_right_server_is_connected_to(guarded: Guarded) -> None:
    assert guarded.connect() == {"ssl": True, "version": "TLSv1.3"}


def test_a_server_signed_by_another_authority_is_refused(guarded: Guarded) -> None:
    error = guarded.refusal(pg_sslrootcert=guarded.stranger)
    assert "certificate verify failed" in error.message
    assert "PG_SSLROOTCERT" in error.hint
    assert str(guarded.stranger) in error.hint


def test_a_server_of_another_name_is_refused(guarded: Guarded) -> None:
    error = guarded.refusal(pg_host="127.0.0.1")
    assert 'certificate for "localhost"' in error.message
    assert 'does not match host name "127.0.0.1"' in error.message
    assert "PG_HOST" in error.hint
    assert "localhost" in error.hint
    # The name alone was wrong: who signed it is right.
    assert guarded.connect(pg_host="127.0.0.1", pg_sslmode="verify-ca")["ssl"]


def test_a_missing_file_of_authorities_is_named(guarded: Guarded, tmp_path: Path) -> None:
    error = guarded.refusal(pg_sslrootcert=tmp_path / "nowhere.crt")
    assert "nowhere.crt" in error.message
    assert "PG_SSLROOTCERT" in error.hint


def test_a_certificate_that_has_run_out_is_refused(folder: Path, authority: Certificate) -> None:
    expired = sign(folder, authority, "localhost", days=-1)
    with _server(folder / "expired", expired) as server:
        guarded = Guarded(server, authority.certificate, authority.certificate)
        error = guarded.refusal()
        assert "certificate" in error.message
        assert "renew" in error.hint
