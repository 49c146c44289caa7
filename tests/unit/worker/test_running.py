"""What a store does not take is told to it again, until it has taken it or the job is gone."""

from __future__ import annotations

import sqlite3
from collections.abc import AsyncGenerator
from contextlib import closing
from pathlib import Path

import pytest

from jobworker.core.errors import JobEndedError, JobNotFoundError, PauseNotSupportedError, StoreError
from jobworker.core.job import Job
from jobworker.core.limits import Limits
from jobworker.core.spec import JobSpec
from jobworker.store.sqlite import SqliteStore
from jobworker.worker import Worker
from tests.support.polling import until
from tests.unit.worker.place import Place

SPEC = JobSpec(argv=("true",))


class Full(SqliteStore):
    """Takes and forgets no jobs until there is `room`, and counts those that it is offered."""

    room = False
    offers = 0

    async def put(self, job: Job) -> None:
        """Remember a job, or not."""
        self.offers += 1
        if not self.room:
            raise StoreError("the disk is full")
        await super().put(job)

    async def remove(self, job_id: str) -> None:
        """Forget a job, or not."""
        if not self.room:
            raise StoreError("the disk is full")
        await super().remove(job_id)


@pytest.fixture
async def store(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> AsyncGenerator[Full]:
    """Such a store, which is tried again at once."""
    monkeypatch.setattr("jobworker.worker.running.RETRY", 0.001)
    async with await Full.open(tmp_path / "jobs.db") as store:
        yield store


async def started(worker: Worker) -> Job | None:
    """A job, if it is let in."""
    try:
        return await worker.start(SPEC, "ada")
    except StoreError:
        return None


async def test_starts_are_let_in_again_when_the_store_takes_what_it_has_refused(store: Full) -> None:
    """Of a job that ends meanwhile, its start and its end come to the store at once, in whichever order."""
    place = Place()
    async with Worker(place, store, durability="process") as worker:
        job = await worker.start(SPEC, "ada")
        with pytest.raises(StoreError, match="full"):
            await worker.start(SPEC, "ada")
        place.played(job).end()
        ended = await worker.wait(job.id)
        offers = store.offers
        await until(lambda: store.offers > offers + 2)
        assert await started(worker) is None
        store.room = True
        await until(lambda: started(worker))
        assert ended in (await worker.list()).jobs


async def test_starts_and_ends_are_told_while_another_program_holds_the_database(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The store has to wait; nobody waits for the store."""
    monkeypatch.setattr("jobworker.store.sqlite_file._BUSY_SECONDS", 3600.0)
    path, place = tmp_path / "jobs.db", Place()
    async with await SqliteStore.open(path) as store, Worker(place, store, durability="process") as worker:
        with closing(sqlite3.connect(path, isolation_level=None)) as other:
            other.execute("BEGIN IMMEDIATE")
            jobs = [await worker.start(SPEC, "ada") for _ in range(3)]
            for job in jobs:
                place.played(job).end()
            ended = [await worker.wait(job.id) for job in jobs]
            assert all(job.end for job in ended)
            other.execute("ROLLBACK")
        assert {job.id for job in (await worker.list()).jobs} == {job.id for job in jobs}


async def test_a_job_has_ended_for_everybody_before_the_store_knows(store: Full) -> None:
    """Nothing is asked of its supervisor any more, which would say something else."""
    place = Place()
    async with Worker(place, store, durability="process") as worker:
        job = await worker.start(SPEC, "ada")
        place.played(job).refusal = PauseNotSupportedError()
        place.played(job).end()
        await worker.wait(job.id)
        for change in (worker.update(job.id, Limits(pids=5)), worker.signal(job.id, 1), worker.stop(job.id, by="ada")):
            with pytest.raises(JobEndedError):
                await change


async def test_a_job_that_cannot_be_removed_stays_what_it_is(store: Full) -> None:
    """Its end has been told, and is told on; once the store works again, the job can be removed."""
    place = Place()
    async with Worker(place, store, durability="process") as worker:
        store.room = True
        job = await worker.start(SPEC, "ada")
        assert [one.id for one in (await worker.list()).jobs] == [job.id]
        store.room = False
        place.played(job).end()
        ended = await worker.wait(job.id)
        with pytest.raises(StoreError, match="full"):
            await worker.remove(job.id)
        assert await worker.get(job.id) == await worker.wait(job.id) == ended
        store.room = True
        await worker.remove(job.id)
        with pytest.raises(JobNotFoundError):
            await worker.get(job.id)
        assert not (await worker.list()).jobs


async def test_a_job_that_is_removed_while_the_store_is_told_of_it_does_not_come_back(
    store: Full, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The store takes its end right after it has forgotten the job, and is told once more to do so."""
    place = Place()
    async with Worker(place, store, durability="process") as worker:
        job = await worker.start(SPEC, "ada")
        place.played(job).end()
        await worker.wait(job.id)

        async def forgets_and_is_told(_: Full, job_id: str) -> None:
            await SqliteStore.remove(store, job_id)
            if not store.room:
                store.room = True
                await until(lambda: store.get(job_id))

        monkeypatch.setattr(Full, "remove", forgets_and_is_told)
        await worker.remove(job.id)
        other = await worker.start(SPEC, "ada")
        assert (await worker.list()).jobs == (other,)
