"""Points at which the server makes a step wait, so that a fault strikes in its very middle.

All of it is in the target, put there by the test: a row trigger holds a COPY at one row, another a
verification just before it is recorded, an event trigger holds a transaction right after one of its
DDL statements. The product knows nothing of it.
The event trigger also notes every table that becomes live: the cutovers that really happened.
"""

from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass

import psycopg2

from tests.servers import Database, PostgresConnection
from tests.workers.kg import wait_for


@dataclass(frozen=True)
class Point:
    """Where a transaction waits: behind the DDL statement of this tag on an object named so.

    Those of the tag "row" are held by row triggers.

    Each has an advisory lock of its own; while a test has it, whoever comes there waits.
    """

    key: int
    tag: str
    name: str


#: The entity at which `load` is held is in the third of five chunks of 50.
ROW = 150
LOAD = Point(4711, "row", str(ROW))
INDEX = Point(4712, "CREATE INDEX", "%.idx_entities_%")
KEY = Point(4715, "ALTER TABLE", "kg_staging_%.relationships")
VERIFY = Point(4713, "row", "verify")
#: Two of four tables are moved then.
CUTOVER = Point(4714, "ALTER TABLE", "public.relationships")

_SETUP = """
CREATE SCHEMA faults;
CREATE TABLE faults.points (key bigint, tag text, name text);
CREATE TABLE faults.moves (transaction bigint DEFAULT txid_current(), name text);

CREATE FUNCTION faults.wait(key bigint) RETURNS void LANGUAGE plpgsql AS $$
BEGIN
    PERFORM pg_advisory_lock_shared(key);
    PERFORM pg_advisory_unlock_shared(key);
END $$;

CREATE FUNCTION faults.wait_if_closed() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    PERFORM faults.wait(key) FROM faults.points AS point
        WHERE point.tag = 'row' AND point.name = NEW.stage;
    RETURN NEW;
END $$;

CREATE FUNCTION faults.wait_at_row() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    PERFORM faults.wait(TG_ARGV[0]::bigint);
    RETURN NEW;
END $$;

CREATE FUNCTION faults.refuse_row() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    RAISE EXCEPTION 'the target is out of order' USING ERRCODE = 'XX000';
END $$;

CREATE FUNCTION faults.after_ddl() RETURNS event_trigger LANGUAGE plpgsql AS $$
DECLARE
    command record;
BEGIN
    FOR command IN SELECT * FROM pg_event_trigger_ddl_commands() LOOP
        IF command.command_tag = 'ALTER TABLE' AND command.schema_name = 'public' THEN
            INSERT INTO faults.moves (name) VALUES (command.object_identity);
        END IF;
        IF command.command_tag = 'CREATE TABLE'
            AND command.object_identity = 'kg_migration.steps' THEN
            CREATE TRIGGER wait_if_closed BEFORE UPDATE ON kg_migration.steps FOR EACH ROW
                WHEN (NEW.done AND NOT OLD.done) EXECUTE FUNCTION faults.wait_if_closed();
        END IF;
        PERFORM faults.wait(key) FROM faults.points AS point
            WHERE command.command_tag = point.tag AND command.object_identity LIKE point.name;
    END LOOP;
END $$;

CREATE EVENT TRIGGER after_ddl ON ddl_command_end EXECUTE FUNCTION faults.after_ddl();
"""


class Hold:
    """A point that is closed: steps wait there."""

    def __init__(self, database: Database, connection: PostgresConnection, key: int) -> None:
        self._database = database
        self._connection = connection
        self._key = key

    def waiting(self) -> list[int]:
        """The backends that wait at the point now."""
        rows = self._database.rows(
            "SELECT pid FROM pg_locks WHERE locktype = 'advisory' AND objid = %s AND NOT granted",
            (self._key,),
        )
        return [pid for (pid,) in rows]

    def reached(self) -> int:
        """Wait until a step has come to the point; return its backend."""
        wait_for(self.waiting)
        return self.waiting()[0]

    def release(self) -> None:
        """Let everyone pass, from now on."""
        with suppress(psycopg2.Error):  # The server may have been stopped.
            self._connection.close()


def install(database: Database) -> None:
    """Set up what holds and moves need."""
    database.rows(_SETUP)


@contextmanager
def closed(database: Database, point: Point) -> Iterator[Hold]:
    """Let everyone who reaches the point wait there, until it is released or the block ends."""
    database.rows(
        "INSERT INTO faults.points VALUES (%s, %s, %s)", (point.key, point.tag, point.name)
    )
    connection = database.connect()
    with connection.cursor() as cursor:
        cursor.execute("SELECT pg_advisory_lock(%s)", (point.key,))
    hold = Hold(database, connection, point.key)
    try:
        yield hold
    finally:
        hold.release()
