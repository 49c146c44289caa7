"""What became of the jobs while no worker was there: store, job directories and living supervisors, made one truth."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime

from jobworker.core.errors import JobworkerError
from jobworker.core.job import Job, JobEnd
from jobworker.core.state import Cause
from jobworker.executors.base import Execution, Executor
from jobworker.runtime.gaps import Extent
from jobworker.store.base import JobStore
from jobworker.worker.live import LiveJob

# For all of it. A supervisor that does not answer is given up much earlier and its job adopted all the same.
RECOVERY_BUDGET = 60.0
AT_A_TIME = 32  # directories that are looked at side by side; each holds a few descriptors meanwhile
ATTEMPTS = 10  # at looking at one, before it counts as unreadable
RETRY = 0.5  # seconds between them: nobody tells when there are descriptors again
# What a damaged record, or none where there should be one, leads to.
UNREADABLE = (JobworkerError, OSError, ValueError, LookupError, TypeError, AttributeError)


@dataclass(kw_only=True, slots=True)
class RecoveryReport:
    """What was found, in ids of jobs.

    `adopted` run on, `ended` had ended meanwhile, `never_ran` were accepted and not started (nobody was told that they
    were), `forgotten` had no directory any more, `unreadable` have records that cannot be read (with what is wrong) and
    were left alone; those of them that the store has are LOST there.
    """

    adopted: list[str] = field(default_factory=list[str])
    ended: list[str] = field(default_factory=list[str])
    never_ran: list[str] = field(default_factory=list[str])
    forgotten: list[str] = field(default_factory=list[str])
    unreadable: dict[str, str] = field(default_factory=dict[str, str])


async def recover(executor: Executor, store: JobStore, adopt: Callable[[LiveJob], None]) -> RecoveryReport:
    """Find out about every job, put the store right, and hand those that run to `adopt`. Raises `TimeoutError`."""
    report = RecoveryReport()
    async with asyncio.timeout(RECOVERY_BUDGET):
        on_disk = await executor.known_ids()
        ended = await store.ended_ids()
        open_ = set(await store.open_ids())
        for job_id in (ended | open_) - on_disk:
            await store.remove(job_id)
            report.forgotten.append(job_id)
        slots = asyncio.Semaphore(AT_A_TIME)
        async with asyncio.TaskGroup() as group:
            for job_id in on_disk - ended:
                group.create_task(_recover_one(job_id, executor, store, adopt, report, slots))
    return report


async def _recover_one(  # noqa: PLR0913, PLR0917 - the step of a loop, with what the loop has at hand
    job_id: str,
    executor: Executor,
    store: JobStore,
    adopt: Callable[[LiveJob], None],
    report: RecoveryReport,
    slots: asyncio.Semaphore,
) -> None:
    async with slots:
        try:
            found = await _recovered(job_id, executor)
        except UNREADABLE as error:
            report.unreadable[job_id] = f"{type(error).__name__}: {error}"
            await _give_up(job_id, executor, store)
            return
        if found is None:
            await store.remove(job_id)
            report.never_ran.append(job_id)
            return
        await _settle(*found, store, adopt, report)


async def _recovered(job_id: str, executor: Executor) -> tuple[Job, Execution | None] | None:
    for _ in range(ATTEMPTS - 1):
        with suppress(OSError):  # out of descriptors, most likely
            return await executor.recover(job_id)
        await asyncio.sleep(RETRY)
    return await executor.recover(job_id)


async def _give_up(job_id: str, executor: Executor, store: JobStore) -> None:
    """Have the store say of a job whose records cannot be read that it is lost: nobody can watch or stop it."""
    job = await store.get(job_id)
    if job is not None:
        await store.put(replace(job, end=lost_now(executor.output_extent(job_id))))


def lost_now(output: Extent) -> JobEnd:
    """The end of a job of which nobody will know more than its output."""
    return JobEnd(
        cause=Cause.LOST,
        end_time=datetime.now(UTC),
        output_bytes=output.end,
        output_first_offset=output.first,
        output_dropped_bytes=output.dropped,
    )


async def _settle(
    job: Job, execution: Execution | None, store: JobStore, adopt: Callable[[LiveJob], None], report: RecoveryReport
) -> None:
    """Have the store say of a job what its own records say."""
    await store.put(job)
    if execution is None:
        report.ended.append(job.id)
    else:
        adopt(LiveJob(job, execution))
        report.adopted.append(job.id)
