"""Whether the files that a client is given are what they should be, and belong together."""

from __future__ import annotations

from cryptography import x509
from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives.serialization import load_pem_private_key

from jobworker.client.credentials import PemFile


def misfit(*, ca: PemFile | None, cert: PemFile | None, key: PemFile | None) -> str | None:
    """What is wrong with those that are given, and what to do about it."""
    for file in (ca, cert):
        if file is not None and not _holds_certificates(file):
            return f"{file.name} holds no certificate in PEM form: name a file that begins with -----BEGIN CERTIFICATE"
    if key is None:
        return None
    try:
        public = load_pem_private_key(key.content, password=None).public_key()
    except TypeError:
        return f"{key.name} is encrypted, and there is nobody to ask for its password: name one that is not"
    except (ValueError, UnsupportedAlgorithm):
        made_with = f"made with {cert.name}" if cert else "of your certificate"
        return f"{key.name} holds no private key in PEM form: name the one {made_with}"
    if cert is not None and public != first_certificate(cert).public_key():
        return f"{key.name} does not belong to {cert.name}: name the two that were made together"
    return None


def first_certificate(file: PemFile) -> x509.Certificate:
    """The certificate that the others in the file, if any, are to vouch for."""
    return x509.load_pem_x509_certificates(file.content)[0]


def _holds_certificates(file: PemFile) -> bool:
    try:
        first_certificate(file)
    except ValueError:
        return False
    return True
