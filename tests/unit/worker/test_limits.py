"""The worker resolves limits, keeps those in force, and asks no more of a job than it can do."""

from __future__ import annotations

import asyncio
import uuid
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from jobworker.core.errors import (
    InvalidArgumentError,
    JobEndedError,
    JobNotFoundError,
    LimitAboveMaximumError,
    LimitNotEnforceableError,
    RequestIdReusedError,
)
from jobworker.core.job import Job
from jobworker.core.limit_policy import LimitPolicy
from jobworker.core.limits import IoLimit, Limits
from jobworker.core.spec import JobSpec
from jobworker.core.state import Cause
from jobworker.core.usage import Usage
from jobworker.store.sqlite import SqliteStore
from jobworker.worker import Worker
from tests.support.polling import until
from tests.unit.worker.place import USAGE, Place

MIB = 1024**2
TRUE = JobSpec(argv=("true",))
POLICY = LimitPolicy(default=Limits(cpus=1), maximum=Limits(cpus=2, pids=100))


def asking(**limits: int) -> JobSpec:
    """A job that asks for limits."""
    return JobSpec(argv=("true",), limits=Limits(**limits))  # pyright: ignore[reportArgumentType] -- the caller's to get right


@asynccontextmanager
async def worker_on(place: Place, path: Path) -> AsyncGenerator[Worker]:
    """A worker of a place, with a store in a file."""
    async with await SqliteStore.open(path) as store, Worker(place, store, durability="process") as worker:
        yield worker


@pytest.fixture
def place() -> Place:
    """A place that can enforce everything."""
    return Place()


@pytest.fixture
async def worker(place: Place, tmp_path: Path) -> AsyncGenerator[Worker]:
    """A worker of that place."""
    async with worker_on(place, tmp_path / "jobs.db") as worker:
        yield worker


async def test_a_job_is_started_with_its_effective_limits(worker: Worker, place: Place) -> None:
    """The place gets them, the job shows them, and the spec stays what was asked for."""
    job = await worker.start(asking(pids=5), "ada", limit_policy=POLICY)
    assert job.limits == Limits(cpus=1, pids=5)
    assert job.spec.limits == Limits(pids=5)
    assert place.jobs[job.id][0].limits == job.limits
    assert (await worker.get(job.id)).limits == job.limits
    assert (await worker.list()).jobs[0].limits == job.limits


async def test_too_much_is_refused_and_leaves_nothing(worker: Worker, place: Place) -> None:
    """Neither a job nor a row is left, and the same request id can be used for something else."""
    request_id = str(uuid.uuid4())
    with pytest.raises(LimitAboveMaximumError):
        await worker.start(asking(pids=101), "ada", request_id, limit_policy=POLICY)
    assert (await worker.list()).jobs == ()
    assert not place.jobs
    await worker.start(asking(pids=100), "ada", request_id, limit_policy=POLICY)


async def test_what_cannot_be_enforced_is_refused_with_the_reason(tmp_path: Path) -> None:
    """An explicit limit is never dropped; a default or a maximum is left out, and the job shows that."""
    place = Place(enforceable=("pids",), missing=(("memory", "no memory controller"),))
    async with worker_on(place, tmp_path / "jobs.db") as worker:
        with pytest.raises(LimitNotEnforceableError, match=r"limits\.memory: no memory controller; go without it"):
            await worker.start(asking(memory=5 * MIB), "ada")
        job = await worker.start(TRUE, "ada", limit_policy=POLICY)
        assert job.limits == Limits(pids=100)
        with pytest.raises(LimitNotEnforceableError, match="cpus"):
            await worker.update(job.id, Limits(cpus=1))
        assert worker.info.missing_limits == (("memory", "no memory controller"),)


async def test_all_that_cannot_be_enforced_is_named(tmp_path: Path) -> None:
    """In the order of their declaration, each with the reason; those with the same one together."""
    missing = (("memory", "no controller"), ("io", "no disk"), ("pids", "no controller"), ("cpus", "no controller"))
    place = Place(enforceable=("cpu_weight",), missing=missing)
    asked = JobSpec(
        argv=("true",),
        limits=Limits(cpus=1, memory=5 * MIB, pids=5, cpu_weight=5, io=(IoLimit(read_bytes_per_second=5),)),
    )
    async with worker_on(place, tmp_path / "jobs.db") as worker:
        with pytest.raises(LimitNotEnforceableError) as refused:
            await worker.start(asked, "ada")
    assert refused.value.limit == "cpus"
    assert str(refused.value) == (
        "limits.cpus: no controller (and so limits.memory, limits.pids); limits.io: no disk; go without them"
    )


async def test_a_repeated_start_is_compared_by_what_it_asks_for(worker: Worker) -> None:
    """Other defaults, or an update in between, make no other job of it; another wish does."""
    request_id = str(uuid.uuid4())
    first = await worker.start(asking(pids=5), "ada", request_id, limit_policy=POLICY)
    await worker.update(first.id, Limits(pids=6))
    again = await worker.start(asking(pids=5), "ada", request_id, limit_policy=LimitPolicy(maximum=Limits(pids=1)))
    assert (again.id, again.limits.pids) == (first.id, 6)
    with pytest.raises(RequestIdReusedError):
        await worker.start(asking(pids=6), "ada", request_id, limit_policy=POLICY)


async def test_an_update_is_in_force_and_remembered(tmp_path: Path, place: Place) -> None:
    """The next worker knows it, and so does one whose store was lost."""
    async with worker_on(place, tmp_path / "jobs.db") as worker:
        job = await worker.start(asking(memory=5 * MIB), "ada")
        updated = await worker.update(job.id, Limits(memory=6 * MIB))
        assert updated.limits == Limits(memory=6 * MIB, swap=0, oom_group=True)
        assert place.played(job).limits == [updated.limits]
        assert (await worker.get(job.id)).limits == updated.limits
    for database in ("jobs.db", "new.db"):
        async with worker_on(place, tmp_path / database) as worker:
            assert (await worker.get(job.id)).limits == updated.limits
    place.played(job).end()
    async with worker_on(place, tmp_path / "jobs.db") as worker:
        ended = await worker.wait(job.id)
        assert ended.limits == updated.limits


async def test_an_update_that_is_refused_changes_nothing(worker: Worker, place: Place) -> None:
    """By its maximum, by the kernel, or because it says nothing."""
    job = await worker.start(asking(pids=5), "ada")
    with pytest.raises(LimitAboveMaximumError):
        await worker.update(job.id, Limits(pids=101), limit_policy=POLICY)
    with pytest.raises(InvalidArgumentError):
        await worker.update(job.id, Limits())
    place.played(job).refusal = LimitNotEnforceableError("pids", "the kernel said no")
    with pytest.raises(LimitNotEnforceableError):
        await worker.update(job.id, Limits(pids=6))
    assert (await worker.get(job.id)).limits == Limits(pids=5)


async def test_two_updates_at_once_are_both_in_force(worker: Worker, place: Place) -> None:
    """The second takes the first into account, however slow that is."""
    job = await worker.start(TRUE, "ada")
    played = place.played(job)
    played.may_update.clear()
    async with asyncio.TaskGroup() as group:
        for limits in (Limits(pids=5), Limits(cpus=2)):
            group.create_task(worker.update(job.id, limits))
        await asyncio.sleep(0)  # one turn of the loop, so that both have begun
        played.may_update.set()
    assert (await worker.get(job.id)).limits == Limits(pids=5, cpus=2)
    assert played.limits == [Limits(pids=5), Limits(pids=5, cpus=2)]
    assert played.before == [Limits(), Limits(pids=5)]


async def test_an_update_goes_on_without_its_caller(worker: Worker, place: Place) -> None:
    """What is in force is what is remembered, also where nobody waits for it any more."""
    job = await worker.start(TRUE, "ada")
    played = place.played(job)
    played.may_update.clear()
    update = asyncio.ensure_future(worker.update(job.id, Limits(pids=5)))
    await until(lambda: played.before)
    update.cancel()
    with pytest.raises(asyncio.CancelledError):
        await update
    played.may_update.set()
    await worker.update(job.id, Limits(cpus=2))  # after that one
    assert played.limits == [Limits(pids=5), Limits(pids=5, cpus=2)]
    assert (await worker.get(job.id)).limits == Limits(pids=5, cpus=2)


async def test_a_limit_can_be_given_back(worker: Worker) -> None:
    """It becomes what a new job would get."""
    job = await worker.start(asking(cpus=2, memory=5 * MIB), "ada", limit_policy=POLICY)
    updated = await worker.update(job.id, Limits(), ["cpus"], limit_policy=POLICY)
    assert updated.limits == Limits(cpus=1, memory=5 * MIB, swap=0, oom_group=True, pids=100)


async def test_a_paused_job_says_so_and_can_be_stopped(worker: Worker) -> None:
    """To pause it again changes nothing; once it has ended it is not paused any more."""
    job = await worker.start(TRUE, "ada")
    for _ in range(2):
        assert (await worker.pause(job.id)).paused
    assert (await worker.list()).jobs[0].paused
    assert not (await worker.resume(job.id)).paused
    await worker.pause(job.id)
    stopped = await worker.stop(job.id, by="ada")
    assert (stopped.end and stopped.end.cause, stopped.paused) == (Cause.STOPPED, False)


async def ended_meanwhile(worker: Worker, place: Place) -> Job:
    """A job that has ended, of which the worker has not heard yet."""
    job = await worker.start(TRUE, "ada")
    place.played(job).end()
    return job


async def test_a_job_that_has_ended_cannot_be_changed(worker: Worker, place: Place) -> None:
    """Neither one that has ended long ago nor one that ends in this moment; one that is not there is not found."""
    over = await worker.start(TRUE, "ada")
    place.played(over).end()
    await worker.wait(over.id)
    for action in ("pause", "resume", "update"):
        for job in (over, await ended_meanwhile(worker, place)):
            with pytest.raises(JobEndedError, match=f"cannot {action} job {job.id}: already finished"):
                await act(worker, action, job.id)
        with pytest.raises(JobNotFoundError):
            await act(worker, action, str(uuid.uuid4()))


async def act(worker: Worker, action: str, job_id: str) -> Job:
    """Do something to a job."""
    if action == "update":
        return await worker.update(job_id, Limits(pids=5))
    return await (worker.pause(job_id) if action == "pause" else worker.resume(job_id))


async def test_usage_is_the_kernels_while_a_job_runs_and_the_records_after(worker: Worker, place: Place) -> None:
    """Live, then as recorded; of a lost job nobody knows."""
    job, lost = await worker.start(TRUE, "ada"), await worker.start(TRUE, "ada")
    assert await worker.usage(job.id) == USAGE
    assert await worker.usages([job.id, lost.id, "nobody's"]) == {job.id: USAGE, lost.id: USAGE}
    final = Usage(wall_seconds=3, cpu_seconds=2)
    place.played(job).end(usage=final)
    place.played(lost).end(Cause.LOST)
    await worker.wait(job.id)
    await worker.wait(lost.id)
    assert await worker.usage(job.id) == final
    assert await worker.usages([job.id, lost.id]) == {}
    assert await worker.usages([(await ended_meanwhile(worker, place)).id]) == {}
    with pytest.raises(JobEndedError, match="cannot tell the usage of"):
        await worker.usage(lost.id)
    with pytest.raises(JobNotFoundError):
        await worker.usage(str(uuid.uuid4()))
