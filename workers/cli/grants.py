"""``kg doctor --grants``: the SQL that sets up the two roles of a migration."""

import os

from kgcore.config import load_settings
from kgcore.errors import SettingsError
from kgcore.migration.roles import administrators_grants
from workers.cli.output import out, print_json

_OWNER, _WORKER = "kg_owner", "kg_worker"


def show_grants(owner: str | None, worker: str | None, schema: str, *, json: bool) -> None:
    """Print the statements, for psql. Connects nowhere: the roles may not exist yet.

    Raises :class:`SettingsError` where the database or the roles aren't clear.
    """
    settings = load_settings()
    database = settings.pg_database or os.environ.get("PGDATABASE")
    if not database:
        raise SettingsError("no database is named", "set PG_DATABASE")
    owner, worker = owner or _OWNER, worker or settings.kg_worker_role or _WORKER
    if owner == worker:
        raise SettingsError(f"owner and worker are both {owner}", "name two different roles")
    names = (database, schema, owner, worker)
    if not all(name.isprintable() for name in names):
        raise SettingsError("a name has a line end or the like in it", "choose another name")
    statements = administrators_grants(*names)
    if json:
        print_json(list(statements))
        return
    for line in (
        f"-- Once, as a superuser, in the database {database}. The roles must exist:",
        f"-- createuser --pwprompt {owner}; createuser --pwprompt {worker}",
        *statements,
        f"-- The owner ({owner}) runs kg migrate with KG_WORKER_ROLE={worker}, and at least one",
        "-- kg worker. It must own tables that are to be replaced.",
        f"-- Others run as {worker}: kg worker --queues load,verify",
    ):
        out.print(line, markup=False, soft_wrap=True)
