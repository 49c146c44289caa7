"""A crash of the server in the middle costs no byte and no exit code."""

from __future__ import annotations

import signal
from contextlib import AbstractContextManager, ExitStack
from pathlib import Path

import pytest

from tests.support.program import Finished, program_of
from tests.support.server import Server, running_server

LINES = 100_000
FIRST = "".join(f"{n}\n" for n in range(LINES)).encode()
SECOND = "".join(f"{n}\n" for n in range(LINES, 2 * LINES)).encode()
# Writes the second half when it is told to; what it sleeps by ignores the signal, which goes to all of the job.
IN_TWO_HALVES = f"""
trap 'seq {LINES} {2 * LINES - 1}; exit 7' USR1
seq 0 {LINES - 1}
while :; do (trap '' USR1; exec sleep 0.05); done
"""


def test_stream_carries_on(tmp_path: Path) -> None:
    """A kill -9 of the daemon in the middle of a stream: the output is exact, and the exit code 0."""
    with ExitStack() as commands:
        with running_server(tmp_path, stop_jobs=False) as server:
            alice = program_of(server, "alice")
            job_id = alice.start("sh", "-c", IN_TWO_HALVES)
            stream = commands.enter_context(alice.begin("stream", job_id))
            assert stream.read(len(FIRST)) == FIRST
            server.end(signal.SIGKILL)
        with again(server):
            alice("signal", job_id, "USR1")
            check(stream.end(), code=0)
            alice("wait", job_id, code=7)


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM])
def test_run_carries_on(tmp_path: Path, number: signal.Signals) -> None:
    """A crash or an orderly end of the daemon while a command runs: `run` still has all output and the exit code."""
    with ExitStack() as commands:
        with running_server(tmp_path, stop_jobs=False) as server:
            alice = program_of(server, "alice")
            run = commands.enter_context(alice.begin("run", "--", "sh", "-c", IN_TWO_HALVES))
            assert run.read(len(FIRST)) == FIRST
            (job,) = alice("list", "--output", "json").json
            server.end(number)
        with again(server):
            alice("signal", job["id"], "USR1")
            check(run.end(), code=7)


def test_it_gives_up(tmp_path: Path) -> None:
    """When the server stays away, `stream` and `run` fail with 125 and say why; never 0."""
    with ExitStack() as commands:
        with running_server(tmp_path, stop_jobs=False) as server:
            alice = program_of(server, "alice")
            job_id = alice.start("sh", "-c", IN_TWO_HALVES)
            watchers = [
                commands.enter_context(alice.begin(verb, "--reconnect-timeout", "200ms", *rest))
                for verb, rest in (("stream", [job_id]), ("run", ["sh", "-c", IN_TWO_HALVES]))
            ]
            for watcher in watchers:
                assert watcher.read(len(FIRST)) == FIRST
            server.end(signal.SIGKILL)
        for watcher in watchers:
            done = watcher.end()
            assert done.code == 125
            assert done.complaint.startswith("no contact for 0.2 s: nothing listens at ")
        with again(server):  # which takes the jobs with it
            pass


def test_an_outage_is_told(tmp_path: Path) -> None:
    """One that takes seconds is told once, however many jobs are followed, and so is its end."""
    with ExitStack() as commands:
        with running_server(tmp_path, stop_jobs=False) as server:
            alice = program_of(server, "alice")
            jobs = [alice.start("sh", "-c", "echo ready; exec sleep 600") for _ in range(3)]
            stream = commands.enter_context(alice.begin("stream", *jobs))
            for _ in jobs:
                assert stream.line().endswith("ready\n")
            server.end(signal.SIGKILL)
        assert stream.complaint() == f"the connection to {server.address} is lost; trying to mend it"
        with again(server):
            assert stream.complaint() == f"the connection to {server.address} is back"
            alice("stop", *jobs, "--grace", "0")
            assert stream.end().stderr == ""


def test_certificates_that_are_renewed_meanwhile(tmp_path: Path) -> None:
    """Who waits or follows goes on with the files that are there when the server is back."""
    with ExitStack() as commands:
        with running_server(tmp_path, stop_jobs=False) as server:
            alice = program_of(server, "alice")
            job_id = alice.start("sh", "-c", IN_TWO_HALVES)
            stream = commands.enter_context(alice.begin("stream", job_id))
            assert stream.read(len(FIRST)) == FIRST
            run = commands.enter_context(alice.begin("run", "--", "sh", "-c", IN_TWO_HALVES))
            assert run.read(len(FIRST)) == FIRST
            jobs = [job["id"] for job in alice("list", "--output", "json").json]
            server.end(signal.SIGKILL)
        renewed = running_server(tmp_path, "--listen", server.address)  # by an authority that knows no older ones
        with renewed as server:
            alice = program_of(server, "alice")
            for job in jobs:
                alice("signal", job, "USR1")
            check(stream.end(), code=0)
            check(run.end(), code=7)


def check(done: Finished, *, code: int) -> None:
    """The second half is exact; if the server was away for long, a line has told so, and nothing else."""
    assert (done.code, done.stdout) == (code, SECOND)
    first, *rest = done.stderr.splitlines() or [""]
    assert not first or "is lost; trying to mend it" in first
    assert all(line.endswith(" is back") for line in rest)


def again(server: Server) -> AbstractContextManager[Server]:
    """The server again, at its address, with its state and its certificates; it takes its jobs with it at the end."""
    return running_server(server.directory, "--listen", server.address, authority=server.authority)
