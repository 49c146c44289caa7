"""What a user can make the server hold has a bound, and who meets it is told which."""

from __future__ import annotations

import signal
from collections.abc import Generator
from pathlib import Path

import grpc
import pytest

from jobworker.api.v1 import jobs_pb2 as pb
from jobworker.api.v1.jobs_pb2_grpc import JobServiceStub
from jobworker.core.errors import InvalidArgumentError, QuotaExceededError
from tests.integration.api.conftest import LIMIT, ended, refusal_of, start
from tests.support.server import Server, running_server

BOUNDS = {
    "--max-followers-per-user": "3",
    "--max-running-jobs-per-user": "4",
    "--max-running-jobs": "5",
    "--max-command-bytes": "1000",
    "--max-request-bytes": "4000",
}


@pytest.fixture
def bounded(tmp_path: Path) -> Generator[Server]:
    """A server with bounds that are easy to meet."""
    flags = [part for pair in BOUNDS.items() for part in pair]
    with running_server(tmp_path, "--audit-log", "off", *flags) as server:
        yield server


def test_followers_of_a_user_are_bounded(bounded: Server) -> None:
    """Streams and waits count together, over all connections; other users are not touched, and short calls go on."""
    alice, bob = bounded.client("alice"), bounded.client("bob", roles="admin")
    with (
        bounded.channel(alice) as one,
        bounded.channel(alice, ("grpc.use_local_subchannel_pool", 1)) as other,
        bounded.channel(bob) as his,
    ):
        stub, again, others = JobServiceStub(one), JobServiceStub(other), JobServiceStub(his)
        job = start(stub, "sh", "-c", "echo hello; exec sleep 600").id
        request = pb.StreamOutputRequest(job_id=job, follow=True)
        followers = [stub.StreamOutput(request, timeout=LIMIT) for _ in range(3)]
        for follower in followers:
            assert next(follower).data == b"hello\n"
        for refused in (
            refusal_of(lambda: next(again.StreamOutput(request, timeout=LIMIT))),
            refusal_of(lambda: again.WaitJob(pb.WaitJobRequest(job_id=job), timeout=LIMIT)),
        ):
            assert isinstance(refused, QuotaExceededError)
            assert str(refused) == "the limit of 3 open streams and waits per user is reached"
            assert refused.bound == 3
        assert next(others.StreamOutput(request, timeout=LIMIT)).data == b"hello\n"
        assert again.StopJob(pb.StopJobRequest(job_id=job), timeout=LIMIT).state == pb.Job.STOPPED


def test_stops_under_way_of_a_user_are_bounded(bounded: Server) -> None:
    """They are counted on their own; when one is over, the next can begin."""
    with bounded.channel(bounded.client("alice")) as channel:
        alice = JobServiceStub(channel)
        job = start(alice, "sh", "-c", "trap '' TERM; echo ready; sleep 600 & wait; sleep 600").id
        follower = alice.StreamOutput(pb.StreamOutputRequest(job_id=job, follow=True), timeout=LIMIT)
        assert next(follower).data == b"ready\n"
        stops = [alice.StopJob.future(pb.StopJobRequest(job_id=job), timeout=LIMIT) for _ in range(3)]
        while not alice.GetJob(pb.GetJobRequest(job_id=job), timeout=LIMIT).HasField("stop"):
            pass  # each answer is an event of its own; the stops are at work within a few of them
        refused = refusal_of(lambda: alice.StopJob(pb.StopJobRequest(job_id=job), timeout=LIMIT))
        assert isinstance(refused, QuotaExceededError)
        assert str(refused) == "the limit of 3 stops under way per user is reached"
        assert alice.SignalJob(pb.SignalJobRequest(job_id=job, signal=signal.SIGKILL), timeout=LIMIT)
        assert {stop.result().state for stop in stops} == {pb.Job.STOPPED}


def test_running_jobs_are_bounded(bounded: Server) -> None:
    """By user and in all; a job that has ended makes room."""
    with bounded.channel(bounded.client("alice")) as hers, bounded.channel(bounded.client("bob")) as his:
        alice, bob = JobServiceStub(hers), JobServiceStub(his)
        jobs = [start(alice, "sleep", "600").id for _ in range(4)]
        assert "the limit of 4 running jobs of alice" in str(refusal_of(lambda: start(alice, "true")))
        start(bob, "sleep", "600")
        refused = refusal_of(lambda: start(bob, "true"))
        assert isinstance(refused, QuotaExceededError)
        assert str(refused) == "the limit of 5 running jobs is reached"
        alice.StopJob(pb.StopJobRequest(job_id=jobs[0]), timeout=LIMIT)
        start(bob, "true")


def test_a_large_command_is_refused_with_the_bound(bounded: Server) -> None:
    """Arguments and environment together have a size that a message may well have."""
    with bounded.channel(bounded.client("alice")) as channel:
        refused = refusal_of(lambda: start(JobServiceStub(channel), "echo", "x" * 2000))
    assert isinstance(refused, InvalidArgumentError)
    assert "at most 1000" in str(refused)


@pytest.mark.parametrize(
    "compression, text",
    [(grpc.Compression.NoCompression, "larger than max (100014 vs. 4000)"), (grpc.Compression.Gzip, "larger than max")],
)
def test_a_large_request_is_refused(bounded: Server, compression: grpc.Compression, text: str) -> None:
    """It is refused by its size; a compressed one by the size that it would have."""
    with bounded.channel(bounded.client("alice")) as channel:
        request = pb.StartJobRequest(spec=pb.JobSpec(argv=["echo", "x" * 100_000]))
        with pytest.raises(grpc.RpcError) as refused:
            JobServiceStub(channel).StartJob(request, timeout=LIMIT, compression=compression)
    assert refused.value.code() is grpc.StatusCode.RESOURCE_EXHAUSTED
    assert text in (refused.value.details() or "")


def test_a_page_has_a_bound_and_leads_on(alice: JobServiceStub) -> None:
    """A page is cut to the largest size, and at some megabytes; its tokens lead through all jobs, each once."""
    bulky = [ended(alice, "true", "x" * 120_000, "y" * 120_000, *["z" * 100_000] * 7).id for _ in range(7)]
    small = [ended(alice, "true").id for _ in range(3)]
    pages: list[list[str]] = []
    request = pb.ListJobsRequest(page_size=1_000_000)
    while True:
        response = alice.ListJobs(request, timeout=LIMIT)
        assert response.ByteSize() < 4 * 1024**2
        pages.append([job.id for job in response.jobs])
        request.page_token = response.next_page_token
        if not request.page_token:
            break
    assert [job for page in pages for job in page] == [*reversed(small), *reversed(bulky)]
    assert len(pages) == 3  # three bulky ones fit into the first page, beside the small ones
    assert [job.id for job in alice.ListJobs(pb.ListJobsRequest(page_size=2), timeout=LIMIT).jobs] == pages[0][:2]
