"""What jobs use, as the command line tells it, and what it says of limits."""

from __future__ import annotations

import json
from dataclasses import fields

import pytest

from jobworker.core.usage import Usage
from tests.support.program import Program, program_of
from tests.support.server import Server

USAGE_FIELDS = {field.name for field in fields(Usage)}


@pytest.fixture
def carol(server: Server) -> Program:
    """A user who has no other jobs than a test's."""
    return program_of(server, "carol")


def test_stats_of_a_job_that_runs(alice: Program) -> None:
    """One look: lines for people, an object on a line for programs."""
    job_id = alice.start("sleep", "600")
    (line,) = alice("stats", job_id, "--output", "json").text.splitlines()
    shown = json.loads(line)
    assert (shown["id"], shown["state"], shown["paused"]) == (job_id, "RUNNING", False)
    assert set(shown["usage"]) == USAGE_FIELDS
    assert shown["usage"]["wall_seconds"] > 0
    assert [line.split()[:2] for line in alice("stats", job_id).text.splitlines()[:2]] == [
        ["state", "RUNNING"],
        ["wall", "time"],
    ]
    assert alice("status", job_id, "--output", "json").json["usage"].keys() == USAGE_FIELDS


def test_stats_follow_a_job_to_its_end(alice: Program) -> None:
    """A line at once, and one at the end, however long it is until the next look would be."""
    watched = alice.start("sleep", "600")
    with alice.begin("stats", watched, "--follow", "--interval", "1h", "--output", "json") as stats:
        assert json.loads(stats.line())["state"] == "RUNNING"
        alice("stop", watched, "--grace", "0")
        ended = stats.end()
    assert (ended.code, ended.stderr) == (0, "")
    assert json.loads(ended.text)["state"] == "STOPPED"


def test_stats_for_people_have_a_header_once(alice: Program) -> None:
    """Then a line a look."""
    job_id = alice.start("sleep", "600")
    with alice.begin("stats", job_id, "--follow", "--interval", "100ms") as stats:
        header, *rows = (stats.line() for _ in range(4))
        alice("stop", job_id, "--grace", "0")
        assert stats.end().code == 0
    assert header.split()[:2] == ["TIME", "CPU"]
    assert not [row for row in rows if row.startswith("TIME")]


@pytest.mark.parametrize("command", [("stats", "--follow", "any"), ("top",)])
def test_a_look_is_taken_ten_times_a_second_at_most(alice: Program, command: tuple[str, ...]) -> None:
    """Each costs the server a few reads for every job: a shorter interval is refused before it is asked."""
    refused = alice(*command, "--interval", "99ms", code=2)
    assert refused.complaint.startswith("Invalid value for '--interval': '99ms' is less than 0.1s")


def test_top_shows_the_running_jobs_once_where_no_terminal_is(carol: Program) -> None:
    """A table on stdout; that there is nothing to show goes to stderr."""
    nothing = carol("top")
    assert (nothing.stdout, nothing.complaint) == (b"", "no job is running")
    assert carol("top", "--output", "json").stdout == b""
    older, newer = carol.start("sleep", "601"), carol.start("sleep", "602")
    header, *rows = carol("top", "--sort", "age").text.splitlines()
    assert header.split()[:3] == ["ID", "OWNER", "CPU"]
    assert [(row.split()[0], row.split()[-1]) for row in rows] == [(older, "601"), (newer, "602")]
    shown = [json.loads(line) for line in carol("top", "--output", "json").text.splitlines()]
    assert {one["id"] for one in shown} == {older, newer}
    assert all(set(one["usage"]) == USAGE_FIELDS for one in shown)
    assert {(one["owner"], one["name"]) for one in shown} == {("carol", None)}


def test_a_paused_job_stands_still_until_it_is_resumed(alice: Program) -> None:
    """It is shown as paused, can be stopped, and both commands say on stderr what they did."""
    if alice("info", "--output", "json").json["process_tracking"] != "cgroup":
        pytest.skip("without cgroup v2 there is nothing that could be paused")
    job_id = alice.start("sleep", "600")
    assert alice("pause", job_id).complaint.startswith(f"job {job_id} is paused; ")
    assert "RUNNING (paused)" in alice("status", job_id).text
    assert "RUNNING (paused)" in alice("stats", job_id).text
    assert alice("status", job_id, "--output", "json").json["paused"]
    assert alice("resume", job_id).complaint == f"job {job_id} goes on"
    assert not alice("status", job_id, "--output", "json").json["paused"]
    assert alice("pause", job_id, "--output", "json").json["paused"]
    assert not alice("resume", job_id, "--output", "json").json["paused"]
    alice("pause", job_id)
    assert alice("stop", job_id, "--output", "json").json["state"] == "STOPPED"
    assert "already stopped" in alice("pause", job_id, code=1).complaint


def test_a_limit_above_what_can_be_enforced_is_one_line(alice: Program) -> None:
    """The command fails with its code for that, and nothing is printed on stdout."""
    missing = alice("info", "--output", "json").json["missing_limits"]
    if "memory" not in missing:
        pytest.skip("this machine can enforce limits of memory")
    for command, code in (("start", 1), ("run", 125)):
        refused = alice(command, "--memory", "64M", "--", "true", code=code)
        assert refused.stdout == b""
        assert refused.complaint.startswith(
            f"this server cannot enforce --memory ({missing['memory']}): go without it;"
        )
    refused = alice("start", "--memory-high", "64M", "--pids", "5", "--io-read", "1M", "true", code=1).complaint
    for flag in ("--memory-high", "--pids", "--io-read"):
        assert f"{flag} (" in refused or f"{flag}," in refused, refused
    assert refused.endswith("): go without them; `jobworker info` shows what it can")
    job_id = alice.start("sleep", "600")
    assert alice("update", job_id, "--memory", "64M", code=1).complaint.startswith(
        "this server cannot enforce --memory ("
    )
