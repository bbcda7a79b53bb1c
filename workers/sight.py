"""Which workers see this machine's data directory: asked with a file, whose name alone is sent.

A worker answers whether a file of that name is in its own ``KG_DATA_DIR``, and looks nowhere else.
"""

import re
import secrets
from pathlib import Path
from typing import Any

from celery.worker.control import inspect_command

from kgcore.config import load_settings
from kgcore.migration.stages.freeze import FOLDER
from workers.app import app
from workers.progress import BROKER_ERRORS, unreachable

_PROBE = re.compile(r"probe-[0-9a-f]{32}")


@inspect_command(args=[("probe", str)], signature="PROBE")
def kg_sees(_state: Any, probe: object = None) -> dict[str, bool]:
    """Answer whether this worker sees the probe; runs in the worker's main process."""
    if not isinstance(probe, str) or _PROBE.fullmatch(probe) is None:
        return {"sees": False}
    return {"sees": (load_settings().kg_data_dir / FOLDER / probe).is_file()}


def blind_workers(data_dir: Path, workers: tuple[str, ...], seconds: float = 2.0) -> list[str]:
    """Return those of the workers that say they don't see ``data_dir`` as it is here.

    One that does not answer, or knows no such question, is not named. Raises :class:`BrokerError`,
    and :class:`OSError` if nothing can be written there.
    """
    folder = data_dir / FOLDER
    folder.mkdir(parents=True, exist_ok=True, mode=0o700)
    probe = folder / f"probe-{secrets.token_hex(16)}"
    probe.touch()
    try:
        with app.connection_for_write() as connection:
            answers = app.control.broadcast(
                "kg_sees",
                arguments={"probe": probe.name},
                destination=list(workers),
                reply=True,
                timeout=seconds,
                limit=len(workers),
                connection=connection,
            )
    except BROKER_ERRORS as error:
        raise unreachable(error) from None
    finally:
        probe.unlink(missing_ok=True)
    return sorted(
        name
        for answer in answers or ()
        for name, said in answer.items()
        if isinstance(said, dict) and said.get("sees") is False
    )
