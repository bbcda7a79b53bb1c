"""Which module has which commands. A module is imported when one of its commands is asked for."""

from collections.abc import Mapping
from importlib import import_module
from typing import Any

import typer
from typer.core import TyperGroup
from typer.main import get_group

#: Modules beside this one, and their commands in the order of ``kg --help``.
MODULES: Mapping[str, tuple[str, ...]] = {
    "migrate": ("migrate", "resume", "cancel", "revert"),
    "control": ("pause", "unpause"),
    "inspect": ("progress", "runs", "report"),
    "rejects": ("rejects",),
    "worker": ("worker",),
    "doctor": ("doctor",),
    "optimize": ("optimize",),
    "backup": ("backup", "restore"),
    "sample": ("sample",),
    "demo": ("demo",),
    "embedded": ("embedded",),
}
_MODULE_OF = {command: module for module, commands in MODULES.items() for command in commands}


class Commands(TyperGroup):
    """``kg``: its commands by name, each made when it is asked for.

    All of it takes a second to import, of which ``kg progress`` needs the smaller part.
    """

    def list_commands(self, _ctx: Any) -> list[str]:
        """Return the commands' names."""
        return list(_MODULE_OF)

    def get_command(self, _ctx: Any, cmd_name: str) -> Any:
        """Return a command, or None if there is none of this name."""
        if cmd_name not in self.commands and cmd_name in _MODULE_OF:
            self.commands.update(_commands_of(_MODULE_OF[cmd_name]))
        return self.commands.get(cmd_name)


def _commands_of(module: str) -> dict[str, Any]:
    app = typer.Typer()
    import_module(f"{__package__}.{module}").register(app)
    return dict(get_group(app).commands)
