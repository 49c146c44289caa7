"""Only TLS 1.3 counts."""

from __future__ import annotations

import pytest

from jobworker.core.errors import UnauthenticatedError
from jobworker.server.tls import check_tls_version


def test_tls_1_3_passes() -> None:
    """As gRPC spells it."""
    check_tls_version({"ssl_tls_version": [b"TLSv1.3"]})


@pytest.mark.parametrize("value", [[b"TLSv1.2"], [b"TLSv1.1"], [b"TLSv1.30"], [b"\xff"], [], None])
def test_everything_else_is_refused(value: list[bytes] | None) -> None:
    """Also what is not said, as on a connection without TLS, and what was never heard of."""
    with pytest.raises(UnauthenticatedError, match=r"^TLS 1\.3 is required, and this connection has "):
        check_tls_version({} if value is None else {"ssl_tls_version": value})
