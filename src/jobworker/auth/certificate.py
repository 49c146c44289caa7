"""What a certificate says, read without a word on stderr."""

from __future__ import annotations

import threading
import warnings

from cryptography import x509
from cryptography.x509.oid import NameOID

_warning_filters = threading.Lock()


def load_certificate(pem: bytes) -> x509.Certificate:
    """The first certificate in `pem`, parsed to the end: its subject, issuer and extensions raise nothing later.

    Raises `ValueError` with a predicate for "the certificate ...", such as "is malformed".
    """
    # cryptography warns about serial numbers and lengths of names that we judge ourselves. Nobody has a use for the
    # warnings, and under -W error they would be faults of ours. The filters belong to the process, hence the lock.
    with _warning_filters, warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            certificate = x509.load_pem_x509_certificate(pem)
            _ = (
                certificate.subject,
                certificate.issuer,
                certificate.extensions,
            )  # each is parsed when it is first asked for
        except x509.DuplicateExtension as error:
            raise ValueError(f"has the extension {error.oid.dotted_string} twice") from None
        except (ValueError, x509.InvalidVersion, x509.UnsupportedGeneralNameType):
            raise ValueError("is malformed") from None
    return certificate


def common_names(name: x509.Name) -> list[str]:
    """All common names in a subject or an issuer."""
    return [str(attribute.value) for attribute in name.get_attributes_for_oid(NameOID.COMMON_NAME)]


def serial_text(certificate: x509.Certificate) -> str:
    """The serial number in hexadecimal, two digits a byte, as openssl shows it but for the case."""
    number = certificate.serial_number
    digits = f"{abs(number):x}"
    return ("-" if number < 0 else "") + digits.zfill(len(digits) + len(digits) % 2)
