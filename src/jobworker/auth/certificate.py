"""What a certificate says, read without a word on stderr."""

from __future__ import annotations

import threading
import warnings
from collections.abc import Generator
from contextlib import contextmanager

from cryptography import x509
from cryptography.x509.oid import NameOID

_warning_filters = threading.Lock()


def load_certificate(pem: bytes) -> x509.Certificate:
    """The first certificate in `pem`, parsed to the end: its subject, issuer and extensions raise nothing later.

    Raises `ValueError` with a predicate for "the certificate ...", such as "is malformed".
    """
    with _no_warnings():
        try:
            certificate = x509.load_pem_x509_certificate(pem)
            _ = certificate.subject, certificate.issuer, certificate.extensions  # each is parsed when first asked for
        except x509.DuplicateExtension as error:
            raise ValueError(f"has the extension {error.oid.dotted_string} twice") from None
        except (ValueError, x509.InvalidVersion, x509.UnsupportedGeneralNameType):
            raise ValueError("is malformed") from None
    return certificate


def common_names(name: x509.Name) -> list[str]:
    """All common names in a subject or an issuer."""
    return [str(attribute.value) for attribute in name.get_attributes_for_oid(NameOID.COMMON_NAME)]


def serial_number(certificate: x509.Certificate) -> int:
    """The serial number, which in some certificates is not positive, although RFC 5280 asks for that."""
    with _no_warnings():
        return certificate.serial_number


def serial_text(number: int) -> str:
    """A serial number in hexadecimal, two digits a byte, as openssl shows it but for the case."""
    digits = f"{abs(number):x}"
    return ("-" if number < 0 else "") + digits.zfill(len(digits) + len(digits) % 2)


@contextmanager
def _no_warnings() -> Generator[None]:
    """Keep cryptography from warning of what we judge ourselves: serial numbers and lengths of names.

    Nobody has a use for the warnings, and under -W error they would be faults of ours.
    """
    with _warning_filters, warnings.catch_warnings():  # the filters belong to the process, hence the lock
        warnings.simplefilter("ignore")
        yield
