"""Records: what the job directory and the store keep is what comes back."""

from __future__ import annotations

import json
from datetime import UTC, datetime, timedelta, timezone

import pytest

from jobworker.core.job import Job, JobEnd, StopRequest
from jobworker.core.limits import IoLimit, Limits
from jobworker.core.output import OutputLimit, OutputMode, OverflowPolicy
from jobworker.core.records import (
    Record,
    end_from,
    end_record,
    job_from,
    job_record,
    spec_from,
    spec_record,
    stop_from,
    stop_record,
    time_from,
    time_text,
)
from jobworker.core.spec import MAX_TIME_LIMIT, ChildPolicy, JobSpec
from jobworker.core.state import Cause

TIME = datetime(2026, 3, 1, 12, 0, 0, 123456, tzinfo=UTC)
LIMITS = Limits(
    cpus=1.5,
    cpu_weight=100,
    cpuset="0-3,6",
    memory=2**40,
    memory_high=1,
    swap=0,
    oom_group=False,
    pids=7,
    io=(IoLimit(device="/dev/sda", read_bytes_per_second=5), IoLimit(write_operations_per_second=9)),
    io_weight=10000,
)
SPECS = [
    JobSpec(argv=("true",)),
    JobSpec(argv=("a", "", " ", "\n", "\udcff", "\U0001f600")),
    JobSpec(
        argv=("sh", "-c", "exit"),
        env={"A": "", "B": "x=y", "\udcfe": "\udcff"},
        cwd="/\udcff",
        name="a name",
        labels={"k": "", "a/b.c-d_e": "v"},
        time_limit=timedelta(microseconds=1),
        child_policy=ChildPolicy.WAIT,
        limits=LIMITS,
        output=OutputMode.SPLIT,
        output_limit=OutputLimit(size=2**40, policy=OverflowPolicy.STOP),
    ),
    JobSpec(argv=("true",), time_limit=MAX_TIME_LIMIT - timedelta(microseconds=1), limits=Limits(swap=0)),
]


def through_json(record: Record) -> Record:
    """As a record is after it has been written and read."""
    return json.loads(json.dumps(record))


@pytest.mark.parametrize("spec", SPECS)
def test_a_spec_comes_back_as_it_was(spec: JobSpec) -> None:
    """Every field, whatever its bytes, and equal to what it was."""
    again = spec_from(through_json(spec_record(spec)))
    assert again == spec
    assert again.limits.requested() == spec.limits.requested()
    assert again.command_bytes == spec.command_bytes


@pytest.mark.parametrize("spec", SPECS)
@pytest.mark.parametrize("request_id", [None, "0b2f8a1e-0000-4000-8000-000000000000"])
def test_a_job_comes_back_as_it_was_accepted(spec: JobSpec, request_id: str | None) -> None:
    """With its owner, request id and creation time to the microsecond; in UTC wherever it was made."""
    job = Job(
        id="x", owner="ada \u00e9", spec=spec, create_time=TIME, request_id=request_id, output_limit=spec.output_limit
    )
    assert job_from(through_json(job_record(job))) == job


@pytest.mark.parametrize("cause", list(Cause))
@pytest.mark.parametrize("exit_code, signal", [(0, None), (255, None), (None, 9), (None, None)])
def test_an_end_comes_back_as_it_was(cause: Cause, exit_code: int | None, signal: int | None) -> None:
    """Every cause, with either code or neither, and sizes beyond 32 bits."""
    end = JobEnd(
        cause=cause,
        end_time=TIME,
        exit_code=exit_code,
        signal=signal,
        output_bytes=2**40,
        output_first_offset=2**39,
        output_dropped_bytes=2**41,
    )
    assert end_from(through_json(end_record(end))) == end


def test_a_stop_comes_back_as_it_was() -> None:
    """Who, when, with which signal and grace."""
    stop = StopRequest(requested_by="bob", request_time=TIME, signal=2, grace=timedelta(milliseconds=1500))
    assert stop_from(through_json(stop_record(stop))) == stop


def test_readers_take_what_other_releases_wrote() -> None:
    """A field that is missing has its default, one that is unknown is ignored."""
    assert spec_from({"argv": ["a"], "colour": "red"}) == JobSpec(argv=("a",))
    assert spec_from({"argv": ["a"], "limits": {"pids": 3, "gpus": 1}}).limits == Limits(pids=3)
    old: Record = {"cause": "EXITED", "end_time": time_text(TIME), "exit_code": 3, "usage": {}}
    assert end_from(old) == JobEnd(cause=Cause.EXITED, end_time=TIME, exit_code=3)


def test_times_sort_as_their_texts_do() -> None:
    """Always UTC, always with microseconds."""
    whole = TIME.replace(microsecond=0)
    elsewhere = TIME.astimezone(timezone(timedelta(hours=5)))
    assert time_text(whole) < time_text(TIME) < time_text(TIME + timedelta(seconds=1))
    assert time_text(elsewhere) == time_text(TIME)
    assert time_from(time_text(elsewhere)) == TIME
