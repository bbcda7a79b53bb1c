"""Every error a user can meet, as one tree.

::

    KGError
    ├── SettingsError           a setting or an option is wrong                     exit 2
    ├── SourceError             the SQLite file can't be used                       exit 1
    │   └── FetchError          a machine can't get it at this moment               exit 1
    ├── TargetError             PostgreSQL can't be used as the target              exit 1
    │   ├── TargetUnreachableError  it can't be connected to                    exit 1
    │   ├── PoolTimeoutError    no connection became free in time                   exit 1
    │   └── TargetBusyError     tables are locked, or another run is in progress    exit 1
    ├── BrokerError             Redis can't be reached, or no worker answers        exit 1
    ├── RunError                the run can't do what was asked of it               exit 1
    │   ├── RunNotFoundError    no run of that name                                 exit 2
    │   ├── StepFencedError     a late or foreign writer was refused                exit 1
    │   ├── RejectsError        more rows were refused than allowed                 exit 3
    │   └── MismatchError       a row in the target differs from its source         exit 4
    ├── UnknownEntityError      a relationship names an entity that does not exist  exit 1
    ├── BackupError             a copy can't be made, read or restored              exit 1
    └── EmbeddedError           a private server can't be started                   exit 1

The command line prints the message and the hint, one line each, and exits with ``exit_code``.
"""

from typing import ClassVar


class KGError(Exception):
    """Base of all errors of this project: ``message`` says what and why, ``hint`` the mend.

    ``code`` is stable: programs may compare it, and the documentation lists it.
    """

    code: ClassVar[str] = "error"
    exit_code: ClassVar[int] = 1

    def __init__(self, message: str, hint: str = "") -> None:
        super().__init__(message)
        self.message = message
        self.hint = hint


class SettingsError(KGError):
    """A setting or an option is missing, malformed, or contradicts another."""

    code = "settings"
    exit_code = 2


class SourceError(KGError):
    """The SQLite file can't be read, is damaged, or isn't a knowledge graph."""

    code = "source"


class FetchError(SourceError):
    """A machine can't get the source snapshot now: nobody answers, or its disk is full."""

    code = "fetch"


class TargetError(KGError):
    """PostgreSQL can't be reached, is too old, or lacks a right or a table."""

    code = "target"


class TargetUnreachableError(TargetError):
    """PostgreSQL can't be connected to.

    ``passing`` says that it may be back in a moment: nobody listens, it is starting up or full.
    Otherwise a setting is wrong, and trying again changes nothing.
    """

    code = "target-unreachable"

    def __init__(self, message: str, hint: str = "", *, passing: bool = False) -> None:
        super().__init__(message, hint)
        self.passing = passing


class PoolTimeoutError(TargetError):
    """Every connection of the pool stayed in use for the whole waiting time."""

    code = "pool-timeout"


class TargetBusyError(TargetError):
    """The live tables stayed locked by others, or another run is in progress."""

    code = "target-busy"


class BrokerError(KGError):
    """Redis can't be reached or refuses the login, or no worker answers through it."""

    code = "broker"


class RunError(KGError):
    """The run is not in a state in which the request makes sense."""

    code = "run"


class RunNotFoundError(RunError):
    """The ledger holds no run of that name."""

    code = "run-not-found"
    exit_code = 2


class StepFencedError(RunError):
    """The run moved on (cancelled, resumed, cut over): this writer's work is rolled back."""

    code = "fenced"


class RejectsError(RunError):
    """More rows were refused than ``--max-rejects`` allows; staging is kept."""

    code = "rejects"
    exit_code = 3


class MismatchError(RunError):
    """Verification found rows that differ from their source; nothing was cut over."""

    code = "mismatch"
    exit_code = 4


class UnknownEntityError(KGError):
    """A relationship was to join an entity that does not exist."""

    code = "unknown-entity"


class BackupError(KGError):
    """A copy of the graph can't be made, is not what it should be, or can't be restored."""

    code = "backup"


class EmbeddedError(KGError):
    """A private PostgreSQL or Redis server can't be started or isn't running."""

    code = "embedded"
