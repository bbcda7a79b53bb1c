"""SQLite files as well-known packages make them: Django, and SQLAlchemy with Alembic."""

import datetime as dt
import os
import subprocess
import sys
from decimal import Decimal
from pathlib import Path

import sqlalchemy as sa
from alembic.migration import MigrationContext
from alembic.operations import Operations

from tests.migration.any_comparer import differences
from tests.migration.conftest import Migrate
from tests.servers import Database

_DJANGO = """
import sys
import django
from django.conf import settings

settings.configure(
    INSTALLED_APPS=["django.contrib.auth", "django.contrib.contenttypes",
                    "django.contrib.sessions", "django.contrib.admin",
                    "django.contrib.messages"],
    DATABASES={"default": {"ENGINE": "django.db.backends.sqlite3", "NAME": sys.argv[1]}},
    DEFAULT_AUTO_FIELD="django.db.models.BigAutoField",
    USE_TZ=True,
    SECRET_KEY="of a test",
)
django.setup()
from django.core.management import call_command

call_command("migrate", verbosity=0)
from django.contrib.admin.models import LogEntry
from django.contrib.auth.models import Group, Permission, User

readers = Group.objects.create(name="readers")
readers.permissions.set(Permission.objects.all()[:5])
for number in range(40):
    user = User.objects.create_user(f"user{number}", is_staff=number % 2 == 0)
    user.groups.add(readers)
    LogEntry.objects.create(user=user, object_repr="ö", action_flag=1, change_message="[]")
"""


def test_a_django_project(migrate: Migrate, postgres: Database, tmp_path: Path) -> None:
    source = tmp_path / "django.sqlite3"
    subprocess.run(
        [sys.executable, "-c", _DJANGO, source], check=True, env={"PATH": os.defpath}, timeout=120
    )
    report = migrate(source, only=("*",))
    assert report.is_done, report.errors
    assert report.run.not_carried_over == ()
    assert differences(source, postgres.connect()) == []
    assert postgres.rows(
        "SELECT column_name, data_type FROM information_schema.columns"
        " WHERE table_name = 'auth_user' AND column_name IN ('is_staff', 'date_joined') ORDER BY 1"
    ) == [("date_joined", "timestamp with time zone"), ("is_staff", "boolean")]
    # Every foreign key came, deferred as Django makes them on PostgreSQL, too.
    assert postgres.rows(
        "SELECT count(*), bool_and(condeferred) FROM pg_constraint"
        " WHERE contype = 'f' AND connamespace = 'public'::regnamespace"
    ) == [(9, True)]
    assert postgres.rows(
        "SELECT count(*) FROM pg_constraint WHERE contype = 'c'"
        " AND pg_get_constraintdef(oid) LIKE '%action_flag%'"
    ) == [(1,)]


def test_an_alembic_project(migrate: Migrate, postgres: Database, tmp_path: Path) -> None:
    source = tmp_path / "alembic.db"
    engine = sa.create_engine(f"sqlite:///{source}")
    with engine.begin() as connection:
        operations = Operations(MigrationContext.configure(connection))
        authors = operations.create_table(
            "authors",
            sa.Column("id", sa.Integer, primary_key=True),
            sa.Column("name", sa.String(30), nullable=False, unique=True),
            sa.Column("active", sa.Boolean(create_constraint=True), nullable=False),
            sa.Column("born", sa.Date),
            sa.Column("joined", sa.DateTime, server_default=sa.func.current_timestamp()),
            sa.Column("profile", sa.JSON),
            sa.Column("photo", sa.LargeBinary),
            sa.Column("kind", sa.Enum("human", "bot", name="kinds", create_constraint=True)),
        )
        books = operations.create_table(
            "books",
            sa.Column("isbn", sa.String(13), primary_key=True),
            sa.Column(
                "author_id",
                sa.Integer,
                sa.ForeignKey("authors.id", ondelete="SET NULL"),
                index=True,
            ),
            sa.Column("price", sa.Numeric(10, 2), sa.CheckConstraint("price >= 0")),
            sa.Column("weight", sa.Float, server_default=sa.text("1.5")),
        )
        operations.create_index(
            "cheap", "books", ["price"], sqlite_where=sa.text("price < 10"), unique=False
        )
        connection.execute(
            sa.insert(authors),
            [
                {
                    "name": f"n{number}",
                    "active": number % 3 == 0,
                    "born": dt.date(1950, 1, 1) + dt.timedelta(number),
                    "profile": {"n": number, "ö": None},
                    "photo": bytes([number]),
                    "kind": "bot" if number % 2 else "human",
                }
                for number in range(120)
            ],
        )
        connection.execute(
            sa.insert(books),
            [
                {"isbn": f"{number:013}", "author_id": number % 120 + 1, "price": Decimal("9.95")}
                for number in range(300)
            ],
        )
    engine.dispose()
    report = migrate(source, only=("*",))
    assert report.is_done, report.errors
    assert report.run.not_carried_over == ()
    assert differences(source, postgres.connect()) == []
    kinds = dict(
        postgres.rows(
            "SELECT column_name, data_type FROM information_schema.columns"
            " WHERE table_name IN ('authors', 'books')"
        )
    )
    assert kinds["active"] == "boolean"
    assert kinds["profile"] == "jsonb"
    assert kinds["price"] == "numeric"
    assert kinds["born"] == "date"
    assert postgres.rows(
        "SELECT count(*) FROM pg_constraint WHERE contype = 'c'"
        " AND connamespace = 'public'::regnamespace"
    ) == [(3,)]
    assert ("cheap",) in postgres.rows("SELECT indexname FROM pg_indexes")
