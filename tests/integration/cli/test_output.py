"""Output by stream, by time, by lines and within limits, as the command line asks for it."""

from __future__ import annotations

import re
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from tests.support.program import Finished, Program, program_of
from tests.support.server import running_server

# Before each next line it waits for a signal: so the order in which they arrive is known.
NEXT = "until [ $next ]; do :; done; next="
BOTH = f"trap next=1 USR1; echo out; {NEXT}; echo err >&2; {NEXT}; printf 'out2\\nlast'"
STAMP = r"(\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{6}Z) "
LIMIT = 64 * 1024
NUMBERS = b"".join(b"%d\n" % number for number in range(1, 100_001))


def ended(alice: Program, script: str, *options: str) -> str:
    """A job that has ended."""
    job_id = alice("start", *options, "--", "sh", "-c", script).text.strip()
    alice("wait", job_id)
    return job_id


@pytest.fixture(scope="module")
def both(alice: Program) -> str:
    """A job that has written BOTH and ended, with its streams told apart."""
    job_id = alice("start", "--output-streams", "split", "--", "sh", "-c", BOTH).text.strip()
    with alice.begin("stream", job_id) as stream:
        assert stream.line() == "out\n"
        alice("signal", job_id, "USR1")
        assert stream.error_line() == "err\n"
        alice("signal", job_id, "USR1")
        assert stream.end().code == 0
    return job_id


def test_run_writes_stderr_to_stderr(alice: Program) -> None:
    """Of a job whose output is split; else both are in stdout, in order."""
    script = "printf '\\377'; echo err >&2; echo out; exit 3"
    split = alice("run", "--output-streams", "split", "--", "sh", "-c", script, code=3)
    assert (split.stdout, split.stderr) == (b"\xffout\n", "err\n")
    assert alice("run", "--", "sh", "-c", script, code=3).stdout == b"\xfferr\nout\n"


@pytest.mark.parametrize(
    "options, stdout, stderr",
    [
        ([], b"out\nout2\nlast", "err\n"),
        (["--stdout-only"], b"out\nout2\nlast", ""),
        (["--stderr-only"], b"", "err\n"),
        (["--stdout-only", "--tail", "2"], b"out2\nlast", ""),
        (["--tail", "3"], b"out2\nlast", "err\n"),
        (["--tail", "0"], b"", ""),
        (["--tail", "9", "--no-follow"], b"out\nout2\nlast", "err\n"),
        (["--since", "1h"], b"out\nout2\nlast", "err\n"),
        (["--until", "1h"], b"", ""),
        (["--since", "2999-01-01"], b"", ""),
        (["--offset", "8"], b"out2\nlast", ""),
    ],
)
def test_a_part_of_an_output(alice: Program, both: str, options: Sequence[str], stdout: bytes, stderr: str) -> None:
    """By stream, by lines before the end, by time and by offset."""
    done = alice("stream", both, *options)
    assert (done.stdout, done.stderr) == (stdout, stderr)


def test_a_part_by_the_moment(alice: Program) -> None:
    """The time that a line is shown with is the one that --since includes and --until excludes."""
    job_id = ended(alice, "for n in 1 2 3 4 5; do echo $n; sleep 0.01; done")  # further apart than what is one time
    moments = re.findall(STAMP, alice("stream", job_id, "--timestamps").text)
    assert alice("stream", job_id, "--since", moments[2]).stdout == b"3\n4\n5\n"
    assert alice("stream", job_id, "--until", moments[2]).stdout == b"1\n2\n"


def test_timestamps(alice: Program, both: str) -> None:
    """Each line of each stream begins with the time at which it arrived, and is otherwise as it was."""
    done = alice("stream", both, "-t")
    lines = re.findall(rf"{STAMP}(\w+\n?)", done.text)
    errors = re.findall(rf"{STAMP}(\w+\n?)", done.stderr)
    assert [line for _, line in lines] == ["out\n", "out2\n", "last"]
    assert [line for _, line in errors] == ["err\n"]
    times = [datetime.fromisoformat(time) for time, _ in (lines[0], errors[0], lines[1], lines[2])]
    assert times == sorted(times)
    assert len(set(times)) == 3, "two lines came as one"
    assert timedelta(0) <= datetime.now(UTC) - times[0] < timedelta(minutes=5)


def test_live_output_of_one_stream(alice: Program) -> None:
    """A follower of one stream gets it while the job runs, and ends with the job."""
    script = f"trap next=1 USR1; echo out; echo err >&2; {NEXT}; echo err2 >&2; echo out2; exec sleep 60"
    job_id = alice("start", "--output-streams", "split", "--", "sh", "-c", script).text.strip()
    with alice.begin("stream", job_id) as stream:
        assert stream.line() == "out\n"
    with alice.begin("stream", job_id, "--stdout-only", "--timestamps", "--tail", "1") as stream:
        assert re.fullmatch(rf"{STAMP}out\n", stream.line())
        alice("signal", job_id, "USR1")
        assert re.fullmatch(rf"{STAMP}out2\n", stream.line())
        alice("stop", job_id, "--grace", "0")
        assert stream.end() == Finished(code=0, stdout=b"", stderr="")


def test_streams_that_are_not_told_apart(alice: Program) -> None:
    """Nobody gets nothing for one of two streams that are one: it is refused, with what would help."""
    done = alice("stream", ended(alice, "echo"), "--stderr-only", code=1)
    assert done.complaint.endswith("are not told apart; start one with --output-streams split")


def test_tail_of_both_streams_as_one(alice: Program) -> None:
    """Lines are counted in the order of writing."""
    assert alice("stream", ended(alice, "echo a; echo b >&2; echo c"), "--tail", "2").stdout == b"b\nc\n"


def test_drop(alice: Program) -> None:
    """What comes after the limit is counted, and its place is told in one line."""
    job_id = ended(alice, "seq 100000", "--output-limit", "64KiB", "--output-policy", "drop")
    done = alice("stream", job_id)
    assert done.stdout == NUMBERS[:LIMIT]
    assert done.complaint == "511.1 KiB of output are missing at offset 65536: it came after the output limit"
    job = alice("status", job_id, "--output", "json").json
    assert (job["output_bytes"], job["output_dropped_bytes"]) == (len(NUMBERS), len(NUMBERS) - LIMIT)
    assert (job["output_limit_bytes"], job["output_policy"], job["cause"]) == (LIMIT, "DROP", "EXITED")


def test_keep_last(alice: Program) -> None:
    """The newest output is there, at its own offsets; what was before it is told, or refused if it is asked for."""
    job_id = ended(alice, "seq 100000", "--output-limit", "64KiB", "--output-policy", "keep-last")
    first = alice("status", job_id, "--output", "json").json["output_first_offset"]
    assert 0 < first <= len(NUMBERS) - LIMIT
    done = alice("stream", job_id)
    assert done.stdout == NUMBERS[first:]
    assert done.complaint.endswith("of output are missing at offset 0: the oldest made room for newer output")
    assert alice("stream", job_id, "--offset", str(first)).stdout == NUMBERS[first:]
    refused = alice("stream", job_id, "--offset", str(first - 1), code=1)
    assert refused.complaint.endswith(f"valid offsets are {first} to {len(NUMBERS)}")
    assert alice("stream", job_id, "--tail", "2").stdout == b"99999\n100000\n"


def test_stop(alice: Program) -> None:
    """A job whose output reaches its limit ends, and says why."""
    done = alice("run", "--output-limit", "64KiB", "--output-policy", "stop", "--", "yes", code=143)
    assert done.stdout == b"y\n" * (LIMIT // 2)
    assert re.search(r"^jobworker: job \S+ reached its output limit of 64KiB and was ended", done.stderr, re.MULTILINE)


def test_a_limit_that_cannot_be(alice: Program) -> None:
    """Named as it is typed, before the server is asked."""
    done = alice("start", "--output-limit", "1k", "--", "true", code=2)
    assert done.complaint == "--output-limit: must be at least 64KiB"


def test_a_limit_above_the_maximum(tmp_path: Path) -> None:
    """Named as it is typed, although the server says so."""
    with running_server(tmp_path, "--output-limit", "64KiB", "--max-output-limit", "128KiB") as server:
        done = program_of(server, "alice")("start", "--output-limit", "2M", "--", "true", code=1)
    assert done.complaint == "--output-limit: is above the maximum of 128KiB on this server"


def test_several_jobs(alice: Program, both: str) -> None:
    """Lines of both streams are whole, of each job the last ones if so asked, and gaps are told with the job's id."""
    split = alice("stream", both, both, ended(alice, "echo x", "--name", "x"), "--tail", "2")
    assert [line.partition(" | ")[2] for line in split.text.splitlines()] == ["out2", "last", "x"]
    assert alice("stream", both, "--prefix", "--tail", "0").stdout == b""
    dropped = ended(alice, "seq 100000", "--output-limit", "64KiB", "--output-policy", "drop")
    assert alice("stream", dropped, "--prefix").complaint.startswith(f"job {dropped}: 511.1 KiB of output are missing")


def test_timestamps_of_several_jobs(alice: Program, both: str) -> None:
    """Each line has its job's name before it, then the time at which it arrived, to the last part of the line."""
    other = ended(alice, "printf 'x\\ny'", "--name", "x")
    done = alice("stream", both, other, "-t")
    assert done.code == 0
    lines = [re.fullmatch(rf"(\S+) +\| {STAMP}(\w+)", line) for line in (done.text + done.stderr).splitlines()]
    assert [line and line[3] for line in lines if line and line[1] == "x"] == ["x", "y"]
    assert sorted(line[3] for line in lines if line and line[1] != "x") == ["err", "last", "out", "out2"]
    assert re.fullmatch(rf"x \| {STAMP}x\nx \| {STAMP}y\n", alice("stream", other, "--prefix", "-t").text)


def test_one_stream_of_several_jobs(alice: Program, both: str) -> None:
    """Of jobs whose streams are told apart; another is told on stderr, the others go on, and the code is 1."""
    combined = ended(alice, "echo x")
    done = alice("stream", both, combined, "--stderr-only", code=1)
    complaint, line = done.stderr.splitlines()
    assert (done.text, line.partition(" | ")[2]) == ("", "err")
    assert complaint.startswith(f"jobworker: the streams of job {combined} are not told apart")


@pytest.mark.parametrize(
    "options, complaint",
    [
        (["an-id", "--stdout-only", "--stderr-only"], "not both"),
        (["an-id", "--tail", "1", "--offset", "1"], "not both"),
        (["an-id", "--since", "1h", "--until", "2h"], "--until is before --since"),
    ],
)
def test_what_does_not_go_together(alice: Program, options: Sequence[str], complaint: str) -> None:
    """It is a wrong command line."""
    assert complaint in alice("stream", *options, code=2).stderr
