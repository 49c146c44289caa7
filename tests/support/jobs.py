"""Jobs for tests of whatever keeps or shows them."""

from __future__ import annotations

import uuid
from collections.abc import Mapping
from dataclasses import replace
from datetime import UTC, datetime, timedelta

from jobworker.core.job import Job, JobEnd
from jobworker.core.spec import JobSpec
from jobworker.core.state import Cause

NOON = datetime(2026, 3, 1, 12, tzinfo=UTC)


def accepted_job(  # noqa: PLR0913 - what tests vary, all by keyword
    *,
    job_id: str | None = None,
    owner: str = "ada",
    request_id: str | None = None,
    create_time: datetime = NOON,
    spec: JobSpec | None = None,
    labels: Mapping[str, str] | None = None,
) -> Job:
    """A job whose process has not been started. `labels` are for those who need no other `spec`."""
    return Job(
        id=job_id or str(uuid.uuid4()),
        owner=owner,
        request_id=request_id,
        create_time=create_time,
        spec=spec or JobSpec(argv=("true",), labels=labels or {}),
    )


def started(job: Job) -> Job:
    """The job, a millisecond after it was accepted."""
    return replace(job, start_time=job.create_time + timedelta(milliseconds=1))


def ended(job: Job, cause: Cause = Cause.EXITED, *, output_bytes: int = 0) -> Job:
    """The job, started and ended a minute after it was accepted."""
    end = JobEnd(
        cause=cause,
        end_time=job.create_time + timedelta(minutes=1),
        exit_code=0 if cause is Cause.EXITED else None,
        output_bytes=output_bytes,
    )
    return replace(started(job), end=end, output_bytes=output_bytes)
