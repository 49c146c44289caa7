"""A job may be named by the beginning of its id, as far as that tells it from the others."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from tests.support.program import Program, program_of
from tests.support.server import Server, running_server


def test_every_command_takes_the_beginning_of_an_id(alice: Program) -> None:
    """Whatever takes an id finds the job by a part of it, and says the whole id."""
    job_id = alice.start("sh", "-c", "echo hello; exec sleep 60")
    begin = job_id[:8]
    assert alice("status", begin, "--output", "json").json["id"] == job_id
    assert alice("stats", begin, "--output", "json").json["id"] == job_id
    assert f"job {job_id} is paused" in alice("pause", begin).complaint
    assert alice("resume", begin).complaint == f"job {job_id} goes on"
    alice("signal", begin, "CONT")
    assert alice("stop", "-j", begin).complaint == f"job {job_id} is stopped"
    alice("wait", begin, code=143)
    assert alice("stream", begin).text == "hello\n"
    assert alice("stream", begin, job_id[:13]).text == f"{begin} | hello\n"
    alice("remove", begin)
    alice("status", job_id, code=1)


def test_one_that_nobody_has(alice: Program) -> None:
    """It is refused as a whole id that nobody has; one that is too short to look for is a wrong command line."""
    assert alice("status", "no-such-job", code=1).complaint == "no job 'no-such-job'"
    assert alice("status", "0123-", code=1).complaint == "no job '0123-'"
    assert "at least 4 characters of the id" in alice("status", "abc", code=2).complaint
    assert "at least 4 characters of the id" in alice("wait", "abc", code=125).complaint


def test_somebody_elses_job_is_not_found(server: Server, alice: Program) -> None:
    """The beginning of another user's id is one that nobody has."""
    job_id = alice.start("true")
    mallory = program_of(server, "mallory")
    for verb in ("status", "stop", "stream", "remove"):
        assert mallory(verb, job_id[:8], code=1).complaint == f"no job '{job_id[:8]}'"


@pytest.fixture
def twins(tmp_path: Path) -> tuple[Path, list[str]]:
    """The folder of a server that has two ended jobs whose ids begin alike, and these ids."""
    with running_server(tmp_path) as server:
        alice = program_of(server, "alice")
        job_id = alice.start("true")
        alice("wait", job_id)
    socket = shutil.ignore_patterns("control")  # which has gone with its supervisor
    twin = job_id[:-1] + ("0" if job_id[-1] != "0" else "1")
    copy = shutil.copytree(server.state_dir / "jobs" / job_id, server.state_dir / "jobs" / twin, ignore=socket)
    (copy / "records").write_bytes((copy / "records").read_bytes().replace(job_id.encode(), twin.encode()))
    return tmp_path, sorted([job_id, twin])


def test_several_that_begin_so(twins: tuple[Path, list[str]]) -> None:
    """Nothing is done to any of them, and they are named; one by its whole id is found."""
    directory, ids = twins
    with running_server(directory) as server:
        alice = program_of(server, "alice")
        complaint = alice("remove", ids[0][:8], code=1).complaint
        assert complaint.startswith(f"several jobs have an id that begins with {ids[0][:8]}: ")
        assert all(f"{job_id} (true)" in complaint for job_id in ids)
        assert sorted(job["id"] for job in alice("list", "--output", "json").json) == ids
        alice("status", ids[0])
