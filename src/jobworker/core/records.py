"""Jobs as plain JSON values: the form in which the job directory and the store keep them.

Readers take what older releases wrote: a field that is missing has its default, one that is unknown is ignored.
Times are ISO 8601 in UTC, durations are seconds.
"""

from __future__ import annotations

from dataclasses import asdict, fields
from datetime import UTC, datetime, timedelta
from typing import Any

from jobworker.core.job import Job, JobEnd, StopRequest
from jobworker.core.limits import LIMITS, NO_LIMITS, IoLimit, Limits
from jobworker.core.output import NO_OUTPUT_LIMIT, OutputLimit, OutputMode, OverflowPolicy
from jobworker.core.spec import ChildPolicy, JobSpec
from jobworker.core.state import Cause
from jobworker.core.usage import Usage

Record = dict[str, Any]  # what json.loads gives for an object

_USAGE = tuple(field.name for field in fields(Usage))


def spec_record(spec: JobSpec) -> Record:
    """A spec as JSON values; the inverse of `spec_from`."""
    return {
        "argv": list(spec.argv),
        "env": dict(spec.env),
        "cwd": spec.cwd,
        "name": spec.name,
        "labels": dict(spec.labels),
        "time_limit": None if spec.time_limit is None else spec.time_limit.total_seconds(),
        "limits": limits_record(spec.limits),
        "child_policy": spec.child_policy.value,
        "output": spec.output.value,
        "output_limit": output_limit_record(spec.output_limit),
    }


def spec_from(record: Record) -> JobSpec:
    """The spec that a record describes. Raises `InvalidArgumentError` or `KeyError` if it describes none."""
    time_limit = record.get("time_limit")
    return JobSpec(
        argv=tuple(record["argv"]),
        env=record.get("env", {}),
        cwd=record.get("cwd", "/"),
        name=record.get("name"),
        labels=record.get("labels", {}),
        time_limit=None if time_limit is None else timedelta(seconds=time_limit),
        limits=limits_from(record.get("limits", {})),
        child_policy=ChildPolicy(record.get("child_policy", ChildPolicy.KILL)),
        output=OutputMode(record.get("output", OutputMode.COMBINED)),
        output_limit=output_limit_from(record.get("output_limit", {})),
    )


def stop_record(stop: StopRequest) -> Record:
    """A stop request as JSON values; the inverse of `stop_from`."""
    return {
        "requested_by": stop.requested_by,
        "request_time": time_text(stop.request_time),
        "signal": stop.signal,
        "grace": stop.grace.total_seconds(),
    }


def stop_from(record: Record) -> StopRequest:
    """The stop request that a record describes."""
    return StopRequest(
        requested_by=record["requested_by"],
        request_time=time_from(record["request_time"]),
        signal=record["signal"],
        grace=timedelta(seconds=record["grace"]),
    )


def end_record(end: JobEnd) -> Record:
    """An end as JSON values; the inverse of `end_from`."""
    return {
        "cause": end.cause.value,
        "end_time": time_text(end.end_time),
        "exit_code": end.exit_code,
        "signal": end.signal,
        "output_bytes": end.output_bytes,
        "output_first_offset": end.output_first_offset,
        "output_dropped_bytes": end.output_dropped_bytes,
        "usage": None if end.usage is None else usage_record(end.usage),
    }


def end_from(record: Record) -> JobEnd:
    """The end that a record describes."""
    usage = record.get("usage")
    return JobEnd(
        cause=Cause(record["cause"]),
        end_time=time_from(record["end_time"]),
        exit_code=record.get("exit_code"),
        signal=record.get("signal"),
        output_bytes=record.get("output_bytes", 0),
        output_first_offset=record.get("output_first_offset", 0),
        output_dropped_bytes=record.get("output_dropped_bytes", 0),
        usage=usage_from(usage) if usage else None,
    )


def usage_record(usage: Usage) -> Record:
    """A usage as JSON values, without what is not known; the inverse of `usage_from`."""
    return {name: value for name in _USAGE if (value := getattr(usage, name)) is not None}


def usage_from(record: Record) -> Usage:
    """The usage that a record describes."""
    return Usage(**{name: value for name, value in record.items() if name in _USAGE})


def output_limit_record(limit: OutputLimit) -> Record:
    """An output limit as JSON values; the inverse of `output_limit_from`."""
    return {"size": limit.size, "policy": limit.policy and limit.policy.value}


def output_limit_from(record: Record) -> OutputLimit:
    """The output limit that a record describes."""
    size, policy = record.get("size"), record.get("policy")
    if size is None and policy is None:
        return NO_OUTPUT_LIMIT
    return OutputLimit(size=size, policy=None if policy is None else OverflowPolicy(policy))


def job_record(job: Job) -> Record:
    """What is known of a job when it is accepted, as JSON values: all but its start, stop, end and output."""
    return {
        "id": job.id,
        "owner": job.owner,
        "request_id": job.request_id,
        "create_time": time_text(job.create_time),
        "spec": spec_record(job.spec),
        "limits": limits_record(job.limits),
        "output_limit": output_limit_record(job.output_limit),
    }


def job_from(record: Record) -> Job:
    """The job that a record describes, as it was when it was accepted."""
    return Job(
        id=record["id"],
        owner=record["owner"],
        request_id=record.get("request_id"),
        create_time=time_from(record["create_time"]),
        spec=spec_from(record["spec"]),
        limits=limits_from(record.get("limits", {})),
        output_limit=output_limit_from(record.get("output_limit", {})),
    )


def time_text(time: datetime) -> str:
    """An aware time as ISO 8601 in UTC, always with microseconds, so that texts sort as times do."""
    return time.astimezone(UTC).isoformat(timespec="microseconds")


def time_from(text: str) -> datetime:
    """The aware time of an ISO 8601 text."""
    return datetime.fromisoformat(text).astimezone(UTC)


def limits_record(limits: Limits) -> Record:
    """Limits as JSON values, without those that are not set; the inverse of `limits_from`."""
    record = {name: value for name in LIMITS if (value := getattr(limits, name)) not in (None, ())}
    if limits.io:
        record["io"] = [asdict(limit) for limit in limits.io]
    return record


def limits_from(record: Record) -> Limits:
    """The limits that a record describes."""
    if not record:
        return NO_LIMITS
    values = {name: value for name, value in record.items() if name in LIMITS}
    values["io"] = tuple(_io_limit_from(limit) for limit in record.get("io", ()))
    return Limits(**values)


def _io_limit_from(record: Record) -> IoLimit:
    known = {field.name for field in fields(IoLimit)}
    return IoLimit(**{name: value for name, value in record.items() if name in known})
