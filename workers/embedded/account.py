"""Whom a server runs as: PostgreSQL refuses root, so root starts it under a user of its own.

That user must reach the server's programs and data, which root's own folders don't allow. Nothing
of the caller's is opened up for it: what it can't reach is put under ``/var/lib/jarvis-kg``.
"""

import hashlib
import os
import pwd
import shutil
import subprocess
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from kgcore.errors import EmbeddedError

NAME = "jarvis-kg"
ROOM = Path("/var/lib/jarvis-kg")


@dataclass(frozen=True)
class Account:
    """The system user of a server."""

    uid: int
    gid: int


def server_account() -> Account | None:
    """Return the user that servers run as: None, meaning the caller, unless that is root.

    Makes the system user ``jarvis-kg`` at the first call by root. Raises :class:`EmbeddedError`
    where it can't be made.
    """
    if os.geteuid() != 0:
        return None
    try:
        entry = pwd.getpwnam(NAME)
    except KeyError:
        entry = _make_user()
    return Account(entry.pw_uid, entry.pw_gid)


def run_as(account: Account | None) -> dict[str, Any]:
    """Return the arguments of ``subprocess`` that run a program as ``account``, in ``/``."""
    options: dict[str, Any] = {
        "cwd": "/",
        "env": {"PATH": os.environ.get("PATH", os.defpath), "LC_ALL": "C", "TZ": "UTC"},
    }
    if account is not None:
        options |= {"user": account.uid, "group": account.gid, "extra_groups": []}
    return options


def reaches(account: Account | None, path: Path) -> bool:
    """Tell whether ``account`` may read ``path`` and enter or execute it."""
    question = ["/bin/sh", "-c", 'test -r "$1" && test -x "$1"', "sh", str(path)]
    return subprocess.run(question, check=False, **run_as(account)).returncode == 0


def reachable_program(
    root: Path, program: str, account: Account | None, parts: Sequence[str]
) -> Path:
    """Return the path of ``root / program``, or of its like in a copy that ``account`` can read.

    ``parts`` are the paths below ``root`` that the program needs: these are copied.
    """
    original = root / program
    if account is None or reaches(account, original):
        return original
    facts = original.stat()  # An upgrade in place must not go on with the copy of the old one.
    name = f"{original}\0{facts.st_size}\0{facts.st_mtime_ns}".encode()
    copy = _room() / f"programs-{hashlib.sha256(name).hexdigest()[:16]}"
    if not copy.exists():
        fresh = Path(tempfile.mkdtemp(prefix="copying-", dir=ROOM))
        for part in parts:
            if (root / part).is_dir():
                shutil.copytree(root / part, fresh / part)
            else:
                shutil.copy(root / part, fresh / part)
        for path in (fresh, *fresh.rglob("*")):
            path.chmod(0o755 if path.is_dir() or os.access(path, os.X_OK) else 0o644)
        try:
            fresh.rename(copy)
        except OSError:  # Another process was quicker; its copy is the same.
            shutil.rmtree(fresh)
    return copy / program


def home(directory: Path, account: Account | None) -> Path:
    """Return the folder below ``directory`` that the server owns, made at the first call.

    Where ``account`` can't enter ``directory`` it is a link to a folder in ``/var/lib/jarvis-kg``.
    """
    place = directory / "home"
    if place.exists():
        return place.resolve()
    place.unlink(missing_ok=True)  # A link whose folder was deleted.
    if account is None or reaches(account, directory):
        place.mkdir(mode=0o700)
    else:
        place.symlink_to(tempfile.mkdtemp(prefix="home-", dir=_room()))
    own(place, account)
    return place.resolve()


def own(path: Path, account: Account | None) -> None:
    """Give ``path`` to the account."""
    if account is not None:
        os.chown(path, account.uid, account.gid)


def _room() -> Path:
    ROOM.mkdir(parents=True, exist_ok=True)
    ROOM.chmod(0o711)
    return ROOM


def _make_user() -> pwd.struct_passwd:
    command = ["useradd", "--system", "--user-group", "--no-create-home"]
    command += ["--home-dir", str(ROOM), "--shell", "/usr/sbin/nologin", NAME]
    try:
        made = subprocess.run(command, check=False, capture_output=True, text=True)
        reason = made.stderr.strip()
    except FileNotFoundError:
        reason = "there is no useradd on PATH"
    try:
        return pwd.getpwnam(NAME)
    except KeyError:
        raise EmbeddedError(
            f"PostgreSQL doesn't run as root, and the system user {NAME} can't be made: {reason}",
            f"make a user named {NAME}, or run this command as an ordinary user",
        ) from None
