"""Settings: what is wrong is named, and secrets never show."""

from pathlib import Path

import pytest

from kgcore.config import load_settings
from kgcore.errors import SettingsError


def test_what_is_unset_is_left_to_libpq() -> None:
    assert load_settings().postgres_parameters() == {}


def test_from_the_environment_and_from_a_file(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    (tmp_path / ".env").write_text("PG_HOST=from-file\nPG_PORT=5433\nPG_USER=\n")
    monkeypatch.setenv("PG_HOST", "from-environment")
    monkeypatch.setenv("PG_DATABASE", "graph")
    monkeypatch.setenv("PG_PASSWORD", "hush")
    monkeypatch.setenv("PG_SSLMODE", "verify-full")
    settings = load_settings()
    assert settings.postgres_parameters() == {
        "host": "from-environment",
        "port": 5433,
        "dbname": "graph",
        "password": "hush",
        "sslmode": "verify-full",
    }
    assert (settings.pg_pool_size, settings.pg_max_overflow) == (10, 20)
    assert settings.kg_backend == "sqlite"
    assert settings.redis_url() == "redis://localhost:6379/0"


def test_a_mounted_secret_is_read_anew_each_time(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    secret = tmp_path / "secret"
    secret.write_text("first\n")
    monkeypatch.setenv("PG_PASSWORD_FILE", str(secret))
    settings = load_settings()
    assert settings.postgres_parameters()["password"] == "first"
    secret.write_text("second")
    assert settings.postgres_parameters()["password"] == "second"
    secret.unlink()
    with pytest.raises(SettingsError, match="PG_PASSWORD_FILE: can't read"):
        settings.postgres_parameters()


@pytest.mark.parametrize(
    ("name", "value", "message"),
    [
        ("PG_PORT", "abc", "PG_PORT"),
        ("PG_PORT", "0", "PG_PORT"),
        ("PG_PORT", "65536", "PG_PORT"),
        ("PG_POOL_SIZE", "-1", "PG_POOL_SIZE"),
        ("PG_MAX_OVERFLOW", "-1", "PG_MAX_OVERFLOW"),
        ("KG_BACKEND", "oracle", "KG_BACKEND"),
        ("PG_SSLMODE", "maybe", "PG_SSLMODE"),
        ("KG_REDIS_URL", "http://:hush@host", "KG_REDIS_URL"),
        *(
            ("KG_REDIS_URL", url, "KG_REDIS_URL: .* must be percent-encoded")
            for url in (
                "redis://:hush/pw@host:1/0",
                "redis://:hush#pw@host:1/0",
                "redis://:hush?pw@host:1/0",
                "redis://:hush[pw@host:1/0",
                "redis://:12/hush@host:1/0",
                "redis://:12?hush@host:1/0",
                "redis://:12#hush@host:1/0",
                "redis://:p@hush/pw@host:1/0",
                "redis://:\u2105hush@host:1/0",
                "unix://:hush/pw@/run/redis.sock",
                "redis://:hush@host:70000/0",
                "redis://:hush@host:abc/0",
                "redis://:hush@host:1/abc",
            )
        ),
    ],
)
def test_a_wrong_setting_is_named_and_not_shown(
    monkeypatch: pytest.MonkeyPatch, name: str, value: str, message: str
) -> None:
    monkeypatch.setenv(name, value)
    with pytest.raises(SettingsError, match=message) as caught:
        load_settings()
    assert "hush" not in str(caught.value)
    assert caught.value.exit_code == 2


@pytest.mark.parametrize(
    "url",
    [
        "redis://localhost",
        "redis://user:p%2F%23%3F%40w@[::1]:6379/12",
        "redis://:p@ss@host:6379/0",
        "rediss://:hush@host:6379/0?ssl_cert_reqs=none",
        "unix:///run/redis@1/redis.sock?db=1",
        "unix://:hush@/run/redis.sock",
    ],
)
def test_redis_urls_that_are_whole(monkeypatch: pytest.MonkeyPatch, url: str) -> None:
    monkeypatch.setenv("KG_REDIS_URL", url)
    assert load_settings().kg_redis_url.get_secret_value() == url


def test_an_empty_variable_hides_the_line_of_the_file(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    (tmp_path / ".env").write_text("PG_SSLMODE=verify-full\nPG_POOL_SIZE=5\nPG_USER=jarvis\n")
    monkeypatch.setenv("PG_SSLMODE", "")
    monkeypatch.setenv("PG_POOL_SIZE", "")
    settings = load_settings()
    assert settings.postgres_parameters() == {"user": "jarvis"}
    assert settings.pg_pool_size == 10


def test_two_passwords_are_one_too_many(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PG_PASSWORD", "hush")
    monkeypatch.setenv("PG_PASSWORD_FILE", "/run/secrets/pg")
    with pytest.raises(SettingsError, match="PG_PASSWORD and PG_PASSWORD_FILE") as caught:
        load_settings()
    assert "hush" not in str(caught.value)


def test_secrets_do_not_show(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PG_PASSWORD", "hush")
    monkeypatch.setenv("KG_REDIS_URL", "redis://:hush@host")
    settings = load_settings()
    assert "hush" not in repr(settings) + str(settings) + settings.model_dump_json()
