"""Which module has which commands. A module is imported when one of its commands is asked for."""

from collections import UserDict
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

    def __init__(self, **attributes: Any) -> None:
        super().__init__(**attributes)
        self.commands = _OnDemand()


class _OnDemand(UserDict[str, Any]):
    """Has all names, and a command from the moment it is asked for."""

    def __init__(self) -> None:
        super().__init__(dict.fromkeys(_MODULE_OF))

    def __getitem__(self, name: str) -> Any:
        if self.data[name] is None:
            self.data.update(_commands_of(_MODULE_OF[name]))
        return self.data[name]


def _commands_of(module: str) -> dict[str, Any]:
    app = typer.Typer()
    import_module(f"{__package__}.{module}").register(app)
    return dict(get_group(app).commands)
