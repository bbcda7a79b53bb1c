"""Put the commands together; turn errors into two lines and an exit code."""

import logging
import signal
import sys
from importlib.metadata import version
from typing import Annotated, NoReturn

import typer
from typer.exceptions import TyperException

from kgcore.errors import KGError, SettingsError
from kgcore.migration.model import PROTOCOL
from workers.cli.commands import Commands
from workers.cli.output import STATE, complain, out, print_json

INTERRUPTED = 130
_SEE_MORE = "see more with kg --debug …"
_HELP = "kg --help, or --help behind a command, tells more"

app = typer.Typer(
    cls=Commands,
    name="kg",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    rich_markup_mode="markdown",
    context_settings={"help_option_names": ["-h", "--help"]},
    help=(
        "Takes a SQLite knowledge graph to PostgreSQL through Celery workers: exactly once, every"
        " row verified, all-or-nothing cutover.\n\n"
        "The target is set by PG_HOST, PG_PORT, PG_DATABASE, PG_USER, PG_PASSWORD (or libpq's own"
        " PGHOST …), the broker by KG_REDIS_URL, both also in .env.\n\n"
        "Exit codes: 0 done; 1 failed, live tables untouched; 2 usage or settings; 3 more rejects"
        " than allowed, resumable; 4 verification mismatch, not cut over; 130 interrupted."
    ),
)


def _show_version(wanted: bool) -> None:
    if wanted:
        out.print(f"kg {version('jarvis-kg')}, protocol {PROTOCOL}", highlight=False)
        raise typer.Exit


@app.callback()
def _options(
    debug: Annotated[
        bool, typer.Option("--debug", help="Show tracebacks and the log of what happens.")
    ] = False,
    _version: Annotated[
        bool,
        typer.Option(
            "--version",
            callback=_show_version,
            is_eager=True,
            help="Show version and protocol: workers take steps of their own protocol only.",
        ),
    ] = False,
) -> None:
    STATE.debug = debug
    logging.basicConfig(
        level=logging.DEBUG if debug else logging.ERROR,
        format="%(asctime)s %(levelname)s %(name)s: %(message)s",
    )


def main() -> NoReturn:
    """Run ``kg`` and exit with its documented code."""
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, _interrupt)
    # Commands say so, too, but one that is called wrongly is never entered.
    STATE.json = "--json" in sys.argv[1:]
    try:
        code = app(standalone_mode=False)
    except KGError as error:
        if STATE.debug:
            logging.getLogger("kg").exception("the error's way")
        _fail(error.code, error.message, _mend(error.hint), error.exit_code)
    except (typer.Abort, KeyboardInterrupt):
        code = INTERRUPTED
    except TyperException as error:
        if not error.format_message():  # Nothing was asked for: the help has been shown.
            sys.exit(SettingsError.exit_code)
        _fail("usage", error.format_message(), _HELP, SettingsError.exit_code)
    except Exception as error:
        if STATE.debug:
            logging.getLogger("kg").exception("the error's way")
        _fail("unexpected", f"unexpected: {type(error).__name__}: {error}", _mend(_SEE_MORE), 1)
    if code == INTERRUPTED:  # Typer turns Ctrl-C into this.
        _fail("interrupted", "interrupted", STATE.after_interrupt, INTERRUPTED)
    sys.exit(code if isinstance(code, int) else 0)


def _fail(code: str, message: str, hint: str, exit_code: int) -> NoReturn:
    """Say on stderr, and with ``--json`` on stdout, too, what keeps the command from its answer."""
    if STATE.json:
        print_json(
            {
                "run_id": STATE.run_id or None,
                "state": "failed",
                "code": code,
                "errors": [message],
            }
        )
    complain(message, hint)
    sys.exit(exit_code)


def _mend(hint: str) -> str:
    return "; ".join(filter(None, (hint, STATE.to_go_on)))


def _interrupt(_number: int, _frame: object) -> NoReturn:
    STATE.interrupted = True
    raise KeyboardInterrupt
