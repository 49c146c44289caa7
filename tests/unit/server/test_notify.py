"""What the service manager is told."""

from __future__ import annotations

import secrets
import socket
from pathlib import Path

import pytest

from jobworker.server.notify import notify


@pytest.mark.parametrize("abstract", [True, False])
def test_the_state_arrives_where_the_manager_listens(tmp_path: Path, *, abstract: bool) -> None:
    """Both forms of address are understood: a path, and @ for a name that is in no directory."""
    name = f"jobworker-test-{secrets.token_hex(8)}"
    path = str(tmp_path / "notify")
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as manager:
        manager.bind(f"\0{name}" if abstract else path)
        notify("READY=1", {"NOTIFY_SOCKET": f"@{name}" if abstract else path})
        assert manager.recv(100) == b"READY=1"


def test_without_a_manager_nothing_is_told() -> None:
    """A server that was started by hand tells nobody."""
    notify("READY=1", {})
