"""Output over the wire: from any offset, to the very end, and gone when its follower is."""

from __future__ import annotations

import hashlib
import signal
from collections.abc import Iterator
from pathlib import Path
from typing import Protocol

import pytest

from jobworker.api.v1 import jobs_pb2 as pb
from jobworker.api.v1.jobs_pb2_grpc import JobServiceStub
from tests.integration.api.conftest import LIMIT, AuditPipe, ended, start
from tests.support.server import running_server

MEBIBYTE = 1024 * 1024


class Messages(Iterator[pb.StreamOutputResponse], Protocol):
    """The messages of an open stream; grpc has no public name for their type."""

    def cancel(self) -> bool:
        """Leave."""
        ...


def stream(stub: JobServiceStub, job_id: str, offset: int = 0, *, follow: bool = True) -> Messages:
    """The messages of a stream."""
    return stub.StreamOutput(pb.StreamOutputRequest(job_id=job_id, offset=offset, follow=follow), timeout=LIMIT)


def joined(messages: Iterator[pb.StreamOutputResponse], offset: int = 0) -> tuple[bytes, pb.Job]:
    """The bytes of a stream and the job at its end; every message must be where the one before ended."""
    data = b""
    for message in messages:
        assert message.offset == offset + len(data)
        assert len(message.data) <= MEBIBYTE
        if message.HasField("job"):
            assert not message.data
            assert next(messages, None) is None, "nothing follows the last message"
            return data, message.job
        assert message.data
        assert message.stream == pb.StreamOutputResponse.COMBINED
        data += message.data
    raise AssertionError("the stream ended without its last message")


def test_a_late_and_a_live_follower_get_the_same_bytes(alice: JobServiceStub) -> None:
    """Megabytes of random bytes have the same digest while they come and afterwards."""
    job = start(alice, "head", "-c", "20000000", "/dev/urandom")
    live, at_end = joined(stream(alice, job.id))
    late, later = joined(stream(alice, job.id))
    assert at_end == later
    assert at_end.end.cause == pb.JobEnd.EXITED
    assert at_end.output_bytes == len(live) == 20_000_000
    assert hashlib.sha256(live).digest() == hashlib.sha256(late).digest()


@pytest.mark.parametrize("offset", [0, 1, 5, 6])
@pytest.mark.parametrize("follow", [True, False])
def test_a_stream_begins_at_any_offset(alice: JobServiceStub, offset: int, *, follow: bool) -> None:
    """From each offset up to the end, the rest comes, and the last message has the final offset."""
    job = ended(alice, "printf", "a\\0b\\n\\377\\n").id
    messages = list(stream(alice, job, offset, follow=follow))
    assert b"".join(message.data for message in messages) == b"a\0b\n\xff\n"[offset:]
    assert messages[-1].offset == 6
    assert messages[-1].job.state == pb.Job.FINISHED


def test_without_following_a_stream_ends_at_what_there_is(alice: JobServiceStub) -> None:
    """The job runs on, and the last message says so."""
    job = start(alice, "sh", "-c", "echo hello; exec sleep 600").id
    assert next(stream(alice, job)).data == b"hello\n"  # it is there from here on
    data, at_end = joined(stream(alice, job, follow=False))
    assert (data, at_end.state) == (b"hello\n", pb.Job.RUNNING)


def test_a_follow_ends_with_a_stop(alice: JobServiceStub) -> None:
    """The last message tells of the stop and who asked for it."""
    job = start(alice, "sh", "-c", "echo hello; exec sleep 600").id
    messages = stream(alice, job)
    assert next(messages).data == b"hello\n"
    alice.StopJob(pb.StopJobRequest(job_id=job), timeout=LIMIT)
    _, at_end = joined(messages, offset=6)
    assert (at_end.end.cause, at_end.stop.requested_by) == (pb.JobEnd.STOPPED, "alice")


def test_150_followers_of_one_job_are_each_complete(alice: JobServiceStub) -> None:
    """As many streams as the older service could not have, over one connection, each with every byte."""
    job = start(alice, "sh", "-c", "trap 'exec seq 200' USR1; echo ready; sleep 600 & wait").id
    followers = [stream(alice, job) for _ in range(150)]
    assert {next(follower).data for follower in followers} == {b"ready\n"}
    alice.SignalJob(pb.SignalJobRequest(job_id=job, signal=signal.SIGUSR1), timeout=LIMIT)
    lines = b"".join(b"%d\n" % number for number in range(1, 201))
    assert {joined(follower, offset=6)[0] for follower in followers} == {lines}


def test_a_client_that_leaves_is_noticed(tmp_path: Path) -> None:
    """Leaving a stream or a wait ends the call on the server, gives its place back, and leaves the job alone."""
    with AuditPipe(tmp_path) as audit:
        flags = ("--audit-log", str(audit.path), "--max-followers-per-user", "1")
        with running_server(tmp_path, *flags) as server, server.channel(server.client("alice")) as channel:
            stub = JobServiceStub(channel)
            job = start(stub, "sh", "-c", "echo hello; exec sleep 600").id
            for leave in range(3):
                follower = stream(stub, job)
                assert next(follower).data == b"hello\n"
                follower.cancel()
                assert audit.next_of("StreamOutput")["code"] == "CANCELLED", leave
                waiter = stub.WaitJob.future(pb.WaitJobRequest(job_id=job), timeout=LIMIT)
                # What came after it on the same connection has been answered: the wait is at work.
                assert stub.GetJob(pb.GetJobRequest(job_id=job), timeout=LIMIT).state == pb.Job.RUNNING
                waiter.cancel()
                assert audit.next_of("WaitJob")["code"] == "CANCELLED", leave
            assert stub.GetJob(pb.GetJobRequest(job_id=job), timeout=LIMIT).state == pb.Job.RUNNING


def test_a_slow_follower_holds_up_nobody(alice: JobServiceStub) -> None:
    """A follower that does not read costs neither the job nor another follower anything, and loses nothing."""
    job = start(alice, "head", "-c", "50000000", "/dev/zero").id
    slow = stream(alice, job)
    first = next(slow)
    fast, at_end = joined(stream(alice, job))
    assert (len(fast), at_end.end.exit_code) == (50_000_000, 0)
    rest, _ = joined(slow, offset=len(first.data))
    assert len(first.data) + len(rest) == 50_000_000
