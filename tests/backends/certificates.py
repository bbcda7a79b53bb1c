"""Certificates of a test's own, made by the command openssl."""

import subprocess
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class Certificate:
    """A certificate and its private key."""

    certificate: Path
    key: Path


def make_authority(directory: Path, name: str) -> Certificate:
    """Make an authority that can sign servers' certificates."""
    made = _files(directory, name)
    extension = "basicConstraints=critical,CA:TRUE"
    _make(made, f"/CN={name}", "-x509", "-days", "2", "-addext", extension)
    return made


def sign(directory: Path, authority: Certificate, dns_name: str, days: int = 2) -> Certificate:
    """Make a server's certificate for a DNS name; with negative ``days`` it has run out."""
    made = _files(directory, f"{dns_name}.{days}")
    request = made.certificate.with_suffix(".csr")
    _make(Certificate(request, made.key), f"/CN={dns_name}")
    names = made.certificate.with_suffix(".ext")
    names.write_text(f"subjectAltName=DNS:{dns_name}\n", encoding="ascii")
    _openssl(
        *("x509", "-req", "-in", request, "-out", made.certificate, "-extfile", names),
        *("-CA", authority.certificate, "-CAkey", authority.key, "-CAcreateserial"),
        *("-days", str(days)),
    )
    return made


def _files(directory: Path, name: str) -> Certificate:
    return Certificate(directory / f"{name}.crt", directory / f"{name}.key")


def _make(made: Certificate, subject: str, *options: str) -> None:
    key = ("-newkey", "rsa:2048", "-nodes", "-keyout", made.key)
    _openssl("req", "-new", *key, "-out", made.certificate, "-subj", subject, *options)


def _openssl(*arguments: str | Path) -> None:
    subprocess.run(["openssl", *map(str, arguments)], check=True, capture_output=True)
