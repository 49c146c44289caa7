"""The certificates, their key, and what their dates say about the clock."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import suppress
from datetime import UTC, datetime
from pathlib import Path

from cryptography import x509
from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm

from jobworker.auth.certificate import load_certificate
from jobworker.auth.inspection import CertificateInfo, inspect_certificate
from jobworker.auth.pki import PkiError
from jobworker.server.certificates import read_client_ca, read_server_certificate, read_server_key
from jobworker.server.doctor.finding import Finding, Status, error, ok, skipped, warning
from jobworker.server.errors import StartError

_AUTHORITY = "authority"


def examine_certificates(
    *, server_cert: Path | None, server_key: Path | None, client_ca: Path | None, client_cert: Path | None
) -> Iterator[Finding]:
    """What was given of the server's certificate, its key, the CA of clients and a client's certificate; the clock."""
    now = datetime.now(UTC)
    yield _server_certificate(server_cert, now)
    yield _server_key(server_key, server_cert)
    yield _client_ca(client_ca, now)
    yield _client_certificate(client_cert, client_ca, now)
    given = {"server_cert": server_cert, "client_ca": client_ca, "client_cert": client_cert}
    yield _clock({name: path for name, path in given.items() if path is not None}, now)


def _server_certificate(path: Path | None, now: datetime) -> Finding:
    name = "server_cert"
    if path is None:
        return _not_given(name)
    try:
        info = inspect_certificate(read_server_certificate(path).chain, now=now)
    except (StartError, PkiError) as problem:
        return error(name, str(problem), _renewal("issue-server"))
    doubts = [one for one in info.warnings if not one.startswith("the file has")]  # intermediate ones are welcome here
    if not info.hosts and not any("subjectAltName" in doubt for doubt in doubts):
        doubts.append("it names no host (subjectAltName), so every client will refuse it")
    return _judged(name, f"for {', '.join(info.hosts) or 'nobody'}; {_summary(info)}", doubts, "issue-server")


def _server_key(path: Path | None, certificate: Path | None) -> Finding:
    name = "server_key"
    if path is None or certificate is None:
        return _not_given(name if path is None else "server_cert", of=name)
    try:
        leaf = load_certificate(certificate.read_bytes())
    except (OSError, ValueError):
        return skipped(name, "there is no certificate to compare it with")
    try:
        read_server_key(path, certificate, leaf)
    except StartError as problem:
        return error(name, str(problem), "give the key that the certificate was issued for, PEM, not encrypted")
    if path.stat().st_mode & 0o077:
        return warning(name, f"others may read {path}, or its group", f"chmod 600 {path}")
    return ok(name, "is the one of the certificate")


def _client_ca(path: Path | None, now: datetime) -> Finding:
    name = "client_ca"
    if path is None:
        return _not_given(name)
    try:
        authorities = x509.load_pem_x509_certificates(read_client_ca(path)[0])
        info = inspect_certificate(path.read_bytes(), now=now)
    except (StartError, PkiError) as problem:
        return error(name, str(problem), "give the certificates of the authorities that issue client certificates")
    doubts = [one for one in info.warnings if not one.startswith("the file has")]
    if info.uses != (_AUTHORITY,):
        doubts.append("it is no authority (basicConstraints), so no client certificate will be accepted")
    more = f", and {len(authorities) - 1} more" if len(authorities) > 1 else ""
    return _judged(name, f"{info.subject}{more}; {_summary(info)}", doubts, "init")


def _client_certificate(path: Path | None, client_ca: Path | None, now: datetime) -> Finding:
    """None of its faults keeps a server from starting."""
    name = "client_cert"
    if path is None:
        return _not_given(name)
    try:
        pem = path.read_bytes()
        info = inspect_certificate(pem, now=now)
    except OSError as problem:
        return warning(name, f"{path} cannot be read: {problem.strerror}")
    except PkiError as problem:
        return warning(name, f"{path} {problem}")
    doubts = list(info.warnings)
    if "client" not in info.uses:
        doubts.append("its purpose is not that of a client (extendedKeyUsage), so the server will refuse it")
    if client_ca is not None and not _issued_by(pem, client_ca):
        doubts.append("no authority in client_ca has issued it, so the server will refuse it")
    roles = f"roles {', '.join(info.roles)}" if info.roles else "no roles"
    return _judged(name, f"{info.name}, {roles}; {_summary(info)}", doubts, "issue")


def _issued_by(pem: bytes, client_ca: Path) -> bool:
    """Whether an authority has issued a certificate; it is also said of one whose authorities cannot be read."""
    try:
        authorities = x509.load_pem_x509_certificates(client_ca.read_bytes())
    except (OSError, ValueError):
        return True
    for authority in authorities:
        with suppress(ValueError, TypeError, InvalidSignature, UnsupportedAlgorithm):
            load_certificate(pem).verify_directly_issued_by(authority)
            return True
    return False


def _clock(paths: Mapping[str, Path], now: datetime) -> Finding:
    """A clock that is behind dates of certificates or of their files is wrong; one that is ahead cannot be told."""
    name = "clock"
    detail = f"it is {now:%Y-%m-%d %H:%M:%S} UTC"
    earliest: dict[str, datetime] = {}
    for what, path in paths.items():
        with suppress(OSError, ValueError):
            content, status = path.read_bytes(), path.stat()
            start = load_certificate(content).not_valid_before_utc
            earliest[what] = max(start, datetime.fromtimestamp(status.st_mtime, UTC))
    if not earliest:
        return skipped(name, f"{detail}; no certificate is there to compare that with")
    newest = max(earliest, key=lambda what: earliest[what])
    if earliest[newest] > now:
        return warning(
            name,
            f"{detail}, but {newest} is of {earliest[newest]:%Y-%m-%d %H:%M:%S} UTC",
            "if the clock is wrong, have it set from the network (timedatectl set-ntp true)",
        )
    return ok(name, f"{detail}, later than the dates of the certificates")


def _judged(name: str, detail: str, doubts: list[str], command: str) -> Finding:
    if not doubts:
        return ok(name, detail)
    return Finding(name=name, status=Status.WARNING, detail=f"{detail}; {'; '.join(doubts)}", remedy=_renewal(command))


def _summary(info: CertificateInfo) -> str:
    return f"{info.key}, valid until {info.not_after:%Y-%m-%d}"


def _renewal(command: str) -> str:
    return f"issue another one (jobworker pki {command})"


def _not_given(name: str, of: str | None = None) -> Finding:
    return skipped(of or name, f"{name} is not given")
