"""Values survive the wire, and what has no value here is refused by name."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import fields, replace
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from google.protobuf.duration_pb2 import Duration
from google.protobuf.field_mask_pb2 import FieldMask
from google.protobuf.timestamp_pb2 import Timestamp

from jobworker.api import convert, convert_output
from jobworker.api.limit_names import LIMIT_FIELDS
from jobworker.api.v1 import jobs_pb2 as pb
from jobworker.core.errors import InvalidArgumentError
from jobworker.core.job import DEFAULT_GRACE, Job, JobEnd, StopRequest
from jobworker.core.limits import IoLimit, Limits
from jobworker.core.output import Chunk, Gap, GapReason, OutputLimit, OutputMode, OverflowPolicy, Selection, Stream
from jobworker.core.query import JobFilter
from jobworker.core.spec import ChildPolicy, JobSpec
from jobworker.core.state import Cause, JobState
from jobworker.core.usage import Usage

NOON = datetime(2026, 3, 1, 12, 0, 0, 123456, tzinfo=UTC)

MINIMAL_SPEC = JobSpec(argv=("true",))
FULL_SPEC = JobSpec(
    argv=("sh", "-c", "echo ü", ""),
    env={"A": "1", "EMPTY": ""},
    cwd="/srv",
    name="nightly ü",
    labels={"team": "ml", "empty": ""},
    time_limit=timedelta(days=3, microseconds=7),
    limits=Limits(
        cpus=1.5,
        cpu_weight=10,
        cpuset="0-3,6",
        memory=2**40,
        memory_high=2**39,
        swap=0,
        oom_group=False,
        pids=100,
        io=(IoLimit(), IoLimit(device="/dev/vda", read_bytes_per_second=1, write_operations_per_second=5)),
        io_weight=1,
    ),
    child_policy=ChildPolicy.WAIT,
    output=OutputMode.SPLIT,
    output_limit=OutputLimit(size=2**40, policy=OverflowPolicy.KEEP_LAST),
)
FULL_USAGE = Usage(**dict.fromkeys((field.name for field in fields(Usage)), 3))
RUNNING = Job(id="6b0b0b0e-0000-4000-8000-000000000000", owner="alice", spec=MINIMAL_SPEC, create_time=NOON)


@pytest.mark.parametrize("spec", [MINIMAL_SPEC, FULL_SPEC], ids=["minimal", "full"])
def test_a_spec_survives_the_wire(spec: JobSpec) -> None:
    """A spec is the same after both conversions and serialisation; what is unset, zero or false stays so."""
    message = pb.JobSpec.FromString(convert.spec_message(spec).SerializeToString())
    assert convert.spec_from(message) == spec


def test_every_limit_has_a_name_on_the_wire() -> None:
    """No limit of core is forgotten, and every name that the wire uses is a field of its message."""
    assert set(LIMIT_FIELDS.values()) == {field.name for field in fields(Limits)}
    assert set(LIMIT_FIELDS) == {field.name for field in pb.Limits.DESCRIPTOR.fields}
    assert convert.limit_names(["memory", "io"]) == ["memory_bytes", "io"]


@pytest.mark.parametrize("name", [field.name for field in fields(Limits)])
def test_an_unset_limit_stays_unset(name: str) -> None:
    """Leaving out one limit leaves out that one and no other."""
    empty: tuple[()] | None = () if name == "io" else None
    limits = replace(FULL_SPEC.limits, **{name: empty})
    assert convert.limits_from(convert.limits_message(limits)) == limits


@pytest.mark.parametrize(
    "job",
    [
        RUNNING,
        replace(RUNNING, spec=FULL_SPEC, start_time=NOON + timedelta(milliseconds=2), output_bytes=5),
        replace(RUNNING, stop=StopRequest(requested_by="bob", request_time=NOON)),
        replace(RUNNING, limits=FULL_SPEC.limits, paused=True),
        replace(RUNNING, output_bytes=9, output_first_offset=5, output_limit=FULL_SPEC.output_limit),
        *(replace(RUNNING, output_limit=OutputLimit(policy=policy)) for policy in OverflowPolicy),
        replace(RUNNING, output_limit=OutputLimit(size=2**16)),
        *(
            replace(RUNNING, output_bytes=9, end=JobEnd(cause=cause, end_time=NOON, exit_code=0, output_bytes=9))
            for cause in Cause
        ),
        replace(RUNNING, end=JobEnd(cause=Cause.SIGNALED, end_time=NOON, signal=9, output_dropped_bytes=2**40)),
        replace(RUNNING, end=JobEnd(cause=Cause.LOST, end_time=NOON)),
        replace(RUNNING, end=JobEnd(cause=Cause.EXITED, end_time=NOON, exit_code=0, usage=FULL_USAGE)),
    ],
)
def test_a_job_survives_the_wire(job: Job) -> None:
    """A job is the same after both conversions and serialisation, for every cause of an end."""
    message = pb.Job.FromString(convert.job_message(job).SerializeToString())
    assert convert.job_from(message) == job


@pytest.mark.parametrize("usage", [FULL_USAGE, Usage(wall_seconds=0), Usage(wall_seconds=1.5, oom_kills=0, pids=0)])
def test_a_usage_survives_the_wire(usage: Usage) -> None:
    """What the kernel does not tell stays unknown, and zero stays zero; every field has its place."""
    assert {field.name for field in pb.Usage.DESCRIPTOR.fields} == {field.name for field in fields(Usage)}
    message = pb.Usage.FromString(convert.usage_message(usage).SerializeToString())
    assert convert.usage_from(message) == usage


@pytest.mark.parametrize("follow", [True, False])
@pytest.mark.parametrize(
    "selection",
    [
        Selection(),
        Selection(offset=2**62),
        Selection(tail=0),
        Selection(tail=5, streams=frozenset({Stream.STDERR}), until=NOON),
        Selection(streams=frozenset(Stream), since=NOON, until=NOON + timedelta(microseconds=1), times=True),
    ],
)
def test_a_selection_survives_the_wire(selection: Selection, *, follow: bool) -> None:
    """What is wanted of an output is the same after both conversions; no lines differ from all lines."""
    sent = convert_output.selection_message(RUNNING.id, selection, follow=follow).SerializeToString()
    message = pb.StreamOutputRequest.FromString(sent)
    assert convert_output.selection_from(message) == selection
    assert (message.job_id, message.follow) == (RUNNING.id, follow)


@pytest.mark.parametrize(
    "piece",
    [
        Chunk(offset=7, data=b"\0\xff"),
        *(Chunk(offset=0, data=b"a", stream=stream, time=NOON) for stream in Stream),
        *(Gap(offset=5, length=2**40, reason=reason) for reason in GapReason),
    ],
)
def test_a_piece_of_output_survives_the_wire(piece: Chunk | Gap) -> None:
    """Bytes with where and when they came from, and gaps with their reason."""
    message = pb.StreamOutputResponse.FromString(convert_output.serialized_piece(piece))
    assert convert_output.piece_from(message, piece.offset) == piece


@pytest.mark.parametrize("size", [0, 1, 127, 128, 16383, 16384, 1024 * 1024])
def test_a_chunk_is_serialised_as_its_message_would_be(size: int) -> None:
    """It is what everybody's generated code reads, whatever its length."""
    chunk = Chunk(offset=2**40, data=b"x" * size, stream=Stream.STDERR, time=NOON)
    assert pb.StreamOutputResponse.FromString(convert_output.serialized_piece(chunk)) == pb.StreamOutputResponse(
        offset=chunk.offset,
        data=chunk.data,
        stream=pb.StreamOutputResponse.STDERR,
        time=Timestamp(seconds=int(NOON.timestamp()), nanos=123456000),
    )


def test_what_is_known_of_a_piece_is_left_out() -> None:
    """Only what is past the offset counts, and nothing may be left."""
    chunk = pb.StreamOutputResponse(offset=7, data=b"abc", stream=pb.StreamOutputResponse.COMBINED)
    assert convert_output.piece_from(chunk, 9) == Chunk(offset=9, data=b"c")
    assert convert_output.piece_from(chunk, 10) is None
    gap = pb.StreamOutputResponse(offset=7, gap=pb.OutputGap(length=3, reason=pb.OutputGap.TRIMMED))
    assert convert_output.piece_from(gap, 9) == Gap(offset=9, length=1, reason=GapReason.TRIMMED)
    assert convert_output.piece_from(gap, 12) is None


def test_an_unknown_stream_is_refused() -> None:
    """A wish that a newer version may know is not dropped."""
    with pytest.raises(InvalidArgumentError, match=r"^streams\[1\]: has the value 9"):
        convert_output.selection_from(pb.StreamOutputRequest(streams=[pb.StreamOutputResponse.STDOUT, 9]))  # pyright: ignore[reportArgumentType] - an enum on the wire is any number


def test_an_update_names_what_changes() -> None:
    """A limit that is set and one that is to be cleared are both in the mask, and nothing else is."""
    message = convert.update_message(RUNNING.id, Limits(memory=4096, io=(IoLimit(),)), ["swap", "pids"])
    assert convert.changed_limits(message) == {"memory", "io", "swap", "pids"}
    assert convert.limits_from(message.job.limits) == Limits(memory=4096, io=(IoLimit(),))


@pytest.mark.parametrize(
    "paths, changed",
    [
        (["limits.memory_bytes"], {"memory"}),
        (["limits.io", "limits.pids"], {"io", "pids"}),
        (["limits"], {field.name for field in fields(Limits)}),
        ([], set[str]()),
    ],
)
def test_a_mask_says_what_changes(paths: list[str], changed: set[str]) -> None:
    """What is in the mask changes, whatever else is set in the job."""
    request = pb.UpdateJobRequest(job=convert.job_message(replace(RUNNING, limits=FULL_SPEC.limits)))
    request.update_mask.paths.extend(paths)
    request.update_mask.SetInParent()
    assert convert.changed_limits(request) == changed


def test_what_is_no_limit_cannot_be_given_back() -> None:
    """The error says what can be."""
    with pytest.raises(InvalidArgumentError, match=r"'memory_bytes' is none; they are cpus, .*memory, "):
        convert.update_message(RUNNING.id, Limits(), ["memory_bytes"])


def test_without_a_mask_the_limits_that_are_set_change() -> None:
    """As AIP-134 has it."""
    request = pb.UpdateJobRequest(job=pb.Job(id=RUNNING.id, limits=pb.Limits(swap_bytes=0)))
    assert convert.changed_limits(request) == {"swap"}


@pytest.mark.parametrize(
    "request_, field",
    [
        (pb.UpdateJobRequest(job=pb.Job(owner="bob")), "job.owner"),
        (pb.UpdateJobRequest(job=pb.Job(spec=pb.JobSpec(limits=pb.Limits(pids=1)))), "job.spec"),
        (pb.UpdateJobRequest(update_mask=FieldMask(paths=["owner"])), "update_mask"),
        (pb.UpdateJobRequest(update_mask=FieldMask(paths=["limits.memory"])), "update_mask"),
        (pb.UpdateJobRequest(update_mask=FieldMask(paths=["spec.limits.pids"])), "update_mask"),
        (pb.UpdateJobRequest(update_mask=FieldMask(paths=["*"])), "update_mask"),
    ],
)
def test_nothing_but_limits_can_be_changed(request_: pb.UpdateJobRequest, field: str) -> None:
    """A wish to change anything else is refused rather than dropped."""
    with pytest.raises(InvalidArgumentError) as refused:
        convert.changed_limits(request_)
    assert refused.value.field == field


def test_a_request_id_is_not_sent() -> None:
    """A request id would let whoever reads a job of its owner's repeat its start; it stays on the server."""
    message = convert.job_message(replace(RUNNING, request_id="e5b7f0de-0000-4000-8000-000000000000"))
    assert b"e5b7f0de" not in message.SerializeToString()


def test_the_size_of_an_ended_job_is_the_size_in_its_end() -> None:
    """The final size wins over one that was looked up earlier."""
    ended = replace(RUNNING, output_bytes=3, end=JobEnd(cause=Cause.EXITED, end_time=NOON, exit_code=0, output_bytes=9))
    assert convert.job_message(ended).output_bytes == 9


def test_the_wire_has_every_state_and_cause() -> None:
    """Each state and cause of core can be sent; the wire's only extra state is the queue's."""
    assert set(pb.Job.State.keys()) == {"STATE_UNSPECIFIED", "QUEUED", *(state.value for state in JobState)}
    assert set(pb.JobEnd.Cause.keys()) == {"CAUSE_UNSPECIFIED", *(cause.value for cause in Cause)}


@pytest.mark.parametrize(
    "where",
    [
        JobFilter(),
        JobFilter(
            states=frozenset({JobState.RUNNING, JobState.LOST}),
            owner="alice",
            labels={"team": "ml"},
            created_after=NOON,
            created_before=NOON + timedelta(days=1),
            id_prefix="0123-4",
        ),
    ],
)
def test_a_filter_survives_the_wire(where: JobFilter) -> None:
    """A filter is the same after both conversions, and paging travels beside it."""
    message = convert.filter_message(where, page_size=7, page_token="next")  # noqa: S106 - a page token is no password
    assert convert.filter_from(message) == where
    assert (message.page_size, message.page_token) == (7, "next")


def test_a_grace_that_is_not_given_is_the_default() -> None:
    """Unset means the default; zero means zero."""
    assert convert.grace_from(pb.StopJobRequest()) == DEFAULT_GRACE
    assert convert.grace_from(pb.StopJobRequest(grace=Duration())) == timedelta(0)


def ended_message(cause: pb.JobEnd.Cause.ValueType) -> pb.Job:
    """A message of a job that ended for this reason."""
    return pb.Job(spec=convert.spec_message(MINIMAL_SPEC), state=pb.Job.FINISHED, end=pb.JobEnd(cause=cause))


NEWER: Any = 99  # a value of any of the enums that only a newer version has


@pytest.mark.parametrize(
    "read, field",
    [
        (lambda: convert.spec_from(pb.JobSpec(argv=["x"], child_policy=NEWER)), "spec.child_policy"),
        (lambda: convert.filter_from(pb.ListJobsRequest(states=[pb.Job.RUNNING, NEWER])), "states[1]"),
        (lambda: convert.filter_from(pb.ListJobsRequest(states=[pb.Job.QUEUED])), "states[0]"),
        (lambda: convert.filter_from(pb.ListJobsRequest(states=[pb.Job.STATE_UNSPECIFIED])), "states[0]"),
        (lambda: convert.job_from(ended_message(NEWER)), "job.end.cause"),
        (lambda: convert.job_from(ended_message(pb.JobEnd.CAUSE_UNSPECIFIED)), "job.end.cause"),
        (lambda: convert.job_from(ended_message(pb.JobEnd.LOST)), "job.state"),
        (
            lambda: convert.job_from(pb.Job(spec=convert.spec_message(MINIMAL_SPEC), state=pb.Job.QUEUED)),
            "job.state",
        ),
        (
            lambda: convert.filter_from(pb.ListJobsRequest(created_after=Timestamp(seconds=2**60))),
            "created_after",
        ),
        (
            lambda: convert.spec_from(pb.JobSpec(argv=["x"], time_limit=Duration(seconds=2**62))),
            "spec.time_limit",
        ),
        (lambda: convert.spec_from(pb.JobSpec(argv=["x"], time_limit=Duration(seconds=-1))), "spec.time_limit"),
        (lambda: convert.spec_from(pb.JobSpec()), "spec.argv"),
    ],
)
def test_what_has_no_value_here_is_refused_by_name(read: Callable[[], object], field: str) -> None:
    """An enum value of a newer version, a time out of range, a contradiction: each names its field."""
    with pytest.raises(InvalidArgumentError) as refused:
        read()
    assert refused.value.field == field


# A newer client's request, as bytes: field 15 of the message that this version does not have, with the value 1.
NEWER_FIELD = bytes([15 << 3, 1])


@pytest.mark.parametrize(
    "message, where",
    [
        (pb.StartJobRequest.FromString(NEWER_FIELD), "request"),
        (pb.StartJobRequest(spec=pb.JobSpec.FromString(NEWER_FIELD)), "spec"),
        (pb.StartJobRequest(spec=pb.JobSpec(limits=pb.Limits.FromString(NEWER_FIELD))), "spec.limits"),
        (
            pb.StartJobRequest(
                spec=pb.JobSpec(limits=pb.Limits(io=[pb.IoLimit(), pb.IoLimit.FromString(NEWER_FIELD)]))
            ),
            "spec.limits.io",
        ),
    ],
)
def test_a_wish_of_a_newer_client_is_not_dropped(message: pb.StartJobRequest, where: str) -> None:
    """A field that only a newer version has is refused wherever in the request it stands."""
    with pytest.raises(InvalidArgumentError, match="field number 15") as refused:
        convert.refuse_unknown_fields(message)
    assert refused.value.field == where


def test_a_full_spec_has_no_unknown_fields() -> None:
    """Everything that this version can say passes, maps and times included."""
    convert.refuse_unknown_fields(pb.StartJobRequest(spec=convert.spec_message(FULL_SPEC)))
