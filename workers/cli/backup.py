"""``kg backup`` and ``kg restore``."""

from pathlib import Path
from typing import Annotated

import typer

from kgcore.backup import Backup, Restored
from kgcore.backup import backup as make_backup
from kgcore.backup import restore as restore_backup
from kgcore.backup.model import IfExists
from workers.cli.arguments import Json
from workers.cli.database import Backend, DbPath, PgBin, graph_backend
from workers.cli.output import STATE, out, print_json, show_table, size


def register(app: typer.Typer) -> None:
    """Add the commands."""
    app.command()(backup)
    app.command()(restore)


def backup(
    file: Annotated[Path, typer.Argument(help="The file to write.")],
    force: Annotated[bool, typer.Option("--force", help="Replace an existing file.")] = False,
    backend: Backend = None,
    db_path: DbPath = None,
    pg_bin: PgBin = None,
    json: Json = False,
) -> None:
    """Write a verified copy of the graph, while others go on writing.

    PostgreSQL: an archive of `pg_dump -Fc` of the graph's schema. SQLite: a SQLite file. It gets
    its name once it was read back and holds the rows that the database held at one moment.

    Examples: `kg backup graph.dump --backend postgres`, `kg backup copy.db --db-path graph.db`.
    """
    STATE.json = json
    with graph_backend(backend, db_path) as database:
        made = make_backup(database, file, overwrite=force, bin_dir=pg_bin)
    if json:
        print_json(made.to_json())
        return
    _show(made)
    out.print(f"{made.path}: {size(made.bytes)}, verified, {made.seconds:.1f} s", markup=False)


def restore(
    file: Annotated[Path, typer.Argument(help="What kg backup or pg_dump -Fc wrote.")],
    if_exists: Annotated[
        IfExists,
        typer.Option(help="Where tables of the copy exist with rows: refuse, or overwrite them."),
    ] = "fail",
    no_privileges: Annotated[
        bool, typer.Option("--no-privileges", help="Don't give the copy's grants again.")
    ] = False,
    backend: Backend = None,
    db_path: DbPath = None,
    pg_bin: PgBin = None,
    json: Json = False,
) -> None:
    """Bring a copy back: all of it or, after an error, nothing. Counts the rows afterwards.

    Examples: `kg restore graph.dump --backend postgres`,
    `kg restore copy.db --db-path graph.db --if-exists replace`.
    """
    STATE.json = json
    with graph_backend(backend, db_path, must_exist=False) as database:
        done = restore_backup(
            database, file, if_exists=if_exists, privileges=not no_privileges, bin_dir=pg_bin
        )
    if json:
        print_json(done.to_json())
        return
    _show(done)
    replaced = f"; replaced: {', '.join(done.replaced)}" if done.replaced else ""
    out.print(f"restored from {done.path} in {done.seconds:.1f} s{replaced}", markup=False)


def _show(result: Backup | Restored) -> None:
    rows = [{"table": name, "rows": f"{rows:,}"} for name, rows in result.tables.items()]
    show_table(
        {"table": "table", "rows": "rows"}, [*rows, {"table": "total", "rows": f"{result.rows:,}"}]
    )
