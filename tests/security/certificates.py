"""Certificates of an authority of the test's own."""

from dataclasses import dataclass
from pathlib import Path

import trustme


@dataclass(frozen=True)
class Certificates:
    """Files: the authority's certificate, and a server's for the names it was made for."""

    authority: Path
    certificate: Path
    key: Path


def certificates(directory: Path, *names: str) -> Certificates:
    """Make an authority and a server's certificate, readable by the server's own user."""
    made = Certificates(directory / "ca.pem", directory / "server.pem", directory / "server.key")
    authority = trustme.CA()
    server = authority.issue_cert(*names)
    authority.cert_pem.write_to_path(str(made.authority))
    server.private_key_pem.write_to_path(str(made.key))
    made.certificate.write_bytes(b"".join(blob.bytes() for blob in server.cert_chain_pems))
    for path in (made.authority, made.certificate, made.key):
        path.chmod(0o644)
    return made
