"""Settings: one frozen object, read from the environment and from ``.env``.

A ``PG_`` name that is unset is not passed on at all, so libpq's own rules hold for it: ``PGHOST``,
``PGPASSFILE``, service files. An empty value counts as unset; in the environment it hides the same
name of ``.env``.
"""

import os
import re
from pathlib import Path
from typing import Annotated, Any, Literal, Self
from urllib.parse import parse_qsl, urlencode, urlsplit

import platformdirs
from pydantic import (
    ByteSize,
    Field,
    FilePath,
    SecretStr,
    ValidationError,
    field_validator,
    model_validator,
)
from pydantic_settings import (
    BaseSettings,
    DotEnvSettingsSource,
    NoDecode,
    PydanticBaseSettingsSource,
    SettingsConfigDict,
)

from kgcore.errors import SettingsError

# A host is a name, an address (of IPv6 with its zone, perhaps) or a socket directory.
_ADDRESS = re.compile(
    r"(?: (?P<bare> [^\s\[\]@,:]* : [^\s\[\]@,:]* : [^\s\[\]@,]* )"
    r"| (?: \[ (?P<bracketed> [^\s\[\]@,]+ ) \] | (?P<host> [^\s\[\]@,:]+ ) )"
    r" (?: : (?P<port> [0-9]{1,5} ) )? )",
    re.VERBOSE,
)
BackendName = Literal["sqlite", "postgres"]
SSLMode = Literal["disable", "allow", "prefer", "require", "verify-ca", "verify-full"]
#: A server's name or address, and its port where one is given.
Address = tuple[str, int | None]
Port = Annotated[int, Field(ge=1, le=65535)]


class Settings(BaseSettings):
    """All settings of library, workers and command line. Secrets never show in ``repr``."""

    model_config = SettingsConfigDict(
        env_file=".env",
        env_file_encoding="utf-8",
        env_ignore_empty=True,
        extra="ignore",
        frozen=True,
        hide_input_in_errors=True,  # A mistyped password must not be echoed.
    )

    kg_backend: BackendName = "sqlite"
    sqlite_db_path: Path = Path("data/knowledge_graph.db")

    pg_host: str | None = None
    pg_port: Port | None = None
    pg_database: str | None = None
    pg_user: str | None = None
    pg_password: SecretStr | None = None
    pg_password_file: Path | None = None
    pg_sslmode: SSLMode | None = None
    pg_sslrootcert: Path | None = None
    pg_pool_size: int = Field(default=10, ge=1, le=1000)
    pg_max_overflow: int = Field(default=20, ge=0, le=1000)
    pg_replica_hosts: Annotated[tuple[str, ...], NoDecode] = ()
    pg_replica_max_lag: float = Field(default=10.0, gt=0, le=3600)  # Seconds.

    # The URL may carry a password: SecretStr keeps it out of repr and messages.
    kg_redis_url: SecretStr = SecretStr("redis://localhost:6379/0")
    kg_target_patience_seconds: float = Field(default=60.0, ge=0, le=86_400)
    kg_redis_ca_file: FilePath | None = None
    kg_worker_role: str | None = None
    kg_data_dir: Path = Field(default_factory=lambda: platformdirs.user_data_path("jarvis-kg"))
    kg_cache_dir: Path | None = None
    kg_cache_bytes: ByteSize = Field(default=ByteSize(50 << 30), gt=0)
    kg_source_root: Path | None = None

    @field_validator("pg_replica_hosts", mode="before")
    @classmethod
    def _replicas(cls, hosts: object) -> object:
        chosen = hosts.split(",") if isinstance(hosts, str) else hosts
        if isinstance(chosen, list | tuple):
            chosen = tuple(part.strip() for part in chosen if part.strip())
            for part in chosen:
                parse_address(part)
        return chosen

    @classmethod
    def settings_customise_sources(
        cls,
        settings_cls: type[BaseSettings],  # noqa: ARG003  # Given by pydantic.
        init_settings: PydanticBaseSettingsSource,
        env_settings: PydanticBaseSettingsSource,
        dotenv_settings: PydanticBaseSettingsSource,
        file_secret_settings: PydanticBaseSettingsSource,
    ) -> tuple[PydanticBaseSettingsSource, ...]:
        """Let the environment win over ``.env`` where it has a name as empty, too."""
        if isinstance(dotenv_settings, DotEnvSettingsSource):
            present = {name.lower() for name in os.environ}
            dotenv_settings.env_vars = {
                name: value
                for name, value in dotenv_settings.env_vars.items()
                if name not in present
            }
        return init_settings, env_settings, dotenv_settings, file_secret_settings

    @field_validator("kg_redis_url")
    @classmethod
    def _redis_parts(cls, url: SecretStr) -> SecretStr:
        """Refuse what clients would take apart otherwise than it is meant, and show in part."""
        text = url.get_secret_value()
        if not text.startswith(("redis://", "rediss://", "unix://")):
            raise ValueError("must start with redis://, rediss:// or unix://")
        if not _is_whole(text):
            raise ValueError(
                "is not redis://:password@host:port/number; special characters in the password"
                " must be percent-encoded (/ as %2F, # as %23, ? as %3F, @ as %40)"
            )
        return url

    @model_validator(mode="after")
    def _checked_certificate(self) -> Self:
        if self.kg_redis_ca_file is not None and not self.redis_url().startswith("rediss://"):
            raise ValueError(
                "KG_REDIS_CA_FILE is set, and KG_REDIS_URL does not begin with rediss://"
            )
        return self

    @model_validator(mode="after")
    def _one_password(self) -> Self:
        if self.pg_password is not None and self.pg_password_file is not None:
            raise ValueError("PG_PASSWORD and PG_PASSWORD_FILE are both set; unset one of them")
        return self

    def postgres_parameters(self) -> dict[str, Any]:
        """Return the connection parameters that are set, under libpq's names.

        The password is read from ``PG_PASSWORD_FILE`` here, at each call, so that a rotated secret
        is picked up. Raises :class:`SettingsError` if that file can't be read.
        """
        named = {
            "host": self.pg_host,
            "port": self.pg_port,
            "dbname": self.pg_database,
            "user": self.pg_user,
            "password": self._password(),
            "sslmode": self.pg_sslmode,
            "sslrootcert": None if self.pg_sslrootcert is None else str(self.pg_sslrootcert),
        }
        return {name: value for name, value in named.items() if value is not None}

    def cache_dir(self) -> Path:
        """Return the folder of fetched sources: ``cache`` in the data directory by default."""
        return self.kg_cache_dir or self.kg_data_dir / "cache"

    def redis_url(self) -> str:
        """Return the Redis URL with its password: for clients, never for messages.

        With ``rediss://`` it says that the server's certificate is checked, against
        ``KG_REDIS_CA_FILE`` or the system's: kombu would not unless told so.
        """
        url = self.kg_redis_url.get_secret_value()
        if not url.startswith("rediss://"):
            return url
        base, _, asked = url.partition("?")
        query = {"ssl_cert_reqs": "required"}
        if self.kg_redis_ca_file is not None:
            query["ssl_ca_certs"] = str(self.kg_redis_ca_file)
        return f"{base}?{urlencode(query | dict(parse_qsl(asked)))}"

    def _password(self) -> str | None:
        if self.pg_password_file is None:
            return None if self.pg_password is None else self.pg_password.get_secret_value()
        try:
            return self.pg_password_file.read_text(encoding="utf-8").rstrip("\r\n")
        except (OSError, UnicodeDecodeError) as error:
            reason = error.strerror if isinstance(error, OSError) else "it is not UTF-8 text"
            raise SettingsError(
                f"PG_PASSWORD_FILE: can't read {self.pg_password_file}: {reason}",
                "mount the secret there, or set PG_PASSWORD instead",
            ) from None


def _is_whole(url: str) -> bool:
    """Tell whether a Redis URL has a port and a database that are numbers, and no other end.

    A password with one of ``/?#`` in it ends the host early; the rest of it is taken for more.
    """
    try:
        parts = urlsplit(url)
        if parts.port == 0:  # It raises where that is no number, or too large a one.
            return False
    except ValueError:
        return False
    if parts.fragment or "@" in parts.query:
        return False
    if parts.scheme == "unix":
        return not parts.netloc or parts.netloc.endswith("@")
    return re.fullmatch(r"/?[0-9]*", parts.path) is not None


def parse_address(text: str) -> Address:
    """Return host and port of ``host``, ``host:port``, ``[address]`` or ``[address]:port``.

    The port is None where it is not given. An IPv6 address with a port needs the brackets. Raises
    ValueError for anything else.
    """
    found = _ADDRESS.fullmatch(text)
    port = None if found is None or found["port"] is None else int(found["port"])
    if found is None or (port is not None and not 1 <= port <= 65535):
        raise ValueError(f"{text!r} is not host or host:port (of an IPv6 address: [address]:port)")
    return found["bracketed"] or found["bare"] or found["host"], port


def load_settings(**overrides: Any) -> Settings:
    """Read the settings; ``overrides`` (lower-case names) win over the environment.

    Raises :class:`SettingsError` that names each setting at fault, without showing its value.
    """
    try:
        return Settings(**overrides)
    except ValidationError as error:
        faults = "; ".join(
            ": ".join(
                part
                for part in (
                    "_".join(str(name) for name in fault["loc"]).upper(),
                    fault["msg"].removeprefix("Value error, "),
                )
                if part
            )
            for fault in error.errors(include_input=False, include_url=False)
        )
        raise SettingsError(faults, "correct it in the environment or in .env") from None
