"""The scenes of the fault tests, and what the ledger says of who works."""

from tests.faults.conftest import scene as scene  # noqa: PLC0414 (a fixture)
