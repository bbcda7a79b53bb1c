"""Put the commands together; turn errors into two lines and an exit code."""

import json
import logging
import signal
import sys
from typing import Annotated, NoReturn

import typer
from typer.exceptions import TyperException

from kgcore.errors import KGError, SettingsError
from workers.cli import (
    backup,
    control,
    demo,
    doctor,
    embedded,
    inspect,
    migrate,
    optimize,
    rejects,
    sample,
    worker,
)
from workers.cli.output import STATE, complain

INTERRUPTED = 130

app = typer.Typer(
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


@app.callback()
def _options(
    debug: Annotated[
        bool, typer.Option("--debug", help="Show tracebacks and the log of what happens.")
    ] = False,
) -> None:
    STATE.debug = debug
    logging.basicConfig(
        level=logging.DEBUG if debug else logging.ERROR,
        format="%(asctime)s %(levelname)s %(name)s: %(message)s",
    )


for module in (
    *(migrate, control, inspect, rejects, worker, doctor),
    *(optimize, backup, sample, demo),
):
    module.register(app)
app.add_typer(embedded.app, name="embedded")


def main() -> NoReturn:
    """Run ``kg`` and exit with its documented code."""
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, _interrupt)
    try:
        code = app(standalone_mode=False)
    except KGError as error:
        if STATE.debug:
            logging.getLogger("kg").exception("the error's way")
        if STATE.json:
            failed = {"run_id": STATE.run_id or None, "state": "failed", "code": error.code}
            sys.stdout.write(json.dumps(failed | {"errors": [error.message]}) + "\n")
        complain(error.message, "; ".join(filter(None, (error.hint, STATE.to_go_on))))
        sys.exit(error.exit_code)
    except (typer.Abort, KeyboardInterrupt):
        code = INTERRUPTED
    except TyperException as error:
        complain(error.format_message(), "kg --help, or --help behind a command, tells more")
        sys.exit(SettingsError.exit_code)
    except Exception as error:
        if STATE.debug:
            raise
        mend = "; ".join(filter(None, ("see more with kg --debug …", STATE.to_go_on)))
        complain(f"unexpected: {type(error).__name__}: {error}", mend)
        sys.exit(1)
    if code == INTERRUPTED:  # Typer turns Ctrl-C into this.
        complain("interrupted", STATE.after_interrupt)
    sys.exit(code if isinstance(code, int) else 0)


def _interrupt(_number: int, _frame: object) -> NoReturn:
    STATE.interrupted = True
    raise KeyboardInterrupt
