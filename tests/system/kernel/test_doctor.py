"""`jobworker doctor` finds nothing to do where there is every controller, and agrees with the server about it."""

from __future__ import annotations

from pathlib import Path

from tests.support.kernel import all_groups
from tests.support.program import Program
from tests.support.server import base_environ, serve_starts, words_of


def test_all_is_well_where_every_limit_can_be_enforced(state_dir: Path) -> None:
    """Every row is ok, no group stays behind, and a server that requires limits starts with the same settings."""
    jobworker, pki = Program(environ=base_environ()), state_dir.parent / "pki"
    jobworker("pki", "init", "--dir", pki, "--host", "localhost")
    jobworker("pki", "issue", "ada", "--role", "user", "--dir", pki)
    settings = {
        "cgroups": "require",
        "listen": "127.0.0.1:0",
        "state-dir": state_dir,
        "server-cert": pki / "server.crt",
        "server-key": pki / "server.key",
        "client-ca": pki / "ca.crt",
    }
    before = set(all_groups())
    finished = jobworker("doctor", *words_of(settings), "--client-cert", pki / "ada.crt", "--output", "json")
    assert {row["name"]: row for row in finished.json if row["status"] != "ok"} == {}
    assert finished.complaint == "`jobworker serve` would start"
    assert set(all_groups()) <= before
    assert serve_starts(settings)
