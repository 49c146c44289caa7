"""What a store does not take is told to it again, until it has taken it or the job is gone."""

from __future__ import annotations

from collections.abc import AsyncGenerator
from pathlib import Path

import pytest

from jobworker.core.errors import StoreError
from jobworker.core.job import Job
from jobworker.core.spec import JobSpec
from jobworker.store.sqlite import SqliteStore
from jobworker.worker import Worker
from tests.support.polling import until
from tests.unit.worker.place import Place

SPEC = JobSpec(argv=("true",))


class Full(SqliteStore):
    """Takes no jobs until there is `room`, and counts those that it is offered."""

    room = False
    offers = 0

    async def put(self, job: Job) -> None:
        """Remember a job, or not."""
        self.offers += 1
        if not self.room:
            raise StoreError("the disk is full")
        await super().put(job)


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


async def test_a_job_that_is_removed_before_the_store_has_taken_it_does_not_come_back(store: Full) -> None:
    """It is not told to the store any more, and keeps no other one out."""
    place = Place()
    async with Worker(place, store, durability="process") as worker:
        job = await worker.start(SPEC, "ada")
        place.played(job).end()
        await worker.wait(job.id)
        await worker.remove(job.id)
        store.room = True
        other = await until(lambda: started(worker))
        assert (await worker.list()).jobs == (other,)
