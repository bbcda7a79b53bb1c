"""Asking private servers, and Python processes that start some."""

import subprocess
import sys
import textwrap
from typing import Any

import psycopg2
import redis


def run_python(code: str, *arguments: object, **options: Any) -> str:
    command = [sys.executable, "-c", textwrap.dedent(code), *map(str, arguments)]
    done: subprocess.CompletedProcess[str] = subprocess.run(
        command, check=False, capture_output=True, text=True, **options
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def ask(variables: dict[str, str], sql: str) -> Any:
    connection = psycopg2.connect(
        host=variables["PG_HOST"],
        port=variables["PG_PORT"],
        dbname=variables["PG_DATABASE"],
        user=variables["PG_USER"],
        password=variables["PG_PASSWORD"],
    )
    try:
        with connection, connection.cursor() as cursor:
            cursor.execute(sql)
            return cursor.fetchone() if cursor.description else None
    finally:
        connection.close()


def ping(url: str) -> bool:
    with redis.Redis.from_url(url) as client:
        return bool(client.ping())
