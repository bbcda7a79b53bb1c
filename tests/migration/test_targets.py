"""Targets that can't be used, or not yet: refused before anything is changed, with the mend."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from kgcore.backends import PostgreSQLBackend
from kgcore.errors import TargetError
from kgcore.migration import new_run
from kgcore.migration.model import Options, RunState
from tests.migration.conftest import Migrate
from tests.migration.graphs import small_graph
from tests.servers import Database


@contextmanager
def role(postgres: Database, *statements: str) -> Iterator[PostgreSQLBackend]:
    """A backend of an ordinary role of its own; ``{role}`` in the statements is its name."""
    name = f"ordinary_{postgres.database}"
    postgres.rows(f"CREATE ROLE {name} LOGIN PASSWORD 'of-the-role'")
    try:
        for statement in statements:
            postgres.rows(statement.format(role=name, database=f'"{postgres.database}"'))
        parameters = postgres.parameters | {"user": name, "password": "of-the-role"}
        with PostgreSQLBackend(**parameters, pool_size=1, max_overflow=3) as backend:
            yield backend
    finally:
        postgres.rows(f"DROP OWNED BY {name} CASCADE")
        postgres.rows(f"DROP ROLE {name}")


MAY_CREATE = (
    "GRANT CREATE, TEMPORARY ON DATABASE {database} TO {role}",
    "GRANT CREATE, USAGE ON SCHEMA public TO {role}",
)


@pytest.mark.parametrize(
    ("statements", "message", "mend"),
    [
        ((), "may not create schemas", "GRANT CREATE, TEMPORARY ON DATABASE"),
        (MAY_CREATE[:1], "may not create tables in schema public", "GRANT CREATE, USAGE ON SCHEMA"),
        (
            (*MAY_CREATE, "ALTER ROLE {role} SET default_transaction_read_only = on"),
            "transactions are read-only",
            "default_transaction_read_only = off",
        ),
        (
            (*MAY_CREATE, "CREATE TABLE entities (id bigint); GRANT SELECT ON entities TO {role}"),
            "only an owner may move it",
            "GRANT",
        ),
        (
            (*MAY_CREATE, "ALTER ROLE {role} SET search_path = nowhere"),
            "no schema of the search_path exists",
            "CREATE SCHEMA",
        ),
    ],
)
def test_a_target_that_can_t_be_used_is_refused_before_anything(
    postgres: Database, statements: tuple[str, ...], message: str, mend: str
) -> None:
    with role(postgres, *statements) as backend:
        before = postgres.rows("SELECT oid, relname FROM pg_class ORDER BY 1")
        with pytest.raises(TargetError, match=message) as caught:
            new_run.check_target(backend.pool, Options())
        assert mend in caught.value.hint
        assert postgres.rows("SELECT oid, relname FROM pg_class ORDER BY 1") == before


def test_an_ordinary_role_with_those_rights_is_enough(postgres: Database, tmp_path: Path) -> None:
    with role(postgres, *MAY_CREATE) as backend:
        assert new_run.check_target(backend.pool, Options()) == "public"


def test_tables_of_another_shape(
    migrate: Migrate, postgres: Database, backend: PostgreSQLBackend, tmp_path: Path
) -> None:
    source = small_graph(tmp_path / "graph.db")
    postgres.rows("CREATE TABLE entities (id bigint PRIMARY KEY, name integer)")
    with pytest.raises(TargetError, match="exists, empty, but in another shape") as caught:
        migrate(source)
    assert "DROP TABLE public.entities" in caught.value.hint
    postgres.rows("DROP TABLE entities; CREATE VIEW entities AS SELECT 1 AS id")
    with pytest.raises(TargetError, match="is not a plain table"):
        migrate(source)
    postgres.rows("DROP VIEW entities")
    assert migrate(source).run.state is RunState.DONE
