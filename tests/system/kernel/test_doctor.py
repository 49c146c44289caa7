"""`jobworker doctor` finds nothing to do where there is every controller, and agrees with the server about it."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

from jobworker.executors.place import place_name
from tests.support.kernel import ROOT, all_groups
from tests.support.program import Program
from tests.support.server import Settings, base_environ, serve_starts, words_of


@pytest.fixture
def settings(state_dir: Path) -> Settings:
    """Of a server that requires limits."""
    jobworker, pki = Program(environ=base_environ()), state_dir.parent / "pki"
    jobworker("pki", "init", "--dir", pki, "--host", "localhost")
    jobworker("pki", "issue", "ada", "--role", "user", "--dir", pki)
    return {
        "cgroups": "require",
        "listen": "127.0.0.1:0",
        "state-dir": state_dir,
        "server-cert": pki / "server.crt",
        "server-key": pki / "server.key",
        "client-ca": pki / "ca.crt",
    }


def test_all_is_well_where_every_limit_can_be_enforced(settings: Settings) -> None:
    """Every row is ok, but for an archive that is not configured; no group stays, and such a server starts."""
    jobworker, pki = Program(environ=base_environ()), settings["client-ca"].parent
    before = set(all_groups())
    finished = jobworker("doctor", *words_of(settings), "--client-cert", pki / "ada.crt", "--output", "json")
    assert {row["name"]: row["status"] for row in finished.json if row["status"] != "ok"} == {"archive": "skipped"}
    assert finished.complaint == "`jobworker serve` would start"
    assert set(all_groups()) <= before
    assert serve_starts(settings)


def test_a_process_in_the_group_for_groups_of_jobs(settings: Settings) -> None:
    """It keeps the server from starting, and is named."""
    group = ROOT / place_name(settings["state-dir"])
    group.mkdir()
    with subprocess.Popen(["sleep", "1000"]) as process:
        (group / "cgroup.procs").write_text(str(process.pid))
        finished = Program(environ=base_environ())("doctor", *words_of(settings), "--output", "json", code=1)
        (row,) = [row for row in finished.json if row["status"] == "error"]
        assert row["name"] == "cgroup_delegation"
        assert str(process.pid) in row["detail"]
        assert not serve_starts(settings)
        process.kill()
    assert serve_starts(settings)
