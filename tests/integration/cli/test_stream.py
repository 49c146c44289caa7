"""`stream` writes the job's bytes, from any offset, and nothing else."""

from __future__ import annotations

import os
import subprocess
from hashlib import sha256
from random import Random

import pytest

from tests.support.program import JOBWORKER, LIMIT, Program

SLEEPER = "printf abcdef; exec sleep 60"


@pytest.fixture(scope="module")
def sleeper(alice: Program) -> str:
    """A job that has written "abcdef" and runs on."""
    job_id = alice.start("sh", "-c", SLEEPER)
    with alice.begin("stream", job_id) as stream:
        assert stream.read(6) == b"abcdef"
    return job_id


def test_large_binary_output(alice: Program) -> None:
    """Megabytes of random bytes arrive as they were written, late as well as live."""
    write = "import random, sys; sys.stdout.buffer.write(random.Random(4).randbytes(20_000_000))"
    live = alice("run", "--", "sh", "-c", f"echo $JOBWORKER_JOB_ID; python3 -c '{write}'; exit 5", code=5)
    first, _, rest = live.stdout.partition(b"\n")
    late = alice("stream", first.decode())
    expected = sha256(Random(4).randbytes(20_000_000)).digest()  # noqa: S311 - it has to be the same again
    assert sha256(rest).digest() == expected
    assert sha256(late.stdout.removeprefix(first + b"\n")).digest() == expected


@pytest.mark.parametrize("offset, rest", [(0, b"abcdef"), (1, b"bcdef"), (5, b"f"), (6, b"")])
def test_offset(alice: Program, sleeper: str, offset: int, rest: bytes) -> None:
    """From an offset on it is exactly the rest; at the end it is nothing."""
    assert alice("stream", sleeper, "--offset", str(offset), "--no-follow").stdout == rest


def test_past_the_end(alice: Program, sleeper: str) -> None:
    """An offset past the end is an error that states what is valid."""
    done = alice("stream", sleeper, "--offset", "7", code=1)
    assert done.complaint == f"no output of job {sleeper} at offset 7: valid offsets are 0 to 6"


def test_not_found(alice: Program) -> None:
    """A job that does not exist is an error of one line, and stdout is empty."""
    done = alice("stream", "no-such-job", code=1)
    assert (done.complaint, done.stdout) == ("no job 'no-such-job'", b"")


def test_a_failed_job_streams_well(alice: Program) -> None:
    """The exit code says whether the stream is whole, not what became of the job."""
    job_id = alice.start("sh", "-c", "echo out; exit 3")
    assert alice("stream", job_id).text == "out\n"


def test_head(alice: Program) -> None:
    """A reader that has enough ends it quietly, with the code of a program that SIGPIPE ends."""
    job_id = alice.start("seq", "100000000")
    stream = subprocess.Popen(
        [JOBWORKER, "stream", job_id], env=alice.environ, stdout=subprocess.PIPE, stderr=subprocess.PIPE
    )
    head = subprocess.run(["head", "-n", "2"], stdin=stream.stdout, capture_output=True, timeout=LIMIT, check=True)
    assert stream.stdout is not None
    stream.stdout.close()
    assert head.stdout == b"1\n2\n"
    assert stream.communicate()[1] == b""
    assert stream.returncode == 141
    alice("stop", job_id, "--grace", "0")


@pytest.mark.parametrize("words", [["list", "--output", "json"], ["info"], ["stream", "--help"]])
def test_nobody_reads(alice: Program, words: list[str]) -> None:
    """Every command ends quietly when its reader is gone."""
    reader, writer = os.pipe()
    os.close(reader)
    with alice.begin(*words, stdout=writer) as command:
        os.close(writer)
        done = command.end()
    assert (done.code, done.stderr) == (141, "")


@pytest.mark.parametrize("words", [["stream", "ID"], ["list"]])
def test_closed_stdout(alice: Program, words: list[str]) -> None:
    """A program that is started without a standard output says so, rather than write into a connection."""
    command = ["sh", "-c", 'exec "$@" >&-', "sh", JOBWORKER, *words]
    done = subprocess.run(command, env=alice.environ, stderr=subprocess.PIPE, timeout=LIMIT, check=False)
    assert done.returncode == 125
    assert done.stderr.startswith(b"jobworker: standard output is closed")
