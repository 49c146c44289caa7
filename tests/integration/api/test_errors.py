"""What a caller is told when something is wrong: the code, the reason, the text, and nothing internal."""

from __future__ import annotations

import sqlite3
import uuid
from collections.abc import Callable
from contextlib import closing
from pathlib import Path

import grpc
import pytest
from google.protobuf.duration_pb2 import Duration
from google.protobuf.timestamp_pb2 import Timestamp

from jobworker.api.v1 import jobs_pb2 as pb
from jobworker.api.v1.jobs_pb2_grpc import JobServiceStub
from jobworker.core import errors
from tests.integration.api.conftest import LIMIT, call_raw, ended, refusal_of, start
from tests.support.server import Server, running_server

# Every call about a job, with a request that is right in itself.
CALLS_ABOUT_A_JOB: dict[str, Callable[[JobServiceStub, str], object]] = {
    "GetJob": lambda stub, job: stub.GetJob(pb.GetJobRequest(job_id=job), timeout=LIMIT),
    "StopJob": lambda stub, job: stub.StopJob(pb.StopJobRequest(job_id=job), timeout=LIMIT),
    "SignalJob": lambda stub, job: stub.SignalJob(pb.SignalJobRequest(job_id=job, signal=1), timeout=LIMIT),
    "WaitJob": lambda stub, job: stub.WaitJob(pb.WaitJobRequest(job_id=job), timeout=LIMIT),
    "StreamOutput": lambda stub, job: list(stub.StreamOutput(pb.StreamOutputRequest(job_id=job), timeout=LIMIT)),
    "DeleteJob": lambda stub, job: stub.DeleteJob(pb.DeleteJobRequest(job_id=job), timeout=LIMIT),
}

# The same calls with requests that are wrong.
WRONG_CALLS_ABOUT_A_JOB: dict[str, Callable[[JobServiceStub, str], object]] = {
    "StopJob signal": lambda stub, job: stub.StopJob(pb.StopJobRequest(job_id=job, signal=999), timeout=LIMIT),
    "StopJob grace": lambda stub, job: stub.StopJob(
        pb.StopJobRequest(job_id=job, grace=Duration(seconds=-1)), timeout=LIMIT
    ),
    "SignalJob": lambda stub, job: stub.SignalJob(pb.SignalJobRequest(job_id=job, signal=0), timeout=LIMIT),
    "StreamOutput": lambda stub, job: list(
        stub.StreamOutput(pb.StreamOutputRequest(job_id=job, offset=-1), timeout=LIMIT)
    ),
}


def whole_status(call: Callable[[], object], job_id: str) -> tuple[object, ...]:
    """All that a refusal says, with the job's id taken out."""
    with pytest.raises(grpc.RpcError) as refused:
        call()
    metadata = tuple((one.key, one.value.replace(job_id.encode(), b"ID")) for one in refused.value.trailing_metadata())
    return refused.value.code(), (refused.value.details() or "").replace(job_id, "ID"), metadata


@pytest.mark.parametrize("name", [*CALLS_ABOUT_A_JOB, *WRONG_CALLS_ABOUT_A_JOB])
def test_somebody_elses_job_is_like_none(server: Server, alice: JobServiceStub, name: str) -> None:
    """Code, text and details are the same for a job of another user, running or ended, and for one that never was."""
    call = (CALLS_ABOUT_A_JOB | WRONG_CALLS_ABOUT_A_JOB)[name]
    missing = str(uuid.uuid4())
    with server.channel(server.client("bob")) as channel:
        bob = JobServiceStub(channel)
        answers = {
            whole_status(lambda job=job: call(bob, job), job)
            for job in (start(alice, "sleep", "600").id, ended(alice, "true").id, missing)
        }
    assert len(answers) == 1
    assert next(iter(answers))[:2] == (grpc.StatusCode.NOT_FOUND, "no job 'ID'")


@pytest.mark.parametrize("job_id", ["", "x", "../../etc/passwd", "\0", "ü" * 10_000, str(uuid.uuid4()).upper()])
@pytest.mark.parametrize("name", CALLS_ABOUT_A_JOB)
def test_what_is_no_id_is_no_job(alice: JobServiceStub, name: str, job_id: str) -> None:
    """Whatever a client sends as an id finds no job, and nothing else either; the answer fits into a status."""
    refused = refusal_of(lambda: CALLS_ABOUT_A_JOB[name](alice, job_id))
    assert isinstance(refused, errors.JobNotFoundError)


def start_spec(alice: JobServiceStub, spec: pb.JobSpec) -> Callable[[], object]:
    """A start to be refused."""
    return lambda: alice.StartJob(pb.StartJobRequest(spec=spec), timeout=LIMIT)


@pytest.mark.parametrize(
    "spec, field",
    [
        (pb.JobSpec(), "spec.argv"),
        (pb.JobSpec(argv=[""]), "spec.argv[0]"),
        (pb.JobSpec(argv=["echo", "a\0b"]), "spec.argv[1]"),
        (pb.JobSpec(argv=["true"], env={"A=B": "1"}), "spec.env"),
        (pb.JobSpec(argv=["true"], cwd="tmp"), "spec.cwd"),
        (pb.JobSpec(argv=["true"], labels={"No": "x"}), "spec.labels"),
        (pb.JobSpec(argv=["true"], time_limit=Duration()), "spec.time_limit"),
        (pb.JobSpec(argv=["true"], name="x" * 200), "spec.name"),
    ],
)
def test_a_wrong_spec_names_its_field(alice: JobServiceStub, spec: pb.JobSpec, field: str) -> None:
    """The error says which field is wrong."""
    refused = refusal_of(start_spec(alice, spec))
    assert isinstance(refused, errors.InvalidArgumentError)
    assert refused.field == field


@pytest.mark.parametrize(
    "spec, reason",
    [
        (pb.JobSpec(argv=["no-such-program"]), "command not found (on the server; PATH is the job's"),
        (pb.JobSpec(argv=["./no-such"]), "command not found (on the server, where a job's working directory is /"),
        (pb.JobSpec(argv=["/no/such"]), "command not found (on the server)"),
        (pb.JobSpec(argv=["/etc/passwd"]), "permission denied"),
        (pb.JobSpec(argv=["true"], cwd="/no/such/folder"), "cannot enter the working directory"),
    ],
)
def test_a_command_that_cannot_be_started_is_told_at_the_start(
    alice: JobServiceStub, spec: pb.JobSpec, reason: str
) -> None:
    """The kernel's reason comes back from the start call itself, and no job is left."""
    before = len(alice.ListJobs(pb.ListJobsRequest(page_size=1000)).jobs)
    refused = refusal_of(start_spec(alice, spec))
    assert isinstance(refused, errors.CommandNotStartedError)
    assert reason in str(refused)
    assert len(alice.ListJobs(pb.ListJobsRequest(page_size=1000)).jobs) == before


def test_limits_are_refused_and_not_ignored(alice: JobServiceStub) -> None:
    """A limit that this server cannot enforce is an error of the start, named as core names it."""
    refused = refusal_of(start_spec(alice, pb.JobSpec(argv=["true"], limits=pb.Limits(memory_bytes=2**30))))
    assert isinstance(refused, errors.LimitNotEnforceableError)
    assert refused.limit == "memory"


def test_what_only_a_newer_server_knows_is_refused_and_not_ignored(server: Server) -> None:
    """A limit with a field number that this version does not have might be the one that matters to its client."""
    newer_limits = bytes([99 << 3 & 0x7F | 0x80, 99 >> 4, 1])  # field 99, a varint, of the value 1
    spec = pb.JobSpec(argv=["true"], limits=pb.Limits.FromString(newer_limits))
    request = pb.StartJobRequest(spec=spec).SerializeToString()
    with server.channel(server.client("alice")) as channel:
        refused = refusal_of(lambda: call_raw(channel, "/jobworker.v1.JobService/StartJob", request))
    assert str(refused) == "spec.limits: has a field number 99, which this version of jobworker does not know"


def test_an_ended_job_cannot_be_stopped_or_signalled_and_a_running_one_not_deleted(alice: JobServiceStub) -> None:
    """Each says what it could not do, to which job, and why."""
    job, running = ended(alice, "true").id, start(alice, "sleep", "600").id
    texts = {
        name: str(refusal_of(lambda name=name, job_id=job_id: CALLS_ABOUT_A_JOB[name](alice, job_id)))
        for name, job_id in (("StopJob", job), ("SignalJob", job), ("DeleteJob", running))
    }
    assert texts == {
        "StopJob": f"cannot stop job {job}: already finished",
        "SignalJob": f"cannot signal job {job}: already finished",
        "DeleteJob": f"cannot remove job {running}: still running (stop it first)",
    }


def test_an_offset_out_of_range_says_the_range(alice: JobServiceStub) -> None:
    """Who asks past the end learns where the end is."""
    job = ended(alice, "echo", "hello").id
    refused = refusal_of(lambda: list(alice.StreamOutput(pb.StreamOutputRequest(job_id=job, offset=7), timeout=LIMIT)))
    assert isinstance(refused, errors.OffsetOutOfRangeError)
    assert (refused.job_id, refused.offset, refused.first, refused.end) == (job, 7, 0, 6)


def test_a_request_id_starts_one_job(alice: JobServiceStub) -> None:
    """Repeated, it gives the first job; with another spec or in another form it is refused."""
    request = pb.StartJobRequest(spec=pb.JobSpec(argv=["true"]), request_id=str(uuid.uuid4()))
    first = alice.StartJob(request, timeout=LIMIT)
    assert alice.StartJob(request, timeout=LIMIT).id == first.id
    request.spec.argv.append("x")
    assert isinstance(refusal_of(lambda: alice.StartJob(request, timeout=LIMIT)), errors.RequestIdReusedError)
    request.request_id = "again"
    refused = refusal_of(lambda: alice.StartJob(request, timeout=LIMIT))
    assert isinstance(refused, errors.InvalidArgumentError)
    assert refused.field == "request_id"


@pytest.mark.parametrize(
    "request_, field",
    [
        (pb.ListJobsRequest(page_size=-1), "page_size"),
        (pb.ListJobsRequest(page_token="nonsense"), "page_token"),  # noqa: S106 -- no password
        (pb.ListJobsRequest(states=[pb.Job.QUEUED]), "states[0]"),
        (pb.ListJobsRequest(created_after=Timestamp(seconds=2**50)), "created_after"),
    ],
)
def test_a_wrong_list_names_its_field(alice: JobServiceStub, request_: pb.ListJobsRequest, field: str) -> None:
    """The error says which condition is wrong."""
    refused = refusal_of(lambda: alice.ListJobs(request_, timeout=LIMIT))
    assert isinstance(refused, errors.InvalidArgumentError)
    assert refused.field == field


@pytest.mark.parametrize("request_", [b"\xff\xff\xff", b"\x0a\x02\xc3\x28"], ids=["no message", "no UTF-8"])
def test_an_undecodable_request_shows_nothing_internal(server: Server, request_: bytes) -> None:
    """It is an invalid argument, in our words; none of the decoder's."""
    with server.channel(server.client("alice")) as channel:
        refused = refusal_of(lambda: call_raw(channel, "/jobworker.v1.JobService/GetJob", request_))
    assert str(refused) == "request: is not a message of this call; was it made for another service?"


def test_an_internal_error_gives_an_id_and_the_log_the_details(tmp_path: Path) -> None:
    """Of a fault of the server's the caller learns only an id, under which the log has the stack trace."""
    with running_server(tmp_path) as server, server.channel(server.client("alice")) as channel:
        alice = JobServiceStub(channel)
        job = ended(alice, "echo", "hello").id
        output = server.state_dir / "jobs" / job / "output"
        output.unlink()
        output.symlink_to(output)  # which cannot be opened
        refused = refusal_of(lambda: CALLS_ABOUT_A_JOB["StreamOutput"](alice, job))
        assert isinstance(refused, errors.InternalError)
        assert str(tmp_path) not in str(refused)
        assert f"incident {refused.incident} in /jobworker.v1.JobService/StreamOutput" in server.log
        assert "Too many levels of symbolic links" in server.log
        assert server.end() == 0
        assert take_traceback(server) == 1


def test_a_broken_database_is_unavailable_and_the_log_says_why(tmp_path: Path) -> None:
    """A store that fails is told as such, without its files and its SQL."""
    with running_server(tmp_path) as server, server.channel(server.client("alice")) as channel:
        with closing(sqlite3.connect(server.state_dir / "jobs.db")) as database:
            for (table,) in database.execute("SELECT name FROM sqlite_master WHERE type = 'table'").fetchall():
                database.execute(f"DROP TABLE {table}")
        refused = refusal_of(lambda: JobServiceStub(channel).ListJobs(pb.ListJobsRequest(), timeout=LIMIT))
        assert isinstance(refused, errors.StoreError)
        incident = str(refused).rpartition(" ")[2]
        assert str(refused) == f"the job database cannot be used; the server's log says why under {incident}"
        assert f"incident {incident} in /jobworker.v1.JobService/ListJobs" in server.log
        server.end()
        assert take_traceback(server) >= 1


def take_traceback(server: Server) -> int:
    """Count the stack traces in the log and take them out: here they are expected."""
    log = server.directory / "log"
    count = server.log.count("Traceback")
    log.write_text(server.log.replace("Traceback", "expected stack trace"))
    return count
