"""Jobs as they are shown."""

from __future__ import annotations

import json
from dataclasses import replace
from datetime import timedelta

import pytest

from jobworker.cli import text
from jobworker.cli.listing import JsonArray, Table
from jobworker.cli.view import ending, explanation, job_json, limits_text, print_job
from jobworker.core.job import Job, JobEnd, StopRequest
from jobworker.core.limits import IoLimit, Limits
from jobworker.core.output import OutputLimit, OutputMode, OverflowPolicy
from jobworker.core.spec import JobSpec
from jobworker.core.state import Cause
from jobworker.core.usage import Usage
from tests.support.jobs import NOON, accepted_job, ended, started

ID = "00000000-0000-4000-8000-000000000000"
SPEC = JobSpec(argv=("sleep", "1"), time_limit=timedelta(minutes=5))


def job(cause: Cause, *, code: int | None = None, signal: int | None = None, dropped: int = 0) -> Job:
    """A job with this end, which ada asked to stop if it was stopped."""
    stop = StopRequest(requested_by="ada", request_time=NOON) if cause is Cause.STOPPED else None
    end = JobEnd(cause=cause, end_time=NOON, exit_code=code, signal=signal, output_dropped_bytes=dropped)
    return replace(started(accepted_job(job_id=ID, spec=SPEC)), stop=stop, end=end)


def with_oom_kills(shown: Job, count: int) -> Job:
    """The job, some of whose processes were killed for want of memory."""
    assert shown.end is not None
    return replace(shown, end=replace(shown.end, usage=Usage(wall_seconds=1, oom_kills=count)))


@pytest.mark.parametrize(
    "shown, short, sentence",
    [
        (job(Cause.EXITED, code=3), "exit 3", None),
        (job(Cause.EXITED, code=0, dropped=7), "exit 0", "exited with 0; 7 B of output could not be kept"),
        (job(Cause.SIGNALED, signal=9), "signal SIGKILL", "was ended by signal SIGKILL"),
        (job(Cause.STOPPED, signal=15), "stopped by ada", "was stopped by ada"),
        (job(Cause.TIMED_OUT, signal=15), "time limit of 5m", "reached its time limit of 5m and was ended"),
        (job(Cause.OOM_KILLED, signal=9), "out of memory", "ran out of memory and was killed"),
        (
            replace(job(Cause.OOM_KILLED, signal=9), limits=Limits(memory=64 * 1024**2)),
            "out of memory",
            "ran out of memory (its limit is 64MiB) and was killed",
        ),
        (
            with_oom_kills(job(Cause.EXITED, code=3), 2),
            "exit 3",
            "exited with 3; 2 of its processes were killed, out of memory",
        ),
        (with_oom_kills(job(Cause.EXITED, code=3), 0), "exit 3", None),
        (job(Cause.OUTPUT_LIMIT, signal=9), "output limit", "reached its output limit and was ended"),
        (
            replace(job(Cause.OUTPUT_LIMIT, signal=15, dropped=7), output_limit=OutputLimit(size=64 * 1024)),
            "output limit of 64KiB",
            "reached its output limit of 64KiB and was ended; 7 B of output could not be kept",
        ),
        (
            job(Cause.LOST),
            "end not recorded",
            "is lost: its supervisor or its machine died before an end was recorded",
        ),
    ],
)
def test_ends(shown: Job, short: str, sentence: str | None) -> None:
    """Every cause is told in a few words, and in a sentence where the exit code does not tell it."""
    assert ending(shown) == short
    assert explanation(shown) == (None if sentence is None else f"job {ID} {sentence}")


def test_a_job_that_runs() -> None:
    """A job that runs has no end to tell, but a stop that is under way is told."""
    running = started(accepted_job())
    assert (ending(running), explanation(running)) == ("", None)
    assert ending(replace(running, paused=True)) == "paused"
    stop = StopRequest(requested_by="ada", request_time=NOON)
    assert ending(replace(running, paused=True, stop=stop)) == "being stopped"
    assert ending(replace(running, stop=stop, unkillable_pids=(7, 8))) == "cannot be killed"


def test_limits_and_usage_are_shown(capsys: pytest.CaptureFixture[str]) -> None:
    """The lines of a job have its limits and what it has used; what is not known has no line."""
    limits = Limits(cpus=1.5, memory=2 * 10**9, io=(IoLimit(write_bytes_per_second=10**7),))
    usage = Usage(wall_seconds=9, cpu_seconds=61.5, user_seconds=60.25, system_seconds=1.25, pids=3, pids_peak=5)
    print_job(replace(started(accepted_job(job_id=ID, spec=SPEC)), limits=limits), "text", usage)
    lines = capsys.readouterr().out.splitlines()
    assert "time limit  5m" in lines
    assert "limits      cpus 1.5, memory 2GB, io-write 10MB/s" in lines
    assert "cpu         1m 2s (user 1m 0s, system 1.25s)" in lines
    assert "processes   3 now, 5 at most" in lines
    assert not [line for line in lines if line.startswith(("memory", "disk", "oom"))]


def test_an_ended_job_has_its_own_usage(capsys: pytest.CaptureFixture[str]) -> None:
    """Programs get it under its promised names, and null for what is not known."""
    shown = with_oom_kills(job(Cause.EXITED, code=0), 1)
    print_job(shown, "json")
    printed = json.loads(capsys.readouterr().out)
    assert (printed["usage"]["oom_kills"], printed["usage"]["cpu_seconds"]) == (1, None)
    assert printed["limits"] == {**dict.fromkeys(printed["limits"]), "io": []}


def test_json_of_a_job_that_runs() -> None:
    """What is not known yet is null; the output so far is counted."""
    shown = job_json(replace(started(accepted_job()), output_bytes=5))
    unknown = ("cause", "exit_code", "signal", "signal_name", "end_time", "stopped_by", "stop_time")
    assert {shown[name] for name in unknown} == {None}
    assert (shown["state"], shown["output_bytes"], shown["output_dropped_bytes"]) == ("RUNNING", 5, 0)


def test_json_array(capsys: pytest.CaptureFixture[str]) -> None:
    """Any number of jobs is one JSON array with a job a line; it is closed at the end only."""
    for count in range(3):
        array = JsonArray()
        for _ in range(count):
            array.add(ended(accepted_job(job_id=ID)))
        unfinished = capsys.readouterr().out
        array.end()
        whole = unfinished + capsys.readouterr().out
        assert [one["id"] for one in json.loads(whole)] == [ID] * count
        assert not unfinished.endswith("]")


def test_wide_table(capsys: pytest.CaptureFixture[str]) -> None:
    """On a terminal the command is cut to what fits; elsewhere it is whole."""
    long = ended(accepted_job(job_id=ID, spec=JobSpec(argv=("echo", "x" * 500))))
    for columns, end in ((120, "x…"), (None, "x" * 500)):
        table = Table(now=NOON + timedelta(hours=2), columns=columns)
        table.add(long)
        table.end()
        _header, row = capsys.readouterr().out.splitlines()
        assert "1h 59m ago" in row
        assert row.endswith(end)
        assert columns is None or len(row) == columns


@pytest.mark.parametrize(
    "columns, header",
    [
        (40, "ID STATE COMMAND"),
        (80, "ID STATE END NAME STARTED COMMAND"),
        (100, "ID STATE END NAME STARTED OWNER COMMAND"),
        (200, "ID STATE END NAME STARTED OWNER COMMAND"),
    ],
)
def test_a_table_fits_the_terminal(capsys: pytest.CaptureFixture[str], columns: int, header: str) -> None:
    """No line is wrapped: ids and names are cut, then what matters least is left out; a cut id is still an id."""
    table = Table(now=NOON + timedelta(hours=2), columns=columns)
    for number in range(101):  # the last one comes when the widths are settled, and is wider
        spec = JobSpec(argv=("echo", "x" * 500), name="\u4e16" * (1 + number // 2))
        table.add(replace(ended(accepted_job(job_id=ID, owner="somebody", spec=spec)), stop=None))
    table.end()
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].split() == header.split()
    assert all(text.width(line) <= columns for line in lines)
    assert {line.split()[0] for line in lines[1:]} == {ID if columns == 200 else ID[:8]}


def test_long_table(capsys: pytest.CaptureFixture[str]) -> None:
    """A long list is printed as it comes, with columns that stay where they are."""
    table = Table(now=NOON, columns=None)
    for _ in range(100):
        table.add(ended(accepted_job(job_id=ID)))
    assert len(capsys.readouterr().out.splitlines()) == 101
    table.add(ended(accepted_job(job_id=ID)))
    (row,) = capsys.readouterr().out.splitlines()
    assert row.startswith(f"{ID}  FINISHED  exit 0  -")
    table.end()
    assert capsys.readouterr().out == ""


def test_limits_that_are_not_in_force_say_so() -> None:
    """Defaults of a server that cannot enforce them are no promise."""
    limits = Limits(cpus=1.5, memory_high=2 * 1024**3, io=(IoLimit(read_bytes_per_second=10**7),))
    shown = limits_text(limits, {"memory_high": "no memory controller", "io": "no io controller"})
    assert shown == "cpus 1.5, memory-high 2GiB (not enforced), io-read 10MB/s (not enforced)"


def shown_output(shown: Job, capsys: pytest.CaptureFixture[str]) -> str:
    """The line about output that people see."""
    print_job(shown, "text")
    (line,) = [line for line in capsys.readouterr().out.splitlines() if line.startswith("output")]
    return line.removeprefix("output").strip()


def test_what_is_kept_of_an_output(capsys: pytest.CaptureFixture[str]) -> None:
    """How much there is, what is missing of it, and the limit; of a job that runs and of one that has ended."""
    limit = OutputLimit(size=64 * 1024, policy=OverflowPolicy.KEEP_LAST)
    running = replace(
        started(accepted_job(spec=JobSpec(argv=("yes",), output=OutputMode.SPLIT))),
        output_bytes=200 * 1024,
        output_first_offset=100 * 1024,
        output_limit=limit,
    )
    assert shown_output(running, capsys) == (
        "200.0 KiB in two streams, the first 100.0 KiB of which made room for the rest (limit 64KiB, keep-last)"
    )
    end = JobEnd(cause=Cause.EXITED, end_time=NOON, output_bytes=2048, output_first_offset=1024, output_dropped_bytes=5)
    over = replace(running, spec=SPEC, end=end, output_limit=OutputLimit())
    assert shown_output(over, capsys) == (
        "2.0 KiB, the first 1.0 KiB of which made room for the rest, 5 B of which could not be kept"
    )
    fields = ("output_bytes", "output_first_offset", "output_dropped_bytes", "output_mode")
    assert [job_json(running)[name] for name in fields] == [200 * 1024, 100 * 1024, 0, "SPLIT"]
    assert [job_json(over)[name] for name in fields] == [2048, 1024, 5, "COMBINED"]
    assert [job_json(running)[name] for name in ("output_limit_bytes", "output_policy")] == [64 * 1024, "KEEP_LAST"]
    assert [job_json(over)[name] for name in ("output_limit_bytes", "output_policy")] == [None, None]
