"""What a job wants of its output, and what a reader wants of it, over the wire."""

from __future__ import annotations

from collections.abc import Generator
from pathlib import Path

import grpc
import pytest

from jobworker.api.v1 import jobs_pb2 as pb
from jobworker.api.v1.jobs_pb2_grpc import JobServiceStub
from tests.integration.api.conftest import LIMIT
from tests.support.server import running_server

KIBIBYTE = 1024
Messages = list[pb.StreamOutputResponse]


@pytest.fixture(scope="module")
def stub(tmp_path_factory: pytest.TempPathFactory) -> Generator[JobServiceStub]:
    """A user of a server with small limits of output."""
    flags = ("--output-limit", "64KiB", "--output-policy", "drop", "--max-output-limit", "128KiB", "--audit-log", "off")
    with (
        running_server(tmp_path_factory.mktemp("server"), *flags) as server,
        server.channel(server.client("alice")) as channel,
    ):
        yield JobServiceStub(channel)


def ended(stub: JobServiceStub, spec: pb.JobSpec) -> pb.Job:
    """A job that has ended."""
    job = stub.StartJob(pb.StartJobRequest(spec=spec), timeout=LIMIT)
    return stub.WaitJob(pb.WaitJobRequest(job_id=job.id), timeout=LIMIT)


def test_a_job_that_asks_for_nothing_has_the_servers_limit(stub: JobServiceStub) -> None:
    """Size and policy, and the stream says what came after."""
    job = ended(stub, pb.JobSpec(argv=["head", "-c", "100000", "/dev/zero"]))
    assert job.output_limit == pb.OutputLimit(bytes=64 * KIBIBYTE, policy=pb.OutputLimit.DROP)
    assert not job.spec.HasField("output_limit")
    assert (job.output_bytes, job.output_first_offset, job.end.output_dropped_bytes) == (100_000, 0, 100_000 - 65_536)
    messages: Messages = list(stub.StreamOutput(pb.StreamOutputRequest(job_id=job.id), timeout=LIMIT))
    assert sum(len(message.data) for message in messages) == 65_536
    (gap,) = [message for message in messages if message.HasField("gap")]
    assert (gap.offset, gap.gap.length, gap.gap.reason) == (65_536, 100_000 - 65_536, pb.OutputGap.LIMIT)
    assert (messages[-1].offset, messages[-1].job) == (100_000, job)


def test_a_limit_up_to_the_maximum_is_in_force_and_more_is_refused(stub: JobServiceStub) -> None:
    """What is left open has the server's default; the refusal names the field and the bound."""
    asked = pb.OutputLimit(bytes=128 * KIBIBYTE)
    job = ended(stub, pb.JobSpec(argv=["true"], output_limit=asked))
    assert job.output_limit == pb.OutputLimit(bytes=128 * KIBIBYTE, policy=pb.OutputLimit.DROP)
    assert job.spec.output_limit == asked
    with pytest.raises(grpc.RpcError) as refused:
        ended(stub, pb.JobSpec(argv=["true"], output_limit=pb.OutputLimit(bytes=128 * KIBIBYTE + 1)))
    assert refused.value.code() is grpc.StatusCode.INVALID_ARGUMENT
    assert refused.value.details() == "spec.output_limit.bytes: is above the maximum of 128KiB on this server"


def test_times_are_sent_only_to_those_who_ask(stub: JobServiceStub) -> None:
    """And each piece of a split output names its stream in any case."""
    job = ended(stub, pb.JobSpec(argv=["sh", "-c", "echo o; echo e >&2"], output=pb.JobSpec.SPLIT_OUTPUT))
    for times in (False, True):
        request = pb.StreamOutputRequest(job_id=job.id, times=times)
        *pieces, last = stub.StreamOutput(request, timeout=LIMIT)
        assert {(piece.stream, piece.data) for piece in pieces} == {
            (pb.StreamOutputResponse.STDOUT, b"o\n"),
            (pb.StreamOutputResponse.STDERR, b"e\n"),
        }
        assert [piece.HasField("time") for piece in pieces] == [times, times]
        assert last.job == job


def test_the_last_message_has_the_offset_of_the_end(stub: JobServiceStub) -> None:
    """Also where what comes last is not wanted."""
    job = ended(stub, pb.JobSpec(argv=["sh", "-c", "echo e >&2; echo o"], output=pb.JobSpec.SPLIT_OUTPUT))
    for stream in (pb.StreamOutputResponse.STDOUT, pb.StreamOutputResponse.STDERR):
        request = pb.StreamOutputRequest(job_id=job.id, streams=[stream])
        *_, last = stub.StreamOutput(request, timeout=LIMIT)
        assert (last.offset, last.job) == (4, job)


@pytest.mark.parametrize(
    "request_, field",
    [
        (pb.StreamOutputRequest(tail_lines=-1), "tail"),
        (pb.StreamOutputRequest(tail_lines=1, offset=1), "tail"),
        (pb.StreamOutputRequest(offset=-1), "offset"),
        (pb.StreamOutputRequest.FromString(pb.StreamOutputRequest().SerializeToString() + b"\x98\x06\x01"), "request"),
    ],
    ids=["tail", "tail and offset", "offset", "a newer version's"],
)
def test_a_wish_that_cannot_be_met_is_refused(
    stub: JobServiceStub, request_: pb.StreamOutputRequest, field: str
) -> None:
    """Also one that only a newer version knows."""
    request_.job_id = ended(stub, pb.JobSpec(argv=["echo"])).id
    with pytest.raises(grpc.RpcError) as refused:
        list(stub.StreamOutput(request_, timeout=LIMIT))
    assert refused.value.code() is grpc.StatusCode.INVALID_ARGUMENT
    assert str(refused.value.details()).startswith(f"{field}: ")


def test_no_job_is_started_beyond_the_bound_of_all_output(tmp_path: Path) -> None:
    """The refusal says the bound; a job that runs goes on."""
    with (
        running_server(tmp_path, "--max-state-bytes", "64KiB", "--retention-age", "1d") as server,
        server.channel(server.client("alice")) as channel,
    ):
        stub = JobServiceStub(channel)
        ended(stub, pb.JobSpec(argv=["head", "-c", "200000", "/dev/urandom"]))
        with pytest.raises(grpc.RpcError) as refused:
            ended(stub, pb.JobSpec(argv=["true"]))
        assert refused.value.code() is grpc.StatusCode.RESOURCE_EXHAUSTED
        assert "64KiB" in str(refused.value.details())
