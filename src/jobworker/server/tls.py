"""TLS: certificates that are reloaded when their files change, and the check that a connection is TLS 1.3."""

from __future__ import annotations

import logging
from collections.abc import Iterable, Mapping

import grpc

from jobworker.core.errors import UnauthenticatedError
from jobworker.server.certificates import CertificateFiles, Certificates, read_certificates
from jobworker.server.errors import StartError

log = logging.getLogger(__name__)


class CertificateReloader:
    """Gives gRPC the certificates that the files hold now, as long as they can be used.

    What cannot be used is logged once, and the certificates before it stay. The type of the server's key stays, too:
    how TLS 1.2 is shut out was decided by it when gRPC was loaded.
    """

    def __init__(self, files: CertificateFiles, certificates: Certificates) -> None:
        self._files = files
        self._initial = certificates
        self._seen = certificates.versions

    def credentials(self) -> grpc.ServerCredentials:
        """Credentials that demand a client certificate and look at the files at every handshake."""
        return grpc.dynamic_ssl_server_credentials(
            _configuration(self._initial),
            self._fetch,  # pyright: ignore[reportArgumentType] -- None means "no change", which the stubs do not know
            require_client_authentication=True,
        )

    # gRPC calls this at every handshake, on a thread of its own and under a lock of its own.
    def _fetch(self) -> grpc.ServerCertificateConfiguration | None:
        try:
            versions = self._files.versions()
            if versions == self._seen:
                return None
            self._seen = versions
            certificates = read_certificates(self._files)
            self._check_key_type(certificates)
        except OSError as error:  # a file is missing, most likely for the moment in which it is replaced
            log.debug("cannot look at a certificate file: %s", error)
            return None
        except StartError as error:
            log.error("keeping the certificates in use: %s", error)  # noqa: TRY400 -- the text says all; a stack says nothing to an operator
            return None
        self._seen = certificates.versions  # of what was read, which may be newer
        log.info("certificates reloaded; serial %s, valid until %s", certificates.serial, certificates.not_after)
        return _configuration(certificates)

    def _check_key_type(self, certificates: Certificates) -> None:
        before, now = self._initial.key_type, certificates.key_type
        if now is not before:
            raise StartError(f"a key of type {now} instead of {before} needs a restart")


def check_tls_version(auth_context: Mapping[str, Iterable[bytes]]) -> None:
    """Raise `UnauthenticatedError` unless a call came over TLS 1.3: the second of two measures, see design.md."""
    version = b"".join(auth_context.get("ssl_tls_version", ())).decode("ascii", "replace") or "none"
    if version != "TLSv1.3":
        raise UnauthenticatedError(f"TLS 1.3 is required, and this connection has {version}")


def _configuration(certificates: Certificates) -> grpc.ServerCertificateConfiguration:
    pair = (certificates.key, certificates.certificate)
    return grpc.ssl_server_certificate_configuration([pair], root_certificates=certificates.client_ca)
