"""Values of `core` as messages of `jobworker.v1`, and back.

What is unset stays unset. Reading a message raises `InvalidArgumentError`, which names the field, for whatever `core`
has no value for: a time or a duration out of range, an enum value of a newer version. Fields of a newer version are
ignored, as protobuf means it, but for the wishes of a client: see `refuse_unknown_fields`.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import fields
from datetime import UTC, datetime, timedelta
from typing import Any

from google.protobuf.duration_pb2 import Duration
from google.protobuf.message import Message
from google.protobuf.timestamp_pb2 import Timestamp
from google.protobuf.unknown_fields import UnknownFieldSet

from jobworker.api.limit_names import LIMIT_FIELDS, WIRE_LIMITS
from jobworker.api.v1 import jobs_pb2 as pb
from jobworker.core.errors import InvalidArgumentError
from jobworker.core.job import DEFAULT_GRACE, Job, JobEnd, StopRequest
from jobworker.core.limits import NO_LIMITS, IoLimit, Limits
from jobworker.core.output import NO_OUTPUT_LIMIT, OutputLimit, OutputMode, OverflowPolicy
from jobworker.core.query import JobFilter
from jobworker.core.spec import ChildPolicy, JobSpec
from jobworker.core.state import Cause, JobState
from jobworker.core.usage import Usage

_SCALAR_LIMITS = {wire: core for wire, core in LIMIT_FIELDS.items() if core != "io"}
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_USAGE_FIELDS = tuple(field.name for field in fields(Usage))
_OUTPUT_MODES = {
    OutputMode.COMBINED: pb.JobSpec.OUTPUT_MODE_UNSPECIFIED,  # an older server refuses fields that it does not know
    OutputMode.SPLIT: pb.JobSpec.SPLIT_OUTPUT,
}
_IO_RATES = (
    "read_bytes_per_second",
    "write_bytes_per_second",
    "read_operations_per_second",
    "write_operations_per_second",
)


def spec_message(spec: JobSpec) -> pb.JobSpec:
    """A spec for the wire."""
    return pb.JobSpec(
        argv=spec.argv,
        env=spec.env,
        cwd=spec.cwd,
        name=spec.name or "",
        labels=spec.labels,
        time_limit=None if spec.time_limit is None else duration_message(spec.time_limit),
        limits=limits_message(spec.limits) if spec.limits.requested() else None,
        child_policy=pb.JobSpec.ChildPolicy.Value(spec.child_policy.value),
        output=_OUTPUT_MODES[spec.output],
        output_limit=output_limit_message(spec.output_limit),
    )


def spec_from(message: pb.JobSpec) -> JobSpec:
    """The spec that a message asks for, validated; what it leaves out has core's defaults."""
    return JobSpec(
        argv=tuple(message.argv),
        env=dict(message.env),
        cwd=message.cwd or "/",
        name=message.name or None,
        labels=dict(message.labels),
        time_limit=duration_from(message.time_limit, "spec.time_limit") if message.HasField("time_limit") else None,
        limits=limits_from(message.limits),
        child_policy=_child_policy_from(message.child_policy),
        output=_output_mode_from(message.output),
        output_limit=output_limit_from(message.output_limit),
    )


def refuse_unknown_fields(message: Message, path: str = "") -> None:
    """Raise `InvalidArgumentError` if a request, or a message within it, has fields of a newer version.

    Without it, a limit that only a newer server knows would be dropped, and the job would run without.
    """
    for unknown in UnknownFieldSet(message):
        raise InvalidArgumentError(
            path or "request",
            f"has a field number {unknown.field_number}, which this version of jobworker does not know",
        )
    for descriptor, value in message.ListFields():
        if descriptor.message_type is None or descriptor.message_type.GetOptions().map_entry:
            continue
        for inner in value if descriptor.is_repeated else (value,):
            refuse_unknown_fields(inner, f"{path}.{descriptor.name}" if path else descriptor.name)


def limits_message(limits: Limits) -> pb.Limits:
    """Limits for the wire."""
    message = pb.Limits(io=(_io_limit_message(limit) for limit in limits.io))
    for wire, core in _SCALAR_LIMITS.items():
        value = getattr(limits, core)
        if value is not None:
            setattr(message, wire, value)
    return message


def limits_from(message: pb.Limits) -> Limits:
    """The limits that a message asks for."""
    if not message.ListFields():
        return NO_LIMITS
    values = {LIMIT_FIELDS[field.name]: value for field, value in message.ListFields() if field.name != "io"}
    return Limits(io=tuple(_io_limit_from(limit) for limit in message.io), **values)


def output_limit_message(limit: OutputLimit) -> pb.OutputLimit | None:
    """An output limit for the wire; `None` where it leaves everything open."""
    if limit == NO_OUTPUT_LIMIT:
        return None
    policy = pb.OutputLimit.Policy.Value("POLICY_UNSPECIFIED" if limit.policy is None else limit.policy.value)
    return pb.OutputLimit(bytes=limit.size, policy=policy)


def output_limit_from(message: pb.OutputLimit) -> OutputLimit:
    """The output limit that a message asks for."""
    if not message.ListFields():
        return NO_OUTPUT_LIMIT
    return OutputLimit(
        size=message.bytes if message.HasField("bytes") else None, policy=_overflow_policy_from(message.policy)
    )


def limit_names(names: Iterable[str]) -> list[str]:
    """What the wire calls these fields of `Limits`. Raises `InvalidArgumentError` for what is none."""
    try:
        return [WIRE_LIMITS[name] for name in names]
    except KeyError as error:
        raise InvalidArgumentError("limits", f"{error.args[0]!r} is none; they are {', '.join(WIRE_LIMITS)}") from None


def changed_limits(message: pb.UpdateJobRequest) -> frozenset[str]:
    """The fields of core's `Limits` that a request is to change."""
    if not message.HasField("update_mask"):
        for field, _ in message.job.ListFields():
            if field.name not in ("id", "limits"):
                raise InvalidArgumentError(f"job.{field.name}", "cannot be changed; say what is to be in update_mask")
        return frozenset(limits_from(message.job.limits).requested())
    names: set[str] = set()
    for path in message.update_mask.paths:
        top, _, name = path.partition(".")
        if top != "limits" or (name and name not in LIMIT_FIELDS):
            raise InvalidArgumentError(
                "update_mask", f"{path!r} cannot be changed; limits can, as in limits.memory_bytes"
            )
        names.update([LIMIT_FIELDS[name]] if name else LIMIT_FIELDS.values())
    return frozenset(names)


def update_message(job_id: str, limits: Limits, clear: Iterable[str]) -> pb.UpdateJobRequest:
    """A request to put these limits of a job in force, and the server's defaults for those to `clear`."""
    request = pb.UpdateJobRequest(job=pb.Job(id=job_id, limits=limits_message(limits)))
    request.update_mask.paths.extend(f"limits.{name}" for name in limit_names((*limits.requested(), *clear)))
    return request


def usage_message(usage: Usage) -> pb.Usage:
    """A usage for the wire."""
    return pb.Usage(**{name: getattr(usage, name) for name in _USAGE_FIELDS})


def usage_from(message: pb.Usage) -> Usage:
    """The usage that a message tells."""
    values: dict[str, Any] = {field.name: value for field, value in message.ListFields()}
    values.setdefault("wall_seconds", 0.0)  # zero is as good as unset there
    return Usage(**values)


def job_message(job: Job) -> pb.Job:
    """A job for the wire. Its request id is not sent: it is its owner's to know."""
    end = job.end
    return pb.Job(
        id=job.id,
        state=pb.Job.State.Value(job.state.value),
        spec=spec_message(job.spec),
        owner=job.owner,
        create_time=time_message(job.create_time),
        start_time=None if job.start_time is None else time_message(job.start_time),
        end=None if end is None else end_message(end),
        stop=None if job.stop is None else stop_message(job.stop),
        output_bytes=job.output_bytes if end is None else end.output_bytes,
        limits=limits_message(job.limits) if job.limits.requested() else None,
        paused=job.paused,
        unkillable_pids=job.unkillable_pids,
        output_first_offset=job.output_first_offset if end is None else end.output_first_offset,
        output_limit=output_limit_message(job.output_limit),
    )


def job_from(message: pb.Job) -> Job:
    """The job that a message describes. Of its stop, the signal and the grace are not known; they have the defaults."""
    job = Job(
        id=message.id,
        owner=message.owner,
        spec=spec_from(message.spec),
        create_time=time_from(message.create_time, "job.create_time"),
        start_time=time_from(message.start_time, "job.start_time") if message.HasField("start_time") else None,
        stop=stop_from(message.stop) if message.HasField("stop") else None,
        end=end_from(message) if message.HasField("end") else None,
        output_bytes=message.output_bytes,
        output_first_offset=message.output_first_offset,
        output_limit=output_limit_from(message.output_limit),
        limits=limits_from(message.limits),
        paused=message.paused,
        unkillable_pids=tuple(message.unkillable_pids),
    )
    if state_from(message.state, "job.state") is not job.state:
        raise InvalidArgumentError("job.state", f"is {pb.Job.State.Name(message.state)}, and its end says {job.state}")
    return job


def end_message(end: JobEnd) -> pb.JobEnd:
    """An end for the wire; where the output begins and ends is the job's to say."""
    return pb.JobEnd(
        cause=pb.JobEnd.Cause.Value(end.cause.value),
        exit_code=end.exit_code,
        signal=end.signal,
        end_time=time_message(end.end_time),
        output_dropped_bytes=end.output_dropped_bytes,
        usage=None if end.usage is None else usage_message(end.usage),
    )


def end_from(job: pb.Job) -> JobEnd:
    """The end of the job that a message describes."""
    message = job.end
    return JobEnd(
        cause=_cause_from(message.cause),
        end_time=time_from(message.end_time, "job.end.end_time"),
        exit_code=message.exit_code if message.HasField("exit_code") else None,
        signal=message.signal if message.HasField("signal") else None,
        output_bytes=job.output_bytes,
        output_first_offset=job.output_first_offset,
        output_dropped_bytes=message.output_dropped_bytes,
        usage=usage_from(message.usage) if message.HasField("usage") else None,
    )


def stop_message(stop: StopRequest) -> pb.StopInfo:
    """Who asked for a stop and when, for the wire."""
    return pb.StopInfo(requested_by=stop.requested_by, request_time=time_message(stop.request_time))


def stop_from(message: pb.StopInfo) -> StopRequest:
    """The stop that a message describes, with the default signal and grace."""
    return StopRequest(
        requested_by=message.requested_by, request_time=time_from(message.request_time, "job.stop.request_time")
    )


def filter_message(where: JobFilter, *, page_size: int = 0, page_token: str | None = None) -> pb.ListJobsRequest:
    """A request for a page of the jobs for which a filter holds."""
    return pb.ListJobsRequest(
        page_size=page_size,
        page_token=page_token or "",
        states=[pb.Job.State.Value(state.value) for state in sorted(where.states)],
        owner=where.owner or "",
        labels=where.labels,
        created_after=None if where.created_after is None else time_message(where.created_after),
        created_before=None if where.created_before is None else time_message(where.created_before),
        id_prefix=where.id_prefix or "",
    )


def filter_from(message: pb.ListJobsRequest) -> JobFilter:
    """The filter of a request."""
    after, before = message.HasField("created_after"), message.HasField("created_before")
    return JobFilter(
        states=frozenset(state_from(value, f"states[{index}]") for index, value in enumerate(message.states)),
        owner=message.owner or None,
        labels=dict(message.labels),
        created_after=time_from(message.created_after, "created_after") if after else None,
        created_before=time_from(message.created_before, "created_before") if before else None,
        id_prefix=message.id_prefix or None,
    )


def grace_from(message: pb.StopJobRequest) -> timedelta:
    """How long a stopped job may take, by a request that may leave it open."""
    return duration_from(message.grace, "grace") if message.HasField("grace") else DEFAULT_GRACE


def state_from(value: pb.Job.State.ValueType, field: str) -> JobState:
    """The state that a value of the wire's enum stands for; a server that only runs jobs knows no QUEUED."""
    try:
        return JobState(pb.Job.State.Name(value))
    except ValueError:
        raise _unknown(field, value) from None


def time_message(time: datetime) -> Timestamp:
    """An aware time for the wire."""
    since = time - _EPOCH
    return Timestamp(seconds=since.days * 86_400 + since.seconds, nanos=since.microseconds * 1000)


def time_from(message: Timestamp, field: str) -> datetime:
    """The UTC time of a message, cut to microseconds."""
    try:
        return message.ToDatetime(tzinfo=UTC)
    except (ValueError, OverflowError):
        raise InvalidArgumentError(field, "is no time between the years 1 and 9999") from None


def duration_message(duration: timedelta) -> Duration:
    """A duration for the wire."""
    message = Duration()
    message.FromTimedelta(duration)
    return message


def duration_from(message: Duration, field: str) -> timedelta:
    """The duration of a message, cut to microseconds."""
    try:
        return message.ToTimedelta()
    except (ValueError, OverflowError):
        raise InvalidArgumentError(field, "is longer than any duration that there is") from None


def _io_limit_message(limit: IoLimit) -> pb.IoLimit:
    return pb.IoLimit(device=limit.device or "", **{rate: getattr(limit, rate) for rate in _IO_RATES})


def _io_limit_from(message: pb.IoLimit) -> IoLimit:
    rates = {field.name: value for field, value in message.ListFields() if field.name != "device"}
    return IoLimit(device=message.device or None, **rates)


def _child_policy_from(value: pb.JobSpec.ChildPolicy.ValueType) -> ChildPolicy:
    if value == pb.JobSpec.CHILD_POLICY_UNSPECIFIED:
        return ChildPolicy.KILL
    try:
        return ChildPolicy(pb.JobSpec.ChildPolicy.Name(value))
    except ValueError:
        raise _unknown("spec.child_policy", value) from None


def _output_mode_from(value: pb.JobSpec.OutputMode.ValueType) -> OutputMode:
    if value == pb.JobSpec.OUTPUT_MODE_UNSPECIFIED:
        return OutputMode.COMBINED
    try:
        return OutputMode(pb.JobSpec.OutputMode.Name(value).removesuffix("_OUTPUT"))
    except ValueError:
        raise _unknown("spec.output", value) from None


def _overflow_policy_from(value: pb.OutputLimit.Policy.ValueType) -> OverflowPolicy | None:
    if value == pb.OutputLimit.POLICY_UNSPECIFIED:
        return None
    try:
        return OverflowPolicy(pb.OutputLimit.Policy.Name(value))
    except ValueError:
        raise _unknown("spec.output_limit.policy", value) from None


def _cause_from(value: pb.JobEnd.Cause.ValueType) -> Cause:
    try:
        return Cause(pb.JobEnd.Cause.Name(value))
    except ValueError:
        raise _unknown("job.end.cause", value) from None


def _unknown(field: str, value: int) -> InvalidArgumentError:
    return InvalidArgumentError(field, f"has the value {value}, which this version of jobworker does not know")
