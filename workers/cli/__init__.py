"""The command ``kg``. Each module here holds a few related commands."""

from workers.cli.main import main

__all__ = ["main"]
