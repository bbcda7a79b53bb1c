"""``kg runs --prune``: what old runs left is taken away, and said."""

import re
from collections.abc import Collection
from datetime import timedelta

from kgcore.config import load_settings
from kgcore.errors import SettingsError
from kgcore.migration.prune import prune
from workers.cli.context import target
from workers.cli.output import out, print_json

_AGE = re.compile(r"(\d{1,6})([smhdw])")
_UNITS = {"s": "seconds", "m": "minutes", "h": "hours", "d": "days", "w": "weeks"}


def prune_runs(
    older_than: str,
    only: Collection[str],
    *,
    archives: bool,
    unknown_copies: bool,
    dry_run: bool,
    json: bool,
) -> None:
    """Prune, and print what was or would be taken away, and what was kept for which reason."""
    seconds = parse_age(older_than).total_seconds()
    settings = load_settings()
    with target(settings) as backend:
        found = prune(
            backend.pool,
            settings.kg_data_dir,
            older_than_seconds=seconds,
            only=only,
            archives=archives,
            unknown_copies=unknown_copies,
            dry_run=dry_run,
        )
    if json:
        print_json(
            [
                {
                    "what": item.what,
                    "name": item.name,
                    "run_id": item.run_id,
                    "pruned": not item.kept and not dry_run,
                    "kept": item.kept or None,
                }
                for item in found
            ]
        )
        return
    verb = "would prune" if dry_run else "pruned"
    for item in found:
        said = f"kept {item.what} {item.name}: {item.kept}" if item.kept else ""
        out.print(said or f"{verb} {item.what} {item.name}", markup=False, soft_wrap=True)
    if not found:
        out.print(f"nothing to prune that is older than {older_than}")


def parse_age(text: str) -> timedelta:
    """Read ``45s``, ``90m``, ``12h``, ``30d`` or ``4w``. Raises :class:`SettingsError`."""
    match = _AGE.fullmatch(text.strip())
    if match is None:
        raise SettingsError(
            f"--older-than is {text!r}", "give a number and a unit: 45s, 90m, 12h, 30d or 4w"
        )
    return timedelta(**{_UNITS[match[2]]: int(match[1])})
