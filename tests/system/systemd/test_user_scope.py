"""A server without root, in a scope that a user's own systemd has delegated to it."""

from __future__ import annotations

import os
import pwd
import subprocess
import tempfile
from collections.abc import Generator
from pathlib import Path

import pytest

from tests.support.workers import PROJECT

pytestmark = pytest.mark.system

USER = pwd.getpwnam("nobody")


@pytest.fixture
def as_user() -> Generator[list[str]]:
    """A command that runs another as a user whose systemd is up."""
    if not Path("/run/systemd/system").is_dir():
        pytest.skip("systemd does not run here; test_vm.py runs this in a VM")
    subprocess.run(["systemctl", "start", f"user@{USER.pw_uid}.service"], check=True)
    ids = [f"--reuid={USER.pw_uid}", f"--regid={USER.pw_gid}", "--clear-groups"]
    yield ["setpriv", *ids, "env", f"XDG_RUNTIME_DIR=/run/user/{USER.pw_uid}"]
    subprocess.run(["systemctl", "stop", f"user@{USER.pw_uid}.service"], check=True)


def test_a_user_limits_jobs_in_a_delegated_scope(as_user: list[str]) -> None:
    """`systemd-run --user --scope -p Delegate=yes` is all that limits of CPU, memory and processes need."""
    with tempfile.TemporaryDirectory() as folder:
        os.chown(folder, USER.pw_uid, USER.pw_gid)
        scope = ["systemd-run", "--user", "--scope", "--quiet", "-p", "Delegate=yes"]
        # The system's Python: another may be below a home that only its owner can enter.
        worker = ["/usr/bin/python3", "-m", "tests.support.unprivileged", f"{folder}/state"]
        result = subprocess.run(
            [*as_user, *scope, *worker],
            cwd=PROJECT,
            env={**os.environ, "PYTHONPATH": str(PROJECT / "src")},
            capture_output=True,
            text=True,
            check=False,
        )
    assert result.stdout == "all is well\n", result.stderr
