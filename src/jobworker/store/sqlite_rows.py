"""Jobs as rows of the table `jobs`."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any, TypeVar

from jobworker.core.errors import InvalidArgumentError, StoreError
from jobworker.core.job import Job
from jobworker.core.records import (
    end_from,
    end_record,
    limits_from,
    limits_record,
    output_limit_from,
    output_limit_record,
    spec_from,
    spec_record,
    stop_from,
    stop_record,
    time_from,
    time_text,
)

# ASCII, because arguments that are no UTF-8 have lone surrogates, which SQLite cannot keep.
_json = json.JSONEncoder(separators=(",", ":")).encode

Row = tuple[Any, ...]
Value = TypeVar("Value")

DETAILS = 'request_id, start_time, stop, "end", output_bytes, limits, output_limit, spec'
COLUMNS = f"id, create_time, owner, {DETAILS}"  # what `job_from_row` takes


def job_row(job: Job) -> dict[str, str | int | None]:
    """A job's columns by name."""
    return {
        **changing_row(job),
        "owner": job.owner,
        "request_id": job.request_id,
        "create_time": time_text(job.create_time),
        "spec": _json(spec_record(job.spec)),
        "output_limit": _json(output_limit_record(job.output_limit)),
    }


def changing_row(job: Job) -> dict[str, str | int | None]:
    """The columns of a job that change, and its id."""
    return {
        "id": job.id,
        "state": job.state.value,
        "start_time": None if job.start_time is None else time_text(job.start_time),
        "stop": None if job.stop is None else _json(stop_record(job.stop)),
        "end": None if job.end is None else _json(end_record(job.end)),
        "output_bytes": job.output_bytes,
        "limits": _json(limits_record(job.limits)),
    }


def job_from_row(row: Row) -> Job:
    """The job of a row of `COLUMNS`. Raises `StoreError` for one that no release has written."""
    job_id, create_time, owner, request_id, start_time, stop, end, output_bytes, limits, output_limit, spec = row
    try:
        ended = _optional(lambda text: end_from(json.loads(text)), end)
        return Job(
            id=job_id,
            owner=owner,
            request_id=request_id,
            create_time=time_from(create_time),
            start_time=_optional(time_from, start_time),
            stop=_optional(lambda text: stop_from(json.loads(text)), stop),
            end=ended,
            output_bytes=output_bytes,
            output_first_offset=0 if ended is None else ended.output_first_offset,
            limits=limits_from(json.loads(limits)),
            output_limit=output_limit_from(json.loads(output_limit)),
            spec=spec_from(json.loads(spec)),
        )
    except (ValueError, KeyError, TypeError, AttributeError, InvalidArgumentError) as error:
        raise StoreError(f"job {job_id} cannot be read from the job database: {error!r}") from error


def _optional(convert: Callable[[str], Value], text: str | None) -> Value | None:
    return None if text is None else convert(text)
