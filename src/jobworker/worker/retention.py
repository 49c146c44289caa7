"""How long ended jobs and their output are kept, and how."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta

from jobworker.core.job import Job, JobEnd
from jobworker.core.query import MAX_PAGE_SIZE, JobFilter
from jobworker.core.state import JobState
from jobworker.executors.base import Executor, KeptOutput, OutputForm
from jobworker.runtime.gaps import Extent
from jobworker.store.base import JobStore

SMALL = 4096  # bytes of output: a block of the disk, less than which nothing takes

_ENDED = JobFilter(states=frozenset(state for state in JobState if state.ended))
_AS_IT_IS = KeptOutput(OutputForm.RAW, SMALL)


@dataclass(frozen=True, kw_only=True, slots=True)
class Retention:
    """When ended jobs go: at an `age` since their end, and the oldest ones while the output exceeds `total_bytes`.

    The output of running jobs counts, and that of ended ones as it is kept here: it is compressed `compress_after` the
    end, and archived `archive_after` it, unless it takes no more than a block. `None` is no bound, and never.
    """

    age: timedelta | None = timedelta(days=30)
    total_bytes: int | None = 50 * 1024**3
    compress_after: timedelta | None = None
    archive_after: timedelta | None = None


async def expired(
    store: JobStore, executor: Executor, retention: Retention, now: datetime, running_bytes: int
) -> AsyncIterator[tuple[str, OutputForm]]:
    """Ids of the ended jobs that are to go, and how their output is kept, by a walk over all ended jobs, newest first.

    `running_bytes` is what is kept of the output of those that run.
    """
    newer_bytes = running_bytes
    async for page in _ended(store):
        for (job, end), kept in zip(page, await _kept(executor, page), strict=True):
            if retention.age is not None and end.end_time < now - retention.age:
                yield job.id, kept.form
                continue
            # Of this one and of all newer ones, whether they have to go or not.
            newer_bytes += min(_kept_bytes(end), kept.disk_bytes)
            if retention.total_bytes is not None and newer_bytes > retention.total_bytes:
                yield job.id, kept.form


async def pack(
    store: JobStore,
    executor: Executor,
    retention: Retention,
    now: datetime,
    report: Callable[[str, OSError], None],
) -> None:
    """Compress and archive the output of ended jobs that has come of age; `report` is told what could not be done.

    After one that the archive does not take, none is offered to it.
    """
    archives = retention.archive_after is not None
    if retention.compress_after is None and not archives:
        return
    async for page in _ended(store):
        large = [(job, end) for job, end in page if _kept_bytes(end) > SMALL]
        for (job, end), kept in zip(large, await _kept(executor, large), strict=True):
            to_archive = archives and _is_over(end, retention.archive_after, now)
            try:
                if to_archive and kept.form is not OutputForm.ARCHIVED:
                    await executor.archive_output(job.id)
                elif kept.form is OutputForm.RAW and _is_over(end, retention.compress_after, now):
                    await executor.compress_output(job.id)
            except OSError as error:
                archives = archives and not to_archive
                report(job.id, error)


def _kept_bytes(end: JobEnd) -> int:
    return Extent(end.output_first_offset, end.output_bytes, end.output_dropped_bytes).kept


def _is_over(end: JobEnd, time: timedelta | None, now: datetime) -> bool:
    return time is not None and end.end_time <= now - time


async def _kept(executor: Executor, jobs: Sequence[tuple[Job, JobEnd]]) -> list[KeptOutput]:
    """How the outputs of jobs are kept; small ones are not looked at."""
    looked_at = [job.id for job, end in jobs if _kept_bytes(end) > SMALL]
    found = iter(await executor.kept_outputs(looked_at) if looked_at else ())
    return [next(found) if _kept_bytes(end) > SMALL else _AS_IT_IS for _, end in jobs]


async def _ended(store: JobStore) -> AsyncIterator[Sequence[tuple[Job, JobEnd]]]:
    """All ended jobs with their ends, newest first, in pages."""
    token: str | None = None
    while True:
        page = await store.page(_ENDED, size=MAX_PAGE_SIZE, token=token)
        yield [(job, job.end) for job in page.jobs if job.end is not None]  # none is, with this filter
        token = page.next_page_token
        if token is None:
            return
